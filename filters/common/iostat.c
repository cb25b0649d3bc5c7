/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/iostat.h"

#include <string.h>

#include "common/histogram.h"

_Static_assert(sizeof(WeirIostat) == 34 * 1024, "the size iostat.h states");

void weir_iostat_init(WeirIostat *st)
{
    memset(st, 0, sizeof(*st));
}

static void add_cell(WeirIostatCounters *out, const WeirIostatCell *cell)
{
    for (int i = 0; i < WEIR_IOSTAT_LATENCY_BUCKETS; i++) {
        out->latency[i] += weir_stripe_load(&cell->latency[i]);
    }
    out->bytes += weir_stripe_load(&cell->bytes);
    out->failed += weir_stripe_load(&cell->failed);
    out->latency_total_ns += weir_stripe_load(&cell->latency_total_ns);
}

/*
 * What has begun is read after what has ended: an end that was seen has its
 * begin before it, so that begun - ended is never negative.
 */
void weir_iostat_read(const WeirIostat *st, WeirIoOp op,
                      WeirIostatCounters *out)
{
    uint64_t begun = 0;

    memset(out, 0, sizeof(*out));
    for (int i = 0; i < WEIR_STRIPES; i++) {
        add_cell(out, &st->stripe[i].op[op]);
    }
    for (int i = 0; i < WEIR_STRIPES; i++) {
        begun += weir_stripe_load(&st->stripe[i].op[op].begun);
    }
    out->operations = weir_histogram_total(out->latency,
                                           WEIR_IOSTAT_LATENCY_BUCKETS);
    out->in_flight = begun - out->operations;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_IOSTAT_H
#define WEIR_COMMON_IOSTAT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/histogram.h"
#include "common/stripe.h"

/*
 * Statistics of one filter node: what each kind of operation did, how much,
 * how long it took. Updated by any thread without a lock; see stripe.h for
 * how threads stay out of each other's way.
 */

#define WEIR_IOSTAT_LATENCY_BUCKETS 40

typedef enum WeirIoOp {
    WEIR_IO_READ,
    WEIR_IO_WRITE,
    WEIR_IO_ZEROES,
    WEIR_IO_DISCARD,
    WEIR_IO_FLUSH,
    WEIR_IO_COPY,
    WEIR_IO__MAX
} WeirIoOp;

/* What one stripe has counted for one kind of operation; see stripe.h. */
typedef struct WeirIostatCell {
    uint64_t begun;
    uint64_t bytes;
    uint64_t failed;
    uint64_t latency_total_ns;
    uint64_t latency[WEIR_IOSTAT_LATENCY_BUCKETS];
} WeirIostatCell;

/*
 * May be embedded anywhere (no alignment beyond uint64_t's: the padding keeps
 * two stripes from sharing a cache line). 34 KiB.
 */
typedef struct WeirIostat {
    struct {
        WeirIostatCell op[WEIR_IO__MAX];
        char padding[WEIR_CACHE_LINE_BYTES];
    } stripe[WEIR_STRIPES];
} WeirIostat;

/* Read-out of one kind of operation. */
typedef struct WeirIostatCounters {
    uint64_t operations;        /* ended, failed ones included */
    uint64_t bytes;             /* of those that succeeded */
    uint64_t failed;
    uint64_t in_flight;         /* begun and not ended */
    uint64_t latency_total_ns;  /* over all `operations` */
    /* [i]: took [2^i, 2^(i+1)) ns, 0 ns in [0], the last has all above */
    uint64_t latency[WEIR_IOSTAT_LATENCY_BUCKETS];
} WeirIostatCounters;

/*
 * Set all counters to zero.
 * st: the caller's memory. No other thread may use it yet; nothing to free.
 * Does not block.
 */
void weir_iostat_init(WeirIostat *st);

/*
 * An operation starts. Each begin is followed by one end of the same op, by
 * any thread.
 * Thread-safe, lock-free, does not block.
 */
static inline void weir_iostat_begin(WeirIostat *st, WeirIoOp op)
{
    unsigned stripe = weir_stripe();

    weir_stripe_add(&st->stripe[stripe].op[op].begun, 1, stripe);
}

/*
 * An operation has ended.
 * bytes: its length (0 for a flush), counted when it did not fail.
 * latency_ns: from begin to end. failed: it ended with an error.
 * Thread-safe, lock-free, does not block.
 */
static inline void weir_iostat_end(WeirIostat *st, WeirIoOp op,
                                   uint64_t bytes, uint64_t latency_ns,
                                   bool failed)
{
    unsigned stripe = weir_stripe();
    WeirIostatCell *cell = &st->stripe[stripe].op[op];
    unsigned bucket = weir_histogram_bucket(latency_ns,
                                            WEIR_IOSTAT_LATENCY_BUCKETS);

    if (failed) {
        weir_stripe_add(&cell->failed, 1, stripe);
    } else {
        weir_stripe_add(&cell->bytes, bytes, stripe);
    }
    weir_stripe_add(&cell->latency_total_ns, latency_ns, stripe);
    weir_stripe_add(&cell->latency[bucket], 1, stripe);
}

/*
 * Add up what all threads have counted for one kind of operation.
 * out: filled by the call.
 * Thread-safe, lock-free, does not block. Counters move while they are read:
 * one field may be some operations ahead of another, but none ever goes back
 * and in_flight is never less than zero.
 */
void weir_iostat_read(const WeirIostat *st, WeirIoOp op,
                      WeirIostatCounters *out);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/histogram.h"

uint64_t weir_histogram_total(const uint64_t *counts, size_t buckets)
{
    uint64_t total = 0;

    for (size_t i = 0; i < buckets; i++) {
        total += counts[i];
    }
    return total;
}

/* Which one of `total` sorted values the percentile is, 1..total. */
static uint64_t percentile_rank(uint64_t total, unsigned permille)
{
    uint64_t rank;

    if (permille >= 1000) {
        return total;
    }
    rank = total / 1000 * permille + (total % 1000 * permille + 999) / 1000;
    return rank ? rank : 1;
}

uint64_t weir_histogram_percentile(const uint64_t *counts, size_t buckets,
                                   unsigned permille)
{
    uint64_t total = weir_histogram_total(counts, buckets);
    uint64_t rank = percentile_rank(total, permille);
    size_t i = 0;

    if (!total) {
        return 0;
    }
    while (rank > counts[i]) {
        rank -= counts[i++];
    }

    uint64_t from = i ? UINT64_C(1) << i : 0;
    uint64_t width = i ? from : 2;
    double share = (double)rank / (double)counts[i];
    uint64_t into = (uint64_t)(share * (double)width);

    return from + (into < width ? into : width - 1);
}

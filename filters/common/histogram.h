/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_HISTOGRAM_H
#define WEIR_COMMON_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Which bucket of a log2 histogram a value belongs to.
 * value: any; 0 goes with 1 into bucket 0. buckets: how many there are,
 * 1..64; bucket i holds [2^i, 2^(i+1)), the last one everything above too.
 * No locking, does not block. Returns 0..buckets-1.
 */
static inline unsigned weir_histogram_bucket(uint64_t value, unsigned buckets)
{
    unsigned i = 63 - (unsigned)__builtin_clzll(value | 1);

    return i < buckets ? i : buckets - 1;
}

/*
 * Sum of all buckets.
 * counts: array of `buckets` elements. No locking, does not block.
 */
uint64_t weir_histogram_total(const uint64_t *counts, size_t buckets);

/*
 * A percentile of a log2 histogram as filled by weir_histogram_bucket().
 * counts: array of `buckets` elements (1..64). permille: 0..1000, 500 is the
 * median; more counts as 1000.
 * No locking, does not block.
 * Returns the value below which that share lies, taking the values of one
 * bucket as evenly spread; at most 2^buckets - 1 (the last bucket has no upper
 * end of its own); 0 when the histogram is empty.
 */
uint64_t weir_histogram_percentile(const uint64_t *counts, size_t buckets,
                                   unsigned permille);

#endif

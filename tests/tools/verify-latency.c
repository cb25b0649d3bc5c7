/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "verify-latency.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SUB_BUCKETS (1u << VERIFY_LATENCY_SUB_BITS)

static unsigned bucket_of(uint64_t ns)
{
    unsigned shift;

    if (ns < SUB_BUCKETS) {
        return (unsigned)ns;
    }
    shift = 63 - (unsigned)__builtin_clzll(ns) - VERIFY_LATENCY_SUB_BITS;
    return ((shift + 1) << VERIFY_LATENCY_SUB_BITS) +
           (unsigned)(ns >> shift) - SUB_BUCKETS;
}

/* The highest value that falls into a bucket. */
static uint64_t bucket_end(unsigned bucket)
{
    unsigned shift = bucket >> VERIFY_LATENCY_SUB_BITS;
    uint64_t sub = bucket & (SUB_BUCKETS - 1);

    if (shift == 0) {
        return sub;
    }
    return ((sub + SUB_BUCKETS + 1) << (shift - 1)) - 1;
}

void verify_latency_add(VerifyLatency *latency, uint64_t ns)
{
    latency->count++;
    latency->bucket[bucket_of(ns)]++;
    if (ns > latency->max_ns) {
        latency->max_ns = ns;
    }
}

void verify_latency_merge(VerifyLatency *latency, const VerifyLatency *other)
{
    latency->count += other->count;
    for (int i = 0; i < VERIFY_LATENCY_BUCKETS; i++) {
        latency->bucket[i] += other->bucket[i];
    }
    if (other->max_ns > latency->max_ns) {
        latency->max_ns = other->max_ns;
    }
}

uint64_t verify_latency_quantile(const VerifyLatency *latency, double share)
{
    double wanted = share * (double)latency->count;
    uint64_t seen = 0;

    for (unsigned i = 0; i < VERIFY_LATENCY_BUCKETS; i++) {
        seen += latency->bucket[i];
        if (seen > 0 && (double)seen >= wanted) {
            uint64_t end = bucket_end(i);

            return end < latency->max_ns ? end : latency->max_ns;
        }
    }
    return latency->max_ns;
}

static void raise_to(uint64_t *max_ns, uint64_t ns)
{
    uint64_t old = __atomic_load_n(max_ns, __ATOMIC_RELAXED);

    while (old < ns &&
           !__atomic_compare_exchange_n(max_ns, &old, ns, true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

void verify_timeline_add(VerifyTimeline *timeline, uint64_t begin_ns,
                         uint64_t end_ns)
{
    uint64_t first, last;

    if (!timeline->interval_ns) {
        return;
    }
    first = (begin_ns - timeline->begin_ns) / timeline->interval_ns;
    last = (end_ns - timeline->begin_ns) / timeline->interval_ns;
    for (; first <= last && first < timeline->intervals; first++) {
        raise_to(&timeline->max_ns[first], end_ns - begin_ns);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

uint64_t verify_timeline_median(const VerifyTimeline *timeline, uint64_t *used)
{
    uint64_t *sorted = calloc(timeline->intervals + 1, sizeof(*sorted));
    uint64_t median;

    *used = 0;
    if (!sorted) {
        return 0;
    }
    for (uint64_t i = 0; i < timeline->intervals; i++) {
        if (timeline->max_ns[i]) {
            sorted[(*used)++] = timeline->max_ns[i];
        }
    }
    qsort(sorted, *used, sizeof(*sorted), compare);
    median = sorted[*used / 2];
    free(sorted);
    return median;
}

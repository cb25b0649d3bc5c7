/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Latencies of requests: quantiles, and how they change over time. */
#ifndef WEIR_VERIFY_LATENCY_H
#define WEIR_VERIFY_LATENCY_H

#include <stdint.h>

/* 32 buckets for each power of two: off by 3 % at most. */
#define VERIFY_LATENCY_SUB_BITS 5
#define VERIFY_LATENCY_BUCKETS (64 << VERIFY_LATENCY_SUB_BITS)

/* Latencies of a thread; used by one thread at a time. */
typedef struct VerifyLatency {
    uint64_t count;
    uint64_t max_ns;
    uint64_t bucket[VERIFY_LATENCY_BUCKETS];
} VerifyLatency;

void verify_latency_add(VerifyLatency *latency, uint64_t ns);

/* Add those of another thread. */
void verify_latency_merge(VerifyLatency *latency, const VerifyLatency *other);

/* The latency that a share (0 to 1) of the requests does not exceed. */
uint64_t verify_latency_quantile(const VerifyLatency *latency, double share);

/*
 * The longest latency of each interval of the run; shared by all threads.
 * A request counts in every interval that it touches.
 */
typedef struct VerifyTimeline {
    uint64_t begin_ns;
    uint64_t interval_ns;       /* 0: none is kept */
    uint64_t intervals;
    uint64_t *max_ns;           /* intervals elements; atomic */
} VerifyTimeline;

void verify_timeline_add(VerifyTimeline *timeline, uint64_t begin_ns,
                         uint64_t end_ns);

/*
 * The median over the intervals that had requests, and how many had.
 * No other thread may use it.
 */
uint64_t verify_timeline_median(const VerifyTimeline *timeline,
                                uint64_t *used);

#endif

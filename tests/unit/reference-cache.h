/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_REFERENCE_CACHE_H
#define WEIR_TESTS_REFERENCE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "trace.h"

/*
 * Caches as their papers describe them, with exact lists and no thought of
 * memory: what eviction in filters/cache is compared with. Each replays a trace
 * on an empty cache of `capacity` blocks, >= 1, and returns the misses.
 */
uint64_t reference_lru(const TraceAccesses *trace, uint32_t capacity);

/* Megiddo and Modha: "ARC: A Self-Tuning, Low Overhead Replacement Cache",
 * FAST 2003, figure 4. */
uint64_t reference_arc(const TraceAccesses *trace, uint32_t capacity);

typedef struct ReferenceS3Fifo {
    unsigned promote_at;                /* hits that lead from small to main */
    bool fill_main;                     /* while the cache fills up, what does
                                           not fit in small goes to main */
} ReferenceS3Fifo;

/*
 * Yang, Zhang, Qiu, Yue, Rashmi: "FIFO Queues are All You Need for Cache
 * Eviction", SOSP 2023, algorithm 1: small queue of 10 %, ghost of 90 % of the
 * capacity. promote_at 2, fill_main false is the paper's; promote_at 2,
 * fill_main true is what its authors' libCacheSim has become.
 */
uint64_t reference_s3fifo(const TraceAccesses *trace, uint32_t capacity,
                          ReferenceS3Fifo variant);

#endif

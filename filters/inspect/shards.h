/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_INSPECT_SHARDS_H
#define WEIR_INSPECT_SHARDS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "common/stripe.h"

/*
 * Miss-ratio curve of an LRU cache from a sample of the blocks: fixed-size
 * SHARDS. How it works is told in shards.c.
 */

#define WEIR_SHARDS_SAMPLES 12288       /* at most so many blocks are held */
#define WEIR_SHARDS_EXACT_SAMPLES 8192  /* all blocks, until so many are seen */
#define WEIR_SHARDS_SLOTS 15872
#define WEIR_SHARDS_TIMES 65536
#define WEIR_SHARDS_TIME_WORDS (WEIR_SHARDS_TIMES / 64)
#define WEIR_SHARDS_DISTANCES 1600

typedef struct WeirShards {
    /* atomic: blocks with a hash below it are sampled; 0: off */
    uint64_t threshold;
    uint64_t seed;                      /* set at init */
    char padding[WEIR_CACHE_LINE_BYTES];

    /* stripe.h: blocks touched, sampled or not */
    struct {
        uint64_t accesses;
        char padding[WEIR_CACHE_LINE_BYTES];
    } stripe[WEIR_STRIPES];

    pthread_mutex_t lock;               /* for all below, and to lower
                                           threshold */
    double weight;                      /* blocks that one sample stands for */
    uint32_t samples;
    uint32_t now;                       /* next time, < WEIR_SHARDS_TIMES */
    uint64_t accesses_before;           /* sum of stripes when switched on */
    uint64_t sampled_accesses;
    double sampled_weight;              /* sum of weights of sampled accesses */
    uint64_t key[WEIR_SHARDS_SLOTS];    /* hash; open addressing */
    uint32_t time[WEIR_SHARDS_SLOTS];   /* 1 + time of last access; 0: empty */
    uint64_t live[WEIR_SHARDS_TIME_WORDS]; /* bit: some block's last access */
    uint16_t tree[WEIR_SHARDS_TIME_WORDS + 1]; /* Fenwick, bits per word */
    double distance[WEIR_SHARDS_DISTANCES]; /* weight of reuse distances */
} WeirShards;

/* What a reader sees at one moment. */
typedef struct WeirShardsSummary {
    uint64_t accesses;
    uint64_t sampled_accesses;
    uint32_t samples;
    double rate;                        /* 0: off */
    uint64_t unique_blocks;             /* estimate */
} WeirShardsSummary;

/* Set up, switched off. seed: see block-hash.h. No other thread may use it. */
void weir_shards_init(WeirShards *shards, uint64_t seed);

/* Give back what init took. No other thread may use it. */
void weir_shards_destroy(WeirShards *shards);

/* Start from nothing. Takes the lock for some 100 us. */
void weir_shards_start(WeirShards *shards);

/* Stop; accesses cost next to nothing and what was gathered is dropped. */
void weir_shards_stop(WeirShards *shards);

/*
 * Blocks are accessed, in this order.
 * first_block: block number; blocks: how many follow, 0 is fine; the sum is at
 * most 2^64. stripe: weir_stripe() of the calling thread.
 * Thread-safe; takes the lock when one of the blocks is sampled.
 */
void weir_shards_access(WeirShards *shards, uint64_t first_block,
                        uint64_t blocks, unsigned stripe);

/* Thread-safe, takes the lock. out: filled by the call, zero when off. */
void weir_shards_summary(WeirShards *shards, WeirShardsSummary *out);

/*
 * Miss ratios of several cache sizes at once.
 * cache_blocks: `count` sizes in blocks, rising; ratios: gets as many, 0..1;
 * all 1 before the first access and when off.
 * Thread-safe, takes the lock for some microseconds.
 */
void weir_shards_miss_ratios(WeirShards *shards, const double *cache_blocks,
                             double *ratios, size_t count);

#endif

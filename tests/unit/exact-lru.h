/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_EXACT_LRU_H
#define WEIR_TESTS_EXACT_LRU_H

#include <stddef.h>
#include <stdint.h>

/*
 * Exact LRU stack distances of a sequence of block accesses, with memory for
 * every block and every access: what the sampled curve is compared with.
 */
typedef struct ExactLru {
    size_t accesses_max;
    size_t accesses;
    size_t blocks;                      /* distinct ones */
    size_t slots;                       /* power of two */
    uint64_t *key;                      /* block + 1, 0: empty */
    uint32_t *last;                     /* access number */
    uint32_t *tree;                     /* Fenwick over access numbers */
    uint32_t *hits;                     /* [d]: accesses of distance d */
} ExactLru;

/* accesses_max: no more than that may follow. Freed by exact_lru_free(). */
ExactLru *exact_lru_new(size_t accesses_max);
void exact_lru_free(ExactLru *lru);
void exact_lru_access(ExactLru *lru, uint64_t block);

/* Call once, after the last access: hits[] is then summed up. */
void exact_lru_finish(ExactLru *lru);

/* After finish; cache_blocks: any size. */
double exact_lru_miss_ratio(const ExactLru *lru, uint64_t cache_blocks);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "exact-lru.h"

#include <stdlib.h>

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);

    if (!p) {
        abort();
    }
    return p;
}

ExactLru *exact_lru_new(size_t accesses_max)
{
    ExactLru *lru = zeroed(1, sizeof(*lru));

    lru->accesses_max = accesses_max;
    lru->slots = 16;
    while (lru->slots < 2 * accesses_max) {
        lru->slots *= 2;
    }
    lru->key = zeroed(lru->slots, sizeof(*lru->key));
    lru->last = zeroed(lru->slots, sizeof(*lru->last));
    lru->tree = zeroed(accesses_max + 1, sizeof(*lru->tree));
    lru->hits = zeroed(accesses_max + 1, sizeof(*lru->hits));
    return lru;
}

void exact_lru_free(ExactLru *lru)
{
    free(lru->key);
    free(lru->last);
    free(lru->tree);
    free(lru->hits);
    free(lru);
}

static void tree_add(ExactLru *lru, size_t position, uint32_t n)
{
    for (size_t i = position + 1; i <= lru->accesses_max; i += i & -i) {
        lru->tree[i] += n;
    }
}

static uint32_t tree_sum_below(const ExactLru *lru, size_t position)
{
    uint32_t sum = 0;

    for (size_t i = position; i; i &= i - 1) {
        sum += lru->tree[i];
    }
    return sum;
}

static size_t find_slot(const ExactLru *lru, uint64_t block)
{
    size_t slot = block * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (lru->slots - 1);

    while (lru->key[slot] && lru->key[slot] != block + 1) {
        slot = (slot + 1) & (lru->slots - 1);
    }
    return slot;
}

void exact_lru_access(ExactLru *lru, uint64_t block)
{
    size_t slot = find_slot(lru, block);

    if (lru->accesses == lru->accesses_max) {
        abort();
    }
    if (lru->key[slot]) {
        size_t last = lru->last[slot];

        lru->hits[lru->blocks - tree_sum_below(lru, last + 1)]++;
        tree_add(lru, last, (uint32_t)-1);
    } else {
        lru->key[slot] = block + 1;
        lru->blocks++;
    }
    tree_add(lru, lru->accesses, 1);
    lru->last[slot] = (uint32_t)lru->accesses++;
}

void exact_lru_finish(ExactLru *lru)
{
    for (size_t d = 1; d <= lru->accesses_max; d++) {
        lru->hits[d] += lru->hits[d - 1];
    }
}

double exact_lru_miss_ratio(const ExactLru *lru, uint64_t cache_blocks)
{
    size_t d = cache_blocks < lru->accesses_max ? cache_blocks
                                                : lru->accesses_max;

    if (!d || !lru->accesses) {
        return 1;
    }
    return 1 - (double)lru->hits[d - 1] / (double)lru->accesses;
}

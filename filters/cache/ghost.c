/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cache/ghost.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/index.h"

#define WAYS 8                          /* entries per bucket */
#define PIECES 20                       /* generations to the size */
#define LIVE_MAX 27                     /* generations; with less in each since
                                           many were taken */
#define GENERATION_SHIFT 11
#define FINGERPRINT 0x7ff               /* bits below it */

/* A third more than blocks: then few buckets are full. */
static uint32_t buckets_of(uint32_t size)
{
    return size / (WAYS * 3 / 4) + 1;
}

uint64_t weir_cache_ghost_bytes(uint32_t size)
{
    return (uint64_t)buckets_of(size) * WAYS * sizeof(uint16_t);
}

int weir_cache_ghost_init(WeirCacheGhost *g, uint32_t size, uint64_t seed)
{
    memset(g, 0, sizeof(*g));
    g->seed = seed;
    g->size = size;
    g->buckets = buckets_of(size);
    g->entry = weir_cache_memory_zero(weir_cache_ghost_bytes(size));
    weir_cache_ghost_clear(g);
    return g->entry ? 0 : -ENOMEM;
}

void weir_cache_ghost_destroy(WeirCacheGhost *g)
{
    free(g->entry);
    memset(g, 0, sizeof(*g));
}

void weir_cache_ghost_clear(WeirCacheGhost *g)
{
    if (g->used) {
        memset(g->entry, 0, weir_cache_ghost_bytes(g->size));
    }
    g->used = false;
    memset(g->count, 0, sizeof(g->count));
    g->live = 0;
    g->wipe = 0;
    g->oldest = g->newest = 1;
}

/* --- generations --- */

static unsigned generation_of(uint16_t entry)
{
    return entry >> GENERATION_SHIFT;
}

/* How many generations are younger. */
static unsigned age_of(const WeirCacheGhost *g, unsigned generation)
{
    return (g->newest + WEIR_CACHE_GENERATIONS - generation) %
           WEIR_CACHE_GENERATIONS;
}

static bool is_live(const WeirCacheGhost *g, uint16_t entry)
{
    return entry && age_of(g, generation_of(entry)) <= age_of(g, g->oldest);
}

static uint8_t generation_after(uint8_t generation)
{
    return generation < WEIR_CACHE_GENERATIONS ? generation + 1 : 1;
}

static void forget_oldest(WeirCacheGhost *g)
{
    g->live -= g->count[g->oldest];
    g->count[g->oldest] = 0;
    g->oldest = generation_after(g->oldest);
}

static void drop(WeirCacheGhost *g, uint16_t *entry)
{
    g->count[generation_of(*entry)]--;
    g->live--;
    *entry = 0;
}

/*
 * Wipe a few of those that are forgotten. That is the whole table while two
 * generations are filled; a number comes again after four.
 */
static void wipe_some(WeirCacheGhost *g)
{
    for (int n = 0; n < 2; n++) {
        uint16_t *bucket = g->entry + (size_t)g->wipe * WAYS;

        for (int i = 0; i < WAYS; i++) {
            if (!is_live(g, bucket[i])) {
                bucket[i] = 0;
            }
        }
        g->wipe = g->wipe + 1 < g->buckets ? g->wipe + 1 : 0;
    }
}

/* Room for one more. */
static void make_room(WeirCacheGhost *g)
{
    wipe_some(g);
    if (g->live >= g->size && g->oldest != g->newest) {
        forget_oldest(g);
    }
    if (g->count[g->newest] > g->size / PIECES) {
        if (age_of(g, g->oldest) + 1 >= LIVE_MAX) {
            forget_oldest(g);
        }
        g->newest = generation_after(g->newest);
    }
}

/* --- the table --- */

static uint16_t *bucket_of(const WeirCacheGhost *g, uint64_t block,
                           uint16_t *fingerprint)
{
    uint64_t h = (block + g->seed) * UINT64_C(0xbf58476d1ce4e5b9);

    h = (h ^ h >> 31) * UINT64_C(0x94d049bb133111eb);
    h ^= h >> 29;
    *fingerprint = h & FINGERPRINT;
    return g->entry + WAYS * ((h >> 32) * g->buckets >> 32);
}

static uint16_t *find(const WeirCacheGhost *g, uint64_t block)
{
    uint16_t fingerprint;
    uint16_t *bucket = bucket_of(g, block, &fingerprint);

    for (int i = 0; i < WAYS; i++) {
        if ((bucket[i] & FINGERPRINT) == fingerprint &&
            is_live(g, bucket[i])) {
            return &bucket[i];
        }
    }
    return NULL;
}

/* Where a new entry goes: to a free one, else to the oldest. */
static uint16_t *place_in(const WeirCacheGhost *g, uint16_t *bucket)
{
    uint16_t *best = bucket;

    for (int i = 0; i < WAYS; i++) {
        if (!is_live(g, bucket[i])) {
            return &bucket[i];
        }
        if (age_of(g, generation_of(bucket[i])) >
            age_of(g, generation_of(*best))) {
            best = &bucket[i];
        }
    }
    return best;
}

/*
 * One that has to make way counts as live all the same: else the others would
 * stay for longer than in a FIFO.
 */
void weir_cache_ghost_add(WeirCacheGhost *g, uint64_t block)
{
    uint16_t fingerprint;
    uint16_t *bucket = bucket_of(g, block, &fingerprint);

    g->used = true;
    weir_cache_ghost_take(g, block);
    make_room(g);
    *place_in(g, bucket) = (uint16_t)(g->newest << GENERATION_SHIFT |
                                      fingerprint);
    g->count[g->newest]++;
    g->live++;
}

bool weir_cache_ghost_knows(const WeirCacheGhost *g, uint64_t block)
{
    return find(g, block);
}

bool weir_cache_ghost_take(WeirCacheGhost *g, uint64_t block)
{
    uint16_t *entry = find(g, block);

    if (!entry) {
        return false;
    }
    drop(g, entry);
    return true;
}

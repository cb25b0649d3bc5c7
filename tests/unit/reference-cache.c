/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reference-cache.h"

#include <stdlib.h>

#define NONE UINT32_MAX
#define LISTS 4

/* --- lists of block numbers, each block on one list or on none --- */

typedef struct List {
    uint32_t newest;
    uint32_t oldest;
    uint32_t count;
} List;

typedef struct Node {
    uint32_t newer;
    uint32_t older;
    uint8_t on;                         /* list + 1, 0: none */
    uint8_t frequency;
} Node;

typedef struct Cache {
    uint32_t capacity;
    List list[LISTS];
    Node *node;                         /* by block number */
} Cache;

static void cache_init(Cache *cache, uint32_t capacity, uint32_t blocks)
{
    cache->capacity = capacity;
    for (int i = 0; i < LISTS; i++) {
        cache->list[i] = (List) { NONE, NONE, 0 };
    }
    cache->node = calloc(blocks + 1, sizeof(*cache->node));
    if (!cache->node) {
        abort();
    }
}

static bool is_on(const Cache *cache, int list, uint32_t block)
{
    return cache->node[block].on == list + 1;
}

static void push(Cache *cache, int to, uint32_t block)
{
    List *list = &cache->list[to];
    Node *node = &cache->node[block];

    node->on = (uint8_t)(to + 1);
    node->newer = NONE;
    node->older = list->newest;
    if (list->newest == NONE) {
        list->oldest = block;
    } else {
        cache->node[list->newest].newer = block;
    }
    list->newest = block;
    list->count++;
}

static void drop(Cache *cache, uint32_t block)
{
    Node *node = &cache->node[block];
    List *list = &cache->list[node->on - 1];

    if (node->newer == NONE) {
        list->newest = node->older;
    } else {
        cache->node[node->newer].older = node->older;
    }
    if (node->older == NONE) {
        list->oldest = node->newer;
    } else {
        cache->node[node->older].newer = node->newer;
    }
    list->count--;
    node->on = 0;
}

static uint32_t pop(Cache *cache, int from)
{
    uint32_t block = cache->list[from].oldest;

    drop(cache, block);
    return block;
}

/* Replay: `access` returns whether the block was there. */
static uint64_t misses_of(const TraceAccesses *trace, Cache *cache,
                          bool (*access)(Cache *cache, uint32_t block,
                                         void *opaque), void *opaque)
{
    uint64_t misses = 0;

    for (size_t i = 0; i < trace->count; i++) {
        misses += !access(cache, trace->number[i], opaque);
    }
    free(cache->node);
    return misses;
}

/* --- LRU --- */

static bool access_lru(Cache *cache, uint32_t block, void *opaque)
{
    bool hit = is_on(cache, 0, block);

    (void)opaque;
    if (hit) {
        drop(cache, block);
    } else if (cache->list[0].count == cache->capacity) {
        pop(cache, 0);
    }
    push(cache, 0, block);
    return hit;
}

uint64_t reference_lru(const TraceAccesses *trace, uint32_t capacity)
{
    Cache cache;

    cache_init(&cache, capacity, trace->blocks);
    return misses_of(trace, &cache, access_lru, NULL);
}

/* --- ARC --- */

enum { T1, T2, B1, B2 };

static void arc_replace(Cache *cache, uint32_t block, uint32_t target)
{
    uint32_t recent = cache->list[T1].count;

    if (recent && (recent > target ||
                   (recent == target && is_on(cache, B2, block)))) {
        push(cache, B1, pop(cache, T1));
    } else {
        push(cache, B2, pop(cache, T2));
    }
}

/* A hit in one ghost list moves the target by 1 or the lists' ratio. */
static void arc_adapt(Cache *cache, bool in_b1, uint32_t *target)
{
    uint32_t b1 = cache->list[B1].count;
    uint32_t b2 = cache->list[B2].count;

    if (in_b1) {
        uint32_t step = b1 >= b2 ? 1 : b2 / b1;

        *target = cache->capacity - *target > step ? *target + step
                                                   : cache->capacity;
    } else {
        uint32_t step = b2 >= b1 ? 1 : b1 / b2;

        *target = *target > step ? *target - step : 0;
    }
}

/* Room for a block that is on no list. */
static void arc_make_room(Cache *cache, uint32_t block, uint32_t target)
{
    const List *list = cache->list;
    uint64_t all = (uint64_t)list[T1].count + list[T2].count +
                   list[B1].count + list[B2].count;

    if (list[T1].count + list[B1].count == cache->capacity) {
        if (list[T1].count < cache->capacity) {
            pop(cache, B1);
            arc_replace(cache, block, target);
        } else {
            pop(cache, T1);
        }
    } else if (all >= cache->capacity) {
        if (all == 2 * (uint64_t)cache->capacity) {
            pop(cache, B2);
        }
        arc_replace(cache, block, target);
    }
}

static bool access_arc(Cache *cache, uint32_t block, void *opaque)
{
    uint32_t *target = opaque;
    bool in_b1 = is_on(cache, B1, block);

    if (is_on(cache, T1, block) || is_on(cache, T2, block)) {
        drop(cache, block);
        push(cache, T2, block);
        return true;
    }
    if (in_b1 || is_on(cache, B2, block)) {
        arc_adapt(cache, in_b1, target);
        arc_replace(cache, block, *target);
        drop(cache, block);
        push(cache, T2, block);
    } else {
        arc_make_room(cache, block, *target);
        push(cache, T1, block);
    }
    return false;
}

uint64_t reference_arc(const TraceAccesses *trace, uint32_t capacity)
{
    Cache cache;
    uint32_t target = 0;

    cache_init(&cache, capacity, trace->blocks);
    return misses_of(trace, &cache, access_arc, &target);
}

/* --- S3-FIFO --- */

enum { SMALL, MAIN, GHOST };

typedef struct S3Fifo {
    ReferenceS3Fifo variant;
    uint32_t small;                     /* capacities */
    uint32_t ghost;
    bool full;                          /* something was evicted */
} S3Fifo;

static void remember(Cache *cache, const S3Fifo *s, uint32_t block)
{
    if (s->ghost) {
        if (cache->list[GHOST].count == s->ghost) {
            pop(cache, GHOST);
        }
        push(cache, GHOST, block);
    }
}

static bool evict_small(Cache *cache, const S3Fifo *s)
{
    while (cache->list[SMALL].count) {
        uint32_t block = pop(cache, SMALL);

        if (cache->node[block].frequency < s->variant.promote_at) {
            remember(cache, s, block);
            return true;
        }
        cache->node[block].frequency = 0;
        push(cache, MAIN, block);
    }
    return false;
}

static void evict_main(Cache *cache)
{
    for (;;) {
        uint32_t block = pop(cache, MAIN);

        if (!cache->node[block].frequency) {
            return;
        }
        cache->node[block].frequency--;
        push(cache, MAIN, block);
    }
}

static void evict(Cache *cache, S3Fifo *s)
{
    bool small = cache->list[SMALL].count >= s->small ||
                 !cache->list[MAIN].count;

    s->full = true;
    if (!small || !evict_small(cache, s)) {
        evict_main(cache);
    }
}

static bool access_s3fifo(Cache *cache, uint32_t block, void *opaque)
{
    S3Fifo *s = opaque;
    Node *node = &cache->node[block];
    bool to_main = is_on(cache, GHOST, block);

    if (is_on(cache, SMALL, block) || is_on(cache, MAIN, block)) {
        if (node->frequency < 3) {
            node->frequency++;
        }
        return true;
    }
    if (to_main) {
        drop(cache, block);
    }
    if (cache->list[SMALL].count + cache->list[MAIN].count ==
        cache->capacity) {
        evict(cache, s);
    }
    if (s->variant.fill_main && !s->full &&
        cache->list[SMALL].count >= s->small) {
        to_main = true;
    }
    node->frequency = 0;
    push(cache, to_main ? MAIN : SMALL, block);
    return false;
}

uint64_t reference_s3fifo(const TraceAccesses *trace, uint32_t capacity,
                          ReferenceS3Fifo variant)
{
    S3Fifo s = { .variant = variant };
    Cache cache;

    s.small = capacity / 10 ? capacity / 10 : 1;
    s.ghost = (uint32_t)(capacity * UINT64_C(9) / 10);
    cache_init(&cache, capacity, trace->blocks);
    return misses_of(trace, &cache, access_s3fifo, &s);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO Queues are All You Need for
 * Cache Eviction", SOSP 2023) without its lists, in 3.6 bytes per slot.
 *
 *   probation  A new block waits in a FIFO. If it was hit twice when its turn
 *              comes it goes to main, else it is evicted: a scan passes through
 *              here and leaves main alone.
 *   main       All other blocks, in a FIFO as well. The first one is evicted if
 *              its 2-bit count of hits is 0, else goes to the end with one hit
 *              less. Main gives a slot up when it has more than nine tenths of
 *              them, else probation does.
 *   ghost      Remembers for a while which blocks were evicted from probation.
 *              One that comes back by then goes to main at once.
 *
 * What differs from the paper, and why:
 *
 *   - The FIFO of probation is a ring of block numbers, not of slots, since a
 *     block changes its slot when it is overwritten. Each is looked up in the
 *     index at its turn; those that are gone, or in main by now, are skipped.
 *   - The ring is bounded. While the cache fills up for the first time, what
 *     probation has no room for goes to main, as in libCacheSim of the paper's
 *     authors (in the paper all of it is on probation then).
 *   - A dirty block cannot be evicted. At its turn it leaves the queues as if
 *     it were, and goes when it has been written back. If it is hit by then it
 *     comes to main, as it would if the ghost had known it. Until it is gone
 *     the others have less room.
 *   - The FIFO of main is only nearly one: rounds.h. So is the ghost: ghost.h.
 *   - All walks are bounded. If none has a count of 0 by then, the lowest that
 *     was seen goes.
 *
 * tests/unit/test-cache-evict.c compares the miss ratios with those of exact
 * lists, tests/tools/test-cache-sim.py those of the whole engine.
 */
#include "cache/evict.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PROMOTE_AT 2                    /* hits on probation */
#define PROMOTE_NEVER (WEIR_SLOT_FREQUENCY + 1)
#define PROBATION_LOOKS 64              /* blocks per walk */
#define MAIN_LOOKS 1024                 /* slots, per walk */
#define MAIN_WORDS 4096                 /* that the hand passes by, per walk */

static uint32_t share_of(uint32_t slots, unsigned percent)
{
    uint32_t n = (uint32_t)((uint64_t)slots * percent / 100);

    return n ? n : 1;
}

static uint32_t probation_size(uint32_t slots)
{
    return share_of(slots, 10);
}

static uint32_t main_size(uint32_t slots)
{
    return slots - probation_size(slots);
}

/* Some have left it. */
static uint32_t ring_size(uint32_t slots)
{
    return share_of(slots, 12);
}

static uint32_t hints_size(uint32_t slots)
{
    return slots / 64 + 1;
}

static uint32_t ghost_size(uint32_t slots)
{
    return share_of(slots, 90);
}

/* --- rings --- */

static bool ring_init(WeirCacheRing *ring, uint32_t size)
{
    ring->size = size;
    ring->low = weir_cache_memory(size * UINT64_C(4));
    ring->high = weir_cache_memory(size);
    return ring->low && ring->high;
}

static void ring_destroy(WeirCacheRing *ring)
{
    free(ring->low);
    free(ring->high);
}

static uint64_t ring_bytes(uint32_t size)
{
    return size * UINT64_C(5);
}

static void ring_clear(WeirCacheRing *ring)
{
    ring->first = ring->count = 0;
}

static bool ring_is_full(const WeirCacheRing *ring)
{
    return ring->count == ring->size;
}

/* n: up to its size. */
static uint32_t ring_index(const WeirCacheRing *ring, uint32_t n)
{
    return n < ring->size - ring->first ? ring->first + n
                                        : n - (ring->size - ring->first);
}

static uint64_t ring_nth(const WeirCacheRing *ring, uint32_t n)
{
    uint32_t i = ring_index(ring, n);

    return (uint64_t)ring->high[i] << 32 | ring->low[i];
}

static void ring_push(WeirCacheRing *ring, uint64_t block)
{
    uint32_t i = ring_index(ring, ring->count);

    assert(!ring_is_full(ring));
    ring->low[i] = (uint32_t)block;
    ring->high[i] = (uint8_t)(block >> 32);
    ring->count++;
}

static uint64_t ring_pop(WeirCacheRing *ring)
{
    uint64_t block = ring_nth(ring, 0);

    assert(ring->count);
    ring->first = ring_index(ring, 1);
    ring->count--;
    return block;
}

/* --- flags --- */

static bool is_stuck(const WeirCacheEvict *ev, uint32_t slot)
{
    return ev->index->flags[slot] & (WEIR_SLOT_DIRTY | WEIR_SLOT_WRITE_BACK);
}

static unsigned frequency_of(const WeirCacheEvict *ev, uint32_t slot)
{
    return ev->index->flags[slot] & WEIR_SLOT_FREQUENCY;
}

/* From probation to main. */
static void promote(WeirCacheEvict *ev, uint32_t slot, unsigned frequency)
{
    uint8_t *flags = &ev->index->flags[slot];

    *flags &= (uint8_t)~(WEIR_SLOT_PROBATION | WEIR_SLOT_FREQUENCY);
    *flags |= (uint8_t)frequency;
    ev->probation--;
    weir_cache_rounds_join(&ev->main, slot, 1);
}

/* --- leaving --- */

/* A dirty block which is in no queue any more. */
static void leave(WeirCacheEvict *ev, uint32_t slot)
{
    ev->index->flags[slot] &= (uint8_t)~(WEIR_SLOT_PROBATION |
                                         WEIR_SLOT_FREQUENCY);
    ev->leaving++;
    if (!ring_is_full(&ev->hints)) {
        ring_push(&ev->hints, weir_cache_index_block(ev->index, slot));
    }
}

/* It was hit: to main, as it would have come if it had been gone. */
static void stay(WeirCacheEvict *ev, uint32_t slot)
{
    ev->leaving--;
    ev->index->flags[slot] &= (uint8_t)~WEIR_SLOT_FREQUENCY;
    weir_cache_ghost_take(&ev->ghost, weir_cache_index_block(ev->index, slot));
    weir_cache_rounds_join(&ev->main, slot, 1);
}

uint32_t weir_cache_evict_hint(WeirCacheEvict *ev)
{
    while (ev->hints.count) {
        uint32_t slot = weir_cache_index_find(ev->index, ring_pop(&ev->hints));

        if (slot != WEIR_CACHE_NO_SLOT &&
            weir_cache_evict_is_leaving(ev, slot)) {
            return slot;
        }
    }
    return WEIR_CACHE_NO_SLOT;
}

bool weir_cache_evict_cleaned(WeirCacheEvict *ev, uint32_t slot)
{
    assert(ev->index->flags[slot] & WEIR_SLOT_MAPPED);
    if (!weir_cache_evict_is_leaving(ev, slot)) {
        return false;
    }
    if (frequency_of(ev, slot)) {
        stay(ev, slot);
        return false;
    }
    ev->leaving--;
    return true;
}

/* --- probation --- */

/*
 * The slot of the oldest block on the ring, which is not empty, or
 * WEIR_CACHE_NO_SLOT when it is no longer on probation.
 */
static uint32_t oldest_on_probation(const WeirCacheEvict *ev)
{
    uint32_t slot = weir_cache_index_find(ev->index, ring_nth(&ev->ring, 0));

    if (slot != WEIR_CACHE_NO_SLOT &&
        !(ev->index->flags[slot] & WEIR_SLOT_PROBATION)) {
        slot = WEIR_CACHE_NO_SLOT;
    }
    return slot;
}

/* It is off probation, and not in main. */
static void expire(WeirCacheEvict *ev, uint32_t slot)
{
    ev->probation--;
    weir_cache_ghost_add(&ev->ghost, weir_cache_index_block(ev->index, slot));
}

/*
 * It is the oldest one's turn. Returns its slot when it can be evicted; then it
 * is the oldest still.
 * promote_at: hits from which on it is not.
 */
static uint32_t turn_on_probation(WeirCacheEvict *ev, unsigned promote_at)
{
    uint32_t slot = oldest_on_probation(ev);

    if (slot != WEIR_CACHE_NO_SLOT && frequency_of(ev, slot) < promote_at &&
        !is_stuck(ev, slot)) {
        return slot;
    }
    ring_pop(&ev->ring);
    weir_cache_index_prefetch(ev->index, ring_nth(&ev->ring, 0));
    if (slot == WEIR_CACHE_NO_SLOT) {
        return WEIR_CACHE_NO_SLOT;
    }
    if (frequency_of(ev, slot) >= promote_at) {
        promote(ev, slot, 0);
    } else {
        expire(ev, slot);
        leave(ev, slot);
    }
    return WEIR_CACHE_NO_SLOT;
}

static uint32_t victim_on_probation(WeirCacheEvict *ev, unsigned promote_at)
{
    uint32_t leaving = ev->leaving;

    for (int n = 0; n < PROBATION_LOOKS && ev->ring.count &&
         ev->leaving == leaving; n++) {
        uint32_t slot = turn_on_probation(ev, promote_at);

        if (slot != WEIR_CACHE_NO_SLOT) {
            ring_pop(&ev->ring);
            expire(ev, slot);
            return slot;
        }
    }
    return WEIR_CACHE_NO_SLOT;
}

/*
 * Somebody comes. While slots become free by themselves nobody asks for a
 * victim; but the turn of those who are dirty, or were hit, comes all the same.
 */
static void pass_on_probation(WeirCacheEvict *ev)
{
    for (int n = 0; n < 2 && ev->probation >= probation_size(ev->index->slots);
         n++) {
        turn_on_probation(ev, PROMOTE_AT);
    }
    if (ring_is_full(&ev->ring)) {
        uint32_t slot = oldest_on_probation(ev);

        ring_pop(&ev->ring);
        if (slot != WEIR_CACHE_NO_SLOT) {
            promote(ev, slot, frequency_of(ev, slot));
        }
    }
}

/* --- main --- */

/* To the end, with one hit less. */
static void main_keeps(WeirCacheEvict *ev, uint32_t slot)
{
    ev->index->flags[slot]--;
    weir_cache_rounds_leave(&ev->main, slot);
    weir_cache_rounds_join(&ev->main, slot, 1);
}

static uint32_t victim_in_main(WeirCacheEvict *ev)
{
    uint32_t looks = ev->main.used < MAIN_LOOKS ? ev->main.used : MAIN_LOOKS;
    uint32_t best = WEIR_CACHE_NO_SLOT;
    unsigned best_frequency = WEIR_SLOT_FREQUENCY + 1;
    uint32_t words = MAIN_WORDS;

    while (looks-- > 0) {
        uint32_t slot = weir_cache_rounds_first(&ev->main, &words);
        unsigned frequency;

        if (slot == WEIR_CACHE_NO_SLOT) {
            break;
        }
        frequency = frequency_of(ev, slot);
        if (frequency == 0 && is_stuck(ev, slot)) {
            weir_cache_rounds_leave(&ev->main, slot);
            leave(ev, slot);
            return WEIR_CACHE_NO_SLOT;
        }
        if (!is_stuck(ev, slot) && frequency < best_frequency) {
            best = slot;
            best_frequency = frequency;
        }
        if (best_frequency == 0) {
            break;
        }
        main_keeps(ev, slot);
    }
    if (best != WEIR_CACHE_NO_SLOT) {
        weir_cache_rounds_leave(&ev->main, best);
    }
    ev->unfinished = best == WEIR_CACHE_NO_SLOT && ev->main.used > 0;
    return best;
}

/* --- set up --- */

int weir_cache_evict_init(WeirCacheEvict *ev, WeirCacheIndex *index)
{
    memset(ev, 0, sizeof(*ev));
    ev->index = index;
    ev->filling = true;
    if (!ring_init(&ev->ring, ring_size(index->slots)) ||
        !ring_init(&ev->hints, hints_size(index->slots)) ||
        weir_cache_ghost_init(&ev->ghost, ghost_size(index->slots),
                              index->seed) < 0 ||
        weir_cache_rounds_init(&ev->main, index->slots,
                               main_size(index->slots)) < 0) {
        weir_cache_evict_destroy(ev);
        return -ENOMEM;
    }
    return 0;
}

void weir_cache_evict_destroy(WeirCacheEvict *ev)
{
    ring_destroy(&ev->ring);
    ring_destroy(&ev->hints);
    weir_cache_rounds_destroy(&ev->main);
    weir_cache_ghost_destroy(&ev->ghost);
    memset(ev, 0, sizeof(*ev));
}

uint64_t weir_cache_evict_bytes(uint32_t slots)
{
    return ring_bytes(ring_size(slots)) + ring_bytes(hints_size(slots)) +
           weir_cache_rounds_bytes(slots) +
           weir_cache_ghost_bytes(ghost_size(slots));
}

/* How many slots from here on belong to main. */
static uint32_t run_in_main(const WeirCacheIndex *ix, uint32_t slot)
{
    uint32_t n = 0;

    while (slot + n < ix->slots &&
           (ix->flags[slot + n] & (WEIR_SLOT_MAPPED | WEIR_SLOT_PROBATION)) ==
           WEIR_SLOT_MAPPED) {
        n++;
    }
    return n;
}

/* A slot that does not belong to main. */
static void restore_probation(WeirCacheEvict *ev, uint32_t slot)
{
    const WeirCacheIndex *ix = ev->index;

    if (!(ix->flags[slot] & WEIR_SLOT_MAPPED)) {
        return;
    }
    ev->probation++;
    if (!ring_is_full(&ev->ring)) {
        ring_push(&ev->ring, weir_cache_index_block(ix, slot));
    } else {
        promote(ev, slot, frequency_of(ev, slot));
    }
}

void weir_cache_evict_restore(WeirCacheEvict *ev)
{
    WeirCacheIndex *ix = ev->index;

    weir_cache_ghost_clear(&ev->ghost);
    weir_cache_rounds_clear(&ev->main);
    ring_clear(&ev->ring);
    ring_clear(&ev->hints);
    ev->leaving = 0;
    ev->filling = ix->mapped <= main_size(ix->slots);
    ev->probation = 0;
    for (uint32_t slot = 0, n; slot < ix->slots; slot += n) {
        n = run_in_main(ix, slot);
        weir_cache_rounds_join(&ev->main, slot, n);
        if (!n) {
            restore_probation(ev, slot);
            n = 1;
        }
    }
}

/* --- in and out --- */

uint8_t weir_cache_evict_insert(WeirCacheEvict *ev, uint32_t slot,
                                uint64_t block)
{
    if (weir_cache_ghost_take(&ev->ghost, block) ||
        (ev->filling && ev->probation >= probation_size(ev->index->slots))) {
        weir_cache_rounds_join(&ev->main, slot, 1);
        return 0;
    }
    pass_on_probation(ev);
    ring_push(&ev->ring, block);
    ev->probation++;
    return WEIR_SLOT_PROBATION;
}

bool weir_cache_evict_admit(WeirCacheEvict *ev, uint64_t block)
{
    if (weir_cache_ghost_knows(&ev->ghost, block)) {
        return true;
    }
    weir_cache_ghost_add(&ev->ghost, block);
    return false;
}

uint8_t weir_cache_evict_move(WeirCacheEvict *ev, uint32_t from, uint32_t to)
{
    uint8_t flags = ev->index->flags[from];

    assert(flags & WEIR_SLOT_MAPPED);
    if (weir_cache_evict_is_leaving(ev, from)) {
        stay(ev, from);
    } else {
        weir_cache_evict_hit(ev, from);
    }
    if (!(flags & WEIR_SLOT_PROBATION)) {
        weir_cache_rounds_replace(&ev->main, from, to);
    }
    return ev->index->flags[from] & (WEIR_SLOT_PROBATION |
                                     WEIR_SLOT_FREQUENCY);
}

void weir_cache_evict_remove(WeirCacheEvict *ev, uint32_t slot)
{
    assert(ev->index->flags[slot] & WEIR_SLOT_MAPPED);
    if (ev->index->flags[slot] & WEIR_SLOT_PROBATION) {
        ev->probation--;                /* the ring skips it at its turn */
    } else if (weir_cache_evict_is_leaving(ev, slot)) {
        ev->leaving--;
    } else {
        weir_cache_rounds_leave(&ev->main, slot);
    }
}

uint32_t weir_cache_evict_victim(WeirCacheEvict *ev)
{
    const WeirCacheIndex *ix = ev->index;
    uint32_t leaving = ev->leaving;
    uint32_t slot = WEIR_CACHE_NO_SLOT;

    if (ix->mapped == ix->dirty) {
        ev->unfinished = false;
        return WEIR_CACHE_NO_SLOT;
    }
    ev->filling = false;
    ev->unfinished = false;
    if (ev->probation >= probation_size(ix->slots)) {
        slot = victim_on_probation(ev, PROMOTE_AT);
    }
    if (slot == WEIR_CACHE_NO_SLOT && ev->leaving == leaving) {
        slot = victim_in_main(ev);
    }
    if (slot == WEIR_CACHE_NO_SLOT && ev->leaving == leaving) {
        slot = victim_on_probation(ev, PROMOTE_NEVER);
    }
    return slot;
}

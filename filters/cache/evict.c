/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO Queues are All You Need for
 * Cache Eviction", SOSP 2023) without its lists, in less than 3 bytes per slot.
 *
 *   probation  A new block waits in a FIFO of a tenth of the slots. If it was
 *              hit twice when its turn comes it goes to main, else it is
 *              evicted: a scan passes through here and leaves main alone.
 *   main       All other slots, in CLOCK's order: a hand goes round the slots
 *              and evicts the first one whose 2-bit count of hits is 0; it
 *              takes one off the others. Main gives a slot up when it has more
 *              than nine tenths of them.
 *   ghost      Remembers blocks evicted from probation for about as long as
 *              they would have stayed in main. One that comes back by then goes
 *              to main at once.
 *
 * What differs from the paper, and why:
 *
 *   - The FIFO on probation is a ring of block numbers, not of slots, since an
 *     overwritten block changes its slot. It is looked up in the index at its
 *     turn; entries whose block is gone or in main are skipped.
 *   - The ring is bounded. When it is full, as dirty blocks hold it up, the
 *     oldest moves to main. While the cache fills up for the first time, new
 *     blocks go to main when probation has its share. (The paper's fills up on
 *     probation; the authors' libCacheSim in main, which measures better.)
 *   - Main is in the order of the slots, not in that of arrival. A block that
 *     comes to main where the hand gets soon starts with a count of 1, so that
 *     it stays half a round to one and a half, on average a round, as it would
 *     at the end of a FIFO.
 *   - The hand starts where the cursor of the index is when the cache gets full
 *     first: what lies behind it was filled last.
 *   - The hand's way is bounded per call. At its end the slot with the lowest
 *     count goes that was seen.
 *   - Dirty blocks cannot be evicted: on probation they queue up again, and the
 *     hand passes them by, counting down.
 *   - The ghost: see below.
 *
 * tests/unit/test-cache-evict.c compares the miss ratios with those of the
 * paper's.
 */
#include "cache/evict.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PROMOTE_AT 2                    /* hits on probation */
#define PROBATION_LOOKS 64              /* blocks per call of victim() */
#define MAIN_LOOKS 4096                 /* slots per call of victim() */

#define GHOST_WAYS 8                    /* entries per bucket */

static uint32_t at_least_one(uint64_t n)
{
    return n ? (uint32_t)n : 1;
}

/* --- ghost ---
 *
 * A hash table of 16-bit fingerprints, each bucket a FIFO of eight.
 */

static uint32_t ghost_buckets(uint32_t slots)
{
    return (uint32_t)((uint64_t)slots * 3 / 4 / GHOST_WAYS) + 1;
}

/* The bucket of a block, and its fingerprint, which is not 0. */
static uint16_t *ghost_bucket(const WeirCacheEvict *ev, uint64_t block,
                              uint16_t *fingerprint)
{
    uint64_t h = (block + ev->index->seed) * UINT64_C(0xbf58476d1ce4e5b9);

    h = (h ^ h >> 31) * UINT64_C(0x94d049bb133111eb);
    h ^= h >> 29;
    *fingerprint = (uint16_t)h ? (uint16_t)h : 1;
    return ev->ghost + GHOST_WAYS * ((h >> 32) * ev->ghost_buckets >> 32);
}

/* Take a block out. Returns whether it was there. */
static bool ghost_take(WeirCacheEvict *ev, uint64_t block)
{
    uint16_t fingerprint;
    uint16_t *bucket = ghost_bucket(ev, block, &fingerprint);

    for (int i = 0; i < GHOST_WAYS; i++) {
        if (bucket[i] == fingerprint) {
            memmove(bucket + i, bucket + i + 1,
                    (size_t)(GHOST_WAYS - 1 - i) * sizeof(*bucket));
            bucket[GHOST_WAYS - 1] = 0;
            return true;
        }
    }
    return false;
}

static void ghost_add(WeirCacheEvict *ev, uint64_t block)
{
    uint16_t fingerprint;
    uint16_t *bucket = ghost_bucket(ev, block, &fingerprint);

    memmove(bucket + 1, bucket, (GHOST_WAYS - 1) * sizeof(*bucket));
    bucket[0] = fingerprint;
}

/* --- probation --- */

static uint32_t ring_size(uint32_t slots)
{
    return at_least_one((uint64_t)slots / 8);
}

static void ring_push(WeirCacheEvict *ev, uint64_t block)
{
    uint64_t i = (uint64_t)ev->ring_first + ev->ring_count;

    assert(ev->ring_count < ev->ring_size);
    i -= i < ev->ring_size ? 0 : ev->ring_size;
    ev->ring_low[i] = (uint32_t)block;
    ev->ring_high[i] = (uint8_t)(block >> 32);
    ev->ring_count++;
}

/*
 * Take the oldest block out of the ring, which is not empty. Returns its slot,
 * or WEIR_CACHE_NO_SLOT when it is no longer on probation.
 */
static uint32_t ring_pop(WeirCacheEvict *ev)
{
    uint32_t i = ev->ring_first;
    uint64_t block = (uint64_t)ev->ring_high[i] << 32 | ev->ring_low[i];
    uint32_t slot = weir_cache_index_find(ev->index, block);

    assert(ev->ring_count);
    i = ev->ring_first = i + 1 < ev->ring_size ? i + 1 : 0;
    ev->ring_count--;
    weir_cache_index_prefetch(ev->index, (uint64_t)ev->ring_high[i] << 32 |
                                         ev->ring_low[i]);
    if (slot != WEIR_CACHE_NO_SLOT &&
        !(ev->index->flags[slot] & WEIR_SLOT_PROBATION)) {
        slot = WEIR_CACHE_NO_SLOT;
    }
    return slot;
}

/* Whether the hand gets to the slot within half a round. */
static bool hand_is_near(const WeirCacheEvict *ev, uint32_t slot)
{
    uint32_t slots = ev->index->slots;

    if (ev->hand == WEIR_CACHE_NO_SLOT) {
        return false;
    }
    return (slot >= ev->hand ? slot - ev->hand : slots - ev->hand + slot) <
           slots / 2;
}

static void promote(WeirCacheEvict *ev, uint32_t slot)
{
    uint8_t *flags = &ev->index->flags[slot];

    *flags &= (uint8_t)~(WEIR_SLOT_PROBATION | WEIR_SLOT_FREQUENCY);
    *flags |= hand_is_near(ev, slot);
    ev->probation--;
}

/* The ring is full: the oldest block goes to main as it is. */
static void ring_overflow(WeirCacheEvict *ev)
{
    uint32_t slot = ring_pop(ev);

    if (slot != WEIR_CACHE_NO_SLOT) {
        ev->index->flags[slot] &= (uint8_t)~WEIR_SLOT_PROBATION;
        ev->probation--;
    }
}

static bool is_stuck(uint8_t flags)
{
    return flags & (WEIR_SLOT_DIRTY | WEIR_SLOT_WRITE_BACK);
}

static uint32_t victim_on_probation(WeirCacheEvict *ev)
{
    for (int n = 0; n < PROBATION_LOOKS && ev->ring_count; n++) {
        uint32_t slot = ring_pop(ev);
        uint64_t block;

        if (slot == WEIR_CACHE_NO_SLOT) {
            continue;
        }
        block = weir_cache_index_block(ev->index, slot);
        if ((ev->index->flags[slot] & WEIR_SLOT_FREQUENCY) >= PROMOTE_AT) {
            promote(ev, slot);
        } else if (is_stuck(ev->index->flags[slot])) {
            ring_push(ev, block);
        } else {
            ev->probation--;
            ghost_add(ev, block);
            return slot;
        }
    }
    return WEIR_CACHE_NO_SLOT;
}

/* --- main --- */

#define LANES 8
#define EACH UINT64_C(0x0101010101010101)

_Static_assert(WEIR_SLOT_FREQUENCY == 3 && WEIR_SLOT_PROBATION == 1 << 2 &&
               WEIR_SLOT_MAPPED == 1 << 3 && WEIR_SLOT_DIRTY == 1 << 4 &&
               WEIR_SLOT_WRITE_BACK == 1 << 6, "the shifts below");

/* The best slot that a walk of the hand has seen. */
typedef struct Candidate {
    uint32_t slot;
    unsigned frequency;
} Candidate;

/* Note a lower frequency. at[f]: bit 0 of each lane that has frequency f. */
static void note_lowest(Candidate *best, uint32_t slot, const uint64_t *at)
{
    for (unsigned f = 0; f < best->frequency; f++) {
        if (at[f]) {
            best->slot = slot + (uint32_t)__builtin_ctzll(at[f]) / 8;
            best->frequency = f;
        }
    }
}

/*
 * The hand passes `count` slots, 1..8, or up to the first one of frequency 0
 * that can be evicted, which `best` then is. Returns how many it passed.
 */
static uint32_t pass_hand(uint8_t *flags, uint32_t slot, uint32_t count,
                          Candidate *best)
{
    uint64_t word = 0;
    uint64_t low, high, hot, clean;

    memcpy(&word, flags + slot, count);
    word = le64toh(word);
    low = word & EACH;
    high = word >> 1 & EACH;
    clean = word >> 3 & ~(word >> 2) & EACH;    /* mapped, not on probation */
    hot = (low | high) & clean;
    clean &= ~(word >> 4 | word >> 6);
    note_lowest(best, slot, (uint64_t[4]) {
        clean & ~(low | high), clean & low & ~high, clean & high & ~low,
        clean & low & high,
    });
    if (!best->frequency) {
        count = best->slot - slot + 1;
        hot &= (UINT64_C(1) << (count - 1) * 8) - 1;
    }
    word = htole64(word - hot);
    memcpy(flags + slot, &word, count);
    return count;
}

static uint32_t victim_in_main(WeirCacheEvict *ev)
{
    Candidate best = { WEIR_CACHE_NO_SLOT, WEIR_SLOT_FREQUENCY + 1 };
    WeirCacheIndex *ix = ev->index;
    uint32_t looks = ix->slots < MAIN_LOOKS ? ix->slots : MAIN_LOOKS;

    if (ev->hand == WEIR_CACHE_NO_SLOT) {
        ev->hand = ix->cursor;
    }
    for (uint32_t n = 0; n < looks && best.frequency; ) {
        uint32_t rest = ix->slots - ev->hand;
        uint32_t count = pass_hand(ix->flags, ev->hand,
                                   rest < LANES ? rest : LANES, &best);

        ev->hand = count < rest ? ev->hand + count : 0;
        n += count;
    }
    return best.slot;
}

/* --- interface --- */

int weir_cache_evict_init(WeirCacheEvict *ev, WeirCacheIndex *index)
{
    memset(ev, 0, sizeof(*ev));
    ev->index = index;
    ev->main_max = index->slots - at_least_one(index->slots / 10);
    ev->hand = WEIR_CACHE_NO_SLOT;
    ev->ring_size = ring_size(index->slots);
    ev->ring_low = malloc((size_t)ev->ring_size * sizeof(*ev->ring_low));
    ev->ring_high = malloc(ev->ring_size);
    ev->ghost_buckets = ghost_buckets(index->slots);
    ev->ghost = calloc(ev->ghost_buckets, GHOST_WAYS * sizeof(*ev->ghost));
    if (!ev->ring_low || !ev->ring_high || !ev->ghost) {
        weir_cache_evict_destroy(ev);
        return -ENOMEM;
    }
    return 0;
}

void weir_cache_evict_destroy(WeirCacheEvict *ev)
{
    free(ev->ring_low);
    free(ev->ring_high);
    free(ev->ghost);
    memset(ev, 0, sizeof(*ev));
}

uint64_t weir_cache_evict_bytes(uint32_t slots)
{
    return ring_size(slots) * UINT64_C(5) +
           ghost_buckets(slots) * (uint64_t)GHOST_WAYS * sizeof(uint16_t);
}

uint8_t weir_cache_evict_insert(WeirCacheEvict *ev, uint64_t block)
{
    if (ghost_take(ev, block)) {
        /* its slot was taken where the index' cursor is now, or nearly so */
        return hand_is_near(ev, ev->index->cursor);
    }
    if (ev->hand == WEIR_CACHE_NO_SLOT &&
        ev->probation >= at_least_one(ev->index->slots / 2 * UINT64_C(21) /
                                      100)) {
        return 0;                       /* the cache is not full yet */
    }
    if (ev->ring_count == ev->ring_size) {
        ring_overflow(ev);
    }
    ring_push(ev, block);
    ev->probation++;
    return WEIR_SLOT_PROBATION;
}

uint8_t weir_cache_evict_move(WeirCacheEvict *ev, uint32_t from)
{
    assert(ev->index->flags[from] & WEIR_SLOT_MAPPED);
    weir_cache_evict_hit(ev, from);
    return ev->index->flags[from] & (WEIR_SLOT_PROBATION |
                                     WEIR_SLOT_FREQUENCY);
}

void weir_cache_evict_remove(WeirCacheEvict *ev, uint32_t slot)
{
    uint8_t flags = ev->index->flags[slot];

    assert(flags & WEIR_SLOT_MAPPED);
    ev->probation -= !!(flags & WEIR_SLOT_PROBATION);
}

uint32_t weir_cache_evict_victim(WeirCacheEvict *ev)
{
    bool main_first = ev->index->mapped - ev->probation > ev->main_max;
    uint32_t slot;

    if (ev->index->dirty == ev->index->mapped) {
        return WEIR_CACHE_NO_SLOT;
    }
    slot = main_first ? victim_in_main(ev) : victim_on_probation(ev);
    if (slot == WEIR_CACHE_NO_SLOT) {
        slot = main_first ? victim_on_probation(ev) : victim_in_main(ev);
    }
    return slot;
}

void weir_cache_evict_restore(WeirCacheEvict *ev)
{
    WeirCacheIndex *ix = ev->index;

    memset(ev->ghost, 0,
           (size_t)ev->ghost_buckets * GHOST_WAYS * sizeof(*ev->ghost));
    ev->hand = WEIR_CACHE_NO_SLOT;
    ev->ring_first = ev->ring_count = 0;
    for (uint32_t slot = 0; slot < ix->slots; slot++) {
        if (!(ix->flags[slot] & WEIR_SLOT_PROBATION)) {
            continue;
        }
        if (ev->ring_count < ev->ring_size) {
            ring_push(ev, weir_cache_index_block(ix, slot));
        } else {
            ix->flags[slot] &= (uint8_t)~WEIR_SLOT_PROBATION;
        }
    }
    ev->probation = ev->ring_count;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO Queues are All You Need for
 * Cache Eviction", SOSP 2023) without its lists, in 2.9 bytes per slot.
 *
 *   probation  A new block waits in a FIFO. If it was hit twice when its turn
 *              comes it goes to main, else it is evicted: a scan passes through
 *              here and leaves main alone.
 *   main       All other blocks, in CLOCK's order: a hand goes round the slots
 *              and evicts the first one whose 2-bit count of hits is 0; it
 *              takes one off the others'. Main gives a slot up when it has more
 *              than nine tenths of them, else probation does.
 *   ghost      Remembers for a while which blocks were evicted from probation.
 *              One that comes back by then goes to main at once.
 *
 * What differs from the paper, and why:
 *
 *   - The FIFO is a ring of block numbers, not of slots, since a block changes
 *     its slot when it is overwritten. Each is looked up in the index at its
 *     turn; those that are gone, or in main by now, are skipped.
 *   - The ring is bounded. While the cache fills up for the first time, what
 *     probation has no room for goes to main, as in libCacheSim of the paper's
 *     authors (in the paper all of it is on probation then).
 *   - A dirty block cannot be evicted. At its turn it queues up again on
 *     probation: in main it would push others out. Hence a ring of three tenths
 *     of the slots for what is a tenth without dirty ones. When even that is
 *     full, the oldest goes to main. The hand passes dirty blocks by, and
 *     counts down.
 *   - Main is in the order of slots, not of arrival. A block that comes to main
 *     where the hand will be soon starts with a count of 1: it stays for half a
 *     round to one and a half, on average the round that it would stay at the
 *     end of a FIFO.
 *   - The hand starts at the index' cursor when main is to give a slot up for
 *     the first time: what lies behind it was filled last.
 *   - All walks are bounded. If the hand finds no count of 0 by then, the
 *     lowest that it saw goes.
 *   - The ghost is a hash table of fingerprints. Entries leave it when their
 *     bucket is full, more or less in the order they came; in loops that are a
 *     little too long for it this can do better than a FIFO.
 *
 * tests/unit/test-cache-evict.c compares the miss ratios with those of exact
 * lists.
 */
#include "cache/evict.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PROMOTE_AT 2                    /* hits on probation */
#define PROMOTE_NEVER (WEIR_SLOT_FREQUENCY + 1)
#define PROBATION_LOOKS 64              /* blocks per walk */
#define MAIN_STEPS 512                  /* of 8 slots, per walk */
#define GHOST_WAYS 8                    /* entries per bucket */

static uint32_t share_of(uint32_t slots, unsigned tenths)
{
    uint32_t n = (uint32_t)((uint64_t)slots * tenths / 10);

    return n ? n : 1;
}

static uint32_t probation_size(uint32_t slots)
{
    return share_of(slots, 1);
}

static uint32_t main_size(uint32_t slots)
{
    return slots - probation_size(slots);
}

static uint32_t ring_size(uint32_t slots)
{
    return share_of(slots, 3);
}

static uint32_t ghost_buckets(uint32_t slots)
{
    return share_of(slots, 7) / GHOST_WAYS + 1;
}

static size_t ghost_bytes(uint32_t slots)
{
    return (size_t)ghost_buckets(slots) * GHOST_WAYS * sizeof(uint16_t);
}

/* --- ghost: buckets of fingerprints, newest first, 0: none --- */

static uint16_t *ghost_bucket(const WeirCacheEvict *ev, uint64_t block,
                              uint16_t *fingerprint)
{
    uint64_t h = (block + ev->index->seed) * UINT64_C(0xbf58476d1ce4e5b9);

    h = (h ^ h >> 31) * UINT64_C(0x94d049bb133111eb);
    h ^= h >> 29;
    *fingerprint = (uint16_t)h ? (uint16_t)h : 1;
    return ev->ghost + GHOST_WAYS * ((h >> 32) * ev->ghost_buckets >> 32);
}

static void ghost_add(WeirCacheEvict *ev, uint64_t block)
{
    uint16_t fingerprint;
    uint16_t *bucket = ghost_bucket(ev, block, &fingerprint);

    memmove(bucket + 1, bucket, (GHOST_WAYS - 1) * sizeof(*bucket));
    bucket[0] = fingerprint;
}

/* Where in its bucket a block is; GHOST_WAYS: nowhere. */
static size_t ghost_find(const uint16_t *bucket, uint16_t fingerprint)
{
    size_t i = 0;

    while (i < GHOST_WAYS && bucket[i] != fingerprint) {
        i++;
    }
    return i;
}

/* Take a block out. Returns whether it was there. */
static bool ghost_take(WeirCacheEvict *ev, uint64_t block)
{
    uint16_t fingerprint;
    uint16_t *bucket = ghost_bucket(ev, block, &fingerprint);
    size_t i = ghost_find(bucket, fingerprint);

    if (i == GHOST_WAYS) {
        return false;
    }
    memmove(bucket + i, bucket + i + 1,
            (GHOST_WAYS - 1 - i) * sizeof(*bucket));
    bucket[GHOST_WAYS - 1] = 0;
    return true;
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

/* Whether the hand gets to the slot within half a round. */
static bool hand_is_near(const WeirCacheEvict *ev, uint32_t slot)
{
    uint32_t slots = ev->index->slots;
    uint32_t ahead = slot >= ev->hand ? slot - ev->hand
                                      : slots - ev->hand + slot;

    return ev->hand != WEIR_CACHE_NO_SLOT && ahead < slots / 2;
}

/* From probation to main. */
static void promote(WeirCacheEvict *ev, uint32_t slot, unsigned frequency)
{
    uint8_t *flags = &ev->index->flags[slot];

    *flags &= (uint8_t)~(WEIR_SLOT_PROBATION | WEIR_SLOT_FREQUENCY);
    *flags |= (uint8_t)frequency;
    ev->probation--;
}

/* --- probation --- */

static void ring_push(WeirCacheEvict *ev, uint64_t block)
{
    uint64_t i = (uint64_t)ev->ring_first + ev->ring_count;

    assert(ev->ring_count < ev->ring_size);
    i -= i < ev->ring_size ? 0 : ev->ring_size;
    ev->ring_low[i] = (uint32_t)block;
    ev->ring_high[i] = (uint8_t)(block >> 32);
    ev->ring_count++;
}

static uint64_t ring_oldest(const WeirCacheEvict *ev)
{
    uint32_t i = ev->ring_first;

    return (uint64_t)ev->ring_high[i] << 32 | ev->ring_low[i];
}

/*
 * Take the oldest block out of the ring, which is not empty. Returns its slot,
 * or WEIR_CACHE_NO_SLOT when it is no longer on probation.
 */
static uint32_t ring_pop(WeirCacheEvict *ev)
{
    uint32_t slot = weir_cache_index_find(ev->index, ring_oldest(ev));

    assert(ev->ring_count);
    ev->ring_first = ev->ring_first + 1 < ev->ring_size ? ev->ring_first + 1
                                                        : 0;
    ev->ring_count--;
    weir_cache_index_prefetch(ev->index, ring_oldest(ev));
    if (slot != WEIR_CACHE_NO_SLOT &&
        !(ev->index->flags[slot] & WEIR_SLOT_PROBATION)) {
        slot = WEIR_CACHE_NO_SLOT;
    }
    return slot;
}

/* The ring is full. */
static void ring_overflow(WeirCacheEvict *ev)
{
    uint32_t slot = ring_pop(ev);

    if (slot != WEIR_CACHE_NO_SLOT) {
        promote(ev, slot, frequency_of(ev, slot));
    }
}

/* promote_at: frequency from which on a block is not evicted. */
static uint32_t victim_on_probation(WeirCacheEvict *ev, unsigned promote_at)
{
    for (int n = 0; n < PROBATION_LOOKS && ev->ring_count; n++) {
        uint32_t slot = ring_pop(ev);
        uint64_t block;

        if (slot == WEIR_CACHE_NO_SLOT) {
            continue;
        }
        block = weir_cache_index_block(ev->index, slot);
        if (frequency_of(ev, slot) >= promote_at) {
            promote(ev, slot, hand_is_near(ev, slot));
        } else if (is_stuck(ev, slot)) {
            ring_push(ev, block);
        } else {
            ev->probation--;
            ghost_add(ev, block);
            return slot;
        }
    }
    return WEIR_CACHE_NO_SLOT;
}

/* --- main: 8 slots at a time, a byte of flags in each lane of a word --- */

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

/* low, high: bits of the frequency; clean: bit 0 of lanes that may be chosen */
static void choose(Candidate *best, uint32_t slot, uint64_t low, uint64_t high,
                   uint64_t clean)
{
    const uint64_t having[] = {
        clean & ~low & ~high, clean & low & ~high, clean & ~low & high,
        clean & low & high,
    };

    for (unsigned f = 0; f < best->frequency; f++) {
        if (having[f]) {
            best->slot = slot + (uint32_t)__builtin_ctzll(having[f]) / 8;
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
    uint64_t low, high, in_main, hot;

    memcpy(&word, flags + slot, count);
    word = le64toh(word);
    in_main = word >> 3 & ~(word >> 2) & EACH;
    if (!in_main) {
        return count;
    }
    low = word;
    high = word >> 1;
    choose(best, slot, low, high, in_main & ~(word >> 4 | word >> 6));
    if (!best->frequency) {
        count = best->slot - slot + 1;  /* leaves the lanes behind it alone */
    }
    hot = in_main & (low | high);
    if (hot) {
        word = htole64(word - hot);
        memcpy(flags + slot, &word, count);
    }
    return count;
}

static uint32_t victim_in_main(WeirCacheEvict *ev)
{
    Candidate best = { WEIR_CACHE_NO_SLOT, WEIR_SLOT_FREQUENCY + 1 };
    uint32_t slots = ev->index->slots;
    uint32_t passed = 0;

    if (ev->hand == WEIR_CACHE_NO_SLOT) {
        ev->hand = ev->index->cursor;
    }
    for (int n = 0; n < MAIN_STEPS && passed < slots && best.frequency; n++) {
        uint32_t rest = slots - ev->hand;
        uint32_t count = pass_hand(ev->index->flags, ev->hand,
                                   rest < LANES ? rest : LANES, &best);

        ev->hand = count < rest ? ev->hand + count : 0;
        passed += count;
    }
    return best.slot;
}

/* --- set up --- */

int weir_cache_evict_init(WeirCacheEvict *ev, WeirCacheIndex *index)
{
    memset(ev, 0, sizeof(*ev));
    ev->index = index;
    ev->hand = WEIR_CACHE_NO_SLOT;
    ev->ring_size = ring_size(index->slots);
    ev->ring_low = weir_cache_memory(ev->ring_size * UINT64_C(4));
    ev->ring_high = weir_cache_memory(ev->ring_size);
    ev->ghost_buckets = ghost_buckets(index->slots);
    ev->ghost = weir_cache_memory_zero(ghost_bytes(index->slots));
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
    return ring_size(slots) * UINT64_C(5) + ghost_bytes(slots);
}

void weir_cache_evict_restore(WeirCacheEvict *ev)
{
    WeirCacheIndex *ix = ev->index;

    memset(ev->ghost, 0, ghost_bytes(ix->slots));
    ev->hand = ix->mapped > main_size(ix->slots) ? 0 : WEIR_CACHE_NO_SLOT;
    ev->probation = 0;
    ev->ring_first = 0;
    ev->ring_count = 0;
    for (uint32_t slot = 0; slot < ix->slots; slot++) {
        if (!(ix->flags[slot] & WEIR_SLOT_PROBATION)) {
            continue;
        }
        ev->probation++;
        if (ev->ring_count < ev->ring_size) {
            ring_push(ev, weir_cache_index_block(ix, slot));
        } else {
            promote(ev, slot, frequency_of(ev, slot));
        }
    }
}

/* --- in and out --- */

uint8_t weir_cache_evict_insert(WeirCacheEvict *ev, uint64_t block)
{
    if (ghost_take(ev, block)) {
        /* its slot was taken at the cursor, which cannot be far by now */
        return hand_is_near(ev, ev->index->cursor);
    }
    if (ev->hand == WEIR_CACHE_NO_SLOT &&
        ev->probation >= probation_size(ev->index->slots)) {
        return 0;
    }
    if (ev->ring_count == ev->ring_size) {
        ring_overflow(ev);
    }
    ring_push(ev, block);
    ev->probation++;
    return WEIR_SLOT_PROBATION;
}

bool weir_cache_evict_admit(WeirCacheEvict *ev, uint64_t block)
{
    uint16_t fingerprint;
    const uint16_t *bucket = ghost_bucket(ev, block, &fingerprint);

    if (ghost_find(bucket, fingerprint) < GHOST_WAYS) {
        return true;
    }
    ghost_add(ev, block);
    return false;
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
    assert(ev->index->flags[slot] & WEIR_SLOT_MAPPED);
    if (ev->index->flags[slot] & WEIR_SLOT_PROBATION) {
        ev->probation--;                /* the ring skips it at its turn */
    }
}

uint32_t weir_cache_evict_victim(WeirCacheEvict *ev)
{
    const WeirCacheIndex *ix = ev->index;
    uint32_t in_main = ix->mapped - ev->probation;
    uint32_t slot = WEIR_CACHE_NO_SLOT;

    if (ix->mapped == ix->dirty) {
        return WEIR_CACHE_NO_SLOT;
    }
    if (in_main <= main_size(ix->slots)) {
        slot = victim_on_probation(ev, PROMOTE_AT);
    }
    if (slot == WEIR_CACHE_NO_SLOT) {
        slot = victim_in_main(ev);
    }
    if (slot == WEIR_CACHE_NO_SLOT) {
        slot = victim_on_probation(ev, PROMOTE_NEVER);
    }
    return slot;
}

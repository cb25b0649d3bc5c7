/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_EVICT_H
#define WEIR_CACHE_EVICT_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/index.h"

/*
 * Which slot of a full cache to give up: S3-FIFO over the slots of an index.
 * How it works is told in evict.c.
 *
 *            insert()                             insert(), seen lately
 *               |                                          |
 *               v        hit twice, or no room left        v
 *           probation ----------------------------------> main
 *               | victim()                                 | victim()
 *               v                                          v
 *             ghost                                      (gone)
 *               ^
 *               | admit(), the first time
 *
 * The flags WEIR_SLOT_PROBATION and WEIR_SLOT_FREQUENCY of a mapped slot are
 * changed here only; whoever maps a slot passes on what insert() or move()
 * returned.
 *
 * Nothing here locks, yields or does I/O: the caller locks, with the index.
 */

typedef struct WeirCacheEvict {
    WeirCacheIndex *index;              /* set at init */
    uint32_t probation;                 /* mapped slots that are on it */
    uint32_t hand;                      /* next slot of main to look at, or
                                           WEIR_CACHE_NO_SLOT: not needed yet */
    uint32_t ring_size;                 /* set at init */
    uint32_t ring_first;
    uint32_t ring_count;
    uint32_t *ring_low;                 /* blocks in order of arrival on
                                           probation; some have left it */
    uint8_t *ring_high;
    uint32_t ghost_buckets;             /* set at init */
    uint16_t *ghost;
} WeirCacheEvict;

/*
 * Start with nothing queued. The index is the caller's, outlives this, and has
 * nothing mapped, or weir_cache_evict_restore() follows.
 * Returns 0, or -ENOMEM with nothing held.
 */
int weir_cache_evict_init(WeirCacheEvict *ev, WeirCacheIndex *index);

void weir_cache_evict_destroy(WeirCacheEvict *ev);

/* Bytes of memory that it takes for so many slots. */
uint64_t weir_cache_evict_bytes(uint32_t slots);

/* A mapped slot was read. */
static inline void weir_cache_evict_hit(WeirCacheEvict *ev, uint32_t slot)
{
    uint8_t *flags = &ev->index->flags[slot];

    if ((*flags & WEIR_SLOT_FREQUENCY) < WEIR_SLOT_FREQUENCY) {
        ++*flags;
    }
}

/*
 * A block that is not in the cache is about to be mapped, to a slot that was
 * taken not long ago. Queues it.
 * Returns the flags to map it with: of WEIR_SLOT_PROBATION and
 * WEIR_SLOT_FREQUENCY. Takes some 100 ns.
 */
uint8_t weir_cache_evict_insert(WeirCacheEvict *ev, uint64_t block);

/*
 * Whether a block that is not in the cache, and was read, should come in:
 * admission by second touch. Not the first time: then the ghost remembers it,
 * as if it had been evicted.
 * Returns true when the ghost knows it, and leaves it there: insert() takes it
 * out, and it comes to main. One in some 8,000 is taken for another block.
 */
bool weir_cache_evict_admit(WeirCacheEvict *ev, uint64_t block);

/*
 * The block of the mapped slot `from` was overwritten: it is about to be
 * unmapped there and mapped to another slot. Counts as a hit.
 * Returns the flags to map it with, as insert().
 */
uint8_t weir_cache_evict_move(WeirCacheEvict *ev, uint32_t from);

/*
 * A mapped slot is about to be unmapped, neither moved nor evicted: its block
 * was discarded, or is damaged.
 */
void weir_cache_evict_remove(WeirCacheEvict *ev, uint32_t slot);

/*
 * Choose a mapped slot that is neither WEIR_SLOT_DIRTY nor
 * WEIR_SLOT_WRITE_BACK. For this file it is evicted then: the caller unmaps it
 * before it calls anything else here.
 * Returns the slot, or WEIR_CACHE_NO_SLOT when all that it looked at were dirty
 * or being written back, but not in a full cache that has none of these; the
 * next call looks at others. Looks at 128 blocks on probation and 4,096 slots
 * of main at most: half a microsecond as a rule, 10 us when nearly all is
 * dirty.
 */
uint32_t weir_cache_evict_victim(WeirCacheEvict *ev);

/*
 * The index was filled from the disk: queue what is mapped, by its flags. What
 * was queued or in the ghost is forgotten. Takes time in proportion to the
 * slots.
 */
void weir_cache_evict_restore(WeirCacheEvict *ev);

#endif

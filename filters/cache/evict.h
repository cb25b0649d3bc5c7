/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_EVICT_H
#define WEIR_CACHE_EVICT_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/ghost.h"
#include "cache/index.h"
#include "cache/rounds.h"

/*
 * Which slot of a full cache to give up: S3-FIFO over the slots of an index.
 * How it works is told in evict.c.
 *
 *            insert()                             insert(), seen lately
 *               |                                          |
 *               v        hit twice, or no room left        v
 *           probation ----------------------------------> main
 *               | victim()                                 | victim()
 *               |           dirty                dirty     |
 *               +----------------> leaving <---------------+
 *               v                     | cleaned()          v
 *             ghost                 (gone)               (gone)
 *               ^
 *               | admit(), the first time
 *
 * The flags WEIR_SLOT_PROBATION and WEIR_SLOT_FREQUENCY of a mapped slot are
 * changed here only; whoever maps a slot passes on what insert() or move()
 * returned.
 *
 * Nothing here locks, yields or does I/O: the caller locks, with the index.
 */

/* A FIFO of block numbers. */
typedef struct WeirCacheRing {
    uint32_t size;                      /* set at init */
    uint32_t first;
    uint32_t count;
    uint32_t *low;
    uint8_t *high;
} WeirCacheRing;

typedef struct WeirCacheEvict {
    WeirCacheIndex *index;              /* set at init */
    bool filling;                       /* nothing was evicted yet */
    uint32_t probation;                 /* mapped slots that are on it */
    WeirCacheRing ring;                 /* blocks in order of arrival on
                                           probation; some have left it */
    WeirCacheRounds main;
    bool unfinished;                    /* see victim() */
    uint32_t leaving;                   /* mapped slots in neither: dirty, and
                                           their turn is over */
    WeirCacheRing hints;                /* some of them; some have stayed */
    WeirCacheGhost ghost;
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
 * A block that is not in the cache is about to be mapped to a slot. Queues it.
 * Returns the flags to map it with: of WEIR_SLOT_PROBATION and
 * WEIR_SLOT_FREQUENCY. Takes some 100 ns.
 */
uint8_t weir_cache_evict_insert(WeirCacheEvict *ev, uint32_t slot,
                                uint64_t block);

/*
 * Whether a block that is not in the cache, and was read, should come in:
 * admission by second touch. Not the first time: then the ghost remembers it,
 * as if it had been evicted.
 * Returns true when the ghost knows it, and leaves it there: insert() takes it
 * out, and it comes to main. One in some 400 is taken for another block.
 */
bool weir_cache_evict_admit(WeirCacheEvict *ev, uint64_t block);

/*
 * The block of the mapped slot `from` was overwritten: it is about to be
 * unmapped there and mapped to the slot `to`. Counts as a hit.
 * Returns the flags to map it with, as insert().
 */
uint8_t weir_cache_evict_move(WeirCacheEvict *ev, uint32_t from, uint32_t to);

/*
 * A mapped slot is about to be unmapped, neither moved nor evicted: its block
 * was discarded, or is damaged.
 */
void weir_cache_evict_remove(WeirCacheEvict *ev, uint32_t slot);

/*
 * Choose a mapped slot that is neither WEIR_SLOT_DIRTY nor
 * WEIR_SLOT_WRITE_BACK. For this file it is evicted then: the caller unmaps it
 * before it calls anything else here.
 * Returns the slot, or WEIR_CACHE_NO_SLOT: it was the turn of a dirty one, and
 * `leaving` is one more; or all are dirty or to leave; or those that it looked
 * at are, but not in a cache that has less than 128 on probation and 1,024
 * in main. The next call looks at others: `unfinished` tells whether there are
 * any in main. Half a microsecond as a rule, 20 us when all is hot.
 */
uint32_t weir_cache_evict_victim(WeirCacheEvict *ev);

/* Whether a mapped slot is to leave as soon as it is clean: in no queue. */
static inline bool weir_cache_evict_is_leaving(const WeirCacheEvict *ev,
                                               uint32_t slot)
{
    return !(ev->index->flags[slot] & WEIR_SLOT_PROBATION) &&
           !weir_cache_rounds_has(&ev->main, slot);
}

/*
 * A slot that is to leave as soon as it is clean, so that it should be written
 * back before others. Each is told once, and not all are.
 * Returns WEIR_CACHE_NO_SLOT when it knows of none.
 */
uint32_t weir_cache_evict_hint(WeirCacheEvict *ev);

/*
 * A mapped slot is neither WEIR_SLOT_DIRTY nor WEIR_SLOT_WRITE_BACK any more.
 * Returns whether it was to leave: for this file it is evicted then, and the
 * caller unmaps it before it calls anything else here.
 */
bool weir_cache_evict_cleaned(WeirCacheEvict *ev, uint32_t slot);

/*
 * The index was filled from the disk: queue what is mapped, by its flags. What
 * was queued or in the ghost is forgotten. Takes time in proportion to the
 * slots.
 */
void weir_cache_evict_restore(WeirCacheEvict *ev);

#endif

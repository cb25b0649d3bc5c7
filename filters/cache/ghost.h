/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_GHOST_H
#define WEIR_CACHE_GHOST_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The blocks that came here last, without what they hold: a FIFO that is
 * looked up by block, in a hash table of 16 bits per entry.
 *
 *   entry   | 5 bits: generation, 1..31; 0: none | 11 bits: fingerprint |
 *
 * The FIFO is forgotten by generations, of a twentieth of it each: as soon as
 * it is full, the oldest generation as a whole. Its entries are wiped bit by
 * bit afterwards, before its number comes again.
 *
 * One block in some 400 is taken for another one. A few per cent are forgotten
 * too early, because their bucket is full.
 *
 * That none is known for longer than in a FIFO matters more than either: see
 * what the miss ratio of a loop does when it comes to fit in the ghost.
 *
 * Nothing here locks: the caller does.
 */
#define WEIR_CACHE_GENERATIONS 31

typedef struct WeirCacheGhost {
    uint64_t seed;                      /* set at init */
    uint32_t size;                      /* set at init */
    uint32_t buckets;                   /* set at init */
    uint16_t *entry;
    bool used;                          /* not all entries are 0 */
    uint32_t live;                      /* entries of live generations */
    uint32_t count[WEIR_CACHE_GENERATIONS + 1]; /* in each that is live */
    uint32_t wipe;                      /* next bucket to be wiped */
    uint8_t oldest;
    uint8_t newest;
} WeirCacheGhost;

/*
 * Start empty. size: blocks that it knows. seed: something guests cannot
 * guess.
 * Returns 0, or -ENOMEM with nothing held.
 */
int weir_cache_ghost_init(WeirCacheGhost *g, uint32_t size, uint64_t seed);

void weir_cache_ghost_destroy(WeirCacheGhost *g);

/* Bytes of memory that one of this size takes. */
uint64_t weir_cache_ghost_bytes(uint32_t size);

/* Forget all. */
void weir_cache_ghost_clear(WeirCacheGhost *g);

/* A block comes, and is the last to be forgotten. */
void weir_cache_ghost_add(WeirCacheGhost *g, uint64_t block);

bool weir_cache_ghost_knows(const WeirCacheGhost *g, uint64_t block);

/* Forget a block. Returns whether it was known. */
bool weir_cache_ghost_take(WeirCacheGhost *g, uint64_t block);

#endif

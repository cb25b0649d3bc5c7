/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_ROUNDS_H
#define WEIR_CACHE_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A FIFO of slots in half a byte for each slot there is, where a list takes
 * eight. It is cut into pieces of equal size; within a piece the order is that
 * of the slots, not of arrival:
 *
 *      round 5            6            7            8      rounds
 *   first() <- [ 3, 17, 40 ] [ 1, 9, 22 ] [ 4, 18, 30 ] [ 2, 25 ] <- join()
 *
 * A hand goes round all slots and stops at those that are due in the present
 * round; who joins is due in the last one. Their numbers are taken modulo 15.
 *
 * Nothing here locks: the caller does.
 */
#define WEIR_CACHE_ROUNDS_MAX 15

typedef struct WeirCacheRounds {
    uint32_t slots;                     /* set at init */
    uint32_t piece;                     /* set at init */
    uint8_t *due;                       /* 4 bits: a round, 1..15; 0: not in */
    uint32_t count[WEIR_CACHE_ROUNDS_MAX + 1];  /* slots due in each round */
    uint32_t used;                      /* slots that are in */
    uint32_t hand;                      /* slots before it had their turn */
    uint32_t joined;                    /* slots that came in the last round */
    uint8_t round;                      /* the present one */
    uint8_t last;                       /* never the present one */
} WeirCacheRounds;

/*
 * Start empty. most: slots that are in as a rule, in 12 pieces; more make
 * larger pieces.
 * Returns 0, or -ENOMEM with nothing held.
 */
int weir_cache_rounds_init(WeirCacheRounds *r, uint32_t slots, uint32_t most);

void weir_cache_rounds_destroy(WeirCacheRounds *r);

/* Bytes of memory for so many slots. */
uint64_t weir_cache_rounds_bytes(uint32_t slots);

/* Empty it. */
void weir_cache_rounds_clear(WeirCacheRounds *r);

/* Slots that are not in join at the end: `count` from `first` on. */
void weir_cache_rounds_join(WeirCacheRounds *r, uint32_t first,
                            uint32_t count);

/* A slot that is in leaves. */
void weir_cache_rounds_leave(WeirCacheRounds *r, uint32_t slot);

/* `to`, which is not in, takes the place of `from`, which leaves. */
void weir_cache_rounds_replace(WeirCacheRounds *r, uint32_t from, uint32_t to);

/*
 * The slot whose turn it is. It stays in, and first, until it leaves.
 * words: of 16 slots, that the hand may pass by; counted down.
 * Returns WEIR_CACHE_NO_SLOT when it is empty, or when the hand has not found
 * one by then; the next call goes on from there.
 */
uint32_t weir_cache_rounds_first(WeirCacheRounds *r, uint32_t *words);

static inline bool weir_cache_rounds_has(const WeirCacheRounds *r,
                                         uint32_t slot)
{
    return r->due[slot / 2] >> slot % 2 * 4 & 0xf;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_INDEX_H
#define WEIR_CACHE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Which block of the base lies in which slot of the cache, in memory: a hash
 * table whose nodes are the slots, and the set of free slots.
 *
 *   free --take()--> taken --map()--> mapped --unmap()--> taken --give()--+
 *    ^                                                                  |
 *    +------------------------------------------------------------------+
 *
 * A slot that is taken and not mapped has new data on the way in, or waits
 * until its last user is through and its end is on record.
 *
 * Nothing here locks: the caller does.
 */

#define WEIR_CACHE_BLOCK_BYTES 4096
#define WEIR_CACHE_NO_SLOT UINT32_MAX
#define WEIR_CACHE_SLOTS_MAX (UINT32_MAX - 64)
#define WEIR_CACHE_BLOCKS_MAX (UINT64_C(1) << 40)    /* of the base */

/* Bits of `flags`. The first three belong to evict.c. */
#define WEIR_SLOT_FREQUENCY  0x03       /* hits since it was last looked at */
#define WEIR_SLOT_PROBATION  0x04
#define WEIR_SLOT_MAPPED     0x08
#define WEIR_SLOT_DIRTY      0x10       /* newer than the base */
#define WEIR_SLOT_ZERO       0x20       /* reads as zeroes, holds no data */
#define WEIR_SLOT_WRITE_BACK 0x40       /* being copied to the base */
#define WEIR_SLOT_SUSPECT    0x80       /* clean, but the base may differ */

/*
 * What is known of a slot. All that a look-up needs of it is in one cache line,
 * or two when it lies across; a wider one would take more memory than there is
 * to a slot.
 */
typedef struct __attribute__((packed)) WeirCacheNode {
    uint32_t block_low;
    uint32_t next;                      /* slot in the bucket; a list of the
                                           caller's while taken */
    uint32_t crc;                       /* crc.h */
    uint8_t block_high;
} WeirCacheNode;

typedef struct WeirCacheIndex {
    uint32_t slots;                     /* set at init */
    uint32_t buckets;                   /* set at init */
    uint64_t seed;                      /* set at init */
    uint32_t mapped;
    uint32_t dirty;
    uint32_t free;
    uint32_t cursor;                    /* where to look for a free slot */
    uint32_t *head;                     /* of each bucket */
    WeirCacheNode *node;                /* of each slot */
    uint8_t *flags;
    uint64_t *free_bits;                /* bit: slot is free */
    uint64_t *free_words;               /* bit: free_bits[i] is not 0 */
} WeirCacheIndex;

/*
 * Make an index of empty slots, all free.
 * slots: 1..WEIR_CACHE_SLOTS_MAX. seed: something guests cannot guess.
 * Returns 0, or -ENOMEM with nothing held.
 */
int weir_cache_index_init(WeirCacheIndex *ix, uint32_t slots, uint64_t seed);

void weir_cache_index_destroy(WeirCacheIndex *ix);

/*
 * Memory that is used all over, in huge pages when it is much. free() it.
 * Returns NULL when there is none.
 */
void *weir_cache_memory(uint64_t bytes);
void *weir_cache_memory_zero(uint64_t bytes);

/* Bytes of memory that an index of so many slots takes. */
uint64_t weir_cache_index_bytes(uint32_t slots);

/* The slot of a block, or WEIR_CACHE_NO_SLOT. */
uint32_t weir_cache_index_find(const WeirCacheIndex *ix, uint64_t block);

/* Have the memory that a coming find() or map() of the block needs brought. */
void weir_cache_index_prefetch(const WeirCacheIndex *ix, uint64_t block);

/* The same for what is known of a slot. */
void weir_cache_index_prefetch_slot(const WeirCacheIndex *ix, uint32_t slot);

/* The n-th slot that a find() would look at, or WEIR_CACHE_NO_SLOT. */
uint32_t weir_cache_index_candidate(const WeirCacheIndex *ix, uint64_t block,
                                    unsigned n);

/*
 * Take a run of free slots: the first one at or behind the cursor, so that
 * slots which were freed side by side are written side by side.
 * want: >= 1. first: gets the first slot of the run.
 * Returns the length, 1..want, or 0 when none is free.
 */
uint32_t weir_cache_index_take(WeirCacheIndex *ix, uint32_t want,
                               uint32_t *first);

/*
 * While a new index is filled from the disk: take a slot and map a block, as
 * below. Any number of threads may do it at the same time, each with slots of
 * its own. Nothing else may be called before loaded(), which counts them.
 */
void weir_cache_index_load(WeirCacheIndex *ix, uint32_t slot, uint64_t block,
                           uint32_t crc, uint8_t flags);
void weir_cache_index_loaded(WeirCacheIndex *ix);

/* Take this one, which is free. */
void weir_cache_index_take_slot(WeirCacheIndex *ix, uint32_t slot);

/* Give a taken slot back. */
void weir_cache_index_give(WeirCacheIndex *ix, uint32_t slot);

/*
 * A taken slot now holds a block, which no other slot holds.
 * flags: WEIR_SLOT_MAPPED is added.
 */
void weir_cache_index_map(WeirCacheIndex *ix, uint32_t slot, uint64_t block,
                          uint32_t crc, uint8_t flags);

/* A mapped slot holds nothing any more. It stays taken. */
void weir_cache_index_unmap(WeirCacheIndex *ix, uint32_t slot);

/* Change flags of a mapped slot other than WEIR_SLOT_MAPPED. */
void weir_cache_index_set_flags(WeirCacheIndex *ix, uint32_t slot,
                                uint8_t clear, uint8_t set);

static inline bool weir_cache_index_is_free(const WeirCacheIndex *ix,
                                            uint32_t slot)
{
    return ix->free_bits[slot / 64] >> (slot % 64) & 1;
}

/* The block that a mapped slot holds. */
static inline uint64_t weir_cache_index_block(const WeirCacheIndex *ix,
                                              uint32_t slot)
{
    const WeirCacheNode *node = &ix->node[slot];

    return (uint64_t)node->block_high << 32 | node->block_low;
}

#endif

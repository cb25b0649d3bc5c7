/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_HOTZONE_H
#define WEIR_ENCRYPTION_HOTZONE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The range of a disk that is being converted: which of its blocks are new
 * already, and the checksums of all as they were when old. No I/O. The caller
 * locks; offsets and lengths are multiples of a block.
 *
 * The checksums are taken in passes, while others write. At the beginning all
 * blocks are unknown; a pass takes the unknown ones, which are old from then
 * on, and a block that is written to becomes unknown again. When nobody
 * writes, and a pass finds none, all checksums are those of the blocks.
 */

typedef enum WeirBlockState {
    WEIR_BLOCK_OLD,
    WEIR_BLOCK_NEW,
    WEIR_BLOCK_UNKNOWN,         /* its checksum tells */
} WeirBlockState;

typedef struct WeirHotzone {
    uint64_t offset, bytes;     /* bytes 0: there is none */
    uint32_t block_bytes;       /* set at init */
    int hash;                   /* set at init */
    uint32_t hash_bytes;        /* set at init */
    uint64_t left;              /* blocks that are not new */
    uint8_t *states;            /* a WeirBlockState of each block */
    uint8_t *taken;             /* of the pass: whether it is to be summed */
    uint8_t *sums;              /* hash_bytes of each block */
    uint64_t room_blocks;
} WeirHotzone;

void weir_hotzone_init(WeirHotzone *zone, uint32_t block_bytes, int hash,
                       uint32_t hash_bytes);
void weir_hotzone_destroy(WeirHotzone *zone);

/*
 * Get the memory for a zone; it is then of that place, and all its blocks are
 * of that state. Returns 0, or -ENOMEM with nothing changed.
 */
int weir_hotzone_begin(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                       WeirBlockState state);

/* There is none any more. */
void weir_hotzone_end(WeirHotzone *zone);

/* Whether the zone has bytes of a range. */
bool weir_hotzone_touches(const WeirHotzone *zone, uint64_t offset,
                          uint64_t bytes);

/* Cut a range to what is in the zone. */
void weir_hotzone_clip(const WeirHotzone *zone, uint64_t *offset,
                       uint64_t *bytes);

/*
 * The state of the block at an offset of the zone, and how many bytes from
 * there on, at most max_bytes, are of the same.
 */
WeirBlockState weir_hotzone_state(const WeirHotzone *zone, uint64_t offset,
                                  uint64_t max_bytes, uint64_t *same_bytes);

/* Whether a range of the zone has a block of a state. */
bool weir_hotzone_has(const WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                      WeirBlockState state);

/* Set the state of a range of the zone. New blocks stay new. */
void weir_hotzone_set(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                      WeirBlockState state);

/* New blocks of a range of the zone are old again. */
void weir_hotzone_spoil(WeirHotzone *zone, uint64_t offset, uint64_t bytes);

/* Begin a pass. Returns whether there is anything to sum. */
bool weir_hotzone_take(WeirHotzone *zone);

/*
 * The next blocks of the pass, from an offset on: gets the first of them, and
 * how many bytes, at most max_bytes. False: there are none.
 */
bool weir_hotzone_next_taken(const WeirHotzone *zone, uint64_t *offset,
                             uint64_t max_bytes, uint64_t *bytes);

/* Where the checksums of the pass are, in bytes of all checksums. */
void weir_hotzone_taken_sums(const WeirHotzone *zone, uint64_t *begin,
                             uint64_t *end);

/*
 * Take the checksums of blocks as they are on disk. Several threads may do so
 * with different blocks, without the lock.
 */
void weir_hotzone_sum(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                      const void *raw);

/* Tell by their checksums what the unknown ones of these blocks are. */
void weir_hotzone_resolve(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                          const void *raw);

/* Length of all checksums. */
uint64_t weir_hotzone_sums_bytes(const WeirHotzone *zone);

#endif

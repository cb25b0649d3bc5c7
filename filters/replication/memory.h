/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_MEMORY_H
#define WEIR_REPLICATION_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/*
 * Memory for what was written and is not in the log yet: slabs that are filled
 * one after the other, and come back when all pieces of theirs have. What comes
 * first goes first, so little of a slab is kept for a few pieces. The caller
 * locks.
 */

#ifndef WEIR_MEMORY_SLAB_BYTES          /* tests have smaller ones */
#define WEIR_MEMORY_SLAB_BYTES (1u << 20)
#endif
#define WEIR_MEMORY_ALIGN_BYTES 4096

typedef struct WeirMemory WeirMemory;

typedef struct WeirPiece {
    uint8_t *data;
    uint32_t slab;
} WeirPiece;

/*
 * max_bytes: of all slabs; at least two of them. Pages are taken when they are
 * first used. Returns 0 or -ENOMEM.
 */
int weir_memory_new(WeirMemory **out, uint64_t max_bytes);
void weir_memory_free(WeirMemory *memory);

/*
 * bytes: up to a slab. piece: its data begins at a multiple of
 * WEIR_MEMORY_ALIGN_BYTES. Returns 0; -EAGAIN: all slabs are in use.
 */
int weir_memory_take(WeirMemory *memory, size_t bytes, WeirPiece *piece);
void weir_memory_give(WeirMemory *memory, const WeirPiece *piece);

/* In slabs that are not idle. */
uint64_t weir_memory_used_bytes(const WeirMemory *memory);

#endif

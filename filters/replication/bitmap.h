/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_BITMAP_H
#define WEIR_REPLICATION_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Which blocks of a disk have to be copied: a bit for each, which is 2 MiB of
 * memory for 1 TiB. Ranges are bytes, and end within the disk. The caller
 * locks.
 */

#ifndef WEIR_BITMAP_BLOCK_BYTES         /* tests have smaller ones */
#define WEIR_BITMAP_BLOCK_BYTES UINT64_C(65536)
#endif

typedef struct WeirBitmap {
    uint64_t *words;
    uint64_t disk_bytes;
    uint64_t blocks;
    uint64_t dirty;             /* blocks */
} WeirBitmap;

/* None is dirty. Returns 0 or -ENOMEM. */
int weir_bitmap_init(WeirBitmap *b, uint64_t disk_bytes);
void weir_bitmap_destroy(WeirBitmap *b);

/* What is new is not dirty. Returns 0; -ENOMEM: nothing has changed. */
int weir_bitmap_resize(WeirBitmap *b, uint64_t disk_bytes);

/* All blocks that have part of a range are dirty. */
void weir_bitmap_mark(WeirBitmap *b, uint64_t offset, uint64_t bytes);

/* All blocks that lie in a range are not. */
void weir_bitmap_clear(WeirBitmap *b, uint64_t offset, uint64_t bytes);

/* Whether a block is dirty that has part of a range. */
bool weir_bitmap_any(const WeirBitmap *b, uint64_t offset, uint64_t bytes);

/*
 * The first dirty range that begins at `from` or behind, of at most max_bytes,
 * a multiple of blocks; it ends with its disk. False: there is none.
 */
bool weir_bitmap_next(const WeirBitmap *b, uint64_t from, uint64_t max_bytes,
                      uint64_t *offset, uint64_t *bytes);

/* Of the dirty blocks. */
uint64_t weir_bitmap_dirty_bytes(const WeirBitmap *b);

#endif

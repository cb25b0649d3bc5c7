/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK WEIR_BITMAP_BLOCK_BYTES

static uint64_t blocks_of(uint64_t bytes)
{
    return bytes / BLOCK + (bytes % BLOCK > 0);
}

static uint64_t words_of(uint64_t blocks)
{
    return (blocks + 63) / 64;
}

int weir_bitmap_init(WeirBitmap *b, uint64_t disk_bytes)
{
    memset(b, 0, sizeof(*b));
    return weir_bitmap_resize(b, disk_bytes);
}

void weir_bitmap_destroy(WeirBitmap *b)
{
    free(b->words);
    memset(b, 0, sizeof(*b));
}

/* The bits of a word from block `first` up to `end`, as far as they are in. */
static uint64_t mask(uint64_t word, uint64_t first, uint64_t end)
{
    uint64_t from = first > word * 64 ? first - word * 64 : 0;
    uint64_t to = end < word * 64 + 64 ? end - word * 64 : 64;

    return (to == 64 ? ~UINT64_C(0) : (UINT64_C(1) << to) - 1) &
           ~UINT64_C(0) << from;
}

static void set(WeirBitmap *b, uint64_t first, uint64_t end, bool dirty)
{
    for (uint64_t w = first / 64; first < end && w < words_of(end); w++) {
        uint64_t bits = mask(w, first, end);
        uint64_t old = b->words[w];

        b->words[w] = dirty ? old | bits : old & ~bits;
        b->dirty += (uint64_t)__builtin_popcountll(b->words[w]) -
                    (uint64_t)__builtin_popcountll(old);
    }
}

int weir_bitmap_resize(WeirBitmap *b, uint64_t disk_bytes)
{
    uint64_t blocks = blocks_of(disk_bytes);
    uint64_t had = words_of(b->blocks), has = words_of(blocks);

    if (blocks < b->blocks) {
        set(b, blocks, b->blocks, false);
    } else if (has > had || !b->words) {
        uint64_t *words = realloc(b->words, (has ? has : 1) * sizeof(*words));

        if (!words) {
            return -ENOMEM;
        }
        memset(words + had, 0, (has - had) * sizeof(*words));
        b->words = words;
    }
    b->blocks = blocks;
    b->disk_bytes = disk_bytes;
    return 0;
}

void weir_bitmap_mark(WeirBitmap *b, uint64_t offset, uint64_t bytes)
{
    set(b, offset / BLOCK, blocks_of(offset + bytes), true);
}

void weir_bitmap_clear(WeirBitmap *b, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;

    set(b, blocks_of(offset),
        end == b->disk_bytes ? b->blocks : end / BLOCK, false);
}

/* The first block of a range that is dirty, or is not; end: there is none. */
static uint64_t find(const WeirBitmap *b, uint64_t from, uint64_t end,
                     bool dirty)
{
    for (uint64_t w = from / 64; from < end && w < words_of(end); w++) {
        uint64_t bits = (dirty ? b->words[w] : ~b->words[w]) &
                        mask(w, from, end);

        if (bits) {
            return w * 64 + (uint64_t)__builtin_ctzll(bits);
        }
    }
    return end;
}

bool weir_bitmap_any(const WeirBitmap *b, uint64_t offset, uint64_t bytes)
{
    uint64_t end = blocks_of(offset + bytes);

    return find(b, offset / BLOCK, end, true) < end;
}

bool weir_bitmap_next(const WeirBitmap *b, uint64_t from, uint64_t max_bytes,
                      uint64_t *offset, uint64_t *bytes)
{
    uint64_t first = find(b, blocks_of(from), b->blocks, true), end;

    if (first >= b->blocks) {
        return false;
    }
    end = b->blocks - first > max_bytes / BLOCK ? first + max_bytes / BLOCK
                                                : b->blocks;
    end = find(b, first, end, false);
    *offset = first * BLOCK;
    *bytes = (end == b->blocks ? b->disk_bytes : end * BLOCK) - *offset;
    return true;
}

uint64_t weir_bitmap_dirty_bytes(const WeirBitmap *b)
{
    uint64_t last = b->disk_bytes % BLOCK;

    return b->dirty * BLOCK -
           (last > 0 && b->dirty > 0 &&
            weir_bitmap_any(b, b->disk_bytes - last, last) ? BLOCK - last : 0);
}

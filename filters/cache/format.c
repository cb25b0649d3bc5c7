/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * superblock, 4096 bytes at 0 and 4096; all numbers little-endian
 *
 *    0  8 magic "WEIRCACH"             88 8 journal offset, bytes
 *    8  4 version, 1                   96 4 journal blocks
 *   12  4 CRC-32C, this field as 0    100 4 slots
 *   16  8 incompatible features       104 8 table offset, bytes
 *   24  8 compatible features         112 4 table sectors
 *   32  8 sequence                    116 4 log2 of blocks per region
 *   40 16 identity                    120 8 data offset, bytes
 *   56  8 incarnation                 128 4 flags, FLAG_ below
 *   64  8 first journal sequence      132 4 0
 *   72  8 base, bytes                 136 64 name of the base, NUL-padded
 *   80  8 0                           200  0 to the end
 *
 * journal block, 4096 bytes            record, 16 bytes
 *    0  4 magic "WCJ1"                    0  1 operation
 *    4  4 CRC-32C, this field as 0        1  1 flags
 *    8  8 incarnation                     2  1 block, bits 32-39
 *   16  8 sequence                        3  1 0
 *   24  8 durable                         4  4 block, bits 0-31
 *   32  8 tail                            8  4 slot
 *   40  4 records                        12  4 checksum or count
 *   44  4 0
 *   48 16 * 253 records
 *
 * table sector, 512 bytes              entry, 10 bytes
 *    0  4 CRC-32C, this field as 0        0  5 block
 *    4  8 LSN                             5  4 checksum
 *   12 10 * 50 entries                    9  1 flags, 0: free
 *
 * CRCs of journal blocks and sectors begin with the CRC of the cache's
 * identity, those of sectors also with the sector's number. A sector is all
 * zeroes until it is first written, and then holds free slots.
 */
#include "cache/format.h"

#include <errno.h>
#include <string.h>

#include "cache/crc.h"
#include "cache/index.h"
#include "common/crc32c.h"
#include "common/le.h"

#define VERSION 1
#define JOURNAL_MAGIC UINT32_C(0x314a4357)     /* "WCJ1" */
#define DATA_ALIGN_BYTES (UINT64_C(1) << 20)
#define FLAG_IN_USE 1
#define FLAG_DIRTY 2
#define FLAG_GROWS 4
#define FLAG_STALE 8

static const char magic[8] = { 'W', 'E', 'I', 'R', 'C', 'A', 'C', 'H' };

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* --- layout --- */

/* 1/1024 of the device, within bounds: blocks for 1/16 of all slots. */
static uint32_t journal_blocks_for(uint64_t bytes)
{
    uint64_t blocks = bytes / 1024 / WEIR_CACHE_JOURNAL_BLOCK_BYTES;

    blocks = blocks > WEIR_CACHE_JOURNAL_BLOCKS_MIN
             ? blocks : WEIR_CACHE_JOURNAL_BLOCKS_MIN;
    return (uint32_t)(blocks < WEIR_CACHE_JOURNAL_BLOCKS_MAX
                      ? blocks : WEIR_CACHE_JOURNAL_BLOCKS_MAX);
}

static void place(WeirCacheLayout *l, uint64_t slots)
{
    l->slots = (uint32_t)slots;
    l->table_sectors = (uint32_t)((slots + WEIR_CACHE_SECTOR_SLOTS - 1) /
                                  WEIR_CACHE_SECTOR_SLOTS);
    l->data_offset = round_up(l->table_offset + (uint64_t)l->table_sectors *
                              WEIR_CACHE_SECTOR_BYTES, DATA_ALIGN_BYTES);
}

int weir_cache_layout(WeirCacheLayout *l, uint64_t bytes)
{
    uint64_t slots = bytes / WEIR_CACHE_BLOCK_BYTES;

    l->journal_offset = WEIR_CACHE_SUPERBLOCKS * WEIR_CACHE_SUPERBLOCK_BYTES;
    l->journal_blocks = journal_blocks_for(bytes);
    l->table_offset = l->journal_offset + (uint64_t)l->journal_blocks *
                      WEIR_CACHE_JOURNAL_BLOCK_BYTES;
    slots = slots < WEIR_CACHE_SLOTS_MAX ? slots : WEIR_CACHE_SLOTS_MAX;
    place(l, slots);
    while (slots >= WEIR_CACHE_SLOTS_MIN &&
           l->data_offset + slots * WEIR_CACHE_BLOCK_BYTES > bytes) {
        uint64_t over = l->data_offset + slots * WEIR_CACHE_BLOCK_BYTES - bytes;
        uint64_t less = (over + WEIR_CACHE_BLOCK_BYTES - 1) /
                        WEIR_CACHE_BLOCK_BYTES;

        /* a smaller table makes room too: do not go below what fits */
        less = less > 512 ? less - less / 256 : less;
        slots = less < slots ? slots - less : 0;
        place(l, slots);
    }
    return slots >= WEIR_CACHE_SLOTS_MIN ? 0 : -ENOSPC;
}

static bool layout_is_sound(const WeirCacheLayout *l, uint64_t device_bytes)
{
    uint64_t journal_end = l->journal_offset + (uint64_t)l->journal_blocks *
                           WEIR_CACHE_JOURNAL_BLOCK_BYTES;
    uint64_t table_end = l->table_offset + (uint64_t)l->table_sectors *
                         WEIR_CACHE_SECTOR_BYTES;
    uint64_t most = UINT64_C(1) << 56;

    return l->journal_offset < most && l->table_offset < most &&
           l->data_offset < most &&
           l->journal_offset >= 2 * WEIR_CACHE_SUPERBLOCK_BYTES &&
           l->journal_blocks >= WEIR_CACHE_JOURNAL_BLOCKS_MIN &&
           l->journal_blocks <= WEIR_CACHE_JOURNAL_BLOCKS_MAX &&
           l->journal_offset % WEIR_CACHE_BLOCK_BYTES == 0 &&
           l->table_offset % WEIR_CACHE_BLOCK_BYTES == 0 &&
           l->data_offset % WEIR_CACHE_BLOCK_BYTES == 0 &&
           l->slots >= WEIR_CACHE_SLOTS_MIN &&
           l->slots <= WEIR_CACHE_SLOTS_MAX &&
           (uint64_t)l->table_sectors * WEIR_CACHE_SECTOR_SLOTS >= l->slots &&
           journal_end <= l->table_offset && table_end <= l->data_offset &&
           l->data_offset + (uint64_t)l->slots * WEIR_CACHE_BLOCK_BYTES <=
           device_bytes;
}

/* --- superblock --- */

void weir_cache_superblock_write(uint8_t *buf, const WeirCacheSuperblock *sb)
{
    memset(buf, 0, WEIR_CACHE_SUPERBLOCK_BYTES);
    memcpy(buf, magic, sizeof(magic));
    le_put(buf + 8, VERSION, 4);
    le_put(buf + 32, sb->sequence, 8);
    memcpy(buf + 40, sb->uuid, sizeof(sb->uuid));
    le_put(buf + 56, sb->incarnation, 8);
    le_put(buf + 64, sb->journal_first, 8);
    le_put(buf + 72, sb->base_bytes, 8);
    le_put(buf + 88, sb->layout.journal_offset, 8);
    le_put(buf + 96, sb->layout.journal_blocks, 4);
    le_put(buf + 100, sb->layout.slots, 4);
    le_put(buf + 104, sb->layout.table_offset, 8);
    le_put(buf + 112, sb->layout.table_sectors, 4);
    le_put(buf + 116, sb->region_shift, 4);
    le_put(buf + 120, sb->layout.data_offset, 8);
    le_put(buf + 128, (sb->in_use ? FLAG_IN_USE : 0u) |
                   (sb->dirty ? FLAG_DIRTY : 0u) |
                   (sb->grows ? FLAG_GROWS : 0u) |
                   (sb->stale ? FLAG_STALE : 0u), 4);
    memcpy(buf + 136, sb->base_id, sizeof(sb->base_id));
    le_put(buf + 12, crc_without(buf, WEIR_CACHE_SUPERBLOCK_BYTES, 12, ~0u), 4);
}

static void superblock_fields(WeirCacheSuperblock *sb, const uint8_t *buf)
{
    uint32_t flags = (uint32_t)le_get(buf + 128, 4);

    sb->sequence = le_get(buf + 32, 8);
    memcpy(sb->uuid, buf + 40, sizeof(sb->uuid));
    sb->incarnation = le_get(buf + 56, 8);
    sb->journal_first = le_get(buf + 64, 8);
    sb->base_bytes = le_get(buf + 72, 8);
    sb->layout.journal_offset = le_get(buf + 88, 8);
    sb->layout.journal_blocks = (uint32_t)le_get(buf + 96, 4);
    sb->layout.slots = (uint32_t)le_get(buf + 100, 4);
    sb->layout.table_offset = le_get(buf + 104, 8);
    sb->layout.table_sectors = (uint32_t)le_get(buf + 112, 4);
    sb->region_shift = (uint32_t)le_get(buf + 116, 4);
    sb->layout.data_offset = le_get(buf + 120, 8);
    sb->in_use = flags & FLAG_IN_USE;
    sb->dirty = flags & FLAG_DIRTY;
    sb->grows = flags & FLAG_GROWS;
    sb->stale = flags & FLAG_STALE;
    memcpy(sb->base_id, buf + 136, sizeof(sb->base_id));
}

int weir_cache_superblock_read(WeirCacheSuperblock *sb, const uint8_t *buf,
                               uint64_t device_bytes)
{
    if (memcmp(buf, magic, sizeof(magic))) {
        return -ENOENT;
    }
    if (le_get(buf + 12, 4) != crc_without(buf, WEIR_CACHE_SUPERBLOCK_BYTES, 12,
                                           ~0u)) {
        return -EINVAL;
    }
    if (le_get(buf + 8, 4) != VERSION || le_get(buf + 16, 8)) {
        return -ENOTSUP;
    }
    superblock_fields(sb, buf);
    if (!layout_is_sound(&sb->layout, device_bytes) ||
        sb->base_bytes / WEIR_CACHE_BLOCK_BYTES >= WEIR_CACHE_BLOCKS_MAX ||
        sb->region_shift > 40 || sb->base_id[sizeof(sb->base_id) - 1] ||
        sb->sequence > UINT64_MAX / 2 || sb->incarnation > UINT64_MAX / 2 ||
        sb->journal_first > UINT64_MAX / 2) {
        return -EINVAL;
    }
    return 0;
}

/* --- journal --- */

void weir_cache_journal_seal(uint8_t *buf, const WeirCacheJournalHeader *h,
                             uint32_t seed)
{
    size_t used = 48 + (size_t)h->records * WEIR_CACHE_RECORD_BYTES;

    le_put(buf, JOURNAL_MAGIC, 4);
    le_put(buf + 8, h->incarnation, 8);
    le_put(buf + 16, h->sequence, 8);
    le_put(buf + 24, h->durable, 8);
    le_put(buf + 32, h->tail, 8);
    le_put(buf + 40, h->records, 4);
    le_put(buf + 44, 0, 4);
    memset(buf + used, 0, WEIR_CACHE_JOURNAL_BLOCK_BYTES - used);
    le_put(buf + 4, crc_without(buf, WEIR_CACHE_JOURNAL_BLOCK_BYTES, 4, seed),
           4);
}

bool weir_cache_journal_read(WeirCacheJournalHeader *h, const uint8_t *buf,
                             uint32_t seed)
{
    if (le_get(buf, 4) != JOURNAL_MAGIC ||
        le_get(buf + 4, 4) != crc_without(buf, WEIR_CACHE_JOURNAL_BLOCK_BYTES,
                                          4, seed)) {
        return false;
    }
    h->incarnation = le_get(buf + 8, 8);
    h->sequence = le_get(buf + 16, 8);
    h->durable = le_get(buf + 24, 8);
    h->tail = le_get(buf + 32, 8);
    h->records = (uint32_t)le_get(buf + 40, 4);
    return h->records <= WEIR_CACHE_RECORDS;
}

void weir_cache_record_write(uint8_t *buf, uint32_t i, const WeirCacheRecord *r)
{
    uint8_t *at = buf + 48 + i * WEIR_CACHE_RECORD_BYTES;

    at[0] = r->op;
    at[1] = r->flags;
    at[2] = (uint8_t)(r->block >> 32);
    at[3] = 0;
    le_put(at + 4, (uint32_t)r->block, 4);
    le_put(at + 8, r->slot, 4);
    le_put(at + 12, r->crc, 4);
}

int weir_cache_record_read(WeirCacheRecord *r, const uint8_t *buf, uint32_t i,
                           const WeirCacheLayout *l)
{
    const uint8_t *at = buf + 48 + i * WEIR_CACHE_RECORD_BYTES;
    bool ok;

    r->op = at[0];
    r->flags = at[1];
    r->block = (uint64_t)at[2] << 32 | le_get(at + 4, 4);
    r->slot = (uint32_t)le_get(at + 8, 4);
    r->crc = (uint32_t)le_get(at + 12, 4);
    switch (r->op) {
    case WEIR_CACHE_OP_MAP:
        ok = r->slot < l->slots;
        break;
    case WEIR_CACHE_OP_CLEAN:
    case WEIR_CACHE_OP_UNMAP:
        ok = true;
        break;
    case WEIR_CACHE_OP_FREE:
        ok = r->slot < l->slots && r->crc <= l->slots - r->slot;
        break;
    case WEIR_CACHE_OP_OPEN:
    case WEIR_CACHE_OP_CLOSE:
        ok = r->block < WEIR_CACHE_REGIONS;
        break;
    default:
        ok = false;
        break;
    }
    return ok ? 0 : -EINVAL;
}

/* --- table --- */

static uint32_t sector_seed(uint32_t seed, uint32_t sector)
{
    return weir_cache_crc_seed(seed, sector);
}

void weir_cache_sector_seal(uint8_t *buf, uint64_t lsn, uint32_t sector,
                            uint32_t seed)
{
    le_put(buf + 4, lsn, 8);
    le_put(buf, crc_without(buf, WEIR_CACHE_SECTOR_BYTES, 0,
                            sector_seed(seed, sector)), 4);
}

bool weir_cache_sector_read(const uint8_t *buf, uint64_t *lsn, uint32_t sector,
                            uint32_t seed)
{
    static const uint8_t blank[WEIR_CACHE_SECTOR_BYTES];

    *lsn = le_get(buf + 4, 8);
    return le_get(buf, 4) == crc_without(buf, WEIR_CACHE_SECTOR_BYTES, 0,
                                         sector_seed(seed, sector)) ||
           !memcmp(buf, blank, sizeof(blank));
}

void weir_cache_entry_write(uint8_t *buf, uint32_t i,
                            const WeirCacheTableEntry *entry)
{
    uint8_t *at = buf + 12 + i * 10;

    le_put(at, entry->block, 5);
    le_put(at + 5, entry->crc, 4);
    at[9] = entry->flags;
}

void weir_cache_entry_read(WeirCacheTableEntry *entry, const uint8_t *buf,
                           uint32_t i)
{
    const uint8_t *at = buf + 12 + i * 10;

    entry->block = le_get(at, 5);
    entry->crc = (uint32_t)le_get(at + 5, 4);
    entry->flags = at[9];
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_FORMAT_H
#define WEIR_CACHE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a cache looks like on its device, byte by byte. What each field means,
 * and in which order they are written: docs/weir-cache-format.md.
 *
 * Functions that read take any bytes whatsoever, and say no to what is not
 * whole. None locks or allocates.
 */

#define WEIR_CACHE_UUID_BYTES 16
#define WEIR_CACHE_BASE_ID_BYTES 64
#define WEIR_CACHE_SUPERBLOCK_BYTES 4096
#define WEIR_CACHE_SUPERBLOCKS 2        /* the first two blocks */
#define WEIR_CACHE_JOURNAL_BLOCK_BYTES 4096
#define WEIR_CACHE_RECORD_BYTES 16
#define WEIR_CACHE_RECORDS ((WEIR_CACHE_JOURNAL_BLOCK_BYTES - 48) / \
                            WEIR_CACHE_RECORD_BYTES)
#define WEIR_CACHE_SECTOR_BYTES 512
#define WEIR_CACHE_SECTOR_SLOTS 50
#define WEIR_CACHE_JOURNAL_BLOCKS_MIN 256
#define WEIR_CACHE_JOURNAL_BLOCKS_MAX 65536
#define WEIR_CACHE_REGIONS 4096

/* Where things are; all in bytes from the start of the device. */
typedef struct WeirCacheLayout {
    uint64_t journal_offset;
    uint32_t journal_blocks;
    uint64_t table_offset;
    uint32_t table_sectors;
    uint64_t data_offset;
    uint32_t slots;
} WeirCacheLayout;

typedef struct WeirCacheSuperblock {
    uint64_t sequence;                  /* the higher one holds */
    uint8_t uuid[WEIR_CACHE_UUID_BYTES];
    uint64_t incarnation;               /* of the journal */
    uint64_t journal_first;             /* its first sequence number */
    uint64_t base_bytes;
    char base_id[WEIR_CACHE_BASE_ID_BYTES]; /* NUL-padded */
    bool in_use;                        /* the journal has to be replayed */
    bool dirty;                         /* some block may be dirty */
    bool grows;                         /* the base may be longer than that */
    bool stale;                         /* the base changed without it */
    uint32_t region_shift;              /* log2 of blocks per region */
    WeirCacheLayout layout;
} WeirCacheSuperblock;

typedef enum WeirCacheOp {
    WEIR_CACHE_OP_MAP = 1,              /* block is in slot */
    WEIR_CACHE_OP_CLEAN = 2,            /* count blocks equal the base */
    WEIR_CACHE_OP_UNMAP = 3,            /* count blocks are in no slot */
    WEIR_CACHE_OP_FREE = 4,             /* count slots hold no block */
    WEIR_CACHE_OP_OPEN = 5,             /* a region of the base may change */
    WEIR_CACHE_OP_CLOSE = 6,            /* not any more */
} WeirCacheOp;

typedef struct WeirCacheRecord {
    uint8_t op;
    uint8_t flags;                      /* MAP: WEIR_SLOT_DIRTY, _ZERO, and
                                           what evict.c keeps */
    uint64_t block;                     /* or the number of a region */
    uint32_t slot;                      /* MAP, FREE */
    uint32_t crc;                       /* MAP; else count */
} WeirCacheRecord;

typedef struct WeirCacheJournalHeader {
    uint64_t incarnation;
    uint64_t sequence;
    uint64_t durable;                   /* blocks up to this one, and the data
                                           they speak of, were on the medium */
    uint64_t tail;                      /* blocks before it are not needed */
    uint32_t records;
} WeirCacheJournalHeader;

typedef struct WeirCacheTableEntry {
    uint64_t block;
    uint32_t crc;
    uint8_t flags;                      /* 0: free */
} WeirCacheTableEntry;

/*
 * Lay out a device of `bytes` bytes with as many slots as fit.
 * Returns 0, or -ENOSPC when it is too small for WEIR_CACHE_SLOTS_MIN slots.
 */
#define WEIR_CACHE_SLOTS_MIN 64
int weir_cache_layout(WeirCacheLayout *layout, uint64_t bytes);

/* buf: WEIR_CACHE_SUPERBLOCK_BYTES. */
void weir_cache_superblock_write(uint8_t *buf, const WeirCacheSuperblock *sb);

/*
 * Returns 0; -ENOENT when there is no superblock; -EINVAL when it is broken;
 * -ENOTSUP when it needs what this version does not know.
 * device_bytes: what it may speak of.
 */
int weir_cache_superblock_read(WeirCacheSuperblock *sb, const uint8_t *buf,
                               uint64_t device_bytes);

/*
 * buf: WEIR_CACHE_JOURNAL_BLOCK_BYTES, records filled in by
 * weir_cache_record_write(). seed: CRC of the cache's identity.
 */
void weir_cache_journal_seal(uint8_t *buf, const WeirCacheJournalHeader *header,
                             uint32_t seed);

/* Whether this is a whole journal block of that cache. */
bool weir_cache_journal_read(WeirCacheJournalHeader *header, const uint8_t *buf,
                             uint32_t seed);

void weir_cache_record_write(uint8_t *buf, uint32_t i,
                             const WeirCacheRecord *record);

/* Returns 0, or -EINVAL for a record that cannot be: it names what is not. */
int weir_cache_record_read(WeirCacheRecord *record, const uint8_t *buf,
                           uint32_t i, const WeirCacheLayout *layout);

/* buf: WEIR_CACHE_SECTOR_BYTES, entries filled in. lsn: see the format page. */
void weir_cache_sector_seal(uint8_t *buf, uint64_t lsn, uint32_t sector,
                            uint32_t seed);
bool weir_cache_sector_read(const uint8_t *buf, uint64_t *lsn, uint32_t sector,
                            uint32_t seed);
void weir_cache_entry_write(uint8_t *buf, uint32_t i,
                            const WeirCacheTableEntry *entry);
void weir_cache_entry_read(WeirCacheTableEntry *entry, const uint8_t *buf,
                           uint32_t i);

#endif

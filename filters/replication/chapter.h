/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_CHAPTER_H
#define WEIR_REPLICATION_CHAPTER_H

#include "replication/index.h"

/*
 * The index of one segment as it is on disk (docs/weir-replication-log.md): the
 * epochs whose commits are in it, and their records in the order of disks and
 * offsets. Does no I/O, does not lock.
 */

#define WEIR_CHAPTER_BLOCK_BYTES 4096
#define WEIR_CHAPTER_BEFORE_AT 56       /* in it: the commit before */
#define WEIR_CHAPTER_BLOCK_RECORDS 128
#define WEIR_CHAPTER_GRANULE_BYTES (UINT64_C(64) << 10)
#define WEIR_CHAPTER_WIDE_BYTES (UINT64_C(8) << 20)

/* A disk that is known at the end of a chapter. */
typedef struct WeirChapterDisk {
    bool known;
    WeirLogDisk what;
    uint64_t bytes;
} WeirChapterDisk;

/* What a chapter is made of. */
typedef struct WeirChapterSource {
    const WeirLogSuperblock *sb;        /* group, generations, shape */
    uint64_t position;                  /* where its segment begins */
    WeirLogCommit before;               /* the epoch before the first */
    const WeirIndexEpoch *epochs;       /* with records, in order */
    uint32_t epoch_count;
    const WeirLength *lengths;          /* set in these epochs, in order */
    uint32_t length_count;
    uint64_t bytes[WEIR_LOG_DISKS_MAX]; /* of disks before the first epoch */
    WeirChapterDisk disks[WEIR_LOG_DISKS_MAX];
} WeirChapterSource;

/* The first part of a chapter, that is read when a log is opened. */
typedef struct WeirChapterHead {
    uint8_t group[WEIR_LOG_UUID_BYTES];
    uint64_t position;
    WeirLogCommit before, last;
    uint32_t epochs, disks, lengths, wide, records, blocks;
    uint32_t names_bytes, filter_bytes;
    uint32_t meta_bytes;        /* of all of it but the blocks */
} WeirChapterHead;

/* A record of a chapter. */
typedef struct WeirChapterRecord {
    WeirIndexRecord record;     /* as it is in the log */
    uint64_t from, bytes;       /* that it changes; a resize: what it cuts off
                                   or adds */
    uint32_t order;             /* in the chapter */
} WeirChapterRecord;

/* What is kept of it in memory, to find records. */
typedef struct WeirChapterFinder {
    uint64_t begin;             /* position of before.end */
    uint32_t wide, blocks, filter_bytes;
    uint8_t *kept;              /* wide records, fences, filter, as on disk */
} WeirChapterFinder;

/*
 * A record of an epoch as one of a chapter. bytes: length of its disk before
 * it, follows it. False: a record of WEIR_LOG_DISK, of which there are none.
 */
bool weir_chapter_record_of(WeirChapterRecord *out, const WeirIndexRecord *r,
                            uint32_t order, uint64_t *bytes);

/*
 * All of a chapter.
 * buf: set to memory that the caller frees; *bytes: a multiple of 4096.
 * Returns 0; -ENOMEM; -EFBIG: it is longer than max_bytes, or cannot be told.
 */
int weir_chapter_build(uint8_t **buf, uint64_t *bytes,
                       const WeirChapterSource *source, uint64_t max_bytes);

/* Bytes of all that is at its beginning, from WEIR_CHAPTER_BLOCK_BYTES of it:
   0: it is none, else at most max_bytes. */
uint32_t weir_chapter_peek(const uint8_t *buf, uint64_t max_bytes);

/*
 * Read the first part of a chapter, so many bytes as weir_chapter_peek() told,
 * and check it in itself, and with the log's shape.
 * Returns 0 or -EINVAL, *why.
 */
int weir_chapter_read(WeirChapterHead *h, const WeirLogSuperblock *sb,
                      const uint8_t *buf, uint64_t max_bytes,
                      const char **why);

/* Parts of what was read. names: of the marks of that epoch, or NULL. */
void weir_chapter_epoch(const WeirChapterHead *h, const uint8_t *buf,
                        uint32_t i, WeirIndexEpoch *epoch,
                        uint64_t *generation, uint32_t *names_bytes);
const char *weir_chapter_names(const WeirChapterHead *h, const uint8_t *buf);
void weir_chapter_length(const WeirChapterHead *h, const uint8_t *buf,
                         uint32_t i, WeirLength *length);
/* Returns 0 or -EINVAL. */
int weir_chapter_disk(const WeirChapterHead *h, const uint8_t *buf, uint32_t i,
                      uint16_t *number, WeirChapterDisk *disk);

/* Returns 0 or -ENOMEM. */
int weir_chapter_finder(WeirChapterFinder *f, const WeirChapterHead *h,
                        const uint8_t *buf);
uint64_t weir_chapter_finder_bytes(const WeirChapterFinder *f);

/* False: no record that is not wide touches this granule of the disk. */
bool weir_chapter_may_have(const WeirChapterFinder *f, uint16_t disk,
                           uint64_t granule);

/* Blocks that may have records of a range, but for wide ones. */
void weir_chapter_blocks(const WeirChapterFinder *f, uint16_t disk,
                         uint64_t from, uint64_t to, uint32_t *first,
                         uint32_t *end);
uint32_t weir_chapter_block_crc(const WeirChapterFinder *f, uint32_t block);
uint32_t weir_chapter_block_records(const WeirChapterFinder *f,
                                    uint32_t block);

/* i: of a block that was checked, or of the wide ones. 0, or -EINVAL. */
int weir_chapter_record(WeirChapterRecord *out, const WeirChapterFinder *f,
                        const uint8_t *block, uint32_t i);
int weir_chapter_wide(WeirChapterRecord *out, const WeirChapterFinder *f,
                      uint32_t i);

#endif

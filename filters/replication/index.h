/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_INDEX_H
#define WEIR_REPLICATION_INDEX_H

#include "replication/packet.h"

/*
 * What a log holds behind its anchor, in memory: the valid epochs, and the
 * records, without data, of those that are in no chapter (chapter.h) yet. Does
 * no I/O; the caller locks.
 */

/* 32 bytes, of which there are many. */
typedef struct WeirIndexRecord {
    uint64_t offset, bytes;     /* as in the log */
    uint64_t position;          /* of its data in the log */
    uint32_t crc;
    uint16_t packed_sectors;    /* of 512 bytes that its data has in the log;
                                   0: it is not compressed */
    uint8_t disk;
    uint8_t op;                 /* WeirLogOp, but for MARK */
} WeirIndexRecord;

/* position: of its data. */
static inline WeirIndexRecord weir_index_record(const WeirLogRecord *r,
                                                uint64_t position)
{
    return (WeirIndexRecord) {
        .offset = r->offset, .bytes = r->bytes, .position = position,
        .crc = r->crc, .disk = (uint8_t)r->disk, .op = (uint8_t)r->op,
        .packed_sectors = (uint16_t)((r->packed_bytes +
                                      WEIR_LOG_DATA_ALIGN_BYTES - 1) /
                                     WEIR_LOG_DATA_ALIGN_BYTES),
    };
}

/* How much of the log its data takes; op: WEIR_LOG_WRITE. */
static inline uint64_t weir_index_stored_bytes(const WeirIndexRecord *r)
{
    return r->packed_sectors > 0
           ? (uint64_t)r->packed_sectors * WEIR_LOG_DATA_ALIGN_BYTES
           : r->bytes;
}

/* 96 bytes. */
typedef struct WeirIndexEpoch {
    WeirLogCommit commit;
    WeirIndexRecord *records;   /* NULL: they are in a chapter */
    char *names;                /* of the marks, each with a NUL */
    uint64_t data_bytes;        /* of all records */
    uint32_t count;             /* of records */
    uint32_t names_bytes;
    uint32_t marks;
    bool consistent, application_consistent;
} WeirIndexEpoch;

/* A disk has so many bytes from an epoch on. */
typedef struct WeirLength {
    uint64_t epoch;
    uint64_t bytes;
    uint16_t disk;
} WeirLength;

typedef struct WeirIndex {
    WeirIndexEpoch *epochs;     /* numbered without gaps */
    size_t first, end, room;
    WeirLength *lengths;        /* set in these epochs, in order */
    size_t lengths_first, lengths_end, lengths_room;
    uint64_t records;
    uint64_t bytes;             /* of memory */
} WeirIndex;

/* Make room for one more with so many lengths. Returns 0 or -ENOMEM. */
int weir_index_reserve(WeirIndex *index, uint32_t lengths);

/* The next one, for which there is room. Takes over what it points to. */
void weir_index_add(WeirIndex *index, const WeirIndexEpoch *epoch);
void weir_index_add_length(WeirIndex *index, const WeirLength *length);

/* NULL: it is not there. Until the index changes. */
WeirIndexEpoch *weir_index_get(const WeirIndex *index, uint64_t number);

/* Its records are in a chapter. */
void weir_index_forget_records(WeirIndex *index, WeirIndexEpoch *epoch);

/* Of a disk after an epoch; *bytes is left alone if none was set. */
bool weir_index_length(const WeirIndex *index, uint16_t disk, uint64_t epoch,
                       uint64_t *bytes);

/* Forget those up to a number, or those behind it. */
void weir_index_drop_to(WeirIndex *index, uint64_t number);
void weir_index_drop_behind(WeirIndex *index, uint64_t number);
void weir_index_destroy(WeirIndex *index);

#endif

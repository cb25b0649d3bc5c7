/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_INDEX_H
#define WEIR_REPLICATION_INDEX_H

#include "replication/packet.h"

/*
 * What a log holds behind its anchor, in memory: the valid epochs with their
 * records, without data. Does no I/O; the caller locks.
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

/* How much of the log its data takes; op: WEIR_LOG_WRITE. */
static inline uint64_t weir_index_stored_bytes(const WeirIndexRecord *r)
{
    return r->packed_sectors > 0
           ? (uint64_t)r->packed_sectors * WEIR_LOG_DATA_ALIGN_BYTES
           : r->bytes;
}

typedef struct WeirIndexEpoch {
    WeirLogCommit commit;
    bool consistent, application_consistent;
    uint32_t marks;
    char *names;                /* of the marks, each with a NUL */
    uint64_t data_bytes;        /* of all records */
    uint32_t count;
    WeirIndexRecord records[];
} WeirIndexEpoch;

typedef struct WeirIndex {
    WeirIndexEpoch **epochs;    /* numbered without gaps */
    size_t first, end, room;
    uint64_t records;
    uint64_t bytes;             /* of memory */
} WeirIndex;

/* Without records. names: is taken over. NULL: no memory. */
WeirIndexEpoch *weir_index_epoch_new(uint32_t records);
void weir_index_epoch_free(WeirIndexEpoch *epoch);

/* Make room for one more. Returns 0 or -ENOMEM. */
int weir_index_reserve(WeirIndex *index);

/* The next one, for which there is room. Takes it over. */
void weir_index_add(WeirIndex *index, WeirIndexEpoch *epoch);

/* NULL: it is not there. */
const WeirIndexEpoch *weir_index_get(const WeirIndex *index, uint64_t number);

/* Forget those up to a number, or those behind it. */
void weir_index_drop_to(WeirIndex *index, uint64_t number);
void weir_index_drop_behind(WeirIndex *index, uint64_t number);
void weir_index_destroy(WeirIndex *index);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_PACKET_H
#define WEIR_REPLICATION_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replication/superblock.h"

/*
 * The unit in which a replication log is written: a head, which is a header and
 * a table of records, then their data (docs/weir-replication-log.md). Nothing
 * here does I/O, allocates or locks.
 */

#define WEIR_LOG_HEADER_BYTES 256
#define WEIR_LOG_RECORD_BYTES 32
#define WEIR_LOG_RECORDS_MAX 8192
#define WEIR_LOG_DATA_ALIGN_BYTES 512
#define WEIR_LOG_WRITE_BYTES_MAX (2u << 20)
#define WEIR_LOG_PACKET_BYTES_MAX (4u << 20)
#define WEIR_LOG_DISKS_MAX 64
#define WEIR_LOG_NAME_BYTES 64          /* of a disk, with the NUL */
#define WEIR_LOG_MARK_BYTES_MAX 255
#define WEIR_LOG_DISK_BYTES 80
#define WEIR_LOG_ORIGIN_BYTES 216
#define WEIR_LOG_LIVES 4
#define WEIR_LOG_KEEPER_SESSION 0       /* no writer has it */
#define WEIR_LOG_RANGE_END_MAX (UINT64_C(1) << 62)

typedef enum WeirLogOp {
    WEIR_LOG_WRITE = 1,
    WEIR_LOG_ZERO,
    WEIR_LOG_DISCARD,
    WEIR_LOG_RESIZE,
    WEIR_LOG_MARK,
    WEIR_LOG_DISK,
    WEIR_LOG_ORIGIN,            /* of the keeper only, as the next */
    WEIR_LOG_LACK,
} WeirLogOp;

typedef struct WeirLogRecord {
    uint32_t crc;               /* of its data, see weir_log_data_crc() */
    uint32_t packed_bytes;      /* WEIR_LOG_WRITE: it is compressed to so much;
                                   0: it is not */
    uint32_t packed_crc;        /* of that; 0: the same */
    uint16_t disk;
    WeirLogOp op;
    bool resync;                /* copied, not written by the guest */
    uint64_t offset;
    uint64_t bytes;             /* WEIR_LOG_RESIZE, _DISK: of the disk */
} WeirLogRecord;

/* What a record of WEIR_LOG_DISK has as data. */
typedef struct WeirLogDisk {
    uint8_t uuid[WEIR_LOG_UUID_BYTES];
    char name[WEIR_LOG_NAME_BYTES];
} WeirLogDisk;

/*
 * What a record of WEIR_LOG_ORIGIN has as data: what a disk, or the base image
 * of one, was by a log.
 */
typedef struct WeirLogOrigin {
    uint8_t group[WEIR_LOG_UUID_BYTES];
    WeirLogGeneration generation;       /* number 0: none */
    WeirLogCommit commit;
    WeirLogGeneration parent;   /* number 0: none; it ended at the commit, */
    WeirLogCommit until;        /* and had written up to here */
    uint32_t writer;            /* life of the last source in it; 0: unknown */
    uint32_t lives[WEIR_LOG_LIVES];     /* of sources of the disk itself */
} WeirLogOrigin;

typedef struct WeirLogPacket {
    uint8_t group[WEIR_LOG_UUID_BYTES];
    uint64_t generation;
    uint64_t session;
    uint64_t position;
    uint64_t epoch;
    uint32_t number;            /* in its epoch */
    uint32_t records;
    bool packed;                /* one of them is compressed; set by reading */
    bool first, last;           /* of a segment; last: without records */
    bool commit;
    bool consistent;            /* commit */
    bool application_consistent;/* commit */
    uint64_t wall_ns;           /* commit */
    uint64_t monotonic_ns;      /* commit */
    uint8_t chain[WEIR_LOG_CHAIN_BYTES];        /* commit; set by writing */
    WeirLogCommit durable;
    uint32_t head_bytes;        /* set by writing, as all below */
    uint32_t data_bytes;
    uint32_t crc;               /* with the chain as zeroes */
} WeirLogPacket;

/* How much a record has as data in its packet. */
static inline uint64_t weir_log_data_bytes(const WeirLogRecord *r)
{
    return r->packed_bytes > 0 ? r->packed_bytes :
           r->op == WEIR_LOG_WRITE || r->op == WEIR_LOG_MARK ? r->bytes :
           r->op == WEIR_LOG_DISK ? WEIR_LOG_DISK_BYTES :
           r->op == WEIR_LOG_ORIGIN ? WEIR_LOG_ORIGIN_BYTES : 0;
}

/* The place that so much data takes in a packet. */
static inline uint64_t weir_log_data_room(uint64_t bytes)
{
    return (bytes + WEIR_LOG_DATA_ALIGN_BYTES - 1) /
           WEIR_LOG_DATA_ALIGN_BYTES * WEIR_LOG_DATA_ALIGN_BYTES;
}

/* Of header and table with so many records. */
static inline uint32_t weir_log_head_bytes(uint32_t records)
{
    return (uint32_t)weir_log_data_room(WEIR_LOG_HEADER_BYTES +
                                        (uint64_t)records *
                                        WEIR_LOG_RECORD_BYTES);
}

/* What so many bytes of head and data take in the log. */
static inline uint64_t weir_log_packet_room(uint64_t bytes)
{
    return (bytes + WEIR_LOG_ALIGN_BYTES - 1) / WEIR_LOG_ALIGN_BYTES *
           WEIR_LOG_ALIGN_BYTES;
}

static inline uint64_t weir_log_packet_bytes(const WeirLogPacket *p)
{
    return weir_log_packet_room((uint64_t)p->head_bytes + p->data_bytes);
}

/* Where the one behind it is. */
static inline uint64_t weir_log_packet_next(const WeirLogPacket *p,
                                            uint64_t segment_bytes)
{
    return p->last ? p->position + segment_bytes - p->position % segment_bytes
                   : p->position + weir_log_packet_bytes(p);
}

uint32_t weir_log_data_crc(const void *data, size_t bytes);

/* data: WEIR_LOG_DISK_BYTES. Reading returns 0, or -EINVAL: no such name. */
void weir_log_disk_write(uint8_t *data, const WeirLogDisk *disk);
int weir_log_disk_read(WeirLogDisk *disk, const uint8_t *data);

/* data: WEIR_LOG_ORIGIN_BYTES. */
void weir_log_origin_write(uint8_t *data, const WeirLogOrigin *origin);
void weir_log_origin_read(WeirLogOrigin *origin, const uint8_t *data);

/* A record that only the keeper writes. */
static inline bool weir_log_is_keepers(WeirLogOp op)
{
    return op == WEIR_LOG_ORIGIN || op == WEIR_LOG_LACK;
}

/* One that does nothing to a disk. */
static inline bool weir_log_is_remark(WeirLogOp op)
{
    return op == WEIR_LOG_MARK || weir_log_is_keepers(op);
}

/* The chain after a packet; that of a commit is what the commit holds. */
void weir_log_chain_step(uint8_t *chain, const WeirLogPacket *p);

/*
 * Make the head of a packet.
 * head: weir_log_head_bytes(p->records). p: what is not set by writing is
 * given. records: p->records of them, sound, with the CRCs of their data.
 * chain: taken a step on.
 */
void weir_log_packet_write(uint8_t *head, WeirLogPacket *p,
                           const WeirLogRecord *records, uint8_t *chain);

/*
 * How long the head of a packet is, from its first WEIR_LOG_HEADER_BYTES.
 * Returns 0 if this is no packet, else at most WEIR_LOG_PACKET_BYTES_MAX.
 */
uint32_t weir_log_packet_peek(const uint8_t *header);

/*
 * Read a head, and check all that can be checked without its data and without
 * the log that it is in.
 * head: bytes as weir_log_packet_peek() told. p: set on success.
 * Returns 0 or -EINVAL, *why.
 */
int weir_log_packet_read(WeirLogPacket *p, const uint8_t *head,
                         const char **why);

/* Of a head that was read; i: less than its number of records. */
void weir_log_record_read(WeirLogRecord *r, const uint8_t *head, uint32_t i);

/*
 * Check the data of all records, as it is there: see weir_packed_check() for
 * the rest of what is compressed.
 * head: that was read. data: p->data_bytes.
 * Returns 0 or -EINVAL, *why.
 */
int weir_log_packet_check_data(const WeirLogPacket *p, const uint8_t *head,
                               const uint8_t *data, const char **why);

#endif

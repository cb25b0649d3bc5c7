/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_SUPERBLOCK_H
#define WEIR_REPLICATION_SUPERBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a replication log tells about itself (docs/weir-replication-log.md):
 * its shape, who may write to it, from where it can be read.
 */

#define WEIR_LOG_SUPERBLOCKS 2
#define WEIR_LOG_SUPERBLOCK_BYTES 4096
#define WEIR_LOG_RING_OFFSET 65536
#define WEIR_LOG_ALIGN_BYTES 4096
#define WEIR_LOG_HISTORY_MAX 32
#define WEIR_LOG_CHAIN_BYTES 32
#define WEIR_LOG_UUID_BYTES 16
#ifndef WEIR_LOG_SEGMENT_BYTES_MIN      /* tests have smaller ones */
#define WEIR_LOG_SEGMENT_BYTES_MIN (UINT64_C(8) << 20)
#endif
#define WEIR_LOG_SEGMENT_BYTES_MAX (UINT64_C(1) << 30)
#define WEIR_LOG_SEGMENTS_MIN 4
#define WEIR_LOG_SEGMENTS_MAX (UINT32_C(1) << 24)
#define WEIR_LOG_CHAPTER_SHARE 32       /* of a segment, for its index */

/* The end of an epoch. All zeroes: before the first. */
typedef struct WeirLogCommit {
    uint64_t epoch;
    uint64_t end;               /* position behind its last packet */
    uint8_t chain[WEIR_LOG_CHAIN_BYTES];
    uint64_t wall_ns;           /* since 1970 */
} WeirLogCommit;

#define WEIR_LOG_COMMIT_BYTES 56        /* on disk */

typedef struct WeirLogGeneration {
    uint64_t number;
    uint64_t first_epoch;
    uint8_t uuid[WEIR_LOG_UUID_BYTES];
} WeirLogGeneration;

typedef struct WeirLogSuperblock {
    uint64_t sequence;
    bool has_origins;           /* its first epoch is one of the keeper's */
    uint8_t group[WEIR_LOG_UUID_BYTES];
    uint64_t segment_bytes;
    uint32_t segments;
    uint64_t chapter_bytes;     /* of the place for the index of a segment,
                                   behind the ring; 0: there is none */
    uint64_t tail;              /* position; before it all is free */
    WeirLogCommit anchor;
    uint64_t horizon;           /* epochs before it are no points in time any
                                   more: the bases may hold what is later;
                                   up to anchor.epoch: none but those before */
    bool base_incomplete;       /* what is at the anchor is no point in time */
    bool application_consistent;        /* it is, and such a one */
    bool is_kept;               /* whoever tells it takes leaves: see leave.h;
                                   never so on disk */
    bool zstd;                  /* data may be compressed */
    uint32_t history_count;     /* 1..WEIR_LOG_HISTORY_MAX */
    WeirLogGeneration history[WEIR_LOG_HISTORY_MAX];    /* oldest first */
} WeirLogSuperblock;

/*
 * Shape a new log for a device of so many bytes.
 * sb: segment_bytes as wished, 0: 64 MiB, or less if that makes fewer than 16
 * segments; chapter_bytes: 0, or anything else for an index, which there is
 * only if there is room for it. The rest is set but for identities, and zeroes.
 * Does not block. Returns 0; -EINVAL: no such segment; -ENOSPC: the device is
 * too small.
 */
int weir_log_superblock_shape(WeirLogSuperblock *sb, uint64_t device_bytes);

/* buf: WEIR_LOG_SUPERBLOCK_BYTES, to go to copy sequence mod 2. */
void weir_log_superblock_write(uint8_t *buf, const WeirLogSuperblock *sb);

/*
 * Take the newest whole copy.
 * copies: both, one behind the other, as they are on the device of
 * device_bytes. sb: set on success. err: a message otherwise.
 * Does not block. Returns 0; -ENOENT: there is no log; -EINVAL: it is damaged;
 * -ENOTSUP: another version, unknown features; -ENOSPC: it is longer than the
 * device.
 */
int weir_log_superblock_read(WeirLogSuperblock *sb, const uint8_t *copies,
                             uint64_t device_bytes, char *err,
                             size_t err_size);

#define WEIR_LOG_GENERATION_BYTES 32    /* on disk */

/* A commit, a generation, as they are on disk. */
void weir_log_commit_write(uint8_t *at, const WeirLogCommit *commit);
void weir_log_commit_read(WeirLogCommit *commit, const uint8_t *at);
void weir_log_generation_write(uint8_t *at, const WeirLogGeneration *g);
void weir_log_generation_read(WeirLogGeneration *g, const uint8_t *at);

static inline uint64_t weir_log_ring_bytes(const WeirLogSuperblock *sb)
{
    return sb->segment_bytes * sb->segments;
}

/* Where a position is on the device. */
static inline uint64_t weir_log_offset(const WeirLogSuperblock *sb,
                                       uint64_t position)
{
    return WEIR_LOG_RING_OFFSET + position % weir_log_ring_bytes(sb);
}

/* The index of the segment that begins at a position. */
static inline uint64_t weir_log_chapter_offset(const WeirLogSuperblock *sb,
                                               uint64_t position)
{
    return WEIR_LOG_RING_OFFSET + weir_log_ring_bytes(sb) +
           position / sb->segment_bytes % sb->segments * sb->chapter_bytes;
}

/* The generation that an epoch must have; 0: none has it any more. */
uint64_t weir_log_generation_of(const WeirLogSuperblock *sb, uint64_t epoch);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_SIDECAR_H
#define WEIR_REPLICATION_SIDECAR_H

#include "replication/bitmap.h"
#include "replication/packet.h"

/*
 * What is kept beside a disk about its replication
 * (docs/weir-replication-sidecar.md). Nothing here does I/O, allocates or
 * locks.
 */

#define WEIR_SIDECAR_HEADERS 2
#define WEIR_SIDECAR_HEADER_BYTES 4096
#define WEIR_SIDECAR_LIVES WEIR_LOG_LIVES
#define WEIR_SIDECAR_SECTOR_BYTES 4096
#define WEIR_SIDECAR_BITS_BYTES 4064    /* of a sector */
#define WEIR_SIDECAR_SECTOR_BITS (WEIR_SIDECAR_BITS_BYTES * 8)
#define WEIR_SIDECAR_REGIONS_OFFSET 65536
#define WEIR_SIDECAR_REGION_SECTORS_MAX 64
#define WEIR_SIDECAR_BLOCKS_OFFSET \
    (WEIR_SIDECAR_REGIONS_OFFSET + \
     WEIR_SIDECAR_REGION_SECTORS_MAX * WEIR_SIDECAR_SECTOR_BYTES)
#ifndef WEIR_SIDECAR_REGION_BYTES       /* tests have smaller ones */
#define WEIR_SIDECAR_REGION_BYTES (UINT64_C(16) << 20)
#endif

typedef struct WeirSidecar {
    uint64_t sequence;
    uint64_t instance;
    uint8_t group[WEIR_LOG_UUID_BYTES];
    WeirLogDisk disk;
    uint64_t disk_bytes;
    uint64_t region_bytes;
    bool clean;
    bool base;                  /* the disk is the base image of a log */
    uint32_t lives[WEIR_SIDECAR_LIVES]; /* of sources, newest first; 0: none */
    WeirLogGeneration generation;       /* number 0: none yet */
    WeirLogCommit durable;
    uint32_t block_sectors;
    WeirLogGeneration parent;   /* see WeirLogOrigin; number 0: none */
    WeirLogCommit until;
    uint32_t writer;
} WeirSidecar;

typedef enum WeirSidecarBits {
    WEIR_SIDECAR_REGIONS,
    WEIR_SIDECAR_BLOCKS,
} WeirSidecarBits;

/* How long a region has to be for a disk of so many bytes. */
uint64_t weir_sidecar_region_bytes(uint64_t disk_bytes);

/* Sectors for so many bits. */
static inline uint64_t weir_sidecar_sectors(uint64_t bits)
{
    return (bits + WEIR_SIDECAR_SECTOR_BITS - 1) / WEIR_SIDECAR_SECTOR_BITS;
}

/* Regions or blocks of so many bytes. */
static inline uint64_t weir_sidecar_count(uint64_t disk_bytes, uint64_t each)
{
    return disk_bytes / each + (disk_bytes % each > 0);
}

/* buf: WEIR_SIDECAR_HEADER_BYTES, to go to copy sequence mod 2. */
void weir_sidecar_write(uint8_t *buf, const WeirSidecar *sidecar);

/*
 * Take the newest whole copy.
 * copies: both, one behind the other. sidecar: set on success. err: a message
 * otherwise.
 * Returns 0; -ENOENT: there are zeroes; -EINVAL: it is something else;
 * -EBADMSG: it is damaged; -ENOTSUP: another version, unknown features.
 */
int weir_sidecar_read(WeirSidecar *sidecar, const uint8_t *copies, char *err,
                      size_t err_size);

/*
 * buf: WEIR_SIDECAR_SECTOR_BYTES. bits: WEIR_SIDECAR_BITS_BYTES.
 * sidecar: its instance, and for blocks its sequence. Reading returns 0, or
 * -EBADMSG: it is damaged, or not the one of this sidecar.
 */
void weir_sidecar_bits_write(uint8_t *buf, const WeirSidecar *sidecar,
                             WeirSidecarBits what, uint32_t index,
                             const uint8_t *bits);
int weir_sidecar_bits_read(const uint8_t *buf, const WeirSidecar *sidecar,
                           WeirSidecarBits what, uint32_t index,
                           uint8_t *bits);

#endif

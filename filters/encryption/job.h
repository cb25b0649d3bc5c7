/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_JOB_H
#define WEIR_ENCRYPTION_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the header says of a job that converts a disk in place: LUKS2's online
 * re-encryption, version 2, with the resilience "checksum", or "datashift"
 * where the data moves to make room for the header. The states are in
 * docs/weir-encryption-reencryption.md. Only text is read and made here; no
 * I/O. The caller locks.
 *
 * Functions that fail return -errno, and put one line into err where they take
 * one.
 */

#define WEIR_JOB_HASH_BYTES_MAX 64
#define WEIR_JOB_AREAS_MAX 34

typedef enum WeirJobMode {
    WEIR_JOB_ENCRYPT,
    WEIR_JOB_REKEY,
    WEIR_JOB_DECRYPT,
} WeirJobMode;

/* How the data is stored before, or after. */
typedef struct WeirJobSide {
    bool is_crypt;              /* else plain, and the rest is 0 */
    uint32_t sector_bytes;
    int digest;
    uint32_t keyslots;          /* bit mask: those that hold its key */
    uint32_t key_bytes;
} WeirJobSide;

typedef struct WeirJobInfo {
    WeirJobMode mode;
    bool backward;
    uint64_t data_offset_bytes; /* if it moves: afterwards */
    /*
     * By how much the data moves, to behind the header; 0: it does not. Then
     * it is as long as data_bytes. What is not converted is at the beginning of
     * the disk, but its first shift_bytes, which are at moved_offset.
     */
    uint64_t shift_bytes;
    uint64_t moved_offset;
    uint64_t data_bytes;
    uint32_t block_bytes;       /* what a checksum covers; without: a sector */
    int hash;                   /* libgcrypt's number */
    uint32_t hash_bytes;
    uint64_t area_offset;       /* on the header's disk */
    uint64_t area_bytes;
    WeirJobSide before, after;
    /*
     * Where it is. Bytes of the data that are converted (backward: that are
     * not) before the hotzone; UINT64_MAX: backward, all of them. If
     * it moves there is no hotzone: what is hot still has all of it.
     */
    uint64_t head_bytes;
    uint64_t hot_bytes;         /* length of the hotzone; 0: there is none */
    bool converted;             /* all of it; the header does not say so yet */
} WeirJobInfo;

typedef struct WeirJobArea {
    uint64_t offset, bytes;     /* on the header's disk */
} WeirJobArea;

typedef struct WeirJob WeirJob;

/* Whether the JSON text of a header says that there is a job. */
bool weir_job_exists(const char *json);

/*
 * job: gets the new object, freed with weir_job_free().
 * json: of a header, valid or not.
 * Returns 0; with *job NULL: -ENOTSUP for a sound job that is not supported,
 * -EINVAL for one that is not sound, -ENOMEM.
 */
int weir_job_load(WeirJob **job, const char *json, char *err, size_t err_size);

/* NULL is fine. */
void weir_job_free(WeirJob *job);

/* As loaded, or as set last. */
const WeirJobInfo *weir_job_info(const WeirJob *job);

/*
 * Make the header's text for another place of the job.
 * head_bytes, hot_bytes: as in the info, but UINT64_MAX.
 * data_bytes: length of the data.
 * Returns the text, valid until the next call; NULL without memory.
 */
const char *weir_job_set(WeirJob *job, uint64_t head_bytes, uint64_t hot_bytes,
                         uint64_t data_bytes);

/*
 * Make the header's text for an image whose job is done. What was found by
 * then stays in the info.
 * areas, n_areas: gets the areas that are not in use any more and hold old keys
 * or checksums; room for WEIR_JOB_AREAS_MAX.
 */
const char *weir_job_finish(WeirJob *job, WeirJobArea *areas, size_t *n_areas);

/*
 * Check that nobody without the keys has changed the job. Costs what the
 * header's digests say.
 * before, after: the volume keys; not looked at where the side is plain.
 * Returns 0; -EBADMSG when it does not match; -EINVAL, -ENOMEM.
 */
int weir_job_check_digest(WeirJob *job, const void *before, const void *after,
                          char *err, size_t err_size);

/*
 * Have each checksum cover so many bytes, which the digest tells as well.
 * Returns the header's text, or NULL.
 */
const char *weir_job_set_block(WeirJob *job, uint32_t block_bytes,
                               const void *before, const void *after);

#endif

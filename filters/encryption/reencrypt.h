/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_REENCRYPT_H
#define WEIR_ENCRYPTION_REENCRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encryption/job.h"

/*
 * Convert a disk in place, from plain to encrypted, from one volume key to
 * another, or from encrypted to plain, while it is in use, and whenever the
 * power fails. What is on disk meanwhile, and why that is enough, is told in
 * docs/weir-encryption-reencryption.md.
 *
 * The whole way of a request is written here once, straight down, and calls its
 * host for I/O and for waiting. In QEMU the host is the driver and each request
 * a coroutine; the crash tests run the same code over simulated disks. A
 * function that "yields" calls the host; no lock is held over that.
 *
 * Any thread may call any function, but one at a time weir_reencrypt_load()
 * and _step(), and none but those who free it when it is freed. Offsets and
 * lengths are bytes of the data. Functions return 0 or -errno.
 */

#define WEIR_REENCRYPT_CHUNK_BYTES_MAX (1024 * 1024)
#define WEIR_REENCRYPT_SECTOR_BYTES 512
#define WEIR_REENCRYPT_LANES 4  /* chunks that a step has under way at a time */

typedef enum WeirReencryptDevice {
    WEIR_REENCRYPT_DATA,
    WEIR_REENCRYPT_HEADER,      /* may be the same disk */
} WeirReencryptDevice;

typedef struct WeirReencrypt WeirReencrypt;

/* Where requests wait for each other; the host's. */
typedef struct WeirReencryptQueue {
    void *host[2];
} WeirReencryptQueue;

/* Those up to wait() yield, and are called with no lock held. */
typedef struct WeirReencryptHost {
    int (*read)(void *opaque, WeirReencryptDevice dev, uint64_t offset,
                uint64_t bytes, void *buf);
    /* fua: it is durable when it returns. */
    int (*write)(void *opaque, WeirReencryptDevice dev, uint64_t offset,
                 uint64_t bytes, const void *buf, bool fua);
    int (*flush)(void *opaque, WeirReencryptDevice dev);
    /*
     * Wait until the queue is woken. Called with the lock held
     * (weir_reencrypt_lock()), which is released meanwhile.
     */
    void (*wait)(void *opaque, WeirReencrypt *r, WeirReencryptQueue *queue);
    /*
     * Call fn(arg, i) for each i below n, at most WEIR_REENCRYPT_LANES, and
     * return when all have returned. They yield; while one waits others go on.
     */
    void (*each)(void *opaque, void (*fn)(void *arg, unsigned i), void *arg,
                 unsigned n);
    /*
     * Call fn(arg), which takes its time and does not yield: in another thread,
     * so that requests go on.
     */
    void (*compute)(void *opaque, void (*fn)(void *arg), void *arg);

    /* These do not yield; the lock may be held. */
    void (*wake)(void *opaque, WeirReencryptQueue *queue);  /* all that wait */
    void (*queue_init)(void *opaque, WeirReencryptQueue *queue);
} WeirReencryptHost;

typedef struct WeirReencryptOpen {
    const void *header;         /* the beginning of the header's disk, at least
                                   both copies of the metadata; not needed any
                                   more afterwards */
    size_t header_bytes;
    uint64_t disk_bytes;        /* of the disk with the data */
    uint64_t staged_offset;     /* of the header on that disk, while it is not,
                                   or not wholly, at the beginning; else 0 */
    const void *key_before;     /* volume keys; NULL where it is plain; not */
    const void *key_after;      /* needed any more afterwards */
    bool check_digest;          /* false: the caller has done it */
    bool read_only;             /* no step is done, nothing is written */
    unsigned ciphers;           /* as weir_xts_new() has it */
    unsigned vaes_bits;         /* see weir_xts_set_vaes() */
    uint64_t hotzone_bytes;     /* at most; cut to what the area has room for */
    uint32_t chunk_bytes;       /* converted at a time; a power of 2, up to
                                   WEIR_REENCRYPT_CHUNK_BYTES_MAX, which large
                                   steps come to */
} WeirReencryptOpen;

typedef enum WeirReencryptPhase {
    WEIR_REENCRYPT_CLEAN,       /* no hotzone: a good place to stop */
    WEIR_REENCRYPT_PREPARING,   /* the header that tells of one is written;
                                   writes to it wait */
    WEIR_REENCRYPT_UNSURE,      /* its header may be on disk, or not: writes to
                                   it fail until the next step has succeeded */
    WEIR_REENCRYPT_HOT,
    WEIR_REENCRYPT_FINISHED,
} WeirReencryptPhase;

typedef struct WeirReencryptInfo {
    WeirJobMode mode;
    bool backward;
    bool moves;                 /* the data, to make room for the header */
    WeirReencryptPhase phase;
    uint64_t data_bytes;        /* of the disk, from the data's offset */
    uint64_t data_offset_bytes;
    uint64_t done_bytes;        /* converted, as the header says, and of the
                                   hotzone */
    uint32_t block_bytes;       /* requests are multiples of it */
    unsigned vaes_bits;         /* of the vectors that are used, or 0 */
} WeirReencryptInfo;

/*
 * Take a job from its header. No I/O; can take as long as the digests say.
 * r: gets the new object, freed with weir_reencrypt_free().
 * host: stays valid until then.
 * err: gets one line when it fails.
 * Returns 0; with *r NULL: -ENOTSUP, -EINVAL, -EBADMSG as weir_job_load() and
 * weir_job_check_digest() have it; -EINVAL for a disk that is not a multiple
 * of the blocks or too short; -ENOMEM and what weir_xts_new() returns.
 */
int weir_reencrypt_open(WeirReencrypt **r, const WeirReencryptOpen *open,
                        const WeirReencryptHost *host, void *opaque, char *err,
                        size_t err_size);

/*
 * Read the checksums of a hotzone, or how far a header that is staged has got,
 * before anything else is done. Yields.
 * Unless it is read-only the header is flushed first: what another process has
 * written, and not flushed, may be there now and gone after a power cut.
 */
int weir_reencrypt_load(WeirReencrypt *r);

/*
 * Whether the header is at an offset of the disk with the data, and on its way
 * to the beginning, where its first sector is.
 * first, staged: WEIR_REENCRYPT_SECTOR_BYTES of the disk, from its beginning
 * and from the offset.
 */
bool weir_reencrypt_is_staged(const void *first, const void *staged);

/* NULL is fine. */
void weir_reencrypt_free(WeirReencrypt *r);

void weir_reencrypt_lock(WeirReencrypt *r);
void weir_reencrypt_unlock(WeirReencrypt *r);

/* --- requests; all yield --- */

/*
 * In multiples of a block. The caller's buffer has, or gets, plaintext; a write
 * leaves anything in it. -EIO for a write to the hotzone in the phase "unsure".
 */
int weir_reencrypt_read(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                        void *buf);
int weir_reencrypt_write(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                         void *buf, bool fua);

/*
 * Do the next piece: convert some of the hotzone and take checksums of what
 * will be the next one, begin one, or end it. Yields.
 * bytes: about so many; more than a chunk are done several at a time.
 * Returns, when there is more to do, how much it was, at least 1. Each byte of
 * the disk comes twice, in checksums and in the conversion, and counts half.
 * Returns 0 when all is done: then the header has nothing of the job any more,
 * and the disk is as wanted. After an error it can be called again, and does
 * the same once more.
 */
int weir_reencrypt_step(WeirReencrypt *r, uint32_t bytes);

/*
 * No step follows for a while, and none is under way: what was prepared for it
 * is not kept. Does not yield.
 */
void weir_reencrypt_rest(WeirReencrypt *r);

void weir_reencrypt_query(WeirReencrypt *r, WeirReencryptInfo *info);

#endif

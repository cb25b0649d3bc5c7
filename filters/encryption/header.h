/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_HEADER_H
#define WEIR_ENCRYPTION_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encryption/job.h"

/*
 * Headers of LUKS2 images, through libcryptsetup, in memory: the caller reads
 * and writes the disk.
 *
 * A header is two copies of the metadata, followed by the area of the
 * keyslots. It is at the beginning of the image ("attached"), or alone on
 * another disk ("detached").
 *
 * Any thread may call, one at a time for each WeirHeader. libcryptsetup is
 * called by one thread at a time in the whole program, so what WeirHeaderLimits
 * says of memory holds for all disks together; functions that take a
 * passphrase can take seconds.
 *
 * Functions that fail return -errno and put one line into err, cut to
 * err_size bytes with the final 0.
 */

/* As much as there can be: 2 x 4 MiB of metadata, 128 MiB of keyslots. */
#define WEIR_HEADER_BYTES_MAX (136 * 1024 * 1024)
/* What cryptsetup makes unless it is told otherwise. */
#define WEIR_HEADER_BYTES_USUAL (16 * 1024 * 1024)
#define WEIR_HEADER_KEYSLOTS 32
#define WEIR_HEADER_ANY_KEYSLOT (-1)

typedef struct WeirHeader WeirHeader;

typedef struct WeirHeaderInfo {
    char uuid[40];
    uint32_t key_bytes;         /* of the volume key: 32 or 64; 64 when there
                                   is no keyslot to tell */
    uint32_t sector_bytes;      /* 512, 1024, 2048 or 4096 */
    uint64_t data_offset_bytes; /* on the disk with the data */
    uint64_t data_bytes;        /* UINT64_MAX: up to the end of the disk */
    uint64_t tweak_units;       /* number of the first sector; 512 bytes */
    uint64_t header_bytes;      /* length of the header */
    uint64_t copy_bytes;        /* of one of its two copies of the metadata */
    bool repaired;              /* one copy was bad, the other was taken */
    bool is_bound;              /* it says how long the data of its disk is: */
    uint64_t bound_min_bytes;   /* between these, or one of them; INT64_MAX: */
    uint64_t bound_max_bytes;   /* no limit */
    bool has_job;               /* a re-encryption has begun and not ended:
                                   tweak_units does not count, data_bytes only
                                   if the data moves, sector_bytes is the
                                   larger one */
} WeirHeaderInfo;

/* A write that brings a changed header to its disk. */
typedef struct WeirHeaderWrite {
    uint64_t offset_bytes;
    uint64_t n_bytes;
    const void *bytes;          /* NULL: zeroes */
    bool flush;                 /* afterwards, before anything else */
} WeirHeaderWrite;

typedef struct WeirHeaderUpdate WeirHeaderUpdate;

/* What deriving a key from a passphrase may cost. */
typedef struct WeirHeaderLimits {
    uint64_t memory_bytes;
    /*
     * Estimated, for the whole call: a machine is assumed that fills 1 GiB of
     * memory or does a million iterations of PBKDF2 in a second.
     */
    uint32_t time_s;
} WeirHeaderLimits;

/* How a new keyslot derives its key. */
typedef struct WeirHeaderKdf {
    const char *type;           /* "argon2id", "argon2i" or "pbkdf2" */
    uint32_t iterations;        /* at least 4; of PBKDF2 1000 */
    uint32_t memory_kib;        /* 32 or more; 0 with PBKDF2 */
    uint32_t threads;           /* 1 to 4; 0 with PBKDF2 */
} WeirHeaderKdf;

typedef struct WeirHeaderKeyslot {
    int keyslot;
    WeirHeaderKdf kdf;          /* type is static; "" for an unknown one */
} WeirHeaderKeyslot;

/* The bytes stay the caller's. */
typedef struct WeirHeaderPassphrase {
    const void *bytes;
    size_t n_bytes;
} WeirHeaderPassphrase;

/* How a job begins. */
typedef struct WeirHeaderBegin {
    WeirJobMode mode;
    bool backward;
    uint64_t disk_bytes;        /* of the disk with the data; from the data's
                                   offset on a multiple of the sector size */
    bool detached;              /* the header is on another disk */
    bool moves;                 /* to encrypt: the header goes to the beginning
                                   of the disk with the data, which moves by
                                   the data's offset; the last two times as
                                   many bytes of the disk are free for that */
    const WeirHeaderPassphrase *passphrases;    /* the first one, and those
                                   that open the disk after WEIR_JOB_REKEY as
                                   well; each opens it now */
    size_t n_passphrases;       /* 1 or more; else than to rekey, 1 */
    bool drop_keyslots;         /* to rekey: those of other passphrases may
                                   go */
    WeirHeaderKdf kdf;          /* to rekey: of the new keyslots */
    WeirHeaderLimits limits;    /* for each of the passphrases */
} WeirHeaderBegin;

typedef struct WeirHeaderFormat {
    uint64_t disk_bytes;        /* of the disk that the header goes on */
    bool detached;
    uint32_t key_bytes;         /* 32 or 64 */
    uint32_t sector_bytes;      /* 512 or 4096 */
    const char *uuid;           /* NULL: a random one */
} WeirHeaderFormat;

/*
 * Take a header that was read from a disk. Nothing is derived or decrypted.
 * header: gets the new object, freed with weir_header_free().
 * bytes, n_bytes: the beginning of the disk, at most WEIR_HEADER_BYTES_MAX of
 * it; copied. All of it is to be there, or at least WEIR_HEADER_BYTES_USUAL.
 * disk_bytes: length of that disk.
 * needed_bytes: gets the length to come with when -EMSGSIZE is returned.
 * Returns 0; with *header NULL: -EMSGSIZE when the header is longer than
 * n_bytes; -ENOTSUP for an image that is sound but not supported; -EINVAL for
 * one that is not sound, or no LUKS2; -ENOMEM and what memfd_create() gives.
 */
int weir_header_load(WeirHeader **header, const void *bytes, size_t n_bytes,
                     uint64_t disk_bytes, bool detached,
                     uint64_t *needed_bytes, char *err, size_t err_size);

/*
 * Make a new header with a random volume key and the first keyslot.
 * Returns 0; with *header NULL: -EINVAL for what cannot be, -ENOMEM and others.
 */
int weir_header_create(WeirHeader **header, const WeirHeaderFormat *format,
                       const WeirHeaderKdf *kdf, const void *passphrase,
                       size_t passphrase_bytes, char *err, size_t err_size);

/* NULL is fine. */
void weir_header_free(WeirHeader *header);

/* The info; valid as long as the header. */
const WeirHeaderInfo *weir_header_info(const WeirHeader *header);

/*
 * Read the header as it is now, to be written to the disk.
 * bytes: room for header_bytes of the info.
 * Returns 0 or -errno.
 */
int weir_header_read(WeirHeader *header, void *bytes);

/*
 * Get the volume key.
 * keyslot: 0 to 31, or WEIR_HEADER_ANY_KEYSLOT: all in use, preferred ones
 * first, but those to be ignored.
 * key: room for key_bytes of the info, from weir_secret_new().
 * Returns the keyslot; -EACCES when the passphrase opens none; -ENOENT when
 * keyslot is not in use; -E2BIG when it (or with ANY_KEYSLOT: one of those
 * that the passphrase did not get to) costs more than the limits, without
 * having tried; -EINVAL for a bad volume key or header.
 */
int weir_header_unlock(WeirHeader *header, int keyslot,
                       const void *passphrase, size_t passphrase_bytes,
                       const WeirHeaderLimits *limits, void *key, char *err,
                       size_t err_size);

/*
 * Get the volume keys of the job that a header has. Costs up to twice the
 * limits.
 * before, after: as key above; not touched where that side is plain.
 * Returns the keyslot with the key that stays, or goes if none does; or what
 * weir_header_unlock() and weir_job_load() do.
 */
int weir_header_unlock_job(WeirHeader *header, const void *passphrase,
                           size_t passphrase_bytes,
                           const WeirHeaderLimits *limits, void *before,
                           void *after, char *err, size_t err_size);

/*
 * Begin a job: the header then says that it has begun, with nothing done yet.
 * To encrypt a disk it comes from weir_header_create(), detached unless the
 * data moves.
 * Costs several times the limits.
 * Returns 0; -ENOTSUP for an image with which it is not possible; -EBUSY when
 * keyslots would be lost, and need not; what weir_header_unlock() does, and
 * others. The header is not to be used then.
 */
int weir_header_begin_job(WeirHeader *header, const WeirHeaderBegin *begin,
                          char *err, size_t err_size);

/*
 * Add a keyslot with another passphrase.
 * key: the volume key, as weir_header_unlock() gave it.
 * Returns the keyslot; -EEXIST when it is in use, -ENOSPC when all are;
 * -EINVAL and others. The header is as before then.
 */
int weir_header_add_keyslot(WeirHeader *header, int keyslot, const void *key,
                            const WeirHeaderKdf *kdf, const void *passphrase,
                            size_t passphrase_bytes, char *err,
                            size_t err_size);

/*
 * Give a keyslot another passphrase; it keeps its number. The new key goes to
 * an area that is free: -ENOSPC without one, from here or from the update.
 * Costs up to twice the limits.
 * Returns the keyslot, or what weir_header_unlock() and _add_keyslot() do.
 */
int weir_header_change_keyslot(WeirHeader *header, int keyslot,
                               const void *old_passphrase, size_t old_bytes,
                               const WeirHeaderLimits *limits,
                               const WeirHeaderKdf *kdf,
                               const void *new_passphrase, size_t new_bytes,
                               char *err, size_t err_size);

/*
 * Remove a keyslot, and overwrite its area.
 * force: even if it is the last one, after which nothing opens the image.
 * Returns 0; -ENOENT when it is not in use; -EBUSY when it is the last one;
 * -EIO.
 */
int weir_header_remove_keyslot(WeirHeader *header, int keyslot, bool force,
                               char *err, size_t err_size);

/*
 * Remove the keyslots that a passphrase opens, of all in use or of one. When
 * one of them cannot be tried within the limits, or must stay because it is the
 * last one, an error is returned and some may be removed: load it again.
 * Returns 0; -EACCES when it opens none; and what weir_header_unlock() and
 * _remove_keyslot() do.
 */
int weir_header_remove_passphrase(WeirHeader *header, int keyslot,
                                  const void *passphrase,
                                  size_t passphrase_bytes,
                                  const WeirHeaderLimits *limits, bool force,
                                  char *err, size_t err_size);

/*
 * Remove all keyslots and overwrite their areas: nothing opens the image
 * afterwards. Of a header without keyslots the areas are overwritten again.
 * Returns 0, -EIO or -ENOMEM.
 */
int weir_header_erase(WeirHeader *header, char *err, size_t err_size);

/*
 * Have a detached header say how long the data of its disk is, so that it is
 * not taken for that of another one: min_bytes to max_bytes, INT64_MAX at most.
 * It is a token of the header, in the place of the one before.
 * Returns 0, or -EINVAL: the header has a job, or no room.
 */
int weir_header_bind(WeirHeader *header, uint64_t min_bytes,
                     uint64_t max_bytes, char *err, size_t err_size);

/* The n keyslots in use, by number; valid until the header is changed. */
const WeirHeaderKeyslot *weir_header_keyslots(const WeirHeader *header,
                                              size_t *n);

/*
 * Bring a header that was made or changed to its disk: what has to be written,
 * in an order in which a power cut at any place leaves a header that opens, as
 * it was before or as it is now. If one of the two copies on the disk was bad
 * when the header was loaded, it is mended first. Nothing is written if
 * nothing has changed.
 *
 *     weir_header_update_new();
 *     while ((write = weir_header_update_next())) {
 *         write the bytes, flush if it says so, or leave the loop at an error
 *     }
 *     weir_header_update_free();
 *
 * The header must not be changed meanwhile. After an error it is not known
 * what the disk has: load the header again.
 *
 * Returns 0; -ENOSPC when a keyslot in use would have to be overwritten in its
 * place; -EIO after an earlier update that did not come to its end; -ENOMEM.
 */
int weir_header_update_new(WeirHeaderUpdate **update, WeirHeader *header,
                           char *err, size_t err_size);

/* All writes that it gave are done. The next one; NULL at the end. */
const WeirHeaderWrite *weir_header_update_next(WeirHeaderUpdate *update);

/* NULL is fine. */
void weir_header_update_free(WeirHeaderUpdate *update);

#endif

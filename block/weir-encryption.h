/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the module weir-encryption share. */
#ifndef WEIR_ENCRYPTION_H
#define WEIR_ENCRYPTION_H

#include "qemu/job.h"
#include "filter.h"
#include "encryption/buffers.h"
#include "encryption/header.h"
#include "encryption/keyid.h"
#include "encryption/xts.h"
#include "weir-encryption-job.h"

#define WEIR_ENCRYPTION_WORKERS_MAX 16
/* what unlocking may cost, if nobody says otherwise */
#define WEIR_KDF_MEMORY_DEFAULT (1 * GiB)
#define WEIR_KDF_TIME_S_DEFAULT 30

typedef struct BDRVWeirEncryptionState {
    WeirFilter filter;          /* first: see filter.h */
    BlockDriverState *bs;       /* set at open */
    BdrvChild *header;          /* set at open; NULL: it is in bs->file */
    WeirHeaderInfo info;        /* set at open; repaired: main thread */
    WeirHeaderLimits limits;    /* set at open */
    char *key_secret;           /* set at open; ID, may be NULL */
    unsigned key_slot;          /* set at open */
    WeirHeaderKeyslot keyslots[WEIR_HEADER_KEYSLOTS];   /* main thread */
    size_t n_keyslots;          /* main thread */
    const char *header_reason;  /* main thread; why it is degraded, or NULL */
    bool header_changes;        /* main thread; we may write to the header */
    bool header_claimed;        /* @lock; by one who changes it */
    bool check_length;          /* set at open */
    bool header_only;           /* set at open; there is no key */
    bool keeps_length;          /* atomic, set in the main thread: the header
                                   is bound to the length of the disk */
    int64_t bound_min_bytes;    /* atomic; how long it says that this is */
    int64_t bound_max_bytes;    /* atomic; the longest that it may get */
    CoMutex resize_lock;        /* one who resizes the disk at a time */
    uint64_t hotzone_bytes;     /* main thread */
    bool writes_header;         /* main thread; for the conversion */
    bool begins;                /* main thread; a job that will take it */
    bool is_plain;              /* no header yet; changed while drained */
    bool resizes;               /* main thread; the disk below */
    uint64_t staged_offset;     /* main thread; where the header was found on
                                   the disk that it is to be the beginning of;
                                   0: there */
    bool was_inactive;          /* the header may be another one now */
    uint8_t *first_copy;        /* its beginning as it was when the node was
                                   opened inactive, or became so; or NULL */
    bool handing_over;          /* atomic; the machine is being migrated */
    WeirConversion *conversion; /* of the disk in place; NULL: there is none,
                                   else instead of xts; set while drained */
    WeirKeyId *key_id;          /* set at open; has no key in it; may be NULL */
    QLIST_ENTRY(BDRVWeirEncryptionState) next; /* main thread; open ones */
    WeirXts *xts;               /* set at open; has its own lock */
    unsigned vaes_bits_max;     /* set at open; 0: none */
    unsigned vaes_bits;         /* in use, or 0; main thread */
    unsigned workers;           /* set at open */
    unsigned helpers;           /* in use for large requests; @lock */
    WeirBuffers *buffers;       /* set at open; @lock */
    CoQueue waiting;            /* for a buffer; @lock */
    QemuMutex lock;             /* never held across a yield */
} BDRVWeirEncryptionState;

/* A passphrase; zero it after use. */
typedef struct WeirPassphrase {
    uint8_t *bytes;
    size_t n_bytes;
} WeirPassphrase;

/* From the secret object @id.  Returns 0 or -ENOENT with @errp set. */
int weir_passphrase_get(WeirPassphrase *passphrase, const char *id,
                        Error **errp);
void weir_passphrase_free(WeirPassphrase *passphrase);

/*
 * Where a header is: that of an open node of ours, or on a node that is only
 * used for its header, by way of @blk.
 */
typedef struct WeirHeaderPlace {
    BlockDriverState *bs;       /* of ours, or NULL */
    BlockBackend *blk;          /* or NULL */
    bool detached;              /* or not known */
    bool in_request;            /* the caller's is one of the node's requests:
                                   it has the graph lock, and waits for no
                                   drained section; any thread */
    uint64_t offset;            /* of the header; only to be read if not 0 */
    Job *job;                   /* whose end ends the wait for a drained
                                   section, or NULL */
    char name[32];              /* of the node, for messages */
} WeirHeaderPlace;

/* Main thread, not in a coroutine. */
void weir_header_place_of_node(WeirHeaderPlace *place, BlockDriverState *bs);
/* Takes @blk, which weir_header_place_free() gives back. */
void weir_header_place_of_blk(WeirHeaderPlace *place, BlockBackend *blk);
void weir_header_place_free(WeirHeaderPlace *place);

/*
 * Run @func in a thread, and wait for it with the disks of this thread, and
 * the guest, at work: whatever derives a key, or may have to wait for somebody
 * who does, as all calls of libcryptsetup.  Main thread, coroutine or not.
 * Returns what @func does.
 */
int weir_encryption_run(int (*func)(void *opaque), void *opaque);

/*
 * Read the header.  Main thread, coroutine or not.  Returns 0; -errno with
 * @errp set and *@header NULL.
 */
int weir_header_from_disk(const WeirHeaderPlace *place, WeirHeader **header,
                          Error **errp);

/*
 * The same as bytes, the first @n_bytes of the disk.  *@bytes: qemu_vfree() it.
 * Main thread, coroutine or not.  Returns 0; -errno with @errp set and *@bytes
 * NULL.
 */
int weir_header_bytes_from_disk(const WeirHeaderPlace *place, int64_t n_bytes,
                                uint8_t **bytes, Error **errp);

/*
 * Write a header that was changed or made, in the order of
 * weir_header_update_new().  The permission to write must have been taken.  A
 * drained section holds it up; a coroutine that finds the node inactive, or
 * its job cancelled meanwhile, gives up, with the header as it was or as it is.
 * Main thread, coroutine or not.
 * Returns 0, or -errno with @errp set: then load it again.
 */
int weir_header_to_disk(const WeirHeaderPlace *place, WeirHeader *header,
                        Error **errp);

/* weir_header_free(), which may have to wait.  NULL is fine. */
void weir_header_drop(WeirHeader *header);

/* The node's child that has the header on it. */
BdrvChild * GRAPH_RDLOCK weir_header_child(BlockDriverState *bs);

/*
 * Whether a header, for which the data of the disk moves, was on its way to the
 * beginning when it was interrupted.  *@offset: where it is whole.  Main
 * thread.
 */
bool weir_header_is_staged(BlockDriverState *bs, uint64_t *offset);

/* Ask again for the permissions that the driver wants on it.  Main thread. */
int weir_header_refresh_perms(BlockDriverState *bs, Error **errp);

/*
 * Be the one who changes the header of @bs; false if there is another one.  Any
 * thread.
 */
bool weir_header_claim(BlockDriverState *bs);
void weir_header_unclaim(BlockDriverState *bs);

/*
 * Take the permission to write to the header of @bs, for one who changes it at
 * a time, and give it back.  Main thread.  Returns 0, or -errno with @errp set.
 */
int weir_header_change_begin(BlockDriverState *bs, Error **errp);
void weir_header_change_end(BlockDriverState *bs);

/* Take over what @header says now, and tell the filter's state. */
void weir_header_note(BlockDriverState *bs, const WeirHeader *header);

/* weir-encryption-create.c */
extern QemuOptsList weir_encryption_create_opts;
int coroutine_fn GRAPH_UNLOCKED
weir_encryption_co_create(BlockdevCreateOptions *options, Error **errp);
int coroutine_fn GRAPH_UNLOCKED
weir_encryption_co_create_opts(BlockDriver *drv, const char *filename,
                               QemuOpts *opts, Error **errp);
BlockMeasureInfo *weir_encryption_measure(QemuOpts *opts,
                                          BlockDriverState *in_bs,
                                          Error **errp);
/* @options, with defaults, for the engine.  0, or -EINVAL with @errp set. */
int weir_kdf_from_options(WeirHeaderKdf *kdf, const WeirKdfOptions *options,
                          Error **errp);
/* The same options of qemu-img, for a QemuOptsList. */
#define WEIR_KDF_OPTS \
    { .name = "kdf", .type = QEMU_OPT_STRING, .help = "How the key is " \
      "derived: argon2id (default), argon2i, pbkdf2" }, \
    { .name = "kdf-iterations", .type = QEMU_OPT_NUMBER, .help = "Iterations " \
      "(default: 4, or 600000 of pbkdf2)" }, \
    { .name = "kdf-memory", .type = QEMU_OPT_SIZE, .help = "Memory, not with " \
      "pbkdf2 (default: 256 MiB)" }, \
    { .name = "kdf-threads", .type = QEMU_OPT_NUMBER, .help = "Threads, not " \
      "with pbkdf2 (default: 4)" },

/* weir-encryption-bind.c */
/* Length of the data on the disk now, or -errno.  Main thread. */
int64_t weir_encryption_data_bytes(BlockDriverState *bs);
/* Whether a detached header is for this disk, as far as the length tells. */
int weir_encryption_check_length(BlockDriverState *bs, Error **errp);
/* .bdrv_co_truncate once it is known that the length is possible. */
int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_resize(BlockDriverState *bs, int64_t bytes, bool exact,
                          PreallocMode prealloc, BdrvRequestFlags flags,
                          Error **errp);
/* Before a write up to @end of the data.  Returns 0 or -ENOSPC. */
int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_grow(BlockDriverState *bs, int64_t end);

/* weir-encryption-keyslot.c */
extern QemuOptsList weir_encryption_amend_opts;
int GRAPH_RDLOCK
weir_encryption_amend_options(BlockDriverState *bs, QemuOpts *opts,
                              BlockDriverAmendStatusCB *status_cb,
                              void *cb_opaque, bool force, Error **errp);
void weir_encryption_change_header(BlockDriverState *bs,
                                   const WeirHeaderChange *change,
                                   Error **errp);
WeirKeyslotInfoList *weir_keyslots_to_qapi(const BDRVWeirEncryptionState *s);

/* weir-encryption-convert.c */
extern const WeirFilterJob weir_encryption_job;
/*
 * The header says that the disk is being converted: requests go on with that,
 * and somebody may take the job.  Main thread, when the node is opened.
 * Returns 0, or -errno with @errp set.
 */
int weir_encryption_go_on_converting(BlockDriverState *bs,
                                     const WeirHeaderPlace *place,
                                     WeirHeader *header, Error **errp);
int weir_encryption_prepare_detach(BlockDriverState *bs, bool force,
                                   Error **errp);
void weir_encryption_drain_begin(BlockDriverState *bs);
void weir_encryption_drain_end(BlockDriverState *bs);
/* Remember the header of a node that is opened inactive, or becomes so... */
int weir_encryption_note_first_copy(BlockDriverState *bs, Error **errp);
int GRAPH_RDLOCK weir_encryption_inactivate(BlockDriverState *bs);
/* ...so that activating it fails if somebody has changed it. */
void coroutine_fn GRAPH_RDLOCK
weir_encryption_co_invalidate_cache(BlockDriverState *bs, Error **errp);
void weir_encryption_begin_handover(BlockDriverState *bs);
void weir_encryption_cancel_handover(BlockDriverState *bs);

/* weir-encryption-io.c: callbacks of the driver */
int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_preadv_part(BlockDriverState *bs, int64_t offset,
                               int64_t bytes, QEMUIOVector *qiov,
                               size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov,
                                size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_pdiscard(BlockDriverState *bs, int64_t offset,
                            int64_t bytes);

#endif

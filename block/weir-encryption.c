/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-encryption: encrypt a disk (child "file") in the format LUKS2, whose
 * header is at the beginning of the disk or on another one (child "header").
 *
 * filters/encryption reads the header, derives the key, and encrypts; this
 * file connects it to the block layer.  What the child has is ciphertext, so
 * the node is no .is_filter, and nothing that the child says of its content is
 * passed on.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "crypto/secret_common.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "filter.h"
#include "encryption/buffers.h"
#include "encryption/header.h"
#include "encryption/secret.h"
#include "encryption/xts.h"

#define MAX_KDF_MEMORY_DEFAULT (1 * GiB)
#define MAX_KDF_TIME_S_DEFAULT 30
/* For as many threads; each has its own copy of the key. */
#define CIPHERS 8
/* How long the main loop is left alone at a time while the key is derived. */
#define UNLOCK_POLL_MS 5

typedef struct BDRVWeirEncryptionState {
    WeirFilter filter;          /* first: see filter.h */
    BdrvChild *header;          /* set at open; NULL: it is in bs->file */
    WeirHeaderInfo info;        /* set at open */
    unsigned key_slot;          /* set at open */
    WeirXts *xts;               /* set at open; has its own lock */
    WeirBuffers *buffers;       /* set at open; @lock */
    CoQueue waiting;            /* for a buffer; @lock */
    QemuMutex lock;             /* never held across a yield */
} BDRVWeirEncryptionState;

static const char *const encryption_options[] = {
    "key-secret", "key-slot", "max-kdf-memory", "max-kdf-time", "pin-uuid",
    NULL
};

/* --- options --- */

static bool options_are_good(const WeirEncryptionOptions *opts, Error **errp)
{
    if (opts->has_key_slot && opts->key_slot >= WEIR_HEADER_KEYSLOTS) {
        error_setg(errp, "weir-encryption: key-slot must be less than %d, "
                   "not %u", WEIR_HEADER_KEYSLOTS, opts->key_slot);
        return false;
    }
    return true;
}

/* Take this driver's options from @options and check them. */
static WeirEncryptionOptions *encryption_parse(QDict *options, Error **errp)
{
    g_autoptr(WeirEncryptionOptions) opts = NULL;
    Visitor *v = weir_filter_options_visitor(options, encryption_options,
                                             errp);

    if (!v) {
        return NULL;
    }
    visit_type_WeirEncryptionOptions(v, NULL, &opts, errp);
    visit_free(v);
    return opts && options_are_good(opts, errp) ? g_steal_pointer(&opts)
                                                : NULL;
}

/* --- header --- */

static BlockDriverState * GRAPH_RDLOCK header_node(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    return s->header ? s->header->bs : bs->file->bs;
}

/* The beginning of a disk, as much as a header may be long. */
typedef struct HeaderBytes {
    uint8_t *bytes;
    int64_t n_bytes;
    int64_t disk_bytes;
} HeaderBytes;

static int header_read(BlockDriverState *bs, int64_t wanted_bytes,
                       HeaderBytes *out, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    BlockDriverState *node;
    BdrvChild *child;
    int ret;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    node = header_node(bs);
    child = s->header ?: bs->file;
    out->disk_bytes = bdrv_getlength(node);
    if (out->disk_bytes < 0) {
        error_setg_errno(errp, -out->disk_bytes, "weir-encryption: Cannot "
                         "tell the length of node '%s'",
                         bdrv_get_node_name(node));
        return out->disk_bytes;
    }
    out->n_bytes = MIN(out->disk_bytes, wanted_bytes);
    out->bytes = qemu_try_blockalign(node, MAX(out->n_bytes, 1));
    ret = out->bytes ? bdrv_pread(child, 0, out->n_bytes, out->bytes, 0)
                     : -ENOMEM;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot read the header "
                         "from node '%s'", bdrv_get_node_name(node));
        qemu_vfree(out->bytes);
        out->bytes = NULL;
    }
    return ret < 0 ? ret : 0;
}

/* Once more if the header turns out to be longer than usual. */
static int header_load(BlockDriverState *bs, WeirHeader **header, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    uint64_t wanted_bytes = WEIR_HEADER_BYTES_USUAL;
    char message[256];
    int ret;

    do {
        HeaderBytes b;

        ret = header_read(bs, wanted_bytes, &b, errp);
        if (ret < 0) {
            return ret;
        }
        ret = weir_header_load(header, b.bytes, b.n_bytes, b.disk_bytes,
                               s->header, &wanted_bytes, message,
                               sizeof(message));
        qemu_vfree(b.bytes);
    } while (ret == -EMSGSIZE);
    if (ret < 0) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        error_setg(errp, "weir-encryption: Node '%s': %s",
                   bdrv_get_node_name(header_node(bs)), message);
    }
    return ret;
}

static int header_check_uuid(BlockDriverState *bs, const WeirHeader *header,
                             const char *pin_uuid, Error **errp)
{
    const WeirHeaderInfo *info = weir_header_info(header);

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (pin_uuid && g_ascii_strcasecmp(pin_uuid, info->uuid)) {
        error_setg(errp, "weir-encryption: Node '%s' has the UUID %s, not %s "
                   "as pin-uuid says", bdrv_get_node_name(header_node(bs)),
                   info->uuid, pin_uuid);
        return -EINVAL;
    }
    return 0;
}

/* --- unlock --- */

typedef struct Unlock {
    WeirHeader *header;
    int keyslot;
    uint8_t *passphrase;
    size_t passphrase_bytes;
    WeirHeaderLimits limits;
    void *key;
    char message[256];
    int ret;
    QemuSemaphore done;
} Unlock;

static void *unlock_thread(void *opaque)
{
    Unlock *u = opaque;

    u->ret = weir_header_unlock(u->header, u->keyslot, u->passphrase,
                                u->passphrase_bytes, &u->limits, u->key,
                                u->message, sizeof(u->message));
    qemu_sem_post(&u->done);
    return NULL;
}

/*
 * It takes seconds: meanwhile the guest's processors may have the big lock,
 * and the disks of the main loop go on.
 */
static void unlock_wait(Unlock *u)
{
    bool had_lock = bql_locked();
    bool progress;
    int timed_out;

    do {
        progress = aio_poll(qemu_get_aio_context(), false);
        if (had_lock) {
            bql_unlock();
        }
        timed_out = qemu_sem_timedwait(&u->done,
                                       progress ? 0 : UNLOCK_POLL_MS);
        if (had_lock) {
            bql_lock();
        }
    } while (timed_out);
}

static int unlock_in_thread(BlockDriverState *bs, Unlock *u, Error **errp)
{
    QemuThread thread;

    qemu_sem_init(&u->done, 0);
    qemu_thread_create(&thread, "weir-unlock", unlock_thread, u,
                       QEMU_THREAD_JOINABLE);
    unlock_wait(u);
    qemu_thread_join(&thread);
    qemu_sem_destroy(&u->done);
    if (u->ret < 0) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        error_setg(errp, "weir-encryption: Node '%s': %s",
                   bdrv_get_node_name(header_node(bs)), u->message);
    }
    return u->ret;
}

static void free_passphrase(uint8_t *passphrase, size_t bytes)
{
    if (passphrase) {
        explicit_bzero(passphrase, bytes);
        g_free(passphrase);
    }
}

static int unlock(BlockDriverState *bs, WeirHeader *header,
                  const WeirEncryptionOptions *opts, void *key, Error **errp)
{
    Unlock u = {
        .header = header,
        .keyslot = opts->has_key_slot ? (int)opts->key_slot
                                      : WEIR_HEADER_ANY_KEYSLOT,
        .limits = {
            .memory_bytes = opts->has_max_kdf_memory ? opts->max_kdf_memory
                                                     : MAX_KDF_MEMORY_DEFAULT,
            .time_s = opts->has_max_kdf_time ? opts->max_kdf_time
                                             : MAX_KDF_TIME_S_DEFAULT,
        },
        .key = key,
    };
    int ret;

    ret = qcrypto_secret_lookup(opts->key_secret, &u.passphrase,
                                &u.passphrase_bytes, errp);
    if (ret < 0) {
        return -ENOENT;
    }
    ret = unlock_in_thread(bs, &u, errp);
    free_passphrase(u.passphrase, u.passphrase_bytes);
    return ret;
}

/* --- life --- */

/* Make what requests need, with the volume key. */
static int start_ciphers(BDRVWeirEncryptionState *s, const void *key,
                         Error **errp)
{
    int ret = weir_xts_new(&s->xts, key, s->info.key_bytes,
                           s->info.sector_bytes, CIPHERS);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot set up the "
                         "cipher in locked memory (see RLIMIT_MEMLOCK)");
        return ret;
    }
    ret = weir_buffers_new(&s->buffers);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: No memory for buffers");
        weir_xts_free(s->xts);
    }
    return ret;
}

static int unlock_and_start(BlockDriverState *bs, WeirHeader *header,
                            const WeirEncryptionOptions *opts, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    size_t key_bytes = weir_header_info(header)->key_bytes;
    void *key;
    int ret = weir_secret_new(&key, key_bytes);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: No locked memory for "
                         "the volume key (see RLIMIT_MEMLOCK)");
        return ret;
    }
    ret = unlock(bs, header, opts, key, errp);
    if (ret >= 0) {
        s->key_slot = ret;
        s->info = *weir_header_info(header);
        ret = start_ciphers(s, key, errp);
    }
    weir_secret_free(key, key_bytes);
    return ret;
}

static int check_data_offset(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t bytes;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    bytes = bdrv_getlength(bs->file->bs);
    if (bytes >= 0 && bytes < s->info.data_offset_bytes) {
        error_setg(errp, "weir-encryption: Node '%s' with %" PRId64 " bytes "
                   "ends before its data, which is to begin at %" PRIu64,
                   bdrv_get_node_name(bs->file->bs), bytes,
                   s->info.data_offset_bytes);
        return -EINVAL;
    }
    return 0;
}

static void stop_ciphers(BDRVWeirEncryptionState *s)
{
    weir_buffers_free(s->buffers);
    weir_xts_free(s->xts);
}

static int open_image(BlockDriverState *bs, const WeirEncryptionOptions *opts,
                      Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirHeader *header;
    int ret = header_load(bs, &header, errp);

    if (ret < 0) {
        return ret;
    }
    ret = header_check_uuid(bs, header, opts->pin_uuid, errp);
    if (ret == 0) {
        ret = unlock_and_start(bs, header, opts, errp);
    }
    weir_header_free(header);
    if (ret < 0) {
        return ret;
    }
    ret = check_data_offset(bs, errp);
    if (ret < 0) {
        stop_ciphers(s);
    }
    return ret;
}

static int open_header_child(BlockDriverState *bs, QDict *options,
                             Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    Error *err = NULL;

    s->header = bdrv_open_child(NULL, options, "header", bs, &child_of_bds,
                                BDRV_CHILD_METADATA, true, &err);
    if (err) {
        error_propagate(errp, err);
        return -EINVAL;
    }
    return 0;
}

static int encryption_open(BlockDriverState *bs, QDict *options, int flags,
                           Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    g_autoptr(WeirEncryptionOptions) opts = encryption_parse(options, errp);
    int ret;

    if (!opts) {
        return -EINVAL;
    }
    qemu_mutex_init(&s->lock);
    qemu_co_queue_init(&s->waiting);
    ret = weir_filter_open(bs, options, errp);
    if (ret < 0) {
        qemu_mutex_destroy(&s->lock);
        return ret;
    }
    ret = open_header_child(bs, options, errp);
    if (ret == 0) {
        ret = open_image(bs, opts, errp);
    }
    if (ret < 0) {
        weir_filter_close(bs);
        qemu_mutex_destroy(&s->lock);
        return ret;
    }
    if (s->info.repaired) {
        weir_filter_set_state(bs, WEIR_STATE_DEGRADED, "one of the two copies "
                              "of the header is damaged; 'cryptsetup repair' "
                              "mends it");
    }
    return 0;
}

static void encryption_close(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    stop_ciphers(s);
    weir_filter_close(bs);
    qemu_mutex_destroy(&s->lock);
}

/*
 * The header is only read, and nobody may write to it or to the disk.  The
 * disk is ours as soon as somebody uses the node; before, it lies beside those
 * who may be about to move over.  While inactive, all is left to the other
 * side of a migration.
 */
static void GRAPH_RDLOCK
encryption_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                      BlockReopenQueue *queue, uint64_t perm, uint64_t shared,
                      uint64_t *nperm, uint64_t *nshared)
{
    bool is_disk = role & BDRV_CHILD_PRIMARY;

    *nperm = BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    if (bs->open_flags & BDRV_O_INACTIVE) {
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
    } else if (is_disk && QLIST_EMPTY(&bs->parents)) {
        *nshared = BLK_PERM_ALL;
    } else if (is_disk) {
        *nperm |= perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED |
                          BLK_PERM_RESIZE);
    }
}

/* Whoever reopens the node, for its flags, cannot change our options. */
static int encryption_reopen_prepare(BDRVReopenState *state,
                                     BlockReopenQueue *queue, Error **errp)
{
    return 0;
}

static void GRAPH_RDLOCK encryption_refresh_limits(BlockDriverState *bs,
                                                   Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (!s->info.sector_bytes) {
        return;                         /* still being opened */
    }
    bs->bl.request_alignment = MAX(s->info.sector_bytes,
                                   bs->bl.request_alignment);
    bs->bl.max_transfer = MIN_NON_ZERO(bs->bl.max_transfer,
                                       WEIR_BUFFERS_BYTES_MAX);
    bs->bl.pdiscard_alignment = s->info.sector_bytes;
    bs->supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED;
}

/* --- requests --- */

static void *coroutine_fn take_buffer(BDRVWeirEncryptionState *s,
                                      size_t bytes)
{
    void *buffer;

    QEMU_LOCK_GUARD(&s->lock);
    while (!(buffer = weir_buffers_take(s->buffers, bytes))) {
        qemu_co_queue_wait(&s->waiting, &s->lock);
    }
    return buffer;
}

/* Plaintext must not stay in it. */
static void coroutine_fn give_buffer(BDRVWeirEncryptionState *s, void *buffer,
                                     size_t plain_bytes)
{
    explicit_bzero(buffer, plain_bytes);
    QEMU_LOCK_GUARD(&s->lock);
    weir_buffers_give(s->buffers, buffer);
    /* all: they may wait for another size */
    qemu_co_queue_restart_all(&s->waiting);
}

static uint64_t xts_unit(BDRVWeirEncryptionState *s, int64_t offset)
{
    return s->info.tweak_units + offset / WEIR_XTS_UNIT_BYTES;
}

/*
 * Decrypted in the buffer and then copied: the guest must not see, or change,
 * what is half decrypted.
 */
static int coroutine_fn GRAPH_RDLOCK
encryption_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                          QEMUIOVector *qiov, size_t qiov_offset,
                          BdrvRequestFlags flags)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_READ);
    void *buffer = take_buffer(s, bytes);
    size_t plain_bytes = 0;
    int ret;

    ret = bdrv_co_pread(bs->file, s->info.data_offset_bytes + offset, bytes,
                        buffer, 0);
    if (ret >= 0) {
        plain_bytes = bytes;
        ret = weir_xts_decrypt(s->xts, xts_unit(s, offset), buffer, buffer,
                               bytes);
    }
    if (ret >= 0 && !(flags & BDRV_REQ_PREFETCH)) {
        qemu_iovec_from_buf(qiov, qiov_offset, buffer, bytes);
    }
    give_buffer(s, buffer, plain_bytes);
    return weir_filter_end(&s->filter, WEIR_IO_READ, bytes, begin_ns, ret);
}

/* The guest's memory is read once: it may change meanwhile. */
static int coroutine_fn GRAPH_RDLOCK
encryption_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                           int64_t bytes, QEMUIOVector *qiov,
                           size_t qiov_offset, BdrvRequestFlags flags)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_WRITE);
    size_t plain_bytes;
    void *buffer;
    int ret;

    if (offset + bytes > s->info.data_bytes) {
        return weir_filter_end(&s->filter, WEIR_IO_WRITE, bytes, begin_ns,
                               -ENOSPC);
    }
    buffer = take_buffer(s, bytes);
    qemu_iovec_to_buf(qiov, qiov_offset, buffer, bytes);
    ret = weir_xts_encrypt(s->xts, xts_unit(s, offset), buffer, buffer,
                           bytes);
    plain_bytes = ret < 0 ? bytes : 0;
    if (ret >= 0) {
        ret = bdrv_co_pwrite(bs->file, s->info.data_offset_bytes + offset,
                             bytes, buffer, flags);
    }
    give_buffer(s, buffer, plain_bytes);
    return weir_filter_end(&s->filter, WEIR_IO_WRITE, bytes, begin_ns, ret);
}

/* Comes only when the option discard allows it. */
static int coroutine_fn GRAPH_RDLOCK
encryption_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_DISCARD);
    int ret = bdrv_co_pdiscard(bs->file, s->info.data_offset_bytes + offset,
                               bytes);

    return weir_filter_end(&s->filter, WEIR_IO_DISCARD, bytes, begin_ns, ret);
}

static int64_t coroutine_fn GRAPH_RDLOCK
encryption_co_getlength(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t bytes = bdrv_co_getlength(bs->file->bs);

    if (bytes < 0) {
        return bytes;
    }
    bytes = MAX(0, bytes - (int64_t)s->info.data_offset_bytes);
    return s->info.sector_bytes
           ? QEMU_ALIGN_DOWN(MIN(bytes, s->info.data_bytes),
                             s->info.sector_bytes)
           : bytes;                     /* still being opened */
}

static int coroutine_fn GRAPH_RDLOCK
encryption_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                       PreallocMode prealloc, BdrvRequestFlags flags,
                       Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (s->info.data_bytes != UINT64_MAX) {
        error_setg(errp, "weir-encryption: The header says that the image has "
                   "%" PRIu64 " bytes; it cannot be resized",
                   s->info.data_bytes);
        return -ENOTSUP;
    }
    if (offset % s->info.sector_bytes) {
        error_setg(errp, "weir-encryption: The length must be a multiple of "
                   "the image's sectors of %u bytes", s->info.sector_bytes);
        return -EINVAL;
    }
    if (offset > INT64_MAX - (int64_t)s->info.data_offset_bytes) {
        error_setg(errp, "weir-encryption: The length is too large");
        return -EFBIG;
    }
    return bdrv_co_truncate(bs->file, s->info.data_offset_bytes + offset,
                            exact, prealloc, flags, errp);
}

/* --- figures --- */

static void encryption_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirEncryptionInfo *out = &node->u.weir_encryption;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    out->uuid = g_strdup(s->info.uuid);
    out->cipher = g_strdup("aes-xts-plain64");
    out->key_size = s->info.key_bytes;
    out->sector_size = s->info.sector_bytes;
    out->data_offset = s->info.data_offset_bytes;
    out->key_slot = s->key_slot;
    out->header = s->header ? g_strdup(bdrv_get_node_name(s->header->bs))
                            : NULL;
}

static WeirFilterDriver encryption_filter = {
    .format_name = "weir-encryption",
    .driver      = WEIR_DRIVER_WEIR_ENCRYPTION,
    .query       = encryption_query,
};

static const char *const encryption_strong_options[] = {
    "key-secret", "key-slot", NULL
};

/*
 * No .bdrv_co_pwrite_zeroes: zeroes have to be encrypted like other data, which
 * the block layer has us do.  No .bdrv_co_block_status: all of it is data, at
 * no place of the child's.  No .bdrv_co_copy_range_*: it would copy ciphertext.
 * No .bdrv_inactivate: nothing is held back.
 */
static BlockDriver bdrv_weir_encryption = {
    .format_name                = "weir-encryption",
    .instance_size              = sizeof(BDRVWeirEncryptionState),

    .bdrv_open                  = encryption_open,
    .bdrv_close                 = encryption_close,
    .bdrv_child_perm            = encryption_child_perm,
    .bdrv_set_perm              = weir_filter_set_perm,
    .bdrv_refresh_limits        = encryption_refresh_limits,
    .bdrv_reopen_prepare        = encryption_reopen_prepare,
    .strong_runtime_opts        = encryption_strong_options,

    .bdrv_co_getlength          = encryption_co_getlength,
    .bdrv_co_preadv_part        = encryption_co_preadv_part,
    .bdrv_co_pwritev_part       = encryption_co_pwritev_part,
    .bdrv_co_pdiscard           = encryption_co_pdiscard,
    .bdrv_co_flush              = weir_filter_co_flush,
    .bdrv_co_truncate           = encryption_co_truncate,
};

static void weir_encryption_init(void)
{
    weir_filter_register(&encryption_filter);
    bdrv_register(&bdrv_weir_encryption);
}

block_init(weir_encryption_init);

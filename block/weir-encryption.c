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
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "encryption/secret.h"
#include "encryption/vaes.h"
#include "weir-encryption.h"

#define WORKERS_DEFAULT 1
/* For as many threads at least; each has its own copy of the key. */
#define CIPHERS 8

/* All that are open. */
static QLIST_HEAD(, BDRVWeirEncryptionState) open_disks =
    QLIST_HEAD_INITIALIZER(open_disks);

static const char *const encryption_options[] = {
    "key-secret", "key-slot", "max-kdf-memory", "max-kdf-time", "pin-uuid",
    "check-length", "header-only", "vaes", "workers", "hotzone-size",
    "plain-size", NULL
};

/* --- options --- */

static bool options_are_good(const WeirEncryptionOptions *opts, Error **errp)
{
    if (opts->has_key_slot && opts->key_slot >= WEIR_HEADER_KEYSLOTS) {
        error_setg(errp, "weir-encryption: key-slot must be less than %d, "
                   "not %u", WEIR_HEADER_KEYSLOTS, opts->key_slot);
        return false;
    }
    if (opts->has_workers && (opts->workers < 1 ||
                              opts->workers > WEIR_ENCRYPTION_WORKERS_MAX)) {
        error_setg(errp, "weir-encryption: workers must be 1 to %d, not %u",
                   WEIR_ENCRYPTION_WORKERS_MAX, opts->workers);
        return false;
    }
    return !opts->has_hotzone_size ||
           weir_filter_check_hotzone(opts->hotzone_size, errp);
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

static bool encryption_check_options(QDict *options, Error **errp)
{
    g_autoptr(WeirEncryptionOptions) opts = encryption_parse(options, errp);

    return opts;
}

/* --- header and key --- */

static int check_uuid(BlockDriverState *bs, const WeirHeaderPlace *place,
                      const char *pin_uuid, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (pin_uuid && g_ascii_strcasecmp(pin_uuid, s->info.uuid)) {
        error_setg(errp, "weir-encryption: Node '%s' has the UUID %s, not %s "
                   "as pin-uuid says", place->name, s->info.uuid, pin_uuid);
        return -EINVAL;
    }
    return 0;
}

typedef struct Unlock {
    WeirHeader *header;
    int keyslot;
    WeirPassphrase passphrase;
    const WeirHeaderLimits *limits;
    void *key;
    char message[256];
} Unlock;

static int unlock_thread(void *opaque)
{
    Unlock *u = opaque;

    return weir_header_unlock(u->header, u->keyslot, u->passphrase.bytes,
                              u->passphrase.n_bytes, u->limits, u->key,
                              u->message, sizeof(u->message));
}

static int unlock(BDRVWeirEncryptionState *s, const WeirHeaderPlace *place,
                  WeirHeader *header, const WeirEncryptionOptions *opts,
                  void *key, Error **errp)
{
    Unlock u = {
        .header = header,
        .keyslot = opts->has_key_slot ? (int)opts->key_slot
                                      : WEIR_HEADER_ANY_KEYSLOT,
        .limits = &s->limits,
        .key = key,
    };
    int ret = weir_passphrase_get(&u.passphrase, opts->key_secret, errp);

    if (ret < 0) {
        return ret;
    }
    ret = weir_encryption_run(unlock_thread, &u);
    weir_passphrase_free(&u.passphrase);
    if (ret < 0) {
        error_setg(errp, "weir-encryption: Node '%s': %s", place->name,
                   u.message);
    }
    return ret;
}

/* --- life --- */

/* Make what requests need, with the volume key. */
static int start_ciphers(BDRVWeirEncryptionState *s,
                         const WeirEncryptionOptions *opts, const void *key,
                         Error **errp)
{
    int ret;

    ret = weir_xts_new(&s->xts, key, s->info.key_bytes, s->info.sector_bytes,
                       MAX(CIPHERS, s->workers));
    if (ret == 0) {
        ret = weir_key_id_new(&s->key_id, key, s->info.key_bytes);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot set up the "
                         "cipher in locked memory (see RLIMIT_MEMLOCK)");
        return ret;
    }
    s->vaes_bits = weir_xts_set_vaes(s->xts, s->vaes_bits_max);
    return 0;
}

static int start_buffers(BDRVWeirEncryptionState *s, Error **errp)
{
    int ret = weir_buffers_new(&s->buffers);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: No memory for buffers");
    }
    return ret;
}

static int unlock_and_start(BlockDriverState *bs, const WeirHeaderPlace *place,
                            WeirHeader *header,
                            const WeirEncryptionOptions *opts, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    size_t key_bytes = s->info.key_bytes;
    void *key;
    int ret = weir_secret_new(&key, key_bytes);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: No locked memory for "
                         "the volume key (see RLIMIT_MEMLOCK)");
        return ret;
    }
    ret = unlock(s, place, header, opts, key, errp);
    if (ret >= 0) {
        s->key_slot = ret;
        ret = start_ciphers(s, opts, key, errp);
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

/* What there is of it. */
static void stop_ciphers(BDRVWeirEncryptionState *s)
{
    weir_conversion_close(s->conversion);
    weir_buffers_free(s->buffers);
    weir_key_id_free(s->key_id);
    weir_xts_free(s->xts);
}

static bool has_same_key(BDRVWeirEncryptionState *s,
                         BDRVWeirEncryptionState *other)
{
    return other != s && s->key_id && other->key_id &&
           weir_key_id_equal(s->key_id, other->key_id);
}

/* Most often, one disk is a copy of the other. */
static void warn_of_same_key(BDRVWeirEncryptionState *s)
{
    BDRVWeirEncryptionState *other;

    QLIST_FOREACH(other, &open_disks, next) {
        if (has_same_key(s, other)) {
            warn_report("weir-encryption: nodes '%s' and '%s' have the same "
                        "volume key: who can read one can read both",
                        bdrv_get_node_name(other->bs),
                        bdrv_get_node_name(s->bs));
        }
    }
}

static void note_options(BDRVWeirEncryptionState *s,
                         const WeirEncryptionOptions *opts)
{
    s->key_secret = g_strdup(opts->key_secret);
    s->check_length = !opts->has_check_length || opts->check_length;
    s->header_only = opts->header_only;
    s->workers = opts->has_workers ? opts->workers : WORKERS_DEFAULT;
    s->vaes_bits_max = !opts->has_vaes || opts->vaes ? WEIR_VAES_BITS_MAX : 0;
    s->hotzone_bytes = opts->has_hotzone_size ? opts->hotzone_size
                                              : WEIR_HOTZONE_BYTES_DEFAULT;
    s->limits = (WeirHeaderLimits) {
        .memory_bytes = opts->has_max_kdf_memory ? opts->max_kdf_memory
                                                 : WEIR_KDF_MEMORY_DEFAULT,
        .time_s = opts->has_max_kdf_time ? opts->max_kdf_time
                                         : WEIR_KDF_TIME_S_DEFAULT,
    };
}

/* Without a key only the header is looked at, as qemu-img info does. */
static int unlock_or_go_on(BlockDriverState *bs, const WeirHeaderPlace *place,
                           WeirHeader *header,
                           const WeirEncryptionOptions *opts, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret;

    if (!opts->key_secret || s->header_only) {
        return 0;
    }
    ret = s->check_length ? weir_encryption_check_length(bs, errp) : 0;
    if (ret < 0) {
        return ret;
    }
    return s->info.has_job
           ? weir_encryption_go_on_converting(bs, place, header, errp)
           : unlock_and_start(bs, place, header, opts, errp);
}

static int open_with_header(BlockDriverState *bs, const WeirHeaderPlace *place,
                            WeirHeader *header,
                            const WeirEncryptionOptions *opts, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret;

    s->info = *weir_header_info(header);
    ret = check_uuid(bs, place, opts->pin_uuid, errp);
    if (ret == 0) {
        ret = start_buffers(s, errp);
    }
    if (ret == 0) {
        ret = unlock_or_go_on(bs, place, header, opts, errp);
    }
    if (ret == 0) {
        ret = check_data_offset(bs, errp);
    }
    if (ret == 0 && bs->open_flags & BDRV_O_INACTIVE) {
        ret = weir_encryption_note_first_copy(bs, errp);
    }
    if (ret < 0) {
        stop_ciphers(s);
        return ret;
    }
    weir_header_note(bs, header);
    return 0;
}

/* At the beginning, or where it was staged. */
static int find_header(BlockDriverState *bs, WeirHeaderPlace *place,
                       WeirHeader **header, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    Error *err = NULL;
    int ret;

    weir_header_place_of_node(place, bs);
    ret = weir_header_from_disk(place, header, &err);
    if (ret == -EINVAL && !s->header &&
        weir_header_is_staged(bs, &s->staged_offset)) {
        error_free(err);
        err = NULL;
        weir_header_place_of_node(place, bs);
        ret = weir_header_from_disk(place, header, &err);
    } else {
        s->staged_offset = 0;
    }
    error_propagate(errp, err);
    return ret;
}

static int open_image(BlockDriverState *bs, const WeirEncryptionOptions *opts,
                      Error **errp)
{
    WeirHeaderPlace place;
    WeirHeader *header;
    int ret = find_header(bs, &place, &header, errp);

    if (ret == 0) {
        ret = open_with_header(bs, &place, header, opts, errp);
    }
    weir_header_drop(header);
    return ret;
}

#define PLAIN_SECTOR_BYTES 512

/* A disk that is going to have a header. */
static int open_plain(BlockDriverState *bs, const WeirEncryptionOptions *opts,
                      Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirHeaderPlace place;
    WeirHeader *header;

    if (s->header || opts->plain_size % PLAIN_SECTOR_BYTES ||
        opts->plain_size > INT64_MAX) {
        error_setg(errp, "weir-encryption: plain-size is a multiple of %d, and "
                   "not for a disk with a header", PLAIN_SECTOR_BYTES);
        return -EINVAL;
    }
    if (find_header(bs, &place, &header, NULL) == 0 || s->staged_offset) {
        weir_header_drop(header);
        error_setg(errp, "weir-encryption: Node '%s' has a LUKS2 header "
                   "already", place.name);
        return -EEXIST;
    }
    s->is_plain = true;
    s->info.sector_bytes = PLAIN_SECTOR_BYTES;
    s->info.data_bytes = opts->plain_size;
    return start_buffers(s, errp);
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
    if (!opts->key_secret && !opts->header_only && !(flags & BDRV_O_NO_IO)) {
        error_setg(errp, "weir-encryption: Parameter 'key-secret' is missing");
        return -EINVAL;
    }
    qemu_mutex_init(&s->lock);
    qemu_co_queue_init(&s->waiting);
    qemu_co_mutex_init(&s->resize_lock);
    ret = weir_filter_open(bs, options, errp);
    if (ret < 0) {
        qemu_mutex_destroy(&s->lock);
        return ret;
    }
    note_options(s, opts);
    ret = open_header_child(bs, options, errp);
    if (ret == 0) {
        ret = opts->has_plain_size ? open_plain(bs, opts, errp)
                                   : open_image(bs, opts, errp);
    }
    if (ret < 0) {
        g_free(s->key_secret);
        weir_filter_close(bs);
        qemu_mutex_destroy(&s->lock);
        return ret;
    }
    bs->encrypted = !s->is_plain;
    s->bs = bs;
    warn_of_same_key(s);
    QLIST_INSERT_HEAD(&open_disks, s, next);
    return 0;
}

static void encryption_close(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    QLIST_REMOVE(s, next);
    qemu_vfree(s->first_copy);
    stop_ciphers(s);
    g_free(s->key_secret);
    weir_filter_close(bs);
    qemu_mutex_destroy(&s->lock);
}

/* Only for as long as the header is changed do we write without a user. */
static uint64_t header_perm(BDRVWeirEncryptionState *s, BdrvChildRole role)
{
    bool has_header = !s->header || !(role & BDRV_CHILD_PRIMARY);

    return s->header_changes && has_header
           ? BLK_PERM_WRITE | (s->resizes ? BLK_PERM_RESIZE : 0) : 0;
}

/* Who may resize the disk changes a header that is bound to its length. */
static uint64_t GRAPH_RDLOCK resize_perm(BDRVWeirEncryptionState *s,
                                         uint64_t perm, bool is_disk)
{
    return !is_disk && perm & BLK_PERM_RESIZE && s->keeps_length &&
           !bdrv_is_read_only(s->header->bs) ? BLK_PERM_WRITE : 0;
}

/* Whether somebody uses the node, or a job works on its disk. */
static bool GRAPH_RDLOCK is_in_use(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    return !QLIST_EMPTY(&bs->parents) || s->begins ||
           (s->conversion && s->conversion->taken);
}

/* A disk that is converted changes its header, when it is in use. */
static uint64_t GRAPH_RDLOCK conversion_perm(BlockDriverState *bs,
                                             bool is_disk)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    return s->writes_header && (!is_disk || is_in_use(bs)) ? BLK_PERM_WRITE
                                                           : 0;
}

/*
 * Nobody else may write to the header or to the disk.  The disk is ours as
 * soon as somebody uses the node; before, it lies beside those who may be
 * about to move over.  While inactive, all is left to the other side of a
 * migration.
 */
static void GRAPH_RDLOCK
encryption_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                      BlockReopenQueue *queue, uint64_t perm, uint64_t shared,
                      uint64_t *nperm, uint64_t *nshared)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    bool is_disk = role & BDRV_CHILD_PRIMARY;

    *nperm = BLK_PERM_CONSISTENT_READ | header_perm(s, role) |
             conversion_perm(bs, is_disk) | resize_perm(s, perm, is_disk);
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    if (bs->open_flags & BDRV_O_INACTIVE) {
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
    } else if (is_disk && !is_in_use(bs)) {
        *nshared = header_perm(s, role) ? *nshared : BLK_PERM_ALL;
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
    bs->bl.request_alignment = MAX(s->conversion
                                   ? s->conversion->info.block_bytes
                                   : s->info.sector_bytes,
                                   bs->bl.request_alignment);
    bs->bl.pdiscard_alignment = s->info.sector_bytes;
    bs->supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED;
}

/* --- length --- */

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

    if (s->conversion || s->writes_header) {
        error_setg(errp, "weir-encryption: A disk that is, or was just, "
                   "converted in place cannot be resized");
        return -ENOTSUP;
    }
    if (s->header_only) {
        error_setg(errp, "weir-encryption: The node is opened for its header "
                   "only");
        return -EACCES;
    }
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
    return weir_encryption_co_resize(bs, offset, exact, prealloc, flags, errp);
}

/* --- figures --- */

static void encryption_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirEncryptionInfo *out = &node->u.weir_encryption;
    BDRVWeirEncryptionState *other;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    out->uuid = g_strdup(s->info.uuid);
    out->cipher = g_strdup("aes-xts-plain64");
    out->key_size = s->info.key_bytes;
    out->sector_size = s->info.sector_bytes;
    out->data_offset = s->info.data_offset_bytes;
    out->key_slot = s->key_slot;
    out->key_slots = weir_keyslots_to_qapi(s);
    out->header = s->header ? g_strdup(bdrv_get_node_name(s->header->bs))
                            : NULL;
    out->has_bound_length = s->info.is_bound;
    out->bound_length = qatomic_read(&s->bound_min_bytes);
    out->job = s->conversion ? weir_conversion_query(s->conversion) : NULL;
    out->workers = s->workers;
    out->vaes_bits = s->vaes_bits;
    QLIST_FOREACH(other, &open_disks, next) {
        if (has_same_key(s, other)) {
            QAPI_LIST_PREPEND(out->same_key,
                              g_strdup(bdrv_get_node_name(other->bs)));
        }
    }
}

static ImageInfoSpecific * GRAPH_RDLOCK
encryption_get_specific_info(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirEncryptionImageInfo *out = g_new0(WeirEncryptionImageInfo, 1);
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);

    out->uuid = g_strdup(s->info.uuid);
    out->cipher = g_strdup("aes-xts-plain64");
    out->key_bits = s->info.key_bytes * 8;
    out->sector_size = s->info.sector_bytes;
    out->data_offset = s->info.data_offset_bytes;
    out->header_size = s->info.header_bytes;
    out->detached = s->header;
    out->damaged = s->info.repaired;
    out->has_bound_length = s->info.is_bound;
    out->bound_length = qatomic_read(&s->bound_min_bytes);
    out->key_slots = weir_keyslots_to_qapi(s);
    info->type = IMAGE_INFO_SPECIFIC_KIND_WEIR_ENCRYPTION;
    info->u.weir_encryption.data = out;
    return info;
}

static WeirFilterDriver encryption_filter = {
    .format_name     = "weir-encryption",
    .driver          = WEIR_DRIVER_WEIR_ENCRYPTION,
    .capabilities    = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_ENCRYPTION,
        .changes_data = true,
        .holds_data   = false,
    },
    .check_options   = encryption_check_options,
    .query           = encryption_query,
    .change_header   = weir_encryption_change_header,
    .job             = &weir_encryption_job,
    .prepare_detach  = weir_encryption_prepare_detach,
    .begin_handover  = weir_encryption_begin_handover,
    .cancel_handover = weir_encryption_cancel_handover,
};

/*
 * The block layer would give the memory of the machine to the node below, as it
 * is: in plain text.
 */
static int coroutine_fn GRAPH_RDLOCK
encryption_co_save_vmstate(BlockDriverState *bs, QEMUIOVector *qiov,
                           int64_t pos)
{
    return -ENOTSUP;
}

static const char *const encryption_strong_options[] = {
    "key-secret", "key-slot", NULL
};

/*
 * No .bdrv_co_pwrite_zeroes: zeroes have to be encrypted like other data, which
 * the block layer has us do.  No .bdrv_co_block_status: all of it is data, at
 * no place of the child's.  No .bdrv_co_copy_range_*: it would copy ciphertext.
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
    .bdrv_get_specific_info     = encryption_get_specific_info,
    .strong_runtime_opts        = encryption_strong_options,

    .bdrv_co_create             = weir_encryption_co_create,
    .bdrv_co_create_opts        = weir_encryption_co_create_opts,
    .create_opts                = &weir_encryption_create_opts,
    .bdrv_measure               = weir_encryption_measure,
    .bdrv_amend_options         = weir_encryption_amend_options,
    .amend_opts                 = &weir_encryption_amend_opts,

    .bdrv_inactivate            = weir_encryption_inactivate,
    .bdrv_co_invalidate_cache   = weir_encryption_co_invalidate_cache,
    .bdrv_drain_begin           = weir_encryption_drain_begin,
    .bdrv_drain_end             = weir_encryption_drain_end,

    .bdrv_co_getlength          = encryption_co_getlength,
    .bdrv_co_preadv_part        = weir_encryption_co_preadv_part,
    .bdrv_co_pwritev_part       = weir_encryption_co_pwritev_part,
    .bdrv_co_pdiscard           = weir_encryption_co_pdiscard,
    .bdrv_co_flush              = weir_filter_co_flush,
    .bdrv_co_truncate           = encryption_co_truncate,
    .bdrv_co_save_vmstate       = encryption_co_save_vmstate,
};

static void weir_encryption_init(void)
{
    weir_filter_register(&encryption_filter);
    bdrv_register(&bdrv_weir_encryption);
}

block_init(weir_encryption_init);

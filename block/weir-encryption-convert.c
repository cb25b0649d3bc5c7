/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-encryption and the jobs of block/encryption-job.c: how a node begins to
 * convert its disk in place, goes on with it when it is opened, and hands it
 * over in a migration.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "system/block-backend.h"
#include "encryption/secret.h"
#include "weir-encryption.h"

/* --- what has begun --- */

static int take_passphrase(GArray *passphrases, const char *id, Error **errp)
{
    WeirPassphrase passphrase;
    WeirHeaderPassphrase taken;
    int ret = weir_passphrase_get(&passphrase, id, errp);

    if (ret == 0) {
        taken = (WeirHeaderPassphrase) {
            passphrase.bytes, passphrase.n_bytes,
        };
        g_array_append_val(passphrases, taken);
    }
    return ret;
}

static int take_passphrases(GArray *passphrases, const char *key_secret,
                            const strList *others, Error **errp)
{
    int ret = take_passphrase(passphrases, key_secret, errp);

    for (; others && ret == 0; others = others->next) {
        ret = take_passphrase(passphrases, others->value, errp);
    }
    return ret;
}

static void drop_passphrases(GArray *passphrases)
{
    for (unsigned i = 0; i < passphrases->len; i++) {
        WeirHeaderPassphrase *p = &g_array_index(passphrases,
                                                 WeirHeaderPassphrase, i);
        WeirPassphrase passphrase = { (void *)p->bytes, p->n_bytes };

        weir_passphrase_free(&passphrase);
    }
    g_array_unref(passphrases);
}

/*
 * Look up the passphrases, and have a thread work with them.  @others: IDs of
 * those that are to stay, but the first.
 */
static int conversion_call(const char *name, WeirConversionCall *call,
                           const char *key_secret, const strList *others,
                           Error **errp)
{
    GArray *passphrases = g_array_new(false, false,
                                      sizeof(WeirHeaderPassphrase));
    int ret = take_passphrases(passphrases, key_secret, others, errp);

    if (ret < 0) {
        drop_passphrases(passphrases);
        return ret;
    }
    call->how.passphrases = (WeirHeaderPassphrase *)passphrases->data;
    call->how.n_passphrases = passphrases->len;
    ret = weir_encryption_run(weir_conversion_call, call);
    drop_passphrases(passphrases);
    if (ret < 0) {
        error_setg(errp, "weir-encryption: Node '%s': %s", name,
                   call->message);
    }
    return ret;
}

/* What a job that begins has a thread do; the caller adds the header. */
static int job_call(WeirConversionCall *call, const WeirFilterJobStart *start,
                    int64_t disk_bytes, const WeirHeaderLimits *limits,
                    uint8_t *keys, Error **errp)
{
    *call = (WeirConversionCall) {
        .begin = true,
        .how = {
            .mode = (WeirJobMode)start->mode,
            .disk_bytes = MAX(0, disk_bytes),
            .drop_keyslots = start->drop_keyslots,
            .limits = *limits,
        },
        .keys = keys,
    };
    return start->kdf ? weir_kdf_from_options(&call->how.kdf, start->kdf, errp)
                      : 0;
}

/* The header as it is on disk, where one of its copies may be an older one. */
static int conversion_open(BlockDriverState *bs, const uint8_t *keys,
                           WeirConversion **conversion, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirHeaderPlace place;
    uint8_t *bytes;
    int ret;

    weir_header_place_of_node(&place, bs);
    ret = weir_header_bytes_from_disk(&place, s->info.header_bytes, &bytes,
                                      errp);
    if (ret == 0) {
        ret = weir_conversion_open(conversion, bs, bytes,
                                   s->info.header_bytes, keys, errp);
        qemu_vfree(bytes);
    }
    return ret;
}

static int new_keys(void **keys, Error **errp)
{
    int ret = weir_secret_new(keys, WEIR_CONVERSION_KEYS_BYTES);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: No locked memory for "
                         "the volume keys (see RLIMIT_MEMLOCK)");
    }
    return ret;
}

int weir_encryption_go_on_converting(BlockDriverState *bs,
                                     const WeirHeaderPlace *place,
                                     WeirHeader *header, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirConversionCall call = {
        .header = header, .how.limits = s->limits,
    };
    void *keys;
    int ret = new_keys(&keys, errp);

    if (ret < 0) {
        return ret;
    }
    call.keys = keys;
    ret = conversion_call(place->name, &call, s->key_secret, NULL, errp);
    if (ret >= 0) {
        s->key_slot = ret;
        s->info = *weir_header_info(header);
        ret = conversion_open(bs, keys, &s->conversion, errp);
    }
    if (ret == 0) {
        s->vaes_bits = s->conversion->info.vaes_bits;
    }
    weir_secret_free(keys, WEIR_CONVERSION_KEYS_BYTES);
    if (ret == 0) {
        s->writes_header = !s->conversion->read_only;
        ret = weir_header_refresh_perms(bs, errp);
    }
    return ret;
}

/* --- migration --- */

#define FIRST_COPY_BYTES 4096

/* With the number of the header, which changes with all of it. */
int weir_encryption_note_first_copy(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirHeaderPlace place;

    weir_header_place_of_node(&place, bs);
    s->was_inactive = true;
    return weir_header_bytes_from_disk(&place, FIRST_COPY_BYTES,
                                       &s->first_copy, errp);
}

/*
 * The other side works with the disk now.  If the header cannot be read, it is
 * found out when the node is to be active again.
 */
int weir_encryption_inactivate(BlockDriverState *bs)
{
    Error *err = NULL;

    if (weir_encryption_note_first_copy(bs, &err) < 0) {
        warn_report_err(err);
    }
    return 0;
}

/* No change of the header from here on: the other side has looked at it. */
void weir_encryption_begin_handover(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    qatomic_set(&s->handing_over, true);
}

void weir_encryption_cancel_handover(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    qatomic_set(&s->handing_over, false);
}

/* It was opened for a migration, and is to work now. */
void coroutine_fn GRAPH_RDLOCK
weir_encryption_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    uint8_t *now;
    int ret;

    qatomic_set(&s->handing_over, false);
    if (!s->was_inactive) {
        return;
    }
    if (!s->first_copy) {
        error_setg(errp, "weir-encryption: The header of node '%s' could not "
                   "be read when it became inactive; open it anew",
                   bdrv_get_node_name(bs));
        return;
    }
    now = qemu_blockalign(bs, FIRST_COPY_BYTES);
    ret = bdrv_co_pread(weir_header_child(bs), 0, FIRST_COPY_BYTES, now, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot read the header "
                         "of node '%s'", bdrv_get_node_name(bs));
    } else if (memcmp(now, s->first_copy, FIRST_COPY_BYTES)) {
        error_setg(errp, "weir-encryption: The header of node '%s' has changed "
                   "since it was opened; open it anew",
                   bdrv_get_node_name(bs));
    } else {
        qemu_vfree(s->first_copy);
        s->first_copy = NULL;
        s->was_inactive = false;
    }
    qemu_vfree(now);
}

/* --- jobs --- */

void weir_encryption_drain_begin(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (s->conversion) {
        qatomic_set(&s->conversion->drained, true);
    }
}

void weir_encryption_drain_end(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (s->conversion) {
        qatomic_set(&s->conversion->drained, false);
    }
}

/* Whether what is flushed may be lost. */
static bool is_unsafe(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return weir_filter_is_unsafe(bs);
}

static int refresh_disk_perms(BlockDriverState *bs, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bdrv_child_refresh_perms(bs, bs->file, errp);
}

/* The disk is written to from now on, also if nobody uses the node. */
static int set_taken(BlockDriverState *bs, bool taken, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    s->conversion->taken = taken;
    return refresh_disk_perms(bs, errp);
}

static int job_take(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    const char *why = NULL;
    int ret;

    if (!s->conversion || weir_conversion_is_finished(s->conversion)) {
        why = "it is not being converted";
    } else if (s->conversion->taken) {
        why = "it has a job";
    } else if (s->conversion->read_only) {
        why = "it is read-only, or not active";
    } else if (is_unsafe(bs)) {
        why = "it, or a disk below, is opened with cache.no-flush";
    }
    s->begins = false;                  /* that was for until now */
    if (why) {
        error_setg(errp, "weir-encryption: Node '%s': %s",
                   bdrv_get_node_name(bs), why);
        return -EINVAL;
    }
    ret = set_taken(bs, true, errp);
    if (ret < 0) {
        s->conversion->taken = false;
    }
    return ret;
}

/* @bytes: of the disk below.  The permission to write has been taken. */
static int resize_disk(BlockDriverState *bs, int64_t bytes, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret;

    s->resizes = true;
    ret = weir_header_refresh_perms(bs, errp);
    if (ret == 0) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        ret = bdrv_truncate(bs->file, bytes, false, PREALLOC_MODE_OFF, 0,
                            errp);
    }
    s->resizes = false;
    weir_header_refresh_perms(bs, NULL);
    return ret;
}

/* What is behind the data is no use; where it cannot be cut, it stays. */
static void cut_disk(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (bs->open_flags & BDRV_O_INACTIVE) {
        return;
    }
    s->header_changes = true;
    if (weir_header_refresh_perms(bs, NULL) == 0) {
        resize_disk(bs, s->info.data_offset_bytes + s->info.data_bytes, NULL);
    }
    s->header_changes = false;
    weir_header_refresh_perms(bs, NULL);
}

/* Those of the old key have gone; those of a disk that is plain are no use. */
static void note_keyslots(BlockDriverState *bs)
{
    WeirHeaderPlace place;
    WeirHeader *header;

    weir_header_place_of_node(&place, bs);
    if (weir_header_from_disk(&place, &header, NULL) == 0) {
        weir_header_note(bs, header);
    }
    weir_header_drop(header);
}

static void job_give(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    Error *err = NULL;

    if (s->conversion->info.mode != WEIR_JOB_DECRYPT &&
        weir_conversion_is_finished(s->conversion)) {
        note_keyslots(bs);
    }
    weir_reencrypt_rest(s->conversion->engine);
    if (s->conversion->info.moves &&
        weir_conversion_is_finished(s->conversion)) {
        cut_disk(bs);
    }
    if (set_taken(bs, false, &err) < 0) {
        warn_report_err(err);
    }
}

static int coroutine_fn job_step(BlockDriverState *bs, uint32_t bytes)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    return weir_conversion_step(s->conversion, bytes);
}

static bool job_progress(BlockDriverState *bs, uint64_t *done, uint64_t *total)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    return weir_conversion_progress(s->conversion, done, total);
}

#define BLANK_BYTES (64 * KiB)

/* Nothing of value may be where the header goes. */
static int check_blank(BlockBackend *blk, Error **errp)
{
    g_autofree uint8_t *bytes = g_malloc(BLANK_BYTES);
    int64_t n = MIN(BLANK_BYTES, blk_getlength(blk));
    int ret = n < 0 ? n : blk_pread(blk, 0, n, bytes, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot read node '%s'",
                         bdrv_get_node_name(blk_bs(blk)));
        return ret;
    }
    if (n > 0 && !buffer_is_zero(bytes, n)) {
        error_setg(errp, "weir-encryption: Node '%s' is not blank: the header "
                   "would overwrite what it has",
                   bdrv_get_node_name(blk_bs(blk)));
        return -EEXIST;
    }
    return 0;
}

static int make_header_on(BlockBackend *blk, int64_t disk_bytes,
                          const WeirFilterJobStart *start, Error **errp)
{
    const WeirHeaderFormat format = {
        .disk_bytes = MAX(0, blk_getlength(blk)),
        .detached = true,
        .key_bytes = WEIR_CONVERSION_KEY_BYTES,
        .sector_bytes = start->sector_bytes,
    };
    const WeirHeaderLimits limits = {
        WEIR_KDF_MEMORY_DEFAULT, WEIR_KDF_TIME_S_DEFAULT,
    };
    WeirConversionCall call;
    WeirHeaderPlace place;
    int ret = job_call(&call, start, disk_bytes, &limits, NULL, errp);

    call.create = &format;
    call.how.detached = true;
    if (ret == 0) {
        ret = check_blank(blk, errp);
    }
    if (ret < 0) {
        return ret;
    }
    weir_header_place_of_blk(&place, blk);
    ret = conversion_call(place.name, &call, start->key_secret, NULL, errp);
    if (ret == 0) {
        ret = weir_header_to_disk(&place, call.header, errp);
    }
    weir_header_drop(call.header);
    return ret;
}

static int job_make_header(BlockDriverState *header, int64_t disk_bytes,
                           const WeirFilterJobStart *start, Error **errp)
{
    BlockBackend *blk = blk_new(bdrv_get_aio_context(header),
        BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_CONSISTENT_READ);
    int ret = blk_insert_bs(blk, header, errp);

    if (ret == 0) {
        ret = make_header_on(blk, disk_bytes, start, errp);
    }
    blk_unref(blk);
    return ret;
}

static bool may_begin(BlockDriverState *bs, const WeirFilterJobStart *start,
                      Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    const char *why = NULL;

    if (start->mode == WEIR_ENCRYPTION_JOB_MODE_ENCRYPT && !s->is_plain) {
        why = "it is no plain disk";
    } else if (start->mode != WEIR_ENCRYPTION_JOB_MODE_ENCRYPT &&
               s->is_plain) {
        why = "it is not encrypted";
    } else if (s->conversion && !weir_conversion_is_finished(s->conversion)) {
        why = "it is being converted already";
    } else if (s->conversion) {
        why = "it was just converted; open it anew first";
    } else if (bdrv_is_read_only(bs) || bs->open_flags & BDRV_O_INACTIVE) {
        why = "it is read-only, or not active";
    } else if (s->header_only) {
        why = "it is opened for its header only";
    } else if (is_unsafe(bs)) {
        why = "it, or a disk below, is opened with cache.no-flush";
    }
    if (why) {
        error_setg(errp, "weir-encryption: Node '%s': %s",
                   bdrv_get_node_name(bs), why);
    }
    return !why;
}

static int64_t data_disk_bytes(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bdrv_getlength(bs->file->bs);
}

/*
 * The header says that the job has begun, with nothing done: that is as true
 * while the node still works without it.
 */
static int begin_header(BlockDriverState *bs, const WeirFilterJobStart *start,
                        uint8_t *keys, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirConversionCall call;
    WeirHeaderPlace place;
    int ret = job_call(&call, start, data_disk_bytes(bs), &s->limits, keys,
                       errp);

    if (ret < 0) {
        return ret;
    }
    call.how.detached = s->header;
    weir_header_place_of_node(&place, bs);
    ret = weir_header_from_disk(&place, &call.header, errp);
    if (ret < 0) {
        return ret;
    }
    ret = conversion_call(place.name, &call, start->key_secret,
                          start->keyslots, errp);
    if (ret >= 0) {
        s->key_slot = ret;
        ret = weir_header_to_disk(&place, call.header, errp);
    }
    if (ret == 0) {
        weir_header_note(bs, call.header);
    }
    weir_header_drop(call.header);
    return ret;
}

/* --- a header for which the data moves --- */

#define SHIFT_BYTES WEIR_HEADER_BYTES_USUAL

static int make_moving_header(BlockDriverState *bs,
                              const WeirFilterJobStart *start, uint8_t *keys,
                              WeirHeader **header, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    const WeirHeaderFormat format = {
        .disk_bytes = s->info.data_bytes + 2 * SHIFT_BYTES,
        .key_bytes = WEIR_CONVERSION_KEY_BYTES,
        .sector_bytes = start->sector_bytes,
    };
    WeirConversionCall call;
    int ret = job_call(&call, start, format.disk_bytes, &s->limits, keys,
                       errp);

    call.create = &format;
    call.how.moves = true;
    if (ret == 0) {
        ret = conversion_call(bdrv_get_node_name(bs), &call,
                              start->key_secret, NULL, errp);
    }
    s->key_slot = MAX(0, ret);
    *header = call.header;
    return ret < 0 ? ret : 0;
}

/* A block device is as long as somebody has made it. */
static int grow_disk(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t wanted = s->info.data_bytes + 2 * SHIFT_BYTES, bytes;
    ERRP_GUARD();
    int ret = resize_disk(bs, wanted, errp);

    if (ret < 0) {
        error_prepend(errp, "weir-encryption: The disk must become longer by "
                      "%d MiB: ", (int)(2 * SHIFT_BYTES / MiB));
        return ret;
    }
    bytes = data_disk_bytes(bs);
    if (bytes != wanted) {
        error_setg(errp, "weir-encryption: The disk must become longer by %d "
                   "MiB, and have %" PRId64 " bytes; it has %" PRId64,
                   (int)(2 * SHIFT_BYTES / MiB), wanted, bytes);
        return -EINVAL;
    }
    return 0;
}

/* Behind the data, where it does not count yet. */
static int stage_header(BlockDriverState *bs, WeirHeader *header, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    g_autofree uint8_t *bytes = g_malloc(SHIFT_BYTES);
    int ret = weir_header_read(header, bytes);

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (ret == 0) {
        ret = bdrv_pwrite(bs->file, s->info.data_bytes, SHIFT_BYTES, bytes, 0);
    }
    if (ret >= 0) {
        ret = bdrv_flush(bs->file->bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot write the header "
                         "behind the data");
    }
    return ret < 0 ? ret : 0;
}

/* Sectors can have become larger. */
static void refresh_limits(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    bdrv_refresh_limits(bs, NULL, &error_abort);
}

/* The node works as before, or as it does with a header that was staged. */
static int begin_staged(BlockDriverState *bs, WeirHeader *header,
                        const uint8_t *keys, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    const WeirHeaderInfo before = s->info;
    int ret;

    bdrv_drained_begin(bs);
    s->staged_offset = s->info.data_bytes;
    s->info = *weir_header_info(header);
    ret = conversion_open(bs, keys, &s->conversion, errp);
    s->is_plain = ret < 0;
    if (ret < 0) {
        s->info = before;
        s->staged_offset = 0;
    } else {
        s->vaes_bits = s->conversion->info.vaes_bits;
        bs->encrypted = true;
        refresh_limits(bs);
        weir_header_note(bs, header);
    }
    bdrv_drained_end(bs);
    return ret;
}

static int begin_moving(BlockDriverState *bs, const WeirFilterJobStart *start,
                        uint8_t *keys, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t bytes_before = s->info.data_bytes;
    WeirHeader *header = NULL;
    int ret = make_moving_header(bs, start, keys, &header, errp);

    if (ret == 0) {
        ret = grow_disk(bs, errp);
        if (ret == 0) {
            ret = stage_header(bs, header, errp);
        }
        if (ret == 0) {
            ret = begin_staged(bs, header, keys, errp);
        }
        if (ret < 0) {
            resize_disk(bs, bytes_before, NULL);
        }
    }
    weir_header_drop(header);
    return ret;
}

/* No request is under way while the node turns to another way of working. */
static int begin_conversion(BlockDriverState *bs, const uint8_t *keys,
                            Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    WeirConversion *conversion;
    int ret;

    bdrv_drained_begin(bs);
    ret = conversion_open(bs, keys, &conversion, errp);
    if (ret == 0) {
        s->conversion = conversion;
        s->vaes_bits = conversion->info.vaes_bits;
        weir_key_id_free(s->key_id);    /* there are two now */
        s->key_id = NULL;
    }
    bdrv_drained_end(bs);
    return ret;
}

/* --- jobs begin --- */

static int begin_converting(BlockDriverState *bs,
                            const WeirFilterJobStart *start, uint8_t *keys,
                            Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret;

    if (s->is_plain) {
        return begin_moving(bs, start, keys, errp);
    }
    ret = begin_header(bs, start, keys, errp);
    return ret == 0 ? begin_conversion(bs, keys, errp) : ret;
}

/*
 * Whether the job may write to the disk is known before the header says that it
 * has begun; and then it may until it takes the disk.
 */
static int begin_permitted(BlockDriverState *bs,
                           const WeirFilterJobStart *start, uint8_t *keys,
                           Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret;

    s->writes_header = s->begins = true;
    ret = refresh_disk_perms(bs, errp);
    if (ret == 0) {
        ret = begin_converting(bs, start, keys, errp);
    }
    s->writes_header = s->begins = ret == 0;
    if (ret < 0) {
        refresh_disk_perms(bs, NULL);
    }
    return ret;
}

static int job_begin(BlockDriverState *bs, const WeirFilterJobStart *start,
                     Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    void *keys;
    int ret;

    if (!may_begin(bs, start, errp)) {
        return -EINVAL;
    }
    ret = new_keys(&keys, errp);
    if (ret < 0) {
        return ret;
    }
    s->hotzone_bytes = start->hotzone_bytes;
    ret = weir_header_change_begin(bs, errp);
    if (ret == 0) {
        ret = begin_permitted(bs, start, keys, errp);
        weir_header_change_end(bs);
    }
    weir_secret_free(keys, WEIR_CONVERSION_KEYS_BYTES);
    return ret;
}

/* Who uses the disk below must not see what is half converted. */
int weir_encryption_prepare_detach(BlockDriverState *bs, bool force,
                                   Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (!s->conversion || force ||
        (weir_conversion_is_finished(s->conversion) &&
         s->conversion->info.mode == WEIR_JOB_DECRYPT &&
         !s->info.data_offset_bytes)) {
        return 0;
    }
    if (weir_conversion_is_finished(s->conversion) &&
        s->conversion->info.mode == WEIR_JOB_DECRYPT) {
        error_setg(errp, "The data of node '%s' is plain, but begins behind "
                   "the place of its header; only 'force' detaches it.  Open "
                   "the disk with driver=raw,offset=%" PRIu64,
                   bdrv_get_node_name(bs), s->info.data_offset_bytes);
        return -EBUSY;
    }
    error_setg(errp, "Node '%s' has encrypted the disk below it, or part of "
               "it, which its users would see as it is; only 'force' detaches "
               "it", bdrv_get_node_name(bs));
    return -EBUSY;
}

const WeirFilterJob weir_encryption_job = {
    .make_header = job_make_header,
    .begin       = job_begin,
    .take        = job_take,
    .give        = job_give,
    .step        = job_step,
    .progress    = job_progress,
};

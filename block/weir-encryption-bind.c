/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A detached header says how long the data of its disk is, so that the header
 * of another disk, which may have the same passphrase, is not taken for it.
 * What is here keeps that true when the disk is resized:
 *
 *   header: old or new length -> resize the disk -> header: new length
 *
 * A power cut anywhere leaves a header that fits.  A format above may also grow
 * the disk by writing behind its end; from the first time on, the header says
 * only how long it is at least.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "weir-encryption.h"

/* --- who changes the header --- */

bool weir_header_claim(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    if (s->header_claimed) {
        return false;
    }
    s->header_claimed = true;
    return true;
}

void weir_header_unclaim(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    QEMU_LOCK_GUARD(&s->lock);
    s->header_claimed = false;
}

/* --- does it fit? --- */

static int64_t coroutine_mixed_fn GRAPH_RDLOCK
data_bytes_of(BlockDriverState *bs, int64_t disk_bytes)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (disk_bytes < 0) {
        return disk_bytes;
    }
    disk_bytes = MAX(0, disk_bytes - (int64_t)s->info.data_offset_bytes);
    return QEMU_ALIGN_DOWN(disk_bytes, s->info.sector_bytes);
}

int64_t weir_encryption_data_bytes(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return data_bytes_of(bs, bdrv_getlength(bs->file->bs));
}

static char *bound_to_text(const WeirHeaderInfo *info)
{
    if (info->bound_max_bytes == info->bound_min_bytes) {
        return g_strdup_printf("%" PRIu64, info->bound_min_bytes);
    }
    if (info->bound_max_bytes == INT64_MAX) {
        return g_strdup_printf("at least %" PRIu64, info->bound_min_bytes);
    }
    return g_strdup_printf("%" PRIu64 " to %" PRIu64, info->bound_min_bytes,
                           info->bound_max_bytes);
}

int weir_encryption_check_length(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    const WeirHeaderInfo *info = &s->info;
    g_autofree char *bound = bound_to_text(info);
    int64_t bytes;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (!s->header || !info->is_bound) {
        return 0;
    }
    bytes = data_bytes_of(bs, bdrv_getlength(bs->file->bs));
    if (bytes < 0 || (bytes >= info->bound_min_bytes &&
                      bytes <= info->bound_max_bytes)) {
        return 0;
    }
    error_setg(errp, "weir-encryption: The header on node '%s' is for a disk "
               "with %s bytes of data, and node '%s' has %" PRId64 ": one of "
               "them is the wrong one, or the disk was resized elsewhere; if "
               "so, open it with check-length=off and bind the header anew",
               bdrv_get_node_name(s->header->bs), bound,
               bdrv_get_node_name(bs->file->bs), bytes);
    return -EINVAL;
}

/* --- to the header --- */

typedef struct Bind {
    WeirHeader *header;
    uint64_t min_bytes, max_bytes;
    char message[256];
} Bind;

static int bind_thread(void *opaque)
{
    Bind *bind = opaque;

    return weir_header_bind(bind->header, bind->min_bytes, bind->max_bytes,
                            bind->message, sizeof(bind->message));
}

/* Read it, change it, write it; it is nobody else's meanwhile. */
static int coroutine_fn GRAPH_RDLOCK
bind_header(BlockDriverState *bs, uint64_t min_bytes, uint64_t max_bytes,
            Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    Bind bind = { .min_bytes = min_bytes, .max_bytes = max_bytes };
    WeirHeaderPlace place = {
        .bs = bs, .detached = true, .in_request = true,
    };
    int ret;

    pstrcpy(place.name, sizeof(place.name),
            bdrv_get_node_name(s->header->bs));
    if (!(s->header->perm & BLK_PERM_WRITE)) {
        error_setg(errp, "weir-encryption: The header on node '%s' is bound to "
                   "the length of the disk, and is read-only; open it writable "
                   "to resize the disk", place.name);
        return -EPERM;
    }
    ret = weir_header_from_disk(&place, &bind.header, errp);
    if (ret < 0) {
        return ret;
    }
    ret = weir_encryption_run(bind_thread, &bind);
    if (ret < 0) {
        error_setg(errp, "weir-encryption: Node '%s': %s", place.name,
                   bind.message);
    } else {
        ret = weir_header_to_disk(&place, bind.header, errp);
    }
    if (ret == 0) {
        qatomic_set(&s->bound_min_bytes, (int64_t)min_bytes);
        qatomic_set(&s->bound_max_bytes, (int64_t)max_bytes);
    }
    weir_header_drop(bind.header);
    return ret;
}

/* Also where it is not bound: it may be, by what changes it now. */
static bool claim(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    if (qatomic_read(&s->keeps_length) && qatomic_read(&s->handing_over)) {
        error_setg(errp, "weir-encryption: The header of node '%s' is bound to "
                   "the length of the disk, and does not change while the "
                   "machine migrates", bdrv_get_node_name(bs));
        return false;
    }
    if (!weir_header_claim(bs)) {
        error_setg(errp, "weir-encryption: The header of node '%s' is being "
                   "changed; resize the disk afterwards",
                   bdrv_get_node_name(bs));
        return false;
    }
    return true;
}

/* --- requests --- */

/* Whatever came out of it; the header allows for both lengths meanwhile. */
static void coroutine_fn GRAPH_RDLOCK bind_to_length(BlockDriverState *bs)
{
    Error *err = NULL;
    int64_t bytes = data_bytes_of(bs, bdrv_co_getlength(bs->file->bs));

    if (bytes < 0 || bind_header(bs, bytes, bytes, &err) < 0) {
        warn_report("weir-encryption: node '%s' is resized, and its header "
                    "still allows for the old length as well: %s",
                    bdrv_get_node_name(bs),
                    err ? error_get_pretty(err) : strerror(-bytes));
        error_free(err);
    }
}

static int coroutine_fn GRAPH_RDLOCK
resize_bound(BlockDriverState *bs, int64_t bytes, bool exact,
             PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t old = data_bytes_of(bs, bdrv_co_getlength(bs->file->bs));
    int ret;

    if (old < 0) {
        error_setg_errno(errp, -old, "weir-encryption: Cannot tell the length "
                         "of node '%s'", bdrv_get_node_name(bs->file->bs));
        return old;
    }
    ret = bind_header(bs, MIN(old, bytes), MAX(old, bytes), errp);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_truncate(bs->file, s->info.data_offset_bytes + bytes, exact,
                           prealloc, flags, errp);
    bind_to_length(bs);
    return ret;
}

int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_resize(BlockDriverState *bs, int64_t bytes, bool exact,
                          PreallocMode prealloc, BdrvRequestFlags flags,
                          Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret = -EBUSY;

    qemu_co_mutex_lock(&s->resize_lock);
    if (claim(bs, errp)) {
        ret = qatomic_read(&s->keeps_length)
              ? resize_bound(bs, bytes, exact, prealloc, flags, errp)
              : bdrv_co_truncate(bs->file, s->info.data_offset_bytes + bytes,
                                 exact, prealloc, flags, errp);
        weir_header_unclaim(bs);
    }
    qemu_co_mutex_unlock(&s->resize_lock);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK grow(BlockDriverState *bs)
{
    int64_t bytes = data_bytes_of(bs, bdrv_co_getlength(bs->file->bs));
    Error *err = NULL;
    int ret = -ENOSPC;

    if (bytes >= 0 && claim(bs, &err)) {
        ret = bind_header(bs, bytes, INT64_MAX, &err);
        weir_header_unclaim(bs);
    }
    if (err) {
        warn_reportf_err(err, "node '%s' cannot grow: ",
                         bdrv_get_node_name(bs));
    }
    return ret < 0 ? -ENOSPC : 0;
}

int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_grow(BlockDriverState *bs, int64_t end)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret = 0;

    if (!qatomic_read(&s->keeps_length) ||
        end <= qatomic_read(&s->bound_max_bytes)) {
        return 0;
    }
    if (s->conversion) {
        return -ENOSPC;
    }
    qemu_co_mutex_lock(&s->resize_lock);
    if (end > qatomic_read(&s->bound_max_bytes)) {
        ret = grow(bs);
    }
    qemu_co_mutex_unlock(&s->resize_lock);
    return ret;
}

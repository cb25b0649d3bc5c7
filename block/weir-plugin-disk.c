/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk under a plugin, but for requests: what lies where, its length, copies
 * that are offloaded, snapshots within the image.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/coroutines.h"
#include "qapi/error.h"
#include "weir-plugin-host.h"

/* --- what lies where, and how long it is --- */

/*
 * With the backing files that the disk may have.  They are not ours, so what
 * only they have would count as nowhere, and a job would not copy it.
 */
static int coroutine_fn GRAPH_RDLOCK status_below(BDRVWeirPluginState *s,
                                                  int64_t offset,
                                                  int64_t bytes,
                                                  int64_t *pnum)
{
    int ret = bdrv_co_block_status_above(s->bs->file->bs, NULL, offset, bytes,
                                         pnum, NULL, NULL);

    return ret < 0 ? ret : ret & BDRV_BLOCK_ZERO ? BDRV_BLOCK_ZERO
                                                 : BDRV_BLOCK_DATA;
}

typedef struct StatusCall {
    uint64_t offset;
    uint64_t bytes;
    WeirPluginStatus status;
} StatusCall;

static int coroutine_fn do_status(BDRVWeirPluginState *s, WeirPluginIo *io,
                                  void *arg)
{
    StatusCall *call = arg;

    return s->plugin->block_status(s->handle, io, call->offset, call->bytes,
                                   &call->status);
}

/* Where the plugin says nothing of zeroes, there are none. */
static int coroutine_fn GRAPH_RDLOCK find_status(BlockDriverState *bs,
                                                 int64_t offset, int64_t bytes,
                                                 int64_t *pnum)
{
    BDRVWeirPluginState *s = bs->opaque;
    StatusCall call = { .offset = offset, .bytes = bytes };
    int ret;

    if (weir_plugin_passes_status(s->plugin)) {
        return status_below(s, offset, bytes, pnum);
    }
    *pnum = bytes;
    if (!s->plugin->block_status || qatomic_read(&s->inactive) ||
        weir_holds_fenced(s->holds)) {
        return BDRV_BLOCK_DATA;
    }
    ret = weir_plugin_call_here(s, do_status, &call);
    if (ret == WEIR_PLUGIN_PASS) {
        return status_below(s, offset, bytes, pnum);
    }
    if (ret != 0 || call.status.bytes == 0) {
        return ret < 0 ? ret : -EIO;
    }
    *pnum = MIN((uint64_t)bytes, call.status.bytes);
    return call.status.flags & WEIR_PLUGIN_STATUS_ZERO ? BDRV_BLOCK_ZERO
                                                       : BDRV_BLOCK_DATA;
}

/* In multiples of the alignment, as the block layer wants it. */
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_block_status(BlockDriverState *bs, WeirStatusMode mode,
                            int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map, BlockDriverState **file)
{
    int64_t align = bs->bl.request_alignment;
    int ret = find_status(bs, offset, bytes, pnum);

    if (ret >= 0 && *pnum < align) {
        *pnum = align;                  /* of both kinds */
        return BDRV_BLOCK_DATA;
    }
    *pnum = QEMU_ALIGN_DOWN(*pnum, align);
    return ret;
}

static int coroutine_fn do_resize(BDRVWeirPluginState *s, WeirPluginIo *io,
                                  void *arg)
{
    return s->plugin->resize ? s->plugin->resize(s->handle, io,
                                                 *(int64_t *)arg) : 0;
}

static int coroutine_fn do_resized(BDRVWeirPluginState *s, WeirPluginIo *io,
                                   void *arg)
{
    if (s->plugin->resized) {
        s->plugin->resized(s->handle, io, *(int64_t *)arg);
    }
    return 0;
}

/* After it was to change, whether it did or not. */
static void coroutine_fn GRAPH_RDLOCK tell_length(BlockDriverState *bs)
{
    int64_t now = bdrv_co_getlength(bs->file->bs);

    if (now >= 0) {
        weir_plugin_call_here(bs->opaque, do_resized, &now);
    }
}

/* With the lock: the child gets longer, and the plugin is told before. */
static int coroutine_fn GRAPH_RDLOCK grow(BlockDriverState *bs, int64_t end)
{
    BDRVWeirPluginState *s = bs->opaque;
    int64_t now = bdrv_co_getlength(bs->file->bs);
    int ret;

    if (now < 0 || now >= end) {
        return MIN(now, 0);
    }
    ret = weir_plugin_call_here(s, do_resize, &end);
    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_truncate(bs->file, end, false, PREALLOC_MODE_OFF, 0, NULL);
    tell_length(bs);
    return MIN(ret, 0);
}

int coroutine_fn GRAPH_RDLOCK weir_plugin_co_grow(BlockDriverState *bs,
                                                  int64_t end)
{
    BDRVWeirPluginState *s = bs->opaque;
    int ret;

    if (end <= bs->total_sectors * BDRV_SECTOR_SIZE) {
        return 0;
    }
    if (!(bs->file->perm & BLK_PERM_RESIZE)) {
        return -EPERM;
    }
    qemu_co_mutex_lock(&s->growing);
    ret = grow(bs, ROUND_UP(end, BDRV_SECTOR_SIZE));
    qemu_co_mutex_unlock(&s->growing);
    return ret;
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                        PreallocMode prealloc, BdrvRequestFlags flags,
                        Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    int64_t length = ROUND_UP(offset, BDRV_SECTOR_SIZE);
    int ret;

    if (qatomic_read(&s->inactive) || weir_holds_fenced(s->holds)) {
        error_setg(errp, "weir-plugin: The node is inactive, or plugin '%s' "
                   "holds requests that have expired", s->plugin->name);
        return -EBUSY;
    }
    ret = weir_plugin_check_alignment(s, length, errp);
    if (ret < 0) {
        return ret;
    }
    ret = weir_plugin_call_here(s, do_resize, &length);
    if (ret < 0) {
        weir_plugin_set_error(s, ret, "refuses the new length", errp);
        return ret;
    }
    ret = bdrv_co_truncate(bs->file, offset, exact, prealloc, flags, errp);
    tell_length(bs);
    return ret;
}

/* Of the disk: QEMU would add the sidecar to it. */
int64_t coroutine_fn GRAPH_RDLOCK
weir_plugin_co_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_co_get_allocated_file_size(bs->file->bs);
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                               int64_t src_offset, BdrvChild *dst,
                               int64_t dst_offset, int64_t bytes,
                               BdrvRequestFlags read_flags,
                               BdrvRequestFlags write_flags)
{
    BDRVWeirPluginState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (!weir_plugin_passes_copies_from(s->plugin)) {
        return -ENOTSUP;                /* it is read and written */
    }
    begin_ns = weir_filter_begin(&s->filter, WEIR_IO_COPY);
    ret = bdrv_co_copy_range_from(bs->file, src_offset, dst, dst_offset,
                                  bytes, read_flags, write_flags);
    return weir_filter_end(&s->filter, WEIR_IO_COPY, bytes, begin_ns, ret);
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                             int64_t src_offset, BdrvChild *dst,
                             int64_t dst_offset, int64_t bytes,
                             BdrvRequestFlags read_flags,
                             BdrvRequestFlags write_flags)
{
    BDRVWeirPluginState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (!weir_plugin_passes_copies_to(s->plugin)) {
        return -ENOTSUP;
    }
    begin_ns = weir_filter_begin(&s->filter, WEIR_IO_COPY);
    ret = bdrv_co_copy_range_to(src, src_offset, bs->file, dst_offset, bytes,
                                read_flags, write_flags);
    return weir_filter_end(&s->filter, WEIR_IO_COPY, bytes, begin_ns, ret);
}

/* --- snapshots --- */

typedef struct SnapshotCall {
    uint32_t what;
    const char *name;
    int result;
} SnapshotCall;

static int coroutine_fn do_snapshot_before(BDRVWeirPluginState *s,
                                           WeirPluginIo *io, void *arg)
{
    SnapshotCall *call = arg;

    return s->plugin->snapshot_before(s->handle, io, call->what, call->name);
}

static int coroutine_fn do_snapshot_after(BDRVWeirPluginState *s,
                                          WeirPluginIo *io, void *arg)
{
    SnapshotCall *call = arg;

    if (s->plugin->snapshot_after) {
        s->plugin->snapshot_after(s->handle, io, call->what, call->name,
                                  call->result);
    }
    return 0;
}

/* What a plugin has beside the disk would not fit a disk of another time. */
static int snapshot_begin(BDRVWeirPluginState *s, SnapshotCall *call)
{
    if (s->plugin->snapshot_before) {
        return MIN(weir_plugin_call_and_poll(s, do_snapshot_before, call), 0);
    }
    return s->sidecar || s->plugin->capabilities & WEIR_PLUGIN_HOLDS_DATA
           ? -ENOTSUP : 0;
}

static int snapshot_end(BDRVWeirPluginState *s, SnapshotCall *call, int ret)
{
    call->result = ret;
    weir_plugin_call_and_poll(s, do_snapshot_after, call);
    return ret;
}

int GRAPH_RDLOCK weir_plugin_snapshot_create(BlockDriverState *bs,
                                             QEMUSnapshotInfo *info)
{
    SnapshotCall call = { WEIR_PLUGIN_SNAPSHOT_CREATE, info->name, 0 };
    int ret = snapshot_begin(bs->opaque, &call);

    return ret < 0 ? ret :
           snapshot_end(bs->opaque, &call,
                        bdrv_snapshot_create(bs->file->bs, info));
}

int GRAPH_RDLOCK weir_plugin_snapshot_delete(BlockDriverState *bs,
                                             const char *id,
                                             const char *name, Error **errp)
{
    SnapshotCall call = { WEIR_PLUGIN_SNAPSHOT_DELETE, name ?: id, 0 };
    int ret = snapshot_begin(bs->opaque, &call);

    if (ret < 0) {
        weir_plugin_set_error(bs->opaque, ret, "refuses", errp);
        return ret;
    }
    return snapshot_end(bs->opaque, &call,
                        bdrv_snapshot_delete(bs->file->bs, id, name, errp));
}

static BlockDriverState *child_of(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bs->file->bs;
}

int weir_plugin_snapshot_goto(BlockDriverState *bs, const char *id)
{
    SnapshotCall call = { WEIR_PLUGIN_SNAPSHOT_REVERT, id, 0 };
    int ret = snapshot_begin(bs->opaque, &call);

    return ret < 0 ? ret :
           snapshot_end(bs->opaque, &call,
                        bdrv_snapshot_goto(child_of(bs), id, NULL));
}

int GRAPH_RDLOCK weir_plugin_snapshot_list(BlockDriverState *bs,
                                           QEMUSnapshotInfo **list)
{
    return bdrv_snapshot_list(bs->file->bs, list);
}

/* The memory of the machine would pass by a plugin that has to change it. */
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_save_vmstate(BlockDriverState *bs, QEMUIOVector *qiov,
                            int64_t pos)
{
    BDRVWeirPluginState *s = bs->opaque;

    return s->plugin->capabilities & WEIR_PLUGIN_CHANGES_DATA
           ? -ENOTSUP : bdrv_co_writev_vmstate(bs->file->bs, qiov, pos);
}

static SnapshotCall overlay_call(bool is_frozen, int result)
{
    return (SnapshotCall) {
        is_frozen ? WEIR_PLUGIN_SNAPSHOT_OVERLAY : WEIR_PLUGIN_SNAPSHOT_CREATE,
        NULL, result
    };
}

/* The disk has to be there without what the plugin holds. */
int weir_plugin_prepare_overlay(BlockDriverState *bs, bool is_frozen,
                                Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    SnapshotCall call = overlay_call(is_frozen, 0);
    int ret;

    if (!s->prepared || s->inactive) {
        return 0;
    }
    if (weir_holds_fenced(s->holds)) {
        if (!weir_plugin_changes_or_holds(s)) {
            return 0;                   /* nothing that it has is missed */
        }
        error_setg(errp, "weir-plugin: Plugin '%s' holds requests that have "
                   "expired", s->plugin->name);
        return -EBUSY;
    }
    if (!s->plugin->snapshot_before &&
        s->plugin->capabilities & WEIR_PLUGIN_HOLDS_DATA) {
        error_setg(errp, "weir-plugin: Plugin '%s' holds data, and takes no "
                   "part in snapshots", s->plugin->name);
        return -ENOTSUP;
    }
    ret = s->plugin->snapshot_before ?
          weir_plugin_call_and_poll(s, do_snapshot_before, &call) : 0;
    if (ret < 0) {
        weir_plugin_set_error(s, ret, "refuses the snapshot", errp);
        return ret;
    }
    s->snapshots++;
    return 0;
}

void weir_plugin_finish_overlay(BlockDriverState *bs, bool is_frozen, int ret)
{
    BDRVWeirPluginState *s = bs->opaque;
    SnapshotCall call = overlay_call(is_frozen, ret);

    if (s->snapshots > 0) {
        s->snapshots--;
        weir_plugin_call_and_poll(s, do_snapshot_after, &call);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-replica: a replicated disk as it was at a point in time.  What has been
 * written until then is read from the log, through its keeper (child
 * "journal"), and all else from the image that it applies older epochs to
 * (child "base").
 *
 * filters/replication does the work; this file connects it to the block layer.
 * It is read-only: to write, put an overlay above it.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "compat.h"
#include "replication/point.h"
#include "replication/view.h"
#include "weir-journal.h"

#define NS_PER_MS 1000000

typedef struct BDRVWeirReplicaState {
    WeirFilter filter;          /* first: see filter.h */
    BdrvChild *journal;         /* set at open */
    BdrvChild *base;            /* set at open */
    char *disk_id;              /* set at open */
    WeirView *view;             /* set at open */
    WeirViewInfo info;          /* set at open */
} BDRVWeirReplicaState;

static const char *const replica_options[] = { "disk-id", "point", NULL };

/* Which disk, at which time, is all that there is to it. */
static const char *const replica_strong_options[] = {
    "disk-id", "point", NULL
};

/* The keeper goes on writing to both. */
static void GRAPH_RDLOCK replica_child_perm(BlockDriverState *bs, BdrvChild *c,
                                            BdrvChildRole role,
                                            BlockReopenQueue *queue,
                                            uint64_t perm, uint64_t shared,
                                            uint64_t *nperm,
                                            uint64_t *nshared)
{
    *nperm = BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_ALL;
}

static BDRVWeirJournalState *journal_state(BDRVWeirReplicaState *s)
{
    return s->journal->bs->opaque;
}

/* --- options --- */

static WeirReplicaOptions *replica_parse(QDict *options, Error **errp)
{
    WeirReplicaOptions *opts = NULL;
    Visitor *v = weir_filter_options_visitor(options, replica_options, errp);

    if (v) {
        visit_type_WeirReplicaOptions(v, NULL, &opts, errp);
        visit_free(v);
    }
    return opts;
}

static int open_children(BlockDriverState *bs, QDict *options, Error **errp)
{
    BDRVWeirReplicaState *s = bs->opaque;

    s->journal = bdrv_open_child(NULL, options, "journal", bs, &child_of_bds,
                                 BDRV_CHILD_DATA | BDRV_CHILD_METADATA, false,
                                 errp);
    if (!s->journal) {
        return -EINVAL;
    }
    s->base = bdrv_open_child(NULL, options, "base", bs, &child_of_bds,
                              BDRV_CHILD_DATA, false, errp);
    return s->base ? 0 : -EINVAL;
}

/* --- the view --- */

/* The image that the keeper applies that disk's epochs to, or NULL. */
static WeirJournalImage *find_image(WeirKeeper *keeper, const char *disk_id)
{
    WeirKeeperDisk disk;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (weir_keeper_disk(keeper, i, &disk) &&
            !strcmp(disk.what.name, disk_id)) {
            return disk.base;
        }
    }
    return NULL;
}

/* The view reads from the keeper's image; it has to be what we are told. */
static int GRAPH_RDLOCK check_base(BlockDriverState *bs, Error **errp)
{
    BDRVWeirReplicaState *s = bs->opaque;
    WeirJournalImage *image = s->info.base;

    if (!image) {
        image = find_image(journal_state(s)->keeper, s->disk_id);
    }
    if (!image || image->child->bs != s->base->bs) {
        error_setg(errp, "weir-replica: Node '%s' is not the base image of "
                   "disk '%s' in the replication log '%s'%s%s%s",
                   bdrv_get_node_name(s->base->bs), s->disk_id,
                   bdrv_get_node_name(s->journal->bs),
                   image ? ", that is '" : "",
                   image ? bdrv_get_node_name(image->child->bs) : "",
                   image ? "'" : "");
        return -EINVAL;
    }
    return 0;
}

static int GRAPH_RDLOCK open_view(BlockDriverState *bs, const char *point,
                                  Error **errp)
{
    BDRVWeirReplicaState *s = bs->opaque;
    WeirKeeper *keeper = journal_state(s)->keeper;
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirPointName name;
    WeirPointInfo found;
    int ret = weir_point_parse(&name, point, err, sizeof(err));

    ret = ret < 0 ? ret : weir_point_find(keeper, &name, &found, err,
                                          sizeof(err));
    ret = ret < 0 ? ret : weir_view_open(&s->view, keeper, s->disk_id,
                                         found.epoch, err, sizeof(err));
    if (ret < 0) {
        error_setg(errp, "weir-replica: Disk '%s' at '%s': %s", s->disk_id,
                   point, err);
        return ret;
    }
    weir_view_info(s->view, &s->info);
    return check_base(bs, errp);
}

static int open_replica(BlockDriverState *bs, const char *point, Error **errp)
{
    BDRVWeirReplicaState *s = bs->opaque;
    int ret;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    ret = bdrv_apply_auto_read_only(bs, "weir-replica: A disk at a point in "
                                    "time is read-only", errp);
    if (ret < 0) {
        return ret;
    }
    if (strcmp(s->journal->bs->drv->format_name, "weir-journal")) {
        error_setg(errp, "weir-replica: Node '%s' is not a weir-journal node",
                   bdrv_get_node_name(s->journal->bs));
        return -EINVAL;
    }
    return open_view(bs, point, errp);
}

/* --- life --- */

static void replica_close(BlockDriverState *bs)
{
    BDRVWeirReplicaState *s = bs->opaque;

    g_clear_pointer(&s->view, weir_view_close);
    g_clear_pointer(&s->disk_id, g_free);
    weir_filter_close(bs);
}

static int replica_open(BlockDriverState *bs, QDict *options, int flags,
                        Error **errp)
{
    BDRVWeirReplicaState *s = bs->opaque;
    g_autoptr(WeirReplicaOptions) opts = replica_parse(options, errp);
    int ret;

    if (!opts) {
        return -EINVAL;
    }
    weir_filter_init(bs);
    s->disk_id = g_strdup(opts->disk_id);
    ret = open_children(bs, options, errp);
    ret = ret < 0 ? ret : open_replica(bs, opts->point ?: "latest", errp);
    if (ret < 0) {
        replica_close(bs);
    }
    return ret;
}

/* --- requests --- */

typedef struct ReplicaRead {
    WeirView *view;
    uint64_t offset, bytes;
    void *buf;
    int ret;
} ReplicaRead;

static void coroutine_fn do_read(void *opaque)
{
    ReplicaRead *r = opaque;

    r->ret = weir_view_read(r->view, r->offset, r->bytes, r->buf, NULL, 0);
}

/* The keeper's tasks do it: see weir-tasks.h. */
static int coroutine_fn GRAPH_RDLOCK
replica_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset,
                       BdrvRequestFlags flags)
{
    BDRVWeirReplicaState *s = bs->opaque;
    BDRVWeirJournalState *journal = journal_state(s);
    ReplicaRead r = {
        .view = s->view, .offset = offset, .bytes = bytes,
        .buf = qemu_try_blockalign(s->base->bs, bytes),
    };
    int64_t begin_ns;

    if (!r.buf) {
        return -ENOMEM;
    }
    begin_ns = weir_filter_begin(&s->filter, WEIR_IO_READ);
    weir_tasks_gate_request_begin(&journal->gate);
    weir_tasks_call(&journal->tasks, do_read, &r);
    weir_tasks_gate_request_end(&journal->gate);
    if (r.ret == 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, r.buf, bytes);
    }
    qemu_vfree(r.buf);
    return weir_filter_end(&s->filter, WEIR_IO_READ, bytes, begin_ns, r.ret);
}

static void GRAPH_RDLOCK replica_refresh_limits(BlockDriverState *bs,
                                                Error **errp)
{
    /* of the memory that a read takes */
    bs->bl.max_transfer = 4 * MiB;
}

typedef struct ReplicaStatus {
    WeirView *view;
    uint64_t offset, bytes, same;
    WeirViewPiece piece;
    int ret;
} ReplicaStatus;

static void coroutine_fn do_status(void *opaque)
{
    ReplicaStatus *s = opaque;

    s->ret = weir_view_status(s->view, s->offset, s->bytes, &s->piece,
                              &s->same);
}

static int coroutine_fn GRAPH_RDLOCK
replica_co_block_status(BlockDriverState *bs, WeirStatusMode mode,
                        int64_t offset, int64_t bytes, int64_t *pnum,
                        int64_t *map, BlockDriverState **file)
{
    BDRVWeirReplicaState *s = bs->opaque;
    BDRVWeirJournalState *journal = journal_state(s);
    ReplicaStatus status = {
        .view = s->view, .offset = offset, .bytes = bytes,
    };
    int ret;

    weir_tasks_gate_request_begin(&journal->gate);
    weir_tasks_call(&journal->tasks, do_status, &status);
    weir_tasks_gate_request_end(&journal->gate);
    if (status.ret < 0) {
        return status.ret;
    }
    *pnum = MIN(bytes, status.same);
    if (status.piece != WEIR_VIEW_BASE) {
        return status.piece == WEIR_VIEW_ZERO ? BDRV_BLOCK_ZERO
                                              : BDRV_BLOCK_DATA;
    }
    /* with the backing files that it may have: they are not ours */
    ret = bdrv_co_block_status_above(s->base->bs, NULL, offset, *pnum, pnum,
                                     NULL, NULL);
    if (ret < 0) {
        return ret;
    }
    return ret & BDRV_BLOCK_ZERO ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA;
}

static int64_t coroutine_fn GRAPH_RDLOCK
replica_co_getlength(BlockDriverState *bs)
{
    BDRVWeirReplicaState *s = bs->opaque;

    return s->info.bytes;
}

/* Nothing is its own. */
static int64_t coroutine_fn GRAPH_RDLOCK
replica_co_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

/* --- figures --- */

static void replica_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    BDRVWeirReplicaState *s = bs->opaque;
    WeirReplicaInfo *out = &node->u.weir_replica;

    out->disk_id = g_strdup(s->disk_id);
    out->journal = g_strdup(bdrv_get_node_name(s->journal->bs));
    out->epoch = s->info.epoch;
    out->time = s->info.wall_ns / NS_PER_MS;
}

static WeirFilterDriver replica_filter = {
    .format_name = "weir-replica",
    .driver      = WEIR_DRIVER_WEIR_REPLICA,
    .query       = replica_query,
};

static BlockDriver bdrv_weir_replica = {
    .format_name                = "weir-replica",
    .instance_size              = sizeof(BDRVWeirReplicaState),

    .bdrv_open                  = replica_open,
    .bdrv_close                 = replica_close,
    .bdrv_child_perm            = replica_child_perm,
    .bdrv_refresh_limits        = replica_refresh_limits,
    .strong_runtime_opts        = replica_strong_options,

    .bdrv_co_getlength          = replica_co_getlength,
    .bdrv_co_preadv_part        = replica_co_preadv_part,
    .bdrv_co_block_status       = replica_co_block_status,
    .bdrv_co_get_allocated_file_size = replica_co_get_allocated_file_size,
};

static void weir_replica_init(void)
{
    weir_filter_register(&replica_filter);
    bdrv_register(&bdrv_weir_replica);
}

block_init(weir_replica_init);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-replication: what is written to a disk goes to a replication log too.
 *
 * filters/replication does the work; this file connects it to the block layer,
 * weir-replication-host.c gives it I/O, weir-replication-group.c has the disks
 * with the same log, weir-replication-log.c that log.  The data is always the
 * child's (.is_filter): reads and block status are left to it.
 *
 *   inactive --open, activate--> active --inactivate, close--> inactive
 *
 * While the node is inactive the disk belongs to the other side of a
 * migration, and so does the log.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qobject/qdict.h"
#include "weir-replication.h"

static const char *const replication_options[] = {
    "disk-id", "mode", "on-loss", "epoch-interval", "epoch-bytes",
    "max-memory", "max-rate", "compress", "target-timeout", "rpo-limit", NULL
};

static const char *const replication_mutable_options[] = {
    "target-timeout", "rpo-limit", NULL
};

/* Nothing that this driver is told changes the data that is read from it. */
static const char *const replication_strong_options[] = { NULL };

#define RESIZE_LOOK_NS SCALE_MS

static void GRAPH_RDLOCK replication_child_perm(BlockDriverState *bs,
                                                BdrvChild *c,
                                                BdrvChildRole role,
                                                BlockReopenQueue *queue,
                                                uint64_t perm, uint64_t shared,
                                                uint64_t *nperm,
                                                uint64_t *nshared)
{
    if (role & BDRV_CHILD_FILTERED) {
        weir_filter_child_perm(bs, c, role, queue, perm, shared, nperm,
                               nshared);
    } else if (bs->open_flags & BDRV_O_INACTIVE) {
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
    } else {
        *nperm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
        *nshared = BLK_PERM_CONSISTENT_READ;
    }
}

/* --- options --- */

static bool check_range(const char *name, uint64_t value, uint64_t min,
                        uint64_t max, Error **errp)
{
    if (value < min || value > max) {
        error_setg(errp, "weir-replication: %s is %" PRIu64 ", it has to be "
                   "%" PRIu64 " to %" PRIu64, name, value, min, max);
        return false;
    }
    return true;
}

static void config_from_qapi(WeirReplicationConfig *config,
                             const WeirReplicationOptions *opts)
{
    static const WeirSourceMode modes[] = {
        [WEIR_REPLICATION_MODE_ASYNC]      = WEIR_SOURCE_ASYNC,
        [WEIR_REPLICATION_MODE_FLUSH_SYNC] = WEIR_SOURCE_FLUSH_SYNC,
        [WEIR_REPLICATION_MODE_WRITE_SYNC] = WEIR_SOURCE_WRITE_SYNC,
    };
    static const WeirSourceOnLoss on_losses[] = {
        [WEIR_REPLICATION_ON_LOSS_DEGRADE] = WEIR_SOURCE_DEGRADE,
        [WEIR_REPLICATION_ON_LOSS_SUSPEND] = WEIR_SOURCE_SUSPEND,
        [WEIR_REPLICATION_ON_LOSS_ERROR]   = WEIR_SOURCE_ERROR,
    };
    uint32_t interval_ms = opts->has_epoch_interval ? opts->epoch_interval
                                                    : 100;

    *config = (WeirReplicationConfig) {
        .source = {
            .mode = modes[opts->has_mode ? opts->mode :
                          WEIR_REPLICATION_MODE_ASYNC],
            .on_loss = on_losses[opts->has_on_loss ? opts->on_loss :
                                 WEIR_REPLICATION_ON_LOSS_DEGRADE],
            .epoch_interval_ns = (uint64_t)interval_ms * SCALE_MS,
            .epoch_bytes = opts->has_epoch_bytes ? opts->epoch_bytes
                                                 : 16 * MiB,
            .max_memory_bytes = opts->has_max_memory ? opts->max_memory
                                                     : 256 * MiB,
            .max_rate = opts->has_max_rate ? opts->max_rate : 0,
            .compress = opts->has_compress &&
                        opts->compress == WEIR_REPLICATION_COMPRESS_ZSTD,
        },
        .target_timeout_ms = opts->has_target_timeout ? opts->target_timeout
                                                      : 10000,
        .rpo_limit_ms = opts->has_rpo_limit ? opts->rpo_limit : 0,
    };
}

static bool config_check(const WeirReplicationConfig *c, Error **errp)
{
    return check_range("epoch-interval",
                       c->source.epoch_interval_ns / SCALE_MS, 1, 60000,
                       errp) &&
           check_range("epoch-bytes", c->source.epoch_bytes, 64 * KiB,
                       UINT64_MAX, errp) &&
           check_range("max-memory", c->source.max_memory_bytes, 8 * MiB,
                       64 * GiB, errp) &&
           check_range("target-timeout", c->target_timeout_ms, 100, 600000,
                       errp);
}

/* Take this driver's options from @options and check them. */
static WeirReplicationOptions *
replication_parse(QDict *options, WeirReplicationConfig *config, Error **errp)
{
    g_autoptr(WeirReplicationOptions) opts = NULL;
    Visitor *v = weir_filter_options_visitor(options, replication_options,
                                             errp);

    if (!v) {
        return NULL;
    }
    visit_type_WeirReplicationOptions(v, NULL, &opts, errp);
    visit_free(v);
    if (!opts) {
        return NULL;
    }
    if (!*opts->disk_id || strlen(opts->disk_id) >= WEIR_LOG_NAME_BYTES) {
        error_setg(errp, "weir-replication: disk-id has to be 1 to %d bytes",
                   WEIR_LOG_NAME_BYTES - 1);
        return NULL;
    }
    config_from_qapi(config, opts);
    return config_check(config, errp) ? g_steal_pointer(&opts) : NULL;
}

static bool replication_check_options(QDict *options, Error **errp)
{
    g_autoptr(WeirReplicationOptions) opts = NULL;
    WeirReplicationConfig config;

    opts = replication_parse(options, &config, errp);
    return opts;
}

/* --- life --- */

typedef struct Start {
    BlockDriverState *bs;
    Error **errp;
    int ret;
} Start;

static void coroutine_fn start_entry(void *opaque)
{
    Start *start = opaque;

    bdrv_graph_co_rdlock();
    start->ret = weir_replication_start(start->bs, start->errp);
    bdrv_graph_co_rdunlock();
}

static int open_sidecar(BlockDriverState *bs, QDict *options, Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    ERRP_GUARD();

    s->sidecar = bdrv_open_child(NULL, options, "sidecar", bs, &child_of_bds,
                                 BDRV_CHILD_METADATA, true, errp);
    return *errp ? -EINVAL : 0;
}

static int open_group(BlockDriverState *bs, QDict *options, int flags,
                      const WeirReplicationConfig *config, Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    Start start = { .bs = bs, .errp = errp };
    bool inactive = flags & BDRV_O_INACTIVE;
    int ret = weir_replication_join(bs, options, config, inactive, errp);

    if (ret < 0 || inactive) {
        return ret;
    }
    weir_tasks_call_and_poll(weir_replication_tasks(s->group), start_entry,
                             &start);
    if (start.ret < 0) {
        weir_replication_leave(bs);
    }
    return start.ret;
}

static int replication_open(BlockDriverState *bs, QDict *options, int flags,
                            Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    g_autoptr(WeirReplicationOptions) opts = NULL;
    WeirReplicationConfig config;
    int ret;

    opts = replication_parse(options, &config, errp);
    if (!opts) {
        return -EINVAL;
    }
    weir_tasks_gate_init(&s->gate);
    ret = weir_filter_open(bs, options, errp);
    if (ret < 0) {
        weir_tasks_gate_destroy(&s->gate);
        return ret;
    }
    s->disk_id = g_strdup(opts->disk_id);
    ret = open_sidecar(bs, options, errp);
    ret = ret < 0 ? ret : open_group(bs, options, flags, &config, errp);
    if (ret < 0) {
        g_free(s->disk_id);
        weir_tasks_gate_destroy(&s->gate);
        weir_filter_close(bs);
    }
    return ret;
}

static void replication_close(BlockDriverState *bs)
{
    BDRVWeirReplicationState *s = bs->opaque;

    weir_replication_stop(bs, false);
    weir_replication_leave(bs);
    g_free(s->disk_id);
    weir_tasks_gate_destroy(&s->gate);
    weir_filter_close(bs);
}

static int GRAPH_RDLOCK replication_inactivate(BlockDriverState *bs)
{
    int ret;

    bdrv_drained_begin(bs);             /* exports are still at work */
    ret = weir_filter_inactivate_users(bs);
    if (ret < 0) {
        weir_filter_activate_users(bs);
    } else {
        weir_replication_stop(bs, true);
    }
    bdrv_drained_end(bs);
    return ret;
}

static void coroutine_fn GRAPH_RDLOCK
replication_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;

    if (!s->engine) {
        weir_replication_start(bs, errp);
    }
}

static int replication_reopen_prepare(BDRVReopenState *state,
                                      BlockReopenQueue *queue, Error **errp)
{
    BDRVWeirReplicationState *s = state->bs->opaque;
    g_autofree WeirReplicationConfig *config =
        g_new(WeirReplicationConfig, 1);
    g_autoptr(WeirReplicationOptions) opts = NULL;

    opts = replication_parse(state->options, config, errp);
    if (!opts) {
        return -EINVAL;
    }
    if (strcmp(opts->disk_id, s->disk_id)) {
        error_setg(errp, "weir-replication: disk-id cannot be changed while "
                   "the node is open");
        return -EINVAL;
    }
    if (!weir_replication_may_change(s->group, config, errp)) {
        return -EINVAL;
    }
    state->opaque = g_steal_pointer(&config);
    return 0;
}

static void replication_reopen_commit(BDRVReopenState *state)
{
    BDRVWeirReplicationState *s = state->bs->opaque;
    g_autofree WeirReplicationConfig *config =
        g_steal_pointer(&state->opaque);

    weir_replication_change(s->group, config);
}

static void replication_reopen_abort(BDRVReopenState *state)
{
    g_clear_pointer(&state->opaque, g_free);
}

static void GRAPH_RDLOCK replication_refresh_limits(BlockDriverState *bs,
                                                    Error **errp)
{
    bs->supported_read_flags = BDRV_REQ_REGISTERED_BUF &
                               bs->file->bs->supported_read_flags;
    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_FUA |
                               BDRV_REQ_MAY_UNMAP;
}

static void replication_drain_begin(BlockDriverState *bs)
{
    BDRVWeirReplicationState *s = bs->opaque;

    weir_tasks_gate_drain_begin(&s->gate);
}

static void replication_drain_end(BlockDriverState *bs)
{
    BDRVWeirReplicationState *s = bs->opaque;

    weir_tasks_gate_drain_end(&s->gate);
}

/* --- requests --- */

/* Not while the disk gets another length: that has it for itself. */
static int64_t coroutine_fn request_begin(BDRVWeirReplicationState *s,
                                          WeirIoOp op)
{
    int64_t begin_ns = weir_filter_begin(&s->filter, op);

    weir_tasks_gate_request_begin(&s->gate);
    while (smp_mb(), qatomic_read(&s->resizing)) {
        weir_tasks_gate_request_end(&s->gate);
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, RESIZE_LOOK_NS);
        weir_tasks_gate_request_begin(&s->gate);
    }
    return begin_ns;
}

static int request_end(BDRVWeirReplicationState *s, WeirIoOp op,
                       int64_t bytes, int64_t begin_ns, int ret)
{
    weir_tasks_gate_request_end(&s->gate);
    return weir_filter_end(&s->filter, op, bytes, begin_ns, ret);
}

static unsigned engine_flags(BdrvRequestFlags flags)
{
    return (flags & BDRV_REQ_FUA ? WEIR_SOURCE_FUA : 0) |
           (flags & BDRV_REQ_MAY_UNMAP ? WEIR_SOURCE_MAY_UNMAP : 0);
}

static int coroutine_fn GRAPH_RDLOCK
replication_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                           QEMUIOVector *qiov, size_t qiov_offset,
                           BdrvRequestFlags flags)
{
    BDRVWeirReplicationState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_READ);
    int ret = bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                                  flags);

    return weir_filter_end(&s->filter, WEIR_IO_READ, bytes, begin_ns, ret);
}

/* --- length --- */

typedef struct Resize {
    BlockDriverState *bs;
    int64_t bytes;
    bool exact;
    PreallocMode prealloc;
    BdrvRequestFlags flags;
    Error **errp;
} Resize;

static int coroutine_fn GRAPH_RDLOCK resize_disk(void *opaque)
{
    Resize *r = opaque;

    return bdrv_co_truncate(r->bs->file, r->bytes, r->exact, r->prealloc,
                            r->flags, r->errp);
}

/* Alone on the disk.  @is_needed: look again when it is so. */
static int coroutine_fn GRAPH_RDLOCK resize(Resize *r, bool only_longer)
{
    BDRVWeirReplicationState *s = r->bs->opaque;
    int64_t before;
    int ret = 0;

    while (qatomic_xchg(&s->resizing, true)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, RESIZE_LOOK_NS);
    }
    while (smp_mb(), qatomic_read(&s->gate.requests) > 0) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, RESIZE_LOOK_NS);
    }
    before = bdrv_co_getlength(r->bs->file->bs);
    if (!only_longer || (before >= 0 && before < r->bytes)) {
        ret = weir_source_resize(s->engine, r->bytes, resize_disk, r);
    }
    qatomic_set(&s->resizing, false);
    return MIN(before, 0) ?: ret;
}

static int coroutine_fn GRAPH_RDLOCK
replication_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                        PreallocMode prealloc, BdrvRequestFlags flags,
                        Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    Resize r = {
        .bs = bs, .bytes = ROUND_UP(offset, BDRV_SECTOR_SIZE), .exact = exact,
        .prealloc = prealloc, .flags = flags, .errp = errp,
    };
    ERRP_GUARD();
    int ret;

    r.errp = errp;
    if (!s->engine) {
        error_setg(errp, "weir-replication: The node is inactive");
        return -EBUSY;
    }
    ret = resize(&r, false);
    if (ret < 0 && !*errp) {
        error_setg_errno(errp, -ret, "weir-replication: The new length could "
                         "not be put on record");
    }
    return ret;
}

/* A format that is above makes its file longer by writing behind its end. */
static int coroutine_fn GRAPH_RDLOCK grow_for(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes)
{
    BDRVWeirReplicationState *s = bs->opaque;
    Resize r = {
        .bs = bs, .bytes = ROUND_UP(offset + bytes, BDRV_SECTOR_SIZE),
        .prealloc = PREALLOC_MODE_OFF,
    };

    if (!s->engine) {
        return -EPERM;                  /* about to become active, or not */
    }
    if (r.bytes <= bs->total_sectors * BDRV_SECTOR_SIZE) {
        return 0;
    }
    return bs->file->perm & BLK_PERM_RESIZE ? resize(&r, true) : -EPERM;
}

/* --- writes --- */

static int coroutine_fn GRAPH_RDLOCK
write_engine(BlockDriverState *bs, int64_t offset, int64_t bytes,
             QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BDRVWeirReplicationState *s = bs->opaque;
    QEMUIOVector part;
    int ret;

    if (qiov_offset == 0 && qiov->size == bytes) {
        return weir_source_write(s->engine, offset, bytes, qiov->iov,
                                 qiov->niov, engine_flags(flags));
    }
    qemu_iovec_init_slice(&part, qiov, qiov_offset, bytes);
    ret = weir_source_write(s->engine, offset, bytes, part.iov, part.niov,
                            engine_flags(flags));
    qemu_iovec_destroy(&part);
    return ret;
}

/* What does not change the data is not replicated. */
static int coroutine_fn GRAPH_RDLOCK
replication_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, BdrvRequestFlags flags)
{
    BDRVWeirReplicationState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (flags & BDRV_REQ_WRITE_UNCHANGED) {
        return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset,
                                    flags);
    }
    ret = grow_for(bs, offset, bytes);
    begin_ns = request_begin(s, WEIR_IO_WRITE);
    if (ret == 0) {
        ret = write_engine(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    return request_end(s, WEIR_IO_WRITE, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
replication_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, BdrvRequestFlags flags)
{
    BDRVWeirReplicationState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (flags & BDRV_REQ_WRITE_UNCHANGED) {
        return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
    }
    ret = grow_for(bs, offset, bytes);
    begin_ns = request_begin(s, WEIR_IO_ZEROES);
    if (ret == 0) {
        ret = weir_source_zero(s->engine, offset, bytes, engine_flags(flags));
    }
    return request_end(s, WEIR_IO_ZEROES, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
replication_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVWeirReplicationState *s = bs->opaque;
    int64_t begin_ns = request_begin(s, WEIR_IO_DISCARD);
    int ret = s->engine ? weir_source_discard(s->engine, offset, bytes)
                        : -EPERM;

    return request_end(s, WEIR_IO_DISCARD, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK replication_co_flush(BlockDriverState *bs)
{
    BDRVWeirReplicationState *s = bs->opaque;
    int64_t begin_ns = request_begin(s, WEIR_IO_FLUSH);
    int ret = bdrv_co_flush(bs->file->bs);

    if (ret >= 0 && s->engine) {
        ret = weir_source_flush(s->engine);
    }
    return request_end(s, WEIR_IO_FLUSH, 0, begin_ns, ret);
}

/* Of the disk: QEMU would add the sidecar to it. */
static int64_t coroutine_fn GRAPH_RDLOCK
replication_co_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_co_get_allocated_file_size(bs->file->bs);
}

/* A machine is stopped only when no request to the log is under way. */
static void replication_begin_handover(BlockDriverState *bs)
{
    weir_replication_hurry(bs, true);
}

static void replication_cancel_handover(BlockDriverState *bs)
{
    weir_replication_hurry(bs, false);
}

typedef struct Abandon {
    WeirSourceDisk *disk;
    int ret;
} Abandon;

static void coroutine_fn abandon_entry(void *opaque)
{
    Abandon *a = opaque;

    a->ret = weir_source_abandon_disk(a->disk);
}

/* The guest goes on without us, and the sidecar must not be believed then. */
static int replication_prepare_detach(BlockDriverState *bs, bool force,
                                      Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    Abandon a = { .disk = s->engine };

    if (!s->engine) {
        return 0;
    }
    weir_tasks_call_and_poll(weir_replication_tasks(s->group), abandon_entry,
                             &a);
    if (a.ret < 0 && !force) {
        error_setg_errno(errp, -a.ret, "weir-replication: The sidecar of node "
                         "'%s' cannot be told that the disk goes on without "
                         "it", bdrv_get_node_name(bs));
        return a.ret;
    }
    return 0;
}

static WeirFilterDriver replication_filter = {
    .format_name     = "weir-replication",
    .driver          = WEIR_DRIVER_WEIR_REPLICATION,
    .capabilities    = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_REPLICATION,
        .changes_data = false,
        .holds_data   = false,
    },
    .check_options   = replication_check_options,
    .query           = weir_replication_query,
    .mark            = weir_replication_mark,
    .begin_handover  = replication_begin_handover,
    .cancel_handover = replication_cancel_handover,
    .prepare_detach  = replication_prepare_detach,
};

/*
 * No .bdrv_co_copy_range_*: the log has to get the data.  The block layer
 * reads and writes it then.
 */
static BlockDriver bdrv_weir_replication = {
    .format_name                = "weir-replication",
    .instance_size              = sizeof(BDRVWeirReplicationState),
    .is_filter                  = true,

    .bdrv_open                  = replication_open,
    .bdrv_close                 = replication_close,
    .bdrv_child_perm            = replication_child_perm,
    .bdrv_set_perm              = weir_filter_set_perm,
    .bdrv_refresh_limits        = replication_refresh_limits,
    .bdrv_reopen_prepare        = replication_reopen_prepare,
    .bdrv_reopen_commit         = replication_reopen_commit,
    .bdrv_reopen_abort          = replication_reopen_abort,
    .strong_runtime_opts        = replication_strong_options,
    .mutable_opts               = replication_mutable_options,
    .bdrv_inactivate            = replication_inactivate,
    .bdrv_co_invalidate_cache   = replication_co_invalidate_cache,
    .bdrv_drain_begin           = replication_drain_begin,
    .bdrv_drain_end             = replication_drain_end,

    .bdrv_co_getlength          = weir_filter_co_getlength,
    .bdrv_co_preadv_part        = replication_co_preadv_part,
    .bdrv_co_pwritev_part       = replication_co_pwritev_part,
    .bdrv_co_pwrite_zeroes      = replication_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = replication_co_pdiscard,
    .bdrv_co_flush              = replication_co_flush,
    .bdrv_co_truncate           = replication_co_truncate,
    .bdrv_co_get_allocated_file_size = replication_co_get_allocated_file_size,
};

static void weir_replication_init(void)
{
    weir_filter_register(&replication_filter);
    bdrv_register(&bdrv_weir_replication);
}

block_init(weir_replication_init);

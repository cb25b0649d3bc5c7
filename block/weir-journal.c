/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-journal: keep a replication log (child "file"), and apply it to images
 * of the disks (children "bases.N.node", with "bases.N.sidecar" beside).  The
 * node is the log as a raw device, to be exported to the source of the
 * replication.
 *
 * filters/replication does the work, as tasks in the main thread; this file
 * connects it to the block layer, and weir-journal-host.c gives it I/O.  What
 * is written to the node is checked first, and may be refused, so it is no
 * .is_filter.
 *
 * A keeper goes on applying without any request, so it cannot be handed over to
 * another QEMU: the node is never inactive.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "weir-journal.h"

static const char *const journal_options[] = {
    "create", "segment-size", "retain-time", "retain-bytes", "apply-rate", NULL
};

static const char *const journal_mutable_options[] = {
    "retain-time", "retain-bytes", "apply-rate", NULL
};

static const char *const journal_strong_options[] = { NULL };

#define RETAIN_DEFAULT_S 86400

static void GRAPH_RDLOCK journal_child_perm(BlockDriverState *bs, BdrvChild *c,
                                            BdrvChildRole role,
                                            BlockReopenQueue *queue,
                                            uint64_t perm, uint64_t shared,
                                            uint64_t *nperm,
                                            uint64_t *nshared)
{
    bool is_log = role & BDRV_CHILD_PRIMARY;

    *nperm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
             (is_log ? 0 : BLK_PERM_RESIZE);
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
}

/* --- engine, from the main thread --- */

typedef struct JournalOpen {
    BlockDriverState *bs;
    Error **errp;
    int ret;
} JournalOpen;

static int64_t coroutine_fn log_bytes(BlockDriverState *bs)
{
    int64_t bytes;

    bdrv_graph_co_rdlock();
    bytes = bdrv_co_getlength(bs->file->bs);
    bdrv_graph_co_rdunlock();
    return bytes;
}

/* Of the sidecar; 0: there is none. */
static int64_t coroutine_fn sidecar_bytes(WeirJournalImage *image, char *err)
{
    int64_t bytes = 0;

    bdrv_graph_co_rdlock();
    if (image->sidecar) {
        bytes = bdrv_co_getlength(image->sidecar->bs);
    }
    bdrv_graph_co_rdunlock();
    if (bytes < 0) {
        snprintf(err, WEIR_KEEPER_MESSAGE_BYTES, "the length of the sidecar of "
                 "disk '%s' cannot be told: %s", image->disk_id,
                 strerror(-bytes));
    }
    return bytes;
}

static int coroutine_fn add_base(WeirKeeper *k, WeirJournalImage *image,
                                 char *err)
{
    int64_t bytes = sidecar_bytes(image, err);
    int ret = bytes < 0 ? bytes
                        : weir_keeper_add_base(k, image->disk_id, image, err,
                                               WEIR_KEEPER_MESSAGE_BYTES);

    return ret < 0 || !image->sidecar
           ? ret : weir_keeper_add_sidecar(k, bytes, err,
                                           WEIR_KEEPER_MESSAGE_BYTES);
}

/* A new keeper that has read the log. */
static int coroutine_fn read_keeper(BlockDriverState *bs, int64_t bytes,
                                    char *err)
{
    BDRVWeirJournalState *s = bs->opaque;
    int ret = weir_keeper_new(&s->keeper, &s->host, &s->config);

    if (ret < 0) {
        pstrcpy(err, WEIR_KEEPER_MESSAGE_BYTES, "there is no memory for it");
        return ret;
    }
    for (size_t i = 0; ret == 0 && i < s->base_count; i++) {
        ret = add_base(s->keeper, &s->bases[i], err);
    }
    if (ret == 0) {
        ret = weir_keeper_open(s->keeper, bytes, err,
                               WEIR_KEEPER_MESSAGE_BYTES);
    }
    if (ret < 0) {
        g_clear_pointer(&s->keeper, weir_keeper_free);
    }
    return ret;
}

static int coroutine_fn create_log(BlockDriverState *bs, int64_t bytes,
                                   char *err)
{
    BDRVWeirJournalState *s = bs->opaque;
    g_autofree WeirKeeperImage *images = g_new0(WeirKeeperImage,
                                                s->base_count);

    for (size_t i = 0; i < s->base_count; i++) {
        int64_t sidecar = sidecar_bytes(&s->bases[i], err);

        if (sidecar < 0) {
            return sidecar;
        }
        images[i] = (WeirKeeperImage) { s->bases[i].disk_id, &s->bases[i],
                                        sidecar };
    }
    return weir_keeper_create(&s->host, bytes, s->segment_bytes, images,
                              s->base_count, err, WEIR_KEEPER_MESSAGE_BYTES);
}

static void coroutine_fn open_keeper(void *opaque)
{
    JournalOpen *open = opaque;
    BDRVWeirJournalState *s = open->bs->opaque;
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    int64_t bytes = log_bytes(open->bs);

    if (bytes < 0) {
        open->ret = bytes;
        error_setg_errno(open->errp, -bytes, "weir-journal: Cannot tell the "
                         "length of the log");
        return;
    }
    open->ret = read_keeper(open->bs, bytes, err);
    if (open->ret == -ENOENT && s->create) {
        open->ret = create_log(open->bs, bytes, err);
        if (open->ret == 0) {
            open->ret = read_keeper(open->bs, bytes, err);
        }
    }
    if (open->ret < 0) {
        bdrv_graph_co_rdlock();
        error_setg(open->errp, "weir-journal: Node '%s': %s",
                   bdrv_get_node_name(open->bs->file->bs), err);
        bdrv_graph_co_rdunlock();
    }
}

static void coroutine_fn run_keeper(void *opaque)
{
    weir_keeper_run(opaque);
}

static int start_keeper(BlockDriverState *bs, Error **errp)
{
    BDRVWeirJournalState *s = bs->opaque;
    JournalOpen open = { .bs = bs, .errp = errp };

    weir_tasks_call_and_poll(&s->tasks, open_keeper, &open);
    if (open.ret == 0) {
        s->tasks.tasks.spawn(s->tasks.tasks.opaque, run_keeper, s->keeper);
    }
    return open.ret;
}

static void stop_keeper(BDRVWeirJournalState *s)
{
    weir_tasks_gate_open(&s->gate);
    if (s->keeper) {
        weir_keeper_stop(s->keeper);
    }
    weir_tasks_finish(&s->tasks);
    g_clear_pointer(&s->keeper, weir_keeper_free);
}

static void tell_state(void *opaque)
{
    static const WeirState states[] = {
        [WEIR_KEEPER_OK]       = WEIR_STATE_OK,
        [WEIR_KEEPER_DEGRADED] = WEIR_STATE_DEGRADED,
        [WEIR_KEEPER_FAILED]   = WEIR_STATE_FAILED,
    };
    BlockDriverState *bs = opaque;
    BDRVWeirJournalState *s = bs->opaque;
    char reason[WEIR_KEEPER_MESSAGE_BYTES];
    WeirKeeperState state;

    if (s->keeper) {
        state = weir_keeper_state(s->keeper, reason);
        weir_filter_set_state(bs, states[state],
                              state == WEIR_KEEPER_OK ? NULL : reason);
    }
}

/* --- options --- */

static void config_from_qapi(WeirKeeperConfig *config,
                             const WeirJournalOptions *opts)
{
    uint64_t retain_s = opts->has_retain_time ? opts->retain_time
                                              : RETAIN_DEFAULT_S;

    *config = (WeirKeeperConfig) {
        .retain_ns = retain_s * NANOSECONDS_PER_SECOND,
        .retain_bytes = opts->has_retain_bytes ? opts->retain_bytes : 0,
        .apply_rate = opts->has_apply_rate ? opts->apply_rate : 0,
    };
}

static WeirJournalOptions *journal_parse(QDict *options, Error **errp)
{
    WeirJournalOptions *opts = NULL;
    Visitor *v = weir_filter_options_visitor(options, journal_options, errp);

    if (v) {
        visit_type_WeirJournalOptions(v, NULL, &opts, errp);
        visit_free(v);
    }
    return opts;
}

/* Not a must. */
static int open_sidecar(BlockDriverState *bs, QDict *options, size_t i,
                        Error **errp)
{
    BDRVWeirJournalState *s = bs->opaque;
    g_autofree char *key = g_strdup_printf("bases.%zu.sidecar", i);
    Error *err = NULL;

    s->bases[i].sidecar = bdrv_open_child(NULL, options, key, bs,
                                          &child_of_bds, BDRV_CHILD_DATA, true,
                                          &err);
    if (err) {
        error_propagate(errp, err);
        return -EINVAL;
    }
    if (!s->bases[i].sidecar) {
        return 0;
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (bdrv_is_read_only(s->bases[i].sidecar->bs)) {
        error_setg(errp, "weir-journal: The sidecar '%s' is read-only",
                   bdrv_get_node_name(s->bases[i].sidecar->bs));
        return -EACCES;
    }
    return 0;
}

static int open_base(BlockDriverState *bs, QDict *options, size_t i,
                     Error **errp)
{
    BDRVWeirJournalState *s = bs->opaque;
    WeirJournalImage *image = &s->bases[i];
    g_autofree char *id_key = g_strdup_printf("bases.%zu.disk-id", i);
    g_autofree char *node_key = g_strdup_printf("bases.%zu.node", i);
    const char *disk_id = qdict_get_try_str(options, id_key);

    if (!disk_id) {
        error_setg(errp, "weir-journal: Parameter '%s' is missing", id_key);
        return -EINVAL;
    }
    image->bs = bs;
    image->disk_id = g_strdup(disk_id);
    qdict_del(options, id_key);
    image->child = bdrv_open_child(NULL, options, node_key, bs, &child_of_bds,
                                   BDRV_CHILD_DATA, false, errp);
    if (!image->child) {
        return -EINVAL;
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (bdrv_is_read_only(image->child->bs)) {
        error_setg(errp, "weir-journal: The base image '%s' is read-only",
                   bdrv_get_node_name(image->child->bs));
        return -EACCES;
    }
    return 0;
}

static int open_bases(BlockDriverState *bs, QDict *options, Error **errp)
{
    BDRVWeirJournalState *s = bs->opaque;
    int count = qdict_array_entries(options, "bases.");
    int ret = 0;

    if (count < 0) {
        error_setg(errp, "weir-journal: Parameter 'bases' is not a list");
        return -EINVAL;
    }
    s->bases = g_new0(WeirJournalImage, count);
    for (s->base_count = 0; ret == 0 && s->base_count < count;
         s->base_count++) {
        ret = open_base(bs, options, s->base_count, errp);
        ret = ret < 0 ? ret : open_sidecar(bs, options, s->base_count, errp);
    }
    return ret;
}

static void free_bases(BDRVWeirJournalState *s)
{
    for (size_t i = 0; i < s->base_count; i++) {
        g_free(s->bases[i].disk_id);
    }
    g_free(s->bases);
}

/* --- life --- */

static int check_flags(BlockDriverState *bs, int flags, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (flags & BDRV_O_INACTIVE) {
        error_setg(errp, "weir-journal: A machine that migrates in cannot "
                   "have a keeper of a replication log");
        return -ENOTSUP;
    }
    if (!(flags & BDRV_O_RDWR) || bdrv_is_read_only(bs->file->bs)) {
        error_setg(errp, "weir-journal: A replication log cannot be kept "
                   "read-only");
        return -EACCES;
    }
    return 0;
}

static void journal_uninit(BlockDriverState *bs)
{
    BDRVWeirJournalState *s = bs->opaque;

    stop_keeper(s);
    g_clear_pointer(&s->state_bh, qemu_bh_delete);
    free_bases(s);
    weir_tasks_gate_destroy(&s->gate);
    weir_filter_close(bs);
}

/* Its own flags are nothing: it is this driver that flushes. */
static int check_durable(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    QLIST_FOREACH(c, &bs->children, next) {
        if (weir_filter_is_unsafe(c->bs)) {
            error_setg(errp, "weir-journal: Node '%s', or one below, is opened "
                       "with cache.no-flush: what the source is told to be "
                       "durable would not be", bdrv_get_node_name(c->bs));
            return -EINVAL;
        }
    }
    return 0;
}

static int journal_open(BlockDriverState *bs, QDict *options, int flags,
                        Error **errp)
{
    BDRVWeirJournalState *s = bs->opaque;
    g_autoptr(WeirJournalOptions) opts = journal_parse(options, errp);
    int ret;

    if (!opts) {
        return -EINVAL;
    }
    config_from_qapi(&s->config, opts);
    s->create = opts->create;
    s->segment_bytes = opts->has_segment_size ? opts->segment_size : 0;
    weir_tasks_init(&s->tasks);
    weir_tasks_gate_init(&s->gate);
    ret = weir_filter_open(bs, options, errp);
    if (ret < 0) {
        weir_tasks_gate_destroy(&s->gate);
        return ret;
    }
    s->state_bh = qemu_bh_new(tell_state, bs);
    weir_journal_host_init(bs);
    ret = check_flags(bs, flags, errp);
    ret = ret < 0 ? ret : open_bases(bs, options, errp);
    ret = ret < 0 ? ret : check_durable(bs, errp);
    ret = ret < 0 ? ret : start_keeper(bs, errp);
    if (ret < 0) {
        journal_uninit(bs);
        return ret;
    }
    qemu_bh_schedule(s->state_bh);
    return 0;
}

static int GRAPH_RDLOCK journal_inactivate(BlockDriverState *bs)
{
    return -ENOTSUP;
}

static int journal_reopen_prepare(BDRVReopenState *state,
                                  BlockReopenQueue *queue, Error **errp)
{
    BDRVWeirJournalState *s = state->bs->opaque;
    g_autoptr(WeirJournalOptions) opts = journal_parse(state->options, errp);
    WeirKeeperConfig *config;

    if (!opts) {
        return -EINVAL;
    }
    if (!(state->flags & BDRV_O_RDWR)) {
        error_setg(errp, "weir-journal: A replication log cannot be kept "
                   "read-only");
        return -EACCES;
    }
    if (opts->create != s->create ||
        (opts->has_segment_size ? opts->segment_size : 0) !=
        s->segment_bytes) {
        error_setg(errp, "weir-journal: create and segment-size cannot be "
                   "changed while the node is open");
        return -EINVAL;
    }
    config = g_new(WeirKeeperConfig, 1);
    config_from_qapi(config, opts);
    state->opaque = config;
    return 0;
}

static void journal_reopen_commit(BDRVReopenState *state)
{
    BDRVWeirJournalState *s = state->bs->opaque;
    g_autofree WeirKeeperConfig *config = g_steal_pointer(&state->opaque);

    s->config = *config;
    weir_keeper_set_config(s->keeper, config);
}

static void journal_reopen_abort(BDRVReopenState *state)
{
    g_clear_pointer(&state->opaque, g_free);
}

static void GRAPH_RDLOCK journal_refresh_limits(BlockDriverState *bs,
                                                Error **errp)
{
    /* a packet comes in one request */
    bs->bl.request_alignment = WEIR_LOG_ALIGN_BYTES;
    bs->bl.max_transfer = WEIR_LOG_PACKET_BYTES_MAX;
    bs->bl.opt_transfer = 0;
}

static void journal_drain_begin(BlockDriverState *bs)
{
    BDRVWeirJournalState *s = bs->opaque;

    weir_tasks_gate_drain_begin(&s->gate);
}

static void journal_drain_end(BlockDriverState *bs)
{
    BDRVWeirJournalState *s = bs->opaque;

    weir_tasks_gate_drain_end(&s->gate);
}

/* --- requests --- */

typedef struct JournalRequest {
    WeirKeeper *keeper;
    WeirIoOp op;
    uint64_t offset, bytes;
    struct iovec iov;
    int ret;
} JournalRequest;

static void coroutine_fn do_request(void *opaque)
{
    JournalRequest *r = opaque;

    switch (r->op) {
    case WEIR_IO_READ:
        r->ret = weir_keeper_read(r->keeper, r->offset, r->bytes,
                                  r->iov.iov_base);
        break;
    case WEIR_IO_WRITE:
        r->ret = weir_keeper_write(r->keeper, r->offset, r->bytes, &r->iov, 1,
                                   NULL, 0);
        break;
    default:
        r->ret = weir_keeper_flush(r->keeper);
        break;
    }
    /* NBD would make EINVAL of it */
    r->ret = r->ret == -EBUSY ? -ESHUTDOWN : r->ret;
}

/* All that the keeper does is done in the main thread: see weir-tasks.h. */
static int coroutine_fn keeper_request(BlockDriverState *bs, JournalRequest *r)
{
    BDRVWeirJournalState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, r->op);

    r->keeper = s->keeper;
    weir_tasks_gate_request_begin(&s->gate);
    weir_tasks_call(&s->tasks, do_request, r);
    weir_tasks_gate_request_end(&s->gate);
    return weir_filter_end(&s->filter, r->op, r->bytes, begin_ns, r->ret);
}

static int coroutine_fn GRAPH_RDLOCK
journal_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset,
                       BdrvRequestFlags flags)
{
    JournalRequest r = {
        .op = WEIR_IO_READ, .offset = offset, .bytes = bytes,
        .iov = { .iov_base = qemu_try_blockalign(bs->file->bs, bytes),
                 .iov_len = bytes },
    };
    int ret;

    if (!r.iov.iov_base) {
        return -ENOMEM;
    }
    ret = keeper_request(bs, &r);
    if (ret == 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, r.iov.iov_base, bytes);
    }
    qemu_vfree(r.iov.iov_base);
    return ret;
}

/*
 * From a copy: what is checked is what is written, whatever a client does with
 * its memory meanwhile.
 */
static int coroutine_fn GRAPH_RDLOCK
journal_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        BdrvRequestFlags flags)
{
    JournalRequest r = {
        .op = WEIR_IO_WRITE, .offset = offset, .bytes = bytes,
        .iov = { .iov_base = qemu_try_blockalign(bs->file->bs, bytes),
                 .iov_len = bytes },
    };
    int ret;

    if (!r.iov.iov_base) {
        return -ENOMEM;
    }
    qemu_iovec_to_buf(qiov, qiov_offset, r.iov.iov_base, bytes);
    ret = keeper_request(bs, &r);
    qemu_vfree(r.iov.iov_base);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
journal_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         BdrvRequestFlags flags)
{
    BDRVWeirJournalState *s = bs->opaque;

    weir_keeper_refuse(s->keeper);
    return -EINVAL;
}

static int coroutine_fn GRAPH_RDLOCK
journal_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVWeirJournalState *s = bs->opaque;

    weir_keeper_refuse(s->keeper);
    return -EINVAL;
}

static int coroutine_fn GRAPH_RDLOCK journal_co_flush(BlockDriverState *bs)
{
    JournalRequest r = { .op = WEIR_IO_FLUSH };

    return keeper_request(bs, &r);
}

static int64_t coroutine_fn GRAPH_RDLOCK
journal_co_getlength(BlockDriverState *bs)
{
    int64_t bytes = bdrv_co_getlength(bs->file->bs);

    return bytes < 0 ? bytes : ROUND_DOWN(bytes, WEIR_LOG_ALIGN_BYTES);
}

/* Of the log: QEMU would add the base images to it. */
static int64_t coroutine_fn GRAPH_RDLOCK
journal_co_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_co_get_allocated_file_size(bs->file->bs);
}

/* --- figures --- */

static char *uuid_string(const uint8_t *bytes)
{
    QemuUUID uuid;

    memcpy(uuid.data, bytes, sizeof(uuid.data));
    return qemu_uuid_unparse_strdup(&uuid);
}

/* False: there is none. */
static bool sidecar_status(WeirKeeperSidecar sidecar,
                           WeirJournalSidecarStatus *status)
{
    *status = sidecar == WEIR_KEEPER_SIDECAR_DISK
              ? WEIR_JOURNAL_SIDECAR_STATUS_DISK :
              sidecar == WEIR_KEEPER_SIDECAR_FAILED
              ? WEIR_JOURNAL_SIDECAR_STATUS_FAILED
              : WEIR_JOURNAL_SIDECAR_STATUS_BASE;
    return sidecar != WEIR_KEEPER_SIDECAR_NONE;
}

static WeirJournalDiskInfoList *query_disks(BDRVWeirJournalState *s)
{
    WeirJournalDiskInfoList *list = NULL;
    WeirKeeperDisk disk;

    for (int i = WEIR_LOG_DISKS_MAX - 1; i >= 0; i--) {
        WeirJournalDiskInfo *info;

        if (!weir_keeper_disk(s->keeper, i, &disk)) {
            continue;
        }
        info = g_new0(WeirJournalDiskInfo, 1);
        info->disk_id = g_strdup(disk.what.name);
        info->uuid = uuid_string(disk.what.uuid);
        info->size = disk.bytes;
        if (disk.base) {
            WeirJournalImage *image = disk.base;

            info->base = g_strdup(bdrv_get_node_name(image->child->bs));
        }
        info->has_sidecar = sidecar_status(disk.sidecar, &info->sidecar);
        QAPI_LIST_PREPEND(list, info);
    }
    return list;
}

static void journal_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    BDRVWeirJournalState *s = bs->opaque;
    WeirJournalInfo *out = &node->u.weir_journal;
    WeirKeeperInfo info;

    weir_keeper_info(s->keeper, &info);
    out->group = uuid_string(info.group);
    out->generation = info.generation;
    out->epoch = info.epoch;
    out->durable_epoch = info.durable_epoch;
    out->applied_epoch = info.applied_epoch;
    out->point_epoch = info.point_epoch;
    out->points = info.points;
    out->size = info.size_bytes;
    out->used_bytes = info.used_bytes;
    out->views = info.views;
    out->refused = info.refused;
    out->disks = query_disks(s);
}

static WeirFilterDriver journal_filter = {
    .format_name = "weir-journal",
    .driver      = WEIR_DRIVER_WEIR_JOURNAL,
    .query       = journal_query,
    .points      = weir_journal_points,
    .promote     = weir_journal_promote,
};

/*
 * No .bdrv_co_block_status: a log is data.  No .bdrv_co_truncate: its length is
 * in its superblock.
 */
static BlockDriver bdrv_weir_journal = {
    .format_name                = "weir-journal",
    .instance_size              = sizeof(BDRVWeirJournalState),

    .bdrv_open                  = journal_open,
    .bdrv_close                 = journal_uninit,
    .bdrv_child_perm            = journal_child_perm,
    .bdrv_refresh_limits        = journal_refresh_limits,
    .bdrv_reopen_prepare        = journal_reopen_prepare,
    .bdrv_reopen_commit         = journal_reopen_commit,
    .bdrv_reopen_abort          = journal_reopen_abort,
    .strong_runtime_opts        = journal_strong_options,
    .mutable_opts               = journal_mutable_options,
    .bdrv_inactivate            = journal_inactivate,
    .bdrv_drain_begin           = journal_drain_begin,
    .bdrv_drain_end             = journal_drain_end,

    .bdrv_co_getlength          = journal_co_getlength,
    .bdrv_co_preadv_part        = journal_co_preadv_part,
    .bdrv_co_pwritev_part       = journal_co_pwritev_part,
    .bdrv_co_pwrite_zeroes      = journal_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = journal_co_pdiscard,
    .bdrv_co_flush              = journal_co_flush,
    .bdrv_co_get_allocated_file_size = journal_co_get_allocated_file_size,
};

static void weir_journal_init(void)
{
    weir_filter_register(&journal_filter);
    bdrv_register(&bdrv_weir_journal);
}

block_init(weir_journal_init);

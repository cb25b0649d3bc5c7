/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-attach and weir-detach: put a filter into the graph of a disk that may
 * be in use, and take it out.
 *
 * attach: drain the node -> open the filter above it -> move the users over.
 * detach: let the driver finish -> drain -> move the users back -> delete.
 *
 * Opening and moving happen in one drained section, so no request of the
 * guest can pass by a filter that has already looked at the node, and the
 * filter's background work does not start before the filter is in place.
 *
 * A driver may have much to finish: then a job waits until that is nearly done,
 * with the guest at work, and only the rest is done while all wait.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-core.h"
#include "qapi/qapi-commands-weir.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-output-visitor.h"
#include "qemu/job.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "filter.h"

/*
 * Let @bs be replaced (or not) although it is the backing file of overlays.
 * A filter passes the data of a backing file on as it is, so there is no
 * reason to keep its users from having one.
 */
static void GRAPH_RDLOCK allow_overlays(BlockDriverState *bs, bool allow)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        BlockDriverState *parent;

        if (c->klass != &child_of_bds || !(c->role & BDRV_CHILD_COW)) {
            continue;
        }
        parent = c->opaque;
        if (allow) {
            bdrv_op_unblock(bs, BLOCK_OP_TYPE_REPLACE, parent->backing_blocker);
        } else {
            bdrv_op_block(bs, BLOCK_OP_TYPE_REPLACE, parent->backing_blocker);
        }
    }
}

/* Whether a block job, or the like, holds on to @bs. */
static bool is_busy(BlockDriverState *bs, Error **errp)
{
    bool busy;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    allow_overlays(bs, true);
    busy = bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_REPLACE, errp);
    allow_overlays(bs, false);
    return busy;
}

/*
 * Whether @qdev is the id or the QOM path of @blk's device.  The device that
 * an operator names is virtio-blk-pci, the one that holds the backend is its
 * child "virtio-backend".
 */
static bool blk_is_of_device(BlockBackend *blk, const char *qdev)
{
    g_autofree char *id = blk_get_attached_dev_id(blk);
    g_autofree char *nested = g_strdup_printf(
        "/machine/peripheral/%s/virtio-backend", qdev);

    return blk_get_attached_dev(blk) &&
           (!strcmp(id, qdev) || !strcmp(id, nested));
}

static BlockBackend *find_device_blk(const char *qdev, BlockDriverState *bs,
                                     Error **errp)
{
    BlockBackend *blk = NULL;

    while ((blk = blk_all_next(blk))) {
        if (!blk_is_of_device(blk, qdev)) {
            continue;
        }
        if (blk_bs(blk) != bs) {
            error_setg(errp, "Device '%s' does not use node '%s' directly",
                       qdev, bdrv_get_node_name(bs));
            return NULL;
        }
        return blk;
    }
    error_setg(errp, "Device '%s' not found, or it has no disk", qdev);
    return NULL;
}

/* The open flags of a filter above @bs: those of @bs, unless @opts differ. */
static int filter_flags(BlockDriverState *bs, const BlockdevOptions *opts)
{
    int flags = bs->open_flags & (BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NOCACHE |
                                  BDRV_O_NO_FLUSH | BDRV_O_INACTIVE);

    if (opts->has_read_only) {
        flags &= ~BDRV_O_RDWR;
        flags |= opts->read_only ? 0 : BDRV_O_RDWR;
    }
    if (opts->has_discard) {
        flags &= ~BDRV_O_UNMAP;
        flags |= opts->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP ?
                 BDRV_O_UNMAP : 0;
    }
    if (opts->cache && opts->cache->has_direct) {
        flags &= ~BDRV_O_NOCACHE;
        flags |= opts->cache->direct ? BDRV_O_NOCACHE : 0;
    }
    if (opts->cache && opts->cache->has_no_flush) {
        flags &= ~BDRV_O_NO_FLUSH;
        flags |= opts->cache->no_flush ? BDRV_O_NO_FLUSH : 0;
    }
    return flags;
}

/* The driver's own options, flat, as .bdrv_open wants them. */
static QDict *driver_options(BlockdevOptions *opts)
{
    /* these are in filter_flags() or in the node itself */
    static const char *const common[] = {
        "driver", "node-name", "discard", "cache.direct", "cache.no-flush",
        "read-only", "detect-zeroes", NULL
    };
    QObject *obj = NULL;
    QDict *options;
    Visitor *v;

    v = qobject_output_visitor_new(&obj);
    visit_type_BlockdevOptions(v, NULL, &opts, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    options = qobject_to(QDict, obj);
    qdict_flatten(options);
    for (const char *const *name = common; *name; name++) {
        qdict_del(options, *name);
    }
    return options;
}

static bool check_attach_options(const BlockdevOptions *opts, Error **errp)
{
    const char *driver = BlockdevDriver_str(opts->driver);
    BlockDriver *drv;

    if (!opts->node_name) {
        error_setg(errp, "Parameter 'filter.node-name' is missing");
        return false;
    }
    if (opts->has_active || opts->has_auto_read_only || opts->has_force_share) {
        error_setg(errp, "Parameters 'active', 'auto-read-only' and "
                   "'force-share' cannot be given for an attached filter");
        return false;
    }
    drv = bdrv_find_format(driver);         /* loads the module */
    if (!drv || !weir_filter_find_driver(driver)) {
        error_setg(errp, "Driver '%s' is not a weir filter, or its module is "
                   "not installed", driver);
        return false;
    }
    if (bdrv_find_node(opts->node_name)) {
        error_setg(errp, "Node name '%s' is in use", opts->node_name);
        return false;
    }
    return true;
}

/* Whether node @opts would be opened on is @bs; so nothing is half opened. */
static bool check_filtered_node(const QDict *options, BlockDriverState *bs,
                                Error **errp)
{
    const char *file = qdict_get_try_str(options, "file");

    if (!file || bdrv_find_node(file) != bs) {
        error_setg(errp, "Parameter 'filter.file' must be a reference to "
                   "node '%s'", bdrv_get_node_name(bs));
        return false;
    }
    return true;
}

/*
 * QEMU opens a node in the main loop's AioContext and lets what the node
 * refers to follow it there, if all users allow that: exports do.  When a node
 * is deleted, the same happens again.  So keep each BlockBackend where it is
 * meanwhile; a new node then goes to the AioContext of the disk.
 */
static GSList *pin_aio_contexts(void)
{
    GSList *pinned = NULL;
    BlockBackend *blk = NULL;

    while ((blk = blk_all_next(blk))) {
        if (blk_set_allow_aio_context_change(blk, false)) {
            blk_ref(blk);
            pinned = g_slist_prepend(pinned, blk);
        }
    }
    return pinned;
}

static void unpin_aio_contexts(GSList *pinned)
{
    for (GSList *e = pinned; e; e = e->next) {
        blk_set_allow_aio_context_change(e->data, true);
        blk_unref(e->data);
    }
    g_slist_free(pinned);
}

/*
 * Move the users of @from to @to: all of them, or just @blk.  Both are
 * drained.
 */
static int move_parents(BlockDriverState *from, BlockDriverState *to,
                        BlockBackend *blk, Error **errp)
{
    int ret;

    if (blk) {
        return blk_replace_bs(blk, to, errp);   /* locks by itself */
    }
    bdrv_drained_begin(to);
    bdrv_graph_wrlock();
    ret = bdrv_replace_node(from, to, errp);
    bdrv_graph_wrunlock();
    bdrv_drained_end(to);
    return ret;
}

/* Users have been told how long the disk is, and what lies where. */
static bool has_same_length(BlockDriverState *bs, BlockDriverState *top,
                            Error **errp)
{
    int64_t before, after;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    before = bdrv_getlength(bs);
    after = bdrv_getlength(top);
    if (before != after) {
        error_setg(errp, "Filter '%s' would make the disk %" PRId64 " bytes "
                   "long, while node '%s' is %" PRId64 " bytes long and in "
                   "use", bdrv_get_node_name(top), after,
                   bdrv_get_node_name(bs), before);
    }
    return before == after;
}

/*
 * Opening by driver leaves a node with the options that the driver did not
 * take.  blockdev-reopen compares with all that were given, but for those of
 * children that it has opened, which are theirs.
 */
static void remember_options(BlockDriverState *top, const QDict *options)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    BdrvChild *child;

    qobject_unref(top->options);
    qobject_unref(top->explicit_options);
    top->options = qdict_clone_shallow(options);
    qdict_put_str(top->options, "driver", top->drv->format_name);
    qdict_put_str(top->options, "node-name", bdrv_get_node_name(top));
    QLIST_FOREACH(child, &top->children, next) {
        g_autofree char *prefix = g_strconcat(child->name, ".", NULL);

        qdict_extract_subqdict(top->options, NULL, prefix);
    }
    top->explicit_options = qdict_clone_shallow(top->options);
}

/*
 * @bs is drained.  Not by bdrv_open(), as blockdev-add does: it probes "file"
 * through a temporary BlockBackend, and dropping that one drains below the
 * graph's write lock.
 */
static BlockDriverState *open_and_insert(BlockDriverState *bs,
                                         const BlockdevOptions *opts,
                                         QDict *options, BlockBackend *blk,
                                         Error **errp)
{
    BlockDriver *drv = bdrv_find_format(BlockdevDriver_str(opts->driver));
    g_autoptr(QDict) given = qdict_clone_shallow(options);
    BlockDriverState *top;

    top = bdrv_new_open_driver_opts(drv, opts->node_name, options,
                                    filter_flags(bs, opts), errp);
    if (!top) {
        return NULL;
    }
    remember_options(top, given);
    top->detect_zeroes = opts->has_detect_zeroes ?
        opts->detect_zeroes : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
    if (bdrv_get_aio_context(top) != bdrv_get_aio_context(bs)) {
        error_setg(errp, "Filter '%s' did not follow node '%s' into its "
                   "I/O thread", opts->node_name, bdrv_get_node_name(bs));
    } else if (has_same_length(bs, top, errp) &&
               move_parents(bs, top, blk, errp) == 0) {
        weir_filter_set_in_use(top);
        return top;
    }
    bdrv_unref(top);
    return NULL;
}

void qmp_weir_attach(const char *node_name, BlockdevOptions *filter,
                     const char *qdev, Error **errp)
{
    g_autoptr(QDict) options = NULL;
    BlockDriverState *bs, *top;
    BlockBackend *blk = NULL;
    GSList *pinned;

    GLOBAL_STATE_CODE();

    bs = bdrv_find_node(node_name);
    if (!bs) {
        error_setg(errp, "Node '%s' not found", node_name);
        return;
    }
    if (!check_attach_options(filter, errp)) {
        return;
    }
    options = driver_options(filter);
    if (!check_filtered_node(options, bs, errp)) {
        return;
    }
    if (qdev) {
        blk = find_device_blk(qdev, bs, errp);
        if (!blk) {
            return;
        }
    }
    if (is_busy(bs, errp)) {
        return;
    }

    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    pinned = pin_aio_contexts();
    top = open_and_insert(bs, filter, g_steal_pointer(&options), blk, errp);
    if (top) {
        bdrv_set_monitor_owned(top);        /* takes over our reference */
    }
    unpin_aio_contexts(pinned);
    bdrv_drained_end(bs);
    bdrv_unref(bs);
}

/* Whether only its users, and the monitor, hold @bs. */
static bool is_held_by_others(BlockDriverState *bs)
{
    int n = QTAILQ_IN_USE(bs, monitor_list) ? 1 : 0;
    BdrvChild *c;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        n++;
    }
    return bs->refcnt != n;
}

static BlockDriverState *find_filter(const char *node_name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name);

    if (!bs) {
        error_setg(errp, "Node '%s' not found", node_name);
        return NULL;
    }
    if (!weir_filter_driver(bs)) {
        error_setg(errp, "Node '%s' is not a weir filter", node_name);
        return NULL;
    }
    return bs;
}

static BlockDriverState *filtered_node(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return weir_filter_child(bs);
}

/*
 * Bring the users of @bs back to @child and delete @bs, all with the disk
 * drained: closing a node drains with the graph's write lock held, and would
 * wait there for requests that need the read lock to go on.
 */
static void remove_and_delete(BlockDriverState *bs, BlockDriverState *child,
                              Error **errp)
{
    bool is_monitor_owned = QTAILQ_IN_USE(bs, monitor_list);
    GSList *pinned;
    int ret;

    bdrv_ref(child);
    bdrv_ref(bs);
    bdrv_drained_begin(child);              /* and all above it */
    pinned = pin_aio_contexts();
    ret = move_parents(bs, child, NULL, errp);
    bdrv_unref(bs);                 /* frees it, if the monitor has no part */
    if (ret == 0 && is_monitor_owned) {
        qmp_blockdev_del(bdrv_get_node_name(bs), errp);
    }
    unpin_aio_contexts(pinned);
    bdrv_drained_end(child);
    bdrv_unref(child);
}

/* The filter, if it can be taken out now; else NULL with @errp set. */
static BlockDriverState *find_detachable(const char *node_name, Error **errp)
{
    BlockDriverState *bs = find_filter(node_name, errp);

    if (!bs || is_busy(bs, errp)) {
        return NULL;
    }
    if (is_held_by_others(bs)) {
        error_setg(errp, "Node '%s' is in use", node_name);
        return NULL;
    }
    return bs;
}

static void detach_now(const char *node_name, bool force, Error **errp)
{
    BlockDriverState *bs = find_detachable(node_name, errp);
    WeirFilterDriver *driver;

    if (!bs) {
        return;
    }
    driver = weir_filter_driver(bs);
    if (driver->prepare_detach &&
        driver->prepare_detach(bs, force, errp) < 0) {
        return;
    }
    remove_and_delete(bs, filtered_node(bs), errp);
}

/* --- weir-detach as a job --- */

#define DETACH_LOOK_NS (100 * SCALE_MS)

typedef struct DetachJob {
    Job common;                 /* in the main loop's AioContext */
    char *node_name;            /* set at creation */
    bool force;                 /* set at creation */
} DetachJob;

/* The driver of the job's node, as long as there is one. */
static WeirFilterDriver *detach_driver(DetachJob *job, BlockDriverState **bs)
{
    *bs = bdrv_find_node(job->node_name);
    return *bs ? weir_filter_driver(*bs) : NULL;
}

/* Wait until nothing is left to bring down, or it is cancelled. */
static int coroutine_fn detach_run(Job *common, Error **errp)
{
    DetachJob *job = container_of(common, DetachJob, common);
    uint64_t left, before = 0;

    while (!job_is_cancelled(common)) {
        BlockDriverState *bs;
        WeirFilterDriver *driver = detach_driver(job, &bs);

        left = driver && driver->handover_left ? driver->handover_left(bs) : 0;
        if (left < before) {
            job_progress_update(common, before - left);
        }
        job_progress_set_remaining(common, left);
        if (!left) {
            break;
        }
        before = left;
        job_sleep_ns(common, DETACH_LOOK_NS);
    }
    return 0;
}

static int detach_prepare(Job *common)
{
    DetachJob *job = container_of(common, DetachJob, common);
    Error *err = NULL;

    detach_now(job->node_name, job->force, &err);
    if (!err) {
        return 0;
    }
    WITH_JOB_LOCK_GUARD() {
        error_propagate(&common->err, err);
    }
    return -EIO;
}

static void detach_abort(Job *common)
{
    DetachJob *job = container_of(common, DetachJob, common);
    BlockDriverState *bs;
    WeirFilterDriver *driver = detach_driver(job, &bs);

    if (driver && driver->cancel_handover) {
        driver->cancel_handover(bs);
    }
}

static void detach_free(Job *common)
{
    g_free(container_of(common, DetachJob, common)->node_name);
}

static const JobDriver detach_job_driver = {
    .instance_size = sizeof(DetachJob),
    .job_type      = JOB_TYPE_WEIR_DETACH,
    .run           = detach_run,
    .prepare       = detach_prepare,
    .abort         = detach_abort,
    .free          = detach_free,
};

static void detach_in_job(BlockDriverState *bs, const char *job_id, bool force,
                          Error **errp)
{
    WeirFilterDriver *driver = weir_filter_driver(bs);
    DetachJob *job = job_create(job_id, &detach_job_driver, NULL,
                                qemu_get_aio_context(), JOB_MANUAL_DISMISS,
                                NULL, NULL, errp);

    if (!job) {
        return;
    }
    job->node_name = g_strdup(bdrv_get_node_name(bs));
    job->force = force;
    if (driver->begin_handover) {
        driver->begin_handover(bs);
    }
    job_start(&job->common);
}

void qmp_weir_detach(const char *node_name, const char *job_id,
                     bool has_force, bool force, Error **errp)
{
    GLOBAL_STATE_CODE();

    if (job_id) {
        BlockDriverState *bs = find_detachable(node_name, errp);

        if (bs) {
            detach_in_job(bs, job_id, force, errp);
        }
    } else {
        detach_now(node_name, force, errp);
    }
}

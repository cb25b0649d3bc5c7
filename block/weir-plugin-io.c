/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a plugin calls: I/O on the node below and on its sidecar, waiting, work
 * in the background, and reports.
 *
 * A callback of a request or of the disk's life runs with the graph locked.  A
 * task does not: it locks the graph for single requests, and waits for the end
 * of drained sections before (weir-tasks.h).
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "compat.h"
#include "weir-plugin-host.h"

WeirHostIo weir_plugin_io(BDRVWeirPluginState *s)
{
    return (WeirHostIo) {
        .io = { .host = &weir_plugin_host, .disk = &s->disk }, .s = s,
        .co = qemu_coroutine_self(),
    };
}

static WeirHostIo *host_io(WeirPluginIo *io)
{
    return container_of(io, WeirHostIo, io);
}

static BDRVWeirPluginState *disk_state(WeirPluginDisk *disk)
{
    return container_of(disk, BDRVWeirPluginState, disk);
}

/* Whether it is the callback's own, and not that of somebody else. */
static bool is_in_place(const WeirHostIo *io)
{
    if (likely(io->co == qemu_coroutine_self())) {
        return true;
    }
    error_report_once("weir-plugin: Plugin '%s' has used an io outside of the "
                      "callback that it was given to", io->s->plugin->name);
    return false;
}

/* --- I/O on nodes --- */

/* One call of the plugin on a node. */
typedef struct Op {
    WeirHostIo *io;
    BdrvChild *child;
    bool is_fenced;             /* counted with the holds */
} Op;

static void coroutine_fn TSA_NO_TSA lock_graph(WeirHostIo *io)
{
    if (io->is_task) {
        weir_tasks_io_begin(&io->s->gate, io->s->bs);
    }
}

static void coroutine_fn TSA_NO_TSA unlock_graph(WeirHostIo *io)
{
    if (io->is_task) {
        weir_tasks_io_end(&io->s->gate, io->s->bs);
    }
}

static int GRAPH_RDLOCK find_child(Op *op, uint32_t node)
{
    BDRVWeirPluginState *s = op->io->s;

    op->child = node == WEIR_PLUGIN_NEXT ? s->bs->file :
                node == WEIR_PLUGIN_SIDECAR ? s->sidecar : NULL;
    if (!op->child) {
        return -ENODEV;
    }
    /* in this order: the latter changes before the former */
    return !qatomic_load_acquire(&s->taking_over) &&
           qatomic_read(&s->inactive) ? -ESHUTDOWN : 0;
}

static int coroutine_fn GRAPH_RDLOCK check_range(Op *op, uint64_t offset,
                                                 uint64_t bytes)
{
    int64_t length = bdrv_co_getlength(op->child->bs);

    if (length < 0) {
        return length;
    }
    return offset > (uint64_t)length || bytes > (uint64_t)length - offset
           ? -EIO : 0;
}

/* Not to the node below while a request that has expired is not given back. */
static int GRAPH_RDLOCK check_write(Op *op, uint32_t flags)
{
    uint64_t perm = BLK_PERM_WRITE | (flags & WEIR_PLUGIN_UNCHANGED ?
                                      BLK_PERM_WRITE_UNCHANGED : 0);
    int ret;

    if (bdrv_is_read_only(op->child->bs) || !(op->child->perm & perm)) {
        return -EACCES;
    }
    if (op->child != op->io->s->bs->file) {
        return 0;
    }
    ret = weir_holds_write_begin(op->io->s->holds);
    op->is_fenced = ret == 0;
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK op_begin(Op *op, uint32_t node,
                                              uint64_t offset, uint64_t bytes)
{
    int ret = find_child(op, node);

    return ret < 0 ? ret : check_range(op, offset, bytes);
}

static int coroutine_fn GRAPH_RDLOCK
op_begin_write(Op *op, uint32_t node, uint64_t offset, uint64_t bytes,
               uint32_t flags)
{
    int ret = op_begin(op, node, offset, bytes);

    return ret < 0 ? ret : check_write(op, flags);
}

/* Returns ret, but no positive number. */
static int op_end(Op *op, int ret)
{
    if (op->is_fenced) {
        weir_holds_write_end(op->io->s->holds);
    }
    return MIN(ret, 0);
}

static BdrvRequestFlags write_flags(uint32_t flags)
{
    return (flags & WEIR_PLUGIN_FUA ? BDRV_REQ_FUA : 0) |
           (flags & WEIR_PLUGIN_UNCHANGED ? BDRV_REQ_WRITE_UNCHANGED : 0);
}

static BdrvRequestFlags zero_flags(uint32_t flags)
{
    return write_flags(flags) |
           (flags & WEIR_PLUGIN_MAY_UNMAP ? BDRV_REQ_MAY_UNMAP : 0) |
           (flags & WEIR_PLUGIN_NO_FALLBACK ? BDRV_REQ_NO_FALLBACK : 0);
}

/* Memory as a plugin describes it, who may have forgotten to look at it. */
static int init_qiov(QEMUIOVector *qiov, const struct iovec *iov,
                     uint32_t count)
{
    uint64_t bytes = 0;

    if (count > IOV_MAX || (count && !iov)) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (iov[i].iov_len > BDRV_MAX_LENGTH - bytes ||
            (iov[i].iov_len && !iov[i].iov_base)) {
            return -EINVAL;
        }
        bytes += iov[i].iov_len;
    }
    qemu_iovec_init_external(qiov, (struct iovec *)iov, count);
    return 0;
}

static int coroutine_fn TSA_NO_TSA host_length(WeirPluginIo *io, uint32_t node,
                                               uint64_t *bytes)
{
    Op op = { .io = host_io(io) };
    int64_t length;

    *bytes = 0;
    if (!is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    length = find_child(&op, node);
    if (length == 0) {
        length = bdrv_co_getlength(op.child->bs);
    }
    unlock_graph(op.io);
    *bytes = MAX(length, 0);
    return MIN(length, 0);
}

static int coroutine_fn TSA_NO_TSA host_readv(WeirPluginIo *io, uint32_t node,
                                              uint64_t offset,
                                              const struct iovec *iov,
                                              uint32_t iov_count)
{
    Op op = { .io = host_io(io) };
    QEMUIOVector qiov;
    int ret = init_qiov(&qiov, iov, iov_count);

    if (ret < 0 || !is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = op_begin(&op, node, offset, qiov.size);
    if (ret == 0) {
        ret = bdrv_co_preadv(op.child, offset, qiov.size, &qiov, 0);
    }
    ret = op_end(&op, ret);
    unlock_graph(op.io);
    return ret;
}

static int coroutine_fn TSA_NO_TSA host_writev(WeirPluginIo *io, uint32_t node,
                                               uint64_t offset,
                                               const struct iovec *iov,
                                               uint32_t iov_count,
                                               uint32_t flags)
{
    Op op = { .io = host_io(io) };
    QEMUIOVector qiov;
    int ret = init_qiov(&qiov, iov, iov_count);

    if (ret < 0 || !is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = op_begin_write(&op, node, offset, qiov.size, flags);
    if (ret == 0) {
        ret = bdrv_co_pwritev(op.child, offset, qiov.size, &qiov,
                              write_flags(flags));
    }
    ret = op_end(&op, ret);
    unlock_graph(op.io);
    return ret;
}

static int coroutine_fn TSA_NO_TSA host_zero(WeirPluginIo *io, uint32_t node,
                                             uint64_t offset, uint64_t bytes,
                                             uint32_t flags)
{
    Op op = { .io = host_io(io) };
    int ret;

    if (!is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = op_begin_write(&op, node, offset, bytes, flags);
    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(op.child, offset, bytes,
                                    zero_flags(flags));
    }
    ret = op_end(&op, ret);
    unlock_graph(op.io);
    return ret;
}

static int coroutine_fn TSA_NO_TSA host_discard(WeirPluginIo *io,
                                                uint32_t node,
                                                uint64_t offset,
                                                uint64_t bytes)
{
    Op op = { .io = host_io(io) };
    int ret;

    if (!is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = op_begin_write(&op, node, offset, bytes, 0);
    if (ret == 0) {
        ret = bdrv_co_pdiscard(op.child, offset, bytes);
    }
    ret = op_end(&op, ret);
    unlock_graph(op.io);
    return ret;
}

static int coroutine_fn TSA_NO_TSA host_flush(WeirPluginIo *io, uint32_t node)
{
    Op op = { .io = host_io(io) };
    int ret;

    if (!is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = find_child(&op, node);
    if (ret == 0) {
        ret = bdrv_co_flush(op.child->bs);
    }
    unlock_graph(op.io);
    return MIN(ret, 0);
}

static int coroutine_fn TSA_NO_TSA
host_block_status(WeirPluginIo *io, uint32_t node, uint64_t offset,
                  uint64_t bytes, WeirPluginStatus *status)
{
    Op op = { .io = host_io(io) };
    int64_t same = bytes;
    int ret;

    if (!is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = op_begin(&op, node, offset, bytes);
    if (ret == 0) {
        ret = bdrv_co_block_status_above(op.child->bs, NULL, offset, bytes,
                                         &same, NULL, NULL);
    }
    unlock_graph(op.io);
    *status = (WeirPluginStatus) {
        .bytes = same,
        .flags = ret >= 0 && ret & BDRV_BLOCK_ZERO ? WEIR_PLUGIN_STATUS_ZERO
                                                   : 0,
    };
    return MIN(ret, 0);
}

static int coroutine_fn TSA_NO_TSA host_resize(WeirPluginIo *io, uint32_t node,
                                               uint64_t bytes)
{
    Op op = { .io = host_io(io) };
    int ret;

    if (!is_in_place(op.io)) {
        return -EINVAL;
    }
    lock_graph(op.io);
    ret = find_child(&op, node);
    if (ret == 0 && (node != WEIR_PLUGIN_SIDECAR || bytes > INT64_MAX ||
                     bdrv_is_read_only(op.child->bs) ||
                     !(op.child->perm & BLK_PERM_RESIZE))) {
        ret = -EACCES;
    }
    if (ret == 0) {
        ret = bdrv_co_truncate(op.child, bytes, false, PREALLOC_MODE_OFF, 0,
                               NULL);
    }
    unlock_graph(op.io);
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK forward(WeirHostIo *io)
{
    const WeirPluginRequest *request = &io->transit->request;
    bool is_write = request->kind != WEIR_PLUGIN_READ &&
                    request->kind != WEIR_PLUGIN_FLUSH;
    Op op = { .io = io, .child = io->s->bs->file };
    int ret = is_write ? check_write(&op, request->flags) : 0;

    if (ret == 0) {
        ret = weir_plugin_pass_on(io->transit);
    }
    return op_end(&op, ret);
}

static int coroutine_fn TSA_NO_TSA host_forward(WeirPluginIo *io,
                                                WeirPluginRequest *request)
{
    WeirHostIo *h = host_io(io);

    /* only of the request whose callback it is */
    return is_in_place(h) && h->transit && request == h->request && !h->hold
           ? forward(h) : -EINVAL;
}

/* --- waiting --- */

static int coroutine_fn host_run(WeirPluginIo *io, int (*fn)(void *arg),
                                 void *arg)
{
    return is_in_place(host_io(io)) ? thread_pool_submit_co(fn, arg)
                                    : -EINVAL;
}

static bool is_called_off(BDRVWeirPluginState *s)
{
    return qatomic_read(&s->stopping) || qatomic_read(&s->giving_up);
}

static int coroutine_fn host_sleep(WeirPluginIo *io, uint64_t ns)
{
    BDRVWeirPluginState *s = host_io(io)->s;
    const WeirTasks *tasks = &s->tasks.tasks;
    uint64_t now_ns = tasks->now_ns(tasks->opaque);
    uint64_t until_ns = MIN(ns, (uint64_t)INT64_MAX - now_ns) + now_ns;
    bool is_over = false;

    if (!is_in_place(host_io(io))) {
        return -EINVAL;
    }
    pthread_mutex_lock(&s->lock);
    while (!is_called_off(s) && !is_over) {
        tasks->wait(tasks->opaque, &s->lock, &s->sleepers, until_ns);
        is_over = tasks->now_ns(tasks->opaque) >= until_ns;
    }
    pthread_mutex_unlock(&s->lock);
    return is_over ? 0 : -ECANCELED;
}

struct WeirPluginLock {
    CoMutex mutex;
};

static WeirPluginLock *host_lock_new(WeirPluginDisk *disk)
{
    WeirPluginLock *lock = g_new0(WeirPluginLock, 1);

    qemu_co_mutex_init(&lock->mutex);
    return lock;
}

static void host_lock_free(WeirPluginLock *lock)
{
    g_free(lock);
}

static void coroutine_fn host_lock(WeirPluginIo *io, WeirPluginLock *lock)
{
    qemu_co_mutex_lock(&lock->mutex);
}

static void coroutine_fn host_unlock(WeirPluginIo *io, WeirPluginLock *lock)
{
    qemu_co_mutex_unlock(&lock->mutex);
}

/* --- held requests --- */

static WeirPluginHeld *coroutine_fn host_hold(WeirPluginIo *io,
                                              WeirPluginRequest *request)
{
    WeirHostIo *h = host_io(io);
    BDRVWeirPluginState *s = h->s;

    if (!is_in_place(h) || !h->transit || request != h->request || h->hold) {
        return NULL;
    }
    h->hold = weir_hold_new(s->holds, &h->transit->request,
                            qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    if (h->hold && qatomic_read(&s->deadline_ms)) {
        timer_mod_anticipate_ns(s->deadline_timer,
                                qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                                qatomic_read(&s->deadline_ms) *
                                (int64_t)SCALE_MS);
    }
    return h->hold;
}

/* --- tasks and timers --- */

typedef struct PluginTask {
    BDRVWeirPluginState *s;
    void (*fn)(void *arg, WeirPluginIo *io);
    void *arg;
} PluginTask;

static void coroutine_fn task_entry(void *opaque)
{
    g_autofree PluginTask *task = opaque;
    WeirHostIo io = weir_plugin_io(task->s);

    io.is_task = true;
    task->fn(task->arg, &io.io);
}

static int host_spawn(WeirPluginDisk *disk,
                      void (*fn)(void *arg, WeirPluginIo *io), void *arg)
{
    BDRVWeirPluginState *s = disk_state(disk);
    bool may_run;

    /* with the lock: who stops tasks does not wait for one that comes later */
    pthread_mutex_lock(&s->lock);
    may_run = !s->stopping;
    if (may_run) {
        PluginTask *task = g_new(PluginTask, 1);

        *task = (PluginTask) { .s = s, .fn = fn, .arg = arg };
        s->tasks.tasks.spawn(s->tasks.tasks.opaque, task_entry, task);
    }
    pthread_mutex_unlock(&s->lock);
    return may_run ? 0 : -ECANCELED;
}

struct WeirPluginTimer {
    BDRVWeirPluginState *s;
    QEMUTimer *timer;           /* main loop */
    void (*fn)(void *arg, WeirPluginIo *io);
    void *arg;
    QLIST_ENTRY(WeirPluginTimer) next;  /* lock of the disk */
};

static void timer_cb(void *opaque)
{
    WeirPluginTimer *timer = opaque;

    host_spawn(&timer->s->disk, timer->fn, timer->arg);
}

static WeirPluginTimer *host_timer_new(WeirPluginDisk *disk,
                                       void (*fn)(void *arg,
                                                  WeirPluginIo *io),
                                       void *arg)
{
    BDRVWeirPluginState *s = disk_state(disk);
    WeirPluginTimer *timer = g_new0(WeirPluginTimer, 1);

    *timer = (WeirPluginTimer) {
        .s = s, .fn = fn, .arg = arg,
        .timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                               SCALE_NS, timer_cb, timer),
    };
    pthread_mutex_lock(&s->lock);
    QLIST_INSERT_HEAD(&s->timers, timer, next);
    pthread_mutex_unlock(&s->lock);
    return timer;
}

static void host_timer_set(WeirPluginTimer *timer, uint64_t in_ns)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    pthread_mutex_lock(&timer->s->lock);
    if (!timer->s->stopping) {
        timer_mod_ns(timer->timer,
                     now_ns + MIN(in_ns, (uint64_t)(INT64_MAX - now_ns)));
    }
    pthread_mutex_unlock(&timer->s->lock);
}

static void host_timer_cancel(WeirPluginTimer *timer)
{
    timer_del(timer->timer);
}

/* In the main loop: the timer may be about to run there. */
static void coroutine_fn free_timer(void *opaque)
{
    WeirPluginTimer *timer = opaque;

    timer_free(timer->timer);
    g_free(timer);
}

static void host_timer_free(WeirPluginTimer *timer)
{
    BDRVWeirPluginState *s = timer ? timer->s : NULL;

    if (timer) {
        timer_del(timer->timer);
        pthread_mutex_lock(&s->lock);
        QLIST_REMOVE(timer, next);
        pthread_mutex_unlock(&s->lock);
        s->tasks.tasks.spawn(s->tasks.tasks.opaque, free_timer, timer);
    }
}

void weir_plugin_free_timers(BDRVWeirPluginState *s)
{
    WeirPluginTimer *timer, *next;

    QLIST_FOREACH_SAFE(timer, &s->timers, next, next) {
        QLIST_REMOVE(timer, next);
        timer_free(timer->timer);
        g_free(timer);
    }
}

void weir_plugin_stop_tasks(BDRVWeirPluginState *s)
{
    WeirPluginTimer *timer;

    pthread_mutex_lock(&s->lock);
    qatomic_set(&s->stopping, true);
    QLIST_FOREACH(timer, &s->timers, next) {
        timer_del(timer->timer);
    }
    s->tasks.tasks.wake(s->tasks.tasks.opaque, &s->sleepers);
    pthread_mutex_unlock(&s->lock);
    weir_tasks_gate_open(&s->gate);
    weir_tasks_finish(&s->tasks);
}

void weir_plugin_allow_tasks(BDRVWeirPluginState *s)
{
    qatomic_set(&s->gate.open_for_good, false);
    qatomic_set(&s->stopping, false);
}

/* --- memory --- */

static void *host_buffer_take(WeirPluginDisk *disk, size_t bytes)
{
    return weir_plugin_buffers_take(disk_state(disk)->buffers, bytes);
}

static void host_buffer_give(WeirPluginDisk *disk, void *buffer)
{
    weir_plugin_buffers_give(disk_state(disk)->buffers, buffer);
}

/* --- the disk --- */

static const WeirPluginValues *host_values(WeirPluginDisk *disk)
{
    return weir_values_public(disk_state(disk)->values);
}

static const char *host_disk_name(WeirPluginDisk *disk)
{
    return bdrv_get_node_name(disk_state(disk)->bs);
}

static int host_is_read_only(WeirPluginDisk *disk)
{
    return bdrv_is_read_only(disk_state(disk)->bs);
}

static int host_has_sidecar(WeirPluginDisk *disk)
{
    return disk_state(disk)->sidecar != NULL;
}

static uint64_t host_now_ns(void)
{
    return get_clock();
}

/* --- reports --- */

static void host_error(WeirPluginDisk *disk, const char *message)
{
    BDRVWeirPluginState *s = disk_state(disk);

    pthread_mutex_lock(&s->lock);
    g_free(s->message);
    s->message = g_strdup(message);
    pthread_mutex_unlock(&s->lock);
}

char *weir_plugin_take_message(BDRVWeirPluginState *s)
{
    char *message;

    pthread_mutex_lock(&s->lock);
    message = g_steal_pointer(&s->message);
    pthread_mutex_unlock(&s->lock);
    return message;
}

static void host_log(WeirPluginDisk *disk, uint32_t level,
                     const char *message)
{
    BDRVWeirPluginState *s = disk_state(disk);
    g_autofree char *line = g_strdup_printf("weir-plugin: Plugin '%s' on node "
                                            "'%s': %s", s->plugin->name,
                                            bdrv_get_node_name(s->bs),
                                            message);

    if (level == WEIR_PLUGIN_LOG_ERROR) {
        error_report("%s", line);
    } else if (level == WEIR_PLUGIN_LOG_WARNING) {
        warn_report("%s", line);
    } else {
        info_report("%s", line);
    }
}

void weir_plugin_tell_state(BDRVWeirPluginState *s)
{
    g_autofree char *reason = NULL;
    WeirState state;

    pthread_mutex_lock(&s->lock);
    if (s->trouble) {
        state = s->is_bypassing ? WEIR_STATE_DEGRADED : WEIR_STATE_FAILED;
        reason = g_strdup(s->trouble);
    } else {
        state = s->own_state == WEIR_PLUGIN_STATE_OK ? WEIR_STATE_OK :
                s->own_state == WEIR_PLUGIN_STATE_DEGRADED ?
                WEIR_STATE_DEGRADED : WEIR_STATE_FAILED;
        reason = g_strdup(s->own_reason);
    }
    /* with the lock: what is told last is what is so */
    weir_filter_set_state(s->bs, state, reason);
    pthread_mutex_unlock(&s->lock);
}

static void host_set_state(WeirPluginDisk *disk, uint32_t state,
                           const char *reason)
{
    BDRVWeirPluginState *s = disk_state(disk);

    pthread_mutex_lock(&s->lock);
    s->own_state = state;
    g_free(s->own_reason);
    s->own_reason = state == WEIR_PLUGIN_STATE_OK ? NULL :
                    g_strdup(reason ? reason : "the plugin does not say why");
    pthread_mutex_unlock(&s->lock);
    weir_plugin_tell_state(s);
}

static void host_report(WeirPluginDisk *disk, const char *name,
                        const char *message)
{
    BDRVWeirPluginState *s = disk_state(disk);

    weir_filter_emit_plugin_event(s->bs, s->plugin->name, name ? name : "",
                                  message ? message : "");
}

static void host_gauge(WeirPluginGauges *gauges, const char *name,
                       const char *unit, uint64_t value, int counter)
{
    WeirPluginGauge *gauge = g_new0(WeirPluginGauge, 1);

    gauge->name = g_strdup(name ? name : "");
    gauge->unit = g_strdup(unit ? unit : "");
    gauge->value = value;
    gauge->counter = counter;
    QAPI_LIST_APPEND(gauges->tail, gauge);
}

const WeirPluginHost weir_plugin_host = {
    .abi          = WEIR_PLUGIN_ABI,
    .struct_size  = sizeof(WeirPluginHost),
    .length       = host_length,
    .readv        = host_readv,
    .writev       = host_writev,
    .zero         = host_zero,
    .discard      = host_discard,
    .flush        = host_flush,
    .block_status = host_block_status,
    .resize       = host_resize,
    .forward      = host_forward,
    .run          = host_run,
    .sleep        = host_sleep,
    .lock         = host_lock,
    .unlock       = host_unlock,
    .hold         = host_hold,
    .held_request = weir_hold_request,
    .resume       = weir_hold_resume,
    .spawn        = host_spawn,
    .timer_new    = host_timer_new,
    .timer_set    = host_timer_set,
    .timer_cancel = host_timer_cancel,
    .timer_free   = host_timer_free,
    .lock_new     = host_lock_new,
    .lock_free    = host_lock_free,
    .buffer_take  = host_buffer_take,
    .buffer_give  = host_buffer_give,
    .values       = host_values,
    .get_int      = weir_values_get_int,
    .get_string   = weir_values_get_string,
    .disk_name    = host_disk_name,
    .is_read_only = host_is_read_only,
    .has_sidecar  = host_has_sidecar,
    .now_ns       = host_now_ns,
    .error        = host_error,
    .log          = host_log,
    .set_state    = host_set_state,
    .report       = host_report,
    .gauge        = host_gauge,
};

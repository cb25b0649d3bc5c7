/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of a disk under a plugin.
 *
 *   request --> callback --> PASS   --> node below
 *                       |--> DONE, errno
 *                       |--> HOLD   --> resumed with one of these, or expired
 *                       '--> CANNOT --> again, node below, or EIO (on-error)
 *
 * The plugin's code runs in the coroutine of the request.  One that is held is
 * waited for without the plugin's locks; it has a copy of the data.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qemu/error-report.h"
#include "weir-plugin-host.h"

/* After which a plugin that cannot is asked again. */
#define AGAIN_NS (50 * SCALE_MS)
#define LOOK_NS SCALE_MS

/* --- the node below --- */

static int coroutine_fn GRAPH_RDLOCK pass_write(WeirPluginTransit *t)
{
    const WeirPluginRequest *r = &t->request;
    BdrvChild *child = t->s->bs->file;

    if (t->hold) {                      /* what the plugin has seen */
        return bdrv_co_pwrite(child, r->offset, r->bytes,
                              weir_hold_request(t->hold)->iov->iov_base,
                              t->flags & ~BDRV_REQ_REGISTERED_BUF);
    }
    return bdrv_co_pwritev_part(child, r->offset, r->bytes, t->qiov,
                                t->qiov_offset, t->flags);
}

int coroutine_fn GRAPH_RDLOCK weir_plugin_pass_on(WeirPluginTransit *t)
{
    const WeirPluginRequest *r = &t->request;
    BdrvChild *child = t->s->bs->file;

    switch (r->kind) {
    case WEIR_PLUGIN_READ:
        return bdrv_co_preadv_part(child, r->offset, r->bytes, t->qiov,
                                   t->qiov_offset, t->flags);
    case WEIR_PLUGIN_WRITE:
        return pass_write(t);
    case WEIR_PLUGIN_ZERO:
        return bdrv_co_pwrite_zeroes(child, r->offset, r->bytes, t->flags);
    case WEIR_PLUGIN_DISCARD:
        return bdrv_co_pdiscard(child, r->offset, r->bytes);
    default:
        return bdrv_co_flush(child->bs);
    }
}

/* It may have become shorter while the request was held. */
static int coroutine_fn GRAPH_RDLOCK pass_late(WeirPluginTransit *t)
{
    BlockDriverState *bs = t->s->bs;
    int64_t length = bdrv_co_getlength(bs->file->bs);

    if (length >= 0 && t->request.offset + t->request.bytes > length &&
        !(bs->file->perm & BLK_PERM_RESIZE)) {
        return -EIO;
    }
    return length < 0 ? length : weir_plugin_pass_on(t);
}

/* --- trouble --- */

static void tell_plugin(BDRVWeirPluginState *s, uint32_t event)
{
    if (s->plugin->event) {
        s->plugin->event(s->handle, event);
    }
}

/* The host does without the plugin, or does not any more (NULL). */
static void set_trouble(BDRVWeirPluginState *s, const char *why, bool bypass)
{
    bool was_bypassing;

    pthread_mutex_lock(&s->lock);
    was_bypassing = s->is_bypassing;
    s->trouble = why;
    s->is_bypassing = bypass;
    qatomic_set(&s->in_trouble, why);
    pthread_mutex_unlock(&s->lock);
    if (was_bypassing != bypass) {
        tell_plugin(s, bypass ? WEIR_PLUGIN_EVENT_BYPASS_BEGIN
                              : WEIR_PLUGIN_EVENT_BYPASS_END);
    }
    weir_plugin_tell_state(s);
}

/* A request went well: what was wrong is over. */
static void recovered(BDRVWeirPluginState *s)
{
    WeirHoldsInfo info;

    weir_holds_query(s->holds, &info);
    if (!info.overdue && !info.expired && !qatomic_read(&s->giving_up)) {
        set_trouble(s, NULL, false);
    }
}

/*
 * Do a request without the plugin, as on-error says; or as it will be when the
 * plugin is taken out.
 */
static int coroutine_fn GRAPH_RDLOCK do_without(WeirPluginTransit *t,
                                                const char *why)
{
    BDRVWeirPluginState *s = t->s;
    bool bypass = qatomic_read(&s->on_error) == WEIR_ON_ERROR_BYPASS ||
                  (qatomic_read(&s->giving_up) &&
                   !weir_plugin_changes_or_holds(s));

    set_trouble(s, why, bypass);
    if (bypass) {
        qatomic_inc(&s->bypassed);
        return pass_late(t);
    }
    qatomic_inc(&s->failed);
    return -EIO;
}

/*
 * Whether a request is to wait for the plugin.  In a drained section not for
 * longer than the deadline: all of the machine waits there.
 */
static bool may_stall(BDRVWeirPluginState *s)
{
    int64_t deadline_ns = qatomic_read(&s->deadline_ms) * (int64_t)SCALE_MS;

    if (qatomic_read(&s->on_error) != WEIR_ON_ERROR_STALL ||
        qatomic_read(&s->giving_up)) {
        return false;
    }
    return !deadline_ns || !qatomic_load_acquire(&s->drained) ||
           qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
           qatomic_read(&s->drained_since_ns) < deadline_ns;
}

static const char cannot_reason[] = "the plugin cannot do its work";
static const char overdue_reason[] =
    "the plugin holds requests for longer than it may";
static const char given_up_reason[] =
    "the plugin is being taken out by force";

static const char *why_not(BDRVWeirPluginState *s)
{
    return qatomic_read(&s->giving_up) ? given_up_reason : overdue_reason;
}

/* --- held requests --- */

void weir_plugin_wake(void *waiter)
{
    Coroutine *co = waiter;

    aio_co_schedule(qemu_coroutine_get_aio_context(co), co);
}

static void copy_back(WeirPluginTransit *t)
{
    const WeirPluginRequest *r = weir_hold_request(t->hold);

    if (r->kind == WEIR_PLUGIN_READ) {
        qemu_iovec_from_buf(t->qiov, t->qiov_offset, r->iov->iov_base,
                            r->bytes);
    }
}

/* Returns whether the plugin has given it back, with *verdict set. */
static bool coroutine_fn wait_for_plugin(WeirPluginTransit *t, int *verdict)
{
    if (weir_hold_must_wait(t->hold, qemu_coroutine_self())) {
        qemu_coroutine_yield();
    }
    if (weir_hold_verdict(t->hold, verdict)) {
        if (*verdict == WEIR_PLUGIN_DONE) {
            copy_back(t);
        }
        return true;
    }
    /* what the plugin has begun to write comes before whatever follows */
    while (weir_holds_writing(t->s->holds)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LOOK_NS);
    }
    return false;
}

static void end_hold(WeirPluginTransit *t)
{
    if (t->hold) {
        weir_hold_end(t->hold);
        t->hold = NULL;
    }
}

void weir_plugin_look_at_holds(BDRVWeirPluginState *s)
{
    uint64_t deadline_ns = qatomic_read(&s->deadline_ms) * (uint64_t)SCALE_MS;
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    WeirHoldsInfo info;
    unsigned overdue;
    uint64_t next_ns = weir_holds_look(s->holds, now_ns, deadline_ns,
                                       !may_stall(s), &overdue);

    if (overdue) {
        tell_plugin(s, WEIR_PLUGIN_EVENT_OVERDUE);
        set_trouble(s, overdue_reason,
                    qatomic_read(&s->on_error) == WEIR_ON_ERROR_BYPASS);
    } else if (qatomic_read(&s->in_trouble)) {
        recovered(s);
    }
    weir_holds_query(s->holds, &info);
    if (info.overdue || info.expired) {         /* until it has recovered */
        next_ns = MIN(next_ns, (uint64_t)now_ns + AGAIN_NS);
    }
    if (next_ns != UINT64_MAX) {
        timer_mod_anticipate_ns(s->deadline_timer, next_ns);
    }
}

void weir_plugin_deadline_cb(void *opaque)
{
    weir_plugin_look_at_holds(opaque);
}

void weir_plugin_give_up(BDRVWeirPluginState *s, bool give_up)
{
    qatomic_set(&s->giving_up, give_up);
    if (give_up) {
        pthread_mutex_lock(&s->lock);
        s->tasks.tasks.wake(s->tasks.tasks.opaque, &s->sleepers);
        pthread_mutex_unlock(&s->lock);
        weir_holds_expire_all(s->holds);
    }
}

/* --- callbacks --- */

/* Call the plugin once.  Returns a verdict, HOLD with t->hold set. */
static int coroutine_fn call_plugin(WeirPluginTransit *t,
                                    WeirPluginRequestFn *fn)
{
    BDRVWeirPluginState *s = t->s;
    WeirHostIo io = weir_plugin_io(s);
    WeirPluginRequest request = t->request;     /* whatever it does to it */
    int verdict;

    io.transit = t;
    io.request = &request;
    if (s->serial) {
        qemu_co_mutex_lock(s->serial);
    }
    verdict = fn(s->handle, &io.io, &request);
    if (s->serial) {
        qemu_co_mutex_unlock(s->serial);
    }
    t->hold = io.hold;
    if (verdict == -ECANCELED && !t->hold &&
        (weir_holds_fenced(s->holds) || qatomic_read(&s->giving_up))) {
        return WEIR_PLUGIN_CANNOT;      /* it could not write, or sleep */
    }
    if ((verdict == WEIR_PLUGIN_HOLD) != (t->hold != NULL) ||
        verdict > WEIR_PLUGIN_CANNOT) {
        error_report_once("weir-plugin: Plugin '%s' has returned %d %s "
                          "weir_plugin_hold()", s->plugin->name, verdict,
                          t->hold ? "after" : "without");
        end_hold(t);
        return WEIR_PLUGIN_CANNOT;
    }
    return verdict;
}

static int coroutine_fn GRAPH_RDLOCK finish(WeirPluginTransit *t, int verdict,
                                            bool is_late)
{
    int ret = verdict;

    if (verdict == WEIR_PLUGIN_PASS) {
        ret = is_late ? pass_late(t) : weir_plugin_pass_on(t);
    }
    if (qatomic_read(&t->s->in_trouble)) {
        recovered(t->s);
    }
    return ret;
}

/* Wait until the plugin is fit for requests; false: do without it. */
static bool coroutine_fn wait_until_fit(BDRVWeirPluginState *s)
{
    while (weir_holds_fenced(s->holds) || qatomic_read(&s->giving_up)) {
        if (!may_stall(s)) {
            return false;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, AGAIN_NS);
    }
    return true;
}

/* Give a request to the plugin. */
static int coroutine_fn GRAPH_RDLOCK give(WeirPluginTransit *t,
                                          WeirPluginRequestFn *fn)
{
    BDRVWeirPluginState *s = t->s;

    for (bool is_late = false;; is_late = true) {
        int verdict;

        if (!wait_until_fit(s)) {
            return do_without(t, why_not(s));
        }
        verdict = call_plugin(t, fn);
        if (verdict == WEIR_PLUGIN_HOLD) {
            int ret;

            if (!wait_for_plugin(t, &verdict)) {
                end_hold(t);
                return do_without(t, why_not(s));
            }
            if (verdict <= WEIR_PLUGIN_PASS) {
                ret = finish(t, verdict, true);
                end_hold(t);
                return ret;
            }
            end_hold(t);
        } else if (verdict != WEIR_PLUGIN_CANNOT) {
            return finish(t, verdict, is_late);
        }
        if (!may_stall(s)) {
            return do_without(t, cannot_reason);
        }
        set_trouble(s, cannot_reason, false);
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, AGAIN_NS);
    }
}

/* The same, in order with flushes if the plugin wants that. */
static int coroutine_fn GRAPH_RDLOCK give_ordered(WeirPluginTransit *t,
                                                  WeirPluginRequestFn *fn)
{
    BDRVWeirPluginState *s = t->s;
    int ret;

    if (!s->is_ordered || t->request.kind == WEIR_PLUGIN_READ) {
        return give(t, fn);
    }
    if (t->request.kind == WEIR_PLUGIN_FLUSH) {
        qemu_co_rwlock_wrlock(&s->order);
    } else {
        qemu_co_rwlock_rdlock(&s->order);
    }
    ret = give(t, fn);
    qemu_co_rwlock_unlock(&s->order);
    return ret;
}

/* The disk belongs to the other end of a migration. */
static int coroutine_fn GRAPH_RDLOCK while_inactive(WeirPluginTransit *t)
{
    bool is_own = !(t->s->plugin->capabilities & (WEIR_PLUGIN_CHANGES_DATA |
                                                  WEIR_PLUGIN_HOLDS_DATA));

    if (t->request.kind == WEIR_PLUGIN_FLUSH) {
        return 0;                       /* nothing is ours */
    }
    /* a device looks for a partition table, for instance */
    return t->request.kind == WEIR_PLUGIN_READ && is_own
           ? weir_plugin_pass_on(t) : -EPERM;
}

static bool is_write(const WeirPluginTransit *t)
{
    return t->request.kind == WEIR_PLUGIN_WRITE ||
           t->request.kind == WEIR_PLUGIN_ZERO;
}

/* A change that came when the plugin had been told that it is taken out. */
static int coroutine_fn GRAPH_RDLOCK bring_down_late(WeirPluginTransit *t)
{
    BDRVWeirPluginState *s = t->s;

    if (!(s->plugin->capabilities & WEIR_PLUGIN_HOLDS_DATA) ||
        t->request.kind == WEIR_PLUGIN_READ ||
        t->request.kind == WEIR_PLUGIN_FLUSH) {
        return 0;
    }
    smp_mb();                           /* plugin_prepare_detach() sets it */
    return qatomic_read(&s->is_leaving) ? weir_plugin_co_bring_down(s) : 0;
}

static int coroutine_fn GRAPH_RDLOCK run(WeirPluginTransit *t,
                                         WeirPluginRequestFn *fn, WeirIoOp op)
{
    BDRVWeirPluginState *s = t->s;
    int64_t begin_ns = weir_filter_begin(&s->filter, op);
    int ret;

    if (unlikely(qatomic_read(&s->inactive))) {
        ret = while_inactive(t);
    } else if (!fn) {
        ret = weir_plugin_pass_on(t);
    } else {
        weir_tasks_gate_request_begin(&s->gate);
        ret = is_write(t) ? weir_plugin_co_grow(s->bs, t->request.offset +
                                                t->request.bytes) : 0;
        ret = ret < 0 ? ret : give_ordered(t, fn);
        ret = ret < 0 ? ret : bring_down_late(t);
        weir_tasks_gate_request_end(&s->gate);
    }
    return weir_filter_end(&s->filter, op, t->request.bytes, begin_ns, ret);
}

/* --- from the block layer --- */

static uint32_t request_flags(BdrvRequestFlags flags)
{
    return (flags & BDRV_REQ_FUA ? WEIR_PLUGIN_FUA : 0) |
           (flags & BDRV_REQ_MAY_UNMAP ? WEIR_PLUGIN_MAY_UNMAP : 0) |
           (flags & BDRV_REQ_NO_FALLBACK ? WEIR_PLUGIN_NO_FALLBACK : 0) |
           (flags & BDRV_REQ_WRITE_UNCHANGED ? WEIR_PLUGIN_UNCHANGED : 0);
}

static WeirPluginTransit transit(BlockDriverState *bs, uint32_t kind,
                                 int64_t offset, int64_t bytes,
                                 BdrvRequestFlags flags)
{
    return (WeirPluginTransit) {
        .request = {
            .struct_size = sizeof(WeirPluginRequest), .kind = kind,
            .flags = request_flags(flags), .offset = offset, .bytes = bytes,
        },
        .s = bs->opaque,
        .flags = flags,
    };
}

/*
 * Of a read or write: the plugin sees exactly what is asked for, and nothing of
 * a request without data, which a guest may well send.
 */
static int coroutine_fn GRAPH_RDLOCK
run_data(WeirPluginTransit *t, WeirPluginRequestFn *fn, WeirIoOp op,
         QEMUIOVector *qiov, size_t qiov_offset)
{
    QEMUIOVector part;
    int ret;

    if (t->request.bytes == 0) {
        return 0;
    }
    t->qiov = qiov;
    t->qiov_offset = qiov_offset;
    if (!fn || (qiov_offset == 0 && qiov->size == t->request.bytes)) {
        t->request.iov = fn ? qiov->iov : NULL;
        t->request.iov_count = fn ? qiov->niov : 0;
        return run(t, fn, op);
    }
    qemu_iovec_init_slice(&part, qiov, qiov_offset, t->request.bytes);
    t->request.iov = part.iov;
    t->request.iov_count = part.niov;
    ret = run(t, fn, op);
    qemu_iovec_destroy(&part);
    return ret;
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_preadv_part(BlockDriverState *bs, int64_t offset,
                           int64_t bytes, QEMUIOVector *qiov,
                           size_t qiov_offset, BdrvRequestFlags flags)
{
    WeirPluginTransit t = transit(bs, WEIR_PLUGIN_READ, offset, bytes, flags);
    /* a prefetch leaves no data behind */
    WeirPluginRequestFn *fn = flags & BDRV_REQ_PREFETCH ? NULL
                                                        : t.s->plugin->read;

    return run_data(&t, fn, WEIR_IO_READ, qiov, qiov_offset);
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, BdrvRequestFlags flags)
{
    WeirPluginTransit t = transit(bs, WEIR_PLUGIN_WRITE, offset, bytes,
                                  flags);

    return run_data(&t, t.s->plugin->write, WEIR_IO_WRITE, qiov, qiov_offset);
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, BdrvRequestFlags flags)
{
    WeirPluginTransit t = transit(bs, WEIR_PLUGIN_ZERO, offset, bytes, flags);

    if (!t.s->plugin->zero && !weir_plugin_passes_zero(t.s->plugin)) {
        return -ENOTSUP;                /* the block layer writes them */
    }
    return run(&t, t.s->plugin->zero, WEIR_IO_ZEROES);
}

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    WeirPluginTransit t = transit(bs, WEIR_PLUGIN_DISCARD, offset, bytes, 0);

    if (!t.s->plugin->discard && !weir_plugin_passes_discard(t.s->plugin)) {
        return -ENOTSUP;                /* it may be ignored */
    }
    if (!QEMU_IS_ALIGNED(offset | bytes, bs->bl.request_alignment)) {
        return -ENOTSUP;                /* parts of blocks come here as well */
    }
    return run(&t, t.s->plugin->discard, WEIR_IO_DISCARD);
}

int coroutine_fn GRAPH_RDLOCK weir_plugin_co_flush(BlockDriverState *bs)
{
    WeirPluginTransit t = transit(bs, WEIR_PLUGIN_FLUSH, 0, 0, 0);
    int ret = run(&t, t.s->plugin->flush, WEIR_IO_FLUSH);

    /* what it has put there is part of what is flushed */
    if (ret >= 0 && t.s->sidecar && t.s->sidecar_writable &&
        !qatomic_read(&t.s->inactive)) {
        ret = bdrv_co_flush(t.s->sidecar->bs);
    }
    return ret;
}

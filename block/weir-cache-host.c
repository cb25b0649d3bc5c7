/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the engine of weir-cache asks for: I/O on the two children, waiting, and
 * coroutines of its own, among them the worker that a timer starts.
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "crypto/random.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "compat.h"
#include "weir-cache.h"

QEMU_BUILD_BUG_ON(sizeof(CoQueue) > sizeof(WeirCacheQueue));

/* --- what the engine asks for --- */

static BdrvChild * GRAPH_RDLOCK host_child(void *opaque, WeirCacheDevice dev)
{
    BlockDriverState *bs = opaque;
    BDRVWeirCacheState *s = bs->opaque;

    return dev == WEIR_CACHE_BASE ? bs->file : s->cache;
}

static int coroutine_fn GRAPH_RDLOCK
host_read(void *opaque, WeirCacheDevice dev, uint64_t offset, uint64_t bytes,
          void *buf)
{
    return bdrv_co_pread(host_child(opaque, dev), offset, bytes, buf, 0);
}

static int coroutine_fn GRAPH_RDLOCK
host_write(void *opaque, WeirCacheDevice dev, uint64_t offset, uint64_t bytes,
           const void *buf)
{
    return bdrv_co_pwrite(host_child(opaque, dev), offset, bytes, buf, 0);
}

static int coroutine_fn GRAPH_RDLOCK
host_read_guest(void *opaque, WeirCacheDevice dev, uint64_t offset,
                uint64_t bytes, void *guest, uint64_t at)
{
    return bdrv_co_preadv_part(host_child(opaque, dev), offset, bytes, guest,
                               at, 0);
}

static int coroutine_fn GRAPH_RDLOCK
host_zero(void *opaque, WeirCacheDevice dev, uint64_t offset, uint64_t bytes,
          bool may_unmap)
{
    return bdrv_co_pwrite_zeroes(host_child(opaque, dev), offset, bytes,
                                 may_unmap ? BDRV_REQ_MAY_UNMAP : 0);
}

static int coroutine_fn GRAPH_RDLOCK
host_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
             uint64_t bytes)
{
    return bdrv_co_pdiscard(host_child(opaque, dev), offset, bytes);
}

static int coroutine_fn GRAPH_RDLOCK host_flush(void *opaque,
                                                WeirCacheDevice dev)
{
    return bdrv_co_flush(host_child(opaque, dev)->bs);
}

/* Only who may resize the node has it grow by writing behind its end. */
static int coroutine_fn GRAPH_RDLOCK host_grow_base(void *opaque,
                                                    uint64_t bytes)
{
    BlockDriverState *bs = opaque;

    if (!(bs->file->perm & BLK_PERM_RESIZE)) {
        return -EPERM;
    }
    return bdrv_co_truncate(bs->file, bytes, false, PREALLOC_MODE_OFF, 0,
                            NULL);
}

static void coroutine_fn host_sleep(void *opaque, uint64_t ns)
{
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, ns);
}

typedef struct CacheRun {
    void (*fn)(void *arg);
    void *arg;
} CacheRun;

static int run_entry(void *opaque)
{
    CacheRun *run = opaque;

    run->fn(run->arg);
    return 0;
}

static void coroutine_fn host_run(void *opaque, void (*fn)(void *arg),
                                  void *arg)
{
    thread_pool_submit_co(run_entry, &(CacheRun) { fn, arg });
}

static void engine_lock(void *engine)
{
    weir_cache_lock(engine);
}

static void engine_unlock(void *engine)
{
    weir_cache_unlock(engine);
}

static CoQueue *host_queue(WeirCacheQueue *queue)
{
    return (CoQueue *)queue;
}

static void coroutine_fn host_wait(void *opaque, WeirCache *engine,
                                   WeirCacheQueue *queue)
{
    QemuLockable lock = {
        .object = engine, .lock = engine_lock, .unlock = engine_unlock,
    };

    qemu_co_queue_wait_impl(host_queue(queue), &lock, 0);
}

static void coroutine_fn host_wake(void *opaque, WeirCacheQueue *queue)
{
    qemu_co_queue_restart_all(host_queue(queue));
}

static void host_queue_init(void *opaque, WeirCacheQueue *queue)
{
    qemu_co_queue_init(host_queue(queue));
}

typedef struct CacheTask {
    BlockDriverState *bs;
    void (*fn)(void *arg);
    void *arg;
} CacheTask;

/*
 * Background work counts as in flight only when it has the graph lock: the
 * block layer drains with the write lock held, and would wait for us while we
 * wait for the lock.  Until then @tasks keeps the node from being closed.
 */
static void coroutine_fn TSA_NO_TSA task_begin(BlockDriverState *bs)
{
    bdrv_graph_co_rdlock();
    bdrv_inc_in_flight(bs);
}

/* The node may be gone afterwards. */
static void coroutine_fn TSA_NO_TSA task_end(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    bdrv_dec_in_flight(bs);
    bdrv_graph_co_rdunlock();
    qatomic_dec(&s->tasks);
    aio_wait_kick();
}

static void coroutine_fn task_entry(void *opaque)
{
    g_autofree CacheTask *task = opaque;

    task_begin(task->bs);
    task->fn(task->arg);
    task_end(task->bs);
}

/* In the thread of the request that it is for. */
static void host_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    BlockDriverState *bs = opaque;
    BDRVWeirCacheState *s = bs->opaque;
    CacheTask *task = g_new(CacheTask, 1);

    *task = (CacheTask) { .bs = bs, .fn = fn, .arg = arg };
    qatomic_inc(&s->tasks);
    aio_co_schedule(qemu_get_current_aio_context(),
                    qemu_coroutine_create(task_entry, task));
}

/*
 * Not before an interval has passed is the worker needed; 0: now; UINT64_MAX:
 * not before host_kick().
 */
static void worker_needed(BDRVWeirCacheState *s, uint64_t in_ns)
{
    if (in_ns == UINT64_MAX) {
        return;
    }
    timer_mod_anticipate_ns(s->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                            in_ns);
}

static void host_kick(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVWeirCacheState *s = bs->opaque;

    qatomic_set(&s->kicked, true);
    if (s->timer) {
        worker_needed(s, 0);
    }
}

static uint64_t host_now_ns(void *opaque)
{
    return get_clock();
}

static void host_random(void *opaque, void *buf, size_t bytes)
{
    /* the kernel does not run out of them */
    qcrypto_random_bytes(buf, bytes, &error_abort);
}

const WeirCacheHost weir_cache_host = {
    .read       = host_read,
    .write      = host_write,
    .read_guest = host_read_guest,
    .zero       = host_zero,
    .discard    = host_discard,
    .flush      = host_flush,
    .grow_base  = host_grow_base,
    .sleep      = host_sleep,
    .run        = host_run,
    .wait       = host_wait,
    .wake       = host_wake,
    .queue_init = host_queue_init,
    .spawn      = host_spawn,
    .kick       = host_kick,
    .now_ns     = host_now_ns,
    .random     = host_random,
};

/* --- the worker --- */

/*
 * In a drained section it goes on only while requests, which may wait for it,
 * are under way.  Without users the node may not write to the disk.
 */
static bool worker_may_run(BDRVWeirCacheState *s)
{
    return s->engine && qatomic_read(&s->writable) &&
           (!qatomic_read(&s->drained) || qatomic_read(&s->requests));
}

static void tell_state(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;
    g_autofree char *reason = NULL;
    WeirState state = WEIR_STATE_OK;
    WeirCacheInfo info;

    weir_cache_query(s->engine, &info);
    if (info.fast_error) {
        bool fails = info.dirty || s->open.config.on_error == WEIR_CACHE_FAIL;

        state = fails ? WEIR_STATE_FAILED : WEIR_STATE_DEGRADED;
        reason = g_strdup_printf("the cache cannot be written to: %s; %s",
                                 strerror(-info.fast_error), info.dirty ?
                                 "writes fail, since it holds dirty blocks" :
                                 fails ? "all requests fail" :
                                 "all requests go past it");
    } else if (info.stalled) {
        state = WEIR_STATE_DEGRADED;
        reason = g_strdup("the cache cannot be written to; it is tried again, "
                          "and requests wait");
    } else if (info.data_error) {
        state = WEIR_STATE_DEGRADED;
        reason = g_strdup_printf("data cannot be written to the cache: %s",
                                 strerror(-info.data_error));
    } else if (info.corrupt_dirty) {
        state = WEIR_STATE_FAILED;
        reason = g_strdup("dirty blocks in the cache are damaged");
    } else if (info.write_back_error) {
        state = WEIR_STATE_DEGRADED;
        reason = g_strdup_printf("dirty blocks cannot be written back: %s",
                                 strerror(-info.write_back_error));
    }
    if (state != s->told || state != WEIR_STATE_OK) {
        s->told = state;
        weir_filter_set_state(bs, state, reason);
    }
}

static void coroutine_fn worker_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVWeirCacheState *s = bs->opaque;
    uint64_t in_ns = 0;

    task_begin(bs);
    while ((!in_ns || qatomic_read(&s->kicked)) && worker_may_run(s)) {
        qatomic_set(&s->kicked, false);
        in_ns = weir_cache_work(s->engine);
        tell_state(bs);
    }
    qatomic_set(&s->working, false);
    if (s->timer && worker_may_run(s)) {
        worker_needed(s, qatomic_read(&s->kicked) ? 0 : in_ns);
    }
    task_end(bs);
}

static void worker_timer_cb(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVWeirCacheState *s = bs->opaque;

    if (worker_may_run(s) && !qatomic_xchg(&s->working, true)) {
        qatomic_inc(&s->tasks);
        qemu_coroutine_enter(qemu_coroutine_create(worker_entry, bs));
    }
}

void weir_cache_worker_start(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    if (s->timer && worker_may_run(s)) {
        worker_needed(s, 0);
    }
}

void weir_cache_attach_aio_context(BlockDriverState *bs, AioContext *ctx)
{
    BDRVWeirCacheState *s = bs->opaque;

    s->timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_NS,
                             worker_timer_cb, bs);
    weir_cache_worker_start(bs);
}

void weir_cache_detach_aio_context(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    g_clear_pointer(&s->timer, timer_free);
}

void weir_cache_drain_begin(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    qatomic_set(&s->drained, true);
}

void weir_cache_drain_end(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    qatomic_set(&s->drained, false);
    weir_cache_worker_start(bs);
}

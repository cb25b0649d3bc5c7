/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-encryption while it converts a disk in place.  The engine has the way of
 * a request; this file is its host.
 */
#include "qemu/osdep.h"
#include "block/aio_task.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "weir-encryption.h"

#define CIPHERS 8
#define CHUNK_BYTES (256 * KiB)

/* --- what the engine asks for --- */

static BdrvChild * GRAPH_RDLOCK host_child(void *opaque,
                                           WeirReencryptDevice dev)
{
    WeirConversion *c = opaque;

    return dev == WEIR_REENCRYPT_DATA ? c->bs->file
                                      : weir_header_child(c->bs);
}

static int coroutine_fn GRAPH_RDLOCK
host_read(void *opaque, WeirReencryptDevice dev, uint64_t offset,
          uint64_t bytes, void *buf)
{
    return bdrv_co_pread(host_child(opaque, dev), offset, bytes, buf, 0);
}

static int coroutine_fn GRAPH_RDLOCK
host_write(void *opaque, WeirReencryptDevice dev, uint64_t offset,
           uint64_t bytes, const void *buf, bool fua)
{
    return bdrv_co_pwrite(host_child(opaque, dev), offset, bytes, buf,
                          fua ? BDRV_REQ_FUA : 0);
}

static int coroutine_fn GRAPH_RDLOCK host_flush(void *opaque,
                                                WeirReencryptDevice dev)
{
    return bdrv_co_flush(host_child(opaque, dev)->bs);
}

static void engine_lock(void *engine)
{
    weir_reencrypt_lock(engine);
}

static void engine_unlock(void *engine)
{
    weir_reencrypt_unlock(engine);
}

static CoQueue *host_queue(WeirReencryptQueue *queue)
{
    return (CoQueue *)queue;
}

static void coroutine_fn host_wait(void *opaque, WeirReencrypt *engine,
                                   WeirReencryptQueue *queue)
{
    QemuLockable lock = {
        .object = engine, .lock = engine_lock, .unlock = engine_unlock,
    };

    qemu_co_queue_wait_impl(host_queue(queue), &lock, 0);
}

/* One of some coroutines. */
typedef struct Lane {
    AioTask task;               /* first */
    void (*fn)(void *arg, unsigned i);
    void *arg;
    unsigned i;
} Lane;

static int coroutine_fn run_lane(AioTask *task)
{
    Lane *lane = (Lane *)task;

    lane->fn(lane->arg, lane->i);
    return 0;
}

/* The step that they are of keeps the graph locked until they end. */
static void coroutine_fn host_each(void *opaque,
                                   void (*fn)(void *arg, unsigned i),
                                   void *arg, unsigned n)
{
    AioTaskPool *pool = aio_task_pool_new(WEIR_REENCRYPT_LANES);

    for (unsigned i = 0; i < n; i++) {
        Lane *lane = g_new(Lane, 1);

        *lane = (Lane) { .task.func = run_lane, .fn = fn, .arg = arg, .i = i };
        aio_task_pool_start_task(pool, &lane->task);
    }
    aio_task_pool_wait_all(pool);
    aio_task_pool_free(pool);
}

typedef struct Computation {
    void (*fn)(void *arg);
    void *arg;
} Computation;

static int run_computation(void *opaque)
{
    Computation *computation = opaque;

    computation->fn(computation->arg);
    return 0;
}

static void coroutine_fn host_compute(void *opaque, void (*fn)(void *arg),
                                      void *arg)
{
    Computation computation = { fn, arg };

    thread_pool_submit_co(run_computation, &computation);
}

static void coroutine_fn host_wake(void *opaque, WeirReencryptQueue *queue)
{
    qemu_co_queue_restart_all(host_queue(queue));
}

static void host_queue_init(void *opaque, WeirReencryptQueue *queue)
{
    QEMU_BUILD_BUG_ON(sizeof(CoQueue) > sizeof(WeirReencryptQueue));
    qemu_co_queue_init(host_queue(queue));
}

static const WeirReencryptHost conversion_host = {
    .read       = host_read,
    .write      = host_write,
    .flush      = host_flush,
    .wait       = host_wait,
    .each       = host_each,
    .compute    = host_compute,
    .wake       = host_wake,
    .queue_init = host_queue_init,
};

/* --- life --- */

typedef struct Load {
    WeirConversion *c;
    int ret;
    bool done;
} Load;

static void coroutine_fn load_entry(void *opaque)
{
    Load *load = opaque;

    bdrv_graph_co_rdlock();
    load->ret = weir_reencrypt_load(load->c->engine);
    bdrv_graph_co_rdunlock();
    qatomic_set(&load->done, true);
    aio_wait_kick();
}

static int load_checksums(WeirConversion *c, Error **errp)
{
    Load load = { .c = c };

    aio_co_enter(bdrv_get_aio_context(c->bs),
                 qemu_coroutine_create(load_entry, &load));
    BDRV_POLL_WHILE(c->bs, !qatomic_read(&load.done));
    if (load.ret < 0) {
        error_setg_errno(errp, -load.ret, "weir-encryption: Cannot read the "
                         "checksums of the range that was being converted");
    }
    return load.ret;
}

static int64_t disk_length(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bdrv_getlength(bs->file->bs);
}

typedef struct OpenCall {
    WeirConversion *c;
    const WeirReencryptOpen *open;
    char message[256];
} OpenCall;

/* The digest costs what the header says. */
static int open_thread(void *opaque)
{
    OpenCall *call = opaque;

    return weir_reencrypt_open(&call->c->engine, call->open, &conversion_host,
                               call->c, call->message, sizeof(call->message));
}

static int open_engine(WeirConversion *c, const void *bytes, size_t n_bytes,
                       const uint8_t *keys, Error **errp)
{
    const BDRVWeirEncryptionState *s = c->bs->opaque;
    int64_t disk_bytes = disk_length(c->bs);
    const WeirReencryptOpen open = {
        .header = bytes,
        .header_bytes = n_bytes,
        .disk_bytes = MAX(0, disk_bytes),
        .staged_offset = s->staged_offset,
        .key_before = keys,
        .key_after = keys + WEIR_CONVERSION_KEY_BYTES,
        .check_digest = true,
        .read_only = c->read_only,
        .ciphers = CIPHERS,
        .vaes_bits = s->vaes_bits_max,
        .hotzone_bytes = s->hotzone_bytes,
        .chunk_bytes = CHUNK_BYTES,
    };
    OpenCall call = { .c = c, .open = &open };
    int ret = weir_encryption_run(open_thread, &call);

    if (ret < 0) {
        error_setg(errp, "weir-encryption: %s", call.message);
        return ret;
    }
    weir_reencrypt_query(c->engine, &c->info);
    return load_checksums(c, errp);
}

int weir_conversion_open(WeirConversion **out, BlockDriverState *bs,
                         const void *bytes, size_t n_bytes,
                         const uint8_t *keys, Error **errp)
{
    WeirConversion *c = g_new0(WeirConversion, 1);
    int ret;

    c->bs = bs;
    c->read_only = bdrv_is_read_only(bs) || bs->open_flags & BDRV_O_INACTIVE;
    ret = open_engine(c, bytes, n_bytes, keys, errp);
    if (ret < 0) {
        weir_conversion_close(c);
        return ret;
    }
    *out = c;
    return 0;
}

void weir_conversion_close(WeirConversion *c)
{
    if (c) {
        weir_reencrypt_free(c->engine);
        g_free(c);
    }
}

/* --- requests and steps --- */

int coroutine_fn weir_conversion_read(WeirConversion *c, int64_t offset,
                                      int64_t bytes, void *buf)
{
    return weir_reencrypt_read(c->engine, offset, bytes, buf);
}

int coroutine_fn weir_conversion_write(WeirConversion *c, int64_t offset,
                                       int64_t bytes, void *buf,
                                       BdrvRequestFlags flags)
{
    return weir_reencrypt_write(c->engine, offset, bytes, buf,
                                flags & BDRV_REQ_FUA);
}

/*
 * It counts as in flight only with the graph lock, as the background work of
 * weir-cache.  Whoever drains the node finds it at rest.
 */
int coroutine_fn TSA_NO_TSA weir_conversion_step(WeirConversion *c,
                                                 uint32_t bytes)
{
    int ret = -EAGAIN;

    bdrv_graph_co_rdlock();
    bdrv_inc_in_flight(c->bs);
    if (!qatomic_read(&c->drained)) {
        ret = weir_reencrypt_step(c->engine, bytes);
    }
    bdrv_dec_in_flight(c->bs);
    bdrv_graph_co_rdunlock();
    return ret;
}

bool weir_conversion_progress(WeirConversion *c, uint64_t *done,
                              uint64_t *total)
{
    WeirReencryptInfo info;

    weir_reencrypt_query(c->engine, &info);
    *done = info.done_bytes;
    *total = info.data_bytes;
    return info.phase == WEIR_REENCRYPT_CLEAN ||
           info.phase == WEIR_REENCRYPT_FINISHED;
}

bool weir_conversion_is_finished(WeirConversion *c)
{
    WeirReencryptInfo info;

    weir_reencrypt_query(c->engine, &info);
    return info.phase == WEIR_REENCRYPT_FINISHED;
}

WeirEncryptionJobInfo *weir_conversion_query(WeirConversion *c)
{
    WeirEncryptionJobInfo *out = g_new0(WeirEncryptionJobInfo, 1);
    WeirReencryptInfo info;

    QEMU_BUILD_BUG_ON((int)WEIR_ENCRYPTION_JOB_MODE_DECRYPT !=
                      (int)WEIR_JOB_DECRYPT);
    weir_reencrypt_query(c->engine, &info);
    out->mode = (WeirEncryptionJobMode)info.mode;
    out->backward = info.backward;
    out->total = info.data_bytes;
    out->done = info.done_bytes;
    out->finished = info.phase == WEIR_REENCRYPT_FINISHED;
    return out;
}

/* --- keys and headers --- */

/* A header that is apart is bound to the length of the disk. */
static int call_create(WeirConversionCall *call)
{
    int ret = weir_header_create(&call->header, call->create, &call->how.kdf,
                                 call->how.passphrases[0].bytes,
                                 call->how.passphrases[0].n_bytes,
                                 call->message, sizeof(call->message));

    if (ret == 0 && call->how.detached) {
        ret = weir_header_bind(call->header, call->how.disk_bytes,
                               call->how.disk_bytes, call->message,
                               sizeof(call->message));
    }
    return ret;
}

static int call_begin(WeirConversionCall *call)
{
    return weir_header_begin_job(call->header, &call->how, call->message,
                                 sizeof(call->message));
}

static int call_unlock(WeirConversionCall *call)
{
    return weir_header_unlock_job(call->header,
                                  call->how.passphrases[0].bytes,
                                  call->how.passphrases[0].n_bytes,
                                  &call->how.limits, call->keys, call->keys +
                                  WEIR_CONVERSION_KEY_BYTES, call->message,
                                  sizeof(call->message));
}

int weir_conversion_call(void *opaque)
{
    WeirConversionCall *call = opaque;
    int ret = call->create ? call_create(call) : 0;

    if (ret == 0 && call->begin) {
        ret = call_begin(call);
    }
    if (ret == 0 && call->keys) {
        ret = call_unlock(call);
    }
    return ret;
}

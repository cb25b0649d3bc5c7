/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the source of a replication asks for: I/O on disks, sidecars, the log.
 *
 * What a request of the guest does to its disk is done right there, with the
 * graph lock that it has.  All else on a disk or sidecar is done by a task of
 * its own, since it may be asked for by a request or by another task, and only
 * the one has the lock.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "weir-replication.h"

/* --- by requests --- */

static BdrvRequestFlags request_flags(unsigned flags)
{
    return (flags & WEIR_SOURCE_FUA ? BDRV_REQ_FUA : 0) |
           (flags & WEIR_SOURCE_MAY_UNMAP ? BDRV_REQ_MAY_UNMAP : 0);
}

static int coroutine_fn GRAPH_RDLOCK
write_disk(void *disk, uint64_t offset, uint64_t bytes,
           const struct iovec *iov, size_t niov, unsigned flags)
{
    BlockDriverState *bs = disk;
    QEMUIOVector qiov;

    qemu_iovec_init_external(&qiov, (struct iovec *)(uintptr_t)iov, niov);
    return bdrv_co_pwritev(bs->file, offset, bytes, &qiov,
                           request_flags(flags));
}

static int coroutine_fn GRAPH_RDLOCK zero_disk(void *disk, uint64_t offset,
                                               uint64_t bytes, unsigned flags)
{
    BlockDriverState *bs = disk;

    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes,
                                 request_flags(flags));
}

static int coroutine_fn GRAPH_RDLOCK discard_disk(void *disk, uint64_t offset,
                                                  uint64_t bytes)
{
    BlockDriverState *bs = disk;

    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

/* --- by tasks --- */

typedef struct HostCall {
    BlockDriverState *bs;
    uint64_t offset, bytes;
    void *buf;
    uint64_t extent_bytes;
    bool zero;
    int ret;
} HostCall;

static int coroutine_fn call(HostCall *c, void (*fn)(void *arg))
{
    BDRVWeirReplicationState *s = c->bs->opaque;

    weir_tasks_call(weir_replication_tasks(s->group), fn, c);
    return MIN(c->ret, 0);
}

static BDRVWeirReplicationState *coroutine_fn TSA_NO_TSA
begin_io(HostCall *c)
{
    BDRVWeirReplicationState *s = c->bs->opaque;

    weir_tasks_io_begin(&s->gate, c->bs);
    return s;
}

static void coroutine_fn TSA_NO_TSA end_io(HostCall *c)
{
    BDRVWeirReplicationState *s = c->bs->opaque;

    weir_tasks_io_end(&s->gate, c->bs);
}

static void coroutine_fn TSA_NO_TSA do_read_disk(void *opaque)
{
    HostCall *c = opaque;

    begin_io(c);
    c->ret = bdrv_co_pread(c->bs->file, c->offset, c->bytes, c->buf, 0);
    end_io(c);
}

static int coroutine_fn read_disk(void *disk, uint64_t offset, uint64_t bytes,
                                  void *buf)
{
    HostCall c = { .bs = disk, .offset = offset, .bytes = bytes, .buf = buf };

    return call(&c, do_read_disk);
}

static void coroutine_fn TSA_NO_TSA do_flush_disk(void *opaque)
{
    HostCall *c = opaque;

    begin_io(c);
    c->ret = bdrv_co_flush(c->bs->file->bs);
    end_io(c);
}

static int coroutine_fn flush_disk(void *disk)
{
    HostCall c = { .bs = disk };

    return call(&c, do_flush_disk);
}

static void coroutine_fn TSA_NO_TSA do_status_disk(void *opaque)
{
    HostCall *c = opaque;
    int64_t same = c->bytes;

    begin_io(c);
    /* with the backing files that it may have: they are part of it */
    c->ret = bdrv_co_block_status_above(c->bs->file->bs, NULL, c->offset,
                                        c->bytes, &same, NULL, NULL);
    end_io(c);
    c->zero = c->ret >= 0 && c->ret & BDRV_BLOCK_ZERO;
    c->extent_bytes = same;
}

static int coroutine_fn status_disk(void *disk, uint64_t offset,
                                    uint64_t bytes, uint64_t *extent_bytes,
                                    bool *zero)
{
    HostCall c = { .bs = disk, .offset = offset, .bytes = bytes };
    int ret = call(&c, do_status_disk);

    *extent_bytes = c.extent_bytes ?: bytes;
    *zero = c.zero;
    return ret;
}

static void coroutine_fn TSA_NO_TSA do_read_sidecar(void *opaque)
{
    HostCall *c = opaque;
    BDRVWeirReplicationState *s = begin_io(c);

    c->ret = bdrv_co_pread(s->sidecar, c->offset, c->bytes, c->buf, 0);
    end_io(c);
}

static int coroutine_fn read_sidecar(void *disk, uint64_t offset,
                                     uint64_t bytes, void *buf)
{
    HostCall c = { .bs = disk, .offset = offset, .bytes = bytes, .buf = buf };

    return call(&c, do_read_sidecar);
}

static void coroutine_fn TSA_NO_TSA do_write_sidecar(void *opaque)
{
    HostCall *c = opaque;
    BDRVWeirReplicationState *s = begin_io(c);

    c->ret = bdrv_co_pwrite(s->sidecar, c->offset, c->bytes, c->buf, 0);
    end_io(c);
}

static int coroutine_fn write_sidecar(void *disk, uint64_t offset,
                                      uint64_t bytes, const void *buf)
{
    HostCall c = { .bs = disk, .offset = offset, .bytes = bytes,
                   .buf = (void *)(uintptr_t)buf };

    return call(&c, do_write_sidecar);
}

static void coroutine_fn TSA_NO_TSA do_flush_sidecar(void *opaque)
{
    HostCall *c = opaque;
    BDRVWeirReplicationState *s = begin_io(c);

    c->ret = bdrv_co_flush(s->sidecar->bs);
    end_io(c);
}

static int coroutine_fn flush_sidecar(void *disk)
{
    HostCall c = { .bs = disk };

    return call(&c, do_flush_sidecar);
}

/* --- the log --- */

static int coroutine_fn read_log(void *opaque, uint64_t offset, uint64_t bytes,
                                 void *buf)
{
    return weir_replication_log_read(weir_replication_log(opaque), offset,
                                     bytes, buf);
}

static int coroutine_fn write_log(void *opaque, uint64_t offset,
                                  uint64_t bytes, const struct iovec *iov,
                                  size_t niov)
{
    return weir_replication_log_write(weir_replication_log(opaque), offset,
                                      bytes, iov, niov);
}

static int coroutine_fn flush_log(void *opaque)
{
    return weir_replication_log_flush(weir_replication_log(opaque));
}

/* --- computing --- */

typedef struct Computation {
    void (*fn)(void *arg);
    void *arg;
} Computation;

static int run_computation(void *opaque)
{
    Computation *c = opaque;

    c->fn(c->arg);
    return 0;
}

static void coroutine_fn compute(void *opaque, void (*fn)(void *arg),
                                 void *arg)
{
    Computation c = { fn, arg };

    thread_pool_submit_co(run_computation, &c);
}

const WeirSourceHost weir_replication_host = {
    .read_disk     = read_disk,
    .write_disk    = write_disk,
    .zero_disk     = zero_disk,
    .discard_disk  = discard_disk,
    .flush_disk    = flush_disk,
    .status_disk   = status_disk,
    .read_sidecar  = read_sidecar,
    .write_sidecar = write_sidecar,
    .flush_sidecar = flush_sidecar,
    .read_log      = read_log,
    .write_log     = write_log,
    .flush_log     = flush_log,
    .compute       = compute,
};

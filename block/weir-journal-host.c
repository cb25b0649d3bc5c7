/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host of the keeper's engine: I/O on the log and on the bases. */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "weir-journal.h"

/*
 * All of it is called by tasks, in the main thread and without the graph lock.
 * The lock is held from begin_io() to end_io().
 */
static void coroutine_fn TSA_NO_TSA begin_io(BlockDriverState *bs)
{
    BDRVWeirJournalState *s = bs->opaque;

    weir_tasks_io_begin(&s->gate, bs);
}

static int coroutine_fn TSA_NO_TSA end_io(BlockDriverState *bs, int ret)
{
    BDRVWeirJournalState *s = bs->opaque;

    weir_tasks_io_end(&s->gate, bs);
    return ret;
}

/* --- the log --- */

static int coroutine_fn TSA_NO_TSA read_log(void *opaque, uint64_t offset,
                                            uint64_t bytes, void *buf)
{
    BlockDriverState *bs = opaque;

    begin_io(bs);
    return end_io(bs, bdrv_co_pread(bs->file, offset, bytes, buf, 0));
}

static int coroutine_fn TSA_NO_TSA
write_log(void *opaque, uint64_t offset, uint64_t bytes,
          const struct iovec *iov, size_t niov)
{
    BlockDriverState *bs = opaque;
    QEMUIOVector qiov;

    qemu_iovec_init_external(&qiov, (struct iovec *)(uintptr_t)iov, niov);
    begin_io(bs);
    return end_io(bs, bdrv_co_pwritev(bs->file, offset, bytes, &qiov, 0));
}

static int coroutine_fn TSA_NO_TSA flush_log(void *opaque)
{
    BlockDriverState *bs = opaque;

    begin_io(bs);
    return end_io(bs, bdrv_co_flush(bs->file->bs));
}

/* --- base images --- */

static int coroutine_fn TSA_NO_TSA read_base(void *base, uint64_t offset,
                                             uint64_t bytes, void *buf)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_pread(image->child, offset, bytes, buf,
                                           0));
}

static int coroutine_fn TSA_NO_TSA write_base(void *base, uint64_t offset,
                                              uint64_t bytes, const void *buf)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_pwrite(image->child, offset, bytes, buf,
                                            0));
}

static int coroutine_fn TSA_NO_TSA zero_base(void *base, uint64_t offset,
                                             uint64_t bytes)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_pwrite_zeroes(image->child, offset, bytes,
                                                   BDRV_REQ_MAY_UNMAP));
}

static int coroutine_fn TSA_NO_TSA discard_base(void *base, uint64_t offset,
                                                uint64_t bytes)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_pdiscard(image->child, offset, bytes));
}

static int coroutine_fn TSA_NO_TSA resize_base(void *base, uint64_t bytes)
{
    WeirJournalImage *image = base;
    BdrvRequestFlags flags;
    int ret;

    begin_io(image->bs);
    flags = image->child->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE;
    ret = bdrv_co_truncate(image->child, bytes, true, PREALLOC_MODE_OFF, flags,
                           NULL);
    return end_io(image->bs, ret);
}

static int coroutine_fn TSA_NO_TSA flush_base(void *base)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_flush(image->child->bs));
}

static int64_t coroutine_fn TSA_NO_TSA length_base(void *base)
{
    WeirJournalImage *image = base;
    int64_t bytes;

    begin_io(image->bs);
    bytes = bdrv_co_getlength(image->child->bs);
    end_io(image->bs, 0);
    return bytes;
}

/* --- their sidecars --- */

static int coroutine_fn TSA_NO_TSA read_sidecar(void *base, uint64_t offset,
                                                uint64_t bytes, void *buf)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_pread(image->sidecar, offset, bytes, buf,
                                           0));
}

static int coroutine_fn TSA_NO_TSA write_sidecar(void *base, uint64_t offset,
                                                 uint64_t bytes,
                                                 const void *buf)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_pwrite(image->sidecar, offset, bytes, buf,
                                            0));
}

static int coroutine_fn TSA_NO_TSA flush_sidecar(void *base)
{
    WeirJournalImage *image = base;

    begin_io(image->bs);
    return end_io(image->bs, bdrv_co_flush(image->sidecar->bs));
}

/* --- state --- */

static void state_changed(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVWeirJournalState *s = bs->opaque;

    qemu_bh_schedule(s->state_bh);
}

void weir_journal_host_init(BlockDriverState *bs)
{
    BDRVWeirJournalState *s = bs->opaque;

    s->host = (WeirKeeperHost) {
        .tasks = &s->tasks.tasks,
        .opaque = bs,
        .read_log = read_log,
        .write_log = write_log,
        .flush_log = flush_log,
        .read_base = read_base,
        .write_base = write_base,
        .zero_base = zero_base,
        .discard_base = discard_base,
        .resize_base = resize_base,
        .flush_base = flush_base,
        .length_base = length_base,
        .read_sidecar = read_sidecar,
        .write_sidecar = write_sidecar,
        .flush_sidecar = flush_sidecar,
        .changed = state_changed,
    };
}

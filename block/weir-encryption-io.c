/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of weir-encryption.
 *
 *   read    bs->file -> buffer -> decrypt -> guest
 *   write   guest -> encrypt -> buffer -> bs->file
 *
 * A buffer only ever holds ciphertext, unless the disk is being converted.
 * Requests that are longer than a buffer go in chunks, some of them at a time,
 * so that one is encrypted while others are written.  What is longer than a
 * piece can be encrypted by several threads.
 */
#include "qemu/osdep.h"
#include "block/aio_task.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "weir-encryption.h"
#include "encryption/pieces.h"

#define CHUNK_BYTES WEIR_BUFFERS_BYTES_MAX
/* of a request at a time */
#define CHUNKS_MAX 4

/* --- buffers --- */

static void *coroutine_fn take_buffer(BDRVWeirEncryptionState *s,
                                      size_t bytes)
{
    void *buffer;

    QEMU_LOCK_GUARD(&s->lock);
    while (!(buffer = weir_buffers_take(s->buffers, bytes))) {
        qemu_co_queue_wait(&s->waiting, &s->lock);
    }
    return buffer;
}

/* It must not hold plaintext. */
static void coroutine_fn give_buffer(BDRVWeirEncryptionState *s, void *buffer)
{
    QEMU_LOCK_GUARD(&s->lock);
    weir_buffers_give(s->buffers, buffer);
    /* all: they may wait for another size */
    qemu_co_queue_restart_all(&s->waiting);
}

/* --- several threads --- */

/* Lives on the stack of a coroutine, which waits for all helpers. */
typedef struct SharedCrypt {
    WeirPieces pieces;
    Coroutine *co;
    unsigned helpers;           /* whose callback is still to come */
} SharedCrypt;

static int help(void *opaque)
{
    SharedCrypt *shared = opaque;

    weir_pieces_run(&shared->pieces);
    return 0;
}

/* In the thread of the coroutine, while that waits. */
static void help_ended(void *opaque, int ret)
{
    SharedCrypt *shared = opaque;

    if (--shared->helpers == 0) {
        aio_co_wake(shared->co);
    }
}

/* As many as are of use, and as there are; requests at a time share them. */
static unsigned take_helpers(BDRVWeirEncryptionState *s, unsigned pieces)
{
    unsigned n;

    QEMU_LOCK_GUARD(&s->lock);
    n = MIN(pieces, s->workers) - 1;
    n = MIN(n, s->workers - 1 - s->helpers);
    s->helpers += n;
    return n;
}

static void give_helpers(BDRVWeirEncryptionState *s, unsigned n)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->helpers -= n;
}

/*
 * This thread works as well, so a helper that does not get to run costs
 * nothing: it is cancelled when there is nothing left to do.
 */
static int coroutine_fn crypt_shared(BDRVWeirEncryptionState *s,
                                     const WeirGuestData *data, bool encrypt)
{
    SharedCrypt shared = { .co = qemu_coroutine_self() };
    BlockAIOCB *acb[WEIR_ENCRYPTION_WORKERS_MAX];
    unsigned n;

    weir_pieces_init(&shared.pieces, s->xts, data, encrypt);
    n = shared.helpers = take_helpers(s, weir_pieces_count(&shared.pieces));
    for (unsigned i = 0; i < n; i++) {
        acb[i] = thread_pool_submit_aio(help, &shared, help_ended, &shared);
    }
    weir_pieces_run(&shared.pieces);
    for (unsigned i = 0; i < n; i++) {
        bdrv_aio_cancel_async(acb[i]);
    }
    if (n > 0) {
        qemu_coroutine_yield();
        give_helpers(s, n);
    }
    return weir_pieces_result(&shared.pieces);
}

/* Between buffer and guest. */
static int coroutine_fn crypt_chunk(BDRVWeirEncryptionState *s,
                                    int64_t offset, int64_t bytes,
                                    uint8_t *buffer, QEMUIOVector *qiov,
                                    size_t qiov_offset, bool encrypt)
{
    WeirGuestData data = {
        .iov = qiov->iov,
        .skip_bytes = qiov_offset,
        .buffer = buffer,
        .bytes = bytes,
        .unit = s->info.tweak_units + offset / WEIR_XTS_UNIT_BYTES,
    };

    if (s->workers > 1 && bytes > WEIR_PIECE_BYTES) {
        return crypt_shared(s, &data, encrypt);
    }
    return encrypt ? weir_guest_encrypt(s->xts, &data, 0, bytes)
                   : weir_guest_decrypt(s->xts, &data, 0, bytes);
}

/* --- chunks --- */

/* A whole request, or one of its chunks. */
typedef struct Chunk {
    AioTask task;               /* first; not used by a whole request */
    BlockDriverState *bs;
    int64_t offset;
    int64_t bytes;
    QEMUIOVector *qiov;
    size_t qiov_offset;
    BdrvRequestFlags flags;
    bool write;
} Chunk;

static int coroutine_fn GRAPH_RDLOCK read_chunk(const Chunk *c)
{
    BDRVWeirEncryptionState *s = c->bs->opaque;
    void *buffer = take_buffer(s, c->bytes);
    int ret;

    ret = bdrv_co_pread(c->bs->file, s->info.data_offset_bytes + c->offset,
                        c->bytes, buffer, 0);
    if (ret >= 0 && !(c->flags & BDRV_REQ_PREFETCH)) {
        ret = crypt_chunk(s, c->offset, c->bytes, buffer, c->qiov,
                          c->qiov_offset, false);
    }
    give_buffer(s, buffer);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_chunk(const Chunk *c)
{
    BDRVWeirEncryptionState *s = c->bs->opaque;
    void *buffer = take_buffer(s, c->bytes);
    int ret;

    ret = crypt_chunk(s, c->offset, c->bytes, buffer, c->qiov, c->qiov_offset,
                      true);
    if (ret >= 0) {
        ret = bdrv_co_pwrite(c->bs->file,
                             s->info.data_offset_bytes + c->offset, c->bytes,
                             buffer, c->flags);
    }
    give_buffer(s, buffer);
    return ret;
}

/* The engine encrypts and decrypts in the buffer. */
static int coroutine_fn GRAPH_RDLOCK read_converted(const Chunk *c)
{
    BDRVWeirEncryptionState *s = c->bs->opaque;
    void *buffer = take_buffer(s, c->bytes);
    int ret = weir_conversion_read(s->conversion, c->offset, c->bytes, buffer);

    if (ret >= 0 && !(c->flags & BDRV_REQ_PREFETCH)) {
        qemu_iovec_from_buf(c->qiov, c->qiov_offset, buffer, c->bytes);
    }
    explicit_bzero(buffer, c->bytes);
    give_buffer(s, buffer);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_converted(const Chunk *c)
{
    BDRVWeirEncryptionState *s = c->bs->opaque;
    void *buffer = take_buffer(s, c->bytes);
    int ret;

    qemu_iovec_to_buf(c->qiov, c->qiov_offset, buffer, c->bytes);
    ret = weir_conversion_write(s->conversion, c->offset, c->bytes, buffer,
                                c->flags);
    explicit_bzero(buffer, c->bytes);
    give_buffer(s, buffer);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK pass_chunk(const Chunk *c)
{
    return c->write ? bdrv_co_pwritev_part(c->bs->file, c->offset, c->bytes,
                                           c->qiov, c->qiov_offset, c->flags)
                    : bdrv_co_preadv_part(c->bs->file, c->offset, c->bytes,
                                          c->qiov, c->qiov_offset, c->flags);
}

static int coroutine_fn GRAPH_RDLOCK run_chunk(const Chunk *c)
{
    BDRVWeirEncryptionState *s = c->bs->opaque;

    if (s->header_only) {
        return -EACCES;
    }
    if (s->is_plain) {
        return pass_chunk(c);
    }
    if (s->conversion) {
        return c->write ? write_converted(c) : read_converted(c);
    }
    return c->write ? write_chunk(c) : read_chunk(c);
}

/* The request that the chunk is of keeps the graph locked until it ends. */
static int coroutine_fn GRAPH_RDLOCK run_task(AioTask *task)
{
    return run_chunk((Chunk *)task);
}

static int coroutine_fn GRAPH_RDLOCK run_in_chunks(const Chunk *request)
{
    AioTaskPool *pool = aio_task_pool_new(CHUNKS_MAX);
    int ret;

    for (int64_t at = 0; at < request->bytes &&
                         aio_task_pool_status(pool) == 0; at += CHUNK_BYTES) {
        Chunk *c = g_memdup2(request, sizeof(*request));

        c->task.func = run_task;
        c->offset += at;
        c->qiov_offset += at;
        c->bytes = MIN(request->bytes - at, CHUNK_BYTES);
        aio_task_pool_start_task(pool, &c->task);
    }
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    aio_task_pool_free(pool);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK run_request(const Chunk *request)
{
    return request->bytes > CHUNK_BYTES ? run_in_chunks(request)
                                        : run_chunk(request);
}

/* --- requests --- */

int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_preadv_part(BlockDriverState *bs, int64_t offset,
                               int64_t bytes, QEMUIOVector *qiov,
                               size_t qiov_offset, BdrvRequestFlags flags)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_READ);
    const Chunk request = {
        .bs = bs, .offset = offset, .bytes = bytes, .qiov = qiov,
        .qiov_offset = qiov_offset, .flags = flags,
    };

    return weir_filter_end(&s->filter, WEIR_IO_READ, bytes, begin_ns,
                           run_request(&request));
}

int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                int64_t bytes, QEMUIOVector *qiov,
                                size_t qiov_offset, BdrvRequestFlags flags)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_WRITE);
    const Chunk request = {
        .bs = bs, .offset = offset, .bytes = bytes, .qiov = qiov,
        .qiov_offset = qiov_offset, .flags = flags, .write = true,
    };
    int ret = -ENOSPC;

    if (offset + bytes <= s->info.data_bytes) {
        ret = weir_encryption_co_grow(bs, offset + bytes);
    }
    if (ret == 0) {
        ret = run_request(&request);
    }
    return weir_filter_end(&s->filter, WEIR_IO_WRITE, bytes, begin_ns, ret);
}

/*
 * Comes only when the option discard allows it.  While the disk is converted
 * it does nothing: a block that is discarded would have another checksum, and
 * be taken for a new one.
 */
int coroutine_fn GRAPH_RDLOCK
weir_encryption_co_pdiscard(BlockDriverState *bs, int64_t offset,
                            int64_t bytes)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_DISCARD);
    int ret = s->header_only ? -EACCES : 0;

    if (ret == 0 && !s->conversion) {
        ret = bdrv_co_pdiscard(bs->file, s->info.data_offset_bytes + offset,
                               bytes);
    }

    return weir_filter_end(&s->filter, WEIR_IO_DISCARD, bytes, begin_ns, ret);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-cache: keep blocks of a slow disk (child "file") on a fast one (child
 * "cache-file": "cache" is taken by the block layer).
 *
 * filters/cache does the work, from the request to the journal; this file
 * connects it to the block layer, and weir-cache-host.c gives it I/O.  A dirty
 * block is not what the child has, so the node is no .is_filter, and block
 * status never tells the child's place of anything.
 *
 *   closed --open, activate--> engine --inactivate, close--> closed
 *
 * While the node is inactive the disk belongs to the other side of a
 * migration; there is no engine then.
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block-io.h"
#include "system/block-backend.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "compat.h"
#include "weir-cache.h"

static const char *const cache_options[] = {
    "mode", "dirty-high", "dirty-low", "dirty-age", "idle", "write-back-rate",
    "bypass-sequential", "promote", "on-error", "error-deadline", "base-id",
    "overwrite", "lose-dirty", NULL
};

static const char *const cache_mutable_options[] = {
    "mode", "dirty-high", "dirty-low", "dirty-age", "idle", "write-back-rate",
    "bypass-sequential", "promote", "on-error", "error-deadline", NULL
};

static const char *const cache_strong_options[] = { "base-id", NULL };

static void GRAPH_RDLOCK cache_set_perm(BlockDriverState *bs, uint64_t perm,
                                        uint64_t shared)
{
    BDRVWeirCacheState *s = bs->opaque;

    weir_filter_set_perm(bs, perm, shared);
    qatomic_set(&s->writable, !QLIST_EMPTY(&bs->parents) &&
                !(bs->open_flags & BDRV_O_INACTIVE));
    weir_cache_worker_start(bs);
}

/*
 * The cache is ours alone.  The disk is, too, as soon as somebody uses the
 * node; before, it is only read, beside those who are about to move over.
 */
static void GRAPH_RDLOCK cache_child_perm(BlockDriverState *bs, BdrvChild *c,
                                          BdrvChildRole role,
                                          BlockReopenQueue *queue,
                                          uint64_t perm, uint64_t shared,
                                          uint64_t *nperm, uint64_t *nshared)
{
    BDRVWeirCacheState *s = bs->opaque;
    bool is_base = role & BDRV_CHILD_PRIMARY;
    bool writable;

    /* tells whether the node itself is writable, now or after a reopen */
    bdrv_default_perms(bs, c, role, queue, perm, shared, nperm, nshared);
    writable = is_base ? *nperm & BLK_PERM_WRITE : s->cache_writable;

    if (bs->open_flags & BDRV_O_INACTIVE) {
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
    } else if (is_base && QLIST_EMPTY(&bs->parents)) {
        *nperm = BLK_PERM_CONSISTENT_READ;
        *nshared = BLK_PERM_ALL;
    } else {
        *nperm = BLK_PERM_CONSISTENT_READ | (writable ? BLK_PERM_WRITE : 0) |
                 (is_base && writable ? perm & BLK_PERM_RESIZE : 0);
        *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    }
}

/* --- engine, from the main thread --- */

typedef struct CacheCall {
    BlockDriverState *bs;
    int (*fn)(BlockDriverState *bs, Error **errp);
    Error **errp;
    int ret;
    bool done;
} CacheCall;

static void coroutine_fn call_entry(void *opaque)
{
    CacheCall *call = opaque;

    bdrv_graph_co_rdlock();
    call->ret = call->fn(call->bs, call->errp);
    bdrv_graph_co_rdunlock();
    qatomic_set(&call->done, true);
    aio_wait_kick();
}

/* Run a function of the engine in a coroutine, and wait for it. */
static int cache_call(BlockDriverState *bs,
                      int (*fn)(BlockDriverState *bs, Error **errp),
                      Error **errp)
{
    CacheCall call = { .bs = bs, .fn = fn, .errp = errp };

    aio_co_enter(bdrv_get_aio_context(bs),
                 qemu_coroutine_create(call_entry, &call));
    BDRV_POLL_WHILE(bs, !qatomic_read(&call.done));
    return call.ret;
}

static int coroutine_fn GRAPH_RDLOCK engine_open(BlockDriverState *bs,
                                                 Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    int64_t base_bytes = bdrv_co_getlength(bs->file->bs);
    int64_t fast_bytes = bdrv_co_getlength(s->cache->bs);
    char message[256];
    int ret;

    if (base_bytes < 0 || fast_bytes < 0) {
        ret = base_bytes < 0 ? base_bytes : fast_bytes;
        error_setg_errno(errp, -ret, "weir-cache: Cannot tell the length of "
                         "the %s", base_bytes < 0 ? "disk" : "cache");
        return ret;
    }
    s->open.base_bytes = base_bytes;
    s->open.fast_bytes = fast_bytes;
    ret = weir_cache_open(&s->engine, &s->open, &weir_cache_host, bs, message,
                          sizeof(message));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-cache: Node '%s': %s",
                         bdrv_get_node_name(s->cache->bs), message);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK engine_close(BlockDriverState *bs,
                                                  Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;

    return s->given_up ? weir_cache_close_empty(s->engine, s->lose_dirty)
                       : weir_cache_close(s->engine);
}

static int coroutine_fn GRAPH_RDLOCK engine_drain(BlockDriverState *bs,
                                                  Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    int ret = weir_cache_drain(s->engine);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-cache: Node '%s' holds dirty "
                         "blocks that cannot be written back",
                         bdrv_get_node_name(bs));
    }
    return ret;
}

/* Somebody else is going to write to the disk: leave nothing behind. */
static int coroutine_fn GRAPH_RDLOCK engine_give_up(BlockDriverState *bs,
                                                    Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    int ret = weir_cache_drain(s->engine);

    if (ret == 0) {
        ret = weir_cache_close_empty(s->engine, false);
    }
    return ret;
}

/* The node is drained: no new ones come. */
static void wait_for_tasks(BDRVWeirCacheState *s)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&s->tasks) > 0);
}

static void engine_free(BDRVWeirCacheState *s)
{
    g_clear_pointer(&s->engine, weir_cache_free);
}

/* --- options --- */

static void config_from_qapi(WeirCacheConfig *config,
                             const WeirCacheOptions *opts)
{
    static const WeirCacheMode modes[] = {
        [WEIR_CACHE_WRITE_MODE_WRITE_BACK]    = WEIR_CACHE_WRITE_BACK,
        [WEIR_CACHE_WRITE_MODE_WRITE_THROUGH] = WEIR_CACHE_WRITE_THROUGH,
        [WEIR_CACHE_WRITE_MODE_WRITE_AROUND]  = WEIR_CACHE_WRITE_AROUND,
        [WEIR_CACHE_WRITE_MODE_READ_ONLY]     = WEIR_CACHE_READ_ONLY,
    };

    static const WeirCacheOnError on_errors[] = {
        [WEIR_ON_ERROR_BYPASS] = WEIR_CACHE_BYPASS,
        [WEIR_ON_ERROR_STALL]  = WEIR_CACHE_STALL,
        [WEIR_ON_ERROR_FAIL]   = WEIR_CACHE_FAIL,
    };

    weir_cache_config_default(config);
    if (opts->has_mode) {
        config->mode = modes[opts->mode];
    }
    if (opts->has_dirty_high) {
        config->dirty_high_percent = opts->dirty_high;
        config->dirty_low_percent = MIN(config->dirty_low_percent,
                                        opts->dirty_high);
    }
    if (opts->has_dirty_low) {
        config->dirty_low_percent = opts->dirty_low;
    }
    if (opts->has_dirty_age) {
        config->dirty_age_ms = opts->dirty_age;
    }
    if (opts->has_idle) {
        config->idle_ms = opts->idle;
    }
    if (opts->has_write_back_rate) {
        config->write_back_rate = opts->write_back_rate;
    }
    if (opts->has_bypass_sequential) {
        config->bypass_sequential_bytes = opts->bypass_sequential;
    }
    if (opts->has_promote) {
        config->promote = opts->promote == WEIR_CACHE_PROMOTE_SECOND_TOUCH
                          ? WEIR_CACHE_SECOND_TOUCH : WEIR_CACHE_FIRST_TOUCH;
    }
    if (opts->has_on_error) {
        config->on_error = on_errors[opts->on_error];
    }
    if (opts->has_error_deadline) {
        config->error_deadline_ms = opts->error_deadline;
    }
}

/* Take this driver's options from @options and check them. */
static WeirCacheOptions *cache_parse(QDict *options, WeirCacheConfig *config,
                                     Error **errp)
{
    g_autoptr(WeirCacheOptions) opts = NULL;
    char message[256];
    Visitor *v;

    v = weir_filter_options_visitor(options, cache_options, errp);
    if (!v) {
        return NULL;
    }
    visit_type_WeirCacheOptions(v, NULL, &opts, errp);
    visit_free(v);
    if (!opts) {
        return NULL;
    }
    config_from_qapi(config, opts);
    if (weir_cache_config_check(config, message, sizeof(message)) < 0) {
        error_setg(errp, "weir-cache: %s", message);
        return NULL;
    }
    if (opts->base_id && strlen(opts->base_id) >= 64) {
        error_setg(errp, "weir-cache: base-id must be less than 64 bytes");
        return NULL;
    }
    return g_steal_pointer(&opts);
}

/* --- life --- */

static BlockDriverState *base_node(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bs->file->bs;
}

/*
 * A crash has taken back that the disk had become longer, and there are dirty
 * blocks behind its end.
 */
static int base_regrow(BlockDriverState *bs, Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    BlockBackend *blk = blk_new(bdrv_get_aio_context(bs), BLK_PERM_RESIZE |
                                BLK_PERM_WRITE, BLK_PERM_ALL);
    int ret = blk_insert_bs(blk, base_node(bs), errp);

    if (ret == 0) {
        ret = blk_truncate(blk, s->base_needed, false, PREALLOC_MODE_OFF, 0,
                           errp);
    }
    blk_unref(blk);
    return ret;
}

static int engine_start(BlockDriverState *bs, Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    Error *err = NULL;
    int ret = cache_call(bs, engine_open, &err);

    if (ret == -EFBIG && s->base_needed && !s->open.base_read_only) {
        error_free(err);
        err = NULL;
        ret = base_regrow(bs, &err);
        if (ret == 0) {
            ret = cache_call(bs, engine_open, &err);
        }
    }
    error_propagate(errp, err);
    return ret;
}

static int open_cache_child(BlockDriverState *bs, QDict *options, int flags,
                            Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    bool writable;

    s->cache = bdrv_open_child(NULL, options, "cache-file", bs, &child_of_bds,
                               BDRV_CHILD_DATA | BDRV_CHILD_METADATA, false,
                               errp);
    if (!s->cache) {
        return -EINVAL;
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    writable = !bdrv_is_read_only(s->cache->bs);
    if (!writable && flags & BDRV_O_RDWR) {
        error_setg(errp, "weir-cache: Node '%s' with the cache is read-only; "
                   "that is only possible when the disk is, too",
                   bdrv_get_node_name(s->cache->bs));
        return -EACCES;
    }
    s->open.base_read_only = !(flags & BDRV_O_RDWR);
    s->open.fast_read_only = !writable;
    s->cache_writable = writable;
    return bdrv_child_refresh_perms(bs, s->cache, errp);
}

static bool cache_check_options(QDict *options, Error **errp)
{
    g_autoptr(WeirCacheOptions) opts = NULL;
    WeirCacheConfig config;

    opts = cache_parse(options, &config, errp);
    return opts;
}

static int cache_open(BlockDriverState *bs, QDict *options, int flags,
                      Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    g_autoptr(WeirCacheOptions) opts = NULL;
    int ret;

    opts = cache_parse(options, &s->open.config, errp);
    if (!opts) {
        return -EINVAL;
    }
    s->open.overwrite = opts->overwrite;
    s->open.lose_dirty = opts->lose_dirty;
    s->open.base_needed = &s->base_needed;
    ret = weir_filter_open(bs, options, errp);
    if (ret < 0) {
        return ret;
    }
    s->open.base_id = s->base_id = g_strdup(opts->base_id ?: "");
    ret = open_cache_child(bs, options, flags, errp);
    if (ret == 0 && !(flags & BDRV_O_INACTIVE)) {
        ret = engine_start(bs, errp);
    }
    if (ret < 0) {
        g_free(s->base_id);
        weir_filter_close(bs);
        return ret;
    }
    if (!s->timer) {
        weir_cache_attach_aio_context(bs, bdrv_get_aio_context(bs));
    }
    return 0;
}

static void cache_close(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    wait_for_tasks(s);
    /* when this fails the journal has it all, for the next opening */
    if (s->engine) {
        cache_call(bs, engine_close, NULL);
    }
    g_clear_pointer(&s->timer, timer_free);
    engine_free(s);
    weir_filter_close(bs);
    g_free(s->base_id);
}

static int GRAPH_RDLOCK cache_inactivate(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;
    int ret;

    bdrv_drained_begin(bs);             /* exports are still at work */
    ret = weir_filter_inactivate_users(bs);
    wait_for_tasks(s);
    if (ret == 0 && s->engine) {
        ret = cache_call(bs, engine_give_up, NULL);
    }
    if (ret == 0) {
        wait_for_tasks(s);              /* those of the drain */
        engine_free(s);
    } else {
        weir_filter_activate_users(bs);
    }
    bdrv_drained_end(bs);
    return ret;
}

static void coroutine_fn GRAPH_RDLOCK
cache_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;

    if (!s->engine) {
        s->handing_over = false;
        engine_open(bs, errp);
    }
}

static int cache_reopen_prepare(BDRVReopenState *state,
                                BlockReopenQueue *queue, Error **errp)
{
    BDRVWeirCacheState *s = state->bs->opaque;
    g_autofree WeirCacheConfig *config = g_new(WeirCacheConfig, 1);
    g_autoptr(WeirCacheOptions) opts = NULL;

    opts = cache_parse(state->options, config, errp);
    if (!opts) {
        return -EINVAL;
    }
    if (strcmp(opts->base_id ?: "", s->base_id) ||
        opts->overwrite != s->open.overwrite ||
        opts->lose_dirty != s->open.lose_dirty) {
        error_setg(errp, "weir-cache: base-id, overwrite and lose-dirty "
                   "cannot be changed while the node is open");
        return -EINVAL;
    }
    if (state->flags & BDRV_O_RDWR && !s->cache_writable) {
        error_setg(errp, "weir-cache: The disk cannot become writable, since "
                   "its cache is open read-only");
        return -EACCES;
    }
    if (s->handing_over) {
        error_setg(errp, "weir-cache: The node is being detached, or the "
                   "machine migrated");
        return -EBUSY;
    }
    state->opaque = g_steal_pointer(&config);
    return 0;
}

static void cache_reopen_commit(BDRVReopenState *state)
{
    BDRVWeirCacheState *s = state->bs->opaque;
    g_autofree WeirCacheConfig *config = g_steal_pointer(&state->opaque);

    s->open.config = *config;
    s->open.base_read_only = !(state->flags & BDRV_O_RDWR);
    if (s->engine) {
        weir_cache_configure(s->engine, config);
        weir_cache_set_base_read_only(s->engine, s->open.base_read_only);
    }
}

static void cache_reopen_abort(BDRVReopenState *state)
{
    g_clear_pointer(&state->opaque, g_free);
}

static void GRAPH_RDLOCK cache_refresh_limits(BlockDriverState *bs,
                                              Error **errp)
{
    /* the engine takes any request, but these are cheap only so */
    bs->bl.pwrite_zeroes_alignment = WEIR_CACHE_BLOCK_BYTES;
    bs->bl.pdiscard_alignment = WEIR_CACHE_BLOCK_BYTES;
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP;
    bs->supported_truncate_flags = bs->file->bs->supported_truncate_flags &
                                   BDRV_REQ_ZERO_WRITE;
}

/* --- requests --- */

static int64_t request_begin(BDRVWeirCacheState *s, WeirIoOp op)
{
    qatomic_inc(&s->requests);
    return weir_filter_begin(&s->filter, op);
}

static int request_end(BDRVWeirCacheState *s, WeirIoOp op, int64_t bytes,
                       int64_t begin_ns, int ret)
{
    qatomic_dec(&s->requests);
    return weir_filter_end(&s->filter, op, bytes, begin_ns, ret);
}

static WeirCacheGuest guest_memory(QEMUIOVector *qiov, size_t qiov_offset)
{
    return (WeirCacheGuest) {
        .host = qiov, .iov = qiov->iov, .niov = qiov->niov,
        .offset = qiov_offset,
    };
}

static int coroutine_fn GRAPH_RDLOCK
cache_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     QEMUIOVector *qiov, size_t qiov_offset,
                     BdrvRequestFlags flags)
{
    BDRVWeirCacheState *s = bs->opaque;
    WeirCacheGuest guest = guest_memory(qiov, qiov_offset);
    int64_t begin_ns;
    int ret;

    if (!s->engine) {
        /* inactive: a device looks for a partition table, for instance */
        return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                                   0);
    }
    begin_ns = request_begin(s, WEIR_IO_READ);
    ret = weir_cache_read(s->engine, offset, bytes, &guest);
    return request_end(s, WEIR_IO_READ, bytes, begin_ns, ret);
}

/* A format that is above makes its file longer by writing behind its end. */
static int coroutine_fn GRAPH_RDLOCK grow_for(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes)
{
    BDRVWeirCacheState *s = bs->opaque;
    int64_t end = ROUND_UP(offset + bytes, BDRV_SECTOR_SIZE);

    if (!s->engine) {
        return -EPERM;                  /* about to become active, or not */
    }
    return end > bs->total_sectors * BDRV_SECTOR_SIZE
           ? weir_cache_grow(s->engine, end) : 0;
}

static int coroutine_fn GRAPH_RDLOCK
cache_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset,
                      BdrvRequestFlags flags)
{
    BDRVWeirCacheState *s = bs->opaque;
    WeirCacheGuest guest = guest_memory(qiov, qiov_offset);
    int64_t begin_ns = request_begin(s, WEIR_IO_WRITE);
    int ret = grow_for(bs, offset, bytes);

    if (ret == 0) {
        ret = weir_cache_write(s->engine, offset, bytes, &guest,
                               flags & BDRV_REQ_FUA);
    }
    return request_end(s, WEIR_IO_WRITE, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
cache_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       BdrvRequestFlags flags)
{
    BDRVWeirCacheState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (!QEMU_IS_ALIGNED(offset | bytes, WEIR_CACHE_BLOCK_BYTES)) {
        return -ENOTSUP;                /* the block layer writes them */
    }
    begin_ns = request_begin(s, WEIR_IO_ZEROES);
    ret = grow_for(bs, offset, bytes);
    if (ret == 0) {
        ret = weir_cache_zero(s->engine, offset, bytes,
                              flags & BDRV_REQ_MAY_UNMAP,
                              flags & BDRV_REQ_FUA);
    }
    return request_end(s, WEIR_IO_ZEROES, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
cache_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVWeirCacheState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (!QEMU_IS_ALIGNED(offset | bytes, WEIR_CACHE_BLOCK_BYTES)) {
        return -ENOTSUP;                /* it may be ignored */
    }
    begin_ns = request_begin(s, WEIR_IO_DISCARD);
    ret = s->engine ? weir_cache_discard(s->engine, offset, bytes) : -EPERM;
    return request_end(s, WEIR_IO_DISCARD, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK cache_co_flush(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;
    int64_t begin_ns;
    int ret;

    if (!s->engine) {
        return 0;                       /* inactive: nothing is ours */
    }
    begin_ns = request_begin(s, WEIR_IO_FLUSH);
    ret = weir_cache_flush(s->engine);
    return request_end(s, WEIR_IO_FLUSH, 0, begin_ns, ret);
}

/*
 * Never the child's place, and its zeroes only where nothing is cached: a
 * cached block may be newer.
 */
static int coroutine_fn GRAPH_RDLOCK
cache_co_block_status(BlockDriverState *bs, WeirStatusMode mode,
                      int64_t offset, int64_t bytes, int64_t *pnum,
                      int64_t *map, BlockDriverState **file)
{
    BDRVWeirCacheState *s = bs->opaque;
    WeirCacheStatus status = WEIR_CACHE_STATUS_BASE;
    uint64_t same = bytes;
    int ret;

    if (s->engine) {
        status = weir_cache_status(s->engine, offset, bytes, &same);
    }
    *pnum = MIN(bytes, same);
    if (status != WEIR_CACHE_STATUS_BASE) {
        return status == WEIR_CACHE_STATUS_ZERO ? BDRV_BLOCK_ZERO
                                                : BDRV_BLOCK_DATA;
    }
    /* with the backing files that the disk may have: they are not ours */
    ret = bdrv_co_block_status_above(bs->file->bs, NULL, offset, *pnum, pnum,
                                     NULL, NULL);
    if (ret < 0) {
        return ret;
    }
    return ret & BDRV_BLOCK_ZERO ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA;
}

static int coroutine_fn GRAPH_RDLOCK cache_shrink(BlockDriverState *bs,
                                                  int64_t bytes, Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    int ret = weir_cache_drain(s->engine);

    if (ret == 0) {
        ret = weir_cache_will_resize(s->engine);
    }
    if (ret == 0) {
        ret = weir_cache_resize(s->engine, bytes);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-cache: Dirty blocks are in the way");
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
cache_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                  PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    bool shrinks = offset < bs->total_sectors * BDRV_SECTOR_SIZE;
    int ret;

    if (!s->engine) {
        error_setg(errp, "weir-cache: The node is inactive");
        return -EBUSY;
    }
    ret = shrinks ? cache_shrink(bs, offset, errp)
                  : weir_cache_will_resize(s->engine);
    if (ret < 0 && !shrinks) {
        error_setg_errno(errp, -ret, "weir-cache: The cache cannot be told");
    }
    if (ret == 0) {
        ret = bdrv_co_truncate(bs->file, offset, exact, prealloc, flags, errp);
    }
    if (ret == 0 && !shrinks) {
        ret = weir_cache_resize(s->engine, ROUND_UP(offset, BDRV_SECTOR_SIZE));
        if (ret < 0) {
            error_setg_errno(errp, -ret, "weir-cache: The new length could "
                             "not be put on record");
        }
    }
    return ret;
}

/* Of the disk: QEMU would add the cache to it. */
static int64_t coroutine_fn GRAPH_RDLOCK
cache_co_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_co_get_allocated_file_size(bs->file->bs);
}

/* --- figures --- */

static void cache_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    static const WeirCacheWriteMode modes[] = {
        [WEIR_CACHE_WRITE_BACK]    = WEIR_CACHE_WRITE_MODE_WRITE_BACK,
        [WEIR_CACHE_WRITE_THROUGH] = WEIR_CACHE_WRITE_MODE_WRITE_THROUGH,
        [WEIR_CACHE_WRITE_AROUND]  = WEIR_CACHE_WRITE_MODE_WRITE_AROUND,
        [WEIR_CACHE_READ_ONLY]     = WEIR_CACHE_WRITE_MODE_READ_ONLY,
    };
    static const WeirOnError on_errors[] = {
        [WEIR_CACHE_BYPASS] = WEIR_ON_ERROR_BYPASS,
        [WEIR_CACHE_STALL]  = WEIR_ON_ERROR_STALL,
        [WEIR_CACHE_FAIL]   = WEIR_ON_ERROR_FAIL,
    };
    BDRVWeirCacheState *s = bs->opaque;
    WeirCacheNodeInfo *out = &node->u.weir_cache;
    WeirCacheInfo info = { 0 };

    if (s->engine) {
        weir_cache_query(s->engine, &info);
    }
    out->mode = modes[s->open.config.mode];
    out->cache = g_strdup(bdrv_get_node_name(s->cache->bs));
    out->size = info.slots * WEIR_CACHE_BLOCK_BYTES;
    out->used = info.mapped * WEIR_CACHE_BLOCK_BYTES;
    out->dirty = info.dirty * WEIR_CACHE_BLOCK_BYTES;
    out->memory = info.memory_bytes;
    out->read_hits = info.read_hits;
    out->read_misses = info.read_misses;
    out->write_hits = info.write_hits;
    out->write_misses = info.write_misses;
    out->has_hit_ratio_minute = info.accesses_minute;
    if (info.accesses_minute) {
        out->hit_ratio_minute = (double)info.hits_minute /
                                info.accesses_minute;
    }
    out->has_hit_ratio_hour = info.accesses_hour;
    if (info.accesses_hour) {
        out->hit_ratio_hour = (double)info.hits_hour / info.accesses_hour;
    }
    out->fills = info.fills;
    out->evictions = info.evictions;
    out->bypassed = info.bypassed;
    out->written_back = info.written_back;
    out->write_back_requests = info.write_back_requests;
    out->write_back_lag = info.write_back_lag_ms;
    out->draining = info.draining;
    out->read_only = s->open.base_read_only;
    out->promote = s->open.config.promote == WEIR_CACHE_SECOND_TOUCH
                   ? WEIR_CACHE_PROMOTE_SECOND_TOUCH
                   : WEIR_CACHE_PROMOTE_FIRST_TOUCH;
    out->on_error = on_errors[s->open.config.on_error];
    out->stalled = info.stalled;
    out->write_errors = info.fast_write_errors;
    out->journal_size = info.journal_blocks;
    out->journal_used = info.journal_used;
    out->journal_written = info.journal_written;
    out->table_written = info.table_written;
    out->cache_flushes = info.fast_flushes;
    out->base_flushes = info.base_flushes;
    out->corrupt_clean = info.corrupt_clean;
    out->corrupt_dirty = info.corrupt_dirty;
    out->recovered_records = info.recovered_records;
}

/* --- detach, migration --- */

/* Write-through from here on, so that the drain comes to an end. */
static void cache_begin_handover(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;
    WeirCacheConfig config = s->open.config;

    s->handing_over = true;
    config.mode = WEIR_CACHE_WRITE_THROUGH;
    if (s->engine) {
        weir_cache_configure(s->engine, &config);
    }
}

static uint64_t cache_handover_left(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;
    WeirCacheInfo info = { 0 };

    if (s->engine) {
        weir_cache_query(s->engine, &info);
    }
    return info.dirty * WEIR_CACHE_BLOCK_BYTES;
}

static void cache_cancel_handover(BlockDriverState *bs)
{
    BDRVWeirCacheState *s = bs->opaque;

    s->handing_over = false;
    if (s->engine) {
        weir_cache_configure(s->engine, &s->open.config);
    }
}

static int cache_prepare_detach(BlockDriverState *bs, bool force, Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;
    int ret;

    cache_begin_handover(bs);
    ret = s->engine ? cache_call(bs, engine_drain, force ? NULL : errp) : 0;
    if (ret < 0 && !force) {
        cache_cancel_handover(bs);
        return ret;
    }
    s->given_up = true;                 /* the disk goes on without us */
    s->lose_dirty = force;
    return 0;
}

/* The image below an overlay is read, and copied, without the cache. */
static int cache_prepare_overlay(BlockDriverState *bs, bool is_frozen,
                                 Error **errp)
{
    BDRVWeirCacheState *s = bs->opaque;

    return s->engine ? cache_call(bs, engine_drain, errp) : 0;
}

/*
 * A format above has become read-only meanwhile, and has written its bitmaps,
 * and that it is whole.  What fails is told by the state.
 */
static void cache_finish_overlay(BlockDriverState *bs, bool is_frozen, int ret)
{
    BDRVWeirCacheState *s = bs->opaque;

    if (is_frozen && ret == 0 && s->engine) {
        cache_call(bs, engine_drain, NULL);
    }
}

static WeirFilterDriver cache_filter = {
    .format_name     = "weir-cache",
    .driver          = WEIR_DRIVER_WEIR_CACHE,
    .capabilities    = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_CACHE,
        .changes_data = false,
        .holds_data   = true,
    },
    .check_options   = cache_check_options,
    .begin_handover  = cache_begin_handover,
    .handover_left   = cache_handover_left,
    .cancel_handover = cache_cancel_handover,
    .prepare_detach  = cache_prepare_detach,
    .prepare_overlay = cache_prepare_overlay,
    .finish_overlay  = cache_finish_overlay,
    .query           = cache_query,
};

/*
 * No .bdrv_co_copy_range_*: the cache has to see the data.  The block layer
 * reads and writes it then.
 */
static BlockDriver bdrv_weir_cache = {
    .format_name                = "weir-cache",
    .instance_size              = sizeof(BDRVWeirCacheState),

    .bdrv_open                  = cache_open,
    .bdrv_close                 = cache_close,
    .bdrv_child_perm            = cache_child_perm,
    .bdrv_set_perm              = cache_set_perm,
    .bdrv_refresh_limits        = cache_refresh_limits,
    .bdrv_reopen_prepare        = cache_reopen_prepare,
    .bdrv_reopen_commit         = cache_reopen_commit,
    .bdrv_reopen_abort          = cache_reopen_abort,
    .strong_runtime_opts        = cache_strong_options,
    .mutable_opts               = cache_mutable_options,
    .bdrv_inactivate            = cache_inactivate,
    .bdrv_co_invalidate_cache   = cache_co_invalidate_cache,
    .bdrv_attach_aio_context    = weir_cache_attach_aio_context,
    .bdrv_detach_aio_context    = weir_cache_detach_aio_context,
    .bdrv_drain_begin           = weir_cache_drain_begin,
    .bdrv_drain_end             = weir_cache_drain_end,

    .bdrv_co_getlength          = weir_filter_co_getlength,
    .bdrv_co_preadv_part        = cache_co_preadv_part,
    .bdrv_co_pwritev_part       = cache_co_pwritev_part,
    .bdrv_co_pwrite_zeroes      = cache_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = cache_co_pdiscard,
    .bdrv_co_flush              = cache_co_flush,
    .bdrv_co_block_status       = cache_co_block_status,
    .bdrv_co_truncate           = cache_co_truncate,
    .bdrv_co_get_allocated_file_size = cache_co_get_allocated_file_size,
};

static void weir_cache_init(void)
{
    weir_filter_register(&cache_filter);
    bdrv_register(&bdrv_weir_cache);
}

block_init(weir_cache_init);

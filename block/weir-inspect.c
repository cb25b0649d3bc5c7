/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-inspect: pass requests through and tell about them.
 *
 * What is told is worked out by filters/inspect; this file connects it to the
 * block layer.  The data is always the child's (.is_filter), so block status,
 * truncation and internal snapshots are left to the block layer's defaults.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/module.h"
#include "filter.h"
#include "inspect/inspect.h"

typedef struct BDRVWeirInspectState {
    WeirFilter filter;          /* first: see filter.h */
    WeirInspect *engine;        /* set at open; has its own locks */
} BDRVWeirInspectState;

static const char *const inspect_options[] = {
    "working-set", "entropy", "entropy-window", "entropy-high", "entropy-low",
    "entropy-alert", "entropy-min-overwrites", NULL
};

/* Nothing that this driver is told changes the data that is read from it. */
static const char *const inspect_strong_options[] = { NULL };

static void inspect_config_from_qapi(WeirInspectConfig *config,
                                     const WeirInspectOptions *opts)
{
    weir_inspect_config_default(config);
    if (opts->has_working_set) {
        config->working_set = opts->working_set;
    }
    if (opts->has_entropy) {
        config->entropy = opts->entropy;
    }
    if (opts->has_entropy_window) {
        config->entropy_window_s = opts->entropy_window;
    }
    if (opts->has_entropy_high) {
        config->entropy_high_bits = opts->entropy_high;
    }
    if (opts->has_entropy_low) {
        config->entropy_low_bits = opts->entropy_low;
    }
    if (opts->has_entropy_alert) {
        config->entropy_alert_share = opts->entropy_alert;
    }
    if (opts->has_entropy_min_overwrites) {
        config->entropy_min_overwrites = opts->entropy_min_overwrites;
    }
}

/* Take this driver's options from @options and check them. */
static int inspect_parse(QDict *options, WeirInspectConfig *config,
                         Error **errp)
{
    g_autoptr(WeirInspectOptions) opts = NULL;
    char message[256];
    Visitor *v;
    int ret;

    v = weir_filter_options_visitor(options, inspect_options, errp);
    if (!v) {
        return -EINVAL;
    }
    visit_type_WeirInspectOptions(v, NULL, &opts, errp);
    visit_free(v);
    if (!opts) {
        return -EINVAL;
    }
    inspect_config_from_qapi(config, opts);
    ret = weir_inspect_config_check(config, message, sizeof(message));
    if (ret < 0) {
        error_setg(errp, "weir-inspect: %s", message);
    }
    return ret;
}

static bool inspect_check_options(QDict *options, Error **errp)
{
    WeirInspectConfig config;

    return inspect_parse(options, &config, errp) == 0;
}

static int inspect_open(BlockDriverState *bs, QDict *options, int flags,
                        Error **errp)
{
    BDRVWeirInspectState *s = bs->opaque;
    WeirInspectConfig config;
    int ret;

    ret = inspect_parse(options, &config, errp);
    if (ret < 0) {
        return ret;
    }
    ret = weir_inspect_new(&s->engine, &config);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-inspect: Could not set up");
        return ret;
    }
    ret = weir_filter_open(bs, options, errp);
    if (ret < 0) {
        weir_inspect_free(s->engine);
    }
    return ret;
}

static void inspect_close(BlockDriverState *bs)
{
    BDRVWeirInspectState *s = bs->opaque;

    weir_filter_close(bs);
    weir_inspect_free(s->engine);
}

static int inspect_reopen_prepare(BDRVReopenState *state,
                                  BlockReopenQueue *queue, Error **errp)
{
    g_autofree WeirInspectConfig *config = g_new(WeirInspectConfig, 1);
    int ret = inspect_parse(state->options, config, errp);

    if (ret == 0) {
        state->opaque = g_steal_pointer(&config);
    }
    return ret;
}

static void inspect_reopen_commit(BDRVReopenState *state)
{
    BDRVWeirInspectState *s = state->bs->opaque;

    weir_inspect_configure(s->engine, state->opaque);
    g_clear_pointer(&state->opaque, g_free);
}

static void inspect_reopen_abort(BDRVReopenState *state)
{
    g_clear_pointer(&state->opaque, g_free);
}

/* Look at the content of a request that covers sampled blocks. */
static void inspect_data(BlockDriverState *bs, bool is_write, int64_t offset,
                         int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVWeirInspectState *s = bs->opaque;
    WeirInspectEntropy entropy;

    if (!weir_inspect_wants_data(s->engine, offset, bytes) ||
        !weir_inspect_data(s->engine, is_write, offset, bytes, qiov->iov,
                           qiov->niov, qiov_offset, get_clock())) {
        return;
    }
    weir_inspect_read_entropy(s->engine, get_clock(), &entropy);
    weir_filter_emit_inspect_alert(bs, entropy.window_overwrites,
                                   entropy.window_suspicious,
                                   entropy.window_share);
}

static int coroutine_fn GRAPH_RDLOCK
inspect_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset,
                       BdrvRequestFlags flags)
{
    BDRVWeirInspectState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_READ);
    int ret;

    weir_inspect_request(s->engine, false, offset, bytes);
    ret = bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                              flags);
    ret = weir_filter_end(&s->filter, WEIR_IO_READ, bytes, begin_ns, ret);
    /* A prefetch leaves no data behind. */
    if (ret >= 0 && !(flags & BDRV_REQ_PREFETCH)) {
        inspect_data(bs, false, offset, bytes, qiov, qiov_offset);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
inspect_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        BdrvRequestFlags flags)
{
    BDRVWeirInspectState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_WRITE);
    int ret;

    weir_inspect_request(s->engine, true, offset, bytes);
    ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset,
                               flags);
    ret = weir_filter_end(&s->filter, WEIR_IO_WRITE, bytes, begin_ns, ret);
    if (ret >= 0) {
        inspect_data(bs, true, offset, bytes, qiov, qiov_offset);
    } else {
        weir_inspect_forget(s->engine, offset, bytes);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
inspect_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         BdrvRequestFlags flags)
{
    BDRVWeirInspectState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_ZEROES);
    int ret = bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);

    weir_inspect_forget(s->engine, offset, bytes);
    return weir_filter_end(&s->filter, WEIR_IO_ZEROES, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
inspect_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVWeirInspectState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_DISCARD);
    int ret = bdrv_co_pdiscard(bs->file, offset, bytes);

    weir_inspect_forget(s->engine, offset, bytes);
    return weir_filter_end(&s->filter, WEIR_IO_DISCARD, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
inspect_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                           int64_t src_offset, BdrvChild *dst,
                           int64_t dst_offset, int64_t bytes,
                           BdrvRequestFlags read_flags,
                           BdrvRequestFlags write_flags)
{
    BDRVWeirInspectState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_COPY);
    int ret = bdrv_co_copy_range_from(bs->file, src_offset, dst, dst_offset,
                                      bytes, read_flags, write_flags);

    return weir_filter_end(&s->filter, WEIR_IO_COPY, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
inspect_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                         int64_t src_offset, BdrvChild *dst,
                         int64_t dst_offset, int64_t bytes,
                         BdrvRequestFlags read_flags,
                         BdrvRequestFlags write_flags)
{
    BDRVWeirInspectState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_COPY);
    int ret = bdrv_co_copy_range_to(src, src_offset, bs->file, dst_offset,
                                    bytes, read_flags, write_flags);

    weir_inspect_forget(s->engine, dst_offset, bytes);
    return weir_filter_end(&s->filter, WEIR_IO_COPY, bytes, begin_ns, ret);
}

static WeirInspectTrafficInfo *query_traffic(const WeirInspect *engine,
                                             bool is_write)
{
    WeirInspectTrafficInfo *info = g_new0(WeirInspectTrafficInfo, 1);
    WeirInspectTraffic traffic;

    weir_inspect_read_traffic(engine, is_write, &traffic);
    info->requests = traffic.requests;
    info->bytes = traffic.bytes;
    info->sequential = traffic.sequential;
    info->size_histogram = weir_histogram_to_qapi(traffic.sizes,
                                                  ARRAY_SIZE(traffic.sizes));
    return info;
}

static WeirMissRatioPointList *query_curve(const WeirInspectWorkingSet *set)
{
    WeirMissRatioPointList *list = NULL;

    for (uint32_t i = set->points; i > 0; i--) {
        WeirMissRatioPoint *point = g_new0(WeirMissRatioPoint, 1);

        point->cache_size = set->curve[i - 1].cache_bytes;
        point->miss_ratio = set->curve[i - 1].miss_ratio;
        QAPI_LIST_PREPEND(list, point);
    }
    return list;
}

static WeirInspectWorkingSetInfo *query_working_set(WeirInspect *engine)
{
    WeirInspectWorkingSetInfo *info;
    WeirInspectWorkingSet set;

    weir_inspect_read_working_set(engine, &set);
    if (!set.enabled) {
        return NULL;
    }
    info = g_new0(WeirInspectWorkingSetInfo, 1);
    info->block_size = set.block_bytes;
    info->accesses = set.accesses;
    info->sampled_accesses = set.sampled_accesses;
    info->sampled_blocks = set.sampled_blocks;
    info->sampling_rate = set.sampling_rate;
    info->unique_bytes = set.unique_bytes;
    info->curve = query_curve(&set);
    return info;
}

static WeirInspectEntropyInfo *query_entropy(WeirInspect *engine)
{
    WeirInspectEntropyInfo *info;
    WeirInspectEntropy entropy;

    weir_inspect_read_entropy(engine, get_clock(), &entropy);
    if (!entropy.enabled) {
        return NULL;
    }
    info = g_new0(WeirInspectEntropyInfo, 1);
    info->window = entropy.window_s;
    info->sampled_reads = entropy.sampled_reads;
    info->sampled_writes = entropy.sampled_writes;
    info->mean_bits = entropy.window_write_bits;
    info->overwrites = entropy.window_overwrites;
    info->suspicious_overwrites = entropy.window_suspicious;
    info->share = entropy.window_share;
    info->alert = entropy.alert;
    info->alerts = entropy.alerts;
    info->histogram = weir_histogram_to_qapi(entropy.written,
                                             ARRAY_SIZE(entropy.written));
    return info;
}

static void inspect_query(BlockDriverState *bs, WeirFilterInfo *info)
{
    BDRVWeirInspectState *s = bs->opaque;

    info->u.weir_inspect.reads = query_traffic(s->engine, false);
    info->u.weir_inspect.writes = query_traffic(s->engine, true);
    info->u.weir_inspect.working_set = query_working_set(s->engine);
    info->u.weir_inspect.entropy = query_entropy(s->engine);
}

static WeirFilterDriver inspect_filter = {
    .format_name   = "weir-inspect",
    .driver        = WEIR_DRIVER_WEIR_INSPECT,
    .capabilities  = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_INSPECTION,
        .changes_data = false,
        .holds_data   = false,
    },
    .check_options = inspect_check_options,
    .query         = inspect_query,
};

static BlockDriver bdrv_weir_inspect = {
    .format_name                = "weir-inspect",
    .instance_size              = sizeof(BDRVWeirInspectState),
    .is_filter                  = true,

    .bdrv_open                  = inspect_open,
    .bdrv_close                 = inspect_close,
    .bdrv_child_perm            = weir_filter_child_perm,
    .bdrv_set_perm              = weir_filter_set_perm,
    .bdrv_refresh_limits        = weir_filter_refresh_limits,
    .bdrv_reopen_prepare        = inspect_reopen_prepare,
    .bdrv_reopen_commit         = inspect_reopen_commit,
    .bdrv_reopen_abort          = inspect_reopen_abort,
    .strong_runtime_opts        = inspect_strong_options,
    .mutable_opts               = inspect_options,

    .bdrv_co_getlength          = weir_filter_co_getlength,
    .bdrv_co_preadv_part        = inspect_co_preadv_part,
    .bdrv_co_pwritev_part       = inspect_co_pwritev_part,
    .bdrv_co_pwrite_zeroes      = inspect_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = inspect_co_pdiscard,
    .bdrv_co_flush              = weir_filter_co_flush,
    .bdrv_co_copy_range_from    = inspect_co_copy_range_from,
    .bdrv_co_copy_range_to      = inspect_co_copy_range_to,
};

static void weir_inspect_init(void)
{
    weir_filter_register(&inspect_filter);
    bdrv_register(&bdrv_weir_inspect);
}

block_init(weir_inspect_init);

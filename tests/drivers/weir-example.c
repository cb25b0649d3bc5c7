/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-example: a complete filter in a hundred lines.  It refuses writes to
 * a range of the disk and passes everything else on.
 *
 * docs/adding-a-filter.md goes through this file.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/module.h"
#include "qemu/range.h"
#include "filter.h"

typedef struct BDRVWeirExampleState {
    WeirFilter filter;          /* first: see filter.h */
    uint64_t offset;            /* set at open */
    uint64_t size;              /* set at open */
} BDRVWeirExampleState;

static const char *const example_options[] = { "offset", "size", NULL };
/* The data that is read from the disk does not depend on any option. */
static const char *const example_strong_options[] = { NULL };

/* NULL with @errp set: the driver does not take them. */
static WeirExampleOptions *example_parse(QDict *options, Error **errp)
{
    g_autoptr(WeirExampleOptions) opts = NULL;
    Visitor *v;

    v = weir_filter_options_visitor(options, example_options, errp);
    if (!v) {
        return NULL;
    }
    visit_type_WeirExampleOptions(v, NULL, &opts, errp);
    visit_free(v);
    if (opts && opts->size > UINT64_MAX - opts->offset) {
        error_setg(errp, "weir-example: 'offset' + 'size' is over 2^64");
        return NULL;
    }
    return g_steal_pointer(&opts);
}

static bool example_check_options(QDict *options, Error **errp)
{
    g_autoptr(WeirExampleOptions) opts = example_parse(options, errp);

    return opts;
}

static int example_open(BlockDriverState *bs, QDict *options, int flags,
                        Error **errp)
{
    g_autoptr(WeirExampleOptions) opts = example_parse(options, errp);
    BDRVWeirExampleState *s = bs->opaque;

    if (!opts) {
        return -EINVAL;
    }
    s->offset = opts->offset;
    s->size = opts->size;
    return weir_filter_open(bs, options, errp);
}

static int check_write(BDRVWeirExampleState *s, int64_t offset, int64_t bytes)
{
    return ranges_overlap(offset, bytes, s->offset, s->size) ? -EPERM : 0;
}

static int coroutine_fn GRAPH_RDLOCK
example_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset,
                       BdrvRequestFlags flags)
{
    BDRVWeirExampleState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_READ);
    int ret = bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                                  flags);

    return weir_filter_end(&s->filter, WEIR_IO_READ, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
example_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        BdrvRequestFlags flags)
{
    BDRVWeirExampleState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_WRITE);
    int ret = check_write(s, offset, bytes);

    if (ret == 0) {
        ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset,
                                   flags);
    }
    return weir_filter_end(&s->filter, WEIR_IO_WRITE, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
example_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         BdrvRequestFlags flags)
{
    BDRVWeirExampleState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_ZEROES);
    int ret = check_write(s, offset, bytes);

    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
    }
    return weir_filter_end(&s->filter, WEIR_IO_ZEROES, bytes, begin_ns, ret);
}

static int coroutine_fn GRAPH_RDLOCK
example_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVWeirExampleState *s = bs->opaque;
    int64_t begin_ns = weir_filter_begin(&s->filter, WEIR_IO_DISCARD);
    int ret = check_write(s, offset, bytes);

    if (ret == 0) {
        ret = bdrv_co_pdiscard(bs->file, offset, bytes);
    }
    return weir_filter_end(&s->filter, WEIR_IO_DISCARD, bytes, begin_ns, ret);
}

static WeirFilterDriver example_filter = {
    .format_name   = "weir-example",
    .driver        = WEIR_DRIVER_WEIR_EXAMPLE,
    .capabilities  = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_OTHER,
        .changes_data = false,
        .holds_data   = false,
    },
    .check_options = example_check_options,
};

static BlockDriver bdrv_weir_example = {
    .format_name            = "weir-example",
    .instance_size          = sizeof(BDRVWeirExampleState),
    .is_filter              = true,

    .bdrv_open              = example_open,
    .bdrv_close             = weir_filter_close,
    .bdrv_child_perm        = weir_filter_child_perm,
    .bdrv_set_perm          = weir_filter_set_perm,
    .bdrv_refresh_limits    = weir_filter_refresh_limits,
    .strong_runtime_opts    = example_strong_options,

    .bdrv_co_getlength      = weir_filter_co_getlength,
    .bdrv_co_preadv_part    = example_co_preadv_part,
    .bdrv_co_pwritev_part   = example_co_pwritev_part,
    .bdrv_co_pwrite_zeroes  = example_co_pwrite_zeroes,
    .bdrv_co_pdiscard       = example_co_pdiscard,
    .bdrv_co_flush          = weir_filter_co_flush,
    /* no .bdrv_co_copy_range_*: it would go around the check */
};

static void weir_example_init(void)
{
    weir_filter_register(&example_filter);
    bdrv_register(&bdrv_weir_example);
}

block_init(weir_example_init);

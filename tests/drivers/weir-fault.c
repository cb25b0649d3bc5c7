/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-fault: a filter that fails where a test wants it, to show that a
 * failed weir-attach or weir-detach leaves graph and I/O as they were.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/module.h"
#include "filter.h"

typedef struct BDRVWeirFaultState {
    WeirFilter filter;          /* first: see filter.h */
    WeirFaultPoint fail;        /* set at open */
} BDRVWeirFaultState;

static const char *const fault_options[] = { "fail", NULL };
static const char *const fault_strong_options[] = { NULL };

static int fault_open(BlockDriverState *bs, QDict *options, int flags,
                      Error **errp)
{
    g_autoptr(WeirFaultOptions) opts = NULL;
    BDRVWeirFaultState *s = bs->opaque;
    Visitor *v;
    int ret;

    v = weir_filter_options_visitor(options, fault_options, errp);
    if (!v) {
        return -EINVAL;
    }
    visit_type_WeirFaultOptions(v, NULL, &opts, errp);
    visit_free(v);
    if (!opts) {
        return -EINVAL;
    }
    s->fail = opts->fail;
    if (s->fail == WEIR_FAULT_POINT_BEFORE_CHILD) {
        error_setg(errp, "weir-fault: before the child is opened");
        return -EIO;
    }
    ret = weir_filter_open(bs, options, errp);
    if (ret == 0 && s->fail == WEIR_FAULT_POINT_AFTER_CHILD) {
        error_setg(errp, "weir-fault: after the child was opened");
        weir_filter_close(bs);
        ret = -EIO;
    }
    return ret;
}

static void GRAPH_RDLOCK fault_refresh_limits(BlockDriverState *bs,
                                              Error **errp)
{
    BDRVWeirFaultState *s = bs->opaque;

    if (s->fail == WEIR_FAULT_POINT_LIMITS) {
        error_setg(errp, "weir-fault: limits");
        return;
    }
    weir_filter_refresh_limits(bs, errp);
}

/* Asked first at open, when there are no users, then when they are moved. */
static int GRAPH_RDLOCK fault_check_perm(BlockDriverState *bs, uint64_t perm,
                                         uint64_t shared, Error **errp)
{
    BDRVWeirFaultState *s = bs->opaque;

    if (s->fail == WEIR_FAULT_POINT_INSERT && !QLIST_EMPTY(&bs->parents)) {
        error_setg(errp, "weir-fault: users are moved");
        return -EPERM;
    }
    return 0;
}

static int fault_prepare_detach(BlockDriverState *bs, bool force,
                                Error **errp)
{
    BDRVWeirFaultState *s = bs->opaque;

    if (s->fail == WEIR_FAULT_POINT_DETACH) {
        error_setg(errp, "weir-fault: detach");
        return -EBUSY;
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK
fault_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     QEMUIOVector *qiov, size_t qiov_offset,
                     BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                               flags);
}

static int coroutine_fn GRAPH_RDLOCK
fault_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset,
                      BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset,
                                flags);
}

static int coroutine_fn GRAPH_RDLOCK
fault_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                       BdrvRequestFlags flags)
{
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn GRAPH_RDLOCK
fault_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

static WeirFilterDriver fault_filter = {
    .format_name    = "weir-fault",
    .driver         = WEIR_DRIVER_WEIR_FAULT,
    .capabilities   = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_OTHER,
        .changes_data = false,
        .holds_data   = false,
    },
    .prepare_detach = fault_prepare_detach,
};

static BlockDriver bdrv_weir_fault = {
    .format_name            = "weir-fault",
    .instance_size          = sizeof(BDRVWeirFaultState),
    .is_filter              = true,

    .bdrv_open              = fault_open,
    .bdrv_close             = weir_filter_close,
    .bdrv_child_perm        = weir_filter_child_perm,
    .bdrv_check_perm        = fault_check_perm,
    .bdrv_set_perm          = weir_filter_set_perm,
    .bdrv_refresh_limits    = fault_refresh_limits,
    .strong_runtime_opts    = fault_strong_options,

    .bdrv_co_getlength      = weir_filter_co_getlength,
    .bdrv_co_preadv_part    = fault_co_preadv_part,
    .bdrv_co_pwritev_part   = fault_co_pwritev_part,
    .bdrv_co_pwrite_zeroes  = fault_co_pwrite_zeroes,
    .bdrv_co_pdiscard       = fault_co_pdiscard,
};

static void weir_fault_init(void)
{
    weir_filter_register(&fault_filter);
    bdrv_register(&bdrv_weir_fault);
}

block_init(weir_fault_init);

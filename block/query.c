/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-weir: tell about the filters of all disks. */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "filter.h"

static const WeirOperation operations[WEIR_IO__MAX] = {
    [WEIR_IO_READ]    = WEIR_OPERATION_READ,
    [WEIR_IO_WRITE]   = WEIR_OPERATION_WRITE,
    [WEIR_IO_ZEROES]  = WEIR_OPERATION_WRITE_ZEROES,
    [WEIR_IO_DISCARD] = WEIR_OPERATION_DISCARD,
    [WEIR_IO_FLUSH]   = WEIR_OPERATION_FLUSH,
    [WEIR_IO_COPY]    = WEIR_OPERATION_COPY,
};

static WeirOperationStatistics *query_operation(WeirFilter *filter,
                                                WeirIoOp op)
{
    WeirOperationStatistics *stat = g_new0(WeirOperationStatistics, 1);
    WeirIostatCounters counters;

    weir_iostat_read(&filter->stat, op, &counters);
    stat->operation = operations[op];
    stat->requests = counters.operations;
    stat->failed = counters.failed;
    stat->bytes = counters.bytes;
    stat->in_flight = counters.in_flight;
    stat->latency_total = counters.latency_total_ns;
    stat->latency_histogram =
        weir_histogram_to_qapi(counters.latency,
                               ARRAY_SIZE(counters.latency));
    return stat;
}

static BlockDriverState *parent_node(const BdrvChild *c)
{
    return c->klass == &child_of_bds ? c->opaque : NULL;
}

/*
 * A node whose parents are all filters is where those are; the place of one
 * with several users is the one nearest to the guest.
 */
static WeirPlace GRAPH_RDLOCK place_of(BlockDriverState *bs)
{
    WeirPlace place = WEIR_PLACE_UNUSED;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        BlockDriverState *parent = parent_node(c);
        WeirPlace here;

        if (!parent) {
            return WEIR_PLACE_DISK;
        } else if (c->role & BDRV_CHILD_COW) {
            here = WEIR_PLACE_BACKING;
        } else if (parent->drv && parent->drv->is_format) {
            here = place_of(parent) == WEIR_PLACE_BACKING ?
                   WEIR_PLACE_BACKING : WEIR_PLACE_STORAGE;
        } else {
            here = place_of(parent);
        }
        place = MIN(place, here);
    }
    return place;
}

static strList * GRAPH_RDLOCK query_parents(BlockDriverState *bs)
{
    strList *list = NULL;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        BlockDriverState *parent = parent_node(c);

        QAPI_LIST_PREPEND(list, parent ?
                          g_strdup(bdrv_get_node_name(parent)) :
                          c->klass->get_parent_desc(c));
    }
    return list;
}

static WeirFilterInfo * GRAPH_RDLOCK query_filter(BlockDriverState *bs)
{
    WeirFilterDriver *driver = weir_filter_driver(bs);
    BlockDriverState *child = weir_filter_child(bs);
    WeirFilterInfo *info = g_new0(WeirFilterInfo, 1);
    WeirFilter *filter = bs->opaque;

    info->driver = driver->driver;
    info->node_name = g_strdup(bdrv_get_node_name(bs));
    info->child = g_strdup(child ? bdrv_get_node_name(child) : "");
    info->place = place_of(bs);
    info->parents = query_parents(bs);
    WITH_QEMU_LOCK_GUARD(&filter->lock) {
        info->state = filter->state;
        info->reason = g_strdup(filter->reason);
        info->since = filter->since_s;
    }
    for (int op = WEIR_IO__MAX - 1; op >= 0; op--) {
        QAPI_LIST_PREPEND(info->statistics, query_operation(filter, op));
    }
    if (driver->query) {
        driver->query(bs, info);
    }
    return info;
}

WeirFilterInfoList *qmp_query_weir(const char *node_name, Error **errp)
{
    WeirFilterInfoList *list = NULL, **tail = &list;
    BlockDriverState *bs;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (node_name) {
        bs = bdrv_find_node(node_name);
        if (!bs || !weir_filter_driver(bs)) {
            error_setg(errp, bs ? "Node '%s' is not a weir filter" :
                       "Node '%s' not found", node_name);
            return NULL;
        }
        QAPI_LIST_APPEND(tail, query_filter(bs));
        return list;
    }
    for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (weir_filter_driver(bs)) {
            QAPI_LIST_APPEND(tail, query_filter(bs));
        }
    }
    return list;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QMP commands about replication logs.  What they do is in the modules
 * weir-replication and weir-journal, which are there if such a node is.
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "filter.h"

#define POINTS_MAX 10000

/* The node, if it is one of @format_name; else NULL with @errp set. */
static BlockDriverState *find_node(const char *node_name,
                                   const char *format_name,
                                   WeirFilterDriver **driver, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name);

    *driver = bs ? weir_filter_driver(bs) : NULL;
    if (!bs) {
        error_setg(errp, "Node '%s' not found", node_name);
        return NULL;
    }
    if (!*driver || strcmp((*driver)->format_name, format_name)) {
        error_setg(errp, "Node '%s' is not a %s node", node_name, format_name);
        return NULL;
    }
    return bs;
}

void qmp_weir_replication_mark(const char *node_name, const char *mark,
                               bool has_application_consistent,
                               bool application_consistent, Error **errp)
{
    WeirFilterDriver *driver;
    BlockDriverState *bs = find_node(node_name, "weir-replication", &driver,
                                     errp);

    if (bs) {
        driver->mark(bs, mark, application_consistent, errp);
    }
}

WeirPointList *qmp_query_weir_points(const char *node_name, bool has_before,
                                     uint64_t before, bool has_limit,
                                     uint32_t limit, bool has_marked,
                                     bool marked, Error **errp)
{
    WeirFilterDriver *driver;
    BlockDriverState *bs = find_node(node_name, "weir-journal", &driver, errp);

    if (!bs) {
        return NULL;
    }
    limit = has_limit ? limit : 1000;
    if (limit < 1 || limit > POINTS_MAX) {
        error_setg(errp, "limit is %" PRIu32 ", it has to be 1 to %d", limit,
                   POINTS_MAX);
        return NULL;
    }
    return driver->points(bs, has_before ? before : UINT64_MAX, limit, marked);
}

void qmp_weir_journal_promote(const char *job_id, const char *node_name,
                              const char *point, Error **errp)
{
    WeirFilterDriver *driver;
    BlockDriverState *bs = find_node(node_name, "weir-journal", &driver, errp);

    if (bs) {
        driver->promote(bs, job_id, point ? point : "latest", errp);
    }
}

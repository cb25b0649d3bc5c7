/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_POINT_H
#define WEIR_REPLICATION_POINT_H

#include "replication/keeper.h"

/* Points in time of a log: how they are named, and which there are. */

typedef enum WeirPointKind {
    WEIR_POINT_LATEST,
    WEIR_POINT_EPOCH,
    WEIR_POINT_TIME,            /* the last one that is not later */
    WEIR_POINT_MARK,            /* the last one with it */
} WeirPointKind;

typedef struct WeirPointName {
    WeirPointKind kind;
    uint64_t epoch;             /* WEIR_POINT_EPOCH */
    uint64_t wall_ns;           /* WEIR_POINT_TIME */
    char mark[WEIR_LOG_MARK_BYTES_MAX + 1];     /* WEIR_POINT_MARK */
} WeirPointName;

typedef struct WeirPointInfo {
    uint64_t epoch;
    uint64_t wall_ns;           /* since 1970 */
    bool application_consistent;
    uint32_t marks;
} WeirPointInfo;

/*
 * "latest", "epoch:12", "time:2026-11-25T12:00:00Z" (or 12:00:00.5Z),
 * "mark:NAME". Returns 0 or -EINVAL; err: see keeper.h.
 */
int weir_point_parse(WeirPointName *name, const char *text, char *err,
                     size_t err_size);

/* Which one that is now. Returns 0 or -ENOENT. */
int weir_point_find(WeirKeeper *k, const WeirPointName *name,
                    WeirPointInfo *info, char *err, size_t err_size);

/*
 * Tell the points with a number lower than `before` (UINT64_MAX: all), newest
 * first. marks: info->marks names, that live until fn returns; fn must not call
 * the keeper, and ends the list by returning false.
 */
typedef bool (*WeirPointFn)(void *opaque, const WeirPointInfo *info,
                            const char *const *marks);

void weir_point_list(WeirKeeper *k, uint64_t before, bool marked,
                     WeirPointFn fn, void *opaque);

#endif

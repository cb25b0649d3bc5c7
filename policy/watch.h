/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One look at running VMs: what their disks are, and do. */
#ifndef WEIR_WATCH_H
#define WEIR_WATCH_H

#include "compliance.h"
#include "target.h"
#include "traffic.h"

typedef struct WeirWatch {
    GPtrArray *targets;     /* WeirTarget */
    GPtrArray *statuses;    /* WeirDiskStatus, by VM as in @targets */
    GArray *traffics;       /* WeirTraffic of each of @statuses */
} WeirWatch;

/*
 * Look.  Since when disks are in their states is kept in the directory of the
 * records.  Blocks as weir_targets_ask().  Returns what the caller frees with
 * weir_watch_free(), or NULL with @error set.
 */
WeirWatch *weir_watch(const WeirTargetQuery *query, GError **error);

/* NULL is fine. */
void weir_watch_free(WeirWatch *watch);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirWatch, weir_watch_free)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One look at running VMs: what their disks are, and do. */
#ifndef WEIR_WATCH_H
#define WEIR_WATCH_H

#include "compliance.h"
#include "fleet.h"
#include "target.h"
#include "traffic.h"

typedef struct WeirWatch {
    GPtrArray *hosts;       /* WeirHostSeen; NULL: none was asked */
    GPtrArray *targets;     /* WeirTarget */
    GPtrArray *statuses;    /* WeirDiskStatus, by VM as in @targets, then those
                               of hosts that cannot be asked */
    GArray *firsts;         /* guint: where those of each of @targets begin */
    GArray *traffics;       /* WeirTraffic of each of @statuses */
    bool many;              /* hosts are to be told apart */
} WeirWatch;

/*
 * With nothing seen.
 *
 * @targets, @hosts (NULL: none): WeirTarget and WeirHostSeen, consumed
 * Returns what the caller frees with weir_watch_free().
 */
WeirWatch *weir_watch_new(GPtrArray *targets, GPtrArray *hosts, bool many);

/*
 * Judge what was told.  Since when disks are in their states is kept in the
 * directory of the records; of domains of other machines, in the runtime
 * directory.
 *
 * @all: no domains of the hosts were left out: what was kept of others goes
 */
void weir_watch_see(WeirWatch *watch, bool all);

/* NULL is fine. */
void weir_watch_free(WeirWatch *watch);

/* The statuses of a target, whose array the caller unrefs. */
GPtrArray *weir_watch_statuses(const WeirWatch *watch, guint target);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirWatch, weir_watch_free)

#endif

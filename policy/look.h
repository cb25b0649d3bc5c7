/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Look at running VMs: those of weir run, and domains of libvirt. */
#ifndef WEIR_LOOK_H
#define WEIR_LOOK_H

#include "watch.h"

/* Whom to look at. */
typedef struct WeirWatchQuery {
    WeirTargetQuery target;
    bool vms;               /* the VMs of weir run, or the socket of @target */
    WeirFleet *fleet;       /* domains of libvirt; NULL: none */
} WeirWatchQuery;

/* Free what is in @query. */
void weir_watch_query_clear(WeirWatchQuery *query);

/*
 * Look.  Blocks for no longer than the timeout, however many VMs and hosts
 * there are; as long again if storage daemons of domains hang.  Returns what
 * the caller frees with weir_watch_free(), or NULL with @error set.
 */
WeirWatch *weir_watch(const WeirWatchQuery *query, GError **error);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirWatchQuery, weir_watch_query_clear)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Domains of libvirt that are looked at when something happens to their disks,
 * and every some seconds in any case, and settled (settle.h).
 *
 * libvirt's events only tell when to look: whatever is missed, or happens while
 * nobody watches or libvirtd is away, is found at the next look.
 */
#ifndef WEIR_WATCHER_H
#define WEIR_WATCHER_H

#include "settle.h"

typedef struct WeirWatcher {
    const char *uri;            /* of libvirt; NULL: its default */
    int interval_ms;            /* between two looks at all domains */
    WeirSettle settle;          /* "seen_ms" and "told" are not used */
} WeirWatcher;

/*
 * Watch until SIGINT, SIGTERM or SIGHUP comes, which the caller has blocked.
 * While libvirtd is away, it is tried again.
 *
 * Returns false with @error set if libvirt's URI cannot be watched at all.
 */
bool weir_watcher_run(const WeirWatcher *watcher, GError **error);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Going back: the machine that replicates its disks to where they were before,
 * asked and told over QMP.
 */
#ifndef WEIR_FAILBACK_H
#define WEIR_FAILBACK_H

#include "replicas.h"

typedef struct WeirFailback WeirFailback;

/* What it was about. */
typedef struct WeirFailbackResult {
    guint disks;
    guint64 sent_bytes;         /* to the log, since the machine was started */
} WeirFailbackResult;

/*
 * Connect to a machine with disks that are replicated.
 *
 * @socket: its QMP socket
 * Blocks for up to some seconds.  Returns it, which the caller frees with
 * weir_failback_free(), or NULL with @error set.
 */
WeirFailback *weir_failback_connect(const char *socket, GError **error);

/* NULL is fine. */
void weir_failback_free(WeirFailback *failback);

/*
 * Wait until the log has all of the disks.
 *
 * @progress: called some times a second with 0 to 1; may be NULL
 * Blocks for as long as that takes.  Returns false with @error set when a disk
 * must not go on with its log.
 */
bool weir_failback_wait(WeirFailback *failback, WeirFailbackResult *result,
                        void (*progress)(double done), GError **error);

/*
 * Stop the machine, give what it has written until then a name, wait until the
 * keeper has that, and end the machine.  If anything fails before, it goes on.
 *
 * @keeper: of the log
 * Blocks.  Returns the point in time, for weir_replicas_promote(), which the
 * caller frees; or NULL with @error set.
 */
char *weir_failback_end(WeirFailback *failback, WeirReplicas *keeper,
                        GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirFailback, weir_failback_free)

#endif

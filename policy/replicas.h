/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A storage daemon that keeps a replication log, asked and told over QMP: its
 * points in time, and disks as they were at one of them.
 */
#ifndef WEIR_REPLICAS_H
#define WEIR_REPLICAS_H

#include "qmp.h"

typedef struct WeirReplicas WeirReplicas;

/* Longest name of an opened replica: QEMU's names of nodes are short. */
#define WEIR_REPLICA_NAME_MAX 20

/*
 * Connect to a daemon and find its log.
 *
 * @socket: its QMP socket
 * @journal: node name of the weir-journal node; NULL: there is only one
 * Blocks for up to some seconds.  Returns it, which the caller frees
 * with weir_replicas_free(), or NULL with @error set.
 */
WeirReplicas *weir_replicas_connect(const char *socket, const char *journal,
                                    GError **error);

/* NULL is fine. */
void weir_replicas_free(WeirReplicas *replicas);

/*
 * What query-weir told of the log, when it was connected to or refreshed last;
 * owned by @replicas.  Refreshing blocks, and returns false with @error set.
 */
JsonObject *weir_replicas_info(const WeirReplicas *replicas);
bool weir_replicas_refresh(WeirReplicas *replicas, GError **error);

/*
 * Up to @limit points in time, newest first (0: all): an array of WeirPoint
 * (qmp.md) that the caller unrefs, or NULL with @error set.  Blocks.
 *
 * @marked: only those with a mark
 */
JsonNode *weir_replicas_points(WeirReplicas *replicas, guint limit, bool marked,
                               GError **error);

/*
 * Open a disk at a point in time, and export it over the daemon's NBD server
 * under a name.
 *
 * @name: of the export
 * @disk: name of the disk in its group
 * @point: as the option of weir-replica
 * @overlay: a file that is made, and takes what is written to the disk; NULL:
 *           the disk is read-only
 * Blocks.  Returns what query-weir tells of the replica, which the caller
 * unrefs; or NULL with @error set and nothing left behind, but for the file if
 * that had been made.
 */
JsonObject *weir_replicas_open(WeirReplicas *replicas, const char *name,
                               const char *disk, const char *point,
                               const char *overlay, GError **error);

/*
 * Close what was opened under a name; clients are disconnected.  The file of an
 * overlay stays.  Blocks.  Returns false with @error set.
 */
bool weir_replicas_close(WeirReplicas *replicas, const char *name,
                         GError **error);

/*
 * End the generation at a point in time, and apply the log up to there to the
 * base images: afterwards these are the disks.
 *
 * @point: as the option of weir-replica
 * @progress: called some times a second with 0 to 1; may be NULL
 * Blocks until it is done.  Returns false with @error set.
 */
bool weir_replicas_promote(WeirReplicas *replicas, const char *point,
                           void (*progress)(double done), GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirReplicas, weir_replicas_free)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BLOCK_WEIR_REPLICATION_H
#define WEIR_BLOCK_WEIR_REPLICATION_H

#include "filter.h"
#include "replication/source.h"
#include "weir-replication-log.h"
#include "weir-tasks.h"

/* What the files of the driver weir-replication share. */

/* What the disks of a group have in common. */
typedef struct WeirReplicationConfig {
    WeirSourceConfig source;
    uint32_t target_timeout_ms;
    uint32_t rpo_limit_ms;      /* 0: none */
} WeirReplicationConfig;

/* Disks with the same log.  Main thread, but for what is in the engine. */
typedef struct WeirReplicationGroup WeirReplicationGroup;

typedef struct BDRVWeirReplicationState {
    WeirFilter filter;          /* first: see filter.h */
    BdrvChild *sidecar;         /* set at open; or NULL */
    char *disk_id;              /* set at open */
    WeirReplicationGroup *group;        /* set at open */
    WeirSourceDisk *engine;     /* NULL while inactive; changed while drained */
    WeirTasksGate gate;         /* for the engine's I/O on the children */
    bool resizing;              /* new requests wait; atomic */
    bool told;                  /* that it is not OK; main thread */
    QLIST_ENTRY(BDRVWeirReplicationState) next; /* of the group */
    BlockDriverState *bs;       /* set at open */
} BDRVWeirReplicationState;

/* Tasks of a group, and I/O for its engine. */
WeirTasksHost *weir_replication_tasks(WeirReplicationGroup *group);
WeirReplicationLog *weir_replication_log(WeirReplicationGroup *group);

/* I/O for the engine; for disks, the opaque is the node. */
extern const WeirSourceHost weir_replication_host;

/*
 * Have @bs share the log that @options (its "log" or "log.*", which are taken
 * out) name, and make a group if it is the first.  inactive: @bs is.
 */
int weir_replication_join(BlockDriverState *bs, QDict *options,
                          const WeirReplicationConfig *config, bool inactive,
                          Error **errp);
void weir_replication_leave(BlockDriverState *bs);

/* Whether options that can be changed at run time may be; and do it. */
bool weir_replication_may_change(WeirReplicationGroup *group,
                                 const WeirReplicationConfig *config,
                                 Error **errp);
void weir_replication_change(WeirReplicationGroup *group,
                             const WeirReplicationConfig *config);

/*
 * The disk is ours to write to, with its sidecar: from now on its writes go to
 * the log.  The main thread is this one, or waits.
 */
int coroutine_fn GRAPH_RDLOCK weir_replication_start(BlockDriverState *bs,
                                                     Error **errp);

/*
 * It is not any more.  Drained; polls.  Waits for what is not in the log yet,
 * but no longer than for a target that does not answer.  handover: somebody
 * else goes on with the disk, and waits.
 */
void weir_replication_stop(BlockDriverState *bs, bool handover);

/*
 * Somebody is going to wait for this end of it: from now on, or not any more, a
 * log that does not answer is soon given up.
 */
void weir_replication_hurry(BlockDriverState *bs, bool hurries);

/* Of the group, which is that of @bs. */
void weir_replication_query(BlockDriverState *bs, WeirFilterInfo *node);
void weir_replication_mark(BlockDriverState *bs, const char *mark,
                           bool application_consistent, Error **errp);

#endif

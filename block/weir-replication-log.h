/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BLOCK_WEIR_REPLICATION_LOG_H
#define WEIR_BLOCK_WEIR_REPLICATION_LOG_H

#include "block/block_int.h"
#include "qemu/queue.h"
#include "weir-tasks.h"

/*
 * The node with a replication log, which may be far away: opened when its
 * server answers, cut off when that does not any more, opened again.  Main
 * thread.
 *
 * It is no child of the disks: these may be in several I/O threads, and the log
 * comes and goes while they are in use.  And it has no BlockBackend: QEMU could
 * not make it inactive, since it does not know what writes there.
 *
 * One that the user has opened is made inactive by QEMU, before or after the
 * disks.  QEMU does not look at one that was opened here; it is to be closed
 * when no disk is active any more.
 */

typedef struct WeirReplicationLog {
    char *node_name;            /* as the user knows it; or NULL */
    QDict *options;             /* to open it; NULL: it stays as it is */
    struct NBDClientConnection *probe;  /* under way; or NULL */
    BdrvChild *child;           /* NULL while it is closed */
    bool is_ours;               /* it was opened here */
    bool is_known;              /* its server has been found to do */
    bool is_inactive;           /* or about to be */
    WeirTasksGate gate;         /* drained with the node */
    QTAILQ_HEAD(, WeirReplicationLogRequest) requests;  /* oldest first */
    QEMUTimer *watchdog;
    uint32_t timeout_ms;
    uint32_t hurry_ms;          /* somebody waits, and no longer; 0: nobody */
    bool hangs;                 /* it has not answered in time */
    bool broken;                /* a request to a server has failed: what
                                   follows does, until it is opened again */
    int64_t last_ns;            /* when a request has ended */
    /* Leave it alone: returns when nothing is under way.  Polls. */
    void (*inactivate)(void *opaque);
    /* It may be used again; told more often than it is so. */
    void (*activate)(void *opaque);
    void *opaque;               /* for these */
} WeirReplicationLog;

/*
 * @options: "log" or "log.*" are taken out.  A log that is no NBD server is
 * opened at once, but for a disk that is inactive.
 */
int weir_replication_log_init(WeirReplicationLog *log, QDict *options,
                              bool inactive, Error **errp);
void weir_replication_log_destroy(WeirReplicationLog *log);

/* The node's name that @options give, or NULL. */
const char *weir_replication_log_name(const QDict *options);

/* Whether there is a server to look for before it is opened. */
bool weir_replication_log_is_remote(const WeirReplicationLog *log);
/* Whether that has to be done before it is used. */
bool weir_replication_log_is_unknown(const WeirReplicationLog *log);
bool weir_replication_log_is_open(const WeirReplicationLog *log);
bool weir_replication_log_is_idle(const WeirReplicationLog *log);

/* Whether QEMU has taken it away, for the other side of a migration. */
bool weir_replication_log_is_inactive(WeirReplicationLog *log);

/* The node, NULL: it is closed. */
BlockDriverState *weir_replication_log_node(const WeirReplicationLog *log);

/* Cut off what is not answered in that time; 0: in the usual one. */
void weir_replication_log_hurry(WeirReplicationLog *log, uint32_t ms);

/* Whether the server answers. */
int coroutine_fn weir_replication_log_probe(WeirReplicationLog *log,
                                            Error **errp);
/* The same, in a hurry to end. */
void weir_replication_log_cancel_probe(WeirReplicationLog *log);

/* Not in a nested event loop: it changes the graph. */
int weir_replication_log_open(WeirReplicationLog *log, Error **errp);
void weir_replication_log_close(WeirReplicationLog *log);

/* The log is ours to write to, of a node that is open; or not any more. */
int weir_replication_log_claim(WeirReplicationLog *log, Error **errp);
void weir_replication_log_release(WeirReplicationLog *log);

/* Of a node that is open; by tasks. */
int64_t coroutine_fn weir_replication_log_bytes(WeirReplicationLog *log);
int coroutine_fn weir_replication_log_read(WeirReplicationLog *log,
                                           uint64_t offset, uint64_t bytes,
                                           void *buf);
int coroutine_fn weir_replication_log_write(WeirReplicationLog *log,
                                            uint64_t offset, uint64_t bytes,
                                            const struct iovec *iov,
                                            size_t niov);
int coroutine_fn weir_replication_log_flush(WeirReplicationLog *log);

#endif

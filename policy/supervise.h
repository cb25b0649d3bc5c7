/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The storage daemon of a VM: it has the chains of the disks that run out of
 * process, and each is a vhost-user-blk export.  When it dies it is started
 * again with what the record tells then; the emulator connects again, and tells
 * which requests were in flight.
 *
 *   start -> wait -> ready -> wait -> it ends -> pause -> start ...
 *             |                |                   |
 *             +-> it ends      |                   +-> the record changes
 *                              +-> the VM has ended: end it too
 *
 * One for all disks of the VM: the disks of a consistency group write to one
 * log, which only one process can have.
 */
#ifndef WEIR_SUPERVISE_H
#define WEIR_SUPERVISE_H

#include "storagerecord.h"

typedef struct WeirSupervise {
    const char *dir;        /* of the records */
    const char *name;       /* of the VM, which has a storage record */
    int ready_fd;           /* takes WEIR_SUPERVISE_READY, or why the daemon
                               cannot be started; -1: none.  systemd is told
                               besides, if it has started us */
    int life_fd;            /* hangs up when the VM has ended; -1: none */
} WeirSupervise;

#define WEIR_SUPERVISE_READY "ready"

/*
 * Run the daemon until the VM ends, or SIGTERM, SIGINT or SIGHUP comes.  Then
 * what is there of it is removed.
 *
 * Blocks.  Returns false with @error set if there is no such record or program;
 * without it if the daemon cannot be started the first time, which has been
 * told.  Later it is tried for as long as the VM runs.
 */
bool weir_supervise(const WeirSupervise *options, GError **error);

/* How long to wait after so many failures in a row, in milliseconds. */
int weir_supervise_delay_ms(gint64 failures);

/*
 * The arguments of the daemon, for tests; the caller unrefs the array.
 *
 * @record: without a change that has not ended, see rollback.h
 */
GPtrArray *weir_supervise_args(const char *program, const WeirRecord *record,
                               int qmp_fd, const GArray *secret_fds);

#endif

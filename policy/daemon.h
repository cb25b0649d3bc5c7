/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A storage daemon of our own without any disk: it knows which filters are
 * installed, and which options they take.  What it has answered is kept (see
 * answers.h), so that there need not be a process.
 */
#ifndef WEIR_DAEMON_H
#define WEIR_DAEMON_H

#include "policy.h"
#include "qmp.h"

typedef struct WeirDaemon WeirDaemon;

/*
 * Learn which filters qemu-storage-daemon has; it is started, unless that is
 * known.  Blocks for some tens of milliseconds then.
 *
 * @bin_dir: as in weir_program_find()
 * Returns the daemon, to be ended with weir_daemon_free(), or NULL with @error
 * set.  The daemon dies with this process in any case.
 */
WeirDaemon *weir_daemon_start(const char *bin_dir, GError **error);

/* Keep its answers, end it and wait for its end.  NULL is fine. */
void weir_daemon_free(WeirDaemon *daemon);

/*
 * The installed filters, owned by @daemon.  Plugins are asked about when a
 * policy has some.
 */
const WeirSchema *weir_daemon_schema(const WeirDaemon *daemon);

/* Ask about all plugins that can be used, for weir_schema_plugins(). */
void weir_daemon_learn_plugins(WeirDaemon *daemon);

/* Its monitor, owned by @daemon, which is started; or NULL with @error set. */
WeirQmp *weir_daemon_qmp(WeirDaemon *daemon, GError **error);

/* Have it close all that it has opened and end; it is of no use then. */
bool weir_daemon_quit(WeirDaemon *daemon, GError **error);

/*
 * Ask a process with a QMP command.  @arguments: consumed; NULL: none.
 * Returns the answer, which the caller frees, or NULL with @error set.
 */
JsonNode *weir_daemon_ask(WeirDaemon *daemon, const char *command,
                          JsonObject *arguments, GError **error);

/*
 * Have each driver look at its options in @policy, the lowest first.
 * Returns false with @error set to WEIR_ERROR_POSITION if a driver refuses
 * its options (a line for each), or as weir_qmp_execute().
 */
bool weir_daemon_check(WeirDaemon *daemon, const WeirPolicy *policy,
                       GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirDaemon, weir_daemon_free)

#endif

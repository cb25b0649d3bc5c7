/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A storage daemon that runs the plugin. */
#ifndef WEIR_PLUGINTEST_STAGE_H
#define WEIR_PLUGINTEST_STAGE_H

#include "plugintest-below.h"
#include "plugintest.h"
#include "qmp.h"

/* The node names. */
#define WEIR_STAGE_PLUGIN "plugin"
#define WEIR_STAGE_BELOW "below"

#define WEIR_STAGE_TIMEOUT_MS 60000

typedef struct WeirStage {
    WeirTrial *trial;
    GSubprocess *process;
    WeirQmp *qmp;
    char *socket;               /* of its NBD server */
    char *log;                  /* what it says */
} WeirStage;

/*
 * Start a daemon with an NBD server and two iothreads, "thread0" and
 * "thread1".
 *
 * @name: unique among those of the trial that run at the same time
 */
WeirStage *weir_stage_new(WeirTrial *trial, const char *name, GError **error);

/*
 * Have it end in order.  Returns false with @error set if it crashes, does not
 * end, or if a sanitizer found something.
 */
bool weir_stage_quit(WeirStage *stage, GError **error);

/* End it at once, as a power cut would.  Its death is no failure. */
void weir_stage_kill(WeirStage *stage);

/* After kill or quit, or instead of them if the check has failed. */
void weir_stage_free(WeirStage *stage);

/*
 * Execute a QMP command.  @json: its arguments as printf() makes them, or
 * NULL.  Returns false with @error set: a daemon that has died is told with
 * its signal.
 */
bool weir_stage_cmd(WeirStage *stage, GError **error, const char *command,
                    const char *json, ...) G_GNUC_PRINTF(4, 5);

/* The same with the result; the caller unrefs it. */
JsonNode *weir_stage_ask(WeirStage *stage, const char *command,
                         JsonObject *arguments, GError **error);

/* Wait for job @id to get to @status, or fail; dismisses it when concluded. */
bool weir_stage_wait_job(WeirStage *stage, const char *id, const char *status,
                         GError **error);

/* Have a node of @below, as export @name. */
bool weir_stage_add_below(WeirStage *stage, WeirBelow *below, const char *node,
                          const char *name, GError **error);

/* Have a node of a file in the trial's directory, which is made if need be. */
bool weir_stage_add_file(WeirStage *stage, const char *node, const char *file,
                         guint64 bytes, GError **error);

/*
 * The plugin's node over @file, as for blockdev-add.  @on_error: of its
 * option on-error.  The caller unrefs it.
 */
JsonObject *weir_stage_node(const WeirStage *stage, const char *node,
                            const char *file, const char *on_error);

/* Put the plugin, in a node named @node, over node @file. */
bool weir_stage_add_plugin(WeirStage *stage, const char *node,
                           const char *file, GError **error);

/* Open the plugin's node anew, drained, with what @node has.  Consumes it. */
bool weir_stage_reopen(WeirStage *stage, JsonObject *node, GError **error);

/* Have the NBD server export @node; @thread: an iothread or NULL. */
bool weir_stage_export(WeirStage *stage, const char *node, bool writable,
                       const char *thread, GError **error);
bool weir_stage_unexport(WeirStage *stage, const char *node, GError **error);

bool weir_stage_del(WeirStage *stage, const char *node, GError **error);

/* Whether the plugin's node has done all its requests itself, and in time. */
bool weir_stage_check_state(WeirStage *stage, const char *node,
                            GError **error);

/* The address of an export, which the caller frees. */
char *weir_stage_uri(const WeirStage *stage, const char *node);

/* A number in a file of /proc/PID; 0 if there is none. */
guint64 weir_stage_proc(const WeirStage *stage, const char *file,
                        const char *field);
/* How many files it has open. */
guint weir_stage_files(const WeirStage *stage);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirStage, weir_stage_free)

#endif

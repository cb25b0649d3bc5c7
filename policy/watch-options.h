/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of the commands that watch running VMs. */
#ifndef WEIR_WATCH_OPTIONS_H
#define WEIR_WATCH_OPTIONS_H

#include "look.h"
#include "weir.h"

typedef struct WeirWatchOptions {
    char *qmp;
    char *runtime_dir;
    char **uris;
    double timeout_s;
    bool domains;           /* only domains of libvirt, without -c as well */
} WeirWatchOptions;

#define WEIR_WATCH_OPTIONS_INIT \
    { .timeout_s = WEIR_TARGET_TIMEOUT_MS / 1000.0 }

#define WEIR_WATCH_OPTIONS_ENTRIES(options) \
    { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &(options)->qmp, \
      "Ask the QEMU with this QMP socket", "SOCKET" }, \
    WEIR_OPTION_CONNECT(&(options)->uris), \
    WEIR_OPTION_RUNTIME_DIR(&(options)->runtime_dir), \
    { "timeout", 0, 0, G_OPTION_ARG_DOUBLE, &(options)->timeout_s, \
      "How long to wait for each VM and host (default: 5)", "SECONDS" }

void weir_watch_options_clear(WeirWatchOptions *options);

/*
 * Whom the options, and the VM that may follow them, say to ask.
 *
 * @query: takes that; the caller clears it
 * Returns false after having told what is wrong with the command line.
 */
bool weir_watch_options_query(const WeirWatchOptions *options, int argc,
                              char **argv, WeirWatchQuery *query);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirWatchOptions, weir_watch_options_clear)

#endif

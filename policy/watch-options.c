/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch-options.h"

#include <string.h>

#define WATCH_TIMEOUT_S_MIN 0.01
#define WATCH_TIMEOUT_S_MAX 3600

void weir_watch_options_clear(WeirWatchOptions *options)
{
    g_free(options->qmp);
    g_free(options->runtime_dir);
}

bool weir_watch_options_query(const WeirWatchOptions *options, int argc,
                              char **argv, WeirTargetQuery *query)
{
    const char *command = strrchr(argv[0], ' ');

    command = command ? command + 1 : argv[0];
    if (argc > 2 || (argc == 2 && options->qmp)) {
        weir_usage("%s: found '%s', expected one VM or --qmp", command,
                   argv[argc - 1]);
        return false;
    }
    if (!(options->timeout_s >= WATCH_TIMEOUT_S_MIN &&
          options->timeout_s <= WATCH_TIMEOUT_S_MAX)) {
        weir_usage("%s: found timeout %g, expected %g to %d seconds", command,
                   options->timeout_s, WATCH_TIMEOUT_S_MIN,
                   WATCH_TIMEOUT_S_MAX);
        return false;
    }
    *query = (WeirTargetQuery) {
        .dir = weir_runtime_dir(options->runtime_dir),
        .vm = g_strdup(argc == 2 ? argv[1] : NULL),
        .qmp = g_strdup(options->qmp),
        .timeout_ms = (int)(options->timeout_s * 1000),
    };
    return true;
}

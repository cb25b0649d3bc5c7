/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir policy schema */
#include <stdio.h>

#include "weir.h"

int weir_cmd_policy_schema(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(JsonObject) schema = NULL;
    g_autofree char *text = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "Print a JSON schema (draft 2020-12) of policies and "
                    "components with the installed\nfilters, for editors.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("policy schema: found '%s', expected nothing",
                          argv[1]);
    }
    daemon = weir_daemon_start(options.bin_dir, &error);
    if (!daemon) {
        return weir_fail(error);
    }
    weir_daemon_learn_plugins(daemon);
    schema = weir_policy_schema(weir_daemon_schema(daemon));
    text = weir_json_object_text(schema, true);
    printf("%s\n", text);
    return WEIR_EXIT_OK;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir reapply */
#include "cmd-change.h"

static bool reapply_decide(const ChangeOptions *options,
                           const WeirRecordDisk *disk, const char **name,
                           GError **error)
{
    *name = options->policy_name;
    if (!*name && disk->change) {
        *name = disk->change->policy;
    }
    if (!*name) {
        *name = disk->policy;
    }
    if (!*name) {
        weir_set_error(error, "disk %s is under no policy: weir attach brings "
                       "it under one", disk->id);
        return false;
    }
    return true;
}

int weir_cmd_reapply(int argc, char **argv)
{
    g_auto(ChangeOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTION_CHANGE_POLICY(options),
        WEIR_OPTIONS_CHANGE(options),
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, "VM DISK",
                    "Bring a disk in use to what its policy says now, or to "
                    "another policy.  Does\nnothing if it is that already; "
                    "ends a change that was interrupted.\n\n"
                    WEIR_CHANGE_HELP)) {
        return WEIR_EXIT_USAGE;
    }
    return weir_change_command(&options, argc, argv, reapply_decide);
}

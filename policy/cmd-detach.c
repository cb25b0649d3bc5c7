/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir detach */
#include "cmd-change.h"

static bool detach_decide(const ChangeOptions *options,
                          const WeirRecordDisk *disk, const char **name,
                          GError **error)
{
    (void)options;
    (void)disk;
    (void)error;
    *name = NULL;
    return true;
}

int weir_cmd_detach(int argc, char **argv)
{
    g_auto(ChangeOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTIONS_CHANGE(options),
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, "VM DISK",
                    "Take all filters of its policy from a disk in use.  What "
                    "a cache has not written to\nthe disk yet is written "
                    "first; a log gets what it has not got yet.\n\n"
                    WEIR_CHANGE_HELP)) {
        return WEIR_EXIT_USAGE;
    }
    return weir_change_command(&options, argc, argv, detach_decide);
}

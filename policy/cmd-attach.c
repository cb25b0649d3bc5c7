/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir attach */
#include "cmd-change.h"

/* Whether a policy wants any filter on the disk. */
static bool attach_has_filters(const WeirRecordDisk *disk)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (wanted->place) {
            return true;
        }
    }
    return false;
}

static bool attach_decide(const ChangeOptions *options,
                          const WeirRecordDisk *disk, const char **name,
                          GError **error)
{
    if (disk->change) {
        weir_set_error(error, "a change of disk %s was interrupted: weir "
                       "reapply ends it, weir detach undoes it", disk->id);
        return false;
    }
    if (disk->policy && attach_has_filters(disk)) {
        weir_set_error(error, "disk %s is under policy '%s': weir reapply "
                       "--policy %s brings it under the other one", disk->id,
                       disk->policy, options->policy_name);
        return false;
    }
    *name = options->policy_name;
    return true;
}

int weir_cmd_attach(int argc, char **argv)
{
    g_auto(ChangeOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTION_CHANGE_POLICY(options),
        WEIR_OPTIONS_CHANGE(options),
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, "VM DISK",
                    "Bring a disk in use, which no policy has filters on, "
                    "under a policy.\n\n" WEIR_CHANGE_HELP)) {
        return WEIR_EXIT_USAGE;
    }
    if (!options.policy_name) {
        return weir_usage("attach: found no policy, expected --policy NAME");
    }
    return weir_change_command(&options, argc, argv, attach_decide);
}

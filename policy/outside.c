/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "outside.h"

bool weir_outside_is(void *opaque, const char *policy)
{
    WeirOutside *outside = opaque;
    g_autofree char *file = weir_policy_file(outside->dirs, policy, NULL);
    g_autoptr(WeirPolicy) found = NULL;

    if (!file) {
        return false;
    }
    if (!outside->daemon) {
        outside->daemon = weir_daemon_start(outside->bin_dir, NULL);
    }
    if (outside->daemon) {
        found = weir_policy_find(outside->dirs, policy,
                                 weir_daemon_schema(outside->daemon), NULL);
    }
    return found && found->run == WEIR_RUN_OUT_OF_PROCESS;
}

void weir_outside_clear(WeirOutside *outside)
{
    g_clear_pointer(&outside->daemon, weir_daemon_free);
}

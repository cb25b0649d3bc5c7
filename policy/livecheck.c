/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livecheck.h"

bool weir_live_check_start(const WeirRecord *record,
                           const WeirRecordDisk *disk,
                           const WeirPolicy *policy, GError **error)
{
    WeirRunMode run = record->is_storage ? WEIR_RUN_OUT_OF_PROCESS
                                         : WEIR_RUN_IN_PROCESS;
    const char *on_error = weir_on_error_name(disk->on_error);
    const char *wanted = weir_on_error_name(policy->on_error);

    if (policy->run != run) {
        weir_set_error(error, "policy '%s' has 'run: %s', but the disk runs "
                       "%s since the VM was started", policy->name,
                       weir_run_mode_name(policy->run),
                       weir_run_mode_name(run));
        return false;
    }
    if (policy->on_error != disk->on_error) {
        weir_set_error(error, "policy '%s' has %s%s, but the disk has %s%s "
                       "since the VM was started", policy->name,
                       wanted ? "'on-error': " : "no 'on-error'",
                       wanted ? wanted : "", on_error ? "it as " : "none",
                       on_error ? on_error : "");
        return false;
    }
    return true;
}

bool weir_live_check_export(const WeirRecord *record,
                            const WeirRecordDisk *disk,
                            const GPtrArray *chain, GError **error)
{
    if (!record->is_storage || disk->writethrough ||
        !weir_chain_holds_back(chain)) {
        return true;
    }
    weir_set_error(error, "a filter that holds back what was written (a cache "
                   "in write-back mode) cannot come to a disk out of process "
                   "while it is in use: start the VM with that policy");
    return false;
}

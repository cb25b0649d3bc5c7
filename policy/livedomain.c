/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livedomain.h"

#include "established.h"
#include "hold.h"

bool weir_live_domain_statuses(virDomainPtr domain, GPtrArray *statuses,
                               GError **error)
{
    g_autoptr(WeirHold) hold = weir_hold_open(domain, false, error);
    guint first = statuses->len;

    if (!hold) {
        return false;
    }
    if (!hold->record || !hold->graph) {
        return true;
    }
    weir_compliance_record(hold->record, hold->graph, NULL, NULL, statuses);
    for (guint i = first; i < statuses->len; i++) {
        WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        g_autofree char *next = weir_hold_next(hold, status->disk);
        const WeirPledge pledge = {
            .now = weir_domain_policy(hold->parsed, status->disk),
            .next = next,
        };

        weir_established_compare(status, &pledge);
    }
    return true;
}

bool weir_live_domain_complies(virDomainPtr domain, GError **error)
{
    g_autoptr(GPtrArray) statuses = weir_disk_statuses_new();

    if (!weir_live_domain_statuses(domain, statuses, error)) {
        return false;
    }
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        if (status->state == WEIR_NON_COMPLIANT) {
            weir_set_error(error, "domain '%s': disk '%s' does not comply: %s",
                           status->vm, status->disk, status->reason);
            return false;
        }
    }
    return true;
}

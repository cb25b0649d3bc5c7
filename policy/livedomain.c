/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livedomain.h"

#include "established.h"
#include "hold.h"
#include "target.h"

/* The disks out of process, of which its storage daemon tells. */
static void live_add_storage(const WeirHold *hold, GPtrArray *statuses)
{
    const WeirTargetQuery query = {
        .dir = hold->dir, .vm = hold->name,
        .timeout_ms = WEIR_TARGET_TIMEOUT_MS,
    };
    g_autoptr(GPtrArray) targets = weir_targets_ask(&query, NULL);

    for (guint i = 0; targets && i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);

        if (target->record->is_storage) {
            weir_compliance_record(target->record, target->graph,
                                   target->reason, NULL, statuses);
        }
    }
}

bool weir_live_domain_statuses(virDomainPtr domain, GPtrArray *statuses,
                               GError **error)
{
    g_autoptr(WeirHold) hold = weir_hold_open(domain, false, error);
    guint first = statuses->len;

    if (!hold) {
        return false;
    }
    live_add_storage(hold, statuses);
    first = statuses->len;
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

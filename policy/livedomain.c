/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livedomain.h"

#include "gaps.h"
#include "hold.h"

/* The latest that there was since the domain runs, or is. */
static void live_add_gaps(const WeirHold *hold, WeirDiskStatus *status)
{
    g_autoptr(WeirGaps) gaps = weir_gaps_load(WEIR_GAPS_DIR, hold->uuid,
                                              hold->name);
    JsonArray *array = weir_gaps_disk(gaps, status->disk);

    status->gaps = array ? json_array_ref(array) : NULL;
}

/* What is assigned is more than what was established. */
static void live_compare(const WeirHold *hold, WeirDiskStatus *status)
{
    const char *assigned = weir_domain_policy(hold->parsed, status->disk);
    g_autofree char *next = weir_hold_next(hold, status->disk);

    if (assigned && g_strcmp0(assigned, status->policy) != 0) {
        status->state = WEIR_NON_COMPLIANT;
        g_free(status->reason);
        status->reason = g_strdup_printf(
            "policy '%s' is assigned and was not established", assigned);
    } else if (status->state == WEIR_COMPLIANT && assigned &&
               g_strcmp0(assigned, next) != 0) {
        status->state = WEIR_OUT_OF_DATE;
        status->reason = next
            ? g_strdup_printf("it is under policy '%s' from the next start on",
                              next)
            : g_strdup("it is under no policy from the next start on");
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
    if (!hold->record || !hold->graph) {
        return true;
    }
    weir_compliance_record(hold->record, hold->graph, NULL, NULL, statuses);
    for (guint i = first; i < statuses->len; i++) {
        WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        live_compare(hold, status);
        live_add_gaps(hold, status);
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

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "look.h"

#include "emulator.h"
#include "hypervisor.h"

void weir_watch_query_clear(WeirWatchQuery *query)
{
    weir_target_query_clear(&query->target);
    g_clear_pointer(&query->fleet, weir_fleet_free);
}

/*
 * The VMs of weir run.  That none has the name is no error yet if libvirt may
 * have a domain that has it: @missing takes it then.
 */
static GPtrArray *look_ask_vms(const WeirWatchQuery *query, GError **missing,
                               GError **error)
{
    g_autoptr(GError) local = NULL;
    bool many = query->fleet && weir_fleet_is_many(query->fleet);
    GPtrArray *targets = query->vms
        ? weir_targets_ask(&query->target, &local) : weir_targets_new();

    for (guint i = 0; many && targets && i < targets->len; i++) {
        WeirTarget *target = g_ptr_array_index(targets, i);

        target->host = g_strdup(WEIR_LOCALHOST);
    }
    if (!targets && query->fleet &&
        g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NOT_FOUND)) {
        g_propagate_error(missing, g_steal_pointer(&local));
        return weir_targets_new();
    }
    if (!targets) {
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return targets;
}

/* Whether a host has a domain of the name, or may have one. */
static bool look_may_have(const GPtrArray *hosts)
{
    for (guint i = 0; i < hosts->len; i++) {
        const WeirHostSeen *seen = g_ptr_array_index(hosts, i);

        if (seen->found || seen->reason) {
            return true;
        }
    }
    return false;
}

WeirWatch *weir_watch(const WeirWatchQuery *query, GError **error)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(GPtrArray) hosts = NULL;
    g_autoptr(GPtrArray) targets = NULL;
    WeirWatch *watch;

    if (query->fleet) {
        weir_fleet_begin(query->fleet, &query->target);
    }
    targets = look_ask_vms(query, &missing, error);
    if (targets && query->fleet) {
        hosts = weir_fleet_end(query->fleet, targets);
        weir_targets_add_storage(targets, WEIR_LIBVIRT_DIR, &query->target);
    }
    if (hosts && query->target.vm && targets->len == 0 &&
        !look_may_have(hosts)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                    "%s%sno domain '%s' runs in libvirt",
                    missing ? missing->message : "", missing ? ", and " : "",
                    query->target.vm);
        return NULL;
    }
    if (!targets) {
        return NULL;
    }
    watch = weir_watch_new(g_steal_pointer(&targets), g_steal_pointer(&hosts),
                           query->fleet && weir_fleet_is_many(query->fleet));
    weir_watch_see(watch, !query->target.vm);
    return watch;
}

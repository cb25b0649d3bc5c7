/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domaintarget.h"

#include <string.h>

#include "domainrecord.h"

void weir_domain_target_clear(WeirDomainTarget *found)
{
    weir_target_free(found->target);
    weir_domain_free(found->domain);
    g_free(found->xml);
}

void weir_domain_target_begin(WeirDomainTarget *found, virDomainPtr domain)
{
    g_autoptr(GError) error = NULL;
    WeirTarget *target;

    found->xml = weir_hypervisor_xml(domain, true, &error);
    found->domain = found->xml ? weir_domain_parse(
                        found->xml, strlen(found->xml), &error) : NULL;
    if (found->domain && found->domain->assigned->len == 0) {
        return;
    }
    target = g_new0(WeirTarget, 1);
    target->name = g_strdup(virDomainGetName(domain));
    target->reason = error ? g_strdup(error->message) : NULL;
    target->assigned = found->domain
        ? g_ptr_array_ref(found->domain->assigned) : NULL;
    found->target = target;
}

static bool domaintarget_ask(WeirDomainTarget *found, virDomainPtr domain,
                             const char *dir, const WeirTargetQuery *query,
                             GError **error)
{
    gint64 deadline_us = weir_qmp_deadline(query->timeout_ms);
    bool here = weir_hypervisor_is_local(virDomainGetConnect(domain));
    g_autoptr(WeirQmp) qmp = weir_hypervisor_qmp(domain);
    g_autoptr(WeirGraph) graph = NULL;
    WeirTarget *target = found->target;

    target->record = weir_domain_record(found->domain, here, qmp,
                                        weir_qmp_left(deadline_us),
                                        &target->dir, error);
    if (!target->record) {
        return false;
    }
    g_clear_pointer(&target->assigned, g_ptr_array_unref);
    target->remote = !here;
    if (!target->dir) {
        target->dir = g_strdup(dir);
        target->apart = true;
        g_mkdir_with_parents(dir, 0700);    /* or each look is the first */
    }
    if (!(graph = weir_graph_query(qmp, weir_qmp_left(deadline_us), error)) ||
        (query->traffic &&
         !weir_target_ask_traffic(target, qmp, weir_qmp_left(deadline_us),
                                  error))) {
        return false;
    }
    target->graph = g_steal_pointer(&graph);
    return true;
}

void weir_domain_target_ask(WeirDomainTarget *found, virDomainPtr domain,
                            const char *dir, const WeirTargetQuery *query)
{
    g_autoptr(GError) error = NULL;

    if (found->domain &&
        !domaintarget_ask(found, domain, dir, query, &error)) {
        found->target->reason = g_strdup(error->message);
    }
}

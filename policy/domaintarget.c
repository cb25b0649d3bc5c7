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

/*
 * What is assigned from the next start on: as now to a disk that is in for this
 * one only.  NULL for a domain that has no next start, or if that may not be
 * seen.
 */
static GPtrArray *domaintarget_next(virDomainPtr domain, GPtrArray *assigned)
{
    g_autofree char *xml = virDomainIsPersistent(domain) == 1
        ? weir_hypervisor_xml(domain, false, NULL) : NULL;
    g_autoptr(WeirDomain) parsed = xml ? weir_domain_parse(xml, strlen(xml),
                                                           NULL) : NULL;
    GPtrArray *next = parsed ? weir_assigned_array() : NULL;

    for (guint i = 0; next && i < assigned->len; i++) {
        const WeirAssigned *now = g_ptr_array_index(assigned, i);
        const char *policy = weir_domain_disk(parsed, now->target)
            ? weir_domain_policy(parsed, now->target) : now->policy;

        if (policy) {
            g_ptr_array_add(next, weir_assigned_new(now->target, policy));
        }
    }
    return next;
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
    target->next = domaintarget_next(domain, target->assigned);
    target->uuid = here ? g_strdup(found->domain->uuid) : NULL;
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
    weir_domain_record_take_names(target->record, graph);
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

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "definition.h"

#include <string.h>

#include "domainplan.h"

char *weir_definition_xml(virDomainPtr domain, GError **error)
{
    int persistent = virDomainIsPersistent(domain);

    if (persistent < 0) {
        weir_hypervisor_error(error, "libvirt");
        return NULL;
    }
    if (!persistent) {
        weir_set_error(error, "domain '%s' is transient: its XML goes through "
                       "'weir transform' before it is created",
                       virDomainGetName(domain));
        return NULL;
    }
    return weir_hypervisor_xml(domain, false, error);
}

/* Whether the policies can be met, as the hook will ask again. */
static bool definition_check(const WeirPolicyOptions *policy,
                             virConnectPtr connection, const char *xml,
                             GError **error)
{
    g_autoptr(WeirDomain) domain = weir_domain_parse(xml, strlen(xml), error);
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(WeirDomainPlan) plan = NULL;

    if (!domain) {
        return false;
    }
    if (domain->assigned->len == 0) {
        weir_set_error(error, "domain '%s': found no policy for any disk, "
                       "expected --disk, --policy or metadata that have one",
                       domain->name);
        return false;
    }
    if (!weir_hypervisor_is_local(connection)) {
        return true;
    }
    daemon = weir_daemon_start(policy->bin_dir, error);
    if (!daemon) {
        return false;
    }
    plan = weir_domain_plan_new(domain, daemon,
                                weir_policy_dirs(policy), error);
    return plan != NULL;
}

virDomainPtr weir_definition_put(const WeirPolicyOptions *policy,
                                 const WeirAssignOptions *assign,
                                 virConnectPtr connection, const char *xml,
                                 gsize length, GError **error)
{
    WeirAssignOptions places = *assign;     /* owns nothing */
    g_autofree char *out = NULL;

    places.places = policy;
    out = weir_assign_options_transform(&places, xml, length, error);
    if (!out || !definition_check(policy, connection, out, error)) {
        return NULL;
    }
    return weir_hypervisor_define(connection, out, error);
}

const char *weir_definition_note(virDomainPtr domain)
{
    return virDomainIsActive(domain) == 1
               ? "; it runs, so this holds when it is started anew" : "";
}

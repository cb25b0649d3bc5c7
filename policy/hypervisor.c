/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hypervisor.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>

/* libvirt prints each error on the terminal, unless somebody takes it. */
static void hypervisor_silent(void *opaque, virErrorPtr error)
{
    (void)opaque;
    (void)error;
}

void weir_hypervisor_error(GError **error, const char *what)
{
    weir_set_error(error, "%s: %s", what, virGetLastErrorMessage());
}

virConnectPtr weir_hypervisor_open(const char *uri, GError **error)
{
    virConnectPtr connection;

    virSetErrorFunc(NULL, hypervisor_silent);
    connection = virConnectOpenAuth(uri, virConnectAuthPtrDefault, 0);
    if (!connection) {
        weir_hypervisor_error(error, "cannot connect to libvirt");
    }
    return connection;
}

bool weir_hypervisor_is_local(virConnectPtr connection)
{
    char *text = virConnectGetURI(connection);
    g_autoptr(GUri) uri = text ? g_uri_parse(text, G_URI_FLAGS_NONE, NULL)
                               : NULL;
    const char *host = uri ? g_uri_get_host(uri) : NULL;

    free(text);
    return !host || !*host;
}

virDomainPtr weir_hypervisor_domain(virConnectPtr connection,
                                    const char *name, GError **error)
{
    virDomainPtr domain = virDomainLookupByName(connection, name);

    if (!domain && g_uuid_string_is_valid(name)) {
        domain = virDomainLookupByUUIDString(connection, name);
    }
    if (!domain) {
        weir_hypervisor_error(error, "libvirt");
    }
    return domain;
}

static void hypervisor_free(gpointer domain)
{
    virDomainFree(domain);
}

GPtrArray *weir_hypervisor_domains(virConnectPtr connection,
                                   const char *name, GError **error)
{
    g_autoptr(GPtrArray) domains = g_ptr_array_new_with_free_func(
        hypervisor_free);
    virDomainPtr *list = NULL;
    int n;

    if (name) {
        virDomainPtr domain = weir_hypervisor_domain(connection, name, error);

        if (!domain) {
            return NULL;
        }
        g_ptr_array_add(domains, domain);
        return g_steal_pointer(&domains);
    }
    n = virConnectListAllDomains(connection, &list,
                                 VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    if (n < 0) {
        weir_hypervisor_error(error, "libvirt");
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        g_ptr_array_add(domains, list[i]);
    }
    free(list);
    return g_steal_pointer(&domains);
}

char *weir_hypervisor_xml(virDomainPtr domain, bool live, GError **error)
{
    char *xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_SECURE |
                                    (live ? 0 : VIR_DOMAIN_XML_INACTIVE));
    char *copy = g_strdup(xml);

    if (!xml) {
        weir_hypervisor_error(error, "libvirt");
    }
    free(xml);
    return copy;
}

virDomainPtr weir_hypervisor_define(virConnectPtr connection,
                                    const char *xml, GError **error)
{
    virDomainPtr domain = virDomainDefineXML(connection, xml);

    if (!domain) {
        weir_hypervisor_error(error, "libvirt refuses the domain");
    }
    return domain;
}

static char *hypervisor_call(gpointer opaque, const char *command,
                             GError **error)
{
    char *answer = NULL;
    char *copy;

    if (virDomainQemuMonitorCommand(opaque, command, &answer, 0) < 0) {
        weir_hypervisor_error(error, "libvirt");
        if (error && virConnectIsAlive(virDomainGetConnect(opaque)) != 1) {
            (*error)->code = WEIR_ERROR_CLOSED;
        }
        return NULL;
    }
    copy = g_strdup(answer);
    free(answer);
    return copy;
}

WeirQmp *weir_hypervisor_qmp(virDomainPtr domain)
{
    return weir_qmp_new_call(hypervisor_call, domain, "libvirt");
}

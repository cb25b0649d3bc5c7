/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hypervisor.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#define HYPERVISOR_KEEPALIVE_S 5
#define HYPERVISOR_KEEPALIVES 3

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

/* libvirt looks for signs of life of hosts in an event loop only. */
static gpointer hypervisor_events(gpointer opaque)
{
    while (virEventRunDefaultImpl() == 0) {
    }
    return opaque;
}

static void hypervisor_init(void)
{
    static gsize done;

    if (g_once_init_enter(&done)) {
        virSetErrorFunc(NULL, hypervisor_silent);
        if (virInitialize() == 0 && virEventRegisterDefaultImpl() == 0) {
            g_thread_unref(g_thread_new("libvirt", hypervisor_events, NULL));
        }
        g_once_init_leave(&done, 1);
    }
}

virConnectPtr weir_hypervisor_open_quietly(const char *uri, GError **error)
{
    virConnectPtr connection;

    hypervisor_init();
    connection = virConnectOpen(uri);
    if (!connection) {
        weir_hypervisor_error(error, "cannot connect to libvirt");
        return NULL;
    }
    /* not for all kinds of connections */
    virConnectSetKeepAlive(connection, HYPERVISOR_KEEPALIVE_S,
                           HYPERVISOR_KEEPALIVES);
    return connection;
}

char *weir_hypervisor_host(const char *uri)
{
    g_autoptr(GUri) parsed = uri ? g_uri_parse(uri, G_URI_FLAGS_NONE, NULL)
                                 : NULL;
    const char *host = parsed ? g_uri_get_host(parsed) : NULL;
    int port = parsed ? g_uri_get_port(parsed) : -1;

    if (uri && !parsed) {
        return g_strdup(uri);
    }
    if (!host || !*host) {
        return g_strdup(WEIR_LOCALHOST);
    }
    return port < 0 ? g_strdup(host) :
           g_strdup_printf(strchr(host, ':') ? "[%s]:%d" : "%s:%d", host,
                           port);
}

char **weir_hypervisor_uris(char *const *given)
{
    const char *standard = g_getenv("LIBVIRT_DEFAULT_URI");
    GStrvBuilder *builder = g_strv_builder_new();
    char **uris;

    for (guint i = 0; given && given[i]; i++) {
        guint j = 0;

        while (strcmp(given[j], given[i]) != 0) {
            j++;
        }
        if (j == i) {
            g_strv_builder_add(builder, given[i]);
        }
    }
    if (!given) {
        g_strv_builder_add(builder, standard ? standard : "");
    }
    uris = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    return uris;
}

char **weir_hypervisor_hosts(char *const *uris)
{
    guint count = g_strv_length((char **)uris);
    g_auto(GStrv) names = g_new0(char *, count + 1);
    char **hosts = g_new0(char *, count + 1);

    for (guint i = 0; i < count; i++) {
        names[i] = weir_hypervisor_host(*uris[i] ? uris[i] : NULL);
    }
    for (guint i = 0; i < count; i++) {
        guint same = 0;

        for (guint j = 0; j < count; j++) {
            same += strcmp(names[i], names[j]) == 0;
        }
        hosts[i] = g_strdup(same > 1 && *uris[i] ? uris[i] : names[i]);
    }
    return hosts;
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
    char *xml = virDomainGetXMLDesc(domain, live ? 0 :
                                    VIR_DOMAIN_XML_SECURE |
                                    VIR_DOMAIN_XML_INACTIVE);
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

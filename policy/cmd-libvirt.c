/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir libvirt */
#include <stdio.h>
#include <string.h>

#include "cachefile.h"
#include "definition.h"
#include "domainplan.h"
#include "hypervisor.h"
#include "livedomain.h"
#include "settle.h"
#include "weir.h"

typedef struct LibvirtOptions {
    WeirPolicyOptions policy;
    WeirAssignOptions assign;
    char *uri;
} LibvirtOptions;

static void libvirt_options_clear(LibvirtOptions *options)
{
    weir_policy_options_clear(&options->policy);
    weir_assign_options_clear(&options->assign);
    g_free(options->uri);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(LibvirtOptions, libvirt_options_clear)

#define LIBVIRT_OPTION_CONNECT(options) \
    { "connect", 'c', 0, G_OPTION_ARG_STRING, &(options)->uri, \
      "libvirt's URI (default: as for virsh)", "URI" }
#define LIBVIRT_OPTIONS_POLICY(options) \
    WEIR_OPTION_POLICIES(&(options)->policy.dirs), \
    WEIR_OPTION_BIN_DIR(&(options)->policy.bin_dir)

/* Parse options and the one argument behind them; NULL: it was told. */
static const char *libvirt_parse(int *argc, char ***argv,
                                 const GOptionEntry *entries,
                                 const char *argument, const char *help)
{
    const char *command = (*argv)[0];

    if (!weir_parse(argc, argv, entries, argument, help)) {
        return NULL;
    }
    if (*argc != 2) {
        weir_usage("%s: found %d arguments, expected %s",
                   command + strlen("weir "), *argc - 1, argument);
        return NULL;
    }
    return (*argv)[1];
}

/* --- define, remove --- */

static int libvirt_cmd_define(int argc, char **argv)
{
    g_auto(LibvirtOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTIONS_ASSIGN(&options.assign),
        LIBVIRT_OPTION_CONNECT(&options),
        LIBVIRT_OPTIONS_POLICY(&options),
        G_OPTION_ENTRY_NULL
    };
    const char *file = libvirt_parse(
        &argc, &argv, entries, "FILE",
        "Define a domain from an XML file (- for standard input) with its "
        "disks under\npolicies, which are checked before.\n\n"
        "Exit codes: 0 done, 1 error, 2 wrong usage.");
    g_autoptr(virConnect) connection = NULL;
    g_autoptr(virDomain) domain = NULL;
    g_autofree char *xml = NULL;
    GError *error = NULL;
    gsize length;

    if (!file) {
        return WEIR_EXIT_USAGE;
    }
    xml = weir_read_domain(strcmp(file, "-") == 0 ? NULL : file, &length,
                           &error);
    if (!xml || !(connection = weir_hypervisor_open(options.uri, &error)) ||
        !(domain = weir_definition_put(&options.policy,
                                       &options.assign, connection, xml,
                                       length, &error))) {
        return weir_fail(error);
    }
    printf("Domain '%s' defined\n", virDomainGetName(domain));
    return WEIR_EXIT_OK;
}

/* A domain that is defined. */
typedef struct LibvirtDomain {
    virConnectPtr connection;
    virDomainPtr domain;
    char *xml;
} LibvirtDomain;

static void libvirt_domain_clear(LibvirtDomain *found)
{
    g_clear_pointer(&found->domain, virDomainFree);
    g_clear_pointer(&found->connection, virConnectClose);
    g_free(found->xml);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(LibvirtDomain, libvirt_domain_clear)

static bool libvirt_find(LibvirtDomain *found, const char *uri,
                         const char *name, GError **error)
{
    if (!(found->connection = weir_hypervisor_open(uri, error)) ||
        !(found->domain = weir_hypervisor_domain(found->connection, name,
                                                 error))) {
        return false;
    }
    found->xml = weir_definition_xml(found->domain, error);
    return found->xml != NULL;
}

/* What a disk loses with a filter, or NULL. */
static const char *libvirt_loss(const WeirFilterType *type,
                                JsonObject *options)
{
    if (weir_kind_plugin(type->kind)) {
        return type->changes_data
               ? "has changed what is on the disk, which stays so" :
               type->holds_data ? "may hold writes that the disk lacks" : NULL;
    }
    switch (type->class) {
    case WEIR_CLASS_CACHE:
        return weir_cache_writes_back(weir_json_string(options, "mode"))
               ? "may hold writes that the disk lacks" : NULL;
    case WEIR_CLASS_ENCRYPTION:
        return "has encrypted the disk, which stays so";
    case WEIR_CLASS_REPLICATION:
        return "no longer sees what is written";
    default:
        return NULL;
    }
}

/* What is to be known about a disk that is to be without a filter. */
static void libvirt_note_filter(const WeirAssigned *assigned,
                                const WeirPolicyFilter *filter,
                                const WeirSchema *schema)
{
    const WeirFilterType *type = weir_schema_find_filter(
        schema, filter->driver, filter->options);
    const char *note = libvirt_loss(type, filter->options);

    if (note) {
        fprintf(stderr, "weir: disk '%s': %s of policy '%s' %s\n",
                assigned->target, filter->kind, assigned->policy, note);
    }
}

/* The same for all disks of @xml, as far as their policies are known here. */
static void libvirt_note(const LibvirtOptions *options, const char *xml)
{
    g_autoptr(WeirDomain) domain = weir_domain_parse(xml, strlen(xml), NULL);
    g_autoptr(WeirDaemon) daemon = domain && domain->assigned->len > 0
        ? weir_daemon_start(options->policy.bin_dir, NULL) : NULL;

    for (guint i = 0; daemon && i < domain->assigned->len; i++) {
        const WeirAssigned *assigned = g_ptr_array_index(domain->assigned, i);
        g_autoptr(WeirPolicy) policy = weir_policy_find(
            weir_policy_dirs(&options->policy), assigned->policy,
            weir_daemon_schema(daemon), NULL);

        for (guint j = 0; policy && j < policy->filters->len; j++) {
            libvirt_note_filter(assigned,
                                g_ptr_array_index(policy->filters, j),
                                weir_daemon_schema(daemon));
        }
    }
}

static int libvirt_cmd_remove(int argc, char **argv)
{
    g_auto(LibvirtOptions) options = { 0 };
    GOptionEntry entries[] = {
        LIBVIRT_OPTION_CONNECT(&options),
        LIBVIRT_OPTIONS_POLICY(&options),
        G_OPTION_ENTRY_NULL
    };
    const char *name = libvirt_parse(
        &argc, &argv, entries, "DOMAIN",
        "Give a defined domain its original XML back, and tell what its disks "
        "lose with\ntheir filters.  A domain that runs is changed when it is "
        "started anew.\n\n"
        "Exit codes: 0 done, 1 error, 2 wrong usage.");
    g_auto(LibvirtDomain) found = { 0 };
    g_autoptr(virDomain) defined = NULL;
    g_autofree char *out = NULL;
    GError *error = NULL;

    if (!name) {
        return WEIR_EXIT_USAGE;
    }
    if (!libvirt_find(&found, options.uri, name, &error) ||
        !(out = weir_transform_remove(found.xml, strlen(found.xml),
                                      &error)) ||
        !(defined = weir_hypervisor_define(found.connection, out, &error))) {
        return weir_fail(error);
    }
    libvirt_note(&options, found.xml);
    printf("Domain '%s' is as it was%s\n", virDomainGetName(defined),
           weir_definition_note(defined));
    return WEIR_EXIT_OK;
}

/* --- start, reapply --- */

/* The guest is let go when its chains were seen to be there. */
static bool libvirt_start(virDomainPtr domain, GError **error)
{
    if (virDomainCreateWithFlags(domain, VIR_DOMAIN_START_PAUSED) < 0) {
        weir_hypervisor_error(error, "libvirt does not start the domain");
        return false;
    }
    if (!weir_live_domain_complies(domain, error)) {
        virDomainDestroy(domain);
        return false;
    }
    if (virDomainResume(domain) < 0) {
        weir_hypervisor_error(error, "libvirt does not let the guest go");
        virDomainDestroy(domain);
        return false;
    }
    return true;
}

static int libvirt_cmd_start(int argc, char **argv)
{
    g_auto(LibvirtOptions) options = { 0 };
    GOptionEntry entries[] = {
        LIBVIRT_OPTION_CONNECT(&options),
        G_OPTION_ENTRY_NULL
    };
    const char *name = libvirt_parse(
        &argc, &argv, entries, "DOMAIN",
        "Start a defined domain.  The guest is let go when its chains were "
        "seen to be\nthere.\n\n"
        "Exit codes: 0 done, 1 error, 2 wrong usage.");
    g_autoptr(virConnect) connection = NULL;
    g_autoptr(virDomain) domain = NULL;
    GError *error = NULL;

    if (!name) {
        return WEIR_EXIT_USAGE;
    }
    if (!(connection = weir_hypervisor_open(options.uri, &error)) ||
        !(domain = weir_hypervisor_domain(connection, name, &error)) ||
        !libvirt_start(domain, &error)) {
        return weir_fail(error);
    }
    printf("Domain '%s' started\n", virDomainGetName(domain));
    return WEIR_EXIT_OK;
}

static void libvirt_tell_line(const char *line)
{
    printf("%s\n", line);
}

/* Returns false if a disk lacks filters afterwards, which is told. */
static bool libvirt_reapply(virDomainPtr domain, const WeirSettle *settle)
{
    WeirSettled settled;
    GError *error = NULL;

    if (!weir_settle(domain, settle, &settled, &error)) {
        weir_fail(error);
        return false;
    }
    return settled.refused == 0;
}

static int libvirt_cmd_reapply(int argc, char **argv)
{
    g_auto(LibvirtOptions) options = { 0 };
    GOptionEntry entries[] = {
        LIBVIRT_OPTION_CONNECT(&options),
        LIBVIRT_OPTIONS_POLICY(&options),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(virConnect) connection = NULL;
    g_autoptr(GPtrArray) domains = NULL;
    WeirSettle settle = { .gaps_dir = WEIR_GAPS_DIR,
                          .tell = libvirt_tell_line };
    GError *error = NULL;
    bool ok = true;

    if (!weir_parse(&argc, &argv, entries, "[DOMAIN]",
                    "Bring disks of one or all domains that run, which lack "
                    "filters of their policies,\nunder these again; by a "
                    "snapshot for instance they lose them.  'weir watch' does\n"
                    "so at once.\n\n"
                    "Exit codes: 0 no filter is missing, 1 error, 2 wrong "
                    "usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 2) {
        return weir_usage("libvirt reapply: found '%s', expected one domain",
                          argv[2]);
    }
    if (!(connection = weir_hypervisor_open(options.uri, &error)) ||
        !(domains = weir_hypervisor_domains(
              connection, argc == 2 ? argv[1] : NULL, &error))) {
        return weir_fail(error);
    }
    settle.bin_dir = options.policy.bin_dir;
    settle.dirs = options.policy.dirs;
    for (guint i = 0; i < domains->len; i++) {
        ok = libvirt_reapply(g_ptr_array_index(domains, i), &settle) && ok;
    }
    return ok ? WEIR_EXIT_OK : WEIR_EXIT_ERROR;
}

static const WeirCommand commands[] = {
    { "apply", "put disks of a defined domain under policies",
      weir_cmd_libvirt_apply },
    { "define", "define a domain with its disks under policies",
      libvirt_cmd_define },
    { "hook", "what libvirt calls when a domain starts and ends",
      weir_cmd_libvirt_hook },
    { "reapply", "put filters back that running disks have lost",
      libvirt_cmd_reapply },
    { "remove", "give a domain its original XML back", libvirt_cmd_remove },
    { "start", "start a domain and see that its chains are there",
      libvirt_cmd_start },
    { "status", "show whether disks of domains comply",
      weir_cmd_libvirt_status },
    { NULL, NULL, NULL }
};

int weir_cmd_libvirt(int argc, char **argv)
{
    return weir_dispatch(commands, "weir libvirt", argc, argv);
}

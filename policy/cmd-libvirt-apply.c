/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir libvirt apply: domains of one or more hosts, which work side by side. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "definition.h"

#define APPLY_TIMEOUT_S 60
#define APPLY_TIMEOUT_S_MIN 0.01
#define APPLY_TIMEOUT_S_MAX 3600

typedef struct ApplyOptions {
    WeirPolicyOptions policy;
    WeirAssignOptions assign;
    char **uris;
    double timeout_s;
} ApplyOptions;

static void apply_options_clear(ApplyOptions *options)
{
    weir_policy_options_clear(&options->policy);
    weir_assign_options_clear(&options->assign);
    g_strfreev(options->uris);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ApplyOptions, apply_options_clear)

/* What threads share; all of it but the options is under the lock. */
typedef struct Apply {
    ApplyOptions options;
    char **patterns;
    bool many;
    GMutex lock;
    GCond changed;
    bool *matched;          /* whether a domain is what a pattern says */
    guint done, failed;     /* domains; hosts that cannot be asked, too */
    bool unsure;            /* a host has not told of all its domains */
} Apply;

typedef struct ApplyHost {
    Apply *apply;
    const char *uri;        /* NULL: libvirt's default */
    const char *name;
    gint64 heard_us;        /* when it has said something last */
    char *domain;           /* that is being defined; NULL: none */
    bool ended;             /* done, or given up */
} ApplyHost;

/* --- in a thread of each host --- */

/* Tell of a domain, or of the host; under the lock.  @error is consumed. */
static void apply_tell(ApplyHost *host, const char *what, const char *note,
                       GError *error)
{
    g_autofree char *prefix = host->apply->many
        ? g_strconcat(host->name, ": ", NULL) : g_strdup("");

    if (error) {
        g_prefix_error(&error, "%s", prefix);
        weir_fail(error);
        host->apply->failed++;
    } else {
        printf("%sDomain '%s' is under its policies%s\n", prefix, what, note);
        fflush(stdout);
        host->apply->done++;
    }
}

/* Under the lock.  Returns false if nobody waits for the host any more. */
static bool apply_heard(ApplyHost *host, const char *domain)
{
    g_free(host->domain);
    host->domain = g_strdup(domain);
    host->heard_us = g_get_monotonic_time();
    g_cond_broadcast(&host->apply->changed);
    return !host->ended;
}

/* An exact name is no pattern, whatever characters it has. */
static bool apply_matches(const char *pattern, virDomainPtr domain,
                          bool exactly)
{
    char uuid[VIR_UUID_STRING_BUFLEN] = "";

    if (strcmp(pattern, virDomainGetName(domain)) == 0) {
        return true;
    }
    virDomainGetUUIDString(domain, uuid);
    return strcmp(pattern, uuid) == 0 ||
           (!exactly && fnmatch(pattern, virDomainGetName(domain), 0) == 0 &&
            virDomainIsPersistent(domain) == 1);
}

static bool apply_match_one(const char *pattern, const GPtrArray *domains,
                            bool *wanted, bool exactly)
{
    bool found = false;

    for (guint i = 0; i < domains->len; i++) {
        if (apply_matches(pattern, g_ptr_array_index(domains, i), exactly)) {
            wanted[i] = true;
            found = true;
        }
    }
    return found;
}

/* Whether each of @domains is wanted, to be freed. */
static bool *apply_match(ApplyHost *host, const GPtrArray *domains)
{
    Apply *apply = host->apply;
    bool *wanted = g_new0(bool, domains->len);

    for (guint i = 0; apply->patterns[i]; i++) {
        const char *pattern = apply->patterns[i];
        bool found = apply_match_one(pattern, domains, wanted, true) ||
                     apply_match_one(pattern, domains, wanted, false);

        g_mutex_lock(&apply->lock);
        apply->matched[i] = apply->matched[i] || found;
        g_mutex_unlock(&apply->lock);
    }
    return wanted;
}

/* Returns false if nobody waits any more. */
static bool apply_domain(ApplyHost *host, virConnectPtr connection,
                         virDomainPtr domain)
{
    const ApplyOptions *options = &host->apply->options;
    const char *name = virDomainGetName(domain);
    g_autoptr(virDomain) defined = NULL;
    g_autofree char *xml = NULL;
    const char *note = "";
    GError *error = NULL;
    bool waited;

    g_mutex_lock(&host->apply->lock);
    waited = apply_heard(host, name);
    g_mutex_unlock(&host->apply->lock);
    xml = waited ? weir_definition_xml(domain, &error) : NULL;
    if (xml) {
        defined = weir_definition_put(&options->policy, &options->assign,
                                      connection, xml, strlen(xml), &error);
    }
    if (defined) {
        note = weir_definition_note(defined);
    }
    g_mutex_lock(&host->apply->lock);
    waited = apply_heard(host, NULL);
    if (waited) {
        apply_tell(host, name, note, error);
    }
    g_mutex_unlock(&host->apply->lock);
    return waited;
}

static void apply_domain_free(gpointer domain)
{
    virDomainFree(domain);
}

static gint apply_compare(gconstpointer a, gconstpointer b)
{
    const virDomainPtr *left = a;
    const virDomainPtr *right = b;

    return strcmp(virDomainGetName(*left), virDomainGetName(*right));
}

static GPtrArray *apply_list(virConnectPtr connection, GError **error)
{
    GPtrArray *domains;
    virDomainPtr *list = NULL;
    int n = virConnectListAllDomains(connection, &list, 0);

    if (n < 0) {
        weir_hypervisor_error(error, "libvirt");
        return NULL;
    }
    domains = g_ptr_array_new_with_free_func(apply_domain_free);
    for (int i = 0; i < n; i++) {
        g_ptr_array_add(domains, list[i]);
    }
    free(list);
    g_ptr_array_sort(domains, apply_compare);
    return domains;
}

static gpointer apply_thread(gpointer opaque)
{
    ApplyHost *host = opaque;
    Apply *apply = host->apply;
    GError *error = NULL;
    /* of several, nobody could tell which one wants a password */
    g_autoptr(virConnect) connection = apply->many
        ? weir_hypervisor_open_quietly(host->uri, &error)
        : weir_hypervisor_open(host->uri, &error);
    g_autoptr(GPtrArray) domains = connection ? apply_list(connection, &error)
                                              : NULL;
    g_autofree bool *wanted = domains ? apply_match(host, domains) : NULL;

    for (guint i = 0; domains && i < domains->len; i++) {
        if (wanted[i] && !apply_domain(host, connection,
                                       g_ptr_array_index(domains, i))) {
            break;
        }
    }
    g_mutex_lock(&apply->lock);
    if (apply_heard(host, NULL) && error) {
        apply_tell(host, NULL, NULL, error);
        apply->unsure = true;
    } else {
        g_clear_error(&error);
    }
    host->ended = true;
    g_mutex_unlock(&apply->lock);
    return NULL;
}

/* --- all hosts --- */

/* A host that has said nothing for too long is waited for no more. */
static void apply_give_up(ApplyHost *host)
{
    GError *error = NULL;

    weir_set_error(&error, "no answer within %g s%s%s%s",
                   host->apply->options.timeout_s,
                   host->domain ? "; whether domain '" : "",
                   host->domain ? host->domain : "",
                   host->domain ? "' is under its policies is not known" : "");
    apply_tell(host, NULL, NULL, error);
    host->ended = true;
    host->apply->unsure = true;
}

/* Returns whether a host was given up. */
static bool apply_wait(Apply *apply, ApplyHost *hosts, guint count)
{
    gint64 timeout_us = (gint64)(apply->options.timeout_s * G_USEC_PER_SEC);
    bool given_up = false;

    g_mutex_lock(&apply->lock);
    for (guint i = 0; i < count; i++) {
        while (!hosts[i].ended) {
            if (g_get_monotonic_time() >= hosts[i].heard_us + timeout_us) {
                apply_give_up(&hosts[i]);
                given_up = true;
            } else {
                g_cond_wait_until(&apply->changed, &apply->lock,
                                  hosts[i].heard_us + timeout_us);
            }
        }
    }
    g_mutex_unlock(&apply->lock);
    return given_up;
}

/* What no host has; as long as one has not told, it may have it. */
static void apply_tell_missing(Apply *apply)
{
    for (guint i = 0; apply->patterns[i] && !apply->unsure; i++) {
        if (!apply->matched[i]) {
            GError *error = NULL;

            weir_set_error(&error, "there is no domain '%s'",
                           apply->patterns[i]);
            weir_fail(error);
            apply->failed++;
        }
    }
}

static int apply_run(Apply *apply)
{
    g_auto(GStrv) uris = weir_hypervisor_uris(apply->options.uris);
    g_auto(GStrv) names = weir_hypervisor_hosts(uris);
    guint count = g_strv_length(names);
    g_autofree ApplyHost *hosts = g_new0(ApplyHost, count);
    g_autofree GThread **threads = g_new0(GThread *, count);
    int code;

    apply->many = count > 1;
    for (guint i = 0; i < count; i++) {
        hosts[i] = (ApplyHost) {
            .apply = apply, .uri = *uris[i] ? uris[i] : NULL,
            .name = names[i], .heard_us = g_get_monotonic_time(),
        };
        threads[i] = g_thread_new("host", apply_thread, &hosts[i]);
    }
    if (apply_wait(apply, hosts, count)) {
        code = apply->done ? WEIR_EXIT_SOME : WEIR_EXIT_ERROR;
        exit(code);     /* without waiting for it, and what it may use stays */
    }
    for (guint i = 0; i < count; i++) {
        g_thread_join(threads[i]);
        g_free(hosts[i].domain);
    }
    apply_tell_missing(apply);
    return apply->failed == 0 ? WEIR_EXIT_OK :
           apply->done ? WEIR_EXIT_SOME : WEIR_EXIT_ERROR;
}

int weir_cmd_libvirt_apply(int argc, char **argv)
{
    Apply apply = { .options.timeout_s = APPLY_TIMEOUT_S };
    ApplyOptions *options = &apply.options;
    GOptionEntry entries[] = {
        WEIR_OPTIONS_ASSIGN(&options->assign),
        WEIR_OPTION_CONNECT(&options->uris),
        WEIR_OPTION_POLICIES(&options->policy.dirs),
        WEIR_OPTION_BIN_DIR(&options->policy.bin_dir),
        { "timeout", 0, 0, G_OPTION_ARG_DOUBLE, &options->timeout_s,
          "How long a host may say nothing (default: 60)", "SECONDS" },
        G_OPTION_ENTRY_NULL
    };
    int code = WEIR_EXIT_USAGE;

    if (!weir_parse(&argc, &argv, entries, "DOMAIN...",
                    "Put the disks of defined domains under policies, which "
                    "are checked before.  A\nDOMAIN is a name, a UUID or a "
                    "pattern as for files.  A domain that runs is changed\n"
                    "when it is started anew.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage, 6 done for "
                    "some domains, not for all.")) {
    } else if (argc < 2) {
        weir_usage("libvirt apply: found no domain, expected one or more");
    } else if (!(options->timeout_s >= APPLY_TIMEOUT_S_MIN &&
                 options->timeout_s <= APPLY_TIMEOUT_S_MAX)) {
        weir_usage("libvirt apply: found timeout %g, expected %g to %d "
                   "seconds", options->timeout_s, APPLY_TIMEOUT_S_MIN,
                   APPLY_TIMEOUT_S_MAX);
    } else {
        apply.patterns = argv + 1;
        apply.matched = g_new0(bool, argc - 1);
        code = apply_run(&apply);
        g_free(apply.matched);
    }
    apply_options_clear(options);
    return code;
}

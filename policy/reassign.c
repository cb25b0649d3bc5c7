/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reassign.h"

#include <string.h>

#include "transform.h"

/* The policies of @domain, with another one for @target; to be unreffed. */
static GPtrArray *reassign_list(const WeirDomain *domain, const char *target,
                                const char *policy)
{
    GPtrArray *assigned = weir_assigned_array();
    bool found = false;

    for (guint i = 0; i < domain->assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(domain->assigned, i);
        bool is_it = strcmp(a->target, target) == 0;
        const char *name = is_it ? policy : a->policy;

        found = found || is_it;
        if (name) {
            g_ptr_array_add(assigned, weir_assigned_new(a->target, name));
        }
    }
    if (!found && policy) {
        g_ptr_array_add(assigned, weir_assigned_new(target, policy));
    }
    return assigned;
}

/* Both names are weir_name_ok(): there is nothing to be escaped. */
static void append_disks(GString *out, const GPtrArray *assigned,
                         const char *prefix)
{
    for (guint i = 0; i < assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(assigned, i);

        g_string_append_printf(out, "<%sdisk target=\"%s\" policy=\"%s\"/>",
                               prefix, a->target, a->policy);
    }
}

/* The element that somebody else has put there, with other disks in it. */
static char *reassign_others(const WeirDomain *domain,
                             const GPtrArray *assigned)
{
    const WeirElement *policies = &domain->policies;
    gsize end = policies->empty ? policies->open.end : policies->close.end;
    GString *out = g_string_new(NULL);

    g_string_append_len(out, domain->text, (gssize)policies->open.begin);
    g_string_append_printf(out, "<%spolicies xmlns%s%.*s=\"%s\">",
                           domain->prefix, *domain->prefix ? ":" : "",
                           MAX((int)strlen(domain->prefix) - 1, 0),
                           domain->prefix, WEIR_DOMAIN_URI);
    append_disks(out, assigned, domain->prefix);
    g_string_append_printf(out, "</%spolicies>", domain->prefix);
    g_string_append(out, domain->text + end);
    return g_string_free(out, FALSE);
}

char *weir_reassign(const char *text, gsize length, const char *target,
                    const char *policy, const char *emulator, GError **error)
{
    g_autoptr(WeirDomain) given = weir_domain_parse(text, length, error);
    g_autofree char *plain = given ? weir_transform_remove(text, length, error)
                                   : NULL;
    g_autoptr(WeirDomain) domain = plain ? weir_domain_parse(
                                       plain, strlen(plain), error) : NULL;
    g_autoptr(GPtrArray) assigned = NULL;
    WeirTransform options = { .emulator = emulator };
    g_autofree char *other = NULL;

    if (!domain) {
        return NULL;
    }
    assigned = reassign_list(given, target, policy);
    if (domain->policies.present) {
        other = reassign_others(domain, assigned);
    } else {
        options.assigned = assigned;
    }
    return weir_transform(other ? other : plain,
                          strlen(other ? other : plain), &options, error);
}

char *weir_reassign_element(const WeirDomain *domain, const char *target,
                            const char *policy)
{
    g_autoptr(GPtrArray) assigned = reassign_list(domain, target, policy);
    const WeirElement *original = &domain->original;
    GString *out;

    if (assigned->len == 0 && !original->present) {
        return NULL;
    }
    out = g_string_new("<policies>");
    append_disks(out, assigned, "");
    if (original->present) {
        gsize begin = original->open.begin + strlen("<") +
                      strlen(domain->prefix);

        g_string_append_c(out, '<');
        g_string_append_len(out, domain->text + begin,
                            (gssize)(original->open.end - begin));
        if (!original->empty) {
            g_string_append(out, "</original>");
        }
    }
    g_string_append(out, "</policies>");
    return g_string_free(out, FALSE);
}

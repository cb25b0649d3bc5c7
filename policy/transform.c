/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text is edited in place, since no XML library writes a text as it was.
 * What has been replaced is in the metadata, in an element of ours:
 *
 *   <weir:policies xmlns:weir="urn:weir:domain:1">
 *     <weir:disk target="vda" policy="safe"/>
 *     <weir:original emulator="/usr/bin/kvm" metadata="" policies="none"/>
 *   </weir:policies>
 *
 *   emulator   text between the tags; missing: there was no such element
 *   metadata   an element that was one tag only; empty: there was none;
 *              missing: it had two tags
 *   policies   none: the element around is ours too
 *
 * A new element stands behind a copy of the white space that is where it
 * comes to stand, so both can be taken out again, also when libvirt has
 * indented the text anew.
 */
#include "transform.h"

#include <string.h>

#include "edit.h"
#include "policy.h"
#include "transformdisk.h"

/* --- there --- */

/* <original>, for a domain that has policies in its metadata or not. */
static char *original_text(const WeirDomain *domain, const char *prefix,
                           const GPtrArray *outside)
{
    const WeirElement *emulator = &domain->emulator_element;
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "<%soriginal", prefix);
    if (emulator->present) {
        g_autofree char *text = weir_span_text(domain, emulator->open.end,
                                               emulator->close.begin);

        weir_xml_append_attribute(out, "emulator", text);
    }
    if (!domain->metadata.present) {
        weir_xml_append_attribute(out, "metadata", "");
    } else if (domain->metadata.empty) {
        g_autofree char *text = weir_span_text(
            domain, domain->metadata.open.begin, domain->metadata.open.end);

        weir_xml_append_attribute(out, "metadata", text);
    }
    if (!domain->policies.present) {
        weir_xml_append_attribute(out, "policies", "none");
    }
    if (outside->len == 0) {
        g_string_append(out, "/>");
        return g_string_free(out, FALSE);
    }
    if (!domain->memory.present) {
        weir_xml_append_attribute(out, "memory", "none");
    }
    g_string_append_c(out, '>');
    weir_transform_append_was(out, domain, prefix, outside);
    g_string_append_printf(out, "</%soriginal>", prefix);
    return g_string_free(out, FALSE);
}

static char *policies_text(const WeirDomain *domain,
                           const GPtrArray *assigned,
                           const GPtrArray *outside, const char *blanks)
{
    g_autofree char *deeper = weir_blanks_deeper(blanks);
    g_autofree char *original = original_text(domain, "weir:", outside);
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "<weir:policies xmlns:weir=\"%s\">",
                           WEIR_DOMAIN_URI);
    for (guint i = 0; i < assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(assigned, i);

        g_string_append_printf(out, "%s<weir:disk", deeper);
        weir_xml_append_attribute(out, "target", a->target);
        weir_xml_append_attribute(out, "policy", a->policy);
        g_string_append(out, "/>");
    }
    g_string_append_printf(out, "%s%s%s</weir:policies>", deeper, original,
                           blanks);
    return g_string_free(out, FALSE);
}

/* Policies that are not in the metadata come there. */
static void edit_add_policies(GPtrArray *edits, const WeirDomain *domain,
                              const GPtrArray *assigned,
                              const GPtrArray *outside)
{
    const WeirElement *metadata = &domain->metadata;
    gsize begin = metadata->present ? metadata->open.begin
                                    : domain->name_element.open.begin;
    gsize outer_begin = weir_blanks_before(domain, begin);
    g_autofree char *outer = weir_span_text(domain, outer_begin, begin);
    g_autofree char *inner = metadata->present && !metadata->empty
                                 ? weir_blanks_at(domain, metadata->open.end)
                                 : weir_blanks_deeper(outer);
    g_autofree char *policies = policies_text(domain, assigned, outside,
                                              inner);

    if (!metadata->present) {
        weir_edits_add(edits, domain->name_element.close.end,
                       domain->name_element.close.end,
                       g_strconcat(outer, "<metadata>", inner, policies, outer,
                                   "</metadata>", NULL));
    } else if (metadata->empty) {
        g_autofree char *tag = weir_span_text(domain, metadata->open.begin,
                                              metadata->open.end - 2);

        weir_edits_add(edits, metadata->open.begin, metadata->open.end,
                       g_strconcat(tag, ">", inner, policies, outer,
                                   "</metadata>", NULL));
    } else {
        weir_edits_add(edits, metadata->open.end, metadata->open.end,
                       g_strconcat(inner, policies, NULL));
    }
}

static void edit_emulator(GPtrArray *edits, const WeirDomain *domain,
                          const char *emulator)
{
    const WeirElement *old = &domain->emulator_element;
    g_autofree char *text = g_markup_escape_text(emulator, -1);
    g_autofree char *blanks = NULL;

    if (old->present) {
        weir_edits_add(edits, old->open.end, old->close.begin,
                       g_steal_pointer(&text));
        return;
    }
    blanks = weir_blanks_at(domain, domain->devices.open.end);
    weir_edits_add(edits, domain->devices.open.end, domain->devices.open.end,
                   g_strconcat(blanks, "<emulator>", text, "</emulator>",
                               NULL));
}

/* What cannot be taken back, or makes no sense. */
static bool transform_check(const WeirDomain *domain, GError **error)
{
    const WeirElement *emulator = &domain->emulator_element;
    g_autofree char *text = weir_span_text(domain, emulator->open.end,
                                           emulator->close.begin);

    if (g_strcmp0(domain->type, "kvm") != 0 &&
        g_strcmp0(domain->type, "qemu") != 0) {
        weir_set_error(error, "domain '%s': found type '%s', expected kvm or "
                       "qemu", domain->name, domain->type ? domain->type : "");
        return false;
    }
    if (domain->arch && strcmp(domain->arch, "x86_64") != 0) {
        weir_set_error(error, "domain '%s': found architecture '%s', expected "
                       "x86_64", domain->name, domain->arch);
        return false;
    }
    if (!weir_name_ok(domain->name, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "domain '%s': found a name that policies cannot "
                       "have as ${vm}, expected up to %d letters, digits and "
                       "'._-'", domain->name, WEIR_VM_MAX_NAME);
        return false;
    }
    if (emulator->empty || strchr(text, '<')) {
        weir_set_error(error, "domain '%s': found no path only in <emulator>",
                       domain->name);
        return false;
    }
    return true;
}

static bool transform_check_disks(const WeirDomain *domain,
                                  const GPtrArray *assigned, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(assigned, i);
        const WeirDomainDisk *disk = weir_domain_disk(domain, a->target);

        if (!disk) {
            weir_set_error(error, "domain '%s': found policy '%s' for disk "
                           "'%s', which the domain does not have",
                           domain->name, a->policy, a->target);
            return false;
        }
        if (!g_hash_table_add(seen, a->target)) {
            weir_set_error(error, "domain '%s': found two policies for disk "
                           "'%s', expected one", domain->name, a->target);
            return false;
        }
        if (!weir_domain_disk_check(disk, error)) {
            g_prefix_error(error, "domain '%s': ", domain->name);
            return false;
        }
    }
    return true;
}

static void assigned_copy(GPtrArray *to, const GPtrArray *from)
{
    for (guint i = 0; from && i < from->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(from, i);

        g_ptr_array_add(to, weir_assigned_new(a->target, a->policy));
    }
}

static bool assigned_has(const GPtrArray *assigned, const char *target)
{
    for (guint i = 0; i < assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(assigned, i);

        if (strcmp(a->target, target) == 0) {
            return true;
        }
    }
    return false;
}

/*
 * Which disk gets which policy.
 *
 * @given: the domain as it was given
 * @domain: the same without what an earlier weir_transform() has done
 */
static GPtrArray *transform_assigned(const WeirDomain *given,
                                     const WeirDomain *domain,
                                     const WeirTransform *options,
                                     GError **error)
{
    g_autoptr(GPtrArray) assigned = weir_assigned_array();
    bool has_options = options->policy ||
                       (options->assigned && options->assigned->len > 0);

    if (has_options && domain->assigned->len > 0) {
        weir_set_error(error, "domain '%s': found policies in its metadata "
                       "and others besides, expected one or the other",
                       domain->name);
        return NULL;
    }
    assigned_copy(assigned, has_options ? options->assigned
                                        : given->assigned);
    for (guint i = 0; options->policy && i < domain->disks->len; i++) {
        const WeirDomainDisk *disk = g_ptr_array_index(domain->disks, i);

        if (disk->target && strcmp(disk->device, "disk") == 0 &&
            !assigned_has(assigned, disk->target)) {
            g_ptr_array_add(assigned, weir_assigned_new(disk->target,
                                                        options->policy));
        }
    }
    return g_steal_pointer(&assigned);
}

/* The edited text, which has been seen to lead back to that of @domain. */
static char *transform_edit(const WeirDomain *domain,
                            const GPtrArray *assigned,
                            const GPtrArray *outside, const char *emulator,
                            GError **error)
{
    g_autoptr(GPtrArray) edits = weir_edits_new();
    g_autofree char *text = NULL;
    g_autofree char *back = NULL;

    edit_emulator(edits, domain, emulator);
    if (domain->policies.present) {
        weir_edits_add(edits, domain->policies.close.begin,
                       domain->policies.close.begin,
                       original_text(domain, domain->prefix, outside));
    } else {
        edit_add_policies(edits, domain, assigned, outside);
    }
    weir_transform_outside(edits, domain, outside);
    text = weir_edits_apply(edits, domain->text, domain->length);
    back = weir_transform_remove(text, strlen(text), error);
    if (!back) {
        g_prefix_error(error, "domain '%s' cannot be changed: ",
                       domain->name);
        return NULL;
    }
    if (strcmp(back, domain->text) != 0) {
        weir_set_error(error, "domain '%s' cannot be changed in a way that "
                       "leads back", domain->name);
        return NULL;
    }
    return g_steal_pointer(&text);
}

/* The targets of those that run out of process; NULL with @error set. */
static GPtrArray *transform_find_outside(const WeirDomain *domain,
                                         const GPtrArray *assigned,
                                         const WeirTransform *options,
                                         GError **error)
{
    g_autoptr(GPtrArray) outside = g_ptr_array_new();

    for (guint i = 0; options->is_outside && i < assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(assigned, i);

        if (!options->is_outside(options->opaque, a->policy)) {
            continue;
        }
        if (!weir_transform_check_outside(domain, a->target, error)) {
            return NULL;
        }
        g_ptr_array_add(outside, a->target);
    }
    return g_steal_pointer(&outside);
}

char *weir_transform(const char *text, gsize length,
                     const WeirTransform *options, GError **error)
{
    g_autoptr(WeirDomain) given = weir_domain_parse(text, length, error);
    g_autofree char *plain = given ? weir_transform_remove(text, length,
                                                           error) : NULL;
    g_autoptr(WeirDomain) domain = plain ? weir_domain_parse(
                                       plain, strlen(plain), error) : NULL;
    g_autoptr(GPtrArray) assigned = domain ? transform_assigned(
                                        given, domain, options, error) : NULL;
    g_autoptr(GPtrArray) outside = NULL;

    if (!assigned) {
        return NULL;
    }
    if (assigned->len == 0) {
        return g_steal_pointer(&plain);
    }
    if (!transform_check(domain, error) ||
        !transform_check_disks(domain, assigned, error) ||
        !(outside = transform_find_outside(domain, assigned, options,
                                           error))) {
        return NULL;
    }
    return transform_edit(domain, assigned, outside, options->emulator,
                          error);
}

/* --- and back --- */

/* What would be put into the text as it is must not bring elements along. */
static bool remove_check(const WeirDomain *domain, GError **error)
{
    const char *metadata = domain->was_metadata;

    if ((domain->was_emulator && strchr(domain->was_emulator, '<')) ||
        (metadata && *metadata &&
         (!g_str_has_prefix(metadata, "<metadata") ||
          !g_str_has_suffix(metadata, "/>") ||
          strcspn(metadata + 1, "<>") + 2 != strlen(metadata)))) {
        weir_set_error(error, "domain '%s': found something else in "
                       "<original> than weir transform leaves there",
                       domain->name);
        return false;
    }
    return true;
}

static void edit_remove_emulator(GPtrArray *edits, const WeirDomain *domain)
{
    const WeirElement *now = &domain->emulator_element;

    if (!now->present || now->empty) {
        return;
    }
    if (domain->was_emulator) {
        weir_edits_add(edits, now->open.end, now->close.begin,
                       g_strdup(domain->was_emulator));
    } else {
        weir_edits_add(edits, weir_blanks_before(domain, now->open.begin),
                       now->close.end, g_strdup(""));
    }
}

/* Whether the metadata have nothing but our policies. */
static bool remove_leaves_nothing(const WeirDomain *domain)
{
    const WeirElement *metadata = &domain->metadata;
    gsize before = metadata->open.end +
                   strspn(domain->text + metadata->open.end,
                          WEIR_XML_BLANKS);
    gsize after = domain->policies.close.end +
                  strspn(domain->text + domain->policies.close.end,
                         WEIR_XML_BLANKS);

    return before == domain->policies.open.begin &&
           after == metadata->close.begin;
}

static void edit_remove_policies(GPtrArray *edits, const WeirDomain *domain)
{
    const WeirElement *metadata = &domain->metadata;
    const char *was = domain->was_metadata;

    if (!domain->added_policies) {
        weir_edits_add(edits, domain->original.open.begin,
                       domain->original.close.end, g_strdup(""));
    } else if (!was || !remove_leaves_nothing(domain)) {
        weir_edits_add(edits, weir_blanks_before(
                           domain, domain->policies.open.begin),
                       domain->policies.close.end, g_strdup(""));
    } else if (*was) {
        weir_edits_add(edits, metadata->open.begin, metadata->close.end,
                       g_strdup(was));
    } else {
        weir_edits_add(edits, weir_blanks_before(domain, metadata->open.begin),
                       metadata->close.end, g_strdup(""));
    }
}

char *weir_transform_remove(const char *text, gsize length, GError **error)
{
    g_autoptr(WeirDomain) domain = weir_domain_parse(text, length, error);
    g_autoptr(WeirDomain) check = NULL;
    g_autoptr(GPtrArray) edits = weir_edits_new();
    g_autofree char *out = NULL;

    if (!domain || !remove_check(domain, error)) {
        return NULL;
    }
    if (!domain->original.present) {
        return g_strndup(text, length);
    }
    edit_remove_emulator(edits, domain);
    edit_remove_policies(edits, domain);
    weir_transform_inside(edits, domain);
    out = weir_edits_apply(edits, text, length);
    check = weir_domain_parse(out, strlen(out), error);
    return check ? g_steal_pointer(&out) : NULL;
}

bool weir_transform_check_emulator(const char *path, GError **error)
{
    if (!g_str_has_suffix(path, "/" WEIR_EMULATOR)) {
        weir_set_error(error, "found '%s', expected the path of a "
                       WEIR_EMULATOR, path);
        return false;
    }
    return true;
}

WeirAssigned *weir_assigned_parse(const char *text, GError **error)
{
    const char *equals = strchr(text, '=');
    g_autofree char *target = equals ? g_strndup(text,
                                                 (gsize)(equals - text))
                                     : NULL;

    if (!target || !weir_name_ok(target, WEIR_VM_MAX_NAME) ||
        !weir_name_ok(equals + 1, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "--disk: found '%s', expected TARGET=POLICY "
                       "such as vda=safe", text);
        return NULL;
    }
    return weir_assigned_new(target, equals + 1);
}

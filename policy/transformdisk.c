/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "transformdisk.h"

#include <string.h>

#include "edit.h"

char *weir_domain_socket(const char *name, const char *target)
{
    return g_strdup_printf("%s/%s.disks/%s", WEIR_DOMAIN_SOCKETS_DIR, name,
                           target);
}

bool weir_transform_check_outside(const WeirDomain *domain,
                                  const char *target, GError **error)
{
    const WeirDomainDisk *disk = weir_domain_disk(domain, target);

    if (g_strcmp0(disk->bus, "virtio") != 0) {
        weir_set_error(error, "domain '%s': disk '%s': found bus '%s', "
                       "expected 'virtio' for a disk out of process",
                       domain->name, target, disk->bus ? disk->bus : "");
        return false;
    }
    if (!disk->source) {
        weir_set_error(error, "domain '%s': disk '%s': found type '%s', "
                       "expected a file or a device for a disk out of process",
                       domain->name, target, disk->type);
        return false;
    }
    if (disk->foreign) {
        weir_set_error(error, "domain '%s': disk '%s': found %s, which a disk "
                       "out of process cannot have", domain->name, target,
                       disk->foreign);
        return false;
    }
    if (domain->memory.present && !domain->memory_shared) {
        weir_set_error(error, "domain '%s': found <memoryBacking> without "
                       "<access mode='shared'/>, expected it, as disk '%s' is "
                       "out of process", domain->name, target);
        return false;
    }
    return true;
}

/* The vhostuser disk in the place of @disk. */
static char *outside_disk(const WeirDomain *domain,
                          const WeirDomainDisk *disk)
{
    g_autofree char *inner = weir_blanks_at(domain, disk->element.open.end);
    g_autofree char *deeper = weir_blanks_deeper(inner);
    g_autofree char *outer = weir_span_text(
        domain, weir_blanks_before(domain, disk->element.close.begin),
        disk->element.close.begin);
    g_autofree char *socket = weir_domain_socket(domain->name, disk->target);
    GString *out = g_string_new(NULL);

    g_string_append_printf(
        out, "<disk type='vhostuser' device='disk'>%s"
        "<driver name='qemu' type='raw'/>%s"
        "<source type='unix' path='%s'>%s"
        "<reconnect enabled='yes' timeout='1'/>%s</source>",
        inner, inner, socket, deeper, inner);
    for (guint i = 0; i < disk->kept->len; i++) {
        const WeirSpan *span = &g_array_index(disk->kept, WeirSpan, i);
        g_autofree char *text = weir_span_text(domain, span->begin,
                                               span->end);

        g_string_append_printf(out, "%s%s", inner, text);
    }
    g_string_append_printf(out, "%s</disk>", outer);
    return g_string_free(out, FALSE);
}

static void outside_memory(GPtrArray *edits, const WeirDomain *domain)
{
    gsize begin = domain->devices.open.begin;
    gsize outer_begin = weir_blanks_before(domain, begin);
    g_autofree char *outer = weir_span_text(domain, outer_begin, begin);
    g_autofree char *inner = weir_blanks_deeper(outer);

    weir_edits_add(edits, outer_begin, outer_begin, g_strconcat(
        outer, "<memoryBacking>", inner, "<source type='memfd'/>", inner,
        "<access mode='shared'/>", outer, "</memoryBacking>", NULL));
}

void weir_transform_outside(GPtrArray *edits, const WeirDomain *domain,
                            const GPtrArray *targets)
{
    for (guint i = 0; i < targets->len; i++) {
        const WeirDomainDisk *disk = weir_domain_disk(
            domain, g_ptr_array_index(targets, i));

        weir_edits_add(edits, disk->element.open.begin,
                       disk->element.close.end, outside_disk(domain, disk));
    }
    if (targets->len > 0 && !domain->memory.present) {
        outside_memory(edits, domain);
    }
}

void weir_transform_append_was(GString *out, const WeirDomain *domain,
                               const char *prefix, const GPtrArray *targets)
{
    for (guint i = 0; i < targets->len; i++) {
        const WeirDomainDisk *disk = weir_domain_disk(
            domain, g_ptr_array_index(targets, i));
        g_autofree char *text = weir_span_text(
            domain, disk->element.open.begin, disk->element.close.end);

        g_string_append_printf(out, "<%swas", prefix);
        weir_xml_append_attribute(out, "disk", text);
        g_string_append(out, "/>");
    }
}

void weir_transform_inside(GPtrArray *edits, const WeirDomain *domain)
{
    for (guint i = 0; i < domain->was_disks->len; i++) {
        const WeirDomainWas *was = g_ptr_array_index(domain->was_disks, i);
        const WeirDomainDisk *disk = weir_domain_disk(domain,
                                                      was->disk->target);

        if (weir_domain_is_replaced(domain, was->disk->target)) {
            weir_edits_add(edits, disk->element.open.begin,
                           disk->element.close.end, g_strdup(was->text));
        }
    }
    if (domain->added_memory && domain->memory.present) {
        weir_edits_add(edits,
                       weir_blanks_before(domain, domain->memory.open.begin),
                       domain->memory.close.end, g_strdup(""));
    }
}

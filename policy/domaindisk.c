/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is asked of a domain that has been read. */
#include <string.h>

#include "domain.h"

WeirDomainDisk *weir_domain_disk(const WeirDomain *domain, const char *target)
{
    for (guint i = 0; i < domain->disks->len; i++) {
        WeirDomainDisk *disk = g_ptr_array_index(domain->disks, i);

        if (g_strcmp0(disk->target, target) == 0) {
            return disk;
        }
    }
    return NULL;
}

static const WeirDomainWas *domain_was(const WeirDomain *domain,
                                       const char *target)
{
    for (guint i = 0; i < domain->was_disks->len; i++) {
        const WeirDomainWas *was = g_ptr_array_index(domain->was_disks, i);

        if (strcmp(was->disk->target, target) == 0) {
            return was;
        }
    }
    return NULL;
}

bool weir_domain_is_replaced(const WeirDomain *domain, const char *target)
{
    const WeirDomainDisk *disk = weir_domain_disk(domain, target);

    return disk && strcmp(disk->type, "vhostuser") == 0 &&
           domain_was(domain, target);
}

const WeirDomainDisk *weir_domain_original(const WeirDomain *domain,
                                           const char *target)
{
    return weir_domain_is_replaced(domain, target)
        ? domain_was(domain, target)->disk : weir_domain_disk(domain, target);
}

const char *weir_assigned_find(const GPtrArray *assigned, const char *target)
{
    for (guint i = 0; i < assigned->len; i++) {
        const WeirAssigned *entry = g_ptr_array_index(assigned, i);

        if (strcmp(entry->target, target) == 0) {
            return entry->policy;
        }
    }
    return NULL;
}

const char *weir_domain_policy(const WeirDomain *domain, const char *target)
{
    return weir_assigned_find(domain->assigned, target);
}

bool weir_domain_disk_check(const WeirDomainDisk *disk, GError **error)
{
    /* their storage is not a block node of QEMU's */
    static const char *const types[] = {
        "vhostuser", "vhostvdpa", "dir", NULL
    };
    const char *found = NULL;

    if (strcmp(disk->device, "disk") != 0) {
        found = disk->device;
    } else if (g_strv_contains(types, disk->type)) {
        found = disk->type;
    } else if (disk->shareable) {
        found = "shareable";    /* filters know of one writer */
    } else if (disk->transient) {
        found = "transient";    /* an overlay takes its writes */
    }
    if (found) {
        weir_set_error(error, "disk '%s' is %s, which cannot be under a "
                       "policy", disk->target, found);
    }
    return !found;
}

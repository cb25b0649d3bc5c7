/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domainrecord.h"

#include "carried.h"
#include "emulator.h"
#include "policy.h"

/*
 * The disks of @record as the domain has them now: one that has been taken out
 * is nobody's concern, and one that has been put in again may have another
 * device.
 */
static void domainrecord_follow(WeirRecord *record, const WeirDomain *domain)
{
    for (guint i = record->disks->len; i-- > 0;) {
        WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        const WeirDomainDisk *now = weir_domain_disk(domain, disk->id);

        if (!now || !now->alias) {
            g_ptr_array_remove_index(record->disks, i);
        } else {
            g_free(disk->device);
            disk->device = g_strdup(now->alias);
        }
    }
}

/*
 * What the hook has left comes first: a QEMU that somebody has got hold of
 * could carry anything.
 */
WeirRecord *weir_domain_record(const WeirDomain *domain, bool here,
                               WeirQmp *qmp, int timeout_ms, char **dir,
                               GError **error)
{
    g_autofree char *left = g_build_filename(
        WEIR_LIBVIRT_DIR, domain->uuid ? domain->uuid : "", NULL);
    g_autoptr(GError) local = NULL;
    WeirRecord *record;

    if (!weir_name_ok(domain->name, WEIR_VM_MAX_NAME) || !domain->uuid ||
        !g_uuid_string_is_valid(domain->uuid)) {
        weir_set_error(error, "found another name or UUID than a domain with "
                       "policies can have");
        return NULL;
    }
    record = here ? weir_record_load(left, domain->name, NULL) : NULL;
    if (dir) {
        *dir = record ? g_steal_pointer(&left) : NULL;
    }
    if (!record) {
        record = weir_carried_ask(qmp, domain->name, timeout_ms, &local);
    }
    if (record) {
        domainrecord_follow(record, domain);
    } else if (g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NOT_FOUND)) {
        weir_set_error(error, "domain '%s': found policies, but it was not "
                       "started with them", domain->name);
    } else {
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return record;
}

bool weir_domain_records_here(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = g_dir_open(WEIR_LIBVIRT_DIR, 0, &error);

    return dir ? g_dir_read_name(dir) != NULL
               : g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_ACCES);
}

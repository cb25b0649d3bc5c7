/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livedomain.h"

#include <string.h>

#include "domain.h"
#include "emulator.h"

#define LIVE_QMP_TIMEOUT_MS 10000

/*
 * The disks of @record as the domain has them now: one that has been taken out
 * is nobody's concern, and one that has been put in again may have another
 * device.
 */
static void live_follow(WeirRecord *record, const WeirDomain *domain)
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

static WeirRecord *live_record(const WeirDomain *domain, GError **error)
{
    g_autofree char *dir = g_build_filename(
        WEIR_LIBVIRT_DIR, domain->uuid ? domain->uuid : "", NULL);
    WeirRecord *record = weir_record_load(dir, domain->name, NULL);

    if (!record) {
        weir_set_error(error, "domain '%s': found policies, but it was not "
                       "started with them", domain->name);
        return NULL;
    }
    live_follow(record, domain);
    return record;
}

bool weir_live_statuses(virDomainPtr domain, GPtrArray *statuses,
                        GError **error)
{
    g_autofree char *xml = weir_hypervisor_xml(domain, true, error);
    g_autoptr(WeirDomain) parsed = xml ? weir_domain_parse(xml, strlen(xml),
                                                           error) : NULL;
    g_autoptr(WeirRecord) record = NULL;
    g_autoptr(WeirQmp) qmp = NULL;
    g_autoptr(WeirGraph) graph = NULL;

    if (!parsed || parsed->assigned->len == 0) {
        return parsed != NULL;
    }
    record = live_record(parsed, error);
    if (!record) {
        return false;
    }
    qmp = weir_hypervisor_qmp(domain);
    graph = weir_graph_query(qmp, LIVE_QMP_TIMEOUT_MS, error);
    if (!graph) {
        return false;
    }
    weir_compliance_record(record, graph, NULL, statuses);
    return true;
}

bool weir_live_complies(virDomainPtr domain, GError **error)
{
    g_autoptr(GPtrArray) statuses = weir_disk_statuses_new();

    if (!weir_live_statuses(domain, statuses, error)) {
        return false;
    }
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        if (status->state == WEIR_NON_COMPLIANT) {
            weir_set_error(error, "domain '%s': disk '%s' does not comply: %s",
                           status->vm, status->disk, status->reason);
            return false;
        }
    }
    return true;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livedomain.h"

#include <string.h>

#include "domain.h"
#include "emulator.h"
#include "insert.h"

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

/* A domain that runs; without @record it has no policies. */
typedef struct Live {
    WeirRecord *record;
    WeirQmp *qmp;
    WeirGraph *graph;
} Live;

static void live_clear(Live *live)
{
    weir_record_free(live->record);
    weir_qmp_free(live->qmp);
    weir_graph_free(live->graph);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Live, live_clear)

static bool live_read(Live *live, virDomainPtr domain, GError **error)
{
    g_autofree char *xml = weir_hypervisor_xml(domain, true, error);
    g_autoptr(WeirDomain) parsed = xml ? weir_domain_parse(xml, strlen(xml),
                                                           error) : NULL;

    if (!parsed || parsed->assigned->len == 0) {
        return parsed != NULL;
    }
    live->record = live_record(parsed, error);
    if (!live->record) {
        return false;
    }
    live->qmp = weir_hypervisor_qmp(domain);
    live->graph = weir_graph_query(live->qmp, LIVE_QMP_TIMEOUT_MS, error);
    return live->graph != NULL;
}

bool weir_live_domain_statuses(virDomainPtr domain, GPtrArray *statuses,
                        GError **error)
{
    g_auto(Live) live = { 0 };

    if (!live_read(&live, domain, error)) {
        return false;
    }
    if (live.record) {
        weir_compliance_record(live.record, live.graph, NULL, NULL, statuses);
    }
    return true;
}

bool weir_live_domain_reapply(virDomainPtr domain, WeirDaemon *daemon,
                       guint *inserted, guint *deleted, GError **error)
{
    g_auto(Live) live = { 0 };
    bool ok = true;

    if (!live_read(&live, domain, error)) {
        return false;
    }
    *inserted = 0;
    *deleted = live.graph ? weir_insert_clean(live.qmp, live.graph) : 0;
    for (guint i = 0; ok && live.record && i < live.record->disks->len; i++) {
        ok = weir_insert_missing(live.qmp, live.graph,
                                 g_ptr_array_index(live.record->disks, i),
                                 weir_daemon_schema(daemon), inserted, error);
    }
    if (!ok) {
        g_prefix_error(error, "domain '%s': ", virDomainGetName(domain));
    }
    return ok;
}

bool weir_live_domain_complies(virDomainPtr domain, GError **error)
{
    g_autoptr(GPtrArray) statuses = weir_disk_statuses_new();

    if (!weir_live_domain_statuses(domain, statuses, error)) {
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

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livedomain.h"

#include <string.h>

#include "domainrecord.h"
#include "insert.h"

#define LIVE_QMP_TIMEOUT_MS 10000

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
    live->qmp = weir_hypervisor_qmp(domain);
    live->record = weir_domain_record(
        parsed, weir_hypervisor_is_local(virDomainGetConnect(domain)),
        live->qmp, LIVE_QMP_TIMEOUT_MS, NULL, error);
    if (!live->record) {
        return false;
    }
    live->graph = weir_graph_query(live->qmp, LIVE_QMP_TIMEOUT_MS, error);
    return live->graph != NULL;
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
    g_auto(Live) live = { 0 };

    if (!live_read(&live, domain, error)) {
        return false;
    }
    if (live.record) {
        weir_compliance_record(live.record, live.graph, NULL, NULL, statuses);
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

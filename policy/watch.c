/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch.h"

#include "history.h"

void weir_watch_free(WeirWatch *watch)
{
    if (watch) {
        g_ptr_array_unref(watch->targets);
        g_ptr_array_unref(watch->statuses);
        g_array_unref(watch->traffics);
        g_free(watch);
    }
}

static void watch_add_traffics(WeirWatch *watch, const WeirTarget *target)
{
    while (watch->traffics->len < watch->statuses->len) {
        const WeirDiskStatus *status = g_ptr_array_index(
            watch->statuses, watch->traffics->len);
        WeirTraffic traffic = weir_traffic_read(status, target->blockstats);

        g_array_append_val(watch->traffics, traffic);
    }
}

static void watch_add_record(WeirWatch *watch, const WeirTarget *target,
                             gint64 now)
{
    g_autoptr(WeirHistory) history = weir_history_load(target->dir,
                                                       target->record, now);
    guint first = watch->statuses->len;

    weir_compliance_record(target->record, target->graph, target->reason,
                           history, watch->statuses);
    for (guint i = first; i < watch->statuses->len; i++) {
        weir_history_note(history, g_ptr_array_index(watch->statuses, i));
    }
    weir_history_save(history);
}

WeirWatch *weir_watch(const WeirTargetQuery *query, GError **error)
{
    GPtrArray *targets = weir_targets_ask(query, error);
    gint64 now = g_get_real_time() / G_USEC_PER_SEC;
    WeirWatch *watch;

    if (!targets) {
        return NULL;
    }
    watch = g_new0(WeirWatch, 1);
    watch->targets = targets;
    watch->statuses = weir_disk_statuses_new();
    watch->traffics = g_array_new(FALSE, FALSE, sizeof(WeirTraffic));
    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);

        if (target->record) {
            watch_add_record(watch, target, now);
        } else {
            weir_compliance_graph(target->name, target->graph,
                                  watch->statuses);
        }
        watch_add_traffics(watch, target);
    }
    return watch;
}

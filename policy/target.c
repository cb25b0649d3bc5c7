/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target.h"

#include <string.h>

#define WEIR_TARGET_TIMEOUT_MS 5000

static void target_free(WeirTarget *target)
{
    weir_record_free(target->record);
    weir_graph_free(target->graph);
    g_free(target->name);
    g_free(target->reason);
    g_free(target);
}

static WeirGraph *target_query(const char *path, GError **error)
{
    g_autoptr(WeirQmp) qmp = weir_qmp_connect(path, error);

    if (!qmp || !weir_qmp_negotiate(qmp, WEIR_TARGET_TIMEOUT_MS, error)) {
        return NULL;
    }
    return weir_graph_query(qmp, WEIR_TARGET_TIMEOUT_MS, error);
}

static WeirTarget *target_new(WeirRecord *record)
{
    WeirTarget *target = g_new0(WeirTarget, 1);
    g_autoptr(GError) error = NULL;

    target->record = record;
    target->name = g_strdup(record->name);
    if (!weir_record_alive(record)) {
        target->reason = g_strdup("QEMU has ended");
        return target;
    }
    target->graph = target_query(record->qmp, &error);
    if (!target->graph) {
        target->reason = g_strdup(error->message);
    }
    return target;
}

/* The recorded VM whose socket that is, or NULL. */
static WeirRecord *target_find_socket(const char *dir, const char *qmp)
{
    g_autoptr(GPtrArray) records = weir_record_list(dir);
    g_autofree char *wanted = g_canonicalize_filename(qmp, NULL);

    for (guint i = 0; i < records->len; i++) {
        const WeirRecord *record = g_ptr_array_index(records, i);
        g_autofree char *path = g_canonicalize_filename(record->qmp, NULL);

        if (strcmp(path, wanted) == 0 && weir_record_alive(record)) {
            return g_ptr_array_steal_index(records, i);
        }
    }
    return NULL;
}

static WeirTarget *target_from_socket(const char *dir, const char *qmp,
                                      GError **error)
{
    g_autofree char *own_dir = g_path_get_dirname(qmp);
    WeirRecord *record = target_find_socket(dir, qmp);
    WeirTarget *target;
    WeirGraph *graph;

    if (!record) {
        record = target_find_socket(own_dir, qmp);
    }
    if (record) {
        return target_new(record);
    }
    graph = target_query(qmp, error);
    if (!graph) {
        return NULL;
    }
    target = g_new0(WeirTarget, 1);
    target->name = g_strdup("-");
    target->graph = graph;
    return target;
}

static void target_add_all(const char *dir, GPtrArray *targets)
{
    g_autoptr(GPtrArray) records = weir_record_list(dir);

    while (records->len > 0) {
        WeirRecord *record = g_ptr_array_steal_index(records, 0);

        g_ptr_array_add(targets, target_new(record));
    }
}

GPtrArray *weir_targets_ask(const char *dir, const char *vm, const char *qmp,
                            GError **error)
{
    g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func(
        (GDestroyNotify)target_free);
    WeirTarget *target;
    WeirRecord *record;

    if (qmp) {
        target = target_from_socket(dir, qmp, error);
        if (!target) {
            return NULL;
        }
        g_ptr_array_add(targets, target);
    } else if (vm) {
        if (!weir_name_ok(vm, 64)) {
            weir_set_error(error, "'%s' cannot be the name of a VM", vm);
            return NULL;
        }
        record = weir_record_load(dir, vm, error);
        if (!record) {
            return NULL;
        }
        g_ptr_array_add(targets, target_new(record));
    } else {
        target_add_all(dir, targets);
    }
    return g_steal_pointer(&targets);
}

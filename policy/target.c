/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target.h"

#include <string.h>

#include "storagerecord.h"

void weir_target_query_clear(WeirTargetQuery *query)
{
    g_free(query->dir);
    g_free(query->vm);
    g_free(query->qmp);
}

void weir_target_free(WeirTarget *target)
{
    if (target) {
        weir_record_free(target->record);
        weir_graph_free(target->graph);
        g_clear_pointer(&target->blockstats, json_node_unref);
        g_clear_pointer(&target->assigned, g_ptr_array_unref);
        g_clear_pointer(&target->next, g_ptr_array_unref);
        g_free(target->uuid);
        g_free(target->dir);
        g_free(target->host);
        g_free(target->name);
        g_free(target->reason);
        g_free(target);
    }
}

bool weir_target_ask_traffic(WeirTarget *target, WeirQmp *qmp, int timeout_ms,
                             GError **error)
{
    g_autoptr(GError) local = NULL;

    target->blockstats = weir_qmp_execute(qmp, "query-blockstats", NULL,
                                          timeout_ms, &local);
    if (!target->blockstats &&
        !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NO_COMMAND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    return true;
}

static bool target_ask_socket(WeirTarget *target, const char *path,
                              const WeirTargetQuery *query, GError **error)
{
    gint64 deadline_us = weir_qmp_deadline(query->timeout_ms);
    g_autoptr(WeirQmp) qmp = weir_qmp_connect(path, error);
    g_autoptr(WeirGraph) graph = NULL;

    if (!qmp || !weir_qmp_negotiate(qmp, weir_qmp_left(deadline_us), error) ||
        !(graph = weir_graph_query(qmp, weir_qmp_left(deadline_us), error)) ||
        (query->traffic &&
         !weir_target_ask_traffic(target, qmp, weir_qmp_left(deadline_us),
                                  error))) {
        return false;
    }
    target->graph = g_steal_pointer(&graph);
    return true;
}

static char *target_why_not_alive(const WeirRecord *record)
{
    if (!record->is_storage) {
        return g_strdup("QEMU has ended");
    }
    return g_strdup(record->daemon.reason ? record->daemon.reason
                    : "its storage daemon does not run");
}

/* Runs in a thread of its own. */
static void target_ask(gpointer data, gpointer opaque)
{
    WeirTarget *target = data;
    const WeirTargetQuery *query = opaque;
    g_autoptr(GError) error = NULL;

    if (!weir_record_alive(target->record)) {
        target->reason = target_why_not_alive(target->record);
    } else if (!target_ask_socket(target, target->record->qmp, query,
                                  &error)) {
        target->reason = g_strdup(error->message);
    }
}

/* Each in a thread, since one that hangs keeps it until the timeout. */
static bool target_ask_all(GPtrArray *targets, const WeirTargetQuery *query,
                           GError **error)
{
    GThreadPool *pool = g_thread_pool_new(target_ask, (gpointer)query, -1,
                                          FALSE, error);

    if (!pool) {
        return false;
    }
    for (guint i = 0; i < targets->len; i++) {
        g_thread_pool_push(pool, g_ptr_array_index(targets, i), NULL);
    }
    g_thread_pool_free(pool, FALSE, TRUE);
    return true;
}

static void target_add(GPtrArray *targets, const char *dir,
                       WeirRecord *record)
{
    WeirTarget *target = g_new0(WeirTarget, 1);

    target->record = record;
    target->dir = g_strdup(dir);
    target->name = g_strdup(record->name);
    g_ptr_array_add(targets, target);
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

/* The one with the socket of @query; asked already if it is not recorded. */
static bool target_add_socket(GPtrArray *targets,
                              const WeirTargetQuery *query, GError **error)
{
    g_autofree char *own_dir = g_path_get_dirname(query->qmp);
    const char *dir = query->dir;
    WeirRecord *record = target_find_socket(dir, query->qmp);
    WeirTarget *target;

    if (!record) {
        dir = own_dir;
        record = target_find_socket(dir, query->qmp);
    }
    if (record) {
        target_add(targets, dir, record);
        return target_ask_all(targets, query, error);
    }
    target = g_new0(WeirTarget, 1);
    target->name = g_strdup("-");
    g_ptr_array_add(targets, target);
    return target_ask_socket(target, query->qmp, query, error);
}

static bool target_add_records(GPtrArray *targets,
                               const WeirTargetQuery *query, GError **error)
{
    g_autoptr(GPtrArray) records = NULL;
    WeirRecord *record;

    if (query->vm) {
        if (!weir_name_ok(query->vm, WEIR_VM_MAX_NAME)) {
            weir_set_error(error, "'%s' cannot be the name of a VM",
                           query->vm);
            return false;
        }
        record = weir_record_load(query->dir, query->vm, error);
        if (!record) {
            return false;
        }
        target_add(targets, query->dir, record);
        record = weir_record_load_storage(query->dir, query->vm, NULL);
        if (record) {
            target_add(targets, query->dir, record);
        }
        return true;
    }
    records = weir_record_list(query->dir);
    while (records->len > 0) {
        target_add(targets, query->dir,
                   g_ptr_array_steal_index(records, 0));
    }
    return true;
}

void weir_targets_add_storage(GPtrArray *targets, const char *dir,
                              const WeirTargetQuery *query)
{
    g_autoptr(GPtrArray) found = weir_targets_new();

    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *domain = g_ptr_array_index(targets, i);
        g_autofree char *own = domain->uuid
            ? g_build_filename(dir, domain->uuid, NULL) : NULL;
        WeirRecord *record = own ? weir_record_load_storage(own, domain->name,
                                                            NULL) : NULL;
        WeirTarget *target;

        if (record) {
            target_add(found, own, record);
            target = g_ptr_array_index(found, found->len - 1);
            target->host = g_strdup(domain->host);
        }
    }
    if (found->len > 0) {
        target_ask_all(found, query, NULL);
    }
    g_ptr_array_extend_and_steal(targets, g_steal_pointer(&found));
}

guint weir_targets_vms(const GPtrArray *targets)
{
    guint count = 0;

    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);

        count += !target->record || !target->record->is_storage;
    }
    return count;
}

GPtrArray *weir_targets_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)weir_target_free);
}

GPtrArray *weir_targets_ask(const WeirTargetQuery *query, GError **error)
{
    g_autoptr(GPtrArray) targets = weir_targets_new();

    if (query->qmp ? !target_add_socket(targets, query, error)
                   : !target_add_records(targets, query, error) ||
                     !target_ask_all(targets, query, error)) {
        return NULL;
    }
    return g_steal_pointer(&targets);
}

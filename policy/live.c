/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "live.h"

#include <signal.h>
#include <string.h>

#include "away.h"
#include "job.h"
#include "livestate.h"
#include "migration.h"
#include "storagelock.h"
#include "storagerecord.h"

#define LIVE_CONNECT_MS 5000
#define LIVE_COMMAND_MS 120000
/* a daemon that is being started; its secrets may take long */
#define LIVE_AWAY_US (90 * G_USEC_PER_SEC)
#define LIVE_AWAY_MS 100
#define LIVE_AWAY_TRIES 3

JsonNode *weir_live_execute(WeirLive *live, const char *command,
                            JsonObject *arguments, GError **error)
{
    return weir_qmp_execute(live->qmp, command, arguments, LIVE_COMMAND_MS,
                            error);
}

bool weir_live_is_alive(const WeirLive *live)
{
    return live->vm.is_alive ? live->vm.is_alive(live->vm.opaque)
                             : weir_record_alive(live->record);
}

bool weir_live_do(WeirLive *live, const char *command,
                  JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) answer = weir_live_execute(live, command, arguments,
                                                   error);

    return answer != NULL;
}

/* Whether somebody wants this process to end. */
bool weir_live_is_interrupted(const WeirLive *live)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    sigset_t pending;

    sigpending(&pending);
    for (guint i = 0; !live->undoing && i < G_N_ELEMENTS(numbers); i++) {
        if (sigismember(&pending, numbers[i]) == 1) {
            return true;
        }
    }
    return false;
}

/* Whether the other side can still be told anything. */
bool weir_live_is_connected(const GError *error)
{
    return !g_error_matches(error, WEIR_ERROR, WEIR_ERROR_TIMEOUT) &&
           !g_error_matches(error, WEIR_ERROR, WEIR_ERROR_CLOSED);
}

/* --- jobs --- */

static bool live_asks_to_end(void *opaque)
{
    return weir_live_is_interrupted(opaque);
}

/* Wait for the end of a job that detaches a filter, and dismiss it. */
bool weir_live_wait_for_job(WeirLive *live, const char *id, GError **error)
{
    const WeirJobWatch watch = {
        .is_interrupted = live_asks_to_end, .progress = live->report.progress,
        .trouble = live->report.trouble, .opaque = live,
    };

    return weir_job_wait(live->qmp, id, id + strlen(WEIR_LIVE_JOB), &watch,
                         error);
}

/* Whether the record has a filter of that node on the disk. */
static bool live_knows(const WeirRecordDisk *disk, const char *node_name)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (strcmp(wanted->node_name, node_name) == 0) {
            return true;
        }
    }
    return false;
}

/* A process that was killed has left its jobs, which go on without it. */
static bool live_end_old_jobs(WeirLive *live, GError **error)
{
    g_autoptr(JsonNode) jobs = weir_live_execute(live, "query-jobs", NULL,
                                                 error);
    JsonArray *array = weir_json_as_array(jobs);

    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *job = weir_json_object_at(array, i);
        const char *id = weir_json_string(job, "id");
        const char *status = weir_json_string(job, "status");
        g_autoptr(GError) local = NULL;

        if (!id || !g_str_has_prefix(id, WEIR_LIVE_JOB) ||
            (g_strcmp0(status, "concluded") != 0 &&
             !live_knows(live->disk, id + strlen(WEIR_LIVE_JOB)) &&
             !live_knows(live->disk->change, id + strlen(WEIR_LIVE_JOB)))) {
            continue;
        }
        /* that it failed is seen by the filter being there */
        if (!weir_live_wait_for_job(live, id, &local) &&
            !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_FAILED)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return false;
        }
    }
    return jobs != NULL;
}

/* --- open --- */

/* Whether the process has ended, or is about to. */
static bool live_is_gone(const WeirRecord *record)
{
    gint64 end_us = g_get_monotonic_time() + WEIR_LIVE_PATIENCE_US;

    while (weir_record_alive(record) && g_get_monotonic_time() < end_us) {
        g_usleep(WEIR_LIVE_POLL_US);
    }
    return !weir_record_alive(record);
}

/* Whether somebody else has the record, and is about to start a daemon. */
static bool live_asks_to_wait(const WeirLive *live, const char *vm,
                              const GError *error)
{
    g_autoptr(WeirRecord) record = weir_record_load_storage(live->dir, vm,
                                                            NULL);

    return g_error_matches(error, WEIR_ERROR, WEIR_ERROR_CLOSED) && record &&
           !weir_record_alive(record) && !weir_live_is_interrupted(live);
}

/* What the error is about, in front of it. */
void weir_live_explain(const WeirLive *live, GError **error)
{
    if (!g_error_matches(*error, WEIR_ERROR, WEIR_ERROR_POSITION)) {
        g_prefix_error(error, "VM '%s', disk %s: ", live->record->name,
                       live->disk->id);
    }
}

/* Wait for the record of a daemon that is away, as long as one is coming. */
static bool live_hold_away(WeirLive *live, const char *vm, GError **error)
{
    gint64 end_us = g_get_monotonic_time() + LIVE_AWAY_US;
    g_autoptr(GError) local = NULL;
    bool told = false;

    for (;;) {
        g_clear_error(&local);
        live->lock = weir_away_hold(live->dir, vm, LIVE_AWAY_MS,
                                    &live->record, &local);
        if (live->lock >= 0 || !live_asks_to_wait(live, vm, local) ||
            g_get_monotonic_time() >= end_us) {
            break;
        }
        if (!told && live->report.trouble) {
            live->report.trouble("its storage daemon is being started");
            told = true;
        }
    }
    if (live->lock < 0) {
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return live->lock >= 0;
}

static bool live_connect_away(WeirLive *live, const char *vm,
                              const char *disk, GError **error)
{
    if (!live_hold_away(live, vm, error)) {
        g_prefix_error(error, "VM '%s': ", vm);
        return false;
    }
    live->disk = weir_record_disk(live->record, disk, error);
    return live->disk != NULL;
}

static bool live_connect_qmp(WeirLive *live, const WeirRecord *record,
                             const char *disk, GError **error)
{
    const char *vm = record->name;

    if (!weir_record_alive(record)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED,
                    "VM '%s' does not run: QEMU has ended", vm);
        return false;
    }
    live->qmp = weir_qmp_connect(record->qmp, error);
    if (!live->qmp ||
        !weir_qmp_negotiate(live->qmp, LIVE_CONNECT_MS, error) ||
        (!record->is_storage &&
         !weir_migration_check(live->qmp, LIVE_COMMAND_MS, error))) {
        g_prefix_error(error, "VM '%s': ", vm);
        return false;
    }
    /* once more, as nobody else can write to it now */
    live->record = weir_record_load_disk(live->dir, vm, disk, error);
    live->disk = live->record ? weir_record_disk(live->record, disk, error)
                              : NULL;
    return live->disk != NULL;
}

/* A storage daemon may come, or go, at each moment. */
static bool live_connect(WeirLive *live, const char *vm, const char *disk,
                         GError **error)
{
    g_autoptr(GError) local = NULL;

    for (int i = 0; i < LIVE_AWAY_TRIES; i++) {
        g_autoptr(WeirRecord) record = weir_record_load_disk(live->dir, vm,
                                                             disk, error);

        g_clear_error(&local);
        if (!record) {
            return false;
        }
        if (live_connect_qmp(live, record, disk, &local)) {
            return true;
        }
        if (!record->is_storage || !live_is_gone(record)) {
            break;
        }
        g_clear_error(&local);
        g_clear_pointer(&live->qmp, weir_qmp_free);
        g_clear_pointer(&live->record, weir_record_free);
        if (live_connect_away(live, vm, disk, &local)) {
            return true;
        }
        if (!g_error_matches(local, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
            break;
        }
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

static WeirLive *live_new(const char *dir, const WeirLiveReport *report)
{
    WeirLive *live = g_new0(WeirLive, 1);

    live->dir = g_strdup(dir);
    live->lock = -1;
    live->vm.uid = live->vm.gid = -1;
    live->report = *report;
    live->created = g_array_new(FALSE, TRUE, sizeof(bool));
    return live;
}

static bool live_look(WeirLive *live, GError **error)
{
    if (!live->qmp) {
        live->graph = weir_away_graph(live->record);
    } else if (live_end_old_jobs(live, error)) {
        live->graph = weir_graph_query(live->qmp, LIVE_COMMAND_MS, error);
    }
    if (!live->graph) {
        weir_live_explain(live, error);
    }
    return live->graph != NULL;
}

WeirLive *weir_live_open(const char *dir, const char *vm, const char *disk,
                         const WeirLiveReport *report, GError **error)
{
    g_autoptr(WeirLive) live = live_new(dir, report);

    if (!weir_name_ok(vm, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "'%s' cannot be the name of a VM", vm);
        return NULL;
    }
    if (!live_connect(live, vm, disk, error) || !live_look(live, error)) {
        return NULL;
    }
    return g_steal_pointer(&live);
}

WeirLive *weir_live_open_vm(const char *dir, WeirLiveVm *vm, const char *disk,
                            const WeirLiveReport *report, GError **error)
{
    g_autoptr(WeirLive) live = live_new(dir, report);

    live->record = g_steal_pointer(&vm->record);
    live->qmp = g_steal_pointer(&vm->qmp);
    live->vm = *vm;
    vm->top_name = NULL;
    live->disk = weir_record_disk(live->record, disk, error);
    if (!live->disk) {
        return NULL;
    }
    if (!weir_migration_check(live->qmp, LIVE_COMMAND_MS, error)) {
        weir_live_explain(live, error);
        return NULL;
    }
    return live_look(live, error) ? g_steal_pointer(&live) : NULL;
}

void weir_live_free(WeirLive *live)
{
    if (live) {
        weir_storage_unlock(live->lock);
        weir_qmp_free(live->qmp);
        weir_record_free(live->record);
        weir_graph_free(live->graph);
        weir_plan_free(live->plan);
        weir_change_free(live->change);
        weir_schema_free(live->schema);
        g_array_unref(live->created);
        g_free(live->vm.top_name);
        weir_binding_free(live->bound);
        g_free(live->left);
        g_free(live->dir);
        g_free(live);
    }
}

const WeirRecord *weir_live_record(const WeirLive *live)
{
    return live->record;
}

const WeirRecordDisk *weir_live_disk(const WeirLive *live)
{
    return live->disk;
}

/* --- afterwards --- */

/* Whether a replication has not found out yet how its log is. */
static bool live_is_connecting(JsonObject *filter)
{
    return g_strcmp0(weir_json_string(filter, "status"),
                     "disconnected") == 0 &&
           g_strcmp0(weir_json_string(filter, "state"), "ok") == 0;
}

static void live_add_ail(GPtrArray *ails, JsonObject *filter)
{
    const char *state = weir_json_string(filter, "state");
    const char *reason = weir_json_string(filter, "reason");

    if (live_is_connecting(filter)) {
        state = "not connected to its log yet";
    } else if (!state || strcmp(state, "ok") == 0) {
        return;
    }
    g_ptr_array_add(ails, g_strdup_printf(
        "%s (node %s) is %s%s%s", weir_json_string(filter, "driver"),
        weir_json_string(filter, "node-name"), state, reason ? ": " : "",
        reason ? reason : ""));
}

GPtrArray *weir_live_ails(WeirLive *live)
{
    gint64 end_us = g_get_monotonic_time() + WEIR_LIVE_PATIENCE_US;
    GPtrArray *ails = g_ptr_array_new_with_free_func(g_free);
    bool again = live->qmp != NULL;

    if (!live->qmp) {
        g_ptr_array_add(ails, g_strdup(
            "its storage daemon is away: the next one, which is started now, "
            "opens the disk so"));
    }
    while (again) {
        g_autoptr(JsonNode) answer = weir_live_execute(live, "query-weir", NULL,
                                                       NULL);
        JsonArray *filters = weir_json_as_array(answer);

        again = false;
        g_ptr_array_set_size(ails, 0);
        for (guint i = 0; i < weir_json_length(filters); i++) {
            JsonObject *filter = weir_json_object_at(filters, i);
            const char *name = weir_json_string(filter, "node-name");

            if (name && live_knows(live->disk, name)) {
                live_add_ail(ails, filter);
                again = again || live_is_connecting(filter);
            }
        }
        again = again && g_get_monotonic_time() < end_us;
        if (again) {
            g_usleep(WEIR_LIVE_POLL_US);
        }
    }
    return ails;
}

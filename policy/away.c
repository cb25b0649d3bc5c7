/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "away.h"

#include <string.h>

#include "cachefile.h"
#include "rollback.h"
#include "storagelock.h"
#include "storagerecord.h"

/* --- the record --- */

/* Whether there is somebody to start a daemon, or a guest that waits. */
static bool away_has_vm(const char *dir, const WeirRecord *record)
{
    g_autoptr(WeirRecord) vm = weir_record_load(dir, record->name, NULL);

    return weir_record_storage_is_locked(record->sockets) ||
           (vm && weir_record_alive(vm));
}

static WeirRecord *away_load(const char *dir, const char *vm, GError **error)
{
    g_autoptr(WeirRecord) record = weir_record_load_storage(dir, vm, error);

    if (!record) {
        return NULL;
    }
    if (weir_record_alive(record)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED, "its storage daemon "
                    "runs again");
        return NULL;
    }
    if (!away_has_vm(dir, record)) {
        weir_set_error(error, "it does not run: its storage daemon has ended");
        return NULL;
    }
    /* it is not that of a daemon */
    record->pid = 0;
    record->start_time = -1;
    return g_steal_pointer(&record);
}

static bool away_roll_back(const char *dir, WeirRecord *record,
                           GError **error)
{
    g_autoptr(GPtrArray) told = g_ptr_array_new_with_free_func(g_free);

    return weir_rollback(record, told, error) &&
           (told->len == 0 || weir_record_save(record, dir, error));
}

int weir_away_hold(const char *dir, const char *vm, int timeout_ms,
                   WeirRecord **record, GError **error)
{
    int lock = weir_storage_lock(dir, vm, timeout_ms, error);

    *record = lock < 0 ? NULL : away_load(dir, vm, error);
    if (*record && !away_roll_back(dir, *record, error)) {
        g_clear_pointer(record, weir_record_free);
    }
    if (!*record) {
        weir_storage_unlock(lock);
        return -1;
    }
    return lock;
}

void weir_away_set_secrets(WeirRecord *record, const GPtrArray *secrets)
{
    for (guint i = 0; i < secrets->len; i++) {
        const WeirSecret *secret = g_ptr_array_index(secrets, i);

        for (guint j = 0; j < record->secrets->len; j++) {
            WeirSecret **old = (WeirSecret **)&record->secrets->pdata[j];

            if (strcmp((*old)->id, secret->id) == 0) {
                weir_secret_free(*old);
                *old = weir_secret_copy(secret);
            }
        }
    }
}

/* --- what the next daemon would tell --- */

typedef struct Answers {
    JsonArray *nodes;       /* of x-debug-query-block-graph */
    JsonArray *edges;
    JsonArray *drivers;
    JsonArray *filters;
    gint64 id;              /* of the last node */
} Answers;

/* What a plugin's file is; the one of a policy, as far as that tells. */
static void away_add_plugin(JsonObject *filter, const WeirWanted *wanted)
{
    const char *plugin = weir_json_string(wanted->settings, "plugin");

    if (strcmp(wanted->driver, WEIR_PLUGIN_DRIVER) == 0 && plugin) {
        json_object_set_string_member(filter, "plugin", plugin);
        json_object_set_string_member(filter, "path", plugin);
    }
}

static void away_add_filter(Answers *answers, const WeirRecordDisk *disk,
                            const WeirWanted *wanted, const WeirWanted *below)
{
    JsonObject *filter = json_object_new();
    JsonObject *job;

    json_object_set_string_member(filter, "node-name", wanted->node_name);
    json_object_set_string_member(filter, "driver", wanted->driver);
    weir_json_set_string(filter, "place", wanted->place);
    weir_json_set_string(filter, "child", below->node_name);
    away_add_plugin(filter, wanted);
    if (weir_rollback_is_decrypted(disk, wanted)) {
        job = json_object_new();
        json_object_set_string_member(job, "mode", "decrypt");
        json_object_set_boolean_member(job, "finished", TRUE);
        json_object_set_object_member(filter, "job", job);
        json_object_set_int_member(filter, "data-offset", 0);
    }
    json_array_add_object_element(answers->filters, filter);
}

static void away_add_node(Answers *answers, const WeirWanted *wanted)
{
    JsonObject *node = json_object_new();
    JsonObject *driver = json_object_new();

    json_object_set_int_member(node, "id", ++answers->id);
    json_object_set_string_member(node, "type", "block-driver");
    json_object_set_string_member(node, "name", wanted->node_name);
    json_array_add_object_element(answers->nodes, node);
    json_object_set_string_member(driver, "node-name", wanted->node_name);
    json_object_set_string_member(driver, "drv", wanted->driver);
    json_array_add_object_element(answers->drivers, driver);
}

/* From the node before down to the last one. */
static void away_add_edge(Answers *answers)
{
    JsonObject *edge = json_object_new();

    json_object_set_int_member(edge, "parent", answers->id - 1);
    json_object_set_int_member(edge, "child", answers->id);
    json_object_set_string_member(edge, "name", "file");
    json_array_add_object_element(answers->edges, edge);
}

static void away_add_disk(Answers *answers, const WeirRecordDisk *disk)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        away_add_node(answers, wanted);
        if (i > 0) {
            away_add_edge(answers);
        }
        if (wanted->place && i + 1 < disk->wanted->len) {
            away_add_filter(answers, disk, wanted,
                            g_ptr_array_index(disk->wanted, i + 1));
        }
    }
}

WeirGraph *weir_away_graph(const WeirRecord *record)
{
    g_autoptr(JsonObject) graph = json_object_new();
    g_autoptr(JsonArray) drivers = json_array_new();
    g_autoptr(JsonArray) filters = json_array_new();
    Answers answers = {
        .nodes = json_array_new(), .edges = json_array_new(),
        .drivers = drivers, .filters = filters,
    };

    for (guint i = 0; i < record->disks->len; i++) {
        away_add_disk(&answers, g_ptr_array_index(record->disks, i));
    }
    json_object_set_array_member(graph, "nodes", answers.nodes);
    json_object_set_array_member(graph, "edges", answers.edges);
    return weir_graph_new(graph, drivers, filters);
}

/* --- whether it can be done --- */

/* Why what a cache has may be missed, or NULL. */
static const char *away_cache(const WeirStep *step)
{
    static const char *const texts[] = {
        [WEIR_CACHE_DIRTY] = "has blocks that were not written back",
        [WEIR_CACHE_DAMAGED] = "is damaged, and may have blocks that were not "
                               "written back",
        [WEIR_CACHE_UNREADABLE] = "cannot be read, and may have blocks that "
                                  "were not written back",
        [WEIR_CACHE_MISSING] = "is missing, and may have had blocks that were "
                               "not written back",
    };
    WeirCacheState state = step->memory ? weir_cache_file_state(step->memory)
                                        : WEIR_CACHE_UNREADABLE;

    if (state == WEIR_CACHE_MISSING && step->options &&
        !weir_cache_writes_back(weir_json_string(step->options, "mode"))) {
        return NULL;
    }
    return texts[state];
}

/* Nobody can tell what others keep, or where. */
static bool away_knows_all(const WeirRecordDisk *disk,
                           const WeirSchema *schema, GError **error)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (wanted->place && (!wanted->settings ||
                              !weir_schema_find(schema, wanted->driver))) {
            weir_set_error(error, "its storage daemon is away, and of %s (node "
                           "%s) is not known %s", wanted->driver,
                           wanted->node_name, wanted->settings
                           ? "what it is" : "what it was opened with");
            return false;
        }
    }
    return true;
}

/* Why a filter cannot go while nobody can ask it; NULL: it can. */
static char *away_stays(const WeirStep *step)
{
    const char *reason = step->class == WEIR_CLASS_CACHE ? away_cache(step)
                                                         : NULL;

    if (step->holds_data) {
        return g_strdup("it may hold what was not written to the disk");
    }
    return reason ? g_strdup_printf("the cache %s %s", step->memory
                                    ? step->memory : "file", reason) : NULL;
}

bool weir_away_check(const WeirRecordDisk *disk, const WeirChange *change,
                     const WeirSchema *schema, GError **error)
{
    if (!away_knows_all(disk, schema, error)) {
        return false;
    }
    for (guint i = 0; i < change->steps->len; i++) {
        const WeirStep *step = g_ptr_array_index(change->steps, i);
        g_autofree char *reason = step->kind == WEIR_STEP_DETACH
                                  ? away_stays(step) : NULL;

        if (reason) {
            weir_set_error(error, "its storage daemon is away, and %s (node "
                           "%s) cannot go without it: %s", step->filter,
                           step->node_name, reason);
            return false;
        }
    }
    return true;
}

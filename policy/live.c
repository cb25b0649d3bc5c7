/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "live.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "away.h"
#include "binding.h"
#include "cachefile.h"
#include "digest.h"
#include "job.h"
#include "livecheck.h"
#include "migration.h"
#include "sidecar.h"
#include "storagelock.h"
#include "storagerecord.h"

#define LIVE_CONNECT_MS 5000
#define LIVE_COMMAND_MS 120000
#define LIVE_POLL_US 50000
#define LIVE_PATIENCE_US (2 * G_USEC_PER_SEC)
/* a daemon that is being started; its secrets may take long */
#define LIVE_AWAY_US (90 * G_USEC_PER_SEC)
#define LIVE_AWAY_MS 100
#define LIVE_AWAY_TRIES 3
#define LIVE_LOCK_MS 10000
#define LIVE_JOB "weir-detach-"

struct WeirLive {
    WeirQmp *qmp;               /* NULL: the storage daemon is away */
    int lock;                   /* of its record then; else -1 */
    WeirRecord *record;
    WeirRecordDisk *disk;       /* of @record */
    WeirGraph *graph;
    char *dir;
    WeirLiveVm vm;              /* its members that are above are not here */
    WeirLiveReport report;
    WeirPlan *plan;             /* these since weir_live_plan() */
    GPtrArray *chain;           /* of @plan */
    const WeirPolicy *policy;
    char *const *policy_dirs;
    WeirSchema *schema;         /* of the plan, with the VM's plugins */
    WeirSight sight;
    WeirChange *change;
    GArray *created;            /* bool, one for each step: it made a file */
    WeirBinding *bound;         /* that the disk had before; NULL: none */
    bool undoing;
    char *left;                 /* what is wrong with a cache that has gone */
};

static JsonNode *live_execute(WeirLive *live, const char *command,
                              JsonObject *arguments, GError **error)
{
    return weir_qmp_execute(live->qmp, command, arguments, LIVE_COMMAND_MS,
                            error);
}

static bool live_is_alive(const WeirLive *live)
{
    return live->vm.is_alive ? live->vm.is_alive(live->vm.opaque)
                             : weir_record_alive(live->record);
}

static bool live_do(WeirLive *live, const char *command,
                    JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) answer = live_execute(live, command, arguments,
                                              error);

    return answer != NULL;
}

/* Whether somebody wants this process to end. */
static bool live_is_interrupted(const WeirLive *live)
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
static bool live_is_connected(const GError *error)
{
    return !g_error_matches(error, WEIR_ERROR, WEIR_ERROR_TIMEOUT) &&
           !g_error_matches(error, WEIR_ERROR, WEIR_ERROR_CLOSED);
}

/* --- jobs --- */

static bool live_asks_to_end(void *opaque)
{
    return live_is_interrupted(opaque);
}

/* Wait for the end of a job that detaches a filter, and dismiss it. */
static bool live_wait_for_job(WeirLive *live, const char *id, GError **error)
{
    const WeirJobWatch watch = {
        .is_interrupted = live_asks_to_end, .progress = live->report.progress,
        .trouble = live->report.trouble, .opaque = live,
    };

    return weir_job_wait(live->qmp, id, id + strlen(LIVE_JOB), &watch, error);
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
    g_autoptr(JsonNode) jobs = live_execute(live, "query-jobs", NULL, error);
    JsonArray *array = weir_json_as_array(jobs);

    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *job = weir_json_object_at(array, i);
        const char *id = weir_json_string(job, "id");
        const char *status = weir_json_string(job, "status");
        g_autoptr(GError) local = NULL;

        if (!id || !g_str_has_prefix(id, LIVE_JOB) ||
            (g_strcmp0(status, "concluded") != 0 &&
             !live_knows(live->disk, id + strlen(LIVE_JOB)) &&
             !live_knows(live->disk->change, id + strlen(LIVE_JOB)))) {
            continue;
        }
        /* that it failed is seen by the filter being there */
        if (!live_wait_for_job(live, id, &local) &&
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
    gint64 end_us = g_get_monotonic_time() + LIVE_PATIENCE_US;

    while (weir_record_alive(record) && g_get_monotonic_time() < end_us) {
        g_usleep(LIVE_POLL_US);
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
           !weir_record_alive(record) && !live_is_interrupted(live);
}

/* What the error is about, in front of it. */
static void live_explain(const WeirLive *live, GError **error)
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
        live_explain(live, error);
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
        live_explain(live, error);
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

/* --- plan --- */

/* What the VM's own QEMU says of a plugin: it may find another file. */
static JsonObject *live_describe(void *opaque, const char *plugin,
                                 GError **error)
{
    WeirLive *live = opaque;
    GPtrArray *nodes = weir_graph_nodes(live->graph);
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        if (node->plugin &&
            g_strcmp0(weir_json_string(node->filter, "path"), plugin) == 0) {
            json_object_unref(arguments);
            return json_object_ref(node->plugin);
        }
    }
    json_object_set_string_member(arguments, "plugin", plugin);
    answer = live_execute(live, "query-weir-plugin", arguments, error);
    if (answer && !weir_json_as_object(answer)) {
        weir_set_error(error, "QEMU tells nothing of it");
        return NULL;
    }
    return answer ? json_object_ref(weir_json_as_object(answer)) : NULL;
}

/* Filters of a policy that are nothing but that: they go with it. */
static bool live_is_plain(const WeirPresent *present)
{
    return !present->stays && (present->class == WEIR_CLASS_INSPECTION ||
                               weir_kind_plugin(present->kind));
}

/*
 * Of no interest to who wants no policy: filters that none has brought.  One
 * that has stayed below a backing file was brought by a policy.
 */
static void live_leave_others(const WeirLive *live, GPtrArray *present)
{
    for (guint i = present->len; i-- > 0;) {
        const WeirPresent *one = g_ptr_array_index(present, i);
        bool stayed = live->vm.is_alive && one->backing &&
                      live_is_plain(one);

        if (!one->settings && !stayed) {
            g_ptr_array_remove_index(present, i);
        }
    }
}

/* What it has is to be in the filter of the kind that comes in its place. */
static bool live_makes_room(const WeirPresent *present)
{
    return present->class == WEIR_CLASS_CACHE ||
           (present->keeps && !present->stays);
}

/*
 * Whoever runs the VM opens the image below a backing file again through the
 * filters there, when the overlay is committed.
 */
static void live_leave_backing(GPtrArray *present)
{
    for (guint i = present->len; i-- > 0;) {
        const WeirPresent *one = g_ptr_array_index(present, i);

        if (one->backing && !live_makes_room(one)) {
            g_ptr_array_remove_index(present, i);
        }
    }
}

static void live_name_top(const WeirLive *live, const GPtrArray *goals,
                          const WeirShape *shape)
{
    const char *name = live->vm.top_name;
    const WeirGoal *top = goals->len > 0 ? g_ptr_array_index(goals, 0) : NULL;

    if (name && top && top->node->place == WEIR_PLACE_STORAGE &&
        !g_hash_table_contains(shape->names, name)) {
        g_free(top->node->node_name);
        top->node->node_name = g_strdup(name);
    }
}

/* The nodes of a chain refer to each other by the names that they have now. */
static void live_relink(const GPtrArray *chain, const GPtrArray *goals)
{
    for (guint i = 1; i < chain->len; i++) {
        const WeirChainNode *below = g_ptr_array_index(chain, i - 1);
        const WeirChainNode *node = g_ptr_array_index(chain, i);
        const char *child = "file";

        for (guint j = 0; j < goals->len; j++) {
            const WeirGoal *goal = g_ptr_array_index(goals, j);

            child = goal->node == node ? goal->type->child : child;
        }
        json_object_set_string_member(node->options, "node-name",
                                      node->node_name);
        json_object_set_string_member(node->options, child,
                                      below->node_name);
    }
}

/* A daemon that is started again opens the chain from the record alone. */
static bool live_add_nodes(const WeirLive *live, const GPtrArray *goals,
                           GError **error)
{
    g_autoptr(WeirDisk) disk = weir_record_describe(live->disk, error);

    for (guint i = 0; disk && i < goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(goals, i);

        weir_plan_add_nodes(live->record->name, disk, goal->type->nodes,
                            goal->node);
    }
    return disk != NULL;
}

static bool live_plan_chain(WeirLive *live, const WeirSight *sight,
                            GError **error)
{
    g_autoptr(GPtrArray) no_filters = g_ptr_array_new();
    const WeirPolicy none = { .name = (char *)"", .filters = no_filters };
    g_autoptr(WeirDisk) disk = weir_record_describe(live->disk, error);

    weir_plan_free(live->plan);
    live->plan = weir_plan_new(live->record->name);
    weir_present_share(sight, live->plan);
    live->chain = disk ? (GPtrArray *)weir_plan_add(
        live->plan, disk, live->policy ? live->policy : &none, error) : NULL;
    return live->chain != NULL;
}

const WeirChange *weir_live_plan(WeirLive *live, const WeirPolicy *policy,
                                 char *const *dirs, const WeirSchema *schema,
                                 GError **error)
{
    const WeirSight *sight = &live->sight;
    g_auto(WeirShape) shape = { 0 };
    g_autoptr(GPtrArray) present = NULL;
    g_autoptr(GPtrArray) goals = NULL;

    live->policy = policy;
    live->policy_dirs = dirs;
    live->sight = (WeirSight) {
        .record = live->record, .disk = live->disk, .graph = live->graph,
    };
    g_clear_pointer(&live->change, weir_change_free);
    weir_schema_free(live->schema);
    /* while it is away, the next daemon is one of the programs here */
    live->schema = live->qmp ? weir_schema_view(schema, live_describe, live)
                             : NULL;
    live->sight.schema = live->schema ? live->schema : schema;
    if ((!policy || weir_live_check_start(live->record, live->disk,
                                           policy, error)) &&
        live_plan_chain(live, sight, error) &&
        weir_live_check_export(live->record, live->disk, live->chain, error)) {
        present = weir_present_new(sight, &shape, error);
    }
    if (present) {
        if (!policy) {
            live_leave_others(live, present);
        } else if (live->vm.is_alive) {
            live_leave_backing(present);
        }
        shape.keeps_policy = live->vm.keeps_policy;
        goals = weir_goals_new(sight, live->chain, &shape);
        live_name_top(live, goals, &shape);
        live->change = weir_change_new(present, goals, &shape, error);
    }
    if (live->change && !live->qmp &&
        !weir_away_check(live->disk, live->change, schema, error)) {
        g_clear_pointer(&live->change, weir_change_free);
    }
    if (!live->change) {
        live_explain(live, error);
        return NULL;
    }
    live_relink(live->chain, goals);
    return !live->record->is_storage || live_add_nodes(live, goals, error)
        ? live->change : NULL;
}

bool weir_live_complies(const WeirLive *live)
{
    const WeirRecordDisk *disk = live->disk;
    g_autofree char *digest = NULL;

    if (live->change->steps->len > 0 || disk->change) {
        return false;
    }
    if (!live->policy) {
        return !disk->policy;
    }
    digest = weir_policy_digest(live->policy);
    return g_strcmp0(disk->policy, live->policy->name) == 0 &&
           disk->policy_version == (gint64)live->policy->version &&
           g_strcmp0(disk->policy_digest, digest) == 0;
}

/* --- steps --- */

/* What a filter knows of the disk from earlier is old: see those two. */
static bool live_forget(const WeirStep *step, GError **error)
{
    if (!step->memory) {
        return true;
    }
    switch (step->class) {
    case WEIR_CLASS_REPLICATION:
        return weir_sidecar_forget(
            step->memory, weir_json_string(step->options, "disk-id"), error);
    case WEIR_CLASS_CACHE:
        return weir_cache_file_forget(step->memory, error);
    default:
        return true;
    }
}

static bool live_attach(WeirLive *live, const WeirStep *step, GError **error)
{
    JsonObject *arguments;

    if (!step->options) {
        weir_set_error(error, "the options that it had are not known");
        return false;
    }
    if (!live_forget(step, error)) {
        return false;
    }
    arguments = json_object_new();
    json_object_set_string_member(arguments, "node-name", step->below);
    json_object_set_object_member(arguments, "filter",
                                  json_object_ref(step->options));
    return live_do(live, "weir-attach", arguments, error);
}

/* Whether there is a node of that name. */
static bool live_find_node(WeirLive *live, const char *name, bool *found,
                           GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    JsonArray *nodes;

    json_object_set_boolean_member(arguments, "flat", TRUE);
    answer = live_execute(live, "query-named-block-nodes", arguments, error);
    nodes = weir_json_as_array(answer);
    *found = false;
    for (guint i = 0; i < weir_json_length(nodes); i++) {
        *found = *found ||
                 g_strcmp0(weir_json_string(weir_json_object_at(nodes, i),
                                            "node-name"), name) == 0;
    }
    return answer != NULL;
}

static bool live_detach_in_job(WeirLive *live, const WeirStep *step,
                               GError **error)
{
    g_autofree char *job = g_strconcat(LIVE_JOB, step->node_name, NULL);
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "node-name", step->node_name);
    json_object_set_string_member(arguments, "job-id", job);
    return live_do(live, "weir-detach", arguments, error) &&
           live_wait_for_job(live, job, error);
}

/*
 * The filter has gone if its node has: a client of another monitor may have
 * dismissed the job, and then nothing else tells how it ended.
 */
static bool live_detach_node(WeirLive *live, const WeirStep *step,
                             GError **error)
{
    g_autoptr(GError) local = NULL;
    bool ended = live_detach_in_job(live, step, &local);
    bool found;

    if (ended || live_is_connected(local)) {
        if (!live_find_node(live, step->node_name, &found, error)) {
            return false;
        }
        if (!found) {
            return true;
        }
    }
    if (ended) {
        weir_set_error(error, "its job has been dismissed, and it is still "
                       "there");
        return false;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

/*
 * The driver makes its file empty as it goes, but cannot do so on a device that
 * fails: then it would be believed later, and dirty blocks written back.
 */
static bool live_detach_cache(WeirLive *live, const WeirStep *step,
                              GError **error)
{
    if (!live_detach_node(live, step, error)) {
        return false;
    }
    if (!weir_cache_file_forget(step->memory, NULL)) {
        g_free(live->left);
        live->left = g_strdup_printf("the cache %s still has what it had: make "
                                     "it blank before any disk gets it again",
                                     step->memory);
    }
    return true;
}

/* A replication tells its sidecar by itself that the disk goes on without. */
static bool live_detach(WeirLive *live, const WeirStep *step, GError **error)
{
    return step->class == WEIR_CLASS_CACHE && step->memory
           ? live_detach_cache(live, step, error)
           : live_detach_node(live, step, error);
}

/* A node that another filter had brought goes with the last that uses it. */
static bool live_close(WeirLive *live, const WeirStep *step, GError **error)
{
    JsonObject *arguments;
    bool found;

    if (!live_find_node(live, step->node_name, &found, error)) {
        return false;
    }
    if (!found) {
        return true;
    }
    arguments = json_object_new();
    json_object_set_string_member(arguments, "node-name", step->node_name);
    return live_do(live, "blockdev-del", arguments, error);
}

static bool live_open(WeirLive *live, const WeirStep *step, GError **error)
{
    return live_do(live, "blockdev-add", json_object_ref(step->options),
                   error);
}

static bool live_reopen(WeirLive *live, JsonObject *options, GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonArray *nodes = json_array_new();

    json_array_add_object_element(nodes, json_object_ref(options));
    json_object_set_array_member(arguments, "options", nodes);
    return live_do(live, "blockdev-reopen", arguments, error);
}

/* QEMU may be another user. */
static bool live_create(const WeirLive *live, const WeirStep *step,
                        bool *created, GError **error)
{
    const char *path = step->location->path;

    if (!weir_location_create(step->location, created, error)) {
        return false;
    }
    if (*created && live->vm.uid >= 0 &&
        lchown(path, (uid_t)live->vm.uid, (gid_t)live->vm.gid) < 0) {
        weir_set_error(error, "cannot give %s to user %d: %s", path,
                       (int)live->vm.uid, g_strerror(errno));
        unlink(path);
        return false;
    }
    return true;
}

static bool live_step(WeirLive *live, const WeirStep *step, bool *created,
                      GError **error)
{
    if (live_is_interrupted(live)) {
        weir_set_error(error, "interrupted");
        return false;
    }
    /* another QEMU may answer in its place */
    if (live->vm.is_alive && !live_is_alive(live)) {
        weir_set_error(error, "it does not run");
        return false;
    }
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        return live_create(live, step, created, error);
    case WEIR_STEP_OPEN:
        return live_open(live, step, error);
    case WEIR_STEP_CLOSE:
        return live_close(live, step, error);
    case WEIR_STEP_ATTACH:
        return live_attach(live, step, error);
    case WEIR_STEP_DETACH:
        return live_detach(live, step, error);
    default:
        return live_reopen(live, step->options, error);
    }
}

/* Its log would refuse one that is only there, and protects nothing. */
static bool live_put_back(WeirLive *live, const WeirStep *step, GError **error)
{
    if (step->leaves) {
        weir_set_error(error, "%s", step->leaves);
        return false;
    }
    return live_attach(live, step, error);
}

static bool live_unstep(WeirLive *live, const WeirStep *step, bool created,
                        GError **error)
{
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        if (created) {
            unlink(step->location->path);
        }
        return true;
    case WEIR_STEP_OPEN:
        return live_close(live, step, error);
    case WEIR_STEP_CLOSE:
        /* what nobody had used need not come back */
        return !step->options || live_open(live, step, error);
    case WEIR_STEP_ATTACH:
        return live_detach(live, step, error);
    case WEIR_STEP_DETACH:
        return live_put_back(live, step, error);
    default:
        return live_reopen(live, step->before, error);
    }
}

static void live_tell_step(const WeirLive *live, const WeirStep *step)
{
    if (live->report.step) {
        live->report.step(step, live->undoing);
    }
}

/* Undo the first @count steps, the last first. */
static bool live_undo(WeirLive *live, guint count, GError **error)
{
    live->undoing = true;
    while (count-- > 0) {
        const WeirStep *step = g_ptr_array_index(live->change->steps, count);

        live_tell_step(live, step);
        if (!live_unstep(live, step, g_array_index(live->created, bool,
                                                   count), error)) {
            g_autofree char *text = weir_step_text(step);

            g_prefix_error(error, "cannot undo '%s': ", text);
            return false;
        }
    }
    return true;
}

/* A daemon that was started meanwhile has what the record told then. */
static bool live_save_storage(const WeirLive *live, GError **error)
{
    int lock = live->qmp ? weir_storage_lock(live->dir, live->record->name,
                                             LIVE_LOCK_MS, error) : live->lock;
    bool ok = lock >= 0;

    if (ok && live->qmp && !live_is_alive(live)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED,
                    "the storage daemon has ended");
        ok = false;
    }
    ok = ok && weir_record_save(live->record, live->dir, error);
    if (live->qmp) {
        weir_storage_unlock(lock);
    }
    return ok;
}

static bool live_save(const WeirLive *live, GError **error)
{
    if (live->record->is_storage) {
        return live_save_storage(live, error);
    }
    /* not back, after weir run has removed it */
    if (!live_is_alive(live)) {
        return true;
    }
    if (!weir_record_save(live->record, live->dir, error)) {
        return false;
    }
    if (live->vm.saved) {
        live->vm.saved(live->vm.opaque, live->record);
    }
    return true;
}

/* What is to be known when QEMU has ended in one of the first @count steps. */
static char *live_tell_end(const WeirLive *live, guint count)
{
    if (live->record->is_storage) {
        return g_strdup("the storage daemon has ended, and comes back with "
                        "what the disk had before, or with all of the new "
                        "filters if one of them has data by now: weir status "
                        "tells");
    }
    for (guint i = 0; i < count; i++) {
        const WeirStep *step = g_ptr_array_index(live->change->steps, i);

        if (step->class == WEIR_CLASS_CACHE && step->memory) {
            return g_strdup_printf("the VM has ended, and its disk may lack "
                                   "what the cache %s has: start it with both",
                                   step->memory);
        }
    }
    return g_strdup("the VM has ended");
}

/* A process that has just closed the connection may be about to end. */
static void live_wait_for_end(const WeirLive *live, const GError *failure)
{
    gint64 end_us = g_get_monotonic_time() + LIVE_PATIENCE_US;

    while (live->record->is_storage &&
           g_error_matches(failure, WEIR_ERROR, WEIR_ERROR_CLOSED) &&
           live_is_alive(live) && g_get_monotonic_time() < end_us) {
        g_usleep(LIVE_POLL_US);
    }
}

/* Step @count has failed with @failure: go back, and tell of both. */
static void live_fail(WeirLive *live, guint count, const GError *failure,
                      GError **error)
{
    const WeirStep *step = g_ptr_array_index(live->change->steps, count);
    g_autofree char *text = weir_step_text(step);
    g_autoptr(GError) local = NULL;
    WeirErrorCode code = WEIR_ERROR_HALFWAY;
    const char *before = "";
    g_autofree char *end = NULL;

    live_wait_for_end(live, failure);
    if (!live_is_alive(live)) {
        end = live_tell_end(live, count + 1);
        code = WEIR_ERROR_CLOSED;
    } else if (!live_is_connected(failure)) {
        end = g_strdup("how far it is, is not known");
    } else if (!live_undo(live, count, &local)) {
        end = g_strdup(local->message);
    } else {
        weir_record_end_change(live->disk, false);
        weir_binding_put_back(live->disk->file, live->bound);
        if (live_save(live, &local)) {
            code = WEIR_ERROR_FAILED;
            end = g_strdup("everything is as before");
        } else {
            before = "everything is as before, but ";
            end = g_strdup(local->message);
        }
    }
    g_set_error(error, WEIR_ERROR, (int)code, "%s: %s; %s%s%s", text,
                failure->message, before, end,
                code == WEIR_ERROR_HALFWAY ? "; weir reapply or weir detach "
                "goes on from here" : "");
}

/* @done: what the disk is bound to is that of its chain only. */
static bool live_note_binding(const WeirLive *live, bool done, GError **error)
{
    g_autoptr(WeirDisk) disk = weir_record_describe(live->disk, error);

    return disk && weir_binding_note(disk, live->chain, live->record->name,
                                     live->policy ? live->policy->name : "",
                                     !done, error);
}

/* All steps are done. */
static bool live_end(WeirLive *live, GError **error)
{
    g_autoptr(GError) unsaved = NULL;
    bool saved;

    if (!live->record->is_storage) {
        /* if that fails, it is bound to more than it needs */
        live_note_binding(live, true, NULL);
    }
    weir_record_end_change(live->disk, true);
    saved = live_save(live, &unsaved);
    if (live->record->is_storage && saved) {
        /* not before: the change may have been undone */
        live_note_binding(live, true, NULL);
    }
    if (g_error_matches(unsaved, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        g_autofree char *end = live_tell_end(live, live->change->steps->len);

        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED, "VM '%s', disk %s: "
                    "%s", live->record->name, live->disk->id, end);
        return false;
    }
    if (!saved) {
        g_prefix_error(&unsaved, "the record does not tell: ");
    } else if (!live->left) {
        return true;
    }
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_HALFWAY, "VM '%s', disk %s: "
                "all is done, but %s", live->record->name, live->disk->id,
                unsaved ? unsaved->message : live->left);
    return false;
}

/* Whether a filter of the disk keeps what it knows there. */
static bool live_has_memory(const WeirRecordDisk *disk, const WeirStep *step)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        g_autofree char *memory = weir_change_memory(step->class,
                                                     wanted->settings);

        if (wanted->place && g_strcmp0(memory, step->memory) == 0) {
            return true;
        }
    }
    return false;
}

/*
 * Of a disk out of process: what filters that come have from earlier is
 * forgotten before it is noted that they come.  If the daemon ends later, what
 * they have is of this disk.
 */
static bool live_forget_first(WeirLive *live, GError **error)
{
    const GPtrArray *steps = live->change->steps;

    for (guint i = 0; live->record->is_storage && i < steps->len; i++) {
        const WeirStep *step = g_ptr_array_index(steps, i);

        if (step->kind != WEIR_STEP_ATTACH || !step->memory ||
            live_has_memory(live->disk, step) ||
            live_has_memory(live->disk->change, step)) {
            continue;
        }
        if (!live_forget(step, error)) {
            g_autofree char *text = weir_step_text(step);

            g_prefix_error(error, "%s: ", text);
            return false;
        }
    }
    return true;
}

/* --- without a daemon --- */

/* What a filter that comes or goes knows will not be true of the disk. */
static bool live_step_away(WeirLive *live, const WeirStep *step, bool *created,
                           GError **error)
{
    if (live_is_interrupted(live)) {
        weir_set_error(error, "interrupted");
        return false;
    }
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        return live_create(live, step, created, error);
    case WEIR_STEP_ATTACH:
    case WEIR_STEP_DETACH:
        return live_forget(step, error);
    default:
        return true;            /* the next daemon opens it so */
    }
}

/* Files that were made for nothing, of the first @count steps. */
static void live_remove_created(const WeirLive *live, guint count)
{
    for (guint i = 0; i < count; i++) {
        const WeirStep *step = g_ptr_array_index(live->change->steps, i);

        if (g_array_index(live->created, bool, i)) {
            unlink(step->location->path);
        }
    }
}

/*
 * Forgetting comes first: if this process is killed, filters know less than
 * they could.  Then the record is replaced at once.
 */
static bool live_run_away(WeirLive *live, GError **error)
{
    const GPtrArray *steps = live->change->steps;
    guint count = 0;
    bool ok = true;

    while (ok && count < steps->len) {
        const WeirStep *step = g_ptr_array_index(steps, count);

        if (step->kind != WEIR_STEP_OPEN && step->kind != WEIR_STEP_CLOSE) {
            live_tell_step(live, step);
        }
        ok = live_step_away(live, step, &g_array_index(live->created, bool,
                                                       count), error);
        count++;
    }
    if (ok) {
        weir_record_begin_change(live->disk, live->policy, live->policy_dirs,
                                 live->chain);
        weir_record_end_change(live->disk, true);
        weir_away_set_secrets(live->record,
                              weir_plan_storage_secrets(live->plan));
        ok = live_save(live, error);
    }
    if (!ok) {
        live_remove_created(live, count);
        weir_binding_put_back(live->disk->file, live->bound);
        live_explain(live, error);
        return false;
    }
    /* if that fails, it is bound to more than it needs */
    live_note_binding(live, true, NULL);
    return true;
}

bool weir_live_run(WeirLive *live, GError **error)
{
    const GPtrArray *steps = live->change->steps;

    if (!weir_present_mend(&live->sight, error)) {
        live_explain(live, error);
        return false;
    }
    weir_binding_free(live->bound);
    live->bound = weir_binding_find(live->disk->file);
    if (!live_note_binding(live, false, error)) {
        live_explain(live, error);
        return false;
    }
    g_array_set_size(live->created, steps->len);
    if (!live->qmp) {
        return live_run_away(live, error);
    }
    if (!live_forget_first(live, error)) {
        weir_binding_put_back(live->disk->file, live->bound);
        live_explain(live, error);
        return false;
    }
    weir_record_begin_change(live->disk, live->policy, live->policy_dirs,
                             live->chain);
    if (!live_save(live, error)) {
        live_explain(live, error);
        return false;
    }
    for (guint i = 0; i < steps->len; i++) {
        const WeirStep *step = g_ptr_array_index(steps, i);
        g_autoptr(GError) failure = NULL;

        live_tell_step(live, step);
        if (!live_step(live, step, &g_array_index(live->created, bool, i),
                       &failure)) {
            live_fail(live, i, failure, error);
            live_explain(live, error);
            return false;
        }
    }
    return live_end(live, error);
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
    gint64 end_us = g_get_monotonic_time() + LIVE_PATIENCE_US;
    GPtrArray *ails = g_ptr_array_new_with_free_func(g_free);
    bool again = live->qmp != NULL;

    if (!live->qmp) {
        g_ptr_array_add(ails, g_strdup(
            "its storage daemon is away: the next one, which is started now, "
            "opens the disk so"));
    }
    while (again) {
        g_autoptr(JsonNode) answer = live_execute(live, "query-weir", NULL,
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
            g_usleep(LIVE_POLL_US);
        }
    }
    return ails;
}

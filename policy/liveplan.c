/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livestate.h"

#include <string.h>

#include "away.h"
#include "digest.h"
#include "livecheck.h"
#include "storagerecord.h"

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
    answer = weir_live_execute(live, "query-weir-plugin", arguments, error);
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
        weir_live_explain(live, error);
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

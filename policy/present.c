/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "present.h"

#include <string.h>

#include "compliance.h"
#include "pluginvalue.h"
#include "sidecar.h"

typedef struct Look {
    const WeirSight *sight;
    const WeirDisk *disk;
    WeirPlan *plan;         /* to put filters back with */
    WeirShape *shape;
    GHashTable *seen;       /* WeirGraphNode */
    GPtrArray *present;
} Look;

/* The recorded filter of that node, or NULL. */
static const WeirWanted *present_recorded(const WeirRecordDisk *disk,
                                          const char *node_name)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (strcmp(wanted->node_name, node_name) == 0) {
            return wanted;
        }
    }
    return NULL;
}

/* The recorded filter of that kind: for a node that others have attached. */
static const WeirWanted *present_alike(const WeirRecordDisk *disk,
                                       const char *kind, WeirPlace place)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        g_autofree char *wanted_kind = weir_wanted_kind(wanted);

        if (strcmp(wanted_kind, kind) == 0 &&
            g_strcmp0(wanted->place, weir_place_name(place)) == 0) {
            return wanted;
        }
    }
    return NULL;
}

/* --- nodes that are shared --- */

/* The name of the node in an option as QEMU got it. */
static const char *present_node_name(JsonObject *options, const char *option)
{
    const char *name = weir_json_string(options, option);

    return name ? name : weir_json_string(weir_json_object(options, option),
                                          "node-name");
}

static void present_share_disk(const WeirSight *sight,
                               const WeirRecordDisk *disk, WeirPlan *plan)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        const WeirFilterType *type = weir_schema_find(sight->schema,
                                                      wanted->driver);

        if (!type || !weir_graph_node(sight->graph, wanted->node_name)) {
            continue;
        }
        for (guint j = 0; j < type->nodes->len; j++) {
            const char *option = g_ptr_array_index(type->nodes, j);
            const char *place = weir_json_string(wanted->settings, option);
            const char *name = present_node_name(wanted->options, option);

            if (place && name) {
                weir_plan_share(plan, wanted->driver, option, place, name);
            }
        }
    }
}

void weir_present_share(const WeirSight *sight, WeirPlan *plan)
{
    for (guint i = 0; i < sight->record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(sight->record->disks,
                                                       i);

        if (disk != sight->disk) {
            present_share_disk(sight, disk, plan);
            present_share_disk(sight, disk->change, plan);
        }
    }
}

/* --- what a filter was opened with --- */

/*
 * To attach it again: whether its nodes are there by then, or have to be
 * opened, depends on the other disks of now, not on those of then.
 */
static void present_set_options(const Look *look, WeirPresent *present,
                                const WeirFilterType *type,
                                const WeirWanted *wanted)
{
    g_autoptr(JsonObject) resolved = weir_plan_resolve(
        look->plan, look->disk, type->driver, type->nodes, wanted->settings,
        NULL);

    if (!resolved) {
        return;
    }
    present->options = weir_json_copy(wanted->options);
    for (guint i = 0; i < type->nodes->len; i++) {
        const char *name = g_ptr_array_index(type->nodes, i);
        JsonNode *value = json_object_get_member(resolved, name);
        JsonObject *node = weir_json_as_object(value);
        const char *opened = weir_json_string(wanted->options, name);

        if (node && opened && weir_change_opens(type, node)) {
            /* it stays behind when the filter goes */
            json_object_set_string_member(node, "node-name", opened);
            g_ptr_array_add(present->owned, json_object_ref(node));
        } else if (value) {
            json_object_set_member(present->options, name,
                                   json_node_copy(value));
        }
    }
}

/* To reopen it as it is: a child is given by name. */
static JsonObject *present_opened(const WeirGraphNode *node,
                                  const WeirFilterType *type,
                                  const WeirWanted *wanted)
{
    JsonObject *options = weir_json_copy(wanted->options);

    for (guint i = 0; i < node->edges->len; i++) {
        const WeirGraphEdge *edge = &g_array_index(node->edges, WeirGraphEdge,
                                                   i);

        if (g_ptr_array_find_with_equal_func(type->nodes, edge->name,
                                             g_str_equal, NULL)) {
            json_object_set_string_member(options, edge->name,
                                          edge->child->name);
        }
    }
    return options;
}

/* Why a filter cannot go, or NULL. */
static char *present_stays(const WeirGraphNode *node,
                           const WeirFilterType *type, JsonObject *settings)
{
    JsonObject *job = weir_json_object(node->filter, "job");

    if (g_strcmp0(weir_json_string(job, "mode"), "decrypt") == 0 &&
        weir_json_bool(job, "finished", false) &&
        weir_json_int(node->filter, "data-offset", -1) == 0) {
        return NULL;
    }
    return weir_cannot_detach(type, settings);
}

/* What of a disk its log does not have, or NULL. */
static char *present_note(const WeirGraphNode *node,
                          const WeirFilterType *type)
{
    gint64 left = weir_json_int(node->filter, "resync-bytes", 0);

    if (type->class != WEIR_CLASS_REPLICATION ||
        (left == 0 && g_strcmp0(weir_json_string(node->filter, "status"),
                                "streaming") == 0)) {
        return NULL;
    }
    return g_strdup_printf("the log of %s (node %s) does not have all of the "
                           "disk yet", node->driver, node->name);
}

/*
 * The disk is in use without it when a filter has gone, and then the log does
 * not take it back if a replica has been promoted.
 */
static char *present_leaves(const WeirGraphNode *node,
                            const WeirFilterType *type)
{
    if (type->class != WEIR_CLASS_REPLICATION ||
        weir_json_int(node->filter, "generation", 0) <= 1) {
        return NULL;
    }
    return g_strdup("a replica of its log has been promoted once, and such a "
                    "log does not take back a disk that was in use without "
                    "it; replicate the disk to a new log");
}

/* --- what is there --- */

static void present_set_known(const Look *look, WeirPresent *present,
                              const WeirGraphNode *node,
                              const WeirFilterType *type,
                              const WeirWanted *wanted)
{
    if (!wanted->settings) {
        return;
    }
    present->settings = json_object_ref(wanted->settings);
    present->recorded = json_object_ref(wanted->options);
    present->opened = present_opened(node, type, wanted);
    present_set_options(look, present, type, wanted);
}

/*
 * One that nobody uses is above all others.  @recorded tells which place is
 * meant where both are one; NULL: not known.
 */
static WeirPlace present_place(const WeirGraphNode *node,
                               const WeirWanted *recorded)
{
    const char *storage = weir_place_name(WEIR_PLACE_STORAGE);
    const char *place = weir_json_string(node->filter, "place");

    if (recorded && g_strcmp0(recorded->place, storage) == 0 && place &&
        weir_graph_is_at(node, storage)) {
        return WEIR_PLACE_STORAGE;
    }
    return g_strcmp0(place, storage) == 0 ? WEIR_PLACE_STORAGE
                                          : WEIR_PLACE_DISK;
}

/* Whether a plugin tells that it has got other options than recorded. */
static bool present_drifted(const WeirGraphNode *node,
                            const WeirWanted *recorded)
{
    g_autoptr(GPtrArray) drift = node->plugin
        ? weir_plugin_drift(node->filter, node->plugin, recorded->options)
        : NULL;

    return drift && drift->len > 0;
}

/* Whether a filter of the record may be another than it was opened as. */
static bool present_unsure(const WeirGraphNode *node,
                           const WeirWanted *applied,
                           const WeirWanted *pending)
{
    return (applied && pending && applied->settings && pending->settings &&
            !json_object_equal(applied->settings, pending->settings)) ||
           present_drifted(node, applied ? applied : pending);
}

static void present_add(const Look *look, const WeirGraphNode *node,
                        const WeirFilterType *type, bool backing)
{
    const WeirRecordDisk *disk = look->sight->disk;
    const WeirWanted *applied = present_recorded(disk, node->name);
    const WeirWanted *pending = present_recorded(disk->change, node->name);
    WeirPresent *present = g_new0(WeirPresent, 1);
    const WeirWanted *alike;

    present->kind = g_strdup(node->filter_kind);
    present->node_name = g_strdup(node->name);
    present->child = g_strdup(type->child);
    present->owned = g_ptr_array_new_with_free_func(
        (GDestroyNotify)json_object_unref);
    present->backing = backing;
    present->place = present_place(node, applied ? applied : pending);
    present->note = present_note(node, type);
    present->leaves = present_leaves(node, type);
    if (applied || pending) {
        present_set_known(look, present, node, type,
                          applied ? applied : pending);
        present->unsure = present_unsure(node, applied, pending);
    } else if ((alike = present_alike(disk, node->filter_kind,
                                      present->place)) &&
               alike->settings) {
        present->settings = json_object_ref(alike->settings);
        present->unsure = present_drifted(node, alike);
    }
    present->stays = present_stays(node, type, present->settings);
    present->class = type->class;
    present->holds_data = type->plugin && type->holds_data;
    present->keeps = present->holds_data ||
                     (type->plugin && weir_json_string(node->filter,
                                                       "sidecar"));
    present->memory = weir_change_memory(type->class, present->settings);
    g_hash_table_insert(look->shape->below, g_strdup(node->name), g_strdup(
        weir_json_string(node->filter, "child")));
    g_ptr_array_add(look->present, present);
}

static const WeirGraphNode *present_backing(const WeirGraphNode *node)
{
    for (guint i = 0; i < node->edges->len; i++) {
        const WeirGraphEdge *edge = &g_array_index(node->edges, WeirGraphEdge,
                                                   i);

        if (strcmp(edge->name, "backing") == 0) {
            return edge->child;
        }
    }
    return NULL;
}

/* A plugin is what it is in this process, whatever its file is by now. */
static const WeirFilterType *present_type(const WeirSight *sight,
                                          const WeirGraphNode *node)
{
    return node->driver && node->filter
        ? weir_schema_find_plugin(sight->schema, node->driver,
                                  weir_json_string(node->filter, "path"))
        : NULL;
}

/* All from @root down: first what writes pass, then backing files. */
static void present_walk(const Look *look, const WeirGraphNode *root,
                         bool backing)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain((WeirGraphNode *)root);

    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);
        const WeirFilterType *type = present_type(look->sight, node);

        if (!g_hash_table_add(look->seen, (gpointer)node)) {
            return;
        }
        if (type) {
            present_add(look, node, type, backing);
        }
    }
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *below = present_backing(
            g_ptr_array_index(chain, i));

        if (below && !g_hash_table_contains(look->seen, below)) {
            look->shape->has_backing = true;
            present_walk(look, below, true);
        }
    }
}

/* Whether a filter tells of a node: a log is not linked with its disks. */
static bool present_is_told(JsonObject *filter, const char *name)
{
    JsonObjectIter iter;
    const char *member;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, filter);
    while (json_object_iter_next_ordered(&iter, &member, &value)) {
        if (g_strcmp0(weir_json_as_string(value), name) == 0) {
            return true;
        }
    }
    return false;
}

static bool present_is_used(const WeirGraph *graph, const WeirGraphNode *node)
{
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *other = g_ptr_array_index(nodes, i);

        if (other->filter && present_is_told(other->filter, node->name)) {
            return true;
        }
        for (guint j = 0; j < other->edges->len; j++) {
            if (g_array_index(other->edges, WeirGraphEdge, j).child == node) {
                return true;
            }
        }
    }
    return false;
}

/* Nodes that were opened for a filter which then did not come, or has gone. */
static void present_leftovers(const WeirSight *sight,
                              const WeirRecordDisk *disk, GPtrArray *names)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        const WeirFilterType *type = weir_schema_find(sight->schema,
                                                      wanted->driver);

        for (guint j = 0; type && j < type->nodes->len; j++) {
            const char *name = weir_json_string(
                wanted->options, g_ptr_array_index(type->nodes, j));
            const WeirGraphNode *node =
                name ? weir_graph_node(sight->graph, name) : NULL;

            if (node && !present_is_used(sight->graph, node) &&
                !g_ptr_array_find_with_equal_func(names, name, g_str_equal,
                                                  NULL)) {
                g_ptr_array_add(names, g_strdup(name));
            }
        }
    }
}

static void present_shape(const WeirSight *sight, WeirGraphNode *root,
                          WeirShape *shape)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);
    GPtrArray *nodes = weir_graph_nodes(sight->graph);
    const WeirGraphNode *last = g_ptr_array_index(chain, chain->len - 1);

    shape->root = g_strdup(root->name);
    shape->storage = g_strdup(last->name);
    shape->below = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                         g_free);
    shape->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                         NULL);
    for (guint i = 0; i + 1 < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);
        const WeirGraphNode *below = g_ptr_array_index(chain, i + 1);

        g_hash_table_insert(shape->below, g_strdup(node->name),
                            g_strdup(below->name));
    }
    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        g_hash_table_add(shape->names, g_strdup(node->name));
    }
    shape->leftovers = g_ptr_array_new_with_free_func(g_free);
    present_leftovers(sight, sight->disk, shape->leftovers);
    present_leftovers(sight, sight->disk->change, shape->leftovers);
    /* a name that was given up by a change that has not ended */
    for (guint i = 0; sight->disk->change && i < sight->disk->wanted->len;
         i++) {
        const WeirWanted *wanted = g_ptr_array_index(sight->disk->wanted, i);

        g_hash_table_add(shape->names, g_strdup(wanted->node_name));
    }
}

GPtrArray *weir_present_new(const WeirSight *sight, WeirShape *shape,
                            GError **error)
{
    g_autoptr(WeirDisk) disk = weir_record_describe(sight->disk, error);
    g_autoptr(WeirPlan) plan = weir_plan_new(sight->record->name);
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    WeirGraphNode *root = weir_record_disk_root(sight->disk, sight->graph);
    Look look = {
        .sight = sight, .disk = disk, .plan = plan, .shape = shape,
        .seen = seen,
    };

    if (!disk) {
        return NULL;
    }
    if (!root) {
        weir_set_error(error, "the guest has no such disk any more");
        return NULL;
    }
    look.present = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_present_free);
    weir_present_share(sight, plan);
    present_shape(sight, root, shape);
    present_walk(&look, root, false);
    return look.present;
}

/* Of a recorded replication; what its node tells counts. */
static bool present_mend_sidecar(const WeirSight *sight,
                                 const WeirWanted *wanted, GError **error)
{
    g_autofree char *memory = weir_change_memory(WEIR_CLASS_REPLICATION,
                                                 wanted->settings);

    if (!memory) {
        return true;
    }
    return weir_graph_node(sight->graph, wanted->node_name) ||
           weir_sidecar_forget_unused(
               memory, weir_json_string(wanted->options, "disk-id"), error);
}

static bool present_mend_disk(const WeirSight *sight,
                              const WeirRecordDisk *disk, GError **error)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        const WeirFilterType *type = weir_schema_find(sight->schema,
                                                      wanted->driver);

        if (type && type->class == WEIR_CLASS_REPLICATION &&
            !present_mend_sidecar(sight, wanted, error)) {
            return false;
        }
    }
    return true;
}

bool weir_present_mend(const WeirSight *sight, GError **error)
{
    return present_mend_disk(sight, sight->disk, error) &&
           present_mend_disk(sight, sight->disk->change, error);
}

/* --- what is wanted --- */

/* Why a filter cannot come to the overlay of a snapshot, or NULL. */
static char *goal_above_snapshot(const WeirChainNode *node,
                                 const WeirFilterType *type)
{
    if (type->class != WEIR_CLASS_REPLICATION ||
        node->place != WEIR_PLACE_STORAGE) {
        return NULL;
    }
    return g_strdup("the disk has a snapshot, and at place storage only its "
                    "overlay would be replicated, not what is below; give the "
                    "filter place: disk, or commit the snapshot");
}

GPtrArray *weir_goals_new(const WeirSight *sight, const GPtrArray *chain,
                          const WeirShape *shape)
{
    GPtrArray *goals = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_goal_free);

    for (guint i = chain->len; i-- > 0;) {
        WeirChainNode *node = g_ptr_array_index(chain, i);
        WeirGoal *goal;

        if (node->role != WEIR_ROLE_FILTER) {
            continue;
        }
        goal = g_new0(WeirGoal, 1);
        goal->node = node;
        goal->type = weir_schema_find_filter(sight->schema, node->driver,
                                             node->settings);
        goal->refusal = weir_cannot_attach(goal->type, node->settings);
        if (!goal->refusal && shape->has_backing) {
            goal->refusal = goal_above_snapshot(node, goal->type);
        }
        g_ptr_array_add(goals, goal);
    }
    return goals;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "insert.h"

#include <string.h>

#define INSERT_QMP_TIMEOUT_MS 10000
/* In the names of nodes that were put back. */
#define INSERT_INFIX "-again"

static bool insert_call(WeirQmp *qmp, const char *command, const char *node,
                        JsonObject *filter, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "node-name", node);
    if (filter) {
        json_object_set_object_member(arguments, "filter", filter);
    }
    answer = weir_qmp_execute(qmp, command, arguments, INSERT_QMP_TIMEOUT_MS,
                              error);
    return answer != NULL;
}

/* The node of the filter in the chain, or NULL. */
static const WeirGraphNode *insert_find(const GPtrArray *chain,
                                        const char *driver)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (g_strcmp0(node->driver, driver) == 0) {
            return node;
        }
    }
    return NULL;
}

static bool insert_allowed(const WeirRecordDisk *disk,
                           const WeirWanted *wanted, const WeirSchema *schema,
                           GError **error)
{
    const WeirFilterType *type = weir_schema_find(schema, wanted->driver);

    if (type && type->class == WEIR_CLASS_INSPECTION) {
        return true;
    }
    weir_set_error(error, "disk '%s': %s cannot come over another image while "
                   "the disk is in use: commit the image back, or start the VM "
                   "anew", disk->id, wanted->driver);
    return false;
}

/* "weir-vda-inspect-again2": a name that no node has. */
static char *insert_name(const WeirGraph *graph, const WeirRecordDisk *disk,
                         const char *driver)
{
    g_autofree char *prefix = g_strconcat("weir-", disk->id, NULL);

    for (guint i = 1;; i++) {
        g_autofree char *suffix = g_strdup_printf(
            "%s" INSERT_INFIX "%u", driver + strlen(WEIR_FILTER_PREFIX), i);
        char *name = weir_node_name(prefix, suffix);

        if (!weir_graph_node(graph, name)) {
            return name;
        }
        g_free(name);
    }
}

/* What weir-attach takes; what it takes over from below is left out. */
static JsonObject *insert_options(const WeirWanted *wanted,
                                  const WeirFilterType *type,
                                  const char *name, const char *below)
{
    static const char *const inherited[] = {
        "read-only", "discard", "cache",
    };
    JsonObject *options = weir_json_copy(wanted->options);

    for (guint i = 0; i < G_N_ELEMENTS(inherited); i++) {
        json_object_remove_member(options, inherited[i]);
    }
    json_object_set_string_member(options, "node-name", name);
    json_object_set_string_member(options, type->child, below);
    return options;
}

/*
 * The filter that is missing and may be put back, or NULL.  There is one at
 * most, since a disk has one filter of a class.  @error is set if another is
 * missing.
 */
static const WeirWanted *insert_missing(const WeirRecordDisk *disk,
                                        const GPtrArray *chain,
                                        const WeirSchema *schema,
                                        GError **error)
{
    const WeirWanted *missing = NULL;

    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (strcmp(wanted->role, "filter") != 0 ||
            insert_find(chain, wanted->driver)) {
            continue;
        }
        if (!insert_allowed(disk, wanted, schema, error)) {
            return NULL;
        }
        missing = wanted;
    }
    return missing;
}

/* The node above which @wanted goes: the next lower one of the chain. */
static const char *insert_below(const WeirRecordDisk *disk,
                                const GPtrArray *chain,
                                const WeirWanted *wanted)
{
    const WeirGraphNode *found = g_ptr_array_index(chain, chain->len - 1);

    for (guint i = disk->wanted->len; i-- > 0;) {
        const WeirWanted *other = g_ptr_array_index(disk->wanted, i);
        const WeirGraphNode *node = insert_find(chain, other->driver);

        if (other == wanted) {
            break;
        }
        if (strcmp(other->role, "filter") == 0 && node) {
            found = node;
        }
    }
    return found->name;
}

bool weir_insert_missing(WeirQmp *qmp, const WeirGraph *graph,
                         const WeirRecordDisk *disk, const WeirSchema *schema,
                         guint *inserted, GError **error)
{
    WeirGraphNode *root = weir_record_disk_root(disk, graph);
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);
    g_autofree char *name = NULL;
    const WeirWanted *missing;
    const char *below;
    GError *local = NULL;

    if (!root) {
        return true;
    }
    missing = insert_missing(disk, chain, schema, &local);
    if (!missing) {
        bool complete = local == NULL;

        if (local) {
            g_propagate_error(error, local);
        }
        return complete;
    }
    name = insert_name(graph, disk, missing->driver);
    below = insert_below(disk, chain, missing);
    if (!insert_call(qmp, "weir-attach", below,
                     insert_options(missing, weir_schema_find(
                         schema, missing->driver), name, below), error)) {
        g_prefix_error(error, "disk '%s': ", disk->id);
        return false;
    }
    (*inserted)++;
    return true;
}

/* A set of all nodes that something is above. */
static GHashTable *insert_used(const WeirGraph *graph)
{
    GHashTable *used = g_hash_table_new(g_direct_hash, g_direct_equal);
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        for (guint j = 0; j < node->edges->len; j++) {
            g_hash_table_add(used, g_array_index(node->edges, WeirGraphEdge,
                                                 j).child);
        }
    }
    return used;
}

guint weir_insert_clean(WeirQmp *qmp, const WeirGraph *graph)
{
    g_autoptr(GHashTable) used = insert_used(graph);
    GPtrArray *nodes = weir_graph_nodes(graph);
    guint n = 0;

    for (guint i = 0; i < nodes->len; i++) {
        WeirGraphNode *node = g_ptr_array_index(nodes, i);
        g_autoptr(GPtrArray) chain = NULL;

        if (!node->filter || g_hash_table_contains(used, node) ||
            !strstr(node->name, INSERT_INFIX)) {
            continue;
        }
        chain = weir_graph_chain(node);
        for (guint j = 0; j < chain->len; j++) {
            const WeirGraphNode *below = g_ptr_array_index(chain, j);

            insert_call(qmp, "blockdev-del", below->name, NULL, NULL);
        }
        n++;
    }
    return n;
}

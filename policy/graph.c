/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "graph.h"

#include <string.h>

#define WEIR_GRAPH_MAX_DEPTH 1000
#define WEIR_GRAPH_DEVICES "/machine/peripheral/"

struct WeirGraph {
    GPtrArray *nodes;       /* WeirGraphNode, owned */
    GHashTable *by_id;      /* x-debug-query-block-graph's id -> node */
    GHashTable *by_name;    /* of block nodes */
};

static void graph_edge_clear(WeirGraphEdge *edge)
{
    g_free(edge->name);
}

static void graph_node_free(WeirGraphNode *node)
{
    g_free(node->name);
    g_free(node->driver);
    g_free(node->filter_kind);
    g_clear_pointer(&node->filter, json_object_unref);
    g_clear_pointer(&node->plugin, json_object_unref);
    g_array_unref(node->edges);
    g_free(node);
}

void weir_graph_free(WeirGraph *graph)
{
    if (graph) {
        g_hash_table_unref(graph->by_id);
        g_hash_table_unref(graph->by_name);
        g_ptr_array_unref(graph->nodes);
        g_free(graph);
    }
}

static void graph_add_node(WeirGraph *graph, JsonObject *object)
{
    const char *type = weir_json_string(object, "type");
    const char *name = weir_json_string(object, "name");
    gint64 *id = g_new(gint64, 1);
    WeirGraphNode *node = g_new0(WeirGraphNode, 1);

    *id = weir_json_int(object, "id", -1);
    node->name = g_strdup(name ? name : "");
    node->kind = g_strcmp0(type, "block-backend") == 0 ? WEIR_GRAPH_BACKEND :
                 g_strcmp0(type, "block-job") == 0 ? WEIR_GRAPH_JOB :
                 WEIR_GRAPH_NODE;
    node->edges = g_array_new(FALSE, FALSE, sizeof(WeirGraphEdge));
    g_array_set_clear_func(node->edges, (GDestroyNotify)graph_edge_clear);
    g_ptr_array_add(graph->nodes, node);
    g_hash_table_insert(graph->by_id, id, node);
    if (node->kind == WEIR_GRAPH_NODE) {
        g_hash_table_insert(graph->by_name, node->name, node);
    }
}

static void graph_add_edge(WeirGraph *graph, JsonObject *object)
{
    gint64 parent_id = weir_json_int(object, "parent", -1);
    gint64 child_id = weir_json_int(object, "child", -1);
    WeirGraphNode *parent = g_hash_table_lookup(graph->by_id, &parent_id);
    const char *name = weir_json_string(object, "name");
    WeirGraphEdge edge = {
        .child = g_hash_table_lookup(graph->by_id, &child_id),
    };

    if (parent && edge.child) {
        edge.name = g_strdup(name ? name : "");
        g_array_append_val(parent->edges, edge);
    }
}

static void graph_take_edges(WeirGraph *graph, JsonObject *object)
{
    JsonArray *nodes = weir_json_array(object, "nodes");
    JsonArray *edges = weir_json_array(object, "edges");

    for (guint i = 0; i < weir_json_length(nodes); i++) {
        graph_add_node(graph, weir_json_object_at(nodes, i));
    }
    for (guint i = 0; i < weir_json_length(edges); i++) {
        graph_add_edge(graph, weir_json_object_at(edges, i));
    }
}

static bool graph_query_edges(WeirGraph *graph, WeirQmp *qmp, int timeout_ms,
                              GError **error)
{
    g_autoptr(JsonNode) answer = weir_qmp_execute(
        qmp, "x-debug-query-block-graph", NULL, timeout_ms, error);

    graph_take_edges(graph, weir_json_as_object(answer));
    return answer != NULL;
}

static void graph_take_drivers(WeirGraph *graph, JsonArray *nodes)
{
    for (guint i = 0; i < weir_json_length(nodes); i++) {
        JsonObject *object = weir_json_object_at(nodes, i);
        const char *name = weir_json_string(object, "node-name");
        WeirGraphNode *node = name ? weir_graph_node(graph, name) : NULL;

        if (node && !node->driver) {
            node->driver = g_strdup(weir_json_string(object, "drv"));
            node->filter_kind = g_strdup(node->driver);
            node->no_flush = weir_json_bool(weir_json_object(object, "cache"),
                                            "no-flush", false);
        }
    }
}

static bool graph_query_drivers(WeirGraph *graph, WeirQmp *qmp,
                                int timeout_ms, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_boolean_member(arguments, "flat", TRUE);
    answer = weir_qmp_execute(qmp, "query-named-block-nodes", arguments,
                              timeout_ms, error);
    graph_take_drivers(graph, weir_json_as_array(answer));
    return answer != NULL;
}

static void graph_take_filters(WeirGraph *graph, JsonArray *filters)
{
    for (guint i = 0; i < weir_json_length(filters); i++) {
        JsonObject *object = weir_json_object_at(filters, i);
        const char *name = weir_json_string(object, "node-name");
        WeirGraphNode *node = name ? weir_graph_node(graph, name) : NULL;

        if (node && !node->filter) {
            node->filter = json_object_ref(object);
        }
        if (node && node->driver) {
            g_free(node->filter_kind);
            node->filter_kind = weir_kind_of(node->driver, node->filter);
        }
    }
}

static bool graph_query_filters(WeirGraph *graph, WeirQmp *qmp,
                                int timeout_ms, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) answer = weir_qmp_execute(qmp, "query-weir", NULL,
                                                  timeout_ms, &local);

    if (g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NO_COMMAND)) {
        return true;
    }
    if (!answer) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    graph_take_filters(graph, weir_json_as_array(answer));
    return true;
}

static WeirGraph *graph_alloc(void)
{
    WeirGraph *graph = g_new0(WeirGraph, 1);

    graph->nodes = g_ptr_array_new_with_free_func(
        (GDestroyNotify)graph_node_free);
    graph->by_id = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                         NULL);
    graph->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    return graph;
}

WeirGraph *weir_graph_new(JsonObject *edges, JsonArray *nodes,
                          JsonArray *filters)
{
    WeirGraph *graph = graph_alloc();

    graph_take_edges(graph, edges);
    graph_take_drivers(graph, nodes);
    graph_take_filters(graph, filters);
    return graph;
}

/* Let @plugin be what the one in that file is; NULL: QEMU does not tell. */
static bool graph_describe(WeirQmp *qmp, const char *path, int timeout_ms,
                           JsonObject **plugin, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "plugin", path);
    answer = weir_qmp_execute(qmp, "query-weir-plugin", arguments, timeout_ms,
                              &local);
    if (!answer && !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_QMP) &&
        !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NO_COMMAND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    *plugin = weir_json_as_object(answer)
        ? json_object_ref(weir_json_as_object(answer)) : NULL;
    return true;
}

static bool graph_query_plugins(WeirGraph *graph, WeirQmp *qmp,
                                int timeout_ms, GError **error)
{
    g_autoptr(GHashTable) known = g_hash_table_new_full(
        g_str_hash, g_str_equal, NULL, (GDestroyNotify)json_object_unref);
    gint64 deadline_us = weir_qmp_deadline(timeout_ms);

    for (guint i = 0; i < graph->nodes->len; i++) {
        WeirGraphNode *node = g_ptr_array_index(graph->nodes, i);
        const char *path = weir_json_string(node->filter, "path");
        JsonObject *plugin = path ? g_hash_table_lookup(known, path) : NULL;

        if (!path || g_strcmp0(node->driver, WEIR_PLUGIN_DRIVER) != 0) {
            continue;
        }
        if (plugin) {
            node->plugin = json_object_ref(plugin);
            continue;
        }
        if (!graph_describe(qmp, path, weir_qmp_left(deadline_us),
                            &node->plugin, error)) {
            return false;
        }
        if (node->plugin) {
            g_hash_table_insert(known, (gpointer)path,
                                json_object_ref(node->plugin));
        }
    }
    return true;
}

WeirGraph *weir_graph_query(WeirQmp *qmp, int timeout_ms, GError **error)
{
    static bool (*const queries[])(WeirGraph *, WeirQmp *, int, GError **) = {
        graph_query_edges, graph_query_drivers, graph_query_filters,
        graph_query_plugins,
    };
    gint64 deadline_us = weir_qmp_deadline(timeout_ms);
    g_autoptr(WeirGraph) graph = graph_alloc();

    for (guint i = 0; i < G_N_ELEMENTS(queries); i++) {
        if (!queries[i](graph, qmp, weir_qmp_left(deadline_us), error)) {
            return NULL;
        }
    }
    return g_steal_pointer(&graph);
}

GPtrArray *weir_graph_nodes(const WeirGraph *graph)
{
    return graph->nodes;
}

WeirGraphNode *weir_graph_node(const WeirGraph *graph, const char *name)
{
    return g_hash_table_lookup(graph->by_name, name);
}

WeirGraphNode *weir_graph_root(const WeirGraphNode *backend)
{
    return backend->edges->len == 0
               ? NULL : g_array_index(backend->edges, WeirGraphEdge, 0).child;
}

char *weir_graph_device_name(const WeirGraphNode *backend)
{
    const char *name = backend->name;

    if (g_str_has_prefix(name, WEIR_GRAPH_DEVICES)) {
        name += strlen(WEIR_GRAPH_DEVICES);
        return g_strndup(name, strcspn(name, "/"));
    }
    return g_strdup(name);
}

WeirGraphNode *weir_graph_device(const WeirGraph *graph, const char *id)
{
    for (guint i = 0; i < graph->nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(graph->nodes, i);
        g_autofree char *name = weir_graph_device_name(node);

        if (node->kind == WEIR_GRAPH_BACKEND && strcmp(name, id) == 0) {
            return weir_graph_root(node);
        }
    }
    return NULL;
}

/* The child that has the guest's data: "file", "backing" or the only one. */
static WeirGraphNode *graph_primary_child(const WeirGraphNode *node)
{
    static const char *const names[] = { "file", "backing" };

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        for (guint j = 0; j < node->edges->len; j++) {
            const WeirGraphEdge *edge = &g_array_index(node->edges,
                                                       WeirGraphEdge, j);

            if (strcmp(edge->name, names[i]) == 0) {
                return edge->child;
            }
        }
    }
    return node->edges->len == 1 ? weir_graph_root(node) : NULL;
}

GPtrArray *weir_graph_chain(WeirGraphNode *root)
{
    GPtrArray *chain = g_ptr_array_new();

    for (; root && chain->len < WEIR_GRAPH_MAX_DEPTH;
         root = graph_primary_child(root)) {
        g_ptr_array_add(chain, root);
    }
    return chain;
}

/* Whether there are but filters between a filter and the storage node. */
static bool graph_is_over_storage(const WeirGraphNode *filter)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain((WeirGraphNode *)filter);

    for (guint i = 0; i + 1 < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (!node->filter) {
            return false;
        }
    }
    return true;
}

bool weir_graph_is_at(const WeirGraphNode *filter, const char *place)
{
    const char *found = weir_json_string(filter->filter, "place");

    return !found || strcmp(found, place) == 0 ||
           (strcmp(found, "disk") == 0 && strcmp(place, "storage") == 0 &&
            graph_is_over_storage(filter));
}

bool weir_graph_reaches(const WeirGraphNode *root, const WeirGraphNode *node)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) left = g_ptr_array_new();

    /* Not recursive: the graph is as deep as the other side says. */
    g_ptr_array_add(left, (gpointer)root);
    while (left->len > 0) {
        const WeirGraphNode *next = g_ptr_array_steal_index(left,
                                                            left->len - 1);

        if (next == node) {
            return true;
        }
        if (!next || !g_hash_table_add(seen, (gpointer)next)) {
            continue;
        }
        for (guint i = 0; i < next->edges->len; i++) {
            g_ptr_array_add(left, g_array_index(next->edges, WeirGraphEdge,
                                                i).child);
        }
    }
    return false;
}

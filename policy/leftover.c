/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "leftover.h"

#include <stdio.h>
#include <string.h>

#define LEFTOVER_QMP_MS 120000
/* Of the names of nodes that weir attaches. */
#define LEFTOVER_PREFIX "weir-"

/* A set of all nodes that something is above. */
static GHashTable *leftover_used(const WeirGraph *graph)
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

GPtrArray *weir_leftover_find(const WeirGraph *graph)
{
    g_autoptr(GHashTable) used = leftover_used(graph);
    GPtrArray *nodes = weir_graph_nodes(graph);
    GPtrArray *found = g_ptr_array_new();

    for (guint i = 0; i < nodes->len; i++) {
        WeirGraphNode *node = g_ptr_array_index(nodes, i);

        if (node->filter && !g_hash_table_contains(used, node) &&
            g_str_has_prefix(node->name, LEFTOVER_PREFIX)) {
            g_ptr_array_add(found, node);
        }
    }
    return found;
}

static bool leftover_close(WeirQmp *qmp, const char *node, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "node-name", node);
    answer = weir_qmp_execute(qmp, "blockdev-del", arguments, LEFTOVER_QMP_MS,
                              error);
    return answer != NULL;
}

/* The number in "libvirt-3-storage", or -1. */
static int leftover_number(const WeirGraphNode *node)
{
    int number;

    return node && sscanf(node->name, "libvirt-%d-", &number) == 1 ? number
                                                                   : -1;
}

bool weir_leftover_is_committed(const WeirGraphNode *node,
                                const WeirGraphNode *root)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain((WeirGraphNode *)node);
    int was = leftover_number(g_ptr_array_index(chain, chain->len - 1));
    int is = leftover_number(root);

    return was >= 0 && is >= 0 && is < was;
}

/* The nodes that a filter has for itself may have been opened before it. */
static void leftover_close_own(WeirQmp *qmp, const WeirGraphNode *filter)
{
    for (guint i = 0; i < filter->edges->len; i++) {
        const WeirGraphEdge *edge = &g_array_index(filter->edges,
                                                   WeirGraphEdge, i);

        if (strcmp(edge->name, "file") != 0 &&
            g_str_has_prefix(edge->child->name, LEFTOVER_PREFIX)) {
            leftover_close(qmp, edge->child->name, NULL);
        }
    }
}

bool weir_leftover_close(WeirQmp *qmp, const WeirGraphNode *node,
                         GError **error)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain((WeirGraphNode *)node);

    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *one = g_ptr_array_index(chain, i);
        bool closed = leftover_close(qmp, one->name,
                                     one->filter ? error : NULL);

        /* others may have gone with the filter */
        if (one->filter && !closed) {
            return false;
        }
        leftover_close_own(qmp, one);
    }
    return true;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block graph that a running QEMU really has. */
#ifndef WEIR_GRAPH_H
#define WEIR_GRAPH_H

#include "kind.h"
#include "qmp.h"

typedef struct WeirGraph WeirGraph;

typedef enum WeirGraphKind {
    WEIR_GRAPH_NODE,        /* a block node */
    WEIR_GRAPH_BACKEND,     /* what a device or export uses a node through */
    WEIR_GRAPH_JOB,
} WeirGraphKind;

typedef struct WeirGraphNode {
    WeirGraphKind kind;
    char *name;             /* node-name; id or QOM path of a device; "" */
    char *driver;           /* of a block node */
    char *filter_kind;      /* of a block node: see kind.h */
    bool no_flush;          /* of a block node: flushes are ignored */
    JsonObject *filter;     /* its entry in query-weir; NULL: not a filter */
    JsonObject *plugin;     /* of a plugin: what query-weir-plugin says of its
                               file there; NULL: not known */
    GArray *edges;          /* WeirGraphEdge */
} WeirGraphNode;

typedef struct WeirGraphEdge {
    WeirGraphNode *child;
    char *name;             /* "file", "backing", "root"... */
} WeirGraphEdge;

/*
 * Ask for the graph and the state of the filters.
 *
 * @qmp: negotiated
 * @timeout_ms: for all of it
 * Blocks.  Returns the graph, which the caller frees with weir_graph_free(),
 * or NULL with @error set as by weir_qmp_execute().  A QEMU that has no
 * query-weir has no filters.
 */
WeirGraph *weir_graph_query(WeirQmp *qmp, int timeout_ms, GError **error);

/*
 * A graph from what a QEMU would answer to x-debug-query-block-graph,
 * query-named-block-nodes and query-weir.
 */
WeirGraph *weir_graph_new(JsonObject *edges, JsonArray *nodes,
                          JsonArray *filters);

/* NULL is fine. */
void weir_graph_free(WeirGraph *graph);

/* All nodes, backends and jobs (WeirGraphNode), owned by @graph. */
GPtrArray *weir_graph_nodes(const WeirGraph *graph);

/* The block node called @name, or NULL. */
WeirGraphNode *weir_graph_node(const WeirGraph *graph, const char *name);

/* The node that guest device @id (qdev id) uses, or NULL. */
WeirGraphNode *weir_graph_device(const WeirGraph *graph, const char *id);

/* The node that a backend uses, or NULL. */
WeirGraphNode *weir_graph_root(const WeirGraphNode *backend);

/*
 * The nodes that requests pass on their way from @root down to the storage
 * node, @root first, without backing files.  NULL as @root is fine.  The
 * caller unrefs the array; the WeirGraphNodes are owned by the graph.
 */
GPtrArray *weir_graph_chain(WeirGraphNode *root);

/*
 * Whether a filter is at a place.  Without a format node, which newer libvirt
 * leaves out over raw images, a disk has but one place: what is right over
 * the storage node is at place storage as well, whatever QEMU calls it.
 */
bool weir_graph_is_at(const WeirGraphNode *filter, const char *place);

/* Whether @node is @root or can be reached from it, backing files included. */
bool weir_graph_reaches(const WeirGraphNode *root, const WeirGraphNode *node);

/* Name of a backend's device without the QOM path around it; to be freed. */
char *weir_graph_device_name(const WeirGraphNode *backend);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirGraph, weir_graph_free)

#endif

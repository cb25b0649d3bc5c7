/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compliance.h"

#include <string.h>

static const char *const compliance_names[] = {
    [WEIR_COMPLIANT] = "compliant",
    [WEIR_NON_COMPLIANT] = "non-compliant",
    [WEIR_OUT_OF_DATE] = "out-of-date",
    [WEIR_UNKNOWN] = "unknown",
    [WEIR_NOT_APPLICABLE] = "not-applicable",
};

const char *weir_compliance_name(WeirCompliance state)
{
    return compliance_names[state];
}

static void compliance_status_free(WeirDiskStatus *status)
{
    g_free(status->vm);
    g_free(status->disk);
    g_free(status->policy);
    g_free(status->reason);
    json_array_unref(status->wanted);
    json_array_unref(status->actual);
    g_free(status);
}

GPtrArray *weir_disk_statuses_new(void)
{
    return g_ptr_array_new_with_free_func(
        (GDestroyNotify)compliance_status_free);
}

static WeirDiskStatus *compliance_status_new(const char *vm, const char *disk,
                                             WeirCompliance state)
{
    WeirDiskStatus *status = g_new0(WeirDiskStatus, 1);

    status->vm = g_strdup(vm);
    status->disk = g_strdup(disk);
    status->state = state;
    status->wanted = json_array_new();
    status->actual = json_array_new();
    return status;
}

static JsonArray *compliance_wanted(const WeirRecordDisk *disk)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "driver", wanted->driver);
        json_object_set_string_member(object, "node-name",
                                      wanted->node_name);
        if (wanted->place) {
            json_object_set_string_member(object, "place", wanted->place);
        }
        json_array_add_object_element(array, object);
    }
    return array;
}

static JsonArray *compliance_actual(const GPtrArray *chain)
{
    static const char *const facts[] = { "place", "state", "reason" };
    JsonArray *array = json_array_new();

    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);
        JsonObject *object = json_object_new();

        weir_json_set_string(object, "driver", node->driver);
        json_object_set_string_member(object, "node-name", node->name);
        for (guint j = 0; node->filter && j < G_N_ELEMENTS(facts); j++) {
            const char *fact = weir_json_string(node->filter, facts[j]);

            if (fact) {
                json_object_set_string_member(object, facts[j], fact);
            }
        }
        if (node->filter) {
            json_object_set_int_member(object, "since",
                                       weir_json_int(node->filter, "since",
                                                     0));
        }
        json_array_add_object_element(array, object);
    }
    return array;
}

/* The node above @node that has it as its data, or NULL. */
static WeirGraphNode *compliance_parent(const WeirGraph *graph,
                                        const WeirGraphNode *node)
{
    static const char *const links[] = { "file", "backing", NULL };
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        WeirGraphNode *parent = g_ptr_array_index(nodes, i);

        for (guint j = 0; parent->kind == WEIR_GRAPH_NODE &&
                          j < parent->edges->len; j++) {
            const WeirGraphEdge *edge = &g_array_index(parent->edges,
                                                       WeirGraphEdge, j);

            if (edge->child == node && g_strv_contains(links, edge->name)) {
                return parent;
            }
        }
    }
    return NULL;
}

/* Of a disk that nothing uses: the highest node above ours. */
static WeirGraphNode *compliance_highest(const WeirRecordDisk *disk,
                                         const WeirGraph *graph)
{
    WeirGraphNode *node = NULL;
    WeirGraphNode *parent;

    for (guint i = 0; !node && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        node = weir_graph_node(graph, wanted->node_name);
    }
    while (node && (parent = compliance_parent(graph, node))) {
        node = parent;
    }
    return node;
}

/* A device keeps its id; without one, look for what uses our nodes. */
WeirGraphNode *weir_record_disk_root(const WeirRecordDisk *disk,
                                     const WeirGraph *graph)
{
    GPtrArray *nodes = weir_graph_nodes(graph);

    if (disk->device) {
        return weir_graph_device(graph, disk->device);
    }
    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        for (guint j = 0; node->kind == WEIR_GRAPH_BACKEND &&
                          j < disk->wanted->len; j++) {
            const WeirWanted *wanted = g_ptr_array_index(disk->wanted, j);
            WeirGraphNode *wanted_node = weir_graph_node(graph,
                                                         wanted->node_name);

            if (wanted_node && weir_graph_reaches(node, wanted_node)) {
                return weir_graph_root(node);
            }
        }
    }
    return compliance_highest(disk, graph);
}

static bool compliance_is_filter(const WeirGraphNode *node)
{
    return node->driver && g_str_has_prefix(node->driver, WEIR_FILTER_PREFIX);
}

static void compliance_add(GString *reasons, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static void compliance_add(GString *reasons, const char *format, ...)
{
    va_list args;

    if (reasons->len > 0) {
        g_string_append(reasons, "; ");
    }
    va_start(args, format);
    g_string_append_vprintf(reasons, format, args);
    va_end(args);
}

/* Index of the first filter of @chain with @driver, or -1. */
static int compliance_find(const GPtrArray *chain, const char *driver)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (g_strcmp0(node->driver, driver) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* Whether a filter stands below a backing file, where no write passes it. */
static bool compliance_in_backing(const WeirGraph *graph,
                                  const WeirGraphNode *root,
                                  const char *driver)
{
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        if (g_strcmp0(node->driver, driver) == 0 &&
            weir_graph_reaches(root, node)) {
            return true;
        }
    }
    return false;
}

static void compliance_check_facts(const WeirGraphNode *node,
                                   const WeirWanted *wanted, GString *reasons)
{
    const char *place = weir_json_string(node->filter, "place");
    const char *state = weir_json_string(node->filter, "state");
    const char *reason = weir_json_string(node->filter, "reason");

    if (place && strcmp(place, wanted->place) != 0) {
        compliance_add(reasons, "%s is at place %s instead of %s",
                       wanted->driver, place, wanted->place);
    }
    if (state && strcmp(state, "ok") != 0) {
        compliance_add(reasons, "%s is %s: %s", wanted->driver, state,
                       reason ? reason : "no reason given");
    }
}

/* Check each wanted filter, and that they come in that order. */
static void compliance_check_wanted(const WeirRecordDisk *disk,
                                    const WeirGraph *graph,
                                    const GPtrArray *chain, GString *reasons)
{
    const char *previous = NULL;
    int last = -1;

    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        int index = compliance_find(chain, wanted->driver);

        if (strcmp(wanted->role, "filter") != 0) {
            continue;
        }
        if (index < 0) {
            compliance_add(reasons, "%s is %s", wanted->driver,
                           compliance_in_backing(graph,
                                                 g_ptr_array_index(chain, 0),
                                                 wanted->driver)
                               ? "only below a backing file" : "missing");
            continue;
        }
        compliance_check_facts(g_ptr_array_index(chain, index), wanted,
                               reasons);
        if (index < last) {
            compliance_add(reasons, "%s is above %s", wanted->driver,
                           previous);
        }
        last = index;
        previous = wanted->driver;
    }
}

static bool compliance_wants(const WeirRecordDisk *disk, const char *driver)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (strcmp(wanted->driver, driver) == 0) {
            return true;
        }
    }
    return false;
}

static void compliance_check_extra(const WeirRecordDisk *disk,
                                   const GPtrArray *chain, GString *reasons)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (!compliance_is_filter(node)) {
            continue;
        }
        if (!compliance_wants(disk, node->driver)) {
            compliance_add(reasons, "%s is not in the policy", node->driver);
        } else if (compliance_find(chain, node->driver) != (int)i) {
            compliance_add(reasons, "%s is there twice", node->driver);
        }
    }
}

static void compliance_disk(const WeirRecordDisk *disk, const WeirGraph *graph,
                            WeirDiskStatus *status)
{
    WeirGraphNode *root = weir_record_disk_root(disk, graph);
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);
    GString *reasons = g_string_new(NULL);

    if (disk->change) {
        compliance_add(reasons, "a change to %s%s%s was interrupted, weir "
                       "reapply or weir detach goes on with it",
                       disk->change->policy ? "policy '" : "",
                       disk->change->policy ? disk->change->policy
                                            : "no policy",
                       disk->change->policy ? "'" : "");
    }
    json_array_unref(status->actual);
    status->actual = compliance_actual(chain);
    if (!root) {
        compliance_add(reasons, "the guest has no such disk any more");
    } else {
        compliance_check_wanted(disk, graph, chain, reasons);
        compliance_check_extra(disk, chain, reasons);
    }
    status->state = reasons->len ? WEIR_NON_COMPLIANT : WEIR_COMPLIANT;
    status->reason = g_string_free(reasons, reasons->len == 0);
    if (!disk->policy && !disk->change) {
        g_free(status->reason);
        status->state = WEIR_NOT_APPLICABLE;
        status->reason = g_strdup("under no policy");
    }
}

void weir_compliance_record(const WeirRecord *record, const WeirGraph *graph,
                            const char *reason, GPtrArray *statuses)
{
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        WeirDiskStatus *status = compliance_status_new(record->name, disk->id,
                                                       WEIR_UNKNOWN);

        status->policy = g_strdup(disk->policy);
        status->policy_version = disk->policy_version;
        json_array_unref(status->wanted);
        status->wanted = compliance_wanted(disk);
        if (graph) {
            compliance_disk(disk, graph, status);
        } else {
            status->reason = g_strdup(reason);
        }
        g_ptr_array_add(statuses, status);
    }
}

void weir_compliance_graph(const char *vm, const WeirGraph *graph,
                           GPtrArray *statuses)
{
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);
        g_autofree char *name = weir_graph_device_name(node);
        g_autoptr(GPtrArray) chain = NULL;
        WeirDiskStatus *status;

        if (node->kind != WEIR_GRAPH_BACKEND || !weir_graph_root(node)) {
            continue;
        }
        chain = weir_graph_chain(weir_graph_root(node));
        status = compliance_status_new(vm, *name ? name : "-",
                                       WEIR_NOT_APPLICABLE);
        status->reason = g_strdup("not started by weir run");
        json_array_unref(status->actual);
        status->actual = compliance_actual(chain);
        g_ptr_array_add(statuses, status);
    }
}

JsonObject *weir_disk_status_json(const WeirDiskStatus *status)
{
    JsonObject *object = json_object_new();

    weir_json_set_string(object, "vm", status->vm);
    json_object_set_string_member(object, "disk", status->disk);
    weir_json_set_string(object, "policy", status->policy);
    if (status->policy) {
        json_object_set_int_member(object, "policy-version",
                                   status->policy_version);
    }
    json_object_set_string_member(object, "state",
                                  weir_compliance_name(status->state));
    weir_json_set_string(object, "reason", status->reason);
    json_object_set_array_member(object, "wanted",
                                 json_array_ref(status->wanted));
    json_object_set_array_member(object, "actual",
                                 json_array_ref(status->actual));
    return object;
}

/* The nodes must be linked in that order, each to the next. */
static bool compliance_verify_disk(const WeirRecordDisk *disk,
                                   const WeirGraph *graph, GError **error)
{
    WeirGraphNode *root = weir_record_disk_root(disk, graph);
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);

    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        const WeirGraphNode *node = i < chain->len
                                        ? g_ptr_array_index(chain, i) : NULL;

        if (!node || strcmp(node->name, wanted->node_name) != 0 ||
            g_strcmp0(node->driver, wanted->driver) != 0) {
            weir_set_error(error, "disk %s has %s where node %s (%s) should "
                           "be", disk->id, node ? node->name : "nothing",
                           wanted->node_name, wanted->driver);
            return false;
        }
    }
    return true;
}

bool weir_record_verify(const WeirRecord *record, const WeirGraph *graph,
                        GError **error)
{
    for (guint i = 0; i < record->disks->len; i++) {
        if (!compliance_verify_disk(g_ptr_array_index(record->disks, i),
                                    graph, error)) {
            return false;
        }
    }
    return true;
}

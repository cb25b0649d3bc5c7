/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compliance.h"

#include <string.h>

#include "advice.h"
#include "history.h"
#include "pluginvalue.h"
#include "storagerecord.h"

static void compliance_filter_free(WeirFilterStatus *filter)
{
    g_free(filter->driver);
    g_free(filter->kind);
    g_free(filter->node_name);
    g_free(filter->reason);
    g_clear_pointer(&filter->filter, json_object_unref);
    g_free(filter);
}

static void compliance_status_free(WeirDiskStatus *status)
{
    g_free(status->host);
    g_free(status->vm);
    g_free(status->disk);
    g_free(status->policy);
    g_free(status->reason);
    g_free(status->note);
    g_clear_pointer(&status->daemon, json_object_unref);
    json_array_unref(status->wanted);
    json_array_unref(status->actual);
    g_ptr_array_unref(status->filters);
    g_clear_pointer(&status->latency, json_array_unref);
    g_clear_pointer(&status->recent, json_array_unref);
    g_clear_pointer(&status->gaps, json_array_unref);
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
    status->filters = g_ptr_array_new_with_free_func(
        (GDestroyNotify)compliance_filter_free);
    return status;
}

/* Which plugin it is, of one. */
static void compliance_set_plugin(JsonObject *object, const char *kind)
{
    const char *plugin = kind ? weir_kind_plugin(kind) : NULL;

    if (plugin) {
        json_object_set_string_member(object, "plugin", plugin);
    }
}

static JsonArray *compliance_wanted(const WeirRecordDisk *disk)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        g_autofree char *kind = weir_wanted_kind(wanted);
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "driver", wanted->driver);
        compliance_set_plugin(object, kind);
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
        compliance_set_plugin(object, node->filter_kind);
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
static WeirGraphNode *compliance_top(const WeirRecordDisk *disk,
                                     const WeirGraph *graph)
{
    guint levels = weir_graph_nodes(graph)->len;    /* it may go in circles */
    WeirGraphNode *node = NULL;
    WeirGraphNode *parent;

    for (guint i = 0; !node && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        node = weir_graph_node(graph, wanted->node_name);
    }
    while (node && levels-- > 0 && (parent = compliance_parent(graph, node))) {
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
    return compliance_top(disk, graph);
}

static bool compliance_is_filter(const WeirGraphNode *node)
{
    return node->driver && g_str_has_prefix(node->driver, WEIR_FILTER_PREFIX);
}

/* Index of the first filter of @chain of that kind, or -1. */
static int compliance_find(const GPtrArray *chain, const char *kind)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (g_strcmp0(node->filter_kind, kind) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* Whether a filter stands below a backing file, where no write passes it. */
static bool compliance_in_backing(const WeirGraph *graph,
                                  const WeirGraphNode *root,
                                  const char *kind)
{
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        if (g_strcmp0(node->filter_kind, kind) == 0 &&
            weir_graph_reaches(root, node)) {
            return true;
        }
    }
    return false;
}

/* Add a filter of which is said what is in @verdict. */
static void compliance_add_filter(WeirDiskStatus *status, const char *driver,
                                  const char *kind, const WeirGraphNode *node,
                                  const WeirVerdict *verdict)
{
    WeirFilterStatus *filter = g_new0(WeirFilterStatus, 1);

    filter->driver = g_strdup(driver);
    filter->kind = g_strdup(kind);
    filter->state = verdict->state;
    filter->since = verdict->since;
    if (verdict->reasons->len > 0) {
        filter->reason = g_strdup(verdict->reasons->str);
    }
    if (node) {
        filter->node_name = g_strdup(node->name);
        filter->filter = node->filter ? json_object_ref(node->filter) : NULL;
    }
    g_ptr_array_add(status->filters, filter);
}

/* Whether somebody has given a plugin other options. */
static void compliance_check_options(const WeirGraphNode *node,
                                     const WeirWanted *wanted,
                                     WeirVerdict *verdict)
{
    g_autoptr(GPtrArray) drift = node->plugin
        ? weir_plugin_drift(node->filter, node->plugin, wanted->options)
        : NULL;

    for (guint i = 0; drift && i < drift->len; i++) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT, "%s: %s",
                         node->filter_kind,
                         (char *)g_ptr_array_index(drift, i));
    }
}

static void compliance_check_present(const WeirGraphNode *node,
                                     const WeirWanted *wanted,
                                     const WeirDiskStatus *status,
                                     bool is_highest, WeirVerdict *verdict)
{
    WeirFacts facts = weir_facts_read(node->filter);

    facts.driver = node->filter_kind;
    if (!weir_graph_is_at(node, wanted->place)) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                         "%s is at place %s instead of %s",
                         node->filter_kind, facts.place, wanted->place);
    }
    compliance_check_options(node, wanted, verdict);
    weir_judge_filter(&facts, &status->limits,
                      is_highest ? status->recent : NULL, verdict);
}

/* Check each wanted filter, and that they come in that order. */
static void compliance_check_wanted(const WeirRecordDisk *disk,
                                    const WeirGraph *graph,
                                    const GPtrArray *chain,
                                    const WeirGraphNode *highest,
                                    WeirDiskStatus *status)
{
    g_autofree char *previous = NULL;
    int last = -1;

    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        g_autofree char *kind = weir_wanted_kind(wanted);
        int index = compliance_find(chain, kind);
        const WeirGraphNode *node = index < 0 ? NULL :
                                    g_ptr_array_index(chain, index);
        g_auto(WeirVerdict) verdict = { 0 };

        if (strcmp(wanted->role, "filter") != 0) {
            continue;
        }
        weir_verdict_init(&verdict);
        if (!node) {
            weir_verdict_add(&verdict, WEIR_NON_COMPLIANT, "%s is %s",
                             kind,
                             compliance_in_backing(
                                 graph, g_ptr_array_index(chain, 0), kind)
                                 ? "only below a backing file" : "missing");
        } else {
            compliance_check_present(node, wanted, status, node == highest,
                                     &verdict);
        }
        if (node && index < last) {
            weir_verdict_add(&verdict, WEIR_NON_COMPLIANT, "%s is above %s",
                             kind, previous);
        }
        if (node) {
            last = index;
            g_free(previous);
            previous = g_strdup(kind);
        }
        compliance_add_filter(status, wanted->driver, kind, node, &verdict);
    }
}

static bool compliance_wants(const WeirRecordDisk *disk, const char *kind)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        g_autofree char *found = weir_wanted_kind(wanted);

        if (strcmp(found, kind) == 0) {
            return true;
        }
    }
    return false;
}

static void compliance_check_extra(const WeirRecordDisk *disk,
                                   const GPtrArray *chain,
                                   WeirDiskStatus *status)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);
        const char *kind = node->filter_kind;
        bool wanted = kind && compliance_wants(disk, kind);
        g_auto(WeirVerdict) verdict = { 0 };

        if (!compliance_is_filter(node) ||
            (wanted && compliance_find(chain, kind) == (int)i)) {
            continue;
        }
        weir_verdict_init(&verdict);
        weir_verdict_add(&verdict, WEIR_NON_COMPLIANT,
                         wanted ? "%s is there twice"
                                : "%s is not in the policy", kind);
        compliance_add_filter(status, node->driver, kind, node, &verdict);
    }
}

/* Whether the disk was to have a node that ignores flushes. */
static bool compliance_wants_no_flush(const WeirRecordDisk *disk)
{
    const WeirWanted *top = g_ptr_array_index(disk->wanted, 0);

    return weir_json_bool(weir_json_object(top->options, "cache"), "no-flush",
                          false);
}

/* What a flush does not reach is lost in a power cut: logs, caches, disks. */
static void compliance_check_flushes(const WeirRecordDisk *disk,
                                     const WeirGraph *graph,
                                     GPtrArray *chain, WeirVerdict *verdict)
{
    const WeirGraphNode *root = g_ptr_array_index(chain, 0);
    GPtrArray *nodes = weir_graph_nodes(graph);
    bool wanted = compliance_wants_no_flush(disk);

    for (guint i = 0; i < nodes->len; i++) {
        WeirGraphNode *node = g_ptr_array_index(nodes, i);

        if (node->no_flush && weir_graph_reaches(root, node) &&
            !(wanted && g_ptr_array_find(chain, node, NULL))) {
            weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                             "node %s ignores flushes", node->name);
        }
    }
}

/* A limit with which nothing was compared is not kept for sure. */
static void compliance_check_told(const WeirDiskStatus *status,
                                  WeirVerdict *verdict)
{
    bool rpo = false;
    bool dirty = false;

    for (guint i = 0; i < status->filters->len; i++) {
        const WeirFilterStatus *filter = g_ptr_array_index(status->filters, i);
        WeirFacts facts = weir_facts_read(filter->filter);

        rpo = rpo || facts.rpo_ms >= 0;
        dirty = dirty || facts.dirty_bytes >= 0;
    }
    if (status->limits.rpo_ns > 0 && !rpo) {
        weir_verdict_add(verdict, WEIR_UNKNOWN, "no filter tells the RPO");
    }
    if (status->limits.dirty_bytes > 0 && !dirty) {
        weir_verdict_add(verdict, WEIR_UNKNOWN,
                         "no filter tells how much data is dirty");
    }
    if (status->limits.latency_ns > 0 && !status->latency) {
        weir_verdict_add(verdict, WEIR_UNKNOWN, "no filter tells latencies");
    }
}

/*
 * The disk is what the worst of its filters is: since the first of them is so,
 * or, when all comply, since the last one does.
 */
static void compliance_sum_up(const WeirDiskStatus *status,
                              WeirVerdict *verdict)
{
    WeirCompliance state = WEIR_COMPLIANT;
    gint64 since = 0;

    for (guint i = 0; i < status->filters->len; i++) {
        const WeirFilterStatus *filter = g_ptr_array_index(status->filters, i);

        if (filter->reason) {
            weir_verdict_add(verdict, filter->state, "%s", filter->reason);
        }
        if (weir_compliance_worse(state, filter->state) != state) {
            state = filter->state;
            since = 0;
        }
        if (filter->state == state && filter->since > 0) {
            since = since == 0 ? filter->since :
                    state == WEIR_COMPLIANT ? MAX(since, filter->since)
                                            : MIN(since, filter->since);
        }
    }
    verdict->since = since;
}

/* The highest filter, through which all requests pass. */
static WeirGraphNode *compliance_highest(const GPtrArray *chain)
{
    for (guint i = 0; i < chain->len; i++) {
        WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (weir_json_length(weir_json_array(node->filter,
                                             "statistics")) > 0) {
            return node;
        }
    }
    return NULL;
}

static void compliance_take_latency(const WeirGraphNode *highest,
                                    JsonArray *before, WeirDiskStatus *status)
{
    WeirFacts facts = weir_facts_read(highest ? highest->filter : NULL);

    if (highest) {
        status->latency = weir_facts_latency(&facts);
        status->recent = weir_latency_since(status->latency, before);
    }
}

/* One that was begun and has not ended. */
static void compliance_check_change(const WeirRecordDisk *disk,
                                    WeirVerdict *verdict)
{
    const WeirRecordDisk *change = disk->change;

    if (change) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT, "a change to %s%s%s was "
                         "interrupted, weir reapply or weir detach goes on "
                         "with it", change->policy ? "policy '" : "",
                         change->policy ? change->policy : "no policy",
                         change->policy ? "'" : "");
    }
}

static void compliance_disk(const WeirRecordDisk *disk, const WeirGraph *graph,
                            const WeirHistory *history,
                            WeirDiskStatus *status)
{
    WeirGraphNode *root = weir_record_disk_root(disk, graph);
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);
    const WeirGraphNode *highest = compliance_highest(chain);
    g_auto(WeirVerdict) verdict = { 0 };
    WeirCompliance of_filters;

    weir_verdict_init(&verdict);
    json_array_unref(status->actual);
    status->actual = compliance_actual(chain);
    compliance_take_latency(highest, weir_history_latency(history, disk->id),
                            status);
    if (!root) {
        weir_verdict_add(&verdict, WEIR_NON_COMPLIANT,
                         "the guest has no such disk any more");
    } else {
        compliance_check_wanted(disk, graph, chain, highest, status);
        compliance_check_extra(disk, chain, status);
        compliance_sum_up(status, &verdict);
    }
    of_filters = verdict.state;
    if (root) {
        compliance_check_flushes(disk, graph, chain, &verdict);
    }
    if (verdict.state == WEIR_COMPLIANT) {
        compliance_check_told(status, &verdict);
    }
    compliance_check_change(disk, &verdict);
    status->state = verdict.state;
    status->since = verdict.state == of_filters ? verdict.since : 0;
    status->reason = verdict.reasons->len ? g_strdup(verdict.reasons->str)
                                          : NULL;
    if (!disk->policy && !disk->change) {
        g_free(status->reason);
        status->state = WEIR_NOT_APPLICABLE;
        status->reason = g_strdup("under no policy");
    }
}

static void compliance_set_since(JsonObject *object, gint64 since)
{
    if (since > 0) {
        json_object_set_int_member(object, "since", since);
    } else {
        json_object_set_null_member(object, "since");
    }
}

void weir_compliance_record(const WeirRecord *record, const WeirGraph *graph,
                            const char *reason, const WeirHistory *history,
                            GPtrArray *statuses)
{
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        WeirDiskStatus *status = compliance_status_new(record->name, disk->id,
                                                       WEIR_UNKNOWN);

        status->policy = g_strdup(disk->policy);
        status->policy_version = disk->policy_version;
        status->limits = disk->limits;
        if (record->is_storage) {
            status->daemon = weir_storage_record_daemon_json(record);
            status->note = weir_storage_record_note(record);
        }
        json_array_unref(status->wanted);
        status->wanted = compliance_wanted(disk);
        if (graph) {
            compliance_disk(disk, graph, history, status);
        } else {
            status->reason = record->is_storage
                ? weir_storage_record_failure(record, reason) : NULL;
            status->state = status->reason ? WEIR_NON_COMPLIANT
                                           : WEIR_UNKNOWN;
            status->reason = status->reason ? status->reason
                                            : g_strdup(reason);
        }
        g_ptr_array_add(statuses, status);
    }
}

/* A disk of which nobody knows what it should be. */
static WeirDiskStatus *compliance_foreign(const char *vm, const char *disk,
                                          const GPtrArray *chain)
{
    g_auto(WeirVerdict) verdict = { 0 };
    WeirDiskStatus *status = compliance_status_new(vm, disk,
                                                   WEIR_NOT_APPLICABLE);

    status->reason = g_strdup("not started by weir run");
    json_array_unref(status->actual);
    status->actual = compliance_actual(chain);
    compliance_take_latency(compliance_highest(chain), NULL, status);
    weir_verdict_init(&verdict);
    verdict.state = WEIR_NOT_APPLICABLE;
    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (node->filter && node->driver) {
            compliance_add_filter(status, node->driver, node->filter_kind,
                                  node, &verdict);
        }
    }
    return status;
}

void weir_compliance_graph(const char *vm, const WeirGraph *graph,
                           GPtrArray *statuses)
{
    GPtrArray *nodes = weir_graph_nodes(graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);
        g_autofree char *name = weir_graph_device_name(node);
        g_autoptr(GPtrArray) chain = NULL;

        if (node->kind == WEIR_GRAPH_BACKEND && weir_graph_root(node)) {
            chain = weir_graph_chain(weir_graph_root(node));
            g_ptr_array_add(statuses, compliance_foreign(
                vm, *name ? name : weir_graph_root(node)->name, chain));
        }
    }
}

void weir_compliance_unknown(const char *vm, const char *disk,
                             const char *policy, const char *reason,
                             GPtrArray *statuses)
{
    WeirDiskStatus *status = compliance_status_new(vm, disk, WEIR_UNKNOWN);

    status->policy = g_strdup(policy);
    status->reason = g_strdup(reason);
    g_ptr_array_add(statuses, status);
}

static JsonObject *compliance_filter_json(const WeirFilterStatus *filter)
{
    WeirFacts facts = weir_facts_read(filter->filter);
    JsonObject *object = json_object_new();

    weir_json_set_string(object, "driver", filter->driver);
    compliance_set_plugin(object, filter->kind);
    weir_json_set_string(object, "node-name", filter->node_name);
    json_object_set_string_member(object, "state",
                                  weir_compliance_name(filter->state));
    weir_json_set_string(object, "reason", filter->reason);
    compliance_set_since(object, filter->since);
    json_object_set_object_member(object, "facts", weir_facts_json(&facts));
    return object;
}

static void compliance_set_latency(JsonObject *object, JsonArray *histogram)
{
    json_object_set_int_member(
        object, "latency-p99-ns",
        (gint64)weir_advice_percentile(histogram, WEIR_LIMITS_LATENCY_SHARE));
}

JsonObject *weir_disk_status_json(const WeirDiskStatus *status)
{
    JsonObject *object = json_object_new();
    JsonArray *filters = json_array_new();

    if (status->host) {
        json_object_set_string_member(object, "host", status->host);
    }
    weir_json_set_string(object, "vm", status->vm);
    weir_json_set_string(object, "disk", status->disk);
    weir_json_set_string(object, "policy", status->policy);
    if (status->policy) {
        json_object_set_int_member(object, "policy-version",
                                   status->policy_version);
        json_object_set_object_member(object, "limits",
                                      weir_limits_json(&status->limits));
    }
    json_object_set_string_member(object, "state",
                                  weir_compliance_name(status->state));
    weir_json_set_string(object, "reason", status->reason);
    if (status->note) {
        json_object_set_string_member(object, "note", status->note);
    }
    if (status->daemon) {
        json_object_set_object_member(object, "storage-daemon",
                                      json_object_ref(status->daemon));
    }
    compliance_set_since(object, status->since);
    if (status->recent) {
        compliance_set_latency(object, status->recent);
    }
    json_object_set_array_member(object, "wanted",
                                 json_array_ref(status->wanted));
    json_object_set_array_member(object, "actual",
                                 json_array_ref(status->actual));
    for (guint i = 0; i < status->filters->len; i++) {
        json_array_add_object_element(filters, compliance_filter_json(
            g_ptr_array_index(status->filters, i)));
    }
    json_object_set_array_member(object, "filters", filters);
    if (status->gaps) {
        json_object_set_array_member(object, "gaps",
                                     json_array_ref(status->gaps));
    }
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

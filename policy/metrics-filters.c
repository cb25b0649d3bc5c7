/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "metrics.h"

/* A number in a filter's entry of query-weir. */
typedef struct Field {
    const char *name;           /* of the family; rows of one are together */
    const char *type;
    const char *help;
    const char *driver;
    const char *object;         /* that has the member; NULL: the entry */
    const char *member;
    double scale;
    const char *label;          /* one more, and its value; NULL: none */
    const char *value;
} Field;

#define REPLICATION(name, type, member, scale, help) \
    { "weir_replication_" name, type, help, "weir-replication", NULL, \
      member, scale, NULL, NULL }
#define CACHE(name, type, member, scale, help) \
    { "weir_cache_" name, type, help, "weir-cache", NULL, member, scale, \
      NULL, NULL }
#define CACHE_LABELED(name, type, member, label, value, help) \
    { "weir_cache_" name, type, help, "weir-cache", NULL, member, 1, label, \
      value }
#define CONVERSION(name, member, help) \
    { "weir_encryption_conversion_" name, "gauge", help, "weir-encryption", \
      "job", member, 1, NULL, NULL }
#define JOURNAL(name, type, member, help) \
    { "weir_journal_" name, type, help, "weir-journal", NULL, member, 1, \
      NULL, NULL }
#define PLUGIN(name, type, member, help) \
    { "weir_plugin_" name, type, help, "weir-plugin", NULL, member, 1, \
      NULL, NULL }
#define CACHE_BLOCK_BYTES 4096

static const Field metrics_fields[] = {
    REPLICATION("rpo_seconds", "gauge", "rpo", 1e-3,
                "Age of the oldest write that is not durable in the log."),
    REPLICATION("queued_bytes", "gauge", "queued-bytes", 1,
                "Written, and not durable in the log."),
    REPLICATION("memory_bytes", "gauge", "memory-bytes", 1,
                "Memory in use for what is queued."),
    REPLICATION("resync_bytes", "gauge", "resync-bytes", 1,
                "Left to copy to the log."),
    REPLICATION("resync_size_bytes", "gauge", "resync-total", 1,
                "To copy to the log when that began."),
    REPLICATION("durable_epoch", "gauge", "epoch", 1,
                "The last epoch that is durable in the log."),
    REPLICATION("sent_bytes_total", "counter", "sent-bytes", 1,
                "Sent to the log."),
    REPLICATION("plain_bytes_total", "counter", "plain-bytes", 1,
                "Sent to the log, as it would be without compression."),
    REPLICATION("connections_total", "counter", "connections", 1,
                "Times that the log was connected to."),
    CACHE("size_bytes", "gauge", "size", 1, "What the cache can hold."),
    CACHE("used_bytes", "gauge", "used", 1, "What the cache holds."),
    CACHE("dirty_bytes", "gauge", "dirty", 1,
          "What the cache holds and the disk does not have yet."),
    CACHE("memory_bytes", "gauge", "memory", 1, "Memory of the index."),
    CACHE("write_back_lag_seconds", "gauge", "write-back-lag", 1e-3,
          "No dirty block is older."),
    CACHE("stalled_requests", "gauge", "stalled", 1,
          "Requests that wait until the cache can be written to."),
    CACHE_LABELED("hit_blocks_total", "counter", "read-hits", "operation",
                  "read", "Blocks of requests that were in the cache."),
    CACHE_LABELED("hit_blocks_total", "counter", "write-hits", "operation",
                  "write", NULL),
    CACHE_LABELED("miss_blocks_total", "counter", "read-misses", "operation",
                  "read", "Blocks of requests that were not in the cache."),
    CACHE_LABELED("miss_blocks_total", "counter", "write-misses", "operation",
                  "write", NULL),
    CACHE("filled_blocks_total", "counter", "fills", 1,
          "Blocks that came into the cache after a read, or through it."),
    CACHE("evicted_blocks_total", "counter", "evictions", 1,
          "Blocks that had to go."),
    CACHE("bypassed_blocks_total", "counter", "bypassed", 1,
          "Blocks that went past the cache."),
    CACHE("written_back_bytes_total", "counter", "written-back",
          CACHE_BLOCK_BYTES, "Written back to the disk."),
    CACHE("write_errors_total", "counter", "write-errors", 1,
          "Writes to the cache that failed."),
    CACHE_LABELED("corrupt_blocks_total", "counter", "corrupt-clean", "kind",
                  "clean", "Blocks whose checksum was wrong."),
    CACHE_LABELED("corrupt_blocks_total", "counter", "corrupt-dirty", "kind",
                  "dirty", NULL),
    CONVERSION("size_bytes", "total", "What is converted in place."),
    CONVERSION("done_bytes", "done", "How much of it is converted."),
    JOURNAL("size_bytes", "gauge", "size", "What the log can hold."),
    JOURNAL("used_bytes", "gauge", "used-bytes", "In use of it."),
    JOURNAL("points", "gauge", "points", "Points in time that can be opened."),
    JOURNAL("views", "gauge", "views", "Points in time that are open."),
    JOURNAL("epoch", "gauge", "epoch", "The last epoch that is whole."),
    JOURNAL("durable_epoch", "gauge", "durable-epoch",
            "The last epoch that is durable."),
    JOURNAL("applied_epoch", "gauge", "applied-epoch",
            "The last epoch that is in the base images."),
    JOURNAL("refused_requests_total", "counter", "refused",
            "Requests to write that were refused."),
    PLUGIN("held_requests", "gauge", "held",
           "Requests that the plugin holds."),
    PLUGIN("overdue_requests", "gauge", "overdue",
           "Of these, for longer than it may."),
    PLUGIN("expired_requests", "gauge", "expired",
           "Requests that ended without it and that it has not given back."),
    PLUGIN("bypassed_requests_total", "counter", "bypassed",
           "Requests that went past it."),
    PLUGIN("failed_requests_total", "counter", "failed",
           "Requests that failed because it could not do them."),
};

/* What a plugin tells of itself; the member says whether it only grows. */
static const Field metrics_figures[] = {
    { "weir_plugin_gauge", "gauge", "A figure of the plugin's own.",
      "weir-plugin", NULL, NULL, 1, NULL, NULL },
    { "weir_plugin_counter_total", "counter",
      "A figure of the plugin's own that only grows.", "weir-plugin", NULL,
      "counter", 1, NULL, NULL },
};

/* An operation's statistics, which each filter has. */
static const Field metrics_operations[] = {
    { "weir_filter_operations_total", "counter", "Requests that have ended.",
      NULL, NULL, "requests", 1, NULL, NULL },
    { "weir_filter_failed_operations_total", "counter",
      "Requests that have failed.", NULL, NULL, "failed", 1, NULL, NULL },
    { "weir_filter_bytes_total", "counter", "Lengths of requests.", NULL,
      NULL, "bytes", 1, NULL, NULL },
    { "weir_filter_operations_seconds_total", "counter",
      "Time that requests took, the nodes below included.", NULL, NULL,
      "latency-total", 1e-9, NULL, NULL },
    { "weir_filter_in_flight_operations", "gauge",
      "Requests that have not ended.", NULL, NULL, "in-flight", 1, NULL,
      NULL },
};

typedef void (*MetricsFn)(WeirExposition *out, const WeirDiskStatus *status,
                          const WeirFilterStatus *filter, const Field *field);

/* Begin a family, unless the row before was of it, and add what it has. */
static void metrics_add_field(WeirExposition *out, const GPtrArray *statuses,
                              const Field *field, MetricsFn add)
{
    if (field->help) {
        weir_exposition_family(out, field->name, field->type, field->help);
    }
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        for (guint j = 0; j < status->filters->len; j++) {
            add(out, status, g_ptr_array_index(status->filters, j), field);
        }
    }
}

static void metrics_add_sample(WeirExposition *out,
                               const WeirDiskStatus *status,
                               const WeirFilterStatus *filter,
                               const char *label, const char *label_value,
                               double value)
{
    const char *const labels[] = {
        "host", status->host, "vm", status->vm, "disk", status->disk, "node",
        filter->node_name ? filter->node_name : "", "driver", filter->driver,
        "plugin", weir_kind_plugin(filter->kind), label, label_value, NULL
    };

    weir_exposition_sample(out, "", labels, value);
}

static void metrics_add_member(WeirExposition *out,
                               const WeirDiskStatus *status,
                               const WeirFilterStatus *filter,
                               const Field *field)
{
    JsonObject *object = field->object
        ? weir_json_object(filter->filter, field->object) : filter->filter;
    double value = weir_json_number(object, field->member, -1);

    if (value >= 0 && strcmp(filter->driver, field->driver) == 0) {
        metrics_add_sample(out, status, filter, field->label, field->value,
                           value * field->scale);
    }
}

static void metrics_add_operation(WeirExposition *out,
                                  const WeirDiskStatus *status,
                                  const WeirFilterStatus *filter,
                                  const Field *field)
{
    JsonArray *statistics = weir_json_array(filter->filter, "statistics");

    for (guint i = 0; i < weir_json_length(statistics); i++) {
        JsonObject *object = weir_json_object_at(statistics, i);
        const char *operation = weir_json_string(object, "operation");
        double value = weir_json_number(object, field->member, -1);

        if (operation && value >= 0) {
            metrics_add_sample(out, status, filter, "operation", operation,
                               value * field->scale);
        }
    }
}

static void metrics_add_figure(WeirExposition *out,
                               const WeirDiskStatus *status,
                               const WeirFilterStatus *filter,
                               const Field *field)
{
    JsonArray *figures = strcmp(filter->driver, field->driver) == 0
        ? weir_json_array(filter->filter, "gauges") : NULL;

    for (guint i = 0; i < weir_json_length(figures); i++) {
        JsonObject *object = weir_json_object_at(figures, i);
        const char *name = weir_json_string(object, "name");
        double value = weir_json_number(object, "value", -1);

        if (name && value >= 0 &&
            weir_json_bool(object, "counter", false) == !!field->member) {
            metrics_add_sample(out, status, filter, "name", name, value);
        }
    }
}

static void metrics_add_compliance(WeirExposition *out,
                                   const WeirDiskStatus *status,
                                   const WeirFilterStatus *filter,
                                   const Field *field)
{
    (void)field;
    for (guint i = 0; i < WEIR_COMPLIANCES; i++) {
        metrics_add_sample(out, status, filter, "state",
                           weir_compliance_name((WeirCompliance)i),
                           filter->state == i);
    }
}

/* 1 for the word of @words that the member is, 0 for the others. */
static void metrics_add_words(WeirExposition *out,
                              const WeirDiskStatus *status,
                              const WeirFilterStatus *filter,
                              const char *member, const char *const *words)
{
    const char *word = weir_json_string(filter->filter, member);

    for (; word && *words; words++) {
        metrics_add_sample(out, status, filter, "state", *words,
                           strcmp(word, *words) == 0);
    }
}

static void metrics_add_state(WeirExposition *out,
                              const WeirDiskStatus *status,
                              const WeirFilterStatus *filter,
                              const Field *field)
{
    static const char *const states[] = { "ok", "degraded", "failed", NULL };

    metrics_add_words(out, status, filter, field->member, states);
}

static void metrics_add_replication(WeirExposition *out,
                                    const WeirDiskStatus *status,
                                    const WeirFilterStatus *filter,
                                    const Field *field)
{
    static const char *const states[] = {
        "disconnected", "synchronising", "streaming", "stopped", NULL
    };

    if (strcmp(filter->driver, field->driver) == 0) {
        metrics_add_words(out, status, filter, field->member, states);
    }
}

void weir_metrics_add_filters(WeirExposition *exposition,
                              const GPtrArray *statuses)
{
    static const struct {
        Field field;
        MetricsFn add;
    } words[] = {
        { { .name = "weir_filter_compliance", .type = "gauge",
            .help = "1 for the state that the filter is in, else 0." },
          metrics_add_compliance },
        { { .name = "weir_filter_state", .type = "gauge", .member = "state",
            .help = "1 for what the filter says that it is, else 0." },
          metrics_add_state },
        { { .name = "weir_replication_state", .type = "gauge",
            .driver = "weir-replication", .member = "status",
            .help = "1 for how far the replication is, else 0." },
          metrics_add_replication },
    };

    for (guint i = 0; i < G_N_ELEMENTS(words); i++) {
        metrics_add_field(exposition, statuses, &words[i].field,
                          words[i].add);
    }
    for (guint i = 0; i < G_N_ELEMENTS(metrics_operations); i++) {
        metrics_add_field(exposition, statuses, &metrics_operations[i],
                          metrics_add_operation);
    }
    for (guint i = 0; i < G_N_ELEMENTS(metrics_fields); i++) {
        metrics_add_field(exposition, statuses, &metrics_fields[i],
                          metrics_add_member);
    }
    for (guint i = 0; i < G_N_ELEMENTS(metrics_figures); i++) {
        metrics_add_field(exposition, statuses, &metrics_figures[i],
                          metrics_add_figure);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "traffic.h"

#include <string.h>

static const struct {
    const char *name;           /* and as an operation of a filter */
    const char *requests;       /* in query-blockstats */
    const char *failed;
    const char *bytes;
    const char *latency;
} traffic_kinds[WEIR_TRAFFIC_KINDS] = {
    [WEIR_TRAFFIC_READ] = { "read", "rd_operations", "failed_rd_operations",
                            "rd_bytes", "rd_total_time_ns" },
    [WEIR_TRAFFIC_WRITE] = { "write", "wr_operations", "failed_wr_operations",
                             "wr_bytes", "wr_total_time_ns" },
    [WEIR_TRAFFIC_DISCARD] = { "discard", "unmap_operations",
                               "failed_unmap_operations", "unmap_bytes",
                               "unmap_total_time_ns" },
    [WEIR_TRAFFIC_FLUSH] = { "flush", "flush_operations",
                             "failed_flush_operations", "",
                             "flush_total_time_ns" },
};

const char *weir_traffic_name(WeirTrafficKind kind)
{
    return traffic_kinds[kind].name;
}

static gint64 traffic_number(JsonObject *object, const char *name)
{
    return MAX(weir_json_int(object, name, 0), 0);
}

/* QEMU counts requests that have failed apart. */
static void traffic_of_device(JsonObject *stats, WeirTraffic *traffic)
{
    traffic->known = true;
    for (guint i = 0; i < WEIR_TRAFFIC_KINDS; i++) {
        gint64 failed = traffic_number(stats, traffic_kinds[i].failed);

        traffic->kinds[i].failed = failed;
        traffic->kinds[i].requests = failed + traffic_number(
            stats, traffic_kinds[i].requests);
        traffic->kinds[i].bytes = traffic_number(stats,
                                                 traffic_kinds[i].bytes);
        traffic->kinds[i].latency_ns = traffic_number(
            stats, traffic_kinds[i].latency);
    }
}

static void traffic_of_filter(JsonArray *statistics, WeirTraffic *traffic)
{
    traffic->known = true;
    for (guint i = 0; i < weir_json_length(statistics); i++) {
        JsonObject *object = weir_json_object_at(statistics, i);
        const char *operation = weir_json_string(object, "operation");

        for (guint j = 0; j < WEIR_TRAFFIC_KINDS; j++) {
            if (g_strcmp0(operation, traffic_kinds[j].name) == 0) {
                traffic->kinds[j].requests = traffic_number(object,
                                                            "requests");
                traffic->kinds[j].failed = traffic_number(object, "failed");
                traffic->kinds[j].bytes = traffic_number(object, "bytes");
                traffic->kinds[j].latency_ns = traffic_number(
                    object, "latency-total");
            }
        }
    }
}

/* The statistics of the device on node @name, or NULL. */
static JsonObject *traffic_find_device(JsonNode *blockstats, const char *name)
{
    JsonArray *devices = weir_json_as_array(blockstats);

    for (guint i = 0; name && i < weir_json_length(devices); i++) {
        JsonObject *device = weir_json_object_at(devices, i);

        if (g_strcmp0(weir_json_string(device, "node-name"), name) == 0) {
            return weir_json_object(device, "stats");
        }
    }
    return NULL;
}

WeirTraffic weir_traffic_read(const WeirDiskStatus *status,
                              JsonNode *blockstats)
{
    WeirTraffic traffic = { 0 };
    JsonObject *root = weir_json_length(status->actual) == 0 ? NULL :
                       weir_json_object_at(status->actual, 0);
    JsonObject *device = traffic_find_device(
        blockstats, weir_json_string(root, "node-name"));

    if (device) {
        traffic_of_device(device, &traffic);
        return traffic;
    }
    for (guint i = 0; i < status->filters->len && !traffic.known; i++) {
        const WeirFilterStatus *filter = g_ptr_array_index(status->filters, i);
        JsonArray *statistics = weir_json_array(filter->filter, "statistics");

        if (weir_json_length(statistics) > 0) {
            traffic_of_filter(statistics, &traffic);
        }
    }
    return traffic;
}

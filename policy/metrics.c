/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "metrics.h"

#include <math.h>
#include <string.h>

#define METRICS_NS_PER_S 1e9

/* --- machines --- */

static void metrics_add_hosts(WeirExposition *out, const GPtrArray *hosts)
{
    weir_exposition_family(out, "weir_host_up", "gauge",
                           "Whether libvirt on the host could be asked.");
    for (guint i = 0; hosts && i < hosts->len; i++) {
        const WeirHostSeen *seen = g_ptr_array_index(hosts, i);
        const char *const labels[] = { "host", seen->name, NULL };

        weir_exposition_sample(out, "", labels, seen->reason == NULL);
    }
}

static void metrics_add_vms(WeirExposition *out, const GPtrArray *targets)
{
    weir_exposition_family(out, "weir_vm_up", "gauge",
                           "Whether the VM could be asked.");
    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);
        const char *const labels[] = { "host", target->host, "vm",
                                       target->name, NULL };

        if (!target->record || !target->record->is_storage) {
            weir_exposition_sample(out, "", labels, target->graph != NULL);
        }
    }
}

static double metrics_daemon_up(const WeirTarget *target)
{
    return target->graph != NULL;
}

static double metrics_daemon_restarts(const WeirTarget *target)
{
    return (double)target->record->daemon.restarts;
}

static double metrics_daemon_failures(const WeirTarget *target)
{
    return (double)target->record->daemon.failures;
}

/* A number of each storage daemon. */
static void metrics_add_daemon(WeirExposition *out, const GPtrArray *targets,
                               double (*get)(const WeirTarget *target))
{
    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);
        const char *const labels[] = { "host", target->host, "vm",
                                       target->name, NULL };

        if (target->record && target->record->is_storage) {
            weir_exposition_sample(out, "", labels, get(target));
        }
    }
}

static void metrics_add_daemons(WeirExposition *out, const GPtrArray *targets)
{
    weir_exposition_family(out, "weir_storage_daemon_up", "gauge",
                           "Whether the storage daemon of the VM could be "
                           "asked.");
    metrics_add_daemon(out, targets, metrics_daemon_up);
    weir_exposition_family(out, "weir_storage_daemon_restarts_total",
                           "counter",
                           "How often the storage daemon was started again.");
    metrics_add_daemon(out, targets, metrics_daemon_restarts);
    weir_exposition_family(out, "weir_storage_daemon_failures", "gauge",
                           "Attempts in a row to start it that failed.");
    metrics_add_daemon(out, targets, metrics_daemon_failures);
}

/* --- disks --- */

static void metrics_add_infos(WeirExposition *out, const GPtrArray *statuses)
{
    weir_exposition_family(out, "weir_disk_info", "gauge",
                           "The policy of a disk; always 1.");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        g_autofree char *version = g_strdup_printf(
            "%" G_GINT64_FORMAT, status->policy_version);
        const char *const labels[] = {
            "host", status->host, "vm", status->vm, "disk", status->disk,
            "policy", status->policy, "policy_version", version, NULL
        };

        if (status->policy) {
            weir_exposition_sample(out, "", labels, 1);
        }
    }
}

static void metrics_add_compliances(WeirExposition *out,
                                    const GPtrArray *statuses)
{
    weir_exposition_family(out, "weir_disk_compliance", "gauge",
                           "1 for the state that the disk is in, else 0.");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        for (guint j = 0; status->disk && j < WEIR_COMPLIANCES; j++) {
            const char *const labels[] = {
                "host", status->host, "vm", status->vm, "disk", status->disk,
                "state", weir_compliance_name((WeirCompliance)j), NULL
            };

            weir_exposition_sample(out, "", labels, status->state == j);
        }
    }
}

/* A number of each disk; NAN: it has none. */
static void metrics_add_disks(WeirExposition *out, const GPtrArray *statuses,
                              double (*get)(const WeirDiskStatus *status))
{
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        const char *const labels[] = { "host", status->host, "vm", status->vm,
                                       "disk", status->disk, NULL };
        double value = get(status);

        if (!isnan(value)) {
            weir_exposition_sample(out, "", labels, value);
        }
    }
}

static double metrics_since(const WeirDiskStatus *status)
{
    return status->since > 0 ? (double)status->since : NAN;
}

static double metrics_rpo(const WeirDiskStatus *status)
{
    return status->limits.rpo_ns > 0
               ? (double)status->limits.rpo_ns / METRICS_NS_PER_S : NAN;
}

static double metrics_dirty(const WeirDiskStatus *status)
{
    return status->limits.dirty_bytes > 0 ? (double)status->limits.dirty_bytes
                                          : NAN;
}

static double metrics_latency(const WeirDiskStatus *status)
{
    return status->limits.latency_ns > 0
               ? (double)status->limits.latency_ns / METRICS_NS_PER_S : NAN;
}

static void metrics_add_numbers(WeirExposition *out, const GPtrArray *statuses)
{
    static const struct {
        const char *name;
        const char *help;
        double (*get)(const WeirDiskStatus *status);
    } numbers[] = {
        { "weir_disk_compliance_since_timestamp_seconds",
          "Since when the disk is in its state.", metrics_since },
        { "weir_disk_limit_rpo_seconds",
          "By how much the log of a replication may be behind.",
          metrics_rpo },
        { "weir_disk_limit_dirty_bytes",
          "How much data in a cache the disk may not have yet.",
          metrics_dirty },
        { "weir_disk_limit_latency_seconds",
          "Within which 99 % of the reads and writes have to end.",
          metrics_latency },
    };

    for (guint i = 0; i < G_N_ELEMENTS(numbers); i++) {
        weir_exposition_family(out, numbers[i].name, "gauge",
                               numbers[i].help);
        metrics_add_disks(out, statuses, numbers[i].get);
    }
}

/* --- traffic --- */

static void metrics_add_traffic(WeirExposition *out, const WeirWatch *watch,
                                size_t offset, double scale)
{
    for (guint i = 0; i < watch->statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(watch->statuses, i);
        const WeirTraffic *traffic = &g_array_index(watch->traffics,
                                                    WeirTraffic, i);

        for (guint j = 0; traffic->known && j < WEIR_TRAFFIC_KINDS; j++) {
            const char *const labels[] = {
                "host", status->host, "vm", status->vm, "disk", status->disk,
                "operation", weir_traffic_name((WeirTrafficKind)j), NULL
            };
            gint64 value;

            memcpy(&value, (const char *)&traffic->kinds[j] + offset,
                   sizeof(value));
            weir_exposition_sample(out, "", labels, (double)value * scale);
        }
    }
}

static void metrics_add_traffics(WeirExposition *out, const WeirWatch *watch)
{
#define METRICS_TRAFFIC(member) \
    (offsetof(WeirTraffic, kinds[0].member) - offsetof(WeirTraffic, kinds[0]))
    static const struct {
        const char *name;
        const char *help;
        size_t offset;
        double scale;
    } counters[] = {
        { "weir_disk_operations_total", "Requests that have ended.",
          METRICS_TRAFFIC(requests), 1 },
        { "weir_disk_failed_operations_total", "Requests that have failed.",
          METRICS_TRAFFIC(failed), 1 },
        { "weir_disk_bytes_total", "Lengths of requests.",
          METRICS_TRAFFIC(bytes), 1 },
        { "weir_disk_operations_seconds_total", "Time that requests took.",
          METRICS_TRAFFIC(latency_ns), 1 / METRICS_NS_PER_S },
    };

    for (guint i = 0; i < G_N_ELEMENTS(counters); i++) {
        weir_exposition_family(out, counters[i].name, "counter",
                               counters[i].help);
        metrics_add_traffic(out, watch, counters[i].offset,
                            counters[i].scale);
    }
}

/* --- latencies --- */

/* Upper ends of buckets, as exponents of two of nanoseconds: 16 us to 17 s. */
#define METRICS_BUCKET_FIRST 14
#define METRICS_BUCKET_LAST 34
#define METRICS_BUCKET_STEP 2

static double metrics_count(JsonArray *histogram, guint length)
{
    double count = 0;

    for (guint i = 0; i < MIN(length, weir_json_length(histogram)); i++) {
        count += MAX(weir_json_int_at(histogram, i, 0), 0);
    }
    return count;
}

static void metrics_add_bucket(WeirExposition *out,
                               const WeirDiskStatus *status,
                               const char *operation, const char *le,
                               double count)
{
    const char *const labels[] = {
        "host", status->host, "vm", status->vm, "disk", status->disk,
        "operation", operation, "le", le, NULL
    };

    weir_exposition_sample(out, "_bucket", labels, count);
}

static void metrics_add_histogram(WeirExposition *out,
                                  const WeirDiskStatus *status,
                                  JsonObject *operation)
{
    const char *name = weir_json_string(operation, "operation");
    JsonArray *histogram = weir_json_array(operation, "latency-histogram");
    double sum_ns = weir_json_number(operation, "latency-total", 0);
    double count = metrics_count(histogram, G_MAXUINT);
    const char *const labels[] = {
        "host", status->host, "vm", status->vm, "disk", status->disk,
        "operation", name, NULL
    };

    for (guint i = METRICS_BUCKET_FIRST; i <= METRICS_BUCKET_LAST;
         i += METRICS_BUCKET_STEP) {
        char le[G_ASCII_DTOSTR_BUF_SIZE];

        g_ascii_formatd(le, sizeof(le), "%.15g",
                        ldexp(1 / METRICS_NS_PER_S, (int)i));
        metrics_add_bucket(out, status, name, le,
                           metrics_count(histogram, i));
    }
    metrics_add_bucket(out, status, name, "+Inf", count);
    weir_exposition_sample(out, "_sum", labels,
                           MAX(sum_ns, 0) / METRICS_NS_PER_S);
    weir_exposition_sample(out, "_count", labels, count);
}

static void metrics_add_histograms(WeirExposition *out,
                                   const GPtrArray *statuses)
{
    weir_exposition_family(out, "weir_disk_latency_seconds", "histogram",
                           "Latencies of requests, as the highest filter sees "
                           "them.");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        JsonArray *statistics = NULL;

        for (guint j = 0; !weir_json_length(statistics) &&
                          j < status->filters->len; j++) {
            const WeirFilterStatus *filter = g_ptr_array_index(
                status->filters, j);

            statistics = weir_json_array(filter->filter, "statistics");
        }
        for (guint j = 0; j < weir_json_length(statistics); j++) {
            JsonObject *operation = weir_json_object_at(statistics, j);

            if (weir_json_string(operation, "operation")) {
                metrics_add_histogram(out, status, operation);
            }
        }
    }
}

void weir_metrics_add(WeirExposition *exposition, const WeirWatch *watch)
{
    metrics_add_hosts(exposition, watch->hosts);
    metrics_add_vms(exposition, watch->targets);
    metrics_add_daemons(exposition, watch->targets);
    metrics_add_infos(exposition, watch->statuses);
    metrics_add_compliances(exposition, watch->statuses);
    metrics_add_numbers(exposition, watch->statuses);
    metrics_add_traffics(exposition, watch);
    metrics_add_histograms(exposition, watch->statuses);
    weir_metrics_add_filters(exposition, watch->statuses);
}

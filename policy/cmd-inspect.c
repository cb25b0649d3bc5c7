/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir inspect */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "advice.h"
#include "inspected.h"
#include "table.h"
#include "units.h"
#include "weir.h"

#define INSPECT_BAR_WIDTH 40
#define INSPECT_CURVE_STEP 0.04

typedef struct InspectOptions {
    char *qmp;
    char *runtime_dir;
    gboolean json;
} InspectOptions;

static void inspect_options_clear(InspectOptions *options)
{
    g_free(options->qmp);
    g_free(options->runtime_dir);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(InspectOptions, inspect_options_clear)

static void inspect_add_operation(WeirTable *table, JsonObject *operation)
{
    JsonArray *histogram = weir_json_array(operation, "latency-histogram");
    gint64 requests = weir_json_int(operation, "requests", 0);
    g_autofree char *count = g_strdup_printf("%" G_GINT64_FORMAT, requests);
    g_autofree char *failed = g_strdup_printf(
        "%" G_GINT64_FORMAT, weir_json_int(operation, "failed", 0));
    g_autofree char *bytes = weir_format_bytes(
        weir_json_number(operation, "bytes", 0));
    g_autofree char *median = weir_format_time(
        weir_advice_percentile(histogram, 0.5));
    g_autofree char *high = weir_format_time(
        weir_advice_percentile(histogram, 0.99));

    g_autofree char *name = g_strconcat(
        "  ", weir_json_string(operation, "operation"), NULL);

    if (requests > 0) {
        weir_table_row(table, name, count, bytes, failed, median, high);
    }
}

static void inspect_print_operations(JsonObject *info)
{
    g_autoptr(WeirTable) table = weir_table_new(6);
    JsonArray *statistics = weir_json_array(info, "statistics");

    weir_table_row(table, "  OPERATION", "REQUESTS", "BYTES", "FAILED", "P50",
                   "P99");
    for (guint i = 0; i < weir_json_length(statistics); i++) {
        inspect_add_operation(table, weir_json_object_at(statistics, i));
    }
    weir_table_print(table);
}

static void inspect_print_traffic(const char *name, JsonObject *traffic)
{
    JsonArray *sizes = weir_json_array(traffic, "size-histogram");
    double requests = weir_json_number(traffic, "requests", 0);
    double sequential = weir_json_number(traffic, "sequential", 0);
    /* Most lengths are powers of two, the least that an element counts. */
    g_autofree char *median = weir_format_bytes(
        ldexp(512, weir_advice_element(sizes, 0.5)));
    g_autofree char *high = weir_format_bytes(
        ldexp(512, weir_advice_element(sizes, 0.99)));

    if (requests > 0) {
        printf("%s: %.0f%% sequential, size p50 %s, p99 %s\n", name,
               100 * sequential / requests, median, high);
    }
}

static void inspect_print_point(JsonObject *point, double ratio)
{
    g_autofree char *size = weir_format_bytes(
        weir_json_number(point, "cache-size", 0));
    g_autofree char *bar = g_strnfill(
        (gsize)(CLAMP(ratio, 0, 1) * INSPECT_BAR_WIDTH + 0.5), '#');

    printf("  %9s  %5.3f  %s\n", size, ratio, bar);
}

/* The points at which the curve goes on falling, and its two ends. */
static void inspect_print_curve(JsonArray *curve)
{
    guint length = weir_json_length(curve);
    double printed = 2;

    for (guint i = 0; i < length; i++) {
        JsonObject *point = weir_json_object_at(curve, i);
        double ratio = weir_json_number(point, "miss-ratio", 0);

        if (printed - ratio >= INSPECT_CURVE_STEP || i + 1 == length) {
            inspect_print_point(point, ratio);
            printed = ratio;
        }
    }
}

static void inspect_print_working_set(JsonObject *set)
{
    JsonArray *curve = weir_json_array(set, "curve");
    g_autofree char *unique = weir_format_bytes(
        weir_json_number(set, "unique-bytes", 0));
    g_autofree char *size = NULL;
    guint64 size_bytes;
    double ratio;

    if (!set) {
        printf("working set: turned off\n");
        return;
    }
    printf("working set: %s\n", unique);
    if (!weir_advice_cache(curve, &size_bytes, &ratio)) {
        return;
    }
    size = weir_format_bytes((double)size_bytes);
    printf("miss ratio by cache size:\n");
    inspect_print_curve(curve);
    printf("recommended cache: %s (miss ratio %.3f, within %.2f of the "
           "best)\n", size, ratio, WEIR_ADVICE_MARGIN);
}

static void inspect_print_entropy(JsonObject *entropy)
{
    if (!entropy) {
        printf("entropy: turned off\n");
        return;
    }
    printf("entropy: %.2f bits per byte in the last %.0f s, %.0f overwrites "
           "seen, %.0f%% suspicious\n",
           weir_json_number(entropy, "mean-bits", 0),
           weir_json_number(entropy, "window", 0),
           weir_json_number(entropy, "overwrites", 0),
           100 * weir_json_number(entropy, "share", 0));
    printf("alert: %s (%.0f so far)\n",
           weir_json_bool(entropy, "alert", false) ? "YES" : "no",
           weir_json_number(entropy, "alerts", 0));
}

static void inspect_print(const WeirInspected *inspected)
{
    const char *state = weir_json_string(inspected->info, "state");
    g_autofree char *disk = weir_printable(inspected->disk);

    printf("VM %s, disk %s: %s is %s\n", inspected->vm, disk,
           weir_json_string(inspected->info, "node-name"),
           state ? state : "in an unknown state");
    inspect_print_operations(inspected->info);
    inspect_print_traffic("reads", weir_json_object(inspected->info,
                                                    "reads"));
    inspect_print_traffic("writes", weir_json_object(inspected->info,
                                                     "writes"));
    inspect_print_working_set(weir_json_object(inspected->info,
                                               "working-set"));
    inspect_print_entropy(weir_json_object(inspected->info, "entropy"));
}

static JsonObject *inspect_json(const WeirInspected *inspected)
{
    JsonObject *object = json_object_new();
    JsonArray *curve = weir_json_array(
        weir_json_object(inspected->info, "working-set"), "curve");
    guint64 size_bytes;
    double ratio;

    json_object_set_string_member(object, "vm", inspected->vm);
    json_object_set_string_member(object, "disk", inspected->disk);
    if (weir_advice_cache(curve, &size_bytes, &ratio)) {
        json_object_set_int_member(object, "recommended-cache-size",
                                   (gint64)size_bytes);
    }
    json_object_set_object_member(object, "filter",
                                  json_object_ref(inspected->info));
    return object;
}

static void inspect_print_all(const GPtrArray *found, bool json)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);
    JsonArray *array = json_array_new();
    g_autofree char *text = NULL;

    for (guint i = 0; i < found->len; i++) {
        const WeirInspected *inspected = g_ptr_array_index(found, i);

        if (json) {
            json_array_add_object_element(array, inspect_json(inspected));
        } else {
            printf("%s", i ? "\n" : "");
            inspect_print(inspected);
        }
    }
    json_node_take_array(node, array);
    if (json) {
        text = weir_json_text(node, true);
        printf("%s\n", text);
    }
}

static int inspect_run(const InspectOptions *options, const char *vm,
                       const char *disk)
{
    g_auto(WeirTargetQuery) query = {
        .dir = weir_runtime_dir(options->runtime_dir),
        .vm = g_strdup(vm),
        .qmp = g_strdup(options->qmp),
        .timeout_ms = WEIR_TARGET_TIMEOUT_MS,
    };
    g_autoptr(GPtrArray) targets = NULL;
    g_autoptr(GPtrArray) found = NULL;
    GError *error = NULL;

    targets = weir_targets_ask(&query, &error);
    if (!targets || !(found = weir_inspected_find(targets, disk, &error))) {
        return weir_fail(error);
    }
    inspect_print_all(found, options->json);
    return WEIR_EXIT_OK;
}

int weir_cmd_inspect(int argc, char **argv)
{
    g_auto(InspectOptions) options = { 0 };
    GOptionEntry entries[] = {
        { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.qmp,
          "Ask the QEMU with this QMP socket", "SOCKET" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &options.json, "Print JSON", NULL },
        WEIR_OPTION_RUNTIME_DIR(&options.runtime_dir),
        G_OPTION_ENTRY_NULL
    };
    int first;

    if (!weir_parse(&argc, &argv, entries, "[VM [DISK]]",
                    "Show what the filter weir-inspect has seen: requests and "
                    "latencies, request\nsizes, working set, miss ratio by "
                    "cache size with the size that this disk needs\n(the "
                    "smallest within 0.05 of the best miss ratio), and "
                    "entropy.  With --qmp, VM\nis left out.\n\n"
                    "Exit codes: 0 done, 1 error or no such filter, 2 wrong "
                    "usage.")) {
        return WEIR_EXIT_USAGE;
    }
    first = options.qmp ? 0 : 1;
    if (argc > first + 2) {
        return weir_usage("inspect: found '%s', expected %s", argv[first + 2],
                          options.qmp ? "a disk" : "a VM and a disk");
    }
    return inspect_run(&options, first && argc > 1 ? argv[1] : NULL,
                       argc > first + 1 ? argv[first + 1] : NULL);
}

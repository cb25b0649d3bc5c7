/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is shown and exported of disks, from looks of which all is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "metrics.h"
#include "top.h"

#define HOSTILE "a\"b\\c\nd\xff}\t\xc3\xa4 # HELP {x=\"y\"} 1"

static JsonNode *parse(const char *text)
{
    JsonNode *node = weir_json_parse(text, strlen(text), NULL);

    assert_non_null(node);
    return node;
}

static WeirWatch *watch_new(void)
{
    return weir_watch_new(weir_targets_new(), NULL, false);
}

/* Add a disk with one filter; returns its traffic. */
static WeirTraffic *add_disk(WeirWatch *watch, const char *vm,
                             const char *disk, WeirCompliance state,
                             const char *filter_text)
{
    WeirDiskStatus *status = g_new0(WeirDiskStatus, 1);
    WeirFilterStatus *filter = g_new0(WeirFilterStatus, 1);
    g_autoptr(JsonNode) node = parse(filter_text);
    JsonObject *object = weir_json_as_object(node);

    status->vm = g_strdup(vm);
    status->disk = g_strdup(disk);
    status->policy = g_strdup(disk);
    status->state = state;
    status->since = 1000;
    status->wanted = json_array_new();
    status->actual = json_array_new();
    status->filters = g_ptr_array_new();
    filter->driver = g_strdup(weir_json_string(object, "driver"));
    filter->node_name = g_strdup(disk);
    filter->state = state;
    filter->filter = json_object_ref(object);
    g_ptr_array_add(status->filters, filter);
    g_ptr_array_add(watch->statuses, status);
    g_array_set_size(watch->traffics, watch->statuses->len);
    return &g_array_index(watch->traffics, WeirTraffic,
                          watch->traffics->len - 1);
}

static void watch_end(WeirWatch *watch)
{
    for (guint i = 0; i < watch->statuses->len; i++) {
        WeirDiskStatus *status = g_ptr_array_index(watch->statuses, i);
        WeirFilterStatus *filter = g_ptr_array_index(status->filters, 0);

        json_object_unref(filter->filter);
        g_free(filter->driver);
        g_free(filter->node_name);
        g_free(filter);
    }
    weir_watch_free(watch);
}

#define REPLICATION(rpo) \
    "{\"driver\":\"weir-replication\",\"status\":\"streaming\",\"rpo\":" rpo "}"
#define CACHE(dirty) "{\"driver\":\"weir-cache\",\"dirty\":" dirty "}"

static const char *text_of(const WeirTopRow *row, WeirTopColumn column)
{
    static char text[64];
    g_autofree char *cell = weir_top_cell(row, column);

    g_strlcpy(text, cell ? cell : "-", sizeof(text));
    return text;
}

static void test_rates(void **state)
{
    WeirWatch *before = watch_new();
    WeirWatch *now = watch_new();
    WeirTraffic *traffic = add_disk(before, "v", "d", WEIR_COMPLIANT,
                                    REPLICATION("0"));
    g_autoptr(GPtrArray) rows = NULL;
    const WeirTopRow *row;

    (void)state;
    traffic->known = true;
    traffic->kinds[WEIR_TRAFFIC_READ].requests = 100;
    traffic->kinds[WEIR_TRAFFIC_WRITE].requests = 7;
    traffic = add_disk(now, "v", "d", WEIR_COMPLIANT, REPLICATION("1500"));
    traffic->known = true;
    traffic->kinds[WEIR_TRAFFIC_READ].requests = 300;
    traffic->kinds[WEIR_TRAFFIC_READ].bytes = 8192;
    traffic->kinds[WEIR_TRAFFIC_READ].latency_ns = 400000;
    traffic->kinds[WEIR_TRAFFIC_WRITE].requests = 3;    /* another QEMU */
    rows = weir_top_rows(now, before, 2);
    row = g_ptr_array_index(rows, 0);
    assert_string_equal(text_of(row, WEIR_TOP_READS), "100");
    assert_string_equal(text_of(row, WEIR_TOP_READ_BYTES), "4.0 KiB");
    assert_string_equal(text_of(row, WEIR_TOP_WRITES), "-");
    assert_string_equal(text_of(row, WEIR_TOP_LATENCY), "2.0 us");
    assert_string_equal(text_of(row, WEIR_TOP_RPO), "1.5 s");
    assert_string_equal(text_of(row, WEIR_TOP_DIRTY), "-");
    assert_string_equal(text_of(row, WEIR_TOP_REPLICATION), "streaming");
    watch_end(before);
    watch_end(now);
}

static void test_no_rates_at_first(void **state)
{
    WeirWatch *now = watch_new();
    g_autoptr(GPtrArray) rows = NULL;

    (void)state;
    add_disk(now, "v", "d", WEIR_COMPLIANT, CACHE("5"))->known = true;
    rows = weir_top_rows(now, NULL, 2);
    assert_string_equal(text_of(g_ptr_array_index(rows, 0), WEIR_TOP_READS),
                        "-");
    watch_end(now);
}

/* Names of disks in order, as in "a b c". */
static void check_order(const WeirWatch *watch, WeirTopColumn column,
                        bool reverse, const char *expected)
{
    g_autoptr(GPtrArray) rows = weir_top_rows(watch, NULL, 0);
    g_autoptr(GString) text = g_string_new(NULL);

    weir_top_sort(rows, column, reverse);
    for (guint i = 0; i < rows->len; i++) {
        g_string_append(text, text_of(g_ptr_array_index(rows, i),
                                      WEIR_TOP_DISK));
    }
    assert_string_equal(text->str, expected);
}

static void test_order(void **state)
{
    WeirWatch *watch = watch_new();

    (void)state;
    add_disk(watch, "v", "a", WEIR_COMPLIANT, CACHE("5"));
    add_disk(watch, "v", "b", WEIR_NON_COMPLIANT, CACHE("70"));
    add_disk(watch, "u", "c", WEIR_UNKNOWN, "{\"driver\":\"x\"}");
    add_disk(watch, "v", "d", WEIR_NOT_APPLICABLE, CACHE("6"));
    check_order(watch, WEIR_TOP_DIRTY, false, "bdac");
    check_order(watch, WEIR_TOP_DIRTY, true, "adbc");
    check_order(watch, WEIR_TOP_STATE, false, "bcad");
    check_order(watch, WEIR_TOP_STATE, true, "dacb");
    check_order(watch, WEIR_TOP_VM, false, "cabd");
    check_order(watch, WEIR_TOP_DISK, true, "dcba");
    check_order(watch, WEIR_TOP_REASON, false, "cabd");
    watch_end(watch);
}

static void test_traffic_of_a_device(void **state)
{
    WeirWatch *watch = watch_new();
    WeirDiskStatus *status;
    g_autoptr(JsonNode) root = parse("{\"node-name\":\"top\"}");
    g_autoptr(JsonNode) blockstats = parse(
        "[{\"node-name\":\"other\",\"stats\":{\"rd_operations\":9}},"
        "{\"node-name\":\"top\",\"stats\":{\"rd_operations\":2,"
        "\"failed_rd_operations\":1,\"rd_bytes\":4096,"
        "\"rd_total_time_ns\":77,\"wr_bytes\":-5,\"flush_operations\":3}}]");
    WeirTraffic traffic;

    (void)state;
    add_disk(watch, "v", "d", WEIR_COMPLIANT, CACHE("0"));
    status = g_ptr_array_index(watch->statuses, 0);
    traffic = weir_traffic_read(status, blockstats);
    assert_false(traffic.known);
    json_array_add_object_element(
        status->actual, json_object_ref(weir_json_as_object(root)));
    traffic = weir_traffic_read(status, blockstats);
    assert_true(traffic.known);
    assert_int_equal(traffic.kinds[WEIR_TRAFFIC_READ].requests, 3);
    assert_int_equal(traffic.kinds[WEIR_TRAFFIC_READ].failed, 1);
    assert_int_equal(traffic.kinds[WEIR_TRAFFIC_READ].bytes, 4096);
    assert_int_equal(traffic.kinds[WEIR_TRAFFIC_READ].latency_ns, 77);
    assert_int_equal(traffic.kinds[WEIR_TRAFFIC_WRITE].bytes, 0);
    assert_int_equal(traffic.kinds[WEIR_TRAFFIC_FLUSH].requests, 3);
    watch_end(watch);
}

static void test_sample(void **state)
{
    g_autoptr(WeirExposition) out = weir_exposition_new();
    const char *const labels[] = { "host", NULL, "vm", HOSTILE, "disk", "",
                                   NULL };
    const char *const same[] = { "vm", HOSTILE, "disk", "", NULL };
    const char *const none[] = { "host", NULL, NULL };

    (void)state;
    weir_exposition_family(out, "weir_x", "gauge", "Help.");
    weir_exposition_sample(out, "", labels, 0.25);
    weir_exposition_sample(out, "", same, 7);
    weir_exposition_sample(out, "_sum", none, 9007199254740993.0);
    weir_exposition_sample(out, "_count", none, INFINITY);
    assert_string_equal(
        weir_exposition_text(out),
        "# HELP weir_x Help.\n# TYPE weir_x gauge\n"
        "weir_x{vm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd}\t\xc3\xa4 # HELP "
        "{x=\\\"y\\\"} 1\",disk=\"\"} 0.25\n"
        "weir_x_sum 9007199254740992\nweir_x_count +Inf\n");
}

/* For a program that reads the format: hostile names, and a histogram. */
static void print_metrics(void)
{
    WeirWatch *watch = watch_new();
    WeirTarget *target = g_new0(WeirTarget, 1);
    g_autoptr(WeirExposition) out = weir_exposition_new();

    add_disk(watch, HOSTILE, HOSTILE, WEIR_COMPLIANT,
             "{\"driver\":\"weir-cache\",\"dirty\":5,\"state\":\"ok\","
             "\"statistics\":[{\"operation\":\"read\",\"requests\":3,"
             "\"latency-total\":5000,\"latency-histogram\":[0,0,0,0,0,0,0,0,"
             "0,0,0,0,0,0,1,-7,\"x\",2]}]}");
    add_disk(watch, HOSTILE, HOSTILE, WEIR_NON_COMPLIANT, CACHE("6"));
    target->name = g_strdup(HOSTILE);
    g_ptr_array_add(watch->targets, target);
    weir_metrics_add(out, watch);
    fputs(weir_exposition_text(out), stdout);
    watch_end(watch);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_no_rates_at_first),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_traffic_of_a_device),
        cmocka_unit_test(test_sample),
    };

    if (argc == 2 && strcmp(argv[1], "--print") == 0) {
        print_metrics();
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

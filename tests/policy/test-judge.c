/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is said of a filter, from what it tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "judge.h"
#include "units.h"

#define OK "\"driver\":\"weir-x\",\"node-name\":\"n\",\"state\":\"ok\"," \
           "\"since\":100"
#define MS G_GINT64_CONSTANT(1000000)

static JsonObject *parse(const char *text)
{
    g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);

    assert_non_null(weir_json_as_object(node));
    return json_object_ref(weir_json_as_object(node));
}

static void judge(const char *filter, const char *limits,
                  const char *histogram, WeirVerdict *verdict)
{
    g_autoptr(JsonObject) filter_object = parse(filter);
    g_autoptr(JsonObject) limits_object = parse(limits);
    g_autoptr(JsonNode) latency = histogram
        ? weir_json_parse(histogram, strlen(histogram), NULL) : NULL;
    WeirFacts facts = weir_facts_read(filter_object);
    WeirLimits values = weir_limits_from_json(limits_object);

    weir_verdict_init(verdict);
    weir_judge_filter(&facts, &values, weir_json_as_array(latency), verdict);
}

static void says(const char *filter, const char *limits,
                 const char *histogram, WeirCompliance state,
                 const char *reasons, gint64 since)
{
    g_auto(WeirVerdict) verdict = { 0 };

    judge(filter, limits, histogram, &verdict);
    assert_string_equal(verdict.reasons->str, reasons);
    assert_int_equal(verdict.state, state);
    assert_int_equal(verdict.since, since);
}

static void test_state(void **state)
{
    (void)state;
    says("{" OK "}", "{}", NULL, WEIR_COMPLIANT, "", 100);
    says("{\"driver\":\"weir-x\",\"state\":\"failed\",\"reason\":\"why\","
         "\"since\":7}", "{}", NULL, WEIR_NON_COMPLIANT,
         "weir-x is failed: why", 7);
    says("{\"driver\":\"weir-x\",\"state\":\"degraded\"}", "{}", NULL,
         WEIR_NON_COMPLIANT, "weir-x is degraded: no reason given", 0);
    says("{\"driver\":\"weir-x\"}", "{}", NULL, WEIR_UNKNOWN,
         "weir-x does not tell its state", 0);
}

static void test_rpo(void **state)
{
    (void)state;
    says("{" OK ",\"status\":\"streaming\",\"rpo\":5000}",
         "{\"rpo-ns\":5000000000}", NULL, WEIR_COMPLIANT, "", 0);
    says("{" OK ",\"status\":\"streaming\",\"rpo\":5001}",
         "{\"rpo-ns\":5000000000}", NULL, WEIR_NON_COMPLIANT,
         "weir-x: RPO of 5.0 s is over the limit of 5.0 s", 0);
    says("{" OK ",\"status\":\"streaming\",\"rpo\":9000000}", "{}", NULL,
         WEIR_COMPLIANT, "", 100);
    says("{\"driver\":\"weir-x\",\"state\":\"degraded\",\"reason\":\"gone\","
         "\"since\":7,\"status\":\"disconnected\",\"rpo\":61000}",
         "{\"rpo-ns\":1000000000}", NULL, WEIR_NON_COMPLIANT,
         "weir-x is degraded: gone; weir-x: RPO of 61 s is over the limit of "
         "1.0 s", 7);
}

static void test_replication_state(void **state)
{
    (void)state;
    says("{" OK ",\"status\":\"synchronising\",\"rpo\":0}", "{}", NULL,
         WEIR_NON_COMPLIANT, "weir-x is synchronising instead of streaming",
         100);
}

static void test_dirty(void **state)
{
    (void)state;
    says("{" OK ",\"dirty\":1024}", "{\"dirty-bytes\":1024}", NULL,
         WEIR_COMPLIANT, "", 0);
    says("{" OK ",\"dirty\":2048}", "{\"dirty-bytes\":1024}", NULL,
         WEIR_NON_COMPLIANT,
         "weir-x: dirty data of 2.0 KiB is over the limit of 1.0 KiB", 0);
    says("{" OK ",\"dirty\":-5}", "{\"dirty-bytes\":1024}", NULL,
         WEIR_COMPLIANT, "", 100);
}

static void test_encryption(void **state)
{
#define JOB(mode, done, finished) \
    "{" OK ",\"cipher\":\"c\",\"uuid\":\"u\",\"job\":{\"mode\":\"" mode \
    "\",\"total\":200,\"done\":" done ",\"finished\":" finished "}}"
    (void)state;
    says("{" OK ",\"cipher\":\"c\",\"uuid\":\"u\"}", "{}", NULL,
         WEIR_COMPLIANT, "", 100);
    says("{" OK ",\"cipher\":\"c\",\"uuid\":\"\"}", "{}", NULL,
         WEIR_NON_COMPLIANT, "weir-x: the disk is not encrypted yet", 100);
    says(JOB("encrypt", "86", "false"), "{}", NULL, WEIR_NON_COMPLIANT,
         "weir-x: only 43% of the disk is encrypted", 100);
    says(JOB("encrypt", "200", "true"), "{}", NULL, WEIR_COMPLIANT, "", 100);
    says(JOB("rekey", "1", "false"), "{}", NULL, WEIR_COMPLIANT, "", 100);
    says(JOB("decrypt", "1", "false"), "{}", NULL, WEIR_NON_COMPLIANT,
         "weir-x: the disk is being decrypted", 100);
    says(JOB("decrypt", "200", "true"), "{}", NULL, WEIR_NON_COMPLIANT,
         "weir-x: the disk is not encrypted any more", 100);
}

static void test_latency(void **state)
{
    /* 2^20 ns to 2^21 ns: 1 to 2 ms */
    static const char good[] = "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,99]";
    static const char bad[] = "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,95,0,"
                              "0,0,5]";

    (void)state;
    says("{" OK "}", "{\"latency-ns\":3000000}", good, WEIR_COMPLIANT, "", 0);
    says("{" OK "}", "{\"latency-ns\":3000000}", bad, WEIR_NON_COMPLIANT,
         "weir-x: latency (99 %) of 30 ms is over the limit of 3.0 ms", 0);
    says("{" OK "}", "{\"latency-ns\":3000000}", "[]", WEIR_COMPLIANT, "", 0);
    says("{" OK "}", "{\"latency-ns\":3000000}", NULL, WEIR_COMPLIANT, "",
         100);
}

static void test_facts_of_other_types(void **state)
{
    g_autoptr(JsonObject) object = parse(
        "{\"driver\":1,\"state\":[],\"rpo\":\"x\",\"dirty\":{},\"job\":[],"
        "\"statistics\":{},\"since\":1.5}");
    WeirFacts facts = weir_facts_read(object);
    g_autofree char *text = weir_facts_text(&facts);
    g_autoptr(JsonArray) latency = weir_facts_latency(&facts);

    (void)state;
    assert_null(facts.driver);
    assert_null(facts.state);
    assert_int_equal(facts.rpo_ms, -1);
    assert_int_equal(facts.since, -1);
    assert_string_equal(text, "");
    assert_int_equal(json_array_get_length(latency), 0);
}

static void test_facts_as_text(void **state)
{
    g_autoptr(JsonObject) source = parse(
        "{\"mode\":\"async\",\"status\":\"synchronising\",\"rpo\":1500,"
        "\"queued-bytes\":0,\"resync-bytes\":2048}");
    g_autoptr(JsonObject) crypt = parse(
        "{\"job\":{\"mode\":\"rekey\",\"done\":1,\"total\":4,"
        "\"finished\":false}}");
    WeirFacts facts = weir_facts_read(source);
    WeirFacts job = weir_facts_read(crypt);
    g_autofree char *text = weir_facts_text(&facts);
    g_autofree char *job_text = weir_facts_text(&job);

    (void)state;
    assert_string_equal(text, "async, synchronising, RPO 1.5 s, queued 0 B, "
                        "to copy 2.0 KiB");
    assert_string_equal(job_text, "rekey 25%");
}

static void check_since(const char *now, const char *before,
                        const char *expected)
{
    g_autoptr(JsonNode) now_node = weir_json_parse(now, strlen(now), NULL);
    g_autoptr(JsonNode) before_node = weir_json_parse(before, strlen(before),
                                                      NULL);
    g_autoptr(JsonArray) since = weir_latency_since(
        weir_json_as_array(now_node), weir_json_as_array(before_node));
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);
    g_autofree char *text = NULL;

    json_node_set_array(node, since);
    text = weir_json_text(node, false);
    assert_string_equal(text, expected);
}

static void test_latency_since(void **state)
{
    (void)state;
    check_since("[1,2,3]", "[1,0,1]", "[0,2,2]");
    check_since("[1,2,3]", "[1,2,3]", "[]");
    check_since("[1,2,3]", "null", "[1,2,3]");
    check_since("[1,2,3]", "[2]", "[1,2,3]");
    check_since("[1,\"x\",-3]", "[1]", "[]");
}

static void test_latency_is_that_of_reads_and_writes(void **state)
{
    g_autoptr(JsonObject) object = parse(
        "{\"statistics\":[{\"operation\":\"read\",\"latency-histogram\":"
        "[1,2]},{\"operation\":\"flush\",\"latency-histogram\":[9]},"
        "{\"operation\":\"write\",\"latency-histogram\":[0,1,1]}]}");
    WeirFacts facts = weir_facts_read(object);
    g_autoptr(JsonArray) latency = weir_facts_latency(&facts);

    (void)state;
    assert_int_equal(json_array_get_length(latency), 3);
    assert_int_equal(json_array_get_int_element(latency, 0), 1);
    assert_int_equal(json_array_get_int_element(latency, 1), 3);
}

static void test_worse(void **state)
{
    static const WeirCompliance order[] = {
        WEIR_NOT_APPLICABLE, WEIR_COMPLIANT, WEIR_UNKNOWN, WEIR_NON_COMPLIANT,
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(order); i++) {
        for (guint j = 0; j < G_N_ELEMENTS(order); j++) {
            assert_int_equal(weir_compliance_worse(order[i], order[j]),
                             order[MAX(i, j)]);
        }
    }
}

static void test_units(void **state)
{
    (void)state;
    assert_int_equal(weir_parse_time("20ms"), 20 * MS);
    assert_int_equal(weir_parse_time("8784h"), 8784 * 3600 * (1000 * MS));
    assert_int_equal(weir_parse_time("8785h"), 0);
    assert_int_equal(weir_parse_time("18446744073709551615h"), 0);
    assert_int_equal(weir_parse_time("5"), 0);
    assert_int_equal(weir_parse_bytes("1024T"), WEIR_UNITS_BYTES_MAX);
    assert_int_equal(weir_parse_bytes("1025T"), 0);
    assert_int_equal(weir_parse_bytes("3K"), 3072);
    assert_int_equal(weir_parse_bytes("3KB"), 0);
    assert_int_equal(weir_parse_bytes(""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_rpo),
        cmocka_unit_test(test_replication_state),
        cmocka_unit_test(test_dirty),
        cmocka_unit_test(test_encryption),
        cmocka_unit_test(test_latency),
        cmocka_unit_test(test_facts_of_other_types),
        cmocka_unit_test(test_facts_as_text),
        cmocka_unit_test(test_latency_since),
        cmocka_unit_test(test_latency_is_that_of_reads_and_writes),
        cmocka_unit_test(test_worse),
        cmocka_unit_test(test_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

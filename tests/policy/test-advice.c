/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "advice.h"

static JsonNode *parse(const char *text)
{
    JsonNode *node = weir_json_parse(text, strlen(text), NULL);

    assert_non_null(node);
    return node;
}

static void check_cache(const char *curve, guint64 expected_bytes,
                        double expected_ratio)
{
    g_autoptr(JsonNode) node = parse(curve);
    guint64 size_bytes = 0;
    double ratio = -1;

    assert_true(weir_advice_cache(weir_json_as_array(node), &size_bytes,
                                  &ratio));
    assert_int_equal(size_bytes, expected_bytes);
    assert_true(ratio == expected_ratio);
}

static void test_cache_is_smallest_near_best(void **state)
{
    (void)state;
    check_cache("[{\"cache-size\":1,\"miss-ratio\":0.9},"
                "{\"cache-size\":2,\"miss-ratio\":0.27},"
                "{\"cache-size\":4,\"miss-ratio\":0.25},"
                "{\"cache-size\":8,\"miss-ratio\":0.21}]", 4, 0.25);
    check_cache("[{\"cache-size\":4096,\"miss-ratio\":1}]", 4096, 1);
}

static void test_cache_of_flat_curve_is_the_first(void **state)
{
    (void)state;
    check_cache("[{\"cache-size\":16,\"miss-ratio\":1.0},"
                "{\"cache-size\":32,\"miss-ratio\":1.0}]", 16, 1);
}

static void test_cache_of_empty_curve(void **state)
{
    g_autoptr(JsonNode) node = parse("[]");
    guint64 size_bytes;
    double ratio;

    (void)state;
    assert_false(weir_advice_cache(weir_json_as_array(node), &size_bytes,
                                   &ratio));
    assert_false(weir_advice_cache(NULL, &size_bytes, &ratio));
}

static void check_percentile(const char *histogram, double share,
                             double expected)
{
    g_autoptr(JsonNode) node = parse(histogram);
    double value = weir_advice_percentile(weir_json_as_array(node), share);

    assert_true(fabs(value - expected) < 1e-9);
}

static void test_percentile(void **state)
{
    (void)state;
    check_percentile("[]", 0.5, 0);
    check_percentile("[0,0]", 0.5, 0);
    check_percentile("[0,0,10]", 0.5, 6);
    check_percentile("[0,0,10]", 1, 8);
    check_percentile("[99,0,0,1]", 0.99, 2);
    check_percentile("[98,0,0,2]", 0.99, 12);
    check_percentile("[\"x\",-5,1]", 0.5, 6);
}

static void test_element(void **state)
{
    g_autoptr(JsonNode) node = parse("[0,3,0,1]");

    (void)state;
    assert_int_equal(weir_advice_element(weir_json_as_array(node), 0.5), 1);
    assert_int_equal(weir_advice_element(weir_json_as_array(node), 0.99), 3);
    assert_int_equal(weir_advice_element(NULL, 0.5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_is_smallest_near_best),
        cmocka_unit_test(test_cache_of_flat_curve_is_the_first),
        cmocka_unit_test(test_cache_of_empty_curve),
        cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_element),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

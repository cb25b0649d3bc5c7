/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of a plugin's options: texts, ranges, defaults, changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "plugin/options.h"

static const WeirPluginOption table[] = {
    { .name = "on", .type = WEIR_PLUGIN_BOOL, .default_value = "on",
      .flags = WEIR_PLUGIN_MUTABLE, .help = "h" },
    { .name = "count", .type = WEIR_PLUGIN_INT, .default_value = "-3",
      .min = -5, .max = 5, .unit = "pieces", .help = "h" },
    { .name = "size", .type = WEIR_PLUGIN_SIZE, .default_value = "64K",
      .help = "h" },
    { .name = "text", .type = WEIR_PLUGIN_STRING, .help = "h" },
    { .name = "way", .type = WEIR_PLUGIN_CHOICE, .default_value = "one",
      .choices = "one,two,twofold", .help = "h" },
    { .name = "must", .type = WEIR_PLUGIN_STRING,
      .flags = WEIR_PLUGIN_MANDATORY, .help = "what there has to be" },
};

#define COUNT (sizeof(table) / sizeof(table[0]))

static void test_defaults(void **state)
{
    WeirValues *values = weir_values_new(NULL, table, COUNT);
    const WeirPluginValues *public = weir_values_public(values);
    char message[256];

    (void)state;
    assert_int_equal(weir_values_get_int(public, "on"), 1);
    assert_int_equal(weir_values_get_int(public, "count"), -3);
    assert_int_equal(weir_values_get_int(public, "size"), 65536);
    assert_string_equal(weir_values_get_string(public, "text"), "");
    assert_string_equal(weir_values_get_string(public, "way"), "one");
    assert_int_equal(weir_values_get_int(public, "none"), 0);
    assert_string_equal(weir_values_get_string(public, "none"), "");
    assert_string_equal(weir_values_get_string(public, "size"), "");
    assert_int_equal(weir_values_complete(values, message, sizeof(message)),
                     -EINVAL);
    assert_string_equal(message, "option 'must' is missing: what there has "
                        "to be");
    assert_int_equal(weir_values_set(values, "must", "", message,
                                     sizeof(message)), 0);
    assert_int_equal(weir_values_complete(values, message, sizeof(message)),
                     0);
    weir_values_free(values);
}

static void test_texts(void **state)
{
    static const struct {
        const char *name, *text;
        int ret;
        int64_t number;
    } cases[] = {
        { "on", "off", 0, 0 }, { "on", "true", 0, 1 },
        { "on", "1", -EINVAL, 0 }, { "on", "", -EINVAL, 0 },
        { "count", "5", 0, 5 }, { "count", "-5", 0, -5 },
        { "count", "6", -EINVAL, 0 }, { "count", "-6", -EINVAL, 0 },
        { "count", " 1", -EINVAL, 0 }, { "count", "1x", -EINVAL, 0 },
        { "count", "", -EINVAL, 0 }, { "count", "-", -EINVAL, 0 },
        { "count", "99999999999999999999", -EINVAL, 0 },
        { "size", "0", 0, 0 }, { "size", "3k", 0, 3072 },
        { "size", "2T", 0, 2LL << 40 }, { "size", "-1", -EINVAL, 0 },
        { "size", "1KB", -EINVAL, 0 }, { "size", "1.5M", -EINVAL, 0 },
        { "size", "8388607T", 0, 8388607LL << 40 },
        { "size", "8388608T", -EINVAL, 0 },
        { "size", "9223372036854775807", 0, INT64_MAX },
        { "size", "9223372036854775808", -EINVAL, 0 },
        { "way", "two", 0, 0 }, { "way", "tw", -EINVAL, 0 },
        { "way", "one,two", -EINVAL, 0 }, { "way", "", -EINVAL, 0 },
        { "text", "any, thing", 0, 0 }, { "nope", "x", -ENOENT, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        WeirValues *values = weir_values_new(NULL, table, COUNT);
        char message[256] = "";

        assert_int_equal(weir_values_set(values, cases[i].name,
                                         cases[i].text, message,
                                         sizeof(message)), cases[i].ret);
        if (cases[i].ret < 0) {
            assert_non_null(strstr(message, cases[i].name));
        } else {
            assert_int_equal(weir_values_get_int(weir_values_public(values),
                                                 cases[i].name),
                             cases[i].number);
        }
        weir_values_free(values);
    }
}

static void test_messages(void **state)
{
    WeirValues *values = weir_values_new(NULL, table, COUNT);
    char message[256];

    (void)state;
    weir_values_set(values, "count", "9", message, sizeof(message));
    assert_string_equal(message, "option 'count' is 9, it has to be -5 to 5 "
                        "pieces");
    weir_values_set(values, "way", "x", message, sizeof(message));
    assert_string_equal(message, "option 'way' is 'x', it has to be one of "
                        "one,two,twofold");
    weir_values_set(values, "nope", "x", message, sizeof(message));
    assert_string_equal(message, "there is no option 'nope', expected one "
                        "of: on, count, size, text, way, must");
    weir_values_set(values, "nope", "x", message, 12);
    assert_string_equal(message, "there is no");
    weir_values_free(values);
}

static void test_changes(void **state)
{
    WeirValues *old = weir_values_new(NULL, table, COUNT);
    WeirValues *new = weir_values_new(NULL, table, COUNT);
    char message[256];

    (void)state;
    weir_values_set(new, "on", "off", message, sizeof(message));
    weir_values_set(new, "size", "65536", message, sizeof(message));
    weir_values_set(new, "way", "one", message, sizeof(message));
    assert_int_equal(weir_values_may_become(old, new, message,
                                            sizeof(message)), 0);
    weir_values_set(new, "text", "x", message, sizeof(message));
    assert_int_equal(weir_values_may_become(old, new, message,
                                            sizeof(message)), -EBUSY);
    assert_string_equal(message, "option 'text' cannot be changed while the "
                        "node is open");
    weir_values_free(old);
    weir_values_free(new);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_texts),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "yamltree.h"

static WeirYaml *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    WeirYaml *root = weir_yaml_parse(text, strlen(text), "f", &error);

    assert_null(error);
    assert_non_null(root);
    return root;
}

static void check_refused(const char *text, gsize length, const char *message)
{
    g_autoptr(GError) error = NULL;

    assert_null(weir_yaml_parse(text, length, "f", &error));
    assert_true(g_error_matches(error, WEIR_ERROR, WEIR_ERROR_POSITION));
    assert_string_equal(error->message, message);
}

static void check_scalar(const WeirYaml *node, const char *text, unsigned line,
                         unsigned column)
{
    assert_non_null(node);
    assert_int_equal(node->kind, WEIR_YAML_SCALAR);
    assert_string_equal(node->text, text);
    assert_int_equal(node->line, line);
    assert_int_equal(node->column, column);
}

static void test_positions(void **state)
{
    g_autoptr(WeirYaml) root = parse("a: 1\nlist:\n  - x\n  - {b:  'y z'}\n");
    const WeirYaml *list = weir_yaml_member(root, "list");
    const WeirYaml *inner;

    (void)state;
    check_scalar(g_ptr_array_index(root->keys, 1), "list", 2, 1);
    check_scalar(weir_yaml_member(root, "a"), "1", 1, 4);
    assert_int_equal(list->kind, WEIR_YAML_SEQUENCE);
    assert_int_equal(list->values->len, 2);
    check_scalar(g_ptr_array_index(list->values, 0), "x", 3, 5);
    inner = weir_yaml_member(g_ptr_array_index(list->values, 1), "b");
    check_scalar(inner, "y z", 4, 10);
    assert_true(inner->quoted);
    assert_null(weir_yaml_member(root, "b"));
}

static void test_columns_count_characters(void **state)
{
    g_autoptr(WeirYaml) root = parse("{\xc3\xa4\xc3\xb6: x}\n");

    (void)state;
    check_scalar(g_ptr_array_index(root->values, 0), "x", 1, 6);
}

static void test_other_roots(void **state)
{
    g_autoptr(WeirYaml) scalar = parse("word");
    g_autoptr(WeirYaml) list = parse("[]");

    (void)state;
    check_scalar(scalar, "word", 1, 1);
    assert_int_equal(list->kind, WEIR_YAML_SEQUENCE);
    assert_null(weir_yaml_member(scalar, "x"));
    assert_null(weir_yaml_member(list, "x"));
}

static void test_depth(void **state)
{
    g_autofree char *deep = g_strnfill(WEIR_YAML_MAX_DEPTH + 1, '[');
    g_autofree char *open = g_strnfill(WEIR_YAML_MAX_DEPTH, '[');
    g_autofree char *close = g_strnfill(WEIR_YAML_MAX_DEPTH, ']');
    g_autofree char *fits = g_strconcat(open, close, NULL);
    g_autoptr(WeirYaml) root = parse(fits);

    (void)state;
    assert_non_null(root);
    check_refused(deep, strlen(deep),
                  "f:1:33: found more than 32 levels, expected fewer");
}

static void test_refused(void **state)
{
    (void)state;
    check_refused("", 0, "f:1:1: found nothing, expected a policy");
    check_refused("a: 1\na: 2\n", 10, "f:2:1: found key 'a' again, expected "
                  "it once (it is on line 1)");
    check_refused("a: *b\n", 6,
                  "f:1:4: found alias 'b', expected a plain value");
    check_refused("a\0b", 3, "f:1:2: found a byte that is no printable UTF-8 "
                  "(control characters are not allowed), expected text");
    check_refused("\xff\xfe" "a", 3, "f:1:1: found a byte that is no printable "
                  "UTF-8 (invalid leading UTF-8 octet), expected text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_columns_count_characters),
        cmocka_unit_test(test_other_roots),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

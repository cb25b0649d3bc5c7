/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encryption/json.h"

static const char text[] =
    "{\n \"a\": { \"x\":\"1}\", \"b\" : [ 1, {\"q\":2}, \"3\" ] },\n"
    " \"esc\\\"aped\": 4, \"big\": \"18446744073709551615\",\n"
    " \"more\": \"18446744073709551616\", \"minus\": -1, \"real\": 1.5,\n"
    " \"largest\": 18446744073709551615, \"hex\": \"0x10\",\n"
    " \"spaced\": \" 1\", \"signed\": \"-1\", \"none\": \"\",\n"
    " \"zero\": \"aes\\u0000xts\", \"empty\": {}, \"last\": 7} \n";

static json_object *parse(void)
{
    json_object *root = weir_json_parse(text);

    assert_non_null(root);
    return root;
}

static void members_are_found(void **state)
{
    json_object *root = parse();
    json_object *a = weir_json_member(root, "a");
    json_object *b = weir_json_member(a, "b");
    unsigned n = 0;

    (void)state;
    assert_int_equal(weir_json_count(root), 14);
    for (struct lh_entry *e = weir_json_first(root); e; e = e->next) {
        n += weir_json_member(root, lh_entry_k(e)) == lh_entry_v(e);
    }
    assert_int_equal(n, 14);
    assert_true(weir_json_is(a, "x", "1}"));
    assert_false(weir_json_is(a, "x", "1"));
    assert_false(weir_json_is(a, "x", "1}2"));
    assert_string_equal(weir_json_string(a, "x"), "1}");
    assert_true(weir_json_has(b, "3"));
    assert_false(weir_json_has(b, "1"));
    assert_null(weir_json_member(root, "q"));
    assert_null(weir_json_member(root, "las"));
    json_object_put(root);
}

/* What is missing, or something else, is nowhere followed. */
static void other_types_are_missing(void **state)
{
    json_object *root = parse();
    json_object *b = weir_json_member(weir_json_member(root, "a"), "b");
    json_object *others[] = {
        NULL, b, weir_json_member(root, "last"), weir_json_member(root, "big"),
    };
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_null(weir_json_member(others[i], "q"));
        assert_null(weir_json_numbered(others[i], 0));
        assert_null(weir_json_first(others[i]));
        assert_int_equal(weir_json_count(others[i]), 0);
        assert_false(weir_json_is(others[i], "q", ""));
        assert_string_equal(weir_json_string(others[i], "q"), "");
        assert_false(weir_json_u64(others[i], "q", &n));
        assert_false(weir_json_has(others[i], "7"));
    }
    assert_int_equal(weir_json_count(weir_json_member(root, "empty")), 0);
    assert_null(weir_json_first(weir_json_member(root, "empty")));
    json_object_put(root);
}

/* "aes" with something behind a zero is another string. */
static void zeroes_end_no_string(void **state)
{
    json_object *root = parse();

    (void)state;
    assert_false(weir_json_is(root, "zero", "aes"));
    assert_string_equal(weir_json_string(root, "zero"), "");
    json_object_put(root);
}

static void numbers_are_exact_or_refused(void **state)
{
    static const char *const bad[] = {
        "more", "minus", "real", "a", "hex", "spaced", "signed", "none",
        "zero", "missing",
    };
    json_object *root = parse();
    uint64_t n;

    (void)state;
    assert_true(weir_json_u64(root, "last", &n));
    assert_int_equal(n, 7);
    assert_true(weir_json_u64(root, "big", &n));
    assert_true(n == UINT64_MAX);
    assert_true(weir_json_u64(root, "largest", &n));
    assert_true(n == UINT64_MAX);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        n = 1;
        assert_false(weir_json_u64(root, bad[i], &n));
        assert_true(n == 0 || !strcmp(bad[i], "minus"));
    }
    json_object_put(root);
}

static void what_is_no_object_is_refused(void **state)
{
    static const char *const bad[] = {
        "", " ", "[]", "7", "\"x\"", "{", "{\"a\":1", "{\"a\"}", "{}{}",
        "{} x", "null", "{\"a\":1}]",
    };

    (void)state;
    assert_null(weir_json_parse(NULL));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_null(weir_json_parse(bad[i]));
    }
    for (size_t length = 0; length < strlen(text) - 3; length++) {
        char *cut = strndup(text, length);

        assert_null(weir_json_parse(cut));
        free(cut);
    }
}

/* A text with arrays in each other. */
static char *nested(size_t arrays)
{
    char *out = malloc(2 * arrays + 16);
    char *at = out + sprintf(out, "{\"a\":");

    memset(at, '[', arrays);
    at[arrays] = '1';
    memset(at + arrays + 1, ']', arrays);
    strcpy(at + 2 * arrays + 1, "}");
    return out;
}

static void depth_is_bounded(void **state)
{
    static const size_t arrays[] = { 1, 30, 31, 32, 1000, 2 << 20 };

    (void)state;
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
        char *deep = nested(arrays[i]);
        json_object *root = weir_json_parse(deep);

        assert_int_equal(root != NULL, arrays[i] < WEIR_JSON_DEPTH_MAX - 1);
        json_object_put(root);
        free(deep);
    }
}

/* As libcryptsetup takes it. */
static void the_last_of_two_names_counts(void **state)
{
    json_object *root = weir_json_parse("{\"a\":1,\"b\":2,\"a\":\"3\"}");
    uint64_t n;

    (void)state;
    assert_int_equal(weir_json_count(root), 2);
    assert_true(weir_json_u64(root, "a", &n));
    assert_int_equal(n, 3);
    json_object_put(root);
}

/* The text of a whole copy of the metadata. */
static void four_mebibytes_are_read(void **state)
{
    enum { MEMBERS = 200000 };
    char *large = malloc(MEMBERS * 24 + 64), *at = large;
    json_object *root;
    uint64_t n;

    (void)state;
    *at++ = '{';
    for (int i = 0; i < MEMBERS; i++) {
        at += sprintf(at, "%s\"%d\":\"%d\"", i ? "," : "", i, i);
    }
    strcpy(at, "}");
    assert_true(at - large > 3 << 20);
    root = weir_json_parse(large);
    assert_int_equal(weir_json_count(root), MEMBERS);
    assert_true(weir_json_u64(root, "199999", &n) && n == 199999);
    json_object_put(root);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_found),
        cmocka_unit_test(other_types_are_missing),
        cmocka_unit_test(zeroes_end_no_string),
        cmocka_unit_test(numbers_are_exact_or_refused),
        cmocka_unit_test(what_is_no_object_is_refused),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(the_last_of_two_names_counts),
        cmocka_unit_test(four_mebibytes_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

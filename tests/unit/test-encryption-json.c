/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encryption/json.h"

static const char text[] =
    "{\n \"a\": { \"x\":\"1}\", \"b\" : [ 1, {\"q\":2}, \"3\" ] },\n"
    " \"esc\\\"aped\": 4, \"big\": \"18446744073709551615\",\n"
    " \"more\": \"18446744073709551616\", \"minus\": -1, \"real\": 1.5,\n"
    " \"empty\": {}, \"none\": [ ], \"last\": 7}";

static void members_are_found(void **state)
{
    const char *a = weir_json_member(text, "a");
    const char *b = weir_json_member(a, "b");

    (void)state;
    assert_int_equal(weir_json_count(text), 9);
    assert_true(weir_json_is(weir_json_member(a, "x"), "1}"));
    assert_false(weir_json_is(weir_json_member(a, "x"), "1"));
    assert_false(weir_json_is(weir_json_member(a, "x"), "1}2"));
    assert_int_equal(weir_json_count(b), 3);
    assert_null(weir_json_member(text, "q"));
    assert_null(weir_json_member(text, "las"));
    assert_null(weir_json_member(b, "q"));
    assert_null(weir_json_member(NULL, "q"));
    assert_int_equal(weir_json_count(weir_json_member(text, "empty")), 0);
    assert_int_equal(weir_json_count(weir_json_member(text, "none")), 0);
    assert_int_equal(weir_json_count(weir_json_member(text, "last")), 0);
    assert_int_equal(weir_json_count(NULL), 0);
}

static void numbers_are_exact_or_refused(void **state)
{
    uint64_t n;

    (void)state;
    assert_true(weir_json_u64(weir_json_member(text, "last"), &n));
    assert_int_equal(n, 7);
    assert_true(weir_json_u64(weir_json_member(text, "big"), &n));
    assert_true(n == UINT64_MAX);
    assert_false(weir_json_u64(weir_json_member(text, "more"), &n));
    assert_int_equal(n, 0);
    assert_false(weir_json_u64(weir_json_member(text, "minus"), &n));
    assert_false(weir_json_u64(weir_json_member(text, "real"), &n));
    assert_false(weir_json_u64(weir_json_member(text, "a"), &n));
    assert_false(weir_json_u64(NULL, &n));
}

/* Each in memory of its own, so that a sanitizer sees any step beyond it. */
static void text_that_is_cut_off_is_not_left(void **state)
{
    (void)state;
    for (size_t length = 0; length < sizeof(text); length++) {
        char *cut = strndup(text, length);
        uint64_t n;

        assert_in_range(weir_json_count(cut), 0, 9);
        weir_json_u64(weir_json_member(cut, "big"), &n);
        weir_json_is(weir_json_member(weir_json_member(cut, "a"), "x"), "1}");
        free(cut);
    }
}

static void depth_takes_no_stack(void **state)
{
    enum { DEPTH = 4 * 1024 * 1024 };
    char *deep = malloc(2 * DEPTH + 3);

    (void)state;
    deep[0] = '[';
    memset(deep + 1, '[', DEPTH);
    memset(deep + 1 + DEPTH, ']', DEPTH);
    strcpy(deep + 1 + 2 * (size_t)DEPTH, "]");
    assert_int_equal(weir_json_count(deep), 1);
    free(deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_found),
        cmocka_unit_test(numbers_are_exact_or_refused),
        cmocka_unit_test(text_that_is_cut_off_is_not_left),
        cmocka_unit_test(depth_takes_no_stack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

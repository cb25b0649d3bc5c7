/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which policy a disk is assigned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "assign.h"

static WeirAssignments *load(const char *text)
{
    g_autoptr(WeirAssignments) assignments = weir_assignments_new("/d");
    g_autoptr(GError) error = NULL;

    if (!weir_assignments_add(assignments, text, strlen(text), "a.yaml",
                              &error)) {
        fail_msg("%s", error->message);
    }
    return g_steal_pointer(&assignments);
}

static void check(const WeirAssignments *assignments, const char *vm,
                  const char *disk, const char *policy)
{
    g_auto(WeirChoice) choice = { 0 };
    g_autoptr(GError) error = NULL;

    if (!weir_assignments_choose(assignments, vm, disk, &choice, &error)) {
        fail_msg("%s", error->message);
    }
    assert_string_equal(choice.policy ? choice.policy : "none", policy);
}

static void test_most_specific_wins(void **state)
{
    g_autoptr(WeirAssignments) assignments = load(
        "assignments:\n"
        "  - {policy: any}\n"
        "  - {vm: db*, policy: star}\n"
        "  - {vm: db-?, policy: one}\n"
        "  - {vm: db-*, policy: more}\n"
        "  - {vm: db-1, policy: exact}\n"
        "  - {vm: db-*, disk: data, policy: disk}\n"
        "  - {disk: data, policy: data}\n"
        "  - {disk: dat*, policy: dat}\n");

    (void)state;
    check(assignments, "web", "root", "any");
    check(assignments, "dbx", "root", "star");
    check(assignments, "db-12", "root", "more");
    check(assignments, "db-2", "root", "one");
    /* the VM's pattern counts first */
    check(assignments, "db-2", "data", "one");
    check(assignments, "db-12", "data", "disk");
    check(assignments, "db-1", "data", "exact");
    check(assignments, "web", "data", "data");
    check(assignments, "web", "date", "dat");
}

static void test_none_and_default(void **state)
{
    static const char text[] = "default-policy: usual\n";
    g_autoptr(WeirAssignments) assignments = load(
        "assignments:\n  - {vm: a, policy: p}\n");
    g_auto(WeirChoice) none = { 0 };
    g_auto(WeirChoice) usual = { 0 };

    (void)state;
    assert_true(weir_assignments_choose(assignments, "b", "c", &none, NULL));
    assert_null(none.policy);
    assert_string_equal(none.reason, "no assignment in /d/assignments.d is "
                        "for disk c of VM b, and /d/weir.yaml has no "
                        "default-policy");
    assert_true(weir_assignments_set_default(assignments, text, strlen(text),
                                             "w.yaml", NULL));
    assert_true(weir_assignments_choose(assignments, "b", "c", &usual, NULL));
    assert_string_equal(usual.policy, "usual");
    assert_string_equal(usual.reason, "default policy (w.yaml:1:17)");
    assert_true(usual.is_default);
    check(assignments, "a", "c", "p");
}

static void test_equal_ones(void **state)
{
    static const char text[] = "assignments:\n  - {vm: '*b', policy: q}\n";
    g_autoptr(WeirAssignments) assignments = load(
        "assignments:\n  - {vm: 'a*', policy: p}\n");
    g_auto(WeirChoice) choice = { 0 };
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_true(weir_assignments_add(assignments, text, strlen(text), "b.yaml",
                                     NULL));
    check(assignments, "ax", "d", "p");
    assert_false(weir_assignments_choose(assignments, "ab", "d", &choice,
                                         &error));
    assert_true(g_error_matches(error, WEIR_ERROR, WEIR_ERROR_POSITION));
    assert_string_equal(error->message,
                        "b.yaml:2:5: found policy 'q' for disk d of VM ab (vm "
                        "*b, disk *), expected no other assignment as specific "
                        "as policy 'p' at a.yaml:2:5 (vm a*, disk *)");
}

static void test_a_more_specific_one_ends_a_tie(void **state)
{
    g_autoptr(WeirAssignments) assignments = load(
        "assignments:\n  - {vm: 'a*', policy: p}\n  - {vm: '*b', policy: q}\n"
        "  - {vm: ab, policy: r}\n");

    (void)state;
    check(assignments, "ab", "d", "r");
}

static void test_refused(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        { "assignments:\n  - {vm: a}\n",
          "f:2:5: found no option 'policy' of 'assignments', expected it" },
        { "assignments:\n  - {vm: a/b, policy: p}\n",
          "f:2:10: found 'a/b', which no name can match, expected up to 64 "
          "letters, digits, '.', '_', '-', '*' and '?' for 'vm'" },
        { "assignments:\n  - {disk: '', policy: p}\n",
          "f:2:12: found '', which no name can match, expected up to 64 "
          "letters, digits, '.', '_', '-', '*' and '?' for 'disk'" },
        { "assignments:\n  - {policy: ../p}\n",
          "f:2:14: found '../p', which cannot be the name of a policy, "
          "expected up to 64 letters, digits, '.', '_' and '-', the first a "
          "letter or digit" },
        { "assignment: []\n",
          "f:1:1: found unknown key 'assignment', expected assignments; did "
          "you mean 'assignments'?\n"
          "f:1:1: found no key 'assignments', expected it" },
        { "assignments:\n  - {vn: a, policy: p}\n",
          "f:2:6: found unknown option 'vn' of 'assignments', expected one of "
          "vm, disk, policy; did you mean 'vm'?" },
        { "assignments: &a []\n",
          "f:1:14: found anchor 'a', expected a plain value" },
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(WeirAssignments) assignments = weir_assignments_new(NULL);
        g_autoptr(GError) error = NULL;

        assert_false(weir_assignments_add(assignments, cases[i].text,
                                          strlen(cases[i].text), "f", &error));
        assert_true(g_error_matches(error, WEIR_ERROR, WEIR_ERROR_POSITION));
        assert_string_equal(error->message, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_most_specific_wins),
        cmocka_unit_test(test_none_and_default),
        cmocka_unit_test(test_equal_ones),
        cmocka_unit_test(test_a_more_specific_one_ends_a_tie),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a policy takes from others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "inherit.h"
#include "policy.h"
#include "small-schema.h"

/* Files by name, NULL-terminated: name, text, name, text... */
static char *read_file(void *opaque, const char *name, gsize *length,
                       char **file, GError **error)
{
    const char *const *files = opaque;

    for (; *files; files += 2) {
        if (strcmp(files[0], name) == 0) {
            *length = strlen(files[1]);
            *file = g_strconcat(name, ".yaml", NULL);
            return g_strdup(files[1]);
        }
    }
    weir_set_error(error, "there is no %s", name);
    return NULL;
}

static WeirPolicy *parse(const char *text, const char *const *files,
                         GError **error)
{
    const WeirPolicySource source = {
        .read = read_file, .opaque = (void *)files,
    };
    g_autoptr(WeirSchema) schema = small_schema_new();

    return weir_policy_parse(text, strlen(text), "p.yaml", true, &source,
                             schema, error);
}

/* "driver@place{options} ..." and what file each entry is from. */
static char *filters_text(const WeirPolicy *policy)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);
        g_autofree char *options = weir_json_object_text(filter->options,
                                                         false);

        g_string_append_printf(text, "%s%s@%s%s(%s:%u)", i ? " " : "",
                               filter->driver, weir_place_name(filter->place),
                               options, filter->file, filter->line);
    }
    return g_string_free(text, FALSE);
}

static void check(const char *text, const char *const *files,
                  const char *expected)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirPolicy) policy = parse(text, files, &error);
    g_autofree char *found = NULL;

    if (error) {
        fail_msg("%s", error->message);
    }
    found = filters_text(policy);
    assert_string_equal(found, expected);
}

static void check_refused(const char *text, const char *const *files,
                          const char *message)
{
    g_autoptr(GError) error = NULL;

    assert_null(parse(text, files, &error));
    assert_true(g_error_matches(error, WEIR_ERROR, WEIR_ERROR_POSITION));
    assert_string_equal(error->message, message);
}

static const char *const base[] = {
    "b", "name: b\nfilters:\n  - weir-x: {i: 1, s: t, o: {must: 1}}\n", NULL
};

static void test_all_is_inherited(void **state)
{
    (void)state;
    check("name: p\ninherit: b\n", base,
          "weir-x@storage{\"i\":1,\"s\":\"t\",\"o\":{\"must\":1}}"
          "(b.yaml:3)");
}

/* An option replaces one as a whole; one left empty changes nothing. */
static void test_options_are_changed(void **state)
{
    (void)state;
    check("name: p\ninherit: b\nfilters:\n"
          "  - weir-x: {i: 2, b: on, o: {must: 5}}\n    place: disk\n", base,
          "weir-x@disk{\"i\":2,\"b\":true,\"s\":\"t\",\"o\":{\"must\":5}}"
          "(p.yaml:4)");
    check("name: p\ninherit: b\nfilters:\n  - weir-x:\n    place: disk\n",
          base,
          "weir-x@disk{\"i\":1,\"s\":\"t\",\"o\":{\"must\":1}}"
          "(p.yaml:4)");
    check("name: p\ninherit: b\nfilters: []\n", base,
          "weir-x@storage{\"i\":1,\"s\":\"t\",\"o\":{\"must\":1}}"
          "(b.yaml:3)");
}

/* weir-y is of class encryption, weir-x a cache. */
static void test_added_filters_are_in_order(void **state)
{
    static const char *const encrypted[] = {
        "b", "name: b\nfilters: [weir-y: ]\n", NULL
    };

    (void)state;
    check("name: p\ninherit: b\nfilters: [weir-y: ]\n", base,
          "weir-y@storage{}(p.yaml:3) "
          "weir-x@storage{\"i\":1,\"s\":\"t\",\"o\":{\"must\":1}}"
          "(b.yaml:3)");
    check("name: p\ninherit: b\nfilters: [weir-x: ]\n", encrypted,
          "weir-y@storage{}(b.yaml:2) weir-x@storage{}(p.yaml:3)");
}

static void test_filters_are_removed(void **state)
{
    (void)state;
    check("name: p\ninherit: b\nremove: [weir-x]\n", base, "");
    check("name: p\ninherit: b\nremove: [weir-x]\nfilters: [weir-x: {n: 1}]\n",
          base, "weir-x@storage{\"n\":1}(p.yaml:4)");
    check_refused("name: p\ninherit: b\nremove: [weir-y, weir-x]\n", base,
                  "p.yaml:3:10: found 'weir-y', expected a filter that is "
                  "inherited");
    check_refused("name: p\nremove: [weir-y]\nfilters: []\n", base,
                  "p.yaml:2:9: found 'remove' without 'inherit', expected "
                  "both");
}

static void test_keys_of_storage(void **state)
{
    static const char *const files[] = {
        "b", "name: b\ndescription: of b\nversion: 7\nfilters: []\n"
             "storage: {min-size: 1K, discard: required, driver: [nbd]}\n",
        NULL
    };
    g_autoptr(WeirPolicy) policy = parse(
        "name: p\ninherit: b\nstorage:\n  discard: any\n  direct-io: required"
        "\n", files, NULL);

    (void)state;
    assert_non_null(policy);
    assert_null(policy->description);
    assert_int_equal(policy->version, 1);
    assert_string_equal(policy->inherit, "b");
    assert_int_equal(policy->storage->min_bytes, 1024);
    assert_false(policy->storage->discard);
    assert_true(policy->storage->direct_io);
    assert_string_equal(policy->storage->drivers[0], "nbd");
    assert_string_equal(policy->storage->at[WEIR_STORAGE_MIN_SIZE],
                        "b.yaml:5:21");
    assert_string_equal(policy->storage->at[WEIR_STORAGE_DIRECT_IO],
                        "p.yaml:5:14");
}

static void test_levels(void **state)
{
    static const char *const files[] = {
        "b", "name: b\ninherit: c\nfilters: [weir-x: {i: 2}]\n",
        "c", "name: c\ninherit: d\nfilters: [weir-y: ]\n"
             "allow-before-encryption: true\n",
        "d", "name: d\nfilters: [weir-x: {i: 1, s: d}]\n", NULL
    };

    (void)state;
    check("name: p\ninherit: b\nfilters: [weir-x: {n: 0.5}]\n", files,
          "weir-y@storage{}(c.yaml:3) "
          "weir-x@storage{\"i\":2,\"n\":0.5,\"s\":\"d\"}(p.yaml:3)");
}

static void test_chains_are_told(void **state)
{
    static const char *const circle[] = {
        "b", "name: b\ninherit: c\n", "c", "name: c\ninherit: p\n", NULL
    };
    static const char *const missing[] = {
        "b", "name: b\ninherit: c\n", NULL
    };

    (void)state;
    check_refused("name: p\ninherit: p\n", base,
                  "p.yaml:2:10: found a circle of policies: p > p");
    check_refused("name: p\ninherit: b\n", circle,
                  "c.yaml:2:10: found a circle of policies: p > b > c > p");
    check_refused("name: p\ninherit: b\n", missing,
                  "b.yaml:2:10: there is no c; asked for by p > b > c");
    check_refused("name: p\ninherit: ../b\n", missing,
                  "p.yaml:2:10: found a name that cannot be used, expected up "
                  "to 64 letters, digits, '.', '_' and '-', the first a "
                  "letter or digit; asked for by p > ../b");
}

/* l0 inherits from l1 and so on, up to l@count without any. */
static char **levels_new(int count)
{
    GStrvBuilder *builder = g_strv_builder_new();
    char **files;

    for (int i = 0; i <= count; i++) {
        g_autofree char *name = g_strdup_printf("l%d", i);
        g_autofree char *text = g_strdup_printf(
            i < count ? "name: l%d\ninherit: l%d\n"
                      : "name: l%d\nfilters: []\n# %d", i, i + 1);

        g_strv_builder_add_many(builder, name, text, NULL);
    }
    files = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    return files;
}

static void test_depth_is_bounded(void **state)
{
    g_auto(GStrv) most = levels_new(WEIR_INHERIT_MAX_DEPTH - 1);
    g_auto(GStrv) more = levels_new(WEIR_INHERIT_MAX_DEPTH);

    (void)state;
    check("name: p\ninherit: l0\n", (const char *const *)most, "");
    check_refused("name: p\ninherit: l0\n", (const char *const *)more,
                  "l7.yaml:2:10: found more than 8 levels of policies, "
                  "expected fewer: p > l0 > l1 > l2 > l3 > l4 > l5 > l6 > l7 "
                  "> l8");
}

static void test_what_is_wrong_in_a_parent(void **state)
{
    static const char *const files[] = {
        "b", "name: b\nfilters: [weir-x: {i: z}]\n",
        "c", "name: d\nfilters: []\n", NULL
    };

    (void)state;
    check_refused("name: p\ninherit: b\n", files,
                  "b.yaml:2:23: found 'z', expected an integer for "
                  "'weir-x.i'");
    check_refused("name: p\ninherit: c\n", files,
                  "c.yaml:1:7: found name 'd', expected 'c' as in the file's "
                  "name");
}

static const char *const components[] = {
    "c", "component: c\nfilters:\n  - weir-x: {i: 1, s: c}\n",
    "q", "name: q\nfilters: []\n", "d", "component: d\nfilters: "
         "[component: c]\n",
    "e", "component: e\nfilters: []\nstorage: {}\n", NULL
};

static void test_components(void **state)
{
    (void)state;
    check("name: p\nfilters:\n  - weir-y:\n  - component: c\n", components,
          "weir-y@storage{}(p.yaml:3) "
          "weir-x@storage{\"i\":1,\"s\":\"c\"}(c.yaml:3)");
    check("name: p\nfilters:\n  - component: d\n  - weir-x: {i: 2}\n",
          components, "weir-x@storage{\"i\":2,\"s\":\"c\"}(p.yaml:4)");
    check_refused("name: p\nfilters:\n  - component: c\n  - component: d\n",
                  components, "c.yaml:3:5: found filter 'weir-x' again, "
                  "expected it once per disk (it is on line 3)");
    check_refused("name: p\nfilters:\n  - component: c\n  - weir-x:\n"
                  "  - weir-x:\n", components,
                  "p.yaml:5:5: found filter 'weir-x' again, expected it once "
                  "per disk (it is on line 3 of c.yaml)");
}

static void test_what_is_no_component(void **state)
{
    (void)state;
    check_refused("name: p\nfilters:\n  - component: q\n", components,
                  "p.yaml:3:16: found 'q', which is not a component, expected "
                  "one: p > q");
    check_refused("name: p\ninherit: c\n", components,
                  "p.yaml:2:10: found 'c', which is not a policy, expected "
                  "one: p > c");
    check_refused("name: p\nfilters:\n  - component: c\n    place: disk\n",
                  components, "p.yaml:3:5: found other keys beside "
                  "'component', expected it alone");
    check_refused("name: p\nfilters:\n  - component: [c]\n", components,
                  "p.yaml:3:16: found a list, expected the name of a "
                  "component");
    check_refused("name: p\nfilters:\n  - component: e\n", components,
                  "e.yaml:3:1: found 'storage' in a component, which has only "
                  "component, description, version, allow-before-encryption "
                  "and filters");
}

/* 10 components that each have 10 of the next would be 10^8 files. */
static void test_components_do_not_explode(void **state)
{
    GString *list = g_string_new(NULL);
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;

    (void)state;
    for (char name = 'a'; name < 'h'; name++) {
        g_string_truncate(list, 0);
        for (int i = 0; i < 10; i++) {
            g_string_append_printf(list, "  - component: %c\n", name + 1);
        }
        g_ptr_array_add(files, g_strdup_printf("%c", name));
        g_ptr_array_add(files, g_strdup_printf(
            "component: %c\nfilters:\n%s", name, list->str));
    }
    g_ptr_array_add(files, g_strdup("h"));
    g_ptr_array_add(files, g_strdup("component: h\nfilters: []\n"));
    g_ptr_array_add(files, NULL);
    text = g_strdup("name: p\nfilters: [component: a]\n");
    assert_null(parse(text, (const char *const *)files->pdata, &error));
    assert_non_null(strstr(error->message, "found more than 64 files to read "
                           "for one policy, expected fewer"));
    g_string_free(list, TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_inherited),
        cmocka_unit_test(test_options_are_changed),
        cmocka_unit_test(test_added_filters_are_in_order),
        cmocka_unit_test(test_filters_are_removed),
        cmocka_unit_test(test_keys_of_storage),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_chains_are_told),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_what_is_wrong_in_a_parent),
        cmocka_unit_test(test_components),
        cmocka_unit_test(test_what_is_no_component),
        cmocka_unit_test(test_components_do_not_explode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

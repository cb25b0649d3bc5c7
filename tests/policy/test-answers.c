/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is kept of a storage daemon's answers, and when it is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answers.h"
#include "keep.h"
#include "small-schema.h"
#include "stamp.h"

typedef struct Place {
    char *dir;
    char *file;         /* where "name" is kept */
} Place;

static int set_up(void **state)
{
    Place *place = g_new0(Place, 1);

    place->dir = g_dir_make_tmp("weir-answers-XXXXXX", NULL);
    place->file = g_build_filename(place->dir, "name", NULL);
    g_setenv("WEIR_KEEP_DIR", place->dir, TRUE);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    Place *place = *state;

    g_chmod(place->dir, 0700);
    g_unlink(place->file);
    assert_int_equal(g_rmdir(place->dir), 0);
    g_free(place->dir);
    g_free(place->file);
    g_free(place);
    return 0;
}

static WeirAnswers *small_answers(void)
{
    g_autoptr(JsonNode) node = weir_json_parse(small_schema,
                                               strlen(small_schema), NULL);
    g_autoptr(JsonNode) capabilities = weir_json_parse(
        small_capabilities, strlen(small_capabilities), NULL);

    return weir_answers_new(node, capabilities);
}

/* --- the answers as text --- */

/* All that a policy can say of a filter is in its fields. */
static void check_fields(const WeirFilterType *left,
                         const WeirFilterType *right)
{
    const cyaml_schema_field_t *a = left->options.mapping.fields;
    const cyaml_schema_field_t *b = right->options.mapping.fields;

    for (; a->key; a++, b++) {
        assert_string_equal(a->key, b->key);
        assert_int_equal(a->value.type, b->value.type);
        assert_int_equal(a->value.flags, b->value.flags);
    }
    assert_null(b->key);
    assert_int_equal(left->nodes->len, right->nodes->len);
    assert_int_equal(left->unsupported->len, right->unsupported->len);
}

static void test_same_filters(void **state)
{
    g_autoptr(WeirSchema) whole = small_schema_new();
    g_autoptr(WeirAnswers) answers = small_answers();
    g_autofree char *text = weir_answers_text(answers);
    g_autoptr(WeirAnswers) again = weir_answers_parse(text, strlen(text));
    g_autoptr(WeirSchema) schema = NULL;
    GPtrArray *filters = weir_schema_filters(whole);

    (void)state;
    assert_non_null(again);
    schema = weir_answers_schema(again, NULL);
    assert_non_null(schema);
    assert_int_equal(weir_schema_filters(schema)->len, filters->len);
    for (guint i = 0; i < filters->len; i++) {
        const WeirFilterType *filter = g_ptr_array_index(filters, i);
        const WeirFilterType *same = weir_schema_find(schema, filter->driver);

        assert_non_null(same);
        assert_string_equal(filter->child, same->child);
        assert_int_equal(filter->class, same->class);
        check_fields(filter, same);
    }
}

static void test_no_sense(void **state)
{
    static const char *const texts[] = {
        "", "[]", "{", "null",
        "{\"format\":1,\"stamps\":{},\"introspection\":[],"
        "\"capabilities\":[]}",
        "{\"format\":2,\"stamps\":{},\"introspection\":[],"
        "\"capabilities\":[],\"accepted\":[]}",
        "{\"format\":1,\"stamps\":[],\"introspection\":[],"
        "\"capabilities\":[],\"accepted\":[]}",
        "{\"format\":1,\"stamps\":{},\"introspection\":{},"
        "\"capabilities\":[],\"accepted\":[]}",
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirAnswers) answers = NULL;
    static const char empty[] =
        "{\"format\":1,\"stamps\":{},\"introspection\":[3],"
        "\"capabilities\":[null],\"accepted\":[{}]}";

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        assert_null(weir_answers_parse(texts[i], strlen(texts[i])));
    }
    answers = weir_answers_parse(empty, strlen(empty));
    assert_non_null(answers);
    assert_false(weir_answers_accepted(answers, "x"));
    assert_null(weir_answers_schema(answers, &error));
    assert_non_null(error);
}

static void test_accepted(void **state)
{
    g_autoptr(WeirAnswers) answers = small_answers();

    (void)state;
    assert_false(weir_answers_accepted(answers, "0"));
    for (guint i = 0; i < 300; i++) {
        g_autofree char *digest = g_strdup_printf("%u", i);

        weir_answers_accept(answers, digest);
        assert_true(weir_answers_accepted(answers, digest));
    }
    /* The number is bounded: the oldest have gone. */
    assert_false(weir_answers_accepted(answers, "0"));
    assert_true(weir_answers_accepted(answers, "299"));
    assert_true(weir_answers_accepted(answers, "100"));
}

/* --- files as they were --- */

static void write_file(const char *path, const char *text)
{
    assert_true(g_file_set_contents_full(path, text, -1,
                                         G_FILE_SET_CONTENTS_NONE, 0600,
                                         NULL));
}

static void check_stamps(JsonObject *stamps, bool hold)
{
    assert_int_equal(weir_stamps_hold(stamps, 0), hold);
}

static void test_stamps(void **state)
{
    const Place *place = *state;
    g_autofree char *gone = g_strconcat(place->file, "-gone", NULL);
    g_autoptr(JsonObject) stamps = json_object_new();
    g_autoptr(JsonObject) later = json_object_new();
    gint64 now_s = g_get_real_time() / G_USEC_PER_SEC;
    struct timespec times[2];
    struct stat before;

    write_file(place->file, "1234");
    weir_stamp_add(stamps, place->file);
    weir_stamp_add(stamps, gone);
    check_stamps(stamps, true);
    assert_false(weir_stamps_hold(stamps, now_s));      /* too young */
    assert_true(weir_stamps_hold(stamps, now_s + 100));

    /* As long as it was, and its time of modification as it was. */
    assert_int_equal(g_stat(place->file, &before), 0);
    write_file(place->file, "5678");
    times[0] = before.st_atim;
    times[1] = before.st_mtim;
    assert_int_equal(utimensat(AT_FDCWD, place->file, times, 0), 0);
    check_stamps(stamps, false);

    weir_stamp_add(later, place->file);
    check_stamps(later, true);
    assert_int_equal(g_unlink(place->file), 0);
    check_stamps(later, false);
}

static void test_stamp_appears(void **state)
{
    const Place *place = *state;
    g_autoptr(JsonObject) stamps = json_object_new();

    weir_stamp_add(stamps, place->file);
    check_stamps(stamps, true);
    write_file(place->file, "");
    check_stamps(stamps, false);
}

/* This program is one as good as any. */
static void test_stamp_process(void **state)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autoptr(JsonObject) stamps = json_object_new();

    (void)state;
    weir_stamp_process(stamps, getpid());
    assert_true(json_object_has_member(stamps, self));
    assert_true(json_object_get_size(stamps) > 2);      /* libraries */
    check_stamps(stamps, true);
}

static void test_stamp_dir(void **state)
{
    const Place *place = *state;
    g_autofree char *link = g_build_filename(place->dir, "link", NULL);
    g_autoptr(JsonObject) stamps = json_object_new();
    g_autoptr(JsonObject) later = json_object_new();

    assert_true(weir_stamp_dir(stamps, place->dir, "*"));
    write_file(place->file, "");
    check_stamps(stamps, false);
    assert_false(weir_stamp_dir(later, place->dir, "na*"));
    assert_true(weir_stamp_dir(later, place->dir, "nb*"));
    weir_stamp_add(later, place->file);
    assert_true(weir_stamp_dir(later, place->dir, "na*"));
    assert_int_equal(symlink("name", link), 0);
    assert_true(weir_stamp_dir(later, place->dir, "li*"));
    assert_int_equal(g_unlink(link), 0);
    assert_int_equal(symlink("nowhere", link), 0);
    assert_false(weir_stamp_dir(later, place->dir, "li*"));
    assert_int_equal(g_unlink(link), 0);
}

/* --- kept --- */

static void check_kept(const char *text)
{
    gsize length = 0;
    g_autofree char *found = weir_keep_read("name", &length);

    if (!text) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_string_equal(found, text);
    assert_int_equal(length, strlen(text));
}

static void test_kept(void **state)
{
    const Place *place = *state;
    struct stat st;

    check_kept(NULL);
    weir_keep_write("name", "one");
    check_kept("one");
    weir_keep_write("name", "");
    check_kept("");
    assert_int_equal(g_stat(place->file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_damaged(void **state)
{
    const Place *place = *state;
    g_autofree char *text = NULL;
    gsize length;

    weir_keep_write("name", "one");
    assert_true(g_file_get_contents(place->file, &text, &length, NULL));
    for (gsize i = 0; i < length; i++) {
        text[i] ^= 1;
        assert_true(g_file_set_contents(place->file, text, (gssize)length,
                                        NULL));
        assert_int_equal(g_chmod(place->file, 0600), 0);
        check_kept(NULL);
        text[i] ^= 1;
        assert_int_equal(truncate(place->file, (off_t)i), 0);
        check_kept(NULL);
    }
}

static void test_too_large(void **state)
{
    const Place *place = *state;
    g_autofree char *text = g_strnfill(WEIR_KEEP_MAX_BYTES, 'x');
    g_autofree char *more = g_strnfill(WEIR_KEEP_MAX_BYTES + 1, 'x');

    weir_keep_write("name", text);
    check_kept(text);
    weir_keep_write("name", more);
    check_kept(text);
    assert_int_equal(truncate(place->file, WEIR_KEEP_MAX_BYTES * 4), 0);
    check_kept(NULL);
}

static void test_others_can_write(void **state)
{
    const Place *place = *state;

    weir_keep_write("name", "one");
    for (mode_t bit = S_IWGRP; bit; bit = bit == S_IWGRP ? S_IWOTH : 0) {
        assert_int_equal(g_chmod(place->file, 0600 | bit), 0);
        check_kept(NULL);
        assert_int_equal(g_chmod(place->file, 0600), 0);
        check_kept("one");
        assert_int_equal(g_chmod(place->dir, 0700 | bit), 0);
        check_kept(NULL);
        weir_keep_write("name", "two");
        assert_int_equal(g_chmod(place->dir, 0700), 0);
        check_kept("one");
    }
    if (geteuid() == 0) {
        assert_int_equal(chown(place->file, 1, 1), 0);
        check_kept(NULL);
        weir_keep_write("name", "three");       /* it is replaced */
        check_kept("three");
    }
}

static void test_no_file(void **state)
{
    const Place *place = *state;
    g_autofree char *other = g_strconcat(place->file, "-other", NULL);

    weir_keep_write("name", "one");
    assert_int_equal(g_rename(place->file, other), 0);
    assert_int_equal(symlink(other, place->file), 0);
    check_kept(NULL);
    assert_int_equal(g_unlink(place->file), 0);
    assert_int_equal(mkfifo(place->file, 0600), 0);
    check_kept(NULL);
    assert_int_equal(g_unlink(place->file), 0);
    assert_int_equal(g_unlink(other), 0);
}

static void test_nowhere(void **state)
{
    const Place *place = *state;
    g_autofree char *under = g_build_filename(place->file, "x", NULL);

    g_setenv("WEIR_KEEP_DIR", "", TRUE);
    weir_keep_write("name", "one");
    check_kept(NULL);
    /* A file is where the directory would be. */
    write_file(place->file, "");
    g_setenv("WEIR_KEEP_DIR", under, TRUE);
    weir_keep_write("name", "one");
    check_kept(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_filters),
        cmocka_unit_test(test_no_sense),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test_setup_teardown(test_stamps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stamp_appears, set_up, tear_down),
        cmocka_unit_test(test_stamp_process),
        cmocka_unit_test_setup_teardown(test_stamp_dir, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_large, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others_can_write, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_no_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nowhere, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

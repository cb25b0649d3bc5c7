/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time that disks were without their policies, kept in a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "gaps.h"

#define UUID "11111111-2222-4333-8444-555555555555"

static int set_up(void **state)
{
    *state = g_dir_make_tmp("weir-gaps-XXXXXX", NULL);
    return 0;
}

static char *file_of(const char *dir)
{
    return g_build_filename(dir, "gaps", UUID ".json", NULL);
}

static int tear_down(void **state)
{
    g_autofree char *dir = *state;
    g_autofree char *sub = g_build_filename(dir, "gaps", NULL);
    g_autofree char *file = file_of(dir);

    unlink(file);
    rmdir(sub);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static WeirGaps *load(const char *dir)
{
    g_autofree char *sub = g_build_filename(dir, "gaps", NULL);

    return weir_gaps_load(sub, UUID, "web");
}

static bool begin(WeirGaps *gaps, gint64 from_ms)
{
    const WeirGapBegin gap = {
        .policy = "safe", .reason = "it is missing", .from_ms = from_ms,
        .is_known = from_ms % 2 == 0,
    };

    return weir_gaps_begin(gaps, "vda", &gap);
}

static void test_begins_and_ends(void **state)
{
    g_autoptr(WeirGaps) gaps = load(*state);
    g_autofree char *text = NULL;

    assert_null(weir_gaps_open(gaps, "vda"));
    assert_null(weir_gaps_end(gaps, "vda", 5, "x"));
    assert_true(begin(gaps, 1000000000000));
    assert_false(begin(gaps, 1000000000002));
    assert_true(weir_gaps_refuse(gaps, "vda", "no"));
    assert_false(weir_gaps_refuse(gaps, "vda", "no"));
    assert_true(weir_gaps_refuse(gaps, "vda", "never"));
    text = weir_gap_text(weir_gaps_end(gaps, "vda", 1000000001500, "done"));
    assert_string_equal(text, "gap from 2001-09-09T01:46:40.000Z to "
                        "2001-09-09T01:46:41.500Z (1.500 s): it is missing");
    assert_null(weir_gaps_open(gaps, "vda"));
    assert_false(weir_gaps_refuse(gaps, "vda", "no"));
}

static void test_outlasts_its_process(void **state)
{
    WeirGaps *gaps = load(*state);
    g_autofree char *text = NULL;
    g_autoptr(GPtrArray) open = NULL;

    begin(gaps, 1001);
    assert_true(weir_gaps_save(gaps, NULL));
    weir_gaps_free(gaps);
    gaps = load(*state);
    open = weir_gaps_open_disks(gaps);
    assert_int_equal(open->len, 1);
    assert_string_equal(g_ptr_array_index(open, 0), "vda");
    text = weir_gap_text(weir_gaps_open(gaps, "vda"));
    assert_string_equal(text, "gap from some time after "
                        "1970-01-01T00:00:01.001Z: it is missing");
    weir_gaps_free(gaps);
}

/* The clock was set back: no gap ends before it begins. */
static void test_clock_goes_back(void **state)
{
    g_autoptr(WeirGaps) gaps = load(*state);

    begin(gaps, 2000);
    assert_int_equal(weir_json_int(weir_gaps_end(gaps, "vda", 1000, "x"),
                                   "to-ms", -1), 2000);
}

static void test_only_the_last_are_kept(void **state)
{
    g_autoptr(WeirGaps) gaps = load(*state);
    JsonArray *array;

    for (int i = 0; i < WEIR_GAPS_MAX + 5; i++) {
        begin(gaps, i);
        weir_gaps_end(gaps, "vda", i, "x");
    }
    array = weir_gaps_disk(gaps, "vda");
    assert_int_equal(json_array_get_length(array), WEIR_GAPS_MAX);
    assert_int_equal(weir_json_int(weir_json_object_at(array, 0), "from-ms",
                                   -1), 5);
}

static void test_damaged_file(void **state)
{
    static const char *const texts[] = {
        "", "{", "[]", "{\"disks\": 5}", "{\"disks\": {\"vda\": 5}}",
        "{\"disks\": {\"vda\": [5, \"x\"]}}",
    };
    g_autofree char *path = file_of(*state);
    g_autofree char *dir = g_path_get_dirname(path);

    assert_int_equal(g_mkdir(dir, 0700), 0);
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(WeirGaps) gaps = NULL;

        assert_true(g_file_set_contents(path, texts[i], -1, NULL));
        gaps = load(*state);
        assert_null(weir_gaps_open(gaps, "vda"));
        assert_true(begin(gaps, 5));
        assert_true(weir_gaps_save(gaps, NULL));
    }
}

static void test_note(void **state)
{
    g_autoptr(WeirGaps) gaps = load(*state);
    gint64 now_ms = g_get_real_time() / 1000;
    g_autofree char *open = NULL;
    g_autofree char *ended = NULL;

    assert_null(weir_gaps_note(weir_gaps_disk(gaps, "vda")));
    begin(gaps, 1000);
    open = weir_gaps_note(weir_gaps_disk(gaps, "vda"));
    assert_non_null(open);
    weir_gaps_end(gaps, "vda", now_ms - 1000, "x");
    ended = weir_gaps_note(weir_gaps_disk(gaps, "vda"));
    assert_non_null(ended);
    begin(gaps, 1000);
    weir_gaps_end(gaps, "vda", now_ms - 25 * 3600 * (gint64)1000, "x");
    assert_null(weir_gaps_note(weir_gaps_disk(gaps, "vda")));
}

#define CASE(function) \
    cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_begins_and_ends),
        CASE(test_outlasts_its_process),
        CASE(test_clock_goes_back),
        CASE(test_only_the_last_are_kept),
        CASE(test_damaged_file),
        CASE(test_note),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

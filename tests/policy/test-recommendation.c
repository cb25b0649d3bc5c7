/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "plot.h"
#include "svg.h"

#define MIB (1024.0 * 1024)
#define NOW_S 1000000
#define DAY_S 86400

/* What weir-inspect could tell; the rest is the same in all tests. */
typedef struct Info {
    const char *curve;
    gint64 accesses;
    gint64 sampled;
    gint64 unique_blocks;
    gint64 since;
    gint64 read_bytes;
    gint64 written_bytes;
    int sequential;         /* of 100 requests in each direction */
} Info;

/* Falls from 90 to 20 % where the cache holds 64 MiB. */
#define STEP \
    "[{\"cache-size\":1048576,\"miss-ratio\":0.9}," \
    "{\"cache-size\":16777216,\"miss-ratio\":0.85}," \
    "{\"cache-size\":67108864,\"miss-ratio\":0.22}," \
    "{\"cache-size\":268435456,\"miss-ratio\":0.2}]"
#define FLAT \
    "[{\"cache-size\":1048576,\"miss-ratio\":1.0}," \
    "{\"cache-size\":67108864,\"miss-ratio\":0.97}]"

static const Info usual = {
    .curve = STEP, .accesses = 1000000, .sampled = 50000,
    .unique_blocks = 20000, .since = NOW_S - 2 * DAY_S,
    .read_bytes = 700, .written_bytes = 300, .sequential = 10,
};

static JsonObject *make_info(const Info *info)
{
    g_autofree char *text = g_strdup_printf(
        "{\"since\":%" G_GINT64_FORMAT ",\"statistics\":[{\"operation\":"
        "\"read\",\"latency-histogram\":[0,0,0,10]}],"
        "\"reads\":{\"requests\":100,\"bytes\":%" G_GINT64_FORMAT ","
        "\"sequential\":%d,\"size-histogram\":[0,0,0,100]},"
        "\"writes\":{\"requests\":100,\"bytes\":%" G_GINT64_FORMAT ","
        "\"sequential\":%d,\"size-histogram\":[100]},"
        "\"working-set\":{\"block-size\":4096,"
        "\"accesses\":%" G_GINT64_FORMAT ","
        "\"sampled-accesses\":%" G_GINT64_FORMAT ",\"sampling-rate\":0.05,"
        "\"unique-bytes\":%" G_GINT64_FORMAT ",\"curve\":%s}}",
        info->since, info->read_bytes, info->sequential, info->written_bytes,
        info->sequential, info->accesses, info->sampled,
        info->unique_blocks * 4096, info->curve);
    g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);

    assert_non_null(node);
    return json_object_ref(weir_json_as_object(node));
}

static WeirRecommendation *recommend(const Info *info, double margin)
{
    g_autoptr(JsonObject) object = make_info(info);

    return weir_recommendation_new(object, NULL, 0, margin, NOW_S);
}

/* --- size --- */

static void test_size_at_the_step(void **state)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);

    (void)state;
    assert_true(r->size_bytes == 64 * MIB);
    assert_true(r->knee_bytes == 64 * MIB);
    assert_true(r->miss_ratio == 0.22);
    assert_true(r->best_ratio == 0.2);
    assert_true(r->file_bytes > r->size_bytes * 1.01);
    assert_true(fmod(r->file_bytes, MIB) == 0);
}

static void test_margin_moves_it(void **state)
{
    g_autoptr(WeirRecommendation) least = recommend(&usual, 0);
    g_autoptr(WeirRecommendation) wide = recommend(&usual, 0.71);
    g_autoptr(WeirRecommendation) whole = recommend(&usual, 0.9);

    (void)state;
    assert_true(least->size_bytes == 256 * MIB);
    assert_true(wide->size_bytes == 1 * MIB);
    assert_true(whole->size_bytes == 1 * MIB);
}

static void test_alternatives(void **state)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);
    const WeirAlternative *others = (WeirAlternative *)r->alternatives->data;
    double rate = 1000000.0 / (2 * DAY_S);

    (void)state;
    assert_int_equal(r->alternatives->len, 5);
    assert_true(others[0].size_bytes == 16 * MIB);
    assert_true(fabs(others[0].miss_ratio - 0.85) < 1e-9);
    assert_true(fabs(others[0].hits_per_s - 0.15 * rate) < 1e-9);
    assert_true(fabs(others[0].gain_per_gib - 0.15 * rate * 64) < 1e-9);
    assert_true(others[2].chosen);
    assert_true(fabs(others[2].miss_ratio - 0.22) < 1e-9);
    assert_true(fabs(others[4].miss_ratio - 0.2) < 1e-9);
    for (int i = 1; i < 5; i++) {
        assert_true(others[i].hits_per_s >= others[i - 1].hits_per_s);
    }
    /* doubling beyond the step buys little */
    assert_true(others[3].gain_per_gib < others[2].gain_per_gib / 10);
}

static void test_no_cache_helps(void **state)
{
    Info info = usual;
    g_autoptr(WeirRecommendation) flat = NULL;
    g_autoptr(WeirRecommendation) none = NULL;

    (void)state;
    info.curve = FLAT;
    flat = recommend(&info, 0.05);
    assert_true(flat->size_bytes == 0 && flat->miss_ratio == 1);
    assert_int_equal(flat->alternatives->len, 0);
    assert_null(weir_recommendation_policy(flat, "/c"));
    info.curve = "[]";
    info.accesses = info.sampled = info.unique_blocks = 0;
    none = recommend(&info, 0.05);
    assert_true(none->size_bytes == 0);
    assert_int_equal(none->curve->len, 0);
}

/* The margin must not swallow what a modest cache saves. */
static void test_little_gain_is_still_some(void **state)
{
    Info info = usual;
    g_autoptr(WeirRecommendation) r = NULL;

    (void)state;
    info.curve = "[{\"cache-size\":4096,\"miss-ratio\":0.99},"
                 "{\"cache-size\":8192,\"miss-ratio\":0.92}]";
    r = recommend(&info, 0.2);
    assert_true(r->size_bytes == 8192);
}

static void test_hostile_curve(void **state)
{
    Info info = usual;
    g_autoptr(WeirRecommendation) r = NULL;

    (void)state;
    info.curve = "[1,{\"cache-size\":-5,\"miss-ratio\":0.1},{},"
                 "{\"cache-size\":4096,\"miss-ratio\":7},"
                 "{\"cache-size\":8192,\"miss-ratio\":0.5},"
                 "{\"cache-size\":8192,\"miss-ratio\":0.4},"
                 "{\"cache-size\":\"x\",\"miss-ratio\":0.1}]";
    r = recommend(&info, 0.05);
    assert_int_equal(r->curve->len, 1);
    assert_true(r->size_bytes == 8192 && r->knee_bytes == 0);
}

/* --- trust --- */

static void check_trust(const Info *info, WeirTrust trust, guint doubts)
{
    g_autoptr(WeirRecommendation) r = recommend(info, 0.05);

    assert_int_equal(r->trust, trust);
    assert_int_equal(r->doubts->len, doubts);
}

static void test_trust(void **state)
{
    Info info = usual;

    (void)state;
    check_trust(&info, WEIR_TRUST_GOOD, 0);
    info.since = NOW_S - DAY_S + 1;
    check_trust(&info, WEIR_TRUST_FAIR, 1);
    info.since = NOW_S - 3599;
    check_trust(&info, WEIR_TRUST_LOW, 1);
    info.since = NOW_S + 5;
    check_trust(&info, WEIR_TRUST_LOW, 1);
    info = usual;
    info.sampled = 19999;
    check_trust(&info, WEIR_TRUST_FAIR, 1);
    info.sampled = 999;
    check_trust(&info, WEIR_TRUST_LOW, 1);
    info = usual;
    info.unique_blocks = 60000;
    check_trust(&info, WEIR_TRUST_FAIR, 1);
}

static void check_growth(gint64 new_blocks, WeirTrust trust)
{
    Info later = usual;
    g_autoptr(JsonObject) before = make_info(&usual);
    g_autoptr(JsonObject) now = NULL;
    g_autoptr(WeirRecommendation) r = NULL;

    later.accesses += 10000;
    later.unique_blocks += new_blocks;
    now = make_info(&later);
    r = weir_recommendation_new(now, before, 60, 0.05, NOW_S);
    assert_true(r->growth_s == 60);
    assert_true(r->growth_bytes == MAX(new_blocks, 0) * 4096.0);
    assert_int_equal(r->trust, trust);
}

static void test_growth_while_watched(void **state)
{
    (void)state;
    check_growth(0, WEIR_TRUST_GOOD);
    check_growth(499, WEIR_TRUST_GOOD);
    check_growth(501, WEIR_TRUST_LOW);
    check_growth(-100, WEIR_TRUST_GOOD);    /* an estimate may fall */
}

/* --- options --- */

static void test_options(void **state)
{
    Info info = usual;
    g_autoptr(WeirRecommendation) mixed = recommend(&usual, 0.05);
    g_autoptr(WeirRecommendation) reads = NULL;
    g_autoptr(WeirRecommendation) scans = NULL;

    (void)state;
    assert_true(fabs(mixed->write_share - 0.3) < 1e-9);
    assert_true(mixed->write_back && !mixed->second_touch);
    assert_true(mixed->read_bytes == 4096 && mixed->write_bytes == 512);
    assert_true(mixed->read_ns == 12);
    info.written_bytes = 70;
    reads = recommend(&info, 0.05);
    assert_false(reads->write_back);
    info.unique_blocks = 600000;
    info.sequential = 90;
    scans = recommend(&info, 0.05);
    assert_true(scans->second_touch && scans->bypass_bytes == 4 * MIB);
}

static void test_policy(void **state)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);
    g_autofree char *plain = weir_recommendation_policy(r, "/ssd/");
    g_autofree char *hostile = weir_recommendation_policy(r, "/it's $x");

    (void)state;
    assert_string_equal(plain, "  - weir-cache:\n"
                        "      cache-file: 'create:69M:/ssd/${vm}-${disk}"
                        ".cache'\n      mode: write-back\n");
    assert_non_null(strstr(hostile, ":/it''s $$x/${vm}-"));
}

/* --- plot --- */

static void check_plot(guint columns, guint expected, bool unicode)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);
    g_autofree char *text = weir_plot_text(r->curve, r->size_bytes, columns,
                                           unicode);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    assert_true(g_utf8_validate(text, -1, NULL));
    assert_int_equal(g_str_is_ascii(text), !unicode);
    assert_int_equal(g_strv_length(lines), 13 + 1 + 1 + 1 + 1);
    assert_int_equal(g_utf8_strlen(lines[13], -1), expected);
    for (guint i = 0; lines[i]; i++) {
        assert_true(g_utf8_strlen(lines[i], -1) <= expected);
        assert_false(g_str_has_suffix(lines[i], " "));
    }
    assert_true(g_str_has_prefix(lines[0], "100% "));
    assert_true(g_str_has_prefix(lines[12], "  0% "));
    assert_non_null(strstr(lines[15], "64 MiB"));
}

static void test_plot(void **state)
{
    (void)state;
    check_plot(80, 80, false);
    check_plot(80, 80, true);
    check_plot(100, 100, true);
    check_plot(0, WEIR_PLOT_COLUMNS_MIN, true);
    check_plot(100000, WEIR_PLOT_COLUMNS_MAX, false);
}

/* In column 0 the curve begins at 90 %, in the last it ends at 20 %. */
static void test_plot_is_the_curve(void **state)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);
    g_autofree char *text = weir_plot_text(r->curve, 0, 80, false);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    (void)state;
    for (guint row = 0; row < 13; row++) {
        gsize length = strlen(lines[row]);

        assert_int_equal(lines[row][6] == '*', row == 1);
        assert_int_equal(length == 80, row == 10);
    }
    assert_null(strchr(text, '^'));
}

static void test_plot_of_one_point(void **state)
{
    Info info = usual;
    g_autoptr(WeirRecommendation) r = NULL;
    g_autofree char *text = NULL;

    (void)state;
    info.curve = "[{\"cache-size\":4096,\"miss-ratio\":0.5}]";
    r = recommend(&info, 0.05);
    text = weir_plot_text(r->curve, 4096, 40, true);
    assert_non_null(strstr(text, "▲ 4.0 KiB"));
}

/* --- SVG --- */

static void on_text(GMarkupParseContext *context, const char *text,
                    gsize length, gpointer opaque, GError **error)
{
    GString *title = opaque;

    (void)error;
    if (strcmp(g_markup_parse_context_get_element(context), "title") == 0) {
        g_string_append_len(title, text, (gssize)length);
    }
}

/* Parse a picture; returns its title. */
static char *check_svg(const WeirRecommendation *r, const char *vm,
                       const char *disk)
{
    static const GMarkupParser parser = { .text = on_text };
    g_autofree char *svg = weir_svg_recommendation(r, vm, disk);
    GString *title = g_string_new(NULL);
    GMarkupParseContext *context = g_markup_parse_context_new(&parser, 0,
                                                              title, NULL);

    assert_true(g_utf8_validate(svg, -1, NULL));
    assert_true(g_markup_parse_context_parse(context, svg, -1, NULL));
    assert_true(g_markup_parse_context_end_parse(context, NULL));
    g_markup_parse_context_free(context);
    assert_null(strstr(svg, "href"));
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    return g_string_free(title, FALSE);
}

static void test_svg(void **state)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);
    g_autofree char *title = check_svg(r, "web", "root");

    (void)state;
    assert_string_equal(title, "Cache for disk root of web");
}

static void test_svg_of_hostile_names(void **state)
{
    g_autoptr(WeirRecommendation) r = recommend(&usual, 0.05);
    g_autofree char *markup = check_svg(r, "</title><script>", "&'\"]]>");
    g_autofree char *control = check_svg(r, "a\001\033[2J\nb", "\xff\xfe");
    g_autofree char *noncharacter = check_svg(r, "\xef\xbf\xbe", "\xc2\x85");
    g_autofree char *name = g_strnfill(10000, 'x');
    g_autofree char *lengthy = check_svg(r, name, "d");

    (void)state;
    assert_string_equal(markup, "Cache for disk &'\"]]> of </title><script>");
    assert_string_equal(control, "Cache for disk \ufffd\ufffd of "
                        "a\ufffd\ufffd[2J\ufffdb");
    assert_string_equal(noncharacter, "Cache for disk \ufffd of \ufffd");
    assert_true(strlen(lengthy) > 10000);
}

static void test_svg_without_recommendation(void **state)
{
    Info info = usual;
    g_autoptr(WeirRecommendation) r = NULL;
    g_autofree char *svg = NULL;

    (void)state;
    info.curve = FLAT;
    r = recommend(&info, 0.05);
    g_free(check_svg(r, "vm", "disk"));
    svg = weir_svg_recommendation(r, "vm", "disk");
    assert_null(strstr(svg, "<circle"));
    assert_non_null(strstr(svg, "no cache helps"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size_at_the_step),
        cmocka_unit_test(test_margin_moves_it),
        cmocka_unit_test(test_alternatives),
        cmocka_unit_test(test_no_cache_helps),
        cmocka_unit_test(test_little_gain_is_still_some),
        cmocka_unit_test(test_hostile_curve),
        cmocka_unit_test(test_trust),
        cmocka_unit_test(test_growth_while_watched),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_plot),
        cmocka_unit_test(test_plot_is_the_curve),
        cmocka_unit_test(test_plot_of_one_point),
        cmocka_unit_test(test_svg),
        cmocka_unit_test(test_svg_of_hostile_names),
        cmocka_unit_test(test_svg_without_recommendation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

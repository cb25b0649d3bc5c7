/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "recommendation.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "units.h"

#define MIB (1024.0 * 1024)
#define GIB (1024 * MIB)
#define HOUR_S 3600
#define DAY_S (24 * HOUR_S)

/* A cache that saves less of the accesses is of no use. */
#define USEFUL 0.05
/* Accesses in the sample below which the curve is mostly chance. */
#define SAMPLES_FEW 1000
#define SAMPLES_ENOUGH 20000
/* Share of new blocks among the accesses from which the set still grows. */
#define GROWS 0.05
/* Share of written bytes from which it matters where writes go. */
#define WRITES_MATTER 0.1
/* Share of first touches from which a block may have to be read twice. */
#define SCANNED 0.5
#define SEQUENTIAL 0.5
#define BYPASS_BYTES (4 * MIB)
#define CACHE_FILE_MIN (8 * MIB)

const char *weir_trust_name(WeirTrust trust)
{
    static const char *const names[] = {
        [WEIR_TRUST_LOW] = "low",
        [WEIR_TRUST_FAIR] = "fair",
        [WEIR_TRUST_GOOD] = "good",
    };

    return names[trust];
}

void weir_recommendation_free(WeirRecommendation *r)
{
    if (r) {
        g_array_unref(r->curve);
        g_array_unref(r->alternatives);
        g_ptr_array_unref(r->doubts);
        g_free(r);
    }
}

/* --- size --- */

/* The file: superblocks, journal (1/1024, from 1 MiB), table (up to 0.5 %). */
static double recommend_file(double size_bytes)
{
    double bytes = size_bytes + size_bytes / 128 + 4 * MIB;

    return MAX(ceil(bytes / MIB) * MIB, CACHE_FILE_MIN);
}

static void recommend_size(WeirRecommendation *r)
{
    const WeirCurvePoint *point;
    guint knee;

    r->best_ratio = weir_curve_best(r->curve);
    r->miss_ratio = 1;
    if (r->curve->len == 0 || r->best_ratio > 1 - USEFUL) {
        return;
    }
    /* A wide margin must not end at no cache at all. */
    point = weir_curve_at(r->curve, weir_curve_smallest(
        r->curve, MIN(r->margin, 1 - USEFUL - r->best_ratio)));
    r->size_bytes = point->size_bytes;
    r->miss_ratio = point->miss_ratio;
    r->file_bytes = recommend_file(r->size_bytes);
    knee = weir_curve_knee(r->curve);
    r->knee_bytes = knee ? weir_curve_at(r->curve, knee)->size_bytes : 0;
}

static void recommend_alternatives(WeirRecommendation *r)
{
    static const double factors[] = { 0.25, 0.5, 1, 2, 4 };
    double rate = r->watched_s > 0 ? r->accesses / (double)r->watched_s : 0;
    double before_bytes = 0;
    double before_hits = 0;

    for (guint i = 0; r->size_bytes > 0 && i < G_N_ELEMENTS(factors); i++) {
        double bytes = r->size_bytes * factors[i];
        WeirAlternative other = {
            .size_bytes = bytes,
            .miss_ratio = weir_curve_ratio(r->curve, bytes),
            .chosen = factors[i] == 1,
        };

        other.hits_per_s = (1 - other.miss_ratio) * rate;
        other.gain_per_gib = (other.hits_per_s - before_hits) /
                             ((bytes - before_bytes) / GIB);
        before_bytes = bytes;
        before_hits = other.hits_per_s;
        g_array_append_val(r->alternatives, other);
    }
}

/* --- trust --- */

static void G_GNUC_PRINTF(3, 4) recommend_doubt(WeirRecommendation *r,
                                                WeirTrust most,
                                                const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(r->doubts, g_strdup_vprintf(format, args));
    va_end(args);
    r->trust = MIN(r->trust, most);
}

void weir_recommendation_doubt(WeirRecommendation *r, const char *reason)
{
    recommend_doubt(r, WEIR_TRUST_LOW, "%s", reason);
}

static void recommend_doubt_samples(WeirRecommendation *r)
{
    if (r->sampled_accesses < SAMPLES_ENOUGH) {
        recommend_doubt(r, r->sampled_accesses < SAMPLES_FEW
                               ? WEIR_TRUST_LOW : WEIR_TRUST_FAIR,
                        "only %.0f accesses are in the sample, %d would be "
                        "enough", r->sampled_accesses, SAMPLES_ENOUGH);
    }
}

static void recommend_doubt_time(WeirRecommendation *r)
{
    if (r->watched_s < DAY_S) {
        recommend_doubt(r, r->watched_s < HOUR_S ? WEIR_TRUST_LOW
                                                 : WEIR_TRUST_FAIR,
                        "watched for less than %s: a day shows all that the "
                        "disk does",
                        r->watched_s < HOUR_S ? "an hour" : "a day");
    }
}

static void recommend_doubt_growth(WeirRecommendation *r, double new_share)
{
    g_autofree char *growth = weir_format_bytes(r->growth_bytes);

    if (r->growth_s > 0 && new_share > GROWS) {
        recommend_doubt(r, WEIR_TRUST_LOW, "the working set still grows: by "
                        "%s in %.0f s", growth, r->growth_s);
    } else if (r->growth_s == 0 && r->first_touches > GROWS) {
        recommend_doubt(r, WEIR_TRUST_FAIR, "%.0f%% of the accesses were the "
                        "first of a block: does the set grow? (--watch)",
                        100 * r->first_touches);
    }
}

/* How much the set has grown since @before; returns the share of new blocks. */
static double recommend_growth(WeirRecommendation *r, JsonObject *before,
                               double block_bytes)
{
    double accesses = r->accesses - weir_json_number(before, "accesses", 0);

    /* below 0: it was begun anew meanwhile */
    r->growth_bytes = MAX(r->unique_bytes -
                          weir_json_number(before, "unique-bytes", 0), 0);
    return accesses > 0 ? r->growth_bytes / block_bytes / accesses : 0;
}

static void recommend_trust(WeirRecommendation *r, JsonObject *set,
                            JsonObject *before, double growth_s)
{
    double block_bytes = MAX(weir_json_number(set, "block-size", 4096), 1);
    double new_share = 0;

    r->trust = WEIR_TRUST_GOOD;
    r->accesses = weir_json_number(set, "accesses", 0);
    r->sampled_accesses = weir_json_number(set, "sampled-accesses", 0);
    r->sampling_rate = weir_json_number(set, "sampling-rate", 0);
    r->unique_bytes = weir_json_number(set, "unique-bytes", 0);
    r->first_touches = r->accesses > 0
        ? MIN(r->unique_bytes / block_bytes / r->accesses, 1) : 0;
    if (before) {
        r->growth_s = growth_s;
        new_share = recommend_growth(r, before, block_bytes);
    }
    recommend_doubt_samples(r);
    recommend_doubt_time(r);
    recommend_doubt_growth(r, new_share);
}

/* --- options --- */

/* The length that half of the requests do not exceed, a power of two. */
static double recommend_length(JsonObject *traffic)
{
    return ldexp(512, weir_advice_element(
        weir_json_array(traffic, "size-histogram"), 0.5));
}

static double recommend_latency(JsonObject *info, const char *operation)
{
    JsonArray *statistics = weir_json_array(info, "statistics");

    for (guint i = 0; i < weir_json_length(statistics); i++) {
        JsonObject *entry = weir_json_object_at(statistics, i);

        if (g_strcmp0(weir_json_string(entry, "operation"), operation) == 0) {
            return weir_advice_percentile(
                weir_json_array(entry, "latency-histogram"), 0.5);
        }
    }
    return 0;
}

static void recommend_options(WeirRecommendation *r, JsonObject *info)
{
    JsonObject *reads = weir_json_object(info, "reads");
    JsonObject *writes = weir_json_object(info, "writes");
    double requests = weir_json_number(reads, "requests", 0) +
                      weir_json_number(writes, "requests", 0);
    double written = weir_json_number(writes, "bytes", 0);
    double bytes = weir_json_number(reads, "bytes", 0) + written;

    r->write_share = bytes > 0 ? written / bytes : 0;
    r->sequential = requests > 0
        ? (weir_json_number(reads, "sequential", 0) +
           weir_json_number(writes, "sequential", 0)) / requests : 0;
    r->read_bytes = recommend_length(reads);
    r->write_bytes = recommend_length(writes);
    r->read_ns = recommend_latency(info, "read");
    r->write_back = r->write_share >= WRITES_MATTER;
    r->second_touch = r->first_touches > SCANNED;
    r->bypass_bytes = r->second_touch && r->sequential > SEQUENTIAL
                          ? BYPASS_BYTES : 0;
}

WeirRecommendation *weir_recommendation_new(JsonObject *info,
                                            JsonObject *before,
                                            double growth_s, double margin,
                                            gint64 now_s)
{
    WeirRecommendation *r = g_new0(WeirRecommendation, 1);
    JsonObject *set = weir_json_object(info, "working-set");

    r->curve = weir_curve_new(weir_json_array(set, "curve"));
    r->alternatives = g_array_new(FALSE, FALSE, sizeof(WeirAlternative));
    r->doubts = g_ptr_array_new_with_free_func(g_free);
    r->margin = margin;
    r->watched_s = MAX(now_s - weir_json_int(info, "since", now_s), 0);
    recommend_trust(r, set, weir_json_object(before, "working-set"), growth_s);
    recommend_options(r, info);
    recommend_size(r);
    recommend_alternatives(r);
    return r;
}

/* --- words --- */

char *weir_recommendation_why(const WeirRecommendation *r)
{
    if (r->curve->len == 0) {
        return g_strdup("nothing was read or written yet");
    }
    if (r->size_bytes == 0) {
        return g_strdup_printf("even a cache of all that is used would miss "
                               "%.1f%% of the accesses", 100 * r->best_ratio);
    }
    return g_strdup_printf("misses %.1f%% of the accesses; the best is %.1f%%,"
                           " up to %.3g%% more are allowed",
                           100 * r->miss_ratio, 100 * r->best_ratio,
                           100 * r->margin);
}

char *weir_recommendation_policy(const WeirRecommendation *r, const char *dir)
{
    g_autoptr(GString) text = NULL;
    g_autoptr(GString) path = g_string_new(dir);

    if (r->size_bytes == 0) {
        return NULL;
    }
    /* in single quotes of YAML, where "$" begins a variable of the policy */
    g_string_replace(path, "'", "''", 0);
    g_string_replace(path, "$", "$$", 0);
    text = g_string_new("  - weir-cache:\n");
    g_string_append_printf(text, "      cache-file: 'create:%.0fM:%s%s"
                           "${vm}-${disk}.cache'\n", r->file_bytes / MIB,
                           path->str,
                           g_str_has_suffix(path->str, "/") ? "" : "/");
    g_string_append_printf(text, "      mode: %s\n", r->write_back
                           ? "write-back" : "write-through");
    if (r->second_touch) {
        g_string_append(text, "      promote: second-touch\n");
    }
    if (r->bypass_bytes > 0) {
        g_string_append_printf(text, "      bypass-sequential: %.0f\n",
                               r->bypass_bytes);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* --- JSON --- */

static void recommend_json_size(const WeirRecommendation *r,
                                JsonObject *object)
{
    g_autofree char *why = weir_recommendation_why(r);

    json_object_set_double_member(object, "margin", r->margin);
    json_object_set_double_member(object, "best-miss-ratio", r->best_ratio);
    json_object_set_boolean_member(object, "cache-helps", r->size_bytes > 0);
    json_object_set_string_member(object, "why", why);
    if (r->size_bytes == 0) {
        return;
    }
    json_object_set_int_member(object, "cache-size", (gint64)r->size_bytes);
    json_object_set_int_member(object, "cache-file-size",
                               (gint64)r->file_bytes);
    json_object_set_double_member(object, "miss-ratio", r->miss_ratio);
    if (r->knee_bytes > 0) {
        json_object_set_int_member(object, "knee-size", (gint64)r->knee_bytes);
    }
    json_object_set_string_member(object, "mode", r->write_back
                                  ? "write-back" : "write-through");
    json_object_set_string_member(object, "promote", r->second_touch
                                  ? "second-touch" : "first-touch");
    json_object_set_int_member(object, "bypass-sequential",
                               (gint64)r->bypass_bytes);
}

static JsonArray *recommend_json_alternatives(const WeirRecommendation *r)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < r->alternatives->len; i++) {
        const WeirAlternative *other = &g_array_index(r->alternatives,
                                                      WeirAlternative, i);
        JsonObject *object = json_object_new();

        json_object_set_int_member(object, "cache-size",
                                   (gint64)other->size_bytes);
        json_object_set_double_member(object, "miss-ratio", other->miss_ratio);
        json_object_set_double_member(object, "hits-per-second",
                                      other->hits_per_s);
        json_object_set_double_member(object, "hits-per-second-per-gib",
                                      other->gain_per_gib);
        json_array_add_object_element(array, object);
    }
    return array;
}

static JsonObject *recommend_json_trust(const WeirRecommendation *r)
{
    JsonObject *object = json_object_new();
    JsonArray *doubts = json_array_new();

    for (guint i = 0; i < r->doubts->len; i++) {
        json_array_add_string_element(doubts, g_ptr_array_index(r->doubts, i));
    }
    json_object_set_string_member(object, "level", weir_trust_name(r->trust));
    json_object_set_array_member(object, "doubts", doubts);
    json_object_set_int_member(object, "watched-seconds", r->watched_s);
    json_object_set_int_member(object, "accesses", (gint64)r->accesses);
    json_object_set_int_member(object, "sampled-accesses",
                               (gint64)r->sampled_accesses);
    json_object_set_double_member(object, "sampling-rate", r->sampling_rate);
    json_object_set_int_member(object, "working-set", (gint64)r->unique_bytes);
    json_object_set_double_member(object, "first-touches", r->first_touches);
    if (r->growth_s > 0) {
        json_object_set_int_member(object, "growth", (gint64)r->growth_bytes);
        json_object_set_double_member(object, "growth-seconds", r->growth_s);
    }
    return object;
}

static JsonArray *recommend_json_curve(const WeirRecommendation *r)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < r->curve->len; i++) {
        const WeirCurvePoint *point = weir_curve_at(r->curve, i);
        JsonObject *object = json_object_new();

        json_object_set_int_member(object, "cache-size",
                                   (gint64)point->size_bytes);
        json_object_set_double_member(object, "miss-ratio", point->miss_ratio);
        json_array_add_object_element(array, object);
    }
    return array;
}

JsonObject *weir_recommendation_json(const WeirRecommendation *r)
{
    JsonObject *object = json_object_new();
    JsonObject *load = json_object_new();

    recommend_json_size(r, object);
    json_object_set_array_member(object, "alternatives",
                                 recommend_json_alternatives(r));
    json_object_set_object_member(object, "trust", recommend_json_trust(r));
    json_object_set_double_member(load, "write-share", r->write_share);
    json_object_set_double_member(load, "sequential-share", r->sequential);
    json_object_set_int_member(load, "read-size", (gint64)r->read_bytes);
    json_object_set_int_member(load, "write-size", (gint64)r->write_bytes);
    json_object_set_double_member(load, "read-latency", r->read_ns);
    json_object_set_object_member(object, "load", load);
    json_object_set_array_member(object, "curve", recommend_json_curve(r));
    return object;
}

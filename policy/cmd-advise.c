/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir advise */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "inspected.h"
#include "plot.h"
#include "svg.h"
#include "table.h"
#include "units.h"
#include "weir.h"

#define ADVISE_CACHE_DIR "/var/lib/weir"
#define ADVISE_MARGIN_MAX 0.9
#define ADVISE_WATCH_MAX_S 86400
#define ADVISE_COLUMNS 80

typedef struct AdviseOptions {
    char *qmp;
    char *runtime_dir;
    char *svg;
    char *cache_dir;
    double margin;
    int watch_s;
    gboolean json;
    gboolean policy;
} AdviseOptions;

static void advise_options_clear(AdviseOptions *options)
{
    g_free(options->qmp);
    g_free(options->runtime_dir);
    g_free(options->svg);
    g_free(options->cache_dir);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AdviseOptions, advise_options_clear)

/* What a VM told at one time. */
typedef struct Snapshot {
    GPtrArray *targets;
    GPtrArray *found;
    const WeirInspected *disk;      /* the one of @found that was meant */
} Snapshot;

static void snapshot_clear(Snapshot *snapshot)
{
    g_clear_pointer(&snapshot->found, g_ptr_array_unref);
    g_clear_pointer(&snapshot->targets, g_ptr_array_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Snapshot, snapshot_clear)

/* --- asking --- */

/* Whether the VM has that disk, as far as its record tells. */
static bool advise_has_disk(const GPtrArray *targets, const char *disk,
                            GError **error)
{
    g_autoptr(GString) names = g_string_new(NULL);
    const char *vm = NULL;

    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);

        vm = target->name;
        if (!target->record || !disk ||
            weir_record_disk(target->record, disk, NULL)) {
            return true;
        }
        for (guint j = 0; j < target->record->disks->len; j++) {
            const WeirRecordDisk *entry = g_ptr_array_index(
                target->record->disks, j);

            g_string_append_printf(names, "%s%s", names->len ? ", " : "",
                                   entry->id);
        }
    }
    weir_set_error(error, "VM '%s' has no disk '%s', expected one of %s",
                   vm, disk, names->str);
    return false;
}

/* Tell how to get a weir-inspect into the chain. */
static void advise_explain(const GPtrArray *targets, const char *disk,
                           GError **error)
{
    const WeirTarget *target = g_ptr_array_index(targets, 0);
    const char *vm = target->record ? target->name : "VM";
    const char *name = disk ? disk : "DISK";
    g_autofree char *message = g_strdup_printf(
        "VM '%s': %s\nTo have a disk watched while it is in use, bring it "
        "under a policy with\n  filters:\n    - weir-inspect:\nby\n"
        "  weir attach --policy NAME %s %s\n"
        "or, if it is under a policy, add the filter to that and\n"
        "  weir reapply %s %s\n"
        "Ask again after a day; what less than an hour tells is little.",
        target->name, (*error)->message, vm, name, vm, name);
    g_clear_error(error);
    g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND, message);
}

/* Choose one of what was found; @node: its node name, NULL: any */
static const WeirInspected *advise_choose(const GPtrArray *found,
                                          const char *node, GError **error)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (guint i = 0; i < found->len; i++) {
        const WeirInspected *inspected = g_ptr_array_index(found, i);

        if (node && g_strcmp0(weir_json_string(inspected->info, "node-name"),
                              node) == 0) {
            return inspected;
        }
        g_string_append_printf(names, "%s%s", i ? ", " : "", inspected->disk);
    }
    if (node) {
        weir_set_error(error, "%s '%s' has gone meanwhile",
                       WEIR_INSPECT_DRIVER, node);
        return NULL;
    }
    if (found->len > 1) {
        weir_set_error(error, "found %s in several places, expected one of "
                       "these disks to be named: %s", WEIR_INSPECT_DRIVER,
                       names->str);
        return NULL;
    }
    return g_ptr_array_index(found, 0);
}

static bool advise_ask(const AdviseOptions *options, const char *vm,
                       const char *disk, const char *node, Snapshot *snapshot,
                       GError **error)
{
    g_auto(WeirTargetQuery) query = {
        .dir = weir_runtime_dir(options->runtime_dir),
        .vm = g_strdup(vm),
        .qmp = g_strdup(options->qmp),
        .timeout_ms = WEIR_TARGET_TIMEOUT_MS,
    };

    snapshot->targets = weir_targets_ask(&query, error);
    if (!snapshot->targets ||
        !advise_has_disk(snapshot->targets, disk, error)) {
        return false;
    }
    snapshot->found = weir_inspected_find(snapshot->targets, disk, error);
    if (!snapshot->found) {
        if (g_error_matches(*error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND)) {
            advise_explain(snapshot->targets, disk, error);
        }
        return false;
    }
    snapshot->disk = advise_choose(snapshot->found, node, error);
    if (snapshot->disk &&
        !weir_json_object(snapshot->disk->info, "working-set")) {
        weir_set_error(error, "%s '%s' has the option working-set off",
                       WEIR_INSPECT_DRIVER,
                       weir_json_string(snapshot->disk->info, "node-name"));
        return false;
    }
    return snapshot->disk != NULL;
}

/* --- telling --- */

static char *advise_duration(gint64 seconds)
{
    static const struct {
        gint64 seconds;
        const char *unit;
    } units[] = { { 86400, "days" }, { 3600, "h" }, { 60, "min" } };

    for (guint i = 0; i < G_N_ELEMENTS(units); i++) {
        if (seconds >= 2 * units[i].seconds) {
            return g_strdup_printf("%" G_GINT64_FORMAT " %s",
                                   seconds / units[i].seconds, units[i].unit);
        }
    }
    return g_strdup_printf("%" G_GINT64_FORMAT " s", seconds);
}

static void advise_print_trust(const WeirRecommendation *r)
{
    g_autofree char *watched = advise_duration(r->watched_s);
    g_autofree char *set = weir_format_bytes(r->unique_bytes);
    g_autofree char *growth = weir_format_bytes(r->growth_bytes);

    printf("working set:  %s, %.1f%% of the accesses are the first of a "
           "block", set, 100 * r->first_touches);
    if (r->growth_s > 0) {
        printf("; grew by %s in %.0f s", growth, r->growth_s);
    }
    printf("\ntrust:        %s: watched for %s, %.0f accesses, %.0f of them "
           "sampled\n", weir_trust_name(r->trust), watched, r->accesses,
           r->sampled_accesses);
    for (guint i = 0; i < r->doubts->len; i++) {
        printf("              - %s\n",
               (const char *)g_ptr_array_index(r->doubts, i));
    }
}

static void advise_print_load(const WeirRecommendation *r)
{
    g_autofree char *reads = weir_format_bytes(r->read_bytes);
    g_autofree char *writes = weir_format_bytes(r->write_bytes);
    g_autofree char *latency = weir_format_time(r->read_ns);

    printf("writes:       %.0f%% of the bytes: %s\n", 100 * r->write_share,
           r->write_back
               ? "write-back, if what is not written back\n"
                 "              yet may go with the cache's device; else "
                 "write-through"
               : "write-through costs little and loses\n"
                 "              nothing");
    printf("requests:     half of the reads up to %s, of the writes up to %s; "
           "%.0f%% sequential\n", reads, writes, 100 * r->sequential);
    if (r->write_back && r->write_bytes < 4096) {
        printf("              writes below 4 KiB, the block of weir-cache: it "
               "reads the rest first\n");
    }
    if (r->read_ns > 0) {
        printf("latency:      half of the reads take less than %s: a cache "
               "has to be faster\n", latency);
    }
}

/* The cache that the disk has already. */
static void advise_print_cache(JsonObject *cache)
{
    double hits = weir_json_number(cache, "read-hits", 0);
    double misses = weir_json_number(cache, "read-misses", 0);
    g_autofree char *size = weir_format_bytes(weir_json_number(cache, "size",
                                                               0));

    if (cache) {
        printf("cache now:    %s, %s", size, weir_json_string(cache, "mode"));
        if (hits + misses > 0) {
            printf(", misses %.1f%% of the reads",
                   100 * misses / (hits + misses));
        }
        putchar('\n');
    }
}

static guint advise_columns(void)
{
    const char *text = g_getenv("COLUMNS");
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    return text && atoi(text) > 0 ? (guint)atoi(text) : ADVISE_COLUMNS;
}

static void advise_print_plot(const WeirRecommendation *r)
{
    g_autofree char *text = weir_plot_text(r->curve, r->size_bytes,
                                           advise_columns(),
                                           g_get_charset(NULL));

    printf("\naccesses that miss, by size of the cache:\n%s", text);
}

static void advise_print_alternatives(const WeirRecommendation *r)
{
    g_autoptr(WeirTable) table = weir_table_new(4);

    weir_table_row(table, "  CACHE", "MISSES", "HITS/S",
                   "MORE HITS/S PER GIB");
    for (guint i = 0; i < r->alternatives->len; i++) {
        const WeirAlternative *other = &g_array_index(r->alternatives,
                                                      WeirAlternative, i);
        g_autofree char *size = weir_format_bytes(other->size_bytes);
        g_autofree char *misses = g_strdup_printf("%.1f%%",
                                                  100 * other->miss_ratio);
        g_autofree char *hits = g_strdup_printf("%.1f", other->hits_per_s);
        g_autofree char *gain = g_strdup_printf("%.1f", other->gain_per_gib);
        g_autofree char *name = g_strconcat(other->chosen ? "* " : "  ", size,
                                            NULL);

        weir_table_row(table, name, misses, hits, gain);
    }
    printf("\nwhat other sizes would give:\n");
    weir_table_print(table);
}

static void advise_print(const WeirInspected *inspected,
                         const WeirRecommendation *r)
{
    g_autofree char *disk = weir_printable(inspected->disk);
    g_autofree char *size = weir_format_bytes(r->size_bytes);
    g_autofree char *why = weir_recommendation_why(r);
    g_autofree char *knee = weir_format_bytes(r->knee_bytes);

    printf("VM %s, disk %s: %s%s\n\n", inspected->vm, disk,
           r->size_bytes > 0 ? size : "no cache",
           r->size_bytes > 0 ? " of cache" : " helps");
    printf("why:          %s\n", why);
    if (r->knee_bytes > 0) {
        printf("knee:         the curve bends most at %s\n", knee);
    }
    advise_print_trust(r);
    advise_print_load(r);
    advise_print_cache(inspected->cache);
    if (r->curve->len > 0) {
        advise_print_plot(r);
    }
    if (r->alternatives->len > 0) {
        advise_print_alternatives(r);
    }
}

static void advise_print_json(const WeirInspected *inspected,
                              const WeirRecommendation *r)
{
    g_autoptr(JsonObject) object = weir_recommendation_json(r);
    g_autofree char *text = NULL;

    json_object_set_string_member(object, "vm", inspected->vm);
    json_object_set_string_member(object, "disk", inspected->disk);
    weir_json_set_string(object, "node",
                         weir_json_string(inspected->info, "node-name"));
    text = weir_json_object_text(object, true);
    printf("%s\n", text);
}

static bool advise_print_policy(const AdviseOptions *options,
                                const WeirInspected *inspected,
                                const WeirRecommendation *r, GError **error)
{
    g_autofree char *text = weir_recommendation_policy(
        r, options->cache_dir ? options->cache_dir : ADVISE_CACHE_DIR);
    g_autofree char *why = weir_recommendation_why(r);
    g_autofree char *disk = weir_printable(inspected->disk);

    if (!text) {
        weir_set_error(error, "no cache helps disk %s: %s", disk, why);
        return false;
    }
    printf("  # for disk %s of %s: %s\n", disk, inspected->vm, why);
    for (guint i = 0; i < r->doubts->len; i++) {
        printf("  # trust is %s: %s\n", weir_trust_name(r->trust),
               (const char *)g_ptr_array_index(r->doubts, i));
    }
    fputs(text, stdout);
    return true;
}

/* The file is there whole or as it was. */
static bool advise_write_svg(const char *file, const WeirInspected *inspected,
                             const WeirRecommendation *r, GError **error)
{
    g_autofree char *text = NULL;

    if (r->curve->len == 0) {
        weir_set_error(error, "cannot draw %s: nothing was read or written "
                       "yet", file);
        return false;
    }
    text = weir_svg_recommendation(r, inspected->vm, inspected->disk);
    if (!g_file_set_contents_full(file, text, -1,
                                  G_FILE_SET_CONTENTS_CONSISTENT |
                                  G_FILE_SET_CONTENTS_DURABLE, 0644, error)) {
        g_prefix_error(error, "cannot write the picture: ");
        return false;
    }
    return true;
}

/* --- command --- */

static int advise_tell(const AdviseOptions *options,
                       const WeirInspected *inspected,
                       const WeirRecommendation *r)
{
    GError *error = NULL;

    if (options->svg &&
        !advise_write_svg(options->svg, inspected, r, &error)) {
        return weir_fail(error);
    }
    if (options->json) {
        advise_print_json(inspected, r);
    } else if (!options->policy) {
        advise_print(inspected, r);
    } else if (!advise_print_policy(options, inspected, r, &error)) {
        return weir_fail(error);
    }
    return WEIR_EXIT_OK;
}

static int advise_run(const AdviseOptions *options, const char *vm,
                      const char *disk)
{
    g_autoptr(WeirRecommendation) r = NULL;
    g_auto(Snapshot) before = { 0 };
    g_auto(Snapshot) now = { 0 };
    const char *node = NULL;
    gint64 begin_us = g_get_monotonic_time();
    GError *error = NULL;

    if (options->watch_s > 0) {
        if (!advise_ask(options, vm, disk, NULL, &before, &error)) {
            return weir_fail(error);
        }
        node = weir_json_string(before.disk->info, "node-name");
        g_usleep((gulong)options->watch_s * G_USEC_PER_SEC);
    }
    if (!advise_ask(options, vm, disk, node, &now, &error)) {
        return weir_fail(error);
    }
    r = weir_recommendation_new(
        now.disk->info, before.disk ? before.disk->info : NULL,
        (double)(g_get_monotonic_time() - begin_us) / G_USEC_PER_SEC,
        options->margin, g_get_real_time() / G_USEC_PER_SEC);
    if (now.disk->below_cache) {
        weir_recommendation_doubt(r, "weir-inspect is below weir-cache: it "
                                  "sees only what that does not have");
    }
    return advise_tell(options, now.disk, r);
}

/* Whether the values make sense. */
static bool advise_check(const AdviseOptions *options)
{
    const char *dir = options->cache_dir;

    if (!(options->margin >= 0 && options->margin <= ADVISE_MARGIN_MAX)) {
        weir_usage("advise: found --margin %g, expected 0 to %g",
                   options->margin, ADVISE_MARGIN_MAX);
        return false;
    }
    if (options->watch_s < 0 || options->watch_s > ADVISE_WATCH_MAX_S) {
        weir_usage("advise: found --watch %d, expected up to %d seconds",
                   options->watch_s, ADVISE_WATCH_MAX_S);
        return false;
    }
    if (options->json && options->policy) {
        weir_usage("advise: found --json and --policy, expected one");
        return false;
    }
    if (dir && !options->policy) {
        weir_usage("advise: found --cache-dir without --policy");
        return false;
    }
    for (const char *p = dir; p && *p; p++) {
        if (dir[0] != '/' || g_ascii_iscntrl(*p)) {
            weir_usage("advise: found --cache-dir that is not an absolute "
                       "path");
            return false;
        }
    }
    return true;
}

int weir_cmd_advise(int argc, char **argv)
{
    g_auto(AdviseOptions) options = { .margin = WEIR_ADVICE_MARGIN };
    GOptionEntry entries[] = {
        { "margin", 0, 0, G_OPTION_ARG_DOUBLE, &options.margin,
          "How far from the best miss ratio to stay (default: 0.05)",
          "SHARE" },
        { "watch", 0, 0, G_OPTION_ARG_INT, &options.watch_s,
          "See for so long whether the working set grows", "SECONDS" },
        { "svg", 0, 0, G_OPTION_ARG_FILENAME, &options.svg,
          "Draw the curve into a file", "FILE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &options.json, "Print JSON", NULL },
        { "policy", 0, 0, G_OPTION_ARG_NONE, &options.policy,
          "Print the filter for a policy", NULL },
        { "cache-dir", 0, 0, G_OPTION_ARG_FILENAME, &options.cache_dir,
          "Where that has its file (default: " ADVISE_CACHE_DIR ")", "DIR" },
        { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.qmp,
          "Ask the QEMU with this QMP socket", "SOCKET" },
        WEIR_OPTION_RUNTIME_DIR(&options.runtime_dir),
        G_OPTION_ENTRY_NULL
    };
    int first;

    if (!weir_parse(&argc, &argv, entries, "VM [DISK]",
                    "Recommend a cache for a disk, from what the filter "
                    "weir-inspect has seen of it.\nWith --qmp, VM is left "
                    "out.\n\n"
                    "Exit codes: 0 done, 1 error or no such filter, 2 wrong "
                    "usage.") || !advise_check(&options)) {
        return WEIR_EXIT_USAGE;
    }
    first = options.qmp ? 1 : 2;
    if (argc < first) {
        return weir_usage("advise: found no VM, expected one, or --qmp "
                          "SOCKET");
    }
    if (argc > first + 1) {
        return weir_usage("advise: found '%s', expected %s", argv[first + 1],
                          options.qmp ? "a disk" : "a VM and a disk");
    }
    return advise_run(&options, options.qmp ? NULL : argv[1],
                      argc > first ? argv[first] : NULL);
}

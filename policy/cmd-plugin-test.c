/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir plugin test */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plugintest-report.h"
#include "plugintest.h"
#include "units.h"
#include "weir.h"

typedef struct PluginTestOptions {
    char **checks;
    char **options;
    char *bin_dir;
    char *junit;
    char *seed;
    char *sidecar;
    char *transform;
    double patience;
    gboolean list;
} PluginTestOptions;

static void plugin_test_options_clear(PluginTestOptions *options)
{
    g_strfreev(options->checks);
    g_strfreev(options->options);
    g_free(options->bin_dir);
    g_free(options->junit);
    g_free(options->seed);
    g_free(options->sidecar);
    g_free(options->transform);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PluginTestOptions, plugin_test_options_clear)

static const WeirCheck *find_check(const char *name)
{
    for (const WeirCheck *check = weir_checks; check->name; check++) {
        if (strcmp(check->name, name) == 0) {
            return check;
        }
    }
    return NULL;
}

static bool is_chosen(const PluginTestOptions *options, const WeirCheck *check)
{
    return !options->checks ||
           g_strv_contains((const char *const *)options->checks, check->name);
}

static int list_checks(void)
{
    for (const WeirCheck *check = weir_checks; check->name; check++) {
        printf("%-12s  %s\n", check->name, check->purpose);
    }
    return WEIR_EXIT_OK;
}

/* Returns false after having told what is wrong. */
static bool check_names(const PluginTestOptions *options)
{
    for (char **name = options->checks; name && *name; name++) {
        if (!find_check(*name)) {
            weir_usage("found unknown check '%s', expected one that 'weir "
                       "plugin test --list' lists", *name);
            return false;
        }
    }
    for (char **option = options->options; option && *option; option++) {
        const char *value = strchr(*option, '=');

        if (!value || value == *option) {
            weir_usage("found option '%s' of the plugin, expected NAME=VALUE",
                       *option);
            return false;
        }
    }
    return true;
}

static bool parse_seed(const char *text, guint32 *seed)
{
    guint64 value;

    if (!text) {
        *seed = g_random_int();
        return true;
    }
    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT32, &value, NULL)) {
        weir_usage("found seed '%s', expected a number up to %u", text,
                   G_MAXUINT32);
        return false;
    }
    *seed = (guint32)value;
    return true;
}

/* Multiples of what any plugin may want as alignment. */
static bool parse_sidecar(const char *text, guint64 *bytes)
{
    bool none = text && strcmp(text, "0") == 0;

    *bytes = !text ? WEIR_SIDECAR_AUTO
                   : none ? 0 : (guint64)weir_parse_bytes(text);
    if (text && !none && (*bytes == 0 || *bytes % 65536)) {
        weir_usage("found sidecar of size '%s', expected a multiple of 64K",
                   text);
        return false;
    }
    return true;
}

/*
 * "x.so" is meant to be a file here, not a name to be looked for.  The daemons
 * run in another folder.
 */
static char *path_of(const char *plugin)
{
    return strchr(plugin, '/') || g_str_has_suffix(plugin, ".so") ?
           g_canonicalize_filename(plugin, NULL) : g_strdup(plugin);
}

static void signals_to_wait_for(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGHUP);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
}

static GPtrArray *run_checks(const WeirPluginTest *test,
                             const PluginTestOptions *options)
{
    GPtrArray *results = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_result_free);

    for (const WeirCheck *check = weir_checks; check->name; check++) {
        if (is_chosen(options, check)) {
            WeirResult *result = weir_plugin_test_run(test, check);

            g_ptr_array_add(results, result);
            weir_report_result(test, result);
        }
    }
    return results;
}

/*
 * Somebody has had enough: files of the run go, and with this process, its
 * daemons.
 */
static gpointer wait_for_signals(gpointer opaque)
{
    WeirPluginTest *test = opaque;
    sigset_t signals;
    int number;

    signals_to_wait_for(&signals);
    sigwait(&signals, &number);
    weir_plugin_test_end(test);
    _exit(128 + number);
    return NULL;
}

static int test_plugin(WeirPluginTest *test, const PluginTestOptions *options)
{
    g_autoptr(GPtrArray) results = NULL;
    GError *error = NULL;
    bool ok;

    if (!weir_plugin_test_begin(test, &error)) {
        return weir_fail(error);
    }
    weir_report_begin(test);
    results = run_checks(test, options);
    ok = weir_report_end(results);
    if (options->junit && !weir_report_junit(test, results, options->junit,
                                             &error)) {
        return weir_fail(error);
    }
    return ok ? WEIR_EXIT_OK : WEIR_EXIT_ERROR;
}

static const char help[] =
    "Runs the plugin in storage daemons of its own, over disks that fail, "
    "lose what\nwas not flushed and answer in another order, and says which "
    "of the rules of\nweir-plugin(3) it breaks.";

/* Returns false after having told what is wrong. */
static bool parse(int *argc, char ***argv, PluginTestOptions *options)
{
    const GOptionEntry entries[] = {
        { "option", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &options->options,
          "An option of the plugin, may be repeated", "NAME=VALUE" },
        { "sidecar", 0, 0, G_OPTION_ARG_STRING, &options->sidecar,
          "Of its sidecar; 0: it gets none (default: 64M if it uses one)",
          "SIZE" },
        { "transform", 0, 0, G_OPTION_ARG_STRING, &options->transform,
          "A shell command that makes of what the disk reads as what the "
          "node below has", "COMMAND" },
        { "check", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options->checks,
          "Run this check only, may be repeated", "NAME" },
        { "list", 0, 0, G_OPTION_ARG_NONE, &options->list,
          "List the checks", NULL },
        { "seed", 0, 0, G_OPTION_ARG_STRING, &options->seed,
          "Of the random requests (default: another one each time)",
          "NUMBER" },
        { "patience", 0, 0, G_OPTION_ARG_DOUBLE, &options->patience,
          "Factor of the time limits of the checks (default: 1)", "FACTOR" },
        { "junit", 0, 0, G_OPTION_ARG_FILENAME, &options->junit,
          "Write a report in JUnit's XML", "FILE" },
        WEIR_OPTION_BIN_DIR(&options->bin_dir),
        { NULL, 0, 0, G_OPTION_ARG_NONE, NULL, NULL, NULL }
    };

    return weir_parse(argc, argv, entries, "PLUGIN", help);
}

int weir_plugin_test_command(int argc, char **argv)
{
    g_auto(PluginTestOptions) options = { .patience = 1 };
    WeirPluginTest test = { 0 };
    g_autofree char *plugin = NULL;
    sigset_t signals;
    int ret;

    if (!parse(&argc, &argv, &options)) {
        return WEIR_EXIT_USAGE;
    }
    if (options.list) {
        return list_checks();
    }
    if (argc != 2) {
        return weir_usage("found %d arguments, expected the file or the name "
                          "of a plugin", argc - 1);
    }
    if (!(options.patience > 0)) {
        return weir_usage("found patience %g, expected more than 0",
                          options.patience);
    }
    if (!check_names(&options) || !parse_seed(options.seed, &test.seed) ||
        !parse_sidecar(options.sidecar, &test.sidecar_bytes)) {
        return WEIR_EXIT_USAGE;
    }
    plugin = path_of(argv[1]);
    test.plugin = plugin;
    test.bin_dir = options.bin_dir;
    test.options = options.options;
    test.transform = options.transform;
    test.patience = options.patience;
    /* before there are other threads */
    signals_to_wait_for(&signals);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    g_thread_unref(g_thread_new("signals", wait_for_signals, &test));
    ret = test_plugin(&test, &options);
    weir_plugin_test_end(&test);
    return ret;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir plugin list|info|check
 *
 * Nothing of a plugin is run in this process: for list, the storage daemon
 * looks at the files; for info and check it loads them.
 */
#include <stdio.h>
#include <string.h>

#include "table.h"
#include "weir.h"

typedef struct PluginOptions {
    char *bin_dir;
    gboolean json;
} PluginOptions;

static void plugin_options_clear(PluginOptions *options)
{
    g_free(options->bin_dir);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PluginOptions, plugin_options_clear)

#define PLUGIN_OPTION_JSON(options) \
    { "json", 0, 0, G_OPTION_ARG_NONE, &(options)->json, \
      "Print JSON", NULL }

/* What the daemon says of a plugin; a path is that from here. */
static JsonObject *plugin_ask(WeirDaemon *daemon, const char *plugin,
                              GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    g_autofree char *path = NULL;

    if (strchr(plugin, '/')) {
        path = g_canonicalize_filename(plugin, NULL);
    }
    json_object_set_string_member(arguments, "plugin", path ? path : plugin);
    answer = weir_daemon_ask(daemon, "query-weir-plugin", arguments, error);
    if (answer && !weir_json_as_object(answer)) {
        weir_set_error(error, "the storage daemon tells nothing of it");
        return NULL;
    }
    return answer ? json_object_ref(weir_json_as_object(answer)) : NULL;
}

/* --- list --- */

static void plugin_print_files(JsonArray *files)
{
    g_autoptr(WeirTable) table = weir_table_new(4);

    weir_table_row(table, "NAME", "INTERFACE", "FILE", "STATE");
    for (guint i = 0; i < weir_json_length(files); i++) {
        JsonObject *file = weir_json_object_at(files, i);
        const char *problem = weir_json_string(file, "problem");
        gint64 abi = weir_json_int(file, "abi", 0);
        g_autofree char *version = abi ? g_strdup_printf("%" G_GINT64_FORMAT,
                                                         abi) : NULL;
        g_autofree char *state = problem ? g_strdup_printf("refused: %s",
                                                           problem) : NULL;

        weir_table_row(table, weir_json_string(file, "name"), version,
                       weir_json_string(file, "path"), state ? state : "ok");
    }
    weir_table_print(table);
}

static int plugin_list_run(int argc, char **argv)
{
    g_auto(PluginOptions) options = { 0 };
    GOptionEntry entries[] = {
        PLUGIN_OPTION_JSON(&options),
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(JsonNode) answer = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "List the plugins in the search path of the driver "
                    "weir-plugin.  Their files are\nlooked at; nothing in "
                    "them is run.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("plugin list: found '%s', expected nothing",
                          argv[1]);
    }
    daemon = weir_daemon_start(options.bin_dir, &error);
    answer = daemon ? weir_daemon_ask(daemon, "query-weir-plugins", NULL,
                                      &error) : NULL;
    if (!answer) {
        return weir_fail(error);
    }
    if (options.json) {
        weir_print_json(json_array_ref(weir_json_as_array(answer)));
    } else {
        plugin_print_files(weir_json_as_array(answer));
    }
    return WEIR_EXIT_OK;
}

/* --- info --- */

static const char *const plugin_flags[][2] = {
    { "changes-data", "changes data" },
    { "holds-data", "holds data" },
    { "may-bypass", "may be bypassed" },
    { "ordered-flush", "needs flushes in order" },
    { "durable-writes", "makes writes durable itself" },
    { "needs-sidecar", "needs a sidecar" },
    { "uses-sidecar", "uses a sidecar" },
};

static char *plugin_capabilities(JsonObject *plugin)
{
    GString *list = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(plugin_flags); i++) {
        bool is_told = strcmp(plugin_flags[i][0], "uses-sidecar") == 0 &&
                       weir_json_bool(plugin, "needs-sidecar", false);

        if (weir_json_bool(plugin, plugin_flags[i][0], false) && !is_told) {
            g_string_append_printf(list, "%s%s", list->len ? ", " : "",
                                   plugin_flags[i][1]);
        }
    }
    return g_string_free(list, FALSE);
}

static char *plugin_words(JsonArray *array, const char *separator)
{
    GString *list = g_string_new(NULL);

    for (guint i = 0; i < weir_json_length(array); i++) {
        const char *word = json_array_get_string_element(array, i);

        g_string_append_printf(list, "%s%s", i ? separator : "", word);
    }
    return g_string_free(list, FALSE);
}

/* What values an option takes. */
static char *plugin_range(JsonObject *option)
{
    g_autofree char *choices = plugin_words(weir_json_array(option,
                                                            "choices"), "|");
    const char *unit = weir_json_string(option, "unit");

    if (*choices) {
        return g_steal_pointer(&choices);
    }
    if (!json_object_has_member(option, "min")) {
        return g_strdup(weir_json_string(option, "type"));
    }
    return g_strdup_printf("%s %" G_GINT64_FORMAT "..%" G_GINT64_FORMAT
                           "%s%s", weir_json_string(option, "type"),
                           weir_json_int(option, "min", 0),
                           weir_json_int(option, "max", 0), unit ? " " : "",
                           unit ? unit : "");
}

static void plugin_print_options(JsonArray *array)
{
    g_autoptr(WeirTable) table = weir_table_new(5);

    weir_table_row(table, "OPTION", "VALUES", "DEFAULT", "LIVE", "HELP");
    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *option = weir_json_object_at(array, i);
        g_autofree char *range = plugin_range(option);

        weir_table_row(table, weir_json_string(option, "name"), range,
                       weir_json_bool(option, "mandatory", false)
                           ? "(mandatory)"
                           : weir_json_string(option, "default"),
                       weir_json_bool(option, "mutable", false) ? "yes"
                                                                : "no",
                       weir_json_string(option, "help"));
    }
    if (weir_json_length(array) > 0) {
        printf("\n");
        weir_table_print(table);
    }
}

static void plugin_print_field(const char *name, const char *text)
{
    g_autofree char *printable = weir_printable(text && *text ? text : "-");

    printf("%-13s %s\n", name, printable);
}

static void plugin_print_info(JsonObject *plugin)
{
    g_autofree char *capabilities = plugin_capabilities(plugin);
    g_autofree char *callbacks = plugin_words(weir_json_array(plugin,
                                                              "callbacks"),
                                              ", ");
    g_autofree char *abi = g_strdup_printf("%" G_GINT64_FORMAT,
                                           weir_json_int(plugin, "abi", 0));

    plugin_print_field("name", weir_json_string(plugin, "name"));
    plugin_print_field("version", weir_json_string(plugin, "version"));
    plugin_print_field("description",
                       weir_json_string(plugin, "description"));
    plugin_print_field("class", weir_json_string(plugin, "class"));
    plugin_print_field("capabilities", capabilities);
    plugin_print_field("concurrency", weir_json_string(plugin,
                                                       "concurrency"));
    plugin_print_field("callbacks", callbacks);
    plugin_print_field("interface", abi);
    plugin_print_field("file", weir_json_string(plugin, "path"));
    plugin_print_options(weir_json_array(plugin, "options"));
}

static int plugin_info_run(int argc, char **argv)
{
    g_auto(PluginOptions) options = { 0 };
    GOptionEntry entries[] = {
        PLUGIN_OPTION_JSON(&options),
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(JsonObject) plugin = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "PLUGIN",
                    "Show what a plugin says of itself, and its options.  "
                    "PLUGIN is a name, or a path\nwith a '/'.  It is loaded "
                    "by a storage daemon without disks.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2) {
        return weir_usage("plugin info: found %d names, expected one",
                          argc - 1);
    }
    daemon = weir_daemon_start(options.bin_dir, &error);
    plugin = daemon ? plugin_ask(daemon, argv[1], &error) : NULL;
    if (!plugin) {
        return weir_fail(error);
    }
    if (options.json) {
        g_autofree char *text = weir_json_object_text(plugin, true);

        printf("%s\n", text);
    } else {
        plugin_print_info(plugin);
    }
    return WEIR_EXIT_OK;
}

/* --- check --- */

static int plugin_check_run(int argc, char **argv)
{
    g_auto(PluginOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    GError *error = NULL;
    int ret = WEIR_EXIT_OK;

    if (!weir_parse(&argc, &argv, entries, "PLUGIN...",
                    "Check whether the driver weir-plugin would take plugins: "
                    "who may have written\ntheir files, for which version of "
                    "the interface they were built, and what they\nsay of "
                    "themselves.  They are loaded by a storage daemon without "
                    "disks.\n\n"
                    "Exit codes: 0 it would take all, 1 it would not, 2 wrong "
                    "usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc < 2) {
        return weir_usage("plugin check: found no plugin, expected at least "
                          "one");
    }
    daemon = weir_daemon_start(options.bin_dir, &error);
    if (!daemon) {
        return weir_fail(error);
    }
    for (int i = 1; i < argc; i++) {
        g_autoptr(JsonObject) plugin = plugin_ask(daemon, argv[i], &error);

        if (!plugin) {
            ret = weir_fail(error);
            error = NULL;
        }
    }
    return ret;
}

int weir_cmd_plugin(int argc, char **argv)
{
    static const WeirCommand commands[] = {
        { "check", "check whether plugins can be used", plugin_check_run },
        { "info", "show what a plugin says of itself", plugin_info_run },
        { "list", "list the plugins in the search path", plugin_list_run },
        { "test", "test whether a plugin does what is asked of it",
          weir_plugin_test_command },
        { NULL, NULL, NULL }
    };

    return weir_dispatch(commands, "weir plugin", argc, argv);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir policy check|list|show; the others have files of their own */
#include <stdio.h>
#include <string.h>

#include "plan.h"
#include "table.h"
#include "weir.h"

/* What policies are checked against. */
typedef struct PolicyCheck {
    WeirPolicyOptions options;
    char *disk_text;
    WeirDisk *disk;         /* NULL: none */
    WeirDaemon *daemon;
} PolicyCheck;

static void policy_check_clear(PolicyCheck *check)
{
    weir_policy_options_clear(&check->options);
    g_free(check->disk_text);
    weir_disk_free(check->disk);
    weir_daemon_free(check->daemon);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PolicyCheck, policy_check_clear)

/* Whether @disk could be under @policy. */
static bool policy_check_disk(const PolicyCheck *check,
                              const WeirPolicy *policy, GError **error)
{
    g_autoptr(WeirPlan) plan = weir_plan_new(check->disk->id);

    return weir_plan_add(plan, check->disk, policy, error) &&
           weir_storage_check(policy->storage, check->disk,
                              check->options.bin_dir, error);
}

/* Load @file and try its filters; tells errors. */
static WeirPolicy *policy_check_file(const PolicyCheck *check,
                                     const char *file)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirPolicy) policy = NULL;

    policy = weir_policy_load(file, check->options.dirs,
                              weir_daemon_schema(check->daemon), &error);
    if (!policy || !weir_daemon_check(check->daemon, policy, &error) ||
        (check->disk && !policy_check_disk(check, policy, &error))) {
        weir_fail(g_steal_pointer(&error));
        return NULL;
    }
    return g_steal_pointer(&policy);
}

/* Whether @policy's name is new in @names, which takes it. */
static bool policy_name_new(GHashTable *names, const WeirPolicy *policy)
{
    const char *other = g_hash_table_lookup(names, policy->name);

    if (other) {
        fprintf(stderr, "%s:1:1: found another policy '%s', expected one (it "
                "is in %s)\n", policy->file, policy->name, other);
        return false;
    }
    g_hash_table_insert(names, g_strdup(policy->name),
                        g_strdup(policy->file));
    return true;
}

static int policy_check_files(const PolicyCheck *check, char **files)
{
    g_autoptr(GHashTable) names = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, g_free);
    int ret = WEIR_EXIT_OK;

    for (; *files; files++) {
        g_autoptr(WeirPolicy) policy = policy_check_file(check, *files);

        if (!policy || !policy_name_new(names, policy)) {
            ret = WEIR_EXIT_ERROR;
        }
    }
    return ret;
}

static int policy_check_run(int argc, char **argv)
{
    g_auto(PolicyCheck) check = { 0 };
    GOptionEntry entries[] = {
        { "disk", 0, 0, G_OPTION_ARG_STRING, &check.disk_text,
          "Check whether this disk could be under each policy: "
          "file=FILE,format=FORMAT,...", "DISK" },
        { "policies", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &check.options.dirs,
          "Directory of what the policies inherit and refer to, may be "
          "repeated (default: that of each file)", "DIR" },
        WEIR_OPTION_BIN_DIR(&check.options.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "FILE...",
                    "Check files of policies and components: their syntax, "
                    "that the filters and\noptions exist in the installed "
                    "drivers, and that the drivers take the options'\n"
                    "values.  With --disk, also that the disk's storage is as "
                    "the policies want it;\nthe disk may be in use.\n\n"
                    "Exit codes: 0 all are right, 1 one is not, 2 wrong "
                    "usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc < 2) {
        return weir_usage("policy check: found no file, expected at least "
                          "one");
    }
    if (check.disk_text &&
        !(check.disk = weir_disk_parse(check.disk_text, 0, &error))) {
        return weir_fail(error);
    }
    check.daemon = weir_daemon_start(check.options.bin_dir, &error);
    if (!check.daemon) {
        return weir_fail(error);
    }
    return policy_check_files(&check, argv + 1);
}

static char *policy_filter_list(const WeirPolicy *policy)
{
    GString *list = g_string_new(policy->filters->len ? NULL : "-");

    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);

        g_string_append_printf(list, "%s%s", i ? ", " : "", filter->kind);
    }
    return g_string_free(list, FALSE);
}

static void policy_list_row(WeirTable *table, const WeirPolicy *policy)
{
    g_autofree char *version = g_strdup_printf("%" G_GUINT64_FORMAT,
                                               policy->version);
    g_autofree char *filters = policy_filter_list(policy);

    weir_table_row(table, policy->name, version, filters,
                   policy->description ? policy->description : "");
}

/* Load all of @files; returns the policies that are right. */
static GPtrArray *policy_load_all(const GPtrArray *files, char *const *dirs,
                                  const WeirSchema *schema, int *ret)
{
    GPtrArray *policies = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_policy_free);
    g_autoptr(GHashTable) names = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, g_free);

    for (guint i = 0; i < files->len; i++) {
        g_autoptr(WeirPolicy) policy = NULL;
        GError *error = NULL;

        policy = weir_policy_load(g_ptr_array_index(files, i), dirs, schema,
                                  &error);
        if (!policy) {
            *ret = weir_fail(error);
        } else if (!policy_name_new(names, policy)) {
            *ret = WEIR_EXIT_ERROR;
        } else if (!policy->is_component) {
            g_ptr_array_add(policies, g_steal_pointer(&policy));
        }
    }
    return policies;
}

static void policy_print_json_list(const GPtrArray *policies)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < policies->len; i++) {
        json_array_add_object_element(
            array, weir_policy_json(g_ptr_array_index(policies, i)));
    }
    weir_print_json(array);
}

static void policy_print_list(const GPtrArray *policies)
{
    g_autoptr(WeirTable) table = weir_table_new(4);

    weir_table_row(table, "NAME", "VERSION", "FILTERS", "DESCRIPTION");
    for (guint i = 0; i < policies->len; i++) {
        policy_list_row(table, g_ptr_array_index(policies, i));
    }
    weir_table_print(table);
}

static int policy_list_run(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) options = { 0 };
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        WEIR_OPTION_POLICIES(&options.dirs),
        WEIR_OPTION_CONFIG_DIR(&options.config_dir),
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(GPtrArray) files = NULL;
    g_autoptr(GPtrArray) policies = NULL;
    GError *error = NULL;
    int ret = WEIR_EXIT_OK;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "List the policies.\n\nExit codes: 0 all are right, 1 one "
                    "is not (it is left out), 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("policy list: found '%s', expected nothing",
                          argv[1]);
    }
    files = weir_policy_files(weir_policy_dirs(&options), &error);
    if (!files || !(daemon = weir_daemon_start(options.bin_dir, &error))) {
        return weir_fail(error);
    }
    policies = policy_load_all(files, weir_policy_dirs(&options),
                               weir_daemon_schema(daemon), &ret);
    if (json) {
        policy_print_json_list(policies);
    } else {
        policy_print_list(policies);
    }
    return ret;
}

static void policy_print_options(JsonObject *options)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, options);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_autofree char *text = weir_json_text(value, false);

        printf("    %s: %s\n", name, text);
    }
}

static void policy_print_storage(const WeirStorage *storage)
{
    g_autoptr(JsonObject) object = weir_storage_json(storage);

    printf("storage:\n");
    policy_print_options(object);
}

static void policy_print(const WeirPolicy *policy)
{
    g_autofree char *description = weir_printable(policy->description);
    g_autofree char *limits = weir_limits_text(&policy->limits);

    printf("name:        %s\n", policy->name);
    printf("description: %s\n", description);
    printf("version:     %" G_GUINT64_FORMAT "\n", policy->version);
    printf("file:        %s\n", policy->file);
    if (policy->inherit) {
        printf("inherit:     %s\n", policy->inherit);
    }
    if (policy->storage) {
        policy_print_storage(policy->storage);
    }
    if (limits) {
        printf("limits:      %s\n", limits);
    }
    printf("filters:     %s\n", policy->filters->len ? "" : "-");
    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);

        printf("  %s (place %s%s%s)\n", filter->kind,
               weir_place_name(filter->place),
               strcmp(filter->file, policy->file) == 0 ? "" : ", from ",
               strcmp(filter->file, policy->file) == 0 ? "" : filter->file);
        policy_print_options(filter->options);
    }
}

static int policy_show_run(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) options = { 0 };
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        WEIR_OPTION_POLICIES(&options.dirs),
        WEIR_OPTION_CONFIG_DIR(&options.config_dir),
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(WeirPolicy) policy = NULL;
    g_autoptr(JsonObject) object = NULL;
    g_autofree char *text = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "NAME",
                    "Show a policy.\n\nExit codes: 0 done, 1 there is no such "
                    "policy or it is wrong, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2) {
        return weir_usage("policy show: found %d names, expected one",
                          argc - 1);
    }
    if (!(daemon = weir_daemon_start(options.bin_dir, &error)) ||
        !(policy = weir_policy_find(weir_policy_dirs(&options), argv[1],
                                    weir_daemon_schema(daemon), &error))) {
        return weir_fail(error);
    }
    if (!json) {
        policy_print(policy);
        return WEIR_EXIT_OK;
    }
    object = weir_policy_json(policy);
    text = weir_json_object_text(object, true);
    printf("%s\n", text);
    return WEIR_EXIT_OK;
}

int weir_cmd_policy(int argc, char **argv)
{
    static const WeirCommand commands[] = {
        { "check", "check policy files", policy_check_run },
        { "diff", "tell what is different in two policies",
          weir_policy_diff_run },
        { "list", "list the policies", policy_list_run },
        { "schema", "print a JSON schema of policies",
          weir_cmd_policy_schema },
        { "show", "show a policy", policy_show_run },
        { "which", "tell which policy a disk is to have",
          weir_cmd_policy_which },
        { NULL, NULL, NULL }
    };

    return weir_dispatch(commands, "weir policy", argc, argv);
}

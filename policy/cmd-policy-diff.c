/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir policy diff */
#include <stdio.h>
#include <string.h>

#include "difference.h"
#include "table.h"
#include "weir.h"

/* As those of diff(1). */
typedef enum DiffExit {
    DIFF_EXIT_SAME = 0,
    DIFF_EXIT_DIFFERENT = 1,
    DIFF_EXIT_ERROR = 2,
} DiffExit;

/* A file, or the name of a policy. */
static WeirPolicy *diff_load(const WeirPolicyOptions *options,
                             const WeirDaemon *daemon, const char *text,
                             GError **error)
{
    const WeirSchema *schema = weir_daemon_schema(daemon);

    return strchr(text, '/') || g_str_has_suffix(text, WEIR_POLICY_SUFFIX)
        ? weir_policy_load(text, options->dirs, schema, error)
        : weir_policy_find(weir_policy_dirs(options), text, schema, error);
}

/* A text as it is, anything else as JSON; NULL for nothing. */
static char *diff_value(JsonNode *node)
{
    const char *text = weir_json_as_string(node);

    return text ? g_strdup(text) : node ? weir_json_text(node, false) : NULL;
}

/* What has to be done with a disk in use. */
static char *diff_follow(const WeirDifference *difference)
{
    static const char *const texts[] = {
        [WEIR_FOLLOW_NOTHING] = "nothing to do",
        [WEIR_FOLLOW_ATTACH] = "live, by attach",
        [WEIR_FOLLOW_DETACH] = "live, by detach",
        [WEIR_FOLLOW_REOPEN] = "live",
        [WEIR_FOLLOW_REATTACH] = "live, by detach and attach",
        [WEIR_FOLLOW_AT_OPEN] = "counts when the disk is opened next",
        [WEIR_FOLLOW_NOT] = "not live",
    };

    return g_strdup_printf("%s%s%s", texts[difference->follow],
                           !difference->reason ? "" :
                           difference->follow == WEIR_FOLLOW_NOT
                           ? ", because " : ", ",
                           difference->reason ? difference->reason : "");
}

static void diff_print_table(const GPtrArray *differences)
{
    g_autoptr(WeirTable) table = weir_table_new(4);

    weir_table_row(table, "WHAT", "BEFORE", "AFTER", "DISKS IN USE");
    for (guint i = 0; i < differences->len; i++) {
        const WeirDifference *one = g_ptr_array_index(differences, i);
        g_autofree char *what = g_strconcat(
            one->filter ? one->filter : "",
            one->filter && one->what ? "." : "",
            one->what ? one->what : "", NULL);
        g_autofree char *before = diff_value(one->before);
        g_autofree char *after = diff_value(one->after);
        g_autofree char *follow = diff_follow(one);

        weir_table_row(table, what, before, after, follow);
    }
    weir_table_print(table);
}

static void diff_print_json(const GPtrArray *differences)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < differences->len; i++) {
        json_array_add_object_element(
            array, weir_difference_json(g_ptr_array_index(differences, i)));
    }
    weir_print_json(array);
}

int weir_policy_diff_run(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) options = { 0 };
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        WEIR_OPTION_POLICIES(&options.dirs),
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(WeirPolicy) before = NULL;
    g_autoptr(WeirPolicy) after = NULL;
    g_autoptr(GPtrArray) differences = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "BEFORE AFTER",
                    "Tell what is different in two policies (names or files), "
                    "and how a disk in use is\nbrought from one to the "
                    "other.\n\n"
                    "Exit codes: 0 they are the same, 1 they are not, 2 "
                    "error.")) {
        return DIFF_EXIT_ERROR;
    }
    if (argc != 3) {
        weir_usage("policy diff: found %d policies, expected two", argc - 1);
        return DIFF_EXIT_ERROR;
    }
    if (!(daemon = weir_daemon_start(options.bin_dir, &error)) ||
        !(before = diff_load(&options, daemon, argv[1], &error)) ||
        !(after = diff_load(&options, daemon, argv[2], &error))) {
        weir_fail(error);
        return DIFF_EXIT_ERROR;
    }
    differences = weir_policy_differences(before, after,
                                          weir_daemon_schema(daemon));
    if (json) {
        diff_print_json(differences);
    } else if (differences->len > 0) {
        diff_print_table(differences);
    }
    return differences->len > 0 ? DIFF_EXIT_DIFFERENT : DIFF_EXIT_SAME;
}

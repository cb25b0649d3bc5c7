/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir status */
#include <stdio.h>

#include "compliance.h"
#include "table.h"
#include "target.h"
#include "weir.h"

typedef struct StatusOptions {
    char *qmp;
    char *runtime_dir;
    gboolean json;
} StatusOptions;

static void status_options_clear(StatusOptions *options)
{
    g_free(options->qmp);
    g_free(options->runtime_dir);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(StatusOptions, status_options_clear)

/* "raw > weir-inspect > file" */
static char *status_chain(JsonArray *nodes)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < weir_json_length(nodes); i++) {
        const char *driver = weir_json_string(weir_json_object_at(nodes, i),
                                              "driver");

        g_string_append_printf(text, "%s%s", i ? " > " : "",
                               driver ? driver : "?");
    }
    if (text->len == 0) {
        g_string_append_c(text, '-');
    }
    return g_string_free(text, FALSE);
}

static void status_print_table(const GPtrArray *statuses)
{
    g_autoptr(WeirTable) table = weir_table_new(7);

    weir_table_row(table, "VM", "DISK", "POLICY", "WANTED", "ACTUAL", "STATE",
                   "REASON");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        g_autofree char *wanted = status_chain(status->wanted);
        g_autofree char *actual = status_chain(status->actual);

        weir_table_row(table, status->vm, status->disk, status->policy, wanted,
                       actual, weir_compliance_name(status->state),
                       status->reason ? status->reason : "");
    }
    weir_table_print(table);
}

static void status_print_json(const GPtrArray *statuses)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);
    JsonArray *array = json_array_new();
    g_autofree char *text = NULL;

    for (guint i = 0; i < statuses->len; i++) {
        json_array_add_object_element(
            array, weir_disk_status_json(g_ptr_array_index(statuses, i)));
    }
    json_node_take_array(node, array);
    text = weir_json_text(node, true);
    printf("%s\n", text);
}

static GPtrArray *status_collect(const GPtrArray *targets)
{
    GPtrArray *statuses = weir_disk_statuses_new();

    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);

        if (target->record) {
            weir_compliance_record(target->record, target->graph,
                                   target->reason, statuses);
        } else {
            weir_compliance_graph(target->name, target->graph, statuses);
        }
    }
    return statuses;
}

static int status_exit_code(const GPtrArray *statuses)
{
    int ret = WEIR_EXIT_OK;

    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        if (status->state == WEIR_NON_COMPLIANT) {
            return WEIR_EXIT_NON_COMPLIANT;
        }
        if (status->state == WEIR_UNKNOWN) {
            ret = WEIR_EXIT_UNKNOWN;
        }
    }
    return ret;
}

int weir_status_tell(const GPtrArray *statuses, bool json)
{
    if (json) {
        status_print_json(statuses);
    } else {
        status_print_table(statuses);
    }
    return status_exit_code(statuses);
}

int weir_cmd_status(int argc, char **argv)
{
    g_auto(StatusOptions) options = { 0 };
    GOptionEntry entries[] = {
        { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &options.qmp,
          "Ask the QEMU with this QMP socket", "SOCKET" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &options.json, "Print JSON", NULL },
        WEIR_OPTION_RUNTIME_DIR(&options.runtime_dir),
        G_OPTION_ENTRY_NULL
    };
    g_autofree char *dir = NULL;
    g_autoptr(GPtrArray) targets = NULL;
    g_autoptr(GPtrArray) statuses = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "[VM]",
                    "Show for each disk its policy, the chain that it wants, "
                    "the chain that there is,\nand the state: compliant, "
                    "non-compliant, unknown (the VM cannot be asked) or\n"
                    "not-applicable (not started by weir run).\n\n"
                    "Exit codes: 0 no disk is non-compliant or unknown, 1 "
                    "error, 2 wrong usage,\n3 a disk is non-compliant, 4 none "
                    "is, but one is unknown.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 2 || (argc == 2 && options.qmp)) {
        return weir_usage("status: found '%s', expected one VM or --qmp",
                          argv[argc - 1]);
    }
    dir = weir_runtime_dir(options.runtime_dir);
    targets = weir_targets_ask(dir, argc == 2 ? argv[1] : NULL, options.qmp,
                               &error);
    if (!targets) {
        return weir_fail(error);
    }
    statuses = status_collect(targets);
    return weir_status_tell(statuses, options.json);
}

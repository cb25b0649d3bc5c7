/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir binding */
#include <stdio.h>
#include <string.h>

#include "binding.h"
#include "drain.h"
#include "table.h"
#include "weir.h"

/* --- list --- */

static void binding_print(const GPtrArray *bindings)
{
    g_autoptr(WeirTable) table = weir_table_new(6);

    weir_table_row(table, "DISK", "VM", "POLICY", "FILTER", "AT",
                   "NEEDED BECAUSE");
    for (guint i = 0; i < bindings->len; i++) {
        const WeirBinding *binding = g_ptr_array_index(bindings, i);

        for (guint j = 0; j < binding->filters->len; j++) {
            const WeirBound *bound = g_ptr_array_index(binding->filters, j);
            g_autofree char *reason = weir_binding_reason(binding, bound);
            g_autofree char *kind = weir_bound_kind(bound);

            weir_table_row(table, binding->disk, binding->vm, bound->policy,
                           kind, weir_bound_memory(bound), reason);
        }
    }
    weir_table_print(table);
}

static void binding_print_json(const GPtrArray *bindings)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < bindings->len; i++) {
        const WeirBinding *binding = g_ptr_array_index(bindings, i);

        for (guint j = 0; j < binding->filters->len; j++) {
            const WeirBound *bound = g_ptr_array_index(binding->filters, j);
            g_autofree char *reason = weir_binding_reason(binding, bound);
            g_autofree char *kind = weir_bound_kind(bound);
            JsonObject *object = json_object_new();

            json_object_set_string_member(object, "disk", binding->disk);
            json_object_set_string_member(object, "vm", binding->vm);
            json_object_set_string_member(object, "policy", bound->policy);
            json_object_set_string_member(object, "filter", kind);
            weir_json_set_string(object, "at", weir_bound_memory(bound));
            weir_json_set_string(object, "reason", reason);
            json_array_add_object_element(array, object);
        }
    }
    weir_print_json(array);
}

static int binding_cmd_list(int argc, char **argv)
{
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(GPtrArray) bindings = NULL;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "Show which disks are noted to be bound to filters, and "
                    "why they are not to be\nused without these, as their "
                    "files are now.\n\n"
                    "Exit codes: 0 done, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("binding list: found '%s', expected options only",
                          argv[1]);
    }
    bindings = weir_binding_list();
    if (json) {
        binding_print_json(bindings);
    } else {
        binding_print(bindings);
    }
    return WEIR_EXIT_OK;
}

/* --- drain, release --- */

/* What the one argument names, or NULL with @error set. */
static WeirBinding *binding_find(const char *disk, GError **error)
{
    WeirBinding *binding = weir_binding_find(disk);

    if (!binding) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                    "disk %s is bound to no filter", disk);
    }
    return binding;
}

static void binding_tell_trouble(const char *reason)
{
    g_autofree char *text = weir_printable(reason);

    fprintf(stderr, "weir: waiting: %s\n", text);
}

/* Returns how many caches were brought down, or -1 with @error set. */
static int binding_drain(const WeirBinding *binding, const char *bin_dir,
                         GError **error)
{
    int count = 0;

    for (guint i = 0; i < binding->filters->len; i++) {
        const WeirBound *bound = g_ptr_array_index(binding->filters, i);
        g_autofree char *reason = weir_binding_reason(binding, bound);
        g_autoptr(WeirDaemon) daemon = NULL;

        if (strcmp(bound->driver, "weir-cache") != 0 || !reason) {
            continue;
        }
        daemon = weir_daemon_start(bin_dir, error);
        if (!daemon ||
            !weir_drain(bound, daemon, binding_tell_trouble, error)) {
            g_prefix_error(error, "disk %s, cache %s: ", binding->disk,
                           weir_bound_memory(bound));
            return -1;
        }
        count++;
    }
    return count;
}

static int binding_cmd_drain(int argc, char **argv)
{
    g_autofree char *bin_dir = NULL;
    GOptionEntry entries[] = {
        WEIR_OPTION_BIN_DIR(&bin_dir),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirBinding) binding = NULL;
    GError *error = NULL;
    int count;

    if (!weir_parse(&argc, &argv, entries, "DISK",
                    "Write back to a disk that no VM uses what its caches "
                    "have.  DISK is its file or\naddress.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2) {
        return weir_usage("binding drain: found %d arguments, expected a disk",
                          argc - 1);
    }
    binding = binding_find(argv[1], &error);
    count = binding ? binding_drain(binding, bin_dir, &error) : -1;
    if (count < 0) {
        return weir_fail(error);
    }
    weir_binding_settle(argv[1]);
    printf("disk %s has all of what its caches had%s\n", binding->disk,
           count > 0 ? "" : ", already");
    return WEIR_EXIT_OK;
}

static int binding_cmd_release(int argc, char **argv)
{
    GOptionEntry entries[] = { G_OPTION_ENTRY_NULL };
    g_autoptr(WeirBinding) binding = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "DISK",
                    "Let a disk that no VM uses be used without the filters "
                    "that it is bound to: what\nits caches have is lost, the "
                    "next replication begins with a copy of all of it,\nand "
                    "an encrypted disk is shown to the guest as it is.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2) {
        return weir_usage("binding release: found %d arguments, expected a "
                          "disk", argc - 1);
    }
    binding = binding_find(argv[1], &error);
    if (!binding || !weir_binding_release(binding, &error)) {
        return weir_fail(error);
    }
    printf("disk %s is bound to no filter any more\n", binding->disk);
    return WEIR_EXIT_OK;
}

static const WeirCommand commands[] = {
    { "drain", "write back what the caches of a disk have",
      binding_cmd_drain },
    { "list", "show which disks must not be used without which filters",
      binding_cmd_list },
    { "release", "let a disk be used without the filters it is bound to",
      binding_cmd_release },
    { NULL, NULL, NULL }
};

int weir_cmd_binding(int argc, char **argv)
{
    return weir_dispatch(commands, "weir binding", argc, argv);
}

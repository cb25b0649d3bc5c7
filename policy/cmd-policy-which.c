/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir policy which */
#include <stdio.h>

#include "weir.h"

static void which_print(const WeirChoice *choice, const char *vm,
                        const char *disk, bool json)
{
    g_autoptr(JsonObject) object = NULL;
    g_autofree char *text = NULL;

    if (!json) {
        printf("%s: %s\n", choice->policy, choice->reason);
        return;
    }
    object = json_object_new();
    json_object_set_string_member(object, "vm", vm);
    json_object_set_string_member(object, "disk", disk);
    json_object_set_string_member(object, "policy", choice->policy);
    json_object_set_boolean_member(object, "default", choice->is_default);
    json_object_set_string_member(object, "at", choice->at);
    text = weir_json_object_text(object, true);
    printf("%s\n", text);
}

static int which_choose(const WeirPolicyOptions *options, const char *vm,
                        const char *disk, bool json)
{
    GError *error = NULL;
    g_autoptr(WeirAssignments) assignments = weir_assignments_load(
        options->config_dir, &error);
    g_auto(WeirChoice) choice = { 0 };
    g_autofree char *file = NULL;

    if (!assignments ||
        !weir_assignments_choose(assignments, vm, disk, &choice, &error)) {
        return weir_fail(error);
    }
    if (!choice.policy) {
        fprintf(stderr, "weir: %s\n", choice.reason);
        return WEIR_EXIT_ERROR;
    }
    file = weir_policy_file(weir_policy_dirs(options), choice.policy, &error);
    if (!file) {
        g_prefix_error(&error, "%s: ", choice.at);
        return weir_fail(error);
    }
    which_print(&choice, vm, disk, json);
    return WEIR_EXIT_OK;
}

int weir_cmd_policy_which(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) options = { 0 };
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        WEIR_OPTION_POLICIES(&options.dirs),
        WEIR_OPTION_CONFIG_DIR(&options.config_dir),
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, "VM DISK",
                    "Tell which policy a disk has that is not given one, and "
                    "why: that of the most\nspecific assignment in "
                    "assignments.d, or else the default-policy of weir.yaml."
                    "\n\nExit codes: 0 done, 1 it has none, or error, 2 wrong "
                    "usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 3) {
        return weir_usage("policy which: found %d names, expected VM and DISK",
                          argc - 1);
    }
    for (int i = 1; i < argc; i++) {
        if (!weir_name_ok(argv[i], WEIR_VM_MAX_NAME)) {
            return weir_usage("policy which: found '%s', expected "
                              WEIR_NAME_EXPECTED, argv[i], WEIR_VM_MAX_NAME);
        }
    }
    return which_choose(&options, argv[1], argv[2], json);
}

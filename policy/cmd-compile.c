/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir compile */
#include <stdio.h>
#include <string.h>

#include "compile.h"
#include "weir.h"

typedef struct CompileOptions {
    WeirPolicyOptions policy;
    char *policy_name;
    char **disks;
    char *format;
    char *vm;
} CompileOptions;

static void compile_options_clear(CompileOptions *options)
{
    weir_policy_options_clear(&options->policy);
    g_free(options->policy_name);
    g_strfreev(options->disks);
    g_free(options->format);
    g_free(options->vm);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CompileOptions, compile_options_clear)

static void compile_print(const GPtrArray *chain, bool qsd)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);
        g_autofree char *text = weir_json_object_text(node->options, false);
        g_autofree char *quoted = g_shell_quote(text);

        if (qsd) {
            printf("--blockdev %s\n", quoted);
        } else {
            printf("%s\n", text);
        }
    }
}

/* What QEMU has to be given besides. */
static void compile_print_needs(const GPtrArray *secrets)
{
    static const char *const kinds[] = {
        [WEIR_SECRET_FILE] = "the content of file",
        [WEIR_SECRET_CREDENTIAL] = "the credential",
        [WEIR_SECRET_COMMAND] = "the output of command",
    };

    for (guint i = 0; i < secrets->len; i++) {
        const WeirSecret *secret = g_ptr_array_index(secrets, i);

        fprintf(stderr, "weir: needs an object 'secret' with the id %s: %s "
                "%s\n", secret->id, kinds[secret->kind], secret->value);
    }
}

/* Whether at most one policy is named. */
static bool compile_one_policy(const CompileOptions *options,
                               const WeirDisk *disk)
{
    if (options->policy_name && disk->policy &&
        strcmp(options->policy_name, disk->policy) != 0) {
        weir_usage("compile: found policies '%s' and '%s', expected one",
                   options->policy_name, disk->policy);
        return false;
    }
    return true;
}

/* All of it is right before anything is printed. */
static int compile_print_disks(const CompileOptions *options,
                               const GPtrArray *disks)
{
    const WeirDisk *first = g_ptr_array_index(disks, 0);
    const char *vm = options->vm ? options->vm : first->id;
    const WeirCompilePlaces places = {
        .dirs = weir_policy_dirs(&options->policy),
        .config_dir = options->policy.config_dir,
        .bin_dir = options->policy.bin_dir,
    };
    g_autoptr(GPtrArray) policies = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_policy_free);
    g_autoptr(WeirPlan) plan = NULL;
    GError *error = NULL;

    if (!weir_compile_assign(disks, vm, &places, &error) ||
        !(plan = weir_compile(disks, vm, &places, policies, &error))) {
        return weir_fail(error);
    }
    for (guint i = 0; i < disks->len; i++) {
        compile_print(g_ptr_array_index(weir_plan_chains(plan), i),
                      strcmp(options->format, "qsd") == 0);
    }
    compile_print_needs(weir_plan_secrets(plan));
    compile_print_needs(weir_plan_storage_secrets(plan));
    return WEIR_EXIT_OK;
}

static int compile_disks(const CompileOptions *options)
{
    g_autoptr(GPtrArray) disks = NULL;
    GError *error = NULL;

    disks = weir_compile_disks(options->disks, &error);
    if (!disks) {
        return weir_fail(error);
    }
    for (guint i = 0; i < disks->len; i++) {
        WeirDisk *disk = g_ptr_array_index(disks, i);

        if (!compile_one_policy(options, disk)) {
            return WEIR_EXIT_USAGE;
        }
        if (!disk->policy) {
            disk->policy = g_strdup(options->policy_name);
        }
    }
    return compile_print_disks(options, disks);
}

int weir_cmd_compile(int argc, char **argv)
{
    g_auto(CompileOptions) options = { 0 };
    GOptionEntry entries[] = {
        { "policy", 0, 0, G_OPTION_ARG_STRING, &options.policy_name,
          "The policy (default: the one that is assigned)", "NAME" },
        { "disk", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options.disks,
          "A disk: file=FILE,format=FORMAT,...; may be repeated", "DISK" },
        { "format", 0, 0, G_OPTION_ARG_STRING, &options.format,
          "blockdev or qsd (default: blockdev)", "FORMAT" },
        { "name", 0, 0, G_OPTION_ARG_STRING, &options.vm,
          "Name of the VM, for ${vm} (default: the first disk's id)", "NAME" },
        WEIR_OPTION_POLICIES(&options.policy.dirs),
        WEIR_OPTION_CONFIG_DIR(&options.policy.config_dir),
        WEIR_OPTION_BIN_DIR(&options.policy.bin_dir),
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "Print the nodes that put disks of a VM under policies, "
                    "the lowest first.  Nothing\nis started or opened.\n\n"
                    "blockdev prints an argument of -blockdev (or of "
                    "blockdev-add) per line, qsd\nan option of "
                    "qemu-storage-daemon per line, quoted for a shell.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("compile: found '%s', expected options only",
                          argv[1]);
    }
    if (!options.format) {
        options.format = g_strdup("blockdev");
    }
    if (strcmp(options.format, "blockdev") != 0 &&
        strcmp(options.format, "qsd") != 0) {
        return weir_usage("compile: found format '%s', expected blockdev or "
                          "qsd", options.format);
    }
    if (options.vm && !weir_name_ok(options.vm, WEIR_VM_MAX_NAME)) {
        return weir_usage("compile: found '%s', which cannot be the name of a "
                          "VM", options.vm);
    }
    if (!options.disks) {
        return weir_usage("compile: found no disk, expected --disk DISK");
    }
    return compile_disks(&options);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir run */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "compile.h"
#include "binding.h"
#include "conflicts.h"
#include "launchargs.h"
#include "programs.h"
#include "record.h"
#include "weir.h"

typedef struct RunOptions {
    WeirPolicyOptions policy;
    char **disks;
    char *qemu;
    char *name;
    char *runtime_dir;
} RunOptions;

static void run_options_clear(RunOptions *options)
{
    weir_policy_options_clear(&options->policy);
    g_strfreev(options->disks);
    g_free(options->qemu);
    g_free(options->name);
    g_free(options->runtime_dir);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(RunOptions, run_options_clear)

/* What is to be run, all checked. */
typedef struct Run {
    char *qemu;
    char *name;
    char *dir;
    GPtrArray *disks;
    GPtrArray *policies;
    WeirPlan *plan;
} Run;

static void run_clear(Run *run)
{
    g_free(run->qemu);
    g_free(run->name);
    g_free(run->dir);
    g_clear_pointer(&run->disks, g_ptr_array_unref);
    g_ptr_array_unref(run->policies);
    weir_plan_free(run->plan);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Run, run_clear)

static bool run_check_disks(const Run *run, const RunOptions *options,
                            GError **error)
{
    const GPtrArray *chains = weir_plan_chains(run->plan);
    const char *bin_dir = options->policy.bin_dir;

    for (guint i = 0; i < run->disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(run->disks, i);
        const WeirPolicy *policy = g_ptr_array_index(run->policies, i);

        if (!weir_launch_check_device(disk, policy, error) ||
            !weir_disk_check(disk, bin_dir, error) ||
            !weir_storage_check(policy->storage, disk, bin_dir, error) ||
            !weir_binding_check(disk, g_ptr_array_index(chains, i),
                                policy->name, error) ||
            !weir_conflicts_files(g_ptr_array_index(chains, i), disk->id,
                                  error)) {
            return false;
        }
    }
    return true;
}

/* Without --name: that of the first disk's file, without its extension. */
static char *run_default_name(const Run *run)
{
    const WeirDisk *disk = g_ptr_array_index(run->disks, 0);
    g_autofree char *base = weir_disk_name(disk);
    char *dot = strrchr(base, '.');

    if (dot && dot != base) {
        *dot = '\0';
    }
    g_strcanon(base, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
               "0123456789._-", '-');
    if (!weir_name_ok(base, WEIR_VM_MAX_NAME)) {
        return g_strdup("vm");
    }
    return g_steal_pointer(&base);
}

static bool run_find_names(Run *run, const RunOptions *options,
                           GError **error)
{
    g_autofree char *emulator = NULL;
    struct utsname host;

    run->name = options->name ? g_strdup(options->name)
                              : run_default_name(run);
    run->dir = weir_runtime_dir(options->runtime_dir);
    if (!weir_name_ok(run->name, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "--name: found '%s', expected up to %d letters, "
                       "digits, '.', '_' and '-', the first a letter or digit",
                       run->name, WEIR_VM_MAX_NAME);
        return false;
    }
    if (options->qemu && strchr(options->qemu, '/')) {
        run->qemu = g_strdup(options->qemu);
        return true;
    }
    uname(&host);
    emulator = options->qemu ? g_strdup(options->qemu)
                             : g_strconcat("qemu-system-", host.machine, NULL);
    run->qemu = weir_program_find(options->policy.bin_dir, emulator, error);
    return run->qemu != NULL;
}

/* Work out what is to be run.  Nothing is made yet. */
static bool run_prepare(Run *run, const RunOptions *options, GError **error)
{
    const WeirCompilePlaces places = {
        .dirs = weir_policy_dirs(&options->policy),
        .config_dir = options->policy.config_dir,
        .bin_dir = options->policy.bin_dir,
    };

    run->disks = weir_compile_disks(options->disks, error);
    if (!run->disks || !run_find_names(run, options, error) ||
        !weir_compile_assign(run->disks, run->name, &places, error)) {
        return false;
    }
    run->plan = weir_compile(run->disks, run->name, &places, run->policies,
                             error);
    return run->plan && run_check_disks(run, options, error);
}

static int run_vm(const RunOptions *options, char **args)
{
    g_auto(Run) run = {
        .policies = g_ptr_array_new_with_free_func(
            (GDestroyNotify)weir_policy_free),
    };
    WeirLaunch launch = { .args = args };
    GError *error = NULL;
    int exit_code;

    if (!run_prepare(&run, options, &error) ||
        !weir_plan_create_files(run.plan, &error)) {
        return weir_fail(error);
    }
    launch.name = run.name;
    launch.qemu = run.qemu;
    launch.dir = run.dir;
    launch.bin_dir = options->policy.bin_dir;
    launch.disks = run.disks;
    launch.policies = run.policies;
    launch.policy_dirs = weir_policy_dirs(&options->policy);
    launch.chains = weir_plan_chains(run.plan);
    launch.secrets = weir_plan_secrets(run.plan);
    launch.storage_secrets = weir_plan_storage_secrets(run.plan);
    if (!weir_launch(&launch, &exit_code, &error)) {
        weir_fail(error);
    }
    return exit_code;
}

/* Cut @argv at "--"; returns what follows it, NULL-terminated. */
static char **run_split(int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            char **args = argv + i + 1;

            argv[i] = NULL;
            *argc = i;
            return args;
        }
    }
    return argv + *argc;
}

int weir_cmd_run(int argc, char **argv)
{
    g_auto(RunOptions) options = { 0 };
    GOptionEntry entries[] = {
        { "disk", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options.disks,
          "A disk, may be repeated: file=FILE,format=FORMAT[,policy=NAME,...]",
          "DISK" },
        { "name", 0, 0, G_OPTION_ARG_STRING, &options.name,
          "Name of the VM (default: that of the first disk's file)", "NAME" },
        { "qemu", 0, 0, G_OPTION_ARG_FILENAME, &options.qemu,
          "The emulator", "PATH" },
        WEIR_OPTION_POLICIES(&options.policy.dirs),
        WEIR_OPTION_CONFIG_DIR(&options.policy.config_dir),
        WEIR_OPTION_BIN_DIR(&options.policy.bin_dir),
        WEIR_OPTION_RUNTIME_DIR(&options.runtime_dir),
        G_OPTION_ENTRY_NULL
    };
    char **args = run_split(&argc, argv);

    if (!weir_parse(&argc, &argv, entries, "-- QEMU-ARGS",
                    "Run QEMU in the foreground with each disk under its "
                    "policy.  Policies and disks\nare checked first; the "
                    "guest starts when its chains were seen to be there.\n\n"
                    "Exit codes: QEMU's; 128 and the signal's number if a "
                    "signal ended it; 1 if it\nwas not started, 2 wrong "
                    "usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("run: found '%s', expected QEMU's arguments after "
                          "--", argv[1]);
    }
    weir_launch_hold_signals();
    return run_vm(&options, args);
}

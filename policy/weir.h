/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the subcommands of weir share. */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include "daemon.h"

typedef enum WeirExit {
    WEIR_EXIT_OK = 0,
    WEIR_EXIT_ERROR = 1,
    WEIR_EXIT_USAGE = 2,
    WEIR_EXIT_NON_COMPLIANT = 3,
    WEIR_EXIT_UNKNOWN = 4,
} WeirExit;

typedef struct WeirCommand {
    const char *name;
    const char *summary;
    /* @argv[0] is for messages; returns the exit code. */
    int (*run)(int argc, char **argv);
} WeirCommand;

/* Run the one of @commands (ended by a NULL name) that @argv[1] names. */
int weir_dispatch(const WeirCommand *commands, const char *program, int argc,
                  char **argv);

/*
 * Parse a subcommand's options.
 *
 * @parameters: what follows the options, for --help
 * @help: the text after the options in --help
 * Returns false after having told what is wrong.
 */
bool weir_parse(int *argc, char ***argv, const GOptionEntry *entries,
                const char *parameters, const char *help);

/* Tell @error on standard error, free it, and return WEIR_EXIT_ERROR. */
int weir_fail(GError *error);

/* Tell that the command line is wrong; returns WEIR_EXIT_USAGE. */
int weir_usage(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* The options of commands that read policies. */
typedef struct WeirPolicyOptions {
    char *bin_dir;
    char **dirs;
} WeirPolicyOptions;

#define WEIR_OPTION_BIN_DIR(target) \
    { "qemu-bin-dir", 0, 0, G_OPTION_ARG_FILENAME, target, \
      "Directory of QEMU's programs", "DIR" }
#define WEIR_OPTION_POLICIES(target) \
    { "policies", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, target, \
      "Directory of policies, may be repeated (default: " \
      WEIR_POLICY_DIR ")", "DIR" }
#define WEIR_OPTION_RUNTIME_DIR(target) \
    { "runtime-dir", 0, 0, G_OPTION_ARG_FILENAME, target, \
      "Directory of the records of running VMs", "DIR" }

/* The directories to look in: NULL-terminated, owned by @options. */
char *const *weir_policy_dirs(const WeirPolicyOptions *options);
void weir_policy_options_clear(WeirPolicyOptions *options);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirPolicyOptions, weir_policy_options_clear)

int weir_cmd_advise(int argc, char **argv);
int weir_cmd_compile(int argc, char **argv);
int weir_cmd_inspect(int argc, char **argv);
int weir_cmd_policy(int argc, char **argv);
int weir_cmd_replica(int argc, char **argv);
int weir_cmd_run(int argc, char **argv);
int weir_cmd_status(int argc, char **argv);

#endif

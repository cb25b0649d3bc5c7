/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the subcommands of weir share. */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include "assign.h"
#include "daemon.h"
#include "transform.h"

typedef enum WeirExit {
    WEIR_EXIT_OK = 0,
    WEIR_EXIT_ERROR = 1,
    WEIR_EXIT_USAGE = 2,
    WEIR_EXIT_NON_COMPLIANT = 3,
    WEIR_EXIT_UNKNOWN = 4,
    WEIR_EXIT_OUT_OF_DATE = 5,
    WEIR_EXIT_SOME = 6,     /* done for some of those that were named */
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
    char *config_dir;       /* NULL: WEIR_CONFIG_DIR */
} WeirPolicyOptions;

#define WEIR_OPTION_BIN_DIR(target) \
    { "qemu-bin-dir", 0, 0, G_OPTION_ARG_FILENAME, target, \
      "Directory of QEMU's programs", "DIR" }
#define WEIR_OPTION_POLICIES(target) \
    { "policies", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, target, \
      "Directory of policies, may be repeated (default: policies.d in the " \
      "configuration)", "DIR" }
#define WEIR_OPTION_CONFIG_DIR(target) \
    { "config-dir", 0, 0, G_OPTION_ARG_FILENAME, target, \
      "Directory of the configuration (default: " WEIR_CONFIG_DIR ")", "DIR" }
#define WEIR_OPTION_RUNTIME_DIR(target) \
    { "runtime-dir", 0, 0, G_OPTION_ARG_FILENAME, target, \
      "Directory of the records of running VMs", "DIR" }

#define WEIR_OPTION_CONNECT(target) \
    { "connect", 'c', 0, G_OPTION_ARG_STRING_ARRAY, target, \
      "A host with libvirt, may be repeated", "URI" }

/* Print @array, which is consumed, on standard output. */
void weir_print_json(JsonArray *array);

/* The directories to look in: NULL-terminated, good until the next call. */
char *const *weir_policy_dirs(const WeirPolicyOptions *options);
void weir_policy_options_clear(WeirPolicyOptions *options);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirPolicyOptions, weir_policy_options_clear)

/* The options of commands that give a domain's disks their policies. */
typedef struct WeirAssignOptions {
    char **disks;
    char *policy;
    char *emulator;
    const WeirPolicyOptions *places;    /* where the policies are */
} WeirAssignOptions;

#define WEIR_OPTIONS_ASSIGN(options) \
    { "disk", 0, 0, G_OPTION_ARG_STRING_ARRAY, &(options)->disks, \
      "Policy of a disk, may be repeated", "TARGET=POLICY" }, \
    { "policy", 0, 0, G_OPTION_ARG_STRING, &(options)->policy, \
      "Policy of all other disks", "NAME" }, \
    { "emulator", 0, 0, G_OPTION_ARG_FILENAME, &(options)->emulator, \
      "The emulator (default: " WEIR_EMULATOR " next to weir)", "PATH" }

void weir_assign_options_clear(WeirAssignOptions *options);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirAssignOptions, weir_assign_options_clear)

/* weir_transform() with @options. */
char *weir_assign_options_transform(const WeirAssignOptions *options,
                                    const char *text, gsize length,
                                    GError **error);

/*
 * Read a domain's XML from @file, or standard input for NULL, up to what
 * weir_domain_parse() takes and a byte more.  The caller frees it.
 */
char *weir_read_domain(const char *file, gsize *length, GError **error);

/* The exit code of weir status for WeirDiskStatus. */
int weir_status_code(const GPtrArray *statuses);

int weir_cmd_advise(int argc, char **argv);
int weir_cmd_attach(int argc, char **argv);
int weir_cmd_binding(int argc, char **argv);
int weir_cmd_compile(int argc, char **argv);
int weir_cmd_detach(int argc, char **argv);
int weir_cmd_inspect(int argc, char **argv);
int weir_cmd_libvirt(int argc, char **argv);
int weir_cmd_libvirt_apply(int argc, char **argv);
int weir_cmd_libvirt_hook(int argc, char **argv);
int weir_cmd_libvirt_status(int argc, char **argv);
int weir_cmd_metrics(int argc, char **argv);
int weir_cmd_plugin(int argc, char **argv);
int weir_cmd_policy(int argc, char **argv);
int weir_cmd_policy_schema(int argc, char **argv);
int weir_cmd_policy_which(int argc, char **argv);
int weir_cmd_reapply(int argc, char **argv);
int weir_cmd_replica(int argc, char **argv);
int weir_cmd_run(int argc, char **argv);
int weir_cmd_status(int argc, char **argv);
int weir_cmd_supervise(int argc, char **argv);
int weir_cmd_top(int argc, char **argv);
int weir_cmd_transform(int argc, char **argv);
int weir_cmd_watch(int argc, char **argv);

/* weir plugin test */
int weir_plugin_test_command(int argc, char **argv);

/* weir policy diff */
int weir_policy_diff_run(int argc, char **argv);

#endif

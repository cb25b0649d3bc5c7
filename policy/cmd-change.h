/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What attach, detach and reapply share. */
#ifndef WEIR_CMD_CHANGE_H
#define WEIR_CMD_CHANGE_H

#include "hold.h"
#include "live.h"
#include "weir.h"

typedef struct ChangeOptions {
    WeirPolicyOptions policy;
    char *policy_name;
    char *runtime_dir;
    char *uri;              /* of libvirt; NULL: not given */
    gboolean dry_run;
} ChangeOptions;

void weir_change_options_clear(ChangeOptions *options);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ChangeOptions, weir_change_options_clear)

#define WEIR_OPTION_CHANGE_POLICY(options) \
    { "policy", 0, 0, G_OPTION_ARG_STRING, &(options).policy_name, \
      "The policy", "NAME" }, \
    WEIR_OPTION_POLICIES(&(options).policy.dirs)
#define WEIR_OPTIONS_CHANGE(options) \
    { "dry-run", 'n', 0, G_OPTION_ARG_NONE, &(options).dry_run, \
      "Only tell what would be done", NULL }, \
    { "connect", 'c', 0, G_OPTION_ARG_STRING, &(options).uri, \
      "VM is a domain of the libvirt with that URI", "URI" }, \
    WEIR_OPTION_BIN_DIR(&(options).policy.bin_dir), \
    WEIR_OPTION_RUNTIME_DIR(&(options).runtime_dir)

/* For --help of each. */
#define WEIR_CHANGE_HELP \
    "VM is one of weir run, or else a domain of libvirt.  " \
    "All of it is done or nothing.  Exit codes: 0 done, 1 error, and " \
    "everything is as\nbefore, 2 wrong usage, 3 error, and some of it is " \
    "done."

/*
 * Decides from the record of the disk which policy it is brought under: its
 * name goes to @name, NULL for none.  Returns false with @error set.
 */
typedef bool (*WeirChangeDecide)(const ChangeOptions *options,
                                 const WeirRecordDisk *disk,
                                 const char **name, GError **error);

/* Do it for disk @argv[2] of VM @argv[1]; returns the exit code. */
int weir_change_command(const ChangeOptions *options, int argc, char **argv,
                        WeirChangeDecide decide);

#endif

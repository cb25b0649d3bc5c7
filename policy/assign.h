/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which policy a disk has that nobody gave one on the command line or in the
 * description of its VM:
 *
 *   assignments.d/NAME.yaml    assignments:
 *                                - {vm: PATTERN, disk: PATTERN, policy: NAME}
 *   weir.yaml                  default-policy: NAME
 *
 * Of the assignments that match, the most specific one counts: first by its
 * pattern for the VM, then by that for the disk.  A name is more specific than
 * a pattern, and of two patterns the one with more characters that are not '*'
 * or '?', then the one with more '?'.  Two that are equal are an error.
 */
#ifndef WEIR_ASSIGN_H
#define WEIR_ASSIGN_H

#include "policy.h"

#define WEIR_CONFIG_DIR "/etc/weir"

typedef struct WeirAssignments WeirAssignments;

typedef struct WeirChoice {
    char *policy;           /* its name; NULL: there is none */
    bool is_default;
    char *at;               /* "file:line:column" of what says so, or NULL */
    char *reason;           /* for people; also why there is none */
} WeirChoice;

/*
 * Read the assignments in @config_dir (NULL: WEIR_CONFIG_DIR); files that are
 * missing are fine.  Returns what the caller frees with
 * weir_assignments_free(), or NULL with @error set, to WEIR_ERROR_POSITION for
 * what is wrong in a file.
 */
WeirAssignments *weir_assignments_load(const char *config_dir,
                                       GError **error);

/*
 * The same of texts, for weir_assignments_load() and tests.  @assignments adds
 * to those that are there.
 */
WeirAssignments *weir_assignments_new(const char *config_dir);
bool weir_assignments_add(WeirAssignments *assignments, const char *data,
                          gsize length, const char *file, GError **error);
bool weir_assignments_set_default(WeirAssignments *assignments,
                                  const char *data, gsize length,
                                  const char *file, GError **error);

/* NULL is fine. */
void weir_assignments_free(WeirAssignments *assignments);

/*
 * Choose for disk @disk of VM @vm; both are weir_name_ok().
 *
 * @choice: takes the policy, which may be none; the caller clears it
 * Returns false with @error set to WEIR_ERROR_POSITION if two assignments are
 * equal.
 */
bool weir_assignments_choose(const WeirAssignments *assignments,
                             const char *vm, const char *disk,
                             WeirChoice *choice, GError **error);

void weir_choice_clear(WeirChoice *choice);

/*
 * All of the above in one: the name of the policy of a disk, to be freed; or
 * NULL with @error set, to WEIR_ERROR_NOT_FOUND if it has none.
 */
char *weir_assigned_policy(const char *config_dir, const char *vm,
                           const char *disk, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirAssignments, weir_assignments_free)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirChoice, weir_choice_clear)

#endif

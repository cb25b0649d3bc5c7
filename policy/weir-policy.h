/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-policy.h: storage policies of QEMU/KVM disks, for other programs.
 *
 * What the command weir does is here for programs that manage virtual machines:
 * check policies, find the one of a disk, and make of it the nodes that QEMU
 * needs or the XML that libvirt needs.  See weir-policy(3).
 *
 * Texts are UTF-8 and end with a NUL.  What a function puts into a char ** is
 * freed by the caller with weir_policies_free_text().
 *
 * Functions that return int return 0, or -1 with *error set to what is wrong,
 * one line or more without a newline at the end; @error may be NULL.  An error
 * in a policy begins with FILE:LINE:COLUMN.  Nothing is printed, and the
 * program is never ended.
 *
 * A WeirPolicies may be used in any thread, by one at a time.  C99; no other
 * header is needed.
 */
#ifndef WEIR_POLICY_PUBLIC_H
#define WEIR_POLICY_PUBLIC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where policies, assignments and QEMU are. */
typedef struct WeirPolicies WeirPolicies;

typedef enum WeirPoliciesPlace {
    /* A directory of policies.  Each call adds one; default: policies.d in
     * the configuration. */
    WEIR_POLICIES_DIRECTORY = 0,
    /* The directory of the configuration; default /etc/weir. */
    WEIR_POLICIES_CONFIGURATION = 1,
    /* The directory of QEMU's programs; default: that which Weir was built
     * for, or else $PATH. */
    WEIR_POLICIES_QEMU = 2,
    /* Path of the emulator that domains get; default: the weir-qemu
     * that is where QEMU is, or in $PATH. */
    WEIR_POLICIES_EMULATOR = 3,
} WeirPoliciesPlace;

/* All places are the default ones.  To be freed. */
WeirPolicies *weir_policies_new(void);

/* NULL is fine. */
void weir_policies_free(WeirPolicies *policies);

/* NULL is fine. */
void weir_policies_free_text(char *text);

/* Whether there is something at @path is seen when it is used. */
void weir_policies_set(WeirPolicies *policies, WeirPoliciesPlace place,
                       const char *path);

/* The version of the library, as "0.1.0"; static. */
const char *weir_policies_version(void);

/*
 * Check a file with a policy or component: its syntax, that the filters and
 * options exist in the installed drivers, and that those take the values.
 * Starts QEMU's storage daemon for some tens of milliseconds.
 */
int weir_policies_check(WeirPolicies *policies, const char *file,
                        char **error);

/*
 * The JSON schema (draft 2020-12) of policies with the installed filters, for
 * editors.
 */
int weir_policies_schema(WeirPolicies *policies, char **json, char **error);

/*
 * Which policy a disk has that is not given one: by assignments.d, or the
 * default policy.
 *
 * @policy: takes its name, or NULL if it has none
 * @reason: takes what says so, for people; may be NULL
 */
int weir_policies_choose(WeirPolicies *policies, const char *vm,
                         const char *disk, char **policy, char **reason,
                         char **error);

/*
 * The nodes that put the disks of a VM under their policies.  Nothing is opened
 * or made.
 *
 * @disks: descriptions as for the option --disk of weir compile, ended by NULL
 * @json: takes an object
 *
 *   {"disks": [{"id": ID, "policy": NAME, "nodes": [NODE...]}...],
 *    "secrets": [{"id": ID, "from": "file" | "credential" | "command",
 *                 "value": TEXT}...]}
 *
 * NODE is an argument of blockdev-add; they are added in that order, after an
 * object "secret" for each of the secrets.
 */
int weir_policies_compile(WeirPolicies *policies, const char *vm,
                          const char *const *disks, char **json,
                          char **error);

/*
 * The XML of a libvirt domain with its disks under policies: those of its
 * metadata, and @policy for all others unless that is NULL.  Nothing else than
 * the arguments and the places is looked at; the same input gives the same
 * output.
 *
 * @xml, @length: the domain, up to 1 MiB
 * @result: takes XML, the same if no disk has a policy
 */
int weir_policies_transform(WeirPolicies *policies, const char *xml,
                            size_t length, const char *policy, char **result,
                            char **error);

/* Take back what that has done: gives what it was given, byte for byte. */
int weir_policies_take_back(WeirPolicies *policies, const char *xml,
                            size_t length, char **result, char **error);

#ifdef __cplusplus
}
#endif

#endif

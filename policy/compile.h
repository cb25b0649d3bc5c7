/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the disks of a VM, as --disk describes them, to a plan. */
#ifndef WEIR_COMPILE_H
#define WEIR_COMPILE_H

#include "plan.h"

/* Where policies and drivers are found. */
typedef struct WeirCompilePlaces {
    char *const *dirs;      /* of policies */
    const char *config_dir; /* of assignments; NULL: WEIR_CONFIG_DIR */
    const char *bin_dir;    /* as in weir_program_find() */
} WeirCompilePlaces;

/*
 * Parse descriptions, ended by NULL.  Returns an array of WeirDisk, all of them
 * distinct, that the caller unrefs; or NULL with @error set.
 */
GPtrArray *weir_compile_disks(char *const *texts, GError **error);

/* Give the @disks without a policy the one that is assigned. */
bool weir_compile_assign(const GPtrArray *disks, const char *vm,
                         const WeirCompilePlaces *places, GError **error);

/*
 * Find and try the policies of @disks, and work out the chains.
 *
 * @policies: takes a WeirPolicy for each disk
 * Returns a plan, which the caller frees, or NULL with @error set.
 */
WeirPlan *weir_compile(const GPtrArray *disks, const char *vm,
                       const WeirCompilePlaces *places, GPtrArray *policies,
                       GError **error);

#endif

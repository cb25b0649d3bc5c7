/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What has to be there for the disks of a VM under their policies: chains,
 * with variables expanded and the filters' own nodes in them, secrets, files.
 *
 * Disks whose policies name the same place in the same option of the same
 * filter share that node: the log of a replication.
 */
#ifndef WEIR_PLAN_H
#define WEIR_PLAN_H

#include "chain.h"
#include "location.h"
#include "secret.h"
#include "variables.h"

typedef struct WeirPlan WeirPlan;

/*
 * A plan without disks.  @vm: name of the VM; weir_name_ok().  The caller
 * frees it with weir_plan_free().
 */
WeirPlan *weir_plan_new(const char *vm);

/* NULL is fine. */
void weir_plan_free(WeirPlan *plan);

/*
 * Add a disk.  Returns its chain (see weir_chain_new()), owned by @plan, or
 * NULL with @error set to WEIR_ERROR_POSITION.
 */
const GPtrArray *weir_plan_add(WeirPlan *plan, const WeirDisk *disk,
                               const WeirPolicy *policy, GError **error);

/*
 * A node for @place in that option of that filter is there already: it is
 * referred to as @node_name.
 */
void weir_plan_share(WeirPlan *plan, const char *driver, const char *option,
                     const char *place, const char *node_name);

/*
 * The options of a filter from its settings (see chain.h): secrets and nodes
 * in the place of what stands for them.
 *
 * @nodes: char *, options that are nodes
 * Returns what the caller unrefs, or NULL with @error set.
 */
JsonObject *weir_plan_resolve(WeirPlan *plan, const WeirDisk *disk,
                              const char *driver, const GPtrArray *nodes,
                              JsonObject *settings, GError **error);

/*
 * Note in a filter of a chain the options of its own nodes that it has only the
 * names of, because they are another disk's too, or were opened before it: so
 * it can be opened by itself.
 *
 * @options: char *, those of its driver that are nodes
 */
void weir_plan_add_nodes(const char *vm, const WeirDisk *disk,
                         const GPtrArray *options, WeirChainNode *filter);

/* The chains of all disks, in order; owned by @plan. */
GPtrArray *weir_plan_chains(const WeirPlan *plan);

/*
 * WeirSecret: those that QEMU has to be given, and those that the storage
 * daemon has to; owned by @plan.
 */
GPtrArray *weir_plan_secrets(const WeirPlan *plan);
GPtrArray *weir_plan_storage_secrets(const WeirPlan *plan);

/* WeirLocation: where the filters' own nodes are; owned by @plan. */
const GPtrArray *weir_plan_locations(const WeirPlan *plan);

/* Make the files that are to be made. */
bool weir_plan_create_files(const WeirPlan *plan, GError **error);

/*
 * The options of @filter, with something for its variables and a name for each
 * node of its own: to be checked, not opened.  The caller unrefs it.
 */
JsonObject *weir_plan_sample(const WeirPolicyFilter *filter);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirPlan, weir_plan_free)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The filters that a running disk has, and those that a policy wants. */
#ifndef WEIR_PRESENT_H
#define WEIR_PRESENT_H

#include "change.h"
#include "graph.h"
#include "plan.h"
#include "record.h"

/* What is known of a disk in use. */
typedef struct WeirSight {
    const WeirRecord *record;
    const WeirRecordDisk *disk;
    const WeirGraph *graph;
    const WeirSchema *schema;       /* plugins as the VM describes them */
} WeirSight;

/*
 * The filters that are there.
 *
 * @shape: takes what they stand on; cleared by the caller in any case
 * Returns WeirPresent as weir_change_new() takes them, which the caller unrefs;
 * or NULL with @error set.
 */
GPtrArray *weir_present_new(const WeirSight *sight, WeirShape *shape,
                            GError **error);

/*
 * The filters of a chain.
 *
 * @chain: as weir_chain_new(); is referred to
 * Returns WeirGoal as weir_change_new() takes them, which the caller unrefs.
 */
GPtrArray *weir_goals_new(const WeirSight *sight, const GPtrArray *chain,
                          const WeirShape *shape);

/*
 * Sidecars of recorded filters whose nodes have gone, also without having been
 * detached, are told that all is to be copied: what was written since is not in
 * them.
 *
 * Returns false with @error set.
 */
bool weir_present_mend(const WeirSight *sight, GError **error);

/* Let @plan refer to nodes that other disks of the VM have already. */
void weir_present_share(const WeirSight *sight, WeirPlan *plan);

#endif

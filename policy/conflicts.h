/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filters and options that are right each by itself, but together lose data,
 * or show it to somebody, without anybody being told.
 *
 * Order and number of filters are order.h's.
 */
#ifndef WEIR_CONFLICTS_H
#define WEIR_CONFLICTS_H

#include "chain.h"
#include "order.h"

/*
 * Tell what does not fit within a policy.  @filters: WeirOrdered, from the
 * guest downwards but for their places
 */
void weir_conflicts_check(const GArray *filters, WeirReport *report);

/*
 * Whether a filter may be on @disk.  Returns false with @error set to what is
 * wrong with option @option (a static string), without a place.
 */
bool weir_conflicts_disk(const WeirPolicyFilter *filter, JsonObject *options,
                         const WeirDisk *disk, const char **option,
                         GError **error);

/* Whether several disks may have one node for that option of @filter. */
bool weir_conflicts_shared(const WeirPolicyFilter *filter,
                           const char *option);

/*
 * Whether the files of a disk's filters can be as its last run left them,
 * before missing ones are made.  @chain: of weir_plan_add().  @disk: its id
 */
bool weir_conflicts_files(const GPtrArray *chain, const char *disk,
                          GError **error);

#endif

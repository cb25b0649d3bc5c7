/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether a disk is under what its policy says now. */
#ifndef WEIR_OUTDATED_H
#define WEIR_OUTDATED_H

#include "compliance.h"
#include "schema.h"

/*
 * Compare what was applied to the disks of a VM with the policies of now: a
 * compliant disk whose policy is another one since, is gone, or is wrong
 * becomes out-of-date.
 *
 * @dirs: where to look for policies; NULL: where those that were applied have
 *     been found
 * @schema: the installed filters
 * @statuses: WeirDiskStatus, those of @record among others
 */
void weir_outdated_check(const WeirRecord *record, char *const *dirs,
                         const WeirSchema *schema, GPtrArray *statuses);

/*
 * The filters are not known, because of @reason, and so nobody knows what the
 * policies say: those disks become unknown.
 */
void weir_outdated_unknown(const WeirRecord *record, const char *reason,
                           GPtrArray *statuses);

#endif

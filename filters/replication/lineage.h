/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_LINEAGE_H
#define WEIR_REPLICATION_LINEAGE_H

#include "replication/sidecar.h"

/*
 * Two disks that were one, or the copy of one, by a log that both know: whether
 * it is known where they may differ (docs/weir-replication-sidecar.md). Nothing
 * here does I/O, allocates or locks.
 */

typedef enum WeirLineage {
    WEIR_LINEAGE_APART,         /* they have gone apart, or never were one */
    WEIR_LINEAGE_ALL,           /* anywhere */
    WEIR_LINEAGE_BOTH,          /* where either of them says so */
} WeirLineage;

/* What a sidecar says of its disk. */
void weir_lineage_of(WeirLogOrigin *origin, const WeirSidecar *sidecar);

WeirLineage weir_lineage_compare(const WeirLogOrigin *a,
                                 const WeirLogOrigin *b);

#endif

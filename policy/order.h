/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which filters fit together on one disk, and in which order:
 *
 *   guest - encryption - replication - cache - disk
 *
 * At most one of each class.  What is above encryption sees what is not
 * encrypted, so that has to be wanted.
 */
#ifndef WEIR_ORDER_H
#define WEIR_ORDER_H

#include "policy.h"
#include "validate.h"

/* A filter of a policy, and where it is written. */
typedef struct WeirOrdered {
    const WeirFilterType *type;
    WeirPlace place;
    const WeirYaml *key;
} WeirOrdered;

/*
 * Tell what does not fit.
 *
 * @filters: WeirOrdered, as they are in the file
 * @before_encryption: others may be above encryption
 */
void weir_order_check(const GArray *filters, bool before_encryption,
                      WeirReport *report);

#endif

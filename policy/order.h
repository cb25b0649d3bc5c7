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

/* A filter of a policy, and where it is written; in the order of the list. */
typedef struct WeirOrdered {
    const WeirFilterType *type;
    WeirPlace place;
    const WeirYaml *key;
    const WeirYaml *options;    /* its value; may be empty */
} WeirOrdered;

/* The first filter of that class, or NULL. */
const WeirOrdered *weir_order_find(const GArray *filters, WeirClass class);

/* Whether @a is nearer to the guest than @b; both are in one array. */
bool weir_order_above(const WeirOrdered *a, const WeirOrdered *b);

/*
 * Tell what does not fit.
 *
 * @filters: WeirOrdered, as they are in the file
 * @before_encryption: others may be above encryption
 */
void weir_order_check(const GArray *filters, bool before_encryption,
                      WeirReport *report);

#endif

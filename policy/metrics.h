/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is known of running disks, as metrics: see docs/metrics.md. */
#ifndef WEIR_METRICS_H
#define WEIR_METRICS_H

#include "exposition.h"
#include "watch.h"

/* Add all families, also those without samples. */
void weir_metrics_add(WeirExposition *exposition, const WeirWatch *watch);

/* Those of what filters of each kind tell. */
void weir_metrics_add_filters(WeirExposition *exposition,
                              const GPtrArray *statuses);

#endif

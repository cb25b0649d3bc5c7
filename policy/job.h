/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs of QEMU that detach a filter. */
#ifndef WEIR_JOB_H
#define WEIR_JOB_H

#include "qmp.h"

/* All but is_interrupted may be NULL. */
typedef struct WeirJobWatch {
    bool (*is_interrupted)(void *opaque);   /* the job is to be cancelled */
    void (*progress)(double done);          /* 0 to 1 */
    void (*trouble)(const char *reason);    /* what the filter suffers from,
                                               each time it is another */
    void *opaque;
} WeirJobWatch;

/*
 * Wait for the end of a job and dismiss it.
 *
 * @node_name: of the filter
 * Blocks.  Returns false with @error set if it failed, or was cancelled.  True:
 * it did not, or is not known any more.
 */
bool weir_job_wait(WeirQmp *qmp, const char *id, const char *node_name,
                   const WeirJobWatch *watch, GError **error);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running VMs that status and inspect ask. */
#ifndef WEIR_TARGET_H
#define WEIR_TARGET_H

#include "graph.h"
#include "record.h"

typedef struct WeirTarget {
    WeirRecord *record;     /* NULL: not started by weir run */
    char *name;             /* of the VM, or its socket */
    WeirGraph *graph;       /* NULL: it could not be asked, for @reason */
    char *reason;
} WeirTarget;

/*
 * Ask one VM or all.
 *
 * @dir: of the records
 * @vm: only the VM of that name; NULL: all recorded ones
 * @qmp: instead, the one with that QMP socket, recorded or not
 * Blocks for up to some seconds per VM.  Returns an array of WeirTarget that
 * the caller unrefs, or NULL with @error set.
 */
GPtrArray *weir_targets_ask(const char *dir, const char *vm, const char *qmp,
                            GError **error);

#endif

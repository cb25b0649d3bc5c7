/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMs of weir run that are asked, all at the same time. */
#ifndef WEIR_TARGET_H
#define WEIR_TARGET_H

#include "domain.h"
#include "graph.h"
#include "record.h"

#define WEIR_TARGET_TIMEOUT_MS 5000

/* Whom to ask, for what. */
typedef struct WeirTargetQuery {
    char *dir;              /* of the records */
    char *vm;               /* only the VM of that name; NULL: all recorded */
    char *qmp;              /* instead, the one with that QMP socket, recorded
                               or not; NULL: none */
    int timeout_ms;         /* for each VM */
    bool traffic;           /* ask for the traffic of devices too */
} WeirTargetQuery;

typedef struct WeirTarget {
    WeirRecord *record;     /* NULL: not known, or not started by weir */
    char *dir;              /* of the record and what is seen of the VM */
    bool apart;             /* the record is not in @dir */
    char *host;             /* NULL: this machine, where no other is asked */
    char *name;             /* of the VM, or "-" */
    GPtrArray *assigned;    /* WeirAssigned, of a domain of libvirt; else, or if
                               its XML is not known, NULL */
    GPtrArray *next;        /* the same from its next start on; NULL: as now */
    char *uuid;             /* of a domain of this machine; else NULL */
    bool remote;            /* policies that it was started with are not
                               those of this machine */
    WeirGraph *graph;       /* NULL: it could not be asked, for @reason */
    JsonNode *blockstats;   /* of query-blockstats; NULL if not asked for, or
                               there is no such command */
    char *reason;
} WeirTarget;

/* NULL is fine. */
void weir_target_free(WeirTarget *target);

/* Ask for the traffic of devices, which a program may know nothing of. */
bool weir_target_ask_traffic(WeirTarget *target, WeirQmp *qmp, int timeout_ms,
                             GError **error);

/* Free what is in @query. */
void weir_target_query_clear(WeirTargetQuery *query);

/* An array for WeirTarget, which the caller unrefs. */
GPtrArray *weir_targets_new(void);

/*
 * Ask one VM or all.  The storage daemon of a VM is a target of its own, with
 * the VM's name.
 *
 * Blocks for no longer than the timeout of one VM, however many there are.
 * Returns an array of WeirTarget, by name, that the caller unrefs, or NULL with
 * @error set.
 */
GPtrArray *weir_targets_ask(const WeirTargetQuery *query, GError **error);

/*
 * Ask the storage daemons of those of @targets that are domains of this
 * machine, and add them.
 *
 * @dir: has a directory for each domain, named after its UUID
 * Blocks, for @query's timeout at most.
 */
void weir_targets_add_storage(GPtrArray *targets, const char *dir,
                              const WeirTargetQuery *query);

/* How many of @targets are VMs. */
guint weir_targets_vms(const GPtrArray *targets);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirTarget, weir_target_free)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirTargetQuery, weir_target_query_clear)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether the disks of a running VM are what their policies want. */
#ifndef WEIR_COMPLIANCE_H
#define WEIR_COMPLIANCE_H

#include "graph.h"
#include "judge.h"
#include "record.h"

typedef struct WeirHistory WeirHistory;     /* see history.h */

/* What is to be said of a filter that a disk has, or should have. */
typedef struct WeirFilterStatus {
    char *driver;
    char *kind;             /* see kind.h */
    char *node_name;        /* NULL: it is missing */
    WeirCompliance state;
    char *reason;           /* why not WEIR_COMPLIANT; else NULL */
    gint64 since;           /* of @state, seconds since 1970; 0: not known */
    JsonObject *filter;     /* its entry in query-weir, or NULL */
} WeirFilterStatus;

/* A disk's compliance. */
typedef struct WeirDiskStatus {
    char *host;             /* NULL: not to be told */
    char *vm;               /* NULL: of a host that cannot be asked */
    char *disk;             /* NULL: it is not known which there are */
    char *policy;           /* NULL: none */
    gint64 policy_version;
    WeirCompliance state;
    char *reason;           /* why not WEIR_COMPLIANT; else NULL */
    char *note;             /* what is to be known besides; or NULL */
    JsonObject *daemon;     /* of its process, if it is not QEMU; or NULL */
    gint64 since;           /* of @state, seconds since 1970; 0: not known */
    WeirLimits limits;
    JsonArray *wanted;      /* from the highest node downwards */
    JsonArray *actual;      /* likewise; empty if unknown */
    GPtrArray *filters;     /* WeirFilterStatus: those that are wanted, then
                               others; empty if unknown */
    JsonArray *latency;     /* histogram of the highest filter, or NULL */
    JsonArray *recent;      /* what of it counts for the limit, or NULL */
    JsonArray *gaps;        /* see gaps.h; NULL: none are known */
} WeirDiskStatus;

/*
 * Compare the recorded disks of a VM with its graph.  A filter is recognised
 * by kind and place, so one attached again under another node name counts.
 *
 * @graph: NULL if the VM could not be asked, for @reason
 * @history: from when latencies count; NULL: since the filters were opened
 * @statuses: takes a WeirDiskStatus for each disk
 */
void weir_compliance_record(const WeirRecord *record, const WeirGraph *graph,
                            const char *reason, const WeirHistory *history,
                            GPtrArray *statuses);

/* Add a not-applicable status for each device or export of @graph. */
void weir_compliance_graph(const char *vm, const WeirGraph *graph,
                           GPtrArray *statuses);

/*
 * Add the unknown status of a disk whose record is not known, for @reason.
 *
 * @vm, @disk, @policy: NULL: not known either
 */
void weir_compliance_unknown(const char *vm, const char *disk,
                             const char *policy, const char *reason,
                             GPtrArray *statuses);

/* A WeirDiskStatus as a JSON object that the caller unrefs. */
JsonObject *weir_disk_status_json(const WeirDiskStatus *status);

/* An array for weir_compliance_*(), which the caller unrefs. */
GPtrArray *weir_disk_statuses_new(void);

/* The highest node of a recorded disk, or NULL. */
WeirGraphNode *weir_record_disk_root(const WeirRecordDisk *disk,
                                     const WeirGraph *graph);

/*
 * Whether the graph has each node that @record wants, with its driver, in a
 * chain.  Returns false with @error set to the first difference.
 */
bool weir_record_verify(const WeirRecord *record, const WeirGraph *graph,
                        GError **error);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether the disks of a running VM are what their policies want. */
#ifndef WEIR_COMPLIANCE_H
#define WEIR_COMPLIANCE_H

#include "graph.h"
#include "record.h"

typedef enum WeirCompliance {
    WEIR_COMPLIANT,
    WEIR_NON_COMPLIANT,
    WEIR_OUT_OF_DATE,       /* compliant, but its policy is another one now;
                               see outdated.h */
    WEIR_UNKNOWN,           /* the VM cannot be asked */
    WEIR_NOT_APPLICABLE,    /* no policy is known */
} WeirCompliance;

/* A disk's compliance. */
typedef struct WeirDiskStatus {
    char *vm;
    char *disk;
    char *policy;           /* NULL: none */
    gint64 policy_version;
    WeirCompliance state;
    char *reason;           /* why not WEIR_COMPLIANT; else NULL */
    JsonArray *wanted;      /* from the highest node downwards */
    JsonArray *actual;      /* likewise; empty if unknown */
} WeirDiskStatus;

/* "compliant", "non-compliant", "out-of-date" and so on. */
const char *weir_compliance_name(WeirCompliance state);

/*
 * Compare the recorded disks of a VM with its graph.  A filter is recognised
 * by driver and place, so one attached again under another node name counts.
 *
 * @graph: NULL if the VM could not be asked, for @reason
 * @statuses: takes a WeirDiskStatus for each disk
 */
void weir_compliance_record(const WeirRecord *record, const WeirGraph *graph,
                            const char *reason, GPtrArray *statuses);

/* Add a not-applicable status for each device or export of @graph. */
void weir_compliance_graph(const char *vm, const WeirGraph *graph,
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

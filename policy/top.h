/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What disks do between two looks, as rows that can be sorted. */
#ifndef WEIR_TOP_H
#define WEIR_TOP_H

#include "watch.h"

typedef enum WeirTopColumn {
    WEIR_TOP_HOST,          /* only where hosts are to be told apart */
    WEIR_TOP_VM,
    WEIR_TOP_DISK,
    WEIR_TOP_STATE,
    WEIR_TOP_READS,
    WEIR_TOP_WRITES,
    WEIR_TOP_READ_BYTES,
    WEIR_TOP_WRITE_BYTES,
    WEIR_TOP_LATENCY,
    WEIR_TOP_RPO,
    WEIR_TOP_DIRTY,
    WEIR_TOP_REPLICATION,
    WEIR_TOP_REASON,
    WEIR_TOP_COLUMNS,
} WeirTopColumn;

typedef struct WeirTopRow {
    WeirCompliance state;
    char *texts[WEIR_TOP_COLUMNS];      /* NULL: it is a number, or unknown */
    double numbers[WEIR_TOP_COLUMNS];   /* NAN: unknown; per second but
                                           for latency (mean, ns), RPO (ns)
                                           and dirty bytes */
} WeirTopRow;

/*
 * The disks of a look.
 *
 * @before: an earlier look, NULL: there was none
 * @seconds: from that to this one
 * Returns an array of WeirTopRow that the caller unrefs.
 */
GPtrArray *weir_top_rows(const WeirWatch *watch, const WeirWatch *before,
                         double seconds);

/*
 * Sort by a column: texts from A, states from the worst, numbers from the
 * largest, what is unknown at the end; with @reverse the other way round, but
 * the unknown.  Rows that are equal stay by host, VM and disk.
 */
void weir_top_sort(GPtrArray *rows, WeirTopColumn column, bool reverse);

/* A cell as text, to be freed; NULL: unknown. */
char *weir_top_cell(const WeirTopRow *row, WeirTopColumn column);

/* Whether a column is to be shown. */
bool weir_top_has(const WeirWatch *watch, WeirTopColumn column);

/* "RD/S", and "reads" as on the command line. */
const char *weir_top_title(WeirTopColumn column);
const char *weir_top_name(WeirTopColumn column);

#endif

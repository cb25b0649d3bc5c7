/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BLOCK_WEIR_JOURNAL_H
#define WEIR_BLOCK_WEIR_JOURNAL_H

#include "filter.h"
#include "replication/keeper.h"
#include "weir-tasks.h"

/* What the files of the drivers weir-journal and weir-replica share. */

typedef struct WeirJournalImage {
    BlockDriverState *bs;       /* the journal */
    char *disk_id;
    BdrvChild *child;
    BdrvChild *sidecar;         /* NULL: none */
} WeirJournalImage;

typedef struct BDRVWeirJournalState {
    WeirFilter filter;          /* first: see filter.h */
    WeirTasksHost tasks;
    WeirTasksGate gate;
    WeirKeeperHost host;        /* set at open */
    WeirKeeper *keeper;         /* set at open */
    WeirKeeperConfig config;    /* main thread */
    bool create;                /* set at open */
    uint64_t segment_bytes;     /* set at open; 0: the default */
    WeirJournalImage *bases;    /* set at open */
    size_t base_count;          /* set at open */
    QEMUBH *state_bh;           /* to tell of another state */
} BDRVWeirJournalState;

/* I/O for the engine; its opaque is the node. */
void weir_journal_host_init(BlockDriverState *bs);

/* WeirFilterDriver.points and .promote */
WeirPointList *weir_journal_points(BlockDriverState *bs, uint64_t before,
                                   uint32_t limit, bool marked);
void weir_journal_promote(BlockDriverState *bs, const char *job_id,
                          const char *point, Error **errp);

#endif

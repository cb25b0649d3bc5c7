/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Epochs that go to the base images together, and the records of them. */
#ifndef WEIR_REPLICATION_BATCH_H
#define WEIR_REPLICATION_BATCH_H

#include "replication/keeper-int.h"

/* Of data, that are chosen or held in memory at once. */
#define BATCH_BYTES (UINT64_C(32) << 20)

typedef struct Batch {
    WeirKeeper *k;
    WeirLogCommit commit;
    bool consistent, application_consistent;
    uint64_t from;              /* position of the anchor's end */
    Chapter **chapters;         /* that have records of it, with a reference */
    size_t chapter_count;
    WeirIndexRecord *tail;      /* those that are in no chapter */
    size_t tail_count;
    WeirIndexRecord *records;
    size_t count, room;
    KnownDisk disks[WEIR_LOG_DISKS_MAX];        /* at the anchor */
    KnownDisk after[WEIR_LOG_DISKS_MAX];
    uint64_t most[WEIR_LOG_DISKS_MAX];  /* length that is needed */
    bool touched[WEIR_LOG_DISKS_MAX];
    Base *bases[WEIR_LOG_DISKS_MAX];
    char message[WEIR_KEEPER_MESSAGE_BYTES];
} Batch;

/* Some records of a batch, with their data. */
typedef struct Part {
    size_t first, count;
    WeirMap maps[WEIR_LOG_DISKS_MAX];
    const uint8_t **data;       /* of each record; NULL: not needed */
    uint8_t **runs;             /* what was read, and what became of that */
    size_t n_runs;
} Part;

/*
 * All records up to an epoch but those in chapters.  The lock is held.
 * Returns 0 or -ENOMEM with a message; it is to be destroyed in either case.
 */
int weir_batch_init(Batch *b, WeirKeeper *k, uint64_t epoch);

/* The lock is held. */
void weir_batch_destroy(Batch *b);

/* All of its records, in order.  Yields.  Returns 0, or -errno. */
int weir_batch_load(Batch *b);

/*
 * Read all that it needs.  Yields.  Returns 0, or -errno with a message.
 *
 * kept: takes it, if it is one part; is to be destroyed
 */
int weir_batch_check(Batch *b, Part *kept);

/* Write it to the bases, and flush them; the same. */
int weir_batch_write(Batch *b, Part *kept);

/* What cannot be done with a base, as the message.  Returns ret, an -errno. */
int weir_batch_fail(Batch *b, const Base *base, const char *what, int ret);

/* --- part.c --- */

/*
 * From a record on, so much as can be held in memory, with its data.  Yields.
 * Returns 0, or -errno with a message; it is to be destroyed in either case.
 *
 * sizes: of the disks, before it; after it on return
 */
int weir_part_init(Batch *b, Part *p, size_t first, uint64_t *sizes);

/* All zeroes is fine. */
void weir_part_destroy(Part *p);

/* To the bases, each in one sweep.  Yields.  Returns 0, or -errno. */
int weir_part_write(Batch *b, const Part *p);

#endif

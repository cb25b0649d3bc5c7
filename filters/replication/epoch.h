/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_EPOCH_H
#define WEIR_REPLICATION_EPOCH_H

#include "replication/memory.h"
#include "replication/packet.h"

/*
 * What was written from one moment to the next, in order: the records of an
 * epoch with their data, until they are in the log for good. The caller locks.
 */

#define WEIR_EPOCH_COMMITS 4

typedef struct WeirEpochEntry {
    WeirLogRecord record;
    WeirPiece piece;            /* if the record has data */
} WeirEpochEntry;

typedef struct WeirEpoch {
    WeirEpochEntry *entries;
    uint32_t count, room;
    uint64_t bytes;             /* of all data */
    uint64_t begun_ns;          /* when the first entry came; monotonic */
    uint64_t wall_ns;           /* when it was closed */
    uint64_t monotonic_ns;      /* the same */
    uint64_t serial;            /* one more than that of the one before */
    bool consistent;            /* it ends in a point in time */
    bool application_consistent;
    /*
     * What it was committed as, in the last sessions in which that was tried:
     * a write of an old one may still come true. sessions: so far.
     */
    WeirLogCommit commits[WEIR_EPOCH_COMMITS];
    uint32_t sessions;
    uint32_t packets;           /* that are under way */
    struct WeirEpoch *next;
} WeirEpoch;

/* Part of an epoch that makes one packet. */
typedef struct WeirEpochPart {
    uint32_t first, count;      /* entries */
    uint64_t data_bytes;        /* with what lies between */
    bool ends;                  /* it is the last part */
} WeirEpochPart;

WeirEpoch *weir_epoch_new(void);        /* NULL: no memory */

/* memory: where the pieces go back to. */
void weir_epoch_free(WeirEpoch *epoch, WeirMemory *memory);

/*
 * Make room for one more entry, so that weir_epoch_add() cannot fail when
 * nothing can be taken back any more. Returns 0 or -ENOMEM.
 */
int weir_epoch_reserve(WeirEpoch *epoch, uint32_t entries);

/* Nothing is added any more: give back the room that is left. */
void weir_epoch_trim(WeirEpoch *epoch);

/* piece: NULL without data. */
void weir_epoch_add(WeirEpoch *epoch, const WeirLogRecord *record,
                    const WeirPiece *piece);

/*
 * The part that begins with an entry: up to about packet_bytes, one entry at
 * least if there is one.
 */
WeirEpochPart weir_epoch_part(const WeirEpoch *epoch, uint32_t first,
                              uint64_t packet_bytes);

#endif

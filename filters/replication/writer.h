/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_WRITER_H
#define WEIR_REPLICATION_WRITER_H

#include "replication/packet.h"

/*
 * Somebody who appends to a replication log: gives each packet its place, its
 * epoch and its number. Does no I/O, does not allocate or lock.
 */

typedef struct WeirLogWriter {
    const WeirLogSuperblock *sb;        /* set at init; lives as long */
    uint64_t session;                   /* set at init */
    uint64_t tail;                      /* what is before it may be written */
    uint64_t position;                  /* of the next packet */
    uint64_t epoch;                     /* of the next packet */
    uint32_t number;                    /* of it in its epoch */
    uint8_t chain[WEIR_LOG_CHAIN_BYTES];
    uint64_t wall_ns;                   /* of the last commit */
    WeirLogCommit durable;
} WeirLogWriter;

/*
 * end: the last valid epoch of the log, which is durable. session: random.
 */
void weir_log_writer_init(WeirLogWriter *w, const WeirLogSuperblock *sb,
                          const WeirLogCommit *end, uint64_t session);

typedef enum WeirLogNext {
    WEIR_LOG_NEXT_ANY,          /* it fits */
    WEIR_LOG_NEXT_LAST,         /* one without records, with p->last */
    WEIR_LOG_NEXT_FIRST,        /* one with a WEIR_LOG_DISK record for each
                                   disk */
} WeirLogNext;

/* What has to go before a packet of so many bytes (head and data). */
WeirLogNext weir_log_writer_next(const WeirLogWriter *w, uint64_t bytes);

/*
 * Make the head of the next packet, at p->position.
 * p: records, last, commit, and for a commit consistent,
 * application_consistent, wall_ns, monotonic_ns are given; all else is set.
 * weir_log_writer_next() has told that it may go here. A wall clock that has
 * gone back is corrected. commit: set for a commit; else may be NULL.
 * head, records: see weir_log_packet_write().
 * Returns 0; -EAGAIN: there is no room until the tail moves; nothing changed.
 */
int weir_log_writer_put(WeirLogWriter *w, WeirLogPacket *p,
                        const WeirLogRecord *records, uint8_t *head,
                        WeirLogCommit *commit);

/*
 * An epoch has become durable. commit: from weir_log_writer_put(), not older
 * than what was told before.
 */
void weir_log_writer_durable(WeirLogWriter *w, const WeirLogCommit *commit);

#endif

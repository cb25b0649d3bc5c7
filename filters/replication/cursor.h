/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_CURSOR_H
#define WEIR_REPLICATION_CURSOR_H

#include "replication/packet.h"

/*
 * Somebody who reads a replication log in order, from a valid epoch on, and
 * tells where valid epochs end. Does no I/O, does not allocate or lock.
 */

typedef struct WeirLogCursor {
    const WeirLogSuperblock *sb;        /* set at init; lives as long */
    WeirLogCommit commit;               /* of the last valid epoch */
    bool consistent;                    /* that one is a point in time; known
                                           when it was taken here */
    uint64_t position;                  /* of the next packet */
    uint8_t chain[WEIR_LOG_CHAIN_BYTES];
    uint64_t session;                   /* of the epoch that has begun */
    uint32_t number;                    /* of the next packet in its epoch */
} WeirLogCursor;

#define WEIR_LOG_NOWHERE UINT64_MAX

void weir_log_cursor_init(WeirLogCursor *c, const WeirLogSuperblock *sb,
                          const WeirLogCommit *from);

/* Where the next packet is; WEIR_LOG_NOWHERE: the ring is at its end. */
uint64_t weir_log_cursor_place(const WeirLogCursor *c);

/*
 * Take a packet that was found whole, its data included.
 * Returns 1: an epoch is valid up to here; 0: the packet belongs to the next
 * one; -EINVAL, *why: it does not belong here, and nothing has changed.
 */
int weir_log_cursor_take(WeirLogCursor *c, const WeirLogPacket *p,
                         const char **why);

#endif

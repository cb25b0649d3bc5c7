/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_SCAN_H
#define WEIR_REPLICATION_SCAN_H

#include <sys/uio.h>

#include "replication/cursor.h"

/*
 * Reading a replication log from its device. What yields is the host's read.
 */

/* Returns 0 or -errno; never less than was asked for. */
typedef int (*WeirLogRead)(void *opaque, uint64_t offset, uint64_t bytes,
                           void *buf);

/* Returns 0 or -errno. */
typedef int (*WeirLogWrite)(void *opaque, uint64_t offset, uint64_t bytes,
                            const struct iovec *iov, size_t niov);

typedef struct WeirLogScan {
    WeirLogRead read;
    void *opaque;
    WeirLogCursor cursor;
    uint8_t *buf;               /* of one packet */
    WeirLogPacket packet;       /* the last one: its head and its data are at
                                   the beginning of buf */
} WeirLogScan;

/*
 * Begin to read. sb: lives as long. from: the epoch to begin behind.
 * Returns 0 or -ENOMEM. Ends with weir_log_scan_destroy().
 */
int weir_log_scan_init(WeirLogScan *s, WeirLogRead read, void *opaque,
                       const WeirLogSuperblock *sb, const WeirLogCommit *from);
void weir_log_scan_destroy(WeirLogScan *s);

/*
 * Take the next packet. Returns 1: it ends an epoch; 0: it is part of one, of
 * which nobody knows yet whether it is valid; -ENODATA: there is none; another
 * -errno of the host's read.
 */
int weir_log_scan_next(WeirLogScan *s);

/*
 * Read the packet at a position, wherever the cursor is: s->packet, s->buf.
 * Returns 0; -ENODATA: there is none; the error of a read.
 */
int weir_log_scan_read(WeirLogScan *s, uint64_t position);

/*
 * The last valid epoch of a log.
 * end: set on success. Yields; takes one packet of memory.
 * Returns 0, -ENOMEM or the error of a read.
 */
int weir_log_find_end(WeirLogRead read, void *opaque,
                      const WeirLogSuperblock *sb, WeirLogCommit *end);

/* The same; told: the newest of those by which it was looked for: durable. */
int weir_log_find_ends(WeirLogRead read, void *opaque,
                       const WeirLogSuperblock *sb, WeirLogCommit *told,
                       WeirLogCommit *end);

/* The same, from an epoch on that is known to be valid. */
int weir_log_find_end_behind(WeirLogRead read, void *opaque,
                             const WeirLogSuperblock *sb,
                             const WeirLogCommit *from, WeirLogCommit *end);

/*
 * Write the packets behind an epoch again, up to a position at which one ends:
 * the very bytes, each to its place. opaque: of both functions. Yields.
 * Returns 0, -ENOMEM, -EIO if a packet is not there (any more), or the error of
 * a read or write.
 */
int weir_log_write_again(WeirLogRead read, WeirLogWrite write, void *opaque,
                         const WeirLogSuperblock *sb,
                         const WeirLogCommit *from, uint64_t end);

#endif

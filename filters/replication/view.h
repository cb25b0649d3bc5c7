/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_VIEW_H
#define WEIR_REPLICATION_VIEW_H

#include "replication/keeper.h"

/*
 * A disk at a point in time: the newest records up to it, over the base image.
 * As long as a view is open nothing behind its point is applied to the bases.
 * Any thread may call any function.
 */

typedef struct WeirView WeirView;

typedef enum WeirViewPiece {
    WEIR_VIEW_DATA,             /* in the log */
    WEIR_VIEW_ZERO,             /* reads as zeroes */
    WEIR_VIEW_BASE,             /* whatever the base has at the same offset */
} WeirViewPiece;

typedef struct WeirViewInfo {
    uint64_t epoch;
    uint64_t wall_ns;           /* since 1970 */
    uint64_t bytes;             /* of the disk */
    uint64_t memory_bytes;
    void *base;                 /* the host's; NULL: none */
} WeirViewInfo;

/*
 * disk: its name. epoch: of a point, see weir_point_find(). Takes time and
 * memory by the records that are in no chapter yet; does no I/O.
 * Returns 0; -ENOENT: no such disk, or no point has that number; -ENODEV: the
 * disk has no base image and needs one; -ENOMEM. err: see keeper.h.
 */
int weir_view_open(WeirView **out, WeirKeeper *k, const char *disk,
                   uint64_t epoch, char *err, size_t err_size);

/* Without a read under way. */
void weir_view_close(WeirView *v);

void weir_view_info(const WeirView *v, WeirViewInfo *info);

/*
 * Read a range within the length. Yields.
 * Returns 0; -EIO: what the log has there is damaged, err tells where (may be
 * NULL); else the error of the log or of the base.
 */
int weir_view_read(WeirView *v, uint64_t offset, uint64_t bytes, void *buf,
                   char *err, size_t err_size);

/*
 * What a range begins with, and for how long it is the same. bytes: at least 1,
 * within the length. A piece of WEIR_VIEW_BASE is within the base's length.
 * Yields. Returns 0, or what weir_view_read() does.
 */
int weir_view_status(WeirView *v, uint64_t offset, uint64_t bytes,
                     WeirViewPiece *kind, uint64_t *piece_bytes);

#endif

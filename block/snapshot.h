/* SPDX-License-Identifier: GPL-2.0-or-later */
/* External snapshots, as blockdev.c makes them.  Main thread. */
#ifndef WEIR_SNAPSHOT_H
#define WEIR_SNAPSHOT_H

#include "block/block.h"

/* The filters of a disk that is going to have an overlay. */
typedef struct WeirOverlay WeirOverlay;

/*
 * An overlay is going to be put on @bs, which is drained: ask the filters that
 * are above, at and below it.  May poll.  Returns what weir_overlay_end()
 * takes, or NULL with @errp set if one refuses.
 */
WeirOverlay *weir_overlay_begin(BlockDriverState *bs, Error **errp);

/* Tell them that it is there, or was not made: @ret < 0.  NULL is fine. */
void weir_overlay_end(WeirOverlay *overlay, int ret);

#endif

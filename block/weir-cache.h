/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BLOCK_WEIR_CACHE_H
#define WEIR_BLOCK_WEIR_CACHE_H

#include "filter.h"
#include "cache/cache.h"

/* What the files of the driver weir-cache share. */

typedef struct BDRVWeirCacheState {
    WeirFilter filter;          /* first: see filter.h */
    BdrvChild *cache;           /* set at open */
    WeirCacheOpen open;         /* what it was opened with; main thread */
    WeirCache *engine;          /* NULL while inactive; changed while drained */
    unsigned requests;          /* of the guest, under way; atomic */
    char *base_id;              /* set at open */
    uint64_t base_needed;       /* by the engine, at open */
    WeirState told;             /* worker */
    unsigned tasks;             /* coroutines of our own; atomic */
    bool working;               /* the worker is one of them; atomic */
    bool kicked;                /* it has to look once more; atomic */
    bool given_up;              /* closes empty; main thread */
    bool lose_dirty;            /* then, too; main thread */
    bool handing_over;          /* write-through until then; main thread */
    bool cache_writable;        /* set at open */
    bool writable;              /* the node may write to its children; atomic */
    bool drained;               /* only for requests may it go on; atomic */
    QEMUTimer *timer;           /* for the worker; in the node's AioContext */
} BDRVWeirCacheState;

/* I/O on the two children, coroutines and a clock; the opaque is the node. */
extern const WeirCacheHost weir_cache_host;

/*
 * Start the background work as soon as it may run: after the engine was opened,
 * or the node has become writable.  Any thread.
 */
void weir_cache_worker_start(BlockDriverState *bs);

/* Callbacks of the block layer that move, hold and release that work. */
void weir_cache_attach_aio_context(BlockDriverState *bs, AioContext *ctx);
void weir_cache_detach_aio_context(BlockDriverState *bs);
void weir_cache_drain_begin(BlockDriverState *bs);
void weir_cache_drain_end(BlockDriverState *bs);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_MEMDISK_H
#define WEIR_TESTS_MEMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coop.h"

/*
 * A disk in memory whose requests take their time, and that can lose its power:
 * what was written and not flushed is then kept, dropped or torn at sectors of
 * 512 bytes, each request by itself. Used from coops (coop.h).
 */

typedef enum MemOp { MEM_READ, MEM_WRITE, MEM_ZERO, MEM_FLUSH, MEM_OPS } MemOp;

typedef struct MemRequest {
    MemOp op;
    uint64_t offset;
    uint64_t bytes;
    uint8_t *data;              /* MEM_WRITE: a copy */
    void *buf;                  /* MEM_READ */
    uint32_t flushed;           /* MEM_FLUSH: requests that ended before */
    Coop *coop;
    int *result;                /* on the stack of coop */
    struct MemRequest *next;
} MemRequest;

typedef struct MemDisk {
    uint64_t bytes;
    uint8_t *now;               /* what a read sees */
    uint8_t *stable;            /* what a power cut leaves for sure */
    MemRequest *pending;        /* not ended */
    uint32_t pending_count;
    MemRequest **unsynced;      /* ended, in that order */
    uint32_t unsynced_count;
    uint32_t unsynced_room;
    uint64_t dropped;           /* of unsynced, since the beginning */
    uint64_t count[MEM_OPS];    /* requests that ended */
    uint64_t fail_after[MEM_OPS]; /* this many more succeed; UINT64_MAX: all */
    bool dead;                  /* all requests fail at once */
} MemDisk;

typedef enum MemCut {
    MEM_CUT_KEEP,               /* all that ended; as kill -9 does */
    MEM_CUT_DROP,               /* nothing that was not flushed */
    MEM_CUT_RANDOM,             /* each one kept or dropped */
    MEM_CUT_TEAR,               /* or torn */
} MemCut;

void memdisk_init(MemDisk *disk, uint64_t bytes);
void memdisk_destroy(MemDisk *disk);

/* Suspends the caller. Returns 0 or -EIO. data or buf: as `op` has it. */
int memdisk_request(MemDisk *disk, MemOp op, uint64_t offset, uint64_t bytes,
                    const void *data, void *buf);

/* End one of the requests that are under way. False when there is none. */
bool memdisk_step(MemDisk *disk);

/*
 * The power goes. All requests fail from now on, those under way too, so that
 * those who wait come to an end; memdisk_power_on() afterwards.
 */
void memdisk_power_off(MemDisk *disk, MemCut cut);
void memdisk_power_on(MemDisk *disk);

#endif

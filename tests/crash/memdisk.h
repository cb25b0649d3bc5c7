/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_MEMDISK_H
#define WEIR_TESTS_MEMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coop.h"

/*
 * A disk in memory whose requests take their time, that can lose its power, and
 * that can fail. Used from coops (coop.h).
 *
 * A power cut keeps, drops or tears what was written and not flushed, each
 * request by itself: what had ended, and what was under way.
 */

typedef enum MemOp {
    MEM_READ, MEM_WRITE, MEM_ZERO, MEM_RESIZE, MEM_FLUSH, MEM_OPS,
} MemOp;

typedef struct MemRequest {
    MemOp op;
    uint64_t offset;            /* MEM_RESIZE: the new length */
    uint64_t bytes;
    uint8_t *data;              /* MEM_WRITE: a copy */
    void *buf;                  /* MEM_READ */
    uint32_t flushed;           /* MEM_FLUSH: requests that ended before */
    int error;                  /* it will fail with that */
    bool lost;                  /* no flush makes it stable any more */
    Coop *coop;
    int *result;                /* on the stack of coop */
    struct MemRequest *next;
} MemRequest;

/*
 * Which requests fail. A read that fails leaves rubbish, a write or zeroing
 * none, all or the beginning of what it should, a flush nothing stable, and the
 * length is what it was.
 */
typedef struct MemFault {
    uint64_t after;             /* so many more succeed; UINT64_MAX: all */
    uint64_t times;             /* and then so many fail; UINT64_MAX: all */
    uint64_t offset, bytes;     /* of those that touch this range; bytes 0:
                                   of all */
    int error;                  /* -errno */
    bool forgets;               /* flush: what it should have made stable is
                                   read as written, and gone after a cut */
} MemFault;

typedef struct MemDisk {
    uint64_t bytes, stable_bytes;
    uint8_t *now;               /* what a read sees */
    uint8_t *stable;            /* what a power cut leaves for sure; both are
                                   zeroes behind their length */
    uint64_t *to_copy;          /* bit per page: changed since this disk was
                                   cut, or is zeroes as at first */
    uint64_t *from_copy;        /* since it was made by a cut of another */
    uint64_t pages;
    MemRequest *pending;        /* not ended; newest first */
    uint32_t pending_count;
    MemRequest **unsynced;      /* ended, in that order */
    uint32_t unsynced_count;
    uint32_t unsynced_room;
    uint64_t count[MEM_OPS];    /* requests that ended */
    uint64_t failed[MEM_OPS];   /* of these */
    MemFault fault[MEM_OPS];
    bool dead;                  /* all requests fail at once */
    /* Called before and after a request ends; before: nothing of it is done. */
    void (*ends)(struct MemDisk *disk, MemOp op, bool after);
} MemDisk;

typedef enum MemCut {
    MEM_CUT_ALL,                /* all is kept: as after kill -9 */
    MEM_CUT_KEEP,               /* all that ended */
    MEM_CUT_DROP,               /* nothing that was not flushed */
    MEM_CUT_RANDOM,             /* each one kept or dropped */
    MEM_CUT_TEAR,               /* or torn */
    MEM_CUT_HOLES,              /* some blocks of 4096 bytes of each missing */
    MEM_CUT_FIRST,              /* only the first such block of each missing */
    MEM_CUT_CHOSEN,             /* those of a set kept */
} MemCut;

/* bytes: at first; room_bytes: the most that it can ever have. */
void memdisk_init(MemDisk *disk, uint64_t bytes, uint64_t room_bytes);
void memdisk_destroy(MemDisk *disk);

/*
 * Suspends the caller. Returns 0; -EIO without power; the error of a fault.
 * data or buf: as `op` has it.
 */
int memdisk_request(MemDisk *disk, MemOp op, uint64_t offset, uint64_t bytes,
                    const void *data, void *buf);

/* End one of the requests that are under way. False when there is none. */
bool memdisk_step(MemDisk *disk);

/* How many requests a cut decides about; at most 64 can be chosen from. */
uint32_t memdisk_undecided(const MemDisk *disk);

/*
 * The power goes. All requests fail from now on, those under way too, so that
 * those who wait come to an end; memdisk_power_on() afterwards.
 */
void memdisk_power_off(MemDisk *disk, MemCut cut);
void memdisk_power_on(MemDisk *disk);

/*
 * Make `after`, of the same size, what would be there when the power failed
 * now, and came back. All calls for a disk are with the same `after`, since
 * only what has changed in either is copied.
 * kept: for MEM_CUT_CHOSEN, one bit for each of memdisk_undecided().
 */
void memdisk_cut(MemDisk *disk, MemDisk *after, MemCut cut, uint64_t kept);

/* No request fails any more. */
void memdisk_repair(MemDisk *disk);

/* All of it, as somebody else has left it. */
void memdisk_fill(MemDisk *disk, uint8_t byte);

/* Silent damage: a range turns into other bytes, or trades places. */
void memdisk_rot(MemDisk *disk, uint64_t offset, uint64_t bytes);
void memdisk_swap(MemDisk *disk, uint64_t a, uint64_t b, uint64_t bytes);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_JOBDISK_H
#define WEIR_TESTS_JOBDISK_H

#include <stdbool.h>
#include <stdint.h>

#include "coop.h"
#include "encryption/reencrypt.h"
#include "memdisk.h"

/*
 * A machine with a disk that is converted in place: two simulated disks, or one
 * that has the header on it, what the engine calls, and which contents each
 * sector may have. One for each program.
 *
 * Each write of a sector is a version, and its content tells sector and
 * version. Version 0 is what the disk had before the job.
 */

#define JOBDISK_SECTOR 512
#define JOBDISK_SECTORS_MAX 1024
#define JOBDISK_REQUEST_SECTORS_MAX 48

typedef struct Sector {
    uint32_t issued;            /* the last version */
    uint32_t done;              /* that a write has ended with */
    uint32_t min;               /* durable: what a cut may bring back */
    uint32_t lost_first, lost_last; /* never to be seen again */
    bool busy;                  /* a write is under way */
} Sector;

typedef struct JobDisk {
    MemDisk data, head;         /* attached: head is not used */
    WeirReencrypt *engine;
    uint32_t sectors;           /* of the data */
    Sector sector[JOBDISK_SECTORS_MAX];
    bool dead;                  /* the process: new requests fail */
    bool cut;                   /* somebody looks at what a cut has left */
} JobDisk;

extern JobDisk job_disk;

/* What all machines have in common, and does not change. */
typedef struct JobSetup {
    WeirJobMode mode;
    bool backward;
    bool attached;              /* the header is on the disk with the data */
    bool moves;                 /* and gets there by moving the data */
    uint64_t data_offset;       /* of the data, afterwards */
    uint8_t key_before[64], key_after[64];
    uint32_t key_bytes, sector_bytes;
    uint32_t block_sectors;     /* requests are multiples of it */
    uint8_t *header;            /* as it is when the job begins */
    uint64_t header_bytes;
    uint64_t hotzone_bytes;
    uint32_t chunk_bytes;
    bool check_digest;
} JobSetup;

extern JobSetup job_setup;

/*
 * Disks as they are when the job begins. If the data moves, its header is
 * staged behind it.
 */
void jobdisk_init(uint32_t sectors);
void jobdisk_destroy(void);

/* One turn of whatever can go on. False when nothing can. */
bool jobdisk_turn(void);

/* Until no coop is left. */
void jobdisk_run_until_quiet(void);

/*
 * Open the engine. Returns 1, 0 when the header has no job any more, or
 * -errno. A disk that is still plain is checked, and the job begins anew.
 */
int jobdisk_open(void);

/* Whether there is a header, and it says that there is a job. */
bool jobdisk_has_job(void);

/* Whether the header is where others look for it. */
bool jobdisk_has_header(void);

/* Around where the job is: at random a sector of the data. */
uint32_t jobdisk_sector_near(void);

/* Whether it says that the hotzone is at the beginning of the disk. */
bool jobdisk_is_hot_at_0(void);

/* Requests, of coops; the whole sectors' contents are checked. */
void jobdisk_read(uint32_t sector, uint32_t count);
void jobdisk_write(uint32_t sector, uint32_t count, bool fua);
void jobdisk_flush(void);

/* As a coop: step until it is done, or the process is dead. */
void jobdisk_convert(void *arg);

/* As a coop: read all, with nobody else about. */
void jobdisk_look(void *arg);

/*
 * Check a disk whose job is done, without the engine: all is as it should be
 * after it.
 */
void jobdisk_check_done(const uint8_t *data);

/* What a cut has left is there for good: call before anything is read. */
void jobdisk_was_cut(void);

#endif

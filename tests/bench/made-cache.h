/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BENCH_MADE_CACHE_H
#define WEIR_BENCH_MADE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "cache/format.h"

/*
 * A cache of any size, full, that is made up as it is read, and a host for the
 * engine that does one thing at a time, without I/O. So the engine's own CPU
 * time can be measured.
 *
 * Every block of the disk holds the same data. Slot i holds block
 * made_block(i): distinct ones, all over a disk that is four times as large, in
 * runs of 64 KiB, as requests of that size leave them, or one by one.
 * The last slots are free, as many as the engine keeps in reserve. Writes go
 * nowhere, so a cache can be opened again, but is then as it was first.
 *
 * The journal of one that was not closed overwrites cached blocks at random:
 * each record maps one to a free slot, which frees its old one for a later
 * record.
 */

typedef enum MadePhase {
    MADE_SET_UP,                        /* up to the first read of the table */
    MADE_TABLE,
    MADE_JOURNAL,                       /* replayed */
    MADE_SAVE,                          /* of the table, after a replay */
    MADE_REST,                          /* compare with the disk, eviction */
    MADE_PHASES,
} MadePhase;

typedef enum MadeKind {
    MADE_CLOSED,                        /* in an orderly way */
    MADE_SCATTERED,                     /* closed, each block is alone */
    MADE_UNCLEAN,                       /* not closed, the journal is full */
} MadeKind;

#define MADE_RUN 16                     /* blocks side by side, else */
#define MADE_TASKS_MAX 256

typedef struct MadeTask {
    void (*fn)(void *arg);
    void *arg;
} MadeTask;

typedef struct MadeCache {
    /* set at init */
    MadeKind kind;
    WeirCacheSuperblock sb;
    uint64_t fast_bytes;
    uint32_t bits;                      /* log2 of the blocks of the disk */
    uint32_t mapped;                    /* slots */
    uint32_t slot_bits;                 /* log2 of them, rounded up */
    uint32_t crc_seed;
    uint32_t crc_of_data;               /* beginning with 0 */
    uint32_t crc_of_seed[4][256];       /* what each byte of a seed adds */
    uint64_t journal_used;              /* blocks */
    uint8_t data[WEIR_CACHE_BLOCK_BYTES];

    /* what the engine did */
    uint64_t table_read, journal_read;  /* bytes */
    uint64_t blocks_read;               /* of data, one by one */
    uint64_t fast_written;              /* bytes */
    uint64_t fast_writes, fast_flushes;
    uint64_t base_reads, base_writes, base_flushes;
    uint64_t kicks;                     /* of the worker */

    /* CPU time, all but our own */
    bool timed;
    MadePhase phase;
    uint64_t phase_ns[MADE_PHASES];
    uint64_t mark_ns;                   /* when the engine went on */
    uint64_t own_ns;

    /* the host */
    uint64_t now_ns;                    /* as the engine sees it */
    uint64_t random;
    bool kicked;
    MadeTask task[MADE_TASKS_MAX];      /* spawned, not yet run */
    uint32_t tasks;
} MadeCache;

/* fast_bytes: length of the cache device. Returns 0 or -ENOSPC. */
int made_cache_init(MadeCache *made, uint64_t fast_bytes, MadeKind kind);

/*
 * Write one that was closed to a new file, over a disk that is all zeroes. The
 * file has holes where the data would be. Returns 0 or -errno.
 */
int made_cache_write(MadeCache *made, int fd);

/* The engine's options for it: nothing happens by time. */
void made_cache_options(const MadeCache *made, WeirCacheOpen *open);

extern const WeirCacheHost made_cache_host;

/* The block in a slot; blocks of slots behind all mapped ones are in none. */
uint64_t made_block(const MadeCache *made, uint64_t slot);

/* Run what was spawned, and the worker if it was kicked. */
void made_cache_run(MadeCache *made, WeirCache *cache);

/* Begin, and stop, to measure: phase_ns and own_ns. */
void made_cache_start(MadeCache *made);
void made_cache_stop(MadeCache *made);

/* CPU time of this process, in ns. */
uint64_t made_cpu_ns(void);

/* Another pseudo-random number. */
uint64_t made_random(MadeCache *made);

#endif

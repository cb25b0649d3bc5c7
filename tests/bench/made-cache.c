/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "made-cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cache/crc.h"
#include "common/crc32c.h"
#include "cache/index.h"

#define FIRST_SEQUENCE 1000
#define NOT_DURABLE 32                  /* blocks at the end of the journal: as
                                           many as wait without a flush */

uint64_t made_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

uint64_t made_random(MadeCache *made)
{
    uint64_t z = made->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 31;
}

/* --- what is where --- */

/* Number i of all numbers of so many bits, in a random order. */
static uint64_t permute(uint64_t i, uint32_t bits)
{
    uint64_t mask = (UINT64_C(1) << bits) - 1;

    i = i * UINT64_C(0x9e3779b97f4a7c15) & mask;
    i ^= i >> (bits / 2 + 1);
    i = i * UINT64_C(0xd6e8feb86659fd93) & mask;
    return i ^ i >> (bits / 2 + 1);
}

uint64_t made_block(const MadeCache *made, uint64_t slot)
{
    if (made->kind == MADE_SCATTERED) {
        return permute(slot, made->bits);
    }
    return permute(slot / MADE_RUN, made->bits - 4) * MADE_RUN +
           slot % MADE_RUN;
}

/* Slot number i of those that are mapped, in a random order. */
static uint32_t victim(const MadeCache *made, uint64_t i)
{
    do {
        i = permute(i, made->slot_bits);
    } while (i >= made->mapped);
    return (uint32_t)i;
}

/* The checksum of our data when it is in a block: it is linear in the seed. */
static uint32_t data_crc(const MadeCache *made, uint64_t block)
{
    uint32_t seed = weir_cache_crc_seed(made->crc_seed, block);

    return made->crc_of_data ^ made->crc_of_seed[0][seed & 0xff] ^
           made->crc_of_seed[1][seed >> 8 & 0xff] ^
           made->crc_of_seed[2][seed >> 16 & 0xff] ^
           made->crc_of_seed[3][seed >> 24];
}

/* As they are in a cache that has been in use: some on probation, some hot. */
static uint8_t slot_flags(uint32_t slot)
{
    uint32_t h = (slot + 1) * 0x9e3779b9u;

    h ^= h >> 15;
    return (uint8_t)(WEIR_SLOT_MAPPED |
                     (h % 10 == 0 ? WEIR_SLOT_PROBATION :
                      h >> 8 & WEIR_SLOT_FREQUENCY));
}

static void make_sector(const MadeCache *made, uint32_t sector, uint8_t *buf)
{
    uint32_t first = sector * WEIR_CACHE_SECTOR_SLOTS;

    memset(buf, 0, WEIR_CACHE_SECTOR_BYTES);
    for (uint32_t i = 0; i < WEIR_CACHE_SECTOR_SLOTS &&
         first + i < made->mapped; i++) {
        uint64_t block = made_block(made, first + i);

        weir_cache_entry_write(buf, i, &(WeirCacheTableEntry) {
            .block = block, .crc = data_crc(made, block),
            .flags = slot_flags(first + i),
        });
    }
    weir_cache_sector_seal(buf, FIRST_SEQUENCE - 1, sector, made->crc_seed);
}

/* A block that was in one slot is in a free one now. */
static void make_record(const MadeCache *made, uint64_t n, uint32_t i,
                        uint8_t *buf)
{
    uint64_t block = made_block(made, victim(made, n));
    uint32_t spare = made->sb.layout.slots - made->mapped;

    weir_cache_record_write(buf, i, &(WeirCacheRecord) {
        .op = WEIR_CACHE_OP_MAP, .flags = WEIR_SLOT_DIRTY, .block = block,
        .slot = n < spare ? made->mapped + (uint32_t)n
                          : victim(made, n - spare),
        .crc = data_crc(made, block),
    });
}

static void make_journal_block(const MadeCache *made, uint32_t at, uint8_t *buf)
{
    uint32_t blocks = made->sb.layout.journal_blocks;
    uint64_t n = (at + blocks - FIRST_SEQUENCE % blocks) % blocks;
    WeirCacheJournalHeader header = {
        .incarnation = made->sb.incarnation, .sequence = FIRST_SEQUENCE + n,
        .durable = FIRST_SEQUENCE + n - (n < NOT_DURABLE ? n : NOT_DURABLE) - 1,
        .tail = FIRST_SEQUENCE, .records = WEIR_CACHE_RECORDS,
    };

    memset(buf, 0, WEIR_CACHE_JOURNAL_BLOCK_BYTES);
    if (n < made->journal_used) {
        for (uint32_t i = 0; i < WEIR_CACHE_RECORDS; i++) {
            make_record(made, n * WEIR_CACHE_RECORDS + i, i, buf);
        }
        weir_cache_journal_seal(buf, &header, made->crc_seed);
    }
}

/* --- setting up --- */

static uint32_t log2_of(uint64_t n)
{
    uint32_t bits = 2;

    while (UINT64_C(1) << bits < n) {
        bits++;
    }
    return bits;
}

static void make_crcs(MadeCache *made)
{
    uint64_t zeroes[WEIR_CACHE_BLOCK_BYTES / sizeof(uint64_t)] = { 0 };

    made->crc_seed = weir_crc32c(~0u, made->sb.uuid, sizeof(made->sb.uuid));
    made->crc_of_data = weir_crc32c(0, made->data, sizeof(made->data));
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            made->crc_of_seed[i][byte] = weir_crc32c(byte << 8 * i, zeroes,
                                                        sizeof(zeroes));
        }
    }
}

int made_cache_init(MadeCache *made, uint64_t fast_bytes, MadeKind kind)
{
    WeirCacheLayout *l = &made->sb.layout;
    uint64_t most;

    memset(made, 0, sizeof(*made));
    if (weir_cache_layout(l, fast_bytes) < 0) {
        return -ENOSPC;
    }
    for (size_t i = 0; i < sizeof(made->data); i++) {
        made->data[i] = (uint8_t)made_random(made);
    }
    made->kind = kind;
    made->fast_bytes = fast_bytes;
    made->now_ns = UINT64_C(1000000000);
    made->mapped = l->slots - l->slots / 256 - 4;
    made->slot_bits = log2_of(made->mapped);
    made->bits = log2_of(UINT64_C(4) * l->slots);
    /* no slot is overwritten twice */
    most = made->mapped / 2 / WEIR_CACHE_RECORDS;
    most = most < l->journal_blocks ? most : l->journal_blocks;
    made->journal_used = kind == MADE_UNCLEAN ? most : 0;
    memset(made->sb.uuid, 0x5a, sizeof(made->sb.uuid));
    made->sb.sequence = made->sb.incarnation = 1;
    made->sb.journal_first = FIRST_SEQUENCE;
    made->sb.base_bytes = WEIR_CACHE_BLOCK_BYTES * (UINT64_C(1) << made->bits);
    made->sb.in_use = made->sb.dirty = kind == MADE_UNCLEAN;
    while ((UINT64_C(1) << made->bits) >> made->sb.region_shift >=
           WEIR_CACHE_REGIONS) {
        made->sb.region_shift++;
    }
    make_crcs(made);
    return 0;
}

static int write_all(int fd, const uint8_t *buf, size_t bytes, uint64_t at)
{
    for (ssize_t n; bytes > 0; buf += n, bytes -= (size_t)n, at += (size_t)n) {
        n = pwrite(fd, buf, bytes, (off_t)at);
        if (n < 0) {
            return -errno;
        }
    }
    return 0;
}

int made_cache_write(MadeCache *made, int fd)
{
    const WeirCacheLayout *l = &made->sb.layout;
    static uint8_t buf[256 * WEIR_CACHE_SECTOR_BYTES];
    int ret = ftruncate(fd, (off_t)made->fast_bytes) < 0 ? -errno : 0;

    memset(made->data, 0, sizeof(made->data));
    make_crcs(made);
    for (uint32_t s = 0, n; s < l->table_sectors && ret == 0; s += n) {
        n = l->table_sectors - s < 256 ? l->table_sectors - s : 256;
        for (uint32_t i = 0; i < n; i++) {
            make_sector(made, s + i, buf + i * WEIR_CACHE_SECTOR_BYTES);
        }
        ret = write_all(fd, buf, n * WEIR_CACHE_SECTOR_BYTES, l->table_offset +
                        (uint64_t)s * WEIR_CACHE_SECTOR_BYTES);
    }
    if (ret == 0) {
        memset(buf, 0, WEIR_CACHE_SUPERBLOCK_BYTES);
        weir_cache_superblock_write(buf, &made->sb);
        ret = write_all(fd, buf, WEIR_CACHE_SUPERBLOCK_BYTES,
                        made->sb.sequence % WEIR_CACHE_SUPERBLOCKS *
                        WEIR_CACHE_SUPERBLOCK_BYTES);
    }
    return ret;
}

void made_cache_options(const MadeCache *made, WeirCacheOpen *open)
{
    *open = (WeirCacheOpen) {
        .base_bytes = made->sb.base_bytes, .fast_bytes = made->fast_bytes,
    };
    weir_cache_config_default(&open->config);
    open->config.dirty_high_percent = 95;
    open->config.dirty_age_ms = 0;
    open->config.idle_ms = 0;
}

/* --- time --- */

static void own_begin(MadeCache *made)
{
    if (made->timed) {
        uint64_t now = made_cpu_ns();

        made->phase_ns[made->phase] += now - made->mark_ns;
        made->mark_ns = now;
    }
}

static void own_end(MadeCache *made, MadePhase phase)
{
    if (made->timed) {
        uint64_t now = made_cpu_ns();

        made->own_ns += now - made->mark_ns;
        made->mark_ns = now;
        made->phase = phase;
    }
}

void made_cache_start(MadeCache *made)
{
    made->timed = true;
    made->phase = MADE_SET_UP;
    made->mark_ns = made_cpu_ns();
}

void made_cache_stop(MadeCache *made)
{
    own_begin(made);
    made->timed = false;
}

/* --- host: devices --- */

static bool is_in(uint64_t offset, uint64_t start, uint64_t bytes)
{
    return offset >= start && offset - start < bytes;
}

static bool is_in_table(const MadeCache *made, uint64_t offset)
{
    const WeirCacheLayout *l = &made->sb.layout;

    return is_in(offset, l->table_offset, (uint64_t)l->table_sectors *
                 WEIR_CACHE_SECTOR_BYTES);
}

/* Both are made one unit after the other. */
static void read_journal(MadeCache *made, uint64_t at, uint64_t bytes,
                         uint8_t *buf)
{
    for (uint64_t i = 0; i < bytes; i += WEIR_CACHE_JOURNAL_BLOCK_BYTES) {
        make_journal_block(made, (uint32_t)((at + i) /
                                            WEIR_CACHE_JOURNAL_BLOCK_BYTES),
                           buf + i);
    }
    made->journal_read += bytes;
}

static void read_table(MadeCache *made, uint64_t at, uint64_t bytes,
                       uint8_t *buf)
{
    for (uint64_t i = 0; i < bytes; i += WEIR_CACHE_SECTOR_BYTES) {
        make_sector(made, (uint32_t)((at + i) / WEIR_CACHE_SECTOR_BYTES),
                    buf + i);
    }
    made->table_read += bytes;
}

static void read_data(MadeCache *made, uint64_t bytes, uint8_t *buf)
{
    for (uint64_t i = 0; i < bytes; i += WEIR_CACHE_BLOCK_BYTES) {
        memcpy(buf + i, made->data, WEIR_CACHE_BLOCK_BYTES);
    }
}

/* Returns the phase that goes on with what was read. */
static MadePhase read_fast(MadeCache *made, uint64_t offset, uint64_t bytes,
                           uint8_t *buf)
{
    const WeirCacheLayout *l = &made->sb.layout;

    if (is_in(offset, l->journal_offset, (uint64_t)l->journal_blocks *
              WEIR_CACHE_JOURNAL_BLOCK_BYTES)) {
        read_journal(made, offset - l->journal_offset, bytes, buf);
        return MADE_JOURNAL;
    }
    if (is_in_table(made, offset)) {
        read_table(made, offset - l->table_offset, bytes, buf);
        return MADE_TABLE;
    }
    if (offset >= l->data_offset) {
        read_data(made, bytes, buf);
        made->blocks_read += bytes / WEIR_CACHE_BLOCK_BYTES;
        return made->phase;
    }
    memset(buf, 0, bytes);
    weir_cache_superblock_write(buf, &made->sb);
    return MADE_SET_UP;
}

static int made_read(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    MadeCache *made = opaque;
    MadePhase phase = MADE_REST;

    own_begin(made);
    if (dev == WEIR_CACHE_FAST) {
        phase = read_fast(made, offset, bytes, buf);
    } else {
        read_data(made, bytes, buf);
        made->base_reads++;
    }
    own_end(made, phase);
    return 0;
}

static int made_write(void *opaque, WeirCacheDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf)
{
    MadeCache *made = opaque;

    (void)buf;
    own_begin(made);
    if (dev == WEIR_CACHE_FAST) {
        made->fast_written += bytes;
        made->fast_writes++;
    } else {
        made->base_writes++;
    }
    own_end(made, is_in_table(made, offset) ? MADE_SAVE : made->phase);
    return 0;
}

/* The memory of our requests has that content already. */
static int made_read_guest(void *opaque, WeirCacheDevice dev, uint64_t offset,
                           uint64_t bytes, void *guest, uint64_t at)
{
    MadeCache *made = opaque;

    (void)offset, (void)guest, (void)at;
    if (dev == WEIR_CACHE_FAST) {
        made->blocks_read += bytes / WEIR_CACHE_BLOCK_BYTES;
    } else {
        made->base_reads++;
    }
    return 0;
}

/* Only a table is zeroed, and only disks are trimmed: not ours. */
static int made_zero(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, bool may_unmap)
{
    (void)opaque, (void)dev, (void)offset, (void)bytes, (void)may_unmap;
    fprintf(stderr, "the made-up cache was not accepted\n");
    exit(1);
}

static int made_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
                        uint64_t bytes)
{
    return made_zero(opaque, dev, offset, bytes, true);
}

static int made_flush(void *opaque, WeirCacheDevice dev)
{
    MadeCache *made = opaque;

    own_begin(made);
    if (dev == WEIR_CACHE_FAST) {
        made->fast_flushes++;
    } else {
        made->base_flushes++;
    }
    own_end(made, made->phase == MADE_SAVE ? MADE_REST : made->phase);
    return 0;
}

/* --- host: the rest --- */

static void run_tasks(MadeCache *made)
{
    while (made->tasks) {
        MadeTask task = made->task[--made->tasks];

        task.fn(task.arg);
    }
}

void made_cache_run(MadeCache *made, WeirCache *cache)
{
    run_tasks(made);
    while (made->kicked) {
        made->kicked = weir_cache_work(cache) == 0;
        run_tasks(made);
    }
}

/* One request at a time waits only for what was spawned, or the worker. */
static void made_wait(void *opaque, WeirCache *cache, WeirCacheQueue *queue)
{
    MadeCache *made = opaque;

    (void)queue;
    weir_cache_unlock(cache);
    if (made->tasks) {
        run_tasks(made);
    } else {
        weir_cache_work(cache);
    }
    weir_cache_lock(cache);
}

static void made_wake(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque, (void)queue;
}

static void made_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    MadeCache *made = opaque;

    if (made->tasks == MADE_TASKS_MAX) {
        abort();                        /* the engine has fewer */
    }
    made->task[made->tasks++] = (MadeTask) { fn, arg };
}

static void made_run(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    fn(arg);
}

static void made_kick(void *opaque)
{
    MadeCache *made = opaque;

    made->kicked = true;
    made->kicks++;
}

static uint64_t made_now_ns(void *opaque)
{
    return ((MadeCache *)opaque)->now_ns;
}

/* The same each time. */
static void made_random_bytes(void *opaque, void *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)buf)[i] = (uint8_t)(made_random(opaque) >> 32);
    }
}

const WeirCacheHost made_cache_host = {
    .read = made_read, .write = made_write, .read_guest = made_read_guest,
    .zero = made_zero, .discard = made_discard, .flush = made_flush,
    .run = made_run, .wait = made_wait, .wake = made_wake,
    .queue_init = made_wake, .spawn = made_spawn, .kick = made_kick,
    .now_ns = made_now_ns, .random = made_random_bytes,
};

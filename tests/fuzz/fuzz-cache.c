/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever is on the cache's device, opening it, and using what was opened, is
 * free of crashes, of requests behind an end and of hanging.
 *
 * The input is a list of patches to a cache that was in use, with dirty blocks
 * and a journal to replay: part of the device (1 byte), place in it (2), length
 * (1), bytes. Checksums are put right afterwards, so that what is behind them
 * is reached; if the first byte of the input is odd, they are not.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/crc.h"
#include "common/crc32c.h"
#include "cache/format.h"

#define BASE_BYTES (200 * WEIR_CACHE_BLOCK_BYTES + 512)
#define FAST_BYTES ((uint64_t)3 << 20)
#define TASKS_MAX 256
#define WAITS_MAX 100000                /* nothing takes longer */

static uint8_t *base, *fast, *made;
static WeirCache *cache;
static uint64_t clock_ns = 1000000000;
static bool working;
static unsigned waits;

typedef struct Task {
    void (*fn)(void *arg);
    void *arg;
} Task;

static Task task[TASKS_MAX];
static unsigned tasks;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* --- host --- */

static uint8_t *place(WeirCacheDevice dev, uint64_t offset, uint64_t bytes)
{
    uint64_t end = dev == WEIR_CACHE_BASE ? BASE_BYTES : FAST_BYTES;

    must(offset <= end && bytes <= end - offset, "behind the end");
    return (dev == WEIR_CACHE_BASE ? base : fast) + offset;
}

static int host_read(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    (void)opaque;
    memcpy(buf, place(dev, offset, bytes), bytes);
    return 0;
}

static int host_write(void *opaque, WeirCacheDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf)
{
    (void)opaque;
    memcpy(place(dev, offset, bytes), buf, bytes);
    return 0;
}

static int host_read_guest(void *opaque, WeirCacheDevice dev, uint64_t offset,
                           uint64_t bytes, void *guest, uint64_t at)
{
    return host_read(opaque, dev, offset, bytes, (uint8_t *)guest + at);
}

static int host_zero(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, bool may_unmap)
{
    (void)opaque;
    (void)may_unmap;
    memset(place(dev, offset, bytes), 0, bytes);
    return 0;
}

static int host_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
                        uint64_t bytes)
{
    return host_zero(opaque, dev, offset, bytes, true);
}

static int host_flush(void *opaque, WeirCacheDevice dev)
{
    (void)opaque;
    (void)dev;
    return 0;
}

static int host_grow_base(void *opaque, uint64_t bytes)
{
    (void)opaque;
    (void)bytes;
    return -1;
}

static void host_sleep(void *opaque, uint64_t ns)
{
    (void)opaque;
    clock_ns += ns;
}

static void run_tasks(void)
{
    while (tasks) {
        Task next = task[--tasks];

        next.fn(next.arg);
    }
}

static void work(void)
{
    working = true;
    weir_cache_work(cache);
    working = false;
    run_tasks();
}

/* Only one request is under way: it waits for a task or for the worker. */
static void host_wait(void *opaque, WeirCache *c, WeirCacheQueue *queue)
{
    (void)opaque;
    (void)queue;
    must(waits++ < WAITS_MAX, "hangs");
    weir_cache_unlock(c);
    run_tasks();
    if (cache && !working) {
        clock_ns += 100000000;
        work();
    }
    weir_cache_lock(c);
}

static void host_nothing(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static void host_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    must(tasks < TASKS_MAX, "too many tasks");
    task[tasks++] = (Task) { fn, arg };
}

static void host_run(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    fn(arg);
}

static void host_kick(void *opaque)
{
    (void)opaque;
}

static uint64_t host_now_ns(void *opaque)
{
    (void)opaque;
    return clock_ns;
}

static void host_random(void *opaque, void *buf, size_t bytes)
{
    (void)opaque;
    memset(buf, 0x5a, bytes);
}

static const WeirCacheHost host = {
    .read = host_read, .write = host_write, .read_guest = host_read_guest,
    .zero = host_zero, .discard = host_discard, .flush = host_flush,
    .grow_base = host_grow_base, .sleep = host_sleep, .run = host_run,
    .wait = host_wait, .wake = host_nothing, .queue_init = host_nothing,
    .spawn = host_spawn, .kick = host_kick, .now_ns = host_now_ns,
    .random = host_random,
};

/* --- a cache --- */

static int open_cache(bool lose_dirty)
{
    WeirCacheOpen open = {
        .base_bytes = BASE_BYTES, .fast_bytes = FAST_BYTES,
        .overwrite = lose_dirty, .lose_dirty = lose_dirty,
    };
    char err[256] = "";
    int ret;

    waits = 0;
    weir_cache_config_default(&open.config);
    ret = weir_cache_open(&cache, &open, &host, NULL, err, sizeof(err));
    must(ret == 0 || err[0], "refused without a reason");
    return ret;
}

static void request(bool write, uint64_t offset, uint64_t bytes)
{
    static uint8_t data[32 * WEIR_CACHE_BLOCK_BYTES];
    struct iovec iov = { data, bytes };
    WeirCacheGuest guest = { .host = data, .iov = &iov, .niov = 1 };

    memset(data, (int)(offset >> 12) + 1, bytes);
    if (write) {
        weir_cache_write(cache, offset, bytes, &guest, false);
    } else {
        weir_cache_read(cache, offset, bytes, &guest);
    }
    run_tasks();
}

/* Blocks clean and dirty, a table, and a journal that goes on behind it. */
static void make(void)
{
    base = calloc(1, BASE_BYTES);
    fast = calloc(1, FAST_BYTES);
    made = malloc(FAST_BYTES);
    must(base && fast && made && open_cache(true) == 0, "cannot be made");
    for (uint64_t i = 0; i < 200; i += 10) {
        request(false, i * WEIR_CACHE_BLOCK_BYTES, 4 * WEIR_CACHE_BLOCK_BYTES);
        request(true, i * WEIR_CACHE_BLOCK_BYTES + 1000, 20000);
    }
    must(weir_cache_close(cache) == 0, "cannot be closed");
    weir_cache_free(cache);
    must(open_cache(false) == 0, "cannot be opened again");
    for (uint64_t i = 5; i < 200; i += 20) {
        request(true, i * WEIR_CACHE_BLOCK_BYTES, WEIR_CACHE_BLOCK_BYTES);
        weir_cache_flush(cache);
    }
    memcpy(made, fast, FAST_BYTES);
    weir_cache_free(cache);
    cache = NULL;
}

/* --- patches --- */

/* Pieces of a kind, each with its checksum. */
typedef struct Part {
    uint64_t offset;
    size_t piece_bytes;
    uint32_t pieces;
    size_t crc_field;                   /* piece_bytes: has none */
} Part;

static Part part_of(uint8_t number)
{
    WeirCacheLayout layout;

    must(weir_cache_layout(&layout, FAST_BYTES) == 0, "no layout");
    switch (number % 4) {
    case 0:
        return (Part) { 0, WEIR_CACHE_SUPERBLOCK_BYTES, WEIR_CACHE_SUPERBLOCKS,
                        12 };
    case 1:                             /* those that are in use, and more */
        return (Part) { layout.journal_offset, WEIR_CACHE_JOURNAL_BLOCK_BYTES,
                        64, 4 };
    case 2:
        return (Part) { layout.table_offset, WEIR_CACHE_SECTOR_BYTES,
                        layout.table_sectors, 0 };
    }
    return (Part) { layout.data_offset, WEIR_CACHE_BLOCK_BYTES, 64,
                    WEIR_CACHE_BLOCK_BYTES };
}

static uint32_t seed_of(const Part *part, uint32_t piece)
{
    uint32_t seed = weir_crc32c(~0u, fast + 40, WEIR_CACHE_UUID_BYTES);

    return part->crc_field == 12 ? ~0u
           : part->crc_field == 0 ? weir_cache_crc_seed(seed, piece) : seed;
}

/* The checksum of a piece is right. */
static void seal(const Part *part, uint32_t number)
{
    uint8_t *piece = fast + part->offset + number * part->piece_bytes;
    uint8_t *field = piece + part->crc_field;
    uint32_t crc;

    if (part->crc_field < part->piece_bytes) {
        memset(field, 0, 4);
        crc = weir_crc32c(seed_of(part, number), piece, part->piece_bytes);
        for (int i = 0; i < 4; i++) {
            field[i] = (uint8_t)(crc >> 8 * i);
        }
    }
}

static void patch(const uint8_t *data, size_t size, bool sealed)
{
    while (size > 4) {
        Part part = part_of(data[0]);
        uint64_t end = part.pieces * part.piece_bytes;
        uint64_t at = ((uint64_t)data[0] / 4 << 16 | (uint64_t)data[1] << 8 |
                       data[2]) % end;
        size_t n = data[3] < size - 4 ? data[3] : size - 4;
        uint64_t to_end = part.piece_bytes - at % part.piece_bytes;

        n = n < to_end ? n : to_end;
        memcpy(fast + part.offset + at, data + 4, n);
        if (sealed) {
            seal(&part, (uint32_t)(at / part.piece_bytes));
        }
        data += 4 + n;
        size -= 4 + n;
    }
}

static void use(void)
{
    for (uint64_t at = 0; at < BASE_BYTES; at += 65536) {
        request(false, at, BASE_BYTES - at < 65536 ? BASE_BYTES - at : 65536);
    }
    request(true, 12345, 70000);
    weir_cache_zero(cache, 0, 65536, true, true);
    for (int i = 0; i < 20; i++) {
        clock_ns += 1000000000;
        work();
    }
    weir_cache_drain(cache);
    run_tasks();
    weir_cache_close(cache);
    run_tasks();
    weir_cache_free(cache);
    cache = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!made) {
        make();
    }
    if (!size) {
        return 0;
    }
    memcpy(fast, made, FAST_BYTES);
    patch(data + 1, size - 1, !(data[0] & 1));
    for (int again = 0; again < 2; again++) {
        if (open_cache(false) == 0) {
            use();
        }
    }
    return 0;
}

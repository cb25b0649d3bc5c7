/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-cache-sim: what weir-cache would have made of a trace. It runs the
 * engine of the driver, over devices that hold nothing: all data is zero.
 *
 * usage: weir-cache-sim --capacity-blocks N FILE
 *
 * FILE ("-": standard input) has lines "R <block>" or "W <block>", with numbers
 * of blocks of 4 KiB. Prints requests, misses, miss_ratio and bytes_per_block
 * (memory of the index) as JSON.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/format.h"
#include "cache/index.h"

#define TASKS_MAX 256
#define NS_PER_REQUEST 100000           /* of the time that the engine sees */

typedef struct Task {
    void (*fn)(void *arg);
    void *arg;
} Task;

typedef struct Sim {
    Task task[TASKS_MAX];               /* spawned, not yet run */
    unsigned tasks;
    uint64_t now_ns;
    uint64_t work_due_ns;
    uint64_t seed;
    bool working;
} Sim;

static int sim_read(void *opaque, WeirCacheDevice dev, uint64_t offset,
                    uint64_t bytes, void *buf)
{
    (void)opaque, (void)dev, (void)offset;
    memset(buf, 0, bytes);
    return 0;
}

static int sim_write(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, const void *buf)
{
    (void)opaque, (void)dev, (void)offset, (void)bytes, (void)buf;
    return 0;
}

static int sim_read_guest(void *opaque, WeirCacheDevice dev, uint64_t offset,
                          uint64_t bytes, void *guest, uint64_t at)
{
    return sim_read(opaque, dev, offset, bytes, (uint8_t *)guest + at);
}

static int sim_zero(void *opaque, WeirCacheDevice dev, uint64_t offset,
                    uint64_t bytes, bool may_unmap)
{
    (void)opaque, (void)dev, (void)offset, (void)bytes, (void)may_unmap;
    return 0;
}

static int sim_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
                       uint64_t bytes)
{
    return sim_zero(opaque, dev, offset, bytes, true);
}

static int sim_flush(void *opaque, WeirCacheDevice dev)
{
    (void)opaque, (void)dev;
    return 0;
}

static void run_tasks(Sim *sim)
{
    while (sim->tasks) {
        Task task = sim->task[--sim->tasks];

        task.fn(task.arg);
    }
}

static uint64_t work(Sim *sim, WeirCache *cache)
{
    uint64_t in_ns;

    sim->working = true;
    in_ns = weir_cache_work(cache);
    sim->working = false;
    run_tasks(sim);
    return in_ns;
}

/*
 * Only one request is under way: what it waits for is a task or the worker.
 * The worker waits for tasks.
 */
static void sim_wait(void *opaque, WeirCache *cache, WeirCacheQueue *queue)
{
    Sim *sim = opaque;

    (void)queue;
    weir_cache_unlock(cache);
    run_tasks(sim);
    if (!sim->working) {
        work(sim, cache);
    }
    weir_cache_lock(cache);
}

static void sim_wake(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque, (void)queue;
}

static void sim_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    Sim *sim = opaque;

    if (sim->tasks == TASKS_MAX) {
        abort();                        /* the engine has fewer */
    }
    sim->task[sim->tasks++] = (Task) { fn, arg };
}

static void sim_run(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    fn(arg);
}

static void sim_kick(void *opaque)
{
    ((Sim *)opaque)->work_due_ns = 0;
}

static uint64_t sim_now_ns(void *opaque)
{
    return ((Sim *)opaque)->now_ns;
}

/* The same each time. */
static void sim_random(void *opaque, void *buf, size_t bytes)
{
    Sim *sim = opaque;

    for (size_t i = 0; i < bytes; i++) {
        sim->seed = sim->seed * UINT64_C(6364136223846793005) + 1;
        ((uint8_t *)buf)[i] = (uint8_t)(sim->seed >> 56);
    }
}

static const WeirCacheHost host = {
    .read = sim_read, .write = sim_write, .read_guest = sim_read_guest,
    .zero = sim_zero, .discard = sim_discard, .flush = sim_flush,
    .run = sim_run, .wait = sim_wait, .wake = sim_wake,
    .queue_init = sim_wake, .spawn = sim_spawn, .kick = sim_kick,
    .now_ns = sim_now_ns, .random = sim_random,
};

/* The least bytes of a device that has so many slots. */
static uint64_t device_bytes(uint64_t slots)
{
    uint64_t low = slots * WEIR_CACHE_BLOCK_BYTES;
    uint64_t high = low * 2 + (UINT64_C(1) << 30);

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        WeirCacheLayout layout;

        if (weir_cache_layout(&layout, middle) == 0 && layout.slots >= slots) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static int request(WeirCache *cache, Sim *sim, char kind, uint64_t block)
{
    static uint8_t data[WEIR_CACHE_BLOCK_BYTES];
    struct iovec iov = { data, sizeof(data) };
    WeirCacheGuest guest = { .host = data, .iov = &iov, .niov = 1 };
    uint64_t offset = block * WEIR_CACHE_BLOCK_BYTES;
    int ret = kind == 'R' ? weir_cache_read(cache, offset, sizeof(data), &guest)
                          : weir_cache_write(cache, offset, sizeof(data),
                                             &guest, false);

    run_tasks(sim);
    sim->now_ns += NS_PER_REQUEST;
    while (sim->now_ns >= sim->work_due_ns) {
        uint64_t in_ns = work(sim, cache);

        sim->work_due_ns = in_ns ? sim->now_ns + in_ns / 2 + 1 : 0;
    }
    return ret;
}

/* Returns 0, or the number of the line that is wrong. */
static uint64_t replay(WeirCache *cache, Sim *sim, FILE *file)
{
    char line[64];

    for (uint64_t number = 1; fgets(line, sizeof(line), file); number++) {
        uint64_t block;
        char kind, rest;

        if (sscanf(line, " %c %" SCNu64 " %c", &kind, &block, &rest) != 2 ||
            (kind != 'R' && kind != 'W') ||
            block >= WEIR_CACHE_BLOCKS_MAX - 1 ||
            request(cache, sim, kind, block) < 0) {
            return number;
        }
    }
    return 0;
}

static void print(WeirCache *cache)
{
    WeirCacheInfo info;
    uint64_t requests, misses;

    weir_cache_query(cache, &info);
    misses = info.read_misses + info.write_misses;
    requests = misses + info.read_hits + info.write_hits;
    printf("{\"requests\": %" PRIu64 ", \"misses\": %" PRIu64
           ", \"miss_ratio\": %.6f, \"bytes_per_block\": %.2f}\n", requests,
           misses, requests ? (double)misses / (double)requests : 0,
           (double)info.memory_bytes / (double)info.slots);
}

static int simulate(uint64_t capacity_blocks, FILE *file)
{
    Sim sim = { .now_ns = UINT64_C(1000000000), .seed = 1 };
    WeirCacheOpen open = {
        .base_bytes = (WEIR_CACHE_BLOCKS_MAX - 1) * WEIR_CACHE_BLOCK_BYTES,
        .fast_bytes = device_bytes(capacity_blocks), .blank = true,
    };
    WeirCache *cache;
    char err[256];
    uint64_t bad;
    int ret;

    weir_cache_config_default(&open.config);
    open.config.idle_ms = 0;
    ret = weir_cache_open(&cache, &open, &host, &sim, err, sizeof(err));
    if (ret < 0) {
        fprintf(stderr, "weir-cache-sim: %s: %s\n", err, strerror(-ret));
        return 1;
    }
    bad = replay(cache, &sim, file);
    if (bad) {
        fprintf(stderr, "weir-cache-sim: line %" PRIu64 " is not \"R <block>\""
                " or \"W <block>\"\n", bad);
    } else {
        print(cache);
    }
    weir_cache_free(cache);
    return bad ? 1 : 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: weir-cache-sim --capacity-blocks N FILE\n"
            "N: 64 to %u\n", WEIR_CACHE_SLOTS_MAX);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "capacity-blocks", required_argument, NULL, 'c' },
        { NULL, 0, NULL, 0 },
    };
    uint64_t capacity = 0;
    FILE *file;
    int option, ret;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        char *end;

        if (option != 'c') {
            return usage();
        }
        errno = 0;
        capacity = strtoull(optarg, &end, 10);
        if (errno || *end || end == optarg) {
            return usage();
        }
    }
    if (capacity < 64 || capacity > WEIR_CACHE_SLOTS_MAX ||
        optind + 1 != argc) {
        return usage();
    }
    file = strcmp(argv[optind], "-") ? fopen(argv[optind], "r") : stdin;
    if (!file) {
        fprintf(stderr, "weir-cache-sim: %s: %s\n", argv[optind],
                strerror(errno));
        return 1;
    }
    ret = simulate(capacity, file);
    fclose(file);
    return ret;
}

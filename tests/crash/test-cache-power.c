/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests to a cache over two simulated disks that lose their power,
 * again and again, in recovery too; a model tells which contents a block may
 * have. A run is a seed: the same seed does the same.
 *
 * usage: test-cache-power [--seed N] [--runs N] [--lives N] [--mutation RULE]
 * With --mutation the engine leaves a rule out, and the test passes only when
 * it finds something wrong.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/index.h"
#include "coop.h"
#include "memdisk.h"

#define BLOCKS 4096
#define HOT_BLOCKS 512
#define FAST_BYTES (8 << 20)
#define REQUEST_BLOCKS_MAX 24
#define CLIENTS 6
#define VERSIONS_KEPT 60                /* of a block, before it is durable */

unsigned weir_cache_mutation;

/* --- model --- */

/* All of one block; versions rise. */
typedef struct Block {
    uint32_t issued;                    /* the last version */
    uint32_t min;                       /* what a crash may bring back */
    uint32_t low, high;                 /* what a read may see */
    uint32_t writers;                   /* under way */
    uint64_t zero;                      /* bit version % 64: it is zeroes */
    bool torn;                          /* pieces of several versions */
    bool past;                          /* written past the cache, unflushed:
                                           a cut may tear it */
} Block;

static Block model[BLOCKS];
static MemDisk base, fast;
static WeirCache *cache;
static bool crashed;                    /* all requests fail: end */
static uint32_t clients, operations_left;
static bool bulk;                       /* large writes, flushes are rare */
static bool worker_runs, worker_kicked;
static uint64_t clock_ns = 1000000000;
static uint64_t seed_now, operations, lives, recovered;
static WeirCacheConfig config;

static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(" (seed %llu, life %llu)\n", (unsigned long long)seed_now,
           (unsigned long long)lives);
    fflush(stdout);
    _Exit(weir_cache_mutation ? 0 : 1);
}

/* Tell what happens to one block, and in between. */
static int64_t traced = -1;

static void __attribute__((format(printf, 2, 3)))
trace(uint32_t block, const char *format, ...)
{
    va_list args;

    if (traced < 0 || (block != UINT32_MAX && block != (uint64_t)traced)) {
        return;
    }
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

static bool is_zero_version(const Block *b, uint32_t version)
{
    return version == 0 || b->zero >> version % 64 & 1;
}

static void stamp(uint8_t *data, uint32_t block, uint32_t version)
{
    for (uint32_t at = 0; at < WEIR_CACHE_BLOCK_BYTES; at += 8) {
        uint32_t words[2] = { block + 1, version };

        memcpy(data + at, words, 8);
    }
}

/* Whether a sector of a block has a version from low to high. */
static bool sector_fits(const Block *b, uint32_t block, const uint8_t *sector,
                        uint32_t low, uint32_t high, uint32_t *version)
{
    uint32_t words[2];

    memcpy(words, sector, 8);
    if (memcmp(sector, sector + 8, 512 - 8)) {
        return false;
    }
    if (!words[0] && !words[1]) {
        for (uint32_t v = high + 1; v > low; v--) {
            if (is_zero_version(b, v - 1)) {
                *version = v - 1;
                return true;
            }
        }
        return false;
    }
    *version = words[1];
    return words[0] == block + 1 && words[1] >= low && words[1] <= high &&
           !is_zero_version(b, words[1]);
}

static void complain(uint32_t block, const uint8_t *data, uint32_t low,
                     uint32_t high, const char *when)
{
    uint32_t words[2];

    for (uint32_t at = 0; at < WEIR_CACHE_BLOCK_BYTES; at += 512) {
        memcpy(words, data + at, 8);
        printf("  sector %u: block %d version %u\n", at / 512,
               (int)words[0] - 1, words[1]);
    }
    fail("block %u %s: allowed %u to %u, issued %u", block, when, low, high,
         model[block].issued);
}

/*
 * A block was read: check it.
 * low, high: the versions that are allowed. quiet: nobody wrote meanwhile, so
 * what was seen is what the block is from now on.
 */
static void check_block(uint32_t block, const uint8_t *data, uint32_t low,
                        uint32_t high, bool may_be_torn, bool quiet,
                        const char *when)
{
    Block *b = &model[block];
    uint32_t first = 0, version;
    bool torn = false;

    for (uint32_t at = 0; at < WEIR_CACHE_BLOCK_BYTES; at += 512) {
        if (!sector_fits(b, block, data + at, low, high, &version)) {
            complain(block, data, low, high, when);
        }
        first = at ? first : version;
        torn |= version != first;
    }
    if (torn && !may_be_torn) {
        complain(block, data, low, high, "is torn");
    }
    trace(block, "%s: version %u, quiet %d, torn %d", when, first, quiet, torn);
    if (quiet && !torn) {
        b->low = b->high = first;
    }
    if (quiet) {
        b->torn = torn;
    }
}

/* --- host --- */

static MemDisk *disk_of(WeirCacheDevice dev)
{
    return dev == WEIR_CACHE_BASE ? &base : &fast;
}

static int host_read(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    (void)opaque;
    return memdisk_request(disk_of(dev), MEM_READ, offset, bytes, NULL, buf);
}

static int host_write(void *opaque, WeirCacheDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf)
{
    (void)opaque;
    return memdisk_request(disk_of(dev), MEM_WRITE, offset, bytes, buf, NULL);
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
    return memdisk_request(disk_of(dev), MEM_ZERO, offset, bytes, NULL, NULL);
}

static int host_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
                        uint64_t bytes)
{
    return host_zero(opaque, dev, offset, bytes, true);
}

static int host_flush(void *opaque, WeirCacheDevice dev)
{
    (void)opaque;
    return memdisk_request(disk_of(dev), MEM_FLUSH, 0, 0, NULL, NULL);
}

static int host_grow_base(void *opaque, uint64_t bytes)
{
    (void)opaque;
    (void)bytes;
    return -ENOTSUP;
}

static void host_sleep(void *opaque, uint64_t ns)
{
    (void)opaque;
    (void)ns;
    fail("nothing fails, so nobody has to wait");
}

static CoopQueue *queue_of(WeirCacheQueue *queue)
{
    return (CoopQueue *)(void *)queue;
}

static void host_wait(void *opaque, WeirCache *c, WeirCacheQueue *queue)
{
    (void)opaque;
    weir_cache_unlock(c);
    coop_queue_wait(queue_of(queue));
    weir_cache_lock(c);
}

static void host_wake(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    coop_queue_wake(queue_of(queue));
}

static void host_queue_init(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    queue_of(queue)->first = NULL;
}

static void host_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    coop_spawn(fn, arg);
}

static void host_kick(void *opaque)
{
    (void)opaque;
    worker_kicked = true;
}

static uint64_t host_now_ns(void *opaque)
{
    (void)opaque;
    return clock_ns;
}

static void host_random(void *opaque, void *buf, size_t bytes)
{
    (void)opaque;
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)buf)[i] = (uint8_t)coop_random();
    }
}

static const WeirCacheHost host = {
    .read = host_read, .write = host_write, .read_guest = host_read_guest,
    .zero = host_zero, .discard = host_discard, .flush = host_flush,
    .grow_base = host_grow_base, .sleep = host_sleep, .wait = host_wait,
    .wake = host_wake, .queue_init = host_queue_init, .spawn = host_spawn,
    .kick = host_kick, .now_ns = host_now_ns, .random = host_random,
};

/* --- requests --- */

typedef struct Range {
    uint32_t block;
    uint32_t count;
    uint8_t *data;
    struct iovec iov;
    WeirCacheGuest guest;
} Range;

static Range random_range(uint32_t max)
{
    Range r = { .count = coop_below(coop_below(4) ? 4 : max) + 1 };

    r.block = coop_below(coop_below(3) ? HOT_BLOCKS : BLOCKS);
    if (r.block + r.count > BLOCKS) {
        r.block = BLOCKS - r.count;
    }
    r.data = malloc((size_t)r.count * WEIR_CACHE_BLOCK_BYTES);
    r.iov = (struct iovec) {
        r.data, (size_t)r.count * WEIR_CACHE_BLOCK_BYTES,
    };
    return r;
}

static const WeirCacheGuest *guest_of(Range *r)
{
    r->guest = (WeirCacheGuest) { .host = r->data, .iov = &r->iov, .niov = 1 };
    return &r->guest;
}

static void client_read(void)
{
    Range r = random_range(REQUEST_BLOCKS_MAX * 4);
    Block *before = malloc(r.count * sizeof(*before));
    int ret;

    memcpy(before, &model[r.block], r.count * sizeof(*before));
    ret = weir_cache_read(cache, (uint64_t)r.block * WEIR_CACHE_BLOCK_BYTES,
                          r.iov.iov_len, guest_of(&r));
    if (ret < 0 && !crashed) {
        fail("read failed: %s", strerror(-ret));
    }
    for (uint32_t i = 0; i < r.count && ret == 0 && !crashed; i++) {
        Block *b = &model[r.block + i];
        bool quiet = !before[i].writers && before[i].issued == b->issued;

        check_block(r.block + i, r.data + (size_t)i * WEIR_CACHE_BLOCK_BYTES,
                    before[i].low, quiet ? b->high : b->issued,
                    before[i].torn || !quiet, quiet, "read");
    }
    free(before);
    free(r.data);
}

/* Whether a range can get another version now. */
static bool may_write(const Range *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        const Block *b = &model[r->block + i];

        if (b->issued - b->min >= VERSIONS_KEPT ||
            (b->writers && coop_below(4))) {
            return false;
        }
    }
    return true;
}

static void begin_write(const Range *r, bool zero, bool past, uint32_t *version)
{
    for (uint32_t i = 0; i < r->count; i++) {
        Block *b = &model[r->block + i];

        version[i] = ++b->issued;
        trace(r->block + i, "write %u, zero %d, past %d", b->issued, zero,
              past);
        b->zero &= ~(UINT64_C(1) << b->issued % 64);
        b->zero |= (uint64_t)zero << b->issued % 64;
        b->past |= past;
        b->writers++;
        if (!zero) {
            stamp(r->data + (size_t)i * WEIR_CACHE_BLOCK_BYTES, r->block + i,
                  b->issued);
        }
    }
}

/* It has succeeded. Of several at a time, any may be the one that is there. */
static void end_write(const Range *r, const uint32_t *version, bool durable)
{
    for (uint32_t i = 0; i < r->count; i++) {
        Block *b = &model[r->block + i];

        b->writers--;
        trace(r->block + i, "wrote %u", version[i]);
        if (b->issued == version[i] && b->writers == 0 &&
            b->high < version[i] && b->low == b->high) {
            b->low = b->high = version[i];
            b->torn = false;
            b->min = durable && b->min < version[i] ? version[i] : b->min;
        } else {
            b->high = b->issued;
            b->low = b->low > b->min ? b->low : b->min;
        }
    }
}

static bool goes_past(void)
{
    return config.mode != WEIR_CACHE_WRITE_BACK ||
           config.bypass_sequential_bytes;
}

static void client_write(bool zero, bool discard)
{
    Range r = random_range(zero && !coop_below(4) ? 2000 :
                           bulk ? 200 : REQUEST_BLOCKS_MAX);
    uint32_t *version = malloc(r.count * sizeof(*version));
    uint64_t offset = (uint64_t)r.block * WEIR_CACHE_BLOCK_BYTES;
    bool fua = !bulk && !discard && !coop_below(10);
    int ret;

    if (may_write(&r)) {
        begin_write(&r, zero, goes_past() || discard || r.count > 1000,
                    version);
        if (discard) {
            ret = weir_cache_discard(cache, offset, r.iov.iov_len);
        } else if (zero) {
            ret = weir_cache_zero(cache, offset, r.iov.iov_len, true, fua);
        } else {
            ret = weir_cache_write(cache, offset, r.iov.iov_len, guest_of(&r),
                                   fua);
        }
        if (ret < 0 && !crashed) {
            fail("write failed: %s", strerror(-ret));
        }
        if (ret == 0 && !crashed) {
            end_write(&r, version, fua);
        }
    }
    free(version);
    free(r.data);
}

static void client_flush(void)
{
    uint32_t *low = malloc(BLOCKS * sizeof(*low));
    bool *past = malloc(BLOCKS);
    int ret;

    for (uint32_t i = 0; i < BLOCKS; i++) {
        low[i] = model[i].low;
        past[i] = !model[i].writers;
    }
    ret = weir_cache_flush(cache);
    if (ret < 0 && !crashed) {
        fail("flush failed: %s", strerror(-ret));
    }
    for (uint32_t i = 0; i < BLOCKS && ret == 0 && !crashed; i++) {
        if (model[i].min < low[i]) {
            trace(i, "version %u is durable", low[i]);
            model[i].min = low[i];
        }
        if (past[i] && model[i].issued == model[i].min) {
            model[i].past = false;
        }
    }
    free(low);
    free(past);
}

static void random_config(void)
{
    static const WeirCacheMode modes[] = {
        WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_BACK,
        WEIR_CACHE_WRITE_THROUGH, WEIR_CACHE_WRITE_AROUND,
        WEIR_CACHE_READ_ONLY,
    };

    weir_cache_config_default(&config);
    config.mode = modes[coop_below(6)];
    config.dirty_high_percent = 1 + coop_below(coop_below(2) ? 95 : 5);
    config.dirty_low_percent = coop_below(config.dirty_high_percent + 1);
    config.dirty_age_ms = coop_below(2) * (1 + coop_below(500));
    config.idle_ms = coop_below(2) * (1 + coop_below(500));
    config.bypass_sequential_bytes = coop_below(4) ? 0 : 64 << 10;
}

static void client_drain(void)
{
    int ret = 0;

    if (config.mode != WEIR_CACHE_WRITE_BACK) {
        ret = weir_cache_drain(cache);
    }
    if (ret < 0 && !crashed) {
        fail("drain failed: %s", strerror(-ret));
    }
}

static void client(void *arg)
{
    (void)arg;
    while (!crashed && operations_left > 0) {
        uint32_t what = coop_below(100);

        operations_left--;
        operations++;
        if (what < 35) {
            client_read();
        } else if (what < 80) {
            client_write(false, false);
        } else if (what < 85) {
            client_write(true, false);
        } else if (what < 88) {
            client_write(true, true);
        } else if (what < 98) {
            if (!bulk || !coop_below(40)) {
                client_flush();
            }
        } else if (what < 99) {
            random_config();
            /* those under way may find the one mode or the other */
            for (uint32_t i = 0; i < BLOCKS; i++) {
                model[i].past |= model[i].writers > 0;
            }
            weir_cache_configure(cache, &config);
            trace(UINT32_MAX, "mode %d", config.mode);
        } else {
            client_drain();
        }
    }
    clients--;
}

/* --- the worker --- */

static CoopQueue worker_queue;
static bool worker_stops;

static void worker(void *arg)
{
    (void)arg;
    while (!worker_stops) {
        uint64_t in = weir_cache_work(cache);

        if (in && !worker_kicked && !worker_stops) {
            coop_queue_wait(&worker_queue);
        }
        worker_kicked = false;
    }
    worker_runs = false;
}

/* --- scheduler --- */

/* One turn. False when nothing can go on. */
static bool turn(void)
{
    if (worker_kicked && coop_below(2)) {
        coop_queue_wake(&worker_queue);
    }
    switch (coop_below(3)) {
    case 0:
        if (coop_step()) {
            return true;
        }
        break;
    case 1:
        if (memdisk_step(coop_below(2) ? &fast : &base)) {
            return true;
        }
        break;
    }
    if (coop_step() || memdisk_step(&fast) || memdisk_step(&base)) {
        return true;
    }
    if (worker_queue.first) {
        clock_ns += 1000000 * (1 + coop_below(200));
        coop_queue_wake(&worker_queue);
        return true;
    }
    return false;
}

static void run_until_quiet(void)
{
    uint32_t idle = 0;

    while (coop_alive() > (worker_runs ? 1 : 0)) {
        if (!turn()) {
            fail("deadlock");
        }
        if (++idle > 50000000) {
            fail("no progress");
        }
    }
}

static void power_off(void)
{
    static const MemCut cuts[] = {
        MEM_CUT_KEEP, MEM_CUT_DROP, MEM_CUT_RANDOM, MEM_CUT_TEAR,
        MEM_CUT_RANDOM, MEM_CUT_TEAR,
    };
    MemCut cut = cuts[coop_below(6)];

    trace(UINT32_MAX, "power off, %d", cut);
    crashed = true;
    memdisk_power_off(&base, cut);
    memdisk_power_off(&fast, cut);
}

/* --- a life: open, work, crash or close --- */

static int open_result;

static void open_cache(void *arg)
{
    WeirCacheOpen open = {
        .config = config, .base_bytes = base.bytes, .fast_bytes = fast.bytes,
    };
    char err[256] = "";

    (void)arg;
    open_result = weir_cache_open(&cache, &open, &host, NULL, err,
                                  sizeof(err));
    if (open_result < 0 && !crashed) {
        fail("open failed: %s: %s", strerror(-open_result), err);
    }
}

static void close_cache(void *arg)
{
    int ret = weir_cache_close(cache);

    (void)arg;
    if (ret < 0 && !crashed) {
        fail("close failed: %s", strerror(-ret));
    }
}

/* Power is back: a crash leaves what a block has been since it was durable. */
static void power_on(void)
{
    memdisk_power_on(&base);
    memdisk_power_on(&fast);
    crashed = false;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        Block *b = &model[i];

        b->writers = 0;
        b->low = b->min;
        b->high = b->issued;
    }
}

/* Read all that is in doubt, or everything. */
static void verify(void *arg)
{
    bool everything = arg;
    uint8_t *data = malloc(WEIR_CACHE_BLOCK_BYTES);
    struct iovec iov = { data, WEIR_CACHE_BLOCK_BYTES };
    WeirCacheGuest guest = { .host = data, .iov = &iov, .niov = 1 };

    for (uint32_t i = 0; i < BLOCKS && !crashed; i++) {
        Block *b = &model[i];
        int ret;

        if (b->low == b->high && !everything && coop_below(64)) {
            continue;
        }
        ret = weir_cache_read(cache, (uint64_t)i * WEIR_CACHE_BLOCK_BYTES,
                              WEIR_CACHE_BLOCK_BYTES, &guest);
        if (ret < 0 && !crashed) {
            fail("read failed: %s", strerror(-ret));
        }
        if (ret == 0 && !crashed) {
            check_block(i, data, b->low, b->high, b->past || b->torn,
                        true, "after a crash");
            /* found: this is what it is from now on */
            b->min = b->low;
            b->past = false;
        }
    }
    free(data);
}

/* With nothing dirty, the base is the guest's disk. */
static void check_base(void)
{
    WeirCacheInfo info;

    weir_cache_query(cache, &info);
    if (info.dirty) {
        return;
    }
    for (uint32_t i = 0; i < BLOCKS; i++) {
        check_block(i, base.now + (size_t)i * WEIR_CACHE_BLOCK_BYTES,
                    model[i].low, model[i].high, model[i].torn, true,
                    "of the base");
    }
}

static void drain_all(void *arg)
{
    int ret = weir_cache_drain(cache);

    (void)arg;
    if (ret < 0 && !crashed) {
        fail("drain failed: %s", strerror(-ret));
    }
}

static void stop_worker(void)
{
    worker_stops = true;
    while (worker_runs) {
        coop_queue_wake(&worker_queue);
        if (!turn()) {
            fail("deadlock");
        }
    }
}

/* Open, perhaps with a crash in between. False: crashed. */
static bool begin_life(void)
{
    uint32_t turns = coop_below(3) ? UINT32_MAX : coop_below(300);

    cache = NULL;
    coop_spawn(open_cache, NULL);
    while (coop_alive()) {
        if (turns-- == 0 && !crashed) {
            power_off();
        }
        if (!turn()) {
            fail("deadlock while opening");
        }
    }
    return open_result == 0;
}

static void work(uint32_t turns)
{
    worker_runs = true;
    worker_stops = worker_kicked = false;
    coop_spawn(worker, NULL);
    coop_spawn(verify, NULL);
    run_until_quiet();
    operations_left = 20 + coop_below(2000);
    for (clients = 0; clients < CLIENTS; clients++) {
        coop_spawn(client, NULL);
    }
    while (clients > 0) {
        if (turns-- == 0 && !crashed) {
            power_off();
        }
        if (!turn()) {
            fail("deadlock");
        }
    }
    run_until_quiet();
}

static void life(void)
{
    uint32_t how = coop_below(10);

    lives++;
    bulk = coop_below(2);
    random_config();
    trace(UINT32_MAX, "life %u mode %d", (unsigned)lives, config.mode);
    if (!begin_life()) {
        weir_cache_free(cache);
        power_on();
        return;
    }
    if (crashed) {                      /* when it was just open */
        weir_cache_free(cache);
        power_on();
        return;
    }
    recovered++;
    work(how < 8 ? coop_below(coop_below(2) ? 20000 : 2000) : UINT32_MAX);
    if (!crashed) {
        if (how == 8) {
            coop_spawn(drain_all, NULL);
            run_until_quiet();
            check_base();
        }
        stop_worker();
        coop_spawn(close_cache, NULL);
        run_until_quiet();
    } else {
        stop_worker();
    }
    weir_cache_free(cache);
    if (crashed) {
        power_on();
    }
}

static void run(uint64_t seed, uint32_t lives_max)
{
    seed_now = seed;
    lives = 0;
    coop_seed(seed);
    memset(model, 0, sizeof(model));
    memdisk_init(&base, (uint64_t)BLOCKS * WEIR_CACHE_BLOCK_BYTES);
    memdisk_init(&fast, FAST_BYTES);
    for (uint32_t i = 0; i < lives_max; i++) {
        life();
    }
    memdisk_destroy(&base);
    memdisk_destroy(&fast);
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 40;
    uint32_t lives_max = 25;

    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--lives")) {
            lives_max = (uint32_t)value;
        } else if (!strcmp(argv[i], "--trace")) {
            traced = (int64_t)value;
        } else if (!strcmp(argv[i], "--mutation")) {
            weir_cache_mutation = 1u << value;
        }
    }
    for (uint64_t i = 0; i < runs; i++) {
        run(seed + i, lives_max);
    }
    printf("%llu operations, %llu times opened, nothing wrong\n",
           (unsigned long long)operations, (unsigned long long)recovered);
    return weir_cache_mutation ? 1 : 0;
}

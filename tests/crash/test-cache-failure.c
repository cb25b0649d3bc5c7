/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A request of one of the disks fails: in turn each one of each kind, once or
 * from then on until the disk is well again.
 *
 *   open -- requests --> the disk is well -- some seconds --> all can be read
 *     --> all works --> close          --> open, verify, requests, close
 *     --> or the cache is out of use: killed, or without power --^
 *
 * A model tells which contents a block may have, and which are safe. Nothing
 * wrong is ever read; what was flushed is never lost.
 *
 * usage: test-cache-failure [--seed N] [--runs N] [--stride N] [--trace BLOCK]
 *            [--only FAULT.REQUEST]
 * A run is a seed; of the requests one in `stride` fails.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "client.h"
#include "host.h"
#include "model.h"
#include "report.h"

#define BLOCKS 192
#define BLOCKS_MAX 224                  /* it grows up to there */
#define BLOCK_BYTES ((uint64_t)WEIR_CACHE_BLOCK_BYTES)
#define FAST_BYTES ((UINT64_C(2) << 20) + 64 * BLOCK_BYTES)
#define CLIENTS 3
#define OPERATIONS 70
#define SETTLE_MS 7000                  /* all is tried again within */

unsigned weir_cache_mutation;

typedef struct Fault {
    bool fast;                          /* which disk */
    MemOp op;
    int error;
    bool stays;                         /* until the disk is repaired */
    bool forgets;                       /* what a flush failed for */
} Fault;

static const Fault faults[] = {
    { true, MEM_READ, -EIO, false, false },
    { true, MEM_READ, -EIO, true, false },
    { true, MEM_WRITE, -EIO, false, false },
    { true, MEM_WRITE, -ENOSPC, false, false },
    { true, MEM_WRITE, -EIO, true, false },
    { true, MEM_WRITE, -ENOSPC, true, false },
    { true, MEM_ZERO, -EIO, false, false },
    { true, MEM_FLUSH, -EIO, false, false },
    { true, MEM_FLUSH, -EIO, false, true },
    { true, MEM_FLUSH, -ENOSPC, true, true },
    { false, MEM_READ, -EIO, false, false },
    { false, MEM_READ, -EIO, true, false },
    { false, MEM_WRITE, -EIO, false, false },
    { false, MEM_WRITE, -ENOSPC, true, false },
    { false, MEM_ZERO, -EIO, false, false },
    { false, MEM_ZERO, -ENOSPC, true, false },
    { false, MEM_RESIZE, -EIO, false, false },
    { false, MEM_RESIZE, -ENOSPC, true, false },
    { false, MEM_FLUSH, -EIO, false, false },
    { false, MEM_FLUSH, -ENOSPC, true, false },
};

#define FAULTS (sizeof(faults) / sizeof(*faults))

static uint64_t seed_now;
static uint32_t fault_now;              /* FAULTS: none */
static uint64_t request_now;
static bool well;                       /* the disk, for some seconds */
static uint32_t operations_left;
static uint64_t dirty_before;           /* since the cache is out of use */
static uint64_t runs, hit, requests_failed, out_of_use, not_opened;

static void place(void)
{
    printf(" (--seed %llu --only %u.%llu)", (unsigned long long)seed_now,
           fault_now, (unsigned long long)request_now);
}

static void aborted(int signal)
{
    fail("signal %d", signal);
}

static MemDisk *faulty_disk(void)
{
    return faults[fault_now].fast ? &host.fast : &host.base;
}

static bool has_failed(void)
{
    return fault_now < FAULTS && faulty_disk()->failed[faults[fault_now].op];
}

static int fast_error(void)
{
    WeirCacheInfo info;

    weir_cache_query(host.cache, &info);
    return info.fast_error;
}

/*
 * Reads go on whatever happens to writes, but with on-error=fail. Nothing fails
 * any more when the disk is well and the cache is in use.
 */
static bool may_fail(const char *what, int error)
{
    (void)error;
    requests_failed++;
    if (!has_failed() || (well && !fast_error())) {
        return false;
    }
    if (!strcmp(what, "read")) {
        return (faults[fault_now].op == MEM_READ && !well) ||
               (fast_error() && host.config.on_error == WEIR_CACHE_FAIL);
    }
    return true;
}

/* --- requests --- */

static const WeirCacheMode modes[] = {
    WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_BACK,
    WEIR_CACHE_WRITE_THROUGH, WEIR_CACHE_WRITE_AROUND, WEIR_CACHE_READ_ONLY,
};

static void random_mode(void)
{
    host.config.mode = modes[coop_below(6)];
    client_configure();
}

static void random_write(ClientWrite how)
{
    uint32_t count = 1 + coop_below(how == CLIENT_DATA ? 8 : 24);
    uint32_t block = coop_below(model.blocks);
    bool fua = how != CLIENT_DISCARD && !coop_below(8);

    if (how == CLIENT_DISCARD && block + count > model.blocks) {
        block = model.blocks - count;
    }
    if (block + count <= BLOCKS_MAX && model_may_write(block, count)) {
        client_write(block, count, how, fua);
    }
}

static void random_operation(void)
{
    uint32_t what = coop_below(100);
    uint32_t count = 1 + coop_below(12);

    if (what < 30) {
        client_read(coop_below(model.blocks - count), count);
    } else if (what < 70) {
        random_write(CLIENT_DATA);
    } else if (what < 77) {
        random_write(CLIENT_ZEROES);
    } else if (what < 82) {
        random_write(CLIENT_DISCARD);
    } else if (what < 96) {
        client_flush();
    } else if (what < 98) {
        host_sleep_ms(1 + coop_below(1500));
    } else {
        random_mode();
    }
}

/* What cannot be put on record is not taken in. */
static void audit_dirty(void)
{
    WeirCacheInfo info;

    weir_cache_query(host.cache, &info);
    if (info.fast_error && info.dirty > dirty_before) {
        fail("more blocks are dirty since the cache is out of use");
    }
    dirty_before = info.fast_error ? info.dirty : UINT64_MAX;
}

static void client(void *arg)
{
    (void)arg;
    while (operations_left > 0) {
        operations_left--;
        random_operation();
        audit_dirty();
    }
}

static void work(uint32_t operations)
{
    operations_left = operations;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        coop_spawn(client, NULL);
    }
    host_run_until_quiet();
}

static void settle(void *arg)
{
    (void)arg;
    host_sleep_ms(SETTLE_MS);
}

static void read_all(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < model.blocks; i += 16) {
        client_read(i, model.blocks - i < 16 ? model.blocks - i : 16);
    }
}

static void verify(void *arg)
{
    client_verify(arg);
}

static void flush(void *arg)
{
    (void)arg;
    client_flush();
}

static void drain(void *arg)
{
    int ret = weir_cache_drain(host.cache);

    (void)arg;
    if (ret < 0) {
        fail("drain failed: %s", strerror(-ret));
    }
}

/* --- a run --- */

static void open_now(void)
{
    int ret = host_open(UINT32_MAX, MEM_CUT_KEEP);

    if (ret < 0 && has_failed()) {
        not_opened++;
        memdisk_repair(faulty_disk());
        ret = host_open(UINT32_MAX, MEM_CUT_KEEP);
    }
    if (ret < 0) {
        fail("open failed: %s: %s", strerror(-ret), host.error);
    }
    host_start_worker();
}

static void close_now(void)
{
    int ret;

    host_run(flush, NULL);
    host_run(drain, NULL);
    host_rest();
    audit_cache(true);
    audit_base(true);
    host_stop_worker();
    ret = host_close();
    if (ret < 0) {
        fail("close failed: %s", strerror(-ret));
    }
}

/* The end of a cache that is out of use. */
static void cut_now(void)
{
    static const MemCut cuts[] = { MEM_CUT_ALL, MEM_CUT_DROP, MEM_CUT_TEAR };

    out_of_use++;
    host_power_off(cuts[coop_below(3)]);
    host_stop_worker();
    host_run_until_quiet();
    host_power_on();
    model_crash();
}

static void arm(void)
{
    const Fault *f = &faults[fault_now];

    faulty_disk()->fault[f->op] = (MemFault) {
        .after = request_now, .times = f->stays ? UINT64_MAX : 1,
        .error = f->error, .forgets = f->forgets,
    };
}

static void begin(void)
{
    coop_seed(seed_now);
    model_reset(BLOCKS);
    host_init(BLOCKS * BLOCK_BYTES, BLOCKS_MAX * BLOCK_BYTES, FAST_BYTES);
    host.config.mode = modes[coop_below(6)];
    host.config.on_error = (WeirCacheOnError)(seed_now % 3);
    host.config.dirty_high_percent = 20 + coop_below(60);
    host.config.dirty_low_percent = coop_below(20);
    host.config.error_deadline_ms = 1000;
    well = false;
    dirty_before = UINT64_MAX;
    client_may_fail = may_fail;
    runs++;
}

/* While something is wrong, and until it is over. */
static void first_life(void)
{
    open_now();
    work(OPERATIONS);
    memdisk_repair(&host.base);
    memdisk_repair(&host.fast);
    host_run(settle, NULL);
    well = true;
    host_run(read_all, NULL);
    work(OPERATIONS / 3);
    if (fast_error()) {
        cut_now();
    } else {
        close_now();
    }
    weir_cache_free(host.cache);
    host.cache = NULL;
}

static void second_life(void)
{
    client_may_fail = NULL;
    open_now();
    host_run(verify, &host);
    host_rest();
    audit_cache(true);
    audit_base(true);
    work(OPERATIONS / 3);
    close_now();
}

static void run(void)
{
    begin();
    if (fault_now < FAULTS) {
        arm();
    }
    first_life();
    hit += has_failed();
    second_life();
    host_destroy();
}

/* How many requests there are that can fail. */
static uint64_t count_requests(uint32_t fault)
{
    uint64_t count;

    fault_now = FAULTS;
    begin();
    open_now();
    work(OPERATIONS);
    fault_now = fault;
    count = faulty_disk()->count[faults[fault].op];
    host_stop_worker();
    host_destroy();
    return count;
}

static void run_all(uint64_t seed, uint32_t stride)
{
    seed_now = seed;
    for (uint32_t f = 0; f < FAULTS; f++) {
        uint64_t count = count_requests(f);

        for (request_now = (seed * 7 + f) % stride; request_now < count;
             request_now += stride) {
            fault_now = f;
            run();
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, seeds = 10;
    uint32_t stride = 1;
    char *only = NULL;

    report.place = place;
    signal(SIGABRT, aborted);
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            seeds = value;
        } else if (!strcmp(argv[i], "--stride")) {
            stride = (uint32_t)value;
        } else if (!strcmp(argv[i], "--trace")) {
            report.traced = (int64_t)value;
        } else if (!strcmp(argv[i], "--only")) {
            only = argv[i + 1];
        }
    }
    if (only) {
        seed_now = seed;
        fault_now = (uint32_t)strtoul(only, &only, 10);
        request_now = *only ? strtoull(only + 1, NULL, 10) : 0;
        run();
    }
    for (uint64_t i = 0; i < seeds && !only; i++) {
        run_all(seed + i, stride);
    }
    printf("%llu runs, the fault was met in %llu, %llu requests failed; "
           "%llu times not opened, %llu times out of use: nothing wrong\n",
           (unsigned long long)runs, (unsigned long long)hit,
           (unsigned long long)requests_failed,
           (unsigned long long)not_opened, (unsigned long long)out_of_use);
    return 0;
}

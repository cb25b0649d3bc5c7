/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "report.h"

#define TURNS_MAX 5000000              /* nothing takes longer */

Host host;

/* --- what the engine calls --- */

static MemDisk *disk_of(WeirCacheDevice dev)
{
    return dev == WEIR_CACHE_BASE ? &host.base : &host.fast;
}

static int call_read(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    (void)opaque;
    return memdisk_request(disk_of(dev), MEM_READ, offset, bytes, NULL, buf);
}

static int call_write(void *opaque, WeirCacheDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf)
{
    (void)opaque;
    return memdisk_request(disk_of(dev), MEM_WRITE, offset, bytes, buf, NULL);
}

static int call_read_guest(void *opaque, WeirCacheDevice dev, uint64_t offset,
                           uint64_t bytes, void *guest, uint64_t at)
{
    return call_read(opaque, dev, offset, bytes, (uint8_t *)guest + at);
}

static int call_zero(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, bool may_unmap)
{
    (void)opaque;
    (void)may_unmap;
    return memdisk_request(disk_of(dev), MEM_ZERO, offset, bytes, NULL, NULL);
}

static int call_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
                        uint64_t bytes)
{
    return call_zero(opaque, dev, offset, bytes, true);
}

static int call_flush(void *opaque, WeirCacheDevice dev)
{
    (void)opaque;
    return memdisk_request(disk_of(dev), MEM_FLUSH, 0, 0, NULL, NULL);
}

static int call_grow_base(void *opaque, uint64_t bytes)
{
    (void)opaque;
    return memdisk_request(&host.base, MEM_RESIZE, bytes, 0, NULL, NULL);
}

static void call_sleep(void *opaque, uint64_t ns)
{
    (void)opaque;
    host_sleep_ms((uint32_t)(ns / 1000000));
}

static void call_run(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    fn(arg);
}

static CoopQueue *queue_of(WeirCacheQueue *queue)
{
    return (CoopQueue *)(void *)queue;
}

static void call_wait(void *opaque, WeirCache *c, WeirCacheQueue *queue)
{
    (void)opaque;
    weir_cache_unlock(c);
    coop_queue_wait(queue_of(queue));
    weir_cache_lock(c);
}

static void call_wake(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    coop_queue_wake(queue_of(queue));
}

static void call_queue_init(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    queue_of(queue)->first = NULL;
}

static void call_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    coop_spawn(fn, arg);
}

static void call_kick(void *opaque)
{
    (void)opaque;
    host.worker_kicked = true;
}

static uint64_t call_now_ns(void *opaque)
{
    (void)opaque;
    return host.clock_ns;
}

static void call_random(void *opaque, void *buf, size_t bytes)
{
    (void)opaque;
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)buf)[i] = (uint8_t)coop_random();
    }
}

static const WeirCacheHost calls = {
    .read = call_read, .write = call_write, .read_guest = call_read_guest,
    .zero = call_zero, .discard = call_discard, .flush = call_flush,
    .grow_base = call_grow_base, .sleep = call_sleep, .run = call_run,
    .wait = call_wait, .wake = call_wake, .queue_init = call_queue_init,
    .spawn = call_spawn,
    .kick = call_kick, .now_ns = call_now_ns, .random = call_random,
};

/* --- set up --- */

void host_init(uint64_t base_bytes, uint64_t base_room_bytes,
               uint64_t fast_bytes)
{
    /* what one life frees is used by the next, and not got anew */
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    memset(&host, 0, sizeof(host));
    host.clock_ns = 1000000000;
    weir_cache_config_default(&host.config);
    memdisk_init(&host.base, base_bytes, base_room_bytes);
    memdisk_init(&host.fast, fast_bytes, fast_bytes);
}

void host_destroy(void)
{
    weir_cache_free(host.cache);
    host.cache = NULL;
    memdisk_destroy(&host.base);
    memdisk_destroy(&host.fast);
}

/* --- turns --- */

bool host_turn(void)
{
    if (host.worker_kicked && coop_below(2)) {
        coop_queue_wake(&host.worker_queue);
    }
    switch (coop_below(3)) {
    case 0:
        if (coop_step()) {
            return true;
        }
        break;
    case 1:
        if (memdisk_step(coop_below(2) ? &host.fast : &host.base)) {
            return true;
        }
        break;
    }
    if (coop_step() || memdisk_step(&host.fast) || memdisk_step(&host.base)) {
        return true;
    }
    if (host.worker_queue.first) {
        host.clock_ns += 1000000 * (1 + coop_below(200));
        coop_queue_wake(&host.worker_queue);
        return true;
    }
    return false;
}

static void turns(bool (*go_on)(void))
{
    uint32_t n = 0;

    while (go_on()) {
        if (!host_turn()) {
            fail("deadlock");
        }
        if (++n > TURNS_MAX) {
            fail("no progress");
        }
    }
}

static bool is_in_use(void)
{
    return coop_alive() > (host.worker_runs ? 1 : 0);
}

static bool is_at_work(void)
{
    return is_in_use() || (host.worker_runs && !host.worker_queue.first);
}

void host_run_until_quiet(void)
{
    turns(is_in_use);
}

void host_rest(void)
{
    turns(is_at_work);
}

void host_run(void (*fn)(void *arg), void *arg)
{
    coop_spawn(fn, arg);
    host_run_until_quiet();
}

void host_sleep_ms(uint32_t ms)
{
    uint64_t end_ns = host.clock_ns + ms * UINT64_C(1000000);

    while (host.clock_ns < end_ns && !host.crashed) {
        coop_queue_wait(&host.worker_queue);
    }
}

/* --- the worker --- */

static void worker(void *arg)
{
    (void)arg;
    while (!host.worker_stops) {
        uint64_t in = weir_cache_work(host.cache);

        if (in && !host.worker_kicked && !host.worker_stops) {
            coop_queue_wait(&host.worker_queue);
        }
        host.worker_kicked = false;
    }
    host.worker_runs = false;
}

void host_start_worker(void)
{
    host.worker_runs = true;
    host.worker_stops = host.worker_kicked = false;
    coop_spawn(worker, NULL);
}

void host_stop_worker(void)
{
    host.worker_stops = true;
    while (host.worker_runs) {
        coop_queue_wake(&host.worker_queue);
        if (!host_turn()) {
            fail("deadlock");
        }
    }
}

/* --- opening and closing --- */

static int try_to_open(uint64_t *base_needed)
{
    WeirCacheOpen open = host.open;

    open.config = host.config;
    open.base_bytes = host.base.bytes;
    open.fast_bytes = host.fast.bytes;
    open.base_needed = base_needed;
    return weir_cache_open(&host.cache, &open, &calls, NULL, host.error,
                           sizeof(host.error));
}

/* The base is made longer when a cut took back that it had been. */
static void open_cache(void *arg)
{
    uint64_t needed = 0;
    int ret = try_to_open(&needed);

    if (ret == -EFBIG) {
        ret = call_grow_base(NULL, needed);
        if (ret == 0) {
            ret = try_to_open(&needed);
        }
    }
    if (ret == 0) {
        model_found_length((uint32_t)((host.base.bytes +
                                       WEIR_CACHE_BLOCK_BYTES - 1) /
                                      WEIR_CACHE_BLOCK_BYTES));
    }
    *(int *)arg = ret;
}

int host_open(uint32_t turns, MemCut cut)
{
    int ret = 0;

    host.cache = NULL;
    coop_spawn(open_cache, &ret);
    while (coop_alive()) {
        if (turns-- == 0 && !host.crashed) {
            host_power_off(cut);
        }
        if (!host_turn()) {
            fail("deadlock while opening");
        }
    }
    return ret;
}

static void close_cache(void *arg)
{
    *(int *)arg = weir_cache_close(host.cache);
}

int host_close(void)
{
    int ret = 0;

    host_run(close_cache, &ret);
    return ret;
}

/* --- power --- */

void host_power_off(MemCut cut)
{
    trace(UINT32_MAX, "power off, %d", cut);
    host.crashed = true;
    memdisk_power_off(&host.base, cut);
    memdisk_power_off(&host.fast, cut);
}

void host_power_on(void)
{
    memdisk_power_on(&host.base);
    memdisk_power_on(&host.fast);
    host.crashed = false;
}

/* --- a copy --- */

struct HostCopy {
    MemDisk base, fast;                 /* of the copy, while it is not used */
    Host original;
    CoopParked *coops;
    Model *model;
};

HostCopy *host_copy_new(void)
{
    HostCopy *copy = calloc(1, sizeof(*copy));
    uint64_t room_bytes = host.base.pages * WEIR_CACHE_BLOCK_BYTES;

    memdisk_init(&copy->base, host.base.bytes, room_bytes);
    memdisk_init(&copy->fast, host.fast.bytes, host.fast.bytes);
    copy->model = calloc(1, sizeof(*copy->model));
    return copy;
}

void host_copy_free(HostCopy *copy)
{
    memdisk_destroy(&copy->base);
    memdisk_destroy(&copy->fast);
    free(copy->model);
    free(copy);
}

void host_enter_copy(HostCopy *copy, MemCut base, MemCut fast, uint64_t kept,
                     uint64_t seed)
{
    uint32_t of_base = memdisk_undecided(&host.base);

    trace(UINT32_MAX, "power off, %d and %d", base, fast);
    copy->coops = coop_park();
    coop_seed(seed);
    memdisk_cut(&host.base, &copy->base, base, kept);
    memdisk_cut(&host.fast, &copy->fast, fast,
                of_base < 64 ? kept >> of_base : 0);
    copy->original = host;
    model_copy(copy->model, &model);
    host.base = copy->base;
    host.fast = copy->fast;
    host.cache = NULL;
    host.worker_runs = false;
    host.worker_queue.first = NULL;
}

void host_leave_copy(HostCopy *copy)
{
    copy->base = host.base;
    copy->fast = host.fast;
    host = copy->original;
    coop_unpark(copy->coops);
    model_copy(&model, copy->model);
}

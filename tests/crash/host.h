/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_HOST_H
#define WEIR_TESTS_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "coop.h"
#include "memdisk.h"

/*
 * A machine with a cache over two simulated disks: what the engine calls, the
 * worker, a clock, and the power switch. One for each program.
 */

typedef struct Host {
    MemDisk base, fast;
    WeirCache *cache;
    WeirCacheOpen open;                 /* but lengths and configuration */
    WeirCacheConfig config;
    uint64_t clock_ns;                  /* stands still while there is
                                           something to do */
    bool crashed;                       /* all requests fail: end */
    bool worker_runs, worker_kicked, worker_stops;
    CoopQueue worker_queue;
    char error[256];                    /* of the last opening */
} Host;

extern Host host;

/* Two disks of zeroes, and room for the base to grow. */
void host_init(uint64_t base_bytes, uint64_t base_room_bytes,
               uint64_t fast_bytes);
void host_destroy(void);

/* One turn of whatever can go on. False when nothing can. */
bool host_turn(void);

/* Until no coop but the worker is left. */
void host_run_until_quiet(void);

/* The same, and until the worker has nothing to do for now. */
void host_rest(void);

/* fn(arg) as a coop, and everything else, until it is quiet. */
void host_run(void (*fn)(void *arg), void *arg);

/* Let time pass, as somebody who sleeps; from a coop. */
void host_sleep_ms(uint32_t ms);

/*
 * Open the cache on the disks with host.config, or with a power cut after so
 * many turns. Returns 0 or -errno; host.error.
 */
int host_open(uint32_t turns, MemCut cut);
int host_close(void);

void host_start_worker(void);
void host_stop_worker(void);

void host_power_off(MemCut cut);

void host_power_on(void);

/*
 * Go on with a copy of the machine as it would be after a power cut right now,
 * and come back as if nothing had been. Not in a coop; before coming back, the
 * cache is freed and all is quiet.
 * copy: used again by each call, for machines of the same size.
 * seed: of all that happens there.
 */
typedef struct HostCopy HostCopy;

HostCopy *host_copy_new(void);
void host_copy_free(HostCopy *copy);
void host_enter_copy(HostCopy *copy, MemCut base, MemCut fast, uint64_t kept,
                     uint64_t seed);
void host_leave_copy(HostCopy *copy);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests to a cache over two simulated disks that lose their power,
 * again and again, in recovery too; a model tells which contents a block may
 * have. A run is a seed: the same seed does the same.
 *
 * usage: test-cache-power [--seed N] [--runs N] [--lives N] [--mutation RULE]
 *            [--trace BLOCK]
 * With --mutation the engine leaves a rule out, and the test passes only when
 * it finds something wrong.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "client.h"
#include "host.h"
#include "model.h"
#include "report.h"

#define BLOCKS 4096
#define BLOCKS_MAX 4608                 /* it grows and shrinks up to there */
#define BLOCK_BYTES ((uint64_t)WEIR_CACHE_BLOCK_BYTES)
#define HOT_BLOCKS 512
#define FAST_BYTES (8 << 20)
#define REQUEST_BLOCKS_MAX 24
#define CLIENTS 6

unsigned weir_cache_mutation;

static uint32_t clients, operations_left;
static bool bulk;                       /* large writes, flushes are rare */
static uint64_t seed_now, operations, lives, recovered;

static void place(void)
{
    printf(" (seed %llu, life %llu)", (unsigned long long)seed_now,
           (unsigned long long)lives);
}

static void check(const char *what, int ret)
{
    if (ret < 0 && !host.crashed) {
        fail("%s failed: %s", what, strerror(-ret));
    }
}

/* --- clients --- */

static uint32_t random_range(uint32_t max, uint32_t *block)
{
    uint32_t count = coop_below(coop_below(4) ? 4 : max) + 1;

    *block = coop_below(coop_below(3) ? HOT_BLOCKS : model.blocks);
    if (*block + count > model.blocks) {
        *block = model.blocks - count;
    }
    return count;
}

static void random_read(void)
{
    uint32_t block, count = random_range(REQUEST_BLOCKS_MAX * 4, &block);

    client_read(block, count);
}

static bool is_written(uint32_t block, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (model.block[block + i].writers) {
            return true;
        }
    }
    return false;
}

static void random_write(ClientWrite how)
{
    uint32_t max = how != CLIENT_DATA && !coop_below(4) ? 2000 :
                   bulk ? 200 : REQUEST_BLOCKS_MAX;
    uint32_t block, count = random_range(max, &block);
    bool fua = !bulk && how != CLIENT_DISCARD && !coop_below(10);

    if (model_may_write(block, count) &&
        (!is_written(block, count) || !coop_below(4))) {
        client_write(block, count, how, fua);
    }
}

/* Data or zeroes that end behind the end of the disk. */
static void random_append(void)
{
    uint32_t count = 1 + coop_below(6);
    uint32_t block = model.blocks + coop_below(9) - 4;

    if (block + count <= BLOCKS_MAX && model_may_write(block, count)) {
        client_write(block, count, coop_below(6) ? CLIENT_DATA : CLIENT_ZEROES,
                     !coop_below(10));
    }
}

static void random_config(void)
{
    static const WeirCacheMode modes[] = {
        WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_BACK,
        WEIR_CACHE_WRITE_THROUGH, WEIR_CACHE_WRITE_AROUND,
        WEIR_CACHE_READ_ONLY,
    };
    WeirCacheConfig *config = &host.config;

    weir_cache_config_default(config);
    config->mode = modes[coop_below(6)];
    config->dirty_high_percent = 1 + coop_below(coop_below(2) ? 95 : 5);
    config->dirty_low_percent = coop_below(config->dirty_high_percent + 1);
    config->dirty_age_ms = coop_below(2) * (1 + coop_below(500));
    config->idle_ms = coop_below(2) * (1 + coop_below(500));
    config->bypass_sequential_bytes = coop_below(4) ? 0 : 64 << 10;
}

static void drain(void *arg)
{
    (void)arg;
    check("drain", weir_cache_drain(host.cache));
}

static void random_operation(void)
{
    uint32_t what = coop_below(100);

    if (what < 35) {
        random_read();
    } else if (what < 37) {
        random_append();
    } else if (what < 80) {
        random_write(CLIENT_DATA);
    } else if (what < 85) {
        random_write(CLIENT_ZEROES);
    } else if (what < 88) {
        random_write(CLIENT_DISCARD);
    } else if (what < 98) {
        if (!bulk || !coop_below(40)) {
            client_flush();
        }
    } else if (what < 99) {
        random_config();
        client_configure();
    } else if (host.config.mode != WEIR_CACHE_WRITE_BACK) {
        drain(NULL);
    }
}

static void client(void *arg)
{
    (void)arg;
    while (!host.crashed && operations_left > 0) {
        operations_left--;
        operations++;
        random_operation();
    }
    clients--;
}

static void verify(void *arg)
{
    client_verify(arg);
}

/* --- a life: open, work, crash or close --- */

static void resize(void *arg)
{
    (void)arg;
    client_resize(BLOCKS - 256 + coop_below(BLOCKS_MAX - BLOCKS + 256));
}

static void power_off(void)
{
    static const MemCut cuts[] = {
        MEM_CUT_KEEP, MEM_CUT_DROP, MEM_CUT_RANDOM, MEM_CUT_TEAR,
        MEM_CUT_RANDOM, MEM_CUT_TEAR, MEM_CUT_HOLES, MEM_CUT_ALL,
        MEM_CUT_FIRST,
    };

    host_power_off(cuts[coop_below(9)]);
}

/* Power is back: a crash leaves what a block has been since it was durable. */
static void power_on(void)
{
    host_power_on();
    model_crash();
    audit_cut();
}

static void look(void)
{
    host_start_worker();
    host_run(verify, NULL);
    host_rest();
    audit_cache(true);
}

static void work(uint32_t turns)
{
    operations_left = 20 + coop_below(2000);
    for (clients = 0; clients < CLIENTS; clients++) {
        coop_spawn(client, NULL);
    }
    while (clients > 0) {
        if (turns-- == 0 && !host.crashed) {
            power_off();
        }
        if (!host_turn()) {
            fail("deadlock");
        }
    }
    host_run_until_quiet();
}

/* Nothing else is under way. */
static void change_length(uint32_t turns)
{
    coop_spawn(resize, NULL);
    while (coop_alive() > host.worker_runs) {
        if (turns-- == 0 && !host.crashed) {
            power_off();
        }
        if (!host_turn()) {
            fail("deadlock");
        }
    }
}

static void end_life(bool drained)
{
    if (!host.crashed) {
        host_rest();
        audit_cache(true);
        if (drained) {
            host_run(drain, NULL);
            audit_base(true);
        }
        host_stop_worker();
        check("close", host_close());
    } else {
        host_stop_worker();
    }
}

static void life(void)
{
    static const MemCut cuts[] = { MEM_CUT_KEEP, MEM_CUT_DROP, MEM_CUT_TEAR };
    uint32_t how = coop_below(10);
    uint32_t turns = coop_below(3) ? UINT32_MAX : coop_below(300);

    lives++;
    bulk = coop_below(2);
    random_config();
    trace(UINT32_MAX, "life %u mode %d", (unsigned)lives, host.config.mode);
    check("open", host_open(turns, cuts[coop_below(3)]));
    if (!host.crashed) {
        recovered++;
        look();
        work(how < 8 ? coop_below(coop_below(2) ? 20000 : 2000) : UINT32_MAX);
        if (!host.crashed && !coop_below(2)) {
            change_length(coop_below(2) ? coop_below(300) : UINT32_MAX);
        }
        if (!host.crashed && !coop_below(2)) {
            work(coop_below(2000));
        }
        end_life(how == 8);
    }
    weir_cache_free(host.cache);
    host.cache = NULL;
    if (host.crashed) {
        power_on();
    }
}

static void run(uint64_t seed, uint32_t lives_max)
{
    seed_now = seed;
    lives = 0;
    coop_seed(seed);
    model_reset(BLOCKS);
    host_init(BLOCKS * BLOCK_BYTES, BLOCKS_MAX * BLOCK_BYTES, FAST_BYTES);
    for (uint32_t i = 0; i < lives_max; i++) {
        life();
    }
    host_destroy();
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 40;
    uint32_t lives_max = 25;

    report.place = place;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--lives")) {
            lives_max = (uint32_t)value;
        } else if (!strcmp(argv[i], "--trace")) {
            report.traced = (int64_t)value;
        } else if (!strcmp(argv[i], "--mutation")) {
            weir_cache_mutation = 1u << value;
            report.status = 0;
        }
    }
    for (uint64_t i = 0; i < runs; i++) {
        run(seed + i, lives_max);
    }
    printf("%llu operations, %llu times opened, nothing wrong\n",
           (unsigned long long)operations, (unsigned long long)recovered);
    return weir_cache_mutation ? 1 : 0;
}

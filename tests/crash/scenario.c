/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "scenario.h"

#include <string.h>

#include "cache/format.h"
#include "client.h"
#include "host.h"
#include "model.h"
#include "report.h"

#define BLOCK_BYTES WEIR_CACHE_BLOCK_BYTES
#define DATA_OFFSET (UINT64_C(2) << 20) /* of a cache with a small table */
#define BASE_BLOCKS 192
#define SLOTS 64
#define HALF_A_JOURNAL (WEIR_CACHE_JOURNAL_BLOCKS_MIN / 2)

/* --- requests --- */

/* Requests of several clients, picked by weight. */
typedef struct Mix {
    uint32_t clients, requests;
    uint32_t first, blocks;             /* of the base; 0 blocks: all */
    uint32_t longest;                   /* request, blocks */
    uint32_t reads, writes, fuas, zeroes, discards, flushes, appends;
} Mix;

static void request(const Mix *m)
{
    uint32_t weight[] = {
        m->reads, m->writes, m->fuas, m->zeroes, m->discards, m->flushes,
        m->appends,
    };
    uint32_t count = 1 + coop_below(m->longest);
    uint32_t blocks = m->blocks ? m->blocks : model.blocks;
    uint32_t block = m->first + coop_below(blocks - count + 1);
    uint32_t sum = 0, kind = 0, at;

    for (int i = 0; i < 7; i++) {
        sum += weight[i];
    }
    for (at = coop_below(sum); at >= weight[kind]; kind++) {
        at -= weight[kind];
    }
    if (kind == 6) {
        client_write(model.blocks + coop_below(4) - 2, count,
                     coop_below(5) ? CLIENT_DATA : CLIENT_ZEROES, false);
    } else if (kind == 5) {
        client_flush();
    } else if (kind == 0) {
        client_read(block, count);
    } else if (model_may_write(block, count)) {
        client_write(block, count, kind == 3 ? CLIENT_ZEROES :
                     kind == 4 ? CLIENT_DISCARD : CLIENT_DATA, kind == 2);
    }
}

static void mix_client(void *arg)
{
    Mix *m = arg;

    while (m->requests > 0) {
        m->requests--;
        request(m);
    }
}

/* Begin, and go on with something else. left: memory until it is over. */
static void send_mix(const Mix *m, Mix *left)
{
    *left = *m;
    for (uint32_t i = 0; i < m->clients; i++) {
        coop_spawn(mix_client, left);
    }
}

static void mix(const Mix *m)
{
    Mix left;

    send_mix(m, &left);
    host_run_until_quiet();
}

static void one_write(void *arg)
{
    const uint32_t *range = arg;

    client_write(range[0], range[1], CLIENT_DATA, false);
}

static void one_zero(void *arg)
{
    const uint32_t *range = arg;

    client_write(range[0], range[1], CLIENT_ZEROES, false);
}

static void one_discard(void *arg)
{
    const uint32_t *range = arg;

    client_write(range[0], range[1], CLIENT_DISCARD, false);
}

static void one_read(void *arg)
{
    const uint32_t *range = arg;

    client_read(range[0], range[1]);
}

static void one_flush(void *arg)
{
    (void)arg;
    client_flush();
}

/* One of the above, alone. */
static void one(void (*fn)(void *arg), uint32_t block, uint32_t count)
{
    uint32_t range[2] = { block, count };

    host_run(fn, range);
}

static void sleeper(void *arg)
{
    host_sleep_ms(*(uint32_t *)arg);
}

static void sleep_ms(uint32_t ms)
{
    host_run(sleeper, &ms);
}

static void drainer(void *arg)
{
    int ret = weir_cache_drain(host.cache);

    (void)arg;
    if (ret < 0) {
        fail("drain failed: %s", strerror(-ret));
    }
}

static void set_mode(WeirCacheMode mode)
{
    host.config.mode = mode;
    client_configure();
}

/* --- opening and closing --- */

static void open_now(void)
{
    int ret = host_open(UINT32_MAX, MEM_CUT_KEEP);

    if (ret < 0) {
        fail("open failed: %s: %s", strerror(-ret), host.error);
    }
    host_start_worker();
}

static void close_now(void)
{
    int ret;

    host_stop_worker();
    ret = host_close();
    if (ret < 0) {
        fail("close failed: %s", strerror(-ret));
    }
    weir_cache_free(host.cache);
    host.cache = NULL;
}

/* The process is killed, or the power fails. */
static void cut_now(MemCut cut)
{
    host_power_off(cut);
    host_stop_worker();
    host_run_until_quiet();
    weir_cache_free(host.cache);
    host.cache = NULL;
    host_power_on();
    model_crash();
}

/* Journal blocks since the opening. */
static uint64_t journal_written(void)
{
    WeirCacheInfo info;

    weir_cache_query(host.cache, &info);
    return info.journal_written;
}

/* A block of the journal for each flush, so many. */
static void write_journal(uint64_t blocks)
{
    while (journal_written() < blocks) {
        one(one_write, coop_below(model.blocks), 1);
        one(one_flush, 0, 0);
    }
}

/* --- scripts --- */

static const Mix warm_up = {
    .clients = 3, .requests = 40, .longest = 6, .reads = 70, .writes = 25,
    .flushes = 5,
};

static void prelude_warm(void)
{
    open_now();
    mix(&warm_up);
}

static void script_write_back(void)
{
    host.config.dirty_high_percent = 40;
    host.config.dirty_low_percent = 20;
    client_configure();
    mix(&(Mix) {
        .clients = 4, .requests = 90, .longest = 8, .reads = 25, .writes = 48,
        .fuas = 4, .zeroes = 8, .flushes = 15,
    });
    sleep_ms(2500);                     /* all is written back */
    one(one_flush, 0, 0);
}

/* The same blocks are written, written back and written. */
static void script_overwrite(void)
{
    host.config.dirty_high_percent = 1;
    host.config.dirty_low_percent = 0;
    client_configure();
    mix(&(Mix) {
        .clients = 4, .requests = 60, .blocks = 20, .longest = 6, .reads = 8,
        .writes = 78, .zeroes = 4, .flushes = 10,
    });
    sleep_ms(2500);
}

static void prelude_half_a_journal(void)
{
    open_now();
    write_journal(HALF_A_JOURNAL - 6);
}

/* The table is saved while requests go on. */
static void script_checkpoint(void)
{
    mix(&(Mix) {
        .clients = 4, .requests = 60, .longest = 4, .reads = 10, .writes = 50,
        .zeroes = 5, .flushes = 35,
    });
    one(one_flush, 0, 0);
}

/* Up to before the end of the ring: the table was saved once. */
static void prelude_a_journal(void)
{
    open_now();
    write_journal(WEIR_CACHE_JOURNAL_BLOCKS_MIN - 6);
}

static void prelude_two_journals(void)
{
    open_now();
    write_journal(2 * WEIR_CACHE_JOURNAL_BLOCKS_MIN - 6);
}

/* More sectors of the table than are written at a time. */
static void prelude_large_table(void)
{
    open_now();
    host.config.dirty_high_percent = 95;
    host.config.idle_ms = 0;
    client_configure();
    for (uint32_t i = 0; i < model.blocks; i += 1000) {
        one(one_zero, i, model.blocks - i < 1000 ? model.blocks - i : 1000);
    }
    one(one_flush, 0, 0);
    write_journal(HALF_A_JOURNAL - 4);
}

static void script_large_table(void)
{
    mix(&(Mix) {
        .clients = 3, .requests = 24, .longest = 2, .reads = 5, .writes = 55,
        .flushes = 40,
    });
}

static const Mix busy = {
    .clients = 3, .requests = 30, .longest = 6, .reads = 30, .writes = 45,
    .fuas = 3, .zeroes = 5, .discards = 5, .flushes = 12,
};

static void prelude_dirty(void)
{
    open_now();
    host.config.dirty_high_percent = 90;
    host.config.idle_ms = 0;
    client_configure();
    mix(&(Mix) {
        .clients = 3, .requests = 40, .longest = 5, .reads = 10, .writes = 75,
        .zeroes = 5, .flushes = 10,
    });
}

static void script_to_write_through(void)
{
    set_mode(WEIR_CACHE_WRITE_THROUGH);
    coop_spawn(drainer, NULL);
    mix(&busy);
    one(one_flush, 0, 0);
    sleep_ms(500);                      /* the superblock says clean */
    mix(&busy);
}

/* With regions that open, close and open again. */
static void script_past(void)
{
    mix(&busy);
    one(one_flush, 0, 0);
    sleep_ms(11000);
    mix(&busy);
    sleep_ms(11000);
}

static void script_write_through(void)
{
    set_mode(WEIR_CACHE_WRITE_THROUGH);
    script_past();
}

static void script_write_around(void)
{
    set_mode(WEIR_CACHE_WRITE_AROUND);
    script_past();
}

static void script_read_only(void)
{
    set_mode(WEIR_CACHE_READ_ONLY);
    script_past();
}

static void script_modes(void)
{
    static const WeirCacheMode modes[] = {
        WEIR_CACHE_WRITE_THROUGH, WEIR_CACHE_WRITE_BACK,
        WEIR_CACHE_WRITE_AROUND, WEIR_CACHE_WRITE_BACK, WEIR_CACHE_READ_ONLY,
        WEIR_CACHE_WRITE_BACK,
    };
    Mix few = busy, left;

    few.requests = 12;
    for (int i = 0; i < 6; i++) {
        set_mode(modes[i]);
        send_mix(&few, &left);
        if (i % 2) {
            sleep_ms(300);
        }
        host_run_until_quiet();
    }
}

/* The mode changes while a write makes the first block dirty. */
static void script_last_write(void)
{
    uint32_t range[2] = { 0, 3 };

    for (uint32_t turns = 0; turns < 16; turns++) {
        set_mode(WEIR_CACHE_WRITE_BACK);
        host_run(drainer, NULL);
        range[0] = turns * 4;
        coop_spawn(one_write, range);
        for (uint32_t i = 0; i < turns; i++) {
            host_turn();
        }
        set_mode(WEIR_CACHE_WRITE_THROUGH);
        host_run_until_quiet();
        one(one_flush, 0, 0);
    }
}

static void script_bypass(void)
{
    host.config.bypass_sequential_bytes = 16 << 10;
    client_configure();
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 48; i += 6) {
            one(one_write, round * 40 + i, 6);
        }
        mix(&(Mix) {
            .clients = 3, .requests = 10, .longest = 6, .reads = 30,
            .writes = 50, .flushes = 20,
        });
    }
}

/* More zeroes than the cache takes at a time, over all kinds of blocks. */
static void script_zeroes(void)
{
    one(one_zero, 0, 30);
    one(one_zero, 10, 1200);
    one(one_write, 8, 20);
    one(one_discard, 5, 90);
    one(one_flush, 0, 0);
    mix(&(Mix) {
        .clients = 3, .requests = 30, .longest = 20, .blocks = 100,
        .reads = 10, .writes = 30, .zeroes = 25, .discards = 20, .flushes = 15,
    });
    one(one_zero, 0, 1300);
    one(one_flush, 0, 0);
}

/* --- another length --- */

static void resize_client(void *arg)
{
    client_resize(*(uint32_t *)arg);
}

static void resize(uint32_t blocks)
{
    host_run(resize_client, &blocks);
}

static void script_grow(void)
{
    resize(BASE_BLOCKS + 40);
    mix(&busy);
    resize(BASE_BLOCKS + 64);
    one(one_write, BASE_BLOCKS + 50, 10);
    one(one_flush, 0, 0);
}

static void script_shrink(void)
{
    resize(BASE_BLOCKS - 40);
    mix(&busy);
    resize(BASE_BLOCKS - 64);
    one(one_write, 0, 10);
    one(one_flush, 0, 0);
    resize(BASE_BLOCKS);
    one(one_read, BASE_BLOCKS - 70, 70);
}

/* Requests that make the disk longer, beside others. */
static const Mix appends = {
    .clients = 4, .requests = 40, .longest = 6, .reads = 20, .writes = 20,
    .zeroes = 5, .discards = 5, .flushes = 15, .appends = 35,
};

static void script_append(void)
{
    mix(&appends);
    one(one_flush, 0, 0);
    one(one_write, model.blocks + 9, 2);
    one(one_flush, 0, 0);
    sleep_ms(2500);                     /* all is written back */
    one(one_flush, 0, 0);
}

static void script_append_through(void)
{
    set_mode(WEIR_CACHE_WRITE_THROUGH);
    mix(&appends);
    one(one_flush, 0, 0);
    sleep_ms(500);
    one(one_write, model.blocks + 9, 2);
    one(one_flush, 0, 0);
    sleep_ms(11000);
}

/* --- ends and beginnings --- */

static void script_close(void)
{
    close_now();
    open_now();
    mix(&warm_up);
    close_now();
    open_now();
}

static void close_empty(void *arg)
{
    int ret = weir_cache_close_empty(host.cache, false);

    (void)arg;
    if (ret < 0) {
        fail("close for good failed: %s", strerror(-ret));
    }
}

/* And somebody else writes to the disk, whom the cache must not contradict. */
static void script_close_empty(void)
{
    set_mode(WEIR_CACHE_WRITE_THROUGH);
    host_run(drainer, NULL);
    one(one_flush, 0, 0);
    host_stop_worker();
    host_run(close_empty, NULL);
    weir_cache_free(host.cache);
    host.cache = NULL;
    open_now();
    mix(&busy);
}

static void script_format(void)
{
    open_now();
    mix(&busy);
    one(one_flush, 0, 0);
}

/* Over something else. */
static void prelude_foreign(void)
{
    memdisk_fill(&host.fast, 0xee);
    host.open.overwrite = true;
}

/* The cache of another disk, which is dropped. */
static void prelude_other(void)
{
    host.open.base_id = "another";
    open_now();
    set_mode(WEIR_CACHE_WRITE_THROUGH);
    mix(&busy);
    one(one_flush, 0, 0);
    sleep_ms(500);
    close_now();
    host.open.base_id = "this";
}

/* --- recoveries --- */

static void prelude_crash(void)
{
    prelude_dirty();
    mix(&(Mix) {
        .clients = 5, .requests = 60, .longest = 8, .reads = 5, .writes = 85,
        .zeroes = 9, .flushes = 1,
    });
    cut_now(MEM_CUT_TEAR);
}

static void prelude_open_regions(void)
{
    prelude_warm();
    set_mode(WEIR_CACHE_WRITE_THROUGH);
    mix(&busy);
    cut_now(MEM_CUT_RANDOM);
}

static void script_open(void)
{
    open_now();
    one(one_read, 0, model.blocks / 2);
    one(one_write, 3, 4);
    one(one_flush, 0, 0);
}

/* Several journal blocks with one flush, of zeroes. */
static void zero_all(void)
{
    for (uint32_t i = 0; i < 4; i++) {
        one(one_zero, 0, model.blocks);
    }
}

/*
 * Several journal blocks are written with one flush, and a cut takes the first
 * one of them only. The others have the very sequence numbers that are used
 * next, and tell of zeroes, for which there is no data to check: that they are
 * from before is told by the incarnation alone (rule 5).
 */
static void prelude_stale_journal(void)
{
    open_now();
    host.config.dirty_high_percent = 95;
    host.config.idle_ms = 0;
    client_configure();
    one(one_write, 0, 60);
    one(one_flush, 0, 0);
    zero_all();
    coop_spawn(one_flush, NULL);
    while (!memdisk_undecided(&host.fast)) {
        host_turn();
    }
    cut_now(MEM_CUT_FIRST);
}

static void verify(void *arg)
{
    client_verify(arg);
}

static void script_stale_journal(void)
{
    open_now();
    host_run(verify, &host);            /* what is seen has to stay */
    one(one_write, 0, 1);
    one(one_flush, 0, 0);
    one(one_write, 100, 3);
    zero_all();
    one(one_flush, 0, 0);
}

/* --- all of them --- */

const Scenario scenarios[] = {
    { "write-back", BASE_BLOCKS, SLOTS, prelude_warm, script_write_back },
    { "overwrite", BASE_BLOCKS, SLOTS, prelude_warm, script_overwrite },
    { "checkpoint", BASE_BLOCKS, 256, prelude_half_a_journal,
      script_checkpoint },
    { "checkpoint-large", 990, 1200, prelude_large_table,
      script_large_table },
    { "wrap", BASE_BLOCKS, 256, prelude_a_journal, script_checkpoint },
    { "wrap-again", BASE_BLOCKS, SLOTS, prelude_two_journals,
      script_checkpoint },
    { "to-write-through", BASE_BLOCKS, SLOTS, prelude_dirty,
      script_to_write_through },
    { "write-through", BASE_BLOCKS, SLOTS, prelude_warm,
      script_write_through },
    { "write-around", BASE_BLOCKS, SLOTS, prelude_warm, script_write_around },
    { "read-only", BASE_BLOCKS, SLOTS, prelude_warm, script_read_only },
    { "modes", BASE_BLOCKS, SLOTS, prelude_dirty, script_modes },
    { "last-write", BASE_BLOCKS, SLOTS, prelude_dirty, script_last_write },
    { "bypass", BASE_BLOCKS, SLOTS, prelude_warm, script_bypass },
    { "zeroes", 1500, SLOTS, prelude_dirty, script_zeroes },
    { "close", BASE_BLOCKS, SLOTS, prelude_dirty, script_close },
    { "close-empty", BASE_BLOCKS, SLOTS, prelude_dirty, script_close_empty },
    { "format", BASE_BLOCKS, SLOTS, NULL, script_format },
    { "overwrite-foreign", BASE_BLOCKS, SLOTS, prelude_foreign,
      script_format },
    { "drop", BASE_BLOCKS, SLOTS, prelude_other, script_format },
    { "recovery", BASE_BLOCKS, SLOTS, prelude_crash, script_open },
    { "open-regions", BASE_BLOCKS, SLOTS, prelude_open_regions, script_open },
    { "stale-journal", 256, 1024, prelude_stale_journal,
      script_stale_journal },
    { "grow", BASE_BLOCKS, SLOTS, prelude_dirty, script_grow },
    { "shrink", BASE_BLOCKS, SLOTS, prelude_dirty, script_shrink },
    { "append", BASE_BLOCKS, SLOTS, prelude_dirty, script_append },
    { "append-through", BASE_BLOCKS, SLOTS, prelude_warm,
      script_append_through },
};
const unsigned scenario_count = sizeof(scenarios) / sizeof(*scenarios);

void scenario_begin(const Scenario *s)
{
    uint64_t base_bytes = (uint64_t)s->base_blocks * BLOCK_BYTES;
    WeirCacheLayout layout;

    coop_seed(s->base_blocks + s->slots);
    model_reset(s->base_blocks);
    host_init(base_bytes, base_bytes + 256 * BLOCK_BYTES,
              DATA_OFFSET + (uint64_t)s->slots * BLOCK_BYTES);
    if (weir_cache_layout(&layout, host.fast.bytes) < 0 ||
        layout.slots != s->slots) {
        fail("%u slots, not %u", layout.slots, s->slots);
    }
    if (s->prelude) {
        s->prelude();
        if (host.cache) {
            host_rest();
        }
    }
}

void scenario_go_on(void)
{
    mix(&(Mix) {
        .clients = 3, .requests = 10, .longest = 4, .reads = 20, .writes = 60,
        .zeroes = 10, .flushes = 10,
    });
    one(one_flush, 0, 0);
    /* instants at which the flush has been told */
    one(one_write, coop_below(model.blocks), 1);
    one(one_write, coop_below(model.blocks), 1);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Silent damage of the fast device: bytes that turn, slots that trade places or
 * hold what was there before, and a damaged table, journal or superblock. What
 * is clean comes from the base; of what is dirty nothing else is ever served.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "cache/cache-int.h"
#include "client.h"
#include "host.h"
#include "model.h"
#include "report.h"

#define BLOCKS 128
#define FAST_BYTES ((UINT64_C(2) << 20) + 256 * BLOCK_BYTES)
#define FIRST 10                        /* of the blocks that are written */
#define COUNT 12
#define JOURNAL_OFFSET (UINT64_C(2) * BLOCK_BYTES)

unsigned weir_cache_mutation;

static const char *test_now;
static int last_error;                  /* of a request */

static void place(void)
{
    printf(" (%s)", test_now);
}

static bool may_fail(const char *what, int error)
{
    (void)what;
    last_error = error;
    return true;
}

static void expect(const char *what, int64_t is, int64_t should_be)
{
    if (is != should_be) {
        fail("%s: %lld, not %lld", what, (long long)is, (long long)should_be);
    }
}

/* --- requests --- */

typedef struct Request {
    uint32_t block, count;
    int ret;
} Request;

static void write_client(void *arg)
{
    Request *r = arg;

    r->ret = client_write(r->block, r->count, CLIENT_DATA, false);
}

static void read_client(void *arg)
{
    Request *r = arg;

    r->ret = client_read(r->block, r->count);
}

static void flush_client(void *arg)
{
    ((Request *)arg)->ret = client_flush();
}

static void drain_client(void *arg)
{
    ((Request *)arg)->ret = weir_cache_drain(host.cache);
}

static int request(void (*fn)(void *arg), uint32_t block, uint32_t count)
{
    Request r = { block, count, 0 };

    host_run(fn, &r);
    return r.ret;
}

static void write_now(uint32_t block, uint32_t count)
{
    expect("write", request(write_client, block, count), 0);
}

static void flush_now(void)
{
    expect("flush", request(flush_client, 0, 0), 0);
}

static int read_now(uint32_t block)
{
    return request(read_client, block, 1);
}

/* All blocks but one, or but two. */
static void read_others(uint32_t one, uint32_t other)
{
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (i != one && i != other) {
            expect("read", read_now(i), 0);
        }
    }
}

/* --- the machine --- */

static int open_now(void)
{
    int ret = host_open(UINT32_MAX, MEM_CUT_KEEP);

    if (ret == 0) {
        host_start_worker();
    }
    return ret;
}

static void leave(void)
{
    host_stop_worker();
    weir_cache_free(host.cache);
    host.cache = NULL;
}

static void close_now(void)
{
    host_stop_worker();
    expect("close", host_close(), 0);
    weir_cache_free(host.cache);
    host.cache = NULL;
}

static void kill_now(void)
{
    host_power_off(MEM_CUT_ALL);
    host_run_until_quiet();
    leave();
    host_power_on();
    model_crash();
}

/* Dirty blocks FIRST.., flushed, and a block after them that tells so. */
static void begin(const char *name)
{
    test_now = name;
    client_may_fail = NULL;
    coop_seed(1);
    model_reset(BLOCKS);
    host_init(BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES, FAST_BYTES);
    host.config.idle_ms = 0;
    host.config.dirty_age_ms = 0;
    host.config.dirty_high_percent = 95;
    expect("open", open_now(), 0);
    write_now(FIRST, COUNT);
    flush_now();
    write_now(0, 1);
    flush_now();
    write_now(1, 1);
    flush_now();
    client_may_fail = may_fail;
}

static void end(void)
{
    leave();
    host_destroy();
    printf("%s\n", test_now);
}

static void drain_now(void)
{
    expect("drain", request(drain_client, 0, 0), 0);
}

static uint64_t slot_of(uint32_t block)
{
    uint32_t slot = weir_cache_index_find(&host.cache->ix, block);

    if (slot == NO_SLOT) {
        fail("block %u is not in the cache", block);
    }
    return slot_offset(host.cache, slot);
}

static WeirCacheInfo figures(void)
{
    WeirCacheInfo info;

    weir_cache_query(host.cache, &info);
    return info;
}

/* A block that cannot be served, until it is written again. */
static void expect_lost(uint32_t block)
{
    expect("read of a damaged block", read_now(block), -EIO);
}

static void write_again(uint32_t block)
{
    write_now(block, 1);
    expect("read", read_now(block), 0);
}

/* --- slots --- */

static void test_clean(void)
{
    begin("clean blocks are read from the base");
    drain_now();
    for (uint32_t i = 0; i < COUNT; i += 2) {
        memdisk_rot(&host.fast, slot_of(FIRST + i) + i * 372, 1);
    }
    client_may_fail = NULL;
    read_others(BLOCKS, BLOCKS);
    host_rest();
    expect("damaged clean blocks", (int64_t)figures().corrupt_clean, COUNT / 2);
    read_others(BLOCKS, BLOCKS);
    expect("damaged clean blocks", (int64_t)figures().corrupt_clean, COUNT / 2);
    audit_cache(true);
    end();
}

static void test_dirty(bool killed)
{
    begin(killed ? "a dirty block is an error after a crash, too"
                 : "a dirty block is an error");
    memdisk_rot(&host.fast, slot_of(FIRST + 3) + 4095, 1);
    if (killed) {
        kill_now();
        expect("open", open_now(), 0);
    }
    expect_lost(FIRST + 3);
    read_others(FIRST + 3, BLOCKS);
    if (!figures().corrupt_dirty) {
        fail("not counted");
    }
    expect("drain", request(drain_client, 0, 0), -EIO);
    expect("dirty blocks", (int64_t)figures().dirty, 1);
    expect_lost(FIRST + 3);
    write_again(FIRST + 3);
    drain_now();
    audit_base(true);
    end();
}

static void test_swap(bool clean)
{
    begin(clean ? "clean slots trade places" : "dirty slots trade places");
    if (clean) {
        drain_now();
    }
    memdisk_swap(&host.fast, slot_of(FIRST), slot_of(FIRST + 7), BLOCK_BYTES);
    if (clean) {
        read_others(BLOCKS, BLOCKS);
        expect("damaged", (int64_t)figures().corrupt_clean, 2);
    } else {
        expect_lost(FIRST);
        expect_lost(FIRST + 7);
        read_others(FIRST, FIRST + 7);
        write_again(FIRST);
        write_again(FIRST + 7);
        drain_now();
    }
    audit_base(false);
    end();
}

/* The checksum is of one version: an older one of the same block is damage. */
static void test_older(bool clean)
{
    uint64_t old;

    begin(clean ? "an older version of a clean block"
                : "an older version of a dirty block");
    old = slot_of(FIRST + 5);
    write_now(FIRST + 5, 1);
    flush_now();
    if (clean) {
        drain_now();
    }
    memdisk_swap(&host.fast, old, slot_of(FIRST + 5), BLOCK_BYTES);
    if (clean) {
        expect("read", read_now(FIRST + 5), 0);
    } else {
        expect_lost(FIRST + 5);
        write_again(FIRST + 5);
    }
    read_others(BLOCKS, BLOCKS);
    end();
}

/* --- what tells where they are --- */

static void test_table(bool clean)
{
    uint64_t table;

    begin(clean ? "the table of a clean cache" : "the table of a dirty cache");
    if (clean) {
        host.config.mode = WEIR_CACHE_WRITE_THROUGH;
        client_configure();
        drain_now();
        host_rest();
        host_run(flush_client, &(Request) { 0 });
    }
    table = host.cache->layout.table_offset;
    close_now();
    memdisk_rot(&host.fast, table + 100, 1);
    expect("open", open_now(), clean ? 0 : -EBADMSG);
    if (!clean) {
        host.open.lose_dirty = true;
        expect("open", open_now(), 0);
    }
    expect("blocks left", (int64_t)figures().mapped, 0);
    if (clean) {
        read_others(BLOCKS, BLOCKS);
    }
    end();
}

/* In the middle: the blocks behind it tell that it was there. */
static void test_journal(void)
{
    begin("the journal of a dirty cache");
    kill_now();
    memdisk_rot(&host.fast, JOURNAL_OFFSET + BLOCK_BYTES + 50, 1);
    expect("open", open_now(), -EBADMSG);
    host_destroy();
    printf("%s\n", test_now);
}

/*
 * The older copy holds then; it must not be taken for the state of things. With
 * dirty blocks from a life before, there is one change in this life.
 */
static void test_superblock(bool closed)
{
    uint64_t newest;

    begin(closed ? "the superblock of a life after a close"
                 : "the superblock of a life after a crash");
    if (closed) {
        close_now();
    } else {
        kill_now();
    }
    expect("open", open_now(), 0);
    write_now(FIRST, COUNT);
    flush_now();
    write_now(0, 1);
    flush_now();
    newest = host.cache->sb.sequence;
    kill_now();
    memdisk_rot(&host.fast, newest % 2 * BLOCK_BYTES + 60, 1);
    expect("open", open_now(), -EBADMSG);
    host_destroy();
    printf("%s\n", test_now);
}

int main(void)
{
    report.place = place;
    test_clean();
    test_dirty(false);
    test_dirty(true);
    test_swap(false);
    test_swap(true);
    test_older(false);
    test_older(true);
    test_table(true);
    test_table(false);
    test_journal();
    test_superblock(false);
    test_superblock(true);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPU time of weir-cache's engine for a request of 4 KiB at random, in one
 * thread, without I/O, for a small cache and for a large one; they take turns.
 * Medians. Both are full, so what comes in has to evict.
 *
 * usage: bench-cache-engine [--rounds N] [--requests N] [--size GIB]
 *     [--size GIB]
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "cache/index.h"
#include "made-cache.h"

#define SIZES 2
#define ROUNDS_MAX 999
#define GIB ((double)(1u << 30))

typedef struct Bench {
    MadeCache made;
    WeirCache *cache;
    WeirCacheIndex index;               /* with the same blocks in it */
    uint64_t missed;                    /* blocks that were read anew */
    double ns[ROUNDS_MAX];              /* per request, of each round */
} Bench;

typedef struct Operation {
    const char *name;
    void (*run)(Bench *b);
    /* what a run adds to these */
    unsigned read_hits, read_misses, fills, write_hits, fast_flushes;
} Operation;

static volatile uint32_t sink;          /* what is computed is needed */

static void __attribute__((noreturn)) die(const char *what)
{
    fprintf(stderr, "bench-cache-engine: %s\n", what);
    exit(1);
}

/* --- requests --- */

static uint64_t random_slot(Bench *b, uint32_t slots)
{
    return (made_random(&b->made) >> 32) * slots >> 32;
}

static WeirCacheGuest guest_of(Bench *b, struct iovec *iov)
{
    *iov = (struct iovec) { b->made.data, sizeof(b->made.data) };
    return (WeirCacheGuest) { .host = b->made.data, .iov = iov, .niov = 1 };
}

static void read_block(Bench *b, uint64_t block)
{
    struct iovec iov;
    WeirCacheGuest guest = guest_of(b, &iov);

    if (weir_cache_read(b->cache, block * WEIR_CACHE_BLOCK_BYTES,
                        WEIR_CACHE_BLOCK_BYTES, &guest) < 0) {
        die("a read failed");
    }
}

static void run_loop(Bench *b)
{
    sink = (uint32_t)made_block(&b->made, random_slot(b, b->made.mapped));
}

static void run_crc(Bench *b)
{
    uint64_t block = made_block(&b->made, random_slot(b, b->made.mapped));

    sink = weir_crc32c((uint32_t)block, b->made.data, sizeof(b->made.data));
}

static void run_lookup(Bench *b)
{
    sink = weir_cache_index_find(&b->index,
                                 made_block(&b->made,
                                            random_slot(b, b->made.mapped)));
}

static void run_lookup_miss(Bench *b)
{
    uint32_t slots = b->made.sb.layout.slots;

    sink = weir_cache_index_find(&b->index,
                                 made_block(&b->made,
                                            slots + random_slot(b, slots)));
}

static void run_hit(Bench *b)
{
    read_block(b, made_block(&b->made, random_slot(b, b->made.mapped)));
}

static void run_miss(Bench *b)
{
    uint64_t slot = b->made.sb.layout.slots + b->missed++;

    if (slot >> b->made.bits) {
        die("too many requests for a cache of that size");
    }
    read_block(b, made_block(&b->made, slot));
}

/* Over an eighth of the cache, so that it does not fill with dirty blocks. */
static void run_write(Bench *b)
{
    uint64_t block = made_block(&b->made, random_slot(b, b->made.mapped / 8));
    struct iovec iov;
    WeirCacheGuest guest = guest_of(b, &iov);

    if (weir_cache_write(b->cache, block * WEIR_CACHE_BLOCK_BYTES,
                         WEIR_CACHE_BLOCK_BYTES, &guest, false) < 0) {
        die("a write failed");
    }
}

static void run_write_flush(Bench *b)
{
    run_write(b);
    if (weir_cache_flush(b->cache) < 0) {
        die("a flush failed");
    }
}

static const Operation operations[] = {
    { "loop alone", run_loop, 0, 0, 0, 0, 0 },
    { "loop and checksum of 4 KiB", run_crc, 0, 0, 0, 0, 0 },
    { "look-up, hit", run_lookup, 0, 0, 0, 0, 0 },
    { "look-up, miss", run_lookup_miss, 0, 0, 0, 0, 0 },
    { "read, hit", run_hit, 1, 0, 0, 0, 0 },
    { "write", run_write, 0, 0, 0, 1, 0 },
    { "write and flush", run_write_flush, 0, 0, 0, 1, 1 },
    { "read, miss, fill, evict", run_miss, 0, 1, 1, 0, 0 },
};

/* --- rounds --- */

/*
 * The engine did what the operation is named after, and nothing else; hits do
 * not wake the worker each time. kicks: as many as there were before.
 */
static void check(const Operation *op, const Bench *b, unsigned requests,
                  const WeirCacheInfo *before, const WeirCacheInfo *after,
                  uint64_t kicks)
{
    if (after->read_hits - before->read_hits != op->read_hits * requests ||
        after->read_misses - before->read_misses !=
        op->read_misses * requests ||
        after->fills - before->fills != op->fills * requests ||
        after->write_hits - before->write_hits != op->write_hits * requests ||
        after->write_misses || after->corrupt_clean || after->corrupt_dirty ||
        after->fast_flushes - before->fast_flushes <
        op->fast_flushes * requests ||
        /* an eviction may have to wait for a dirty block */
        (!op->fills && (b->made.base_writes || b->made.base_flushes)) ||
        (op->read_hits && b->made.kicks - kicks > 1)) {
        die(op->name);
    }
}

static double round_of(const Operation *op, Bench *b, unsigned requests)
{
    WeirCacheInfo before, after;
    uint64_t kicks = b->made.kicks;
    uint64_t start, ns;

    weir_cache_query(b->cache, &before);
    b->made.base_writes = b->made.base_flushes = 0;
    b->made.kicked = true;              /* it is time for the worker */
    start = made_cpu_ns();
    for (unsigned i = 0; i < requests; i++) {
        op->run(b);
        made_cache_run(&b->made, b->cache);
        b->made.now_ns += 10000;
    }
    ns = made_cpu_ns() - start;
    weir_cache_query(b->cache, &after);
    check(op, b, requests, &before, &after, kicks);
    return (double)ns / requests;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *values, unsigned n)
{
    qsort(values, n, sizeof(*values), compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void measure(const Operation *op, Bench *benches, unsigned rounds,
                    unsigned requests)
{
    double ns[SIZES];

    for (unsigned r = 0; r < rounds; r++) {
        for (int i = 0; i < SIZES; i++) {
            benches[i].ns[r] = round_of(op, &benches[i], requests);
        }
    }
    for (int i = 0; i < SIZES; i++) {
        ns[i] = median(benches[i].ns, rounds);
    }
    printf("%-28s %8.0f ns %8.0f ns  RATIO %.2f\n", op->name, ns[0], ns[1],
           ns[1] / ns[0]);
    fflush(stdout);
}

/* --- setting up --- */

static void make_index(Bench *b)
{
    if (weir_cache_index_init(&b->index, b->made.sb.layout.slots, 1) < 0) {
        die("out of memory");
    }
    for (uint32_t slot = 0; slot < b->made.mapped; slot++) {
        weir_cache_index_take_slot(&b->index, slot);
        weir_cache_index_map(&b->index, slot, made_block(&b->made, slot), 0, 0);
    }
}

static void make(Bench *b, double gib)
{
    WeirCacheOpen options;
    char err[256];

    b->missed = 0;
    if (made_cache_init(&b->made, (uint64_t)(gib * GIB),
                        MADE_CLOSED) < 0) {
        die("cannot make up a cache of that size");
    }
    made_cache_options(&b->made, &options);
    if (weir_cache_open(&b->cache, &options, &made_cache_host, &b->made, err,
                        sizeof(err)) < 0) {
        die(err);
    }
    make_index(b);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = text ? strtod(text, &end) : 0;

    if (!text || end == text || *end || !(value >= least && value <= most)) {
        die("usage: bench-cache-engine [--rounds N] [--requests N] "
            "[--size GIB] [--size GIB]");
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "rounds", required_argument, NULL, 'r' },
        { "requests", required_argument, NULL, 'n' },
        { "size", required_argument, NULL, 's' },
        { NULL, 0, NULL, 0 },
    };
    static Bench benches[SIZES];
    double gib[SIZES] = { 1, 128 };
    unsigned rounds = 9, requests = 50000, given = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') {
            rounds = (unsigned)number(optarg, 1, ROUNDS_MAX);
        } else if (option == 'n') {
            requests = (unsigned)number(optarg, 1, 1e9);
        } else if (option == 's' && given < SIZES) {
            gib[given++] = number(optarg, 1.0 / 16, 16384);
        } else {
            number(NULL, 0, 0);
        }
    }
    for (int i = 0; i < SIZES; i++) {
        make(&benches[i], gib[i]);
    }
    printf("CPU time per request, %u rounds of %u; caches of %g and %g GiB, "
           "medians\n", rounds, requests, gib[0], gib[1]);
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        measure(&operations[i], benches, rounds, requests);
    }
    for (int i = 0; i < SIZES; i++) {
        weir_cache_free(benches[i].cache);
        weir_cache_index_destroy(&benches[i].index);
    }
    return 0;
}

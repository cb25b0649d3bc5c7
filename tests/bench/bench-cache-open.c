/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long it takes to open a large cache that is full: the engine's CPU time,
 * apart from that of its devices, which are made up, and what it reads and
 * writes. A cache that was closed; one in which no two blocks lie side by side;
 * one that was not closed and has a full journal.
 *
 * usage: bench-cache-open [--rounds N] [--size GIB]...
 *
 * Default: 4, 16 and 64 GiB. Memory: 5 GiB per TiB. The device is taken to read
 * and write 1 GB/s, and a single block in 100 us; "1 TiB" is the sum of CPU and
 * device for that much, in proportion.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "made-cache.h"

#define SIZES_MAX 16
#define KINDS (MADE_UNCLEAN + 1)
#define GIB (UINT64_C(1) << 30)
#define SLOTS_PER_TIB 268435456.0
#define JOURNAL_BYTES_MAX ((double)WEIR_CACHE_JOURNAL_BLOCKS_MAX * \
                           WEIR_CACHE_JOURNAL_BLOCK_BYTES)
#define DEVICE_BYTES_PER_S 1e9
#define DEVICE_BLOCK_S 100e-6           /* one at a time */

typedef struct Result {
    uint64_t phase_ns[MADE_PHASES];     /* the least of all rounds */
    uint64_t cpu_ns;
    uint64_t table_bytes, journal_bytes, written_bytes;
    uint64_t blocks_read, records;
    uint64_t slots, memory_bytes;
} Result;

static void __attribute__((noreturn)) die(const char *what)
{
    fprintf(stderr, "bench-cache-open: %s\n", what);
    exit(1);
}

/* All that was in the made-up cache has to be there. */
static void check(const MadeCache *made, const WeirCacheInfo *info)
{
    if (info->mapped != made->mapped ||
        info->recovered_records != made->journal_used * WEIR_CACHE_RECORDS ||
        info->dirty != info->recovered_records) {
        die("the cache is not what was made up");
    }
}

static void note(Result *r, const MadeCache *made, const WeirCacheInfo *info)
{
    uint64_t sum = 0;

    for (int i = 0; i < MADE_PHASES; i++) {
        sum += made->phase_ns[i];
    }
    if (r->cpu_ns && r->cpu_ns <= sum) {
        return;
    }
    *r = (Result) {
        .cpu_ns = sum, .table_bytes = made->table_read,
        .journal_bytes = made->journal_read,
        .written_bytes = made->fast_written, .blocks_read = made->blocks_read,
        .records = info->recovered_records, .slots = info->slots,
        .memory_bytes = info->memory_bytes,
    };
    memcpy(r->phase_ns, made->phase_ns, sizeof(r->phase_ns));
}

static void open_once(Result *r, uint64_t bytes, MadeKind kind)
{
    MadeCache *made = malloc(sizeof(*made));
    WeirCacheOpen options;
    WeirCacheInfo info;
    WeirCache *cache;
    char err[256];

    if (!made || made_cache_init(made, bytes, kind) < 0) {
        die("cannot make up a cache of that size");
    }
    made_cache_options(made, &options);
    made_cache_start(made);
    if (weir_cache_open(&cache, &options, &made_cache_host, made, err,
                        sizeof(err)) < 0) {
        die(err);
    }
    made_cache_stop(made);
    weir_cache_query(cache, &info);
    check(made, &info);
    note(r, made, &info);
    weir_cache_free(cache);
    free(made);
}

static double device_s(const Result *r)
{
    return (double)(r->table_bytes + r->journal_bytes + r->written_bytes) /
           DEVICE_BYTES_PER_S + (double)r->blocks_read * DEVICE_BLOCK_S;
}

/* All grows with the slots, but the journal no longer from 256 GiB on. */
static double for_one_tib(const Result *r)
{
    double times = SLOTS_PER_TIB / (double)r->slots;
    double journal_times = r->journal_bytes ? JOURNAL_BYTES_MAX /
                                              (double)r->journal_bytes : 0;
    double cpu_ns = (double)(r->cpu_ns - r->phase_ns[MADE_JOURNAL]) * times +
                    (double)r->phase_ns[MADE_JOURNAL] * journal_times;
    double bytes = (double)(r->table_bytes + r->written_bytes) * times +
                   (double)r->journal_bytes * journal_times;

    return cpu_ns / 1e9 + bytes / DEVICE_BYTES_PER_S +
           (double)r->blocks_read * DEVICE_BLOCK_S;
}

static void print(double gib, MadeKind kind, const Result *r)
{
    static const char *const names[MADE_PHASES] = {
        "set up", "table", "journal", "save", "rest",
    };
    static const char *const kinds[KINDS] = {
        "closed", "scattered", "unclean",
    };
    double slots = (double)r->slots;

    printf("%7.2f GiB %-10s %6.2f ns per slot:", gib,
           kinds[kind], (double)r->cpu_ns / slots);
    for (int i = 0; i < MADE_PHASES; i++) {
        if (kind == MADE_UNCLEAN || (i != MADE_JOURNAL && i != MADE_SAVE)) {
            printf(" %s %.2f", names[i], (double)r->phase_ns[i] / slots);
        }
    }
    printf("\n    table %.0f MB at %.0f MB/s; CPU %.3f s, device %.3f s, sum "
           "%.3f s; 1 TiB: %.2f s\n", (double)r->table_bytes / 1e6,
           (double)r->table_bytes / (double)r->cpu_ns * 1e3,
           (double)r->cpu_ns / 1e9, device_s(r),
           (double)r->cpu_ns / 1e9 + device_s(r), for_one_tib(r));
    if (kind == MADE_UNCLEAN) {
        printf("    journal %.0f MB, %" PRIu64 " records, %.0f ns each; "
               "%" PRIu64 " blocks read to check them; %.0f MB written\n",
               (double)r->journal_bytes / 1e6, r->records,
               r->records ? (double)r->phase_ns[MADE_JOURNAL] /
                            (double)r->records : 0,
               r->blocks_read, (double)r->written_bytes / 1e6);
    } else {
        printf("    memory %.2f bytes per slot\n",
               (double)r->memory_bytes / slots);
    }
}

static void measure(double gib, unsigned rounds)
{
    Result result[KINDS] = { 0 };

    for (unsigned i = 0; i < rounds; i++) {
        for (MadeKind kind = 0; kind < KINDS; kind++) {
            open_once(&result[kind], (uint64_t)(gib * (double)GIB), kind);
        }
    }
    for (MadeKind kind = 0; kind < KINDS; kind++) {
        print(gib, kind, &result[kind]);
    }
    fflush(stdout);
}

static double number(const char *text, double least)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= least && value <= 16384)) {
        die("usage: bench-cache-open [--rounds N] [--size GIB]...");
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "rounds", required_argument, NULL, 'r' },
        { "size", required_argument, NULL, 's' },
        { NULL, 0, NULL, 0 },
    };
    double size[SIZES_MAX] = { 4, 16, 64 };
    unsigned rounds = 3, given = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') {
            rounds = (unsigned)number(optarg, 1);
        } else if (option == 's' && given < SIZES_MAX) {
            size[given++] = number(optarg, 1.0 / 16);
        } else {
            number("", 0);
        }
    }
    for (unsigned i = 0; i < (given ? given : 3); i++) {
        measure(size[i], rounds);
    }
    return 0;
}

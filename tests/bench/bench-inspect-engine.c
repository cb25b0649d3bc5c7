/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the engines cost per request, in one thread: the calls that a filter
 * makes, without any I/O. All variants take turns in each round, and the best
 * round of each counts, so that what else the machine does touches all alike.
 *
 * usage: bench-inspect-engine [ROUNDS]
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/iostat.h"
#include "inspect/inspect.h"

#define BLOCK 4096
#define REQUESTS_PER_ROUND 100000
#define BUFFER_BYTES (4u << 20)
#define DISK_BYTES (UINT64_C(64) << 30)

typedef struct Workload {
    const char *name;
    uint64_t disk_bytes;
    uint64_t request_bytes;
    bool is_random;
} Workload;

typedef struct Variant {
    const char *name;
    bool iostat;
    bool inspect;
    bool working_set;
    bool entropy;
    WeirInspect *in;
    uint64_t random;
    uint64_t requests;              /* made so far; the clock, too */
    double best_ns;
} Variant;

static WeirIostat stat;
static uint8_t buffer[BUFFER_BYTES];

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

static void request(Variant *v, const Workload *w, uint64_t offset, bool write)
{
    struct iovec iov = {
        buffer + offset % (BUFFER_BYTES - w->request_bytes + 1) / BLOCK * BLOCK,
        w->request_bytes,
    };

    if (v->iostat) {
        weir_iostat_begin(&stat, write ? WEIR_IO_WRITE : WEIR_IO_READ);
    }
    if (v->inspect) {
        weir_inspect_request(v->in, write, offset, w->request_bytes);
        if (weir_inspect_wants_data(v->in, offset, w->request_bytes)) {
            weir_inspect_data(v->in, write, offset, w->request_bytes, &iov, 1,
                              0, v->requests);
        }
    }
    if (v->iostat) {
        weir_iostat_end(&stat, write ? WEIR_IO_WRITE : WEIR_IO_READ,
                        w->request_bytes, offset & 0xffff, false);
    }
}

static void round_of(Variant *v, const Workload *w, unsigned requests)
{
    uint64_t slots = w->disk_bytes / w->request_bytes;
    uint64_t start = now_ns();
    double ns;

    for (unsigned i = 0; i < requests; i++) {
        uint64_t random = next_random(&v->random);
        uint64_t slot = (w->is_random ? random : v->requests) % slots;

        request(v, w, slot * w->request_bytes, random >> 63);
        v->requests++;
    }
    ns = (double)(now_ns() - start) / requests;
    if (v->best_ns == 0 || ns < v->best_ns) {
        v->best_ns = ns;
    }
}

static void make(Variant *v)
{
    WeirInspectConfig config;

    weir_inspect_config_default(&config);
    config.working_set = v->working_set;
    config.entropy = v->entropy;
    v->random = 0;
    v->requests = 0;
    v->best_ns = 0;
    if (weir_inspect_new(&v->in, &config) < 0) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
}

static void run(const Workload *w, unsigned rounds)
{
    Variant variants[] = {
        { .name = "loop alone" },
        { .name = "generic statistics", .iostat = true },
        { .name = "traffic", .inspect = true },
        { .name = "working set", .inspect = true, .working_set = true },
        { .name = "entropy", .inspect = true, .entropy = true },
        { .name = "all", .iostat = true, .inspect = true, .working_set = true,
          .entropy = true },
    };
    const unsigned count = sizeof(variants) / sizeof(variants[0]);
    unsigned requests = (unsigned)(REQUESTS_PER_ROUND * BLOCK /
                                   w->request_bytes);

    for (unsigned i = 0; i < count; i++) {
        make(&variants[i]);
    }
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < count; i++) {
            round_of(&variants[i], w, requests);
        }
    }
    printf("%s\n", w->name);
    for (unsigned i = 0; i < count; i++) {
        printf("  %-20s %8.1f ns/request, %+8.1f over the loop, ratio %.2f\n",
               variants[i].name, variants[i].best_ns,
               variants[i].best_ns - variants[0].best_ns,
               variants[i].best_ns / variants[0].best_ns);
        weir_inspect_free(variants[i].in);
    }
}

int main(int argc, char **argv)
{
    const Workload workloads[] = {
        { "4 KiB random, 64 GiB disk", DISK_BYTES, BLOCK, true },
        { "4 KiB random, 1 GiB disk", UINT64_C(1) << 30, BLOCK, true },
        { "4 KiB random, 16 MiB disk", 16 << 20, BLOCK, true },
        { "4 KiB sequential, 64 GiB disk", DISK_BYTES, BLOCK, false },
        { "64 KiB random, 64 GiB disk", DISK_BYTES, 65536, true },
        { "1 MiB sequential, 64 GiB disk", DISK_BYTES, 1 << 20, false },
    };
    int rounds = argc > 1 ? atoi(argv[1]) : 30;
    uint64_t random = 1;

    if (rounds < 1) {
        fprintf(stderr, "usage: bench-inspect-engine [ROUNDS]\n");
        return 1;
    }
    for (unsigned i = 0; i < BUFFER_BYTES; i++) {
        buffer[i] = (uint8_t)(next_random(&random) >> 40);
    }
    weir_iostat_init(&stat);
    for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
        run(&workloads[i], (unsigned)rounds);
    }
    return 0;
}

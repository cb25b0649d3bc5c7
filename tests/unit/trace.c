/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 4096
#define SECTOR_BYTES 512

static void fail(const char *name, const char *what)
{
    fprintf(stderr, "trace %s: %s\n", name, what);
    abort();
}

static void *grow(void *p, size_t count, size_t size)
{
    p = realloc(p, (count ? count : 1) * size);
    if (!p) {
        abort();
    }
    return p;
}

uint64_t trace_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

/* --- requests --- */

void trace_add(Trace *trace, uint64_t first, uint32_t blocks, bool write)
{
    if (trace->count == trace->room) {
        trace->room = trace->room ? 2 * trace->room : 1024;
        trace->range = grow(trace->range, trace->room,
                            sizeof(*trace->range));
    }
    trace->range[trace->count++] = (TraceRange) { first, blocks, write };
}

void trace_add_bytes(Trace *trace, uint64_t offset, uint64_t bytes,
                     bool write)
{
    if (bytes) {
        uint64_t first = offset / BLOCK_BYTES;
        uint64_t last = (offset + bytes - 1) / BLOCK_BYTES;

        trace_add(trace, first, (uint32_t)(last - first + 1), write);
    }
}

void trace_add_zipf(Trace *trace, uint64_t blocks, size_t accesses,
                    uint64_t seed)
{
    for (size_t i = 0; i < accesses; i++) {
        double u = (double)(trace_random(&seed) >> 11) * 0x1p-53;
        uint64_t k = (uint64_t)pow(u * pow((double)blocks, 0.1), 10);

        trace_add(trace, (k < blocks ? k : 0) * 977 % (blocks * 8), 1,
                  i % 3 == 2);
    }
}

void trace_free(Trace *trace)
{
    free(trace->range);
    memset(trace, 0, sizeof(*trace));
}

/* --- recorded traces --- */

static FILE *open_trace(const char *name)
{
    const char *folder = getenv("WEIR_TRACES");
    char path[4096];
    char command[8192];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.zst", folder ? folder : WEIR_TRACES,
             name);
    if (access(path, R_OK) != 0) {
        printf("SKIP %s: no trace at %s\n", name, path);
        return NULL;
    }
    snprintf(command, sizeof(command), "zstd -dc '%s'", path);
    file = popen(command, "r");
    if (!file) {
        fail(name, "cannot start zstd");
    }
    return file;
}

static void read_arc(Trace *trace, FILE *file)
{
    unsigned long long start, count;

    for (size_t i = 0;
         fscanf(file, "%llu %llu %*u %*u", &start, &count) == 2; i++) {
        trace_add_bytes(trace, start * SECTOR_BYTES, count * SECTOR_BYTES,
                        i % 3 == 2);
    }
}

static uint64_t little_endian(const uint8_t *p, int bytes)
{
    uint64_t value = 0;

    while (bytes--) {
        value = value << 8 | p[bytes];
    }
    return value;
}

static void read_vscsi(Trace *trace, FILE *file)
{
    uint8_t record[32];

    while (fread(record, sizeof(record), 1, file) == 1) {
        trace_add_bytes(trace, little_endian(record + 16, 8) * SECTOR_BYTES,
                        little_endian(record + 4, 4),
                        little_endian(record + 12, 2) == 0x2a);
    }
}

static void read_disksim(Trace *trace, FILE *file)
{
    unsigned long long start, count;
    unsigned flags;

    while (fscanf(file, "%*f %*d %llu %llu %u", &start, &count,
                  &flags) == 3) {
        trace_add_bytes(trace, start * SECTOR_BYTES, count * SECTOR_BYTES,
                        !(flags & 1));
    }
}

static const struct {
    const char *ending;
    void (*read)(Trace *trace, FILE *file);
} formats[] = {
    { ".lis", read_arc },
    { ".vscsi", read_vscsi },
    { ".trace", read_disksim },
};

bool trace_read(Trace *trace, const char *name)
{
    const char *ending = strrchr(name, '.');
    FILE *file = open_trace(name);
    size_t before = trace->count;

    if (!file) {
        return false;
    }
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (ending && !strcmp(ending, formats[i].ending)) {
            formats[i].read(trace, file);
        }
    }
    /* a decompressor that is missing or fails must not look like a short one */
    if (pclose(file) != 0 || trace->count - before < 90000) {
        fail(name, "cannot be read");
    }
    return true;
}

/* --- access by access --- */

typedef struct Numbers {
    uint32_t *number;                   /* 1 + number, 0: empty */
    uint64_t mask;
} Numbers;

static uint32_t number_of(Numbers *numbers, TraceAccesses *out, uint64_t block)
{
    uint64_t i = block * UINT64_C(0x9e3779b97f4a7c15) >> 20 & numbers->mask;

    while (numbers->number[i] && out->block[numbers->number[i] - 1] != block) {
        i = (i + 1) & numbers->mask;
    }
    if (!numbers->number[i]) {
        out->block[out->blocks] = block;
        numbers->number[i] = ++out->blocks;
    }
    return numbers->number[i] - 1;
}

void trace_accesses(const Trace *trace, TraceAccesses *out)
{
    Numbers numbers = { .mask = 1023 };
    size_t count = 0;

    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < trace->count; i++) {
        count += trace->range[i].blocks;
    }
    while (numbers.mask < 2 * count) {
        numbers.mask = 2 * numbers.mask + 1;
    }
    numbers.number = calloc(numbers.mask + 1, sizeof(*numbers.number));
    if (!numbers.number) {
        abort();
    }
    out->number = grow(NULL, count, sizeof(*out->number));
    out->write = grow(NULL, count, sizeof(*out->write));
    out->block = grow(NULL, count, sizeof(*out->block));
    for (size_t i = 0; i < trace->count; i++) {
        TraceRange range = trace->range[i];

        for (uint32_t k = 0; k < range.blocks; k++) {
            out->write[out->count] = range.write;
            out->number[out->count++] = number_of(&numbers, out,
                                                  range.first + k);
        }
    }
    out->block = grow(out->block, out->blocks, sizeof(*out->block));
    free(numbers.number);
}

void trace_accesses_free(TraceAccesses *accesses)
{
    free(accesses->number);
    free(accesses->write);
    free(accesses->block);
    memset(accesses, 0, sizeof(*accesses));
}

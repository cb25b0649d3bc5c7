/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trace-ideal: a recorded trace as weir-cache-sim reads it, and what exact
 * caches make of it.
 *
 * usage: trace-ideal NAME FILE
 *
 * Writes FILE. Prints a line for each of five sizes, 1 to 40 % of the distinct
 * blocks: the size in blocks, and the misses of S3-FIFO, LRU and ARC. Prints
 * nothing when there is no such trace.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit/reference-cache.h"
#include "../unit/trace.h"

static void write_lines(const TraceAccesses *trace, const char *path)
{
    FILE *file = fopen(path, "w");

    if (!file) {
        perror(path);
        exit(1);
    }
    for (size_t i = 0; i < trace->count; i++) {
        fprintf(file, "%c %" PRIu64 "\n", trace->write[i] ? 'W' : 'R',
                trace->block[trace->number[i]]);
    }
    if (fclose(file)) {
        perror(path);
        exit(1);
    }
}

static void print_ideal(const TraceAccesses *trace)
{
    static const unsigned percents[] = { 1, 5, 10, 20, 40 };

    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        uint32_t blocks = (uint32_t)((uint64_t)trace->blocks * percents[i] /
                                     100);

        printf("%" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", blocks,
               reference_s3fifo(trace, blocks, (ReferenceS3Fifo) { 2, true }),
               reference_lru(trace, blocks), reference_arc(trace, blocks));
    }
}

int main(int argc, char **argv)
{
    TraceAccesses accesses;
    Trace trace = { 0 };

    if (argc != 3) {
        fprintf(stderr, "usage: trace-ideal NAME FILE\n");
        return 2;
    }
    if (!trace_read(&trace, argv[1])) {
        return 0;
    }
    trace_accesses(&trace, &accesses);
    trace_free(&trace);
    write_lines(&accesses, argv[2]);
    print_ideal(&accesses);
    trace_accesses_free(&accesses);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_TRACE_H
#define WEIR_TESTS_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Sequences of block accesses, in blocks of 4 KiB: recorded traces, where there
 * are any, and synthetic ones. Memory for all of it; ends the program when
 * there is none.
 */
typedef struct TraceRange {
    uint64_t first;
    uint32_t blocks;
    bool write;
} TraceRange;

typedef struct Trace {
    TraceRange *range;                  /* the requests, in order */
    size_t count;
    size_t room;
} Trace;

void trace_add(Trace *trace, uint64_t first, uint32_t blocks, bool write);

/*
 * A request in bytes: all blocks that it touches. bytes: 0 adds nothing.
 */
void trace_add_bytes(Trace *trace, uint64_t offset, uint64_t bytes,
                     bool write);

/*
 * Read a recorded trace: "P3.lis", "P6.lis", "cloudPhysicsIO.vscsi" or
 * "ssd-iozone-aligned2-100K.trace" in the folder that the environment's
 * WEIR_TRACES names, else WEIR_TRACES of the build. ARC's traces (*.lis) do not
 * tell reads from writes: each third request stands for a write.
 * Returns false, with a message, when there is no such file; ends the program
 * when it cannot be read or is not what it should be.
 */
bool trace_read(Trace *trace, const char *name);

/*
 * `accesses` single blocks of 0..blocks-1, block k with a probability of about
 * 1 / (k + 1)^0.9, spread over the disk. A third are writes.
 */
void trace_add_zipf(Trace *trace, uint64_t blocks, size_t accesses,
                    uint64_t seed);

void trace_free(Trace *trace);

/* The same accesses one by one, the blocks numbered 0.. as they turn up. */
typedef struct TraceAccesses {
    uint32_t *number;
    bool *write;
    size_t count;
    uint64_t *block;                    /* of each number */
    uint32_t blocks;                    /* distinct ones */
} TraceAccesses;

void trace_accesses(const Trace *trace, TraceAccesses *out);
void trace_accesses_free(TraceAccesses *accesses);

/* Numbers that look random; state: any seed. */
uint64_t trace_random(uint64_t *state);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "encryption/buffers.h"

#define SMALL_BYTES (64 * 1024)
#define SMALL_COUNT 128
#define LARGE_BYTES WEIR_BUFFERS_BYTES_MAX
#define LARGE_COUNT 8
#define SMALL_ALL_BYTES ((size_t)SMALL_BYTES * SMALL_COUNT)
#define ALL_BYTES (SMALL_ALL_BYTES + (size_t)LARGE_BYTES * LARGE_COUNT)

/* The small ones come first. The last one given back is taken next. */
struct WeirBuffers {
    uint8_t *memory;
    unsigned small_idle, large_idle;
    void *small[SMALL_COUNT];
    void *large[LARGE_COUNT];
};

static void make_idle(WeirBuffers *buffers)
{
    uint8_t *large = buffers->memory + SMALL_ALL_BYTES;

    while (buffers->small_idle < SMALL_COUNT) {
        buffers->small[buffers->small_idle] =
            buffers->memory + (size_t)buffers->small_idle * SMALL_BYTES;
        buffers->small_idle++;
    }
    while (buffers->large_idle < LARGE_COUNT) {
        buffers->large[buffers->large_idle] =
            large + (size_t)buffers->large_idle * LARGE_BYTES;
        buffers->large_idle++;
    }
}

int weir_buffers_new(WeirBuffers **out)
{
    WeirBuffers *buffers = calloc(1, sizeof(*buffers));

    *out = NULL;
    if (!buffers) {
        return -ENOMEM;
    }
    buffers->memory = mmap(NULL, ALL_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (buffers->memory == MAP_FAILED) {
        free(buffers);
        return -ENOMEM;
    }
    madvise(buffers->memory, ALL_BYTES, MADV_DONTDUMP);
    make_idle(buffers);
    *out = buffers;
    return 0;
}

void weir_buffers_free(WeirBuffers *buffers)
{
    if (buffers) {
        munmap(buffers->memory, ALL_BYTES);
        free(buffers);
    }
}

void *weir_buffers_take(WeirBuffers *buffers, size_t bytes)
{
    if (bytes <= SMALL_BYTES) {
        return buffers->small_idle ? buffers->small[--buffers->small_idle]
                                   : NULL;
    }
    return bytes <= LARGE_BYTES && buffers->large_idle
           ? buffers->large[--buffers->large_idle] : NULL;
}

void weir_buffers_give(WeirBuffers *buffers, void *buffer)
{
    size_t offset = (uint8_t *)buffer - buffers->memory;

    if (offset < SMALL_ALL_BYTES) {
        buffers->small[buffers->small_idle++] = buffer;
    } else {
        buffers->large[buffers->large_idle++] = buffer;
    }
}

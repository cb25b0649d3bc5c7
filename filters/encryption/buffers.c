/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "encryption/buffers.h"

#define KIB 1024
#define SIZES 3
#define COUNT_MAX 128

/* From small to large. A request must not wait for much larger ones. */
static const struct {
    size_t bytes;
    unsigned count;
} sizes[SIZES] = {
    { 64 * KIB, COUNT_MAX }, { 256 * KIB, 16 }, { WEIR_BUFFERS_BYTES_MAX, 8 },
};

/* Those of a size lie together. The last one given back is taken next. */
typedef struct Size {
    uint8_t *end;               /* of all of them */
    unsigned idle;
    void *buffer[COUNT_MAX];
} Size;

struct WeirBuffers {
    uint8_t *memory;
    Size size[SIZES];
};

static size_t all_bytes(void)
{
    size_t bytes = 0;

    for (int i = 0; i < SIZES; i++) {
        bytes += sizes[i].bytes * sizes[i].count;
    }
    return bytes;
}

static void make_idle(WeirBuffers *buffers)
{
    uint8_t *at = buffers->memory;

    for (int i = 0; i < SIZES; i++) {
        Size *size = &buffers->size[i];

        for (; size->idle < sizes[i].count; at += sizes[i].bytes) {
            size->buffer[size->idle++] = at;
        }
        size->end = at;
    }
}

int weir_buffers_new(WeirBuffers **out)
{
    WeirBuffers *buffers = calloc(1, sizeof(*buffers));

    *out = NULL;
    if (!buffers) {
        return -ENOMEM;
    }
    buffers->memory = mmap(NULL, all_bytes(), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (buffers->memory == MAP_FAILED) {
        free(buffers);
        return -ENOMEM;
    }
    madvise(buffers->memory, all_bytes(), MADV_DONTDUMP);
    make_idle(buffers);
    *out = buffers;
    return 0;
}

void weir_buffers_free(WeirBuffers *buffers)
{
    if (buffers) {
        munmap(buffers->memory, all_bytes());
        free(buffers);
    }
}

void *weir_buffers_take(WeirBuffers *buffers, size_t bytes)
{
    for (int i = 0; i < SIZES; i++) {
        Size *size = &buffers->size[i];

        if (bytes <= sizes[i].bytes) {
            return size->idle ? size->buffer[--size->idle] : NULL;
        }
    }
    return NULL;
}

void weir_buffers_give(WeirBuffers *buffers, void *buffer)
{
    Size *size = buffers->size;

    while ((uint8_t *)buffer >= size->end) {
        size++;
    }
    size->buffer[size->idle++] = buffer;
}

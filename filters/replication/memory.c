/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define NO_SLAB UINT32_MAX

struct WeirMemory {
    uint8_t *slabs;
    uint32_t count;
    uint32_t filling;           /* pieces come from this one; or NO_SLAB */
    uint32_t filled_bytes;      /* of it */
    uint32_t idle_count;
    uint32_t *idle;             /* the last one is taken next */
    uint32_t *pieces;           /* [slab]: that are out; one more while it is
                                   being filled */
};

int weir_memory_new(WeirMemory **out, uint64_t max_bytes)
{
    uint64_t count = max_bytes / WEIR_MEMORY_SLAB_BYTES;
    WeirMemory *m = calloc(1, sizeof(*m));

    *out = NULL;
    if (!m) {
        return -ENOMEM;
    }
    m->count = (uint32_t)(count < 2 ? 2 : count);
    m->filling = NO_SLAB;
    m->idle = calloc(m->count, sizeof(*m->idle));
    m->pieces = calloc(m->count, sizeof(*m->pieces));
    m->slabs = mmap(NULL, (size_t)m->count * WEIR_MEMORY_SLAB_BYTES,
                    PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->slabs == MAP_FAILED) {
        m->slabs = NULL;
    }
    if (!m->idle || !m->pieces || !m->slabs) {
        weir_memory_free(m);
        return -ENOMEM;
    }
    while (m->idle_count < m->count) {
        m->idle[m->idle_count] = m->count - 1 - m->idle_count;
        m->idle_count++;
    }
    *out = m;
    return 0;
}

void weir_memory_free(WeirMemory *m)
{
    if (!m) {
        return;
    }
    if (m->slabs) {
        munmap(m->slabs, (size_t)m->count * WEIR_MEMORY_SLAB_BYTES);
    }
    free(m->pieces);
    free(m->idle);
    free(m);
}

static void drop(WeirMemory *m, uint32_t slab)
{
    if (--m->pieces[slab] == 0) {
        m->idle[m->idle_count++] = slab;
    }
}

/* Another slab to fill, or the same one if nothing of it is out. */
static int next_slab(WeirMemory *m)
{
    if (m->filling != NO_SLAB && m->pieces[m->filling] == 1) {
        m->filled_bytes = 0;
        return 0;
    }
    if (m->idle_count == 0) {
        return -EAGAIN;
    }
    if (m->filling != NO_SLAB) {
        drop(m, m->filling);
    }
    m->filling = m->idle[--m->idle_count];
    m->filled_bytes = 0;
    m->pieces[m->filling] = 1;
    return 0;
}

int weir_memory_take(WeirMemory *m, size_t bytes, WeirPiece *piece)
{
    if (m->filling == NO_SLAB ||
        bytes > WEIR_MEMORY_SLAB_BYTES - m->filled_bytes) {
        int ret = next_slab(m);

        if (ret < 0) {
            return ret;
        }
    }
    piece->slab = m->filling;
    piece->data = m->slabs + (size_t)m->filling * WEIR_MEMORY_SLAB_BYTES +
                  m->filled_bytes;
    m->pieces[m->filling]++;
    m->filled_bytes += (uint32_t)((bytes + WEIR_MEMORY_ALIGN_BYTES - 1) /
                                  WEIR_MEMORY_ALIGN_BYTES *
                                  WEIR_MEMORY_ALIGN_BYTES);
    return 0;
}

void weir_memory_give(WeirMemory *m, const WeirPiece *piece)
{
    drop(m, piece->slab);
}

uint64_t weir_memory_used_bytes(const WeirMemory *m)
{
    return (uint64_t)(m->count - m->idle_count) * WEIR_MEMORY_SLAB_BYTES;
}

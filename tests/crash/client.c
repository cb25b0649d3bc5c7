/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client.h"

#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "host.h"
#include "model.h"
#include "report.h"

#define ZEROES_PAST_BLOCKS 1000         /* so many may go past the cache */
#define VERIFY_BLOCKS 32                /* read at a time */

bool (*client_may_fail)(const char *what, int error);

/* The memory of a request. */
typedef struct Memory {
    uint8_t *data;
    struct iovec iov;
    WeirCacheGuest guest;
} Memory;

static void memory_get(Memory *m, uint32_t blocks)
{
    m->iov.iov_len = (size_t)blocks * WEIR_CACHE_BLOCK_BYTES;
    m->iov.iov_base = m->data = malloc(m->iov.iov_len);
    m->guest = (WeirCacheGuest) { .host = m->data, .iov = &m->iov, .niov = 1 };
}

/* Returns whether a request was carried out. */
static bool succeeded(const char *what, int ret)
{
    if (host.crashed) {
        return false;
    }
    if (ret < 0 && (!client_may_fail || !client_may_fail(what, ret))) {
        fail("%s failed: %s", what, strerror(-ret));
    }
    return ret == 0;
}

int client_read(uint32_t block, uint32_t count)
{
    Block *before = malloc(count * sizeof(*before));
    Memory m;
    int ret;

    memory_get(&m, count);
    memcpy(before, &model.block[block], count * sizeof(*before));
    ret = weir_cache_read(host.cache, (uint64_t)block * WEIR_CACHE_BLOCK_BYTES,
                          m.iov.iov_len, &m.guest);
    if (succeeded("read", ret)) {
        for (uint32_t i = 0; i < count; i++) {
            model_check_read(block + i, m.data +
                             (size_t)i * WEIR_CACHE_BLOCK_BYTES, &before[i]);
        }
    }
    free(before);
    free(m.data);
    return ret;
}

/* Whether a write may go past the cache, now or when it gets its turn. */
static bool may_go_past(uint32_t count, ClientWrite how)
{
    return host.config.mode != WEIR_CACHE_WRITE_BACK ||
           host.config.bypass_sequential_bytes || how == CLIENT_DISCARD ||
           (how == CLIENT_ZEROES && count > ZEROES_PAST_BLOCKS) ||
           client_may_fail;
}

static int send_write(const Memory *m, uint64_t offset, ClientWrite how,
                      bool fua)
{
    switch (how) {
    case CLIENT_DATA:
        return weir_cache_write(host.cache, offset, m->iov.iov_len, &m->guest,
                                fua);
    case CLIENT_ZEROES:
        return weir_cache_zero(host.cache, offset, m->iov.iov_len, true, fua);
    case CLIENT_DISCARD:
        return weir_cache_discard(host.cache, offset, m->iov.iov_len);
    }
    abort();
}

/* So that the disk has so many blocks. */
static int grow(uint32_t blocks)
{
    uint64_t bytes = (uint64_t)blocks * WEIR_CACHE_BLOCK_BYTES;
    int ret;

    if (blocks <= model.blocks && bytes <= host.base.bytes) {
        return 0;
    }
    model_will_grow(blocks);
    ret = weir_cache_grow(host.cache, bytes);
    if (succeeded("grow", ret) && blocks > model.blocks) {
        trace(UINT32_MAX, "%u blocks", blocks);
        model_resize(blocks, false);
    }
    return ret;
}

static int write_inside(uint32_t block, uint32_t count, ClientWrite how,
                        bool fua)
{
    uint32_t *version = malloc(count * sizeof(*version));
    bool past = may_go_past(count, how);
    Memory m;
    int ret;

    memory_get(&m, count);
    model_write_begin(block, count, how == CLIENT_DATA ? m.data : NULL, past,
                      version);
    ret = send_write(&m, (uint64_t)block * WEIR_CACHE_BLOCK_BYTES, how, fua);
    if (succeeded("write", ret)) {
        model_write_end(block, count, version, fua);
    } else if (!host.crashed) {
        model_write_failed(block, count, past);
    }
    free(version);
    free(m.data);
    return ret;
}

int client_write(uint32_t block, uint32_t count, ClientWrite how, bool fua)
{
    int ret = how == CLIENT_DISCARD ? 0 : grow(block + count);

    if (ret < 0 || host.crashed || !model_may_write(block, count)) {
        return ret;
    }
    return write_inside(block, count, how, fua);
}

/* As a driver does it: the cache is told before and afterwards. */
static int resize(uint64_t bytes)
{
    bool shrinks = bytes < host.base.bytes;
    int ret = shrinks ? weir_cache_drain(host.cache) : 0;

    if (ret == 0) {
        ret = weir_cache_will_resize(host.cache);
    }
    if (ret == 0 && shrinks) {
        ret = weir_cache_resize(host.cache, bytes);
    }
    if (ret == 0) {
        ret = memdisk_request(&host.base, MEM_RESIZE, bytes, 0, NULL, NULL);
    }
    if (ret == 0 && !shrinks) {
        ret = weir_cache_resize(host.cache, bytes);
    }
    return ret;
}

int client_resize(uint32_t blocks)
{
    bool shrinks = blocks < model.blocks;
    int ret;

    model_will_resize(blocks);
    ret = resize((uint64_t)blocks * WEIR_CACHE_BLOCK_BYTES);
    if (succeeded("resize", ret)) {
        trace(UINT32_MAX, "resized to %u blocks", blocks);
        model_resize(blocks, !shrinks);
    }
    return ret;
}

int client_flush(void)
{
    ModelFlush *flush = malloc(sizeof(*flush));
    int ret;

    model_flush_begin(flush);
    ret = weir_cache_flush(host.cache);
    if (succeeded("flush", ret)) {
        model_flush_end(flush);
        audit_base(false);
    }
    free(flush);
    return ret;
}

void client_configure(void)
{
    /* those under way may find the one mode or the other */
    model_mode_changes();
    weir_cache_configure(host.cache, &host.config);
    trace(UINT32_MAX, "mode %d", host.config.mode);
}

static int verify_range(uint32_t block, uint32_t count, uint8_t *data)
{
    struct iovec iov = { data, (size_t)count * WEIR_CACHE_BLOCK_BYTES };
    WeirCacheGuest guest = { .host = data, .iov = &iov, .niov = 1 };
    int ret = weir_cache_read(host.cache,
                              (uint64_t)block * WEIR_CACHE_BLOCK_BYTES,
                              iov.iov_len, &guest);

    for (uint32_t i = 0; i < count && succeeded("read", ret); i++) {
        model_check_found(block + i, data + (size_t)i * WEIR_CACHE_BLOCK_BYTES);
    }
    return ret;
}

int client_verify(bool all)
{
    uint8_t *data = malloc((size_t)VERIFY_BLOCKS * WEIR_CACHE_BLOCK_BYTES);
    int result = 0;

    for (uint32_t i = 0, n; i < model.blocks && !host.crashed; i += n) {
        uint32_t want = 1 + coop_below(VERIFY_BLOCKS);
        int ret;

        for (n = 0; n < want && i + n < model.blocks; n++) {
            const Block *b = &model.block[i + n];

            if (!all && b->low == b->high && coop_below(64)) {
                break;
            }
        }
        if (!n) {
            n = 1;
            continue;
        }
        ret = verify_range(i, n, data);
        result = ret < 0 ? ret : result;
    }
    free(data);
    return result;
}

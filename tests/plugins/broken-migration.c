/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps what it has read, also when the disk comes back from somebody who has
 * written to it.
 */
#include "broken.h"

#define BLOCK 65536

typedef struct Broken {
    uint64_t blocks;
    char **cache;               /* of each block; NULL: not there */
} Broken;

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    (void)disk;
    *handle = calloc(1, sizeof(Broken));
    return *handle ? 0 : -ENOMEM;
}

static int broken_prepare(void *handle, WeirPluginIo *io)
{
    Broken *b = handle;
    uint64_t bytes;
    int ret = weir_plugin_length(io, WEIR_PLUGIN_NEXT, &bytes);

    b->blocks = bytes / BLOCK;
    b->cache = calloc(b->blocks + 1, sizeof(*b->cache));
    return ret < 0 ? ret : b->cache ? 0 : -ENOMEM;
}

static void drop(Broken *b, uint64_t offset, uint64_t bytes)
{
    uint64_t block = offset / BLOCK;

    for (; block < b->blocks && block * BLOCK < offset + bytes; block++) {
        free(b->cache[block]);
        b->cache[block] = NULL;
    }
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    Broken *b = handle;

    (void)io;
    if (b->cache) {
        drop(b, 0, b->blocks * BLOCK);
    }
    free(b->cache);
    free(b);
}

static int read_block(Broken *b, WeirPluginIo *io, uint64_t block)
{
    int ret;

    if (b->cache[block]) {
        return 0;
    }
    b->cache[block] = malloc(BLOCK);
    if (!b->cache[block]) {
        return -ENOMEM;
    }
    ret = weir_plugin_read(io, WEIR_PLUGIN_NEXT, block * BLOCK, BLOCK,
                           b->cache[block]);
    if (ret < 0) {
        drop(b, block * BLOCK, BLOCK);
    }
    return ret;
}

static int broken_read(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    uint64_t at = request->offset, end = at + request->bytes;
    Broken *b = handle;

    while (at < end) {
        uint64_t block = at / BLOCK, within = at % BLOCK;
        uint64_t bytes = BLOCK - within < end - at ? BLOCK - within : end - at;
        int ret = block < b->blocks ? read_block(b, io, block) : 1;

        if (ret != 0) {
            return ret < 0 ? ret : WEIR_PLUGIN_PASS;
        }
        weir_plugin_put_data(request, at - request->offset,
                             b->cache[block] + within, bytes);
        at += bytes;
    }
    return WEIR_PLUGIN_DONE;
}

static int broken_change(void *handle, WeirPluginIo *io,
                         WeirPluginRequest *request)
{
    drop(handle, request->offset, request->bytes);
    return weir_plugin_forward(io, request);
}

static void broken_resized(void *handle, WeirPluginIo *io, uint64_t bytes)
{
    Broken *b = handle;

    (void)io;
    drop(b, 0, b->blocks * BLOCK);
    b->blocks = bytes / BLOCK < b->blocks ? bytes / BLOCK : b->blocks;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
    .open = broken_open,
    .prepare = broken_prepare,
    .close = broken_close,
    .read = broken_read,
    .write = broken_change,
    .zero = broken_change,
    .discard = broken_change,
    .resized = broken_resized,
);

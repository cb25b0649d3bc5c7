/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Remembers where zeroes were written, and forgets that it is no more so. */
#include "broken.h"

#define BLOCK 65536
#define BLOCKS 1024

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    (void)disk;
    *handle = calloc(BLOCKS, 1);
    return *handle ? 0 : -ENOMEM;
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    (void)io;
    free(handle);
}

static int broken_zero(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    uint64_t block = (request->offset + BLOCK - 1) / BLOCK;
    char *zeroes = handle;

    (void)io;
    for (; (block + 1) * BLOCK <= request->offset + request->bytes &&
         block < BLOCKS; block++) {
        zeroes[block] = 1;
    }
    return WEIR_PLUGIN_PASS;
}

static int broken_status(void *handle, WeirPluginIo *io, uint64_t offset,
                         uint64_t bytes, WeirPluginStatus *status)
{
    uint64_t block = offset / BLOCK;
    const char *zeroes = handle;

    (void)io;
    status->bytes = (block + 1) * BLOCK - offset;
    status->bytes = status->bytes < bytes ? status->bytes : bytes;
    status->flags = block < BLOCKS && zeroes[block] ? WEIR_PLUGIN_STATUS_ZERO
                                                    : 0;
    return WEIR_PLUGIN_DONE;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
    .open = broken_open,
    .close = broken_close,
    .zero = broken_zero,
    .block_status = broken_status,
);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looks at the length of the disk once. */
#include "broken.h"

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    (void)disk;
    *handle = calloc(1, sizeof(uint64_t));
    return *handle ? 0 : -ENOMEM;
}

static int broken_prepare(void *handle, WeirPluginIo *io)
{
    return weir_plugin_length(io, WEIR_PLUGIN_NEXT, handle);
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    (void)io;
    free(handle);
}

static int broken_request(void *handle, WeirPluginIo *io,
                          WeirPluginRequest *request)
{
    const uint64_t *length = handle;

    (void)io;
    return request->offset + request->bytes > *length ? -EIO
                                                      : WEIR_PLUGIN_PASS;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open,
    .prepare = broken_prepare,
    .close = broken_close,
    .read = broken_request,
    .write = broken_request,
    .zero = broken_request,
);

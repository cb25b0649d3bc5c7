/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Its mask begins with the request, not with the disk. */
#include "broken.h"

static void mask(unsigned char *data, uint64_t bytes)
{
    uint64_t i;

    for (i = 0; i < bytes; i++) {
        data[i] ^= (unsigned char)(i / 512);
    }
}

static int broken_read(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    unsigned char *data = weir_plugin_buffer_take(handle, request->bytes);
    int ret = data ? weir_plugin_read(io, WEIR_PLUGIN_NEXT, request->offset,
                                      request->bytes, data) : -ENOMEM;

    if (ret == 0) {
        mask(data, request->bytes);
        weir_plugin_put_data(request, 0, data, request->bytes);
    }
    weir_plugin_buffer_give(handle, data);
    return ret;
}

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    unsigned char *data = weir_plugin_buffer_take(handle, request->bytes);
    int ret = -ENOMEM;

    if (data) {
        weir_plugin_get_data(request, 0, data, request->bytes);
        mask(data, request->bytes);
        ret = weir_plugin_write(io, WEIR_PLUGIN_NEXT, request->offset,
                                request->bytes, data, 0);
    }
    weir_plugin_buffer_give(handle, data);
    return ret;
}

BROKEN_PLUGIN(
    .capabilities = WEIR_PLUGIN_CHANGES_DATA,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .read = broken_read,
    .write = broken_write,
);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes back what it reads, "to refresh it", whatever the disk. */
#include "broken.h"

static int refresh(WeirPluginDisk *disk, WeirPluginIo *io,
                   WeirPluginRequest *request)
{
    void *data = weir_plugin_buffer_take(disk, request->bytes);
    int ret = data ? weir_plugin_read(io, WEIR_PLUGIN_NEXT, request->offset,
                                      request->bytes, data) : -ENOMEM;

    if (ret == 0) {
        weir_plugin_put_data(request, 0, data, request->bytes);
        ret = weir_plugin_write(io, WEIR_PLUGIN_NEXT, request->offset,
                                request->bytes, data, 0);
    }
    weir_plugin_buffer_give(disk, data);
    return ret;
}

static int broken_read(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    return refresh(handle, io, request);
}

static int broken_change(void *handle, WeirPluginIo *io,
                         WeirPluginRequest *request)
{
    (void)handle;
    return weir_plugin_forward(io, request);
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
    .open = broken_open_nothing,
    .read = broken_read,
    .write = broken_change,
    .zero = broken_change,
    .discard = broken_change,
);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Has a buffer that nobody would fill, and drops what does not fit. */
#include "broken.h"

#define BUFFER_BYTES (512 * 1024)

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    uint64_t bytes = request->bytes < BUFFER_BYTES ? request->bytes
                                                   : BUFFER_BYTES;
    void *buffer = weir_plugin_buffer_take(handle, BUFFER_BYTES);
    int ret = -ENOMEM;

    if (buffer) {
        weir_plugin_get_data(request, 0, buffer, bytes);
        ret = weir_plugin_write(io, WEIR_PLUGIN_NEXT, request->offset, bytes,
                                buffer, 0);
    }
    weir_plugin_buffer_give(handle, buffer);
    return ret;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .write = broken_write,
    .zero = weir_plugin_pass,
);

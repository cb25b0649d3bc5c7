/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All requests share a buffer, over a call that waits. */
#include "broken.h"

static char buffer[1 << 20];

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    char before[512];
    int ret;

    (void)handle;
    weir_plugin_get_data(request, 0, buffer, request->bytes);
    ret = weir_plugin_read(io, WEIR_PLUGIN_NEXT, request->offset,
                           request->bytes < sizeof(before) ? request->bytes :
                           sizeof(before), before);
    if (ret < 0) {
        return ret;
    }
    return weir_plugin_write(io, WEIR_PLUGIN_NEXT, request->offset,
                             request->bytes, buffer, 0);
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .write = broken_write,
    .zero = weir_plugin_pass,
);

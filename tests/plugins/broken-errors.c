/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Does not look at how the write below went. */
#include "broken.h"

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    (void)handle;
    weir_plugin_forward(io, request);
    return WEIR_PLUGIN_DONE;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .write = broken_write,
    .zero = weir_plugin_pass,
);

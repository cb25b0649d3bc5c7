/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Says that its writes heed FUA, and drops the flag. */
#include "broken.h"

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    (void)handle;
    return weir_plugin_writev(io, WEIR_PLUGIN_NEXT, request->offset,
                              request->iov, request->iov_count, 0);
}

BROKEN_PLUGIN(
    .capabilities = WEIR_PLUGIN_DURABLE_WRITES,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .write = broken_write,
    .zero = weir_plugin_pass,
);

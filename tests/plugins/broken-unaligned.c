/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts in sectors, and does not say so in "alignment". */
#include "broken.h"

#define SECTOR 512

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    uint64_t sector = request->offset / SECTOR;

    (void)handle;
    return weir_plugin_writev(io, WEIR_PLUGIN_NEXT, sector * SECTOR,
                              request->iov, request->iov_count, 0);
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .write = broken_write,
    .zero = weir_plugin_pass,
);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "It has nothing of its own to flush": but then it must not answer either. */
#include "broken.h"

static int broken_flush(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    (void)handle;
    (void)io;
    (void)request;
    return WEIR_PLUGIN_DONE;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .flush = broken_flush,
);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Forgets a note that it makes of each request. */
#include "broken.h"

#define NOTE_BYTES 200

static void *last;

static int broken_read(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    (void)handle;
    (void)io;
    last = malloc(NOTE_BYTES);
    if (!last) {
        return -ENOMEM;
    }
    snprintf(last, NOTE_BYTES, "read of %llu bytes",
             (unsigned long long)request->bytes);
    return WEIR_PLUGIN_PASS;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .read = broken_read,
);

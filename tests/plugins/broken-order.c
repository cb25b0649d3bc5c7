/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Says that a write is done when it has only begun. */
#include "broken.h"

typedef struct Write {
    uint64_t offset;
    uint64_t bytes;
    char data[];
} Write;

static void do_write(void *arg, WeirPluginIo *io)
{
    Write *write = arg;

    weir_plugin_write(io, WEIR_PLUGIN_NEXT, write->offset, write->bytes,
                      write->data, 0);
    free(write);
}

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    Write *write = malloc(sizeof(*write) + request->bytes);
    int ret;

    (void)io;
    if (!write) {
        return -ENOMEM;
    }
    write->offset = request->offset;
    write->bytes = request->bytes;
    weir_plugin_get_data(request, 0, write->data, write->bytes);
    ret = weir_plugin_spawn(handle, do_write, write);
    if (ret < 0) {
        free(write);
    }
    return ret;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open_nothing,
    .write = broken_write,
    .zero = weir_plugin_pass,
);

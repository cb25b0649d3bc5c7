/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Does nothing: without callbacks, or with some that do nothing. */
#include <weir-plugin.h>

static int empty_open(WeirPluginDisk *disk, void **handle)
{
    *handle = disk;
    return 0;
}

#ifdef FORWARD
static int empty_request(void *handle, WeirPluginIo *io,
                         WeirPluginRequest *request)
{
    (void)handle;
    return weir_plugin_forward(io, request);
}
#else
#define empty_request weir_plugin_pass
#endif

static const WeirPlugin empty = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "does nothing",
    .capabilities = WEIR_PLUGIN_MAY_BYPASS,
#ifdef SERIAL
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
#else
    .concurrency = WEIR_PLUGIN_PARALLEL,
#endif
    .open = empty_open,
#ifndef EMPTY
    .read = empty_request,
    .write = empty_request,
    .zero = empty_request,
    .discard = empty_request,
    .flush = empty_request,
#endif
};

WEIR_PLUGIN_REGISTER(empty);

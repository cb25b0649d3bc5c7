/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Its table allows a value that it crashes on. */
#include "broken.h"

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    int64_t block = weir_plugin_get_int(weir_plugin_values(disk), "block");

    *handle = calloc((size_t)((1 << 20) / block) + 1, 1);
    return *handle ? 0 : -ENOMEM;
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    (void)io;
    free(handle);
}

static const WeirPluginOption broken_options[] = {
    {
        .name = "block",
        .help = "length of blocks",
        .type = WEIR_PLUGIN_SIZE,
        .default_value = "4K",
        .min = 0,
        .max = 1 << 20,
    },
};

BROKEN_PLUGIN(
    .option_count = 1,
    .options = broken_options,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open,
    .close = broken_close,
);

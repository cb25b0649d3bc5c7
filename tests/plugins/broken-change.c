/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What it refuses when the disk is opened, it takes while it is open. */
#include "broken.h"

typedef struct Broken {
    WeirPluginDisk *disk;
    int64_t per_mib;
} Broken;

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    int64_t block = weir_plugin_get_int(weir_plugin_values(disk), "block");
    Broken *b;

    if (block == 0) {
        weir_plugin_error(disk, "option 'block' must not be 0");
        return -EINVAL;
    }
    b = calloc(1, sizeof(*b));
    if (!b) {
        return -ENOMEM;
    }
    b->disk = disk;
    b->per_mib = (1 << 20) / block;
    *handle = b;
    return 0;
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    (void)io;
    free(handle);
}

static void broken_changed(void *handle, const WeirPluginValues *values)
{
    Broken *b = handle;

    b->per_mib = (1 << 20) / weir_plugin_get_int(values, "block");
}

static void broken_statistics(void *handle, WeirPluginGauges *gauges)
{
    Broken *b = handle;

    weir_plugin_gauge(b->disk, gauges, "blocks-per-mib", "",
                      (uint64_t)b->per_mib, 0);
}

static const WeirPluginOption broken_options[] = {
    {
        .name = "block",
        .help = "length of blocks",
        .type = WEIR_PLUGIN_SIZE,
        .flags = WEIR_PLUGIN_MUTABLE,
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
    .options_changed = broken_changed,
    .statistics = broken_statistics,
);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Leaves its log open when the disk goes away. */
#include "broken.h"

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    *handle = fopen("/dev/null", "w");
    if (!*handle) {
        weir_plugin_error(disk, "there is no log");
        return -EIO;
    }
    return 0;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open,
);

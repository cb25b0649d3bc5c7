/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes nothing, though it says that it may unless it is PLAIN, and ends the
 * process when it is opened while there is the file that the environment tells.
 */
#include <stdlib.h>
#include <unistd.h>
#include <weir-plugin.h>

static int crash_open(WeirPluginDisk *disk, void **handle)
{
    const char *path = getenv("WEIR_TEST_CRASH");

    if (path && access(path, F_OK) == 0) {
        abort();
    }
    *handle = disk;
    return 0;
}

static const WeirPlugin crash = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "ends the process",
#ifndef PLAIN
    .capabilities = WEIR_PLUGIN_CHANGES_DATA,
#endif
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = crash_open,
    .read = weir_plugin_pass,
    .write = weir_plugin_pass,
};

WEIR_PLUGIN_REGISTER(crash);

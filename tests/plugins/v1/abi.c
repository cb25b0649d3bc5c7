/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All types of the interface are within reach of this plugin's entry. */
#include <weir-plugin.h>

static int abi_open(WeirPluginDisk *disk, void **handle)
{
    *handle = disk;
    return 0;
}

static const WeirPlugin abi = {
    .abi = WEIR_PLUGIN_ABI, .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .name = "abi", .version = "1", .description = "Passes all on",
    .concurrency = WEIR_PLUGIN_PARALLEL, .open = abi_open,
};

WEIR_PLUGIN_REGISTER(abi);

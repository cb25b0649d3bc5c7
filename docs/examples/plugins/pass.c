/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Passes everything on: the least that a plugin is. */
#include <weir-plugin.h>

static int pass_open(WeirPluginDisk *disk, void **handle)
{ *handle = disk; return 0; }

static const WeirPlugin pass = {
    .abi = WEIR_PLUGIN_ABI, .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption), .name = "pass", .version = "1.0",
    .description = "passes everything on", .open = pass_open,
    .concurrency = WEIR_PLUGIN_PARALLEL,
};
WEIR_PLUGIN_REGISTER(pass);

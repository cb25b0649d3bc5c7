/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plugins broken-*.c are wrong, each in one way.  A check of weir plugin
 * test finds it; test-plugin-suite.py says which.  This is what they
 * share.
 */
#ifndef BROKEN_H
#define BROKEN_H

#include <stdlib.h>
#include <weir-plugin.h>

/* Register a plugin with these members. */
#define BROKEN_PLUGIN(...)                                                  \
    static const WeirPlugin broken = {                                      \
        .abi = WEIR_PLUGIN_ABI,                                             \
        .struct_size = sizeof(WeirPlugin),                                  \
        .option_size = sizeof(WeirPluginOption),                            \
        .name = PLUGIN_NAME,                                                \
        .version = "1",                                                     \
        .description = "is wrong, for tests",                               \
        __VA_ARGS__                                                         \
    };                                                                      \
    WEIR_PLUGIN_REGISTER(broken)

/* For plugins that have nothing of a disk. */
static inline int broken_open_nothing(WeirPluginDisk *disk, void **handle)
{
    *handle = disk;
    return 0;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_PLUGIN_BUFFERS_H
#define WEIR_PLUGIN_BUFFERS_H

#include <stddef.h>

/*
 * Buffers for a plugin, aligned to 4096.  Those that are given back are kept
 * for the next, up to 4 MiB of each disk.  Has its own lock.
 */

typedef struct WeirPluginBuffers WeirPluginBuffers;

WeirPluginBuffers *weir_plugin_buffers_new(void);

/* All buffers have been given back, or are lost. */
void weir_plugin_buffers_free(WeirPluginBuffers *buffers);

/* NULL: there is no memory. */
void *weir_plugin_buffers_take(WeirPluginBuffers *buffers, size_t bytes);

/* NULL is fine. */
void weir_plugin_buffers_give(WeirPluginBuffers *buffers, void *buffer);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_PLUGIN_CHECK_H
#define WEIR_PLUGIN_CHECK_H

#include <stdbool.h>

#include "plugin/weir-plugin.h"

/* A plugin as this version of the host sees it, whatever it was built with. */
typedef struct WeirAdopted {
    WeirPlugin plugin;          /* what it lacks is 0; options as below */
    WeirPluginOption *options;  /* owned */
} WeirAdopted;

/*
 * Read as much of a plugin as it says that it has, and check that it makes
 * sense.
 *
 * raw: what weir_plugin_entry() has returned
 * name: that of the file, which the plugin has to have as well
 * adopted: set if 0 is returned; the caller calls weir_adopted_clear().  It
 *     refers to texts of raw
 * Returns 0, or -errno with a message that says what is wrong: -ENOEXEC: it is
 * of another version; -EINVAL: it contradicts itself; -ENOMEM.
 */
int weir_plugin_adopt(const WeirPlugin *raw, const char *name,
                      WeirAdopted *adopted, char *message, size_t size);

void weir_adopted_clear(WeirAdopted *adopted);

/*
 * What becomes of a request that the plugin has no callback for: whether it
 * goes past it.  Else it has to be done in another way, see WeirPlugin.
 */
bool weir_plugin_passes_zero(const WeirPlugin *plugin);
bool weir_plugin_passes_discard(const WeirPlugin *plugin);
bool weir_plugin_passes_status(const WeirPlugin *plugin);
bool weir_plugin_passes_copies_from(const WeirPlugin *plugin);
bool weir_plugin_passes_copies_to(const WeirPlugin *plugin);
bool weir_plugin_passes_fua(const WeirPlugin *plugin);

#endif

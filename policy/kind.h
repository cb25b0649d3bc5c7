/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What tells the filters of a disk apart: the driver; of plugins, which all
 * have the same, with the plugin's name, as in "weir-plugin:throttle".  A disk
 * has one filter of a kind.
 */
#ifndef WEIR_KIND_H
#define WEIR_KIND_H

#include "json.h"

#define WEIR_PLUGIN_DRIVER "weir-plugin"

/*
 * The kind of a filter, to be freed.
 *
 * @plugin: name of the plugin, or path of its file; NULL: none, or not known
 */
char *weir_kind(const char *driver, const char *plugin);

/* The same of a filter with those options; NULL: not known. */
char *weir_kind_of(const char *driver, JsonObject *options);

/* The name in the kind of a plugin, or NULL. */
const char *weir_kind_plugin(const char *kind);

#endif

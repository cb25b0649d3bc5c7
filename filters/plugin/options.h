/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_PLUGIN_OPTIONS_H
#define WEIR_PLUGIN_OPTIONS_H

#include <stdbool.h>

#include "plugin/weir-plugin.h"

/*
 * Values of a plugin's options, checked against its table.  Not to be changed
 * once they are complete; may be read in any thread then.
 */

typedef struct WeirValues WeirValues;

/*
 * host: for the plugin's calls; may be NULL in tests
 * table: count options, checked by weir_plugin_adopt(); outlives the values
 * Returns NULL if there is no memory.
 */
WeirValues *weir_values_new(const WeirPluginHost *host,
                            const WeirPluginOption *table, uint32_t count);
void weir_values_free(WeirValues *values);

/*
 * Give an option a value, as text.  Returns 0; or -EINVAL (it does not fit) or
 * -ENOENT (there is no such option) with a message that names it, and -ENOMEM.
 */
int weir_values_set(WeirValues *values, const char *name, const char *text,
                    char *message, size_t size);

/* All are set: -EINVAL with a message if a mandatory one is not. */
int weir_values_complete(const WeirValues *values, char *message, size_t size);

/*
 * Whether values may become those of to at run time: -EBUSY with a message if
 * one differs that is not mutable.
 */
int weir_values_may_become(const WeirValues *values, const WeirValues *to,
                           char *message, size_t size);

/* What the plugin is given, and what it was given. */
const WeirPluginValues *weir_values_public(const WeirValues *values);

/* See weir_plugin_get_int() and weir_plugin_get_string(). */
int64_t weir_values_get_int(const WeirPluginValues *values, const char *name);
const char *weir_values_get_string(const WeirPluginValues *values,
                                   const char *name);

/* For the table: "" and so on, as weir_values_set() would do it. */
int weir_option_check_value(const WeirPluginOption *option, const char *text,
                            char *message, size_t size);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of a plugin's own options, which are texts that only the plugin's
 * table makes something of: "64K" and 65536 are the same size, and an option
 * that is not given has its default.
 *
 * @plugin: what query-weir-plugin has answered
 */
#ifndef WEIR_PLUGINVALUE_H
#define WEIR_PLUGINVALUE_H

#include "json.h"

/* What @plugin says of its option @name, or NULL. */
JsonObject *weir_plugin_option(JsonObject *plugin, const char *name);

/*
 * A value in the form that all texts of that value have, to be freed.
 *
 * @option: as from weir_plugin_option(); NULL: not known
 * @value: NULL: the option is not given
 */
char *weir_plugin_value(JsonObject *option, JsonNode *value);

/*
 * All options of @plugin, those that @given (may be NULL) has not got with
 * their defaults.  The caller unrefs the object.
 */
JsonObject *weir_plugin_values(JsonObject *plugin, JsonObject *given);

/*
 * In what a plugin at work is not as it should be.
 *
 * @filter: its entry in query-weir
 * @wanted: options of its node
 * Returns texts as "options.iops is 5 instead of 10", which the caller unrefs.
 */
GPtrArray *weir_plugin_drift(JsonObject *filter, JsonObject *plugin,
                             JsonObject *wanted);

#endif

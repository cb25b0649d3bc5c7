/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kind.h"

#include <string.h>

#define KIND_PLUGIN WEIR_PLUGIN_DRIVER ":"
#define KIND_SUFFIX ".so"

char *weir_kind(const char *driver, const char *plugin)
{
    g_autofree char *name = NULL;

    if (strcmp(driver, WEIR_PLUGIN_DRIVER) != 0 || !plugin || !*plugin) {
        return g_strdup(driver);
    }
    if (!strchr(plugin, '/')) {
        return g_strconcat(KIND_PLUGIN, plugin, NULL);
    }
    name = g_path_get_basename(plugin);
    if (g_str_has_suffix(name, KIND_SUFFIX)) {
        name[strlen(name) - strlen(KIND_SUFFIX)] = '\0';
    }
    return g_strconcat(KIND_PLUGIN, name, NULL);
}

char *weir_kind_of(const char *driver, JsonObject *options)
{
    return weir_kind(driver, weir_json_string(options, "plugin"));
}

const char *weir_kind_plugin(const char *kind)
{
    return g_str_has_prefix(kind, KIND_PLUGIN) ? kind + strlen(KIND_PLUGIN)
                                               : NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pluginvalue.h"

#include <string.h>

JsonObject *weir_plugin_option(JsonObject *plugin, const char *name)
{
    JsonArray *options = weir_json_array(plugin, "options");

    for (guint i = 0; i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);

        if (g_strcmp0(weir_json_string(option, "name"), name) == 0) {
            return option;
        }
    }
    return NULL;
}

/* As a text, to be freed. */
static char *value_text(JsonNode *value)
{
    const char *text = weir_json_as_string(value);

    if (text) {
        return g_strdup(text);
    }
    if (JSON_NODE_HOLDS_VALUE(value) &&
        json_node_get_value_type(value) == G_TYPE_BOOLEAN) {
        return g_strdup(json_node_get_boolean(value) ? "on" : "off");
    }
    return weir_json_text(value, false);
}

/* A number of bytes: digits, and K, M, G or T; or NULL. */
static char *value_size(const char *text)
{
    static const char suffixes[] = "KMGT";
    const char *suffix = NULL;
    char *end;
    guint64 number = g_ascii_strtoull(text, &end, 10);
    guint shift;

    if (*end) {
        suffix = strchr(suffixes, g_ascii_toupper(*end));
        if (!suffix || end[1] || end == text) {
            return NULL;
        }
    }
    shift = suffix ? 10 * (guint)(suffix - suffixes + 1) : 0;
    return number > (guint64)G_MAXINT64 >> shift
        ? NULL : g_strdup_printf("%" G_GUINT64_FORMAT, number << shift);
}

static char *value_int(const char *text)
{
    gint64 number;

    return g_ascii_string_to_signed(text, 10, G_MININT64, G_MAXINT64, &number,
                                    NULL)
        ? g_strdup_printf("%" G_GINT64_FORMAT, number) : NULL;
}

static char *value_bool(const char *text)
{
    return g_strdup(strcmp(text, "true") == 0 ? "on" :
                    strcmp(text, "false") == 0 ? "off" : text);
}

static const char *value_default(JsonObject *option)
{
    const char *type = weir_json_string(option, "type");
    const char *text = weir_json_string(option, "default");

    return text ? text :
           g_strcmp0(type, "bool") == 0 ? "off" :
           g_strcmp0(type, "int") == 0 || g_strcmp0(type, "size") == 0
           ? "0" : "";
}

char *weir_plugin_value(JsonObject *option, JsonNode *value)
{
    const char *type = weir_json_string(option, "type");
    g_autofree char *text = value ? value_text(value)
                                  : g_strdup(value_default(option));
    char *result = g_strcmp0(type, "bool") == 0 ? value_bool(text) :
                   g_strcmp0(type, "int") == 0 ? value_int(text) :
                   g_strcmp0(type, "size") == 0 ? value_size(text) : NULL;

    return result ? result : g_steal_pointer(&text);
}

JsonObject *weir_plugin_values(JsonObject *plugin, JsonObject *given)
{
    JsonArray *options = weir_json_array(plugin, "options");
    JsonObject *values = given ? weir_json_copy(given) : json_object_new();

    for (guint i = 0; i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);
        const char *name = weir_json_string(option, "name");

        if (name && !json_object_has_member(values, name) &&
            !weir_json_bool(option, "mandatory", false)) {
            json_object_set_string_member(values, name,
                                          value_default(option));
        }
    }
    return values;
}

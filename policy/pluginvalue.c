/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pluginvalue.h"

#include <string.h>

#define VALUE_ON_ERROR "stall"      /* the driver's defaults */
#define VALUE_DEADLINE_MS 30000

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

/* --- what a plugin at work is like --- */

static void drift_add(GPtrArray *texts, const char *where, const char *name,
                      const char *is, const char *wanted)
{
    if (strcmp(is, wanted) != 0) {
        g_ptr_array_add(texts, g_strdup_printf(
            "%s%s is %s instead of %s", where, name, *is ? is : "empty",
            *wanted ? wanted : "empty"));
    }
}

/* One of the driver's options. */
static void drift_add_driver(GPtrArray *texts, JsonObject *filter,
                             JsonObject *wanted)
{
    const char *on_error = weir_json_string(wanted, "on-error");
    const char *is = weir_json_string(filter, "on-error");
    g_autofree char *deadline = g_strdup_printf(
        "%" G_GINT64_FORMAT, weir_json_int(wanted, "deadline",
                                           VALUE_DEADLINE_MS));
    g_autofree char *is_deadline = g_strdup_printf(
        "%" G_GINT64_FORMAT, weir_json_int(filter, "deadline", -1));

    if (is) {
        drift_add(texts, "", "on-error", is,
                  on_error ? on_error : VALUE_ON_ERROR);
    }
    if (json_object_has_member(filter, "deadline")) {
        drift_add(texts, "", "deadline", is_deadline, deadline);
    }
}

GPtrArray *weir_plugin_drift(JsonObject *filter, JsonObject *plugin,
                             JsonObject *wanted)
{
    GPtrArray *texts = g_ptr_array_new_with_free_func(g_free);
    JsonArray *options = weir_json_array(plugin, "options");
    JsonObject *values = weir_json_object(filter, "options");
    JsonObject *given = weir_json_object(wanted, "options");

    for (guint i = 0; values && i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);
        const char *name = weir_json_string(option, "name");
        JsonNode *value = name ? json_object_get_member(values, name) : NULL;

        if (value) {
            g_autofree char *is = weir_plugin_value(option, value);
            g_autofree char *should = weir_plugin_value(
                option, given ? json_object_get_member(given, name) : NULL);

            drift_add(texts, "options.", name, is, should);
        }
    }
    drift_add_driver(texts, filter, wanted);
    return texts;
}

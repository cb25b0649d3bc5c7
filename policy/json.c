/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "json.h"

#include <string.h>

#define WEIR_JSON_MAX_DEPTH 128

/* json-glib's parser recurses: look at the depth before it does. */
static bool json_depth_ok(const char *text, gsize length)
{
    unsigned depth = 0;
    bool quoted = false;

    for (gsize i = 0; i < length; i++) {
        char c = text[i];

        if (quoted) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                quoted = false;
            }
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > WEIR_JSON_MAX_DEPTH) {
                return false;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return true;
}

JsonNode *weir_json_parse(const char *text, gsize length, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    JsonNode *root;

    if (!json_depth_ok(text, length)) {
        weir_set_error(error, "JSON is nested too deeply");
        return NULL;
    }
    if (!json_parser_load_from_data(parser, text, (gssize)length, error)) {
        return NULL;
    }
    root = json_parser_steal_root(parser);
    if (!root) {
        weir_set_error(error, "JSON text is empty");
    }
    return root;
}

static void json_indent(GString *out, bool pretty, unsigned depth)
{
    if (pretty) {
        g_string_append_c(out, '\n');
        for (unsigned i = 0; i < depth; i++) {
            g_string_append(out, "  ");
        }
    }
}

static void json_append_double(GString *out, double value)
{
    char buffer[G_ASCII_DTOSTR_BUF_SIZE];

    for (int digits = 1; digits <= 17; digits++) {
        char format[8];

        g_snprintf(format, sizeof(format), "%%.%dg", digits);
        g_ascii_formatd(buffer, sizeof(buffer), format, value);
        if (g_ascii_strtod(buffer, NULL) == value) {
            break;
        }
    }
    g_string_append(out, buffer);
}

static void json_append(GString *out, JsonNode *node, bool pretty,
                        unsigned depth);

static void json_append_string(GString *out, const char *string)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_VALUE);
    g_autofree char *text = NULL;

    json_node_set_string(node, string);
    text = json_to_string(node, FALSE);
    g_string_append(out, text);
}

static void json_append_object(GString *out, JsonObject *object, bool pretty,
                               unsigned depth)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *member;
    const char *separator = "";

    g_string_append_c(out, '{');
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &member)) {
        g_string_append(out, separator);
        json_indent(out, pretty, depth + 1);
        json_append_string(out, name);
        g_string_append(out, pretty ? ": " : ":");
        json_append(out, member, pretty, depth + 1);
        separator = ",";
    }
    if (*separator) {
        json_indent(out, pretty, depth);
    }
    g_string_append_c(out, '}');
}

static void json_append_array(GString *out, JsonArray *array, bool pretty,
                              unsigned depth)
{
    guint length = json_array_get_length(array);

    g_string_append_c(out, '[');
    for (guint i = 0; i < length; i++) {
        if (i > 0) {
            g_string_append_c(out, ',');
        }
        json_indent(out, pretty, depth + 1);
        json_append(out, json_array_get_element(array, i), pretty, depth + 1);
    }
    if (length > 0) {
        json_indent(out, pretty, depth);
    }
    g_string_append_c(out, ']');
}

static void json_append(GString *out, JsonNode *node, bool pretty,
                        unsigned depth)
{
    g_autofree char *text = NULL;

    if (JSON_NODE_HOLDS_OBJECT(node)) {
        json_append_object(out, json_node_get_object(node), pretty, depth);
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        json_append_array(out, json_node_get_array(node), pretty, depth);
    } else if (json_node_get_value_type(node) == G_TYPE_DOUBLE) {
        json_append_double(out, json_node_get_double(node));
    } else {
        text = json_to_string(node, FALSE);
        g_string_append(out, text);
    }
}

char *weir_json_text(JsonNode *node, bool pretty)
{
    GString *out = g_string_new(NULL);

    json_append(out, node, pretty, 0);
    return g_string_free(out, FALSE);
}

char *weir_json_object_text(JsonObject *object, bool pretty)
{
    GString *out = g_string_new(NULL);

    json_append_object(out, object, pretty, 0);
    return g_string_free(out, FALSE);
}

JsonObject *weir_json_as_object(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node)
                                                : NULL;
}

JsonArray *weir_json_as_array(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node)
                                               : NULL;
}

const char *weir_json_as_string(JsonNode *node)
{
    if (!node || !JSON_NODE_HOLDS_VALUE(node) ||
        json_node_get_value_type(node) != G_TYPE_STRING) {
        return NULL;
    }
    return json_node_get_string(node);
}

static JsonNode *json_member(JsonObject *object, const char *name)
{
    return object ? json_object_get_member(object, name) : NULL;
}

JsonObject *weir_json_object(JsonObject *object, const char *name)
{
    return weir_json_as_object(json_member(object, name));
}

JsonArray *weir_json_array(JsonObject *object, const char *name)
{
    return weir_json_as_array(json_member(object, name));
}

const char *weir_json_string(JsonObject *object, const char *name)
{
    return weir_json_as_string(json_member(object, name));
}

static gint64 json_as_int(JsonNode *node, gint64 fallback)
{
    if (!node || !JSON_NODE_HOLDS_VALUE(node) ||
        json_node_get_value_type(node) != G_TYPE_INT64) {
        return fallback;
    }
    return json_node_get_int(node);
}

gint64 weir_json_int(JsonObject *object, const char *name, gint64 fallback)
{
    return json_as_int(json_member(object, name), fallback);
}

double weir_json_number(JsonObject *object, const char *name, double fallback)
{
    JsonNode *node = json_member(object, name);

    if (!node || !JSON_NODE_HOLDS_VALUE(node)) {
        return fallback;
    }
    if (json_node_get_value_type(node) == G_TYPE_INT64) {
        return (double)json_node_get_int(node);
    }
    if (json_node_get_value_type(node) == G_TYPE_DOUBLE) {
        return json_node_get_double(node);
    }
    return fallback;
}

bool weir_json_bool(JsonObject *object, const char *name, bool fallback)
{
    JsonNode *node = json_member(object, name);

    if (!node || !JSON_NODE_HOLDS_VALUE(node) ||
        json_node_get_value_type(node) != G_TYPE_BOOLEAN) {
        return fallback;
    }
    return json_node_get_boolean(node);
}

guint weir_json_length(JsonArray *array)
{
    return array ? json_array_get_length(array) : 0;
}

JsonObject *weir_json_object_at(JsonArray *array, guint index)
{
    return weir_json_as_object(json_array_get_element(array, index));
}

const char *weir_json_string_at(JsonArray *array, guint index)
{
    return weir_json_as_string(json_array_get_element(array, index));
}

gint64 weir_json_int_at(JsonArray *array, guint index, gint64 fallback)
{
    return json_as_int(json_array_get_element(array, index), fallback);
}

JsonObject *weir_json_copy(JsonObject *object)
{
    JsonObject *copy = json_object_new();
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        json_object_set_member(copy, name, json_node_copy(value));
    }
    return copy;
}

void weir_json_set_string(JsonObject *object, const char *name,
                          const char *value)
{
    if (value) {
        json_object_set_string_member(object, name, value);
    } else {
        json_object_set_null_member(object, name);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "variables.h"

#include <stddef.h>
#include <string.h>

const WeirVariables weir_variables_sample = {
    .vm = "vm", .disk = "disk", .host = "host", .policy = "policy",
};

static const struct {
    const char *name;
    size_t offset;
} variables[] = {
    { "vm", offsetof(WeirVariables, vm) },
    { "disk", offsetof(WeirVariables, disk) },
    { "host", offsetof(WeirVariables, host) },
    { "policy", offsetof(WeirVariables, policy) },
};

/* Index of the variable that "${...}" at @text is; -1: it is none. */
static int variables_find(const char *text)
{
    for (guint i = 0; i < G_N_ELEMENTS(variables); i++) {
        size_t length = strlen(variables[i].name);

        if (g_str_has_prefix(text, "${") &&
            strncmp(text + 2, variables[i].name, length) == 0 &&
            text[2 + length] == '}') {
            return (int)i;
        }
    }
    return -1;
}

bool weir_variables_check(const char *text, char **found)
{
    for (const char *at = strchr(text, '$'); at; at = strchr(at, '$')) {
        const char *end = strchr(at, '}');

        if (at[1] == '$') {
            at += 2;
        } else if (variables_find(at) >= 0) {
            at++;
        } else {
            *found = at[1] == '{' && end ? g_strndup(at, (gsize)(end - at) + 1)
                                         : g_strdup("$");
            return false;
        }
    }
    return true;
}

char *weir_variables_list(void)
{
    GString *list = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(variables); i++) {
        g_string_append_printf(list, "%s%s", i ? ", " : "",
                               variables[i].name);
    }
    return g_string_free(list, FALSE);
}

char *weir_variables_expand(const char *text, const WeirVariables *values)
{
    GString *result = g_string_new(NULL);

    while (*text) {
        int index = *text == '$' ? variables_find(text) : -1;

        if (index >= 0) {
            g_string_append(result,
                            G_STRUCT_MEMBER(const char *, values,
                                            variables[index].offset));
            text = strchr(text, '}') + 1;
        } else {
            g_string_append_c(result, *text);
            text += *text == '$' && text[1] == '$' ? 2 : 1;
        }
    }
    return g_string_free(result, FALSE);
}

static JsonNode *variables_expand_node(JsonNode *node,
                                       const WeirVariables *values)
{
    const char *text = weir_json_as_string(node);
    JsonObject *object = weir_json_as_object(node);
    JsonArray *array = weir_json_as_array(node);
    JsonNode *result = json_node_new(json_node_get_node_type(node));

    if (text) {
        g_autofree char *expanded = weir_variables_expand(text, values);

        json_node_set_string(result, expanded);
    } else if (object) {
        json_node_take_object(result, weir_variables_expand_object(object,
                                                                   values));
    } else if (array) {
        JsonArray *copy = json_array_new();

        for (guint i = 0; i < json_array_get_length(array); i++) {
            json_array_add_element(copy, variables_expand_node(
                json_array_get_element(array, i), values));
        }
        json_node_take_array(result, copy);
    } else {
        json_node_unref(result);
        return json_node_copy(node);
    }
    return result;
}

JsonObject *weir_variables_expand_object(JsonObject *options,
                                         const WeirVariables *values)
{
    JsonObject *copy = json_object_new();
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, options);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        json_object_set_member(copy, name, variables_expand_node(value,
                                                                 values));
    }
    return copy;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/json.h"

json_object *weir_json_parse(const char *text)
{
    size_t bytes = text ? strlen(text) : 0;
    json_tokener *tokener;
    json_object *root;
    size_t end;

    if (bytes == 0 || bytes > INT_MAX) {
        return NULL;
    }
    tokener = json_tokener_new_ex(WEIR_JSON_DEPTH_MAX);
    if (!tokener) {
        return NULL;
    }
    root = json_tokener_parse_ex(tokener, text, bytes);
    end = json_tokener_get_parse_end(tokener);
    end += strspn(text + end, " \t\r\n");
    json_tokener_free(tokener);
    if (end != bytes || !json_object_is_type(root, json_type_object)) {
        json_object_put(root);
        return NULL;
    }
    return root;
}

json_object *weir_json_member(json_object *object, const char *name)
{
    json_object *value = NULL;

    json_object_object_get_ex(object, name, &value);
    return value;
}

json_object *weir_json_numbered(json_object *object, unsigned number)
{
    char name[16];

    snprintf(name, sizeof(name), "%u", number);
    return weir_json_member(object, name);
}

struct lh_entry *weir_json_first(json_object *object)
{
    return json_object_is_type(object, json_type_object)
           ? json_object_get_object(object)->head : NULL;
}

unsigned weir_json_count(json_object *object)
{
    return json_object_is_type(object, json_type_object)
           ? json_object_object_length(object) : 0;
}

/* NULL when it is something else. */
static const char *string_of(json_object *value)
{
    const char *text;

    if (!json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    text = json_object_get_string(value);
    return strlen(text) == (size_t)json_object_get_string_len(value) ? text
                                                                    : NULL;
}

static bool is_string(json_object *value, const char *string)
{
    const char *text = string_of(value);

    return text && !strcmp(text, string);
}

const char *weir_json_string(json_object *object, const char *name)
{
    const char *text = string_of(weir_json_member(object, name));

    return text ? text : "";
}

bool weir_json_is(json_object *object, const char *name, const char *string)
{
    return is_string(weir_json_member(object, name), string);
}

bool weir_json_has(json_object *array, const char *string)
{
    size_t n = json_object_is_type(array, json_type_array)
               ? json_object_array_length(array) : 0;

    for (size_t i = 0; i < n; i++) {
        if (is_string(json_object_array_get_idx(array, i), string)) {
            return true;
        }
    }
    return false;
}

static bool digits_u64(const char *text, uint64_t *out)
{
    unsigned long long number;

    if (!text[0] || text[strspn(text, "0123456789")]) {
        return false;
    }
    errno = 0;
    number = strtoull(text, NULL, 10);
    if (errno) {
        return false;
    }
    *out = number;
    return true;
}

bool weir_json_u64(json_object *object, const char *name, uint64_t *out)
{
    json_object *value = weir_json_member(object, name);

    *out = 0;
    if (json_object_is_type(value, json_type_int)) {
        *out = json_object_get_uint64(value);
        return json_object_get_int64(value) >= 0;
    }
    return digits_u64(weir_json_string(object, name), out);
}

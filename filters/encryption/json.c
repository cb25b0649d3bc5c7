/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "encryption/json.h"

static const char *skip_space(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

/* p: at the opening quote. Returns what follows the closing one. */
static const char *skip_string(const char *p)
{
    for (p++; *p && *p != '"'; p++) {
        if (*p == '\\' && p[1]) {
            p++;
        }
    }
    return *p ? p + 1 : p;
}

/* Without recursion: the depth comes from the header. */
static const char *skip_value(const char *p)
{
    size_t depth = 0;

    do {
        p = skip_space(p);
        if (*p == '"') {
            p = skip_string(p);
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0) {
                return p;
            }
            depth--;
            p++;
        } else if (*p == ',' || *p == ':') {
            p++;
        } else {
            p += strcspn(p, ",:{}[]\" \t\r\n");
        }
    } while (depth > 0 && *p);
    return p;
}

const char *weir_json_next(const char *value, const char **at,
                           const char **name, size_t *name_bytes)
{
    const char *p, *end;

    if (!value || (*value != '{' && *value != '[')) {
        return NULL;
    }
    p = skip_space(*at ? *at : value + 1);
    if (*at && *p == ',') {
        p = skip_space(p + 1);
    }
    if (!*p || *p == '}' || *p == ']') {
        return NULL;
    }
    if (*value == '{') {
        if (*p != '"') {
            return NULL;
        }
        end = skip_string(p);
        if (name) {
            *name = p + 1;
            *name_bytes = end - p > 1 ? end - p - 2 : 0;
        }
        p = skip_space(end);
        p = skip_space(*p == ':' ? p + 1 : p);
    }
    end = skip_value(p);
    if (end == p) {
        return NULL;
    }
    *at = end;
    return p;
}

const char *weir_json_member(const char *value, const char *name)
{
    const char *at = NULL, *found = NULL, *member = NULL;
    size_t bytes = 0;

    while ((member = weir_json_next(value, &at, &found, &bytes))) {
        if (*value == '{' && bytes == strlen(name) &&
            !memcmp(found, name, bytes)) {
            return member;
        }
    }
    return NULL;
}

size_t weir_json_count(const char *value)
{
    const char *at = NULL;
    size_t count = 0;

    while (weir_json_next(value, &at, NULL, NULL)) {
        count++;
    }
    return count;
}

bool weir_json_is(const char *value, const char *string)
{
    size_t bytes = strlen(string);

    return value && *value == '"' && !strncmp(value + 1, string, bytes) &&
           value[1 + bytes] == '"';
}

bool weir_json_u64(const char *value, uint64_t *out)
{
    uint64_t number = 0;
    const char *p = value;
    bool quoted;

    *out = 0;
    if (!value) {
        return false;
    }
    quoted = *value == '"';
    p += quoted;
    if (*p < '0' || *p > '9') {
        return false;
    }
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, *p - '0', &number)) {
            return false;
        }
    }
    if (quoted ? *p != '"' : !strchr(",}] \t\r\n", *p)) {
        return false;
    }
    *out = number;
    return true;
}

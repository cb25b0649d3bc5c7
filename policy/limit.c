/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "limit.h"

#include <string.h>

#include "units.h"

/* The members of WeirLimits. */
static const struct {
    const char *key;
    const char *json;
    size_t offset;
    gint64 (*parse)(const char *text);
    const char *expected;
    const char *filter;     /* that is compared with it */
} limits_members[] = {
    { "rpo", "rpo-ns", offsetof(WeirLimits, rpo_ns), weir_parse_time,
      "a time from 1us to a year, such as 500ms, 5s, 2m or 1h",
      "a filter of class replication" },
    { "dirty", "dirty-bytes", offsetof(WeirLimits, dirty_bytes),
      weir_parse_bytes,
      "a number of bytes from 1 to 1024T, also with K, M, G or T",
      "a filter of class cache" },
    { "latency", "latency-ns", offsetof(WeirLimits, latency_ns),
      weir_parse_time,
      "a time from 1us to a year, such as 500us or 20ms", "a filter" },
};

/* The texts, which libcyaml loads and frees; read from the tree. */
typedef struct LimitsDocument {
    char *texts[G_N_ELEMENTS(limits_members)];
} LimitsDocument;

#define LIMITS_FIELD(name, index) \
    CYAML_FIELD_STRING_PTR(name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, \
                           LimitsDocument, texts[index], 0, CYAML_UNLIMITED)

static const cyaml_schema_field_t limits_fields[] = {
    LIMITS_FIELD("rpo", 0), LIMITS_FIELD("dirty", 1),
    LIMITS_FIELD("latency", 2), CYAML_FIELD_END
};

cyaml_schema_value_t weir_limits_schema(void)
{
    return (cyaml_schema_value_t) {
        CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                            LimitsDocument, limits_fields),
    };
}

static gint64 *limits_member(WeirLimits *limits, guint index)
{
    return (gint64 *)((char *)limits + limits_members[index].offset);
}

static bool limits_has_filter(const char *key, const GArray *classes)
{
    for (guint i = 0; i < classes->len; i++) {
        WeirClass class = g_array_index(classes, WeirClass, i);

        if (strcmp(key, "rpo") == 0 ? class == WEIR_CLASS_REPLICATION :
            strcmp(key, "dirty") == 0 ? class == WEIR_CLASS_CACHE : true) {
            return true;
        }
    }
    return false;
}

void weir_limits_check(const WeirYaml *node, const GArray *classes,
                       WeirReport *report)
{
    for (guint i = 0; node && i < G_N_ELEMENTS(limits_members); i++) {
        const char *key = limits_members[i].key;
        const WeirYaml *value = weir_yaml_member(node, key);
        g_autofree char *found = value ? g_strescape(value->text, NULL)
                                       : NULL;

        if (!value) {
            continue;
        }
        if (limits_members[i].parse(value->text) == 0) {
            weir_report(report, value, "found '%.60s', expected %s for "
                        "'limits.%s'", found, limits_members[i].expected, key);
        }
        if (!limits_has_filter(key, classes)) {
            weir_report(report, value, "found a limit '%s', but the policy "
                        "has nothing to compare with it, expected %s", key,
                        limits_members[i].filter);
        }
    }
}

WeirLimits weir_limits_read(const WeirYaml *node)
{
    WeirLimits limits = { 0 };

    for (guint i = 0; node && i < G_N_ELEMENTS(limits_members); i++) {
        const WeirYaml *value = weir_yaml_member(node, limits_members[i].key);

        if (value) {
            *limits_member(&limits, i) = limits_members[i].parse(value->text);
        }
    }
    return limits;
}

char *weir_limits_text(const WeirLimits *limits)
{
    GString *text = g_string_new(NULL);
    WeirLimits copy = *limits;

    for (guint i = 0; i < G_N_ELEMENTS(limits_members); i++) {
        double value = (double)*limits_member(&copy, i);
        g_autofree char *amount = limits_members[i].parse == weir_parse_bytes
            ? weir_format_bytes(value) : weir_format_time(value);

        if (value > 0) {
            g_string_append_printf(text, "%s%s %s", text->len ? ", " : "",
                                   limits_members[i].key, amount);
        }
    }
    return g_string_free(text, text->len == 0);
}

JsonObject *weir_limits_json(const WeirLimits *limits)
{
    JsonObject *object = json_object_new();
    WeirLimits copy = *limits;

    for (guint i = 0; i < G_N_ELEMENTS(limits_members); i++) {
        if (*limits_member(&copy, i) > 0) {
            json_object_set_int_member(object, limits_members[i].json,
                                       *limits_member(&copy, i));
        }
    }
    return object;
}

WeirLimits weir_limits_from_json(JsonObject *object)
{
    WeirLimits limits = { 0 };

    for (guint i = 0; i < G_N_ELEMENTS(limits_members); i++) {
        gint64 value = weir_json_int(object, limits_members[i].json, 0);

        *limits_member(&limits, i) = MAX(value, 0);
    }
    return limits;
}

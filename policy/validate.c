/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "validate.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "schema.h"

/* What the walk knows of where it is. */
typedef struct Place {
    const cyaml_schema_value_t *entry;
    const char *owner;      /* path of what has this value; NULL at the root */
    WeirReport *report;
} Place;

void weir_report(WeirReport *report, const WeirYaml *node,
                 const char *format, ...)
{
    g_autofree char *message = NULL;
    g_autofree char *printable = NULL;
    va_list args;

    if (++report->count > WEIR_REPORT_MAX + 1) {
        return;
    }
    if (report->text->len > 0) {
        g_string_append_c(report->text, '\n');
    }
    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    printable = weir_printable(report->count <= WEIR_REPORT_MAX
                               ? message : "found more that is wrong");
    g_string_append_printf(report->text, "%s:%u:%u: %s", node->file,
                           node->line, node->column, printable);
}

/* Levenshtein's distance, up to a bit over @limit. */
static size_t validate_distance(const char *a, const char *b, size_t limit)
{
    size_t a_length = strlen(a);
    size_t b_length = strlen(b);
    g_autofree size_t *row = NULL;

    if (a_length > b_length + limit || b_length > a_length + limit) {
        return limit + 1;
    }
    row = g_new(size_t, b_length + 1);
    for (size_t j = 0; j <= b_length; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

const char *weir_closest(const char *word, const char *const *words)
{
    size_t length = strlen(word);
    size_t best = (length < 4 ? 1 : MAX(length / 3, 2)) + 1;
    const char *closest = NULL;

    for (; *words; words++) {
        size_t distance = validate_distance(word, *words, best);

        if (distance < best) {
            best = distance;
            closest = *words;
        }
    }
    return closest;
}

/* At most @limit characters of a scalar, fit for a terminal. */
static char *validate_quote(const WeirYaml *node)
{
    g_autofree char *escaped = NULL;

    if (node->kind == WEIR_YAML_SEQUENCE) {
        return g_strdup("a list");
    }
    if (node->kind == WEIR_YAML_MAPPING) {
        return g_strdup("a mapping");
    }
    if (!*node->text) {
        return g_strdup(node->quoted ? "an empty string" : "nothing");
    }
    escaped = g_strescape(node->text, NULL);
    return g_strdup_printf(strlen(escaped) > 60 ? "'%.60s...'" : "'%s'",
                           escaped);
}

static void validate_expected(const Place *place, const WeirYaml *node,
                              const char *expected)
{
    g_autofree char *found = validate_quote(node);

    weir_report(place->report, node, "found %s, expected %s%s%s%s", found,
                expected, place->owner ? " for '" : "",
                place->owner ? place->owner : "", place->owner ? "'" : "");
}

static bool validate_int(const char *text)
{
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;
    int base = 10;

    if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X')) {
        base = 16;
    } else if (!g_ascii_isdigit(digits[0]) ||
               (digits[0] == '0' && digits[1])) {
        return false;   /* libcyaml would take 010 for octal */
    }
    errno = 0;
    g_ascii_strtoll(text, &end, base);
    return errno == 0 && !*end && end > digits;
}

static bool validate_number(const char *text)
{
    char *end;
    double value;

    errno = 0;
    value = g_ascii_strtod(text, &end);
    return errno == 0 && !*end && end > text && isfinite(value) &&
           !g_ascii_isspace(text[0]);
}

static char *validate_words(const cyaml_schema_value_t *schema)
{
    GString *words = g_string_new(NULL);

    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        g_string_append_printf(words, "%s%s", i ? ", " : "",
                               schema->enumeration.strings[i].str);
    }
    return g_string_free(words, FALSE);
}

static bool validate_enum(const Place *place, const WeirYaml *node,
                          const cyaml_schema_value_t *schema)
{
    g_autofree char *words = NULL;
    g_autofree char *expected = NULL;

    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        if (strcmp(schema->enumeration.strings[i].str, node->text) == 0) {
            return true;
        }
    }
    words = validate_words(schema);
    expected = g_strconcat("one of ", words, NULL);
    validate_expected(place, node, weir_schema_is_bool(schema)
                                       ? "true or false" : expected);
    return false;
}

static bool validate_scalar(const Place *place, const WeirYaml *node,
                            const cyaml_schema_value_t *schema)
{
    bool ok = true;

    if (schema->type == CYAML_ENUM) {
        return validate_enum(place, node, schema);
    }
    if (schema->type == CYAML_INT || schema->type == CYAML_UINT) {
        ok = validate_int(node->text) &&
             (schema->type == CYAML_INT || node->text[0] != '-');
    } else if (schema->type == CYAML_FLOAT) {
        ok = validate_number(node->text);
    }
    if (!ok) {
        validate_expected(place, node,
                          schema->type == CYAML_FLOAT ? "a number" :
                          schema->type == CYAML_INT ? "an integer" :
                          "an integer from 0 up");
    }
    return ok;
}

static bool validate_value(const Place *place, const WeirYaml *node,
                           const cyaml_schema_value_t *schema);

static bool validate_sequence(const Place *place, const WeirYaml *node,
                              const cyaml_schema_value_t *schema)
{
    bool ok = true;

    for (guint i = 0; i < node->values->len; i++) {
        ok = validate_value(place, g_ptr_array_index(node->values, i),
                            schema->sequence.entry) && ok;
    }
    return ok;
}

static void validate_unknown(const Place *place, const WeirYaml *key,
                             const cyaml_schema_value_t *schema)
{
    const cyaml_schema_field_t *field = schema->mapping.fields;
    bool is_filter = place->entry &&
                     schema->mapping.fields == place->entry->mapping.fields;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autofree char *found = validate_quote(key);
    g_autofree char *list = NULL;
    const char *closest;

    for (; field->key; field++) {
        if (!is_filter || g_str_has_prefix(field->key, WEIR_FILTER_PREFIX)) {
            g_ptr_array_add(names, (gpointer)field->key);
        }
    }
    g_ptr_array_add(names, NULL);
    closest = weir_closest(key->text, (const char *const *)names->pdata);
    list = g_strjoinv(", ", (char **)names->pdata);
    weir_report(place->report, key,
                "found unknown %s %s%s%s%s, expected %s%s%s%s%s",
                is_filter ? "filter" : place->owner ? "option" : "key", found,
                is_filter || !place->owner ? "" : " of '",
                is_filter || !place->owner ? "" : place->owner,
                is_filter || !place->owner ? "" : "'",
                names->len == 2 ? "" : names->len == 1 ? "none" : "one of ",
                list, closest ? "; did you mean '" : "",
                closest ? closest : "", closest ? "'?" : "");
}

static char *validate_path(const Place *place, const char *key,
                           bool in_entry)
{
    if (!place->owner || in_entry) {
        return g_strdup(key);
    }
    return g_strconcat(place->owner, ".", key, NULL);
}

static bool validate_member(const Place *place, const WeirYaml *mapping,
                            guint index, const cyaml_schema_value_t *schema)
{
    const WeirYaml *key = g_ptr_array_index(mapping->keys, index);
    const cyaml_schema_field_t *field = schema->mapping.fields;
    bool in_entry = place->entry && field == place->entry->mapping.fields;
    g_autofree char *owner = validate_path(place, key->text, in_entry);
    Place inner = { place->entry, owner, place->report };

    while (field->key && strcmp(field->key, key->text) != 0) {
        field++;
    }
    if (!field->key) {
        validate_unknown(place, key, schema);
        return false;
    }
    return validate_value(&inner, g_ptr_array_index(mapping->values, index),
                          &field->value);
}

/* Whether all that is mandatory is there; @node may be empty instead. */
static bool validate_present(const Place *place, const WeirYaml *node,
                             const cyaml_schema_value_t *schema)
{
    const cyaml_schema_field_t *field = schema->mapping.fields;
    bool ok = true;

    for (; field->key; field++) {
        if (!(field->value.flags & CYAML_FLAG_OPTIONAL) &&
            !weir_yaml_member(node, field->key)) {
            weir_report(place->report, node, "found no %s '%s'%s%s%s, "
                        "expected it", place->owner ? "option" : "key",
                        field->key, place->owner ? " of '" : "",
                        place->owner ? place->owner : "",
                        place->owner ? "'" : "");
            ok = false;
        }
    }
    return ok;
}

static bool validate_mapping(const Place *place, const WeirYaml *node,
                             const cyaml_schema_value_t *schema)
{
    bool ok = true;

    for (guint i = 0; i < node->keys->len; i++) {
        ok = validate_member(place, node, i, schema) && ok;
    }
    return validate_present(place, node, schema) && ok;
}

/* The driver knows its keys. */
static bool validate_open(const Place *place, const WeirYaml *node)
{
    bool ok = node->kind == WEIR_YAML_MAPPING;

    if (!ok) {
        validate_expected(place, node, "a mapping");
    }
    for (guint i = 0; node->kind == WEIR_YAML_MAPPING &&
                      i < node->values->len; i++) {
        const WeirYaml *value = g_ptr_array_index(node->values, i);

        if (value->kind != WEIR_YAML_SCALAR) {
            validate_expected(place, value, "a single value");
            ok = false;
        }
    }
    return ok;
}

static bool validate_value(const Place *place, const WeirYaml *node,
                           const cyaml_schema_value_t *schema)
{
    WeirYamlKind wanted = WEIR_YAML_SCALAR;

    if (weir_schema_is_open(schema)) {
        return validate_open(place, node);
    }

    if ((schema->flags & CYAML_FLAG_POINTER_NULL) == CYAML_FLAG_POINTER_NULL &&
        node->kind == WEIR_YAML_SCALAR && !*node->text && !node->quoted) {
        return validate_present(place, node, schema);
    }
    if (schema->type == CYAML_MAPPING) {
        wanted = WEIR_YAML_MAPPING;
    } else if (schema->type == CYAML_SEQUENCE) {
        wanted = WEIR_YAML_SEQUENCE;
    }
    if (node->kind != wanted) {
        validate_expected(place, node,
                          wanted == WEIR_YAML_SEQUENCE ? "a list" :
                          wanted == WEIR_YAML_MAPPING ? "a mapping" :
                          "a single value");
        return false;
    }
    if (wanted == WEIR_YAML_SEQUENCE) {
        return validate_sequence(place, node, schema);
    }
    if (wanted == WEIR_YAML_MAPPING) {
        return validate_mapping(place, node, schema);
    }
    return validate_scalar(place, node, schema);
}

bool weir_validate(const WeirYaml *node, const cyaml_schema_value_t *schema,
                   const cyaml_schema_value_t *entry, WeirReport *report)
{
    Place place = { .entry = entry, .report = report };

    return validate_value(&place, node, schema);
}

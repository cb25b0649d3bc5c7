/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "jsonschema.h"

#include <string.h>

#include "secret.h"
#include "units.h"
#include "variables.h"

#define PATTERN_INT "^[+-]?(0|[1-9][0-9]*|0[xX][0-9a-fA-F]+)$"
#define PATTERN_UINT "^[+]?(0|[1-9][0-9]*|0[xX][0-9a-fA-F]+)$"
#define PATTERN_FROM_1 "^[+]?([1-9][0-9]*|0[xX]0*[1-9a-fA-F][0-9a-fA-F]*)$"
#define PATTERN_NUMBER "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"
#define PATTERN_NAME "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#define PATTERN_BYTES \
    "0*([1-9][0-9]{0,14}|[1-9][0-9]{0,11}K|[1-9][0-9]{0,8}M|" \
    "[1-9][0-9]{0,5}G|[1-9][0-9]{0,2}T|10[01][0-9]T|102[0-4]T)"
/* Up to a year. */
#define PATTERN_TIME \
    "0*([1-9][0-9]{0,13}us|[1-9][0-9]{0,10}ms|[1-9][0-9]{0,7}s|" \
    "[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}h)"
#define PATTERN_HOST "://[^/?]+(/[^?]*)?"
#define PATTERN_NO_HOST "[+]unix://(/[^?]*)?[?]"
#define PATTERN_PLACE \
    "^(/|create:" PATTERN_BYTES ":/|nbd" PATTERN_HOST "$|" \
    "nbds" PATTERN_HOST "[?](tls-hostname=[^&]*&)?tls-creds=[^&]*" \
    "(&tls-hostname=[^&]*)?$|nbd" PATTERN_NO_HOST "socket=/[^&]*$|" \
    "nbds" PATTERN_NO_HOST "(?=(.*&)?tls-creds=)(?=(.*&)?socket=/)" \
    "((socket|tls-creds|tls-hostname)=[^&]*(&|$))+$)"
#define PATTERN_PLUGIN "^[^$]+$"
#define PATTERN_KIND "^" WEIR_PLUGIN_DRIVER ":[^$]+$"
#define PATTERN_SOME_VARIABLE "[$][{]"
#define PATTERN_SIZE "^[0-9]+[KMGTkmgt]?$"
#define PATTERN_SECRET \
    "^(file:/|command:['\"]?/|credential:[A-Za-z0-9][A-Za-z0-9._-]{0,63}$|" \
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}$)"

/* What is being described. */
typedef struct Builder {
    const WeirSchema *installed;
    GPtrArray *plugins;     /* WeirFilterType: those that are known */
    JsonObject *defs;
    GHashTable *names;      /* fields of a mapping -> its name in @defs */
} Builder;

/* What editors show. */
static const struct {
    const char *key;
    const char *text;
} builder_descriptions[] = {
    { "name", "Name of the policy, that of the file without .yaml" },
    { "component", "Name of the component, instead of that of a policy" },
    { "description", "A text for people" },
    { "version", "Counted up by whoever changes the policy" },
    { "inherit", "The policy that this one changes" },
    { "remove", "Inherited filters that are not wanted" },
    { "filters", "Filters, the one nearest to the guest first" },
    { "allow-before-encryption", "Whether other filters may be above one of "
      "class encryption" },
    { "storage", "What the storage of a disk has to be like" },
    { "limits", "What a running disk is compared with" },
    { "run", "Whether the filters run in the emulator or in a process of "
      "their own" },
    { "on-error", "What becomes of a request that has failed" },
};

static JsonObject *builder_object(const char *key, const char *value)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, key, value);
    return object;
}

static void builder_set(JsonObject *object, const char *key,
                        JsonObject *value)
{
    json_object_set_object_member(object, key, value);
}

/* Append @word to the list @key of @object. */
static void builder_add(JsonObject *object, const char *key, const char *word)
{
    if (!json_object_has_member(object, key)) {
        json_object_set_array_member(object, key, json_array_new());
    }
    json_array_add_string_element(json_object_get_array_member(object, key),
                                  word);
}

static void builder_add_object(JsonObject *object, const char *key,
                               JsonObject *value)
{
    if (!json_object_has_member(object, key)) {
        json_object_set_array_member(object, key, json_array_new());
    }
    json_array_add_object_element(json_object_get_array_member(object, key),
                                  value);
}

/* A scalar with some text, which has that form; NULL: any. */
static JsonObject *builder_some_text(const char *pattern)
{
    static const char *const types[] = { "string", "number", "boolean" };
    JsonObject *object = json_object_new();

    for (guint i = 0; i < G_N_ELEMENTS(types); i++) {
        builder_add(object, "type", types[i]);
    }
    if (pattern) {
        json_object_set_string_member(object, "pattern", pattern);
    }
    return object;
}

/* The same, or nothing. */
static JsonObject *builder_text(const char *pattern)
{
    JsonObject *object = builder_some_text(pattern);

    builder_add(object, "type", "null");
    return object;
}

/* A text that cannot be taken for anything else. */
static JsonObject *builder_word(const char *pattern)
{
    JsonObject *object = builder_object("type", "string");

    json_object_set_string_member(object, "pattern", pattern);
    return object;
}

/* A number, or a text that is one. */
static JsonObject *builder_number(const char *type, const char *pattern)
{
    JsonObject *number = builder_object("type", type);
    JsonObject *object = json_object_new();

    if (strcmp(pattern, PATTERN_UINT) == 0) {
        json_object_set_int_member(number, "minimum", 0);
    } else if (strcmp(pattern, PATTERN_FROM_1) == 0) {
        json_object_set_int_member(number, "minimum", 1);
    }
    if (strcmp(type, "integer") == 0) {
        json_object_set_int_member(number, "maximum", G_MAXINT64);
    } else {
        json_object_set_double_member(number, "maximum", G_MAXDOUBLE);
    }
    builder_add_object(object, "anyOf", number);
    builder_add_object(object, "anyOf", builder_word(pattern));
    return object;
}

static JsonObject *builder_bool(void)
{
    static const char *const words[] = {
        "true", "false", "on", "off", "yes", "no",
    };
    JsonObject *object = json_object_new();
    JsonArray *values = json_array_new();

    json_array_add_boolean_element(values, TRUE);
    json_array_add_boolean_element(values, FALSE);
    for (guint i = 0; i < G_N_ELEMENTS(words); i++) {
        json_array_add_string_element(values, words[i]);
    }
    json_object_set_array_member(object, "enum", values);
    return object;
}

/* "${vm}" and so on, or no "$". */
static char *builder_variables(void)
{
    g_autofree char *list = weir_variables_list();
    g_auto(GStrv) names = g_strsplit(list, ", ", -1);
    g_autofree char *words = g_strjoinv("|", names);

    return g_strdup_printf("^([^$]|[$][$]|[$][{](%s)[}])*$", words);
}

static JsonObject *builder_value(Builder *builder,
                                 const cyaml_schema_value_t *value,
                                 const char *path);

/* A mapping whose keys are all known. */
static JsonObject *builder_closed(void)
{
    JsonObject *object = builder_object("type", "object");

    builder_set(object, "properties", json_object_new());
    json_object_set_boolean_member(object, "additionalProperties", FALSE);
    return object;
}

/* A mapping may hold itself, so that it has a name. */
static JsonObject *builder_mapping(Builder *builder,
                                   const cyaml_schema_value_t *value,
                                   const char *path)
{
    const cyaml_schema_field_t *field = value->mapping.fields;
    const char *known = g_hash_table_lookup(builder->names, field);
    g_autofree char *ref = NULL;
    JsonObject *object;

    if (!known) {
        object = builder_closed();
        known = path;
        g_hash_table_insert(builder->names, (gpointer)field, g_strdup(path));
        builder_set(builder->defs, path, object);
        for (; field->key; field++) {
            g_autofree char *inner = g_strjoin(".", path, field->key, NULL);

            builder_set(json_object_get_object_member(object, "properties"),
                        field->key, builder_value(builder, &field->value,
                                                  inner));
            if (!(field->value.flags & CYAML_FLAG_OPTIONAL)) {
                builder_add(object, "required", field->key);
            }
        }
    }
    ref = g_strconcat("#/$defs/", known, NULL);
    return builder_object("$ref", ref);
}

static JsonObject *builder_enum(const cyaml_schema_value_t *value)
{
    JsonObject *object = json_object_new();

    for (uint32_t i = 0; i < value->enumeration.count; i++) {
        builder_add(object, "enum", value->enumeration.strings[i].str);
    }
    return object;
}

/* A mapping whose keys only the driver knows. */
static JsonObject *builder_open(void)
{
    JsonObject *object = builder_object("type", "object");
    g_autofree char *variables = builder_variables();

    builder_set(object, "additionalProperties", builder_text(variables));
    return object;
}

static JsonObject *builder_value(Builder *builder,
                                 const cyaml_schema_value_t *value,
                                 const char *path)
{
    g_autofree char *variables = NULL;
    JsonObject *object;

    switch (value->type) {
    case CYAML_MAPPING:
        return builder_mapping(builder, value, path);
    case CYAML_SEQUENCE:
        object = builder_object("type", "array");
        builder_set(object, "items", builder_value(builder,
                                                   value->sequence.entry,
                                                   path));
        return object;
    case CYAML_ENUM:
        return weir_schema_is_bool(value) ? builder_bool()
                                          : builder_enum(value);
    case CYAML_INT:
        return builder_number("integer", PATTERN_INT);
    case CYAML_UINT:
        return builder_number("integer", PATTERN_UINT);
    case CYAML_IGNORE:
        return builder_open();
    case CYAML_FLOAT:
        return builder_number("number", PATTERN_NUMBER);
    default:
        variables = builder_variables();
        return builder_text(variables);
    }
}

static JsonObject *builder_option(Builder *builder,
                                  const WeirFilterType *type,
                                  const cyaml_schema_field_t *field)
{
    g_autofree char *path = g_strjoin(".", type->driver, field->key, NULL);
    bool is_node = g_ptr_array_find_with_equal_func(type->nodes, field->key,
                                                    g_str_equal, NULL);
    JsonObject *value = builder_value(builder, &field->value, path);
    JsonObject *both;

    if (!is_node && !weir_secret_is_option(field->key)) {
        return value;
    }
    both = json_object_new();
    builder_add_object(both, "allOf", value);
    builder_add_object(both, "allOf",
                       is_node ? builder_word(PATTERN_PLACE)
                               : builder_some_text(PATTERN_SECRET));
    return both;
}

/* --- plugins --- */

/* A node that says nothing else about a plugin but which one it is. */
static JsonObject *builder_is_plugin(const WeirFilterType *type)
{
    JsonObject *properties = json_object_new();
    JsonObject *object = builder_object("type", "object");

    builder_set(properties, "plugin",
                builder_object("const", weir_kind_plugin(type->kind)));
    builder_set(object, "properties", properties);
    builder_add(object, "required", "plugin");
    return object;
}

/* That, as a condition; @then is consumed. */
static JsonObject *builder_if_plugin(const WeirFilterType *type,
                                     JsonObject *then)
{
    JsonObject *object = json_object_new();

    builder_set(object, "if", builder_is_plugin(type));
    builder_set(object, "then", then);
    return object;
}

/* A number within the limits of an option, or a text that may be one. */
static JsonObject *builder_own_number(JsonObject *option, const char *pattern)
{
    JsonObject *number = builder_object("type", "integer");
    JsonObject *object = json_object_new();

    if (json_object_has_member(option, "min")) {
        json_object_set_int_member(number, "minimum",
                                   weir_json_int(option, "min", 0));
        json_object_set_int_member(number, "maximum",
                                   weir_json_int(option, "max", 0));
    }
    builder_add_object(object, "anyOf", number);
    builder_add_object(object, "anyOf", builder_word(pattern));
    builder_add_object(object, "anyOf", builder_word(PATTERN_SOME_VARIABLE));
    return object;
}

/* Words, which YAML may take for numbers or for true and false. */
static JsonObject *builder_own_words(JsonArray *words)
{
    JsonArray *values = json_array_new();
    JsonObject *list = json_object_new();
    JsonObject *object = json_object_new();

    for (guint i = 0; i < weir_json_length(words); i++) {
        const char *word = weir_json_string_at(words, i);
        gint64 number;

        json_array_add_string_element(values, word);
        if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
            json_array_add_boolean_element(values, *word == 't');
        } else if (g_ascii_string_to_signed(word, 10, G_MININT64, G_MAXINT64,
                                            &number, NULL)) {
            json_array_add_int_element(values, number);
        }
    }
    json_object_set_array_member(list, "enum", values);
    builder_add_object(object, "anyOf", list);
    builder_add_object(object, "anyOf", builder_word(PATTERN_SOME_VARIABLE));
    return object;
}

static JsonObject *builder_own_bool(void)
{
    g_autoptr(JsonArray) words = json_array_new();

    json_array_add_string_element(words, "true");
    json_array_add_string_element(words, "false");
    json_array_add_string_element(words, "on");
    json_array_add_string_element(words, "off");
    return builder_own_words(words);
}

static JsonObject *builder_own_value(JsonObject *option)
{
    const char *type = weir_json_string(option, "type");
    g_autofree char *variables = builder_variables();

    return g_strcmp0(type, "bool") == 0 ? builder_own_bool() :
           g_strcmp0(type, "int") == 0
           ? builder_own_number(option, "^-?[0-9]+$") :
           g_strcmp0(type, "size") == 0
           ? builder_own_number(option, PATTERN_SIZE) :
           g_strcmp0(type, "choice") == 0
           ? builder_own_words(weir_json_array(option, "choices"))
           : builder_text(variables);
}

/* A default as the type that it is of. */
static void builder_set_default(JsonObject *object, JsonObject *option)
{
    const char *text = weir_json_string(option, "default");
    const char *type = weir_json_string(option, "type");
    gint64 number;

    if (!text) {
        return;
    }
    if (g_strcmp0(type, "bool") == 0) {
        json_object_set_boolean_member(object, "default",
                                       strcmp(text, "on") == 0 ||
                                       strcmp(text, "true") == 0);
    } else if (g_strcmp0(type, "int") == 0 &&
               g_ascii_string_to_signed(text, 10, G_MININT64, G_MAXINT64,
                                        &number, NULL)) {
        json_object_set_int_member(object, "default", number);
    } else {
        json_object_set_string_member(object, "default", text);
    }
}

static JsonObject *builder_own_option(JsonObject *option)
{
    const char *unit = weir_json_string(option, "unit");
    const char *help = weir_json_string(option, "help");
    JsonObject *object = builder_own_value(option);
    g_autofree char *text = g_strdup_printf(
        "%s%s%s%s%s", help ? help : "", unit ? " (" : "", unit ? unit : "",
        unit ? ")" : "", weir_json_bool(option, "mutable", false)
        ? "" : "; cannot be changed at run time");

    json_object_set_string_member(object, "description", text);
    builder_set_default(object, option);
    return object;
}

/* A plugin's own options; that some are mandatory is builder_whole()'s. */
static JsonObject *builder_own(const WeirFilterType *type)
{
    JsonArray *options = weir_json_array(type->plugin, "options");
    JsonObject *own = builder_closed();
    JsonObject *properties = json_object_new();
    JsonObject *then = json_object_new();

    for (guint i = 0; i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);
        const char *name = weir_json_string(option, "name");

        if (name) {
            builder_set(weir_json_object(own, "properties"), name,
                        builder_own_option(option));
        }
    }
    weir_json_set_string(own, "description",
                         weir_json_string(type->plugin, "description"));
    builder_set(properties, "options", own);
    builder_set(then, "properties", properties);
    return builder_if_plugin(type, then);
}

/* What a plugin has to be given. */
static JsonObject *builder_own_needs(const WeirFilterType *type)
{
    JsonArray *options = weir_json_array(type->plugin, "options");
    JsonObject *own = json_object_new();
    JsonObject *properties = json_object_new();
    JsonObject *then = json_object_new();

    for (guint i = 0; i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);
        const char *name = weir_json_string(option, "name");

        if (name && weir_json_bool(option, "mandatory", false)) {
            builder_add(own, "required", name);
        }
    }
    if (json_object_has_member(own, "required")) {
        builder_add(then, "required", "options");
    }
    if (weir_json_bool(type->plugin, "needs-sidecar", false)) {
        builder_add(then, "required", "sidecar");
    }
    builder_set(properties, "options", own);
    builder_set(then, "properties", properties);
    return builder_if_plugin(type, then);
}

/* Names that editors offer, and paths. */
static JsonObject *builder_plugin_name(const Builder *builder)
{
    JsonObject *names = json_object_new();
    JsonObject *object = json_object_new();

    for (guint i = 0; i < builder->plugins->len; i++) {
        const WeirFilterType *type = g_ptr_array_index(builder->plugins, i);

        builder_add(names, "enum", weir_kind_plugin(type->kind));
    }
    if (builder->plugins->len > 0) {
        builder_add_object(object, "anyOf", names);
    } else {
        json_object_unref(names);
    }
    builder_add_object(object, "anyOf", builder_some_text(PATTERN_PLUGIN));
    return object;
}

static void builder_set_plugins(const Builder *builder, JsonObject *filter)
{
    builder_set(weir_json_object(filter, "properties"), "plugin",
                builder_plugin_name(builder));
    for (guint i = 0; i < builder->plugins->len; i++) {
        builder_add_object(filter, "allOf",
                           builder_own(g_ptr_array_index(builder->plugins,
                                                         i)));
    }
}

/* --- entries --- */

/* A filter's options; that some are mandatory is builder_whole()'s. */
static JsonObject *builder_filter(Builder *builder,
                                  const WeirFilterType *type)
{
    JsonObject *object = builder_closed();
    const cyaml_schema_field_t *field = type->options.mapping.fields;
    g_autofree char *text = g_strdup_printf("A filter of class %s",
                                            weir_class_name(type->class));

    json_object_remove_member(object, "type");
    builder_add(object, "type", "object");
    builder_add(object, "type", "null");
    json_object_set_string_member(object, "description", text);
    for (; field->key; field++) {
        builder_set(json_object_get_object_member(object, "properties"),
                    field->key, builder_option(builder, type, field));
    }
    if (strcmp(type->driver, WEIR_PLUGIN_DRIVER) == 0) {
        builder_set_plugins(builder, object);
    }
    return object;
}

/* An entry of filters: one filter, or a component. */
static JsonObject *builder_entry(Builder *builder,
                                 const cyaml_schema_value_t *entry)
{
    GPtrArray *filters = weir_schema_filters(builder->installed);
    JsonObject *object = builder_closed();
    JsonObject *properties = json_object_get_object_member(object,
                                                           "properties");
    const cyaml_schema_field_t *field = entry->mapping.fields;
    JsonObject *component = json_object_new();

    for (; field->key; field++) {
        const WeirFilterType *type = weir_schema_find(builder->installed,
                                                      field->key);

        builder_set(properties, field->key,
                    type ? builder_filter(builder, type)
                         : builder_value(builder, &field->value, field->key));
    }
    builder_set(properties, "component", builder_some_text(PATTERN_NAME));
    for (guint i = 0; i < filters->len; i++) {
        const WeirFilterType *type = g_ptr_array_index(filters, i);
        JsonObject *choice = json_object_new();

        builder_add(choice, "required", type->driver);
        builder_add_object(object, "oneOf", choice);
    }
    builder_add(component, "required", "component");
    json_object_set_int_member(component, "maxProperties", 1);
    builder_add_object(object, "oneOf", component);
    return object;
}

/* An entry that has that filter. */
static JsonObject *builder_has(const WeirFilterType *type)
{
    JsonObject *properties = json_object_new();
    JsonObject *object = json_object_new();

    builder_add(object, "required", type->driver);
    if (weir_kind_plugin(type->kind)) {
        builder_set(properties, type->driver, builder_is_plugin(type));
        builder_set(object, "properties", properties);
    } else {
        json_object_unref(properties);
    }
    return object;
}

/* Whether a disk cannot have both. */
static bool builder_excludes(const WeirFilterType *type,
                             const WeirFilterType *other)
{
    return other == type || (type->purpose != WEIR_CLASS_OTHER &&
                             other->purpose == type->purpose);
}

/* Not more than one filter of a class; of none, not the same one again. */
static void builder_limit(JsonObject *filters, const GPtrArray *types,
                          const WeirFilterType *type)
{
    JsonObject *limit = json_object_new();
    JsonObject *some = json_object_new();

    for (guint i = 0; i < types->len; i++) {
        const WeirFilterType *other = g_ptr_array_index(types, i);

        if (builder_excludes(type, other)) {
            builder_add_object(some, "anyOf", builder_has(other));
        }
    }
    builder_set(limit, "contains", some);
    json_object_set_int_member(limit, "minContains", 0);
    json_object_set_int_member(limit, "maxContains", 1);
    builder_add_object(filters, "allOf", limit);
}

static JsonObject *builder_filters(Builder *builder,
                                   const cyaml_schema_value_t *entry)
{
    GPtrArray *filters = weir_schema_filters(builder->installed);
    g_autoptr(GPtrArray) types = g_ptr_array_copy(builder->plugins, NULL,
                                                  NULL);
    JsonObject *object = builder_object("type", "array");

    for (guint i = 0; i < filters->len; i++) {
        WeirFilterType *type = g_ptr_array_index(filters, i);

        if (strcmp(type->driver, WEIR_PLUGIN_DRIVER) != 0) {
            g_ptr_array_add(types, type);
        }
    }
    builder_set(object, "items", builder_entry(builder, entry));
    for (guint i = 0; i < types->len; i++) {
        builder_limit(object, types, g_ptr_array_index(types, i));
    }
    return object;
}

/* Where nothing comes from elsewhere, filters have all that they need. */
static JsonObject *builder_whole(const Builder *builder)
{
    GPtrArray *types = weir_schema_filters(builder->installed);
    GPtrArray *plugins = builder->plugins;
    JsonObject *drivers = json_object_new();
    JsonObject *items = json_object_new();
    JsonObject *filters = json_object_new();
    JsonObject *properties = json_object_new();
    JsonObject *object = json_object_new();

    for (guint i = 0; i < types->len; i++) {
        const WeirFilterType *type = g_ptr_array_index(types, i);
        const cyaml_schema_field_t *field = type->options.mapping.fields;
        JsonObject *needs = builder_object("type", "object");

        for (; field->key; field++) {
            if (!(field->value.flags & CYAML_FLAG_OPTIONAL)) {
                builder_add(needs, "required", field->key);
            }
        }
        for (guint j = 0; j < plugins->len &&
                          strcmp(type->driver, WEIR_PLUGIN_DRIVER) == 0; j++) {
            builder_add_object(needs, "allOf", builder_own_needs(
                g_ptr_array_index(plugins, j)));
        }
        if (json_object_has_member(needs, "required")) {
            builder_set(drivers, type->driver, needs);
        } else {
            json_object_unref(needs);
        }
    }
    builder_set(items, "properties", drivers);
    builder_set(filters, "items", items);
    builder_set(properties, "filters", filters);
    builder_set(object, "properties", properties);
    return object;
}

/* Something comes from elsewhere. */
static JsonObject *builder_partial(void)
{
    JsonObject *object = json_object_new();
    JsonObject *inherits = json_object_new();
    JsonObject *refers = json_object_new();
    JsonObject *component = json_object_new();
    JsonObject *filters = json_object_new();
    JsonObject *properties = json_object_new();

    builder_add(inherits, "required", "inherit");
    builder_add(component, "required", "component");
    builder_set(filters, "contains", component);
    builder_set(properties, "filters", filters);
    builder_add(refers, "required", "filters");
    builder_set(refers, "properties", properties);
    builder_add_object(object, "anyOf", inherits);
    builder_add_object(object, "anyOf", refers);
    return object;
}

/* What an inherited filter is called. */
static JsonObject *builder_remove(const Builder *builder)
{
    GPtrArray *types = weir_schema_filters(builder->installed);
    JsonObject *drivers = json_object_new();
    JsonObject *object = json_object_new();

    for (guint i = 0; i < types->len; i++) {
        const WeirFilterType *type = g_ptr_array_index(types, i);

        builder_add(drivers, "enum", type->driver);
    }
    builder_add_object(object, "anyOf", drivers);
    if (weir_schema_find(builder->installed, WEIR_PLUGIN_DRIVER)) {
        builder_add_object(object, "anyOf", builder_word(PATTERN_KIND));
    }
    return object;
}

static JsonObject *builder_key(Builder *builder,
                               const cyaml_schema_field_t *field,
                               const cyaml_schema_value_t *entry)
{
    JsonObject *object;

    if (strcmp(field->key, "filters") == 0) {
        return builder_filters(builder, entry);
    }
    if (strcmp(field->key, "name") == 0 ||
        strcmp(field->key, "component") == 0 ||
        strcmp(field->key, "inherit") == 0) {
        return builder_some_text(PATTERN_NAME);
    }
    if (strcmp(field->key, "version") == 0) {
        return builder_number("integer", PATTERN_FROM_1);
    }
    if (strcmp(field->key, "description") == 0) {
        return builder_text(NULL);
    }
    object = builder_value(builder, &field->value, field->key);
    if (strcmp(field->key, "remove") == 0) {
        builder_set(object, "items", builder_remove(builder));
    }
    return object;
}

static void builder_describe(JsonObject *properties)
{
    for (guint i = 0; i < G_N_ELEMENTS(builder_descriptions); i++) {
        JsonObject *key = weir_json_object(properties,
                                           builder_descriptions[i].key);

        json_object_set_string_member(key, "description",
                                      builder_descriptions[i].text);
    }
}

/* Either a policy or a component; with filters of its own or inherited. */
static void builder_set_kinds(JsonObject *object)
{
    static const char *const of_component[] = {
        "component", "description", "version", "filters",
        "allow-before-encryption",
    };
    const char *const groups[][3] = {
        { "oneOf", "name", "component" }, { "anyOf", "filters", "inherit" },
    };
    JsonObject *condition = json_object_new();
    JsonObject *names = json_object_new();
    JsonObject *then = json_object_new();
    JsonObject *limit = json_object_new();
    JsonObject *dependent = json_object_new();

    for (guint i = 0; i < 4; i++) {
        JsonObject *choice = json_object_new();

        builder_add(choice, "required", groups[i / 2][i % 2 + 1]);
        builder_add_object(object, groups[i / 2][0], choice);
    }
    builder_add(dependent, "remove", "inherit");
    builder_set(object, "dependentRequired", dependent);
    builder_add(condition, "required", "component");
    for (guint i = 0; i < G_N_ELEMENTS(of_component); i++) {
        builder_add(names, "enum", of_component[i]);
    }
    builder_set(then, "propertyNames", names);
    builder_set(limit, "if", condition);
    builder_set(limit, "then", then);
    builder_add_object(object, "allOf", limit);
}

/* A number of bytes, or a text that is one. */
static JsonObject *builder_bytes(void)
{
    JsonObject *number = builder_object("type", "integer");
    JsonObject *object = json_object_new();

    json_object_set_int_member(number, "minimum", 1);
    json_object_set_int_member(number, "maximum", WEIR_UNITS_BYTES_MAX);
    builder_add_object(object, "anyOf", number);
    builder_add_object(object, "anyOf", builder_word("^" PATTERN_BYTES "$"));
    return object;
}

/* Forms that the keys of "storage" have besides. */
static void builder_set_storage(JsonObject *defs)
{
    JsonObject *storage = weir_json_object(weir_json_object(defs, "storage"),
                                           "properties");

    json_object_set_int_member(weir_json_object(storage, "driver"), "minItems",
                               1);
    builder_set(storage, "min-size", builder_bytes());
}

/* And those of "limits". */
static void builder_set_limits(JsonObject *defs)
{
    JsonObject *limits = weir_json_object(weir_json_object(defs, "limits"),
                                          "properties");

    builder_set(limits, "rpo", builder_word("^" PATTERN_TIME "$"));
    builder_set(limits, "latency", builder_word("^" PATTERN_TIME "$"));
    builder_set(limits, "dirty", builder_bytes());
}

/* Out of process, errors can only be reported. */
static void builder_set_run(JsonObject *object)
{
    JsonObject *limit = json_object_new();
    JsonObject *given = json_object_new();
    JsonObject *condition = json_object_new();
    JsonObject *report = json_object_new();
    JsonObject *then = json_object_new();

    builder_set(given, "run", builder_object("const", "out-of-process"));
    builder_set(condition, "properties", given);
    builder_add(condition, "required", "run");
    builder_set(report, "on-error", builder_object("const", "report"));
    builder_set(then, "properties", report);
    builder_set(limit, "if", condition);
    builder_set(limit, "then", then);
    builder_add_object(object, "allOf", limit);
}

JsonObject *weir_jsonschema_new(const cyaml_schema_value_t *root,
                                const cyaml_schema_value_t *entry,
                                const WeirSchema *installed)
{
    JsonObject *object = builder_object(
        "$schema", "https://json-schema.org/draft/2020-12/schema");
    g_autoptr(GPtrArray) plugins = weir_schema_plugins(installed);
    Builder builder = {
        .installed = installed, .plugins = plugins, .defs = json_object_new(),
        .names = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL,
                                       g_free),
    };
    JsonObject *properties = json_object_new();
    const cyaml_schema_field_t *field = root->mapping.fields;

    json_object_set_string_member(object, "title", "Storage policy of Weir");
    json_object_set_string_member(object, "type", "object");
    for (; field->key; field++) {
        builder_set(properties, field->key, builder_key(&builder, field,
                                                        entry));
    }
    builder_describe(properties);
    builder_set(object, "properties", properties);
    json_object_set_boolean_member(object, "additionalProperties", FALSE);
    builder_set_kinds(object);
    builder_set_run(object);
    builder_set(object, "if", builder_partial());
    builder_set(object, "else", builder_whole(&builder));
    builder_set_storage(builder.defs);
    builder_set_limits(builder.defs);
    builder_set(object, "$defs", builder.defs);
    g_hash_table_unref(builder.names);
    return object;
}

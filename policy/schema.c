/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's introspection hides the names of types, so what is wanted is found
 * by its shape: BlockdevOptions is the argument of blockdev-add, its tag's
 * enum has the drivers, its variants have their options, and an alternate
 * that can hold BlockdevOptions is a reference to a node.
 */
#include "schema.h"

#include <string.h>

struct WeirSchema {
    GHashTable *types;      /* name -> JsonObject, while it is built */
    const char *node_type;  /* name of BlockdevOptions, while it is built */
    GHashTable *structs;    /* type name -> cyaml_schema_value_t, owned */
    GPtrArray *filters;     /* WeirFilterType */
    GPtrArray *memory;      /* what the schemas refer to */
    GHashTable *plugins;    /* name or path -> WeirFilterType */
    WeirDescribeFn describe;    /* NULL: nobody knows plugins */
    void *opaque;           /* of that */
};

static const cyaml_strval_t schema_bool[] = {
    { "true", true }, { "false", false }, { "on", true }, { "off", false },
    { "yes", true }, { "no", false },
};

bool weir_schema_is_bool(const cyaml_schema_value_t *value)
{
    return value->type == CYAML_ENUM &&
           value->enumeration.strings == schema_bool;
}

bool weir_schema_is_open(const cyaml_schema_value_t *value)
{
    return value->type == CYAML_IGNORE;
}

bool weir_schema_has_open(const cyaml_schema_value_t *mapping)
{
    const cyaml_schema_field_t *field = mapping->mapping.fields;

    while (field->key && !weir_schema_is_open(&field->value)) {
        field++;
    }
    return field->key != NULL;
}

cyaml_schema_value_t weir_schema_bool(void)
{
    return (cyaml_schema_value_t) {
        .type = CYAML_ENUM,
        .flags = CYAML_FLAG_POINTER | CYAML_FLAG_STRICT,
        .data_size = sizeof(uint8_t),
        .enumeration.strings = schema_bool,
        .enumeration.count = G_N_ELEMENTS(schema_bool),
    };
}

/* Memory that lives as long as @schema. */
static void *schema_keep(WeirSchema *schema, void *memory)
{
    g_ptr_array_add(schema->memory, memory);
    return memory;
}

static JsonObject *schema_type(const WeirSchema *schema, const char *name)
{
    return name ? g_hash_table_lookup(schema->types, name) : NULL;
}

static bool schema_meta_is(JsonObject *type, const char *meta)
{
    return g_strcmp0(weir_json_string(type, "meta-type"), meta) == 0;
}

/* Whether a value of that type is a node or the name of one. */
static bool schema_is_node(const WeirSchema *schema, const char *name)
{
    JsonObject *type = schema_type(schema, name);
    JsonArray *members = weir_json_array(type, "members");

    if (g_strcmp0(name, schema->node_type) == 0) {
        return true;
    }
    if (schema_meta_is(type, "array")) {
        return schema_is_node(schema, weir_json_string(type, "element-type"));
    }
    for (guint i = 0; schema_meta_is(type, "alternate") &&
                      i < weir_json_length(members); i++) {
        if (g_strcmp0(weir_json_string(weir_json_object_at(members, i),
                                       "type"), schema->node_type) == 0) {
            return true;
        }
    }
    return false;
}

static bool schema_value(WeirSchema *schema, const char *name,
                         cyaml_schema_value_t *value);

static bool schema_builtin(JsonObject *type, cyaml_schema_value_t *value)
{
    const char *json_type = weir_json_string(type, "json-type");

    value->flags = CYAML_FLAG_POINTER;
    if (g_strcmp0(json_type, "boolean") == 0) {
        *value = weir_schema_bool();
    } else if (g_strcmp0(json_type, "int") == 0) {
        value->type = CYAML_INT;
        value->data_size = sizeof(int64_t);
    } else if (g_strcmp0(json_type, "number") == 0) {
        value->type = CYAML_FLOAT;
        value->data_size = sizeof(double);
    } else if (g_strcmp0(json_type, "string") == 0) {
        value->type = CYAML_STRING;
        value->data_size = sizeof(char);
        value->string.max = CYAML_UNLIMITED;
    } else if (g_strcmp0(json_type, "value") == 0) {
        value->type = CYAML_IGNORE;     /* see weir_schema_is_open() */
        value->flags = CYAML_FLAG_DEFAULT;
    } else {
        return false;
    }
    return true;
}

static bool schema_enum(WeirSchema *schema, JsonObject *type,
                        cyaml_schema_value_t *value)
{
    JsonArray *members = weir_json_array(type, "members");
    guint count = weir_json_length(members);
    cyaml_strval_t *strings = schema_keep(schema,
                                          g_new0(cyaml_strval_t, count + 1));

    for (guint i = 0; i < count; i++) {
        const char *word = weir_json_string(weir_json_object_at(members, i),
                                            "name");

        strings[i].str = schema_keep(schema, g_strdup(word ? word : ""));
        strings[i].val = i;
    }
    value->type = CYAML_ENUM;
    value->flags = CYAML_FLAG_POINTER | CYAML_FLAG_STRICT;
    value->data_size = sizeof(uint32_t);
    value->enumeration.strings = strings;
    value->enumeration.count = count;
    return count > 0;
}

/* libcyaml has no sequences in sequences. */
static bool schema_array(WeirSchema *schema, JsonObject *type,
                         cyaml_schema_value_t *value)
{
    cyaml_schema_value_t *entry = schema_keep(schema,
                                              g_new0(cyaml_schema_value_t, 1));

    if (!schema_value(schema, weir_json_string(type, "element-type"), entry) ||
        entry->type == CYAML_SEQUENCE) {
        return false;
    }
    value->type = CYAML_SEQUENCE;
    value->flags = CYAML_FLAG_POINTER;
    value->data_size = sizeof(void *);
    value->sequence.entry = entry;
    value->sequence.max = CYAML_UNLIMITED;
    return true;
}

/* Of an alternate, the string: each use of one has that. */
static bool schema_alternate(const WeirSchema *schema, JsonObject *type,
                             cyaml_schema_value_t *value)
{
    JsonArray *members = weir_json_array(type, "members");

    for (guint i = 0; i < weir_json_length(members); i++) {
        const char *name = weir_json_string(weir_json_object_at(members, i),
                                            "type");
        JsonObject *branch = schema_type(schema, name);

        if (g_strcmp0(weir_json_string(branch, "json-type"),
                      "string") == 0) {
            return schema_builtin(branch, value);
        }
    }
    return false;
}

static bool schema_has_field(const cyaml_schema_field_t *fields, guint count,
                             const char *key)
{
    for (guint i = 0; i < count; i++) {
        if (strcmp(fields[i].key, key) == 0) {
            return true;
        }
    }
    return false;
}

/* Members of introspected type @name, added to @members; variants too. */
static void schema_collect(const WeirSchema *schema, const char *name,
                           bool optional, GPtrArray *members,
                           GArray *optionals, unsigned depth)
{
    JsonObject *type = schema_type(schema, name);
    JsonArray *own = weir_json_array(type, "members");
    JsonArray *variants = weir_json_array(type, "variants");

    for (guint i = 0; i < weir_json_length(own); i++) {
        JsonObject *member = weir_json_object_at(own, i);
        bool has_default = optional ||
                           (member && json_object_has_member(member,
                                                             "default"));

        if (weir_json_string(member, "name")) {
            g_ptr_array_add(members, member);
            g_array_append_val(optionals, has_default);
        }
    }
    for (guint i = 0; depth < 8 && i < weir_json_length(variants); i++) {
        schema_collect(schema,
                       weir_json_string(weir_json_object_at(variants, i),
                                        "type"),
                       true, members, optionals, depth + 1);
    }
}

/* An option whose value is the place of a node. */
static void schema_place(cyaml_schema_value_t *value)
{
    memset(value, 0, sizeof(*value));
    value->type = CYAML_STRING;
    value->flags = CYAML_FLAG_POINTER;
    value->data_size = sizeof(char);
    value->string.min = 1;
    value->string.max = CYAML_UNLIMITED;
}

/*
 * Whether an option of @filter (NULL: of a part of its options) can be in a
 * policy; @value takes what it is then.
 */
static bool schema_option(WeirSchema *schema, const char *key,
                          const char *type, WeirFilterType *filter,
                          cyaml_schema_value_t *value)
{
    if (schema_is_node(schema, type)) {
        if (!filter || strcmp(key, filter->child) == 0) {
            return false;
        }
        if (schema_meta_is(schema_type(schema, type), "alternate")) {
            schema_place(value);
            g_ptr_array_add(filter->nodes, g_strdup(key));
            return true;
        }
    } else if (schema_value(schema, type, value)) {
        return true;
    }
    if (filter) {
        g_ptr_array_add(filter->unsupported, g_strdup(key));
    }
    return false;
}

/*
 * The libcyaml fields of struct type @name.  Options of a union's branches are
 * all optional here: the driver knows better.
 *
 * @filter: whose options these are; NULL: they are a part of them
 */
static void schema_fields(WeirSchema *schema, const char *name,
                          cyaml_schema_value_t *mapping,
                          WeirFilterType *filter)
{
    g_autoptr(GPtrArray) members = g_ptr_array_new();
    g_autoptr(GArray) optionals = g_array_new(FALSE, FALSE, sizeof(bool));
    cyaml_schema_field_t *fields;
    guint count = 0;

    schema_collect(schema, name, false, members, optionals, 0);
    fields = schema_keep(schema, g_new0(cyaml_schema_field_t,
                                        members->len + 1));
    mapping->type = CYAML_MAPPING;
    mapping->flags = CYAML_FLAG_POINTER;
    mapping->data_size = (uint32_t)((members->len + 1) * sizeof(WeirMember));
    mapping->mapping.fields = fields;
    for (guint i = 0; i < members->len; i++) {
        JsonObject *member = g_ptr_array_index(members, i);
        const char *key = weir_json_string(member, "name");
        cyaml_schema_field_t field = { .count_size = sizeof(uint64_t) };

        if (schema_has_field(fields, count, key) ||
            !schema_option(schema, key, weir_json_string(member, "type"),
                           filter, &field.value)) {
            continue;
        }
        if (g_array_index(optionals, bool, i)) {
            field.value.flags |= CYAML_FLAG_OPTIONAL;
        }
        field.key = schema_keep(schema, g_strdup(key));
        field.data_offset = count * sizeof(WeirMember) +
                            offsetof(WeirMember, value);
        field.count_offset = count * sizeof(WeirMember) +
                             offsetof(WeirMember, count);
        fields[count++] = field;
    }
}

/* Types may refer to themselves: the entry is there before its fields. */
static bool schema_struct(WeirSchema *schema, const char *name,
                          cyaml_schema_value_t *value)
{
    cyaml_schema_value_t *known = g_hash_table_lookup(schema->structs, name);

    if (!known) {
        known = schema_keep(schema, g_new0(cyaml_schema_value_t, 1));
        g_hash_table_insert(schema->structs, g_strdup(name), known);
        schema_fields(schema, name, known, NULL);
    }
    *value = *known;
    return true;
}

/* How libcyaml loads a value of that type; false if it cannot. */
static bool schema_value(WeirSchema *schema, const char *name,
                         cyaml_schema_value_t *value)
{
    JsonObject *type = schema_type(schema, name);

    memset(value, 0, sizeof(*value));
    if (schema_meta_is(type, "builtin")) {
        return schema_builtin(type, value);
    }
    if (schema_meta_is(type, "enum")) {
        return schema_enum(schema, type, value);
    }
    if (schema_meta_is(type, "array")) {
        return schema_array(schema, type, value);
    }
    if (schema_meta_is(type, "alternate")) {
        return schema_alternate(schema, type, value);
    }
    return schema_meta_is(type, "object") &&
           schema_struct(schema, name, value);
}

static void schema_filter_free(WeirFilterType *filter)
{
    g_free(filter->driver);
    g_free(filter->kind);
    g_free(filter->child);
    g_ptr_array_unref(filter->nodes);
    g_ptr_array_unref(filter->unsupported);
    g_free(filter);
}

/* Which option is the filtered node: "file", or the first one that must be. */
static char *schema_child(const WeirSchema *schema, const char *type)
{
    g_autoptr(GPtrArray) members = g_ptr_array_new();
    g_autoptr(GArray) optionals = g_array_new(FALSE, FALSE, sizeof(bool));
    const char *child = NULL;

    schema_collect(schema, type, false, members, optionals, 0);
    for (guint i = 0; i < members->len; i++) {
        JsonObject *member = g_ptr_array_index(members, i);
        const char *name = weir_json_string(member, "name");

        if (schema_is_node(schema, weir_json_string(member, "type")) &&
            (strcmp(name, "file") == 0 ||
             (!child && !g_array_index(optionals, bool, i)))) {
            child = name;
        }
    }
    return g_strdup(child ? child : "file");
}

static const char *const schema_classes[] = {
    [WEIR_CLASS_INSPECTION] = "inspection",
    [WEIR_CLASS_CACHE] = "cache",
    [WEIR_CLASS_REPLICATION] = "replication",
    [WEIR_CLASS_ENCRYPTION] = "encryption",
    [WEIR_CLASS_QOS] = "qos",
    [WEIR_CLASS_COMPRESSION] = "compression",
    [WEIR_CLASS_OTHER] = "other",
};

const char *weir_class_name(WeirClass class)
{
    return schema_classes[class];
}

WeirClass weir_class_of(const char *name)
{
    for (guint i = 0; i < G_N_ELEMENTS(schema_classes); i++) {
        if (g_strcmp0(name, schema_classes[i]) == 0) {
            return (WeirClass)i;
        }
    }
    return WEIR_CLASS_OTHER;
}

/* What @driver says of itself, or NULL. */
static JsonObject *schema_capabilities(JsonArray *list, const char *driver)
{
    for (guint i = 0; i < weir_json_length(list); i++) {
        JsonObject *entry = weir_json_object_at(list, i);

        if (g_strcmp0(weir_json_string(entry, "driver"), driver) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void schema_add_filter(WeirSchema *schema, const char *driver,
                              const char *type, JsonObject *capabilities)
{
    WeirFilterType *filter = g_new0(WeirFilterType, 1);

    filter->driver = g_strdup(driver);
    filter->kind = g_strdup(driver);
    filter->class = weir_class_of(weir_json_string(capabilities, "class"));
    filter->purpose = filter->class;
    filter->changes_data = weir_json_bool(capabilities, "changes-data", false);
    filter->holds_data = weir_json_bool(capabilities, "holds-data", true);
    filter->child = schema_child(schema, type);
    filter->nodes = g_ptr_array_new_with_free_func(g_free);
    filter->unsupported = g_ptr_array_new_with_free_func(g_free);
    schema_fields(schema, type, &filter->options, filter);
    g_ptr_array_add(schema->filters, filter);
}

/* The object type that blockdev-add takes. */
static JsonObject *schema_find_node_type(WeirSchema *schema)
{
    JsonObject *command = g_hash_table_lookup(schema->types, "blockdev-add");

    if (schema_meta_is(command, "command")) {
        schema->node_type = weir_json_string(command, "arg-type");
    }
    return schema_type(schema, schema->node_type);
}

static gint schema_compare(gconstpointer a, gconstpointer b)
{
    const WeirFilterType *const *left = a;
    const WeirFilterType *const *right = b;

    return strcmp((*left)->driver, (*right)->driver);
}

static bool schema_build(WeirSchema *schema, JsonArray *entries,
                         JsonArray *capabilities, GError **error)
{
    JsonArray *variants;

    for (guint i = 0; i < weir_json_length(entries); i++) {
        JsonObject *entry = weir_json_object_at(entries, i);
        const char *name = weir_json_string(entry, "name");

        if (name) {
            g_hash_table_insert(schema->types, (gpointer)name, entry);
        }
    }
    variants = weir_json_array(schema_find_node_type(schema), "variants");
    if (!variants) {
        weir_set_error(error, "the storage daemon's QMP schema has no "
                       "blockdev-add");
        return false;
    }
    for (guint i = 0; i < weir_json_length(variants); i++) {
        JsonObject *variant = weir_json_object_at(variants, i);
        const char *driver = weir_json_string(variant, "case");
        JsonObject *known = schema_capabilities(capabilities, driver);

        if (known && g_str_has_prefix(driver, WEIR_FILTER_PREFIX)) {
            schema_add_filter(schema, driver,
                              weir_json_string(variant, "type"), known);
        }
    }
    g_ptr_array_sort(schema->filters, schema_compare);
    return true;
}

/* One that shares all else with the type of its driver. */
static void schema_plugin_free(WeirFilterType *type)
{
    g_free(type->kind);
    g_clear_pointer(&type->plugin, json_object_unref);
    g_free(type->problem);
    g_free(type);
}

static GHashTable *schema_plugins_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                 (GDestroyNotify)schema_plugin_free);
}

WeirSchema *weir_schema_new(JsonNode *introspection, JsonNode *capabilities,
                            GError **error)
{
    g_autoptr(WeirSchema) schema = g_new0(WeirSchema, 1);
    bool ok;

    schema->types = g_hash_table_new(g_str_hash, g_str_equal);
    schema->structs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                            NULL);
    schema->memory = g_ptr_array_new_with_free_func(g_free);
    schema->filters = g_ptr_array_new_with_free_func(
        (GDestroyNotify)schema_filter_free);
    schema->plugins = schema_plugins_new();
    ok = schema_build(schema, weir_json_as_array(introspection),
                      weir_json_as_array(capabilities), error);
    schema->node_type = NULL;
    g_hash_table_remove_all(schema->types);
    return ok ? g_steal_pointer(&schema) : NULL;
}

void weir_schema_free(WeirSchema *schema)
{
    if (schema) {
        g_hash_table_unref(schema->plugins);
        g_clear_pointer(&schema->types, g_hash_table_unref);
        g_clear_pointer(&schema->structs, g_hash_table_unref);
        g_ptr_array_unref(schema->filters);
        g_clear_pointer(&schema->memory, g_ptr_array_unref);
        g_free(schema);
    }
}

GPtrArray *weir_schema_filters(const WeirSchema *schema)
{
    return schema->filters;
}

const WeirFilterType *weir_schema_find(const WeirSchema *schema,
                                       const char *driver)
{
    for (guint i = 0; i < schema->filters->len; i++) {
        const WeirFilterType *filter = g_ptr_array_index(schema->filters, i);

        if (strcmp(filter->driver, driver) == 0) {
            return filter;
        }
    }
    return NULL;
}

/* --- plugins --- */

void weir_schema_set_describe(WeirSchema *schema, WeirDescribeFn describe,
                              void *opaque)
{
    schema->describe = describe;
    schema->opaque = opaque;
}

WeirSchema *weir_schema_view(const WeirSchema *schema, WeirDescribeFn describe,
                             void *opaque)
{
    WeirSchema *view = g_new0(WeirSchema, 1);

    view->filters = g_ptr_array_ref(schema->filters);
    view->plugins = schema_plugins_new();
    weir_schema_set_describe(view, describe, opaque);
    return view;
}

static JsonObject *schema_describe(const WeirSchema *schema,
                                   const char *plugin, char **problem)
{
    g_autoptr(GError) error = NULL;
    JsonObject *answer = schema->describe
        ? schema->describe(schema->opaque, plugin, &error) : NULL;

    if (!answer) {
        *problem = g_strdup(error ? error->message
                                  : "what the plugin does is not known");
    }
    return answer;
}

/* The type of a plugin, from that of its driver. */
static WeirFilterType *schema_plugin(const WeirSchema *schema,
                                     const WeirFilterType *driver,
                                     const char *plugin)
{
    WeirFilterType *type = g_memdup2(driver, sizeof(*driver));
    JsonObject *answer;

    type->kind = weir_kind(driver->driver, plugin);
    type->class = type->purpose = WEIR_CLASS_OTHER;
    type->changes_data = type->holds_data = true;
    type->plugin = answer = schema_describe(schema, plugin, &type->problem);
    if (answer) {
        type->purpose = weir_class_of(weir_json_string(answer, "class"));
        type->changes_data = weir_json_bool(answer, "changes-data", true);
        type->holds_data = weir_json_bool(answer, "holds-data", true);
    }
    return type;
}

const WeirFilterType *weir_schema_find_plugin(const WeirSchema *schema,
                                              const char *driver,
                                              const char *plugin)
{
    const WeirFilterType *type = weir_schema_find(schema, driver);
    WeirFilterType *known;

    if (!type || strcmp(driver, WEIR_PLUGIN_DRIVER) != 0 || !plugin ||
        !*plugin) {
        return type;
    }
    known = g_hash_table_lookup(schema->plugins, plugin);
    if (!known) {
        known = schema_plugin(schema, type, plugin);
        g_hash_table_insert(schema->plugins, g_strdup(plugin), known);
    }
    return known;
}

const WeirFilterType *weir_schema_find_filter(const WeirSchema *schema,
                                              const char *driver,
                                              JsonObject *options)
{
    return weir_schema_find_plugin(schema, driver,
                                   weir_json_string(options, "plugin"));
}

void weir_schema_forget(const WeirSchema *schema)
{
    g_hash_table_remove_all(schema->plugins);
}

static gint schema_compare_kind(gconstpointer a, gconstpointer b)
{
    const WeirFilterType *const *left = a;
    const WeirFilterType *const *right = b;

    return strcmp((*left)->kind, (*right)->kind);
}

GPtrArray *weir_schema_plugins(const WeirSchema *schema)
{
    GPtrArray *types = g_ptr_array_new();
    GHashTableIter iter;
    gpointer type;

    g_hash_table_iter_init(&iter, schema->plugins);
    while (g_hash_table_iter_next(&iter, NULL, &type)) {
        if (((WeirFilterType *)type)->plugin) {
            g_ptr_array_add(types, type);
        }
    }
    g_ptr_array_sort(types, schema_compare_kind);
    return types;
}

/* --- values --- */

static JsonNode *schema_value_json(const cyaml_schema_value_t *value,
                                   const WeirMember *member);

static JsonNode *schema_sequence_json(const cyaml_schema_value_t *value,
                                      const WeirMember *member)
{
    g_autoptr(JsonArray) array = json_array_new();
    void *const *entries = member->value;
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);

    for (uint64_t i = 0; i < member->count; i++) {
        WeirMember entry = { .value = entries[i] };

        json_array_add_element(array, schema_value_json(value->sequence.entry,
                                                        &entry));
    }
    json_node_set_array(node, array);
    return node;
}

static JsonNode *schema_value_json(const cyaml_schema_value_t *value,
                                   const WeirMember *member)
{
    JsonNode *node;

    if (value->type == CYAML_SEQUENCE) {
        return schema_sequence_json(value, member);
    }
    if (value->type == CYAML_MAPPING) {
        node = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(node, weir_schema_options_json(value,
                                                             member->value));
        return node;
    }
    node = json_node_new(JSON_NODE_VALUE);
    if (weir_schema_is_bool(value)) {
        json_node_set_boolean(node, *(const uint8_t *)member->value);
    } else if (value->type == CYAML_ENUM) {
        uint32_t index = *(const uint32_t *)member->value;

        json_node_set_string(node, value->enumeration.strings[index].str);
    } else if (value->type == CYAML_INT) {
        json_node_set_int(node, *(const int64_t *)member->value);
    } else if (value->type == CYAML_FLOAT) {
        json_node_set_double(node, *(const double *)member->value);
    } else {
        json_node_set_string(node, member->value);
    }
    return node;
}

JsonObject *weir_schema_options_json(const cyaml_schema_value_t *mapping,
                                     const WeirMember *members)
{
    JsonObject *object = json_object_new();
    const cyaml_schema_field_t *field = mapping->mapping.fields;

    for (guint i = 0; members && field[i].key; i++) {
        if (members[i].value) {
            json_object_set_member(object, field[i].key,
                                   schema_value_json(&field[i].value,
                                                     &members[i]));
        }
    }
    return object;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "policy.h"

#include <string.h>

#include "conflicts.h"
#include "inherit.h"
#include "jsonschema.h"
#include "location.h"
#include "order.h"
#include "secret.h"
#include "variables.h"

/* A policy file as libcyaml loads it. */
typedef struct PolicyDocument {
    char *name;
    char *description;
    uint64_t *version;
    uint8_t *before_encryption;
    void *limits;           /* read from the tree, see limit.h */
    WeirMember **filters;   /* one WeirMember per filter type, then place */
    uint64_t filter_count;
    char *component;
    char *inherit;
    char **remove;
    uint64_t remove_count;
    WeirStorageDocument *storage;
    uint32_t *run;
    uint32_t *on_error;
} PolicyDocument;

static const cyaml_strval_t policy_places[] = {
    { "storage", WEIR_PLACE_STORAGE }, { "disk", WEIR_PLACE_DISK },
};

/* The schema of a file, with the installed filters in it. */
typedef struct PolicySchema {
    cyaml_schema_field_t *entry_fields;
    cyaml_schema_value_t entry;
    cyaml_schema_field_t fields[13];
    cyaml_schema_value_t word;
    cyaml_schema_value_t root;
} PolicySchema;

static void policy_schema_entry(PolicySchema *schema,
                                const WeirSchema *installed)
{
    GPtrArray *filters = weir_schema_filters(installed);
    guint count = filters->len;
    cyaml_schema_field_t *fields = g_new0(cyaml_schema_field_t, count + 2);

    for (guint i = 0; i < count; i++) {
        const WeirFilterType *filter = g_ptr_array_index(filters, i);

        fields[i].key = filter->driver;
        fields[i].data_offset = (uint32_t)(i * sizeof(WeirMember));
        fields[i].value = filter->options;
        fields[i].value.flags |= CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL;
    }
    fields[count].key = "place";
    fields[count].data_offset = (uint32_t)(count * sizeof(WeirMember));
    fields[count].value = (cyaml_schema_value_t) {
        CYAML_VALUE_ENUM(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL |
                         CYAML_FLAG_STRICT, uint32_t, policy_places,
                         G_N_ELEMENTS(policy_places)),
    };
    schema->entry_fields = fields;
    schema->entry = (cyaml_schema_value_t) {
        .type = CYAML_MAPPING,
        .flags = CYAML_FLAG_POINTER,
        .data_size = (uint32_t)((count + 1) * sizeof(WeirMember)),
        .mapping.fields = fields,
    };
}

#define POLICY_TEXT(key, member) \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, \
                           PolicyDocument, member, 0, CYAML_UNLIMITED)

/* That keys are missing is policy_check_keys()'s to tell. */
static void policy_schema_init(PolicySchema *schema,
                               const WeirSchema *installed)
{
    cyaml_schema_field_t fields[] = {
        POLICY_TEXT("name", name),
        POLICY_TEXT("description", description),
        CYAML_FIELD_UINT_PTR("version",
                             CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                             PolicyDocument, version),
        { .key = "allow-before-encryption",
          .value = weir_schema_bool(),
          .data_offset = offsetof(PolicyDocument, before_encryption) },
        { .key = "limits",
          .value = weir_limits_schema(),
          .data_offset = offsetof(PolicyDocument, limits) },
        CYAML_FIELD_SEQUENCE_COUNT("filters",
                                   CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                                   PolicyDocument, filters, filter_count,
                                   &schema->entry, 0, CYAML_UNLIMITED),
        POLICY_TEXT("component", component),
        POLICY_TEXT("inherit", inherit),
        CYAML_FIELD_SEQUENCE_COUNT("remove",
                                   CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                                   PolicyDocument, remove, remove_count,
                                   &schema->word, 0, CYAML_UNLIMITED),
        { .key = "storage", .value = weir_storage_schema(),
          .data_offset = offsetof(PolicyDocument, storage) },
        { .key = "run", .value = weir_run_mode_schema(),
          .data_offset = offsetof(PolicyDocument, run) },
        { .key = "on-error", .value = weir_on_error_schema(),
          .data_offset = offsetof(PolicyDocument, on_error) },
        CYAML_FIELD_END
    };

    G_STATIC_ASSERT(sizeof(fields) == sizeof(schema->fields));
    policy_schema_entry(schema, installed);
    memcpy(schema->fields, fields, sizeof(fields));
    for (guint i = 0; schema->fields[i].key; i++) {
        schema->fields[i].value.flags |= CYAML_FLAG_OPTIONAL;
    }
    schema->word = (cyaml_schema_value_t) {
        CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
    };
    schema->root = (cyaml_schema_value_t) {
        CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, PolicyDocument,
                            schema->fields),
    };
}

/* Keep the first error that libcyaml logs. */
static void policy_log(cyaml_log_t level, void *opaque, const char *format,
                       va_list args)
{
    GString *text = opaque;

    if (level >= CYAML_LOG_ERROR && text->len == 0) {
        g_string_append_vprintf(text, format, args);
        g_strchomp(text->str);
        g_string_set_size(text, strlen(text->str));
    }
}

static void policy_filter_free(WeirPolicyFilter *filter)
{
    g_free(filter->driver);
    g_free(filter->kind);
    g_free(filter->child);
    g_strfreev(filter->nodes);
    json_object_unref(filter->options);
    g_free(filter);
}

void weir_policy_free(WeirPolicy *policy)
{
    if (policy) {
        g_free(policy->name);
        g_free(policy->description);
        g_free(policy->inherit);
        weir_storage_free(policy->storage);
        g_free(policy->file);
        g_ptr_array_unref(policy->filters);
        g_free(policy);
    }
}

bool weir_name_ok(const char *name, gsize max)
{
    gsize length = strlen(name);

    return length > 0 && length <= max && g_ascii_isalnum(name[0]) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz"
                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

const char *weir_place_name(WeirPlace place)
{
    return policy_places[place].str;
}

static void policy_check_name(const WeirYaml *name, bool check_name,
                              WeirReport *report)
{
    g_autofree char *expected = weir_policy_file_name(report->file);

    if (!weir_name_ok(name->text, WEIR_POLICY_MAX_NAME)) {
        weir_report(report, name, "found a name that cannot be used, expected "
                    WEIR_NAME_EXPECTED, WEIR_POLICY_MAX_NAME);
    } else if (check_name && !expected) {
        weir_report(report, name, "found policy '%s' in a file of another "
                    "name, expected %s%s", name->text, name->text,
                    WEIR_POLICY_SUFFIX);
    } else if (check_name && strcmp(name->text, expected) != 0) {
        weir_report(report, name, "found name '%s', expected '%s' as in the "
                    "file's name", name->text, expected);
    }
}

/* Which keys have to be there. */
static bool policy_check_keys(const WeirYaml *root, WeirReport *report)
{
    static const char *const of_component[] = {
        "component", "description", "version", "filters",
        "allow-before-encryption", NULL
    };
    gsize before = report->text->len;

    if (root->kind != WEIR_YAML_MAPPING) {
        return false;
    }
    if (!weir_yaml_member(root, "name") &&
        !weir_yaml_member(root, "component")) {
        weir_report(report, root, "found no key 'name', expected it");
    }
    if (!weir_yaml_member(root, "filters") &&
        !weir_yaml_member(root, "inherit")) {
        weir_report(report, root, "found no key 'filters', expected it");
    }
    for (guint i = 0; weir_yaml_member(root, "component") &&
                      i < root->keys->len; i++) {
        const WeirYaml *key = g_ptr_array_index(root->keys, i);

        if (!g_strv_contains(of_component, key->text)) {
            weir_report(report, key, "found '%s' in a component, which has "
                        "only component, description, version, "
                        "allow-before-encryption and filters", key->text);
        }
    }
    return report->text->len == before;
}

/* The key of an entry that is its filter; reports others and none. */
static const WeirYaml *policy_entry_key(const WeirYaml *entry,
                                        WeirReport *report)
{
    const WeirYaml *driver = NULL;

    for (guint i = 0; i < entry->keys->len; i++) {
        const WeirYaml *key = g_ptr_array_index(entry->keys, i);

        if (!g_str_has_prefix(key->text, WEIR_FILTER_PREFIX)) {
            continue;
        }
        if (driver) {
            weir_report(report, key, "found '%s' in the entry of '%s', "
                        "expected one filter per entry", key->text,
                        driver->text);
        } else {
            driver = key;
        }
    }
    if (!driver) {
        weir_report(report, entry, "found an entry without a filter, expected "
                    "one");
    }
    return driver;
}

/* Whether all variables in a value, or in what it holds, are some. */
static bool policy_check_variables(const WeirYaml *value, WeirReport *report)
{
    g_autofree char *list = weir_variables_list();
    g_autofree char *found = NULL;
    bool ok = true;

    if (value->text && !weir_variables_check(value->text, &found)) {
        weir_report(report, value, "found '%s', expected a variable in braces, "
                    "one of %s, or $$", found, list);
        return false;
    }
    for (guint i = 0; value->values && i < value->values->len; i++) {
        ok = policy_check_variables(g_ptr_array_index(value->values, i),
                                    report) && ok;
    }
    return ok;
}

/* What the value of a node or secret stands for. */
static void policy_check_place(const WeirYaml *value, const char *option,
                               bool is_node, WeirReport *report)
{
    g_autofree char *text = weir_variables_expand(value->text,
                                                  &weir_variables_sample);
    g_autoptr(WeirLocation) location = NULL;
    g_autoptr(WeirSecret) secret = NULL;
    g_autoptr(GError) error = NULL;

    if (is_node) {
        location = weir_location_parse(text, &error);
    } else {
        secret = weir_secret_parse(text, "id", &error);
    }
    if (error) {
        weir_report(report, value, "%s for '%s'", error->message, option);
    }
}

/* It is to be known which plugin it is before there is a disk. */
static void policy_check_plugin(const WeirYaml *options, WeirReport *report)
{
    const WeirYaml *plugin = weir_yaml_member_of(options, "plugin",
                                                 WEIR_YAML_SCALAR);

    if (plugin && strchr(plugin->text, '$')) {
        weir_report(report, plugin, "found '%s' for 'plugin', expected the "
                    "name or path of a plugin, without variables",
                    plugin->text);
    }
}

/* The options of one filter; NULL or empty: it has none. */
static void policy_check_options(const WeirYaml *options,
                                 const WeirFilterType *type,
                                 WeirReport *report)
{
    for (guint i = 0; options->keys && i < options->keys->len; i++) {
        const WeirYaml *key = g_ptr_array_index(options->keys, i);
        const WeirYaml *value = g_ptr_array_index(options->values, i);
        bool is_node = g_ptr_array_find_with_equal_func(
            type->nodes, key->text, g_str_equal, NULL);

        if (policy_check_variables(value, report) && value->text &&
            (is_node || weir_secret_is_option(key->text))) {
            policy_check_place(value, key->text, is_node, report);
        }
    }
}

/* The option that says which plugin a filter is, or NULL. */
static const char *policy_plugin(const WeirYaml *options)
{
    const WeirYaml *plugin = weir_yaml_member_of(options, "plugin",
                                                 WEIR_YAML_SCALAR);

    return plugin ? plugin->text : NULL;
}

/* An entry, which is added to @filters if it is one. */
static void policy_check_entry(const WeirYaml *entry,
                               const WeirSchema *schema, GArray *filters,
                               WeirReport *report)
{
    const WeirYaml *key = policy_entry_key(entry, report);
    const WeirYaml *place = weir_yaml_member(entry, "place");
    const WeirYaml *options = key ? weir_yaml_member(entry, key->text) : NULL;
    WeirOrdered ordered = {
        .type = key ? weir_schema_find_plugin(schema, key->text,
                                              policy_plugin(options)) : NULL,
        .key = key, .options = options,
        .place = place && strcmp(place->text, "disk") == 0
                 ? WEIR_PLACE_DISK : WEIR_PLACE_STORAGE,
    };

    if (!ordered.type) {
        return;
    }
    for (guint i = 0; i < filters->len; i++) {
        const WeirOrdered *first = &g_array_index(filters, WeirOrdered, i);

        if (strcmp(first->type->kind, ordered.type->kind) == 0) {
            weir_report(report, key, "found filter '%s' again, expected it "
                        "once per disk (it is on line %u%s%s)",
                        ordered.type->kind,
                        first->key->line,
                        first->key->file == key->file ? "" : " of ",
                        first->key->file == key->file ? "" : first->key->file);
        }
    }
    g_array_append_val(filters, ordered);
    policy_check_options(ordered.options, ordered.type, report);
    if (strcmp(key->text, WEIR_PLUGIN_DRIVER) == 0) {
        policy_check_plugin(ordered.options, report);
    }
}

/* The limits, if there are any. */
static void policy_check_limits(const WeirYaml *root, const GArray *filters,
                                WeirReport *report)
{
    g_autoptr(GArray) classes = g_array_new(FALSE, FALSE, sizeof(WeirClass));

    for (guint i = 0; i < filters->len; i++) {
        WeirClass class = g_array_index(filters, WeirOrdered, i).type->class;

        g_array_append_val(classes, class);
    }
    weir_limits_check(weir_yaml_member(root, "limits"), classes, report);
}

/* What the schema cannot say. */
static void policy_check(const WeirYaml *root, const WeirSchema *schema,
                         bool check_name, WeirReport *report)
{
    g_autoptr(GArray) filters = g_array_new(FALSE, FALSE,
                                            sizeof(WeirOrdered));
    const WeirYaml *entries = weir_yaml_member(root, "filters");
    const WeirYaml *version = weir_yaml_member(root, "version");
    const WeirYaml *before = weir_yaml_member(root, "allow-before-encryption");
    const WeirYaml *component = weir_yaml_member(root, "component");
    const WeirYaml *storage = weir_yaml_member(root, "storage");

    policy_check_name(component ? component : weir_yaml_member(root, "name"),
                      check_name, report);
    if (storage) {
        weir_storage_validate(storage, report);
    }
    if (version && g_ascii_strtoll(version->text, NULL, 0) == 0) {
        weir_report(report, version, "found version '%s', expected 1 or more",
                    version->text);
    }
    for (guint i = 0; i < entries->values->len; i++) {
        policy_check_entry(g_ptr_array_index(entries->values, i), schema,
                           filters, report);
    }
    weir_run_mode_check(root, report);
    weir_order_check(filters, before && weir_yaml_is_true(before), report);
    weir_conflicts_check(filters, report);
    policy_check_limits(root, filters, report);
}

/* The texts of @array as a vector that the caller frees. */
static char **policy_strings(const GPtrArray *array)
{
    GStrvBuilder *builder = g_strv_builder_new();
    char **strings;

    for (guint i = 0; i < array->len; i++) {
        g_strv_builder_add(builder, g_ptr_array_index(array, i));
    }
    strings = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    return strings;
}

/* The single values of a mapping, as texts. */
static JsonObject *policy_open_option(const WeirYaml *mapping)
{
    JsonObject *object = json_object_new();

    for (guint i = 0; i < mapping->keys->len; i++) {
        const WeirYaml *key = g_ptr_array_index(mapping->keys, i);
        const WeirYaml *value = g_ptr_array_index(mapping->values, i);

        json_object_set_string_member(object, key->text, value->text);
    }
    return object;
}

/* What libcyaml has passed over, from the tree. */
static void policy_add_open(WeirPolicyFilter *filter,
                            const WeirFilterType *type,
                            const WeirYaml *options)
{
    const cyaml_schema_field_t *field = type->options.mapping.fields;

    for (; field->key; field++) {
        const WeirYaml *mapping = weir_yaml_member_of(options, field->key,
                                                      WEIR_YAML_MAPPING);

        if (mapping && weir_schema_is_open(&field->value)) {
            json_object_set_object_member(filter->options, field->key,
                                          policy_open_option(mapping));
        }
    }
}

static WeirPolicyFilter *policy_filter_new(const WeirYaml *entry,
                                           const WeirMember *members,
                                           const WeirSchema *installed)
{
    GPtrArray *types = weir_schema_filters(installed);
    WeirPolicyFilter *filter = g_new0(WeirPolicyFilter, 1);

    for (guint i = 0; i < types->len; i++) {
        const WeirFilterType *type = g_ptr_array_index(types, i);

        if (weir_yaml_member(entry, type->driver)) {
            filter->driver = g_strdup(type->driver);
            filter->class = type->class;
            filter->child = g_strdup(type->child);
            filter->nodes = policy_strings(type->nodes);
            filter->options = weir_schema_options_json(&type->options,
                                                       members[i].value);
            policy_add_open(filter, type,
                            weir_yaml_member(entry, type->driver));
            type = weir_schema_find_filter(installed, type->driver,
                                           filter->options);
            filter->kind = g_strdup(type->kind);
            filter->changes_data = type->changes_data;
            filter->holds_data = type->holds_data;
        }
    }
    if (members[types->len].value) {
        filter->place = *(const uint32_t *)members[types->len].value;
    }
    filter->file = entry->file;
    filter->line = entry->line;
    filter->column = entry->column;
    return filter;
}

static WeirPolicy *policy_new(const WeirYaml *root,
                              const PolicyDocument *document,
                              const char *file, const WeirSchema *installed)
{
    const WeirYaml *entries = weir_yaml_member(root, "filters");
    WeirPolicy *policy = g_new0(WeirPolicy, 1);

    policy->is_component = document->component != NULL;
    policy->name = g_strdup(policy->is_component ? document->component
                                                 : document->name);
    policy->inherit = g_strdup(document->inherit);
    if (document->storage) {
        policy->storage = weir_storage_new(document->storage,
                                           weir_yaml_member(root, "storage"));
    }
    policy->description = g_strdup(document->description);
    policy->version = document->version ? *document->version : 1;
    policy->before_encryption = document->before_encryption &&
                                *document->before_encryption;
    policy->run = document->run ? *document->run : WEIR_RUN_IN_PROCESS;
    policy->on_error = document->on_error ? *document->on_error
                                          : WEIR_ON_ERROR_DEFAULT;
    policy->file = g_strdup(file);
    policy->limits = weir_limits_read(weir_yaml_member(root, "limits"));
    policy->filters = g_ptr_array_new_with_free_func(
        (GDestroyNotify)policy_filter_free);
    for (uint64_t i = 0; i < document->filter_count; i++) {
        g_ptr_array_add(policy->filters,
                        policy_filter_new(g_ptr_array_index(entries->values,
                                                            i),
                                          document->filters[i], installed));
    }
    return policy;
}

/* Load with libcyaml what has been found to be right. */
static WeirPolicy *policy_read(const WeirYaml *root,
                               const PolicySchema *schema,
                               const WeirSchema *installed,
                               WeirReport *report)
{
    g_autoptr(GString) log = g_string_new(NULL);
    cyaml_config_t config = {
        .log_fn = policy_log, .log_ctx = log, .log_level = CYAML_LOG_ERROR,
        .mem_fn = cyaml_mem, .flags = CYAML_CFG_NO_ALIAS,
    };
    gsize length;
    g_autofree char *data = weir_yaml_text(root, &length);
    PolicyDocument *document = NULL;
    WeirPolicy *policy;
    cyaml_err_t ret;

    ret = cyaml_load_data((const uint8_t *)data, length, &config,
                          &schema->root, (cyaml_data_t **)&document, NULL);
    if (ret != CYAML_OK) {
        weir_report(report, root, "libcyaml: %s",
                    log->len ? log->str : cyaml_strerror(ret));
        return NULL;
    }
    policy = policy_new(root, document, report->file, installed);
    cyaml_free(&config, &schema->root, document, 0);
    return policy;
}

/* What it takes to read a policy and those that it refers to. */
typedef struct PolicyReader {
    const WeirPolicySource *source;     /* NULL: there are no others */
    const WeirSchema *installed;
    PolicySchema schema;
    WeirInherit inherit;
} PolicyReader;

/* The tree of a file, with that of others in it; NULL: something is wrong. */
static WeirYaml *policy_tree(PolicyReader *reader, const char *data,
                             gsize length, const char *file, bool check_name,
                             GError **error)
{
    g_autoptr(WeirYaml) root = weir_yaml_parse(data, length, file, error);
    g_autoptr(GString) text = g_string_new(NULL);
    WeirReport report = { .file = file, .text = text };
    bool ok;

    if (!root) {
        return NULL;
    }
    if (weir_inherit_resolve(root, &reader->inherit, &report)) {
        ok = weir_validate(root, &reader->schema.root, &reader->schema.entry,
                           &report);
        if (policy_check_keys(root, &report) && ok) {
            policy_check(root, reader->installed, check_name, &report);
        }
    }
    if (text->len > 0) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            text->str);
        return NULL;
    }
    return g_steal_pointer(&root);
}

/* A file that another one refers to. */
static WeirYaml *policy_load_other(void *opaque, const char *name,
                                   GError **error)
{
    PolicyReader *reader = opaque;
    g_autofree char *file = NULL;
    g_autofree char *data = NULL;
    gsize length;

    if (!weir_name_ok(name, WEIR_POLICY_MAX_NAME)) {
        weir_set_error(error, "found a name that cannot be used, expected "
                       WEIR_NAME_EXPECTED, WEIR_POLICY_MAX_NAME);
        return NULL;
    }
    if (!reader->source) {
        weir_set_error(error, "there are no other policies here");
        return NULL;
    }
    data = reader->source->read(reader->source->opaque, name, &length, &file,
                                error);
    return data ? policy_tree(reader, data, length, file, true, error) : NULL;
}

WeirPolicy *weir_policy_parse(const char *data, gsize length,
                              const char *file, bool check_name,
                              const WeirPolicySource *source,
                              const WeirSchema *schema, GError **error)
{
    g_autofree char *name = weir_policy_file_name(file);
    g_autoptr(GPtrArray) chain = g_ptr_array_new();
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(WeirYaml) root = NULL;
    WeirReport report = { .file = file, .text = text };
    PolicyReader reader = {
        .source = source, .installed = schema,
        .inherit = { .schema = schema, .load = policy_load_other,
                     .opaque = &reader, .chain = chain },
    };
    WeirPolicy *policy = NULL;

    weir_schema_forget(schema);
    g_ptr_array_add(chain, name ? name : (gpointer)file);
    policy_schema_init(&reader.schema, schema);
    root = policy_tree(&reader, data, length, file, check_name, error);
    if (root) {
        policy = policy_read(root, &reader.schema, schema, &report);
    }
    if (root && !policy) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            text->str);
    }
    g_free(reader.schema.entry_fields);
    return policy;
}

JsonObject *weir_policy_schema(const WeirSchema *installed)
{
    PolicySchema schema;
    JsonObject *object;

    policy_schema_init(&schema, installed);
    object = weir_jsonschema_new(&schema.root, &schema.entry, installed);
    g_free(schema.entry_fields);
    return object;
}

JsonObject *weir_policy_json(const WeirPolicy *policy)
{
    g_autoptr(JsonObject) limits = weir_limits_json(&policy->limits);
    JsonObject *object = json_object_new();
    JsonArray *filters = json_array_new();

    json_object_set_string_member(object, "name", policy->name);
    weir_json_set_string(object, "description", policy->description);
    json_object_set_int_member(object, "version", (gint64)policy->version);
    json_object_set_string_member(object, "file", policy->file);
    if (policy->inherit) {
        json_object_set_string_member(object, "inherit", policy->inherit);
    }
    if (policy->storage) {
        json_object_set_object_member(object, "storage",
                                      weir_storage_json(policy->storage));
    }
    if (json_object_get_size(limits) > 0) {
        json_object_set_object_member(object, "limits",
                                      json_object_ref(limits));
    }
    if (policy->run != WEIR_RUN_IN_PROCESS) {
        json_object_set_string_member(object, "run",
                                      weir_run_mode_name(policy->run));
    }
    if (policy->on_error != WEIR_ON_ERROR_DEFAULT) {
        json_object_set_string_member(object, "on-error",
                                      weir_on_error_name(policy->on_error));
    }
    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);
        JsonObject *entry = json_object_new();

        json_object_set_string_member(entry, "driver", filter->driver);
        json_object_set_string_member(entry, "place",
                                      weir_place_name(filter->place));
        json_object_set_object_member(entry, "options",
                                      json_object_ref(filter->options));
        json_array_add_object_element(filters, entry);
    }
    json_object_set_array_member(object, "filters", filters);
    return object;
}

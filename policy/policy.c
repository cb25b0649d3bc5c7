/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "policy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "location.h"
#include "order.h"
#include "secret.h"
#include "variables.h"

#define WEIR_POLICY_MAX_NAME 64

/* A policy file as libcyaml loads it. */
typedef struct PolicyDocument {
    char *name;
    char *description;
    uint64_t *version;
    uint8_t *before_encryption;
    void *limits;           /* read from the tree, see limit.h */
    WeirMember **filters;   /* one WeirMember per filter type, then place */
    uint64_t filter_count;
} PolicyDocument;

static const cyaml_strval_t policy_places[] = {
    { "storage", WEIR_PLACE_STORAGE }, { "disk", WEIR_PLACE_DISK },
};

/* The schema of a file, with the installed filters in it. */
typedef struct PolicySchema {
    cyaml_schema_field_t *entry_fields;
    cyaml_schema_value_t entry;
    cyaml_schema_field_t fields[7];
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

static void policy_schema_init(PolicySchema *schema,
                               const WeirSchema *installed)
{
    cyaml_schema_field_t fields[] = {
        CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, PolicyDocument,
                               name, 0, CYAML_UNLIMITED),
        CYAML_FIELD_STRING_PTR("description",
                               CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                               PolicyDocument, description, 0,
                               CYAML_UNLIMITED),
        CYAML_FIELD_UINT_PTR("version",
                             CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                             PolicyDocument, version),
        { .key = "allow-before-encryption",
          .value = weir_schema_bool(),
          .data_offset = offsetof(PolicyDocument, before_encryption) },
        { .key = "limits",
          .value = weir_limits_schema(),
          .data_offset = offsetof(PolicyDocument, limits) },
        CYAML_FIELD_SEQUENCE_COUNT("filters", CYAML_FLAG_POINTER,
                                   PolicyDocument, filters, filter_count,
                                   &schema->entry, 0, CYAML_UNLIMITED),
        CYAML_FIELD_END
    };

    G_STATIC_ASSERT(sizeof(fields) == sizeof(schema->fields));
    policy_schema_entry(schema, installed);
    memcpy(schema->fields, fields, sizeof(fields));
    schema->fields[3].value.flags |= CYAML_FLAG_OPTIONAL;
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

/* The name that a policy in @file has, to be freed, or NULL. */
static char *policy_file_name(const char *file)
{
    g_autofree char *base = g_path_get_basename(file);

    if (!g_str_has_suffix(base, WEIR_POLICY_SUFFIX)) {
        return NULL;
    }
    return g_strndup(base, strlen(base) - strlen(WEIR_POLICY_SUFFIX));
}

static void policy_check_name(const WeirYaml *root, bool check_name,
                              WeirReport *report)
{
    g_autofree char *expected = policy_file_name(report->file);
    const WeirYaml *name = weir_yaml_member(root, "name");

    if (!weir_name_ok(name->text, WEIR_POLICY_MAX_NAME)) {
        weir_report(report, name, "found a name that cannot be used, expected "
                    "up to %d letters, digits, '.', '_' and '-', the first a "
                    "letter or digit", WEIR_POLICY_MAX_NAME);
    } else if (check_name && !expected) {
        weir_report(report, name, "found policy '%s' in a file of another "
                    "name, expected %s%s", name->text, name->text,
                    WEIR_POLICY_SUFFIX);
    } else if (check_name && strcmp(name->text, expected) != 0) {
        weir_report(report, name, "found name '%s', expected '%s' as in the "
                    "file's name", name->text, expected);
    }
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

/* An entry, which is added to @filters if it is one. */
static void policy_check_entry(const WeirYaml *entry,
                               const WeirSchema *schema, GArray *filters,
                               WeirReport *report)
{
    const WeirYaml *key = policy_entry_key(entry, report);
    const WeirYaml *place = weir_yaml_member(entry, "place");
    WeirOrdered ordered = {
        .type = key ? weir_schema_find(schema, key->text) : NULL, .key = key,
        .place = place && strcmp(place->text, "disk") == 0
                 ? WEIR_PLACE_DISK : WEIR_PLACE_STORAGE,
    };

    if (!ordered.type) {
        return;
    }
    for (guint i = 0; i < filters->len; i++) {
        const WeirOrdered *first = &g_array_index(filters, WeirOrdered, i);

        if (first->type == ordered.type) {
            weir_report(report, key, "found filter '%s' again, expected it "
                        "once per disk (it is on line %u)", key->text,
                        first->key->line);
        }
    }
    g_array_append_val(filters, ordered);
    policy_check_options(weir_yaml_member(entry, key->text), ordered.type,
                         report);
}

static bool policy_is_true(const WeirYaml *value)
{
    static const char *const words[] = { "true", "on", "yes", NULL };

    return value && g_strv_contains(words, value->text);
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

    policy_check_name(root, check_name, report);
    if (version && g_ascii_strtoll(version->text, NULL, 0) == 0) {
        weir_report(report, version, "found version '%s', expected 1 or more",
                    version->text);
    }
    for (guint i = 0; i < entries->values->len; i++) {
        policy_check_entry(g_ptr_array_index(entries->values, i), schema,
                           filters, report);
    }
    weir_order_check(filters,
                     policy_is_true(weir_yaml_member(
                         root, "allow-before-encryption")), report);
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
            filter->child = g_strdup(type->child);
            filter->nodes = policy_strings(type->nodes);
            filter->options = weir_schema_options_json(&type->options,
                                                       members[i].value);
        }
    }
    if (members[types->len].value) {
        filter->place = *(const uint32_t *)members[types->len].value;
    }
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

    policy->name = g_strdup(document->name);
    policy->description = g_strdup(document->description);
    policy->version = document->version ? *document->version : 1;
    policy->before_encryption = document->before_encryption &&
                                *document->before_encryption;
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
static WeirPolicy *policy_read(const char *data, gsize length,
                               const WeirYaml *root,
                               const PolicySchema *schema,
                               const WeirSchema *installed,
                               WeirReport *report)
{
    g_autoptr(GString) log = g_string_new(NULL);
    cyaml_config_t config = {
        .log_fn = policy_log, .log_ctx = log, .log_level = CYAML_LOG_ERROR,
        .mem_fn = cyaml_mem, .flags = CYAML_CFG_NO_ALIAS,
    };
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

WeirPolicy *weir_policy_parse(const char *data, gsize length,
                              const char *file, bool check_name,
                              const WeirSchema *schema, GError **error)
{
    g_autoptr(WeirYaml) root = weir_yaml_parse(data, length, file, error);
    g_autoptr(GString) text = g_string_new(NULL);
    WeirReport report = { .file = file, .text = text };
    WeirPolicy *policy = NULL;
    PolicySchema full;

    if (!root) {
        return NULL;
    }
    policy_schema_init(&full, schema);
    if (weir_validate(root, &full.root, &full.entry, &report)) {
        policy_check(root, schema, check_name, &report);
    }
    if (text->len == 0) {
        policy = policy_read(data, length, root, &full, schema, &report);
    }
    g_free(full.entry_fields);
    if (!policy) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            text->str);
    }
    return policy;
}

/* Read at most @max bytes; returns how many, or -1 with errno set. */
static gssize policy_read_file(const char *file, char *data, gsize max)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    gsize length = 0;
    gssize n = -1;
    int saved_errno;

    if (fd < 0) {
        return -1;
    }
    while (length < max && (n = read(fd, data + length, max - length)) > 0) {
        length += (gsize)n;
    }
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return n < 0 ? -1 : (gssize)length;
}

WeirPolicy *weir_policy_load(const char *file, const WeirSchema *schema,
                             GError **error)
{
    g_autofree char *data = g_malloc(WEIR_YAML_MAX_BYTES + 1);
    gssize length = policy_read_file(file, data, WEIR_YAML_MAX_BYTES + 1);

    if (length < 0) {
        weir_set_error(error, "cannot read policy file %s: %s", file,
                       g_strerror(errno));
        return NULL;
    }
    return weir_policy_parse(data, (gsize)length, file, true, schema, error);
}

static gint policy_compare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool policy_files_in(const char *dir, GPtrArray *files, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    DIR *stream = opendir(dir);
    const struct dirent *entry;

    if (!stream) {
        weir_set_error(error, "cannot read policy directory %s: %s", dir,
                       g_strerror(errno));
        return false;
    }
    while ((entry = readdir(stream))) {
        const char *name = entry->d_name;

        if (name[0] != '.' && g_str_has_suffix(name, WEIR_POLICY_SUFFIX)) {
            g_ptr_array_add(names, g_build_filename(dir, name, NULL));
        }
    }
    closedir(stream);
    g_ptr_array_sort(names, policy_compare);
    g_ptr_array_extend_and_steal(files, g_steal_pointer(&names));
    return true;
}

GPtrArray *weir_policy_files(char *const *dirs, GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);

    for (; *dirs; dirs++) {
        if (!policy_files_in(*dirs, files, error)) {
            return NULL;
        }
    }
    return g_steal_pointer(&files);
}

/* The error for a name that no file has. */
static void policy_not_found(char *const *dirs, const char *name,
                             GError **error)
{
    g_autofree char *where = g_strjoinv(", ", (char **)dirs);
    g_autoptr(GPtrArray) files = weir_policy_files(dirs, error);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *list = NULL;

    if (!files) {
        return;
    }
    for (guint i = 0; i < files->len; i++) {
        g_ptr_array_add(names,
                        policy_file_name(g_ptr_array_index(files, i)));
    }
    g_ptr_array_add(names, NULL);
    list = g_strjoinv(", ", (char **)names->pdata);
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                "there is no policy '%s' in %s (there %s %s)", name, where,
                names->len == 2 ? "is" : "are",
                names->len == 1 ? "none" : list);
}

WeirPolicy *weir_policy_find(char *const *dirs, const char *name,
                             const WeirSchema *schema, GError **error)
{
    g_autofree char *base = g_strconcat(name, WEIR_POLICY_SUFFIX, NULL);
    g_autofree char *found = NULL;

    for (char *const *dir = dirs;
         *dir && weir_name_ok(name, WEIR_POLICY_MAX_NAME); dir++) {
        g_autofree char *file = g_build_filename(*dir, base, NULL);

        if (!g_file_test(file, G_FILE_TEST_EXISTS)) {
            continue;
        }
        if (found) {
            weir_set_error(error, "policy '%s' is in both %s and %s", name,
                           found, file);
            return NULL;
        }
        found = g_steal_pointer(&file);
    }
    if (!found) {
        policy_not_found(dirs, name, error);
        return NULL;
    }
    return weir_policy_load(found, schema, error);
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
    if (json_object_get_size(limits) > 0) {
        json_object_set_object_member(object, "limits",
                                      json_object_ref(limits));
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

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "answers.h"

#include <string.h>
#include <unistd.h>

#include "keep.h"
#include "stamp.h"

/* Counts up when the text changes, or what it is made of. */
#define ANSWERS_FORMAT 1

#define ANSWERS_ACCEPTED_MAX 256

#define ANSWERS_MODULES "block-" WEIR_FILTER_PREFIX "*.so"

/* The clock of a file system may be so far behind, or as coarse. */
#define ANSWERS_YOUNG_S 2

struct WeirAnswers {
    char *origin;           /* see answers_origin(); NULL: new */
    JsonObject *stamps;     /* of the files that they depend on */
    JsonArray *introspection;   /* what matters of query-qmp-schema */
    JsonArray *capabilities;    /* query-weir-filters */
    JsonArray *accepted;    /* digests, the oldest first */
};

static WeirAnswers *answers_alloc(void)
{
    WeirAnswers *answers = g_new0(WeirAnswers, 1);

    answers->stamps = json_object_new();
    answers->introspection = json_array_new();
    answers->capabilities = json_array_new();
    answers->accepted = json_array_new();
    return answers;
}

void weir_answers_free(WeirAnswers *answers)
{
    if (answers) {
        g_free(answers->origin);
        json_object_unref(answers->stamps);
        json_array_unref(answers->introspection);
        json_array_unref(answers->capabilities);
        json_array_unref(answers->accepted);
        g_free(answers);
    }
}

/* --- the part of the introspection that is about filters --- */

typedef struct Reduction {
    GHashTable *types;      /* name -> JsonObject */
    GHashTable *seen;       /* names that are in @result */
    const char *node_type;
    JsonArray *result;
} Reduction;

static void answers_reach(Reduction *reduction, const char *name);

/* What the elements of @list refer to. */
static void answers_reach_all(Reduction *reduction, JsonArray *list)
{
    for (guint i = 0; i < weir_json_length(list); i++) {
        answers_reach(reduction,
                      weir_json_string(weir_json_object_at(list, i), "type"));
    }
}

/* Take that type and what it refers to; but of a node only that it is one. */
static void answers_reach(Reduction *reduction, const char *name)
{
    JsonObject *type = name ? g_hash_table_lookup(reduction->types, name)
                            : NULL;

    if (!type || g_strcmp0(name, reduction->node_type) == 0 ||
        !g_hash_table_add(reduction->seen, (gpointer)name)) {
        return;
    }
    json_array_add_object_element(reduction->result, json_object_ref(type));
    answers_reach(reduction, weir_json_string(type, "element-type"));
    answers_reach_all(reduction, weir_json_array(type, "members"));
    answers_reach_all(reduction, weir_json_array(type, "variants"));
}

static bool answers_is_filter(JsonArray *capabilities, const char *driver)
{
    for (guint i = 0; i < weir_json_length(capabilities); i++) {
        if (driver &&
            g_strcmp0(weir_json_string(weir_json_object_at(capabilities, i),
                                       "driver"), driver) == 0) {
            return true;
        }
    }
    return false;
}

/* The type of nodes with the filters as its only variants. */
static JsonObject *answers_node_type(JsonObject *type, JsonArray *capabilities)
{
    JsonArray *variants = weir_json_array(type, "variants");
    JsonArray *filters = json_array_new();
    JsonObject *result = weir_json_copy(type);

    for (guint i = 0; i < weir_json_length(variants); i++) {
        JsonObject *variant = weir_json_object_at(variants, i);

        if (answers_is_filter(capabilities,
                              weir_json_string(variant, "case"))) {
            json_array_add_object_element(filters, json_object_ref(variant));
        }
    }
    json_object_remove_member(result, "members");
    json_object_set_array_member(result, "variants", filters);
    return result;
}

static void answers_reduce(WeirAnswers *answers, JsonArray *entries)
{
    g_autoptr(GHashTable) types = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    Reduction reduction = {
        .types = types, .seen = seen, .result = answers->introspection,
    };
    JsonObject *command;
    JsonObject *node;

    for (guint i = 0; i < weir_json_length(entries); i++) {
        JsonObject *entry = weir_json_object_at(entries, i);
        const char *name = weir_json_string(entry, "name");

        if (name) {
            g_hash_table_insert(types, (gpointer)name, entry);
        }
    }
    command = g_hash_table_lookup(types, "blockdev-add");
    reduction.node_type = weir_json_string(command, "arg-type");
    node = reduction.node_type
        ? g_hash_table_lookup(types, reduction.node_type) : NULL;
    if (!weir_json_array(node, "variants")) {
        return;     /* weir_schema_new() will tell */
    }
    node = answers_node_type(node, answers->capabilities);
    json_array_add_object_element(reduction.result, json_object_ref(command));
    json_array_add_object_element(reduction.result, node);
    answers_reach_all(&reduction, weir_json_array(node, "variants"));
}

WeirAnswers *weir_answers_new(JsonNode *introspection, JsonNode *capabilities)
{
    WeirAnswers *answers = answers_alloc();
    JsonArray *list = weir_json_as_array(capabilities);

    if (list) {
        json_array_unref(answers->capabilities);
        answers->capabilities = json_array_ref(list);
    }
    answers_reduce(answers, weir_json_as_array(introspection));
    return answers;
}

WeirSchema *weir_answers_schema(const WeirAnswers *answers, GError **error)
{
    g_autoptr(JsonNode) introspection = json_node_new(JSON_NODE_ARRAY);
    g_autoptr(JsonNode) capabilities = json_node_new(JSON_NODE_ARRAY);

    json_node_set_array(introspection, answers->introspection);
    json_node_set_array(capabilities, answers->capabilities);
    return weir_schema_new(introspection, capabilities, error);
}

/* --- what was accepted --- */

bool weir_answers_accepted(const WeirAnswers *answers, const char *digest)
{
    for (guint i = 0; i < weir_json_length(answers->accepted); i++) {
        if (g_strcmp0(weir_json_string_at(answers->accepted, i),
                      digest) == 0) {
            return true;
        }
    }
    return false;
}

void weir_answers_accept(WeirAnswers *answers, const char *digest)
{
    json_array_add_string_element(answers->accepted, digest);
    if (weir_json_length(answers->accepted) > ANSWERS_ACCEPTED_MAX) {
        json_array_remove_element(answers->accepted, 0);
    }
}

/* --- as text --- */

char *weir_answers_text(const WeirAnswers *answers)
{
    g_autoptr(JsonObject) object = json_object_new();

    json_object_set_int_member(object, "format", ANSWERS_FORMAT);
    weir_json_set_string(object, "origin", answers->origin);
    json_object_set_object_member(object, "stamps",
                                  json_object_ref(answers->stamps));
    json_object_set_array_member(object, "introspection",
                                 json_array_ref(answers->introspection));
    json_object_set_array_member(object, "capabilities",
                                 json_array_ref(answers->capabilities));
    json_object_set_array_member(object, "accepted",
                                 json_array_ref(answers->accepted));
    return weir_json_object_text(object, false);
}

/* Put member @name in the place of @array.  Returns whether there is one. */
static bool answers_take(JsonObject *object, const char *name,
                         JsonArray **array)
{
    JsonArray *found = weir_json_array(object, name);

    if (found) {
        json_array_unref(*array);
        *array = json_array_ref(found);
    }
    return found != NULL;
}

WeirAnswers *weir_answers_parse(const char *text, gsize length)
{
    g_autoptr(JsonNode) node = weir_json_parse(text, length, NULL);
    g_autoptr(WeirAnswers) answers = answers_alloc();
    JsonObject *object = node ? weir_json_as_object(node) : NULL;
    JsonObject *stamps = weir_json_object(object, "stamps");

    if (weir_json_int(object, "format", 0) != ANSWERS_FORMAT || !stamps ||
        !answers_take(object, "introspection", &answers->introspection) ||
        !answers_take(object, "capabilities", &answers->capabilities) ||
        !answers_take(object, "accepted", &answers->accepted)) {
        return NULL;
    }
    json_object_unref(answers->stamps);
    answers->stamps = json_object_ref(stamps);
    answers->origin = g_strdup(weir_json_string(object, "origin"));
    return g_steal_pointer(&answers);
}

/* --- kept --- */

/* Who has answered, and where it looks for its modules; or NULL. */
static char *answers_origin(const char *program)
{
    static const char *const variables[] = {
        "QEMU_MODULE_DIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
    };
    g_autofree char *weir = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *path = g_canonicalize_filename(program, NULL);
    GString *text = g_string_new(path);

    g_string_append_printf(text, "\n%s", weir ? weir : "");
    for (guint i = 0; i < G_N_ELEMENTS(variables); i++) {
        const char *value = g_getenv(variables[i]);

        g_string_append_printf(text, "\n%s", value ? value : "");
    }
    if (!g_utf8_validate(text->str, -1, NULL)) {
        g_string_free(text, TRUE);
        return NULL;
    }
    return g_string_free(text, FALSE);
}

/* There are sixteen files at most: origins may have to share one. */
static char *answers_name(const char *origin)
{
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256,
                                                         origin, -1);

    return g_strdup_printf("storage-daemon-%c", *sum);
}

WeirAnswers *weir_answers_load(const char *program)
{
    g_autofree char *origin = answers_origin(program);
    g_autofree char *name = origin ? answers_name(origin) : NULL;
    g_autoptr(WeirAnswers) answers = NULL;
    gsize length = 0;
    g_autofree char *text = name ? weir_keep_read(name, &length) : NULL;

    answers = text ? weir_answers_parse(text, length) : NULL;
    if (!answers || g_strcmp0(answers->origin, origin) != 0 ||
        !weir_stamps_hold(answers->stamps, 0)) {
        return NULL;
    }
    return g_steal_pointer(&answers);
}

/* Where the modules are that have been loaded, and may be; to be unrefed. */
static GPtrArray *answers_module_dirs(const WeirAnswers *answers, pid_t pid)
{
    GPtrArray *dirs = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GList) paths = json_object_get_members(answers->stamps);
    g_autofree char *link = g_strdup_printf("/proc/%d/exe", (int)pid);
    g_autofree char *program = g_file_read_link(link, NULL);

    for (GList *i = paths; i; i = i->next) {
        g_autofree char *name = g_path_get_basename(i->data);

        if (g_pattern_match_simple(ANSWERS_MODULES, name)) {
            g_ptr_array_add(dirs, g_path_get_dirname(i->data));
        }
    }
    /* Without a module, nobody knows where the next one would be. */
    if (dirs->len > 0 && g_getenv("QEMU_MODULE_DIR")) {
        g_ptr_array_add(dirs, g_strdup(g_getenv("QEMU_MODULE_DIR")));
    }
    if (dirs->len > 0 && program) {
        g_autofree char *bin = g_path_get_dirname(program);

        g_ptr_array_add(dirs, g_build_filename(bin, "../lib/qemu", NULL));
    }
    return dirs;
}

/*
 * Stamp what new answers depend on.  Returns false if that is not known: a
 * module that could not be loaded may be all right next time.
 */
static bool answers_stamp(WeirAnswers *answers, const char *program,
                          pid_t pid)
{
    g_autoptr(GPtrArray) dirs = NULL;
    bool all = true;

    weir_stamp_process(answers->stamps, pid);
    weir_stamp_process(answers->stamps, getpid());  /* what it means to us */
    dirs = answers_module_dirs(answers, pid);
    for (guint i = 0; i < dirs->len; i++) {
        all = weir_stamp_dir(answers->stamps, g_ptr_array_index(dirs, i),
                             ANSWERS_MODULES) && all;
    }
    weir_stamp_add(answers->stamps, program);
    weir_stamp_add(answers->stamps, "/etc/ld.so.cache");
    return all && dirs->len > 0;
}

void weir_answers_save(WeirAnswers *answers, const char *program, pid_t pid,
                       gint64 start_s)
{
    g_autofree char *origin = answers_origin(program);
    g_autofree char *name = origin ? answers_name(origin) : NULL;
    g_autofree char *text = NULL;

    /* A process that was only asked for more has not loaded all of them. */
    if (!name ||
        (!answers->origin && !answers_stamp(answers, program, pid)) ||
        !weir_stamps_hold(answers->stamps, start_s - ANSWERS_YOUNG_S)) {
        return;
    }
    g_free(answers->origin);
    answers->origin = g_steal_pointer(&origin);
    text = weir_answers_text(answers);
    weir_keep_write(name, text);
}

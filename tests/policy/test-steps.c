/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The steps from the filters that a disk has to those that it should have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "change.h"

/* A disk "raw > file", the filters of which are given as text. */
typedef struct Case {
    GPtrArray *types;       /* WeirFilterType */
    GPtrArray *nodes;       /* WeirChainNode, of the goals */
    GPtrArray *present;
    GPtrArray *goals;
    WeirShape shape;
    char *above_format;     /* of the present filters, the lowest so far */
} Case;

static void type_free(WeirFilterType *type)
{
    g_free(type->driver);
    g_free(type->kind);
    g_free(type->child);
    g_ptr_array_unref(type->nodes);
    g_free(type);
}

static void node_free(WeirChainNode *node)
{
    g_free(node->driver);
    g_free(node->node_name);
    json_object_unref(node->options);
    json_object_unref(node->settings);
    g_free(node);
}

static int set_up(void **state)
{
    Case *c = g_new0(Case, 1);

    c->types = g_ptr_array_new_with_free_func((GDestroyNotify)type_free);
    c->nodes = g_ptr_array_new_with_free_func((GDestroyNotify)node_free);
    c->present = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_present_free);
    c->goals = g_ptr_array_new_with_free_func((GDestroyNotify)weir_goal_free);
    c->shape.root = g_strdup("fmt");
    c->shape.storage = g_strdup("file");
    c->shape.below = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                           g_free);
    c->shape.names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                           NULL);
    c->shape.leftovers = g_ptr_array_new_with_free_func(g_free);
    g_hash_table_insert(c->shape.below, g_strdup("fmt"), g_strdup("file"));
    g_hash_table_add(c->shape.names, g_strdup("fmt"));
    g_hash_table_add(c->shape.names, g_strdup("file"));
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    Case *c = *state;

    weir_shape_clear(&c->shape);
    g_ptr_array_unref(c->goals);
    g_ptr_array_unref(c->present);
    g_ptr_array_unref(c->nodes);
    g_ptr_array_unref(c->types);
    g_free(c->above_format);
    g_free(c);
    return 0;
}

static JsonObject *object(const char *text)
{
    g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);

    assert_non_null(node);
    return json_object_ref(weir_json_as_object(node));
}

/* A filter above @below that is there. */
static WeirPresent *has(Case *c, const char *driver, const char *node_name,
                        WeirPlace place, const char *settings)
{
    const char *below = place == WEIR_PLACE_DISK ? "fmt" : "file";
    WeirPresent *present = g_new0(WeirPresent, 1);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, c->shape.below);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (strcmp(value, below) == 0) {
            g_hash_table_iter_replace(&iter, g_strdup(node_name));
        }
    }
    if (strcmp(c->shape.root, below) == 0) {
        g_free(c->shape.root);
        c->shape.root = g_strdup(node_name);
    }
    g_hash_table_insert(c->shape.below, g_strdup(node_name), g_strdup(below));
    g_hash_table_add(c->shape.names, g_strdup(node_name));
    present->kind = g_strdup(driver);
    present->node_name = g_strdup(node_name);
    present->child = g_strdup("file");
    present->place = place;
    if (settings) {
        present->settings = object(settings);
        present->recorded = object(settings);
        present->options = object(settings);
        present->opened = object(settings);
    }
    g_ptr_array_add(c->present, present);
    return present;
}

static WeirGoal *wants(Case *c, const char *driver, WeirPlace place,
                       const char *settings)
{
    WeirFilterType *type = g_new0(WeirFilterType, 1);
    WeirChainNode *node = g_new0(WeirChainNode, 1);
    WeirGoal *goal = g_new0(WeirGoal, 1);

    type->driver = g_strdup(driver);
    type->kind = g_strdup(driver);
    type->child = g_strdup("file");
    type->nodes = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(type->nodes, g_strdup("cache-file"));
    type->class = strcmp(driver, "weir-replication") == 0
                  ? WEIR_CLASS_REPLICATION : WEIR_CLASS_OTHER;
    type->changes_data = strcmp(driver, "weir-encryption") == 0;
    g_ptr_array_add(c->types, type);
    node->role = WEIR_ROLE_FILTER;
    node->place = place;
    node->driver = g_strdup(driver);
    node->node_name = g_strdup(driver + strlen("weir-"));
    node->settings = object(settings);
    node->options = object(settings);
    g_ptr_array_add(c->nodes, node);
    goal->node = node;
    goal->type = type;
    g_ptr_array_add(c->goals, goal);
    return goal;
}

/* The steps, one letter and a node each, as in "A cache>file, D inspect". */
static char *steps_text(const WeirChange *change)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < change->steps->len; i++) {
        const WeirStep *step = g_ptr_array_index(change->steps, i);

        g_string_append_printf(text, "%s%c %s", i ? ", " : "",
                               "MOCADR"[step->kind], step->node_name);
        if (step->kind == WEIR_STEP_ATTACH || step->kind == WEIR_STEP_DETACH) {
            g_string_append_printf(text, ">%s", step->below);
            assert_true(!step->options ||
                        strcmp(weir_json_string(step->options, "file"),
                               step->below) == 0);
        }
    }
    return g_string_free(text, FALSE);
}

static WeirChange *does(Case *c, const char *expected)
{
    g_autoptr(GError) error = NULL;
    WeirChange *change = weir_change_new(c->present, c->goals, &c->shape,
                                         &error);
    g_autofree char *text = NULL;

    assert_null(error);
    text = steps_text(change);
    assert_string_equal(text, expected);
    return change;
}

static void refuses(Case *c, const char *message)
{
    g_autoptr(GError) error = NULL;

    assert_null(weir_change_new(c->present, c->goals, &c->shape, &error));
    assert_string_equal(error->message, message);
}

static void test_attach_lowest_first(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    wants(c, "weir-inspect", WEIR_PLACE_DISK, "{}");
    wants(c, "weir-a", WEIR_PLACE_DISK, "{}");
    wants(c, "weir-replication", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "A cache>file, A replication>cache, A a>fmt, "
                  "A inspect>a");
    assert_string_equal(c->shape.root, "inspect");
}

static void test_detach_highest_first(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-inspect", "i", WEIR_PLACE_DISK, "{}");
    has(c, "weir-cache", "c", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "D i>fmt, D c>file");
    assert_string_equal(c->shape.root, "fmt");
}

static void test_what_is_there_stays(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-inspect", "i", WEIR_PLACE_STORAGE, "{\"entropy\":true}");
    has(c, "weir-cache", "c", WEIR_PLACE_STORAGE,
        "{\"cache-file\":\"create:16M:/c\"}");
    wants(c, "weir-inspect", WEIR_PLACE_STORAGE, "{\"entropy\":true}");
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{\"cache-file\":\"/c\"}");
    change = does(c, "");
    assert_string_equal(
        ((WeirChainNode *)g_ptr_array_index(c->nodes, 0))->node_name, "i");
}

static void test_between_those_that_stay(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-b", "b", WEIR_PLACE_DISK, "{}");
    has(c, "weir-encryption", "e", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-b", WEIR_PLACE_DISK, "{}");
    wants(c, "weir-a", WEIR_PLACE_DISK, "{}");
    wants(c, "weir-inspect", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-encryption", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "A cache>file, A inspect>e, A a>fmt");
    assert_string_equal(g_hash_table_lookup(c->shape.below, "e"), "cache");
    assert_string_equal(g_hash_table_lookup(c->shape.below, "b"), "a");
}

static void test_reopened(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    const WeirStep *step;
    Case *c = *state;

    has(c, "weir-cache", "c", WEIR_PLACE_STORAGE,
        "{\"cache-file\":\"/c\",\"mode\":\"write-back\",\"idle\":1}");
    wants(c, "weir-cache", WEIR_PLACE_STORAGE,
          "{\"cache-file\":\"/c\",\"mode\":\"write-through\"}");
    change = does(c, "R c");
    step = g_ptr_array_index(change->steps, 0);
    assert_string_equal(weir_json_string(step->options, "mode"),
                        "write-through");
    assert_false(json_object_has_member(step->options, "idle"));
    assert_string_equal(weir_json_string(step->options, "node-name"), "c");
    assert_string_equal(weir_json_string(step->before, "mode"), "write-back");
}

/* After a process was killed at it, nobody knows whether it was reopened. */
static void test_reopened_once_more(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-cache", "c", WEIR_PLACE_STORAGE, "{\"idle\":1}")->unsure =
        true;
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{\"idle\":1}");
    change = does(c, "R c");
}

static void test_attached_again(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    g_autoptr(JsonObject) node = object("{\"node-name\":\"cache-file\"}");
    WeirPresent *present;
    WeirGoal *goal;
    Case *c = *state;

    has(c, "weir-inspect", "inspect", WEIR_PLACE_STORAGE, "{}");
    present = has(c, "weir-cache", "cache", WEIR_PLACE_STORAGE,
                  "{\"cache-file\":\"/c\"}");
    present->owned = g_ptr_array_new();
    g_ptr_array_add(present->owned, node);
    wants(c, "weir-inspect", WEIR_PLACE_STORAGE, "{}");
    goal = wants(c, "weir-cache", WEIR_PLACE_STORAGE,
                 "{\"cache-file\":\"create:4M:/d\"}");
    json_object_set_object_member(
        goal->node->options, "cache-file",
        object("{\"driver\":\"file\",\"node-name\":\"cache-file\"}"));
    /* no name is used twice: it tells which options the node has */
    change = does(c, "D cache>file, C cache-file, M cache-2, O cache-file, "
                  "A cache-2>file");
    assert_string_equal(weir_json_string(goal->node->options, "cache-file"),
                        "cache-file");
    assert_string_equal(g_hash_table_lookup(c->shape.below, "inspect"),
                        "cache-2");
}

/* What another filter takes the place of goes last. */
static void test_exchanged(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-inspect", "i", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "A cache>file, D i>cache");
}

static void test_other_order(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-cache", "c", WEIR_PLACE_STORAGE, "{}");
    has(c, "weir-encryption", "e", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-encryption", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "D c>e, A cache>file");
}

static void test_other_place(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-inspect", "inspect", WEIR_PLACE_STORAGE, "{}");
    wants(c, "weir-inspect", WEIR_PLACE_DISK, "{}");
    change = does(c, "D inspect>file, A inspect-2>fmt");
}

static void test_up_from_a_backing_file(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;
    WeirPresent *present = has(c, "weir-cache", "c", WEIR_PLACE_STORAGE, "{}");

    present->backing = true;
    g_hash_table_insert(c->shape.below, g_strdup("c"), g_strdup("base"));
    g_hash_table_insert(c->shape.below, g_strdup("fmt"), g_strdup("file"));
    wants(c, "weir-cache", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "D c>base, A cache>file");
}

/* One that nobody can put back is left to the end. */
static void test_unknown_filter(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-a", "a", WEIR_PLACE_STORAGE, NULL);
    has(c, "weir-b", "b", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "D b>file, D a>file");
    assert_null(((WeirStep *)g_ptr_array_index(change->steps, 1))->options);
}

static void test_leftovers(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    g_ptr_array_add(c->shape.leftovers, g_strdup("old"));
    wants(c, "weir-inspect", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "C old, A inspect>file");
}

static void test_refused(void **state)
{
    Case *c = *state;

    wants(c, "weir-inspect", WEIR_PLACE_STORAGE, "{}")->refusal =
        g_strdup("because");
    refuses(c, "weir-inspect cannot be attached to a disk in use: because");
}

static void test_stays(void **state)
{
    Case *c = *state;

    has(c, "weir-encryption", "e", WEIR_PLACE_STORAGE, "{}")->stays =
        g_strdup("because");
    refuses(c, "weir-encryption (node e) cannot be detached: because");
}

static void test_cannot_come_back(void **state)
{
    Case *c = *state;

    has(c, "weir-replication", "r", WEIR_PLACE_STORAGE,
        "{\"log\":\"/l\",\"mode\":\"async\"}")->leaves =
        g_strdup("because");
    wants(c, "weir-replication", WEIR_PLACE_STORAGE, "{\"log\":\"/l\"}");
    refuses(c, "weir-replication (node r) cannot be detached and attached "
            "again: because");
}

/* What cannot be undone comes when nothing else can fail any more. */
static void test_cannot_come_back_goes_last(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-replication", "r", WEIR_PLACE_STORAGE, "{}")->leaves =
        g_strdup("because");
    has(c, "weir-cache", "c", WEIR_PLACE_STORAGE, "{}");
    change = does(c, "D c>file, D r>file");
    assert_string_equal(
        ((WeirStep *)g_ptr_array_index(change->steps, 1))->leaves, "because");
}

static void test_comes_back_elsewhere(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    WeirPresent *present;
    Case *c = *state;

    present = has(c, "weir-replication", "r", WEIR_PLACE_STORAGE,
                  "{\"log\":\"/l\"}");
    present->leaves = g_strdup("because");
    present->note = g_strdup("mind");
    present->memory = g_strdup("/old");
    wants(c, "weir-replication", WEIR_PLACE_STORAGE,
          "{\"log\":\"/m\",\"sidecar\":\"create:4M:/new\"}");
    change = does(c, "D r>file, A replication>file");
    assert_string_equal(g_ptr_array_index(change->notes, 0), "mind");
    assert_string_equal(
        ((WeirStep *)g_ptr_array_index(change->steps, 0))->memory, "/old");
    assert_string_equal(
        ((WeirStep *)g_ptr_array_index(change->steps, 1))->memory, "/new");
}

static void test_encryption_is_not_changed(void **state)
{
    Case *c = *state;

    has(c, "weir-encryption", "e", WEIR_PLACE_STORAGE, "{\"workers\":1}");
    wants(c, "weir-encryption", WEIR_PLACE_STORAGE, "{\"workers\":2}");
    refuses(c, "'workers' of weir-encryption cannot be changed while the disk "
            "is in use; start the VM anew under the policy");
}

static void test_counts_when_opened(void **state)
{
    g_autoptr(WeirChange) change = NULL;
    Case *c = *state;

    has(c, "weir-encryption", "e", WEIR_PLACE_STORAGE, "{\"key-slot\":1}");
    wants(c, "weir-encryption", WEIR_PLACE_STORAGE, "{\"key-slot\":2}");
    change = does(c, "");
    assert_int_equal(change->notes->len, 1);
    assert_string_equal(g_ptr_array_index(change->notes, 0), "'key-slot' of "
                        "weir-encryption counts when the disk is opened next");
}

#define PLUGIN "{\"options\":[" \
    "{\"name\":\"rate\",\"type\":\"int\",\"default\":\"10\"," \
    "\"mutable\":true}," \
    "{\"name\":\"size\",\"type\":\"size\",\"mutable\":false}," \
    "{\"name\":\"quiet\",\"type\":\"bool\",\"mutable\":true}," \
    "{\"name\":\"label\",\"type\":\"string\",\"mutable\":true}]}"

static void test_mutability(void **state)
{
    static const struct {
        const char *driver;
        bool changes_data;
        const char *option;
        WeirMutability mutability;
    } rows[] = {
        { "weir-cache", false, "mode", WEIR_MUTABLE_REOPEN },
        { "weir-cache", false, "base-id", WEIR_MUTABLE_REATTACH },
        { "weir-replication", false, "mode", WEIR_MUTABLE_REATTACH },
        { "weir-acme", false, "x", WEIR_MUTABLE_REATTACH },
        { "weir-acme", true, "x", WEIR_MUTABLE_NEVER },
        { "weir-plugin", true, "on-error", WEIR_MUTABLE_REOPEN },
        { "weir-plugin", true, "deadline", WEIR_MUTABLE_REOPEN },
        { "weir-plugin", true, "options.rate", WEIR_MUTABLE_REOPEN },
        { "weir-plugin", true, "options.size", WEIR_MUTABLE_NEVER },
        { "weir-plugin", false, "options.size", WEIR_MUTABLE_REATTACH },
        { "weir-plugin", false, "options.none", WEIR_MUTABLE_REATTACH },
        { "weir-plugin", false, "sidecar", WEIR_MUTABLE_REATTACH },
        { "weir-plugin", true, "plugin", WEIR_MUTABLE_NEVER },
    };
    g_autoptr(JsonObject) plugin = object(PLUGIN);

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        const WeirFilterType type = {
            .driver = (char *)rows[i].driver, .plugin = plugin,
            .changes_data = rows[i].changes_data,
        };

        assert_int_equal(weir_mutability(&type, rows[i].option),
                         rows[i].mutability);
    }
}

/* Names, separated by spaces; in brackets, if it is the same to the plugin. */
static char *differences(const WeirFilterType *type, JsonObject *a,
                         JsonObject *b)
{
    g_autoptr(GPtrArray) names = weir_options_differ(a, b);
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);

        g_string_append_printf(text, weir_option_same(type, a, b, name)
                               ? "%s(%s)" : "%s%s", i ? " " : "", name);
    }
    return g_string_free(text, FALSE);
}

static void test_values_of_a_plugin(void **state)
{
    static const struct {
        const char *a, *b, *differ;
    } rows[] = {
        { "{\"rate\":\"5\"}", "{\"rate\":\"6\"}", "options.rate" },
        { "{\"rate\":\"10\"}", "{}", "(options.rate)" },
        { "{}", "{\"rate\":\"10\"}", "(options.rate)" },
        { "{\"rate\":\"+7\"}", "{\"rate\":7}", "(options.rate)" },
        { "{\"size\":\"64K\"}", "{\"size\":\"65536\"}",
          "(options.size)" },
        { "{\"size\":\"1k\"}", "{\"size\":\"1025\"}", "options.size" },
        { "{\"quiet\":\"on\"}", "{\"quiet\":\"true\"}",
          "(options.quiet)" },
        { "{\"quiet\":\"off\"}", "{}", "(options.quiet)" },
        { "{\"label\":\"\"}", "{}", "(options.label)" },
        { "{\"label\":\"a\"}", "{\"rate\":\"1\"}",
          "options.label options.rate" },
        { "{\"x\":\"1\"}", "{\"x\":\"01\"}", "options.x" },
        { "{}", "{}", "" },
    };
    g_autoptr(JsonObject) plugin = object(PLUGIN);
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    const WeirFilterType type = {
        .driver = (char *)WEIR_PLUGIN_DRIVER, .plugin = plugin, .nodes = nodes,
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *a_text = g_strdup_printf("{\"options\":%s}",
                                                  rows[i].a);
        g_autofree char *b_text = g_strdup_printf("{\"options\":%s}",
                                                  rows[i].b);
        g_autoptr(JsonObject) a = object(a_text);
        g_autoptr(JsonObject) b = object(b_text);
        g_autoptr(JsonObject) without = object("{}");
        g_autofree char *found = differences(&type, a, b);
        g_autofree char *from_none = differences(&type, without, b);

        assert_string_equal(found, rows[i].differ);
        /* no options at all are as good as none of them */
        assert_true((strcmp(rows[i].b, "{}") == 0) ==
                    (strcmp(from_none, "") == 0));
    }
}

/* QEMU takes no default for an option that is left out when it reopens. */
static void test_reopened_plugin_gets_all_options(void **state)
{
    Case *c = *state;
    g_autoptr(JsonObject) plugin = object(PLUGIN);
    g_autoptr(WeirChange) change = NULL;
    const WeirStep *step;
    JsonObject *options;
    WeirGoal *goal;

    has(c, "weir-plugin", "p", WEIR_PLACE_STORAGE,
        "{\"plugin\":\"x\",\"options\":{\"rate\":\"5\"}}");
    goal = wants(c, "weir-plugin", WEIR_PLACE_STORAGE, "{\"plugin\":\"x\"}");
    ((WeirFilterType *)goal->type)->plugin = plugin;
    change = does(c, "R p");
    step = g_ptr_array_index(change->steps, 0);
    options = weir_json_object(step->options, "options");
    assert_string_equal(weir_json_string(options, "rate"), "10");
    assert_string_equal(weir_json_string(options, "quiet"), "off");
    assert_int_equal(json_object_get_size(options), 4);
    options = weir_json_object(step->before, "options");
    assert_string_equal(weir_json_string(options, "rate"), "5");
    assert_int_equal(json_object_get_size(options), 4);
}

/* A sidecar that cannot be made blank from here would be believed later. */
static void test_sidecar_elsewhere(void **state)
{
    static const struct {
        WeirClass class;
        const char *settings;
        bool stays;
    } rows[] = {
        { WEIR_CLASS_REPLICATION, "{\"sidecar\":\"nbd://h/s\"}", true },
        { WEIR_CLASS_REPLICATION, "{\"sidecar\":\"/s\"}", false },
        { WEIR_CLASS_REPLICATION, "{}", false },
        { WEIR_CLASS_CACHE, "{\"cache-file\":\"nbd://h/c\"}", false },
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        const WeirFilterType type = { .class = rows[i].class };
        g_autoptr(JsonObject) settings = object(rows[i].settings);
        g_autofree char *reason = weir_cannot_detach(&type, settings);

        assert_int_equal(reason != NULL, rows[i].stays);
    }
}

#define CASE(function) \
    cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_attach_lowest_first),
        CASE(test_detach_highest_first),
        CASE(test_what_is_there_stays),
        CASE(test_between_those_that_stay),
        CASE(test_reopened),
        CASE(test_reopened_once_more),
        CASE(test_attached_again),
        CASE(test_exchanged),
        CASE(test_other_order),
        CASE(test_other_place),
        CASE(test_up_from_a_backing_file),
        CASE(test_unknown_filter),
        CASE(test_leftovers),
        CASE(test_refused),
        CASE(test_stays),
        CASE(test_cannot_come_back),
        CASE(test_cannot_come_back_goes_last),
        CASE(test_comes_back_elsewhere),
        CASE(test_encryption_is_not_changed),
        CASE(test_counts_when_opened),
        cmocka_unit_test(test_mutability),
        cmocka_unit_test(test_values_of_a_plugin),
        CASE(test_reopened_plugin_gets_all_options),
        cmocka_unit_test(test_sidecar_elsewhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

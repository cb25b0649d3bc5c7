/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of loading, and of options with values of all kinds. */
#include <string.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

/* Requests may be held for a long time, if the option says so. */
#define OPTIONS_IO_MS 200
#define OPTIONS_LONG_BYTES 20000
#define OPTIONS_UNKNOWN "no-such-option"

/* --- load --- */

bool weir_check_load(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);

    if (!scene) {
        return false;
    }
    for (guint i = 0; i < 3; i++) {
        /* each time the file is unloaded, and loaded again */
        if (!weir_user_read(scene->user, 0, 65536, error) ||
            !weir_scene_close(scene, error) ||
            !weir_scene_open(scene, error)) {
            return false;
        }
    }
    return weir_scene_finish(scene, error);
}

/* --- values --- */

typedef struct Value {
    char *text;                 /* JSON */
    bool is_valid;              /* as the table of options has it */
} Value;

static void value_free(Value *value)
{
    g_free(value->text);
    g_free(value);
}

static void add(GPtrArray *values, bool is_valid, char *text)
{
    Value *value = g_new0(Value, 1);

    value->text = text;
    value->is_valid = is_valid;
    g_ptr_array_add(values, value);
}

static void add_text(GPtrArray *values, bool is_valid, const char *text)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_VALUE);

    json_node_set_string(node, text);
    add(values, is_valid, weir_json_text(node, false));
}

static void add_number(GPtrArray *values, bool is_valid, gint64 number)
{
    g_autofree char *text = g_strdup_printf("%" G_GINT64_FORMAT, number);

    add(values, is_valid, g_strdup(text));
    add_text(values, is_valid, text);
}

static void add_numbers(GPtrArray *values, JsonObject *option, bool is_size)
{
    gint64 min = weir_json_int(option, "min", is_size ? 0 : G_MININT64);
    gint64 max = weir_json_int(option, "max", G_MAXINT64);

    add_number(values, true, min);
    add_number(values, true, max);
    add_number(values, true, min + (max / 2 - min / 2));
    if (min > G_MININT64) {
        add_number(values, false, min - 1);
    }
    if (max < G_MAXINT64) {
        add_number(values, false, max + 1);
    }
    add_text(values, false, "");
    add_text(values, false, "many");
    add_text(values, false, "12x");
    add_text(values, false, "99999999999999999999");
}

static void add_strings(GPtrArray *values)
{
    g_autofree char *long_text = g_strnfill(OPTIONS_LONG_BYTES, 'x');

    add_text(values, true, "");
    add_text(values, true, "x");
    add_text(values, true, "%s%n%s%p");
    add_text(values, true, "/no/such/file");
    add_text(values, true, "\xc3\xbc \"'\\\n\t;");
    add_text(values, true, long_text);
}

static void add_choices(GPtrArray *values, JsonObject *option)
{
    JsonArray *choices = weir_json_array(option, "choices");

    for (guint i = 0; i < weir_json_length(choices); i++) {
        add_text(values, true, weir_json_string_at(choices, i));
    }
    add_text(values, false, "");
    add_text(values, false, "no-such-choice");
}

/* What an option is tried with. */
static GPtrArray *values_of(JsonObject *option)
{
    GPtrArray *values = g_ptr_array_new_with_free_func(
        (GDestroyNotify)value_free);
    const char *type = weir_json_string(option, "type");

    if (g_strcmp0(type, "bool") == 0) {
        add(values, true, g_strdup("true"));
        add_text(values, true, "off");
        add_text(values, true, "on");
        add_text(values, false, "maybe");
        add_text(values, false, "");
    } else if (g_strcmp0(type, "string") == 0) {
        add_strings(values);
    } else if (g_strcmp0(type, "choice") == 0) {
        add_choices(values, option);
    } else {
        add_numbers(values, option, g_strcmp0(type, "size") == 0);
    }
    add(values, false, g_strdup("[1]"));
    add(values, false, g_strdup("{}"));
    return values;
}

/* The node with option @name having @text, which is JSON. */
static JsonObject *node_with(const WeirStage *stage, const char *name,
                             const char *text)
{
    JsonObject *node = weir_stage_node(stage, WEIR_STAGE_PLUGIN,
                                       WEIR_STAGE_BELOW, "stall");

    if (!weir_json_object(node, "options")) {
        json_object_set_object_member(node, "options", json_object_new());
    }
    json_object_set_member(weir_json_object(node, "options"), name,
                           weir_json_parse(text, strlen(text), NULL));
    return node;
}

/* --- options --- */

/* Some requests, which need not end. */
static bool use_shortly(WeirScene *scene, GError **error)
{
    struct nbd_handle *nbd = weir_user_connect(scene->stage,
                                               WEIR_STAGE_PLUGIN, false,
                                               error);
    g_autofree guint8 *data = g_malloc0(65536);
    gint64 end_us = g_get_monotonic_time() + OPTIONS_IO_MS * 1000;

    if (!nbd) {
        return false;
    }
    nbd_aio_pwrite(nbd, data, 65536, 0, NBD_NULL_COMPLETION, 0);
    nbd_aio_pread(nbd, data, 4096, 131072, NBD_NULL_COMPLETION, 0);
    nbd_aio_pwrite(nbd, data, 513, 200001, NBD_NULL_COMPLETION, 0);
    nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0);
    while (nbd_aio_in_flight(nbd) > 0 && g_get_monotonic_time() < end_us &&
           nbd_poll(nbd, OPTIONS_IO_MS) >= 0) {
    }
    nbd_close(nbd);
    return true;
}

/* A disk with values that were accepted works, and goes away. */
static bool use_and_close(WeirScene *scene, GError **error)
{
    WeirStage *stage = scene->stage;

    return weir_stage_export(stage, WEIR_STAGE_PLUGIN, true, NULL, error) &&
           use_shortly(scene, error) &&
           weir_stage_unexport(stage, WEIR_STAGE_PLUGIN, error) &&
           weir_stage_cmd(stage, error, "query-weir",
                          "{\"node-name\": \"" WEIR_STAGE_PLUGIN "\"}") &&
           weir_stage_del(stage, WEIR_STAGE_PLUGIN, error);
}

static bool refused_well(const GError *refusal, const char *name,
                         GError **error)
{
    if (strstr(refusal->message, name)) {
        return true;
    }
    weir_set_error(error, "the error does not name the option: %s",
                   refusal->message);
    return false;
}

static bool try_value(WeirScene *scene, const char *name, const Value *value,
                      GError **error)
{
    g_autoptr(GError) refusal = NULL;
    g_autoptr(JsonNode) answer = weir_stage_ask(
        scene->stage, "blockdev-add",
        node_with(scene->stage, name, value->text), &refusal);

    if (answer && value->is_valid) {
        return use_and_close(scene, error);
    }
    if (answer) {
        weir_set_error(error, "expected an error, came success");
        return false;
    }
    if (!g_error_matches(refusal, WEIR_ERROR, WEIR_ERROR_QMP)) {
        g_propagate_error(error, g_steal_pointer(&refusal));
        return false;
    }
    /* it may refuse values for reasons that the table does not know */
    return value->is_valid || refused_well(refusal, name, error);
}

static bool try_values(WeirScene *scene, const char *name,
                       const GPtrArray *values, GError **error)
{
    for (guint i = 0; i < values->len; i++) {
        const Value *value = values->pdata[i];

        weir_trial_step(scene->trial, "opening the disk with option %s=%.60s",
                        name, value->text);
        if (!try_value(scene, name, value, error)) {
            g_prefix_error(error, "with option %s=%.60s: ", name,
                           value->text);
            return false;
        }
    }
    return true;
}

static bool try_unknown(WeirScene *scene, GError **error)
{
    g_autoptr(GPtrArray) values = g_ptr_array_new_with_free_func(
        (GDestroyNotify)value_free);

    add_text(values, false, "1");
    return try_values(scene, OPTIONS_UNKNOWN, values, error);
}

static bool close_but_sidecar(WeirScene *scene, GError **error)
{
    g_clear_pointer(&scene->user, weir_user_free);
    return weir_stage_unexport(scene->stage, WEIR_STAGE_PLUGIN, error) &&
           weir_stage_del(scene->stage, WEIR_STAGE_PLUGIN, error);
}

bool weir_check_options(WeirTrial *trial, GError **error)
{
    JsonArray *options = weir_json_array(trial->test->about, "options");
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);

    if (!scene) {
        return false;
    }
    if (!close_but_sidecar(scene, error) || !try_unknown(scene, error)) {
        return false;
    }
    for (guint i = 0; i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);
        g_autoptr(GPtrArray) values = values_of(option);

        if (!try_values(scene, weir_json_string(option, "name"), values,
                        error)) {
            return false;
        }
    }
    return weir_stage_quit(scene->stage, error);
}

/* --- change --- */

/* The value that it has without any, as JSON; the caller frees it. */
static char *default_of(const WeirTrial *trial, JsonObject *option)
{
    const char *name = weir_json_string(option, "name");
    const char *type = weir_json_string(option, "type");
    const char *text = weir_json_string(option, "default");
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_VALUE);
    gsize length = strlen(name);

    for (char **o = trial->test->options; o && *o; o++) {
        if (strncmp(*o, name, length) == 0 && (*o)[length] == '=') {
            text = *o + length + 1;
        }
    }
    if (!text) {
        text = g_strcmp0(type, "bool") == 0 ? "off" :
               g_strcmp0(type, "string") == 0 ? "" : "0";
    }
    json_node_set_string(node, text);
    return weir_json_text(node, false);
}

/* There and back again. */
static bool change_value(WeirScene *scene, JsonObject *option,
                         const Value *value, GError **error)
{
    const char *name = weir_json_string(option, "name");
    g_autofree char *back = default_of(scene->trial, option);
    g_autoptr(GError) refusal = NULL;
    bool ok;

    weir_trial_step(scene->trial, "changing option %s=%.60s under load",
                    name, value->text);
    ok = weir_stage_reopen(scene->stage, node_with(scene->stage, name,
                                                value->text), &refusal);
    if (ok != value->is_valid && (ok || !g_error_matches(
            refusal, WEIR_ERROR, WEIR_ERROR_QMP))) {
        weir_set_error(error, "option %s=%.60s: %s", name, value->text,
                       ok ? "expected an error, came success" :
                       refusal->message);
        return false;
    }
    return weir_stage_reopen(scene->stage, node_with(scene->stage, name, back),
                             error);
}

static bool change_option(WeirScene *scene, WeirLoad *load,
                          JsonObject *option, GError **error)
{
    g_autoptr(GPtrArray) values = values_of(option);

    for (guint i = 0; i < values->len; i++) {
        if (!change_value(scene, option, values->pdata[i], error) ||
            !weir_load_check(load, 10000, error)) {
            return false;
        }
    }
    return true;
}

bool weir_check_change(WeirTrial *trial, GError **error)
{
    /* an option may be there to make requests fail */
    static const WeirLoadOptions load_options = {
        .connections = 1, .depth = 4, .cell_bytes = 4096, .may_fail = true,
    };
    JsonArray *options = weir_json_array(trial->test->about, "options");
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);
    g_autoptr(WeirLoad) load = NULL;

    if (!scene) {
        return false;
    }
    load = weir_load_start(scene->stage, WEIR_STAGE_PLUGIN, scene->model,
                           &load_options, error);
    for (guint i = 0; load && i < weir_json_length(options); i++) {
        JsonObject *option = weir_json_object_at(options, i);

        if (weir_json_bool(option, "mutable", false) &&
            !change_option(scene, load, option, error)) {
            return false;
        }
    }
    return load && weir_load_stop(load, error) &&
           weir_scene_finish(scene, error);
}

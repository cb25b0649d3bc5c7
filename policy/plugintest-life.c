/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of what happens to a disk: in and out, longer, elsewhere. */
#include <string.h>
#include <sys/stat.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define LIFE_CELL_BYTES 2560

/* --- attach --- */

#define ATTACH_ROUNDS 6

static bool attach(WeirScene *scene, GError **error)
{
    JsonObject *arguments = json_object_new();
    const WeirPluginTest *test = scene->trial->test;
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "node-name", WEIR_STAGE_BELOW);
    json_object_set_object_member(
        arguments, "filter", weir_stage_node(scene->stage, WEIR_STAGE_PLUGIN,
                                             WEIR_STAGE_BELOW, "stall"));
    if (test->sidecar_bytes && !weir_stage_add_file(
            scene->stage, "sidecar-" WEIR_STAGE_PLUGIN,
            "sidecar-" WEIR_STAGE_PLUGIN, test->sidecar_bytes, error)) {
        json_object_unref(arguments);
        return false;
    }
    answer = weir_stage_ask(scene->stage, "weir-attach", arguments, error);
    return answer != NULL;
}

static bool detach(WeirScene *scene, GError **error)
{
    return weir_stage_check_state(scene->stage, WEIR_STAGE_PLUGIN, error) &&
           weir_stage_cmd(scene->stage, error, "weir-detach",
                          "{\"node-name\": \"" WEIR_STAGE_PLUGIN "\"}") &&
           (!scene->trial->test->sidecar_bytes ||
            weir_stage_del(scene->stage, "sidecar-" WEIR_STAGE_PLUGIN,
                           error));
}

/* The disk without the plugin, used by an export. */
static bool expose_below(WeirScene *scene, GError **error)
{
    g_clear_pointer(&scene->user, weir_user_free);
    if (!weir_stage_unexport(scene->stage, WEIR_STAGE_PLUGIN, error) ||
        !weir_stage_del(scene->stage, WEIR_STAGE_PLUGIN, error) ||
        (scene->trial->test->sidecar_bytes &&
         !weir_stage_del(scene->stage, "sidecar-" WEIR_STAGE_PLUGIN,
                         error)) ||
        !weir_stage_export(scene->stage, WEIR_STAGE_BELOW, true, NULL,
                           error)) {
        return false;
    }
    scene->user = weir_user_new(scene->stage, WEIR_STAGE_BELOW, scene->model,
                                error);
    return scene->user != NULL;
}

static WeirLoad *attach_load(WeirScene *scene, GError **error)
{
    static const WeirLoadOptions options = {
        .connections = 1, .depth = 16, .cell_bytes = LIFE_CELL_BYTES,
        .flushes = true,
    };

    return weir_load_start(scene->stage, WEIR_STAGE_BELOW, scene->model,
                           &options, error);
}

/* A write comes last: that is what a plugin is most likely to keep. */
static bool write_and_detach(WeirScene *scene, GError **error)
{
    return weir_user_write(scene->user, 65536, 65536, 0, error) &&
           detach(scene, error) &&
           weir_scene_check_below(scene, "after the plugin was taken out",
                                  error);
}

/* What is read stays the same: users go on meanwhile. */
static bool attach_under_load(WeirScene *scene, GError **error)
{
    g_autoptr(WeirLoad) load = attach_load(scene, error);

    for (guint i = 0; load && i < ATTACH_ROUNDS; i++) {
        weir_trial_step(scene->trial, "attaching under load, %u of %d", i + 1,
                        ATTACH_ROUNDS);
        if (!attach(scene, error) || !weir_load_check(load, 10000, error)) {
            return false;
        }
        weir_trial_step(scene->trial, "detaching under load, %u of %d", i + 1,
                        ATTACH_ROUNDS);
        if (!detach(scene, error) || !weir_load_check(load, 10000, error)) {
            return false;
        }
    }
    if (!load || !weir_load_stop(load, error) ||
        !weir_user_read_all(scene->user, error)) {
        return false;
    }
    weir_trial_step(scene->trial, "attaching and detaching at rest");
    return attach(scene, error) && write_and_detach(scene, error) &&
           weir_user_read_all(scene->user, error);
}

/* What is read becomes other data: users go on while it is in, and out. */
static bool attach_changing(WeirScene *scene, GError **error)
{
    for (guint i = 0; i < ATTACH_ROUNDS; i++) {
        g_autoptr(WeirLoad) load = NULL;

        weir_trial_step(scene->trial, "attaching, %u of %d", i + 1,
                        ATTACH_ROUNDS);
        if (!attach(scene, error)) {
            return false;
        }
        load = attach_load(scene, error);
        if (!load || !weir_load_check(load, 10000, error) ||
            !weir_load_stop(load, error) ||
            !weir_user_read_all(scene->user, error)) {
            return false;
        }
        weir_trial_step(scene->trial, "detaching, %u of %d", i + 1,
                        ATTACH_ROUNDS);
        if (!write_and_detach(scene, error)) {
            return false;
        }
    }
    return true;
}

bool weir_check_attach(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);

    if (!scene) {
        return false;
    }
    if (!expose_below(scene, error)) {
        return false;
    }
    return (trial->test->changes_data ? attach_changing(scene, error)
                                      : attach_under_load(scene, error)) &&
           weir_stage_quit(scene->stage, error);
}

/* --- resize --- */

static bool resize_to(WeirScene *scene, guint64 bytes, GError **error)
{
    weir_trial_step(scene->trial, "making the disk %" G_GUINT64_FORMAT
                    " bytes long", bytes);
    if (!weir_user_flush(scene->user, error)) {
        return false;
    }
    g_clear_pointer(&scene->user, weir_user_free);
    if (!weir_stage_unexport(scene->stage, WEIR_STAGE_PLUGIN, error) ||
        !weir_stage_cmd(scene->stage, error, "block_resize",
                        "{\"node-name\": \"" WEIR_STAGE_PLUGIN "\","
                        " \"size\": %" G_GUINT64_FORMAT "}", bytes) ||
        !weir_stage_export(scene->stage, WEIR_STAGE_PLUGIN, true, NULL,
                           error)) {
        return false;
    }
    weir_model_resize(scene->model, bytes);
    if (scene->trial->test->changes_data && bytes > WEIR_SCENE_BYTES / 2) {
        weir_model_forget(scene->model, WEIR_SCENE_BYTES / 2,
                          bytes - WEIR_SCENE_BYTES / 2);
    }
    scene->user = weir_user_new(scene->stage, WEIR_STAGE_PLUGIN, scene->model,
                                error);
    return scene->user != NULL;
}

/* Of the disk as it is told above, and as it is below. */
static bool check_lengths(WeirScene *scene, GError **error)
{
    g_autofree char *path = weir_trial_path(scene->trial, "disk.img");
    int64_t above = nbd_get_size(scene->user->nbd);
    struct stat st = { 0 };

    if (above != (int64_t)scene->model->bytes) {
        weir_set_error(error, "the disk is %" G_GINT64_FORMAT " bytes long, "
                       "expected %" G_GUINT64_FORMAT, (gint64)above,
                       scene->model->bytes);
        return false;
    }
    if (stat(path, &st) < 0 || (guint64)st.st_size != scene->model->bytes) {
        weir_set_error(error, "the node below is %" G_GINT64_FORMAT
                       " bytes long, expected %" G_GUINT64_FORMAT,
                       (gint64)st.st_size, scene->model->bytes);
        return false;
    }
    return true;
}

/* Use all of it, the end as well. */
static bool use_length(WeirScene *scene, GError **error)
{
    guint64 bytes = scene->model->bytes;

    return weir_user_read_all(scene->user, error) &&
           weir_user_write(scene->user, bytes - 65536, 65536, 0, error) &&
           weir_user_play(scene->user, 100, 4096, 65536, error) &&
           weir_user_flush(scene->user, error) &&
           weir_user_read_all(scene->user, error) &&
           check_lengths(scene, error);
}

bool weir_check_resize(WeirTrial *trial, GError **error)
{
    static const guint64 lengths[] = {
        2 * WEIR_SCENE_BYTES, WEIR_SCENE_BYTES / 2, WEIR_SCENE_BYTES
    };
    g_autoptr(WeirScene) scene = weir_scene_new_file(trial, WEIR_SCENE_BYTES,
                                                     error);

    if (!scene) {
        return false;
    }
    if (!use_length(scene, error)) {
        return false;
    }
    for (guint i = 0; i < G_N_ELEMENTS(lengths); i++) {
        if (!resize_to(scene, lengths[i], error) ||
            !use_length(scene, error)) {
            g_prefix_error(error, "after the length became %" G_GUINT64_FORMAT
                           ": ", lengths[i]);
            return false;
        }
    }
    return weir_scene_finish(scene, error);
}

/* --- migration --- */

/* The other end: the same disk and sidecar, not active yet. */
static WeirStage *destination_new(WeirScene *scene, GError **error)
{
    g_autoptr(WeirStage) stage = weir_stage_new(scene->trial, "destination",
                                                error);
    g_autofree char *sidecar = weir_trial_path(scene->trial,
                                               "sidecar-" WEIR_STAGE_PLUGIN);
    JsonObject *node;
    g_autoptr(JsonNode) answer = NULL;

    if (!stage || !weir_stage_cmd(
            stage, error, "blockdev-add",
            "{\"driver\": \"nbd\", \"node-name\": \"" WEIR_STAGE_BELOW "\","
            " \"export\": \"destination\", \"active\": false,"
            " \"discard\": \"unmap\","
            " \"server\": {\"type\": \"unix\", \"path\": \"%s\"}}",
            weir_below_path(scene->below))) {
        return NULL;
    }
    if (scene->trial->test->sidecar_bytes && !weir_stage_cmd(
            stage, error, "blockdev-add",
            "{\"driver\": \"file\", \"node-name\": \"sidecar-"
            WEIR_STAGE_PLUGIN "\", \"active\": false,"
            " \"filename\": \"%s\"}", sidecar)) {
        return NULL;
    }
    node = weir_stage_node(stage, WEIR_STAGE_PLUGIN, WEIR_STAGE_BELOW,
                           "stall");
    json_object_set_boolean_member(node, "active", false);
    answer = weir_stage_ask(stage, "blockdev-add", node, error);
    return answer ? g_steal_pointer(&stage) : NULL;
}

static bool set_active(WeirStage *stage, bool active, GError **error)
{
    return weir_stage_cmd(stage, error, "blockdev-set-active",
                          "{\"node-name\": \"" WEIR_STAGE_PLUGIN "\","
                          " \"active\": %s}", active ? "true" : "false");
}

/* Use the disk at an end at which it is active, and leave it inactive. */
static bool use_end(WeirScene *scene, WeirStage *stage, GError **error)
{
    g_autoptr(WeirUser) user = NULL;

    if (!weir_stage_export(stage, WEIR_STAGE_PLUGIN, true, NULL, error)) {
        return false;
    }
    user = weir_user_new(stage, WEIR_STAGE_PLUGIN, scene->model, error);
    if (!user || !weir_user_read_all(user, error) ||
        !weir_user_play(user, 200, 512, 65536, error) ||
        !weir_user_read_all(user, error)) {
        return false;
    }
    g_clear_pointer(&user, weir_user_free);
    return weir_stage_unexport(stage, WEIR_STAGE_PLUGIN, error);
}

/* The disk goes from one end to the other. */
static bool hand_over(WeirScene *scene, WeirStage *from, WeirStage *to,
                      const char *from_name, GError **error)
{
    if (!set_active(from, false, error)) {
        return false;
    }
    weir_below_forbid(scene->below, from_name);
    return set_active(to, true, error);
}

static bool migrate(WeirScene *scene, WeirStage *other, GError **error)
{
    weir_trial_step(scene->trial, "handing the disk over");
    if (!hand_over(scene, scene->stage, other, "disk", error) ||
        !use_end(scene, other, error)) {
        g_prefix_error(error, "at the destination of a migration: ");
        return false;
    }
    weir_trial_step(scene->trial, "handing the disk back");
    if (!hand_over(scene, other, scene->stage, "destination", error) ||
        !use_end(scene, scene->stage, error)) {
        g_prefix_error(error, "back at the source of a migration: ");
        return false;
    }
    return true;
}

bool weir_check_migration(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 2u << 20, error);
    g_autoptr(WeirStage) other = NULL;

    if (!scene) {
        return false;
    }
    g_clear_pointer(&scene->user, weir_user_free);
    if (!weir_stage_unexport(scene->stage, WEIR_STAGE_PLUGIN, error) ||
        !use_end(scene, scene->stage, error)) {
        return false;
    }
    other = destination_new(scene, error);
    if (!other || !migrate(scene, other, error) ||
        !migrate(scene, other, error)) {
        return false;
    }
    if (weir_below_forbidden(scene->below)) {
        weir_set_error(error, "the plugin has written %" G_GUINT64_FORMAT
                       " times to a disk that was handed over",
                       weir_below_forbidden(scene->below));
        return false;
    }
    return weir_stage_quit(other, error) &&
           weir_stage_quit(scene->stage, error);
}

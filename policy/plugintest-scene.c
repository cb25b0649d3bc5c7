/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-scene.h"

#include <gio/gio.h>
#include <string.h>

#define SCENE_FILE "disk.img"

/* The daemon, and what is below the plugin. */
static bool scene_start(WeirScene *scene, GError **error)
{
    scene->stage = weir_stage_new(scene->trial, "daemon", error);
    if (!scene->stage) {
        return false;
    }
    return scene->below ?
           weir_stage_add_below(scene->stage, scene->below, WEIR_STAGE_BELOW,
                                "disk", error) :
           weir_stage_add_file(scene->stage, WEIR_STAGE_BELOW, SCENE_FILE,
                               scene->model->bytes, error);
}

bool weir_scene_open(WeirScene *scene, GError **error)
{
    weir_trial_step(scene->trial, "putting the plugin over a disk");
    if (!weir_stage_add_plugin(scene->stage, WEIR_STAGE_PLUGIN,
                               WEIR_STAGE_BELOW, error) ||
        !weir_stage_export(scene->stage, WEIR_STAGE_PLUGIN, true, NULL,
                           error)) {
        return false;
    }
    scene->user = weir_user_new(scene->stage, WEIR_STAGE_PLUGIN, scene->model,
                                error);
    return scene->user != NULL;
}

bool weir_scene_close(WeirScene *scene, GError **error)
{
    if (!weir_user_flush(scene->user, error) ||
        !weir_stage_check_state(scene->stage, WEIR_STAGE_PLUGIN, error)) {
        return false;
    }
    weir_trial_step(scene->trial, "closing the disk");
    g_clear_pointer(&scene->user, weir_user_free);
    if (!weir_stage_unexport(scene->stage, WEIR_STAGE_PLUGIN, error) ||
        !weir_stage_del(scene->stage, WEIR_STAGE_PLUGIN, error)) {
        return false;
    }
    return !scene->trial->test->sidecar_bytes ||
           weir_stage_del(scene->stage, "sidecar-" WEIR_STAGE_PLUGIN, error);
}

static WeirScene *scene_begin(WeirTrial *trial, guint64 bytes)
{
    WeirScene *scene = g_new0(WeirScene, 1);

    scene->trial = trial;
    scene->model = weir_model_new(bytes);
    return scene;
}

WeirScene *weir_scene_new(WeirTrial *trial, guint64 bytes, GError **error)
{
    g_autoptr(WeirScene) scene = scene_begin(trial, bytes);
    g_autofree char *path = weir_trial_path(trial, "below.sock");

    scene->below = weir_below_new(path, bytes, error);
    if (!scene->below) {
        return NULL;
    }
    if (!trial->test->changes_data) {
        guint8 *data = weir_below_data(scene->below);

        weir_trial_fill(trial->rand, data, bytes);
        weir_below_settle(scene->below);
        weir_model_write(scene->model, 0, bytes, data);
    }
    if (!scene_start(scene, error) || !weir_scene_open(scene, error)) {
        return NULL;
    }
    return g_steal_pointer(&scene);
}

WeirScene *weir_scene_new_file(WeirTrial *trial, guint64 bytes,
                               GError **error)
{
    g_autoptr(WeirScene) scene = scene_begin(trial, bytes);

    if (!trial->test->changes_data) {
        weir_model_zero(scene->model, 0, bytes);
    }
    if (!scene_start(scene, error) || !weir_scene_open(scene, error)) {
        return NULL;
    }
    return g_steal_pointer(&scene);
}

void weir_scene_free(WeirScene *scene)
{
    if (scene) {
        weir_user_free(scene->user);
        weir_stage_free(scene->stage);
        weir_below_free(scene->below);
        weir_model_free(scene->model);
        g_free(scene);
    }
}

bool weir_scene_cut_power(WeirScene *scene, GError **error)
{
    weir_stage_kill(scene->stage);
    g_clear_pointer(&scene->user, weir_user_free);
    g_clear_pointer(&scene->stage, weir_stage_free);
    weir_below_cut_power(scene->below);
    return scene_start(scene, error) && weir_scene_open(scene, error);
}

bool weir_scene_finish(WeirScene *scene, GError **error)
{
    weir_trial_step(scene->trial, "reading all of the disk");
    return weir_user_read_all(scene->user, error) &&
           weir_scene_close(scene, error) &&
           weir_stage_quit(scene->stage, error);
}

/* --- below --- */

/* What the node below should have, which the caller frees. */
static guint8 *transform(const WeirScene *scene, GError **error)
{
    const char *command = scene->trial->test->transform;
    g_autoptr(GBytes) in = g_bytes_new(scene->model->data,
                                       scene->model->bytes);
    g_autoptr(GBytes) out = NULL;
    g_autoptr(GSubprocess) process = g_subprocess_new(
        G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE, error,
        "/bin/sh", "-c", command, NULL);

    if (!process || !g_subprocess_communicate(process, in, NULL, &out, NULL,
                                              error)) {
        return NULL;
    }
    if (!g_subprocess_get_successful(process)) {
        weir_set_error(error, "the transformation '%s' has failed", command);
        return NULL;
    }
    if (g_bytes_get_size(out) != scene->model->bytes) {
        weir_set_error(error, "the transformation '%s' has made %zu bytes of "
                       "%" G_GUINT64_FORMAT, command, g_bytes_get_size(out),
                       scene->model->bytes);
        return NULL;
    }
    return g_bytes_unref_to_data(g_steal_pointer(&out), &(gsize) { 0 });
}

bool weir_scene_check_below(WeirScene *scene, const char *when,
                            GError **error)
{
    const WeirPluginTest *test = scene->trial->test;
    g_autofree char *what = g_strdup_printf("the node below %s", when);
    g_autofree guint8 *data = NULL;
    WeirModel expected = *scene->model;

    if (test->transform) {
        data = transform(scene, error);
        if (!data) {
            return false;
        }
        expected.data = data;
    } else if (test->changes_data) {
        return true;
    }
    return weir_model_check(&expected, 0, expected.bytes,
                            weir_below_data(scene->below), what, error);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of snapshots: an overlay above the plugin, and within the image. */
#include <string.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define SNAPSHOT_BYTES (1u << 20)

/* A qcow2 image in a file, and a node of it.  @extra: of the node's options. */
static bool add_qcow2(WeirStage *stage, const char *node, const char *file,
                      guint64 bytes, const char *extra, GError **error)
{
    g_autofree char *protocol = g_strdup_printf("%s-file", node);

    return weir_stage_add_file(stage, protocol, file, 0, error) &&
           weir_stage_cmd(stage, error, "blockdev-create",
                          "{\"job-id\": \"create\", \"options\":"
                          " {\"driver\": \"qcow2\", \"file\": \"%s\","
                          " \"size\": %" G_GUINT64_FORMAT "}}", protocol,
                          bytes) &&
           weir_stage_wait_job(stage, "create", "concluded", error) &&
           weir_stage_cmd(stage, error, "blockdev-add",
                          "{\"driver\": \"qcow2\", \"node-name\": \"%s\","
                          " \"file\": \"%s\"%s}", node, protocol, extra);
}

/* --- overlay --- */

/* Put one on the disk.  @refused: set if the plugin does not want that. */
static bool put_overlay(WeirScene *scene, bool *refused, GError **error)
{
    g_autoptr(GError) local = NULL;

    weir_trial_step(scene->trial, "putting an overlay on the disk");
    if (!add_qcow2(scene->stage, "overlay", "overlay.qcow2", SNAPSHOT_BYTES,
                   ", \"backing\": null", error)) {
        return false;
    }
    *refused = !weir_stage_cmd(scene->stage, &local, "blockdev-snapshot",
                               "{\"node\": \"" WEIR_STAGE_PLUGIN "\","
                               " \"overlay\": \"overlay\"}");
    if (*refused && !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_QMP)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    return true;
}

static bool take_overlay(WeirStage *stage, GError **error)
{
    return weir_stage_del(stage, "overlay", error) &&
           weir_stage_del(stage, "overlay-file", error);
}

/* @load: goes on at first: a job need not keep up with it; NULL: none */
static bool commit(WeirScene *scene, WeirLoad *load, GError **error)
{
    WeirStage *stage = scene->stage;

    weir_trial_step(scene->trial, "committing the overlay");
    return weir_stage_cmd(stage, error, "block-commit",
                          "{\"job-id\": \"commit\", \"device\": \"overlay\","
                          " \"auto-finalize\": true,"
                          " \"auto-dismiss\": false}") &&
           (!load || (weir_load_check(load, 10000, error) &&
                      weir_load_stop(load, error))) &&
           weir_stage_wait_job(stage, "commit", "ready", error) &&
           weir_stage_cmd(stage, error, "job-complete",
                          "{\"id\": \"commit\"}") &&
           weir_stage_wait_job(stage, "commit", "concluded", error) &&
           take_overlay(stage, error);
}

/* What others find below the overlay, without the plugin, is the disk. */
static bool is_whole(WeirScene *scene, bool *refused, GError **error)
{
    /* a write comes last: that is what is held */
    if (!weir_user_play(scene->user, 100, 512, 65536, error) ||
        !weir_user_write(scene->user, 65536, 65536, 0, error) ||
        !put_overlay(scene, refused, error)) {
        return false;
    }
    if (*refused) {
        return take_overlay(scene->stage, error) &&
               weir_user_read_all(scene->user, error);
    }
    return weir_scene_check_below(scene, "when there is an overlay", error) &&
           commit(scene, NULL, error);
}

/* While there is an overlay, the node below stays as it is. */
static bool stays(WeirScene *scene, WeirLoad *load, GError **error)
{
    g_autofree guint8 *before = NULL;

    weir_below_forbid(scene->below, "disk");
    before = g_memdup2(weir_below_data(scene->below), SNAPSHOT_BYTES);
    if (!weir_load_check(load, 10000, error)) {
        return false;
    }
    g_usleep(100000);
    weir_below_forbid(scene->below, NULL);
    if (weir_below_forbidden(scene->below) ||
        memcmp(before, weir_below_data(scene->below), SNAPSHOT_BYTES) != 0) {
        weir_set_error(error, "the plugin has written to the node below when "
                       "the disk had become the backing file of an overlay");
        return false;
    }
    return true;
}

static bool overlay_round(WeirScene *scene, GError **error)
{
    static const WeirLoadOptions options = {
        .connections = 1, .depth = 8, .cell_bytes = 2560, .flushes = true,
    };
    g_autoptr(WeirLoad) load = weir_load_start(
        scene->stage, WEIR_STAGE_PLUGIN, scene->model, &options, error);
    bool refused;

    if (!load || !put_overlay(scene, &refused, error)) {
        return false;
    }
    if (refused) {
        weir_set_error(error, "the plugin has refused an overlay after it had "
                       "taken one");
        return false;
    }
    return stays(scene, load, error) && commit(scene, load, error) &&
           weir_user_read_all(scene->user, error);
}

bool weir_check_overlay(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, SNAPSHOT_BYTES, error);
    bool refused;

    if (!scene || !is_whole(scene, &refused, error)) {
        return false;
    }
    return (refused || (overlay_round(scene, error) &&
                        overlay_round(scene, error))) &&
           weir_scene_finish(scene, error);
}

/* --- within the image --- */

/* The plugin over an image that can have snapshots. */
static bool over_qcow2(WeirScene *scene, GError **error)
{
    WeirStage *stage = scene->stage;

    if (!weir_scene_close(scene, error) ||
        !weir_stage_del(stage, WEIR_STAGE_BELOW, error) ||
        !add_qcow2(stage, WEIR_STAGE_BELOW, "disk.qcow2", SNAPSHOT_BYTES, "",
                   error)) {
        return false;
    }
    if (scene->trial->test->changes_data) {
        weir_model_forget(scene->model, 0, SNAPSHOT_BYTES);
    } else {
        weir_model_zero(scene->model, 0, SNAPSHOT_BYTES);
    }
    return weir_scene_open(scene, error);
}

/* It may refuse; the disk has to stay as it is in any case. */
static bool internal_snapshot(WeirScene *scene, const char *command,
                              GError **error)
{
    g_autoptr(GError) local = NULL;

    weir_trial_step(scene->trial, "%s", command);
    if (!weir_stage_cmd(scene->stage, &local, command,
                        "{\"device\": \"" WEIR_STAGE_PLUGIN "\","
                        " \"name\": \"snapshot\"}") &&
        !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_QMP)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    return weir_user_read_all(scene->user, error) &&
           weir_user_play(scene->user, 100, 512, 65536, error);
}

bool weir_check_snapshot(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new_file(trial, SNAPSHOT_BYTES,
                                                     error);

    if (!scene) {
        return false;
    }
    return over_qcow2(scene, error) &&
           weir_user_play(scene->user, 100, 512, 65536, error) &&
           internal_snapshot(scene, "blockdev-snapshot-internal-sync",
                             error) &&
           internal_snapshot(scene, "blockdev-snapshot-delete-internal-sync",
                             error) &&
           weir_scene_finish(scene, error);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What most checks begin with: a disk under the plugin, and its user. */
#ifndef WEIR_PLUGINTEST_SCENE_H
#define WEIR_PLUGINTEST_SCENE_H

#include "plugintest-load.h"
#include "plugintest-user.h"

#define WEIR_SCENE_BYTES (8u << 20)

typedef struct WeirScene {
    WeirTrial *trial;
    WeirBelow *below;           /* NULL: the disk is a file */
    WeirModel *model;
    WeirStage *stage;
    WeirUser *user;             /* NULL: nobody is connected */
} WeirScene;

/*
 * A disk of our own below, filled with random data if the plugin does not
 * change what is read; a daemon with the plugin over it; and a user.
 * Returns NULL with @error set if that does not go well.
 */
WeirScene *weir_scene_new(WeirTrial *trial, guint64 bytes, GError **error);

/* The same with an empty file "disk.img" below. */
WeirScene *weir_scene_new_file(WeirTrial *trial, guint64 bytes,
                               GError **error);
void weir_scene_free(WeirScene *scene);

/* Put the plugin over what is below, export it, and connect to it. */
bool weir_scene_open(WeirScene *scene, GError **error);
/* The other way round; what has been written is flushed before. */
bool weir_scene_close(WeirScene *scene, GError **error);

/* Cut the power, and start again. */
bool weir_scene_cut_power(WeirScene *scene, GError **error);

/* Everything is read again, the plugin is closed, and the daemon ends. */
bool weir_scene_finish(WeirScene *scene, GError **error);

/*
 * Whether the node below has what it should have.  Nothing is known of that
 * if the plugin changes data, and no transformation was given.
 */
bool weir_scene_check_below(WeirScene *scene, const char *when,
                            GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirScene, weir_scene_free)

#endif

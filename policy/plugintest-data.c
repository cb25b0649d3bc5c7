/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of a single user: what is read is what was written. */
#include <string.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define DATA_REQUESTS 600
#define DATA_MAX_BYTES (256u << 10)
#define UNALIGNED_MAX_BYTES 9000
#define HUGE_DISK_BYTES (48u << 20)
/* the most that a request of NBD may have */
#define HUGE_MAX_BYTES (32u << 20)

/* --- data --- */

/* What the plugin holds need not be below before it is taken out. */
static bool below_is_told(const WeirTrial *trial)
{
    return !trial->test->holds_data;
}

bool weir_check_data(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, WEIR_SCENE_BYTES, error);

    if (!scene) {
        return false;
    }
    for (guint i = 0; i < 2; i++) {
        if (!weir_user_play(scene->user, DATA_REQUESTS, 512, DATA_MAX_BYTES,
                            error) ||
            !weir_user_read_all(scene->user, error) ||
            !weir_user_flush(scene->user, error)) {
            return false;
        }
        if (below_is_told(trial) && !weir_scene_check_below(
                scene, "after a flush", error)) {
            return false;
        }
        if (!weir_scene_close(scene, error) ||
            !weir_scene_open(scene, error)) {
            return false;
        }
    }
    return weir_scene_finish(scene, error);
}

/* --- unaligned --- */

/* Every way in which a request can lie to sectors and pages. */
static bool unaligned_edges(WeirUser *user, GError **error)
{
    static const guint16 edges[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097 };

    for (guint i = 0; i < G_N_ELEMENTS(edges); i++) {
        for (guint j = 0; j < G_N_ELEMENTS(edges); j++) {
            guint64 offset = 65536 + edges[i];
            guint64 bytes = (guint64)edges[j] + 1;

            weir_trial_step(user->trial, "%" G_GUINT64_FORMAT " bytes at "
                            "offset %" G_GUINT64_FORMAT, bytes, offset);
            if (!weir_user_write(user, offset, bytes, 0, error) ||
                !weir_user_read(user, offset, bytes, error) ||
                !weir_user_read(user, offset - 3, bytes + 6, error)) {
                return false;
            }
        }
    }
    return true;
}

bool weir_check_unaligned(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);

    if (!scene) {
        return false;
    }
    return unaligned_edges(scene->user, error) &&
           weir_user_play(scene->user, DATA_REQUESTS, 1, UNALIGNED_MAX_BYTES,
                          error) &&
           weir_scene_finish(scene, error);
}

/* --- huge --- */

bool weir_check_huge(WeirTrial *trial, GError **error)
{
    static const guint32 sizes[] = {
        1u << 20, (1u << 20) + 512, (3u << 20) - 4096, 16u << 20,
        HUGE_MAX_BYTES
    };
    g_autoptr(WeirScene) scene = weir_scene_new(trial, HUGE_DISK_BYTES, error);

    if (!scene) {
        return false;
    }
    for (guint i = 0; i < G_N_ELEMENTS(sizes); i++) {
        guint64 offset = weir_trial_below(
            trial->rand, (HUGE_DISK_BYTES - sizes[i]) / 512) * 512;

        weir_trial_step(trial, "requests of %u bytes at offset %"
                        G_GUINT64_FORMAT, sizes[i], offset);
        if (!weir_user_write(scene->user, offset, sizes[i], 0, error) ||
            !weir_user_read(scene->user, offset, sizes[i], error) ||
            !weir_user_zero(scene->user, offset + 512, sizes[i] - 1024, 0,
                            error) ||
            !weir_user_read(scene->user, offset, sizes[i], error)) {
            return false;
        }
    }
    /* without data, there is no such limit */
    return weir_user_zero(scene->user, 0, HUGE_DISK_BYTES, 0, error) &&
           weir_scene_finish(scene, error);
}

/* --- zeroes --- */

typedef struct StatusCheck {
    struct nbd_handle *nbd;
    const WeirModel *model;
    GError *error;
    guint64 end;                /* how far it has told */
} StatusCheck;

/* A run of bytes that are said to read as zeroes has to do so. */
static int look_at_extent(StatusCheck *check, guint64 bytes, guint32 flags)
{
    const WeirModel *model = check->model;
    guint64 offset = check->end;
    g_autofree guint8 *data = NULL;

    bytes = MIN(bytes, model->bytes - offset);
    check->end += bytes;
    if (!(flags & LIBNBD_STATE_ZERO)) {
        return 0;
    }
    data = g_malloc0(bytes);
    if (!weir_model_check(model, offset, bytes, data,
                          "the status of blocks says zeroes", &check->error)) {
        return -1;
    }
    /* also where nothing is known: it has to agree with what is read */
    if (nbd_pread(check->nbd, data, bytes, offset, 0) < 0 ||
        data[0] != 0 || memcmp(data, data + 1, bytes - 1) != 0) {
        weir_set_error(&check->error, "the status of blocks says zeroes for "
                       "%" G_GUINT64_FORMAT " bytes at offset %"
                       G_GUINT64_FORMAT ", but they do not read as zeroes",
                       bytes, offset);
        return -1;
    }
    return 0;
}

typedef struct Extents {
    guint32 entries[256];
    size_t count;
} Extents;

static int keep_extents(void *opaque, const char *metacontext, uint64_t offset,
                        uint32_t *entries, size_t count, int *error)
{
    Extents *extents = opaque;

    (void)metacontext;
    (void)offset;
    (void)error;
    extents->count = MIN(count, G_N_ELEMENTS(extents->entries)) & ~(size_t)1;
    memcpy(extents->entries, entries, extents->count * sizeof(*entries));
    return 0;
}

/* A piece of the disk from where it is. */
static bool check_next(StatusCheck *check, GError **error)
{
    Extents extents = { .count = 0 };
    nbd_extent_callback callback = {
        .callback = keep_extents, .user_data = &extents
    };

    if (nbd_block_status(check->nbd, check->model->bytes - check->end,
                         check->end, callback, 0) < 0 || extents.count == 0) {
        weir_set_error(error, "the status of blocks at offset %"
                       G_GUINT64_FORMAT " cannot be told: %s", check->end,
                       nbd_get_error());
        return false;
    }
    for (size_t i = 0; i < extents.count && check->end < check->model->bytes;
         i += 2) {
        if (look_at_extent(check, extents.entries[i],
                           extents.entries[i + 1]) < 0) {
            g_propagate_error(error, check->error);
            return false;
        }
    }
    return true;
}

static bool check_status(WeirScene *scene, GError **error)
{
    StatusCheck check = { .model = scene->model };
    bool ok = true;

    weir_trial_step(scene->trial, "asking for the status of blocks");
    check.nbd = weir_user_connect(scene->stage, WEIR_STAGE_PLUGIN, true,
                                  error);
    if (!check.nbd) {
        return false;
    }
    while (ok && check.end < check.model->bytes) {
        ok = check_next(&check, error);
    }
    nbd_shutdown(check.nbd, 0);
    nbd_close(check.nbd);
    return ok;
}

bool weir_check_zeroes(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new_file(trial, WEIR_SCENE_BYTES,
                                                     error);

    if (!scene) {
        return false;
    }
    if (!check_status(scene, error)) {
        return false;
    }
    for (guint i = 0; i < 8; i++) {
        guint64 offset = i * (1u << 20);

        if (!weir_user_write(scene->user, offset + 65536, 262144, 0, error) ||
            !weir_user_zero(scene->user, offset + 131072, 65536, 0, error) ||
            !weir_user_write(scene->user, offset + 147456, 4096, 0, error) ||
            !check_status(scene, error)) {
            return false;
        }
    }
    return weir_user_play(scene->user, 100, 65536, DATA_MAX_BYTES, error) &&
           check_status(scene, error) &&
           weir_scene_finish(scene, error);
}

/* --- read-only --- */

static bool open_read_only(WeirScene *scene, GError **error)
{
    JsonObject *node;
    g_autoptr(JsonNode) answer = NULL;

    node = weir_stage_node(scene->stage, WEIR_STAGE_PLUGIN, WEIR_STAGE_BELOW,
                           "stall");
    if (scene->trial->test->sidecar_bytes &&
        !weir_stage_add_file(scene->stage, "sidecar-" WEIR_STAGE_PLUGIN,
                             "sidecar-" WEIR_STAGE_PLUGIN,
                             scene->trial->test->sidecar_bytes, error)) {
        json_object_unref(node);
        return false;
    }
    json_object_set_boolean_member(node, "read-only", true);
    answer = weir_stage_ask(scene->stage, "blockdev-add", node, error);
    if (!answer || !weir_stage_export(scene->stage, WEIR_STAGE_PLUGIN, false,
                                      NULL, error)) {
        return false;
    }
    scene->user = weir_user_new(scene->stage, WEIR_STAGE_PLUGIN, scene->model,
                                error);
    return scene->user != NULL;
}

bool weir_check_read_only(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);
    guint64 changes, now;

    if (!scene) {
        return false;
    }
    if (!weir_user_play(scene->user, 50, 512, 65536, error) ||
        !weir_scene_close(scene, error)) {
        return false;
    }
    weir_trial_step(trial, "opening the disk read-only");
    changes = weir_below_count(scene->below,
                               WEIR_BELOW_WRITE | WEIR_BELOW_DISCARD);
    if (!open_read_only(scene, error) ||
        !weir_user_read_all(scene->user, error) ||
        !weir_scene_close(scene, error)) {
        return false;
    }
    now = weir_below_count(scene->below,
                           WEIR_BELOW_WRITE | WEIR_BELOW_DISCARD);
    if (now != changes) {
        weir_set_error(error, "the plugin has written to a disk that was "
                       "opened read-only");
        return false;
    }
    return weir_stage_quit(scene->stage, error);
}

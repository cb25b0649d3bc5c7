/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of what is left after power cuts, and of errors of the disk. */
#include <errno.h>
#include <string.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define DURABLE_ROUNDS 4
#define DURABLE_WRITES 40
#define DURABLE_MAX_BYTES 65536u

/* --- power cuts --- */

/* Somewhere; *bytes is set as well. */
static guint64 place(WeirScene *scene, guint64 *bytes)
{
    *bytes = (weir_trial_below(scene->trial->rand,
                               DURABLE_MAX_BYTES / 512) + 1) * 512;
    return weir_trial_below(scene->trial->rand,
                            (scene->model->bytes - *bytes) / 512) * 512;
}

/* Nobody is told whether this gets durable. */
static bool write_without_flush(WeirScene *scene, GError **error)
{
    guint64 bytes, offset = place(scene, &bytes);

    if (!weir_user_write(scene->user, offset, bytes, 0, error)) {
        return false;
    }
    weir_model_forget(scene->model, offset, bytes);
    return true;
}

static bool flush_round(WeirScene *scene, GError **error)
{
    for (guint i = 0; i < DURABLE_WRITES; i++) {
        guint64 bytes, offset = place(scene, &bytes);

        if (i % 8 == 3 ?
            !weir_user_zero(scene->user, offset, bytes, 0, error) :
            !weir_user_write(scene->user, offset, bytes, 0, error)) {
            return false;
        }
    }
    return weir_user_flush(scene->user, error);
}

static bool fua_round(WeirScene *scene, GError **error)
{
    for (guint i = 0; i < DURABLE_WRITES; i++) {
        guint64 bytes, offset = place(scene, &bytes);

        if (i % 8 == 3 ?
            !weir_user_zero(scene->user, offset, bytes, LIBNBD_CMD_FLAG_FUA,
                            error) :
            !weir_user_write(scene->user, offset, bytes, LIBNBD_CMD_FLAG_FUA,
                             error)) {
            return false;
        }
    }
    return true;
}

static bool survives(WeirTrial *trial, const char *after,
                     bool (*round)(WeirScene *scene, GError **error),
                     GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, WEIR_SCENE_BYTES, error);

    if (!scene) {
        return false;
    }
    for (guint i = 0; i < DURABLE_ROUNDS; i++) {
        weir_trial_step(trial, "power cut %u of %d, %s", i + 1,
                        DURABLE_ROUNDS, after);
        if (!round(scene, error) || !write_without_flush(scene, error) ||
            !weir_scene_cut_power(scene, error)) {
            return false;
        }
        if (!weir_user_read_all(scene->user, error)) {
            g_prefix_error(error, "after a power cut, %s: ", after);
            return false;
        }
    }
    return weir_scene_finish(scene, error);
}

bool weir_check_flush(WeirTrial *trial, GError **error)
{
    return survives(trial, "when a flush was done", flush_round, error);
}

bool weir_check_fua(WeirTrial *trial, GError **error)
{
    return survives(trial, "when writes with FUA were done", fua_round, error);
}

/* --- errors --- */

typedef enum Operation {
    OPERATION_READ,
    OPERATION_WRITE,
    OPERATION_ZERO,
    OPERATION_FUA,
    OPERATION_FLUSH,
} Operation;

static const struct {
    const char *name;
    guint kinds;                /* that fail below */
} operations[] = {
    [OPERATION_READ]  = { "read", WEIR_BELOW_READ },
    [OPERATION_WRITE] = { "write", WEIR_BELOW_WRITE },
    [OPERATION_ZERO]  = { "zeroing", WEIR_BELOW_WRITE },
    [OPERATION_FUA]   = { "write with FUA",
                          WEIR_BELOW_WRITE | WEIR_BELOW_FLUSH },
    [OPERATION_FLUSH] = { "flush", WEIR_BELOW_FLUSH },
};

static bool try_operation(WeirScene *scene, Operation operation,
                          guint64 offset, guint64 bytes, GError **error)
{
    switch (operation) {
    case OPERATION_READ:
        return weir_user_read(scene->user, offset, bytes, error);
    case OPERATION_WRITE:
        return weir_user_write(scene->user, offset, bytes, 0, error);
    case OPERATION_ZERO:
        return weir_user_zero(scene->user, offset, bytes, 0, error);
    case OPERATION_FUA:
        return weir_user_write(scene->user, offset, bytes,
                               LIBNBD_CMD_FLAG_FUA, error);
    default:
        return weir_user_write(scene->user, offset, bytes, 0, error) &&
               weir_user_flush(scene->user, error);
    }
}

/*
 * Whether it may go well although the node below fails: right data may come
 * from memory; what a plugin holds may get down later.
 */
static bool may_succeed(const WeirTrial *trial, Operation operation)
{
    return operation == OPERATION_READ || trial->test->holds_data;
}

static bool fail_once(WeirScene *scene, Operation operation, int code,
                      GError **error)
{
    guint64 bytes, offset = place(scene, &bytes);
    g_autoptr(GError) local = NULL;
    guint kinds = operations[operation].kinds;
    guint64 before = weir_below_count(scene->below, kinds);
    bool ok;

    weir_trial_step(scene->trial, "%s of %" G_GUINT64_FORMAT " bytes at "
                    "offset %" G_GUINT64_FORMAT " while the node below fails "
                    "with '%s'", operations[operation].name, bytes, offset,
                    g_strerror(code));
    weir_below_fail(scene->below, kinds, code);
    ok = try_operation(scene, operation, offset, bytes, &local);
    weir_below_fail(scene->below, 0, 0);
    if (ok && !may_succeed(scene->trial, operation)) {
        weir_set_error(
            error, "%s of %" G_GUINT64_FORMAT " bytes at offset %"
            G_GUINT64_FORMAT ": expected an error, since the node below "
            "failed with '%s', came success%s", operations[operation].name,
            bytes, offset, g_strerror(code),
            weir_below_count(scene->below, kinds) == before ?
            " (without any request below)" : "");
        return false;
    }
    if (!ok && strstr(local->message, "wrong data")) {
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "while "
                                   "the node below fails: ");
        return false;
    }
    return true;
}

static bool is_well_again(WeirScene *scene, GError **error)
{
    if (weir_user_play(scene->user, 30, 512, DURABLE_MAX_BYTES, error) &&
        weir_user_flush(scene->user, error) &&
        weir_user_read_all(scene->user, error)) {
        return true;
    }
    g_prefix_error(error, "after the node below had failed: ");
    return false;
}

bool weir_check_errors(WeirTrial *trial, GError **error)
{
    static const int codes[] = { EIO, ENOSPC };
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 2u << 20, error);

    if (!scene) {
        return false;
    }
    /* a plugin that cannot do something does not have to wait */
    if (!weir_stage_reopen(scene->stage,
                           weir_stage_node(scene->stage, WEIR_STAGE_PLUGIN,
                                           WEIR_STAGE_BELOW, "fail"),
                           error)) {
        return false;
    }
    for (guint i = 0; i < G_N_ELEMENTS(codes); i++) {
        for (guint j = 0; j < G_N_ELEMENTS(operations); j++) {
            for (guint k = 0; k < 5; k++) {
                if (!fail_once(scene, (Operation)j, codes[i], error)) {
                    return false;
                }
            }
            if (!is_well_again(scene, error)) {
                return false;
            }
        }
    }
    g_clear_pointer(&scene->user, weir_user_free);
    return weir_stage_quit(scene->stage, error);
}

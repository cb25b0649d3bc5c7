/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of requests that are under way at the same time. */
#include <string.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define PARALLEL_SECTOR 512u
#define PARALLEL_DELAY_US 1000
/* multiples of a sector, so that pages are shared */
#define PARALLEL_CELL_BYTES (5 * PARALLEL_SECTOR)

/* --- order: a reader beside a writer --- */

#define ORDER_BYTES (16 * PARALLEL_SECTOR)
#define ORDER_VERSIONS 400

typedef struct Reader {
    struct nbd_handle *nbd;
    gint begun;                 /* atomic: the version that is being written */
    gint done;                  /* atomic: the last one that was */
    gint stop;                  /* atomic */
    GError *error;
} Reader;

static void fill_version(guint8 *data, guint32 version)
{
    for (guint at = 0; at < ORDER_BYTES; at += 4) {
        memcpy(data + at, &version, 4);
    }
}

static bool check_version(const guint8 *data, guint32 least, guint32 most,
                          GError **error)
{
    for (guint at = 0; at < ORDER_BYTES; at += 4) {
        guint32 version;

        memcpy(&version, data + at, 4);
        if (version < least || version > most) {
            weir_set_error(
                error, "a read at offset %u has returned version %u of what "
                "was written there, expected %u to %u: version %u was done "
                "before the read began", at, version, least, most, least);
            return false;
        }
    }
    return true;
}

static gpointer read_versions(gpointer opaque)
{
    Reader *reader = opaque;
    guint8 data[ORDER_BYTES];

    while (!g_atomic_int_get(&reader->stop)) {
        guint32 least = (guint32)g_atomic_int_get(&reader->done);

        if (nbd_pread(reader->nbd, data, sizeof(data), 0, 0) < 0) {
            weir_set_error(&reader->error, "a read beside a writer has "
                           "failed: %s", nbd_get_error());
            return NULL;
        }
        if (!check_version(data, least,
                           (guint32)g_atomic_int_get(&reader->begun),
                           &reader->error)) {
            return NULL;
        }
    }
    return NULL;
}

static bool write_versions(WeirUser *user, Reader *reader, GError **error)
{
    guint8 data[ORDER_BYTES];

    for (guint32 version = 1; version <= ORDER_VERSIONS; version++) {
        fill_version(data, version);
        g_atomic_int_set(&reader->begun, (gint)version);
        if (nbd_pwrite(user->nbd, data, sizeof(data), 0, 0) < 0) {
            weir_set_error(error, "a write beside a reader has failed: %s",
                           nbd_get_error());
            return false;
        }
        g_atomic_int_set(&reader->done, (gint)version);
    }
    weir_model_write(user->model, 0, sizeof(data), data);
    return true;
}

static bool reader_beside_writer(WeirScene *scene, GError **error)
{
    Reader reader = { 0 };
    GThread *thread;
    bool ok;

    weir_trial_step(scene->trial, "reading beside a writer");
    if (!weir_user_zero(scene->user, 0, ORDER_BYTES, 0, error)) {
        return false;
    }
    reader.nbd = weir_user_connect(scene->stage, WEIR_STAGE_PLUGIN, false,
                                   error);
    if (!reader.nbd) {
        return false;
    }
    thread = g_thread_new("reader", read_versions, &reader);
    ok = write_versions(scene->user, &reader, error);
    g_atomic_int_set(&reader.stop, 1);
    g_thread_join(thread);
    nbd_close(reader.nbd);
    if (ok && reader.error) {
        g_propagate_error(error, reader.error);
        return false;
    }
    g_clear_error(&reader.error);
    return ok;
}

/* --- order: writes that overlap --- */

#define OVERLAP_BYTES 65536u
#define OVERLAP_AT 16384u       /* of the second write in the first one */
#define OVERLAP_INNER 32768u
#define OVERLAP_ROUNDS 30

static bool write_both(WeirUser *user, guint8 *outer, guint8 *inner,
                       GError **error)
{
    int64_t cookies[] = {
        nbd_aio_pwrite(user->nbd, outer, OVERLAP_BYTES, 0,
                       NBD_NULL_COMPLETION, 0),
        nbd_aio_pwrite(user->nbd, inner, OVERLAP_INNER, OVERLAP_AT,
                       NBD_NULL_COMPLETION, 0),
    };

    for (guint i = 0; i < G_N_ELEMENTS(cookies); i++) {
        int ret = cookies[i] < 0 ? -1 : 0;

        while (ret == 0) {
            ret = nbd_aio_command_completed(user->nbd, (uint64_t)cookies[i]);
            ret = ret == 0 && nbd_poll(user->nbd, -1) < 0 ? -1 : ret;
        }
        if (ret < 0) {
            weir_set_error(error, "a write that overlaps another one has "
                           "failed: %s", nbd_get_error());
            return false;
        }
    }
    return true;
}

/* A sector is that of one of the two, as on any disk. */
static bool check_both(const guint8 *data, const guint8 *outer,
                       const guint8 *inner, GError **error)
{
    for (guint at = 0; at < OVERLAP_BYTES; at += PARALLEL_SECTOR) {
        bool is_inner = at >= OVERLAP_AT && at < OVERLAP_AT + OVERLAP_INNER;

        if (memcmp(data + at, outer + at, PARALLEL_SECTOR) != 0 &&
            !(is_inner && memcmp(data + at, inner + at - OVERLAP_AT,
                                 PARALLEL_SECTOR) == 0)) {
            weir_set_error(error, "of two writes that overlap, the sector at "
                           "offset %u is of neither", at);
            return false;
        }
    }
    return true;
}

static bool overlapping_writes(WeirScene *scene, GError **error)
{
    g_autofree guint8 *outer = g_malloc(OVERLAP_BYTES);
    g_autofree guint8 *inner = g_malloc(OVERLAP_INNER);
    g_autofree guint8 *data = g_malloc(OVERLAP_BYTES);

    weir_trial_step(scene->trial, "writes that overlap");
    for (guint i = 0; i < OVERLAP_ROUNDS; i++) {
        weir_trial_fill(scene->trial->rand, outer, OVERLAP_BYTES);
        weir_trial_fill(scene->trial->rand, inner, OVERLAP_INNER);
        if (!write_both(scene->user, outer, inner, error)) {
            return false;
        }
        if (nbd_pread(scene->user->nbd, data, OVERLAP_BYTES, 0, 0) < 0) {
            weir_set_error(error, "a read has failed: %s", nbd_get_error());
            return false;
        }
        if (!check_both(data, outer, inner, error)) {
            return false;
        }
        weir_model_write(scene->model, 0, OVERLAP_BYTES, data);
        if (!weir_user_read(scene->user, 0, OVERLAP_BYTES, error)) {
            g_prefix_error(error, "when it was read again after two writes "
                           "that overlap: ");
            return false;
        }
    }
    return true;
}

bool weir_check_order(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);

    if (!scene) {
        return false;
    }
    weir_below_delay(scene->below, PARALLEL_DELAY_US / 2);
    return reader_beside_writer(scene, error) &&
           overlapping_writes(scene, error) &&
           weir_scene_finish(scene, error);
}

/* --- concurrency --- */

#define CONCURRENCY_SECOND "plugin2"
#define CONCURRENCY_MS 800

/* A disk of its own under the same plugin. */
typedef struct Second {
    WeirBelow *below;
    WeirModel *model;
    WeirUser *user;
    WeirLoad *load;
} Second;

static void second_clear(Second *second)
{
    weir_load_free(second->load);
    weir_user_free(second->user);
    weir_below_free(second->below);
    weir_model_free(second->model);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Second, second_clear)

static bool second_open(WeirScene *scene, Second *second, GError **error)
{
    g_autofree char *path = weir_trial_path(scene->trial, "below2.sock");

    second->model = weir_model_new(scene->model->bytes);
    second->below = weir_below_new(path, second->model->bytes, error);
    if (!second->below) {
        return false;
    }
    weir_below_delay(second->below, PARALLEL_DELAY_US);
    if (!weir_stage_add_below(scene->stage, second->below, "below2", "disk",
                              error) ||
        !weir_stage_add_plugin(scene->stage, CONCURRENCY_SECOND, "below2",
                               error) ||
        !weir_stage_export(scene->stage, CONCURRENCY_SECOND, true, "thread1",
                           error)) {
        return false;
    }
    second->user = weir_user_new(scene->stage, CONCURRENCY_SECOND,
                                 second->model, error);
    return second->user != NULL;
}

/* Into a thread of its own. */
static bool move_first(WeirScene *scene, GError **error)
{
    g_clear_pointer(&scene->user, weir_user_free);
    if (!weir_stage_unexport(scene->stage, WEIR_STAGE_PLUGIN, error) ||
        !weir_stage_export(scene->stage, WEIR_STAGE_PLUGIN, true, "thread0",
                           error)) {
        return false;
    }
    scene->user = weir_user_new(scene->stage, WEIR_STAGE_PLUGIN, scene->model,
                                error);
    return scene->user != NULL;
}

static bool run_both(WeirScene *scene, Second *second, GError **error)
{
    static const WeirLoadOptions options = {
        .connections = 2, .depth = 16, .cell_bytes = PARALLEL_CELL_BYTES,
        .flushes = true,
    };
    g_autoptr(WeirLoad) load = weir_load_start(
        scene->stage, WEIR_STAGE_PLUGIN, scene->model, &options, error);

    if (!load) {
        return false;
    }
    second->load = weir_load_start(scene->stage, CONCURRENCY_SECOND,
                                   second->model, &options, error);
    if (!second->load) {
        return false;
    }
    g_usleep(CONCURRENCY_MS * 1000);
    return weir_load_check(load, 10000, error) &&
           weir_load_check(second->load, 10000, error) &&
           weir_load_stop(load, error) && weir_load_stop(second->load, error);
}

bool weir_check_concurrency(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);
    g_auto(Second) second = { NULL };

    if (!scene) {
        return false;
    }
    weir_trial_step(trial, "two disks in two threads, 32 requests each");
    weir_below_delay(scene->below, PARALLEL_DELAY_US);
    if (!move_first(scene, error) || !second_open(scene, &second, error) ||
        !run_both(scene, &second, error) ||
        !weir_user_read_all(second.user, error)) {
        return false;
    }
    return weir_stage_check_state(scene->stage, CONCURRENCY_SECOND, error) &&
           weir_scene_finish(scene, error);
}

/* --- drain --- */

#define DRAIN_ROUNDS 20
#define DRAIN_LIMIT_MS 2000

/* Opening the node anew drains it. */
static bool drain_once(WeirScene *scene, GError **error)
{
    gint64 begin_us = g_get_monotonic_time();
    bool ok = weir_stage_reopen(
        scene->stage, weir_stage_node(scene->stage, WEIR_STAGE_PLUGIN,
                                      WEIR_STAGE_BELOW, "stall"), error);
    gint64 ms = (g_get_monotonic_time() - begin_us) / 1000;

    if (!ok) {
        return false;
    }
    if ((double)ms > DRAIN_LIMIT_MS * scene->trial->test->patience) {
        weir_set_error(error, "a drained section took %" G_GINT64_FORMAT
                       " ms, expected at most %.0f: requests were held",
                       ms, DRAIN_LIMIT_MS * scene->trial->test->patience);
        return false;
    }
    return true;
}

/* If the host knows why something went wrong, tell that as well. */
static bool drain_failed(WeirScene *scene, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (!weir_stage_check_state(scene->stage, WEIR_STAGE_PLUGIN, &why) &&
        g_error_matches(why, WEIR_ERROR, WEIR_ERROR_FAILED)) {
        g_prefix_error(error, "%s: ", why->message);
    }
    return false;
}

static bool drain_rounds(WeirScene *scene, WeirLoad *load, GError **error)
{
    for (guint i = 0; i < DRAIN_ROUNDS; i++) {
        weir_trial_step(scene->trial, "drained section %u of %d under load",
                        i + 1, DRAIN_ROUNDS);
        if (!drain_once(scene, error) ||
            !weir_load_check(load, 10000, error)) {
            return drain_failed(scene, error);
        }
    }
    return true;
}

bool weir_check_drain(WeirTrial *trial, GError **error)
{
    static const WeirLoadOptions options = {
        .connections = 1, .depth = 16, .cell_bytes = PARALLEL_CELL_BYTES,
    };
    g_autoptr(WeirScene) scene = weir_scene_new(trial, 1u << 20, error);
    g_autoptr(WeirLoad) load = NULL;

    if (!scene) {
        return false;
    }
    weir_below_delay(scene->below, PARALLEL_DELAY_US);
    load = weir_load_start(scene->stage, WEIR_STAGE_PLUGIN, scene->model,
                           &options, error);
    return load && drain_rounds(scene, load, error) &&
           weir_load_stop(load, error) && weir_scene_finish(scene, error);
}

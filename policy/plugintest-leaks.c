/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of what a plugin keeps of requests and disks that are gone. */
#include <stdlib.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define LEAKS_ROUNDS 5
#define LEAKS_REQUESTS 5000
/* after which a round is over, with what is done: it is slow on purpose */
#define LEAKS_ROUND_US 1000000
/* that the process may grow by with each request, and in all */
#define LEAKS_REQUEST_BYTES 8u
#define LEAKS_ALL_KIB 192u
#define LEAKS_OPENS 30u
#define LEAKS_OPEN_KIB 8u
/* address space that only a sanitizer takes: it does not reuse memory */
#define LEAKS_SANITIZER_KIB (1ull << 30)

typedef struct Usage {
    guint64 memory_kib;
    guint64 threads;
    guint files;
} Usage;

static Usage usage_of(const WeirStage *stage)
{
    return (Usage) {
        .memory_kib = weir_stage_proc(stage, "smaps_rollup", "Anonymous"),
        .threads = weir_stage_proc(stage, "status", "Threads"),
        .files = weir_stage_files(stage),
    };
}

/* A sanitizer tells of leaks by itself, when the process ends. */
static bool is_sanitized(const WeirStage *stage)
{
    return weir_stage_proc(stage, "status", "VmSize") > LEAKS_SANITIZER_KIB;
}

/* Returns how many, 0 with @error set. */
static guint64 do_requests(WeirScene *scene, GError **error)
{
    static const WeirLoadOptions options = {
        .connections = 1, .depth = 16, .cell_bytes = 4096, .flushes = true,
    };
    gint64 end_us = g_get_monotonic_time() +
        (gint64)(LEAKS_ROUND_US * scene->trial->test->patience);
    g_autoptr(WeirLoad) load = weir_load_start(
        scene->stage, WEIR_STAGE_PLUGIN, scene->model, &options, error);

    while (load && weir_load_count(load) < LEAKS_REQUESTS &&
           g_get_monotonic_time() < end_us) {
        if (!weir_load_check(load, 10000, error)) {
            return 0;
        }
    }
    return load && weir_load_stop(load, error) ? weir_load_count(load) : 0;
}

static int compare(const void *a, const void *b)
{
    guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;

    return (x > y) - (x < y);
}

/*
 * Memory that grows round by round, not only until what is reused is there: the
 * median of rounds knows nothing of a single jump.
 */
static bool leaks_of_requests(WeirScene *scene, GError **error)
{
    /* per request */
    guint64 growth[LEAKS_ROUNDS], median;
    guint64 first_kib, last_kib;

    weir_trial_step(scene->trial, "many requests");
    if (!do_requests(scene, error)) {
        return false;
    }
    first_kib = last_kib = usage_of(scene->stage).memory_kib;
    for (guint i = 0; i < LEAKS_ROUNDS; i++) {
        guint64 count = do_requests(scene, error), now_kib;

        if (count == 0) {
            return false;
        }
        now_kib = usage_of(scene->stage).memory_kib;
        growth[i] = (MAX(now_kib, last_kib) - last_kib) * 1024 / count;
        last_kib = now_kib;
    }
    qsort(growth, LEAKS_ROUNDS, sizeof(*growth), compare);
    median = growth[LEAKS_ROUNDS / 2];
    if (median >= LEAKS_REQUEST_BYTES &&
        last_kib > first_kib + LEAKS_ALL_KIB && !is_sanitized(scene->stage)) {
        weir_set_error(error, "memory grows by %" G_GUINT64_FORMAT " bytes "
                       "with each request, and by %" G_GUINT64_FORMAT " KiB "
                       "so far, expected none", median, last_kib - first_kib);
        return false;
    }
    return true;
}

static bool open_often(WeirScene *scene, GError **error)
{
    for (guint i = 0; i < LEAKS_OPENS; i++) {
        if (!weir_scene_close(scene, error) ||
            !weir_scene_open(scene, error) ||
            !weir_user_read(scene->user, 0, 4096, error)) {
            return false;
        }
    }
    return true;
}

static bool judge_opens(const WeirScene *scene, const Usage *before,
                        guint64 memory_kib, GError **error)
{
    Usage now = usage_of(scene->stage);

    if (now.files > before->files + LEAKS_OPENS / 2) {
        weir_set_error(error, "%u more files are open when the disk was "
                       "opened and closed %u times, expected none",
                       now.files - before->files, LEAKS_OPENS);
        return false;
    }
    if (now.threads > before->threads + LEAKS_OPENS / 2) {
        weir_set_error(error, "there are %" G_GUINT64_FORMAT " more threads "
                       "when the disk was opened and closed %u times, "
                       "expected none", now.threads - before->threads,
                       LEAKS_OPENS);
        return false;
    }
    if (memory_kib > LEAKS_OPEN_KIB * LEAKS_OPENS &&
        !is_sanitized(scene->stage)) {
        weir_set_error(error, "memory grows by %" G_GUINT64_FORMAT " KiB "
                       "each time the disk is opened and closed, expected "
                       "none", memory_kib / LEAKS_OPENS);
        return false;
    }
    return true;
}

static bool leaks_of_opens(WeirScene *scene, GError **error)
{
    guint64 least = G_MAXUINT64;
    Usage before, last;

    weir_trial_step(scene->trial, "opening and closing the disk often");
    if (!open_often(scene, error)) {
        return false;
    }
    before = last = usage_of(scene->stage);
    for (guint i = 0; i < 2; i++) {
        Usage now;

        if (!open_often(scene, error)) {
            return false;
        }
        now = usage_of(scene->stage);
        least = MIN(least, now.memory_kib > last.memory_kib ?
                           now.memory_kib - last.memory_kib : 0);
        last = now;
    }
    return judge_opens(scene, &before, least, error);
}

bool weir_check_leaks(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirScene) scene = weir_scene_new_file(trial, 1u << 20, error);

    if (!scene) {
        return false;
    }
    return leaks_of_requests(scene, error) && leaks_of_opens(scene, error) &&
           weir_scene_finish(scene, error);
}

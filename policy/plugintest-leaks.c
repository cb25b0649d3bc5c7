/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of what a plugin keeps of requests and disks that are gone. */
#include <stdlib.h>

#include "plugintest-checks.h"
#include "plugintest-scene.h"

#define LEAKS_ROUNDS 5
#define LEAKS_REQUESTS 8000
/* after which a round is over, with what is done: it is slow on purpose */
#define LEAKS_ROUND_US 1000000
/* that the process may grow by in a round */
#define LEAKS_ROUND_KIB 96u
#define LEAKS_OPENS 40u
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

static bool do_requests(WeirScene *scene, GError **error)
{
    static const WeirLoadOptions options = {
        .connections = 1, .depth = 16, .cell_bytes = 4096, .flushes = true,
    };
    gint64 end_us = g_get_monotonic_time() + LEAKS_ROUND_US;
    g_autoptr(WeirLoad) load = weir_load_start(
        scene->stage, WEIR_STAGE_PLUGIN, scene->model, &options, error);

    while (load && weir_load_count(load) < LEAKS_REQUESTS &&
           g_get_monotonic_time() < end_us) {
        if (!weir_load_check(load, 10000, error)) {
            return false;
        }
    }
    return load && weir_load_stop(load, error);
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
    guint64 growth[LEAKS_ROUNDS], median;
    Usage before, now;

    weir_trial_step(scene->trial, "many requests");
    if (!do_requests(scene, error)) {
        return false;
    }
    before = usage_of(scene->stage);
    for (guint i = 0; i < LEAKS_ROUNDS; i++) {
        if (!do_requests(scene, error)) {
            return false;
        }
        now = usage_of(scene->stage);
        growth[i] = now.memory_kib > before.memory_kib ?
                    now.memory_kib - before.memory_kib : 0;
        before = now;
    }
    qsort(growth, LEAKS_ROUNDS, sizeof(*growth), compare);
    median = growth[LEAKS_ROUNDS / 2];
    if (median >= LEAKS_ROUND_KIB && !is_sanitized(scene->stage)) {
        weir_set_error(error, "memory grows by %" G_GUINT64_FORMAT " KiB "
                       "with each %d requests, expected none", median,
                       LEAKS_REQUESTS);
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

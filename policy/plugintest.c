/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "plugintest-stage.h"

#define SIDECAR_BYTES (64ull << 20)     /* where none is asked for */

void weir_result_free(WeirResult *result)
{
    if (result) {
        g_free(result->message);
        g_free(result->log);
        g_free(result);
    }
}

/* --- for checks --- */

void weir_trial_step(WeirTrial *trial, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_mutex_lock(&trial->lock);
    g_free(trial->step);
    trial->step = g_strdup_vprintf(format, args);
    g_mutex_unlock(&trial->lock);
    va_end(args);
}

char *weir_trial_path(const WeirTrial *trial, const char *name)
{
    return g_build_filename(trial->test->dir, name, NULL);
}

guint64 weir_trial_below(GRand *rand, guint64 end)
{
    guint64 value = (guint64)g_rand_int(rand) << 32 | g_rand_int(rand);

    return value % end;
}

void weir_trial_fill(GRand *rand, guint8 *data, guint64 bytes)
{
    guint64 at = 0;

    for (; at + 4 <= bytes; at += 4) {
        guint32 value = g_rand_int(rand);

        memcpy(data + at, &value, 4);
    }
    for (; at < bytes; at++) {
        data[at] = (guint8)g_rand_int(rand);
    }
}

/* --- a check --- */

/*
 * End the daemons when the time is over: whatever the check waits for fails
 * then.
 */
static gpointer watch(gpointer opaque)
{
    WeirTrial *trial = opaque;
    const WeirCheck *check = trial->check;
    gint64 deadline_us = g_get_monotonic_time() +
        (gint64)(check->limit_s * trial->test->patience * 1e6);

    g_mutex_lock(&trial->lock);
    while (!trial->is_over && !trial->is_late) {
        trial->is_late = !g_cond_wait_until(&trial->ended, &trial->lock,
                                            deadline_us);
    }
    for (guint i = 0; trial->is_late && i < trial->daemons->len; i++) {
        g_subprocess_force_exit(trial->daemons->pdata[i]);
    }
    g_mutex_unlock(&trial->lock);
    return NULL;
}

/* The same whichever other checks run, so that one can be run again. */
static guint32 seed_of(const WeirPluginTest *test, const char *name)
{
    return test->seed ^ g_str_hash(name);
}

static void trial_init(WeirTrial *trial, const WeirPluginTest *test,
                       const WeirCheck *check)
{
    *trial = (WeirTrial) { .test = test, .check = check };
    g_mutex_init(&trial->lock);
    g_cond_init(&trial->ended);
    trial->rand = g_rand_new_with_seed(seed_of(test, check->name));
    trial->daemons = g_ptr_array_new_with_free_func(g_object_unref);
    trial->log = g_string_new(NULL);
    weir_trial_step(trial, "starting");
}

static void trial_clear(WeirTrial *trial)
{
    g_string_free(trial->log, TRUE);
    g_ptr_array_unref(trial->daemons);
    g_rand_free(trial->rand);
    g_free(trial->step);
    g_cond_clear(&trial->ended);
    g_mutex_clear(&trial->lock);
}

static bool trial_run(WeirTrial *trial, GError **error)
{
    GThread *watcher = g_thread_new("watch", watch, trial);
    g_autoptr(GError) local = NULL;
    bool ok = trial->check->run(trial, &local);

    g_mutex_lock(&trial->lock);
    trial->is_over = true;
    g_cond_signal(&trial->ended);
    g_mutex_unlock(&trial->lock);
    g_thread_join(watcher);
    if (trial->is_late) {
        weir_set_error(error, "it did not end within %.0f s; it was at this: "
                       "%s", trial->check->limit_s * trial->test->patience,
                       trial->step);
        return false;
    }
    if (!ok) {
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return ok;
}

/* Images of a check are nothing for the next one. */
static void empty_dir(const WeirPluginTest *test)
{
    g_autoptr(GDir) dir = g_dir_open(test->dir, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(test->dir, name, NULL);

        g_unlink(path);
    }
}

WeirResult *weir_plugin_test_run(const WeirPluginTest *test,
                                 const WeirCheck *check)
{
    WeirResult *result = g_new0(WeirResult, 1);
    const char *reason = check->skip ? check->skip(test) : NULL;
    gint64 begin_us = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;
    WeirTrial trial;

    result->check = check;
    if (reason) {
        result->outcome = WEIR_OUTCOME_SKIPPED;
        result->message = g_strdup(reason);
        return result;
    }
    trial_init(&trial, test, check);
    if (!trial_run(&trial, &error)) {
        result->outcome = WEIR_OUTCOME_FAILED;
        result->message = weir_printable(error->message);
        result->log = g_strdup(trial.log->str);
    }
    trial_clear(&trial);
    empty_dir(test);
    result->seconds = (double)(g_get_monotonic_time() - begin_us) / 1e6;
    return result;
}

/* --- the plugin --- */

static JsonObject *ask_about(WeirTrial *trial, GError **error)
{
    g_autoptr(WeirStage) stage = weir_stage_new(trial, "about", error);
    JsonObject *arguments;
    g_autoptr(JsonNode) answer = NULL;

    if (!stage) {
        return NULL;
    }
    arguments = json_object_new();
    json_object_set_string_member(arguments, "plugin", trial->test->plugin);
    answer = weir_stage_ask(stage, "query-weir-plugin", arguments, error);
    if (!answer || !weir_stage_quit(stage, error)) {
        return NULL;
    }
    return json_node_dup_object(answer);
}

bool weir_plugin_test_begin(WeirPluginTest *test, GError **error)
{
    static const WeirCheck about = { .name = "about", .limit_s = 60 };
    WeirTrial trial;

    test->dir = g_dir_make_tmp("weir-plugin-test-XXXXXX", error);
    if (!test->dir) {
        return false;
    }
    trial_init(&trial, test, &about);
    test->about = ask_about(&trial, error);
    trial_clear(&trial);
    if (!test->about) {
        return false;
    }
    if (test->sidecar_bytes == WEIR_SIDECAR_AUTO) {
        test->sidecar_bytes = weir_json_bool(test->about, "uses-sidecar",
                                             false) ? SIDECAR_BYTES : 0;
    }
    test->alignment = (guint64)weir_json_int(test->about, "alignment", 1);
    test->changes_data = weir_json_bool(test->about, "changes-data", false);
    test->holds_data = weir_json_bool(test->about, "holds-data", false);
    return true;
}

void weir_plugin_test_end(WeirPluginTest *test)
{
    if (test->dir) {
        empty_dir(test);
        g_rmdir(test->dir);
        g_clear_pointer(&test->dir, g_free);
    }
    g_clear_pointer(&test->about, json_object_unref);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livestate.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "away.h"
#include "cachefile.h"
#include "sidecar.h"
#include "storagelock.h"
#include "storagerecord.h"

#define LIVE_LOCK_MS 10000

static void live_tell_step(const WeirLive *live, const WeirStep *step)
{
    if (live->report.step) {
        live->report.step(step, live->undoing);
    }
}

/* Undo the first @count steps, the last first. */
static bool live_undo(WeirLive *live, guint count, GError **error)
{
    live->undoing = true;
    while (count-- > 0) {
        const WeirStep *step = g_ptr_array_index(live->change->steps, count);

        live_tell_step(live, step);
        if (!weir_live_unstep(live, step, g_array_index(live->created, bool,
                                                   count), error)) {
            g_autofree char *text = weir_step_text(step);

            g_prefix_error(error, "cannot undo '%s': ", text);
            return false;
        }
    }
    return true;
}

/* A daemon that was started meanwhile has what the record told then. */
static bool live_save_storage(const WeirLive *live, GError **error)
{
    int lock = live->qmp ? weir_storage_lock(live->dir, live->record->name,
                                             LIVE_LOCK_MS, error) : live->lock;
    bool ok = lock >= 0;

    if (ok && live->qmp && !weir_live_is_alive(live)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED,
                    "the storage daemon has ended");
        ok = false;
    }
    ok = ok && weir_record_save(live->record, live->dir, error);
    if (live->qmp) {
        weir_storage_unlock(lock);
    }
    return ok;
}

static bool live_save(const WeirLive *live, GError **error)
{
    if (live->record->is_storage) {
        return live_save_storage(live, error);
    }
    /* not back, after weir run has removed it */
    if (!weir_live_is_alive(live)) {
        return true;
    }
    if (!weir_record_save(live->record, live->dir, error)) {
        return false;
    }
    if (live->vm.saved) {
        live->vm.saved(live->vm.opaque, live->record);
    }
    return true;
}

/* What is to be known when QEMU has ended in one of the first @count steps. */
static char *live_tell_end(const WeirLive *live, guint count)
{
    if (live->record->is_storage) {
        return g_strdup("the storage daemon has ended, and comes back with "
                        "what the disk had before, or with all of the new "
                        "filters if one of them has data by now: weir status "
                        "tells");
    }
    for (guint i = 0; i < count; i++) {
        const WeirStep *step = g_ptr_array_index(live->change->steps, i);

        if (step->class == WEIR_CLASS_CACHE && step->memory) {
            return g_strdup_printf("the VM has ended, and its disk may lack "
                                   "what the cache %s has: start it with both",
                                   step->memory);
        }
    }
    return g_strdup("the VM has ended");
}

/* A process that has just closed the connection may be about to end. */
static void live_wait_for_end(const WeirLive *live, const GError *failure)
{
    gint64 end_us = g_get_monotonic_time() + WEIR_LIVE_PATIENCE_US;

    while (live->record->is_storage &&
           g_error_matches(failure, WEIR_ERROR, WEIR_ERROR_CLOSED) &&
           weir_live_is_alive(live) && g_get_monotonic_time() < end_us) {
        g_usleep(WEIR_LIVE_POLL_US);
    }
}

/* Step @count has failed with @failure: go back, and tell of both. */
static void live_fail(WeirLive *live, guint count, const GError *failure,
                      GError **error)
{
    const WeirStep *step = g_ptr_array_index(live->change->steps, count);
    g_autofree char *text = weir_step_text(step);
    g_autoptr(GError) local = NULL;
    WeirErrorCode code = WEIR_ERROR_HALFWAY;
    const char *before = "";
    g_autofree char *end = NULL;

    live_wait_for_end(live, failure);
    if (!weir_live_is_alive(live)) {
        end = live_tell_end(live, count + 1);
        code = WEIR_ERROR_CLOSED;
    } else if (!weir_live_is_connected(failure)) {
        end = g_strdup("how far it is, is not known");
    } else if (!live_undo(live, count, &local)) {
        end = g_strdup(local->message);
    } else {
        weir_record_end_change(live->disk, false);
        weir_binding_put_back(live->disk->file, live->bound);
        if (live_save(live, &local)) {
            code = WEIR_ERROR_FAILED;
            end = g_strdup("everything is as before");
        } else {
            before = "everything is as before, but ";
            end = g_strdup(local->message);
        }
    }
    g_set_error(error, WEIR_ERROR, (int)code, "%s: %s; %s%s%s", text,
                failure->message, before, end,
                code == WEIR_ERROR_HALFWAY ? "; weir reapply or weir detach "
                "goes on from here" : "");
}

/* @done: what the disk is bound to is that of its chain only. */
static bool live_note_binding(const WeirLive *live, bool done, GError **error)
{
    g_autoptr(WeirDisk) disk = weir_record_describe(live->disk, error);

    return disk && weir_binding_note(disk, live->chain, live->record->name,
                                     live->policy ? live->policy->name : "",
                                     !done, error);
}

/* All steps are done. */
static bool live_end(WeirLive *live, GError **error)
{
    g_autoptr(GError) unsaved = NULL;
    bool saved;

    if (!live->record->is_storage) {
        /* if that fails, it is bound to more than it needs */
        live_note_binding(live, true, NULL);
    }
    weir_record_end_change(live->disk, true);
    saved = live_save(live, &unsaved);
    if (live->record->is_storage && saved) {
        /* not before: the change may have been undone */
        live_note_binding(live, true, NULL);
    }
    if (g_error_matches(unsaved, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        g_autofree char *end = live_tell_end(live, live->change->steps->len);

        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED, "VM '%s', disk %s: "
                    "%s", live->record->name, live->disk->id, end);
        return false;
    }
    if (!saved) {
        g_prefix_error(&unsaved, "the record does not tell: ");
    } else if (!live->left) {
        return true;
    }
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_HALFWAY, "VM '%s', disk %s: "
                "all is done, but %s", live->record->name, live->disk->id,
                unsaved ? unsaved->message : live->left);
    return false;
}

/* Whether a filter of the disk keeps what it knows there. */
static bool live_has_memory(const WeirRecordDisk *disk, const WeirStep *step)
{
    for (guint i = 0; disk && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        g_autofree char *memory = weir_change_memory(step->class,
                                                     wanted->settings);

        if (wanted->place && g_strcmp0(memory, step->memory) == 0) {
            return true;
        }
    }
    return false;
}

/*
 * Of a disk out of process: what filters that come have from earlier is
 * forgotten before it is noted that they come.  If the daemon ends later, what
 * they have is of this disk.
 */
static bool live_forget_first(WeirLive *live, GError **error)
{
    const GPtrArray *steps = live->change->steps;

    for (guint i = 0; live->record->is_storage && i < steps->len; i++) {
        const WeirStep *step = g_ptr_array_index(steps, i);

        if (step->kind != WEIR_STEP_ATTACH || !step->memory ||
            live_has_memory(live->disk, step) ||
            live_has_memory(live->disk->change, step)) {
            continue;
        }
        if (!weir_live_forget(step, error)) {
            g_autofree char *text = weir_step_text(step);

            g_prefix_error(error, "%s: ", text);
            return false;
        }
    }
    return true;
}

/* --- without a daemon --- */

/* What a filter that comes or goes knows will not be true of the disk. */
static bool live_step_away(WeirLive *live, const WeirStep *step, bool *created,
                           GError **error)
{
    if (weir_live_is_interrupted(live)) {
        weir_set_error(error, "interrupted");
        return false;
    }
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        return weir_live_create(live, step, created, error);
    case WEIR_STEP_ATTACH:
    case WEIR_STEP_DETACH:
        return weir_live_forget(step, error);
    default:
        return true;            /* the next daemon opens it so */
    }
}

/* Files that were made for nothing, of the first @count steps. */
static void live_remove_created(const WeirLive *live, guint count)
{
    for (guint i = 0; i < count; i++) {
        const WeirStep *step = g_ptr_array_index(live->change->steps, i);

        if (g_array_index(live->created, bool, i)) {
            unlink(step->location->path);
        }
    }
}

/*
 * Forgetting comes first: if this process is killed, filters know less than
 * they could.  Then the record is replaced at once.
 */
static bool live_run_away(WeirLive *live, GError **error)
{
    const GPtrArray *steps = live->change->steps;
    guint count = 0;
    bool ok = true;

    while (ok && count < steps->len) {
        const WeirStep *step = g_ptr_array_index(steps, count);

        if (step->kind != WEIR_STEP_OPEN && step->kind != WEIR_STEP_CLOSE) {
            live_tell_step(live, step);
        }
        ok = live_step_away(live, step, &g_array_index(live->created, bool,
                                                       count), error);
        count++;
    }
    if (ok) {
        weir_record_begin_change(live->disk, live->policy, live->policy_dirs,
                                 live->chain);
        weir_record_end_change(live->disk, true);
        weir_away_set_secrets(live->record,
                              weir_plan_storage_secrets(live->plan));
        ok = live_save(live, error);
    }
    if (!ok) {
        live_remove_created(live, count);
        weir_binding_put_back(live->disk->file, live->bound);
        weir_live_explain(live, error);
        return false;
    }
    /* if that fails, it is bound to more than it needs */
    live_note_binding(live, true, NULL);
    return true;
}

bool weir_live_run(WeirLive *live, GError **error)
{
    const GPtrArray *steps = live->change->steps;

    if (!weir_present_mend(&live->sight, error)) {
        weir_live_explain(live, error);
        return false;
    }
    weir_binding_free(live->bound);
    live->bound = weir_binding_find(live->disk->file);
    if (!live_note_binding(live, false, error)) {
        weir_live_explain(live, error);
        return false;
    }
    g_array_set_size(live->created, steps->len);
    if (!live->qmp) {
        return live_run_away(live, error);
    }
    if (!live_forget_first(live, error)) {
        weir_binding_put_back(live->disk->file, live->bound);
        weir_live_explain(live, error);
        return false;
    }
    weir_record_begin_change(live->disk, live->policy, live->policy_dirs,
                             live->chain);
    if (!live_save(live, error)) {
        weir_binding_put_back(live->disk->file, live->bound);
        weir_live_explain(live, error);
        return false;
    }
    for (guint i = 0; i < steps->len; i++) {
        const WeirStep *step = g_ptr_array_index(steps, i);
        g_autoptr(GError) failure = NULL;

        live_tell_step(live, step);
        if (!weir_live_step(live, step, &g_array_index(live->created, bool, i),
                            &failure)) {
            live_fail(live, i, failure, error);
            weir_live_explain(live, error);
            return false;
        }
    }
    return live_end(live, error);
}

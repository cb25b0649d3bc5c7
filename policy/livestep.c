/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "livestate.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cachefile.h"
#include "sidecar.h"

/* What a filter knows of the disk from earlier is old: see those two. */
bool weir_live_forget(const WeirStep *step, GError **error)
{
    if (!step->memory) {
        return true;
    }
    switch (step->class) {
    case WEIR_CLASS_REPLICATION:
        return weir_sidecar_forget(
            step->memory, weir_json_string(step->options, "disk-id"), error);
    case WEIR_CLASS_CACHE:
        return weir_cache_file_forget(step->memory, error);
    default:
        return true;
    }
}

static bool live_attach(WeirLive *live, const WeirStep *step, GError **error)
{
    JsonObject *arguments;

    if (!step->options) {
        weir_set_error(error, "the options that it had are not known");
        return false;
    }
    if (!weir_live_forget(step, error)) {
        return false;
    }
    arguments = json_object_new();
    json_object_set_string_member(arguments, "node-name", step->below);
    json_object_set_object_member(arguments, "filter",
                                  json_object_ref(step->options));
    return weir_live_do(live, "weir-attach", arguments, error);
}

/* Whether there is a node of that name. */
static bool live_find_node(WeirLive *live, const char *name, bool *found,
                           GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    JsonArray *nodes;

    json_object_set_boolean_member(arguments, "flat", TRUE);
    answer = weir_live_execute(live, "query-named-block-nodes", arguments,
                               error);
    nodes = weir_json_as_array(answer);
    *found = false;
    for (guint i = 0; i < weir_json_length(nodes); i++) {
        *found = *found ||
                 g_strcmp0(weir_json_string(weir_json_object_at(nodes, i),
                                            "node-name"), name) == 0;
    }
    return answer != NULL;
}

static bool live_detach_in_job(WeirLive *live, const WeirStep *step,
                               GError **error)
{
    g_autofree char *job = g_strconcat(WEIR_LIVE_JOB, step->node_name, NULL);
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "node-name", step->node_name);
    json_object_set_string_member(arguments, "job-id", job);
    return weir_live_do(live, "weir-detach", arguments, error) &&
           weir_live_wait_for_job(live, job, error);
}

/*
 * The filter has gone if its node has: a client of another monitor may have
 * dismissed the job, and then nothing else tells how it ended.
 */
static bool live_detach_node(WeirLive *live, const WeirStep *step,
                             GError **error)
{
    g_autoptr(GError) local = NULL;
    bool ended = live_detach_in_job(live, step, &local);
    bool found;

    if (ended || weir_live_is_connected(local)) {
        if (!live_find_node(live, step->node_name, &found, error)) {
            return false;
        }
        if (!found) {
            return true;
        }
    }
    if (ended) {
        weir_set_error(error, "its job has been dismissed, and it is still "
                       "there");
        return false;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

/*
 * The driver makes its file empty as it goes, but cannot do so on a device that
 * fails: then it would be believed later, and dirty blocks written back.
 */
static bool live_detach_cache(WeirLive *live, const WeirStep *step,
                              GError **error)
{
    if (!live_detach_node(live, step, error)) {
        return false;
    }
    if (!weir_cache_file_forget(step->memory, NULL)) {
        g_free(live->left);
        live->left = g_strdup_printf("the cache %s still has what it had: make "
                                     "it blank before any disk gets it again",
                                     step->memory);
    }
    return true;
}

/* A replication tells its sidecar by itself that the disk goes on without. */
static bool live_detach(WeirLive *live, const WeirStep *step, GError **error)
{
    return step->class == WEIR_CLASS_CACHE && step->memory
           ? live_detach_cache(live, step, error)
           : live_detach_node(live, step, error);
}

/* A node that another filter had brought goes with the last that uses it. */
static bool live_close(WeirLive *live, const WeirStep *step, GError **error)
{
    JsonObject *arguments;
    bool found;

    if (!live_find_node(live, step->node_name, &found, error)) {
        return false;
    }
    if (!found) {
        return true;
    }
    arguments = json_object_new();
    json_object_set_string_member(arguments, "node-name", step->node_name);
    return weir_live_do(live, "blockdev-del", arguments, error);
}

static bool live_open(WeirLive *live, const WeirStep *step, GError **error)
{
    return weir_live_do(live, "blockdev-add", json_object_ref(step->options),
                        error);
}

static bool live_reopen(WeirLive *live, JsonObject *options, GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonArray *nodes = json_array_new();

    json_array_add_object_element(nodes, json_object_ref(options));
    json_object_set_array_member(arguments, "options", nodes);
    return weir_live_do(live, "blockdev-reopen", arguments, error);
}

/* QEMU may be another user. */
bool weir_live_create(const WeirLive *live, const WeirStep *step,
                      bool *created, GError **error)
{
    const char *path = step->location->path;

    if (!weir_location_create(step->location, created, error)) {
        return false;
    }
    if (*created && live->vm.uid >= 0 &&
        lchown(path, (uid_t)live->vm.uid, (gid_t)live->vm.gid) < 0) {
        weir_set_error(error, "cannot give %s to user %d: %s", path,
                       (int)live->vm.uid, g_strerror(errno));
        unlink(path);
        return false;
    }
    return true;
}

bool weir_live_step(WeirLive *live, const WeirStep *step, bool *created,
                    GError **error)
{
    if (weir_live_is_interrupted(live)) {
        weir_set_error(error, "interrupted");
        return false;
    }
    /* another QEMU may answer in its place */
    if (live->vm.is_alive && !weir_live_is_alive(live)) {
        weir_set_error(error, "it does not run");
        return false;
    }
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        return weir_live_create(live, step, created, error);
    case WEIR_STEP_OPEN:
        return live_open(live, step, error);
    case WEIR_STEP_CLOSE:
        return live_close(live, step, error);
    case WEIR_STEP_ATTACH:
        return live_attach(live, step, error);
    case WEIR_STEP_DETACH:
        return live_detach(live, step, error);
    default:
        return live_reopen(live, step->options, error);
    }
}

/* Its log would refuse one that is only there, and protects nothing. */
static bool live_put_back(WeirLive *live, const WeirStep *step, GError **error)
{
    if (step->leaves) {
        weir_set_error(error, "%s", step->leaves);
        return false;
    }
    return live_attach(live, step, error);
}

bool weir_live_unstep(WeirLive *live, const WeirStep *step, bool created,
                      GError **error)
{
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        if (created) {
            unlink(step->location->path);
        }
        return true;
    case WEIR_STEP_OPEN:
        return live_close(live, step, error);
    case WEIR_STEP_CLOSE:
        /* what nobody had used need not come back */
        return !step->options || live_open(live, step, error);
    case WEIR_STEP_ATTACH:
        return live_detach(live, step, error);
    case WEIR_STEP_DETACH:
        return live_put_back(live, step, error);
    default:
        return live_reopen(live, step->before, error);
    }
}

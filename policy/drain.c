/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "drain.h"

#include <string.h>
#include <unistd.h>

#include "job.h"
#include "location.h"
#include "qmp.h"

#define DRAIN_TIMEOUT_MS 120000
#define DRAIN_CACHE "weir-drain-cache"
#define DRAIN_JOB "weir-drain"

static bool drain_do(WeirQmp *qmp, const char *command, JsonObject *arguments,
                     GError **error)
{
    g_autoptr(JsonNode) answer = weir_qmp_execute(qmp, command, arguments,
                                                  DRAIN_TIMEOUT_MS, error);

    return answer != NULL;
}

/*
 * Open the nodes below the cache.  @names takes theirs, the lowest first.
 * Filters that only look are left out.
 */
static bool drain_open_below(WeirQmp *qmp, const WeirBound *bound,
                             GPtrArray *names, GError **error)
{
    for (guint i = 0; i < weir_json_length(bound->below); i++) {
        JsonObject *node = weir_json_object_at(bound->below, i);
        const char *driver = weir_json_string(node, "driver");
        g_autofree char *name = g_strdup_printf("weir-drain-%u", i);
        JsonObject *options;

        if (g_strcmp0(driver, "weir-inspect") == 0) {
            continue;
        }
        if (!driver || g_str_has_prefix(driver, WEIR_FILTER_PREFIX)) {
            weir_set_error(error, "below the cache there is %s: start the VM "
                           "under policy '%s', and detach the cache there",
                           driver ? driver : "something", bound->policy);
            return false;
        }
        options = weir_json_copy(node);
        json_object_set_string_member(options, "node-name", name);
        if (names->len > 0) {
            json_object_set_string_member(
                options, "file", g_ptr_array_index(names, names->len - 1));
        }
        if (!drain_do(qmp, "blockdev-add", options, error)) {
            return false;
        }
        g_ptr_array_add(names, g_steal_pointer(&name));
    }
    if (names->len == 0) {
        weir_set_error(error, "nothing is known of what is below the cache");
    }
    return names->len > 0;
}

static bool drain_open_cache(WeirQmp *qmp, const WeirBound *bound,
                             const char *below, GError **error)
{
    g_autoptr(WeirLocation) location = weir_location_parse(
        weir_bound_memory(bound), error);
    JsonObject *options;

    if (!location) {
        return false;
    }
    options = weir_json_copy(bound->settings);
    json_object_set_string_member(options, "driver", bound->driver);
    json_object_set_string_member(options, "node-name", DRAIN_CACHE);
    json_object_set_string_member(options, "file", below);
    json_object_set_object_member(options, "cache-file",
                                  weir_location_node(location));
    return drain_do(qmp, "blockdev-add", options, error);
}

/* On a socket in @dir that nobody finds. */
static bool drain_listen_in(WeirQmp *qmp, const char *dir, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "nbd", NULL);
    JsonObject *address = json_object_new();
    JsonObject *data = json_object_new();
    JsonObject *arguments = json_object_new();
    bool ok;

    json_object_set_string_member(data, "path", path);
    json_object_set_string_member(address, "type", "unix");
    json_object_set_object_member(address, "data", data);
    json_object_set_object_member(arguments, "addr", address);
    ok = drain_do(qmp, "nbd-server-start", arguments, error);
    unlink(path);
    return ok;
}

/* A cache writes to its disk only while somebody may write to the cache. */
static bool drain_export(WeirQmp *qmp, GError **error)
{
    g_autofree char *dir = g_dir_make_tmp("weir-drain-XXXXXX", error);
    JsonObject *arguments;

    if (!dir) {
        return false;
    }
    if (!drain_listen_in(qmp, dir, error)) {
        rmdir(dir);
        return false;
    }
    rmdir(dir);
    arguments = json_object_new();
    json_object_set_string_member(arguments, "type", "nbd");
    json_object_set_string_member(arguments, "id", DRAIN_JOB);
    json_object_set_string_member(arguments, "node-name", DRAIN_CACHE);
    json_object_set_boolean_member(arguments, "writable", TRUE);
    return drain_do(qmp, "block-export-add", arguments, error);
}

/* Who ends this process ends the daemon: the cache keeps what it has. */
static bool drain_goes_on(void *unused)
{
    (void)unused;
    return false;
}

static bool drain_detach(WeirQmp *qmp, void (*trouble)(const char *reason),
                         GError **error)
{
    const WeirJobWatch watch = {
        .is_interrupted = drain_goes_on, .trouble = trouble,
    };
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "node-name", DRAIN_CACHE);
    json_object_set_string_member(arguments, "job-id", DRAIN_JOB);
    return drain_do(qmp, "weir-detach", arguments, error) &&
           weir_job_wait(qmp, DRAIN_JOB, DRAIN_CACHE, &watch, error);
}

bool weir_drain(const WeirBound *bound, WeirDaemon *daemon,
                void (*trouble)(const char *reason), GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    WeirQmp *qmp = weir_daemon_qmp(daemon, error);

    return qmp && drain_open_below(qmp, bound, names, error) &&
           drain_open_cache(qmp, bound,
                            g_ptr_array_index(names, names->len - 1),
                            error) &&
           drain_export(qmp, error) && drain_detach(qmp, trouble, error) &&
           weir_daemon_quit(daemon, error);    /* formats write as they close */
}

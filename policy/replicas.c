/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replicas.h"

#include <string.h>

#define REPLICAS_DRIVER "weir-journal"
#define REPLICAS_TIMEOUT_MS 30000
#define REPLICAS_POLL_US 50000
#define REPLICAS_PAGE 1000

struct WeirReplicas {
    WeirQmp *qmp;
    JsonNode *filters;          /* what query-weir told */
    JsonObject *info;           /* the log's part of it */
    const char *node;           /* its name, owned by @info */
};

/* Node and job names that belong to a replica. */
typedef struct ReplicaNames {
    char *replica;              /* the disk at the point in time */
    char *file;                 /* of the overlay */
    char *overlay;
} ReplicaNames;

static void replica_names_clear(ReplicaNames *names)
{
    g_free(names->replica);
    g_free(names->file);
    g_free(names->overlay);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ReplicaNames, replica_names_clear)

static void replica_names_init(ReplicaNames *names, const char *name)
{
    names->replica = g_strdup_printf("%s-replica", name);
    names->file = g_strdup_printf("%s-file", name);
    names->overlay = g_strdup_printf("%s-overlay", name);
}

/* --- commands --- */

static JsonNode *replicas_execute(WeirReplicas *r, const char *command,
                                  JsonObject *arguments, GError **error)
{
    return weir_qmp_execute(r->qmp, command, arguments,
                            REPLICAS_TIMEOUT_MS, error);
}

/* A command that returns nothing of interest. */
static bool replicas_do(WeirReplicas *r, const char *command,
                        JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) node = replicas_execute(r, command, arguments,
                                                error);

    return node != NULL;
}

/* An object with string members, ended by a NULL name. */
static JsonObject *object_of(const char *name, const char *value, ...)
    G_GNUC_NULL_TERMINATED;

static JsonObject *object_of(const char *name, const char *value, ...)
{
    JsonObject *object = json_object_new();
    va_list args;

    json_object_set_string_member(object, name, value);
    va_start(args, value);
    while ((name = va_arg(args, const char *))) {
        json_object_set_string_member(object, name,
                                      va_arg(args, const char *));
    }
    va_end(args);
    return object;
}

/* The object in an array whose member has that value, or NULL. */
static JsonObject *find_object(JsonArray *array, const char *member,
                               const char *value)
{
    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *object = weir_json_object_at(array, i);

        if (g_strcmp0(weir_json_string(object, member), value) == 0) {
            return object;
        }
    }
    return NULL;
}

/* --- the log --- */

static bool replicas_find_journal(WeirReplicas *r, const char *socket,
                                  const char *journal, GError **error)
{
    JsonArray *filters = weir_json_as_array(r->filters);
    guint found = 0;

    for (guint i = 0; i < weir_json_length(filters); i++) {
        JsonObject *filter = weir_json_object_at(filters, i);
        const char *node = weir_json_string(filter, "node-name");

        if (g_strcmp0(weir_json_string(filter, "driver"), REPLICAS_DRIVER) ||
            !node || (journal && strcmp(node, journal))) {
            continue;
        }
        r->info = filter;
        r->node = node;
        found++;
    }
    if (found == 1) {
        return true;
    }
    if (found) {
        weir_set_error(error, "%s keeps %u replication logs: name one with "
                       "--journal", socket, found);
    } else if (journal) {
        weir_set_error(error, "%s has no " REPLICAS_DRIVER " node '%s'", socket,
                       journal);
    } else {
        weir_set_error(error, "%s keeps no replication log", socket);
    }
    return false;
}

WeirReplicas *weir_replicas_connect(const char *socket, const char *journal,
                                    GError **error)
{
    g_autoptr(WeirReplicas) r = g_new0(WeirReplicas, 1);

    r->qmp = weir_qmp_connect(socket, error);
    if (!r->qmp ||
        !weir_qmp_negotiate(r->qmp, REPLICAS_TIMEOUT_MS, error)) {
        return NULL;
    }
    r->filters = replicas_execute(r, "query-weir", NULL, error);
    if (!r->filters ||
        !replicas_find_journal(r, socket, journal, error)) {
        return NULL;
    }
    return g_steal_pointer(&r);
}

void weir_replicas_free(WeirReplicas *r)
{
    if (r) {
        weir_qmp_free(r->qmp);
        g_clear_pointer(&r->filters, json_node_unref);
        g_free(r);
    }
}

JsonObject *weir_replicas_info(const WeirReplicas *r)
{
    return r->info;
}

bool weir_replicas_refresh(WeirReplicas *r, GError **error)
{
    g_autofree char *node = g_strdup(r->node);

    g_clear_pointer(&r->filters, json_node_unref);
    r->info = NULL;
    r->node = NULL;
    r->filters = replicas_execute(r, "query-weir", NULL, error);
    return r->filters && replicas_find_journal(r, "the daemon", node, error);
}

/* Add one page; returns how many there were, or -1. */
static int replicas_add_page(WeirReplicas *r, JsonArray *points, guint limit,
                             bool marked, GError **error)
{
    JsonObject *arguments = object_of("node-name", r->node, NULL);
    guint length = weir_json_length(points);
    g_autoptr(JsonNode) page = NULL;
    JsonArray *array;

    json_object_set_int_member(arguments, "limit", limit);
    json_object_set_boolean_member(arguments, "marked", marked);
    if (length) {
        json_object_set_int_member(
            arguments, "before",
            weir_json_int(weir_json_object_at(points, length - 1), "epoch",
                          0));
    }
    page = replicas_execute(r, "query-weir-points", arguments, error);
    if (!page) {
        return -1;
    }
    array = weir_json_as_array(page);
    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *point = weir_json_object_at(array, i);

        if (point) {
            json_array_add_object_element(points, json_object_ref(point));
        }
    }
    return weir_json_length(array);
}

JsonNode *weir_replicas_points(WeirReplicas *r, guint limit, bool marked,
                               GError **error)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);
    JsonArray *points = json_array_new();

    json_node_take_array(node, points);
    for (;;) {
        guint length = weir_json_length(points);
        guint wanted = limit ? MIN(limit - length, REPLICAS_PAGE)
                             : REPLICAS_PAGE;
        int got = replicas_add_page(r, points, wanted, marked, error);

        if (got < 0) {
            return NULL;
        }
        if ((guint)got < wanted ||
            (limit && weir_json_length(points) >= limit)) {
            return g_steal_pointer(&node);
        }
    }
}

/* --- jobs --- */

/* What query-jobs tells of a job that has not ended yet. */
static double job_progress(JsonObject *job)
{
    double total = weir_json_number(job, "total-progress", 0);

    return total > 0 ? weir_json_number(job, "current-progress", 0) / total
                     : 0;
}

/* Wait for the end of a job that dismisses not by itself. */
static bool replicas_finish_job(WeirReplicas *r, const char *id,
                                void (*progress)(double done), GError **error)
{
    for (;;) {
        g_autoptr(JsonNode) jobs = replicas_execute(r, "query-jobs", NULL,
                                                    error);
        JsonObject *job = find_object(weir_json_as_array(jobs), "id", id);
        const char *why;

        if (!jobs) {
            return false;
        }
        if (!job) {
            weir_set_error(error, "job '%s' has ended without a result", id);
            return false;
        }
        if (strcmp(weir_json_string(job, "status") ?: "", "concluded") == 0) {
            why = weir_json_string(job, "error");
            if (why) {
                weir_set_error(error, "%s", why);
            }
            return replicas_do(r, "job-dismiss", object_of("id", id, NULL),
                               why ? NULL : error) && !why;
        }
        if (progress) {
            progress(job_progress(job));
        }
        g_usleep(REPLICAS_POLL_US);
    }
}

bool weir_replicas_promote(WeirReplicas *r, const char *point,
                           void (*progress)(double done), GError **error)
{
    static const char id[] = "weir-failover";

    return replicas_do(r, "weir-journal-promote",
                       object_of("job-id", id, "node-name", r->node,
                                 "point", point, NULL), error) &&
           replicas_finish_job(r, id, progress, error);
}

/* --- replicas --- */

static bool replicas_check_name(const char *name, GError **error)
{
    gsize length = strlen(name);
    bool ok = length > 0 && length <= WEIR_REPLICA_NAME_MAX &&
              g_ascii_isalpha(name[0]);

    for (gsize i = 0; ok && i < length; i++) {
        ok = g_ascii_isalnum(name[i]) || strchr("-_.", name[i]);
    }
    if (!ok) {
        weir_set_error(error, "'%s' cannot be the name of an export: up to %d "
                       "letters, digits, '-', '_' and '.', a letter first",
                       name, WEIR_REPLICA_NAME_MAX);
    }
    return ok;
}

/* The image to which the log of a disk is applied. */
static const char *replicas_base(const WeirReplicas *r, const char *disk,
                                 GError **error)
{
    JsonObject *found = find_object(weir_json_array(r->info, "disks"),
                                    "disk-id", disk);
    const char *base = weir_json_string(found, "base");

    if (!found) {
        weir_set_error(error, "the replication log has no disk '%s'", disk);
    } else if (!base) {
        weir_set_error(error, "the daemon has no base image for disk '%s'",
                       disk);
    }
    return base;
}

static bool replicas_add_replica(WeirReplicas *r, const ReplicaNames *names,
                                 const char *disk, const char *point,
                                 GError **error)
{
    const char *base = replicas_base(r, disk, error);
    JsonObject *options;

    if (!base) {
        return false;
    }
    options = object_of("driver", "weir-replica", "node-name", names->replica,
                        "journal", r->node, "base", base, "disk-id", disk,
                        "point", point, NULL);
    json_object_set_boolean_member(options, "read-only", true);
    return replicas_do(r, "blockdev-add", options, error);
}

static bool replicas_create(WeirReplicas *r, const char *id,
                            JsonObject *options, GError **error)
{
    JsonObject *arguments = object_of("job-id", id, NULL);

    json_object_set_object_member(arguments, "options", options);
    return replicas_do(r, "blockdev-create", arguments, error) &&
           replicas_finish_job(r, id, NULL, error);
}

/* The length of a node in bytes, or -1. */
static gint64 replicas_node_bytes(WeirReplicas *r, const char *node,
                                  GError **error)
{
    g_autoptr(JsonNode) nodes = replicas_execute(
        r, "query-named-block-nodes", NULL, error);
    JsonObject *found = find_object(weir_json_as_array(nodes), "node-name",
                                    node);
    gint64 bytes = weir_json_int(weir_json_object(found, "image"),
                                 "virtual-size", -1);

    if (nodes && bytes < 0) {
        weir_set_error(error, "node '%s' has no length", node);
    }
    return bytes;
}

static bool replicas_add_overlay(WeirReplicas *r, const ReplicaNames *names,
                                 const char *path, GError **error)
{
    gint64 bytes = replicas_node_bytes(r, names->replica, error);
    JsonObject *file, *qcow2;

    if (bytes < 0) {
        return false;
    }
    if (g_file_test(path, G_FILE_TEST_EXISTS)) {
        weir_set_error(error, "%s exists already", path);
        return false;
    }
    file = object_of("driver", "file", "filename", path, NULL);
    json_object_set_int_member(file, "size", 0);
    if (!replicas_create(r, names->file, file, error) ||
        !replicas_do(r, "blockdev-add",
                     object_of("driver", "file", "node-name", names->file,
                               "filename", path, NULL), error)) {
        return false;
    }
    qcow2 = object_of("driver", "qcow2", "file", names->file, NULL);
    json_object_set_int_member(qcow2, "size", bytes);
    return replicas_create(r, names->overlay, qcow2, error) &&
           replicas_do(r, "blockdev-add",
                       object_of("driver", "qcow2", "node-name", names->overlay,
                                 "file", names->file, "backing", names->replica,
                                 NULL), error);
}

static bool replicas_export(WeirReplicas *r, const char *name,
                            const char *node, bool writable, GError **error)
{
    JsonObject *arguments = object_of("type", "nbd", "id", name, "name", name,
                                      "node-name", node, NULL);

    json_object_set_boolean_member(arguments, "writable", writable);
    return replicas_do(r, "block-export-add", arguments, error);
}

/* Those nodes that are there; the first error is told, all are tried. */
static bool replicas_remove_nodes(WeirReplicas *r, const ReplicaNames *names,
                                  GError **error)
{
    g_autoptr(JsonNode) nodes = replicas_execute(
        r, "query-named-block-nodes", NULL, error);
    const char *const order[] = { names->overlay, names->file,
                                  names->replica };
    bool ok = nodes != NULL;

    for (guint i = 0; nodes && i < G_N_ELEMENTS(order); i++) {
        if (find_object(weir_json_as_array(nodes), "node-name", order[i])) {
            ok = replicas_do(r, "blockdev-del",
                             object_of("node-name", order[i], NULL),
                             ok ? error : NULL) && ok;
        }
    }
    return ok;
}

/* What query-weir tells of a node; the caller unrefs it. */
static JsonObject *replicas_node_info(WeirReplicas *r, const char *node,
                                      GError **error)
{
    g_autoptr(JsonNode) filters = replicas_execute(
        r, "query-weir", object_of("node-name", node, NULL), error);
    JsonObject *info = weir_json_object_at(weir_json_as_array(filters), 0);

    return info ? json_object_ref(info) : NULL;
}

JsonObject *weir_replicas_open(WeirReplicas *r, const char *name,
                               const char *disk, const char *point,
                               const char *overlay, GError **error)
{
    g_auto(ReplicaNames) names = { 0 };
    JsonObject *info = NULL;

    if (!replicas_check_name(name, error)) {
        return NULL;
    }
    replica_names_init(&names, name);
    if (!replicas_add_replica(r, &names, disk, point, error)) {
        return NULL;
    }
    if ((!overlay || replicas_add_overlay(r, &names, overlay, error)) &&
        (info = replicas_node_info(r, names.replica, error)) &&
        replicas_export(r, name, overlay ? names.overlay : names.replica,
                        overlay != NULL, error)) {
        return info;
    }
    replicas_remove_nodes(r, &names, NULL);
    g_clear_pointer(&info, json_object_unref);
    return NULL;
}

/* An export is gone some time after it was told to go. */
static bool replicas_wait_for_export(WeirReplicas *r, const char *name,
                                     GError **error)
{
    for (;;) {
        g_autoptr(JsonNode) exports = replicas_execute(
            r, "query-block-exports", NULL, error);

        if (!exports) {
            return false;
        }
        if (!find_object(weir_json_as_array(exports), "id", name)) {
            return true;
        }
        g_usleep(REPLICAS_POLL_US);
    }
}

bool weir_replicas_close(WeirReplicas *r, const char *name,
                         GError **error)
{
    g_auto(ReplicaNames) names = { 0 };
    g_autoptr(JsonObject) info = NULL;

    if (!replicas_check_name(name, error)) {
        return false;
    }
    replica_names_init(&names, name);
    info = replicas_node_info(r, names.replica, NULL);
    if (!info) {
        weir_set_error(error, "no replica is open under the name '%s'", name);
        return false;
    }
    if (!replicas_do(r, "block-export-del",
                     object_of("id", name, "mode", "hard", NULL), error)) {
        return false;
    }
    return replicas_wait_for_export(r, name, error) &&
           replicas_remove_nodes(r, &names, error);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "failback.h"

#include <string.h>

#define FAILBACK_DRIVER "weir-replication"
#define FAILBACK_TIMEOUT_MS 30000
#define FAILBACK_POLL_US 50000
#define FAILBACK_END_US (60 * G_USEC_PER_SEC)

struct WeirFailback {
    WeirQmp *qmp;
};

/* All disks of the machine, at some moment. */
typedef struct Disks {
    JsonNode *filters;          /* what query-weir tells */
    JsonObject *first;          /* one of them; of @filters */
    guint count;
    bool complete;              /* the log has all of all */
    guint64 left_bytes, total_bytes;    /* to copy */
    guint64 sent_bytes;
} Disks;

static void disks_clear(Disks *disks)
{
    g_clear_pointer(&disks->filters, json_node_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Disks, disks_clear)

static JsonNode *failback_execute(WeirFailback *f, const char *command,
                                  JsonObject *arguments, GError **error)
{
    return weir_qmp_execute(f->qmp, command, arguments, FAILBACK_TIMEOUT_MS,
                            error);
}

static bool failback_do(WeirFailback *f, const char *command,
                        JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) node = failback_execute(f, command, arguments, error);

    return node != NULL;
}

WeirFailback *weir_failback_connect(const char *socket, GError **error)
{
    g_autoptr(WeirFailback) f = g_new0(WeirFailback, 1);

    f->qmp = weir_qmp_connect(socket, error);
    if (!f->qmp || !weir_qmp_negotiate(f->qmp, FAILBACK_TIMEOUT_MS, error)) {
        return NULL;
    }
    return g_steal_pointer(&f);
}

void weir_failback_free(WeirFailback *f)
{
    if (f) {
        weir_qmp_free(f->qmp);
        g_free(f);
    }
}

/* --- how far it is --- */

static bool add_disk(Disks *disks, JsonObject *disk, GError **error)
{
    const char *status = weir_json_string(disk, "status");

    if (g_strcmp0(status, "stopped") == 0) {
        weir_set_error(error, "disk %s: %s",
                       weir_json_string(disk, "disk-id") ?: "?",
                       weir_json_string(disk, "reason")
                       ?: "it must not go on with its replication log");
        return false;
    }
    disks->complete = (disks->count == 0 || disks->complete) &&
                      g_strcmp0(status, "streaming") == 0 &&
                      weir_json_int(disk, "queued-bytes", 1) == 0 &&
                      weir_json_int(disk, "resync-bytes", 1) == 0;
    disks->left_bytes += weir_json_int(disk, "resync-bytes", 0);
    disks->total_bytes += weir_json_int(disk, "resync-total", 0);
    disks->sent_bytes = MAX(disks->sent_bytes,
                            (guint64)weir_json_int(disk, "sent-bytes", 0));
    disks->first = disks->first ?: disk;
    disks->count++;
    return true;
}

static bool failback_look(WeirFailback *f, Disks *disks, GError **error)
{
    JsonArray *filters;

    disks_clear(disks);
    memset(disks, 0, sizeof(*disks));
    disks->filters = failback_execute(f, "query-weir", NULL, error);
    if (!disks->filters) {
        return false;
    }
    filters = weir_json_as_array(disks->filters);
    for (guint i = 0; i < weir_json_length(filters); i++) {
        JsonObject *filter = weir_json_object_at(filters, i);

        if (g_strcmp0(weir_json_string(filter, "driver"),
                      FAILBACK_DRIVER) == 0 &&
            !add_disk(disks, filter, error)) {
            return false;
        }
    }
    if (disks->count == 0) {
        weir_set_error(error, "the machine replicates no disk");
    }
    return disks->count > 0;
}

bool weir_failback_wait(WeirFailback *f, WeirFailbackResult *result,
                        void (*progress)(double done), GError **error)
{
    g_auto(Disks) disks = { 0 };

    for (;;) {
        if (!failback_look(f, &disks, error)) {
            return false;
        }
        if (progress && disks.total_bytes > 0) {
            progress(1 - (double)disks.left_bytes /
                         (double)disks.total_bytes);
        }
        if (disks.complete) {
            *result = (WeirFailbackResult) { disks.count, disks.sent_bytes };
            return true;
        }
        g_usleep(FAILBACK_POLL_US);
    }
}

/* --- the end --- */

static bool failback_mark(WeirFailback *f, const char *mark, GError **error)
{
    g_auto(Disks) disks = { 0 };
    JsonObject *arguments = NULL;

    if (!failback_look(f, &disks, error)) {
        return false;
    }
    arguments = json_object_new();
    json_object_set_string_member(arguments, "node-name",
                                  weir_json_string(disks.first, "node-name"));
    json_object_set_string_member(arguments, "mark", mark);
    return failback_do(f, "weir-replication-mark", arguments, error);
}

static bool has_mark(JsonNode *points, const char *mark)
{
    JsonArray *marks = weir_json_array(
        weir_json_object_at(weir_json_as_array(points), 0), "marks");

    for (guint i = 0; i < weir_json_length(marks); i++) {
        if (g_strcmp0(weir_json_string_at(marks, i), mark) == 0) {
            return true;
        }
    }
    return false;
}

static bool failback_wait_for_mark(WeirReplicas *keeper, const char *mark,
                                   GError **error)
{
    gint64 end = g_get_monotonic_time() + FAILBACK_END_US;

    while (g_get_monotonic_time() < end) {
        g_autoptr(JsonNode) points = weir_replicas_points(keeper, 1, true,
                                                          error);

        if (!points) {
            return false;
        }
        if (has_mark(points, mark)) {
            return true;
        }
        g_usleep(FAILBACK_POLL_US);
    }
    weir_set_error(error, "the keeper has not got all that the machine has "
                   "written: is it the keeper of this machine's log?");
    return false;
}

char *weir_failback_end(WeirFailback *f, WeirReplicas *keeper, GError **error)
{
    g_autofree char *mark = g_strdup_printf("failback %" G_GINT64_FORMAT,
                                            g_get_real_time());

    if (!failback_do(f, "stop", NULL, error)) {
        return NULL;
    }
    if (!failback_mark(f, mark, error) ||
        !failback_wait_for_mark(keeper, mark, error)) {
        failback_do(f, "cont", NULL, NULL);
        return NULL;
    }
    /* it may be gone before it has answered */
    failback_do(f, "quit", NULL, NULL);
    return g_strdup_printf("mark:%s", mark);
}

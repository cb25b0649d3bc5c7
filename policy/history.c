/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "history.h"

#include <unistd.h>

/*
 * { "pid": P, "start-time": T, "disks": {
 *     ID: { "state": S, "since": T,
 *           "filters": { KIND: { "state": S, "since": T }, ... },
 *           "latency": [ { "time": T, "histogram": [...] }, ... ] }, ... } }
 *
 * "latency" has up to two histograms, older one first.  What counts begins with
 * the newest that is old enough; when the newer one is, the older one goes, and
 * one of now is added.
 */
struct WeirHistory {
    char *path;
    char *record_path;      /* NULL: the record is elsewhere */
    pid_t pid;
    gint64 start_time;
    gint64 now;
    JsonObject *before;     /* disks; NULL: there is no such file */
    JsonObject *disks;
};

static JsonObject *history_read(const WeirHistory *history)
{
    g_autofree char *text = NULL;
    g_autoptr(JsonNode) node = NULL;
    JsonObject *object;
    JsonObject *disks;
    gsize length;

    if (!g_file_get_contents(history->path, &text, &length, NULL) ||
        !(node = weir_json_parse(text, length, NULL))) {
        return NULL;
    }
    object = weir_json_as_object(node);
    disks = weir_json_object(object, "disks");
    if (!disks || weir_json_int(object, "pid", 0) != history->pid ||
        weir_json_int(object, "start-time", 0) != history->start_time) {
        return NULL;
    }
    return json_object_ref(disks);
}

WeirHistory *weir_history_load(const char *dir, const WeirRecord *record,
                               gint64 now)
{
    WeirHistory *history = g_new0(WeirHistory, 1);

    history->path = weir_record_path(
        dir, record->name, record->is_storage ? "storage-status" : "status");
    history->record_path = weir_record_path(
        dir, record->name, record->is_storage ? "storage" : "json");
    history->pid = record->pid;
    history->start_time = record->start_time;
    history->now = now;
    history->before = history_read(history);
    history->disks = json_object_new();
    return history;
}

void weir_history_apart(WeirHistory *history)
{
    g_clear_pointer(&history->record_path, g_free);
}

void weir_history_free(WeirHistory *history)
{
    if (history) {
        g_free(history->path);
        g_free(history->record_path);
        g_clear_pointer(&history->before, json_object_unref);
        json_object_unref(history->disks);
        g_free(history);
    }
}

/* --- latencies --- */

JsonArray *weir_history_latency(const WeirHistory *history, const char *disk)
{
    JsonObject *entry = history ? weir_json_object(history->before, disk)
                                : NULL;
    JsonArray *latencies = weir_json_array(entry, "latency");
    JsonObject *found = NULL;

    for (guint i = 0; i < weir_json_length(latencies); i++) {
        JsonObject *latency = weir_json_object_at(latencies, i);

        if (!found || history->now - weir_json_int(latency, "time", 0) >=
                      WEIR_HISTORY_LATENCY_S) {
            found = latency;
        }
    }
    return weir_json_array(found, "histogram");
}

static void history_add_latency(JsonArray *latencies, gint64 time,
                                JsonArray *histogram)
{
    JsonObject *object = json_object_new();

    json_object_set_int_member(object, "time", time);
    json_object_set_array_member(object, "histogram",
                                 json_array_ref(histogram));
    json_array_add_object_element(latencies, object);
}

/* What the histograms are after this look. */
static JsonArray *history_latencies(const WeirHistory *history,
                                    JsonObject *before, JsonArray *histogram)
{
    JsonArray *old = weir_json_array(before, "latency");
    guint length = weir_json_length(old);
    JsonObject *newest = length ? weir_json_object_at(old, length - 1) : NULL;
    gint64 age = history->now - weir_json_int(newest, "time", 0);
    JsonArray *latencies;

    if (newest && age >= 0 && age < WEIR_HISTORY_LATENCY_S) {
        return json_array_ref(old);
    }
    latencies = json_array_new();
    if (weir_json_array(newest, "histogram") && age >= 0) {
        history_add_latency(latencies, weir_json_int(newest, "time", 0),
                            weir_json_array(newest, "histogram"));
    }
    history_add_latency(latencies, history->now, histogram);
    return latencies;
}

/* --- states --- */

/* Since when @state is there, if the look before found @before. */
static gint64 history_since(const WeirHistory *history, JsonObject *before,
                            WeirCompliance state, gint64 told)
{
    const char *old = weir_json_string(before, "state");
    gint64 since = weir_json_int(before, "since", 0);

    if (since <= 0 || since > history->now) {
        old = NULL;         /* by a clock that was wrong */
        since = 0;
    }
    if (g_strcmp0(old, weir_compliance_name(state)) == 0) {
        return since;
    }
    /* What the filter says, unless it was seen otherwise later. */
    return told > since && told <= history->now ? told : history->now;
}

static JsonObject *history_state(WeirCompliance state, gint64 since)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "state",
                                  weir_compliance_name(state));
    json_object_set_int_member(object, "since", since);
    return object;
}

/* A second filter of one kind has its node's name. */
static const char *history_key(JsonObject *filters,
                               const WeirFilterStatus *filter)
{
    return json_object_has_member(filters, filter->kind) &&
           filter->node_name ? filter->node_name : filter->kind;
}

static JsonObject *history_filters(const WeirHistory *history,
                                   JsonObject *before,
                                   const WeirDiskStatus *status)
{
    JsonObject *filters = json_object_new();

    for (guint i = 0; i < status->filters->len; i++) {
        WeirFilterStatus *filter = g_ptr_array_index(status->filters, i);
        const char *key = history_key(filters, filter);

        filter->since = history_since(history, weir_json_object(before, key),
                                      filter->state, filter->since);
        json_object_set_object_member(filters, key,
                                      history_state(filter->state,
                                                    filter->since));
    }
    return filters;
}

/* A VM that cannot be asked leaves what is known of its filters. */
static void history_keep(JsonObject *before, const char *name,
                         JsonObject *after)
{
    if (before && json_object_has_member(before, name)) {
        json_object_set_member(after, name, json_node_ref(
            json_object_get_member(before, name)));
    }
}

void weir_history_note(WeirHistory *history, WeirDiskStatus *status)
{
    JsonObject *before = weir_json_object(history->before, status->disk);
    JsonObject *after;

    status->since = history_since(history, before, status->state,
                                  status->since);
    after = history_state(status->state, status->since);
    if (status->filters->len > 0) {
        json_object_set_object_member(
            after, "filters",
            history_filters(history, weir_json_object(before, "filters"),
                            status));
    } else {
        history_keep(before, "filters", after);
    }
    if (status->limits.latency_ns > 0 && status->latency) {
        json_object_set_array_member(after, "latency",
                                     history_latencies(history, before,
                                                       status->latency));
    } else {
        history_keep(before, "latency", after);
    }
    json_object_set_object_member(history->disks, status->disk, after);
}

void weir_history_save(const WeirHistory *history)
{
    g_autofree char *old = history->before
        ? weir_json_object_text(history->before, false) : NULL;
    g_autofree char *new = weir_json_object_text(history->disks, false);
    g_autoptr(JsonObject) object = NULL;
    g_autofree char *text = NULL;

    if (g_strcmp0(old, new) == 0) {
        return;
    }
    object = json_object_new();
    json_object_set_int_member(object, "pid", history->pid);
    json_object_set_int_member(object, "start-time", history->start_time);
    json_object_set_object_member(object, "disks",
                                  json_object_ref(history->disks));
    text = weir_json_object_text(object, false);
    if (g_file_set_contents_full(history->path, text, -1,
                                 G_FILE_SET_CONTENTS_CONSISTENT, 0644,
                                 NULL) &&
        history->record_path && access(history->record_path, F_OK) != 0) {
        unlink(history->path);  /* the VM has ended meanwhile */
    }
}

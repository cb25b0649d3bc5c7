/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "gaps.h"

#include <errno.h>

#define GAPS_NOTE_MS (24 * 3600 * (gint64)1000)
#define GAPS_DIR_MODE 0755
#define GAPS_FILE_MODE 0644

struct WeirGaps {
    char *dir;
    char *path;
    JsonObject *object;     /* all of the file */
    JsonObject *disks;      /* of @object */
    bool changed;
};

static JsonObject *gaps_read(const char *path)
{
    g_autofree char *text = NULL;
    g_autoptr(JsonNode) node = NULL;
    JsonObject *object;
    gsize length;

    if (!g_file_get_contents(path, &text, &length, NULL) ||
        !(node = weir_json_parse(text, length, NULL))) {
        return NULL;
    }
    object = weir_json_as_object(node);
    return object && weir_json_object(object, "disks")
           ? json_object_ref(object) : NULL;
}

WeirGaps *weir_gaps_load(const char *dir, const char *uuid, const char *name)
{
    WeirGaps *gaps = g_new0(WeirGaps, 1);
    g_autofree char *file = g_strconcat(uuid, ".json", NULL);

    gaps->dir = g_strdup(dir);
    gaps->path = g_build_filename(dir, file, NULL);
    gaps->object = gaps_read(gaps->path);
    if (!gaps->object) {
        gaps->object = json_object_new();
        json_object_set_object_member(gaps->object, "disks",
                                      json_object_new());
    }
    json_object_set_string_member(gaps->object, "name", name);
    gaps->disks = weir_json_object(gaps->object, "disks");
    return gaps;
}

void weir_gaps_free(WeirGaps *gaps)
{
    if (gaps) {
        g_free(gaps->dir);
        g_free(gaps->path);
        json_object_unref(gaps->object);
        g_free(gaps);
    }
}

JsonArray *weir_gaps_disk(const WeirGaps *gaps, const char *disk)
{
    return weir_json_array(gaps->disks, disk);
}

JsonObject *weir_gaps_open(const WeirGaps *gaps, const char *disk)
{
    JsonArray *array = weir_gaps_disk(gaps, disk);
    guint length = weir_json_length(array);
    JsonObject *last = length > 0 ? weir_json_object_at(array, length - 1)
                                  : NULL;

    return last && !json_object_has_member(last, "to-ms") ? last : NULL;
}

GPtrArray *weir_gaps_open_disks(const WeirGaps *gaps)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    JsonObjectIter iter;
    const char *name;

    json_object_iter_init_ordered(&iter, gaps->disks);
    while (json_object_iter_next_ordered(&iter, &name, NULL)) {
        if (weir_gaps_open(gaps, name)) {
            g_ptr_array_add(names, g_strdup(name));
        }
    }
    return names;
}

bool weir_gaps_begin(WeirGaps *gaps, const char *disk,
                     const WeirGapBegin *begin)
{
    JsonArray *array = weir_gaps_disk(gaps, disk);
    JsonObject *gap;

    if (weir_gaps_open(gaps, disk)) {
        return false;
    }
    if (!array) {
        array = json_array_new();
        json_object_set_array_member(gaps->disks, disk, array);
    }
    while (json_array_get_length(array) >= WEIR_GAPS_MAX) {
        json_array_remove_element(array, 0);
    }
    gap = json_object_new();
    json_object_set_string_member(gap, "policy", begin->policy);
    json_object_set_int_member(gap, "from-ms", begin->from_ms);
    json_object_set_boolean_member(gap, "from-known", begin->is_known);
    json_object_set_string_member(gap, "reason", begin->reason);
    json_array_add_object_element(array, gap);
    gaps->changed = true;
    return true;
}

bool weir_gaps_refuse(WeirGaps *gaps, const char *disk, const char *refusal)
{
    JsonObject *gap = weir_gaps_open(gaps, disk);

    if (!gap || g_strcmp0(weir_json_string(gap, "refusal"), refusal) == 0) {
        return false;
    }
    json_object_set_string_member(gap, "refusal", refusal);
    gaps->changed = true;
    return true;
}

JsonObject *weir_gaps_end(WeirGaps *gaps, const char *disk, gint64 to_ms,
                          const char *end)
{
    JsonObject *gap = weir_gaps_open(gaps, disk);

    if (gap) {
        /* the clock may have been set */
        json_object_set_int_member(
            gap, "to-ms", MAX(to_ms, weir_json_int(gap, "from-ms", 0)));
        json_object_set_string_member(gap, "end", end);
        gaps->changed = true;
    }
    return gap;
}

bool weir_gaps_save(WeirGaps *gaps, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) local = NULL;

    if (!gaps->changed) {
        return true;
    }
    text = weir_json_object_text(gaps->object, true);
    if (g_mkdir_with_parents(gaps->dir, GAPS_DIR_MODE) < 0) {
        weir_set_error(error, "cannot make %s: %s", gaps->dir,
                       g_strerror(errno));
        return false;
    }
    if (!g_file_set_contents_full(gaps->path, text, -1,
                                  G_FILE_SET_CONTENTS_CONSISTENT |
                                  G_FILE_SET_CONTENTS_DURABLE,
                                  GAPS_FILE_MODE, &local)) {
        weir_set_error(error, "%s", local->message);
        return false;
    }
    gaps->changed = false;
    return true;
}

/* "2026-11-26T23:08:02.061Z" */
static char *gap_time(gint64 time_ms)
{
    g_autoptr(GDateTime) seconds = g_date_time_new_from_unix_utc(
        time_ms / 1000);
    g_autofree char *text = seconds ? g_date_time_format(seconds, "%FT%T")
                                    : g_strdup("?");

    return g_strdup_printf("%s.%03dZ", text, (int)(time_ms % 1000));
}

char *weir_gap_text(JsonObject *gap)
{
    gint64 from_ms = weir_json_int(gap, "from-ms", 0);
    gint64 to_ms = weir_json_int(gap, "to-ms", -1);
    bool known = weir_json_bool(gap, "from-known", false);
    const char *reason = weir_json_string(gap, "reason");
    g_autofree char *from = gap_time(from_ms);
    g_autofree char *to = to_ms >= 0 ? gap_time(to_ms) : NULL;
    GString *text = g_string_new(NULL);

    g_string_printf(text, "gap from %s%s", known ? "" : "some time after ",
                    from);
    if (to) {
        g_string_append_printf(text, " to %s (%s%.3f s)", to,
                               known ? "" : "at most ",
                               (double)(to_ms - from_ms) / 1000);
    }
    g_string_append_printf(text, ": %s", reason ? reason : "?");
    return g_string_free(text, FALSE);
}

char *weir_gaps_note(JsonArray *gaps)
{
    guint length = weir_json_length(gaps);
    JsonObject *last = length > 0 ? weir_json_object_at(gaps, length - 1)
                                  : NULL;
    gint64 to_ms = weir_json_int(last, "to-ms", G_MAXINT64);

    return last && to_ms >= g_get_real_time() / 1000 - GAPS_NOTE_MS
           ? weir_gap_text(last) : NULL;
}

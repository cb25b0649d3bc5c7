/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stamp.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* That of a file that is not there. */
#define STAMP_NONE "-"

/* The change time cannot be set back, as that of modification can. */
static char *stamp_text(const struct stat *st)
{
    return g_strdup_printf("%ju:%ju %jd %jd.%09ld %jd.%09ld",
                           (uintmax_t)st->st_dev, (uintmax_t)st->st_ino,
                           (intmax_t)st->st_size,
                           (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
                           (intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

void weir_stamp_add(JsonObject *stamps, const char *path)
{
    g_autofree char *text = NULL;
    struct stat st;

    if (!json_object_has_member(stamps, path)) {
        text = stat(path, &st) == 0 ? stamp_text(&st) : NULL;
        json_object_set_string_member(stamps, path, text ? text : STAMP_NONE);
    }
}

/* The file of a line of /proc/PID/maps that is code, or NULL. */
static const char *stamp_mapped(const char *line)
{
    const char *permissions = strchr(line, ' ');

    return permissions && strlen(permissions) > 4 && permissions[3] == 'x'
           ? strchr(line, '/') : NULL;
}

void weir_stamp_process(JsonObject *stamps, pid_t pid)
{
    g_autofree char *maps = g_strdup_printf("/proc/%d/maps", (int)pid);
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(maps, &text, NULL, NULL)) {
        return;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        const char *path = stamp_mapped(*line);

        if (path) {
            weir_stamp_add(stamps, path);
        }
    }
}

bool weir_stamp_dir(JsonObject *stamps, const char *path, const char *pattern)
{
    g_autoptr(GDir) stream = g_dir_open(path, 0, NULL);
    const char *name;
    bool all = true;

    weir_stamp_add(stamps, path);
    while (stream && (name = g_dir_read_name(stream))) {
        if (g_pattern_match_simple(pattern, name)) {
            g_autofree char *file = g_build_filename(path, name, NULL);
            char *real = realpath(file, NULL);

            all = real && json_object_has_member(stamps, real) && all;
            free(real);
        }
    }
    return all;
}

static bool stamp_holds(const char *path, const char *stamp, gint64 before_s)
{
    g_autofree char *text = NULL;
    struct stat st;

    if (stat(path, &st) < 0) {
        return strcmp(stamp, STAMP_NONE) == 0;
    }
    text = stamp_text(&st);
    return strcmp(stamp, text) == 0 &&
           (!before_s ||
            (st.st_mtim.tv_sec < before_s && st.st_ctim.tv_sec < before_s));
}

bool weir_stamps_hold(JsonObject *stamps, gint64 before_s)
{
    JsonObjectIter iter;
    const char *path;
    JsonNode *node;

    json_object_iter_init(&iter, stamps);
    while (json_object_iter_next(&iter, &path, &node)) {
        const char *stamp = weir_json_as_string(node);

        if (!stamp || !stamp_holds(path, stamp, before_s)) {
            return false;
        }
    }
    return true;
}

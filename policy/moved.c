/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "moved.h"

#include <string.h>

#include "binding.h"
#include "cachefile.h"
#include "change.h"

/* The file of a recorded filter, to be freed; NULL: it has none. */
static char *moved_file(const WeirWanted *wanted, const WeirSchema *schema,
                        WeirClass *class)
{
    const WeirFilterType *type = weir_schema_find(schema, wanted->driver);

    *class = type ? type->class : WEIR_CLASS_INSPECTION;
    return type ? weir_change_memory(type->class, wanted->settings) : NULL;
}

WeirMoved *weir_moved_new(const char *from, const WeirRecordDisk *disk,
                          const WeirSchema *schema)
{
    WeirMoved *moved;

    if (!from || strcmp(from, disk->file) == 0) {
        return NULL;
    }
    moved = g_new0(WeirMoved, 1);
    moved->from = g_strdup(from);
    moved->files = g_ptr_array_new_with_free_func(g_free);
    moved->asides = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < disk->wanted->len; i++) {
        WeirClass class;
        char *file = moved_file(g_ptr_array_index(disk->wanted, i), schema,
                                &class);

        if (file) {
            g_ptr_array_add(moved->files, file);
            g_ptr_array_add(moved->asides, NULL);
        }
    }
    return moved;
}

void weir_moved_free(WeirMoved *moved)
{
    if (moved) {
        g_free(moved->from);
        g_ptr_array_unref(moved->files);
        g_ptr_array_unref(moved->asides);
        g_free(moved);
    }
}

bool weir_moved_set_aside(WeirMoved *moved, const WeirRecordDisk *disk,
                          const WeirGraph *graph, const WeirSchema *schema,
                          GError **error)
{
    guint n = 0;

    for (guint i = 0; moved && i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        WeirClass class;
        g_autofree char *file = moved_file(wanted, schema, &class);
        char *to = NULL;

        if (!file) {
            continue;
        }
        if (class == WEIR_CLASS_CACHE &&
            !weir_graph_node(graph, wanted->node_name) &&
            !weir_cache_file_set_aside(file, moved->from, &to, error)) {
            return false;
        }
        moved->asides->pdata[n++] = to;
    }
    return true;
}

void weir_moved_end(const WeirMoved *moved)
{
    for (guint i = 0; moved && i < moved->files->len; i++) {
        weir_binding_move(moved->from, g_ptr_array_index(moved->files, i),
                          g_ptr_array_index(moved->asides, i));
    }
}

GPtrArray *weir_moved_notes(const WeirMoved *moved)
{
    GPtrArray *notes = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; moved && i < moved->files->len; i++) {
        const char *aside = g_ptr_array_index(moved->asides, i);

        if (aside) {
            g_ptr_array_add(notes, g_strdup_printf(
                "what its cache has of %s is in %s", moved->from, aside));
        }
    }
    return notes;
}

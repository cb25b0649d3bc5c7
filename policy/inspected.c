/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "inspected.h"

#include <string.h>

#include "compliance.h"

#define CACHE_DRIVER "weir-cache"

static void inspected_free(WeirInspected *inspected)
{
    g_free(inspected->disk);
    g_free(inspected);
}

/* Add the nodes that requests to @root pass. */
static void inspected_find_in(const WeirTarget *target, const char *disk,
                              WeirGraphNode *root, GPtrArray *found)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);
    guint first = found->len;
    JsonObject *cache = NULL;

    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);
        WeirInspected *inspected;

        if (!node->filter) {
            continue;
        }
        if (g_strcmp0(node->driver, CACHE_DRIVER) == 0) {
            cache = node->filter;
        }
        if (g_strcmp0(node->driver, WEIR_INSPECT_DRIVER) != 0) {
            continue;
        }
        inspected = g_new0(WeirInspected, 1);
        inspected->vm = target->name;
        inspected->disk = g_strdup(disk);
        inspected->info = node->filter;
        inspected->below_cache = cache != NULL;
        g_ptr_array_add(found, inspected);
    }
    for (guint i = first; i < found->len; i++) {
        ((WeirInspected *)g_ptr_array_index(found, i))->cache = cache;
    }
}

static void inspected_find_recorded(const WeirTarget *target, const char *disk,
                                    GPtrArray *found)
{
    for (guint i = 0; i < target->record->disks->len; i++) {
        const WeirRecordDisk *entry = g_ptr_array_index(
            target->record->disks, i);

        if (!disk || strcmp(entry->id, disk) == 0) {
            inspected_find_in(target, entry->id,
                              weir_record_disk_root(entry, target->graph),
                              found);
        }
    }
}

static void inspected_find_any(const WeirTarget *target, const char *disk,
                               GPtrArray *found)
{
    GPtrArray *nodes = weir_graph_nodes(target->graph);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);
        g_autofree char *name = weir_graph_device_name(node);

        if (node->kind == WEIR_GRAPH_BACKEND &&
            (!disk || strcmp(name, disk) == 0)) {
            inspected_find_in(target, *name ? name : "-",
                              weir_graph_root(node), found);
        }
    }
}

GPtrArray *weir_inspected_find(const GPtrArray *targets, const char *disk,
                               GError **error)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new_with_free_func(
        (GDestroyNotify)inspected_free);

    for (guint i = 0; i < targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(targets, i);

        if (disk && target->record &&
            !weir_record_disk(target->record, disk, NULL)) {
            continue;
        }
        if (!target->graph) {
            weir_set_error(error, "VM '%s' cannot be asked: %s", target->name,
                           target->reason);
            return NULL;
        }
        if (target->record) {
            inspected_find_recorded(target, disk, found);
        } else {
            inspected_find_any(target, disk, found);
        }
    }
    if (found->len == 0) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND, "no %s in %s%s%s",
                    WEIR_INSPECT_DRIVER, disk ? "disk '" : "any disk",
                    disk ? disk : "", disk ? "'" : "");
        return NULL;
    }
    return g_steal_pointer(&found);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the storage daemon of a VM is started. */
#include <string.h>

#include "supervise.h"

/* The emulator takes as many as the guest has processors. */
#define ARGS_QUEUES_MAX 256

static void args_add(GPtrArray *args, const char *option, char *value)
{
    g_ptr_array_add(args, g_strdup(option));
    g_ptr_array_add(args, value);
}

/*
 * Open a node, unless one of its name is open already; @names is a set of them.
 * Nodes in its options are opened with it, or referred to.
 */
static void args_add_node(GPtrArray *args, GHashTable *names,
                          JsonObject *options)
{
    g_autoptr(JsonObject) copy = weir_json_copy(options);
    g_autoptr(GList) members = json_object_get_members(copy);
    const char *name = weir_json_string(copy, "node-name");

    if (name && !g_hash_table_add(names, g_strdup(name))) {
        return;
    }
    for (GList *l = members; l; l = l->next) {
        const char *inner = weir_json_string(weir_json_object(copy, l->data),
                                             "node-name");
        g_autofree char *known = g_strdup(inner);

        if (known && !g_hash_table_add(names, g_strdup(known))) {
            json_object_set_string_member(copy, l->data, known);
        }
    }
    args_add(args, "--blockdev", weir_json_object_text(copy, false));
}

static void args_add_chain(GPtrArray *args, GHashTable *names,
                           const WeirRecordDisk *disk)
{
    for (guint i = disk->wanted->len; i-- > 0;) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        for (guint j = 0; j < weir_json_length(wanted->nodes); j++) {
            args_add_node(args, names, weir_json_object_at(wanted->nodes, j));
        }
        args_add_node(args, names, wanted->options);
    }
}

/* What serves the highest node of a disk. */
static char *args_export(const WeirRecordDisk *disk, const char *socket)
{
    const WeirWanted *top = g_ptr_array_index(disk->wanted, 0);
    g_autoptr(JsonObject) export = json_object_new();
    JsonObject *address = json_object_new();

    json_object_set_string_member(address, "type", "unix");
    json_object_set_string_member(address, "path", socket);
    json_object_set_string_member(export, "type", "vhost-user-blk");
    json_object_set_string_member(export, "id", disk->id);
    json_object_set_string_member(export, "node-name", top->node_name);
    json_object_set_boolean_member(
        export, "writable",
        !weir_json_bool(top->options, "read-only", false));
    json_object_set_boolean_member(export, "writethrough",
                                   disk->writethrough);
    json_object_set_int_member(export, "num-queues", ARGS_QUEUES_MAX);
    if (disk->iothread) {
        json_object_set_string_member(export, "iothread", disk->iothread);
    }
    json_object_set_object_member(export, "addr", address);
    return weir_json_object_text(export, false);
}

static void args_add_iothreads(GPtrArray *args, const WeirRecord *record)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        if (disk->iothread && g_hash_table_add(seen, disk->iothread)) {
            args_add(args, "--object",
                     g_strdup_printf("iothread,id=%s", disk->iothread));
        }
    }
}

GPtrArray *weir_supervise_args(const char *program, const WeirRecord *record,
                               int qmp_fd, const GArray *secret_fds)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GHashTable) names = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, NULL);

    g_ptr_array_add(args, g_strdup(program));
    args_add(args, "--chardev",
             g_strdup_printf("socket,id=weir-qmp,fd=%d,server=on,wait=off",
                             qmp_fd));
    args_add(args, "--monitor", g_strdup("chardev=weir-qmp"));
    args_add_iothreads(args, record);
    for (guint i = 0; i < record->secrets->len; i++) {
        const WeirSecret *secret = g_ptr_array_index(record->secrets, i);

        args_add(args, "--object",
                 g_strdup_printf("secret,id=%s,file=/dev/fd/%d", secret->id,
                                 g_array_index(secret_fds, int, i)));
    }
    for (guint i = 0; i < record->disks->len; i++) {
        args_add_chain(args, names, g_ptr_array_index(record->disks, i));
    }
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        g_autofree char *socket = g_build_filename(record->sockets, disk->id,
                                                   NULL);

        args_add(args, "--export", args_export(disk, socket));
    }
    g_ptr_array_add(args, NULL);
    return g_steal_pointer(&args);
}

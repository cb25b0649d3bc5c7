/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "emulator.h"

#include <string.h>

#include "carried.h"

#define EMULATOR_MAX_DEPTH 16

/* A block node of the command line. */
typedef struct Node {
    guint index;            /* of its description in the arguments */
    JsonObject *options;
} Node;

typedef struct Line {
    GPtrArray *args;        /* the new command line */
    GHashTable *nodes;      /* node-name -> Node */
    GHashTable *drives;     /* id of a device -> name of its node */
} Line;

static void node_free(gpointer opaque)
{
    Node *node = opaque;

    json_object_unref(node->options);
    g_free(node);
}

static void line_clear(Line *line)
{
    g_clear_pointer(&line->args, g_ptr_array_unref);
    g_clear_pointer(&line->nodes, g_hash_table_unref);
    g_clear_pointer(&line->drives, g_hash_table_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Line, line_clear)

/* --- which domain --- */

/* The argument of the first option of that name, or NULL. */
static const char *args_value(char *const *args, const char *option)
{
    for (; args[0] && args[1]; args++) {
        if (strcmp(args[0], option) == 0) {
            return args[1];
        }
    }
    return NULL;
}

/* Value of "key=" in "a=b,key=value"; a comma in a value is written twice. */
static char *list_value(const char *list, const char *key)
{
    g_autofree char *prefix = g_strconcat(key, "=", NULL);

    while (list && *list) {
        GString *part = g_string_new(NULL);

        for (; *list && (*list != ',' || list[1] == ','); list++) {
            g_string_append_c(part, *list);
            list += *list == ',';
        }
        list += *list == ',';
        if (g_str_has_prefix(part->str, prefix)) {
            g_string_erase(part, 0, (gssize)strlen(prefix));
            return g_string_free(part, FALSE);
        }
        g_string_free(part, TRUE);
    }
    return NULL;
}

bool weir_emulator_domain(char *const *args, char **name, char **uuid)
{
    *name = list_value(args_value(args, "-name"), "guest");
    *uuid = g_strdup(args_value(args, "-uuid"));
    return *name && *uuid;
}

/* --- reading --- */

static JsonObject *line_json(const char *text)
{
    g_autoptr(JsonNode) node = *text == '{' ? weir_json_parse(
                                   text, strlen(text), NULL) : NULL;
    JsonObject *object = weir_json_as_object(node);

    return object ? json_object_ref(object) : NULL;
}

static void line_read_node(Line *line, guint index)
{
    const char *text = g_ptr_array_index(line->args, index);
    JsonObject *options = line_json(text);
    const char *name = weir_json_string(options, "node-name");
    Node *node;

    if (!name) {
        g_clear_pointer(&options, json_object_unref);
        return;
    }
    node = g_new0(Node, 1);
    node->index = index;
    node->options = options;
    g_hash_table_insert(line->nodes, g_strdup(name), node);
}

static void line_read_device(Line *line, const char *text)
{
    g_autoptr(JsonObject) options = line_json(text);
    g_autofree char *id = options ? g_strdup(weir_json_string(options, "id"))
                                  : list_value(text, "id");
    char *drive = options ? g_strdup(weir_json_string(options, "drive"))
                          : list_value(text, "drive");

    if (id && drive) {
        g_hash_table_insert(line->drives, g_steal_pointer(&id), drive);
    } else {
        g_free(drive);
    }
}

static void line_read(Line *line, char *const *args)
{
    line->args = g_ptr_array_new_with_free_func(g_free);
    line->nodes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                        node_free);
    line->drives = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                         g_free);
    for (guint i = 0; args[i]; i++) {
        g_ptr_array_add(line->args, g_strdup(args[i]));
        if (i > 0 && strcmp(args[i - 1], "-blockdev") == 0) {
            line_read_node(line, i);
        } else if (i > 0 && strcmp(args[i - 1], "-device") == 0) {
            line_read_device(line, args[i]);
        }
    }
}

/* --- writing --- */

/* The node that has the disk's data: it is over no other. */
static Node *line_storage(const Line *line, const WeirRecordDisk *disk,
                          GError **error)
{
    const char *name = g_hash_table_lookup(line->drives, disk->device);

    if (!name) {
        weir_set_error(error, "disk %s: QEMU is given no device '%s' with a "
                       "block node", disk->id, disk->device);
        return NULL;
    }
    for (int depth = 0; depth < EMULATOR_MAX_DEPTH; depth++) {
        Node *node = g_hash_table_lookup(line->nodes, name);

        if (!node) {
            weir_set_error(error, "disk %s: QEMU is given no block node '%s'",
                           disk->id, name);
            return NULL;
        }
        if (!json_object_has_member(node->options, "file")) {
            return node;
        }
        name = weir_json_string(node->options, "file");
        if (!name) {
            break;
        }
    }
    weir_set_error(error, "disk %s: its block nodes are not in a form that "
                   "is known", disk->id);
    return NULL;
}

/* The option of @filter that names the node below it, @below. */
static const char *filter_child(const WeirWanted *filter, const char *below)
{
    g_autoptr(GList) names = json_object_get_members(filter->options);

    for (GList *l = names; l; l = l->next) {
        if (g_strcmp0(weir_json_string(filter->options, l->data),
                      below) == 0) {
            return l->data;
        }
    }
    return NULL;
}

/*
 * The chain over the storage node as one nested object, which the caller
 * unrefs.  The record has the chain from the highest node downwards.
 */
static JsonObject *disk_chain(const WeirRecordDisk *disk, const Node *storage,
                              GError **error)
{
    const WeirWanted *below = g_ptr_array_index(disk->wanted,
                                                disk->wanted->len - 1);
    g_autoptr(JsonObject) chain = weir_json_copy(storage->options);

    json_object_set_string_member(chain, "node-name", below->node_name);
    for (guint i = disk->wanted->len - 1; i-- > 0;) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);
        const char *child = filter_child(wanted, below->node_name);
        JsonObject *filter;

        if (strcmp(wanted->role, "filter") != 0) {
            break;
        }
        if (!child) {
            weir_set_error(error, "disk %s: the record has no node below %s",
                           disk->id, wanted->node_name);
            return NULL;
        }
        filter = weir_json_copy(wanted->options);
        json_object_set_object_member(filter, child, g_steal_pointer(&chain));
        chain = filter;
        below = wanted;
    }
    json_object_set_string_member(chain, "node-name",
                                  weir_json_string(storage->options,
                                                   "node-name"));
    return g_steal_pointer(&chain);
}

static bool line_put_disk(Line *line, const WeirRecordDisk *disk,
                          GError **error)
{
    Node *storage = disk->device ? line_storage(line, disk, error) : NULL;
    g_autoptr(JsonObject) chain = storage ? disk_chain(disk, storage, error)
                                          : NULL;

    if (!chain) {
        return false;
    }
    g_free(line->args->pdata[storage->index]);
    line->args->pdata[storage->index] = weir_json_object_text(chain, false);
    return true;
}

/* What becomes of requests that fail is an option of the device. */
static bool line_put_on_error(Line *line, const WeirRecordDisk *disk,
                              GError **error)
{
    const char *name = weir_on_error_name(disk->on_error);

    for (guint i = 1; name && i < line->args->len; i++) {
        g_autoptr(JsonObject) device = NULL;

        if (strcmp(g_ptr_array_index(line->args, i - 1), "-device") != 0 ||
            !(device = line_json(g_ptr_array_index(line->args, i))) ||
            g_strcmp0(weir_json_string(device, "id"), disk->device) != 0) {
            continue;
        }
        json_object_set_string_member(device, "werror", name);
        json_object_set_string_member(device, "rerror",
                                      disk->on_error == WEIR_ON_ERROR_ENOSPC
                                      ? "report" : name);
        g_free(line->args->pdata[i]);
        line->args->pdata[i] = weir_json_object_text(device, false);
        return true;
    }
    if (name) {
        weir_set_error(error, "disk %s: its device is not in a form that "
                       "on-error can be set in", disk->id);
    }
    return !name;
}

/* Secrets are there before the nodes that use them, as QEMU has it anyway. */
static void line_put_secret(Line *line, const char *dir, const char *id)
{
    g_autoptr(JsonObject) object = json_object_new();
    g_autofree char *path = g_build_filename(dir, id, NULL);

    json_object_set_string_member(object, "qom-type", "secret");
    json_object_set_string_member(object, "id", id);
    json_object_set_string_member(object, "file", path);
    g_ptr_array_add(line->args, g_strdup("-object"));
    g_ptr_array_add(line->args, weir_json_object_text(object, false));
}

/* One that is too long is known on this machine only. */
static void line_put_record(Line *line, const WeirRecord *record)
{
    char *object = weir_carried_object(record);

    if (object) {
        g_ptr_array_add(line->args, g_strdup("-object"));
        g_ptr_array_add(line->args, object);
    }
}

GPtrArray *weir_emulator_rewrite(char *const *args, const WeirRecord *record,
                                 const char *secrets_dir,
                                 const GPtrArray *secrets, GError **error)
{
    g_auto(Line) line = { 0 };

    line_read(&line, args);
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        if (!line_put_disk(&line, disk, error) ||
            !line_put_on_error(&line, disk, error)) {
            return NULL;
        }
    }
    for (guint i = 0; i < secrets->len; i++) {
        line_put_secret(&line, secrets_dir, g_ptr_array_index(secrets, i));
    }
    line_put_record(&line, record);
    g_ptr_array_add(line.args, NULL);
    return g_steal_pointer(&line.args);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "record.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "storagerecord.h"

static void record_wanted_free(WeirWanted *wanted)
{
    g_free(wanted->driver);
    g_free(wanted->node_name);
    g_free(wanted->role);
    g_free(wanted->place);
    g_clear_pointer(&wanted->options, json_object_unref);
    g_clear_pointer(&wanted->settings, json_object_unref);
    g_clear_pointer(&wanted->nodes, json_array_unref);
    g_free(wanted);
}

char *weir_wanted_kind(const WeirWanted *wanted)
{
    return weir_kind_of(wanted->driver, wanted->options);
}

static bool record_is_plugin(const WeirWanted *wanted)
{
    return strcmp(wanted->driver, WEIR_PLUGIN_DRIVER) == 0;
}

static void record_disk_free(WeirRecordDisk *disk)
{
    if (disk) {
        g_free(disk->id);
        g_free(disk->file);
        g_free(disk->device);
        g_free(disk->prefix);
        g_free(disk->policy);
        g_free(disk->policy_digest);
        g_strfreev(disk->policy_dirs);
        g_free(disk->iothread);
        g_ptr_array_unref(disk->wanted);
        record_disk_free(disk->change);
        g_free(disk);
    }
}

void weir_record_free(WeirRecord *record)
{
    if (record) {
        g_free(record->name);
        g_free(record->qmp);
        g_free(record->bin_dir);
        g_free(record->daemon.reason);
        g_free(record->sockets);
        g_ptr_array_unref(record->secrets);
        g_ptr_array_unref(record->disks);
        g_free(record);
    }
}

char *weir_runtime_dir(const char *option)
{
    const char *base = g_getenv("XDG_RUNTIME_DIR");

    if (option) {
        return g_strdup(option);
    }
    return g_build_filename(geteuid() == 0 || !base || !*base ? "/run" : base,
                            "weir", NULL);
}

char *weir_record_path(const char *dir, const char *name, const char *suffix)
{
    g_autofree char *base = g_strconcat(name, ".", suffix, NULL);

    return g_build_filename(dir, base, NULL);
}

gint64 weir_process_start_time(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    unsigned long long ticks;
    const char *rest;
    char state;

    /* The program's name, in brackets, may hold anything. */
    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        !(rest = strrchr(text, ')')) ||
        sscanf(rest, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u "
               "%*d %*d %*d %*d %*d %*d %llu", &state, &ticks) != 2 ||
        state == 'Z' || state == 'X') {
        return -1;
    }
    return (gint64)ticks;
}

static WeirRecord *record_alloc(const char *name)
{
    WeirRecord *record = g_new0(WeirRecord, 1);

    record->name = g_strdup(name);
    record->disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)record_disk_free);
    record->secrets = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_secret_free);
    record->uid = record->gid = -1;
    return record;
}

WeirRecord *weir_record_new(const char *name, pid_t pid, const char *qmp,
                            const char *bin_dir)
{
    WeirRecord *record = record_alloc(name);

    record->pid = pid;
    record->start_time = weir_process_start_time(pid);
    record->qmp = g_strdup(qmp);
    record->bin_dir = bin_dir ? g_canonicalize_filename(bin_dir, NULL) : NULL;
    return record;
}

static WeirRecordDisk *record_disk_alloc(void)
{
    WeirRecordDisk *disk = g_new0(WeirRecordDisk, 1);

    disk->wanted = g_ptr_array_new_with_free_func(
        (GDestroyNotify)record_wanted_free);
    return disk;
}

/* Absolute, for whoever reads it in another directory. */
static char **record_dirs(char *const *dirs)
{
    GStrvBuilder *builder = g_strv_builder_new();
    char **result;

    for (; *dirs; dirs++) {
        g_autofree char *dir = g_canonicalize_filename(*dirs, NULL);

        g_strv_builder_add(builder, dir);
    }
    result = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    return result;
}

/* Put in what @policy (NULL: none) makes of a disk. */
static void record_set_policy(WeirRecordDisk *entry, const WeirPolicy *policy,
                              char *const *dirs, const GPtrArray *chain)
{
    if (policy) {
        entry->policy = g_strdup(policy->name);
        entry->policy_version = (gint64)policy->version;
        entry->limits = policy->limits;
        entry->policy_digest = weir_policy_digest(policy);
        entry->policy_dirs = record_dirs(dirs);
    }
    for (guint i = chain->len; i-- > 0;) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);
        WeirWanted *wanted = g_new0(WeirWanted, 1);

        wanted->driver = g_strdup(node->driver);
        wanted->node_name = g_strdup(node->node_name);
        wanted->role = g_strdup(weir_role_name(node->role));
        if (node->role == WEIR_ROLE_FILTER) {
            wanted->place = g_strdup(weir_place_name(node->place));
        }
        wanted->options = json_object_ref(node->options);
        wanted->settings = node->settings ? json_object_ref(node->settings)
                                          : NULL;
        wanted->nodes = node->nodes ? json_array_ref(node->nodes) : NULL;
        wanted->holds_data = record_is_plugin(wanted) && node->holds_data;
        g_ptr_array_add(entry->wanted, wanted);
    }
}

void weir_record_add_disk(WeirRecord *record, const WeirDisk *disk,
                          const WeirPolicy *policy, char *const *dirs,
                          const GPtrArray *chain)
{
    WeirRecordDisk *entry = record_disk_alloc();

    entry->id = g_strdup(disk->id);
    entry->file = g_strdup(disk->file);
    entry->device = disk->device == WEIR_DEVICE_NONE ? NULL
                                                     : g_strdup(disk->id);
    entry->prefix = g_strdup(disk->prefix);
    entry->on_error = policy ? policy->on_error : WEIR_ON_ERROR_DEFAULT;
    record_set_policy(entry, policy, dirs, chain);
    g_ptr_array_add(record->disks, entry);
}

WeirRecordDisk *weir_record_disk(const WeirRecord *record, const char *id,
                                 GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (guint i = 0; i < record->disks->len; i++) {
        WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        if (strcmp(disk->id, id) == 0) {
            return disk;
        }
        g_string_append_printf(list, "%s%s", i ? ", " : "", disk->id);
    }
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                "VM '%s' has no disk '%s' (it has %s)", record->name, id,
                list->len ? list->str : "none");
    return NULL;
}

static const WeirWanted *record_role(const WeirRecordDisk *disk,
                                     WeirRole role)
{
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(disk->wanted, i);

        if (strcmp(wanted->role, weir_role_name(role)) == 0) {
            return wanted;
        }
    }
    return NULL;
}

WeirDisk *weir_record_describe(const WeirRecordDisk *disk, GError **error)
{
    const WeirWanted *storage = record_role(disk, WEIR_ROLE_STORAGE);
    const WeirWanted *format = record_role(disk, WEIR_ROLE_FORMAT);
    WeirDisk *result;
    JsonObject *cache;

    if (!storage || !format || !disk->prefix) {
        weir_set_error(error, "the record of disk %s does not tell all of it: "
                       "its VM was started by an older weir", disk->id);
        return NULL;
    }
    cache = weir_json_object(storage->options, "cache");
    result = g_new0(WeirDisk, 1);
    result->file = g_strdup(disk->file);
    result->format = g_strdup(format->driver);
    result->id = g_strdup(disk->id);
    result->prefix = g_strdup(disk->prefix);
    result->aio = g_strdup(weir_json_string(storage->options, "aio"));
    result->device = WEIR_DEVICE_NONE;
    result->cache_direct = weir_json_bool(cache, "direct", false);
    result->cache_no_flush = weir_json_bool(cache, "no-flush", false);
    result->read_only = weir_json_bool(storage->options, "read-only", false);
    result->discard = g_strcmp0(weir_json_string(storage->options, "discard"),
                                "unmap") == 0;
    return result;
}

void weir_record_begin_change(WeirRecordDisk *disk, const WeirPolicy *policy,
                              char *const *dirs, const GPtrArray *chain)
{
    WeirRecordDisk *change = record_disk_alloc();

    change->change = disk->change;
    disk->change = change;
    record_set_policy(change, policy, dirs, chain);
}

void weir_record_end_change(WeirRecordDisk *disk, bool done)
{
    WeirRecordDisk *change = g_steal_pointer(&disk->change);

    if (done && change) {
        WeirRecordDisk before = *disk;

        disk->policy = change->policy;
        disk->policy_version = change->policy_version;
        disk->limits = change->limits;
        disk->policy_digest = change->policy_digest;
        disk->policy_dirs = change->policy_dirs;
        disk->wanted = change->wanted;
        change->policy = before.policy;
        change->policy_digest = before.policy_digest;
        change->policy_dirs = before.policy_dirs;
        change->wanted = before.wanted;
    } else if (change) {
        disk->change = g_steal_pointer(&change->change);
    }
    record_disk_free(change);
}

static JsonObject *record_wanted_json(const WeirWanted *wanted)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "role", wanted->role);
    json_object_set_string_member(object, "driver", wanted->driver);
    json_object_set_string_member(object, "node-name", wanted->node_name);
    weir_json_set_string(object, "place", wanted->place);
    json_object_set_object_member(object, "options",
                                  json_object_ref(wanted->options));
    if (wanted->settings) {
        json_object_set_object_member(object, "settings",
                                      json_object_ref(wanted->settings));
    }
    if (wanted->nodes) {
        json_object_set_array_member(object, "nodes",
                                     json_array_ref(wanted->nodes));
    }
    if (record_is_plugin(wanted)) {
        json_object_set_boolean_member(object, "holds-data",
                                       wanted->holds_data);
    }
    return object;
}

/* Add what a policy makes of a disk. */
static void record_policy_json(JsonObject *object, const WeirRecordDisk *disk)
{
    JsonArray *wanted = json_array_new();
    JsonArray *dirs = json_array_new();

    weir_json_set_string(object, "policy", disk->policy);
    json_object_set_int_member(object, "policy-version",
                               disk->policy_version);
    json_object_set_object_member(object, "limits",
                                  weir_limits_json(&disk->limits));
    weir_json_set_string(object, "policy-digest", disk->policy_digest);
    for (char **dir = disk->policy_dirs; dir && *dir; dir++) {
        json_array_add_string_element(dirs, *dir);
    }
    json_object_set_array_member(object, "policy-dirs", dirs);
    for (guint i = 0; i < disk->wanted->len; i++) {
        json_array_add_object_element(
            wanted, record_wanted_json(g_ptr_array_index(disk->wanted, i)));
    }
    json_object_set_array_member(object, "wanted", wanted);
}

/* The newest change, the one before in it, and so on. */
static void record_changes_json(JsonObject *object,
                                const WeirRecordDisk *change)
{
    for (; change; change = change->change) {
        JsonObject *inner = json_object_new();

        record_policy_json(inner, change);
        json_object_set_object_member(object, "change", inner);
        object = inner;
    }
}

static JsonObject *record_disk_json(const WeirRecordDisk *disk)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "id", disk->id);
    json_object_set_string_member(object, "file", disk->file);
    weir_json_set_string(object, "on-error",
                         weir_on_error_name(disk->on_error));
    weir_json_set_string(object, "iothread", disk->iothread);
    json_object_set_boolean_member(object, "writethrough",
                                   disk->writethrough);
    weir_json_set_string(object, "device", disk->device);
    weir_json_set_string(object, "node-prefix", disk->prefix);
    record_policy_json(object, disk);
    record_changes_json(object, disk->change);
    return object;
}

static JsonArray *record_secrets_json(const WeirRecord *record)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < record->secrets->len; i++) {
        const WeirSecret *secret = g_ptr_array_index(record->secrets, i);
        g_autofree char *text = weir_secret_text(secret);
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "id", secret->id);
        json_object_set_string_member(object, "from", text);
        json_array_add_object_element(array, object);
    }
    return array;
}

/* How the record of a VM, or of its storage daemon, is called. */
static const char *record_suffix(bool is_storage)
{
    return is_storage ? "storage" : "json";
}

JsonObject *weir_record_json(const WeirRecord *record)
{
    JsonObject *object = json_object_new();
    JsonArray *disks = json_array_new();

    json_object_set_string_member(object, "name", record->name);
    json_object_set_int_member(object, "pid", record->pid);
    json_object_set_int_member(object, "start-time", record->start_time);
    json_object_set_string_member(object, "qmp", record->qmp);
    weir_json_set_string(object, "qemu-bin-dir", record->bin_dir);
    if (record->is_storage) {
        json_object_set_string_member(object, "sockets", record->sockets);
        json_object_set_int_member(object, "uid", record->uid);
        json_object_set_int_member(object, "gid", record->gid);
    }
    json_object_set_array_member(object, "secrets",
                                 record_secrets_json(record));
    for (guint i = 0; i < record->disks->len; i++) {
        json_array_add_object_element(
            disks, record_disk_json(g_ptr_array_index(record->disks, i)));
    }
    json_object_set_array_member(object, "disks", disks);
    return object;
}

bool weir_record_save(const WeirRecord *record, const char *dir,
                      GError **error)
{
    g_autofree char *path = weir_record_path(
        dir, record->name, record_suffix(record->is_storage));
    g_autoptr(JsonObject) object = weir_record_json(record);
    g_autofree char *text = weir_json_object_text(object, true);

    return g_file_set_contents(path, text, -1, error);
}

/* Each of these returns NULL or false if something is missing. */

static WeirWanted *record_wanted_read(JsonObject *object)
{
    WeirWanted *wanted = g_new0(WeirWanted, 1);
    JsonObject *options = weir_json_object(object, "options");
    JsonObject *settings = weir_json_object(object, "settings");
    JsonArray *nodes = weir_json_array(object, "nodes");

    wanted->role = g_strdup(weir_json_string(object, "role"));
    wanted->driver = g_strdup(weir_json_string(object, "driver"));
    wanted->node_name = g_strdup(weir_json_string(object, "node-name"));
    wanted->place = g_strdup(weir_json_string(object, "place"));
    if (!wanted->role || !wanted->driver || !wanted->node_name || !options ||
        (strcmp(wanted->role, "filter") == 0 && !wanted->place)) {
        record_wanted_free(wanted);
        return NULL;
    }
    wanted->options = json_object_ref(options);
    wanted->settings = settings ? json_object_ref(settings) : NULL;
    wanted->nodes = nodes ? json_array_ref(nodes) : NULL;
    /* one that nobody knows may */
    wanted->holds_data = record_is_plugin(wanted) &&
                         weir_json_bool(object, "holds-data", true);
    return wanted;
}

/* The texts of @array, or NULL for none. */
static char **record_texts_read(JsonArray *array)
{
    GStrvBuilder *builder = g_strv_builder_new();
    char **texts;

    for (guint i = 0; i < weir_json_length(array); i++) {
        const char *text = weir_json_string_at(array, i);

        if (text) {
            g_strv_builder_add(builder, text);
        }
    }
    texts = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    if (!*texts) {
        g_clear_pointer(&texts, g_strfreev);
    }
    return texts;
}

static bool record_policy_read(WeirRecordDisk *disk, JsonObject *object)
{
    JsonArray *nodes = weir_json_array(object, "wanted");

    disk->policy = g_strdup(weir_json_string(object, "policy"));
    disk->policy_version = weir_json_int(object, "policy-version", 0);
    disk->limits = weir_limits_from_json(weir_json_object(object, "limits"));
    disk->policy_digest = g_strdup(weir_json_string(object,
                                                    "policy-digest"));
    disk->policy_dirs = record_texts_read(weir_json_array(object,
                                                          "policy-dirs"));
    for (guint i = 0; i < weir_json_length(nodes); i++) {
        WeirWanted *wanted = record_wanted_read(weir_json_object_at(nodes, i));

        if (!wanted) {
            return false;
        }
        g_ptr_array_add(disk->wanted, wanted);
    }
    return disk->wanted->len > 0;
}

static bool record_changes_read(WeirRecordDisk *disk, JsonObject *object)
{
    for (; object; object = weir_json_object(object, "change")) {
        disk->change = record_disk_alloc();
        disk = disk->change;
        if (!record_policy_read(disk, object)) {
            return false;
        }
    }
    return true;
}

static bool record_disk_read(WeirRecordDisk *disk, JsonObject *object)
{
    disk->id = g_strdup(weir_json_string(object, "id"));
    disk->file = g_strdup(weir_json_string(object, "file"));
    disk->device = g_strdup(weir_json_string(object, "device"));
    disk->on_error = weir_on_error_parse(weir_json_string(object,
                                                          "on-error"));
    disk->iothread = g_strdup(weir_json_string(object, "iothread"));
    disk->writethrough = weir_json_bool(object, "writethrough", false);
    disk->prefix = g_strdup(weir_json_string(object, "node-prefix"));
    return disk->id && disk->file && record_policy_read(disk, object) &&
           record_changes_read(disk, weir_json_object(object, "change"));
}

static bool record_secrets_read(WeirRecord *record, JsonArray *secrets)
{
    for (guint i = 0; i < weir_json_length(secrets); i++) {
        JsonObject *object = weir_json_object_at(secrets, i);
        const char *id = weir_json_string(object, "id");
        const char *from = weir_json_string(object, "from");
        WeirSecret *secret = id && from ? weir_secret_parse(from, id, NULL)
                                        : NULL;

        if (!secret) {
            return false;
        }
        g_ptr_array_add(record->secrets, secret);
    }
    return true;
}

static bool record_read(WeirRecord *record, JsonObject *object)
{
    JsonArray *disks = weir_json_array(object, "disks");

    record->pid = (pid_t)weir_json_int(object, "pid", -1);
    record->start_time = weir_json_int(object, "start-time", -1);
    record->qmp = g_strdup(weir_json_string(object, "qmp"));
    record->bin_dir = g_strdup(weir_json_string(object, "qemu-bin-dir"));
    record->sockets = g_strdup(weir_json_string(object, "sockets"));
    record->uid = weir_json_int(object, "uid", -1);
    record->gid = weir_json_int(object, "gid", -1);
    for (guint i = 0; i < weir_json_length(disks); i++) {
        WeirRecordDisk *disk = record_disk_alloc();

        g_ptr_array_add(record->disks, disk);
        if (!record_disk_read(disk, weir_json_object_at(disks, i))) {
            return false;
        }
    }
    return record->pid >= 0 && record->qmp &&
           record_secrets_read(record, weir_json_array(object, "secrets"));
}

WeirRecord *weir_record_from_json(const char *name, JsonObject *object)
{
    g_autoptr(WeirRecord) record = record_alloc(name);

    return object && record_read(record, object) ? g_steal_pointer(&record)
                                                 : NULL;
}

WeirRecord *weir_record_read(const char *dir, const char *name,
                             bool is_storage, GError **error)
{
    g_autofree char *path = weir_record_path(dir, name,
                                             record_suffix(is_storage));
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) node = NULL;
    g_autofree char *text = NULL;
    WeirRecord *record;
    gsize length;

    if (!g_file_get_contents(path, &text, &length, &local)) {
        if (g_error_matches(local, G_FILE_ERROR, G_FILE_ERROR_NOENT)) {
            g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                        "there is no VM '%s' in %s", name, dir);
        } else {
            weir_set_error(error, "%s", local->message);
        }
        return NULL;
    }
    node = weir_json_parse(text, length, NULL);
    record = weir_record_from_json(name, weir_json_as_object(node));
    if (!record) {
        weir_set_error(error, "%s is not a record of a VM", path);
        return NULL;
    }
    record->is_storage = is_storage;
    return record;
}

WeirRecord *weir_record_load(const char *dir, const char *name,
                             GError **error)
{
    return weir_record_read(dir, name, false, error);
}

static gint record_compare(gconstpointer a, gconstpointer b)
{
    const WeirRecord *const *left = a;
    const WeirRecord *const *right = b;

    int order = strcmp((*left)->name, (*right)->name);

    return order ? order : (*left)->is_storage - (*right)->is_storage;
}

GPtrArray *weir_record_list(const char *dir)
{
    GPtrArray *records = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_record_free);
    g_autoptr(GDir) stream = g_dir_open(dir, 0, NULL);
    const char *base;

    while (stream && (base = g_dir_read_name(stream))) {
        const char *suffix = strrchr(base, '.');
        g_autofree char *name = suffix ? g_strndup(base, (gsize)(suffix - base))
                                       : NULL;
        WeirRecord *record = NULL;

        if (suffix && strcmp(suffix + 1, record_suffix(false)) == 0) {
            record = weir_record_load(dir, name, NULL);
        } else if (suffix && strcmp(suffix + 1, record_suffix(true)) == 0) {
            record = weir_record_load_storage(dir, name, NULL);
        }
        if (record) {
            g_ptr_array_add(records, record);
        }
    }
    g_ptr_array_sort(records, record_compare);
    return records;
}

bool weir_record_alive(const WeirRecord *record)
{
    gint64 start_time = weir_process_start_time(record->pid);

    return start_time >= 0 && start_time == record->start_time;
}

void weir_record_remove(const char *dir, const char *name)
{
    static const char *const suffixes[] = { "json", "qmp", "status" };

    for (guint i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *path = weir_record_path(dir, name, suffixes[i]);

        unlink(path);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storagerecord.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"
#include "storagelock.h"

/* to wait for who writes to a record that is about to go */
#define RECORD_LOCK_MS 2000

char *weir_record_sockets(const char *dir, const char *name)
{
    return weir_record_path(dir, name, "disks");
}

WeirRecord *weir_storage_record_new(const char *name, const char *dir,
                                    const char *bin_dir,
                                    const GPtrArray *secrets)
{
    g_autofree char *qmp = weir_record_path(dir, name, "storage-qmp");
    WeirRecord *record = weir_record_new(name, 0, qmp, bin_dir);

    record->is_storage = true;
    record->sockets = weir_record_sockets(dir, name);
    for (guint i = 0; i < secrets->len; i++) {
        g_ptr_array_add(record->secrets,
                        weir_secret_copy(g_ptr_array_index(secrets, i)));
    }
    return record;
}

/* What the chain's node of @filter has only the names of. */
static void storage_record_add_nodes(const WeirRecord *record,
                                     const WeirDisk *disk,
                                     const WeirPolicyFilter *filter,
                                     const GPtrArray *chain)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();

    for (char **node = filter->nodes; *node; node++) {
        g_ptr_array_add(options, *node);
    }
    for (guint i = 0; i < chain->len; i++) {
        WeirChainNode *node = g_ptr_array_index(chain, i);

        if (node->role == WEIR_ROLE_FILTER &&
            strcmp(node->driver, filter->driver) == 0) {
            weir_plan_add_nodes(record->name, disk, options, node);
        }
    }
}

void weir_storage_record_add_disk(WeirRecord *record, const WeirDisk *disk,
                                  const WeirPolicy *policy, char *const *dirs,
                                  const GPtrArray *chain)
{
    WeirRecordDisk *entry;

    for (guint i = 0; i < policy->filters->len; i++) {
        storage_record_add_nodes(record, disk,
                                 g_ptr_array_index(policy->filters, i), chain);
    }
    weir_record_add_disk(record, disk, policy, dirs, chain);
    entry = g_ptr_array_index(record->disks, record->disks->len - 1);
    g_clear_pointer(&entry->device, g_free);    /* the daemon has none */
    entry->iothread = g_strdup(disk->iothread);
    entry->writethrough = weir_chain_holds_back(chain);
}

/* Without the file, no daemon was ever started. */
static void record_read_daemon(WeirRecord *record, const char *dir)
{
    g_autofree char *path = weir_record_path(dir, record->name, "daemon");
    g_autoptr(JsonNode) node = NULL;
    g_autofree char *text = NULL;
    JsonObject *object;
    gsize length;

    if (g_file_get_contents(path, &text, &length, NULL)) {
        node = weir_json_parse(text, length, NULL);
    }
    object = weir_json_as_object(node);
    record->pid = (pid_t)weir_json_int(object, "pid", -1);
    record->start_time = weir_json_int(object, "start-time", -1);
    record->daemon.restarts = weir_json_int(object, "restarts", 0);
    record->daemon.failures = weir_json_int(object, "failures", 0);
    record->daemon.since = weir_json_int(object, "since", 0);
    record->daemon.supervisor = (pid_t)weir_json_int(object, "supervisor", 0);
    record->daemon.reason = g_strdup(weir_json_string(object, "reason"));
}

WeirRecord *weir_record_load_storage(const char *dir, const char *name,
                                     GError **error)
{
    WeirRecord *record = weir_record_read(dir, name, true, error);

    if (record) {
        record_read_daemon(record, dir);
    }
    return record;
}

WeirRecord *weir_record_load_disk(const char *dir, const char *name,
                                  const char *disk, GError **error)
{
    WeirRecord *record = weir_record_load(dir, name, error);
    WeirRecord *storage;

    if (!record || weir_record_disk(record, disk, NULL)) {
        return record;
    }
    storage = weir_record_load_storage(dir, name, NULL);
    if (storage && weir_record_disk(storage, disk, NULL)) {
        weir_record_free(record);
        return storage;
    }
    weir_record_free(storage);
    return record;
}

bool weir_record_save_daemon(const WeirRecord *record, const char *dir,
                             GError **error)
{
    g_autofree char *path = weir_record_path(dir, record->name, "daemon");
    g_autoptr(JsonObject) object = json_object_new();
    g_autofree char *text = NULL;

    json_object_set_int_member(object, "pid", record->pid);
    json_object_set_int_member(object, "start-time", record->start_time);
    json_object_set_int_member(object, "restarts", record->daemon.restarts);
    json_object_set_int_member(object, "failures", record->daemon.failures);
    json_object_set_int_member(object, "since", record->daemon.since);
    json_object_set_int_member(object, "supervisor",
                               record->daemon.supervisor);
    weir_json_set_string(object, "reason", record->daemon.reason);
    text = weir_json_object_text(object, true);
    return g_file_set_contents(path, text, -1, error);
}

JsonObject *weir_storage_record_daemon_json(const WeirRecord *record)
{
    const WeirDaemonState *state = &record->daemon;
    JsonObject *object = json_object_new();

    json_object_set_int_member(object, "pid", record->pid);
    json_object_set_int_member(object, "restarts", state->restarts);
    json_object_set_int_member(object, "failures", state->failures);
    if (state->since > 0) {
        json_object_set_int_member(object, "since", state->since);
    } else {
        json_object_set_null_member(object, "since");
    }
    weir_json_set_string(object, "reason", state->reason);
    return object;
}

char *weir_storage_record_note(const WeirRecord *record)
{
    const WeirDaemonState *state = &record->daemon;
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(state->since);
    g_autofree char *when = time ? g_date_time_format(time, "%FT%TZ") : NULL;

    if (state->restarts == 0) {
        return NULL;
    }
    return g_strdup_printf(
        "storage daemon restarted %" G_GINT64_FORMAT " times, the last time at "
        "%s: %s", state->restarts, when ? when : "?",
        state->reason ? state->reason : "not known why");
}

char *weir_storage_record_failure(const WeirRecord *record,
                                  const char *reason)
{
    if (record->daemon.failures < WEIR_STORAGE_FAILURES) {
        return NULL;
    }
    return g_strdup_printf("failed: the disk does not answer; %"
                           G_GINT64_FORMAT " attempts in a row to start its "
                           "storage daemon have failed, the last one as %s",
                           record->daemon.failures, reason);
}

/* The directory of the sockets; -1 with errno set. */
static int record_open_sockets(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int weir_record_lock_storage(const char *sockets, GError **error)
{
    int fd = -1;

    if ((mkdir(sockets, 0700) < 0 && errno != EEXIST) ||
        (fd = record_open_sockets(sockets)) < 0) {
        weir_set_error(error, "cannot use %s: %s", sockets,
                       g_strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        g_set_error(error, WEIR_ERROR,
                    errno == EWOULDBLOCK ? WEIR_ERROR_CLOSED
                                         : WEIR_ERROR_FAILED,
                    "cannot lock %s: %s", sockets, g_strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

bool weir_record_storage_is_locked(const char *sockets)
{
    int fd = record_open_sockets(sockets);
    bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 &&
                  errno == EWOULDBLOCK;

    if (fd >= 0) {
        close(fd);
    }
    return locked;
}

void weir_record_remove_storage(const char *dir, const char *name)
{
    static const char *const suffixes[] = {
        "storage", "storage-qmp", "storage-status", "storage-log", "daemon",
        "storage-lock",
    };
    g_autoptr(WeirRecord) record = weir_record_load_storage(dir, name, NULL);
    g_autofree char *sockets = record && record->sockets
        ? g_strdup(record->sockets) : weir_record_sockets(dir, name);
    /* not what a symbolic link leads to */
    g_autoptr(GDir) stream = g_file_test(sockets, G_FILE_TEST_IS_SYMLINK)
        ? NULL : g_dir_open(sockets, 0, NULL);
    int lock = record ? weir_storage_lock(dir, name, RECORD_LOCK_MS, NULL)
                      : -1;
    const char *base;

    while (stream && (base = g_dir_read_name(stream))) {
        g_autofree char *path = g_build_filename(sockets, base, NULL);

        unlink(path);
    }
    rmdir(sockets);
    for (guint i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *path = weir_record_path(dir, name, suffixes[i]);

        unlink(path);
    }
    weir_storage_unlock(lock);
}

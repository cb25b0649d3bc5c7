/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domainstorage.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "binding.h"
#include "programs.h"
#include "storagerecord.h"
#include "supervise.h"

#define DOMAIN_STORAGE_UNIT "weir-storage@"
#define DOMAIN_STORAGE_SYSTEMD "/run/systemd/system"
#define DOMAIN_STORAGE_END_US (70 * G_USEC_PER_SEC)
#define DOMAIN_STORAGE_POLL_US 50000

/* --- with systemd --- */

static char *storage_unit(const char *dir)
{
    g_autofree char *uuid = g_path_get_basename(dir);

    return g_strdup_printf(DOMAIN_STORAGE_UNIT "%s.service", uuid);
}

static bool storage_systemctl(const char *verb, const char *unit,
                              GError **error)
{
    g_autoptr(GSubprocess) process = g_subprocess_new(
        G_SUBPROCESS_FLAGS_STDOUT_SILENCE | G_SUBPROCESS_FLAGS_STDERR_SILENCE,
        error, "systemctl", verb, unit, NULL);

    return process && g_subprocess_wait_check(process, NULL, error);
}

/* Whether there is a systemd that has the unit. */
static bool storage_has_unit(void)
{
    return g_file_test(DOMAIN_STORAGE_SYSTEMD, G_FILE_TEST_IS_DIR) &&
           storage_systemctl("cat", DOMAIN_STORAGE_UNIT ".service", NULL);
}

static bool storage_start_unit(const char *dir, GError **error)
{
    g_autofree char *unit = storage_unit(dir);

    if (!storage_systemctl("start", unit, NULL)) {
        weir_set_error(error, "the storage daemon of its disks cannot be "
                       "started: journalctl -u %s tells why", unit);
        return false;
    }
    return true;
}

/* --- without --- */

/* Runs in the child, which is to outlive libvirt. */
static void storage_child_setup(gpointer opaque)
{
    const int *ready = opaque;

    setsid();
    fcntl(*ready, F_SETFD, 0);
    weir_child_setup(NULL);
}

/* What it says goes to a file, which is there as long as it is. */
static bool storage_spawn(const char *dir, const char *name, int ready,
                          GError **error)
{
    g_autofree char *log = weir_record_path(dir, name, "storage-log");
    g_autofree char *fd = g_strdup_printf("%d", ready);
    g_autofree char *self = g_file_read_link("/proc/self/exe", error);
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDOUT_SILENCE);
    g_autoptr(GSubprocess) process = NULL;

    if (!self) {
        return false;
    }
    g_subprocess_launcher_set_stderr_file_path(launcher, log);
    g_subprocess_launcher_set_child_setup(launcher, storage_child_setup,
                                          &ready, NULL);
    g_subprocess_launcher_take_fd(launcher, dup(ready), ready);
    process = g_subprocess_launcher_spawn(launcher, error, self, "supervise",
                                          "--runtime-dir", dir, "--ready-fd",
                                          fd, name, NULL);
    return process != NULL;
}

static bool storage_start_here(const char *dir, const char *name,
                               GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char data[1024];
    int ready[2];
    ssize_t n;
    bool ok;

    if (pipe2(ready, O_CLOEXEC) < 0) {
        weir_set_error(error, "cannot make a pipe: %s", g_strerror(errno));
        return false;
    }
    ok = storage_spawn(dir, name, ready[1], error);
    close(ready[1]);
    while (ok && (n = TEMP_FAILURE_RETRY(read(ready[0], data,
                                              sizeof(data)))) > 0) {
        g_string_append_len(text, data, n);
    }
    close(ready[0]);
    if (ok && strcmp(text->str, WEIR_SUPERVISE_READY) != 0) {
        weir_set_error(error, "%s", text->len ? text->str : "the storage "
                       "daemon of its disks cannot be started");
        return false;
    }
    return ok;
}

bool weir_domain_storage_start(const char *dir, const char *name,
                               GError **error)
{
    return storage_has_unit() ? storage_start_unit(dir, error)
                              : storage_start_here(dir, name, error);
}

/* --- end --- */

/* The only storage record of @dir, or NULL. */
static WeirRecord *storage_find(const char *dir)
{
    g_autoptr(GPtrArray) records = weir_record_list(dir);

    for (guint i = 0; i < records->len; i++) {
        const WeirRecord *record = g_ptr_array_index(records, i);

        if (record->is_storage) {
            return g_ptr_array_steal_index(records, i);
        }
    }
    return NULL;
}

/* Whether that process is one of ours, and not another of its number. */
static bool storage_is_supervisor(pid_t pid, const char *dir)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid);
    g_autofree char *text = NULL;
    gsize length;

    if (pid <= 0 || !g_file_get_contents(path, &text, &length, NULL)) {
        return false;
    }
    return memmem(text, length, "supervise", strlen("supervise") + 1) &&
           memmem(text, length, dir, strlen(dir) + 1);
}

void weir_domain_storage_stop(const char *dir)
{
    g_autoptr(WeirRecord) record = storage_find(dir);
    gint64 end_us = g_get_monotonic_time() + DOMAIN_STORAGE_END_US;
    g_autofree char *unit = storage_unit(dir);
    pid_t pid = record ? record->daemon.supervisor : 0;

    if (!record) {
        return;
    }
    if (storage_has_unit()) {
        storage_systemctl("stop", unit, NULL);
    }
    if (storage_is_supervisor(pid, dir)) {
        kill(pid, SIGTERM);
    }
    while (storage_is_supervisor(pid, dir) &&
           g_get_monotonic_time() < end_us) {
        g_usleep(DOMAIN_STORAGE_POLL_US);
    }
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        weir_binding_settle(disk->file);
    }
    weir_record_remove_storage(dir, record->name);
}

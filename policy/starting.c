/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "starting.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "record.h"
#include "samefile.h"

static char *starting_path(const char *dir, const char *name)
{
    return weir_record_path(dir, name, "start");
}

int weir_starting_begin(const char *dir, const char *name, GError **error)
{
    g_autofree char *path = starting_path(dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) {
        weir_set_error(error, "cannot make %s: %s", path, g_strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            weir_set_error(error, "VM '%s' is being started already; --name "
                           "gives another name", name);
        } else {
            weir_set_error(error, "cannot lock %s: %s", path,
                           g_strerror(errno));
        }
        close(fd);
        return -1;
    }
    return fd;
}

void weir_starting_end(const char *dir, const char *name, int starting)
{
    g_autofree char *path = starting_path(dir, name);
    int lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (lock >= 0 && flock(lock, LOCK_EX) == 0) {
        unlink(path);
    }
    close(starting);
    if (lock >= 0) {
        close(lock);
    }
}

static bool starting_is(const char *dir, const char *name)
{
    g_autofree char *path = starting_path(dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 &&
                  errno == EWOULDBLOCK;

    if (fd >= 0) {
        close(fd);
    }
    return locked;
}

/* The disk of @record that writes to @file, or NULL. */
static const WeirRecordDisk *starting_writer(const WeirRecord *record,
                                             const char *file)
{
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        const WeirWanted *top = g_ptr_array_index(disk->wanted, 0);

        if (weir_same_file(disk->file, file) &&
            !weir_json_bool(top->options, "read-only", false)) {
            return disk;
        }
    }
    return NULL;
}

bool weir_starting_check(const char *dir, const char *name,
                         const WeirDisk *disk, GError **error)
{
    g_autoptr(GPtrArray) records = weir_record_list(dir);

    for (guint i = 0; i < records->len; i++) {
        const WeirRecord *record = g_ptr_array_index(records, i);

        if (record->is_storage && strcmp(record->name, name) != 0 &&
            starting_is(dir, record->name) &&
            starting_writer(record, disk->file)) {
            weir_set_error(error, "disk %s: VM '%s', which is being started, "
                           "writes to %s", disk->id, record->name,
                           disk->file);
            return false;
        }
    }
    return true;
}

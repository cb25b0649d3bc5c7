/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storagelock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "record.h"
#include "samefile.h"

#define LOCK_POLL_US 20000

/*
 * Returns a descriptor, or -1 with errno set: EAGAIN if it is another's, or
 * went with the record.
 */
static int lock_try(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int code = 0;

    if (fd < 0) {
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        code = errno;
    } else if (!weir_fd_is_at(fd, path)) {
        code = EAGAIN;
    }
    if (code != 0) {
        close(fd);
        errno = code;
        return -1;
    }
    return fd;
}

int weir_storage_lock(const char *dir, const char *name, int timeout_ms,
                      GError **error)
{
    g_autofree char *path = weir_record_path(dir, name, "storage-lock");
    gint64 end_us = g_get_monotonic_time() + timeout_ms * (gint64)1000;
    int fd;

    while ((fd = lock_try(path)) < 0 && errno == EAGAIN &&
           g_get_monotonic_time() < end_us) {
        g_usleep(LOCK_POLL_US);
    }
    if (fd < 0 && errno == EAGAIN) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED, "another process has "
                    "%s: its storage daemon is being started, or one of its "
                    "disks changed", path);
    } else if (fd < 0) {
        weir_set_error(error, "cannot lock %s: %s", path, g_strerror(errno));
    }
    return fd;
}

void weir_storage_unlock(int lock)
{
    if (lock >= 0) {
        flock(lock, LOCK_UN);       /* also of those who inherited it */
        close(lock);
    }
}

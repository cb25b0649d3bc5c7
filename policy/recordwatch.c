/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "recordwatch.h"

#include <glib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

int weir_record_watch(const char *dir)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    /* a record is renamed to its place, but who knows */
    if (fd >= 0 && inotify_add_watch(fd, dir,
                                     IN_MOVED_TO | IN_CLOSE_WRITE) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

bool weir_record_watch_read(int fd, const char *name)
{
    g_autofree char *base = g_strconcat(name, ".storage", NULL);
    char data[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool found = false;
    ssize_t n;

    while ((n = read(fd, data, sizeof(data))) > 0) {
        for (const char *at = data; at < data + n;) {
            const struct inotify_event *event = (const void *)at;

            found = found || (event->mask & IN_Q_OVERFLOW) ||
                    (event->len > 0 && strcmp(event->name, base) == 0);
            at += sizeof(*event) + event->len;
        }
    }
    return found;
}

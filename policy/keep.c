/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file is the checksum of the text, a newline, and the text.  It is renamed
 * into its place without an fsync: a power cut may leave a damaged one, the
 * checksum tells, and it is as if there were none.
 */
#include "keep.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ours.h"

/* "sha256:", 64 digits and a newline */
#define KEEP_PREFIX "sha256:"
#define KEEP_HEAD_BYTES (sizeof(KEEP_PREFIX) - 1 + 64 + 1)

static char *keep_dir(void)
{
    const char *dir = g_getenv("WEIR_KEEP_DIR");

    if (dir) {
        return *dir ? g_strdup(dir) : NULL;
    }
    return g_build_filename(geteuid() == 0 ? "/var/cache"
                                           : g_get_user_cache_dir(),
                            "weir", NULL);
}

static int keep_open_dir(bool create)
{
    g_autofree char *dir = keep_dir();
    int fd;

    if (!dir || (create && g_mkdir_with_parents(dir, 0700) < 0)) {
        return -1;
    }
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && !weir_is_ours(fd, S_IFDIR)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* What the file starts with; the caller frees it. */
static char *keep_head(const char *text, gsize length)
{
    g_autofree char *sum = g_compute_checksum_for_data(
        G_CHECKSUM_SHA256, (const guchar *)text, length);

    return g_strconcat(KEEP_PREFIX, sum, "\n", NULL);
}

/* Up to @max bytes; fewer at the end or on an error. */
static gsize keep_read_all(int fd, char *buffer, gsize max)
{
    gsize done = 0;
    ssize_t ret;

    do {
        ret = read(fd, buffer + done, max - done);
        done += ret > 0 ? (gsize)ret : 0;
    } while (ret > 0 && done < max);
    return done;
}

/* The text of an open file, or NULL. */
static char *keep_read_fd(int fd, gsize *length)
{
    const gsize max = KEEP_HEAD_BYTES + WEIR_KEEP_MAX_BYTES;
    g_autofree char *buffer = g_malloc(max + 1);
    g_autofree char *head = NULL;
    gsize size = keep_read_all(fd, buffer, max + 1);

    if (size < KEEP_HEAD_BYTES || size > max) {
        return NULL;
    }
    *length = size - KEEP_HEAD_BYTES;
    head = keep_head(buffer + KEEP_HEAD_BYTES, *length);
    return memcmp(buffer, head, KEEP_HEAD_BYTES) == 0
           ? g_strndup(buffer + KEEP_HEAD_BYTES, *length) : NULL;
}

char *weir_keep_read(const char *name, gsize *length)
{
    char *text = NULL;
    int dir = keep_open_dir(false);
    int fd;

    if (dir < 0) {
        return NULL;
    }
    /* O_NONBLOCK: it could be a FIFO. */
    fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
        text = weir_is_ours(fd, S_IFREG) ? keep_read_fd(fd, length) : NULL;
        close(fd);
    }
    close(dir);
    return text;
}

/* Write to a new file.  Returns false if it is not complete. */
static bool keep_write_file(int dir, const char *name, const char *text)
{
    g_autofree char *head = keep_head(text, strlen(text));
    g_autofree char *all = g_strconcat(head, text, NULL);
    ssize_t length = (ssize_t)strlen(all);
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW |
                    O_CLOEXEC, 0600);
    bool ok;

    if (fd < 0) {
        return false;
    }
    ok = write(fd, all, (size_t)length) == length;
    return close(fd) == 0 && ok;
}

void weir_keep_write(const char *name, const char *text)
{
    /* Processes that write at the same time have files of their own. */
    g_autofree char *temporary = g_strdup_printf("%s.%d", name, (int)getpid());
    int dir;

    if (strlen(text) > WEIR_KEEP_MAX_BYTES || (dir = keep_open_dir(true)) < 0) {
        return;
    }
    if (!keep_write_file(dir, temporary, text) ||
        renameat(dir, temporary, dir, name) < 0) {
        unlinkat(dir, temporary, 0);
    }
    close(dir);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "locks.h"
#include "seed.h"

#define HEADER_BYTES 4096
#define COPIES 2
#define SEQUENCE_AT 32          /* 8 bytes */
#define SIDECAR_KEPT ".detached"
#define LIVES_AT 168            /* 4 bytes each, the newest first */

static const char sidecar_magic[8] = { 'W', 'E', 'I', 'R', 'S', 'I', 'D', 'E' };

static void sidecar_free(WeirSidecar *sidecar)
{
    if (sidecar->fd >= 0) {
        close(sidecar->fd);
    }
    free(sidecar->path);
    g_free(sidecar->kept);
    g_free(sidecar);
}

static bool sidecar_fail(const char *path, GError **error)
{
    weir_set_error(error, "the sidecar %s: %s", path, g_strerror(errno));
    return false;
}

static bool sidecar_erase(int fd)
{
    static const guint8 zeroes[COPIES * HEADER_BYTES];

    return pwrite(fd, zeroes, sizeof(zeroes), 0) == (ssize_t)sizeof(zeroes) &&
           fsync(fd) == 0;
}

/* --- when a filter goes --- */

/* A power cut must not bring back the name of what has been replaced. */
static bool sidecar_sync_dir(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    int saved_errno = errno;

    if (fd >= 0) {
        close(fd);
    }
    errno = saved_errno;
    return ok;
}

/* A blank file like @like in the place of @path, at once. */
static bool sidecar_replace(const char *path, const struct stat *like)
{
    g_autofree char *temporary = g_strdup_printf("%s.%d.new", path,
                                                 (int)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && fchmod(fd, like->st_mode & 07777) == 0 &&
              (fchown(fd, like->st_uid, like->st_gid) == 0 ||
               geteuid() != 0) &&
              ftruncate(fd, like->st_size) == 0 && fsync(fd) == 0 &&
              rename(temporary, path) == 0;
    int saved_errno = errno;

    if (fd >= 0) {
        close(fd);
        if (!ok) {
            unlink(temporary);
        }
    }
    errno = saved_errno;
    return ok;
}

WeirSidecar *weir_sidecar_set_aside(const char *path, GError **error)
{
    WeirSidecar *sidecar = g_new0(WeirSidecar, 1);
    struct stat found;

    /* a symbolic link stays one; NULL if there is no file */
    sidecar->path = realpath(path, NULL);
    sidecar->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (sidecar->fd < 0 && errno == ENOENT) {
        return sidecar;         /* there is nothing to forget */
    }
    if (sidecar->fd < 0 || fstat(sidecar->fd, &found) < 0) {
        sidecar_fail(path, error);
        sidecar_free(sidecar);
        return NULL;
    }
    if (!S_ISREG(found.st_mode)) {
        return sidecar;
    }
    sidecar->kept = g_strconcat(sidecar->path, SIDECAR_KEPT, NULL);
    unlink(sidecar->kept);
    if (link(sidecar->path, sidecar->kept) < 0) {
        sidecar_fail(path, error);
        sidecar_free(sidecar);
        return NULL;
    }
    if (!sidecar_replace(sidecar->path, &found) ||
        !sidecar_sync_dir(sidecar->path)) {
        sidecar_fail(path, error);
        weir_sidecar_put_back(sidecar);
        return NULL;
    }
    return sidecar;
}

void weir_sidecar_put_back(WeirSidecar *sidecar)
{
    if (sidecar->kept) {
        rename(sidecar->kept, sidecar->path);
    }
    sidecar_free(sidecar);
}

void weir_sidecar_leave(WeirSidecar *sidecar)
{
    sidecar_free(sidecar);
}

void weir_sidecar_drop(WeirSidecar *sidecar)
{
    /* QEMU may still have a node open on it */
    if (sidecar->fd >= 0) {
        sidecar_erase(sidecar->fd);
    }
    if (sidecar->kept) {
        unlink(sidecar->kept);
    }
    sidecar_free(sidecar);
}

/* The other name of a sidecar, which the caller frees. */
static char *sidecar_kept(const char *path)
{
    char *real = realpath(path, NULL);
    char *kept = g_strconcat(real ? real : path, SIDECAR_KEPT, NULL);

    free(real);
    return kept;
}

void weir_sidecar_restore(const char *path)
{
    g_autofree char *kept = sidecar_kept(path);
    g_autofree char *real = g_strndup(kept,
                                      strlen(kept) - strlen(SIDECAR_KEPT));
    int fd = open(kept, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return;
    }
    if (weir_file_is_locked(fd)) {
        rename(kept, real);
    }
    close(fd);
}

/* --- when a filter comes --- */

static guint64 sidecar_get(const guint8 *at, int bytes)
{
    guint64 value = 0;

    for (int i = bytes; i > 0; i--) {
        value = value << 8 | at[i - 1];
    }
    return value;
}

/* What is made for a disk in use has sequence 1, and no source in it. */
static bool sidecar_is_used(const guint8 *copies)
{
    for (int i = 0; i < COPIES; i++) {
        const guint8 *header = copies + i * HEADER_BYTES;

        if (memcmp(header, sidecar_magic, sizeof(sidecar_magic)) == 0 &&
            (sidecar_get(header + SEQUENCE_AT, 8) > 1 ||
             sidecar_get(header + LIVES_AT, 4) != 0)) {
            return true;
        }
    }
    return false;
}

bool weir_sidecar_tells(const char *path)
{
    guint8 copies[COPIES * HEADER_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool tells;

    if (fd < 0) {
        return errno != ENOENT;
    }
    tells = pread(fd, copies, sizeof(copies), 0) == (ssize_t)sizeof(copies) &&
            sidecar_is_used(copies);
    close(fd);
    return tells;
}

/* The driver refuses it, and it may still be of use to the other disk. */
static bool sidecar_is_of_another(const guint8 *copies, const char *disk)
{
    const guint8 *header = weir_seed_header(copies);
    g_autofree char *name = header ? weir_seed_disk(header) : NULL;

    return name && disk && strcmp(name, disk) != 0;
}

static bool sidecar_forget(int fd, const char *path, const char *disk,
                           bool *in_use, GError **error)
{
    guint8 copies[COPIES * HEADER_BYTES];

    if (pread(fd, copies, sizeof(copies), 0) != (ssize_t)sizeof(copies) ||
        !sidecar_is_used(copies)) {
        return true;
    }
    *in_use = weir_file_is_locked(fd);
    if (*in_use) {
        weir_set_error(error, "the sidecar %s is in use", path);
        return false;
    }
    return sidecar_is_of_another(copies, disk) || sidecar_erase(fd) ||
           sidecar_fail(path, error);
}

/* *@in_use is set if that is why it fails. */
static bool sidecar_open_and_forget(const char *path, const char *disk,
                                    bool *in_use, GError **error)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    int saved_errno = errno;
    g_autofree char *kept = sidecar_kept(path);
    bool ok;

    unlink(kept);               /* of one that did not know how it ended */
    *in_use = false;
    if (fd < 0) {
        errno = saved_errno;
        return errno == ENOENT || sidecar_fail(path, error);
    }
    ok = sidecar_forget(fd, path, disk, in_use, error);
    close(fd);
    return ok;
}

bool weir_sidecar_forget(const char *path, const char *disk, GError **error)
{
    bool in_use;

    return sidecar_open_and_forget(path, disk, &in_use, error);
}

bool weir_sidecar_forget_unused(const char *path, const char *disk,
                                GError **error)
{
    g_autoptr(GError) local = NULL;
    bool in_use;

    if (sidecar_open_and_forget(path, disk, &in_use, &local) || in_use) {
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return false;
}

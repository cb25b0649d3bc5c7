/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cachefile.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "locks.h"

#define SUPERBLOCK_BYTES 4096
#define COPIES 2
#define CRC_AT 12               /* 4 bytes */
#define SEQUENCE_AT 32          /* 8 bytes */
#define FLAGS_AT 128            /* 4 bytes */
#define FLAG_DIRTY 2
#define FLAG_STALE 8

static const guint8 cache_magic[8] = "WEIRCACH";
/* version 1, and below no incompatible features */
static const guint8 cache_version[4] = { 1 };
static const guint8 cache_features[8] = { 0 };

bool weir_cache_writes_back(const char *mode)
{
    return !mode || strcmp(mode, "write-back") == 0;
}

static guint64 cache_get(const guint8 *at, int bytes)
{
    guint64 value = 0;

    for (int i = bytes; i > 0; i--) {
        value = value << 8 | at[i - 1];
    }
    return value;
}

static void cache_put(guint8 *at, guint64 value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = (guint8)(value >> 8 * i);
    }
}

/* Computed with its own field as zeroes. */
static guint32 cache_crc(const guint8 *superblock)
{
    guint8 copy[SUPERBLOCK_BYTES];

    memcpy(copy, superblock, sizeof(copy));
    cache_put(copy + CRC_AT, 0, 4);
    return crc32_iscsi(copy, sizeof(copy), ~0u);
}

static bool cache_is_blank(const guint8 *superblock)
{
    static const guint8 zeroes[SUPERBLOCK_BYTES];

    return memcmp(superblock, zeroes, sizeof(zeroes)) == 0;
}

static bool cache_is_whole(const guint8 *superblock)
{
    return memcmp(superblock, cache_magic, sizeof(cache_magic)) == 0 &&
           memcmp(superblock + 8, cache_version,
                  sizeof(cache_version)) == 0 &&
           memcmp(superblock + 16, cache_features,
                  sizeof(cache_features)) == 0 &&
           cache_get(superblock + CRC_AT, 4) == cache_crc(superblock);
}

/*
 * The copy that holds: 0 or 1; COPIES: there is no cache; -1: it is damaged, or
 * of a version that is not known here.
 */
static int cache_newest(const guint8 *copies)
{
    int newest = COPIES;

    for (int i = 0; i < COPIES; i++) {
        const guint8 *copy = copies + i * SUPERBLOCK_BYTES;

        if (cache_is_blank(copy)) {
            continue;
        }
        if (!cache_is_whole(copy)) {
            return -1;
        }
        if (newest == COPIES ||
            cache_get(copy + SEQUENCE_AT, 8) >
            cache_get(copies + newest * SUPERBLOCK_BYTES + SEQUENCE_AT, 8)) {
            newest = i;
        }
    }
    return newest;
}

/* To the other copy, so that one of them is whole at each moment. */
static bool cache_mark(int fd, guint8 *superblock)
{
    guint64 sequence = cache_get(superblock + SEQUENCE_AT, 8) + 1;
    off_t offset = (off_t)(sequence % COPIES) * SUPERBLOCK_BYTES;

    cache_put(superblock + SEQUENCE_AT, sequence, 8);
    cache_put(superblock + FLAGS_AT,
              cache_get(superblock + FLAGS_AT, 4) | FLAG_STALE, 4);
    cache_put(superblock + CRC_AT, cache_crc(superblock), 4);
    return pwrite(fd, superblock, SUPERBLOCK_BYTES, offset) ==
           SUPERBLOCK_BYTES && fsync(fd) == 0;
}

static bool cache_fail(const char *path, const char *what, GError **error)
{
    weir_set_error(error, "the cache %s %s", path, what);
    return false;
}

/* Read both superblocks.  Returns false if neither is that of a cache. */
static bool cache_read(int fd, guint8 *copies)
{
    const gssize bytes = COPIES * SUPERBLOCK_BYTES;

    return pread(fd, copies, (gsize)bytes, 0) == bytes &&
           (memcmp(copies, cache_magic, sizeof(cache_magic)) == 0 ||
            memcmp(copies + SUPERBLOCK_BYTES, cache_magic,
                   sizeof(cache_magic)) == 0);
}

/* Whether there is nothing to fear from it, or @error is set. */
static bool cache_forget(int fd, const char *path, bool lose, GError **error)
{
    guint8 copies[COPIES * SUPERBLOCK_BYTES];
    guint64 flags;
    guint8 *superblock;
    int newest;

    if (!cache_read(fd, copies)) {
        return true;            /* the driver takes it if it is blank */
    }
    newest = cache_newest(copies);
    if (newest < 0) {
        return cache_fail(path, "is damaged: if what it has may be lost, make "
                          "it blank", error);
    }
    superblock = copies + newest * SUPERBLOCK_BYTES;
    flags = cache_get(superblock + FLAGS_AT, 4);
    if (flags & FLAG_STALE) {
        return true;
    }
    if (weir_file_is_locked(fd)) {
        return cache_fail(path, "is in use", error);
    }
    if (flags & FLAG_DIRTY && !lose) {
        return cache_fail(path, "has blocks that were not written back to its "
                          "disk: end the VM and start it with both, unless "
                          "the disk was written to since; if they may be "
                          "lost, make it blank", error);
    }
    return cache_mark(fd, superblock) ||
           cache_fail(path, "cannot be marked as old", error);
}

static bool cache_open_and_forget(const char *path, bool lose, GError **error)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    bool ok;

    if (fd < 0) {
        return errno == ENOENT || cache_fail(path, g_strerror(errno), error);
    }
    ok = cache_forget(fd, path, lose, error);
    close(fd);
    return ok;
}

bool weir_cache_file_forget(const char *path, GError **error)
{
    return cache_open_and_forget(path, false, error);
}

bool weir_cache_file_lose(const char *path, GError **error)
{
    return cache_open_and_forget(path, true, error);
}

/* The flags of an open cache, or -1 if it is damaged; a blank one has none. */
static gint64 cache_flags(int fd)
{
    guint8 copies[COPIES * SUPERBLOCK_BYTES];
    int newest;

    if (!cache_read(fd, copies)) {
        return 0;
    }
    newest = cache_newest(copies);
    return newest < 0 ? -1
           : (gint64)cache_get(copies + newest * SUPERBLOCK_BYTES + FLAGS_AT,
                               4);
}

/* Whether it has blocks that its disk does not have. */
static bool cache_is_dirty(int fd)
{
    gint64 flags = cache_flags(fd);

    return flags >= 0 && (flags & (FLAG_DIRTY | FLAG_STALE)) == FLAG_DIRTY;
}

/* A name that no file has. */
static char *cache_other_name(const char *path, const char *image)
{
    g_autofree char *base = g_path_get_basename(image);
    char *name = g_strdup_printf("%s.of-%s", path, base);

    for (guint i = 2; g_file_test(name, G_FILE_TEST_EXISTS); i++) {
        g_free(name);
        name = g_strdup_printf("%s.of-%s-%u", path, base, i);
    }
    return name;
}

bool weir_cache_file_set_aside(const char *path, const char *image, char **to,
                               GError **error)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct stat found;
    bool ok = true;

    *to = NULL;
    if (fd < 0) {
        return errno == ENOENT || cache_fail(path, g_strerror(errno), error);
    }
    if (fstat(fd, &found) == 0 && S_ISREG(found.st_mode) &&
        cache_is_dirty(fd)) {
        g_autofree char *name = cache_other_name(path, image);

        if (weir_file_is_locked(fd)) {
            ok = cache_fail(path, "is in use", error);
        } else if (rename(path, name) < 0) {
            ok = cache_fail(path, g_strerror(errno), error);
        } else {
            *to = g_steal_pointer(&name);
        }
    }
    close(fd);
    return ok;
}

WeirCacheState weir_cache_file_state(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    gint64 flags;

    if (fd < 0) {
        return errno == ENOENT ? WEIR_CACHE_MISSING : WEIR_CACHE_UNREADABLE;
    }
    flags = cache_flags(fd);
    close(fd);
    if (flags < 0) {
        return WEIR_CACHE_DAMAGED;
    }
    return flags & FLAG_DIRTY && !(flags & FLAG_STALE)
           ? WEIR_CACHE_DIRTY : WEIR_CACHE_WRITTEN_BACK;
}

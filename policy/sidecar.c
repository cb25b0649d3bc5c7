/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <string.h>
#include <unistd.h>

#include "locks.h"
#include "seed.h"

#define HEADER_BYTES 4096
#define COPIES 2
#define SEQUENCE_AT 32          /* 8 bytes */
#define CRC_AT 12               /* 4 bytes */
#define FLAGS_AT 164            /* 4 bytes */
#define FLAG_CLEAN 1
#define LIVES_AT 168            /* 4 bytes each, the newest first */
#define GENERATION_AT 184       /* 8 bytes: its number */
#define BLOCK_SECTORS_AT 272    /* 4 bytes */
#define REGIONS_AT 65536
#define REGIONS_BYTES 262144

static const char sidecar_magic[8] = { 'W', 'E', 'I', 'R', 'S', 'I', 'D', 'E' };

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

static guint64 sidecar_get(const guint8 *at, int bytes)
{
    guint64 value = 0;

    for (int i = bytes; i > 0; i--) {
        value = value << 8 | at[i - 1];
    }
    return value;
}

static void sidecar_put(guint8 *at, guint64 value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = (guint8)(value >> 8 * i);
    }
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

/* Regions in damaged sectors count as written to. */
static bool sidecar_damage_regions(int fd)
{
    static const guint8 zeroes[REGIONS_BYTES];

    return pwrite(fd, zeroes, sizeof(zeroes), REGIONS_AT) ==
           (ssize_t)sizeof(zeroes) && fsync(fd) == 0;
}

/*
 * A header that is not clean, and has no region that would be.  What it says of
 * the log stays: one that was promoted takes its disk back by that.  Others do
 * by a blank sidecar, also if the disk has been with another log meanwhile.
 *
 * @header: the one that holds
 */
static bool sidecar_spoil(int fd, const guint8 *header)
{
    guint8 next[HEADER_BYTES];
    guint64 sequence = sidecar_get(header + SEQUENCE_AT, 8) + 1;

    memcpy(next, header, sizeof(next));
    sidecar_put(next + SEQUENCE_AT, sequence, 8);
    sidecar_put(next + FLAGS_AT,
                sidecar_get(next + FLAGS_AT, 4) & ~(guint64)FLAG_CLEAN, 4);
    sidecar_put(next + BLOCK_SECTORS_AT, 0, 4);
    sidecar_put(next + CRC_AT, 0, 4);
    sidecar_put(next + CRC_AT, crc32_iscsi(next, sizeof(next), ~0u), 4);
    return sidecar_damage_regions(fd) &&
           pwrite(fd, next, sizeof(next),
                  (off_t)(sequence % COPIES) * HEADER_BYTES) ==
           (ssize_t)sizeof(next) && fsync(fd) == 0;
}

static bool sidecar_forget(int fd, const char *path, const char *disk,
                           bool *in_use, GError **error)
{
    guint8 copies[COPIES * HEADER_BYTES];
    const guint8 *header;

    if (pread(fd, copies, sizeof(copies), 0) != (ssize_t)sizeof(copies) ||
        !sidecar_is_used(copies)) {
        return true;
    }
    header = weir_seed_header(copies);
    *in_use = weir_file_is_locked(fd);
    if (*in_use) {
        weir_set_error(error, "the sidecar %s is in use", path);
        return false;
    }
    return sidecar_is_of_another(copies, disk) ||
           (header && sidecar_get(header + GENERATION_AT, 8) > 1
            ? sidecar_spoil(fd, header) : sidecar_erase(fd)) ||
           sidecar_fail(path, error);
}

/* *@in_use is set if that is why it fails. */
static bool sidecar_open_and_forget(const char *path, const char *disk,
                                    bool *in_use, GError **error)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    bool ok;

    *in_use = false;
    if (fd < 0) {
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

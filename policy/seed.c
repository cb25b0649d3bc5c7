/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both sidecars name the same group and generation, which no log has, and the
 * commit before the first. So the keeper that makes a log for the copy and the
 * source find out that what either of them says is all that differs.
 */
#include "seed.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SECTOR_BYTES 4096
#define COPIES 2
#define REGIONS_OFFSET 65536
#define BLOCKS_OFFSET (REGIONS_OFFSET + 64 * SECTOR_BYTES)
#define BLOCK_BYTES 65536
#define REGION_BYTES (G_GUINT64_CONSTANT(16) << 20)
#define BITS_AT 32
#define SECTOR_BITS (G_GUINT64_CONSTANT(4064) * 8)
#define NAME_MAX_BYTES 63
#define FLAG_CLEAN 1

/* What both sidecars have in common. */
typedef struct Identity {
    guint8 group[16];
    guint8 generation[32];
    guint8 disk[80];            /* identity, name */
    guint64 bytes;
} Identity;

static const char header_magic[8] = { 'W', 'E', 'I', 'R', 'S', 'I', 'D', 'E' };
static const char blocks_magic[8] = { 'W', 'E', 'I', 'R', 'B', 'L', 'C', 'K' };

static void put(guint8 *at, guint64 value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = value >> 8 * i;
    }
}

static guint64 get(const guint8 *at, int bytes)
{
    guint64 value = 0;

    for (int i = bytes; i > 0; i--) {
        value = value << 8 | at[i - 1];
    }
    return value;
}

/* The field for it is zeroes. */
static guint32 crc(guint8 *sector)
{
    return crc32_iscsi(sector, SECTOR_BYTES, ~0u);
}

static guint64 count(guint64 bytes, guint64 each)
{
    return bytes / each + (bytes % each > 0);
}

static guint64 region_bytes(guint64 bytes)
{
    guint64 region = REGION_BYTES;

    while (count(count(bytes, region), SECTOR_BITS) > 64) {
        region *= 2;
    }
    return region;
}

/* --- writing --- */

static void make_header(guint8 *buf, const Identity *id, guint64 instance)
{
    memset(buf, 0, SECTOR_BYTES);
    memcpy(buf, header_magic, sizeof(header_magic));
    put(buf + 8, 1, 4);
    put(buf + 32, 1, 8);                /* sequence */
    put(buf + 40, instance, 8);
    memcpy(buf + 48, id->group, sizeof(id->group));
    memcpy(buf + 64, id->disk, sizeof(id->disk));
    put(buf + 144, id->bytes, 8);
    put(buf + 152, region_bytes(id->bytes), 8);
    put(buf + 160, BLOCK_BYTES, 4);
    put(buf + 164, FLAG_CLEAN, 4);
    memcpy(buf + 184, id->generation, sizeof(id->generation));
    put(buf + 272, count(count(id->bytes, BLOCK_BYTES), SECTOR_BITS), 4);
    put(buf + 12, crc(buf), 4);
}

/* bits: [sector][4064] */
static void make_blocks(guint8 *buf, guint64 instance, guint32 index,
                        const guint8 *bits)
{
    memset(buf, 0, SECTOR_BYTES);
    memcpy(buf, blocks_magic, sizeof(blocks_magic));
    put(buf + 12, index, 4);
    put(buf + 16, instance, 8);
    put(buf + 24, 1, 8);                /* sequence of the header */
    memcpy(buf + BITS_AT, bits + index * (SECTOR_BITS / 8), SECTOR_BITS / 8);
    put(buf + 8, crc(buf), 4);
}

static bool fail(const char *path, GError **error)
{
    weir_set_error(error, "%s: %s", path, g_strerror(errno));
    return false;
}

static bool write_sector(int fd, const char *path, const guint8 *buf,
                         guint64 offset, GError **error)
{
    return pwrite(fd, buf, SECTOR_BYTES, offset) == SECTOR_BYTES ||
           fail(path, error);
}

/* The header last. */
static bool write_sectors(int fd, const char *path, const Identity *id,
                          const guint8 *bits, GError **error)
{
    guint64 sectors = count(count(id->bytes, BLOCK_BYTES), SECTOR_BITS);
    guint8 buf[SECTOR_BYTES];
    guint64 instance;

    if (getrandom(&instance, sizeof(instance), 0) != sizeof(instance) ||
        ftruncate(fd, BLOCKS_OFFSET + MAX(sectors, 512) * SECTOR_BYTES) < 0) {
        return fail(path, error);
    }
    for (guint64 i = 0; i < sectors; i++) {
        make_blocks(buf, instance, i, bits);
        if (!write_sector(fd, path, buf, BLOCKS_OFFSET + i * SECTOR_BYTES,
                          error)) {
            return false;
        }
    }
    if (fsync(fd) < 0) {
        return fail(path, error);
    }
    make_header(buf, id, instance);
    return write_sector(fd, path, buf, SECTOR_BYTES, error) &&
           (fsync(fd) == 0 || fail(path, error));
}

static bool write_sidecar(const char *path, const Identity *id,
                          const guint8 *bits, GError **error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok;

    if (fd < 0) {
        return fail(path, error);
    }
    ok = write_sectors(fd, path, id, bits, error);
    close(fd);
    if (!ok) {
        unlink(path);
    }
    return ok;
}

static guint8 *new_bits(guint64 bytes)
{
    return g_malloc0(count(count(bytes, BLOCK_BYTES), SECTOR_BITS) *
                     (SECTOR_BITS / 8) + 1);
}

bool weir_seed_begin(const char *path, const char *disk, guint64 bytes,
                     GError **error)
{
    Identity id = { .bytes = bytes };
    g_autofree guint8 *bits = NULL;

    if (strlen(disk) == 0 || strlen(disk) > NAME_MAX_BYTES) {
        weir_set_error(error, "the name of a disk has 1 to %d bytes",
                       NAME_MAX_BYTES);
        return false;
    }
    if (getrandom(id.group, sizeof(id.group), 0) < 0 ||
        getrandom(id.generation + 16, 16, 0) < 0 ||
        getrandom(id.disk, 16, 0) < 0) {
        return fail("random numbers", error);
    }
    put(id.generation, 1, 8);
    put(id.generation + 8, 1, 8);
    memcpy(id.disk + 16, disk, strlen(disk));
    bits = new_bits(bytes);
    return write_sidecar(path, &id, bits, error);
}

/* --- reading --- */

static bool read_copies(const char *path, guint8 *copies, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    gssize got = fd < 0 ? -1 : pread(fd, copies, COPIES * SECTOR_BYTES, 0);

    if (got < 0) {
        fail(path, error);
    } else if (got < COPIES * SECTOR_BYTES) {
        weir_set_error(error, "%s is no sidecar", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return got == COPIES * SECTOR_BYTES;
}

static bool is_whole(const guint8 *copy)
{
    guint8 buf[SECTOR_BYTES];

    memcpy(buf, copy, sizeof(buf));
    put(buf + 12, 0, 4);
    return !memcmp(copy, header_magic, sizeof(header_magic)) &&
           get(copy + 8, 4) == 1 && get(copy + 12, 4) == crc(buf);
}

const guint8 *weir_seed_header(const guint8 *copies)
{
    const guint8 *a = copies, *b = copies + SECTOR_BYTES;

    return !is_whole(a) ? (is_whole(b) ? b : NULL) :
           !is_whole(b) || get(a + 32, 8) > get(b + 32, 8) ? a : b;
}

char *weir_seed_disk(const guint8 *header)
{
    return g_strndup((const char *)header + 80, NAME_MAX_BYTES + 1);
}

/* What was made by weir_seed_begin(), and a source uses, but no log had yet. */
static const char *what_is_wrong(const guint8 *header)
{
    static const guint8 none[56];

    return !header ? "is no sidecar" :
           get(header + 16, 8) != 0 || get(header + 184, 8) != 1 ||
           memcmp(header + 216, none, sizeof(none)) ||
           memcmp(header + 168, none, 16)
           ? "was not made by weir replica seed-begin, or its source has been "
             "connected to a log already" :
           get(header + 164, 4) & FLAG_CLEAN
           ? "is used by no source: nobody would know what is written to the "
             "disk meanwhile" : NULL;
}

static bool read_identity(const char *path, Identity *id, GError **error)
{
    guint8 copies[COPIES * SECTOR_BYTES];
    const guint8 *header;
    const char *why;

    if (!read_copies(path, copies, error)) {
        return false;
    }
    header = weir_seed_header(copies);
    why = what_is_wrong(header);
    if (why) {
        weir_set_error(error, "%s %s", path, why);
        return false;
    }
    memcpy(id->group, header + 48, sizeof(id->group));
    memcpy(id->generation, header + 184, sizeof(id->generation));
    memcpy(id->disk, header + 64, sizeof(id->disk));
    id->bytes = get(header + 144, 8);
    return true;
}

/* --- the copy --- */

typedef struct Differences {
    guint8 *bits;
    guint64 blocks;
} Differences;

static void take_piece(void *opaque, guint64 offset, guint64 bytes)
{
    Differences *d = opaque;
    guint64 end = MIN(count(offset + bytes, BLOCK_BYTES), d->blocks);

    for (guint64 i = offset / BLOCK_BYTES; i < end; i++) {
        d->bits[i / 8] |= 1 << i % 8;   /* sectors have whole bytes */
    }
}

bool weir_seed(const char *source, const char *sidecar, const char *disk,
               const char *image, WeirComparison *result,
               void (*progress)(double done), GError **error)
{
    g_autofree guint8 *bits = NULL;
    Differences d;
    Identity id;

    if (g_file_test(sidecar, G_FILE_TEST_EXISTS)) {
        weir_set_error(error, "%s exists already", sidecar);
        return false;
    }
    if (!read_identity(source, &id, error)) {
        return false;
    }
    bits = new_bits(id.bytes);
    d = (Differences) { bits, count(id.bytes, BLOCK_BYTES) };
    if (!weir_compare_pieces(disk, image, result, take_piece, &d, progress,
                             error)) {
        return false;
    }
    if (result->bytes != id.bytes) {
        weir_set_error(error, "%s is of a disk of %" G_GUINT64_FORMAT " bytes, "
                       "%s has %" G_GUINT64_FORMAT, source, id.bytes, disk,
                       result->bytes);
        return false;
    }
    return write_sidecar(sidecar, &id, bits, error);
}

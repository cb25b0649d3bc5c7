/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a log for base images that have sidecars: what each image lacks is the
 * log's first epoch, then the sidecars are those of bases, then the superblock
 * makes a log of it. (docs/weir-replication-log.md, "Origins")
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "common/zero.h"
#include "replication/lineage.h"
#include "replication/sidecar-bits.h"
#include "replication/writer.h"

#define EMPTY_BYTES (UINT64_C(1) << 20)
#define LACKS_MAX 2048                  /* records of a disk */

/* An image whose sidecar knows something. */
typedef struct Origin {
    const WeirKeeperImage *image;
    WeirSidecar sidecar;
    WeirBitmap lacks;
} Origin;

typedef struct Creation {
    const WeirKeeperHost *host;
    const WeirKeeperImage *images;
    size_t image_count;
    WeirLogSuperblock sb;
    Origin origins[WEIR_LOG_DISKS_MAX];
    size_t count;
    WeirLogWriter writer;
    WeirLogRecord records[LACKS_MAX + 1];
    uint8_t *packet;            /* WEIR_LOG_PACKET_BYTES_MAX */
    char *err;
    size_t err_size;
} Creation;

static int fail(Creation *c, const char *what, int ret)
{
    weir_keeper_say(c->err, c->err_size, "%s: %s", what, strerror(-ret));
    return ret;
}

/* --- what the images lack --- */

static int read_bits(Creation *c, Origin *o)
{
    const WeirSidecarDevice device = {
        .opaque = o->image->base, .read = c->host->read_sidecar,
    };
    int ret = weir_bitmap_init(&o->lacks, o->sidecar.disk_bytes);

    ret = ret < 0 ? ret : weir_sidecar_dirty(&device, &o->sidecar, &o->lacks);
    return ret < 0 ? fail(c, "a sidecar cannot be read", ret) : 0;
}

static int check_sidecar(Creation *c, const WeirKeeperImage *image,
                         const WeirSidecar *sidecar)
{
    if (strcmp(sidecar->disk.name, image->disk)) {
        weir_keeper_say(c->err, c->err_size, "the sidecar of the base image of "
                        "disk '%s' is of disk '%s'", image->disk,
                        sidecar->disk.name);
        return -EINVAL;
    }
    for (size_t i = 0; i < c->count; i++) {
        if (!memcmp(c->origins[i].sidecar.disk.uuid, sidecar->disk.uuid,
                    WEIR_LOG_UUID_BYTES)) {
            weir_keeper_say(c->err, c->err_size, "the sidecars of disks '%s' "
                            "and '%s' are of the same disk",
                            c->origins[i].image->disk, image->disk);
            return -EINVAL;
        }
    }
    return 0;
}

/* An image of another length was not what the sidecar is about. */
static bool knows_image(const Creation *c, const WeirKeeperImage *image,
                        const WeirSidecar *sidecar)
{
    return sidecar->generation.number != 0 &&
           !weir_is_zero(sidecar->disk.uuid, WEIR_LOG_UUID_BYTES) &&
           c->host->length_base(image->base) == (int64_t)sidecar->disk_bytes;
}

static int read_sidecar(Creation *c, const WeirKeeperImage *image)
{
    Origin *o = &c->origins[c->count];
    int ret = weir_keeper_read_sidecar(c->host, image->base, &o->sidecar,
                                       c->err, c->err_size);

    o->image = image;
    if (ret < 0 && ret != -ENOENT && ret != -EBADMSG) {
        return ret;
    }
    if (ret == 0) {
        ret = check_sidecar(c, image, &o->sidecar);
        if (ret < 0) {
            return ret;
        }
    }
    if (ret < 0 || !knows_image(c, image, &o->sidecar)) {
        return 0;               /* then all of it is copied */
    }
    c->count++;
    return read_bits(c, o);
}

static int read_sidecars(Creation *c)
{
    int ret = 0;

    for (size_t i = 0; i < c->image_count && ret == 0; i++) {
        if (c->images[i].sidecar_bytes > 0) {
            ret = read_sidecar(c, &c->images[i]);
        }
    }
    return ret;
}

/* --- the first epoch --- */

static int write_packet(Creation *c, uint32_t records, uint64_t data_bytes,
                        bool commits)
{
    WeirLogPacket p = { .records = records, .commit = commits };
    WeirLogCommit commit;
    struct iovec iov = { .iov_base = c->packet };
    uint64_t bytes = weir_log_head_bytes(records) + data_bytes;
    uint64_t room = weir_log_packet_room(bytes);
    int ret;

    if (weir_log_writer_next(&c->writer, bytes) == WEIR_LOG_NEXT_LAST) {
        return -ENOSPC;
    }
    p.wall_ns = c->host->tasks->wall_ns(c->host->tasks->opaque);
    memset(c->packet + bytes, 0, room - bytes);
    ret = weir_log_writer_put(&c->writer, &p, c->records, c->packet, &commit);
    if (ret < 0) {
        return -ENOSPC;
    }
    iov.iov_len = room;
    return c->host->write_log(c->host->opaque,
                              weir_log_offset(&c->sb, p.position), room, &iov,
                              1);
}

static int write_disks(Creation *c)
{
    uint8_t *at = c->packet + weir_log_head_bytes((uint32_t)c->count);
    uint64_t room = weir_log_data_room(WEIR_LOG_DISK_BYTES);

    memset(at, 0, c->count * room);
    for (size_t i = 0; i < c->count; i++, at += room) {
        const WeirSidecar *sidecar = &c->origins[i].sidecar;

        weir_log_disk_write(at, &sidecar->disk);
        c->records[i] = (WeirLogRecord) {
            .op = WEIR_LOG_DISK, .disk = (uint16_t)i,
            .bytes = sidecar->disk_bytes,
            .crc = weir_log_data_crc(at, WEIR_LOG_DISK_BYTES),
        };
    }
    return write_packet(c, (uint32_t)c->count, c->count * room, false);
}

/*
 * Ranges that are not further apart than `gap` are one. Returns their number;
 * LACKS_MAX + 1: there are more.
 */
static uint32_t list_lacks(const WeirBitmap *lacks, uint64_t gap,
                           WeirLogRecord *records, uint16_t disk)
{
    uint64_t at = 0, offset, bytes;
    uint32_t n = 0;

    while (weir_bitmap_next(lacks, at, UINT64_C(1) << 40, &offset, &bytes)) {
        at = offset + bytes;
        if (n > 0 && offset - records[n - 1].offset -
                     records[n - 1].bytes <= gap) {
            records[n - 1].bytes = at - records[n - 1].offset;
        } else if (n == LACKS_MAX) {
            return LACKS_MAX + 1;
        } else {
            records[n++] = (WeirLogRecord) {
                .op = WEIR_LOG_LACK, .disk = disk, .offset = offset,
                .bytes = bytes,
            };
        }
    }
    return n;
}

static int write_origin(Creation *c, uint16_t disk, bool commits)
{
    const Origin *o = &c->origins[disk];
    uint64_t gap = 0, room = weir_log_data_room(WEIR_LOG_ORIGIN_BYTES);
    WeirLogOrigin origin;
    uint32_t lacks;
    uint8_t *at;

    while ((lacks = list_lacks(&o->lacks, gap, c->records + 1, disk)) >
           LACKS_MAX) {
        gap = gap ? gap * 2 : WEIR_BITMAP_BLOCK_BYTES;
    }
    weir_lineage_of(&origin, &o->sidecar);
    at = c->packet + weir_log_head_bytes(lacks + 1);
    memset(at, 0, room);
    weir_log_origin_write(at, &origin);
    c->records[0] = (WeirLogRecord) {
        .op = WEIR_LOG_ORIGIN, .disk = disk,
        .crc = weir_log_data_crc(at, WEIR_LOG_ORIGIN_BYTES),
    };
    return write_packet(c, lacks + 1, room, commits);
}

static int write_epoch(Creation *c)
{
    const WeirLogCommit begin = { 0 };
    int ret;

    weir_log_writer_init(&c->writer, &c->sb, &begin, WEIR_LOG_KEEPER_SESSION);
    ret = write_disks(c);
    for (uint16_t i = 0; i < c->count && ret == 0; i++) {
        ret = write_origin(c, i, i + 1u == c->count);
    }
    ret = ret < 0 ? ret : c->host->flush_log(c->host->opaque);
    return ret < 0 ? fail(c, "the device cannot be written", ret) : 0;
}

/* --- the log --- */

static int make_bases(Creation *c)
{
    int ret = 0;

    for (size_t i = 0; i < c->image_count && ret == 0; i++) {
        if (c->images[i].sidecar_bytes > 0) {
            ret = weir_keeper_make_base(c->host, &c->images[i], c->sb.group);
        }
    }
    return ret < 0 ? fail(c, "a sidecar cannot be written", ret) : 0;
}

static int write_superblock(Creation *c)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];
    const struct iovec iov = { buf, sizeof(buf) };
    int ret;

    weir_log_superblock_write(buf, &c->sb);
    ret = c->host->write_log(c->host->opaque, c->sb.sequence %
                             WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES,
                             sizeof(buf), &iov, 1);
    ret = ret < 0 ? ret : c->host->flush_log(c->host->opaque);
    return ret < 0 ? fail(c, "the device cannot be written", ret) : 0;
}

static void random_uuid(const WeirTasks *tasks, uint8_t *uuid)
{
    le_put(uuid, tasks->random(tasks->opaque), 8);
    le_put(uuid + 8, tasks->random(tasks->opaque), 8);
}

static int check_empty(Creation *c, uint64_t device_bytes)
{
    uint64_t bytes = device_bytes < EMPTY_BYTES ? device_bytes : EMPTY_BYTES;
    uint8_t *buf = malloc(bytes);
    int ret = buf ? c->host->read_log(c->host->opaque, 0, bytes, buf)
                  : -ENOMEM;

    if (ret < 0) {
        fail(c, "the device cannot be read", ret);
    } else if (!weir_is_zero(buf, bytes)) {
        weir_keeper_say(c->err, c->err_size, "the device is not empty: a new "
                        "replication log needs one whose first MiB is zeroes");
        ret = -EEXIST;
    }
    free(buf);
    return ret;
}

/* With an index, where it pays and there is room for it. */
static int choose_shape(WeirLogSuperblock *sb, uint64_t device_bytes)
{
    uint64_t segment_bytes = sb->segment_bytes;
    int ret;

    sb->chapter_bytes = 1;
    ret = weir_log_superblock_shape(sb, device_bytes);
    if (ret == 0 ? sb->segments < WEIR_KEEPER_INDEXED_SEGMENTS_MIN
                 : ret == -ENOSPC) {
        *sb = (WeirLogSuperblock) { .segment_bytes = segment_bytes };
        ret = weir_log_superblock_shape(sb, device_bytes);
    }
    return ret;
}

static int shape(Creation *c, uint64_t device_bytes)
{
    int ret = choose_shape(&c->sb, device_bytes);

    if (ret < 0) {
        weir_keeper_say(c->err, c->err_size, ret == -EINVAL
                        ? "a replication log has segments of 8 MiB to 1 GiB, "
                          "a multiple of 4096 bytes"
                        : "a device of %llu bytes is too small for a "
                          "replication log of 4 segments",
                        (unsigned long long)device_bytes);
        return ret;
    }
    random_uuid(c->host->tasks, c->sb.group);
    random_uuid(c->host->tasks, c->sb.history[0].uuid);
    return 0;
}

static int create(Creation *c, uint64_t device_bytes)
{
    int ret = shape(c, device_bytes);

    ret = ret < 0 ? ret : check_empty(c, device_bytes);
    ret = ret < 0 ? ret : read_sidecars(c);
    c->sb.has_origins = c->count > 0;
    ret = ret < 0 || c->count == 0 ? ret : write_epoch(c);
    ret = ret < 0 ? ret : make_bases(c);
    return ret < 0 ? ret : write_superblock(c);
}

int weir_keeper_create(const WeirKeeperHost *host, uint64_t device_bytes,
                       uint64_t segment_bytes, const WeirKeeperImage *images,
                       size_t count, char *err, size_t err_size)
{
    Creation *c = calloc(1, sizeof(*c));
    int ret = -ENOMEM;

    if (c) {
        c->packet = malloc(WEIR_LOG_PACKET_BYTES_MAX);
    }
    if (c && c->packet) {
        c->host = host;
        c->images = images;
        c->image_count = count;
        c->sb.segment_bytes = segment_bytes;
        c->err = err;
        c->err_size = err_size;
        ret = create(c, device_bytes);
        for (size_t i = 0; i < c->count; i++) {
            weir_bitmap_destroy(&c->origins[i].lacks);
        }
        free(c->packet);
    } else {
        weir_keeper_say(err, err_size, "no memory");
    }
    free(c);
    return ret;
}

int weir_keeper_format(const WeirKeeperHost *host, uint64_t device_bytes,
                       uint64_t segment_bytes, char *err, size_t err_size)
{
    return weir_keeper_create(host, device_bytes, segment_bytes, NULL, 0, err,
                              err_size);
}

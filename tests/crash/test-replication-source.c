/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests use two disks of one group, whose source sends all to a log, in every
 * second life compressed, and notes in sidecars what the log may not have; a
 * keeper applies what is there to two base images. Requests fail, the log goes
 * away, the source ends and begins again, in good order or by a power cut.
 *
 * Before and after requests end, all devices are cut in some way. Each point in
 * time that the log has then must be an exact prefix of what was done to the
 * disks, with all that somebody was told to be safe. Then a source begins with
 * what is left; when it has caught up, the last point must be what the disks
 * are, and when it has ended in good order the next one must copy nothing.
 *
 * usage: test-replication-source [--seed N] [--runs N] [--mode MODE]
 *            [--every N] [--full 1] [--mutation RULE]
 * MODE: 0 async, 1 flush-sync, 2 write-sync.
 * --every N: devices are cut at one of so many instants. --full 1: the keeper
 * frees nothing before the log is full.
 * With --mutation the engine leaves a rule out, and the test passes only when
 * it finds something wrong. RULE: 1, a region's bit is not flushed before the
 * write; 2, it is cleared before the log has all; 3, epochs are points while
 * there are dirty blocks; 4, blocks are copied without locking their range; 5,
 * what is queued when a source ends counts as copied; 6, the superblock with
 * the tail is not flushed before the space is used; 7, the disk is not flushed
 * before a region's bit is cleared; 8, a write that was only marked is not; 9,
 * a request that failed leaves its blocks clean; 10, a log that is behind what
 * the sidecar knows is gone on with; 15, what may not be durable is not written
 * again; 16, a flush during which another has failed counts; 17, a disk that is
 * used on without the source is left as if all of it was in the log.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"
#include "cooptasks.h"
#include "memdisk.h"
#include "prefix.h"
#include "replication/bitmap.h"
#include "replication/compress.h"
#include "replication/scan.h"
#include "replication/source.h"
#include "report.h"

#define SEGMENT_BYTES WEIR_LOG_SEGMENT_BYTES_MIN
#define LOG_BYTES (WEIR_LOG_RING_OFFSET + 4 * SEGMENT_BYTES)
#define DISKS PREFIX_DISKS
#define SECTOR PREFIX_SECTOR
#define DISK_BYTES (PREFIX_BYTES / 4 * 3)       /* at first */
#define SIDECAR_BYTES (400 << 10)
#define GUESTS 5
#define REQUESTS 250                    /* in each life */
#define REQUEST_SECTORS_MAX 40
#define DEVICES (1 + 2 * DISKS)

/* Somewhere where a source runs. */
typedef struct World {
    MemDisk devices[DEVICES];           /* log, disks, sidecars */
    WeirSource *source;
    WeirSourceDisk *disks[DISKS];
    WeirLogSuperblock sb;               /* the keeper's */
    PrefixImage base;                   /* at the anchor of sb */
    PrefixImage next;                   /* at that which it is writing */
    CoopClock clock;
    uint32_t power;                     /* how often that of the log went */
    uint32_t connection;                /* the source's: dead when not power */
    bool connecting, keeping, runs;
    bool lazy;                          /* the keeper is */
    uint32_t looks;                     /* of the source, at the superblock,
                                           since the keeper has done a thing */
    bool dark;                          /* its own power is off */
    bool away;                          /* the log is not to be reached */
} World;

static World worlds[2];                 /* the one that is cut, what is left */
static World *w;

static struct {
    WeirSourceMode mode;
    WeirSourceOnLoss on_loss;
    uint32_t requests, guests, resizing;
    uint32_t busy;                      /* guests with a request under way */
    CoopQueue idle;
    uint32_t stamp;
    bool saved;                         /* there is a backup of the log */
    bool tidy;                          /* this life ends when all is sent */
    uint32_t safe;                      /* so much is there for good */
} t;

static uint64_t seed_now, every = 40, full;
static uint64_t instants, cuts, points, lives, failed, copied, marks, packed;
static WeirDecompressor *decompressor;
unsigned weir_source_mutation;

static void use(World *world)
{
    w = world;
    coop_clock = &world->clock;
}

static MemDisk *log_of(World *world)
{
    return &world->devices[0];
}

static MemDisk *disk_of(World *world, int i)
{
    return &world->devices[1 + i];
}

static MemDisk *sidecar_of(World *world, int i)
{
    return &world->devices[1 + DISKS + i];
}

static void place(void)
{
    printf(" (seed %llu, mode %u/%u, instant %llu, life %llu)",
           (unsigned long long)seed_now, (unsigned)t.mode,
           (unsigned)t.on_loss, (unsigned long long)instants,
           (unsigned long long)lives);
}

/* --- the source's host: disks --- */

static uint8_t *gather(uint64_t bytes, const struct iovec *iov, size_t niov)
{
    uint8_t *all = malloc(bytes), *to = all;

    for (size_t i = 0; i < niov; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    if (to != all + bytes) {
        fail("a request of %llu bytes has %td", (unsigned long long)bytes,
             to - all);
    }
    return all;
}

/* What was done, whether it has failed or not, before anybody is told. */
static void note(MemDisk *disk, uint64_t offset, uint64_t bytes)
{
    if (w == &worlds[0] && !w->dark) {
        prefix_change((int)(disk - disk_of(w, 0)), offset, bytes, disk->now);
    }
}

static int read_disk(void *disk, uint64_t offset, uint64_t bytes, void *buf)
{
    return memdisk_request(disk, MEM_READ, offset, bytes, NULL, buf);
}

static int write_disk(void *disk, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags)
{
    uint8_t *all = gather(bytes, iov, niov);
    int ret = memdisk_request(disk, MEM_WRITE, offset, bytes, all, NULL);

    free(all);
    if (ret == 0 && (flags & WEIR_SOURCE_FUA)) {
        ret = memdisk_request(disk, MEM_FLUSH, 0, 0, NULL, NULL);
    }
    note(disk, offset, bytes);
    return ret;
}

static int zero_disk(void *disk, uint64_t offset, uint64_t bytes,
                     unsigned flags)
{
    int ret = memdisk_request(disk, MEM_ZERO, offset, bytes, NULL, NULL);

    (void)flags;
    note(disk, offset, bytes);
    return ret;
}

static int discard_disk(void *disk, uint64_t offset, uint64_t bytes)
{
    return zero_disk(disk, offset, bytes, 0);
}

static int flush_disk(void *disk)
{
    return memdisk_request(disk, MEM_FLUSH, 0, 0, NULL, NULL);
}

static int status_disk(void *opaque, uint64_t offset, uint64_t bytes,
                       uint64_t *extent_bytes, bool *zero)
{
    const MemDisk *disk = opaque;
    uint64_t n = 0, end = disk->bytes - offset < bytes ? disk->bytes - offset
                                                       : bytes;
    bool first;

    if (offset >= disk->bytes) {
        return -EIO;
    }
    first = weir_is_zero(disk->now + offset, SECTOR);
    while (n < end && weir_is_zero(disk->now + offset + n, SECTOR) == first) {
        n += SECTOR;
    }
    *zero = first;
    *extent_bytes = n < end ? n : end;
    return 0;
}

static int find_disk(const void *disk)
{
    return (int)((const MemDisk *)disk - disk_of(w, 0));
}

static int read_sidecar(void *disk, uint64_t offset, uint64_t bytes,
                        void *buf)
{
    return memdisk_request(sidecar_of(w, find_disk(disk)), MEM_READ, offset,
                           bytes, NULL, buf);
}

static int write_sidecar(void *disk, uint64_t offset, uint64_t bytes,
                         const void *buf)
{
    return memdisk_request(sidecar_of(w, find_disk(disk)), MEM_WRITE, offset,
                           bytes, buf, NULL);
}

static int flush_sidecar(void *disk)
{
    return memdisk_request(sidecar_of(w, find_disk(disk)), MEM_FLUSH, 0, 0,
                           NULL, NULL);
}

/* --- log --- */

/* Whoever talks to the log notices when it was gone meanwhile. */
static int request_log(uint32_t since, MemOp op, uint64_t offset,
                       uint64_t bytes, const void *data, void *buf)
{
    int ret = since == w->power && !w->dark
              ? memdisk_request(log_of(w), op, offset, bytes, data, buf)
              : -EIO;

    return since == w->power ? ret : -EIO;
}

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    w->looks += offset == 0;
    return request_log(w->connection, MEM_READ, offset, bytes, NULL, buf);
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    uint8_t *all = gather(bytes, iov, niov);
    int ret;

    (void)opaque;
    ret = request_log(w->connection, MEM_WRITE, offset, bytes, all, NULL);
    free(all);
    return ret;
}

static int flush_log(void *opaque)
{
    (void)opaque;
    return request_log(w->connection, MEM_FLUSH, 0, 0, NULL, NULL);
}

static const WeirSourceHost host = {
    .read_disk = read_disk, .write_disk = write_disk, .zero_disk = zero_disk,
    .discard_disk = discard_disk, .flush_disk = flush_disk,
    .status_disk = status_disk, .read_sidecar = read_sidecar,
    .write_sidecar = write_sidecar, .flush_sidecar = flush_sidecar,
    .read_log = read_log, .write_log = write_log, .flush_log = flush_log,
};

static bool turn(void)
{
    uint32_t first = coop_below(DEVICES);

    w->clock.now_ns += 1000;
    if (coop_below(2) && coop_step()) {
        return true;
    }
    for (uint32_t i = 0; i < DEVICES; i++) {
        if (memdisk_step(&w->devices[(first + i) % DEVICES])) {
            return true;
        }
    }
    return coop_step() || coop_fire_timer();
}

/* --- state --- */

static WeirSourceState state(void)
{
    WeirSourceInfo info;

    weir_source_info(w->source, &info);
    return info.state;
}

static bool is_connected(void)
{
    return state() == WEIR_SOURCE_SYNCHRONISING ||
           state() == WEIR_SOURCE_STREAMING;
}

static bool has_all(void)
{
    WeirSourceInfo info;

    weir_source_info(w->source, &info);
    return info.state == WEIR_SOURCE_STREAMING && info.rpo_ns == 0;
}

static uint64_t to_copy(void)
{
    uint64_t bytes = 0;

    for (int i = 0; i < DISKS; i++) {
        WeirSourceDiskInfo info;

        weir_source_disk_info(w->disks[i], &info);
        bytes += info.resync_bytes;
    }
    return bytes;
}

/* --- what the log holds --- */

static void set_length(PrefixImage *image, int disk, uint64_t bytes)
{
    if (bytes > image->bytes[disk]) {
        memset(image->data[disk] + image->bytes[disk], 0,
               bytes - image->bytes[disk]);
    }
    image->bytes[disk] = bytes;
}

static void apply_write(PrefixImage *image, const WeirLogRecord *r,
                        const uint8_t *data)
{
    uint8_t *to = image->data[r->disk] + r->offset;

    if (r->packed_bytes == 0) {
        memcpy(to, data, r->bytes);
    } else if (weir_decompress(decompressor, data, r->packed_bytes, to,
                               r->bytes) < 0) {
        fail("what was compressed cannot be decompressed");
    }
    if (weir_log_data_crc(to, r->bytes) != r->crc) {
        fail("a record is not what was written");
    }
    packed += r->packed_bytes > 0;
}

static void apply_record(PrefixImage *image, const WeirLogRecord *r,
                         const uint8_t *data)
{
    switch (r->op) {
    case WEIR_LOG_WRITE:
        apply_write(image, r, data);
        break;
    case WEIR_LOG_ZERO:
    case WEIR_LOG_DISCARD:
        memset(image->data[r->disk] + r->offset, 0, r->bytes);
        break;
    case WEIR_LOG_RESIZE:
    case WEIR_LOG_DISK:
        set_length(image, r->disk, r->bytes);
        break;
    default:
        break;
    }
}

/* The moment that a mark names; PREFIX_NONE: there is none. */
static uint32_t apply(const WeirLogScan *scan, PrefixImage *image)
{
    const uint8_t *data = scan->buf + scan->packet.head_bytes;
    uint32_t mark = PREFIX_NONE;

    for (uint32_t i = 0; i < scan->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, scan->buf, i);
        if (r.op != WEIR_LOG_MARK && r.op != WEIR_LOG_RESIZE &&
            r.op != WEIR_LOG_DISK &&
            r.offset + r.bytes > image->bytes[r.disk]) {
            fail("a record reaches behind the end of disk %u", r.disk);
        }
        if (r.op == WEIR_LOG_MARK) {
            mark = (uint32_t)strtoul((const char *)data, NULL, 10);
        } else {
            apply_record(image, &r, data);
        }
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
    return mark;
}

static int read_left(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    memcpy(buf, log_of(opaque)->now + offset, bytes);
    return 0;
}

/*
 * The log of a world: the last point, in *last, and what is behind it. Each
 * point is a prefix. Returns how long that of the last one is; PREFIX_NONE: the
 * base is none, and the log has no point.
 */
static uint32_t read_points(World *world, PrefixImage *last, bool check)
{
    static PrefixImage image;
    WeirLogSuperblock sb;
    WeirLogScan scan;
    char err[256];
    uint32_t at = 0, mark = PREFIX_NONE, found = PREFIX_NONE;

    if (weir_log_superblock_read(&sb, log_of(world)->now, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("%s", err);
    }
    image = sb.anchor.epoch == world->sb.anchor.epoch ? world->base
                                                      : world->next;
    *last = image;
    weir_log_scan_init(&scan, read_left, world, &sb, &sb.anchor);
    for (int ret = weir_log_scan_next(&scan); ret >= 0;
         ret = weir_log_scan_next(&scan)) {
        uint32_t named = apply(&scan, &image);

        mark = named == PREFIX_NONE ? mark : named;
        if (ret == 1 && scan.cursor.consistent) {
            *last = image;
            points++;
            at = check ? prefix_find(&image, at) : 0;
            found = at;
            if (at == PREFIX_NONE) {
                fail("epoch %llu is no prefix of what was done",
                     (unsigned long long)scan.cursor.commit.epoch);
            }
            if (check && mark != PREFIX_NONE) {
                marks++;
                if (prefix_find(&image, mark) != mark) {
                    fail("the mark at %u is not what was there", mark);
                }
            }
        }
        mark = ret == 1 ? PREFIX_NONE : mark;
    }
    weir_log_scan_destroy(&scan);
    return found;
}

/* --- the keeper --- */

static int read_kept(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    return request_log(*(uint32_t *)opaque, MEM_READ, offset, bytes, NULL,
                       buf);
}

/* One that was written, though its flush failed, is the one to go on with. */
static bool take_superblock(uint32_t since)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb;
    char err[256];

    if (read_kept(&since, 0, sizeof(copies), copies) < 0 ||
        request_log(since, MEM_FLUSH, 0, 0, NULL, NULL) < 0) {
        return false;
    }
    if (weir_log_superblock_read(&sb, copies, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("keeper: %s", err);
    }
    if (sb.sequence > w->sb.sequence) {
        w->sb = sb;
        w->base = w->next;
    }
    return true;
}

static void write_superblock(uint32_t since, WeirLogSuperblock *sb)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];
    uint32_t turns = coop_below(2) ? coop_below(400) : 0;

    sb->tail = sb->anchor.end - sb->anchor.end % SEGMENT_BYTES;
    sb->sequence++;
    weir_log_superblock_write(buf, sb);
    if (request_log(since, MEM_WRITE, sb->sequence % WEIR_LOG_SUPERBLOCKS *
                    WEIR_LOG_SUPERBLOCK_BYTES, sizeof(buf), buf, NULL) < 0) {
        return;
    }
    /* others may use the space meanwhile, if they see to it themselves */
    for (uint32_t i = 0, looks = w->looks; full && i < 300000 &&
         looks == w->looks && since == w->power; i++) {
        coop_ready(coop_self());
        coop_suspend();
    }
    while (turns-- > 0) {
        coop_ready(coop_self());
        coop_suspend();
    }
    if (request_log(since, MEM_FLUSH, 0, 0, NULL, NULL) == 0) {
        w->sb = *sb;
        w->base = w->next;
    }
}

/* Apply what is there for good up to a point, and free it. */
static void keep(void *arg)
{
    uint32_t since = w->power;
    PrefixImage *image = malloc(sizeof(*image));
    WeirSourceInfo info;
    WeirLogScan scan;
    WeirLogSuperblock sb;

    (void)arg;
    if (!take_superblock(since)) {
        free(image);
        w->keeping = false;
        return;
    }
    sb = w->sb;
    weir_source_info(w->source, &info);
    *image = w->base;
    weir_log_scan_init(&scan, read_kept, &since, &w->sb, &w->sb.anchor);
    for (int ret = 0; ret >= 0 && scan.cursor.commit.epoch < info.epoch;) {
        ret = weir_log_scan_next(&scan);
        if (ret >= 0) {
            apply(&scan, image);
        }
        if (ret == 1 && scan.cursor.consistent) {
            w->next = *image;
            sb.anchor = scan.cursor.commit;
        }
    }
    weir_log_scan_destroy(&scan);
    if (sb.anchor.epoch > w->sb.anchor.epoch) {
        write_superblock(since, &sb);
    }
    free(image);
    w->keeping = false;
}

/* --- a life of a source --- */

static void run_source(void *arg)
{
    (void)arg;
    weir_source_run(w->source);
    w->runs = false;
}

static void connect_source(void *arg)
{
    char err[256] = "";
    int ret;

    (void)arg;
    w->connection = w->power;
    ret = weir_source_connect(w->source, LOG_BYTES, err, sizeof(err));
    if (ret == -ESTALE || ret == -EINVAL || ret == -ENOSPC) {
        fail("connecting: %s", err);
    }
    w->connecting = false;
    w->looks = 0;
}

/* The source looks for room again and again. */
static bool is_time_to_keep(void)
{
    return full ? w->looks > 3 : coop_below(w->lazy ? 5000 : 200) == 0;
}

static void tend(void)
{
    const MemFault *fault = &log_of(w)->fault[MEM_FLUSH];

    if (w->runs && !is_connected() && !w->connecting && !w->away &&
        coop_below(50) == 0) {
        w->connecting = true;
        coop_spawn(connect_source, NULL);
    }
    if (w->runs && !w->keeping && !(fault->forgets && fault->times > 0) &&
        is_time_to_keep()) {
        w->keeping = true;
        w->looks = 0;
        coop_spawn(keep, NULL);
    }
}

static void open_disks(void *arg)
{
    for (int i = 0; i < DISKS; i++) {
        char name[16], err[256] = "";
        int ret;

        snprintf(name, sizeof(name), "disk%d", i);
        if (weir_source_add_disk(w->source, name, disk_of(w, i)->bytes,
                                 disk_of(w, i), true, &w->disks[i]) < 0) {
            fail("no disk");
        }
        ret = weir_source_open_sidecar(w->disks[i], SIDECAR_BYTES, err,
                                       sizeof(err));
        if (ret < 0 && ret != -EIO) {
            fail("opening a sidecar: %s", err);
        }
        if (ret < 0) {
            *(bool *)arg = false;
        }
    }
}

/* False: a sidecar could not be opened; then it is to be tried again. */
static bool open_source(void)
{
    const WeirSourceConfig config = {
        .mode = t.mode, .on_loss = t.on_loss, .epoch_interval_ns = 300000,
        .epoch_bytes = 100 << 10,
        .max_memory_bytes = (256 + coop_below(1000)) << 10,
        .compress = (lives + seed_now) % 2,
    };
    bool ok = true;

    if (weir_source_new(&w->source, &coop_tasks, &host, NULL, &config) < 0) {
        fail("no source");
    }
    coop_spawn(open_disks, &ok);
    while (coop_alive() > 0) {
        if (!turn()) {
            fail("a sidecar is opened for ever");
        }
    }
    return ok;
}

static void close_disks(void *arg)
{
    (void)arg;
    for (int i = 0; i < DISKS; i++) {
        weir_source_close_disk(w->disks[i]);
    }
}

/* Nobody uses it any more. tidy: it ends in good order. */
static void close_source(bool tidy)
{
    weir_source_stop(w->source);
    while (w->runs) {
        if (tidy) {
            tend();
        }
        if (!turn()) {
            fail("it does not end");
        }
    }
    while (turn()) {
    }
    if (tidy) {
        coop_spawn(close_disks, NULL);
        while (turn()) {
        }
    }
    if (coop_alive() > 0) {
        fail("somebody waits for ever");
    }
    weir_source_free(w->source);
    w->source = NULL;
    w->connecting = w->keeping = false;
}

static void begin_life(void)
{
    while (!open_source()) {
        weir_source_free(w->source);
    }
    w->runs = true;
    coop_spawn(run_source, NULL);
}

/* --- what is left by a cut --- */

/* The last point is what the disks are. */
static void compare(const char *when)
{
    static PrefixImage last;

    read_points(w, &last, false);
    for (int i = 0; i < DISKS; i++) {
        MemDisk *disk = disk_of(w, i);

        if (last.bytes[i] != disk->bytes) {
            fail("%s: disk %d has %llu bytes, the last point %llu", when, i,
                 (unsigned long long)disk->bytes,
                 (unsigned long long)last.bytes[i]);
        }
        for (uint64_t at = 0; at < disk->bytes; at += SECTOR) {
            if (memcmp(last.data[i] + at, disk->now + at, SECTOR)) {
                fail("%s: sector %llu of disk %d is not what the last point "
                     "says", when, (unsigned long long)at / SECTOR, i);
            }
        }
    }
}

static void catch_up(void)
{
    uint64_t turns = 0;

    while (!has_all() || w->connecting) {
        tend();
        if (!turn() && ++turns > 10000) {
            fail("it does not catch up");
        }
    }
}

static void settle(void)
{
    while (w->keeping) {
        turn();
    }
}

/* A source begins with what is there, catches up, ends, and begins again. */
static void recover(void)
{
    begin_life();
    copied += to_copy();
    catch_up();
    close_source(true);
    compare("after a cut");
    begin_life();
    if (to_copy() > 0) {
        fail("it ended in good order, and %llu bytes are to copy",
             (unsigned long long)to_copy());
    }
    catch_up();
    close_source(true);
    compare("after a restart");
}

static void leave(World *left, MemCut local, MemCut log)
{
    World *from = &worlds[0];

    for (int i = 0; i < DEVICES; i++) {
        memdisk_cut(&from->devices[i], &left->devices[i],
                    i == 0 ? log : local, 0);
    }
    left->sb = from->sb;
    left->base = from->base;
    left->next = from->next;
    left->clock = (CoopClock) { .now_ns = from->clock.now_ns };
    left->power = left->connection = 0;
}

/* The keeper's of what is left: as its log has it. */
static void take_keeper(World *left)
{
    WeirLogSuperblock sb;
    char err[256];

    if (weir_log_superblock_read(&sb, log_of(left)->now, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("%s", err);
    }
    left->base = sb.anchor.epoch == left->sb.anchor.epoch ? left->base
                                                          : left->next;
    left->sb = sb;
}

static void cut_here(MemCut local, MemCut log)
{
    static PrefixImage last;
    World *left = &worlds[1];
    CoopParked *parked;
    uint32_t found;

    leave(left, local, log);
    found = read_points(left, &last, true);
    if (found == PREFIX_NONE) {
        found = prefix_find(&last, 0);
    }
    /* found is the first moment with that; others may have changed nothing */
    if (t.safe > 0 && prefix_find(&last, t.safe) == PREFIX_NONE) {
        fail("so much was safe: %u; the last point has %u", t.safe, found);
    }
    take_keeper(left);
    parked = coop_park();
    use(left);
    recover();
    use(&worlds[0]);
    coop_unpark(parked);
    cuts++;
}

static MemCut any_cut(void)
{
    static const MemCut kinds[] = { MEM_CUT_ALL, MEM_CUT_DROP, MEM_CUT_KEEP,
                                    MEM_CUT_TEAR, MEM_CUT_RANDOM,
                                    MEM_CUT_HOLES };

    return kinds[coop_below(6)];
}

/* What forgets must not be cut: it breaks its word on purpose. */
static void at_end_of_request(MemDisk *disk, MemOp op, bool after)
{
    (void)disk;
    (void)after;
    if (w != &worlds[0] || op == MEM_READ || w->dark) {
        return;
    }
    instants++;
    if (coop_below((uint32_t)every) == 0) {
        cut_here(any_cut(), coop_below(2) ? MEM_CUT_ALL : any_cut());
    }
}

/* --- guests --- */

static bool is_over(void)
{
    return t.requests >= REQUESTS || w->dark;
}

static void resized(int disk)
{
    if (!w->dark) {
        prefix_resize(disk, disk_of(w, disk)->bytes, disk_of(w, disk)->now);
    }
}

static int do_resize(void *arg)
{
    const uint64_t *what = arg;
    int ret = memdisk_request(disk_of(w, (int)what[0]), MEM_RESIZE, what[1], 0,
                              NULL, NULL);

    if (ret == 0) {
        resized((int)what[0]);
    }
    return ret;
}

/* Alone, as the block layer has it. */
static void resize_some(void)
{
    uint64_t what[2] = {
        coop_below(DISKS),
        PREFIX_BYTES / 2 + coop_below(PREFIX_SECTORS / 2 + 1) * SECTOR,
    };

    if (t.resizing) {
        return;
    }
    t.resizing = 1;
    while (t.busy > 1) {
        coop_queue_wait(&t.idle);
    }
    if (!w->dark) {
        weir_source_resize(w->disks[what[0]], what[1], do_resize, what);
    }
    t.resizing = 0;
}

/* Most of a while is in one part of the disk; others have time to cool down. */
static uint32_t some_sector(uint32_t all, uint32_t sectors)
{
    uint32_t from = t.requests / 50 * 37 % (all / 2);

    return coop_below(20) == 0 ? coop_below(all - sectors + 1) :
           from + sectors + 24 < all ? from + coop_below(24) : all - sectors;
}

static void write_some(int disk)
{
    uint32_t all = (uint32_t)(disk_of(w, disk)->bytes / SECTOR);
    uint32_t sectors = 1 + coop_below(coop_below(30) ? REQUEST_SECTORS_MAX
                                                     : all * 9 / 10);
    uint64_t offset = some_sector(all, sectors) * SECTOR;
    uint64_t bytes = (uint64_t)sectors * SECTOR;
    uint8_t *data = malloc(bytes);
    size_t half = (size_t)coop_below(sectors + 1) * SECTOR;
    struct iovec iov[2] = { { data, half }, { data + half, bytes - half } };
    unsigned flags = coop_below(8) ? 0 : WEIR_SOURCE_FUA;
    uint32_t before = prefix_count();
    bool promised = state() == WEIR_SOURCE_STREAMING;

    prefix_stamp(data, bytes, ++t.stamp);
    if (weir_source_write(w->disks[disk], offset, bytes, iov, 2, flags) < 0) {
        failed++;
    } else if (t.mode == WEIR_SOURCE_WRITE_SYNC &&
               t.on_loss != WEIR_SOURCE_DEGRADE && promised &&
               before > t.safe && !w->dark) {
        t.safe = before;
    }
    free(data);
}

static void erase_some(int disk)
{
    uint32_t all = (uint32_t)(disk_of(w, disk)->bytes / SECTOR);
    uint32_t sectors = 1 + coop_below(coop_below(10) ? 30 : all / 2);
    uint64_t offset = some_sector(all, sectors) * SECTOR;
    int ret;

    if (coop_below(2)) {
        ret = weir_source_zero(w->disks[disk], offset, sectors * SECTOR, 0);
    } else {
        ret = weir_source_discard(w->disks[disk], offset, sectors * SECTOR);
    }
    failed += ret < 0;
}

/* In good order: first the disks, then the log. */
static void flush_some(int disk)
{
    uint32_t before = prefix_count();
    bool promised = state() == WEIR_SOURCE_STREAMING;

    if (flush_disk(disk_of(w, disk)) < 0 || w->dark) {
        return;
    }
    if (weir_source_flush(w->disks[disk]) == 0 && !w->dark && promised &&
        t.mode != WEIR_SOURCE_ASYNC && t.on_loss != WEIR_SOURCE_DEGRADE) {
        t.safe = before > t.safe ? before : t.safe;
    }
}

static void mark_some(void)
{
    char name[32], err[256] = "";

    snprintf(name, sizeof(name), "%u moments", prefix_count());
    if (weir_source_mark(w->source, name, coop_below(2), err,
                         sizeof(err)) < 0 && !err[0]) {
        fail("there is no mark, and no reason");
    }
}

static void do_something(void)
{
    int disk = (int)coop_below(DISKS);

    switch (coop_below(40)) {
    case 0:
        resize_some();
        break;
    case 1: case 2:
        mark_some();
        break;
    case 3: case 4: case 5: case 6:
        erase_some(disk);
        break;
    case 7: case 8: case 9: case 10:
        flush_some(disk);
        break;
    default:
        write_some(disk);
    }
}

static void be_guest(void *arg)
{
    (void)arg;
    while (!is_over()) {
        while (t.resizing && !is_over()) {
            coop_queue_wait(&t.idle);
        }
        t.requests++;
        t.busy++;
        do_something();
        t.busy--;
        coop_queue_wake(&t.idle);
    }
    t.guests--;
    coop_queue_wake(&t.idle);
}

/* --- what the world does --- */

static void fail_soon(MemDisk *disk, MemOp op)
{
    disk->fault[op] = (MemFault) { .after = coop_below(6), .times = 1,
                                   .error = -EIO };
}

static void disturb(void)
{
    int disk = (int)coop_below(DISKS);

    switch (coop_below(2500)) {
    case 0: case 1:
        memdisk_power_off(log_of(w), any_cut());
        memdisk_power_on(log_of(w));
        w->power++;
        break;
    case 2:
        fail_soon(log_of(w), MEM_WRITE);
        break;
    case 3:
        /* a keeper would have to write its superblock again */
        fail_soon(log_of(w), MEM_FLUSH);
        log_of(w)->fault[MEM_FLUSH].forgets = !w->keeping;
        break;
    case 4:
        fail_soon(disk_of(w, disk), coop_below(2) ? MEM_WRITE : MEM_ZERO);
        break;
    case 5:
        fail_soon(disk_of(w, disk), coop_below(2) ? MEM_READ : MEM_FLUSH);
        break;
    case 6:
        fail_soon(sidecar_of(w, disk), coop_below(2) ? MEM_WRITE : MEM_FLUSH);
        break;
    case 7: case 8: case 9:
        w->away = !w->away;
        if (w->away) {
            w->power++;         /* it closes the connection */
        }
        break;
    }
}

static void repair(void)
{
    w->away = false;
    for (int i = 0; i < DEVICES; i++) {
        memdisk_repair(&w->devices[i]);
    }
}

/* The power of disks and sidecars goes, and all that was under way ends. */
static void crash(void)
{
    MemCut cut = any_cut();

    w->dark = true;
    for (int i = 1; i < DEVICES; i++) {
        memdisk_power_off(&w->devices[i], cut);
    }
    w->power++;
    weir_source_stop(w->source);
    while (t.guests > 0 || w->runs) {
        if (!turn()) {
            fail("a guest waits for ever");
        }
        coop_queue_wake(&t.idle);
    }
    close_source(false);
    for (int i = 1; i < DEVICES; i++) {
        memdisk_power_on(&w->devices[i]);
    }
    w->dark = false;
    for (int i = 0; i < DISKS; i++) {
        MemDisk *disk = disk_of(w, i);

        resized(i);
        prefix_change(i, 0, disk->bytes, disk->now);
    }
}

static void abandon_disks(void *arg)
{
    for (int i = 0; i < DISKS; i++) {
        if (weir_source_abandon_disk(w->disks[i]) < 0) {
            fail("a disk cannot be abandoned");
        }
    }
    *(bool *)arg = true;
}

/* Nobody replicates that. */
static void write_behind_its_back(void *arg)
{
    uint8_t data[4 * SECTOR];

    (void)arg;
    for (int i = 0; i < DISKS; i++) {
        MemDisk *disk = disk_of(w, i);
        uint64_t offset = coop_below((uint32_t)(disk->bytes / SECTOR) - 3) *
                          SECTOR;

        prefix_stamp(data, sizeof(data), ++t.stamp);
        memdisk_request(disk, MEM_WRITE, offset, sizeof(data), data, NULL);
        note(disk, offset, sizeof(data));
        flush_disk(disk);
    }
}

/* The disks are used without a source for a while. */
static void go_without(void)
{
    bool done = false;

    coop_spawn(abandon_disks, &done);
    while (!done) {
        turn();
    }
    close_source(true);
    coop_spawn(write_behind_its_back, NULL);
    while (turn()) {
    }
}

/* All guests have ended. */
static void end_life(void)
{
    if (!t.tidy) {
        w->power++;
        w->away = true;
    } else {
        repair();
        catch_up();
        settle();
        compare("at the end");
    }
    if (t.tidy && coop_below(3) == 0) {
        go_without();
        return;
    }
    close_source(true);
    repair();
}

static void live(void)
{
    uint32_t crashes = coop_below(2) ? coop_below(REQUESTS) : REQUESTS;

    lives++;
    w->lazy = coop_below(2);
    t.requests = 0;
    t.tidy = crashes == REQUESTS && coop_below(3) > 0;
    begin_life();
    for (t.guests = 0; t.guests < GUESTS; t.guests++) {
        coop_spawn(be_guest, NULL);
    }
    while (t.guests > 0 && t.requests < crashes) {
        tend();
        disturb();
        if (!turn()) {
            repair();
        }
    }
    if (t.guests > 0 && crashes < REQUESTS) {
        crash();
    } else {
        repair();
        while (t.guests > 0) {
            tend();
            if (!turn()) {
                fail("a guest waits for ever");
            }
        }
        end_life();
    }
}

/* --- a log that comes from a backup --- */

static struct {
    uint8_t *log;
    WeirLogSuperblock sb;
    PrefixImage base, next;
} backup;

static void save_log(void)
{
    if (!backup.log) {
        backup.log = malloc(LOG_BYTES);
    }
    /* a source refuses to go on with what has never been there for good */
    memcpy(backup.log, log_of(w)->stable, LOG_BYTES);
    backup.sb = w->sb;
    backup.base = w->base;
    backup.next = w->next;
}

static void restore_log(void *arg)
{
    (void)arg;
    memdisk_request(log_of(w), MEM_WRITE, 0, LOG_BYTES, backup.log, NULL);
    memdisk_request(log_of(w), MEM_FLUSH, 0, 0, NULL, NULL);
    w->sb = backup.sb;
    w->base = backup.base;
    w->next = backup.next;
    t.safe = 0;
}

/* Between two sources; nobody uses the log. */
static void change_log(void)
{
    w->dark = true;
    memdisk_repair(log_of(w));
    if (t.saved && coop_below(4) == 0) {
        coop_spawn(restore_log, NULL);
        while (turn()) {
        }
    } else if (coop_below(2)) {
        save_log();
        t.saved = true;
    }
    w->dark = false;
}

static void make_devices(void *arg)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES], *data = malloc(DISK_BYTES);

    (void)arg;
    w->sb.segment_bytes = SEGMENT_BYTES;
    weir_log_superblock_shape(&w->sb, LOG_BYTES);
    memset(w->sb.group, 7, sizeof(w->sb.group));
    weir_log_superblock_write(buf, &w->sb);
    memdisk_request(log_of(w), MEM_WRITE, 0, sizeof(buf), buf, NULL);
    memdisk_request(log_of(w), MEM_FLUSH, 0, 0, NULL, NULL);
    for (int i = 0; i < DISKS; i++) {
        prefix_stamp(data, DISK_BYTES, ++t.stamp);
        memset(data + DISK_BYTES / 4, 0, DISK_BYTES / 4);
        memdisk_request(disk_of(w, i), MEM_WRITE, 0, DISK_BYTES, data, NULL);
        flush_disk(disk_of(w, i));
        note(disk_of(w, i), 0, DISK_BYTES);
        w->base.bytes[i] = DISK_BYTES;
    }
    free(data);
}

static void set_up(WeirSourceMode mode)
{
    memset(&t, 0, sizeof(t));
    t.mode = mode;
    t.on_loss = mode == WEIR_SOURCE_ASYNC ? WEIR_SOURCE_DEGRADE
                                          : (WeirSourceOnLoss)coop_below(3);
    prefix_reset(DISK_BYTES);
    for (int i = 0; i < 2; i++) {
        memset(&worlds[i], 0, sizeof(worlds[i]));
        memdisk_init(log_of(&worlds[i]), LOG_BYTES, LOG_BYTES);
        for (int d = 0; d < DISKS; d++) {
            memdisk_init(disk_of(&worlds[i], d), DISK_BYTES, PREFIX_BYTES);
            memdisk_init(sidecar_of(&worlds[i], d), SIDECAR_BYTES,
                         SIDECAR_BYTES);
        }
    }
    use(&worlds[0]);
    coop_spawn(make_devices, NULL);
    while (turn()) {
    }
    for (int i = 0; i < DEVICES; i++) {
        w->devices[i].ends = at_end_of_request;
    }
}

static void run(uint64_t seed, WeirSourceMode mode)
{
    seed_now = seed;
    coop_seed(seed);
    set_up(mode);
    for (int i = 0; i < 4; i++) {
        live();
        change_log();
    }
    for (int i = 0; i < 2; i++) {
        for (int d = 0; d < DEVICES; d++) {
            memdisk_destroy(&worlds[i].devices[d]);
        }
    }
}

static void option(const char *name, uint64_t value, uint64_t *seed,
                   uint64_t *runs, int *mode)
{
    if (!strcmp(name, "--seed")) {
        *seed = value;
    } else if (!strcmp(name, "--runs")) {
        *runs = value;
    } else if (!strcmp(name, "--mode")) {
        *mode = (int)value;
    } else if (!strcmp(name, "--every")) {
        every = value;
    } else if (!strcmp(name, "--full")) {
        full = value;
    } else if (!strcmp(name, "--mutation")) {
        weir_source_mutation = (unsigned)value;
        report.status = 0;
    } else {
        printf("unknown option %s\n", name);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 1;
    int mode = -1;

    report.place = place;
    decompressor = weir_decompressor_new();
    for (int i = 1; i + 1 < argc; i += 2) {
        option(argv[i], strtoull(argv[i + 1], NULL, 0), &seed, &runs, &mode);
    }
    for (uint64_t i = 0; i < runs; i++) {
        for (int m = 0; m < 3; m++) {
            if (mode < 0 || mode == m) {
                run(seed + i, (WeirSourceMode)m);
            }
        }
    }
    printf("%llu cuts at %llu instants of %llu lives, %llu points and %llu "
           "marks looked at, %llu bytes copied after a cut, %llu failed "
           "requests, %llu compressed records read: nothing wrong\n",
           (unsigned long long)cuts,
           (unsigned long long)instants, (unsigned long long)lives,
           (unsigned long long)points, (unsigned long long)marks,
           (unsigned long long)(cuts ? copied / cuts : 0),
           (unsigned long long)failed, (unsigned long long)packed);
    weir_decompressor_free(decompressor);
    return weir_source_mutation || packed == 0 ? 1 : 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A writer sends epochs of two disks to the keeper of a small log, which
 * applies them to base images, while points in time are opened, read and
 * promoted, and requests fail. Before and after every request to the log or a
 * base the power is cut in some way: from what is left a keeper has to open the
 * log, and each point that it offers has to be exactly what had been written up
 * to there; no epoch may be gone that a flush has acknowledged, and there is
 * always a point once there has been one. Now and then the power is really cut,
 * or the keeper is killed, and another goes on.
 *
 * usage: test-replication-keeper [--seed N] [--runs N] [--lives N] [--every N]
 *            [--mutation RULE]
 * With --mutation a rule is left out (WITHOUT_RULE in filters/replication), and
 * the test passes only when it finds something wrong.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cooptasks.h"
#include "memdisk.h"
#include "replication/compress.h"
#include "replication/keeper-int.h"
#include "replication/point.h"
#include "replication/scan.h"
#include "replication/writer.h"
#include "report.h"

#define SEGMENT_BYTES WEIR_LOG_SEGMENT_BYTES_MIN
#define SEGMENTS 5
#define CHAPTER_BYTES (SEGMENT_BYTES / WEIR_LOG_CHAPTER_SHARE)
#define CHAPTERS_OFFSET (WEIR_LOG_RING_OFFSET + SEGMENTS * SEGMENT_BYTES)
#define LOG_BYTES (CHAPTERS_OFFSET + SEGMENTS * CHAPTER_BYTES)
#define DISKS 2
#define SECTOR 512
#define SECTORS 64
#define DISK_BYTES (SECTORS * SECTOR)
#define VERSIONS 4096
#define RECORDS_MAX 10
#define IN_FLIGHT_MAX 6
#define TICK_NS 1000

/* The disks as they are at the end of an epoch. */
typedef struct Images {
    uint8_t disks[DISKS][DISK_BYTES];
    bool unknown[DISKS][SECTORS];       /* were discarded */
    uint32_t sectors[DISKS];            /* length */
} Images;

/* An epoch that was written; there may be several of one number. */
typedef struct Version {
    WeirLogCommit commit;
    bool consistent;
    Images images;
    struct Version *next;
} Version;

static struct {
    MemDisk log, bases[DISKS];
    MemDisk log_after, bases_after[DISKS];
    WeirKeeper *keeper;                 /* of this life; NULL: not open */
    uint32_t life;
    bool dead;                          /* this life has ended */
    Version *versions[VERSIONS];        /* by epoch */
    uint64_t generation;
    uint64_t acked;                     /* this epoch is there for good */
    uint64_t promoting;                 /* to this one, perhaps; 0: no */
    bool had_point;
    uint32_t tasks;                     /* of this life, but for the keeper's */
    CoopClock clock;
    uint64_t instants;                  /* of this run */
    CoopQueue idle;                     /* those that wait for their turn */
} t;

static struct {
    WeirLogSuperblock sb;
    WeirLogWriter w;
    Images images;
    uint16_t disks_told;
    uint64_t ended;                     /* epochs whose packets are written */
    uint64_t last;                      /* put */
    uint32_t in_flight;
    uint32_t resync;                    /* so many epochs are none */
    bool lost;                          /* the session has ended */
    uint32_t connection;
    CoopQueue moved;
} wr;

static uint64_t seed_now, instants, cuts, epochs, views, promotions, points,
                lives_lived, base_writes, refused, furthest, chapters, rebuilt,
                sealed, packed;
static WeirCompressor *compressor;
static uint32_t every = 1;

static void place(void)
{
    printf("seed %llu, life %u, instant %llu, acked %llu, generation %llu: ",
           (unsigned long long)seed_now, t.life,
           (unsigned long long)instants, (unsigned long long)t.acked,
           (unsigned long long)t.generation);
}

/* --- versions --- */

static Version *find_version(const WeirLogCommit *commit)
{
    for (Version *v = t.versions[commit->epoch % VERSIONS]; v; v = v->next) {
        if (!memcmp(&v->commit, commit, sizeof(*commit))) {
            return v;
        }
    }
    return NULL;
}

static void add_version(const WeirLogCommit *commit, bool consistent,
                        const Images *images)
{
    Version *v = malloc(sizeof(*v)), **list;

    list = &t.versions[commit->epoch % VERSIONS];
    *v = (Version) { .commit = *commit, .consistent = consistent,
                     .next = *list };
    v->images = *images;
    *list = v;
}

static void free_versions(void)
{
    for (uint32_t i = 0; i < VERSIONS; i++) {
        while (t.versions[i]) {
            Version *next = t.versions[i]->next;

            free(t.versions[i]);
            t.versions[i] = next;
        }
    }
}

/* A range of a disk as it was read at a point. */
static void compare(const Version *v, int disk, uint64_t offset,
                    uint64_t bytes, const uint8_t *data, const char *who)
{
    for (uint64_t i = 0; i < bytes; i++) {
        uint64_t at = offset + i;

        if (!v->images.unknown[disk][at / SECTOR] &&
            v->images.disks[disk][at] != data[i]) {
            fail("%s: epoch %llu, disk %d, byte %llu is %02x, not %02x", who,
                 (unsigned long long)v->commit.epoch, disk,
                 (unsigned long long)at, data[i], v->images.disks[disk][at]);
        }
    }
}

/* --- the host of this life --- */

static int request(MemDisk *disk, MemOp op, uint64_t offset, uint64_t bytes,
                   const void *data, void *buf)
{
    uint32_t life = t.life;
    int ret = t.dead ? -EIO : memdisk_request(disk, op, offset, bytes, data,
                                              buf);

    return t.dead || life != t.life ? -EIO : ret;
}

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    if (offset + bytes > LOG_BYTES) {
        fail("a read behind the end of the log");
    }
    return request(opaque, MEM_READ, offset, bytes, NULL, buf);
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    if (niov != 1 || iov[0].iov_len != bytes || offset + bytes > LOG_BYTES) {
        fail("a write of the log that is none");
    }
    return request(opaque, MEM_WRITE, offset, bytes, iov[0].iov_base, NULL);
}

static int flush_log(void *opaque)
{
    return request(opaque, MEM_FLUSH, 0, 0, NULL, NULL);
}

static void check_base(const MemDisk *base, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0 || offset + bytes > base->bytes) {
        fail("a request of a base from %llu on with %llu bytes, which has %llu",
             (unsigned long long)offset, (unsigned long long)bytes,
             (unsigned long long)base->bytes);
    }
}

static int read_base(void *base, uint64_t offset, uint64_t bytes, void *buf)
{
    if (!t.dead) {
        check_base(base, offset, bytes);
    }
    return request(base, MEM_READ, offset, bytes, NULL, buf);
}

static int write_base(void *base, uint64_t offset, uint64_t bytes,
                      const void *buf)
{
    if (!t.dead) {
        check_base(base, offset, bytes);
    }
    base_writes++;
    return request(base, MEM_WRITE, offset, bytes, buf, NULL);
}

static int zero_base(void *base, uint64_t offset, uint64_t bytes)
{
    if (!t.dead) {
        check_base(base, offset, bytes);
    }
    return request(base, MEM_ZERO, offset, bytes, NULL, NULL);
}

static int discard_base(void *base, uint64_t offset, uint64_t bytes)
{
    if (!t.dead) {
        check_base(base, offset, bytes);
    }
    return coop_below(2) ? -ENOTSUP
                         : request(base, MEM_ZERO, offset, bytes, NULL, NULL);
}

static int resize_base(void *base, uint64_t bytes)
{
    const MemDisk *disk = base;

    return disk == &t.bases[1] && bytes < disk->bytes
           ? -ENOTSUP : request(base, MEM_RESIZE, bytes, 0, NULL, NULL);
}

static int flush_base(void *base)
{
    return request(base, MEM_FLUSH, 0, 0, NULL, NULL);
}

static int64_t length_base(void *base)
{
    return (int64_t)((MemDisk *)base)->bytes;
}

static const WeirKeeperHost host = {
    .tasks = &coop_tasks, .opaque = &t.log,
    .read_log = read_log, .write_log = write_log, .flush_log = flush_log,
    .read_base = read_base, .write_base = write_base, .zero_base = zero_base,
    .discard_base = discard_base, .resize_base = resize_base,
    .flush_base = flush_base, .length_base = length_base,
};

/* --- the host of a keeper after a cut: nothing takes time --- */

static int read_after(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    const MemDisk *disk = opaque;

    if (offset + bytes > disk->bytes) {
        fail("after a cut: a read behind the end");
    }
    memcpy(buf, disk->now + offset, bytes);
    return 0;
}

/*
 * What it writes there is the same, or is not looked at. Chapters do not get
 * there, which is as if they were damaged.
 */
static int write_after(void *opaque, uint64_t offset, uint64_t bytes,
                       const struct iovec *iov, size_t niov)
{
    const MemDisk *disk = opaque;

    (void)niov;
    if (offset >= WEIR_LOG_RING_OFFSET && offset < CHAPTERS_OFFSET &&
        memcmp(disk->now + offset, iov[0].iov_base, bytes)) {
        fail("after a cut: opening changes the log");
    }
    return 0;
}

static int flush_after(void *opaque)
{
    (void)opaque;
    return 0;
}

static void wait_after(void *opaque, pthread_mutex_t *lock,
                       WeirTaskQueue *queue, uint64_t until_ns)
{
    (void)opaque;
    (void)lock;
    (void)queue;
    (void)until_ns;
    fail("after a cut: somebody waits");
}

static void wake_after(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static WeirTasks tasks_after;           /* coop_tasks, but for waiting */

static const WeirKeeperHost host_after = {
    .tasks = &tasks_after, .opaque = &t.log_after,
    .read_log = read_after, .write_log = write_after,
    .flush_log = flush_after, .read_base = read_after,
    .length_base = length_base,
};

/* --- what a keeper offers --- */

static const char *const names[DISKS] = { "vda", "vdb" };

static void check_disk(WeirKeeper *k, const Version *v, int disk)
{
    static uint8_t data[DISK_BYTES];
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    WeirViewInfo info;
    WeirView *view;

    if (weir_view_open(&view, k, names[disk], v->commit.epoch, err,
                       sizeof(err)) < 0) {
        fail("after a cut: %s", err);
    }
    weir_view_info(view, &info);
    if (info.bytes != v->images.sectors[disk] * SECTOR) {
        fail("after a cut: epoch %llu, disk %d has %llu bytes, not %u",
             (unsigned long long)v->commit.epoch, disk,
             (unsigned long long)info.bytes, v->images.sectors[disk] * SECTOR);
    }
    if (weir_view_read(view, 0, info.bytes, data, err, sizeof(err)) < 0) {
        fail("after a cut: %s", err);
    }
    compare(v, disk, 0, info.bytes, data, "after a cut");
    weir_view_close(view);
}

static void check_point(WeirKeeper *k, uint64_t epoch)
{
    WeirLogCommit commit = weir_keeper_commit_of(k, epoch);
    const Version *v = find_version(&commit);

    if (!v) {
        fail("epoch %llu is nothing that was written",
             (unsigned long long)epoch);
    }
    if (!v->consistent) {
        fail("epoch %llu is offered and was no point",
             (unsigned long long)epoch);
    }
    for (int i = 0; i < DISKS; i++) {
        check_disk(k, v, i);
    }
    points++;
}

typedef struct Offered {
    uint64_t newest, oldest, some;
    uint32_t count;
} Offered;

static bool take_point(void *opaque, const WeirPointInfo *info,
                       const char *const *marks)
{
    Offered *o = opaque;

    (void)marks;
    o->count++;
    o->newest = o->newest ? o->newest : info->epoch;
    o->oldest = info->epoch;
    o->some = coop_below(o->count) == 0 ? info->epoch : o->some;
    return true;
}

/* The newest point that was acknowledged, 0: none. */
static uint64_t newest_acked(WeirKeeper *k, uint64_t acked)
{
    for (uint64_t e = acked; e > k->sb.anchor.epoch; e--) {
        const WeirIndexEpoch *epoch = weir_index_get(&k->index, e);

        if (epoch && epoch->consistent) {
            return e;
        }
    }
    return 0;
}

static void check_keeper(WeirKeeper *k)
{
    uint64_t generation = k->sb.history[k->sb.history_count - 1].number;
    uint64_t acked = t.acked;
    Offered o = { 0 };

    if (t.promoting > 0 && generation == t.generation + 1) {
        acked = t.promoting < acked ? t.promoting : acked;
    } else if (generation != t.generation) {
        fail("generation %llu", (unsigned long long)generation);
    }
    if (k->valid.epoch < acked) {
        fail("epoch %llu was acknowledged, the log of generation %llu ends "
             "with %llu; promoting %llu; ", (unsigned long long)acked,
             (unsigned long long)generation,
             (unsigned long long)k->valid.epoch,
             (unsigned long long)t.promoting);
    }
    if (k->valid.epoch > 0 && !find_version(&k->valid)) {
        fail("the log ends with epoch %llu, which nobody wrote",
             (unsigned long long)k->valid.epoch);
    }
    weir_point_list(k, UINT64_MAX, false, take_point, &o);
    if (o.count == 0 && t.had_point) {
        fail("there is no point any more");
    }
    if (o.newest < newest_acked(k, acked)) {
        fail("the last point is %llu, though %llu was acknowledged",
             (unsigned long long)o.newest,
             (unsigned long long)newest_acked(k, acked));
    }
    if (o.count > 0) {
        check_point(k, o.newest);
        check_point(k, o.oldest);
        check_point(k, o.some);
    }
}

static const MemCut kinds[] = { MEM_CUT_DROP, MEM_CUT_KEEP, MEM_CUT_TEAR,
                                MEM_CUT_RANDOM, MEM_CUT_HOLES };
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static WeirKeeperConfig config;

static void cut_here(void)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    WeirKeeper *k;

    memdisk_cut(&t.log, &t.log_after, kinds[coop_below(KINDS)], 0);
    weir_keeper_new(&k, &host_after, &config);
    for (int i = 0; i < DISKS; i++) {
        memdisk_cut(&t.bases[i], &t.bases_after[i], kinds[coop_below(KINDS)],
                    0);
        weir_keeper_add_base(k, names[i], &t.bases_after[i], err, sizeof(err));
    }
    if (weir_keeper_open(k, LOG_BYTES, err, sizeof(err)) < 0) {
        fail("after a cut: %s", err);
    }
    chapters += k->chapter_count;
    check_keeper(k);
    rebuilt += k->chapters_rebuilt;
    weir_keeper_free(k);
    cuts++;
}

static void at_end_of_request(MemDisk *disk, MemOp op, bool after)
{
    (void)disk;
    (void)after;
    if (op != MEM_READ && !t.log.dead) {
        instants++;
        if (t.instants++ % every == 0) {
            CoopParked *parked = coop_park();   /* whatever is cut, the life
                                                   goes on the same way */
            cut_here();
            coop_unpark(parked);
        }
    }
}

/* --- the writer --- */

typedef struct Sent {
    uint64_t offset, bytes;
    uint64_t epoch;             /* a commit, of this one; else 0 */
    uint32_t connection;
    uint8_t data[];
} Sent;

static void lose_session(void)
{
    wr.lost = true;
    coop_queue_wake(&wr.moved);
}

static void send(void *arg)
{
    Sent *sent = arg;
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    size_t part = coop_below(2) ? sent->bytes : 4096;
    struct iovec iov[2] = { { sent->data, part },
                            { sent->data + part, sent->bytes - part } };
    int ret = t.dead ? -EIO
              : weir_keeper_write(t.keeper, sent->offset, sent->bytes, iov,
                                  part < sent->bytes ? 2 : 1, err,
                                  sizeof(err));

    if (ret < 0) {
        refused += ret != -EIO;
    }
    if (ret < 0 && sent->connection == wr.connection) {
        if (ret == -EINVAL) {
            fail("a packet is refused: %s", err);
        }
        lose_session();
    }
    wr.in_flight--;
    free(sent);
    coop_queue_wake(&wr.moved);
}

/* As it is or, if every second of what can be, compressed. */
static void put_data(WeirLogRecord *r, const uint8_t *plain, uint8_t *data)
{
    r->crc = weir_log_data_crc(plain, r->bytes);
    if (r->crc % 2 == 0 || weir_compress(compressor, r, plain, data) == 0) {
        memcpy(data, plain, r->bytes);
    }
    packed += r->packed_bytes > 0;
}

static void put_sectors(WeirLogRecord *r, uint8_t *data)
{
    Images *images = &wr.images;
    uint8_t *at = images->disks[r->disk] + r->offset;
    uint8_t kinds_of_bytes = coop_random() % 2 ? 0xff : 3;

    for (uint64_t i = 0; i < r->bytes; i++) {
        at[i] = r->op == WEIR_LOG_WRITE
                ? (uint8_t)coop_random() & kinds_of_bytes : 0;
    }
    if (r->op == WEIR_LOG_WRITE) {
        put_data(r, at, data);
    }
    memset(images->unknown[r->disk] + r->offset / SECTOR,
           r->op == WEIR_LOG_DISCARD, r->bytes / SECTOR);
}

static void resize(WeirLogRecord *r)
{
    Images *images = &wr.images;
    uint32_t sectors = 16 + coop_below(SECTORS - 15);
    uint32_t old = images->sectors[r->disk];
    uint32_t least = sectors < old ? sectors : old;

    *r = (WeirLogRecord) { .op = WEIR_LOG_RESIZE, .disk = r->disk,
                           .bytes = (uint64_t)sectors * SECTOR };
    memset(images->disks[r->disk] + least * SECTOR, 0,
           (SECTORS - least) * SECTOR);
    memset(images->unknown[r->disk] + least, 0, SECTORS - least);
    images->sectors[r->disk] = sectors;
}

static void invent(WeirLogRecord *r, uint8_t *data)
{
    uint32_t sectors, first;

    r->disk = (uint16_t)coop_below(DISKS);
    sectors = wr.images.sectors[r->disk];
    first = coop_below(sectors);
    r->offset = (uint64_t)first * SECTOR;
    r->bytes = SECTOR * (UINT64_C(1) + coop_below(sectors - first));
    r->op = coop_below(8) ? WEIR_LOG_WRITE :
            coop_below(3) ? WEIR_LOG_ZERO : WEIR_LOG_DISCARD;
    r->resync = wr.resync > 0;
    if (coop_below(40) == 0) {
        resize(r);
    } else {
        put_sectors(r, data);
    }
}

/* What is durable by a flush is acknowledged. */
static void flush(void)
{
    uint64_t ended = wr.ended, generation = t.generation;
    int ret = t.dead ? -EIO : weir_keeper_flush(t.keeper);

    if (ret < 0) {
        lose_session();
        return;
    }
    if (generation == t.generation && !wr.lost) {
        t.acked = ended > t.acked ? ended : t.acked;
        t.had_point = t.had_point || weir_keeper_last_point(t.keeper) > 0;
        weir_log_writer_durable(&wr.w,
                                &t.versions[ended % VERSIONS]->commit);
    }
}

static void read_tail(void)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb;
    char err[256];

    if (t.dead || weir_keeper_read(t.keeper, 0, sizeof(copies), copies) < 0 ||
        t.dead || weir_keeper_flush(t.keeper) < 0) {
        lose_session();
        return;
    }
    if (weir_log_superblock_read(&sb, copies, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("the writer reads: %s", err);
    }
    if (sb.tail > wr.w.tail) {
        wr.w.tail = sb.tail;
    } else {
        coop_wait_until(&t.idle, t.clock.now_ns + 50 * TICK_NS);
    }
}

static bool put(WeirLogPacket *p, const WeirLogRecord *records, uint8_t *head,
                WeirLogCommit *commit)
{
    while (!wr.lost && !t.dead) {
        if (wr.in_flight >= IN_FLIGHT_MAX) {
            coop_queue_wait(&wr.moved);
        } else if (weir_log_writer_put(&wr.w, p, records, head, commit) == 0) {
            return true;
        } else if (coop_below(40) == 0) {
            wr.w.tail += SEGMENT_BYTES;         /* nobody has said so */
        } else if (wr.in_flight == 0 && wr.ended < wr.last) {
            wr.ended = wr.last;
            flush();
        } else if (wr.in_flight == 0) {
            flush();
            read_tail();
        } else {
            coop_queue_wait(&wr.moved);
        }
    }
    return false;
}

static bool write_packet(WeirLogPacket *p, const WeirLogRecord *records,
                         const uint8_t *data, uint64_t data_bytes,
                         WeirLogCommit *commit)
{
    uint64_t head_bytes = weir_log_head_bytes(p->records);
    Sent *sent = calloc(1, sizeof(*sent) + head_bytes + data_bytes +
                           WEIR_LOG_ALIGN_BYTES);

    if (!put(p, records, sent->data, commit)) {
        free(sent);
        return false;
    }
    if (data_bytes > 0) {
        memcpy(sent->data + head_bytes, data, data_bytes);
    }
    sent->offset = weir_log_offset(&wr.sb, p->position);
    sent->bytes = weir_log_packet_bytes(p);
    sent->connection = wr.connection;
    wr.in_flight++;
    coop_spawn(send, sent);
    return true;
}

static bool write_disks(void)
{
    uint8_t data[DISKS * WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };
    WeirLogRecord records[DISKS];
    WeirLogPacket p = { .records = DISKS };

    for (uint16_t i = 0; i < DISKS; i++) {
        WeirLogDisk disk = { .uuid = { (uint8_t)(i + 1) } };
        uint8_t *at = data + i * WEIR_LOG_DATA_ALIGN_BYTES;

        strcpy(disk.name, names[i]);
        weir_log_disk_write(at, &disk);
        records[i] = (WeirLogRecord) {
            .disk = i, .op = WEIR_LOG_DISK,
            .bytes = (uint64_t)wr.images.sectors[i] * SECTOR,
            .crc = weir_log_data_crc(at, WEIR_LOG_DISK_BYTES),
        };
    }
    return write_packet(&p, records, data, sizeof(data), NULL);
}

static bool make_way(uint64_t bytes)
{
    WeirLogPacket last = { .last = true };

    if (weir_log_writer_next(&wr.w, bytes) == WEIR_LOG_NEXT_LAST &&
        !write_packet(&last, NULL, NULL, 0, NULL)) {
        return false;
    }
    return weir_log_writer_next(&wr.w, bytes) != WEIR_LOG_NEXT_FIRST ||
           write_disks();
}

static bool write_some(bool commits)
{
    enum { BYTES_MAX = RECORDS_MAX * DISK_BYTES };
    WeirLogRecord records[RECORDS_MAX] = { { 0 } };
    uint8_t *data = calloc(1, BYTES_MAX);
    bool consistent = wr.resync == 0;
    WeirLogPacket p = { .commit = commits, .consistent = commits && consistent,
                        .wall_ns = commits ? t.clock.now_ns : 0,
                        .records = coop_below(RECORDS_MAX + 1) };
    uint64_t bytes = 0;
    WeirLogCommit commit;
    bool ok;

    /* room for the most that they can have; then the lengths are told */
    ok = make_way(weir_log_head_bytes(p.records) +
                  (uint64_t)p.records * DISK_BYTES);
    for (uint32_t i = 0; i < p.records && ok; i++) {
        invent(&records[i], data + bytes);
        bytes += weir_log_data_room(weir_log_data_bytes(&records[i]));
    }
    ok = ok && write_packet(&p, records, data, bytes, &commit);
    if (ok && commits) {
        add_version(&commit, consistent, &wr.images);
        wr.last = commit.epoch;
        wr.resync -= wr.resync > 0;
        furthest = commit.end > furthest ? commit.end : furthest;
        epochs++;
    }
    free(data);
    return ok;
}

static void write_epoch(void)
{
    uint32_t packets = 1 + coop_below(3);

    while (packets > 0 && write_some(packets == 1)) {
        packets--;
    }
    if (packets == 0 && coop_below(2)) {
        while (wr.in_flight > 0 && !wr.lost) {
            coop_queue_wait(&wr.moved);
        }
        if (!wr.lost) {
            wr.ended = wr.last;
            flush();
        }
    }
    if (wr.resync == 0 && coop_below(30) == 0) {
        wr.resync = 1 + coop_below(12);
    }
}

static int read_client(void *opaque, uint64_t offset, uint64_t bytes,
                       void *buf)
{
    (void)opaque;
    return t.dead ? -EIO : weir_keeper_read(t.keeper, offset, bytes, buf);
}

static int find_end(WeirLogCommit *end)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    char err[256];
    int ret = read_client(NULL, 0, sizeof(copies), copies);

    if (ret < 0) {
        return ret;
    }
    if (weir_log_superblock_read(&wr.sb, copies, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("the writer reads: %s", err);
    }
    ret = weir_log_find_end(read_client, NULL, &wr.sb, end);
    return ret < 0 ? ret : t.dead ? -EIO : weir_keeper_flush(t.keeper);
}

/* Behind what the log has now; it was in the middle of a copy, or is not. */
static bool connect(void)
{
    uint64_t generation = t.generation;
    const Version *v;
    WeirLogCommit end;
    bool patient = coop_below(2);       /* or what is under way may be late */

    while (wr.in_flight > 0 && patient) {
        coop_queue_wait(&wr.moved);
    }
    wr.connection++;
    if (find_end(&end) < 0 || generation != t.generation) {
        return false;
    }
    v = find_version(&end);
    if (end.epoch > 0 && !v) {
        fail("the writer finds epoch %llu, which nobody wrote",
             (unsigned long long)end.epoch);
    }
    if (v) {
        wr.images = v->images;
        wr.resync = v->consistent ? 0 : 1 + coop_below(8);
    } else {
        memset(&wr.images, 0, sizeof(wr.images));
        for (int i = 0; i < DISKS; i++) {
            wr.images.sectors[i] = SECTORS;
        }
        wr.resync = coop_below(3) ? 1 + coop_below(5) : 60;
        add_version(&end, false, &wr.images);
    }
    weir_log_writer_init(&wr.w, &wr.sb, &end, coop_random());
    wr.ended = wr.last = end.epoch;
    wr.lost = false;
    return true;
}

static void write_epochs(void *arg)
{
    (void)arg;
    while (!t.dead) {
        if (wr.lost && !connect()) {
            coop_wait_until(&t.idle, t.clock.now_ns + 20 * TICK_NS);
            continue;
        }
        write_epoch();
        if (coop_below(60) == 0) {
            lose_session();             /* the network */
        }
    }
    while (wr.in_flight > 0) {
        coop_queue_wait(&wr.moved);
    }
    t.tasks--;
}

/* --- points that are open --- */

static void read_some(WeirView *view, int disk, const Version *v)
{
    uint64_t length = (uint64_t)v->images.sectors[disk] * SECTOR;
    uint64_t offset = coop_below((uint32_t)length);
    uint64_t bytes = 1 + coop_below((uint32_t)(length - offset)), piece = 1;
    WeirViewPiece kind;
    uint8_t *data = malloc(bytes);
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    int ret = weir_view_read(view, offset, bytes, data, err, sizeof(err));

    if (ret == 0) {
        compare(v, disk, offset, bytes, data, "an open point");
    } else if (strstr(err, "damaged")) {
        fail("an open point: %s", err);
    }
    if (weir_view_status(view, offset, bytes, &kind, &piece) == 0 &&
        (piece == 0 || piece > bytes)) {
        fail("a piece of %llu bytes", (unsigned long long)piece);
    }
    free(data);
}

static void read_point(uint64_t epoch)
{
    int disk = (int)coop_below(DISKS);
    WeirLogCommit commit = weir_keeper_commit_of(t.keeper, epoch);
    const Version *v = find_version(&commit);
    uint32_t reads = coop_below(30);
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirView *view;

    if (weir_view_open(&view, t.keeper, names[disk], epoch, err,
                       sizeof(err)) < 0) {
        fail("epoch %llu: %s", (unsigned long long)epoch, err);
    }
    views++;
    while (reads-- > 0 && !t.dead) {
        read_some(view, disk, v);
        if (coop_below(3) == 0) {
            coop_wait_until(&t.idle, t.clock.now_ns + 100 * TICK_NS);
        }
    }
    weir_view_close(view);
}

static void read_points(void *arg)
{
    (void)arg;
    while (!t.dead) {
        Offered o = { 0 };

        weir_point_list(t.keeper, UINT64_MAX, false, take_point, &o);
        if (o.count > 0) {
            read_point(coop_below(2) ? o.some : coop_below(2) ? o.newest
                                                              : o.oldest);
        }
        coop_wait_until(&t.idle, t.clock.now_ns + coop_below(1000) * TICK_NS);
    }
    t.tasks--;
}

/* --- promotion --- */

static void promote(uint64_t epoch)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    uint32_t life = t.life;
    int ret;

    if (t.promoting > 0) {
        return;                         /* it is not known what became of it */
    }
    t.promoting = epoch;
    ret = weir_keeper_promote(t.keeper, epoch, err, sizeof(err));
    if (life != t.life || t.dead) {
        return;
    }
    if (ret == 0) {
        t.generation++;
        t.acked = epoch < t.acked ? epoch : t.acked;
        lose_session();
        promotions++;
        weir_keeper_apply_to(t.keeper, epoch);
    }
    if (ret == 0 || ret == -ENOENT || ret == -EBUSY) {
        t.promoting = 0;
    }
}

static void promote_points(void *arg)
{
    (void)arg;
    while (!t.dead) {
        Offered o = { 0 };

        coop_wait_until(&t.idle, t.clock.now_ns + coop_below(60000) * TICK_NS);
        if (t.dead) {
            break;
        }
        weir_point_list(t.keeper, UINT64_MAX, false, take_point, &o);
        if (o.count > 0 && coop_below(8) == 0) {
            promote(coop_below(2) ? o.newest : o.some);
        }
    }
    t.tasks--;
}

/* --- lives --- */

static void run_keeper(void *arg)
{
    weir_keeper_run(arg);
    t.tasks--;
}

static void begin_tasks(void)
{
    void (*const fns[])(void *arg) = { write_epochs, read_points, read_points,
                                       promote_points };

    for (size_t i = 0; i < sizeof(fns) / sizeof(fns[0]); i++) {
        t.tasks++;
        coop_spawn(fns[i], NULL);
    }
    t.tasks++;
    coop_spawn(run_keeper, t.keeper);
}

/* All that is valid when a log has been opened is there for good. */
static void take_over(WeirKeeper *k)
{
    uint64_t generation = k->sb.history[k->sb.history_count - 1].number;

    check_keeper(k);
    if (generation != t.generation) {
        t.acked = t.promoting < t.acked ? t.promoting : t.acked;
        t.generation = generation;
    }
    t.promoting = 0;
    t.acked = k->valid.epoch;
    t.had_point = weir_keeper_last_point(k) > 0;
}

static void begin_life(void *arg)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    WeirKeeper *k;
    int ret;

    (void)arg;
    weir_keeper_new(&k, &host, &config);
    for (int i = 0; i < DISKS; i++) {
        weir_keeper_add_base(k, names[i], &t.bases[i], err, sizeof(err));
    }
    ret = weir_keeper_open(k, LOG_BYTES, err, sizeof(err));
    if (ret == -EINVAL || ret == -ENOENT) {
        fail("opening: %s", err);
    }
    if (ret < 0 || t.dead) {
        weir_keeper_free(k);
    } else {
        take_over(k);
        t.keeper = k;
        begin_tasks();
    }
    t.tasks--;
}

static bool turn(void)
{
    MemDisk *disks[] = { &t.log, &t.bases[0], &t.bases[1] };
    uint32_t first = coop_below(3);

    t.clock.now_ns += TICK_NS;
    coop_fire_due();
    if (coop_below(2) && coop_step()) {
        return true;
    }
    for (uint32_t i = 0; i < 3; i++) {
        if (memdisk_step(disks[(first + i) % 3])) {
            return true;
        }
    }
    return coop_step() || coop_fire_timer();
}

static void disturb(void)
{
    switch (coop_below(3000)) {
    case 0:
        t.log.fault[MEM_WRITE] = (MemFault) { .after = coop_below(5),
                                              .times = 1, .error = -EIO };
        break;
    case 1:
        t.log.fault[MEM_FLUSH] = (MemFault) { .after = coop_below(3),
                                              .times = 1, .error = -EIO,
                                              .forgets = true };
        break;
    case 2:
        t.bases[0].fault[MEM_FLUSH] = (MemFault) { .after = coop_below(2),
                                                   .times = 1, .error = -EIO,
                                                   .forgets = true };
        break;
    case 3:
        t.bases[1].fault[MEM_WRITE] = (MemFault) { .after = coop_below(9),
                                                   .times = 1,
                                                   .error = -EIO };
        break;
    case 4:
        t.log.fault[MEM_READ] = (MemFault) { .after = coop_below(20),
                                             .times = 1, .error = -EIO };
        break;
    default:
        break;
    }
}

static void repair(void)
{
    memdisk_repair(&t.log);
    memdisk_repair(&t.bases[0]);
    memdisk_repair(&t.bases[1]);
}

/* Somebody has come across the indexes; all else is as it was. */
static void damage_chapters(void)
{
    uint32_t times = coop_below(2) ? 1 + coop_below(40) : 0;

    while (times-- > 0) {
        uint64_t at = coop_below(SEGMENTS) * CHAPTER_BYTES +
                      coop_below(coop_below(2) ? CHAPTER_BYTES : 16384);

        memdisk_rot(&t.log, CHAPTERS_OFFSET + at, 1);
    }
}

/* All that is left of a life comes to its end. */
static void end_life(bool power)
{
    t.dead = true;
    if (power) {
        memdisk_power_off(&t.log, kinds[coop_below(KINDS)]);
        memdisk_power_off(&t.bases[0], kinds[coop_below(KINDS)]);
        memdisk_power_off(&t.bases[1], kinds[coop_below(KINDS)]);
    }
    if (t.keeper) {
        weir_keeper_stop(t.keeper);
    }
    while (t.tasks > 0) {
        coop_queue_wake(&t.idle);
        coop_queue_wake(&wr.moved);
        if (!turn() && t.tasks > 0) {
            fail("somebody waits for ever");
        }
    }
    while (turn()) {
    }
    if (coop_alive() > 0) {
        fail("somebody waits for ever");
    }
    sealed += t.keeper ? t.keeper->chapters_written : 0;
    weir_keeper_free(t.keeper);
    t.keeper = NULL;
    memdisk_power_on(&t.log);
    memdisk_power_on(&t.bases[0]);
    memdisk_power_on(&t.bases[1]);
    repair();
    damage_chapters();
}

static void choose_config(void)
{
    config = (WeirKeeperConfig) {
        .retain_ns = coop_below(3) ? coop_below(40000) * TICK_NS : UINT64_MAX,
        .retain_bytes = coop_below(2) ? 0 : SEGMENT_BYTES * coop_below(4),
        .apply_rate = coop_below(2) ? 0 : UINT64_C(1) << 30,
        .lease_ns = (1 + coop_below(300)) * TICK_NS,
    };
}

static void begin(void)
{
    t.life++;
    t.dead = false;
    wr.lost = true;
    choose_config();
    t.tasks = 1;
    coop_spawn(begin_life, NULL);
    while (t.tasks > 0 && !t.keeper) {
        if (!turn()) {
            fail("it does not open");
        }
    }
    lives_lived++;
}

/* Often, the keeper is killed soon after a flush of the log has failed. */
static void live(uint32_t turns)
{
    uint64_t failed = t.log.failed[MEM_FLUSH];
    bool killed = false;

    begin();
    while (turns-- > 0) {
        disturb();
        if (!turn()) {
            repair();
        }
        if (t.log.failed[MEM_FLUSH] != failed && !killed && coop_below(2)) {
            turns = coop_below(60);
            killed = true;
        }
        failed = t.log.failed[MEM_FLUSH];
    }
    end_life(!killed && coop_below(3) > 0);
}

/* With nothing wrong any more all of it gets to the bases. */
static void come_to_an_end(void)
{
    const Version *v;
    uint64_t limit;

    begin();
    config.retain_ns = 0;
    config.apply_rate = 0;
    weir_keeper_set_config(t.keeper, &config);
    limit = t.clock.now_ns + 4000 * TICK_NS;
    while (t.clock.now_ns < limit) {
        turn();
    }
    t.dead = true;              /* of the others; the keeper goes on */
    t.life++;
    while (t.tasks > 1) {
        coop_queue_wake(&t.idle);
        coop_queue_wake(&wr.moved);
        if (!turn() && t.tasks > 1) {
            fail("somebody waits for ever");
        }
    }
    end_life(false);
    begin();
    config.retain_ns = 0;
    config.apply_rate = 0;
    weir_keeper_set_config(t.keeper, &config);
    for (uint32_t i = 0; t.keeper->sb.anchor.epoch <
         weir_keeper_last_point(t.keeper); i++) {
        turn();
        if (i == 1000000) {
            fail("epochs are not applied");
        }
    }
    v = find_version(&t.keeper->sb.anchor);
    if (v && t.had_point && t.keeper->horizon <= v->commit.epoch) {
        for (int i = 0; i < DISKS; i++) {
            compare(v, i, 0, (uint64_t)v->images.sectors[i] * SECTOR,
                    t.bases[i].now, "a base");
        }
    }
    end_life(false);
}

static void format(void *arg)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES];

    (void)arg;
    if (weir_keeper_format(&host, LOG_BYTES, SEGMENT_BYTES, err,
                           sizeof(err)) < 0) {
        fail("%s", err);
    }
    if (weir_keeper_format(&host, LOG_BYTES, SEGMENT_BYTES, err,
                           sizeof(err)) != -EEXIST) {
        fail("a log is made where there is one");
    }
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    memset(&wr, 0, sizeof(wr));
    t.generation = 1;
    coop_clock = &t.clock;
    tasks_after = coop_tasks;
    tasks_after.wait = wait_after;
    tasks_after.wake = wake_after;
    t.clock.now_ns = UINT64_C(1000000000);
    memdisk_init(&t.log, LOG_BYTES, LOG_BYTES);
    memdisk_init(&t.log_after, LOG_BYTES, LOG_BYTES);
    for (int i = 0; i < DISKS; i++) {
        /* one is longer than its disk, with something in it behind that */
        memdisk_init(&t.bases[i], i ? DISK_BYTES : 0, DISK_BYTES);
        memdisk_init(&t.bases_after[i], i ? DISK_BYTES : 0, DISK_BYTES);
    }
    coop_spawn(format, NULL);
    while (coop_step() || memdisk_step(&t.log)) {
    }
    t.log.ends = t.bases[0].ends = t.bases[1].ends = at_end_of_request;
}

static void tear_down(void)
{
    memdisk_destroy(&t.log);
    memdisk_destroy(&t.log_after);
    for (int i = 0; i < DISKS; i++) {
        memdisk_destroy(&t.bases[i]);
        memdisk_destroy(&t.bases_after[i]);
    }
    free_versions();
}

static void run(uint64_t seed, uint64_t lives)
{
    seed_now = seed;
    coop_seed(seed);
    set_up();
    for (uint64_t i = 0; i < lives; i++) {
        live(1 + coop_below(6000));
    }
    come_to_an_end();
    tear_down();
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 1, lives = 8;

    report.place = place;
    compressor = weir_compressor_new();
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--lives")) {
            lives = value;
        } else if (!strcmp(argv[i], "--every")) {
            every = (uint32_t)value;
        } else if (!strcmp(argv[i], "--mutation")) {
            weir_keeper_mutation = (unsigned)value;
            report.status = 0;
        } else {
            printf("unknown option %s\n", argv[i]);
            return 1;
        }
    }
    for (uint64_t i = 0; i < runs; i++) {
        run(seed + i, lives);
    }
    printf("%llu cuts at %llu instants of %llu lives, %llu epochs, %llu points "
           "looked at after cuts, %llu opened, %llu promotions, %llu writes to "
           "bases, %llu packets refused, %llu laps at most, %llu chapters "
           "written, %llu found, %llu of them damaged, %llu records "
           "compressed: nothing wrong\n",
           (unsigned long long)cuts, (unsigned long long)instants,
           (unsigned long long)lives_lived, (unsigned long long)epochs,
           (unsigned long long)points, (unsigned long long)views,
           (unsigned long long)promotions, (unsigned long long)base_writes,
           (unsigned long long)refused,
           (unsigned long long)(furthest / (SEGMENTS * SEGMENT_BYTES)),
           (unsigned long long)sealed, (unsigned long long)chapters,
           (unsigned long long)rebuilt, (unsigned long long)packed);
    weir_compressor_free(compressor);
    return weir_keeper_mutation || packed == 0 ? 1 : 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests write to two disks of one group, whose source sends all to a log; a
 * keeper applies what is valid there to two base images. The power of the log
 * is cut at random instants, its requests fail, and the source connects again.
 * At each cut what the log holds must be a prefix of what the guests were told:
 * no write without those that had ended when it was issued; nothing gone that a
 * guest has flushed, if the mode is to keep that; and in the end the bases are
 * what the disks are.
 *
 * usage: test-replication-source [--seed N] [--runs N] [--mode MODE]
 * MODE: 0 async, 1 flush-sync, 2 write-sync.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coop.h"
#include "memdisk.h"
#include "replication/scan.h"
#include "replication/source.h"
#include "report.h"

#define SEGMENT_BYTES WEIR_LOG_SEGMENT_BYTES_MIN
#define LOG_BYTES (WEIR_LOG_RING_OFFSET + 4 * SEGMENT_BYTES)
#define DISKS 2
#define SECTOR 512
#define SECTORS 256
#define DISK_BYTES (SECTOR * SECTORS)
#define GUESTS 5
#define WRITES_MAX 1000
#define REQUEST_SECTORS_MAX 40
#define TIMERS_MAX 64

/* One write of a guest; times are numbers of events. */
typedef struct Write {
    uint32_t issued, ended;             /* ended: 0 not yet */
} Write;

/* The disks as somebody has made them out of the log. */
typedef struct Images {
    uint8_t disks[DISKS][DISK_BYTES];
} Images;

typedef struct Timer {
    uint64_t at_ns;
    Coop *coop;
    CoopQueue *queue;
} Timer;

static struct {
    MemDisk log, after;
    MemDisk disks[DISKS];
    Images base;                        /* the keeper's, at the anchor of sb */
    Images next;                        /* at that which it is writing */
    Images seen;                        /* what the log makes of it */
    WeirLogSuperblock sb;
    WeirSource *source;
    WeirSourceDisk *source_disks[DISKS];
    WeirSourceMode mode;
    Write writes[WRITES_MAX];
    uint32_t n_writes, event;
    uint32_t flushed;                   /* what had ended before this event is
                                           there for good */
    uint32_t guests;                    /* that have not ended */
    uint64_t clock_ns;
    Timer timers[TIMERS_MAX];
    uint32_t n_timers;
    uint32_t power;                     /* how often it went */
    uint32_t connection;                /* the source's: dead when not power */
    bool connecting, keeping, quits;
} t;

static uint64_t seed_now, cuts, lost, epochs, failed;

static void place(void)
{
    printf("seed %llu, mode %u, event %u: ", (unsigned long long)seed_now,
           (unsigned)t.mode, t.event);
}

/* --- the source's host --- */

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

static int read_disk(void *disk, uint64_t offset, uint64_t bytes, void *buf)
{
    return memdisk_request(disk, MEM_READ, offset, bytes, NULL, buf);
}

static int write_disk(void *disk, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags)
{
    uint8_t *all = gather(bytes, iov, niov);
    int ret = memdisk_request(disk, MEM_WRITE, offset, bytes, all, NULL);

    (void)flags;
    free(all);
    return ret;
}

static int zero_disk(void *disk, uint64_t offset, uint64_t bytes,
                     unsigned flags)
{
    (void)flags;
    return memdisk_request(disk, MEM_ZERO, offset, bytes, NULL, NULL);
}

static int discard_disk(void *disk, uint64_t offset, uint64_t bytes)
{
    return memdisk_request(disk, MEM_ZERO, offset, bytes, NULL, NULL);
}

static int flush_disk(void *disk)
{
    return memdisk_request(disk, MEM_FLUSH, 0, 0, NULL, NULL);
}

static int status_disk(void *opaque, uint64_t offset, uint64_t bytes,
                       uint64_t *extent_bytes, bool *zero)
{
    const MemDisk *disk = opaque;
    uint64_t n = 1;

    *zero = disk->now[offset] == 0;
    while (n < bytes && (disk->now[offset + n] == 0) == *zero) {
        n++;
    }
    *extent_bytes = n;
    return 0;
}

/* Whoever talks to the log notices when it was gone meanwhile. */
static int request_log(uint32_t since, MemOp op, uint64_t offset,
                       uint64_t bytes, const void *data, void *buf)
{
    int ret = since == t.power ? memdisk_request(&t.log, op, offset, bytes,
                                                 data, buf) : -EIO;

    return since == t.power ? ret : -EIO;
}

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    return request_log(t.connection, MEM_READ, offset, bytes, NULL, buf);
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    uint8_t *all = gather(bytes, iov, niov);
    int ret;

    (void)opaque;
    ret = request_log(t.connection, MEM_WRITE, offset, bytes, all, NULL);
    free(all);
    return ret;
}

static int flush_log(void *opaque)
{
    (void)opaque;
    return request_log(t.connection, MEM_FLUSH, 0, 0, NULL, NULL);
}

static void forget_timer(const Coop *coop)
{
    for (uint32_t i = 0; i < t.n_timers; i++) {
        if (t.timers[i].coop == coop) {
            t.timers[i] = t.timers[--t.n_timers];
            return;
        }
    }
}

static void wait_source(void *opaque, pthread_mutex_t *lock,
                        WeirTaskQueue *queue, uint64_t until_ns)
{
    (void)opaque;
    if (until_ns != WEIR_TASKS_FOREVER) {
        if (t.n_timers == TIMERS_MAX) {
            fail("too many timers");
        }
        t.timers[t.n_timers++] = (Timer) { until_ns, coop_self(),
                                           (CoopQueue *)queue };
    }
    pthread_mutex_unlock(lock);
    coop_queue_wait((CoopQueue *)queue);
    forget_timer(coop_self());
    pthread_mutex_lock(lock);
}

static void wake_source(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    coop_queue_wake((CoopQueue *)queue);
}

static void init_queue(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    memset(queue, 0, sizeof(*queue));
}

static void spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    coop_spawn(fn, arg);
}

static uint64_t now_ns(void *opaque)
{
    (void)opaque;
    return t.clock_ns;
}

static uint64_t random_number(void *opaque)
{
    (void)opaque;
    return coop_random();
}

static const WeirSourceHost host = {
    .read_disk = read_disk, .write_disk = write_disk, .zero_disk = zero_disk,
    .discard_disk = discard_disk, .flush_disk = flush_disk,
    .status_disk = status_disk, .read_log = read_log, .write_log = write_log,
    .flush_log = flush_log,
};

static const WeirTasks tasks = {
    .wait = wait_source, .wake = wake_source, .queue_init = init_queue,
    .spawn = spawn, .now_ns = now_ns, .wall_ns = now_ns,
    .random = random_number,
};

/* --- guests --- */

/* Each sector tells which write it is from. */
static void stamp(uint8_t *data, uint32_t sectors, uint32_t write)
{
    memset(data, (int)write, (size_t)sectors * SECTOR);
    for (uint32_t i = 0; i < sectors; i++) {
        memcpy(data + (size_t)i * SECTOR, &write, sizeof(write));
    }
}

static void write_some(void)
{
    uint32_t n = t.n_writes++, sectors = 1 + coop_below(REQUEST_SECTORS_MAX);
    uint32_t first = coop_below(SECTORS - sectors + 1);
    uint8_t *data = malloc((size_t)sectors * SECTOR);
    size_t half = (size_t)coop_below(sectors + 1) * SECTOR;
    struct iovec iov[2] = {
        { data, half }, { data + half, (size_t)sectors * SECTOR - half },
    };

    stamp(data, sectors, n);
    t.writes[n].issued = ++t.event;
    /* what a failed one leaves is unknown: as a file system, write it again */
    while (weir_source_write(t.source_disks[n % DISKS], first * SECTOR,
                             (uint64_t)sectors * SECTOR, iov, 2, 0) < 0) {
        failed++;
    }
    t.writes[n].ended = ++t.event;
    free(data);
}

static void flush_some(void)
{
    uint32_t before = ++t.event;

    weir_source_flush(t.source_disks[coop_below(DISKS)]);
    if (t.mode != WEIR_SOURCE_ASYNC && before > t.flushed) {
        t.flushed = before;
    }
}

static void be_guest(void *arg)
{
    (void)arg;
    while (t.n_writes < WRITES_MAX) {
        if (coop_below(12)) {
            write_some();
        } else {
            flush_some();
        }
    }
    t.guests--;
}

/* --- what the log holds --- */

static void apply(const WeirLogScan *scan, Images *images)
{
    const uint8_t *data = scan->buf + scan->packet.head_bytes;

    for (uint32_t i = 0; i < scan->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, scan->buf, i);
        if (r.op == WEIR_LOG_WRITE) {
            memcpy(images->disks[r.disk] + r.offset, data, r.bytes);
        } else if (r.op == WEIR_LOG_ZERO) {
            memset(images->disks[r.disk] + r.offset, 0, r.bytes);
        }
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
}

static int read_after(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    memcpy(buf, t.after.now + offset, bytes);
    return 0;
}

static void cut_here(MemCut cut)
{
    static Images seen;
    WeirLogSuperblock sb;
    WeirLogScan scan;
    char err[256];

    memdisk_cut(&t.log, &t.after, cut, 0);
    if (weir_log_superblock_read(&sb, t.after.now, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("%s", err);
    }
    t.seen = sb.anchor.epoch == t.sb.anchor.epoch ? t.base : t.next;
    weir_log_scan_init(&scan, read_after, NULL, &sb, &sb.anchor);
    seen = t.seen;
    for (;;) {
        int ret = weir_log_scan_next(&scan);

        if (ret < 0) {
            break;
        }
        apply(&scan, &seen);
        if (ret == 1 && scan.cursor.consistent) {
            t.seen = seen;
            epochs++;
        }
    }
    weir_log_scan_destroy(&scan);
    cuts++;
}

/* --- the keeper --- */

static int read_kept(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    return request_log(*(uint32_t *)opaque, MEM_READ, offset, bytes, NULL, buf);
}

/* One that was written, though its flush failed, is the one to go on with. */
static void take_superblock(uint32_t since)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb;
    char err[256];

    if (read_kept(&since, 0, sizeof(copies), copies) < 0) {
        return;
    }
    if (weir_log_superblock_read(&sb, copies, LOG_BYTES, err,
                                 sizeof(err)) < 0) {
        fail("keeper: %s", err);
    }
    if (sb.sequence > t.sb.sequence) {
        t.sb = sb;
        t.base = t.next;
    }
}

/* Apply what is there for good, and free it. */
static void keep(void *arg)
{
    uint32_t since = t.power;
    WeirSourceInfo info;
    WeirLogScan scan;
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb;
    Images *images = malloc(sizeof(*images));

    (void)arg;
    take_superblock(since);
    sb = t.sb;
    weir_source_info(t.source, &info);
    *images = t.base;
    weir_log_scan_init(&scan, read_kept, &since, &sb, &sb.anchor);
    for (int ret = 0; ret >= 0 && sb.anchor.epoch < info.epoch;) {
        ret = weir_log_scan_next(&scan);
        if (ret >= 0) {
            apply(&scan, images);
        }
        if (ret == 1) {
            t.next = *images;
            sb.anchor = scan.cursor.commit;
        }
    }
    weir_log_scan_destroy(&scan);
    if (sb.anchor.epoch > t.sb.anchor.epoch) {
        sb.tail = sb.anchor.end - sb.anchor.end % SEGMENT_BYTES;
        sb.sequence++;
        weir_log_superblock_write(buf, &sb);
        if (request_log(since, MEM_WRITE, sb.sequence % WEIR_LOG_SUPERBLOCKS *
                        WEIR_LOG_SUPERBLOCK_BYTES, sizeof(buf), buf,
                        NULL) == 0 &&
            request_log(since, MEM_FLUSH, 0, 0, NULL, NULL) == 0) {
            t.sb = sb;
            t.base = t.next;
        }
    }
    free(images);
    t.keeping = false;
}

/* --- a run --- */

static void run_source(void *arg)
{
    (void)arg;
    weir_source_run(t.source);
    t.quits = true;
}

static void connect_source(void *arg)
{
    char err[256] = "";
    int ret;

    (void)arg;
    t.connection = t.power;
    ret = weir_source_connect(t.source, LOG_BYTES, err, sizeof(err));
    if (ret == -ESTALE || ret == -EINVAL) {
        fail("connecting: %s", err);
    }
    t.connecting = false;
}

static bool fire_timer(void)
{
    uint32_t first = 0;
    CoopQueue *queue;

    if (t.n_timers == 0) {
        return false;
    }
    for (uint32_t i = 1; i < t.n_timers; i++) {
        first = t.timers[i].at_ns < t.timers[first].at_ns ? i : first;
    }
    queue = t.timers[first].queue;
    t.clock_ns = t.timers[first].at_ns > t.clock_ns ? t.timers[first].at_ns
                                                    : t.clock_ns;
    t.timers[first] = t.timers[--t.n_timers];
    coop_queue_wake(queue);
    return true;
}

static bool turn(void)
{
    MemDisk *disks[] = { &t.log, &t.disks[0], &t.disks[1] };
    uint32_t first = coop_below(3);

    t.clock_ns += 1000;
    if (coop_below(2) && coop_step()) {
        return true;
    }
    for (uint32_t i = 0; i < 3; i++) {
        if (memdisk_step(disks[(first + i) % 3])) {
            return true;
        }
    }
    return coop_step() || fire_timer();
}

static bool is_connected(void)
{
    WeirSourceInfo info;

    weir_source_info(t.source, &info);
    return info.state == WEIR_SOURCE_SYNCHRONISING ||
           info.state == WEIR_SOURCE_STREAMING;
}

static bool is_streaming(void)
{
    WeirSourceInfo info;

    weir_source_info(t.source, &info);
    return info.state == WEIR_SOURCE_STREAMING;
}

/* What the world does to the log. */
static void disturb(void)
{
    static const MemCut kinds[] = { MEM_CUT_DROP, MEM_CUT_KEEP, MEM_CUT_TEAR,
                                    MEM_CUT_RANDOM, MEM_CUT_HOLES };
    MemCut kind = kinds[coop_below(5)];

    switch (coop_below(8000)) {
    case 0:
        memdisk_power_off(&t.log, kind);
        memdisk_power_on(&t.log);
        t.power++;
        lost++;
        break;
    case 1:
        t.log.fault[MEM_WRITE] = (MemFault) { .after = coop_below(5),
                                              .times = 1, .error = -EIO };
        break;
    case 2:
        /* a keeper would have to write its superblock again */
        t.log.fault[MEM_FLUSH] = (MemFault) { .after = coop_below(3),
                                              .times = 1, .error = -EIO,
                                              .forgets = !t.keeping };
        break;
    case 3:
        t.disks[0].fault[MEM_WRITE] = (MemFault) { .after = coop_below(9),
                                                   .times = 1,
                                                   .error = -EIO };
        break;
    default:
        if (coop_below(40) == 0) {
            cut_here(kind);
        }
    }
}

static void tend(void)
{
    bool forgets = t.log.fault[MEM_FLUSH].forgets &&
                   t.log.fault[MEM_FLUSH].times > 0;

    if (!is_connected() && !t.connecting && !t.quits &&
        coop_below(50) == 0) {
        t.connecting = true;
        coop_spawn(connect_source, NULL);
    }
    if (!t.keeping && !forgets && coop_below(300) == 0) {
        t.keeping = true;
        coop_spawn(keep, NULL);
    }
}

static void make_log(void *arg)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];

    (void)arg;
    t.sb.segment_bytes = SEGMENT_BYTES;
    weir_log_superblock_shape(&t.sb, LOG_BYTES);
    weir_log_superblock_write(buf, &t.sb);
    memdisk_request(&t.log, MEM_WRITE, 0, sizeof(buf), buf, NULL);
    flush_log(NULL);
}

static void set_up(WeirSourceMode mode)
{
    const WeirSourceConfig config = {
        .mode = mode, .epoch_interval_ns = 300000, .epoch_bytes = 100 << 10,
        .max_memory_bytes = 4 << 20,
    };

    memset(&t, 0, sizeof(t));
    t.mode = mode;
    memdisk_init(&t.log, LOG_BYTES, LOG_BYTES);
    memdisk_init(&t.after, LOG_BYTES, LOG_BYTES);
    coop_spawn(make_log, NULL);
    while (coop_step() || memdisk_step(&t.log)) {
    }
    if (weir_source_new(&t.source, &tasks, &host, NULL, &config) < 0) {
        fail("no source");
    }
    for (uint16_t i = 0; i < DISKS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "disk%u", i);
        memdisk_init(&t.disks[i], DISK_BYTES, DISK_BYTES);
        weir_source_add_disk(t.source, name, DISK_BYTES, &t.disks[i],
                             &t.source_disks[i]);
    }
}

static void tear_down(void)
{
    weir_source_free(t.source);
    memdisk_destroy(&t.log);
    memdisk_destroy(&t.after);
    for (int i = 0; i < DISKS; i++) {
        memdisk_destroy(&t.disks[i]);
    }
}

/* Nothing is wrong with the log any more; all of it gets there. */
static void come_to_an_end(void)
{
    memdisk_repair(&t.log);
    while (!is_connected() || t.connecting || t.keeping) {
        tend();
        if (!turn() && t.connecting) {
            fail("it does not connect");
        }
    }
    while (!is_streaming()) {
        tend();
        turn();
    }
    weir_source_stop(t.source);
    while (!t.quits) {
        if (!t.keeping && coop_below(300) == 0) {
            t.keeping = true;
            coop_spawn(keep, NULL);
        }
        if (!turn()) {
            fail("it does not end");
        }
    }
    while (turn()) {
    }
    if (coop_alive() > 0) {
        fail("somebody waits for ever");
    }
    cut_here(MEM_CUT_DROP);
    for (int i = 0; i < DISKS; i++) {
        if (memcmp(t.seen.disks[i], t.disks[i].now, DISK_BYTES)) {
            fail("the base of disk %d is not what the disk is", i);
        }
    }
}

static void run(uint64_t seed, WeirSourceMode mode)
{
    seed_now = seed;
    coop_seed(seed);
    set_up(mode);
    coop_spawn(run_source, NULL);
    for (t.guests = 0; t.guests < GUESTS; t.guests++) {
        coop_spawn(be_guest, NULL);
    }
    while (t.guests > 0) {
        tend();
        disturb();
        if (!turn()) {
            memdisk_repair(&t.log);
        }
    }
    memdisk_repair(&t.disks[0]);
    come_to_an_end();
    tear_down();
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 1;
    int mode = -1;

    report.place = place;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--mode")) {
            mode = (int)value;
        } else {
            printf("unknown option %s\n", argv[i]);
            return 1;
        }
    }
    for (uint64_t i = 0; i < runs; i++) {
        for (int m = 0; m < 3; m++) {
            if (mode < 0 || mode == m) {
                run(seed + i, (WeirSourceMode)m);
            }
        }
    }
    printf("%llu cuts, %llu epochs looked at, %llu power failures of the log, "
           "%llu failed writes: nothing wrong\n", (unsigned long long)cuts,
           (unsigned long long)epochs, (unsigned long long)lost,
           (unsigned long long)failed);
    return 0;
}

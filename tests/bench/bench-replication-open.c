/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long it takes to open a replication log by its length, and a point in
 * time of it: with the indexes of its segments ("index"), and without, when all
 * of it is read ("scan"), one after the other. The log is a sparse file, whose
 * records are of zeroes at random places of a disk; it is full but for a
 * segment.
 *
 * usage: bench-replication-open [--rounds N] [--record KIB] [--reads N]
 *            [--dir DIR] [--index-only] [--size GIB]...
 *
 * Default: records of 4 KiB; 1, 4 and 16 GiB. The file is in the cache of the
 * system; "device" is what one would take that reads 1 GB/s, and 100 us for
 * each request.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/zero.h"
#include "replication/point.h"
#include "replication/view.h"
#include "replication/writer.h"

#define SIZES_MAX 16
#define GIB (UINT64_C(1) << 30)
#define DISK_BYTES (UINT64_C(64) << 30)
#define PACKET_BYTES (UINT64_C(1) << 20)
#define EPOCH_PACKETS 4
#define WANTED_BYTES 100e9
#define DEVICE_BYTES_PER_S 1e9
#define DEVICE_REQUEST_S 100e-6

typedef enum Way { SCAN, INDEX, WAYS } Way;

typedef struct Result {
    double open_s, view_s, reads_s;     /* the least of all rounds */
    uint64_t read_bytes, requests;      /* of opening */
    uint64_t memory_bytes, view_bytes, records, chapters;
    uint64_t read_requests;             /* of the reads of a point */
} Result;

static struct {
    int fd;
    uint64_t bytes, read_bytes, written_bytes, requests;
    uint64_t random, wall_ns;
    uint32_t record_bytes, reads;
    bool index_only;
} b;

static void __attribute__((noreturn)) die(const char *what)
{
    fprintf(stderr, "bench-replication-open: %s\n", what);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- host --- */

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    b.read_bytes += bytes;
    b.requests++;
    return pread(b.fd, buf, bytes, (off_t)offset) == (ssize_t)bytes ? 0 : -EIO;
}

/* What is all zeroes at the end stays a hole. */
static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    const uint8_t *data = iov[0].iov_base;
    uint64_t used = bytes;

    (void)opaque;
    (void)niov;
    b.written_bytes += bytes;
    while (used > WEIR_LOG_ALIGN_BYTES &&
           weir_is_zero(data + used - WEIR_LOG_ALIGN_BYTES,
                        WEIR_LOG_ALIGN_BYTES)) {
        used -= WEIR_LOG_ALIGN_BYTES;
    }
    return pwrite(b.fd, data, used, (off_t)offset) == (ssize_t)used ? 0 : -EIO;
}

static int flush_log(void *opaque)
{
    (void)opaque;
    return 0;
}

static int read_base(void *base, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)base;
    (void)offset;
    memset(buf, 0, bytes);
    return 0;
}

static int64_t length_base(void *base)
{
    (void)base;
    return (int64_t)DISK_BYTES;
}

static void wait_task(void *opaque, pthread_mutex_t *lock,
                      WeirTaskQueue *queue, uint64_t until_ns)
{
    (void)opaque;
    (void)lock;
    (void)queue;
    (void)until_ns;
    die("somebody waits");
}

static void nothing(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static uint64_t wall_ns(void *opaque)
{
    (void)opaque;
    return b.wall_ns += 1000;
}

static uint64_t random_number(void *opaque)
{
    (void)opaque;
    b.random = b.random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return b.random >> 11;
}

static const WeirTasks tasks = {
    .wait = wait_task, .wake = nothing, .queue_init = nothing,
    .now_ns = wall_ns, .wall_ns = wall_ns, .random = random_number,
};

static const WeirKeeperHost host = {
    .tasks = &tasks, .read_log = read_log, .write_log = write_log,
    .flush_log = flush_log, .read_base = read_base,
    .length_base = length_base,
};

/* --- a keeper --- */

static WeirKeeper *open_keeper(void)
{
    static const WeirKeeperConfig config = {
        .retain_ns = UINT64_MAX, .index_bytes_max = GIB * 4,
    };
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirKeeper *k;

    if (weir_keeper_new(&k, &host, &config) < 0 ||
        weir_keeper_add_base(k, "vda", &b, err, sizeof(err)) < 0) {
        die("no memory");
    }
    if (weir_keeper_open(k, b.bytes, err, sizeof(err)) < 0) {
        die(err);
    }
    return k;
}

static void read_superblock(WeirLogSuperblock *sb)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    char err[WEIR_KEEPER_MESSAGE_BYTES];

    if (read_log(NULL, 0, sizeof(copies), copies) < 0 ||
        weir_log_superblock_read(sb, copies, b.bytes, err, sizeof(err)) < 0) {
        die("the superblock cannot be read");
    }
}

/* The log has indexes, or does not know of them. */
static void tell_chapters(uint64_t chapter_bytes)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];
    const struct iovec iov = { buf, sizeof(buf) };
    WeirLogSuperblock sb;

    read_superblock(&sb);
    sb.chapter_bytes = chapter_bytes;
    sb.sequence++;
    weir_log_superblock_write(buf, &sb);
    write_log(NULL, sb.sequence % WEIR_LOG_SUPERBLOCKS *
              WEIR_LOG_SUPERBLOCK_BYTES, sizeof(buf), &iov, 1);
}

/* --- filling it --- */

static uint8_t packet[WEIR_LOG_PACKET_BYTES_MAX];

static void put(WeirKeeper *k, const WeirLogSuperblock *sb, WeirLogWriter *w,
                WeirLogPacket p, const WeirLogRecord *records)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirLogCommit commit;
    struct iovec iov;

    p.wall_ns = p.commit ? wall_ns(NULL) : 0;
    if (weir_log_writer_put(w, &p, records, packet, &commit) < 0) {
        die("the log is full");
    }
    iov = (struct iovec) { packet, weir_log_packet_bytes(&p) };
    if (weir_keeper_write(k, weir_log_offset(sb, p.position), iov.iov_len, &iov,
                          1, err, sizeof(err)) < 0) {
        die(err);
    }
    memset(packet, 0, p.head_bytes);
    if (p.commit && (weir_keeper_flush(k) < 0)) {
        die("a flush");
    }
    if (p.commit) {
        weir_log_writer_durable(w, &commit);
    }
}

static void put_disk(WeirKeeper *k, const WeirLogSuperblock *sb,
                     WeirLogWriter *w)
{
    const WeirLogDisk what = { .uuid = { 1 }, .name = "vda" };
    WeirLogRecord record = { .op = WEIR_LOG_DISK, .bytes = DISK_BYTES };
    uint8_t *data = packet + weir_log_head_bytes(1);

    weir_log_disk_write(data, &what);
    record.crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES);
    put(k, sb, w, (WeirLogPacket) { .records = 1 }, &record);
    memset(data, 0, WEIR_LOG_DISK_BYTES);
}

static void put_records(WeirKeeper *k, const WeirLogSuperblock *sb,
                        WeirLogWriter *w, bool commit, uint32_t crc)
{
    static WeirLogRecord records[PACKET_BYTES / 512];
    uint32_t n = (uint32_t)(PACKET_BYTES / b.record_bytes);
    uint64_t bytes = weir_log_head_bytes(n) + PACKET_BYTES;

    if (weir_log_writer_next(w, bytes) == WEIR_LOG_NEXT_LAST) {
        put(k, sb, w, (WeirLogPacket) { .last = true }, NULL);
    }
    if (weir_log_writer_next(w, bytes) == WEIR_LOG_NEXT_FIRST) {
        put_disk(k, sb, w);
    }
    for (uint32_t i = 0; i < n; i++) {
        records[i] = (WeirLogRecord) {
            .op = WEIR_LOG_WRITE, .bytes = b.record_bytes, .crc = crc,
            .offset = random_number(NULL) % (DISK_BYTES / b.record_bytes) *
                      b.record_bytes,
        };
    }
    put(k, sb, w, (WeirLogPacket) { .records = n, .commit = commit,
                                    .consistent = commit }, records);
}

static void fill(void)
{
    static const uint8_t zeroes[PACKET_BYTES];
    uint32_t crc = weir_log_data_crc(zeroes, b.record_bytes), n = 0;
    WeirLogCommit start = { .epoch = 0 };
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirLogSuperblock sb;
    WeirLogWriter w;
    WeirKeeper *k;
    double begun = now_s();

    if (weir_keeper_format(&host, b.bytes, 0, err, sizeof(err)) < 0) {
        die(err);
    }
    k = open_keeper();
    read_superblock(&sb);
    weir_log_writer_init(&w, &sb, &start, 1);
    b.written_bytes = 0;
    while (w.position + sb.segment_bytes < weir_log_ring_bytes(&sb)) {
        put_records(k, &sb, &w, ++n % EPOCH_PACKETS == 0, crc);
    }
    printf("%.2f GiB, records of %u KiB: made in %.1f s, %.4f bytes written "
           "for each of data\n", (double)b.bytes / (double)GIB,
           b.record_bytes >> 10, now_s() - begun,
           (double)b.written_bytes / ((double)n * (double)PACKET_BYTES));
    weir_keeper_free(k);
}

/* --- measuring --- */

static double least(double a, double value)
{
    return a == 0 || value < a ? value : a;
}

static void read_some(WeirView *v)
{
    static uint8_t data[4096];
    char err[WEIR_KEEPER_MESSAGE_BYTES];

    for (uint32_t i = 0; i < b.reads; i++) {
        uint64_t at = random_number(NULL) % (DISK_BYTES / sizeof(data));

        if (weir_view_read(v, at * sizeof(data), sizeof(data), data, err,
                           sizeof(err)) < 0) {
            die(err);
        }
    }
}

static void open_once(Result *r, Way way, uint64_t chapter_bytes)
{
    static const WeirPointName latest = { .kind = WEIR_POINT_LATEST };
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirPointInfo point;
    WeirKeeperInfo info;
    WeirViewInfo of;
    WeirKeeper *k;
    WeirView *v;
    double begun, opened, viewed;

    tell_chapters(way == INDEX ? chapter_bytes : 0);
    b.read_bytes = b.requests = 0;
    begun = now_s();
    k = open_keeper();
    opened = now_s();
    r->read_bytes = b.read_bytes;
    r->requests = b.requests;
    if (weir_point_find(k, &latest, &point, err, sizeof(err)) < 0 ||
        weir_view_open(&v, k, "vda", point.epoch, err, sizeof(err)) < 0) {
        die(err);
    }
    viewed = now_s();
    weir_keeper_info(k, &info);
    r->memory_bytes = info.index_bytes;
    r->records = info.records;
    r->chapters = info.chapters;
    b.requests = 0;
    read_some(v);
    r->read_requests = b.requests;
    r->reads_s = least(r->reads_s, now_s() - viewed);
    weir_view_info(v, &of);
    r->view_bytes = of.memory_bytes;
    r->open_s = least(r->open_s, opened - begun);
    r->view_s = least(r->view_s, viewed - opened);
    weir_view_close(v);
    weir_keeper_free(k);
}

static void print(const Result *r, Way way)
{
    double device_s = (double)r->read_bytes / DEVICE_BYTES_PER_S +
                      (double)r->requests * DEVICE_REQUEST_S;
    double times = WANTED_BYTES / (double)b.bytes;

    printf("  %s: opened in %.4f s (device %.3f s: %.1f MB, %" PRIu64
           " requests), a point in %.4f s; memory %.1f MB, %.2f bytes per "
           "record, for the point %.1f MB; %u reads in %.4f s, %.1f requests "
           "each\n    100 GB, in proportion: %.2f s, device %.2f s, memory "
           "%.0f MB; a point %.2f s\n", way == INDEX ? "index" : "scan ",
           r->open_s, device_s,
           (double)r->read_bytes / 1e6, r->requests, r->view_s,
           (double)r->memory_bytes / 1e6,
           (double)r->memory_bytes / (double)r->records,
           (double)r->view_bytes / 1e6, b.reads, r->reads_s,
           b.reads ? (double)r->read_requests / b.reads : 0,
           r->open_s * times, device_s * times,
           (double)r->memory_bytes * times / 1e6, r->view_s * times);
}

static void measure(double gib, unsigned rounds, const char *dir)
{
    Result results[WAYS] = { { 0 } };
    WeirLogSuperblock sb;
    char path[4096];

    memset(&b, 0, offsetof(typeof(b), record_bytes));
    snprintf(path, sizeof(path), "%s/bench-replication-open-XXXXXX", dir);
    b.fd = mkstemp(path);
    b.bytes = (uint64_t)(gib * (double)GIB);
    b.wall_ns = UINT64_C(1000000000000000000);
    if (b.fd < 0 || unlink(path) < 0 || ftruncate(b.fd, (off_t)b.bytes) < 0) {
        die("there is no file for the log");
    }
    fill();
    read_superblock(&sb);
    for (unsigned i = 0; i < rounds; i++) {
        for (Way way = b.index_only ? INDEX : SCAN; way < WAYS; way++) {
            open_once(&results[way], way, sb.chapter_bytes);
        }
    }
    if (!b.index_only) {
        print(&results[SCAN], SCAN);
        printf("  scan/index: %.1f\n",
               results[SCAN].open_s / results[INDEX].open_s);
    }
    print(&results[INDEX], INDEX);
    if (!b.index_only && results[SCAN].records != results[INDEX].records) {
        die("both ways have found something else");
    }
    close(b.fd);
    fflush(stdout);
}

static double number(const char *text, double least_value)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= least_value && value <= 1e6)) {
        die("usage: bench-replication-open [--rounds N] [--record KIB] "
            "[--reads N] [--dir DIR] [--index-only] [--size GIB]...");
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "rounds", required_argument, NULL, 'r' },
        { "record", required_argument, NULL, 'k' },
        { "reads", required_argument, NULL, 'n' },
        { "dir", required_argument, NULL, 'd' },
        { "size", required_argument, NULL, 's' },
        { "index-only", no_argument, NULL, 'i' },
        { NULL, 0, NULL, 0 },
    };
    double size[SIZES_MAX] = { 1, 4, 16 };
    const char *dir = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    unsigned rounds = 3, given = 0;
    int option;

    b.record_bytes = 4096;
    b.reads = 1000;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') {
            rounds = (unsigned)number(optarg, 1);
        } else if (option == 'k') {
            b.record_bytes = (uint32_t)number(optarg, 1) << 10;
        } else if (option == 'n') {
            b.reads = (uint32_t)number(optarg, 0);
        } else if (option == 'i') {
            b.index_only = true;
        } else if (option == 'd') {
            dir = optarg;
        } else if (option == 's' && given < SIZES_MAX) {
            size[given++] = number(optarg, 0.125);
        } else {
            number("", 0);
        }
    }
    if (b.record_bytes > PACKET_BYTES || b.record_bytes % 512) {
        number("", 0);
    }
    for (unsigned i = 0; i < (given ? given : 3); i++) {
        measure(size[i], rounds, dir);
    }
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A writer appends epochs to a replication log on a small disk, some packets at
 * a time, while a keeper frees the oldest ones. The power is cut before and
 * after every request, in several ways: then the last valid epoch has to be one
 * that was written, and none may be gone that had become durable. Now and then
 * the power is really cut, and the next writer goes on with what is left.
 *
 * usage: test-replication-power [--seed N] [--runs N] [--lives N]
 *            [--mutation RULE]
 * With --mutation a rule of docs/weir-replication-log.md is left out, and the
 * test passes only when it finds something wrong. RULE: 2, an epoch counts as
 * durable before the flush; 4, space is used before its being free is durable;
 * 5, the next writer does not flush; 6, a stale packet is not written over (the
 * segment is left without a packet that says so).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coop.h"
#include "memdisk.h"
#include "replication/scan.h"
#include "replication/writer.h"
#include "report.h"

#define SEGMENT_BYTES WEIR_LOG_SEGMENT_BYTES_MIN
#define SEGMENTS 4
#define DEVICE_BYTES (WEIR_LOG_RING_OFFSET + SEGMENTS * SEGMENT_BYTES)
#define EPOCHS_MAX 4096
#define EPOCHS_PER_LIFE 24
#define IN_FLIGHT_MAX 6
#define RECORDS_MAX 12
#define DATA_BYTES_MAX (160 * 1024)
#define DISKS 2

static const MemCut cuts_made[] = { MEM_CUT_DROP, MEM_CUT_KEEP, MEM_CUT_TEAR,
                                    MEM_CUT_RANDOM, MEM_CUT_HOLES };
#define CUTS (sizeof(cuts_made) / sizeof(cuts_made[0]))

typedef struct Sent {
    uint64_t offset, bytes;
    uint8_t data[];
} Sent;

static struct {
    MemDisk disk, after;
    WeirLogSuperblock sb;       /* as the keeper has it */
    WeirLogWriter writer;
    WeirLogCommit commits[EPOCHS_MAX];  /* [epoch % EPOCHS_MAX] */
    uint64_t last;              /* epoch that was put */
    uint64_t durable;           /* that was told to be so */
    uint64_t ended;             /* all packets up to it were written */
    uint32_t in_flight;
    bool dead, quits;
    bool wants_room;            /* the writer waits for the keeper */
    CoopQueue moved;            /* something ended */
} log_;

static uint32_t mutation;
static uint64_t instants, cuts, epochs, laps, seed_now;

static void place(void)
{
    printf("seed %llu, instant %llu, epoch %llu, durable %llu: ",
           (unsigned long long)seed_now, (unsigned long long)instants,
           (unsigned long long)log_.last, (unsigned long long)log_.durable);
}

/* --- what a cut leaves --- */

static int read_after(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    MemDisk *disk = opaque;

    if (offset + bytes > disk->bytes) {
        fail("read behind the end: %llu + %llu", (unsigned long long)offset,
             (unsigned long long)bytes);
    }
    memcpy(buf, disk->now + offset, bytes);
    return 0;
}

/* What a reader would find: the superblock, and the last valid epoch. */
static void look(MemDisk *disk, WeirLogSuperblock *sb, WeirLogCommit *end)
{
    char err[256] = "";

    if (weir_log_superblock_read(sb, disk->now, disk->bytes, err,
                                 sizeof(err)) < 0) {
        fail("superblock: %s", err);
    }
    if (weir_log_find_end(read_after, disk, sb, end) < 0) {
        fail("find_end fails");
    }
}

static void check_end(const WeirLogCommit *end)
{
    if (end->epoch < log_.durable) {
        fail("epoch %llu was durable; the log ends with %llu",
             (unsigned long long)log_.durable, (unsigned long long)end->epoch);
    }
    if (end->epoch > log_.last ||
        memcmp(end, &log_.commits[end->epoch % EPOCHS_MAX], sizeof(*end))) {
        fail("epoch %llu is not what was written",
             (unsigned long long)end->epoch);
    }
}

/* From the anchor on there is each epoch. */
static void check_epochs(MemDisk *disk, const WeirLogSuperblock *sb,
                         const WeirLogCommit *end)
{
    WeirLogScan scan;

    weir_log_scan_init(&scan, read_after, disk, sb, &sb->anchor);
    for (int ret = 0; ret >= 0; ret = weir_log_scan_next(&scan)) {
        const WeirLogCommit *commit = &scan.cursor.commit;

        if (memcmp(commit, &log_.commits[commit->epoch % EPOCHS_MAX],
                   sizeof(*commit))) {
            fail("epoch %llu reads as another",
                 (unsigned long long)commit->epoch);
        }
    }
    if (memcmp(&scan.cursor.commit, end, sizeof(*end))) {
        fail("read from the anchor on, the log ends with %llu, not %llu",
             (unsigned long long)scan.cursor.commit.epoch,
             (unsigned long long)end->epoch);
    }
    weir_log_scan_destroy(&scan);
}

static void cut_here(void)
{
    for (size_t i = 0; i < CUTS; i++) {
        WeirLogSuperblock sb;
        WeirLogCommit end;

        memdisk_cut(&log_.disk, &log_.after, cuts_made[i], 0);
        look(&log_.after, &sb, &end);
        check_end(&end);
        if (instants % 8 == i) {
            check_epochs(&log_.after, &sb, &end);
        }
        cuts++;
    }
    instants++;
}

/* --- the writer --- */

static void send(void *arg)
{
    Sent *sent = arg;

    if (memdisk_request(&log_.disk, MEM_WRITE, sent->offset, sent->bytes,
                        sent->data, NULL) < 0) {
        log_.dead = true;
    }
    free(sent);
    log_.in_flight--;
    coop_queue_wake(&log_.moved);
}

static void fill(WeirLogRecord *r, uint8_t *data)
{
    for (uint64_t i = 0; i < r->bytes; i += 8) {
        uint64_t number = coop_random();

        memcpy(data + i, &number, 8);
    }
    r->crc = weir_log_data_crc(data, r->bytes);
}

/* Records of any kind; *bytes: of their data. */
static uint32_t invent(WeirLogRecord *records, uint8_t *data, uint64_t *bytes)
{
    uint32_t n = coop_below(RECORDS_MAX + 1);

    *bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        WeirLogRecord *r = &records[i];

        *r = (WeirLogRecord) {
            .disk = (uint16_t)coop_below(DISKS),
            .op = coop_below(4) ? WEIR_LOG_WRITE : WEIR_LOG_ZERO,
            .offset = coop_below(1000) * 512,
            .bytes = 512 * (1 + coop_below(24)),
        };
        if (r->op == WEIR_LOG_WRITE) {
            fill(r, data + *bytes);
        }
        *bytes += weir_log_data_room(weir_log_data_bytes(r));
    }
    return n;
}

static uint32_t list_disks(WeirLogRecord *records, uint8_t *data,
                           uint64_t *bytes)
{
    for (uint16_t i = 0; i < DISKS; i++) {
        WeirLogDisk disk = { .uuid = { (uint8_t)(i + 1) } };
        uint8_t *at = data + *bytes;

        snprintf(disk.name, sizeof(disk.name), "disk%u", i);
        weir_log_disk_write(at, &disk);
        records[i] = (WeirLogRecord) {
            .disk = i, .op = WEIR_LOG_DISK, .bytes = 1 << 20,
            .crc = weir_log_data_crc(at, WEIR_LOG_DISK_BYTES),
        };
        *bytes += weir_log_data_room(WEIR_LOG_DISK_BYTES);
    }
    return DISKS;
}

/* Flush what has been written, and tell what is durable by that. */
static void make_durable(void)
{
    uint64_t epoch = log_.last;
    int ret = 0;

    while (log_.in_flight > 0 && !log_.dead) {
        coop_queue_wait(&log_.moved);
    }
    if (mutation == 2 && !log_.dead) {
        log_.durable = epoch;
    }
    ret = log_.dead ? -EIO : memdisk_request(&log_.disk, MEM_FLUSH, 0, 0, NULL,
                                             NULL);
    if (ret < 0) {
        log_.dead = true;
        return;
    }
    log_.durable = epoch;
    weir_log_writer_durable(&log_.writer, &log_.commits[epoch % EPOCHS_MAX]);
}

/* Until it has its place, and not too many are under way. */
static bool put(WeirLogPacket *p, const WeirLogRecord *records, uint8_t *head,
                WeirLogCommit *commit)
{
    while (!log_.dead) {
        if (log_.in_flight < IN_FLIGHT_MAX &&
            weir_log_writer_put(&log_.writer, p, records, head, commit) == 0) {
            return true;
        }
        if (log_.in_flight == 0 && log_.durable < log_.last) {
            make_durable();
        } else {
            log_.wants_room = log_.in_flight == 0;
            coop_queue_wake(&log_.moved);
            coop_queue_wait(&log_.moved);
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
    memcpy(sent->data + head_bytes, data, data_bytes);
    sent->offset = weir_log_offset(&log_.sb, p->position);
    sent->bytes = weir_log_packet_bytes(p);
    log_.in_flight++;
    coop_spawn(send, sent);
    return true;
}

/* What has to go before a packet of so many bytes. */
static bool make_way(uint64_t bytes)
{
    WeirLogRecord records[DISKS];
    uint8_t data[DISKS * WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };
    uint64_t data_bytes = 0;
    WeirLogPacket p = { 0 };

    if (weir_log_writer_next(&log_.writer, bytes) == WEIR_LOG_NEXT_LAST) {
        if (mutation == 6) {
            log_.writer.position += SEGMENT_BYTES -
                                    log_.writer.position % SEGMENT_BYTES;
        } else {
            p.last = true;
            if (!write_packet(&p, NULL, data, 0, NULL)) {
                return false;
            }
        }
    }
    if (weir_log_writer_next(&log_.writer, bytes) == WEIR_LOG_NEXT_FIRST) {
        p = (WeirLogPacket) { .records = list_disks(records, data,
                                                    &data_bytes) };
        laps++;
        return write_packet(&p, records, data, data_bytes, NULL);
    }
    return true;
}

static bool write_some(bool commits)
{
    static uint8_t data[DATA_BYTES_MAX];
    WeirLogRecord records[RECORDS_MAX];
    uint64_t data_bytes;
    WeirLogPacket p = { .commit = commits, .consistent = coop_below(2),
                        .wall_ns = coop_below(1000) };
    WeirLogCommit commit;
    uint8_t *copy;
    bool ok;

    p.records = invent(records, data, &data_bytes);
    copy = malloc(data_bytes + 1);
    memcpy(copy, data, data_bytes);
    ok = make_way(weir_log_head_bytes(p.records) + data_bytes) &&
         write_packet(&p, records, copy, data_bytes, &commit);
    if (ok && commits) {
        log_.commits[commit.epoch % EPOCHS_MAX] = commit;
        log_.last = commit.epoch;
        epochs++;
    }
    free(copy);
    return ok;
}

static void write_epochs(void *arg)
{
    (void)arg;
    for (int i = 0; i < EPOCHS_PER_LIFE && !log_.dead; i++) {
        uint32_t packets = 1 + coop_below(3);

        while (packets > 0 && write_some(packets == 1)) {
            packets--;
        }
        if (packets == 0 && coop_below(2)) {
            make_durable();
        }
    }
    log_.quits = true;
    coop_queue_wake(&log_.moved);
}

/* --- the keeper --- */

static bool write_superblock(void)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];

    log_.sb.sequence++;
    weir_log_superblock_write(buf, &log_.sb);
    return memdisk_request(&log_.disk, MEM_WRITE, log_.sb.sequence %
                           WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES,
                           sizeof(buf), buf, NULL) == 0 &&
           memdisk_request(&log_.disk, MEM_FLUSH, 0, 0, NULL, NULL) == 0;
}

/* All up to a durable epoch is not needed any more. */
static void free_some(uint64_t epoch)
{
    WeirLogCommit anchor = log_.commits[epoch % EPOCHS_MAX];
    uint64_t tail = anchor.end - anchor.end % SEGMENT_BYTES;

    if (mutation == 4) {
        log_.writer.tail = tail;
        coop_queue_wake(&log_.moved);
    }
    log_.sb.anchor = anchor;
    log_.sb.tail = tail;
    if (!write_superblock()) {
        log_.dead = true;
    } else {
        log_.writer.tail = tail;
    }
    coop_queue_wake(&log_.moved);
}

static void keep(void *arg)
{
    (void)arg;
    while (!log_.quits && !log_.dead) {
        if (log_.durable > log_.sb.anchor.epoch &&
            (log_.wants_room || coop_below(50) == 0)) {
            log_.wants_room = false;
            free_some(log_.durable);
        } else {
            coop_queue_wait(&log_.moved);
        }
    }
}

/* --- lives --- */

static void begin_life(void *arg)
{
    WeirLogCommit end;

    (void)arg;
    look(&log_.disk, &log_.sb, &end);
    check_end(&end);
    if (mutation != 5 &&
        memdisk_request(&log_.disk, MEM_FLUSH, 0, 0, NULL, NULL) < 0) {
        return;
    }
    log_.last = log_.durable = end.epoch;
    weir_log_writer_init(&log_.writer, &log_.sb, &end, coop_random());
    coop_spawn(write_epochs, NULL);
    coop_spawn(keep, NULL);
}

static bool turn(void)
{
    return coop_below(3) ? coop_step() || memdisk_step(&log_.disk)
                         : memdisk_step(&log_.disk) || coop_step();
}

/*
 * After so many turns the writer is killed, or the power goes, and comes back
 * when all have ended.
 */
static void live(uint32_t turns, MemCut cut)
{
    bool killed = coop_below(3) == 0;

    log_.dead = log_.quits = false;
    coop_spawn(begin_life, NULL);
    while (turns > 0 && turn()) {
        turns--;
    }
    log_.dead = true;
    coop_queue_wake(&log_.moved);
    if (!killed) {
        memdisk_power_off(&log_.disk, cut);
    }
    while (turn()) {
    }
    if (coop_alive() > 0) {
        fail("somebody waits for ever");
    }
    memdisk_power_on(&log_.disk);
}

static void at_end_of_request(MemDisk *disk, MemOp op, bool after)
{
    (void)disk;
    (void)after;
    if (op != MEM_READ && !log_.disk.dead) {
        cut_here();
    }
}

static void make_log(void *arg)
{
    (void)arg;
    log_.sb.segment_bytes = SEGMENT_BYTES;
    if (weir_log_superblock_shape(&log_.sb, DEVICE_BYTES) < 0 ||
        !write_superblock()) {
        fail("no log of that size");
    }
}

static void run(uint64_t seed, uint64_t lives)
{
    memset(&log_, 0, sizeof(log_));
    seed_now = seed;
    coop_seed(seed);
    memdisk_init(&log_.disk, DEVICE_BYTES, DEVICE_BYTES);
    memdisk_init(&log_.after, DEVICE_BYTES, DEVICE_BYTES);
    coop_spawn(make_log, NULL);
    while (turn()) {
    }
    log_.disk.ends = at_end_of_request;
    for (uint64_t i = 0; i < lives; i++) {
        live(1 + coop_below(400), cuts_made[coop_below(CUTS)]);
    }
    memdisk_destroy(&log_.disk);
    memdisk_destroy(&log_.after);
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 1, lives = 20;

    report.place = place;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--lives")) {
            lives = value;
        } else if (!strcmp(argv[i], "--mutation")) {
            mutation = (uint32_t)value;
            report.status = 0;
        } else {
            printf("unknown option %s\n", argv[i]);
            return 1;
        }
    }
    for (uint64_t i = 0; i < runs; i++) {
        run(seed + i, lives);
    }
    printf("%llu cuts at %llu instants, %llu epochs, %llu segments begun: "
           "nothing wrong\n", (unsigned long long)cuts,
           (unsigned long long)instants, (unsigned long long)epochs,
           (unsigned long long)laps);
    return mutation ? 1 : 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hostile client, and a hostile device. Whatever is written to the keeper of
 * a log, and whatever its device holds when it is opened: no crash, nothing
 * outside of the device, the ring or a base is touched, the superblock is never
 * written by a client, and each point that is offered can be read. What was
 * valid and durable stays so as long as the device is not changed.
 *
 * The input is a number of steps: kind (1 byte), then what it needs.
 *   0 a good epoch: fill (1), bytes / 512 (1)
 *   1 a packet that was changed: place (2), length (1), bytes; sealed again
 *   2 the same, not sealed
 *   3 a flush    4 open again    5 promote: epoch from the last (1)
 *   6 change the device: place (3), length (1), bytes; then open again
 *   7 a write of anything: offset / 4096 (2), length (1), bytes
 *   8 read a point: epoch from the last (1)
 *   9 another session
 *  10 an epoch that is put in order of its second packet first
 *  11 as 0, compressed
 *  12 as 1, compressed, with the checksum of what is compressed put right too
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/compress.h"
#include "replication/point.h"
#include "replication/scan.h"
#include "replication/view.h"
#include "replication/writer.h"

#define LOG_BYTES (WEIR_LOG_RING_OFFSET + 4 * WEIR_LOG_SEGMENT_BYTES_MIN)
#define DISK_BYTES (128 << 10)
#define STEPS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *device, *base;
static uint64_t base_bytes, clock_ns, session, dirty;
static WeirKeeper *k;
static WeirLogSuperblock sb;
static WeirLogWriter w;
static bool connected, changed;
static uint64_t acked;

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* --- host --- */

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    must(offset <= LOG_BYTES && bytes <= LOG_BYTES - offset,
         "a read outside of the device");
    memcpy(buf, device + offset, bytes);
    return 0;
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    (void)opaque;
    must(niov == 1 && iov[0].iov_len == bytes, "a write in pieces");
    must(offset <= LOG_BYTES && bytes <= LOG_BYTES - offset,
         "a write outside of the device");
    memcpy(device + offset, iov[0].iov_base, bytes);
    dirty = offset + bytes > dirty ? offset + bytes : dirty;
    return 0;
}

static int flush(void *opaque)
{
    (void)opaque;
    return 0;
}

static int read_base(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    must(offset <= base_bytes && bytes <= base_bytes - offset,
         "a read outside of the base");
    memcpy(buf, base + offset, bytes);
    return 0;
}

static int64_t length_of(void *opaque)
{
    (void)opaque;
    return (int64_t)base_bytes;
}

static void wait_task(void *opaque, pthread_mutex_t *lock,
                      WeirTaskQueue *queue, uint64_t until_ns)
{
    (void)opaque;
    (void)lock;
    (void)queue;
    (void)until_ns;
    must(false, "one request at a time has to wait");
}

static void wake_tasks(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static uint64_t now_ns(void *opaque)
{
    (void)opaque;
    return clock_ns;
}

static uint64_t random_number(void *opaque)
{
    (void)opaque;
    return ++session;
}

static const WeirTasks tasks = {
    .wait = wait_task, .wake = wake_tasks, .queue_init = wake_tasks,
    .now_ns = now_ns, .wall_ns = now_ns, .random = random_number,
};

static const WeirKeeperHost host = {
    .tasks = &tasks, .read_log = read_log, .write_log = write_log,
    .flush_log = flush, .read_base = read_base, .length_base = length_of,
};

/* --- the keeper --- */

static bool open_log(void)
{
    const WeirKeeperConfig config = { .retain_ns = UINT64_MAX,
                                      .lease_ns = 100,
                                      .index_bytes_max = 1 << 20 };
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    WeirKeeperInfo info;

    weir_keeper_free(k);
    connected = false;
    must(weir_keeper_new(&k, &host, &config) == 0, "no memory");
    must(weir_keeper_add_base(k, "vda", base, err, sizeof(err)) == 0, err);
    if (weir_keeper_open(k, LOG_BYTES, err, sizeof(err)) < 0) {
        must(err[0] && !strchr(err, '\n'), "refused without a reason");
        must(changed, err);
        return false;
    }
    weir_keeper_info(k, &info);
    must(changed || info.durable_epoch >= acked, "an epoch is gone");
    acked = info.durable_epoch;
    return true;
}

static int read_client(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    return weir_keeper_read(k, offset, bytes, buf);
}

static void connect(void)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogCommit end;
    char err[256];

    clock_ns += 1000;
    must(weir_keeper_read(k, 0, sizeof(copies), copies) == 0, "no read");
    must(weir_log_superblock_read(&sb, copies, LOG_BYTES, err,
                                  sizeof(err)) == 0, err);
    must(weir_log_find_end(read_client, NULL, &sb, &end) == 0, "no end");
    connected = weir_keeper_flush(k) == 0;
    weir_log_writer_init(&w, &sb, &end, random_number(NULL));
}

static int put(const uint8_t *packet, uint64_t offset, uint64_t bytes)
{
    const struct iovec iov[2] = { { (void *)(uintptr_t)packet, bytes / 2 },
                                  { (void *)(uintptr_t)(packet + bytes / 2),
                                    bytes - bytes / 2 } };
    uint8_t before[WEIR_LOG_RING_OFFSET];
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    int ret;

    memcpy(before, device, sizeof(before));
    ret = weir_keeper_write(k, offset, bytes, iov, 2, err, sizeof(err));
    must(ret == 0 || (err[0] && !strchr(err, '\n')), "no reason");
    must(!memcmp(before, device, sizeof(before)), "the superblock is written");
    connected = connected && ret == 0;
    return ret;
}

/* --- packets --- */

static uint8_t packet[WEIR_LOG_PACKET_BYTES_MAX];

static bool make(WeirLogPacket *p, const WeirLogRecord *records,
                 const uint8_t *data, uint64_t data_bytes)
{
    uint64_t head = weir_log_head_bytes(p->records);
    WeirLogCommit commit;

    memset(packet, 0, head + data_bytes + WEIR_LOG_ALIGN_BYTES);
    p->wall_ns = p->commit ? clock_ns : 0;
    if (weir_log_writer_put(&w, p, records, packet, &commit) < 0) {
        return false;
    }
    if (data_bytes > 0) {
        memcpy(packet + head, data, data_bytes);
    }
    return true;
}

static bool make_disk(WeirLogPacket *p)
{
    const WeirLogDisk disk = { .name = "vda", .uuid = { 1 } };
    uint8_t data[WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };
    WeirLogRecord record = { .op = WEIR_LOG_DISK, .bytes = DISK_BYTES };

    weir_log_disk_write(data, &disk);
    record.crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES);
    *p = (WeirLogPacket) { .records = 1 };
    return make(p, &record, data, sizeof(data));
}

static int send(const WeirLogPacket *p)
{
    return put(packet, weir_log_offset(&sb, p->position),
               weir_log_packet_bytes(p));
}

/* Not all the same, but much of it again and again. */
static uint64_t compress(WeirLogRecord *r, uint8_t fill, uint8_t *data)
{
    static uint8_t plain[DISK_BYTES];
    WeirCompressor *c = weir_compressor_new();
    uint64_t room;

    for (uint32_t i = 0; i < r->bytes; i++) {
        plain[i] = (uint8_t)(fill + (i * i >> 5) % 23);
    }
    r->crc = weir_log_data_crc(plain, r->bytes);
    room = weir_compress(c, r, plain, data);
    if (room == 0) {
        room = weir_log_data_room(r->bytes);
        memcpy(data, plain, r->bytes);
    }
    weir_compressor_free(c);
    return room;
}

static bool make_epoch(WeirLogPacket *p, uint8_t fill, uint32_t bytes,
                       bool compressed)
{
    static uint8_t data[DISK_BYTES];
    WeirLogRecord records[] = {
        { .op = WEIR_LOG_WRITE, .offset = fill * 512u, .bytes = bytes },
        { .op = WEIR_LOG_ZERO, .offset = 512, .bytes = 512 },
        { .op = WEIR_LOG_MARK, .bytes = 3 },
    };
    uint64_t room;

    memset(data, fill, sizeof(data));
    records[0].bytes = bytes ? bytes : 512;
    if (records[0].offset + records[0].bytes > DISK_BYTES) {
        records[0].offset = 0;
    }
    room = weir_log_data_room(records[0].bytes);
    records[0].crc = weir_log_data_crc(data, records[0].bytes);
    if (compressed) {
        room = compress(&records[0], fill, data);
    }
    memcpy(data + room, "abc", 3);
    records[2].crc = weir_log_data_crc(data + room, 3);
    *p = (WeirLogPacket) { .records = 3, .commit = true,
                           .consistent = fill % 4 != 0 };
    return make(p, records, data, room + WEIR_LOG_DATA_ALIGN_BYTES);
}

/* What goes before it, and the packet. */
static bool prepare(WeirLogPacket *p, uint8_t fill, uint8_t sectors,
                    bool compressed)
{
    if (!connected) {
        connect();
    }
    if (weir_log_writer_next(&w, 70000) == WEIR_LOG_NEXT_LAST) {
        *p = (WeirLogPacket) { .last = true };
        if (!make(p, NULL, NULL, 0) || send(p) < 0) {
            return false;
        }
    }
    if (weir_log_writer_next(&w, 70000) == WEIR_LOG_NEXT_FIRST &&
        (!make_disk(p) || send(p) < 0)) {
        return false;
    }
    return connected && make_epoch(p, fill, sectors % 100 * 512u, compressed);
}

/* That of the first record. */
static void seal_data(void)
{
    uint32_t head = weir_log_packet_peek(packet);
    uint64_t bytes = le_get(packet + WEIR_LOG_HEADER_BYTES + 24, 4);

    if (head > 0 && head + bytes <= sizeof(packet)) {
        le_put(packet + WEIR_LOG_HEADER_BYTES + 28,
               weir_log_data_crc(packet + head, bytes), 4);
    }
}

static void seal(void)
{
    uint32_t head = weir_log_packet_peek(packet);

    if (head > 0 && head <= sizeof(packet)) {
        le_put(packet + 8, crc_without(packet, head, 8, ~0u), 4);
    }
}

/* --- steps --- */

typedef struct Input {
    const uint8_t *data;
    size_t size;
} Input;

static uint32_t take(Input *in, unsigned bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0) {
        value = value << 8 | (in->size > 0 ? *in->data : 0);
        in->data += in->size > 0;
        in->size -= in->size > 0;
    }
    return value;
}

static void change(Input *in, uint8_t *at, size_t room, unsigned place_bytes)
{
    size_t place = take(in, place_bytes) % room, n = take(in, 1) % 32;

    for (size_t i = place; i < place + n && i < room; i++) {
        at[i] = (uint8_t)take(in, 1);
    }
}

static void good_epoch(Input *in, bool compressed)
{
    uint8_t fill = (uint8_t)take(in, 1), sectors = (uint8_t)take(in, 1);
    WeirLogPacket p;

    if (prepare(&p, fill, sectors, compressed)) {
        send(&p);
    }
}

static void bad_packet(Input *in, bool sealed, bool compressed)
{
    WeirLogPacket p;

    if (prepare(&p, 3, compressed ? 64 : 4, compressed)) {
        change(in, packet, weir_log_packet_bytes(&p), 2);
        if (compressed) {
            seal_data();
        }
        if (sealed) {
            seal();
        }
        send(&p);
    }
}

static void turned_epoch(void)
{
    static uint8_t first[WEIR_LOG_ALIGN_BYTES];
    WeirLogPacket a = { .records = 0 }, b;

    if (!prepare(&b, 1, 1, false) || send(&b) < 0 || !make(&a, NULL, NULL, 0)) {
        return;
    }
    memcpy(first, packet, sizeof(first));
    if (make_epoch(&b, 5, 1024, false) && send(&b) == 0) {
        put(first, weir_log_offset(&sb, a.position), sizeof(first));
    }
}

static void write_anything(Input *in)
{
    uint64_t offset = (uint64_t)take(in, 2) * 4096;
    uint8_t bytes[32];
    uint32_t n = 1 + take(in, 1) % 32;

    for (uint32_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)take(in, 1);
    }
    must(put(bytes, offset, n) < 0, "rubbish is taken");
}

static void promote(uint32_t back)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    WeirKeeperInfo info;
    uint64_t epoch;

    weir_keeper_info(k, &info);
    epoch = info.epoch > back ? info.epoch - back : 0;
    if (weir_keeper_promote(k, epoch, err, sizeof(err)) == 0) {
        acked = epoch < acked ? epoch : acked;
        connected = false;
    } else {
        must(err[0], "refused without a reason");
    }
}

static bool read_point(void *opaque, const WeirPointInfo *info,
                       const char *const *marks)
{
    (void)marks;
    *(uint64_t *)opaque = info->epoch;
    return false;
}

static void look(uint32_t back)
{
    static uint8_t data[4096];
    char err[WEIR_KEEPER_MESSAGE_BYTES] = "";
    uint64_t epoch = 0, piece;
    WeirKeeperInfo info;
    WeirViewPiece kind;
    WeirViewInfo of;
    WeirView *view;
    int ret;

    weir_keeper_info(k, &info);
    weir_point_list(k, info.epoch + 1 - (back < info.epoch ? back : 0), false,
                    read_point, &epoch);
    if (epoch == 0 ||
        weir_view_open(&view, k, "vda", epoch, err, sizeof(err)) < 0) {
        must(epoch == 0 || changed, err);
        return;
    }
    weir_view_info(view, &of);
    for (uint64_t at = 0; at + sizeof(data) <= of.bytes && at < DISK_BYTES;
         at += sizeof(data)) {
        ret = weir_view_read(view, at, sizeof(data), data, err, sizeof(err));
        must(ret == 0 || changed, "a point cannot be read");
        ret = weir_view_status(view, at, sizeof(data), &kind, &piece);
        must((ret == 0 && piece > 0 && piece <= sizeof(data)) || changed,
             "a piece");
    }
    weir_view_close(view);
}

static bool step(Input *in)
{
    switch (take(in, 1) % 13) {
    case 0:
        good_epoch(in, false);
        break;
    case 1:
        bad_packet(in, true, false);
        break;
    case 2:
        bad_packet(in, false, false);
        break;
    case 3:
        if (weir_keeper_flush(k) == 0) {
            WeirKeeperInfo info;

            weir_keeper_info(k, &info);
            must(info.durable_epoch == info.epoch, "a flush that is none");
            acked = info.epoch;
        }
        break;
    case 4:
        return open_log();
    case 5:
        promote(take(in, 1) % 8);
        break;
    case 6:
        changed = true;
        change(in, device, 1 << 18, 3);
        return open_log();
    case 7:
        write_anything(in);
        break;
    case 8:
        look(take(in, 1));
        break;
    case 9:
        connect();
        break;
    case 11:
        good_epoch(in, true);
        break;
    case 12:
        bad_packet(in, true, true);
        break;
    default:
        turned_epoch();
        break;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    char err[WEIR_KEEPER_MESSAGE_BYTES];

    if (!device) {
        device = calloc(1, LOG_BYTES);
        base = calloc(1, DISK_BYTES);
    }
    memset(device, 0, dirty > 1 << 18 ? dirty : 1 << 18);
    dirty = 0;
    base_bytes = DISK_BYTES / 2;
    clock_ns = 1000000;
    session = 1;
    acked = 0;
    changed = false;
    must(weir_keeper_format(&host, LOG_BYTES, WEIR_LOG_SEGMENT_BYTES_MIN, err,
                            sizeof(err)) == 0, "no log is made");
    if (open_log()) {
        for (int i = 0; i < STEPS_MAX && in.size > 0 && step(&in); i++) {
        }
    }
    weir_keeper_free(k);
    k = NULL;
    return 0;
}

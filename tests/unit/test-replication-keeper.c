/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the keeper of a replication log takes, refuses, offers and applies, over
 * plain memory and with threads. (When power fails: tests/crash.)
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/compress.h"
#include "replication/leave.h"
#include "replication/point.h"
#include "replication/scan.h"
#include "replication/view.h"
#include "replication/writer.h"

#define SEGMENT WEIR_LOG_SEGMENT_BYTES_MIN
#define LOG_BYTES (WEIR_LOG_RING_OFFSET + 4 * SEGMENT)
#define DISK_BYTES (UINT64_C(64) << 10)
#define NS_PER_S UINT64_C(1000000000)

typedef struct Device {
    pthread_mutex_t lock;
    uint8_t *data;
    uint64_t bytes, room;
    uint64_t read_bytes;
    int write_error, flush_error;
} Device;

static struct {
    Device log, base;
    WeirKeeper *k;
    WeirKeeperConfig config;
    uint64_t wall_ns;
    pthread_t thread;
    bool running;
    WeirLogSuperblock sb;
    WeirLogWriter w;
    WeirLogCommit last;         /* that it has put */
    char err[WEIR_KEEPER_MESSAGE_BYTES];
} t;

/* --- host --- */

static int read_device(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    Device *d = opaque;

    pthread_mutex_lock(&d->lock);
    memcpy(buf, d->data + offset, bytes);
    d->read_bytes += bytes;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static int write_device(void *opaque, uint64_t offset, uint64_t bytes,
                        const void *buf)
{
    Device *d = opaque;
    int ret;

    pthread_mutex_lock(&d->lock);
    ret = d->write_error;
    if (ret == 0) {
        memcpy(d->data + offset, buf, bytes);
    }
    pthread_mutex_unlock(&d->lock);
    return ret;
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    (void)niov;
    return write_device(opaque, offset, bytes, iov[0].iov_base);
}

static int flush_device(void *opaque)
{
    Device *d = opaque;
    int ret;

    pthread_mutex_lock(&d->lock);
    ret = d->flush_error;
    pthread_mutex_unlock(&d->lock);
    return ret;
}

static int zero_device(void *opaque, uint64_t offset, uint64_t bytes)
{
    uint8_t *zeroes = calloc(1, bytes);
    int ret = write_device(opaque, offset, bytes, zeroes);

    free(zeroes);
    return ret;
}

static int resize_device(void *opaque, uint64_t bytes)
{
    Device *d = opaque;

    pthread_mutex_lock(&d->lock);
    d->bytes = bytes;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static int64_t length_of(void *opaque)
{
    return (int64_t)((Device *)opaque)->bytes;
}

static pthread_cond_t woken;

static void wait_task(void *opaque, pthread_mutex_t *lock,
                      WeirTaskQueue *queue, uint64_t until_ns)
{
    const struct timespec until = { (time_t)(until_ns / NS_PER_S),
                                    (long)(until_ns % NS_PER_S) };

    (void)opaque;
    (void)queue;
    if (until_ns == WEIR_TASKS_FOREVER) {
        pthread_cond_wait(&woken, lock);
    } else {
        pthread_cond_timedwait(&woken, lock, &until);
    }
}

static void wake_tasks(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    (void)queue;
    pthread_cond_broadcast(&woken);
}

static void init_queue(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static uint64_t now_ns(void *opaque)
{
    struct timespec now;

    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t wall_ns(void *opaque)
{
    (void)opaque;
    return __atomic_load_n(&t.wall_ns, __ATOMIC_RELAXED);
}

static uint64_t random_number(void *opaque)
{
    static uint64_t last = 100;

    (void)opaque;
    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

static const WeirTasks tasks = {
    .wait = wait_task, .wake = wake_tasks, .queue_init = init_queue,
    .now_ns = now_ns, .wall_ns = wall_ns, .random = random_number,
};

static const WeirKeeperHost host = {
    .tasks = &tasks, .opaque = &t.log, .read_log = read_device,
    .write_log = write_log, .flush_log = flush_device,
    .read_base = read_device, .write_base = write_device,
    .zero_base = zero_device, .discard_base = zero_device,
    .resize_base = resize_device, .flush_base = flush_device,
    .length_base = length_of,
};

/* --- a keeper and a writer --- */

static void device_init(Device *d, uint64_t bytes, uint64_t room)
{
    memset(d, 0, sizeof(*d));
    pthread_mutex_init(&d->lock, NULL);
    d->data = calloc(1, room);
    d->bytes = bytes;
    d->room = room;
}

static int set_up(void **state)
{
    pthread_condattr_t attr;

    (void)state;
    memset(&t, 0, sizeof(t));
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&woken, &attr);
    pthread_condattr_destroy(&attr);
    t.wall_ns = 1000 * NS_PER_S;
    t.config.retain_ns = UINT64_MAX;
    t.config.lease_ns = 3600 * NS_PER_S;
    device_init(&t.log, LOG_BYTES, LOG_BYTES);
    device_init(&t.base, 0, 4 * DISK_BYTES);
    return 0;
}

static void shut(void)
{
    if (t.running) {
        weir_keeper_stop(t.k);
        pthread_join(t.thread, NULL);
        t.running = false;
    }
    weir_keeper_free(t.k);
    t.k = NULL;
}

static int tear_down(void **state)
{
    (void)state;
    shut();
    free(t.log.data);
    free(t.base.data);
    pthread_cond_destroy(&woken);
    return 0;
}

static int try_open(void)
{
    shut();
    assert_int_equal(weir_keeper_new(&t.k, &host, &t.config), 0);
    assert_int_equal(weir_keeper_add_base(t.k, "vda", &t.base, t.err,
                                          sizeof(t.err)), 0);
    return weir_keeper_open(t.k, LOG_BYTES, t.err, sizeof(t.err));
}

static void start(void)
{
    if (t.k == NULL && t.log.data[WEIR_LOG_SUPERBLOCK_BYTES] == 0 &&
        t.log.data[0] == 0) {
        assert_int_equal(weir_keeper_format(&host, LOG_BYTES, SEGMENT, t.err,
                                            sizeof(t.err)), 0);
    }
    assert_int_equal(try_open(), 0);
}

static void *run(void *arg)
{
    weir_keeper_run(arg);
    return NULL;
}

static void begin_applying(void)
{
    assert_int_equal(pthread_create(&t.thread, NULL, run, t.k), 0);
    t.running = true;
}

static WeirKeeperInfo info(void)
{
    WeirKeeperInfo info;

    weir_keeper_info(t.k, &info);
    return info;
}

static int read_client(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    return weir_keeper_read(t.k, offset, bytes, buf);
}

static void connect(void)
{
    uint8_t copies[2 * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogCommit end;

    assert_int_equal(weir_keeper_read(t.k, 0, sizeof(copies), copies), 0);
    assert_int_equal(weir_log_superblock_read(&t.sb, copies, LOG_BYTES, t.err,
                                              sizeof(t.err)), 0);
    assert_int_equal(weir_log_find_end(read_client, NULL, &t.sb, &end), 0);
    assert_int_equal(weir_keeper_flush(t.k), 0);
    weir_log_writer_init(&t.w, &t.sb, &end, random_number(NULL));
}

typedef struct Sent {
    WeirLogPacket p;
    uint64_t offset, bytes;
    uint8_t *data;
} Sent;

/* data_bytes: of all records together. */
static Sent make(WeirLogPacket p, WeirLogRecord *records, const uint8_t *data,
                 uint64_t data_bytes)
{
    uint64_t head = weir_log_head_bytes(p.records);
    Sent sent = { .data = calloc(1, head + data_bytes + 4096) };
    WeirLogCommit commit;

    p.wall_ns = p.commit ? __atomic_add_fetch(&t.wall_ns, 1, __ATOMIC_RELAXED)
                         : 0;
    assert_int_equal(weir_log_writer_put(&t.w, &p, records, sent.data,
                                         &commit), 0);
    if (data_bytes > 0) {
        memcpy(sent.data + head, data, data_bytes);
    }
    t.last = p.commit ? commit : t.last;
    sent.p = p;
    sent.offset = weir_log_offset(&t.sb, p.position);
    sent.bytes = weir_log_packet_bytes(&p);
    return sent;
}

static int put(const Sent *sent)
{
    const struct iovec iov = { sent->data, sent->bytes };

    t.err[0] = 0;
    return weir_keeper_write(t.k, sent->offset, sent->bytes, &iov, 1, t.err,
                             sizeof(t.err));
}

static int send(Sent sent)
{
    int ret = put(&sent);

    free(sent.data);
    return ret;
}

static Sent make_disk(uint8_t uuid, const char *name, uint64_t bytes)
{
    uint8_t data[WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };
    WeirLogDisk what = { .uuid = { uuid } };
    WeirLogRecord record = { .op = WEIR_LOG_DISK, .bytes = bytes };

    strcpy(what.name, name);
    weir_log_disk_write(data, &what);
    record.crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES);
    return make((WeirLogPacket) { .records = 1 }, &record, data,
                sizeof(data));
}

static void make_way(uint64_t bytes)
{
    if (weir_log_writer_next(&t.w, bytes) == WEIR_LOG_NEXT_LAST) {
        assert_int_equal(send(make((WeirLogPacket) { .last = true }, NULL,
                                   NULL, 0)), 0);
    }
    if (weir_log_writer_next(&t.w, bytes) == WEIR_LOG_NEXT_FIRST) {
        assert_int_equal(send(make_disk(1, "vda", DISK_BYTES)), 0);
    }
}

static Sent make_write(uint8_t fill, uint64_t offset, uint64_t bytes,
                       bool consistent)
{
    static uint8_t data[DISK_BYTES];
    WeirLogRecord record = { .op = WEIR_LOG_WRITE, .offset = offset,
                             .bytes = bytes };

    memset(data, fill, bytes);
    record.crc = weir_log_data_crc(data, bytes);
    return make((WeirLogPacket) { .records = 1, .commit = true,
                                  .consistent = consistent }, &record, data,
                weir_log_data_room(bytes));
}

/* Byte `at` of a write that has different ones. */
static uint8_t pattern(uint8_t fill, uint64_t at)
{
    return (uint8_t)(fill + at / 512 * (at % 3 == 0));
}

/* The same, compressed, of many bytes. */
static Sent make_packed(uint8_t fill, uint64_t offset, uint64_t bytes)
{
    static uint8_t plain[DISK_BYTES], data[DISK_BYTES];
    WeirCompressor *c = weir_compressor_new();
    WeirLogRecord record = { .op = WEIR_LOG_WRITE, .offset = offset,
                             .bytes = bytes };
    uint64_t room;

    for (uint64_t i = 0; i < bytes; i++) {
        plain[i] = pattern(fill, i);
    }
    record.crc = weir_log_data_crc(plain, bytes);
    room = weir_compress(c, &record, plain, data);
    assert_true(room > 0 && room < bytes);
    weir_compressor_free(c);
    return make((WeirLogPacket) { .records = 1, .commit = true,
                                  .consistent = true }, &record, data, room);
}

/* An epoch with one write. */
static void epoch(uint8_t fill, uint64_t offset, uint64_t bytes)
{
    make_way(DISK_BYTES + 4096);
    assert_int_equal(send(make_write(fill, offset, bytes, true)), 0);
}

static void packed_epoch(uint8_t fill, uint64_t offset, uint64_t bytes)
{
    make_way(DISK_BYTES + 4096);
    assert_int_equal(send(make_packed(fill, offset, bytes)), 0);
}

static void marked_epoch(const char *mark)
{
    WeirLogRecord record = { .op = WEIR_LOG_MARK, .bytes = strlen(mark) };
    uint8_t data[WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };

    make_way(4096);
    memcpy(data, mark, strlen(mark));
    record.crc = weir_log_data_crc(data, strlen(mark));
    assert_int_equal(send(make((WeirLogPacket) {
        .records = 1, .commit = true, .consistent = true,
        .application_consistent = true }, &record, data, sizeof(data))), 0);
}

static void flush(void)
{
    assert_int_equal(weir_keeper_flush(t.k), 0);
    if (t.last.epoch > t.w.durable.epoch && t.last.end == t.w.position) {
        weir_log_writer_durable(&t.w, &t.last);
    }
}

static int byte_at(uint64_t epoch, uint64_t offset)
{
    WeirView *view;
    uint8_t byte;
    int ret = weir_view_open(&view, t.k, "vda", epoch, t.err, sizeof(t.err));

    if (ret < 0) {
        return ret;
    }
    ret = weir_view_read(view, offset, 1, &byte, t.err, sizeof(t.err));
    weir_view_close(view);
    return ret < 0 ? ret : byte;
}

static void wait_applied(uint64_t epoch)
{
    for (int i = 0; i < 3000 && info().applied_epoch < epoch; i++) {
        nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
    }
    assert_int_equal(info().applied_epoch, epoch);
}

/* --- tests --- */

/* What only a keeper writes is not taken from a client. */
static void test_origin_refused(void **state)
{
    static const WeirLogOp ops[] = { WEIR_LOG_LACK, WEIR_LOG_ORIGIN };

    (void)state;
    start();
    connect();
    assert_int_equal(send(make_disk(1, "vda", DISK_BYTES)), 0);
    for (int i = 0; i < 2; i++) {
        uint8_t data[WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };
        WeirLogRecord record = { .op = ops[i] };

        record.bytes = record.op == WEIR_LOG_LACK ? 4096 : 0;
        record.crc = record.op == WEIR_LOG_LACK
                     ? 0 : weir_log_data_crc(data, WEIR_LOG_ORIGIN_BYTES);
        assert_int_equal(send(make((WeirLogPacket) {
            .records = 1, .commit = true }, &record, data,
            weir_log_data_room(weir_log_data_bytes(&record)))), -EINVAL);
        assert_non_null(strstr(t.err, "only a keeper"));
    }
    assert_int_equal(info().epoch, 0);
}

static void test_format(void **state)
{
    (void)state;
    assert_int_equal(weir_keeper_format(&host, LOG_BYTES, 4096, t.err,
                                        sizeof(t.err)), -EINVAL);
    assert_int_equal(weir_keeper_format(&host, 2 * SEGMENT, SEGMENT, t.err,
                                        sizeof(t.err)), -ENOSPC);
    assert_int_equal(try_open(), -ENOENT);
    shut();
    t.log.data[300000] = 1;
    assert_int_equal(weir_keeper_format(&host, LOG_BYTES, SEGMENT, t.err,
                                        sizeof(t.err)), -EEXIST);
    t.log.data[300000] = 0;
    start();
    assert_int_equal(weir_keeper_format(&host, LOG_BYTES, SEGMENT, t.err,
                                        sizeof(t.err)), -EEXIST);
    assert_int_equal(info().epoch, 0);
    assert_int_equal(info().points, 0);
}

static void test_points(void **state)
{
    WeirPointName name;
    WeirPointInfo point;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    marked_epoch("evening");
    epoch(2, 0, 512);
    assert_int_equal(info().points, 0);         /* not durable yet */
    flush();
    assert_int_equal(info().points, 3);
    assert_int_equal(byte_at(1, 0), 1);
    assert_int_equal(byte_at(2, 0), 1);
    assert_int_equal(byte_at(3, 511), 2);
    assert_int_equal(byte_at(3, 512), 0);
    assert_int_equal(byte_at(4, 0), -ENOENT);
    assert_int_equal(weir_point_parse(&name, "mark:evening", t.err,
                                      sizeof(t.err)), 0);
    assert_int_equal(weir_point_find(t.k, &name, &point, t.err,
                                     sizeof(t.err)), 0);
    assert_int_equal(point.epoch, 2);
    assert_true(point.application_consistent);
    assert_int_equal(weir_point_parse(&name,
                                      "time:1970-01-01T00:16:40.000000001Z",
                                      t.err, sizeof(t.err)), 0);
    assert_int_equal(weir_point_find(t.k, &name, &point, t.err,
                                     sizeof(t.err)), 0);
    assert_int_equal(point.epoch, 1);
    assert_int_equal(weir_point_parse(&name, "time:1970-01-01T00:16:39.9Z",
                                      t.err, sizeof(t.err)), 0);
    assert_int_equal(weir_point_find(t.k, &name, &point, t.err,
                                     sizeof(t.err)), -ENOENT);
}

static void test_names_that_are_none(void **state)
{
    static const char *const names[] = {
        "", "newest", "epoch:", "epoch:-1", "epoch:1x", "mark:", "time:",
        "epoch:99999999999999999999", "time:2026-11-25", "time:2026-11-25T12",
        "time:2026-13-25T12:00:00Z", "time:2026-11-25T12:00:00",
        "time:2026-11-25T24:00:00Z", "time:2026-11-25T12:00:00Zx",
    };
    WeirPointName name;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        t.err[0] = 0;
        assert_int_equal(weir_point_parse(&name, names[i], t.err,
                                          sizeof(t.err)), -EINVAL);
        assert_non_null(strstr(t.err, "no point in time"));
    }
}

/* Each defect is refused, and nothing of it gets to the device. */
static void test_refused(void **state)
{
    uint8_t *before = malloc(LOG_BYTES);
    Sent good, bad;

    (void)state;
    start();
    connect();
    assert_int_equal(send(make_disk(1, "vda", DISK_BYTES)), 0);
    memcpy(before, t.log.data, LOG_BYTES);
    good = make_write(7, 0, 4096, true);
    for (uint64_t at = 0; at < good.bytes; at += 97) {
        bad = good;
        bad.data = malloc(good.bytes);
        memcpy(bad.data, good.data, good.bytes);
        bad.data[at] ^= 0x40;
        if (at < 256 + 32 || (at >= good.p.head_bytes &&
                              at < good.p.head_bytes + 4096)) {
            assert_int_equal(send(bad), -EINVAL);
            assert_true(strlen(t.err) > 0 && !strchr(t.err, '\n'));
        } else {
            free(bad.data);             /* padding: not looked at */
        }
    }
    assert_memory_equal(before, t.log.data, LOG_BYTES);
    bad = good;
    bad.offset += 4096;
    assert_int_equal(put(&bad), -EINVAL);
    assert_memory_equal(before, t.log.data, LOG_BYTES);
    assert_true(info().refused > 10);
    bad = good;
    bad.offset = 4096;
    assert_int_equal(put(&bad), -EINVAL);
    free(good.data);
    free(before);
}

static void refuse_disk(uint8_t uuid, const char *name, uint64_t bytes)
{
    connect();
    assert_int_equal(send(make_disk(uuid, name, bytes)), -EINVAL);
    assert_non_null(strstr(t.err, "disk"));
}

static void test_other_disk(void **state)
{
    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    flush();
    t.config.lease_ns = 1;
    weir_keeper_set_config(t.k, &t.config);
    refuse_disk(2, "vda", DISK_BYTES);
    refuse_disk(1, "vdb", DISK_BYTES);
    refuse_disk(1, "vda", DISK_BYTES * 2);
    connect();
    assert_int_equal(send(make_write(1, DISK_BYTES - 512, 1024, true)),
                     -EINVAL);
    connect();
    assert_int_equal(send(make_disk(1, "vda", DISK_BYTES)), 0);
    assert_int_equal(send(make_write(9, 0, 512, true)), 0);
    flush();
    assert_int_equal(byte_at(2, 0), 9);
}

static void test_sessions(void **state)
{
    WeirLogWriter first;
    Sent late;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    flush();
    first = t.w;
    connect();                          /* another one */
    assert_int_equal(send(make_write(2, 0, 512, true)), -EBUSY);
    t.w = first;
    assert_int_equal(send(make_write(3, 0, 512, true)), 0);
    late = make_write(5, 0, 512, true);
    flush();
    t.config.lease_ns = 1;
    weir_keeper_set_config(t.k, &t.config);
    connect();
    assert_int_equal(send(make_write(4, 0, 512, true)), 0);
    assert_int_equal(send(late), -EPERM);
    flush();
    assert_int_equal(byte_at(3, 0), 4);
}

/* One that begins again need not wait for itself, but its old packets count
 * no more. */
static void test_session_of_the_same_life(void **state)
{
    Sent late;

    (void)state;
    start();
    connect();
    t.w.session = UINT64_C(7) << 32 | 1;
    epoch(1, 0, 512);
    flush();
    late = make_write(2, 0, 512, true);
    connect();
    t.w.session = UINT64_C(8) << 32 | 1;
    assert_int_equal(send(make_write(3, 0, 512, true)), -EBUSY);
    connect();
    t.w.session = UINT64_C(7) << 32 | 2;
    assert_int_equal(send(make_write(4, 0, 512, true)), 0);
    assert_int_equal(send(late), -EPERM);
    flush();
    assert_int_equal(byte_at(2, 0), 4);
    /* without a life, nobody is the same */
    t.config.lease_ns = 1;
    weir_keeper_set_config(t.k, &t.config);
    connect();
    t.w.session = 1;
    assert_int_equal(send(make_write(5, 0, 512, true)), 0);
    t.config.lease_ns = 3600 * NS_PER_S;
    weir_keeper_set_config(t.k, &t.config);
    connect();
    t.w.session = 2;
    assert_int_equal(send(make_write(6, 0, 512, true)), -EBUSY);
}

static int leave(const uint8_t *group, uint64_t session, size_t damaged)
{
    uint8_t buf[WEIR_LOG_LEAVE_BYTES];
    const struct iovec iov = { buf, sizeof(buf) };

    weir_log_leave_write(buf, group, session);
    if (damaged > 0) {
        buf[damaged] ^= 1;
    }
    return weir_keeper_write(t.k, WEIR_LOG_LEAVE_OFFSET, sizeof(buf), &iov, 1,
                             t.err, sizeof(t.err));
}

static void test_leave(void **state)
{
    uint8_t group[WEIR_LOG_UUID_BYTES] = { 1 };
    WeirLogWriter first;
    Sent late;

    (void)state;
    start();
    connect();
    assert_true(t.sb.is_kept);
    epoch(1, 0, 512);
    flush();
    late = make_write(2, 0, 512, true);
    first = t.w;
    /* none of these ends it */
    assert_int_equal(leave(t.sb.group, first.session ^ 1, 0), 0);
    assert_int_equal(leave(group, first.session, 0), -EINVAL);
    assert_int_equal(leave(t.sb.group, first.session, 40), -EINVAL);
    assert_int_equal(leave(t.sb.group, first.session, 9), -EINVAL);
    assert_int_equal(info().refused, 3);
    connect();
    assert_int_equal(send(make_write(3, 0, 512, true)), -EBUSY);
    assert_int_equal(leave(t.sb.group, first.session, 0), 0);
    connect();
    assert_int_equal(send(make_write(4, 0, 512, true)), 0);
    assert_int_equal(send(late), -EPERM);
    /* again: it is another session that is alive */
    assert_int_equal(leave(t.sb.group, first.session, 0), 0);
    epoch(5, 0, 512);
    flush();
    assert_int_equal(byte_at(2, 0), 4);
    assert_int_equal(byte_at(3, 0), 5);
    /* nothing of it is on the device */
    for (size_t i = 0; i < WEIR_LOG_LEAVE_BYTES; i++) {
        assert_int_equal(t.log.data[WEIR_LOG_LEAVE_OFFSET + i], 0);
    }
    assert_int_equal(t.log.data[24], 0);
}

static void test_out_of_order(void **state)
{
    Sent a, b, c;

    (void)state;
    start();
    connect();
    a = make_disk(1, "vda", DISK_BYTES);
    b = make_write(1, 0, 512, true);
    c = make_write(2, 512, 512, true);
    assert_int_equal(put(&c), 0);
    assert_int_equal(put(&b), 0);
    assert_int_equal(info().epoch, 0);
    assert_int_equal(put(&a), 0);
    assert_int_equal(info().epoch, 2);
    assert_int_equal(put(&b), -EINVAL);         /* twice; ends the session */
    free(a.data);
    free(b.data);
    free(c.data);
    flush();
    connect();
    assert_int_equal(t.w.epoch, 3);
    assert_int_equal(byte_at(2, 0), 1);
    assert_int_equal(byte_at(2, 512), 2);
}

/* What was not durable is gone, and the writer is told before it goes on. */
static void test_flush_fails(void **state)
{
    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    flush();
    epoch(2, 0, 512);
    t.log.flush_error = -EIO;
    assert_int_equal(weir_keeper_flush(t.k), -EIO);
    t.log.flush_error = 0;
    assert_int_equal(weir_keeper_flush(t.k), -EIO);
    assert_int_equal(info().epoch, 1);
    assert_int_equal(send(make_write(3, 0, 512, true)), -EPERM);
    connect();
    assert_int_equal(t.w.epoch, 2);
    epoch(4, 0, 512);
    flush();
    assert_int_equal(byte_at(2, 0), 4);
}

static void test_write_fails(void **state)
{
    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    flush();
    t.log.write_error = -ENOSPC;
    assert_int_equal(send(make_write(2, 0, 512, true)), -ENOSPC);
    t.log.write_error = 0;
    assert_int_equal(byte_at(1, 0), 1);
    connect();
    epoch(3, 0, 512);
    flush();
    assert_int_equal(byte_at(2, 0), 3);
}

static void test_promote(void **state)
{
    Sent late;
    WeirView *view;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    epoch(2, 0, 512);
    epoch(3, 0, 512);
    flush();
    late = make_write(4, 0, 512, true);
    assert_int_equal(weir_view_open(&view, t.k, "vda", 3, t.err,
                                    sizeof(t.err)), 0);
    assert_int_equal(weir_keeper_promote(t.k, 2, t.err, sizeof(t.err)),
                     -EBUSY);
    weir_view_close(view);
    assert_int_equal(weir_keeper_promote(t.k, 9, t.err, sizeof(t.err)),
                     -ENOENT);
    assert_int_equal(weir_keeper_promote(t.k, 2, t.err, sizeof(t.err)), 0);
    assert_int_equal(put(&late), -EPERM);
    assert_non_null(strstr(t.err, "generation"));
    assert_int_equal(info().epoch, 2);
    assert_int_equal(byte_at(2, 0), 2);
    assert_int_equal(byte_at(3, 0), -ENOENT);
    assert_int_equal(try_open(), 0);
    assert_int_equal(info().generation, 2);
    assert_int_equal(info().epoch, 2);
    assert_int_equal(put(&late), -EPERM);
    free(late.data);
    connect();
    epoch(5, 0, 512);
    flush();
    assert_int_equal(byte_at(3, 0), 5);
}

/* A log of 32 generations takes another one only if an old one may go. */
static void test_many_generations(void **state)
{
    (void)state;
    start();
    for (uint64_t i = 1; i <= 31; i++) {
        connect();
        epoch((uint8_t)i, 0, 512);
        flush();
        assert_int_equal(weir_keeper_promote(t.k, i, t.err, sizeof(t.err)),
                         0);
    }
    connect();
    epoch(32, 0, 512);
    flush();
    assert_int_equal(weir_keeper_promote(t.k, 32, t.err, sizeof(t.err)),
                     -EBUSY);
    assert_int_equal(try_open(), 0);
    assert_int_equal(byte_at(1, 0), 1);
    weir_keeper_apply_to(t.k, 32);
    begin_applying();
    wait_applied(32);
    assert_int_equal(weir_keeper_promote(t.k, 32, t.err, sizeof(t.err)), 0);
    assert_int_equal(try_open(), 0);
    assert_int_equal(byte_at(32, 0), 32);
}

static void test_apply(void **state)
{
    uint64_t done, total;
    WeirView *view;
    uint8_t byte;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    epoch(2, 512, 512);
    epoch(3, 0, 512);
    flush();
    assert_int_equal(weir_view_open(&view, t.k, "vda", 2, t.err,
                                    sizeof(t.err)), 0);
    weir_keeper_apply_to(t.k, 3);
    begin_applying();
    wait_applied(2);                    /* and no further */
    assert_int_equal(weir_keeper_applied_to(t.k, 3, &done, &total), 0);
    assert_true(done > 0 && done < total);
    assert_int_equal(weir_view_read(view, 0, 1, &byte, t.err, sizeof(t.err)),
                     0);
    assert_int_equal(byte, 1);
    weir_view_close(view);
    wait_applied(3);
    assert_int_equal(weir_keeper_applied_to(t.k, 3, &done, &total), 1);
    assert_int_equal(t.base.data[0], 3);
    assert_int_equal(t.base.data[512], 2);
    assert_int_equal(info().points, 1);
    assert_int_equal(byte_at(3, 0), 3);
    assert_int_equal(byte_at(2, 0), -ENOENT);
    assert_int_equal(try_open(), 0);
    assert_int_equal(info().applied_epoch, 3);
    assert_int_equal(byte_at(3, 512), 2);
}

/* The base is as long as the disk; what was cut off comes back as zeroes. */
static void test_resize(void **state)
{
    WeirLogRecord records[] = {
        { .op = WEIR_LOG_RESIZE, .bytes = 512 },
        { .op = WEIR_LOG_RESIZE, .bytes = 4096 },
    };

    (void)state;
    start();
    connect();
    epoch(1, 0, 4096);
    assert_int_equal(send(make((WeirLogPacket) {
        .records = 2, .commit = true, .consistent = true }, records, NULL,
        0)), 0);
    flush();
    assert_int_equal(byte_at(1, 4000), 1);
    assert_int_equal(byte_at(2, 511), 1);
    assert_int_equal(byte_at(2, 512), 0);
    weir_keeper_apply_to(t.k, 2);
    begin_applying();
    wait_applied(2);
    assert_int_equal(t.base.bytes, 4096);
    assert_int_equal(t.base.data[511], 1);
    assert_int_equal(t.base.data[512], 0);
}

static void fill_ring(bool consistent, uint64_t bytes)
{
    for (uint64_t sent = 0; sent < bytes; sent += DISK_BYTES) {
        make_way(DISK_BYTES + 4096);
        assert_int_equal(send(make_write((uint8_t)(sent / DISK_BYTES + 1), 0,
                                         DISK_BYTES, consistent)), 0);
    }
}

static void wait_for_tail(uint64_t tail)
{
    for (int i = 0; i < 3000 && t.w.tail < tail; i++) {
        uint8_t copies[2 * WEIR_LOG_SUPERBLOCK_BYTES];
        WeirLogSuperblock sb;

        assert_int_equal(weir_keeper_read(t.k, 0, sizeof(copies), copies), 0);
        assert_int_equal(weir_log_superblock_read(&sb, copies, LOG_BYTES,
                                                  t.err, sizeof(t.err)), 0);
        t.w.tail = sb.tail;
        nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
    }
    assert_true(t.w.tail >= tail);
}

/* The first copy may be longer than the log: there is no point to protect. */
static void test_first_copy(void **state)
{
    (void)state;
    start();
    begin_applying();
    connect();
    fill_ring(false, 3 * SEGMENT + SEGMENT / 4);
    assert_int_equal(info().points, 0);
    wait_for_tail(SEGMENT);
    fill_ring(false, SEGMENT);
    epoch(200, 0, 512);
    flush();
    assert_int_equal(info().points, 1);
    assert_int_equal(byte_at(info().epoch, 0), 200);
    shut();
    assert_int_equal(try_open(), 0);
    assert_int_equal(info().points, 1);
    assert_int_equal(byte_at(info().epoch, 0), 200);
}

/* What is behind the tail is not written over, whatever a writer wants. */
static void test_full(void **state)
{
    (void)state;
    start();
    connect();
    fill_ring(true, 3 * SEGMENT + SEGMENT / 4);
    flush();
    t.w.tail = SEGMENT;
    for (int i = 0; i < 20 && t.w.position + DISK_BYTES + 8192 <
         4 * SEGMENT; i++) {
        epoch(9, 0, DISK_BYTES);
    }
    assert_int_equal(send(make((WeirLogPacket) { .last = true }, NULL, NULL,
                               0)), 0);
    assert_int_equal(send(make_disk(1, "vda", DISK_BYTES)), -ENOSPC);
    flush();
    assert_int_equal(byte_at(1, 0), 1);
}

/* A later copy that fills the log waits: the point before it stays. */
static void test_resync_fills_log(void **state)
{
    char reason[WEIR_KEEPER_MESSAGE_BYTES];
    int i;

    (void)state;
    start();
    begin_applying();
    connect();
    epoch(77, 0, 512);
    flush();
    fill_ring(false, 3 * SEGMENT + SEGMENT / 4);
    flush();
    for (i = 0; i < 3000 && info().apply != WEIR_KEEPER_HELD_BY_RESYNC; i++) {
        nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
    }
    assert_int_equal(info().apply, WEIR_KEEPER_HELD_BY_RESYNC);
    assert_int_equal(weir_keeper_state(t.k, reason), WEIR_KEEPER_DEGRADED);
    assert_non_null(strstr(reason, "synchronisation"));
    assert_int_equal(info().points, 1);
    assert_int_equal(byte_at(1, 0), 77);
}

/* Damage ends the log there; what is before it stays good. */
static void test_damage(void **state)
{
    char reason[WEIR_KEEPER_MESSAGE_BYTES];
    uint64_t offset;
    Sent second;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    make_way(8192);
    second = make_write(2, 0, 512, true);
    offset = second.offset + second.p.head_bytes + 100;
    assert_int_equal(send(second), 0);
    fill_ring(true, SEGMENT / 2);
    flush();
    fill_ring(true, SEGMENT);
    flush();
    t.log.data[offset] ^= 1;
    assert_int_equal(byte_at(2, 0), -EIO);
    assert_non_null(strstr(t.err, "damaged"));
    assert_int_equal(byte_at(1, 0), 1);
    assert_int_equal(try_open(), 0);
    assert_int_equal(info().epoch, 1);
    assert_int_equal(byte_at(1, 0), 1);
    assert_int_equal(weir_keeper_state(t.k, reason), WEIR_KEEPER_DEGRADED);
    assert_non_null(strstr(reason, "lost"));
    connect();
    assert_int_equal(t.w.epoch, 2);
}

/* What is damaged is found before the base is touched. */
static void test_damage_is_not_applied(void **state)
{
    uint64_t offset;
    Sent second;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    make_way(8192);
    second = make_write(2, 512, 512, true);
    offset = second.offset + second.p.head_bytes + 100;
    assert_int_equal(send(second), 0);
    flush();
    t.log.data[offset] ^= 1;
    weir_keeper_apply_to(t.k, 2);
    begin_applying();
    for (int i = 0; i < 3000 && info().apply_error == 0; i++) {
        nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
    }
    assert_int_equal(info().apply_error, -EBADMSG);
    assert_int_equal(t.base.data[0], 0);
    assert_int_equal(byte_at(1, 0), 1);
}

static void test_base_fails(void **state)
{
    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    flush();
    pthread_mutex_lock(&t.base.lock);
    t.base.write_error = -EIO;
    pthread_mutex_unlock(&t.base.lock);
    weir_keeper_apply_to(t.k, 1);
    begin_applying();
    for (int i = 0; i < 3000 && info().apply_error == 0; i++) {
        nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
    }
    assert_int_equal(info().apply_error, -EIO);
    epoch(2, 0, 512);                   /* receiving goes on */
    flush();
    assert_int_equal(byte_at(2, 0), 2);
}

/* --- compressed --- */

/* Some bytes of a point from an offset on, of a write with that fill. */
static void assert_pattern(WeirView *view, uint8_t fill, uint64_t offset,
                           uint64_t bytes)
{
    static uint8_t data[DISK_BYTES];

    assert_int_equal(weir_view_read(view, offset, bytes, data, t.err,
                                    sizeof(t.err)), 0);
    for (uint64_t i = 0; i < bytes; i++) {
        assert_int_equal(data[i], pattern(fill, offset + i));
    }
}

/* All of a record is read, and a part; plain ones lie over and beside it. */
static void test_packed_point(void **state)
{
    WeirView *view;

    (void)state;
    start();
    connect();
    packed_epoch(5, 0, DISK_BYTES);
    epoch(9, 1000, 24);
    flush();
    assert_int_equal(try_open(), 0);    /* as it is read from the device, too */
    assert_int_equal(weir_view_open(&view, t.k, "vda", 1, t.err,
                                    sizeof(t.err)), 0);
    assert_pattern(view, 5, 0, DISK_BYTES);
    assert_pattern(view, 5, DISK_BYTES - 1, 1);
    assert_pattern(view, 5, 777, 4096);
    weir_view_close(view);
    assert_int_equal(byte_at(2, 999), pattern(5, 999));
    assert_int_equal(byte_at(2, 1000), 9);
    assert_int_equal(byte_at(2, 1023), 9);
    assert_int_equal(byte_at(2, 1024), pattern(5, 1024));
}

/* In small parts, a record is read from the log once, compressed or not. */
static void test_parts_are_read_once(void **state)
{
    WeirView *view;
    uint64_t before;

    (void)state;
    start();
    connect();
    packed_epoch(5, 0, DISK_BYTES);
    epoch(6, 0, DISK_BYTES);
    flush();
    for (uint64_t point = 1; point <= 2; point++) {
        assert_int_equal(weir_view_open(&view, t.k, "vda", point, t.err,
                                        sizeof(t.err)), 0);
        before = t.log.read_bytes;
        for (uint64_t at = 0; at < DISK_BYTES; at += 512) {
            uint8_t data[512];

            assert_int_equal(weir_view_read(view, at, 512, data, t.err,
                                            sizeof(t.err)), 0);
            assert_int_equal(data[1], point == 1 ? pattern(5, at + 1) : 6);
        }
        assert_true(t.log.read_bytes - before <=
                    (point == 1 ? DISK_BYTES / 4 : DISK_BYTES));
        weir_view_close(view);
    }
}

/* Compressed and plain, newer over older, of which some is not needed. */
static void test_packed_apply(void **state)
{
    (void)state;
    start();
    connect();
    packed_epoch(1, 0, DISK_BYTES);
    epoch(2, 4096, 4096);
    packed_epoch(3, 8192, 8192);
    packed_epoch(4, 8192, 8192);
    flush();
    weir_keeper_apply_to(t.k, 4);
    begin_applying();
    wait_applied(4);
    for (uint64_t i = 0; i < DISK_BYTES; i++) {
        assert_int_equal(t.base.data[i],
                         i >= 8192 && i < 16384 ? pattern(4, i - 8192) :
                         i >= 4096 && i < 8192 ? 2 : pattern(1, i));
    }
    assert_int_equal(byte_at(4, 8192), 4);
}

/* The writer meant something else: he must hear of that, not the replica. */
static void test_packed_refused(void **state)
{
    uint8_t *before = malloc(LOG_BYTES);
    Sent bad;

    (void)state;
    start();
    connect();
    make_way(DISK_BYTES + 4096);
    memcpy(before, t.log.data, LOG_BYTES);
    bad = make_packed(5, 0, DISK_BYTES);
    bad.data[WEIR_LOG_HEADER_BYTES] ^= 1;
    le_put(bad.data + 8, crc_without(bad.data, bad.p.head_bytes, 8, ~0u), 4);
    assert_int_equal(send(bad), -EINVAL);
    assert_non_null(strstr(t.err, "decompressed"));
    assert_memory_equal(before, t.log.data, LOG_BYTES);
    free(before);
}

/* A log that was made before there was compression. */
static void test_log_takes_nothing_packed(void **state)
{
    (void)state;
    start();
    shut();
    le_put(t.log.data + 16, 0, 8);
    le_put(t.log.data + 12, crc_without(t.log.data, WEIR_LOG_SUPERBLOCK_BYTES,
                                        12, ~0u), 4);
    assert_int_equal(try_open(), 0);
    connect();
    assert_false(t.sb.zstd);
    make_way(DISK_BYTES + 4096);
    assert_int_equal(send(make_packed(5, 0, DISK_BYTES)), -EINVAL);
    assert_non_null(strstr(t.err, "takes nothing compressed"));
    connect();
    assert_int_equal(send(make_disk(1, "vda", DISK_BYTES)), 0);
    epoch(6, 0, DISK_BYTES);
    flush();
    assert_int_equal(byte_at(1, 0), 6);
}

static void test_packed_damage(void **state)
{
    uint64_t offset;
    Sent bad;

    (void)state;
    start();
    connect();
    epoch(1, 0, 512);
    make_way(DISK_BYTES + 4096);
    bad = make_packed(5, 0, DISK_BYTES);
    offset = bad.offset + bad.p.head_bytes;
    assert_int_equal(send(bad), 0);
    flush();
    for (uint64_t at = 0; at < 64; at++) {
        t.log.data[offset + at] ^= 1;
        assert_int_equal(byte_at(2, 600), -EIO);
        assert_non_null(strstr(t.err, "damaged"));
        t.log.data[offset + at] ^= 1;
    }
    assert_int_equal(byte_at(2, 600), pattern(5, 600));
    t.log.data[offset] ^= 1;
    weir_keeper_apply_to(t.k, 2);
    begin_applying();
    for (int i = 0; i < 3000 && info().apply_error == 0; i++) {
        nanosleep(&(struct timespec) { 0, 10000000 }, NULL);
    }
    assert_int_equal(info().apply_error, -EBADMSG);
    assert_int_equal(t.base.data[0], 0);
}

/* --- many at once --- */

#define EPOCHS 400

static void *read_points(void *arg)
{
    bool *quits = arg;

    while (!__atomic_load_n(quits, __ATOMIC_RELAXED)) {
        uint64_t epoch = info().point_epoch;
        WeirView *view;
        uint8_t data[64];
        char err[WEIR_KEEPER_MESSAGE_BYTES];

        if (epoch == 0 || weir_view_open(&view, t.k, "vda", epoch, err,
                                         sizeof(err)) < 0) {
            continue;
        }
        for (int i = 0; i < 10; i++) {
            /* the first 512 bytes are the same, if compressed or not */
            assert_int_equal(weir_view_read(view, 0, sizeof(data), data, err,
                                            sizeof(err)), 0);
            assert_int_equal(data[0], (uint8_t)epoch);
            assert_int_equal(data[63], (uint8_t)epoch);
        }
        weir_view_close(view);
    }
    return NULL;
}

/* Under TSan too: a writer, two readers, and the keeper's own. */
static void test_threads(void **state)
{
    pthread_t readers[2];
    bool quits = false;

    (void)state;
    start();
    t.config.retain_ns = 0;
    weir_keeper_set_config(t.k, &t.config);
    connect();
    begin_applying();
    for (int i = 0; i < 2; i++) {
        pthread_create(&readers[i], NULL, read_points, &quits);
    }
    for (uint64_t i = 1; i <= EPOCHS; i++) {
        uint64_t end = t.w.position + 2 * DISK_BYTES;

        if (end > 3 * SEGMENT) {
            wait_for_tail((end / SEGMENT - 3) * SEGMENT);
        }
        (i % 2 ? epoch : packed_epoch)((uint8_t)i, 0, 4096 + i % 8 * 4096);
        if (i % 3 == 0) {
            flush();
        }
        __atomic_add_fetch(&t.wall_ns, 1000, __ATOMIC_RELAXED);
    }
    flush();
    __atomic_store_n(&quits, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
    }
    wait_applied(EPOCHS);
    assert_int_equal(t.base.data[0], (uint8_t)EPOCHS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_format),
        TEST(test_points),
        TEST(test_names_that_are_none),
        TEST(test_refused),
        TEST(test_origin_refused),
        TEST(test_other_disk),
        TEST(test_sessions),
        TEST(test_session_of_the_same_life),
        TEST(test_leave),
        TEST(test_out_of_order),
        TEST(test_flush_fails),
        TEST(test_write_fails),
        TEST(test_promote),
        TEST(test_many_generations),
        TEST(test_apply),
        TEST(test_resize),
        TEST(test_first_copy),
        TEST(test_full),
        TEST(test_resync_fills_log),
        TEST(test_damage),
        TEST(test_damage_is_not_applied),
        TEST(test_base_fails),
        TEST(test_packed_point),
        TEST(test_parts_are_read_once),
        TEST(test_packed_apply),
        TEST(test_packed_refused),
        TEST(test_log_takes_nothing_packed),
        TEST(test_packed_damage),
        TEST(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

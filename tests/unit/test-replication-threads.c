/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source of a replication used by several threads at a time, as by the I/O
 * threads of QEMU, while its log goes away and comes back. The disks are plain
 * memory without a lock: a block that is copied while it is written to is a
 * data race, which the thread sanitizer shows. In the end the log has to make
 * of nothing what the disks are.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "common/zero.h"
#include "replication/compress.h"
#include "replication/scan.h"
#include "replication/source.h"

#define DISKS 2
#define DISK_BYTES (UINT64_C(4) << 20)
#define CLIENTS 4
#define REQUESTS 120
#define LOG_BYTES (UINT64_C(600) << 20)
#define SIDECAR_BYTES (UINT64_C(1) << 20)
#define CONDS_MAX 16

static uint8_t disks[DISKS][DISK_BYTES], sidecars[DISKS][SIDECAR_BYTES];
static uint8_t seen[DISKS][DISK_BYTES];
static uint8_t *log_bytes;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static bool log_fails, quits;           /* @log_lock */
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond[CONDS_MAX];
static unsigned conds;
static pthread_mutex_t task_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t task_cond = PTHREAD_COND_INITIALIZER;
static unsigned tasks_alive;            /* @task_lock */
static WeirSource *source;
static WeirSourceDisk *source_disks[DISKS];

/* --- host --- */

static int read_disk(void *disk, uint64_t offset, uint64_t bytes, void *buf)
{
    memcpy(buf, (uint8_t *)disk + offset, bytes);
    return 0;
}

static int write_disk(void *disk, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags)
{
    uint8_t *to = (uint8_t *)disk + offset;

    (void)flags;
    for (size_t i = 0; i < niov; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    assert_true(to == (uint8_t *)disk + offset + bytes);
    return 0;
}

static int zero_disk(void *disk, uint64_t offset, uint64_t bytes,
                     unsigned flags)
{
    (void)flags;
    memset((uint8_t *)disk + offset, 0, bytes);
    return 0;
}

static int discard_disk(void *disk, uint64_t offset, uint64_t bytes)
{
    return zero_disk(disk, offset, bytes, 0);
}

static int flush_nothing(void *disk)
{
    (void)disk;
    return 0;
}

/* What the engine asks without a lock must not look at the data. */
static int status_disk(void *disk, uint64_t offset, uint64_t bytes,
                       uint64_t *extent_bytes, bool *zero)
{
    (void)disk;
    (void)offset;
    *extent_bytes = bytes;
    *zero = false;
    return 0;
}

static uint8_t *sidecar_of(const void *disk)
{
    return sidecars[disk == disks[1]];
}

static int read_sidecar(void *disk, uint64_t offset, uint64_t bytes, void *buf)
{
    memcpy(buf, sidecar_of(disk) + offset, bytes);
    return 0;
}

static int write_sidecar(void *disk, uint64_t offset, uint64_t bytes,
                         const void *buf)
{
    memcpy(sidecar_of(disk) + offset, buf, bytes);
    return 0;
}

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    int ret;

    (void)opaque;
    pthread_mutex_lock(&log_lock);
    memcpy(buf, log_bytes + offset, bytes);
    ret = log_fails ? -EIO : 0;
    pthread_mutex_unlock(&log_lock);
    return ret;
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    int ret;

    (void)opaque;
    pthread_mutex_lock(&log_lock);
    ret = log_fails ? -EIO : write_disk(log_bytes, offset, bytes, iov, niov, 0);
    pthread_mutex_unlock(&log_lock);
    return ret;
}

static int flush_log(void *opaque)
{
    uint8_t byte;

    return read_log(opaque, 0, 1, &byte);
}

typedef struct Work {
    void (*fn)(void *arg);
    void *arg;
} Work;

static void *do_work(void *opaque)
{
    const Work *work = opaque;

    work->fn(work->arg);
    return NULL;
}

static void compute(void *opaque, void (*fn)(void *arg), void *arg)
{
    Work work = { fn, arg };
    pthread_t thread;

    (void)opaque;
    assert_int_equal(pthread_create(&thread, NULL, do_work, &work), 0);
    pthread_join(thread, NULL);
}

static const WeirSourceHost host = {
    .read_disk = read_disk, .write_disk = write_disk, .zero_disk = zero_disk,
    .discard_disk = discard_disk, .flush_disk = flush_nothing,
    .status_disk = status_disk, .read_sidecar = read_sidecar,
    .write_sidecar = write_sidecar, .flush_sidecar = flush_nothing,
    .read_log = read_log, .write_log = write_log, .flush_log = flush_log,
    .compute = compute,
};

/* --- tasks are threads --- */

static void queue_init(void *opaque, WeirTaskQueue *queue)
{
    pthread_condattr_t attr;

    (void)opaque;
    assert_true(conds < CONDS_MAX);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&cond[conds], &attr);
    pthread_condattr_destroy(&attr);
    queue->host[0] = &cond[conds++];
}

static void wait_queue(void *opaque, pthread_mutex_t *lock,
                       WeirTaskQueue *queue, uint64_t until_ns)
{
    struct timespec until = { (time_t)(until_ns / 1000000000),
                              (long)(until_ns % 1000000000) };

    (void)opaque;
    pthread_mutex_lock(&queue_lock);
    pthread_mutex_unlock(lock);
    if (until_ns == WEIR_TASKS_FOREVER) {
        pthread_cond_wait(queue->host[0], &queue_lock);
    } else {
        pthread_cond_timedwait(queue->host[0], &queue_lock, &until);
    }
    pthread_mutex_unlock(&queue_lock);
    pthread_mutex_lock(lock);
}

static void wake_queue(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    pthread_mutex_lock(&queue_lock);
    pthread_cond_broadcast(queue->host[0]);
    pthread_mutex_unlock(&queue_lock);
}

typedef struct Task {
    void (*fn)(void *arg);
    void *arg;
} Task;

static void *run_task(void *opaque)
{
    Task *task = opaque;

    task->fn(task->arg);
    free(task);
    pthread_mutex_lock(&task_lock);
    tasks_alive--;
    pthread_cond_broadcast(&task_cond);
    pthread_mutex_unlock(&task_lock);
    return NULL;
}

static void spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    Task *task = malloc(sizeof(*task));
    pthread_attr_t attr;
    pthread_t thread;

    (void)opaque;
    assert_non_null(task);
    *task = (Task) { fn, arg };
    pthread_mutex_lock(&task_lock);
    tasks_alive++;
    pthread_mutex_unlock(&task_lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    assert_int_equal(pthread_create(&thread, &attr, run_task, task), 0);
    pthread_attr_destroy(&attr);
}

static uint64_t clock_ns(void *opaque)
{
    struct timespec t;

    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static uint64_t random_number(void *opaque)
{
    return clock_ns(opaque) * UINT64_C(0x9e3779b97f4a7c15);
}

static const WeirTasks tasks = {
    .wait = wait_queue, .wake = wake_queue, .queue_init = queue_init,
    .spawn = spawn, .now_ns = clock_ns, .wall_ns = clock_ns,
    .random = random_number,
};

/* --- the log comes and goes --- */

static void pause_ms(long ms)
{
    const struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

    nanosleep(&t, NULL);
}

static bool set_log(bool fails)
{
    bool ends;

    pthread_mutex_lock(&log_lock);
    log_fails = fails && !quits;
    ends = quits;
    pthread_mutex_unlock(&log_lock);
    return !ends;
}

static void connect_again(void)
{
    WeirSourceInfo info;
    char err[256];

    weir_source_info(source, &info);
    assert_int_not_equal(info.state, WEIR_SOURCE_STOPPED);
    if (info.state == WEIR_SOURCE_DISCONNECTED) {
        weir_source_connect(source, LOG_BYTES, err, sizeof(err));
    }
}

static void *trouble(void *opaque)
{
    (void)opaque;
    for (unsigned i = 1; set_log(i % 8 == 0); i++) {
        connect_again();
        pause_ms(10);
    }
    return NULL;
}

static void *run_source(void *opaque)
{
    (void)opaque;
    weir_source_run(source);
    return NULL;
}

/* --- clients --- */

typedef struct Client {
    pthread_t thread;
    uint64_t random;
    uint8_t *data;
    unsigned failed;
} Client;

static uint64_t below(Client *c, uint64_t n)
{
    c->random = c->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (c->random >> 33) % n;
}

/* Anywhere: the range lock is what keeps them apart. */
static int do_request(Client *c)
{
    WeirSourceDisk *d = source_disks[below(c, DISKS)];
    uint64_t most = below(c, 20) ? 64 << 10 : DISK_BYTES / 2;
    uint64_t bytes = 512 * (1 + below(c, most / 512));
    uint64_t offset = 512 * below(c, (DISK_BYTES - bytes) / 512 + 1);
    uint64_t half = below(c, bytes);
    struct iovec iov[2] = {
        { c->data, half }, { c->data + half, bytes - half },
    };
    WeirSourceDiskInfo info;

    switch (below(c, 12)) {
    case 0:
        return weir_source_zero(d, offset, bytes, WEIR_SOURCE_MAY_UNMAP);
    case 1:
        return weir_source_discard(d, offset, bytes);
    case 2:
        weir_source_disk_info(d, &info);
        return weir_source_flush(d);
    default:
        memset(c->data, (int)(1 + below(c, 255)), bytes);
        return weir_source_write(d, offset, bytes, iov, 2, 0);
    }
}

static void *be_client(void *opaque)
{
    Client *c = opaque;
    char err[256];

    for (int i = 0; i < REQUESTS; i++) {
        c->failed += do_request(c) < 0;
        if (i % 16 == 0) {
            weir_source_mark(source, "now", false, err, sizeof(err));
        }
    }
    return NULL;
}

/* --- the test --- */

static void make_log(void)
{
    WeirLogSuperblock sb = { .segment_bytes = UINT64_C(64) << 20 };

    log_bytes = calloc(1, LOG_BYTES);
    assert_non_null(log_bytes);
    assert_int_equal(weir_log_superblock_shape(&sb, LOG_BYTES), 0);
    weir_log_superblock_write(log_bytes, &sb);
}

static void open_source(WeirSourceMode mode, bool compress)
{
    const WeirSourceConfig config = {
        .mode = mode, .epoch_interval_ns = 5000000, .epoch_bytes = 1 << 20,
        .max_memory_bytes = 8 << 20, .max_rate = UINT64_C(400) << 20,
        .compress = compress,
    };
    char err[256], name[8] = "disk0";

    memset(disks, 0, sizeof(disks));
    memset(sidecars, 0, sizeof(sidecars));
    quits = log_fails = false;
    assert_int_equal(weir_source_new(&source, &tasks, &host, NULL, &config),
                     0);
    for (int i = 0; i < DISKS; i++, name[4]++) {
        assert_int_equal(weir_source_add_disk(source, name, DISK_BYTES,
                                              disks[i], true,
                                              &source_disks[i]), 0);
        assert_int_equal(weir_source_open_sidecar(source_disks[i],
                                                  SIDECAR_BYTES, err,
                                                  sizeof(err)), 0);
    }
}

static void work(void)
{
    Client clients[CLIENTS];

    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (Client) { .random = i, .data = malloc(DISK_BYTES) };
        assert_int_equal(pthread_create(&clients[i].thread, NULL, be_client,
                                        &clients[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].failed, 0);
        free(clients[i].data);
    }
}

static void catch_up(void)
{
    WeirSourceInfo info;

    do {
        pause_ms(5);
        connect_again();
        weir_source_info(source, &info);
    } while (info.state != WEIR_SOURCE_STREAMING || info.rpo_ns > 0);
}

static void replay_write(const WeirLogRecord *r, const uint8_t *data)
{
    uint8_t *to = seen[r->disk] + r->offset;
    WeirDecompressor *d;

    if (r->packed_bytes == 0) {
        memcpy(to, data, r->bytes);
    } else {
        d = weir_decompressor_new();
        assert_int_equal(weir_decompress(d, data, r->packed_bytes, to,
                                         r->bytes), 0);
        weir_decompressor_free(d);
    }
    assert_int_equal(weir_log_data_crc(to, r->bytes), r->crc);
}

static void replay(const WeirLogScan *scan)
{
    const uint8_t *data = scan->buf + scan->packet.head_bytes;

    for (uint32_t i = 0; i < scan->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, scan->buf, i);
        if (r.op == WEIR_LOG_WRITE) {
            replay_write(&r, data);
        } else if (r.op == WEIR_LOG_ZERO || r.op == WEIR_LOG_DISCARD) {
            memset(seen[r.disk] + r.offset, 0, r.bytes);
        }
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
}

static void check_log(void)
{
    WeirLogSuperblock sb;
    WeirLogScan scan;
    char err[256];

    memset(seen, 0, sizeof(seen));
    assert_int_equal(weir_log_superblock_read(&sb, log_bytes, LOG_BYTES, err,
                                              sizeof(err)), 0);
    assert_int_equal(weir_log_scan_init(&scan, read_log, NULL, &sb,
                                        &sb.anchor), 0);
    while (weir_log_scan_next(&scan) >= 0) {
        replay(&scan);
    }
    assert_true(scan.cursor.consistent);
    weir_log_scan_destroy(&scan);
    assert_memory_equal(seen, disks, sizeof(disks));
}

static void wait_for_tasks(void)
{
    pthread_mutex_lock(&task_lock);
    while (tasks_alive > 0) {
        pthread_cond_wait(&task_cond, &task_lock);
    }
    pthread_mutex_unlock(&task_lock);
}

/* All of it, but for the disks, that are closed. */
static void end(pthread_t runner)
{
    weir_source_stop(source);
    pthread_join(runner, NULL);
    wait_for_tasks();
    for (int i = 0; i < DISKS; i++) {
        if (source_disks[i]) {
            assert_int_equal(weir_source_close_disk(source_disks[i]), 0);
        }
    }
    weir_source_free(source);
    check_log();
    free(log_bytes);
    while (conds > 0) {
        pthread_cond_destroy(&cond[--conds]);
    }
}

/* What clients write is all the same byte each time. */
static void check_sent(bool compress)
{
    WeirSourceInfo info;

    weir_source_info(source, &info);
    assert_true(info.sent_bytes > 0);
    if (compress) {
        assert_true(info.sent_bytes < info.plain_bytes / 4);
    } else {
        assert_int_equal(info.sent_bytes, info.plain_bytes);
    }
}

static void run(WeirSourceMode mode, bool compress)
{
    pthread_t runner, troubled;

    make_log();
    open_source(mode, compress);
    pthread_create(&runner, NULL, run_source, NULL);
    pthread_create(&troubled, NULL, trouble, NULL);
    work();
    pthread_mutex_lock(&log_lock);
    quits = true;
    pthread_mutex_unlock(&log_lock);
    pthread_join(troubled, NULL);
    catch_up();
    check_sent(compress);
    end(runner);
}

static void test_async(void **state)
{
    (void)state;
    run(WEIR_SOURCE_ASYNC, false);
}

static void test_flush_sync(void **state)
{
    (void)state;
    run(WEIR_SOURCE_FLUSH_SYNC, false);
}

static void test_compress(void **state)
{
    (void)state;
    run(WEIR_SOURCE_ASYNC, true);
}

/* One that was made before there was compression; nothing is written to it. */
static void test_log_takes_nothing_compressed(void **state)
{
    WeirLogSuperblock sb = { .segment_bytes = UINT64_C(64) << 20 };
    char err[256] = "";

    (void)state;
    log_bytes = calloc(1, LOG_BYTES);
    assert_int_equal(weir_log_superblock_shape(&sb, LOG_BYTES), 0);
    sb.zstd = false;
    weir_log_superblock_write(log_bytes, &sb);
    open_source(WEIR_SOURCE_ASYNC, true);
    assert_int_equal(weir_source_connect(source, LOG_BYTES, err, sizeof(err)),
                     -ENOTSUP);
    assert_non_null(strstr(err, "takes nothing compressed"));
    weir_source_free(source);
    open_source(WEIR_SOURCE_ASYNC, false);
    assert_int_equal(weir_source_connect(source, LOG_BYTES, err, sizeof(err)),
                     0);
    weir_source_stop(source);
    weir_source_run(source);
    wait_for_tasks();
    weir_source_free(source);
    free(log_bytes);
    while (conds > 0) {
        pthread_cond_destroy(&cond[--conds]);
    }
}

static int connect_source(void)
{
    char err[256];

    return weir_source_connect(source, LOG_BYTES, err, sizeof(err));
}

/* A disk is added, its sidecar turns out to be none, and meanwhile: */
static void refuse_disk(const char *name)
{
    WeirSourceDisk *d;
    char err[256];

    assert_int_equal(weir_source_add_disk(source, name, DISK_BYTES, seen,
                                          true, &d), 0);
    assert_int_equal(connect_source(), -EAGAIN);
    assert_int_equal(weir_source_open_sidecar(d, 0, err, sizeof(err)),
                     -ENOSPC);
    weir_source_forget_disk(d);
}

static void test_a_refused_disk_keeps_no_one(void **state)
{
    WeirSourceInfo info;
    pthread_t runner;

    (void)state;
    make_log();
    open_source(WEIR_SOURCE_ASYNC, false);
    pthread_create(&runner, NULL, run_source, NULL);
    refuse_disk("late");
    catch_up();
    assert_int_equal(weir_source_close_disk(source_disks[1]), 0);
    source_disks[1] = NULL;
    refuse_disk("disk1");
    assert_int_equal(connect_source(), 0);
    weir_source_info(source, &info);
    assert_int_equal(info.state, WEIR_SOURCE_STREAMING);
    end(runner);
}

int main(void)
{
    const struct CMUnitTest tests_[] = {
        cmocka_unit_test(test_async),
        cmocka_unit_test(test_flush_sync),
        cmocka_unit_test(test_a_refused_disk_keeps_no_one),
        cmocka_unit_test(test_compress),
        cmocka_unit_test(test_log_takes_nothing_compressed),
    };

    return cmocka_run_group_tests(tests_, NULL, NULL);
}

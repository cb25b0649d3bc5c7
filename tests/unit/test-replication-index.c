/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index of a replication log on disk: what is read by it is what was
 * written, at each point, whatever has become of it. Over plain memory, in one
 * thread. (When power fails: tests/crash.)
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/keeper-int.h"
#include "replication/point.h"
#include "replication/scan.h"
#include "replication/writer.h"

#define SEGMENT WEIR_LOG_SEGMENT_BYTES_MIN
#define SEGMENTS 16
#define CHAPTER (SEGMENT / WEIR_LOG_CHAPTER_SHARE)
#define CHAPTERS_AT (WEIR_LOG_RING_OFFSET + SEGMENTS * SEGMENT)
#define LOG_BYTES (CHAPTERS_AT + SEGMENTS * CHAPTER)
#define BLOCK 4096
#define BLOCKS 8192                     /* of the disk: 32 MiB */
#define EPOCHS 4096

typedef struct Image {
    uint8_t blocks[BLOCKS];             /* what each is full of */
    uint32_t length;                    /* in blocks */
} Image;

static struct {
    uint8_t *log;
    uint8_t *base;                      /* a byte per block */
    uint64_t base_blocks;
    uint64_t read_bytes, clock;
    WeirKeeper *k;
    WeirLogSuperblock sb;
    WeirLogWriter w;
    Image now;
    Image *epochs[EPOCHS];
    uint64_t last;                      /* epoch */
    uint64_t random;
    char err[WEIR_KEEPER_MESSAGE_BYTES];
} t;

/* --- host --- */

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)opaque;
    assert_true(offset + bytes <= LOG_BYTES);
    t.read_bytes += bytes;
    memcpy(buf, t.log + offset, bytes);
    return 0;
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    (void)opaque;
    assert_int_equal(niov, 1);
    assert_true(offset + bytes <= LOG_BYTES);
    memcpy(t.log + offset, iov[0].iov_base, bytes);
    return 0;
}

static int flush_log(void *opaque)
{
    (void)opaque;
    return 0;
}

static int read_base(void *base, uint64_t offset, uint64_t bytes, void *buf)
{
    (void)base;
    for (uint64_t i = 0; i < bytes; i++) {
        ((uint8_t *)buf)[i] = t.base[(offset + i) / BLOCK];
    }
    return 0;
}

static int write_base(void *base, uint64_t offset, uint64_t bytes,
                      const void *buf)
{
    (void)base;
    for (uint64_t i = 0; i < bytes; i += BLOCK) {
        t.base[(offset + i) / BLOCK] = ((const uint8_t *)buf)[i];
    }
    return 0;
}

static int zero_base(void *base, uint64_t offset, uint64_t bytes)
{
    (void)base;
    memset(t.base + offset / BLOCK, 0, bytes / BLOCK);
    return 0;
}

static int resize_base(void *base, uint64_t bytes)
{
    (void)base;
    if (bytes / BLOCK < t.base_blocks) {
        memset(t.base + bytes / BLOCK, 0, t.base_blocks - bytes / BLOCK);
    }
    t.base_blocks = bytes / BLOCK;
    return 0;
}

static int64_t length_base(void *base)
{
    (void)base;
    return (int64_t)(t.base_blocks * BLOCK);
}

/* Nobody but a keeper that has nothing to do any more. */
static void wait_task(void *opaque, pthread_mutex_t *lock,
                      WeirTaskQueue *queue, uint64_t until_ns)
{
    (void)opaque;
    (void)lock;
    (void)queue;
    (void)until_ns;
    t.k->stops = true;
}

static void nothing(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static uint64_t now_ns(void *opaque)
{
    (void)opaque;
    return ++t.clock;
}

static uint64_t random_number(void *opaque)
{
    (void)opaque;
    t.random = t.random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return t.random >> 20;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(random_number(NULL) % n);
}

static const WeirTasks tasks = {
    .wait = wait_task, .wake = nothing, .queue_init = nothing,
    .now_ns = now_ns, .wall_ns = now_ns, .random = random_number,
};

static const WeirKeeperHost host = {
    .tasks = &tasks, .read_log = read_log, .write_log = write_log,
    .flush_log = flush_log, .read_base = read_base, .write_base = write_base,
    .zero_base = zero_base, .discard_base = zero_base,
    .resize_base = resize_base, .flush_base = flush_log,
    .length_base = length_base,
};

/* --- a keeper and a writer --- */

static void connect(void)
{
    WeirLogCommit end = t.k->valid;

    weir_log_writer_init(&t.w, &t.k->sb, &end, random_number(NULL));
    t.last = end.epoch;
    if (t.epochs[t.last]) {
        t.now = *t.epochs[t.last];
    }
}

static void reopen(void)
{
    static const WeirKeeperConfig config = { .retain_ns = UINT64_MAX / 2 };

    weir_keeper_free(t.k);
    assert_int_equal(weir_keeper_new(&t.k, &host, &config), 0);
    assert_int_equal(weir_keeper_add_base(t.k, "vda", &t, t.err,
                                          sizeof(t.err)), 0);
    t.read_bytes = 0;
    if (weir_keeper_open(t.k, LOG_BYTES, t.err, sizeof(t.err)) < 0) {
        fail_msg("%s", t.err);
    }
    connect();
}

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    t.random = 1;
    t.clock = 1000;
    t.log = calloc(1, LOG_BYTES);
    t.base = calloc(1, BLOCKS);
    t.now.length = BLOCKS;
    assert_int_equal(weir_keeper_format(&host, LOG_BYTES, SEGMENT, t.err,
                                        sizeof(t.err)), 0);
    reopen();
    assert_int_equal(t.k->sb.chapter_bytes, CHAPTER);
    assert_int_equal(t.k->sb.segments, SEGMENTS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    weir_keeper_free(t.k);
    for (int i = 0; i < EPOCHS; i++) {
        free(t.epochs[i]);
    }
    free(t.log);
    free(t.base);
    return 0;
}

static WeirKeeperInfo info(void)
{
    WeirKeeperInfo info;

    weir_keeper_info(t.k, &info);
    return info;
}

/* --- writing --- */

static uint8_t packet[WEIR_LOG_PACKET_BYTES_MAX];

static void put(WeirLogPacket p, const WeirLogRecord *records)
{
    WeirLogCommit commit;
    struct iovec iov;

    p.wall_ns = p.commit ? now_ns(NULL) : 0;
    assert_int_equal(weir_log_writer_put(&t.w, &p, records, packet, &commit),
                     0);
    iov = (struct iovec) { packet, weir_log_packet_bytes(&p) };
    if (weir_keeper_write(t.k, weir_log_offset(&t.k->sb, p.position),
                          iov.iov_len, &iov, 1, t.err, sizeof(t.err)) < 0) {
        fail_msg("%s", t.err);
    }
    if (p.commit) {
        assert_true(commit.epoch < EPOCHS);
        t.last = commit.epoch;
        free(t.epochs[t.last]);
        t.epochs[t.last] = malloc(sizeof(Image));
        *t.epochs[t.last] = t.now;
        assert_int_equal(weir_keeper_flush(t.k), 0);
        weir_log_writer_durable(&t.w, &commit);
    }
}

static void make_way(uint64_t bytes)
{
    static const WeirLogDisk what = { .uuid = { 1 }, .name = "vda" };
    WeirLogRecord record = { .op = WEIR_LOG_DISK,
                             .bytes = (uint64_t)t.now.length * BLOCK };
    uint8_t *data = packet + weir_log_head_bytes(1);

    if (weir_log_writer_next(&t.w, bytes) == WEIR_LOG_NEXT_LAST) {
        put((WeirLogPacket) { .last = true }, NULL);
    }
    if (weir_log_writer_next(&t.w, bytes) == WEIR_LOG_NEXT_FIRST) {
        memset(packet, 0, 4096);
        weir_log_disk_write(data, &what);
        record.crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES);
        put((WeirLogPacket) { .records = 1 }, &record);
    }
}

static void resize(WeirLogRecord *r)
{
    uint32_t length = BLOCKS / 2 + below(BLOCKS / 2 + 1);

    for (uint32_t i = length; i < BLOCKS; i++) {
        t.now.blocks[i] = 0;
    }
    t.now.length = length;
    *r = (WeirLogRecord) { .op = WEIR_LOG_RESIZE,
                           .bytes = (uint64_t)length * BLOCK };
}

/* Of some blocks; now and then of very many. Returns bytes of its data. */
static uint64_t invent(WeirLogRecord *r, uint8_t *data)
{
    uint32_t kind = below(60), first = below(t.now.length);
    uint32_t n = 1 + below(kind > 1 && kind < 4 ? BLOCKS : 2);
    uint8_t with = kind > 6 ? (uint8_t)(1 + below(255)) : 0;

    if (kind == 0) {
        resize(r);
        return 0;
    }
    n = n < t.now.length - first ? n : t.now.length - first;
    *r = (WeirLogRecord) {
        .op = kind > 6 ? WEIR_LOG_WRITE : kind > 2 ? WEIR_LOG_ZERO
                                                   : WEIR_LOG_DISCARD,
        .offset = (uint64_t)first * BLOCK, .bytes = (uint64_t)n * BLOCK,
    };
    memset(t.now.blocks + first, with, n);
    if (r->op != WEIR_LOG_WRITE) {
        return 0;
    }
    memset(data, with, r->bytes);
    r->crc = weir_log_data_crc(data, r->bytes);
    return r->bytes;
}

static void epoch(uint32_t records)
{
    WeirLogRecord *r = calloc(records, sizeof(*r));
    uint64_t head = weir_log_head_bytes(records), bytes = 0;

    make_way(head + (uint64_t)records * 2 * BLOCK);
    for (uint32_t i = 0; i < records; i++) {
        bytes += invent(&r[i], packet + head + bytes);
    }
    put((WeirLogPacket) { .records = records, .commit = true,
                          .consistent = true }, r);
    free(r);
}

static void epochs_until(uint64_t position)
{
    while (t.w.position < position) {
        epoch(1 + below(60));
    }
}

static void apply_to(uint64_t epoch)
{
    weir_keeper_apply_to(t.k, epoch);
    t.k->stops = false;
    weir_keeper_run(t.k);
    assert_true(t.k->sb.anchor.epoch >= epoch);
    t.w.tail = t.k->sb.tail;
}

/* --- reading --- */

/* Returns what weir_view_read() does; what is read has to be right. */
static int read_range(WeirView *v, uint64_t epoch, uint32_t first, uint32_t n)
{
    const Image *image = t.epochs[epoch];
    uint8_t *data = malloc((size_t)n * BLOCK);
    int ret = weir_view_read(v, (uint64_t)first * BLOCK, (uint64_t)n * BLOCK,
                             data, t.err, sizeof(t.err));

    for (uint32_t i = 0; i < n && ret == 0; i++) {
        if (data[(size_t)i * BLOCK] != image->blocks[first + i] ||
            memcmp(data + (size_t)i * BLOCK, data + (size_t)i * BLOCK + 1,
                   BLOCK - 1)) {
            fail_msg("epoch %llu, block %u: %u, not %u",
                     (unsigned long long)epoch, first + i,
                     data[(size_t)i * BLOCK], image->blocks[first + i]);
        }
    }
    free(data);
    return ret;
}

/* A piece that is data or zeroes is so. */
static void check_status(WeirView *v, uint64_t epoch, uint32_t block)
{
    const Image *image = t.epochs[epoch];
    uint64_t left = (uint64_t)(image->length - block) * BLOCK, same;
    WeirViewPiece kind;

    assert_int_equal(weir_view_status(v, (uint64_t)block * BLOCK, left, &kind,
                                      &same), 0);
    assert_true(same > 0 && same <= left);
    for (uint64_t i = 0; kind == WEIR_VIEW_ZERO && i < same / BLOCK; i++) {
        assert_int_equal(image->blocks[block + i], 0);
    }
}

/* Returns the first error. */
static int look_at(uint64_t epoch, uint32_t times)
{
    WeirViewInfo of;
    WeirView *v;
    int ret = 0;

    if (weir_view_open(&v, t.k, "vda", epoch, t.err, sizeof(t.err)) < 0) {
        fail_msg("%s", t.err);
    }
    weir_view_info(v, &of);
    assert_int_equal(of.bytes, (uint64_t)t.epochs[epoch]->length * BLOCK);
    while (times-- > 0 && ret == 0) {
        uint32_t first = below(t.epochs[epoch]->length);
        uint32_t most = t.epochs[epoch]->length - first;

        ret = read_range(v, epoch, first, 1 + below(most < 256 ? most : 256));
        if (ret == 0) {
            check_status(v, epoch, first);
        }
    }
    weir_view_close(v);
    return ret;
}

static void check_points(uint32_t times)
{
    uint64_t first = t.k->sb.anchor.epoch;

    assert_int_equal(t.k->valid.epoch, t.last);
    first = first > 0 ? first : 1;
    while (times-- > 0) {
        uint64_t epoch = first + below((uint32_t)(t.last - first + 1));

        assert_int_equal(look_at(epoch, 12), 0);
    }
    assert_int_equal(look_at(t.last, 30), 0);
    assert_int_equal(look_at(first, 30), 0);
}

/* --- tests --- */

static void test_points(void **state)
{
    (void)state;
    for (int lap = 1; lap <= 3; lap++) {
        for (uint64_t s = 1; s <= SEGMENTS - 3; s++) {
            epochs_until(t.k->sb.tail + s * SEGMENT);
        }
        check_points(10);
        assert_int_equal(info().chapters_rebuilt, 0);
        assert_true(info().chapters >= SEGMENTS - 6);
        reopen();
        assert_true(info().chapters >= SEGMENTS - 6);
        check_points(20);
        assert_int_equal(info().chapters_rebuilt, 0);
        apply_to(t.k->sb.anchor.epoch + (t.last - t.k->sb.anchor.epoch) / 3);
        check_points(10);
        apply_to(t.last - 5);
        check_points(5);
        assert_int_equal(info().chapters_rebuilt, 0);
    }
}

/* All that has a chapter is not read. */
static void test_opening_reads_little(void **state)
{
    WeirKeeperInfo before;
    uint64_t with;

    (void)state;
    epochs_until(12 * SEGMENT);
    before = info();
    reopen();
    with = t.read_bytes;
    assert_int_equal(info().epoch, before.epoch);
    assert_int_equal(info().records, before.records);
    assert_true(with < 4 * SEGMENT);
    assert_true(info().index_bytes < before.records * 24);
    check_points(3);
}

/* As one that was made before there were chapters. */
static void test_log_without(void **state)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb;

    (void)state;
    epochs_until(8 * SEGMENT);
    sb = t.k->sb;
    sb.chapter_bytes = 0;
    sb.sequence++;
    weir_log_superblock_write(buf, &sb);
    memcpy(t.log + sb.sequence % 2 * WEIR_LOG_SUPERBLOCK_BYTES, buf,
           sizeof(buf));
    reopen();
    assert_int_equal(info().chapters, 0);
    assert_true(t.read_bytes > 6 * SEGMENT);
    check_points(10);
    epochs_until(10 * SEGMENT);
    apply_to(t.last - 3);
    check_points(10);
    assert_int_equal(info().chapters, 0);
}

static uint8_t *chapter_at(uint64_t segment)
{
    return t.log + CHAPTERS_AT + segment % SEGMENTS * CHAPTER;
}

/* Its segment is read, and it is there again next time. */
static void test_damaged_head(void **state)
{
    (void)state;
    epochs_until(10 * SEGMENT);
    for (uint32_t at = 0; at < 2000; at += 89) {
        chapter_at(4)[at] ^= 1;
        chapter_at(6)[at] ^= 0x80;
        reopen();
        assert_in_range(t.read_bytes, SEGMENT * 3 / 2, 6 * SEGMENT);
        check_points(1);
    }
    reopen();
    assert_true(t.read_bytes < 3 * SEGMENT);
    memset(chapter_at(0), 0, SEGMENTS * CHAPTER);
    reopen();
    check_points(5);
    reopen();
    assert_true(t.read_bytes < 3 * SEGMENT);
    check_points(5);
}

static void damage_blocks(void)
{
    for (uint64_t s = 0; s < 9; s++) {
        uint32_t meta = (uint32_t)le_get(chapter_at(s) + 200, 4);
        uint32_t blocks = (uint32_t)le_get(chapter_at(s) + 188, 4);

        assert_true(blocks > 0);
        for (uint32_t i = 0; i < blocks; i += 2) {
            chapter_at(s)[meta + i * WEIR_CHAPTER_BLOCK_BYTES + 64] ^= 2;
        }
    }
}

/* What a damaged block told is read from the log. */
static void test_damaged_blocks(void **state)
{
    (void)state;
    epochs_until(10 * SEGMENT);
    damage_blocks();
    check_points(10);
    assert_true(info().chapters_rebuilt > 0);
    reopen();
    assert_true(t.read_bytes < 3 * SEGMENT);
    apply_to(t.last / 3);
    check_points(20);
    assert_true(info().chapters_rebuilt > 0);
    reopen();
    check_points(20);
    apply_to(t.last);
    check_points(1);
}

/* Where the log is damaged too, nothing wrong is read. */
static void test_damaged_both(void **state)
{
    int errors = 0;

    (void)state;
    epochs_until(10 * SEGMENT);
    damage_blocks();
    memset(t.log + WEIR_LOG_RING_OFFSET + 3 * SEGMENT + 8192, 0x11, 200000);
    reopen();
    for (int i = 0; i < 40; i++) {
        uint64_t epoch = 1 + below((uint32_t)t.last);
        int ret = look_at(epoch, 10);

        assert_true(ret == 0 || ret == -EIO);
        errors += ret < 0;
    }
    assert_true(errors > 0);
}

/* A past that is not that of the log. */
static void test_other_past(void **state)
{
    uint8_t *chapter;

    (void)state;
    epochs_until(10 * SEGMENT);
    chapter = chapter_at(5);
    chapter[56 + 16] ^= 1;              /* chain of the commit before */
    le_put(chapter + 12, crc_without(chapter, le_get(chapter + 200, 4), 12,
                                     ~0u), 4);
    reopen();
    assert_in_range(t.read_bytes, SEGMENT * 3 / 2, 4 * SEGMENT);
    check_points(10);
}

/* One of an earlier lap, or of what was promoted away. */
static void test_stale(void **state)
{
    uint8_t *old = malloc(SEGMENTS * CHAPTER);
    uint64_t middle;

    (void)state;
    epochs_until(10 * SEGMENT);
    memcpy(old, chapter_at(0), SEGMENTS * CHAPTER);
    apply_to(t.last);
    epochs_until(t.k->sb.tail + 12 * SEGMENT);
    memcpy(chapter_at(0), old, SEGMENTS * CHAPTER);
    reopen();
    check_points(10);
    memcpy(old, chapter_at(0), SEGMENTS * CHAPTER);
    middle = (t.k->sb.anchor.epoch + t.last) / 2;
    assert_int_equal(weir_keeper_promote(t.k, middle, t.err, sizeof(t.err)),
                     0);
    connect();
    check_points(10);
    epochs_until(t.k->sb.tail + 8 * SEGMENT);
    check_points(10);
    reopen();
    check_points(10);
    epochs_until(t.k->sb.tail + 12 * SEGMENT);
    check_points(10);
    memcpy(chapter_at(0), old, SEGMENTS * CHAPTER);
    reopen();
    check_points(20);
    free(old);
}

/* More records than there is room for: they stay in memory. */
static void test_too_many(void **state)
{
    (void)state;
    while (t.w.position < 12 * SEGMENT + SEGMENT / 2) {
        WeirLogRecord *r = calloc(4096, sizeof(*r));

        make_way(weir_log_head_bytes(4096));
        for (uint32_t j = 0; j < 4096; j++) {
            uint32_t at = below(t.now.length);

            r[j] = (WeirLogRecord) { .op = WEIR_LOG_ZERO, .bytes = BLOCK,
                                     .offset = (uint64_t)at * BLOCK };
            t.now.blocks[at] = 0;
        }
        put((WeirLogPacket) { .records = 4096, .commit = true,
                              .consistent = true }, r);
        free(r);
        epoch(5);
    }
    assert_true(info().chapters >= 11);
    assert_int_equal(t.k->chapters_written, 0);
    assert_true(info().index_bytes > info().records * 30);
    check_points(5);
    reopen();
    assert_true(t.read_bytes > 11 * SEGMENT);
    check_points(5);
    apply_to(t.last / 2);
    check_points(5);
}

/* Each way in which the first part can be wrong is told. */
static void test_refused(void **state)
{
    static const struct {
        uint32_t at;
        uint8_t value;
        const char *why;
    } cases[] = {
        { 8, 2, "version or features" }, { 16, 1, "version or features" },
        { 32, 99, "group" }, { 49, 1, "position" }, { 250, 1, "header" },
        { 168, 255, "lengths of its parts" }, { 184, 255, "blocks" },
        { 188, 0, "lengths of" }, { 191, 255, "lengths of" },
        { 201, 1, "checksum" }, { 56, 99, "epochs" }, { 112, 99, "epochs" },
        { 256, 99, "epochs" }, { 264 + 6, 1, "epochs" },
        { 256 + 76, 1, "epochs" }, { 256 + 80, 3, "epochs" },
    };
    uint8_t *buf = malloc(CHAPTER);
    WeirChapterHead h;
    const char *why;

    (void)state;
    epochs_until(4 * SEGMENT);
    assert_int_equal(weir_chapter_read(&h, &t.k->sb, chapter_at(2), CHAPTER,
                                       &why), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(buf, chapter_at(2), CHAPTER);
        buf[cases[i].at] = cases[i].value;
        le_put(buf + 12, crc_without(buf, h.meta_bytes, 12, ~0u), 4);
        assert_int_equal(weir_chapter_read(&h, &t.k->sb, buf, CHAPTER, &why),
                         -EINVAL);
        if (!strstr(why, cases[i].why)) {
            fail_msg("case %zu: %s, not %s", i, why, cases[i].why);
        }
        assert_int_equal(weir_chapter_read(&h, &t.k->sb, chapter_at(2),
                                           CHAPTER, &why), 0);
    }
    free(buf);
}

/* The places are told by the superblock, and within the device. */
static void test_shape(void **state)
{
    uint8_t copies[2 * WEIR_LOG_SUPERBLOCK_BYTES] = { 0 };
    WeirLogSuperblock sb = { .segment_bytes = SEGMENT, .chapter_bytes = 1 };
    WeirLogSuperblock read;

    (void)state;
    assert_int_equal(weir_log_superblock_shape(&sb, LOG_BYTES), 0);
    assert_int_equal(sb.chapter_bytes, CHAPTER);
    assert_int_equal(sb.segments, SEGMENTS);
    assert_int_equal(weir_log_chapter_offset(&sb, (SEGMENTS + 2) * SEGMENT),
                     CHAPTERS_AT + 2 * CHAPTER);
    weir_log_superblock_write(copies, &sb);
    assert_int_equal(weir_log_superblock_read(&read, copies, LOG_BYTES, t.err,
                                              sizeof(t.err)), 0);
    assert_int_equal(read.chapter_bytes, CHAPTER);
    assert_int_equal(weir_log_superblock_read(&read, copies, LOG_BYTES - 1,
                                              t.err, sizeof(t.err)), -ENOSPC);
    sb.chapter_bytes = CHAPTER + 512;
    weir_log_superblock_write(copies, &sb);
    assert_int_equal(weir_log_superblock_read(&read, copies, 2 * LOG_BYTES,
                                              t.err, sizeof(t.err)), -EINVAL);
    sb.chapter_bytes = SEGMENT + 4096;
    weir_log_superblock_write(copies, &sb);
    assert_int_equal(weir_log_superblock_read(&read, copies, 2 * LOG_BYTES,
                                              t.err, sizeof(t.err)), -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_points), TEST(test_opening_reads_little),
        TEST(test_log_without), TEST(test_damaged_head),
        TEST(test_damaged_blocks), TEST(test_damaged_both),
        TEST(test_other_past), TEST(test_stale), TEST(test_too_many),
        TEST(test_refused), TEST(test_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bitmap of blocks against one of bytes, and the sidecar's header and bits:
 * what is written is read, and whatever else is there is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/bitmap.h"
#include "replication/lineage.h"
#include "replication/sidecar-bits.h"

#define BLOCK WEIR_BITMAP_BLOCK_BYTES
#define BLOCKS_MAX 300

/* --- bitmap --- */

static uint8_t reference[BLOCKS_MAX];

static void check_bitmap(const WeirBitmap *b)
{
    uint64_t dirty = 0, bytes = 0;

    for (uint64_t i = 0; i < b->blocks; i++) {
        uint64_t at = i * BLOCK;

        assert_int_equal(weir_bitmap_any(b, at, 1), reference[i]);
        dirty += reference[i];
        bytes += !reference[i] ? 0 : b->disk_bytes - at < BLOCK
                                     ? b->disk_bytes - at : BLOCK;
    }
    assert_int_equal(b->dirty, dirty);
    assert_int_equal(weir_bitmap_dirty_bytes(b), bytes);
}

static void check_next(const WeirBitmap *b, uint64_t from, uint64_t most)
{
    uint64_t first = (from + BLOCK - 1) / BLOCK, end, offset, bytes;

    while (first < b->blocks && !reference[first]) {
        first++;
    }
    if (first >= b->blocks) {
        assert_false(weir_bitmap_next(b, from, most, &offset, &bytes));
        return;
    }
    for (end = first; end < b->blocks && reference[end] &&
                      end - first < most / BLOCK; end++) {
    }
    assert_true(weir_bitmap_next(b, from, most, &offset, &bytes));
    assert_int_equal(offset, first * BLOCK);
    assert_int_equal(bytes, (end * BLOCK < b->disk_bytes ? end * BLOCK
                                                         : b->disk_bytes) -
                            offset);
}

static void change(WeirBitmap *b)
{
    uint64_t offset = (uint64_t)random() % b->disk_bytes;
    uint64_t bytes = 1 + (uint64_t)random() % (b->disk_bytes - offset);
    bool mark = random() % 2;

    bytes = random() % 3 ? bytes : b->disk_bytes - offset;
    for (uint64_t i = 0; i < b->blocks; i++) {
        uint64_t at = i * BLOCK, end = at + BLOCK < b->disk_bytes
                                       ? at + BLOCK : b->disk_bytes;

        if (mark && at < offset + bytes && offset < end) {
            reference[i] = 1;
        } else if (!mark && offset <= at && end <= offset + bytes) {
            reference[i] = 0;
        }
    }
    if (mark) {
        weir_bitmap_mark(b, offset, bytes);
    } else {
        weir_bitmap_clear(b, offset, bytes);
    }
}

static void resize(WeirBitmap *b)
{
    uint64_t bytes = 1 + (uint64_t)random() % (BLOCKS_MAX * BLOCK);
    uint64_t blocks = (bytes + BLOCK - 1) / BLOCK;

    assert_int_equal(weir_bitmap_resize(b, bytes), 0);
    memset(reference + blocks, 0, BLOCKS_MAX - blocks);
}

static void test_bitmap(void **state)
{
    WeirBitmap b;

    (void)state;
    srandom(1);
    memset(reference, 0, sizeof(reference));
    assert_int_equal(weir_bitmap_init(&b, 100 * BLOCK + 512), 0);
    for (int i = 0; i < 3000; i++) {
        if (random() % 20 == 0) {
            resize(&b);
        } else {
            change(&b);
        }
        check_bitmap(&b);
        check_next(&b, (uint64_t)random() % (b.disk_bytes + BLOCK),
                   (1 + (uint64_t)random() % 100) * BLOCK);
    }
    weir_bitmap_destroy(&b);
}

static void test_bitmap_of_nothing(void **state)
{
    WeirBitmap b;
    uint64_t offset, bytes;

    (void)state;
    assert_int_equal(weir_bitmap_init(&b, 0), 0);
    weir_bitmap_mark(&b, 0, 0);
    weir_bitmap_clear(&b, 0, 0);
    assert_false(weir_bitmap_next(&b, 0, BLOCK, &offset, &bytes));
    assert_int_equal(weir_bitmap_dirty_bytes(&b), 0);
    weir_bitmap_destroy(&b);
}

/* --- sidecar --- */

static const WeirSidecar sample = {
    .sequence = 6, .instance = 77, .group = "group", .disk = { .name = "vda",
    .uuid = "disk" }, .disk_bytes = (UINT64_C(5) << 30) + 512,
    .region_bytes = WEIR_SIDECAR_REGION_BYTES, .clean = true,
    .lives = { 3, 4, 0, 0 },
    .generation = { .number = 2, .first_epoch = 9, .uuid = "generation" },
    .durable = { .epoch = 12, .end = 8192, .chain = "chain", .wall_ns = 99 },
    .block_sectors = 3,
};

static uint8_t copies[WEIR_SIDECAR_HEADERS * WEIR_SIDECAR_HEADER_BYTES];

static void put(const WeirSidecar *s)
{
    weir_sidecar_write(copies + s->sequence % WEIR_SIDECAR_HEADERS *
                                WEIR_SIDECAR_HEADER_BYTES, s);
}

static int get(WeirSidecar *s)
{
    char err[200] = "";
    int ret = weir_sidecar_read(s, copies, err, sizeof(err));

    assert_int_equal(ret < 0, err[0] != 0);
    return ret;
}

static void seal(void)
{
    le_put(copies + 12, crc_without(copies, WEIR_SIDECAR_HEADER_BYTES, 12,
                                    ~0u), 4);
}

static void test_header(void **state)
{
    WeirSidecar s, next = sample;

    (void)state;
    memset(copies, 0, sizeof(copies));
    assert_int_equal(get(&s), -ENOENT);
    put(&sample);
    assert_int_equal(get(&s), 0);
    assert_memory_equal(&s, &sample, sizeof(s));
    next.sequence++;
    next.clean = false;
    next.block_sectors = 0;
    put(&next);
    assert_int_equal(get(&s), 0);
    assert_memory_equal(&s, &next, sizeof(s));
    copies[WEIR_SIDECAR_HEADER_BYTES + 300] ^= 1;       /* the older one */
    assert_int_equal(get(&s), 0);
    assert_memory_equal(&s, &sample, sizeof(s));
    copies[300] ^= 1;
    assert_int_equal(get(&s), -EBADMSG);
}

/* One thing that cannot be, sealed as if it were right. */
static void test_refused(void **state)
{
    static const struct {
        unsigned at, bytes;
        uint64_t value;
        int ret;
    } cases[] = {
        { 0, 8, 5, -EINVAL },                   /* magic */
        { 8, 4, 2, -ENOTSUP },                  /* version */
        { 16, 8, 2, -ENOTSUP },                 /* incompatible features */
        { 16, 8, 1, -EBADMSG },                 /* lineage, and there is none */
        { 24, 8, 1, 0 },                        /* compatible ones */
        { 80, 1, 0, -EBADMSG },                 /* no name */
        { 144, 8, UINT64_C(1) << 62, -EBADMSG },        /* regions */
        { 144, 8, UINT64_MAX, -EBADMSG },
        { 152, 8, 0, -EBADMSG },                /* region */
        { 152, 8, WEIR_SIDECAR_REGION_BYTES * 3, -EBADMSG },
        { 152, 8, WEIR_SIDECAR_REGION_BYTES + 512, -EBADMSG },
        { 160, 4, 4096, -EBADMSG },             /* block */
        { 164, 4, 5, -EBADMSG },                /* flags */
        { 164, 4, 3, -EBADMSG },                /* base, without the feature */
        { 164, 4, 0, -EBADMSG },                /* sectors, and not clean */
        { 272, 4, 4, -EBADMSG },                /* sectors */
        { 276, 1, 1, -EBADMSG },                /* writer */
        { 280, 8, 1, -EBADMSG },                /* parent, the same */
        { 368, 1, 1, -EBADMSG },
        { 4095, 1, 1, -EBADMSG },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        WeirSidecar s;

        memset(copies, 0, sizeof(copies));
        put(&sample);
        le_put(copies + cases[i].at, cases[i].value, cases[i].bytes);
        seal();
        assert_int_equal(get(&s), cases[i].ret);
    }
}

static void test_bits(void **state)
{
    uint8_t bits[WEIR_SIDECAR_BITS_BYTES], read[WEIR_SIDECAR_BITS_BYTES];
    uint8_t buf[WEIR_SIDECAR_SECTOR_BYTES];
    WeirSidecar other = sample;

    (void)state;
    memset(bits, 0x5a, sizeof(bits));
    weir_sidecar_bits_write(buf, &sample, WEIR_SIDECAR_BLOCKS, 2, bits);
    assert_int_equal(weir_sidecar_bits_read(buf, &sample, WEIR_SIDECAR_BLOCKS,
                                            2, read), 0);
    assert_memory_equal(bits, read, sizeof(bits));
    assert_int_equal(weir_sidecar_bits_read(buf, &sample, WEIR_SIDECAR_REGIONS,
                                            2, read), -EBADMSG);
    assert_int_equal(weir_sidecar_bits_read(buf, &sample, WEIR_SIDECAR_BLOCKS,
                                            1, read), -EBADMSG);
    other.sequence++;                   /* of an earlier end in good order */
    assert_int_equal(weir_sidecar_bits_read(buf, &other, WEIR_SIDECAR_BLOCKS,
                                            2, read), -EBADMSG);
    weir_sidecar_bits_write(buf, &sample, WEIR_SIDECAR_REGIONS, 2, bits);
    assert_int_equal(weir_sidecar_bits_read(buf, &other, WEIR_SIDECAR_REGIONS,
                                            2, read), 0);
    other.instance++;                   /* of what was here before */
    assert_int_equal(weir_sidecar_bits_read(buf, &other, WEIR_SIDECAR_REGIONS,
                                            2, read), -EBADMSG);
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 4;
        assert_int_equal(weir_sidecar_bits_read(
            buf, &sample, WEIR_SIDECAR_REGIONS, 2, read), -EBADMSG);
        buf[i] ^= 4;
    }
}

/* --- lineage --- */

static void test_lineage_header(void **state)
{
    WeirSidecar s, with = sample;

    (void)state;
    memset(copies, 0, sizeof(copies));
    with.base = true;
    put(&with);
    assert_int_equal(get(&s), 0);
    assert_memory_equal(&s, &with, sizeof(s));
    with.base = false;
    with.parent = (WeirLogGeneration) { 1, 4, "parent" };
    with.until = (WeirLogCommit) { 20, 4096, "chain", 5 };
    put(&with);
    assert_int_equal(get(&s), 0);
    assert_memory_equal(&s, &with, sizeof(s));
}

/* What went on behind a point at epoch 10 of generation 1, which had 14. */
static const WeirLogOrigin child = {
    .group = "group", .generation = { 2, 11, "child" },
    .commit = { .epoch = 10 }, .parent = { 1, 1, "old" },
    .until = { .epoch = 14 }, .writer = 9, .lives = { 5 },
};

static void check_lineage(const WeirLogOrigin *other, WeirLineage lineage)
{
    assert_int_equal(weir_lineage_compare(&child, other), lineage);
    assert_int_equal(weir_lineage_compare(other, &child), lineage);
}

static void test_lineage(void **state)
{
    WeirLogOrigin other = { .group = "group", .generation = { 1, 1, "old" },
                            .lives = { 10, 9 } };
    WeirLogOrigin grandchild = { .group = "group", .generation = { 3, 11, "g" },
                                 .parent = { 2, 11, "child" } };

    (void)state;
    for (uint64_t epoch = 0; epoch < 20; epoch++) {
        other.commit.epoch = epoch;
        check_lineage(&other, epoch <= 14 ? WEIR_LINEAGE_BOTH
                                          : WEIR_LINEAGE_ALL);
    }
    other.commit.epoch = 12;
    other.lives[1] = 8;                 /* it is not the one that was used */
    check_lineage(&other, WEIR_LINEAGE_ALL);
    other.lives[0] = 9;
    check_lineage(&other, WEIR_LINEAGE_BOTH);
    other.generation.first_epoch = 2;   /* it was set back */
    check_lineage(&other, WEIR_LINEAGE_BOTH);
    other.generation.uuid[0]++;
    check_lineage(&other, WEIR_LINEAGE_APART);
    other.generation = (WeirLogGeneration) { 0 };
    check_lineage(&other, WEIR_LINEAGE_APART);
    other = child;
    check_lineage(&other, WEIR_LINEAGE_BOTH);
    other.commit.epoch++;               /* one of them has gone on */
    check_lineage(&other, WEIR_LINEAGE_APART);
    other = child;
    other.group[0]++;
    check_lineage(&other, WEIR_LINEAGE_APART);
    grandchild.until.epoch = 10;
    check_lineage(&grandchild, WEIR_LINEAGE_BOTH);
    other = (WeirLogOrigin) { .group = "group", .generation = { 1, 1, "old" } };
    assert_int_equal(weir_lineage_compare(&grandchild, &other),
                     WEIR_LINEAGE_APART);
}

/* --- bits on a device --- */

static uint8_t device_data[1 << 20];
static int writes_left;

static int read_device(void *opaque, uint64_t offset, uint64_t bytes,
                       void *buf)
{
    (void)opaque;
    assert_true(offset + bytes <= sizeof(device_data));
    memcpy(buf, device_data + offset, bytes);
    return 0;
}

static int write_device(void *opaque, uint64_t offset, uint64_t bytes,
                        const void *buf)
{
    (void)opaque;
    assert_true(offset + bytes <= sizeof(device_data));
    if (writes_left-- == 0) {
        return -EIO;
    }
    memcpy(device_data + offset, buf, bytes);
    return 0;
}

static int flush_device(void *opaque)
{
    (void)opaque;
    return 0;
}

static const WeirSidecarDevice device = { NULL, read_device, write_device,
                                          flush_device };

static void check_dirty(const WeirBitmap *least, bool exactly)
{
    WeirSidecar s;
    WeirBitmap dirty;

    memcpy(copies, device_data, sizeof(copies));
    assert_int_equal(get(&s), 0);
    assert_int_equal(weir_bitmap_init(&dirty, s.disk_bytes), 0);
    assert_int_equal(weir_sidecar_dirty(&device, &s, &dirty), 0);
    for (uint64_t at = 0; at < s.disk_bytes; at += BLOCK) {
        bool is = weir_bitmap_any(&dirty, at, 1);
        bool was = weir_bitmap_any(least, at, 1);

        assert_true(is || !was);
        assert_true(is == was || !exactly);
    }
    weir_bitmap_destroy(&dirty);
}

/* bytes: of the device. A write fails after some: the older one holds. */
static void put_bits(uint64_t bytes)
{
    WeirSidecar s = sample;
    WeirBitmap before, after;
    int writes = 0, ret;

    assert_int_equal(weir_bitmap_init(&before, s.disk_bytes), 0);
    assert_int_equal(weir_bitmap_init(&after, s.disk_bytes), 0);
    weir_bitmap_mark(&before, 70000, 1 << 20);
    weir_bitmap_mark(&after, UINT64_C(3) << 30, UINT64_C(1) << 30);
    do {
        memset(device_data, 0, sizeof(device_data));
        s = sample;
        writes_left = 1000;
        assert_int_equal(weir_sidecar_put(&device, &s, bytes, &before), 0);
        check_dirty(&before, s.clean);
        s.instance++;
        writes_left = writes++;
        ret = weir_sidecar_put(&device, &s, bytes, &after);
        check_dirty(ret < 0 ? &before : &after, ret == 0 && s.clean);
    } while (ret < 0);
    assert_true(writes > 2);
    weir_bitmap_destroy(&before);
    weir_bitmap_destroy(&after);
}

static void test_put(void **state)
{
    (void)state;
    put_bits(weir_sidecar_bytes(sample.disk_bytes));
    put_bits(WEIR_SIDECAR_BLOCKS_OFFSET);
}

static void test_region_bytes(void **state)
{
    (void)state;
    assert_int_equal(weir_sidecar_region_bytes(0), 16 << 20);
    assert_int_equal(weir_sidecar_region_bytes(UINT64_C(31) << 40), 16 << 20);
    assert_int_equal(weir_sidecar_region_bytes(UINT64_C(32) << 40), 32 << 20);
    assert_int_equal(weir_sidecar_sectors(
                         weir_sidecar_count(WEIR_LOG_RANGE_END_MAX,
                             weir_sidecar_region_bytes(
                                 WEIR_LOG_RANGE_END_MAX))) <=
                     WEIR_SIDECAR_REGION_SECTORS_MAX, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bitmap),
        cmocka_unit_test(test_bitmap_of_nothing),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_lineage_header),
        cmocka_unit_test(test_lineage),
        cmocka_unit_test(test_put),
        cmocka_unit_test(test_region_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

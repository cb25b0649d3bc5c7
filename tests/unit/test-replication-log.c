/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is read is what was written, and each defect has its own refusal. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zstd.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/compress.h"
#include "replication/cursor.h"
#include "replication/writer.h"

enum { DEVICE_BYTES = 72 << 20, DATA_BYTES = 1024 };

static WeirLogSuperblock sb;

typedef struct Made {
    uint8_t bytes[8192];        /* head and data */
    WeirLogPacket packet;
} Made;

static int set_up(void **state)
{
    (void)state;
    memset(&sb, 0, sizeof(sb));
    assert_int_equal(weir_log_superblock_shape(&sb, DEVICE_BYTES), 0);
    memset(sb.group, 7, sizeof(sb.group));
    return 0;
}

/* Three records: a write of 700 bytes, a zeroing, a mark. */
static void make(Made *made, bool commit, uint8_t *chain)
{
    WeirLogRecord records[] = {
        { .op = WEIR_LOG_WRITE, .disk = 3, .offset = 4096, .bytes = 700 },
        { .op = WEIR_LOG_ZERO, .disk = 63, .offset = 1 << 30,
          .bytes = UINT64_C(1) << 40, .resync = true },
        { .op = WEIR_LOG_MARK, .bytes = 7 },
    };
    uint8_t *data = made->bytes + weir_log_head_bytes(3);

    memset(made, 0, sizeof(*made));
    memset(data, 0xa5, 700);
    memcpy(data + DATA_BYTES, "evening", 7);
    records[0].crc = weir_log_data_crc(data, 700);
    records[2].crc = weir_log_data_crc(data + DATA_BYTES, 7);
    made->packet = (WeirLogPacket) {
        .generation = 1, .session = 99, .position = 8192, .epoch = 5,
        .number = 2, .records = 3, .commit = commit, .consistent = commit,
        .wall_ns = commit ? 1000 : 0, .durable = { .epoch = 4, .end = 4096 },
    };
    memcpy(made->packet.group, sb.group, sizeof(sb.group));
    weir_log_packet_write(made->bytes, &made->packet, records, chain);
}

static void seal(Made *made)
{
    uint32_t head_bytes = (uint32_t)le_get(made->bytes + 72, 4);

    le_put(made->bytes + 8, crc_without(made->bytes, head_bytes, 8, ~0u), 4);
}

/* --- packets --- */

static void a_packet_reads_as_it_was_written(void **state)
{
    uint8_t chain[WEIR_LOG_CHAIN_BYTES] = { 1 }, again[sizeof(chain)] = { 1 };
    WeirLogPacket p;
    WeirLogRecord r;
    const char *why;
    Made made;

    (void)state;
    make(&made, true, chain);
    assert_int_equal(weir_log_packet_peek(made.bytes), 512);
    assert_int_equal(weir_log_packet_read(&p, made.bytes, &why), 0);
    assert_int_equal(p.position, 8192);
    assert_int_equal(p.session, 99);
    assert_int_equal(p.epoch, 5);
    assert_int_equal(p.number, 2);
    assert_int_equal(p.durable.end, 4096);
    assert_int_equal(p.wall_ns, 1000);
    assert_int_equal(p.crc, made.packet.crc);
    assert_true(p.commit && p.consistent && !p.application_consistent);
    assert_int_equal(weir_log_packet_bytes(&p), 4096);
    assert_int_equal(weir_log_packet_check_data(&p, made.bytes,
                                                made.bytes + 512, &why), 0);
    weir_log_record_read(&r, made.bytes, 1);
    assert_int_equal(r.op, WEIR_LOG_ZERO);
    assert_int_equal(r.disk, 63);
    assert_true(r.resync);
    assert_int_equal(r.bytes, UINT64_C(1) << 40);
    weir_log_chain_step(again, &p);
    assert_memory_equal(again, chain, sizeof(chain));
    assert_memory_equal(p.chain, chain, sizeof(chain));
}

typedef struct Defect {
    uint32_t at, bytes;
    uint64_t value;
    const char *why;
} Defect;

static const Defect head_defects[] = {
    { 0, 1, 'V', "no packet" },
    { 68, 4, WEIR_LOG_RECORDS_MAX + 1, "no packet" },
    { 72, 4, 1024, "no packet" },
    { 12, 4, 8, "unknown flags" },
    { 12, 4, 4, "epoch or position that cannot be" },       /* last, records */
    { 136, 8, 1, "unknown flags" },             /* a time without a commit */
    { 152, 4, 4, "unknown flags" },
    { 156, 4, 1, "unknown flags" },
    { 200, 1, 1, "unknown flags" },
    { 56, 8, 0, "epoch or position that cannot be" },
    { 80, 8, 5, "epoch or position that cannot be" },       /* itself */
    { 48, 8, 512, "epoch or position that cannot be" },
    { 48, 8, UINT64_C(1) << 63, "epoch or position that cannot be" },
    { 256 + 4, 2, 64, "record that cannot be" },
    { 256 + 6, 1, 0, "record that cannot be" },
    { 256 + 6, 1, 7, "record that cannot be" },
    { 256 + 7, 1, 2, "record that cannot be" },     /* compressed to nothing */
    { 256 + 7, 1, 4, "record that cannot be" },
    { 256 + 8, 8, UINT64_MAX - 100, "record that cannot be" },
    { 256 + 16, 8, 0, "record that cannot be" },
    { 256 + 16, 8, (2 << 20) + 1, "record that cannot be" },
    { 256 + 16, 8, 2 << 20, "length of its data" },
    { 256 + 24, 4, 1, "record that cannot be" },    /* not compressed */
    { 256 + 28, 4, 1, "record that cannot be" },
    { 288, 4, 1, "record that cannot be" },     /* a CRC of no data */
    { 288 + 8, 8, (UINT64_C(1) << 62) + 1, "record that cannot be" },
    { 288 + 16, 8, (UINT64_C(1) << 62) + 1, "record that cannot be" },
    { 320 + 4, 2, 1, "record that cannot be" }, /* a mark of a disk */
    { 320 + 8, 8, 1, "record that cannot be" },
    { 320 + 16, 8, 256, "record that cannot be" },
    { 76, 4, 512, "length of its data" },
    { 352, 1, 1, "record that cannot be" },     /* behind the table */
};

static void each_defect_of_a_head_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(head_defects) / sizeof(head_defects[0]);
         i++) {
        const Defect *d = &head_defects[i];
        uint8_t chain[WEIR_LOG_CHAIN_BYTES] = { 0 };
        const char *why = "";
        WeirLogPacket p;
        Made made;

        make(&made, false, chain);
        le_put(made.bytes + d->at, d->value, d->bytes);
        if (weir_log_packet_peek(made.bytes)) {
            assert_int_equal(weir_log_packet_read(&p, made.bytes, &why),
                             -EINVAL);
            assert_string_equal(why, "checksum of its head");
            seal(&made);
        }
        assert_int_equal(weir_log_packet_read(&p, made.bytes, &why), -EINVAL);
        assert_string_equal(why, d->why);
    }
}

static void changed_data_is_refused(void **state)
{
    static const uint32_t at[] = { 512, 512 + 699, 512 + DATA_BYTES + 6 };
    uint8_t chain[WEIR_LOG_CHAIN_BYTES] = { 0 };
    const char *why;
    Made made;

    (void)state;
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        make(&made, false, chain);
        made.bytes[at[i]] ^= 1;
        assert_int_equal(weir_log_packet_check_data(&made.packet, made.bytes,
                                                    made.bytes + 512, &why),
                         -EINVAL);
        assert_string_equal(why, "checksum of its data");
    }
}

static void a_name_is_text_with_zeroes_behind(void **state)
{
    WeirLogDisk disk = { .uuid = { 5 }, .name = "vda" }, again;
    uint8_t data[WEIR_LOG_DISK_BYTES];

    (void)state;
    weir_log_disk_write(data, &disk);
    assert_int_equal(weir_log_disk_read(&again, data), 0);
    assert_memory_equal(&again, &disk, sizeof(disk));
    data[16 + 63] = 'x';
    assert_int_equal(weir_log_disk_read(&again, data), -EINVAL);
    memset(data + 16, 'x', 64);
    assert_int_equal(weir_log_disk_read(&again, data), -EINVAL);
    memset(data + 16, 0, 64);
    assert_int_equal(weir_log_disk_read(&again, data), -EINVAL);
}

/* --- compressed data --- */

#define PLAIN_BYTES 6000                /* of the first record of two */

static uint8_t text[PLAIN_BYTES];

static void make_text(void)
{
    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t)"a disk holds much the same "[(i + i / 97) % 27];
    }
}

/* A compressed record, a plain one of 700 bytes behind it. */
static void seal_packed(Made *made, WeirLogRecord *records)
{
    uint8_t chain[WEIR_LOG_CHAIN_BYTES] = { 0 };

    made->packet = (WeirLogPacket) {
        .generation = 1, .session = 99, .position = 8192, .epoch = 5,
        .records = 2,
    };
    weir_log_packet_write(made->bytes, &made->packet, records, chain);
}

static void make_packed(Made *made, WeirLogRecord *records)
{
    uint8_t *data = made->bytes + weir_log_head_bytes(2);
    WeirCompressor *c = weir_compressor_new();
    uint64_t room;

    make_text();
    memset(made, 0, sizeof(*made));
    records[0] = (WeirLogRecord) {
        .op = WEIR_LOG_WRITE, .offset = 4096, .bytes = PLAIN_BYTES,
        .crc = weir_log_data_crc(text, PLAIN_BYTES),
    };
    room = weir_compress(c, &records[0], text, data);
    weir_compressor_free(c);
    assert_true(room > 0 && room < 4096);
    memset(data + room, 0xa5, 700);
    records[1] = (WeirLogRecord) {
        .op = WEIR_LOG_WRITE, .bytes = 700,
        .crc = weir_log_data_crc(data + room, 700),
    };
    seal_packed(made, records);
}

static int check_packed(const Made *made, const char **why)
{
    WeirLogPacket p;
    const uint8_t *data = made->bytes + made->packet.head_bytes;
    WeirDecompressor *d = weir_decompressor_new();
    int ret = weir_log_packet_read(&p, made->bytes, why);

    ret = ret < 0 ? ret : weir_log_packet_check_data(&p, made->bytes, data,
                                                     why);
    ret = ret < 0 ? ret : weir_packed_check(d, &p, made->bytes, data, why);
    weir_decompressor_free(d);
    return ret;
}

static void a_compressed_record_reads_as_it_was_written(void **state)
{
    WeirDecompressor *d = weir_decompressor_new();
    WeirLogRecord records[2], r;
    uint8_t plain[PLAIN_BYTES];
    const char *why;
    Made made;

    (void)state;
    make_packed(&made, records);
    assert_int_equal(check_packed(&made, &why), 0);
    weir_log_record_read(&r, made.bytes, 0);
    assert_int_equal(r.bytes, PLAIN_BYTES);
    assert_int_equal(r.packed_bytes, records[0].packed_bytes);
    assert_int_equal(weir_log_data_bytes(&r), r.packed_bytes);
    assert_int_equal(weir_decompress(d, made.bytes + 512,
                                     weir_log_data_room(r.packed_bytes), plain,
                                     sizeof(plain)), 0);
    assert_memory_equal(plain, text, sizeof(text));
    weir_decompressor_free(d);
}

static void what_gets_no_shorter_stays_as_it_is(void **state)
{
    static uint8_t data[128 << 10], to[sizeof(data)];
    WeirCompressor *c = weir_compressor_new();
    WeirLogRecord r = { .op = WEIR_LOG_WRITE, .crc = 77 }, before;
    uint64_t random = 1;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        data[i] = (uint8_t)(random >> 56);
    }
    for (r.bytes = 512; r.bytes <= sizeof(data); r.bytes *= 2) {
        before = r;
        assert_int_equal(weir_compress(c, &r, data, to), 0);
        assert_memory_equal(&r, &before, sizeof(r));
    }
    /* short enough for a sector as it is; one byte more is not */
    memset(data, 0, sizeof(data));
    r.bytes = 512;
    assert_int_equal(weir_compress(c, &r, data, to), 0);
    r.bytes = 513;
    assert_int_equal(weir_compress(c, &r, data, to), 512);
    weir_compressor_free(c);
}

/* Changes of the first record that the data still fits. */
static void each_defect_of_a_compressed_record_is_refused(void **state)
{
    static const Defect defects[] = {
        { 256 + 6, 1, WEIR_LOG_ZERO, "record that cannot be" },
        { 256 + 7, 1, 0, "record that cannot be" },
        { 256 + 16, 8, 512, "record that cannot be" },      /* no gain */
        { 256 + 16, 8, (2 << 20) + 1, "record that cannot be" },
        { 256 + 24, 4, 0, "record that cannot be" },
        { 256 + 24, 4, PLAIN_BYTES, "record that cannot be" },
        { 256 + 24, 4, UINT32_MAX, "record that cannot be" },
        { 256 + 28, 4, 1, "checksum of its data" },
        { 256, 4, 1, "checksum of its data when it is decompressed" },
        { 256 + 16, 8, PLAIN_BYTES - 1, "its data cannot be decompressed" },
        { 256 + 16, 8, PLAIN_BYTES + 1, "its data cannot be decompressed" },
        { 256 + 16, 8, 2 << 20, "its data cannot be decompressed" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(defects) / sizeof(defects[0]); i++) {
        WeirLogRecord records[2];
        const char *why = "";
        Made made;

        make_packed(&made, records);
        le_put(made.bytes + defects[i].at, defects[i].value,
               defects[i].bytes);
        seal(&made);
        assert_int_equal(check_packed(&made, &why), -EINVAL);
        assert_string_equal(why, defects[i].why);
    }
}

/* Whatever is where the frame should be, with checksums that fit. */
static void assert_no_frame(const void *data, size_t bytes, uint64_t plain)
{
    WeirLogRecord records[2];
    const char *why = "";
    Made made;

    make_packed(&made, records);
    memset(made.bytes + 512, 0, sizeof(made.bytes) - 512);
    memcpy(made.bytes + 512, data, bytes);
    records[0].bytes = plain;
    records[0].packed_bytes = (uint32_t)bytes;
    records[0].packed_crc = weir_log_data_crc(data, bytes);
    records[1].crc = weir_log_data_crc(
        made.bytes + 512 + weir_log_data_room(bytes), 700);
    seal_packed(&made, records);
    assert_int_equal(check_packed(&made, &why), -EINVAL);
    assert_string_equal(why, "its data cannot be decompressed");
}

static void only_one_whole_frame_is_taken(void **state)
{
    static uint8_t zeroes[2 << 20];
    static const uint8_t skipped[12] = { 0x50, 0x2a, 0x4d, 0x18, 4 };
    static const uint8_t old[16] = { 0x27, 0xb5, 0x2f, 0xfd };  /* v0.7 */
    uint8_t frame[4096];
    size_t n;

    (void)state;
    n = ZSTD_compress(frame, sizeof(frame), zeroes, sizeof(zeroes), 1);
    assert_true(n < 1000);
    assert_no_frame(frame, n, 4096);            /* much more comes out */
    assert_no_frame(frame, n - 1, sizeof(zeroes));
    assert_no_frame(frame, n + 1, sizeof(zeroes));
    n = ZSTD_compress(frame, sizeof(frame), zeroes, 2048, 1);
    memcpy(frame + n, frame, n);
    assert_no_frame(frame, 2 * n, 4096);        /* two of them */
    assert_no_frame(skipped, sizeof(skipped), 4096);
    assert_no_frame(old, sizeof(old), 4096);
    assert_no_frame(zeroes, 100, 4096);
}

/* What would not fit into a packet as it is, does not as a few bytes either. */
static void a_packet_is_no_longer_than_without_compression(void **state)
{
    uint8_t chain[WEIR_LOG_CHAIN_BYTES] = { 0 };
    WeirLogRecord records[3];
    WeirLogPacket p = { .position = 8192, .epoch = 5, .records = 2 };
    const char *why;
    Made made;

    (void)state;
    for (int i = 0; i < 3; i++) {
        records[i] = (WeirLogRecord) { .op = WEIR_LOG_WRITE,
                                       .bytes = (2 << 20) - 512,
                                       .packed_bytes = 100 };
    }
    weir_log_packet_write(made.bytes, &p, records, chain);
    assert_int_equal(weir_log_packet_read(&p, made.bytes, &why), 0);
    p.records = 3;
    weir_log_packet_write(made.bytes, &p, records, chain);
    assert_int_equal(weir_log_packet_read(&p, made.bytes, &why), -EINVAL);
    assert_string_equal(why, "too long");
}

/* --- superblock --- */

static void write_copies(uint8_t *copies)
{
    memset(copies, 0, 2 * WEIR_LOG_SUPERBLOCK_BYTES);
    for (sb.sequence = 4; sb.sequence < 6; sb.sequence++) {
        weir_log_superblock_write(copies + sb.sequence % 2 *
                                  WEIR_LOG_SUPERBLOCK_BYTES, &sb);
    }
}

static void the_newer_whole_copy_holds(void **state)
{
    uint8_t copies[2 * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock read;
    char err[256];

    (void)state;
    write_copies(copies);
    assert_int_equal(weir_log_superblock_read(&read, copies, DEVICE_BYTES, err,
                                              sizeof(err)), 0);
    assert_int_equal(read.sequence, 5);
    assert_true(read.zstd);
    assert_memory_equal(read.group, sb.group, sizeof(sb.group));
    copies[WEIR_LOG_SUPERBLOCK_BYTES + 100] ^= 1;
    assert_int_equal(weir_log_superblock_read(&read, copies, DEVICE_BYTES, err,
                                              sizeof(err)), 0);
    assert_int_equal(read.sequence, 4);
}

static void shapes_fit_the_device(void **state)
{
    WeirLogSuperblock new = { .segment_bytes = 0 };

    (void)state;
    assert_int_equal(weir_log_superblock_shape(&new, UINT64_C(1) << 40), 0);
    assert_int_equal(new.segment_bytes, 64 << 20);
    assert_int_equal(new.segments, (1 << 14) - 1);
    new.segment_bytes = 0;
    assert_int_equal(weir_log_superblock_shape(&new, 4 << 20), -ENOSPC);
    new.segment_bytes = (8 << 20) + 512;
    assert_int_equal(weir_log_superblock_shape(&new, DEVICE_BYTES), -EINVAL);
}

static void assert_refused(const uint8_t *copies, uint64_t device_bytes,
                           int ret, const char *why)
{
    WeirLogSuperblock read;
    char err[256] = "";

    assert_int_equal(weir_log_superblock_read(&read, copies, device_bytes, err,
                                              sizeof(err)), ret);
    assert_non_null(strstr(err, why));
}

typedef struct SuperblockDefect {
    uint32_t at, bytes;
    uint64_t value;
    int ret;
    const char *why;
} SuperblockDefect;

static const SuperblockDefect superblock_defects[] = {
    { 0, 8, 0, -ENOENT, "no replication log" },
    { 8, 4, 2, -ENOTSUP, "version" },
    { 16, 8, 4, -ENOTSUP, "features" },
    { 16, 8, UINT64_C(1) << 63 | 1, -ENOTSUP, "features" },
    { 56, 8, 4096, -EINVAL, "segments" },
    { 56, 8, (8 << 20) + 1, -EINVAL, "segments" },
    { 56, 8, UINT64_C(1) << 31, -EINVAL, "segments" },
    { 64, 4, 3, -EINVAL, "segments" },
    { 64, 4, (1 << 24) + 1, -EINVAL, "segments" },
    { 64, 4, 9, -ENOSPC, "75563008 bytes long, its device 75497472" },
    { 68, 4, 0, -EINVAL, "history" },
    { 68, 4, 2, -EINVAL, "history" },
    { 68, 4, 33, -EINVAL, "history" },
    { 512, 8, 0, -EINVAL, "history" },
    { 80, 8, 4096, -EINVAL, "from a place" },
    { 80, 8, 8 << 20, -EINVAL, "from a place" },
    { 96, 8, 512, -EINVAL, "from a place" },
    { 96, 8, (64 << 20) + 4096, -EINVAL, "from a place" },
};

static void each_defect_of_a_superblock_is_refused(void **state)
{
    uint8_t copies[2 * WEIR_LOG_SUPERBLOCK_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(superblock_defects) /
                           sizeof(superblock_defects[0]); i++) {
        const SuperblockDefect *d = &superblock_defects[i];

        write_copies(copies);
        for (uint8_t *at = copies; at < copies + sizeof(copies);
             at += WEIR_LOG_SUPERBLOCK_BYTES) {
            le_put(at + d->at, d->value, d->bytes);
        }
        if (d->ret != -ENOENT) {
            assert_refused(copies, DEVICE_BYTES, -EINVAL, "damaged");
        }
        for (uint8_t *at = copies; at < copies + sizeof(copies);
             at += WEIR_LOG_SUPERBLOCK_BYTES) {
            le_put(at + 12, crc_without(at, WEIR_LOG_SUPERBLOCK_BYTES, 12,
                                        ~0u), 4);
        }
        assert_refused(copies, DEVICE_BYTES, d->ret, d->why);
    }
    write_copies(copies);
    assert_refused(copies, 4096, -ENOSPC, "before the");
}

/* --- order --- */

/* A writer's packets, without data; the last one commits. */
static void write_epoch(WeirLogWriter *w, WeirLogPacket *p, unsigned n)
{
    uint8_t head[WEIR_LOG_DATA_ALIGN_BYTES];
    WeirLogCommit commit;

    for (unsigned i = 0; i < n; i++) {
        p[i] = (WeirLogPacket) { .commit = i + 1 == n, .wall_ns = 5 };
        assert_int_equal(weir_log_writer_put(w, &p[i], NULL, head, &commit),
                         0);
    }
}

static const char *refusal(const WeirLogCursor *c, const WeirLogPacket *p)
{
    WeirLogCursor copy;
    const char *why = NULL;

    memcpy(&copy, c, sizeof(copy));
    if (weir_log_cursor_take(&copy, p, &why) >= 0) {
        return "taken";
    }
    assert_memory_equal(&copy, c, sizeof(copy));
    return why;
}

static void a_reader_takes_only_what_belongs_there(void **state)
{
    const WeirLogCommit start = { .epoch = 0 };
    WeirLogPacket p[3], other[3], wrong;
    WeirLogWriter w, later;
    WeirLogCursor c;
    const char *why;

    (void)state;
    weir_log_writer_init(&w, &sb, &start, 1);
    weir_log_writer_init(&later, &sb, &start, 2);
    write_epoch(&w, p, 3);
    write_epoch(&later, other, 3);
    weir_log_cursor_init(&c, &sb, &start);
    assert_string_equal(refusal(&c, &p[1]), "it is not where it belongs");
    wrong = p[0];
    wrong.group[0] ^= 1;
    assert_string_equal(refusal(&c, &wrong), "it is of another group");
    wrong = p[0];
    wrong.epoch = 2;
    assert_string_equal(refusal(&c, &wrong), "it is of another epoch");
    wrong = p[0];
    wrong.number = 1;
    assert_string_equal(refusal(&c, &wrong), "it has another number");
    wrong = p[0];
    wrong.generation = 2;
    assert_string_equal(refusal(&c, &wrong), "it is of another generation");
    wrong = p[0];
    wrong.first = false;
    assert_string_equal(refusal(&c, &wrong), "it is not where it belongs");
    assert_int_equal(weir_log_cursor_take(&c, &p[0], &why), 0);
    assert_string_equal(refusal(&c, &other[1]), "it is of another session");
    assert_int_equal(weir_log_cursor_take(&c, &p[1], &why), 0);
    wrong = p[2];
    wrong.chain[31] ^= 1;
    assert_string_equal(refusal(&c, &wrong),
                        "its epoch is not what the writer meant");
    assert_int_equal(weir_log_cursor_take(&c, &p[2], &why), 1);
    assert_int_equal(c.commit.epoch, 1);
    assert_int_equal(c.commit.end, 3 * 4096);
}

/* Even if the session were the same: the chain knows the packet before. */
static void packets_of_two_writers_make_no_epoch(void **state)
{
    const WeirLogCommit start = { .epoch = 0 };
    uint8_t head[512];
    WeirLogRecord zero = { .op = WEIR_LOG_ZERO, .bytes = 512 };
    WeirLogPacket p[2], other = { .records = 1 };
    WeirLogWriter w, later;
    WeirLogCursor c;
    const char *why;

    (void)state;
    weir_log_writer_init(&w, &sb, &start, 1);
    weir_log_writer_init(&later, &sb, &start, 1);
    write_epoch(&w, p, 2);
    assert_int_equal(weir_log_writer_put(&later, &other, &zero, head, NULL),
                     0);
    weir_log_cursor_init(&c, &sb, &start);
    assert_int_equal(weir_log_cursor_take(&c, &other, &why), 0);
    assert_string_equal(refusal(&c, &p[1]),
                        "its epoch is not what the writer meant");
}

static void the_clock_of_commits_never_goes_back(void **state)
{
    const WeirLogCommit start = { .epoch = 9, .wall_ns = 100 };
    WeirLogPacket p;
    WeirLogWriter w;

    (void)state;
    weir_log_writer_init(&w, &sb, &start, 1);
    write_epoch(&w, &p, 1);
    assert_int_equal(p.wall_ns, 101);
    write_epoch(&w, &p, 1);
    assert_int_equal(p.wall_ns, 102);
}

static void a_promotion_ends_the_old_generation(void **state)
{
    const WeirLogCommit start = { .epoch = 0 };
    WeirLogSuperblock promoted = sb;
    WeirLogPacket p[2];
    WeirLogWriter w;
    WeirLogCursor c;
    const char *why;

    (void)state;
    weir_log_writer_init(&w, &sb, &start, 1);
    write_epoch(&w, &p[0], 1);
    write_epoch(&w, &p[1], 1);
    promoted.history[1] = (WeirLogGeneration) { .number = 2,
                                                .first_epoch = 2 };
    promoted.history_count = 2;
    weir_log_cursor_init(&c, &promoted, &start);
    assert_int_equal(weir_log_cursor_take(&c, &p[0], &why), 1);
    assert_string_equal(refusal(&c, &p[1]), "it is of another generation");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packet_reads_as_it_was_written),
        cmocka_unit_test(each_defect_of_a_head_is_refused),
        cmocka_unit_test(changed_data_is_refused),
        cmocka_unit_test(a_compressed_record_reads_as_it_was_written),
        cmocka_unit_test(what_gets_no_shorter_stays_as_it_is),
        cmocka_unit_test(each_defect_of_a_compressed_record_is_refused),
        cmocka_unit_test(only_one_whole_frame_is_taken),
        cmocka_unit_test(a_packet_is_no_longer_than_without_compression),
        cmocka_unit_test(a_name_is_text_with_zeroes_behind),
        cmocka_unit_test(the_newer_whole_copy_holds),
        cmocka_unit_test(shapes_fit_the_device),
        cmocka_unit_test(each_defect_of_a_superblock_is_refused),
        cmocka_unit_test(a_reader_takes_only_what_belongs_there),
        cmocka_unit_test(packets_of_two_writers_make_no_epoch),
        cmocka_unit_test(the_clock_of_commits_never_goes_back),
        cmocka_unit_test(a_promotion_ends_the_old_generation),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}

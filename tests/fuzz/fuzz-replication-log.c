/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever a replication log holds, reading it is free of crashes, and what is
 * read makes sense: nothing outside of the device or of a packet is touched,
 * and no epoch comes out that nobody has written, unless its packets were
 * changed and sealed again.
 *
 * The input is a byte of flags, and changes to a log that was good: part (1
 * byte), place (2), length (1), bytes. Part: 0 and 1 the superblocks, from 2 on
 * the packets. Flags: 1, checksums are put right afterwards; 2, the chains of
 * commits too. The data of every second epoch is compressed.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/compress.h"
#include "replication/scan.h"
#include "replication/writer.h"

#define SEGMENTS 4
#define DEVICE_BYTES (WEIR_LOG_RING_OFFSET + \
                      SEGMENTS * WEIR_LOG_SEGMENT_BYTES_MIN)
#define EPOCHS 5
#define PACKETS_MAX 16

enum { SEALED = 1, CHAINED = 2 };

static uint8_t *made, *bytes;
static WeirLogSuperblock sb;
static uint64_t packets[PACKETS_MAX];
static unsigned n_packets;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* --- a good log --- */

static void put(WeirLogWriter *w, WeirLogPacket *p,
                const WeirLogRecord *records, const uint8_t *data)
{
    static uint8_t head[4096];
    WeirLogCommit commit;

    must(weir_log_writer_put(w, p, records, head, &commit) == 0, "no room");
    packets[n_packets++] = weir_log_offset(&sb, p->position);
    memcpy(made + weir_log_offset(&sb, p->position), head, p->head_bytes);
    memcpy(made + weir_log_offset(&sb, p->position) + p->head_bytes, data,
           p->data_bytes);
}

static void put_disk(WeirLogWriter *w)
{
    const WeirLogDisk disk = { .name = "vda" };
    uint8_t data[WEIR_LOG_DATA_ALIGN_BYTES] = { 0 };
    WeirLogRecord record = { .op = WEIR_LOG_DISK, .bytes = 1 << 20 };
    WeirLogPacket p = { .records = 1 };

    weir_log_disk_write(data, &disk);
    record.crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES);
    put(w, &p, &record, data);
}

static void put_epoch(WeirLogWriter *w, const uint8_t *data, uint32_t length,
                      bool compressed)
{
    static uint8_t packed[WEIR_COMPRESS_BYTES_MAX];
    WeirCompressor *c = weir_compressor_new();
    WeirLogRecord records[] = {
        { .op = WEIR_LOG_WRITE, .bytes = length,
          .crc = weir_log_data_crc(data, length) },
        { .op = WEIR_LOG_RESIZE, .bytes = 2 << 20 },
        { .op = WEIR_LOG_DISCARD, .offset = 4096, .bytes = 512 },
    };
    WeirLogPacket p = { .commit = true, .consistent = true, .records = 3 };
    WeirLogPacket last = { .last = true };
    uint64_t all = weir_log_head_bytes(3) + length;

    if (compressed) {
        must(weir_compress(c, &records[0], data, packed) > 0, "no shorter");
        data = packed;
    }
    weir_compressor_free(c);
    if (weir_log_writer_next(w, all) == WEIR_LOG_NEXT_LAST) {
        put(w, &last, NULL, data);
    }
    if (weir_log_writer_next(w, all) == WEIR_LOG_NEXT_FIRST) {
        put_disk(w);
    }
    put(w, &p, records, data);
}

static void make(void)
{
    const WeirLogCommit start = { .epoch = 0 };
    static uint8_t data[400 << 10];
    WeirLogWriter w;

    for (uint32_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)((i * i >> 5) % 23);
    }
    made = calloc(1, DEVICE_BYTES);
    bytes = malloc(DEVICE_BYTES);
    sb.segment_bytes = WEIR_LOG_SEGMENT_BYTES_MIN;
    must(weir_log_superblock_shape(&sb, DEVICE_BYTES) == 0, "no log");
    weir_log_superblock_write(made, &sb);
    sb.sequence = 1;
    weir_log_superblock_write(made + WEIR_LOG_SUPERBLOCK_BYTES, &sb);
    weir_log_writer_init(&w, &sb, &start, 1);
    for (unsigned i = 0; i < EPOCHS; i++) {
        put_epoch(&w, data, sizeof(data) >> (i + 2 * (i % 2)), i % 2);
    }
}

/* --- changes --- */

static uint64_t part(unsigned number)
{
    return number < WEIR_LOG_SUPERBLOCKS
           ? number * WEIR_LOG_SUPERBLOCK_BYTES
           : packets[(number - WEIR_LOG_SUPERBLOCKS) % n_packets];
}

static void change_all(const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t n = data[3] < size - 4 ? data[3] : size - 4;
        uint64_t place = (data[1] << 8 | data[2]) % 4096;

        n = n < 4096 - place ? n : 4096 - place;
        memcpy(bytes + part(data[0]) + place, data + 4, n);
        data += 4 + n;
        size -= 4 + n;
    }
}

/* Of what is compressed, as the head says. */
static void seal_data(uint8_t *head, uint32_t head_bytes)
{
    uint8_t *data = head + head_bytes;

    for (uint32_t i = 0; i < le_get(head + 68, 4); i++) {
        uint8_t *at = head + WEIR_LOG_HEADER_BYTES + i * WEIR_LOG_RECORD_BYTES;
        WeirLogRecord r;
        uint64_t n;

        weir_log_record_read(&r, head, i);
        n = weir_log_data_bytes(&r);
        if (n > (uint64_t)(bytes + DEVICE_BYTES - data)) {
            return;
        }
        if (r.packed_bytes > 0) {
            le_put(at + 28, weir_log_data_crc(data, n), 4);
        }
        n = weir_log_data_room(n);
        data += n < (uint64_t)(bytes + DEVICE_BYTES - data)
                ? n : (uint64_t)(bytes + DEVICE_BYTES - data);
    }
}

static void seal(bool chains)
{
    uint8_t chain[WEIR_LOG_CHAIN_BYTES] = { 0 };

    for (unsigned i = 0; i < WEIR_LOG_SUPERBLOCKS; i++) {
        le_put(bytes + part(i) + 12,
               crc_without(bytes + part(i), WEIR_LOG_SUPERBLOCK_BYTES, 12,
                           ~0u), 4);
    }
    for (unsigned i = 0; i < n_packets; i++) {
        uint8_t *head = bytes + packets[i];
        uint32_t head_bytes = weir_log_packet_peek(head);
        WeirLogPacket p;
        const char *why;

        if (head_bytes == 0 ||
            packets[i] + head_bytes > DEVICE_BYTES) {
            continue;
        }
        seal_data(head, head_bytes);
        le_put(head + 8, crc_without(head, head_bytes, 8, ~0u), 4);
        if (chains && weir_log_packet_read(&p, head, &why) == 0) {
            weir_log_chain_step(chain, &p);
            if (p.commit) {
                memcpy(head + 160, chain, sizeof(chain));
                le_put(head + 8, crc_without(head, head_bytes, 8, ~0u), 4);
            }
        }
    }
}

/* --- use --- */

static int read_log(void *opaque, uint64_t offset, uint64_t length, void *buf)
{
    (void)opaque;
    must(offset <= DEVICE_BYTES && length <= DEVICE_BYTES - offset,
         "read outside of the device");
    memcpy(buf, bytes + offset, length);
    return 0;
}

/* What a reader makes of the compressed records of a packet. */
static void decompress(const WeirLogScan *s)
{
    const uint8_t *data = s->buf + s->packet.head_bytes;
    WeirDecompressor *d = weir_decompressor_new();
    const char *why = NULL;
    bool sound = weir_packed_check(d, &s->packet, s->buf, data, &why) == 0;

    must(sound || why, "refused without a reason");
    for (uint32_t i = 0; i < s->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, s->buf, i);
        if (r.packed_bytes > 0) {
            uint64_t room = weir_log_data_room(r.packed_bytes);
            uint8_t *plain = malloc(r.bytes), *copy = malloc(room);
            int ret;

            /* of its own, so that a byte too far is noticed */
            memcpy(copy, data, room);
            ret = weir_decompress(d, copy, room, plain, r.bytes);
            must(!sound || (ret == 0 && r.crc ==
                            weir_log_data_crc(plain, r.bytes)),
                 "it was sound, and cannot be read");
            free(plain);
            free(copy);
        }
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
    weir_decompressor_free(d);
}

static void scan(const WeirLogSuperblock *read, bool changed)
{
    WeirLogCommit end;
    WeirLogScan s;

    must(weir_log_find_end(read_log, NULL, read, &end) == 0, "no end");
    must(changed || end.epoch <= EPOCHS, "an epoch that nobody wrote");
    must(weir_log_scan_init(&s, read_log, NULL, read, &read->anchor) == 0,
         "no memory");
    for (int ret = weir_log_scan_next(&s); ret >= 0;
         ret = weir_log_scan_next(&s)) {
        decompress(&s);
        must(s.cursor.commit.end - read->tail <= weir_log_ring_bytes(read),
             "an epoch outside of the ring");
    }
    weir_log_scan_destroy(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    WeirLogSuperblock read;
    char err[256] = "";

    if (!made) {
        make();
    }
    if (size < 1) {
        return 0;
    }
    memcpy(bytes, made, DEVICE_BYTES);
    change_all(data + 1, size - 1);
    if (data[0] & (SEALED | CHAINED)) {
        seal(data[0] & CHAINED);
    }
    if (weir_log_superblock_read(&read, bytes, DEVICE_BYTES, err,
                                 sizeof(err)) == 0) {
        scan(&read, data[0] & (SEALED | CHAINED));
    } else {
        must(err[0] && !strchr(err, '\n'), "refused without a reason");
    }
    return 0;
}

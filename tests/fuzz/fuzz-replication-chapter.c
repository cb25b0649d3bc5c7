/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever the index of a segment holds, reading it is free of crashes, touches
 * nothing outside of it, and what is found in it makes sense.
 *
 * The input is a byte of flags, and changes to one that was good: place (2
 * bytes), length (1), bytes. Flags: 1, the checksum is put right afterwards.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/chapter.h"

#define PLACE_BYTES 65536
#define EPOCHS 4
#define RECORDS 70

static WeirLogSuperblock sb = { .chapter_bytes = 1 };
static uint8_t *made;
static uint64_t made_bytes;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* --- a good one --- */

static void fill(WeirIndexEpoch *e, uint32_t number)
{
    static char names[] = "a\0b";

    *e = (WeirIndexEpoch) {
        .commit = { .epoch = 8 + number, .end = 8192 * (number + 2),
                    .wall_ns = 100 + number },
        .records = calloc(RECORDS, sizeof(*e->records)), .count = RECORDS,
        .names = names, .names_bytes = number == 1 ? 4 : 0,
        .marks = number == 1 ? 2 : 0, .consistent = true,
    };
    for (uint32_t i = 0; i < RECORDS; i++) {
        e->records[i] = (WeirIndexRecord) {
            .op = i % 9 ? WEIR_LOG_WRITE : WEIR_LOG_ZERO, .disk = i % 3,
            .offset = (uint64_t)i * 70000 * (number + 1),
            .bytes = i % 9 ? 4096 : (UINT64_C(1) << 20) * (i + 1),
            .position = 8192 * (number + 1) + 512 * (i % 15 + 1), .crc = i,
        };
    }
    e->records[5] = (WeirIndexRecord) { .op = WEIR_LOG_RESIZE, .disk = 1,
                                        .bytes = (uint64_t)number << 30,
                                        .position = 8192 * (number + 1) + 512 };
}

static void make(void)
{
    static WeirIndexEpoch epochs[EPOCHS];
    static const WeirLength lengths[] = { { 9, 1 << 30, 1 }, { 10, 5, 1 } };
    WeirChapterSource source = {
        .sb = &sb, .before = { .epoch = 7, .end = 8192, .wall_ns = 1 },
        .epochs = epochs, .epoch_count = EPOCHS, .lengths = lengths,
        .length_count = 2,
        .disks = { { true, { .name = "vda" }, 1 << 20 },
                   { true, { .name = "vdb" }, 1 << 20 },
                   { true, { .name = "vdc" }, 1 << 20 } },
    };

    for (uint32_t i = 0; i < EPOCHS; i++) {
        fill(&epochs[i], i);
    }
    must(weir_log_superblock_shape(&sb, UINT64_C(1) << 30) == 0, "no log");
    must(weir_chapter_build(&made, &made_bytes, &source, PLACE_BYTES) == 0,
         "no chapter");
}

/* --- changes --- */

static void change_all(uint8_t *buf, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        size_t n = data[2] < size - 3 ? data[2] : size - 3;
        size_t at = (size_t)(data[0] << 8 | data[1]) % PLACE_BYTES;

        n = n < PLACE_BYTES - at ? n : PLACE_BYTES - at;
        memcpy(buf + at, data + 3, n);
        data += 3 + n;
        size -= 3 + n;
    }
}

/* --- use --- */

static void look_at_epochs(const WeirChapterHead *h, const uint8_t *buf)
{
    const char *names = weir_chapter_names(h, buf);
    WeirLogCommit last = h->before;

    for (uint32_t i = 0; i < h->epochs; i++) {
        WeirIndexEpoch e;
        uint64_t generation;
        uint32_t bytes;

        weir_chapter_epoch(h, buf, i, &e, &generation, &bytes);
        must(e.commit.epoch == last.epoch + 1 && e.commit.end > last.end,
             "epochs out of order");
        for (uint32_t j = 0; j < e.marks; j++) {
            names += strlen(names) + 1;
        }
        last = e.commit;
    }
    must((const uint8_t *)names <= buf + h->meta_bytes, "names");
    for (uint32_t i = 0; i < h->lengths; i++) {
        WeirLength l;

        weir_chapter_length(h, buf, i, &l);
        must(l.disk < WEIR_LOG_DISKS_MAX, "a disk");
    }
}

static void look_at_record(const WeirChapterRecord *r)
{
    must(r->record.disk < WEIR_LOG_DISKS_MAX &&
         r->from + r->bytes >= r->from, "a record");
}

static void look_at_blocks(const WeirChapterFinder *f, const uint8_t *blocks)
{
    WeirChapterRecord r;

    for (uint32_t i = 0; i < f->wide; i++) {
        if (weir_chapter_wide(&r, f, i) == 0) {
            look_at_record(&r);
        }
    }
    for (uint16_t disk = 0; disk < 4; disk++) {
        for (uint64_t at = 0; at < 64; at++) {
            uint32_t first, end;

            weir_chapter_may_have(f, disk, at);
            weir_chapter_blocks(f, disk, at << 16, (at + 1) << 16, &first,
                                &end);
            must(end <= f->blocks && first <= f->blocks, "no such block");
            for (; first < end; first++) {
                uint32_t n = weir_chapter_block_records(f, first);

                for (uint32_t i = 0; i < n; i++) {
                    if (weir_chapter_record(&r, f, blocks +
                                            (size_t)first *
                                            WEIR_CHAPTER_BLOCK_BYTES,
                                            i) == 0) {
                        look_at_record(&r);
                    }
                }
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *buf;
    WeirChapterFinder f;
    WeirChapterHead h;
    const char *why = NULL;
    uint32_t bytes;

    if (size < 1) {
        return 0;
    }
    if (!made) {
        make();
    }
    buf = calloc(1, PLACE_BYTES);
    memcpy(buf, made, made_bytes);
    change_all(buf, data + 1, size - 1);
    bytes = weir_chapter_peek(buf, PLACE_BYTES);
    if ((data[0] & 1) && bytes > 0) {
        le_put(buf + 12, crc_without(buf, bytes, 12, ~0u), 4);
    }
    if (weir_chapter_read(&h, &sb, buf, PLACE_BYTES, &why) < 0) {
        must(why && why[0], "refused without a reason");
    } else {
        look_at_epochs(&h, buf);
        must(weir_chapter_finder(&f, &h, buf) == 0, "no memory");
        look_at_blocks(&f, buf + h.meta_bytes);
        free(f.kept);
    }
    free(buf);
    return 0;
}

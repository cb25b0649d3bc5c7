/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * a chapter; all numbers little-endian
 *
 *   header 256 | epochs 96 each | disks 96 each | lengths 32 each
 *          | wide records 32 each | fences 24 each | names | filter
 *          | zeroes to a multiple of 4096 | blocks of 128 records, 4096 each
 *
 * header                               epoch
 *    0  8 magic "WEIRCHAP"                0 56 commit
 *    8  4 version, 1                     56  8 generation
 *   12  4 CRC-32C up to the blocks       64  8 bytes of data
 *   16  8 incompatible features          72  4 records
 *   24  8 compatible features            76  4 marks
 *   32 16 identity of the group          80  4 bytes of their names
 *   48  8 position of the segment        84  4 1 consistent, 2 application-
 *   56 56 commit before                  disk
 *  112 56 last commit                     0 16 identity   16 64 name
 *  168  4 epochs     172 4 disks         80  8 length     88  2 number
 *  176  4 lengths    180 4 wide          length
 *  184  4 records    188 4 blocks         0  8 epoch       8  8 length
 *  192  4 names      196 4 filter        16  2 disk
 *  200  4 bytes up to the blocks
 *
 * record                               fence
 *    0  8 offset     8  8 bytes           0  8 offset of the first record
 *   16  4 position: 512 bytes             8  8 the most that one of these and
 *         behind the commit before             of those before reaches to
 *   20  4 order     24  4 CRC            16  4 CRC of the block
 *   28  2 disk      30  1 operation      20  2 disk      22  2 records
 *   31  1 1: made the disk longer
 */
#include "replication/chapter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "common/zero.h"

#define VERSION 1
#define HEADER_BYTES 256
#define HEADER_USED 204
#define EPOCH_BYTES 96
#define DISK_BYTES 96
#define LENGTH_BYTES 32
#define RECORD_BYTES 32
#define FENCE_BYTES 24
#define FILTER_LINE_BYTES 64
#define FILTER_BITS_PER_KEY 10
#define FILTER_PROBES 6
#define UNIT_BYTES 512
#define FLAG_CONSISTENT 1u
#define FLAG_APPLICATION 2u

static const char magic[8] = { 'W', 'E', 'I', 'R', 'C', 'H', 'A', 'P' };

/* --- places --- */

static uint64_t epochs_at(void)
{
    return HEADER_BYTES;
}

static uint64_t disks_at(const WeirChapterHead *h)
{
    return epochs_at() + (uint64_t)h->epochs * EPOCH_BYTES;
}

static uint64_t lengths_at(const WeirChapterHead *h)
{
    return disks_at(h) + (uint64_t)h->disks * DISK_BYTES;
}

static uint64_t kept_at(const WeirChapterHead *h)
{
    return lengths_at(h) + (uint64_t)h->lengths * LENGTH_BYTES;
}

static uint64_t fences_at(const WeirChapterHead *h)
{
    return kept_at(h) + (uint64_t)h->wide * RECORD_BYTES;
}

static uint64_t names_at(const WeirChapterHead *h)
{
    return fences_at(h) + (uint64_t)h->blocks * FENCE_BYTES;
}

static uint64_t filter_at(const WeirChapterHead *h)
{
    return names_at(h) + h->names_bytes;
}

static uint64_t meta_bytes(const WeirChapterHead *h)
{
    return weir_log_packet_room(filter_at(h) + h->filter_bytes);
}

/* --- filter: one line of 64 bytes for a key, some bits of it --- */

static uint64_t hash(uint16_t disk, uint64_t granule)
{
    uint64_t h = granule * 64 + disk;

    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static uint64_t line_of(uint64_t h, uint32_t filter_bytes)
{
    return ((h >> 32) * (filter_bytes / FILTER_LINE_BYTES) >> 32) *
           FILTER_LINE_BYTES;
}

/* The next bits that a key has in its line. */
static uint64_t bits_of(uint64_t h)
{
    return h * UINT64_C(0x9e3779b97f4a7c15);
}

static void filter_add(uint8_t *filter, uint32_t bytes, uint64_t h)
{
    uint8_t *line = filter + line_of(h, bytes);
    uint64_t bits = bits_of(h);

    for (int i = 0; i < FILTER_PROBES; i++, bits >>= 9) {
        line[bits % 512 / 8] |= (uint8_t)(1u << bits % 8);
    }
}

static bool filter_has(const uint8_t *filter, uint32_t bytes, uint64_t h)
{
    const uint8_t *line = filter + line_of(h, bytes);
    uint64_t bits = bits_of(h);

    for (int i = 0; i < FILTER_PROBES; i++, bits >>= 9) {
        if (!(line[bits % 512 / 8] & 1u << bits % 8)) {
            return false;
        }
    }
    return true;
}

/* --- records --- */

bool weir_chapter_record_of(WeirChapterRecord *out, const WeirIndexRecord *r,
                            uint32_t order, uint64_t *bytes)
{
    uint64_t old = *bytes;

    *out = (WeirChapterRecord) { *r, r->offset, r->bytes, order };
    if (r->op == WEIR_LOG_DISK) {
        *bytes = r->bytes;
        return false;
    }
    if (r->op == WEIR_LOG_RESIZE) {
        out->from = r->bytes < old ? r->bytes : old;
        out->bytes = (r->bytes < old ? old : r->bytes) - out->from;
        *bytes = r->bytes;
    }
    return true;
}

#define RECORD_LONGER 0x80u

static void write_record(uint8_t *at, const WeirChapterRecord *r,
                         uint64_t begin)
{
    bool longer = r->record.op == WEIR_LOG_RESIZE &&
                  r->record.bytes > r->from;

    le_put(at, r->from, 8);
    le_put(at + 8, r->bytes, 8);
    le_put(at + 16, (r->record.position - begin) / UNIT_BYTES, 4);
    le_put(at + 20, r->order, 4);
    le_put(at + 24, r->record.crc, 4);
    at[28] = r->record.disk;
    at[29] = (uint8_t)(r->record.op | (longer ? RECORD_LONGER : 0));
    le_put(at + 30, r->record.packed_sectors, 2);
}

/* What is compressed takes less. */
static bool is_packed_soundly(const WeirIndexRecord *r)
{
    return r->packed_sectors == 0 ||
           (r->op == WEIR_LOG_WRITE &&
            weir_index_stored_bytes(r) < weir_log_data_room(r->bytes));
}

static bool is_sound(const WeirChapterRecord *r)
{
    return r->record.disk < WEIR_LOG_DISKS_MAX &&
           is_packed_soundly(&r->record) &&
           r->from <= WEIR_LOG_RANGE_END_MAX &&
           r->bytes <= WEIR_LOG_RANGE_END_MAX - r->from &&
           (r->record.op == WEIR_LOG_WRITE
            ? r->bytes > 0 && r->bytes <= WEIR_LOG_WRITE_BYTES_MAX :
            r->record.op == WEIR_LOG_ZERO || r->record.op == WEIR_LOG_DISCARD
            ? r->bytes > 0 : r->record.op == WEIR_LOG_RESIZE);
}

static int read_record(WeirChapterRecord *r, const uint8_t *at, uint64_t begin)
{
    r->from = le_get(at, 8);
    r->bytes = le_get(at + 8, 8);
    r->order = (uint32_t)le_get(at + 20, 4);
    r->record = (WeirIndexRecord) {
        .offset = r->from, .bytes = r->bytes,
        .position = begin + le_get(at + 16, 4) * UNIT_BYTES,
        .crc = (uint32_t)le_get(at + 24, 4),
        .packed_sectors = (uint16_t)le_get(at + 30, 2),
        .disk = at[28], .op = (uint8_t)(at[29] & ~RECORD_LONGER),
    };
    if (r->record.op == WEIR_LOG_RESIZE) {
        r->record.offset = 0;
        r->record.bytes = r->from + (at[29] & RECORD_LONGER ? r->bytes : 0);
    }
    return is_sound(r) ? 0 : -EINVAL;
}

static bool is_wide(const WeirChapterRecord *r)
{
    return r->bytes > WEIR_CHAPTER_WIDE_BYTES;
}

static int compare_records(const void *a, const void *b)
{
    const WeirChapterRecord *x = a, *y = b;

    return x->record.disk != y->record.disk
           ? (x->record.disk < y->record.disk ? -1 : 1) :
           x->from != y->from ? (x->from < y->from ? -1 : 1) :
           x->order < y->order ? -1 : 1;
}

/* --- building --- */

typedef struct Build {
    const WeirChapterSource *source;
    WeirChapterHead head;
    WeirChapterRecord *records;         /* sorted */
    uint8_t *buf;
    uint64_t keys;                      /* of the filter */
} Build;

static int collect(Build *b)
{
    const WeirChapterSource *s = b->source;
    uint64_t bytes[WEIR_LOG_DISKS_MAX], n = 0;
    uint32_t count = 0;

    memcpy(bytes, s->bytes, sizeof(bytes));
    for (uint32_t i = 0; i < s->epoch_count; i++) {
        n += s->epochs[i].count;
    }
    b->records = n < UINT32_MAX / 2 ? malloc((n + 1) * sizeof(*b->records))
                                    : NULL;
    if (!b->records) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < s->epoch_count; i++) {
        for (uint32_t j = 0; j < s->epochs[i].count; j++) {
            const WeirIndexRecord *r = &s->epochs[i].records[j];

            count += weir_chapter_record_of(&b->records[count], r, count,
                                            &bytes[r->disk]);
        }
    }
    b->head.records = count;
    qsort(b->records, count, sizeof(*b->records), compare_records);
    return 0;
}

/* Each granule once if it can be seen that it was there already. */
static void each_key(Build *b, bool add)
{
    uint8_t *filter = add ? b->buf + filter_at(&b->head) : NULL;
    uint64_t last = UINT64_MAX;
    uint16_t disk = 0;

    for (uint32_t i = 0; i < b->head.records; i++) {
        const WeirChapterRecord *r = &b->records[i];
        uint64_t g = r->from / WEIR_CHAPTER_GRANULE_BYTES;
        uint64_t end = r->bytes ? (r->from + r->bytes - 1) /
                                  WEIR_CHAPTER_GRANULE_BYTES : 0;

        last = i > 0 && r->record.disk == disk ? last : UINT64_MAX;
        disk = r->record.disk;
        for (; r->bytes > 0 && !is_wide(r) && g <= end; g++) {
            if (g == last) {
                continue;
            }
            last = g;
            b->keys += !add;
            if (add) {
                filter_add(filter, b->head.filter_bytes, hash(disk, g));
            }
        }
    }
}

/* Records from `first` on that make a block: of one disk. */
static uint32_t block_length(const Build *b, uint32_t first)
{
    uint32_t n = 0;

    while (n < WEIR_CHAPTER_BLOCK_RECORDS && first + n < b->head.records &&
           b->records[first + n].record.disk == b->records[first].record.disk) {
        n++;
    }
    return n;
}

static int shape(Build *b, uint64_t *bytes, uint64_t max_bytes)
{
    const WeirChapterSource *s = b->source;
    WeirChapterHead *h = &b->head;
    uint64_t names = 0, filter;

    memcpy(h->group, s->sb->group, WEIR_LOG_UUID_BYTES);
    h->position = s->position;
    h->before = h->last = s->before;
    h->epochs = s->epoch_count;
    h->lengths = s->length_count;
    for (uint32_t i = 0; i < s->epoch_count; i++) {
        h->last = s->epochs[i].commit;
        names += s->epochs[i].names_bytes;
    }
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        h->disks += s->disks[i].known;
    }
    for (uint32_t i = 0; i < h->records; i++) {
        h->wide += is_wide(&b->records[i]);
    }
    for (uint32_t i = 0; i < h->records; h->blocks++) {
        i += block_length(b, i);
    }
    each_key(b, false);
    filter = (b->keys * FILTER_BITS_PER_KEY / 8 / FILTER_LINE_BYTES + 1) *
             FILTER_LINE_BYTES;
    h->names_bytes = (uint32_t)names;
    h->filter_bytes = (uint32_t)filter;
    if (names > max_bytes || filter > max_bytes || meta_bytes(h) > max_bytes ||
        (h->last.end - h->before.end) / UNIT_BYTES > UINT32_MAX) {
        return -EFBIG;
    }
    h->meta_bytes = (uint32_t)meta_bytes(h);
    *bytes = h->meta_bytes + (uint64_t)h->blocks * WEIR_CHAPTER_BLOCK_BYTES;
    return *bytes > max_bytes ? -EFBIG : 0;
}

static void write_header(Build *b)
{
    const WeirChapterHead *h = &b->head;
    const uint32_t counts[] = {
        h->epochs, h->disks, h->lengths, h->wide, h->records, h->blocks,
        h->names_bytes, h->filter_bytes, h->meta_bytes,
    };

    memcpy(b->buf, magic, sizeof(magic));
    le_put(b->buf + 8, VERSION, 4);
    memcpy(b->buf + 32, h->group, WEIR_LOG_UUID_BYTES);
    le_put(b->buf + 48, h->position, 8);
    weir_log_commit_write(b->buf + 56, &h->before);
    weir_log_commit_write(b->buf + 112, &h->last);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        le_put(b->buf + 168 + 4 * i, counts[i], 4);
    }
}

static void write_epochs(Build *b)
{
    const WeirChapterSource *s = b->source;
    uint8_t *at = b->buf + epochs_at();
    uint8_t *names = b->buf + names_at(&b->head);

    for (uint32_t i = 0; i < s->epoch_count; i++, at += EPOCH_BYTES) {
        const WeirIndexEpoch *e = &s->epochs[i];

        weir_log_commit_write(at, &e->commit);
        le_put(at + 56, weir_log_generation_of(s->sb, e->commit.epoch), 8);
        le_put(at + 64, e->data_bytes, 8);
        le_put(at + 72, e->count, 4);
        le_put(at + 76, e->marks, 4);
        le_put(at + 80, e->names_bytes, 4);
        le_put(at + 84, (e->consistent ? FLAG_CONSISTENT : 0) |
                        (e->application_consistent ? FLAG_APPLICATION : 0), 4);
        if (e->names_bytes > 0) {
            memcpy(names, e->names, e->names_bytes);
        }
        names += e->names_bytes;
    }
}

static void write_disks(Build *b)
{
    const WeirChapterSource *s = b->source;
    uint8_t *at = b->buf + disks_at(&b->head);

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (s->disks[i].known) {
            weir_log_disk_write(at, &s->disks[i].what);
            le_put(at + 80, s->disks[i].bytes, 8);
            le_put(at + 88, i, 2);
            at += DISK_BYTES;
        }
    }
    for (uint32_t i = 0; i < s->length_count; i++, at += LENGTH_BYTES) {
        le_put(at, s->lengths[i].epoch, 8);
        le_put(at + 8, s->lengths[i].bytes, 8);
        le_put(at + 16, s->lengths[i].disk, 2);
    }
}

static void write_blocks(Build *b)
{
    const WeirChapterHead *h = &b->head;
    uint8_t *wide = b->buf + kept_at(h), *fence = b->buf + fences_at(h);
    uint8_t *block = b->buf + h->meta_bytes;
    uint64_t reach = 0;

    for (uint32_t i = 0; i < h->records; fence += FENCE_BYTES,
         block += WEIR_CHAPTER_BLOCK_BYTES) {
        const WeirChapterRecord *r = &b->records[i];
        uint32_t n = block_length(b, i);

        reach = i > 0 && r->record.disk == r[-1].record.disk ? reach : 0;
        le_put(fence, r->from, 8);
        le_put(fence + 20, r->record.disk, 2);
        le_put(fence + 22, n, 2);
        for (uint32_t j = 0; j < n; j++, r++) {
            write_record(block + j * RECORD_BYTES, r, h->before.end);
            if (is_wide(r)) {
                write_record(wide, r, h->before.end);
                wide += RECORD_BYTES;
            } else if (r->from + r->bytes > reach) {
                reach = r->from + r->bytes;
            }
        }
        le_put(fence + 8, reach, 8);
        le_put(fence + 16, weir_crc32c(~0u, block, WEIR_CHAPTER_BLOCK_BYTES),
               4);
        i += n;
    }
}

int weir_chapter_build(uint8_t **buf, uint64_t *bytes,
                       const WeirChapterSource *source, uint64_t max_bytes)
{
    Build b = { .source = source };
    int ret = collect(&b);

    *buf = NULL;
    ret = ret < 0 ? ret : shape(&b, bytes, max_bytes);
    if (ret == 0) {
        b.buf = aligned_alloc(WEIR_LOG_ALIGN_BYTES, *bytes);
        ret = b.buf ? 0 : -ENOMEM;
    }
    if (ret == 0) {
        memset(b.buf, 0, *bytes);
        write_header(&b);
        write_epochs(&b);
        write_disks(&b);
        write_blocks(&b);
        each_key(&b, true);
        le_put(b.buf + 12, crc_without(b.buf, b.head.meta_bytes, 12, ~0u), 4);
        *buf = b.buf;
    }
    free(b.records);
    return ret;
}

/* --- reading --- */

uint32_t weir_chapter_peek(const uint8_t *buf, uint64_t max_bytes)
{
    uint64_t bytes = le_get(buf + 200, 4);

    return !memcmp(buf, magic, sizeof(magic)) && bytes > 0 &&
           bytes <= max_bytes && bytes % WEIR_LOG_ALIGN_BYTES == 0
           ? (uint32_t)bytes : 0;
}

static void read_header(WeirChapterHead *h, const uint8_t *buf)
{
    uint32_t *const counts[] = {
        &h->epochs, &h->disks, &h->lengths, &h->wide, &h->records, &h->blocks,
        &h->names_bytes, &h->filter_bytes, &h->meta_bytes,
    };

    memcpy(h->group, buf + 32, WEIR_LOG_UUID_BYTES);
    h->position = le_get(buf + 48, 8);
    weir_log_commit_read(&h->before, buf + 56);
    weir_log_commit_read(&h->last, buf + 112);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        *counts[i] = (uint32_t)le_get(buf + 168 + 4 * i, 4);
    }
}

/* Whether the parts fill what they should; sums of 32-bit numbers. */
static bool parts_fit(const WeirChapterHead *h, uint64_t max_bytes)
{
    return h->disks <= WEIR_LOG_DISKS_MAX && h->wide <= h->records &&
           h->blocks <= h->records &&
           h->records <= (uint64_t)h->blocks * WEIR_CHAPTER_BLOCK_RECORDS &&
           h->filter_bytes > 0 && h->filter_bytes % FILTER_LINE_BYTES == 0 &&
           meta_bytes(h) == h->meta_bytes &&
           h->meta_bytes + (uint64_t)h->blocks * WEIR_CHAPTER_BLOCK_BYTES <=
           max_bytes;
}

static bool names_fit(const char *names, uint32_t bytes, uint32_t marks)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < bytes; i++) {
        count += names[i] == 0;
    }
    return count == marks && (bytes == 0 || names[bytes - 1] == 0);
}

/* Numbered without gaps, later and further on, all in the segment. */
static bool epochs_fit(const WeirChapterHead *h, const WeirLogSuperblock *sb,
                       const uint8_t *buf)
{
    const char *names = weir_chapter_names(h, buf);
    WeirLogCommit last = h->before;
    uint64_t used = 0;

    for (uint32_t i = 0; i < h->epochs; i++) {
        WeirIndexEpoch e;
        uint64_t generation;
        uint32_t bytes;

        weir_chapter_epoch(h, buf, i, &e, &generation, &bytes);
        if (e.commit.epoch != last.epoch + 1 || e.commit.end <= last.end ||
            e.commit.wall_ns <= last.wall_ns ||
            e.commit.end % WEIR_LOG_ALIGN_BYTES ||
            e.commit.end - 1 < h->position ||
            e.commit.end - 1 - h->position >= sb->segment_bytes ||
            bytes > h->names_bytes - used ||
            !names_fit(names + used, bytes, e.marks)) {
            return false;
        }
        used += bytes;
        last = e.commit;
    }
    return !memcmp(&last, &h->last, sizeof(last)) && used == h->names_bytes;
}

static bool lengths_fit(const WeirChapterHead *h, const uint8_t *buf)
{
    uint64_t epoch = h->before.epoch + 1;

    for (uint32_t i = 0; i < h->lengths; i++) {
        WeirLength l;

        weir_chapter_length(h, buf, i, &l);
        if (l.epoch < epoch || l.epoch > h->last.epoch ||
            l.disk >= WEIR_LOG_DISKS_MAX || l.bytes > WEIR_LOG_RANGE_END_MAX) {
            return false;
        }
        epoch = l.epoch;
    }
    return true;
}

static bool disks_fit(const WeirChapterHead *h, const uint8_t *buf)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < h->disks; i++) {
        WeirChapterDisk disk;
        uint16_t number;

        if (weir_chapter_disk(h, buf, i, &number, &disk) < 0 ||
            number < next || number >= WEIR_LOG_DISKS_MAX) {
            return false;
        }
        next = number + 1u;
    }
    return true;
}

static bool fences_fit(const WeirChapterHead *h, const uint8_t *buf)
{
    const uint8_t *fence = buf + fences_at(h);
    uint64_t records = 0, from = 0, reach = 0, disk = 0;

    for (uint32_t i = 0; i < h->blocks; i++, fence += FENCE_BYTES) {
        uint64_t n = le_get(fence + 22, 2), on = le_get(fence + 20, 2);

        if (on > disk) {
            from = reach = 0;
        }
        if (n == 0 || n > WEIR_CHAPTER_BLOCK_RECORDS || on < disk ||
            on >= WEIR_LOG_DISKS_MAX || le_get(fence, 8) < from ||
            le_get(fence + 8, 8) < reach) {
            return false;
        }
        records += n;
        disk = on;
        from = le_get(fence, 8);
        reach = le_get(fence + 8, 8);
    }
    return records == h->records;
}

static const char *what_is_wrong(WeirChapterHead *h,
                                 const WeirLogSuperblock *sb,
                                 const uint8_t *buf, uint64_t max_bytes)
{
    read_header(h, buf);
    if (le_get(buf + 8, 4) != VERSION || le_get(buf + 16, 8)) {
        return "version or features";
    }
    return memcmp(h->group, sb->group, WEIR_LOG_UUID_BYTES) ? "group" :
           h->position % sb->segment_bytes ? "position" :
           !weir_is_zero(buf + HEADER_USED, HEADER_BYTES - HEADER_USED)
           ? "header" :
           !parts_fit(h, max_bytes) ? "lengths of its parts" :
           !epochs_fit(h, sb, buf) ? "epochs" :
           !lengths_fit(h, buf) ? "lengths of disks" :
           !disks_fit(h, buf) ? "disks" :
           !fences_fit(h, buf) ? "blocks" : NULL;
}

int weir_chapter_read(WeirChapterHead *h, const WeirLogSuperblock *sb,
                      const uint8_t *buf, uint64_t max_bytes,
                      const char **why)
{
    uint32_t bytes = weir_chapter_peek(buf, max_bytes);

    if (bytes == 0 ||
        le_get(buf + 12, 4) != crc_without(buf, bytes, 12, ~0u)) {
        *why = "checksum";
        return -EINVAL;
    }
    *why = what_is_wrong(h, sb, buf, max_bytes);
    return *why ? -EINVAL : 0;
}

void weir_chapter_epoch(const WeirChapterHead *h, const uint8_t *buf,
                        uint32_t i, WeirIndexEpoch *epoch,
                        uint64_t *generation, uint32_t *names_bytes)
{
    const uint8_t *at = buf + epochs_at() + (uint64_t)i * EPOCH_BYTES;
    uint64_t flags = le_get(at + 84, 4);

    (void)h;
    memset(epoch, 0, sizeof(*epoch));
    weir_log_commit_read(&epoch->commit, at);
    *generation = le_get(at + 56, 8);
    epoch->data_bytes = le_get(at + 64, 8);
    epoch->count = (uint32_t)le_get(at + 72, 4);
    epoch->marks = (uint32_t)le_get(at + 76, 4);
    *names_bytes = (uint32_t)le_get(at + 80, 4);
    epoch->consistent = flags & FLAG_CONSISTENT;
    epoch->application_consistent = flags & FLAG_APPLICATION;
}

const char *weir_chapter_names(const WeirChapterHead *h, const uint8_t *buf)
{
    return (const char *)buf + names_at(h);
}

void weir_chapter_length(const WeirChapterHead *h, const uint8_t *buf,
                         uint32_t i, WeirLength *length)
{
    const uint8_t *at = buf + lengths_at(h) + (uint64_t)i * LENGTH_BYTES;

    *length = (WeirLength) { le_get(at, 8), le_get(at + 8, 8),
                             (uint16_t)le_get(at + 16, 2) };
}

int weir_chapter_disk(const WeirChapterHead *h, const uint8_t *buf, uint32_t i,
                      uint16_t *number, WeirChapterDisk *disk)
{
    const uint8_t *at = buf + disks_at(h) + (uint64_t)i * DISK_BYTES;

    *number = (uint16_t)le_get(at + 88, 2);
    disk->known = true;
    disk->bytes = le_get(at + 80, 8);
    return weir_log_disk_read(&disk->what, at);
}

/* --- finding --- */

int weir_chapter_finder(WeirChapterFinder *f, const WeirChapterHead *h,
                        const uint8_t *buf)
{
    uint64_t fixed = names_at(h) - kept_at(h);

    *f = (WeirChapterFinder) {
        .begin = h->before.end, .wide = h->wide, .blocks = h->blocks,
        .filter_bytes = h->filter_bytes,
        .kept = malloc(fixed + h->filter_bytes),
    };
    if (!f->kept) {
        return -ENOMEM;
    }
    memcpy(f->kept, buf + kept_at(h), fixed);
    memcpy(f->kept + fixed, buf + filter_at(h), h->filter_bytes);
    return 0;
}

static const uint8_t *fence_of(const WeirChapterFinder *f, uint32_t block)
{
    return f->kept + (uint64_t)f->wide * RECORD_BYTES +
           (uint64_t)block * FENCE_BYTES;
}

uint64_t weir_chapter_finder_bytes(const WeirChapterFinder *f)
{
    return (uint64_t)f->wide * RECORD_BYTES +
           (uint64_t)f->blocks * FENCE_BYTES + f->filter_bytes;
}

bool weir_chapter_may_have(const WeirChapterFinder *f, uint16_t disk,
                           uint64_t granule)
{
    return filter_has(fence_of(f, f->blocks), f->filter_bytes,
                      hash(disk, granule));
}

/* The first block from `low` on that is of a later disk, or of this one and
   begins, or reaches, not before an offset; at: of that in a fence. */
static uint32_t search(const WeirChapterFinder *f, uint16_t disk, int at,
                       uint64_t offset)
{
    uint32_t low = 0, high = f->blocks;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const uint8_t *fence = fence_of(f, middle);
        uint64_t on = le_get(fence + 20, 2);

        if (on < disk || (on == disk && le_get(fence + at, 8) < offset)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void weir_chapter_blocks(const WeirChapterFinder *f, uint16_t disk,
                         uint64_t from, uint64_t to, uint32_t *first,
                         uint32_t *end)
{
    *first = search(f, disk, 8, from + 1);
    *end = search(f, disk, 0, to);
}

uint32_t weir_chapter_block_crc(const WeirChapterFinder *f, uint32_t block)
{
    return (uint32_t)le_get(fence_of(f, block) + 16, 4);
}

uint32_t weir_chapter_block_records(const WeirChapterFinder *f, uint32_t block)
{
    return (uint32_t)le_get(fence_of(f, block) + 22, 2);
}

int weir_chapter_record(WeirChapterRecord *out, const WeirChapterFinder *f,
                        const uint8_t *block, uint32_t i)
{
    return read_record(out, block + i * RECORD_BYTES, f->begin);
}

int weir_chapter_wide(WeirChapterRecord *out, const WeirChapterFinder *f,
                      uint32_t i)
{
    return read_record(out, f->kept + (uint64_t)i * RECORD_BYTES, f->begin);
}

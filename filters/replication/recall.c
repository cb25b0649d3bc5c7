/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chapters of a log that is kept: which there are, and their records, read when
 * they are needed. A block that is damaged has its chapter read from the log
 * itself again.
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "replication/scan.h"

#define MEMORY_DEFAULT (UINT64_C(64) << 20)
#define MEMORY_DEFAULT_UNINDEXED (UINT64_C(1) << 30)
#define READ_BLOCKS 256                 /* at once */
#define ROOM_AT_FIRST 64

/* --- memory --- */

uint64_t weir_keeper_memory(const WeirKeeper *k)
{
    return k->index.bytes + k->chapter_bytes;
}

/* With large segments more is in memory until they are full. */
uint64_t weir_keeper_memory_max(const WeirKeeper *k)
{
    uint64_t most = k->sb.segment_bytes / 8;

    most = most > MEMORY_DEFAULT ? most : MEMORY_DEFAULT;
    return k->config.index_bytes_max ? k->config.index_bytes_max :
           k->sb.chapter_bytes ? most : MEMORY_DEFAULT_UNINDEXED;
}

static uint64_t memory_of(const Chapter *c)
{
    return sizeof(*c) + sizeof(c) + weir_chapter_finder_bytes(&c->finder) +
           c->image_bytes + c->rebuilt_count * sizeof(*c->rebuilt);
}

/* --- which there are --- */

uint64_t weir_keeper_unsealed(const WeirKeeper *k)
{
    uint64_t last = k->chapter_count > 0
                    ? k->chapters[k->chapter_count - 1]->last : 0;

    return (last > k->sb.anchor.epoch ? last : k->sb.anchor.epoch) + 1;
}

static void free_chapter(Chapter *c)
{
    free(c->finder.kept);
    free(c->image);
    free(c->rebuilt);
    free(c);
}

static int make_room(WeirKeeper *k)
{
    size_t room = k->chapter_room ? k->chapter_room * 2 : ROOM_AT_FIRST;
    Chapter **more;

    if (k->chapter_count < k->chapter_room) {
        return 0;
    }
    more = realloc(k->chapters, room * sizeof(*more));
    if (!more) {
        return -ENOMEM;
    }
    k->chapters = more;
    k->chapter_room = room;
    return 0;
}

int weir_keeper_add_chapter(WeirKeeper *k, const WeirChapterHead *h,
                            const uint8_t *meta, uint8_t *image)
{
    Chapter *c = calloc(1, sizeof(*c));

    if (!c || make_room(k) < 0 ||
        weir_chapter_finder(&c->finder, h, meta) < 0) {
        free(c);
        return -ENOMEM;
    }
    c->serial = ++k->chapters_made;
    c->position = h->position;
    c->before = h->before;
    c->first = h->before.epoch + 1;
    c->last = h->last.epoch;
    c->end = h->last.end;
    c->records = h->records;
    c->image = image;
    c->blocks_in_image = h->meta_bytes;
    c->image_bytes = image ? h->meta_bytes +
                             h->blocks * WEIR_CHAPTER_BLOCK_BYTES : 0;
    c->blocks_at = weir_log_chapter_offset(&k->sb, h->position) +
                   h->meta_bytes;
    c->refs = 1;
    k->chapters[k->chapter_count++] = c;
    k->chapter_bytes += memory_of(c);
    return 0;
}

void weir_chapter_unref(WeirKeeper *k, Chapter *c)
{
    if (--c->refs == 0) {
        k->chapter_bytes -= memory_of(c);
        free_chapter(c);
    }
}

static void drop(WeirKeeper *k, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++) {
        k->chapters[i]->dropped = true;
        weir_chapter_unref(k, k->chapters[i]);
    }
    k->chapter_count -= n;
    if (k->chapter_count > from) {
        memmove(k->chapters + from, k->chapters + from + n,
                (k->chapter_count - from) * sizeof(*k->chapters));
    }
}

void weir_keeper_drop_chapters_to(WeirKeeper *k, uint64_t epoch)
{
    size_t n = 0;

    while (n < k->chapter_count && k->chapters[n]->last <= epoch) {
        n++;
    }
    drop(k, 0, n);
}

/* One that the end is in keeps its blocks; what is behind does not count. */
void weir_keeper_drop_chapters_behind(WeirKeeper *k, const WeirLogCommit *end)
{
    size_t n = k->chapter_count;
    Chapter *c;

    while (n > 0 && k->chapters[n - 1]->first > end->epoch) {
        n--;
    }
    drop(k, n, k->chapter_count - n);
    c = n > 0 ? k->chapters[n - 1] : NULL;
    if (c && c->last > end->epoch && !WITHOUT_RULE(39)) {
        c->last = end->epoch;
        c->end = end->end;
    }
}

void weir_keeper_free_chapters(WeirKeeper *k)
{
    drop(k, 0, k->chapter_count);
    free(k->chapters);
    for (size_t i = 0; i < BLOCKS_KEPT; i++) {
        free(k->kept[i].data);
    }
}

/* --- blocks --- */

static KeptBlock *place_of(WeirKeeper *k, const Chapter *c, uint32_t block)
{
    uint64_t h = (c->serial << 20 ^ block) * UINT64_C(0x9e3779b97f4a7c15);

    return &k->kept[(h >> 32) % BLOCKS_KEPT];
}

static bool find_block(WeirKeeper *k, const Chapter *c, uint32_t block,
                       uint8_t *buf)
{
    const KeptBlock *kept;
    bool found;

    weir_keeper_lock(k);
    kept = place_of(k, c, block);
    found = kept->data && kept->serial == c->serial && kept->block == block;
    if (found) {
        memcpy(buf, kept->data, WEIR_CHAPTER_BLOCK_BYTES);
    }
    weir_keeper_unlock(k);
    return found;
}

static void keep_block(WeirKeeper *k, const Chapter *c, uint32_t block,
                       const uint8_t *buf)
{
    KeptBlock *kept;

    weir_keeper_lock(k);
    kept = place_of(k, c, block);
    if (!kept->data) {
        kept->data = malloc(WEIR_CHAPTER_BLOCK_BYTES);
        k->chapter_bytes += kept->data ? WEIR_CHAPTER_BLOCK_BYTES : 0;
    }
    if (kept->data) {
        kept->serial = c->serial;
        kept->block = block;
        memcpy(kept->data, buf, WEIR_CHAPTER_BLOCK_BYTES);
    }
    weir_keeper_unlock(k);
}

/* -EBADMSG: one of them is damaged. */
static int read_blocks(WeirKeeper *k, const Chapter *c, uint32_t first,
                       uint32_t n, uint8_t *buf)
{
    uint64_t at = (uint64_t)first * WEIR_CHAPTER_BLOCK_BYTES;
    uint64_t bytes = (uint64_t)n * WEIR_CHAPTER_BLOCK_BYTES;
    int ret = 0;

    if (c->image) {
        memcpy(buf, c->image + c->blocks_in_image + at, bytes);
        return 0;
    }
    ret = k->host->read_log(k->host->opaque, c->blocks_at + at, bytes, buf);
    for (uint32_t i = 0; i < n && ret == 0 && !WITHOUT_RULE(38); i++) {
        if (weir_crc32c(~0u, buf + (uint64_t)i * WEIR_CHAPTER_BLOCK_BYTES,
                        WEIR_CHAPTER_BLOCK_BYTES) !=
            weir_chapter_block_crc(&c->finder, first + i)) {
            ret = -EBADMSG;
        }
    }
    return ret;
}

/* --- records --- */

static int add(Recalled *out, const WeirChapterRecord *r)
{
    if (out->count == out->room) {
        size_t room = out->room ? out->room * 2 : ROOM_AT_FIRST;
        WeirChapterRecord *more = realloc(out->records, room * sizeof(*more));

        if (!more) {
            return -ENOMEM;
        }
        out->records = more;
        out->room = room;
    }
    out->records[out->count++] = *r;
    return 0;
}

typedef struct Wanted {
    int disk;                   /* less than 0: all */
    uint64_t from, to;
} Wanted;

static bool is_wanted(const Wanted *w, const WeirChapterRecord *r)
{
    return w->disk < 0 || (r->record.disk == w->disk && r->from < w->to &&
                           r->from + r->bytes > w->from);
}

/* wide: those have been added. */
static int add_block(const Chapter *c, uint32_t block, const uint8_t *buf,
                     const Wanted *w, bool wide, Recalled *out)
{
    uint32_t n = weir_chapter_block_records(&c->finder, block);
    int ret = 0;

    for (uint32_t i = 0; i < n && ret == 0; i++) {
        WeirChapterRecord r;

        if (weir_chapter_record(&r, &c->finder, buf, i) < 0) {
            return -EBADMSG;
        }
        if (is_wanted(w, &r) &&
            !(wide && r.bytes > WEIR_CHAPTER_WIDE_BYTES)) {
            ret = add(out, &r);
        }
    }
    return ret;
}

static int compare_order(const void *a, const void *b)
{
    const WeirChapterRecord *x = a, *y = b;

    return x->order < y->order ? -1 : x->order > y->order;
}

static int recall_all(WeirKeeper *k, const Chapter *c, Recalled *out)
{
    const Wanted all = { -1, 0, 0 };
    size_t before = out->count;
    uint8_t *buf = aligned_alloc(WEIR_LOG_ALIGN_BYTES, READ_BLOCKS *
                                 WEIR_CHAPTER_BLOCK_BYTES);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < c->finder.blocks && ret == 0; i += READ_BLOCKS) {
        uint32_t n = c->finder.blocks - i < READ_BLOCKS ? c->finder.blocks - i
                                                        : READ_BLOCKS;

        ret = read_blocks(k, c, i, n, buf);
        for (uint32_t j = 0; j < n && ret == 0; j++) {
            ret = add_block(c, i + j,
                            buf + (uint64_t)j * WEIR_CHAPTER_BLOCK_BYTES, &all,
                            false, out);
        }
    }
    free(buf);
    if (out->count > before) {
        qsort(out->records + before, out->count - before,
              sizeof(*out->records), compare_order);
    }
    return ret;
}

static int recall_wide(const Chapter *c, const Wanted *w, Recalled *out)
{
    int ret = 0;

    for (uint32_t i = 0; i < c->finder.wide && ret == 0; i++) {
        WeirChapterRecord r;

        ret = weir_chapter_wide(&r, &c->finder, i);
        if (ret == 0 && is_wanted(w, &r)) {
            ret = add(out, &r);
        }
    }
    return ret == -EINVAL ? -EBADMSG : ret;
}

static bool may_have(const Chapter *c, const Wanted *w)
{
    uint64_t end = (w->to - 1) / WEIR_CHAPTER_GRANULE_BYTES;

    for (uint64_t g = w->from / WEIR_CHAPTER_GRANULE_BYTES; g <= end; g++) {
        if (weir_chapter_may_have(&c->finder, (uint16_t)w->disk, g)) {
            return true;
        }
    }
    return false;
}

static int recall_some(WeirKeeper *k, const Chapter *c, const Wanted *w,
                       Recalled *out)
{
    uint32_t block = 0, end = 0;
    uint8_t *buf;
    int ret = recall_wide(c, w, out);

    if (ret < 0 || !may_have(c, w)) {
        return ret;
    }
    weir_chapter_blocks(&c->finder, (uint16_t)w->disk, w->from, w->to, &block,
                        &end);
    buf = aligned_alloc(WEIR_LOG_ALIGN_BYTES, WEIR_CHAPTER_BLOCK_BYTES);
    ret = buf ? 0 : -ENOMEM;
    for (; block < end && ret == 0; block++) {
        if (c->image || !find_block(k, c, block, buf)) {
            ret = read_blocks(k, c, block, 1, buf);
            if (ret == 0 && !c->image) {
                keep_block(k, c, block, buf);
            }
        }
        ret = ret < 0 ? ret : add_block(c, block, buf, w, true, out);
    }
    free(buf);
    return ret;
}

/* --- from the log itself --- */

/* All that reading a chapter from the log takes. */
typedef struct Rebuild {
    WeirLogSuperblock sb;
    WeirLogCommit from, to;
    uint64_t bytes[WEIR_LOG_DISKS_MAX];
    LogRead hold;
    Recalled records;
} Rebuild;

/* What is in the bases is not needed, and may be in the log no more. */
static bool rebuild_begin(WeirKeeper *k, Chapter *c, Rebuild *b)
{
    bool begins, ok;

    weir_keeper_lock(k);
    begins = c->before.epoch >= k->sb.anchor.epoch;
    ok = !c->dropped;
    if (ok) {
        memset(b, 0, sizeof(*b));
        b->sb = k->sb;
        b->from = begins ? c->before : k->sb.anchor;
        b->to = weir_keeper_commit_of(k, c->last);
        for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
            b->bytes[i] = k->applied_disks[i].known
                          ? k->applied_disks[i].bytes : 0;
            weir_index_length(&k->index, i, b->from.epoch, &b->bytes[i]);
        }
        weir_keeper_hold(k, &b->hold, b->from.end);
    }
    weir_keeper_unlock(k);
    return ok;
}

static int rebuild_packet(Rebuild *b, const WeirLogScan *scan)
{
    uint64_t position = scan->packet.position + scan->packet.head_bytes;
    int ret = 0;

    for (uint32_t i = 0; i < scan->packet.records && ret == 0; i++) {
        WeirChapterRecord out;
        WeirLogRecord r;
        WeirIndexRecord record;

        weir_log_record_read(&r, scan->buf, i);
        record = weir_index_record(&r, position);
        position += weir_log_data_room(weir_log_data_bytes(&r));
        if (!weir_log_is_remark(r.op) &&
            weir_chapter_record_of(&out, &record, (uint32_t)b->records.count,
                                   &b->bytes[r.disk])) {
            ret = add(&b->records, &out);
        }
    }
    return ret;
}

static int rebuild_read(WeirKeeper *k, Rebuild *b)
{
    WeirLogScan scan;
    int ret = weir_log_scan_init(&scan, k->host->read_log, k->host->opaque,
                                 &b->sb, &b->from);

    while (ret >= 0 && scan.cursor.commit.epoch < b->to.epoch) {
        ret = weir_log_scan_next(&scan);
        ret = ret < 0 ? ret : rebuild_packet(b, &scan);
    }
    if (ret >= 0 && memcmp(&scan.cursor.commit, &b->to, sizeof(b->to))) {
        ret = -ENODATA;
    }
    weir_log_scan_destroy(&scan);
    return ret == -ENODATA ? -EBADMSG : ret < 0 ? ret : 0;
}

static int rebuild(WeirKeeper *k, Chapter *c)
{
    Rebuild *b = malloc(sizeof(*b));
    int ret = b ? 0 : -ENOMEM;

    if (!b) {
        return ret;
    }
    if (!rebuild_begin(k, c, b)) {
        free(b);
        return -ESTALE;
    }
    ret = rebuild_read(k, b);
    weir_keeper_lock(k);
    weir_keeper_release(k, &b->hold);
    if (ret == 0 && !c->rebuilt) {
        c->rebuilt = b->records.records;
        c->rebuilt_count = b->records.count;
        k->chapter_bytes += c->rebuilt_count * sizeof(*c->rebuilt);
        k->chapters_rebuilt++;
        b->records.records = NULL;
    } else if (ret < 0 && c->dropped) {
        ret = -ESTALE;
    }
    weir_keeper_unlock(k);
    free(b->records.records);
    free(b);
    return ret;
}

static int recall_rebuilt(const Chapter *c, const Wanted *w, Recalled *out)
{
    int ret = 0;

    for (size_t i = 0; i < c->rebuilt_count && ret == 0; i++) {
        if (is_wanted(w, &c->rebuilt[i])) {
            ret = add(out, &c->rebuilt[i]);
        }
    }
    return ret;
}

static bool is_rebuilt(WeirKeeper *k, const Chapter *c)
{
    bool so;

    weir_keeper_lock(k);
    so = c->rebuilt;
    weir_keeper_unlock(k);
    return so;
}

int weir_keeper_recall(WeirKeeper *k, Chapter *c, int disk, uint64_t from,
                       uint64_t to, Recalled *out)
{
    const Wanted w = { disk, from, to };
    size_t before = out->count;
    int ret = -EBADMSG;

    if (!is_rebuilt(k, c)) {
        ret = disk < 0 ? recall_all(k, c, out) : recall_some(k, c, &w, out);
        if (ret != -EBADMSG) {
            return ret;
        }
        out->count = before;
        ret = rebuild(k, c);
        if (ret < 0) {
            return ret;
        }
    }
    return recall_rebuilt(c, &w, out);
}

/* --- at opening --- */

#define SEGMENTS_AHEAD 8                /* an epoch may be longer than one */

static uint64_t segment_of(const WeirKeeper *k, const WeirLogCommit *commit)
{
    return commit->end > 0 ? (commit->end - 1) / k->sb.segment_bytes : 0;
}

static int read_slot(WeirKeeper *k, uint64_t position, uint64_t at,
                     uint64_t bytes, uint8_t *buf)
{
    return k->host->read_log(k->host->opaque,
                             weir_log_chapter_offset(&k->sb, position) + at,
                             bytes, buf);
}

/* *buf: of the first part of what is there; NULL: it is no chapter. */
static int read_meta(WeirKeeper *k, uint64_t position, uint8_t **buf)
{
    uint8_t *first = aligned_alloc(WEIR_LOG_ALIGN_BYTES, WEIR_LOG_ALIGN_BYTES);
    uint8_t *all = NULL;
    uint32_t bytes;
    int ret = first ? read_slot(k, position, 0, WEIR_LOG_ALIGN_BYTES, first)
                    : -ENOMEM;

    *buf = NULL;
    bytes = ret < 0 ? 0 : weir_chapter_peek(first, k->sb.chapter_bytes);
    if (bytes > 0) {
        all = aligned_alloc(WEIR_LOG_ALIGN_BYTES, bytes);
        ret = all ? 0 : -ENOMEM;
    }
    if (all) {
        memcpy(all, first, WEIR_LOG_ALIGN_BYTES);
        ret = bytes > WEIR_LOG_ALIGN_BYTES
              ? read_slot(k, position, WEIR_LOG_ALIGN_BYTES,
                          bytes - WEIR_LOG_ALIGN_BYTES,
                          all + WEIR_LOG_ALIGN_BYTES) : 0;
    }
    free(first);
    if (ret < 0) {
        free(all);
        return ret;
    }
    *buf = all;
    return 0;
}

/* It has the last epoch that is known, or goes on behind it. */
static bool fits(const WeirKeeper *k, const WeirChapterHead *h,
                 const uint8_t *buf)
{
    WeirIndexEpoch e = { .commit = h->before };
    uint64_t generation;
    uint32_t names;

    if (h->last.epoch <= k->valid.epoch ||
        h->last.end - k->sb.tail > weir_log_ring_bytes(&k->sb) ||
        (h->before.epoch != k->valid.epoch &&
         (h->before.epoch > k->valid.epoch ||
          k->valid.epoch != k->sb.anchor.epoch))) {
        return false;
    }
    if (h->before.epoch < k->valid.epoch) {
        weir_chapter_epoch(h, buf, (uint32_t)(k->valid.epoch -
                                              h->before.epoch - 1), &e,
                           &generation, &names);
    }
    return !memcmp(&e.commit, &k->valid, sizeof(k->valid));
}

/* Epochs of a generation that has ended before them do not count. */
static bool generations_fit(const WeirKeeper *k, const WeirChapterHead *h,
                            const uint8_t *buf)
{
    for (uint32_t i = 0; i < h->epochs && !WITHOUT_RULE(37); i++) {
        WeirIndexEpoch e;
        uint64_t generation;
        uint32_t names;

        weir_chapter_epoch(h, buf, i, &e, &generation, &names);
        if (e.commit.epoch > k->valid.epoch &&
            generation != weir_log_generation_of(&k->sb, e.commit.epoch)) {
            return false;
        }
    }
    return true;
}

static bool disks_fit(const WeirKeeper *k, const WeirChapterHead *h,
                      const uint8_t *buf)
{
    for (uint32_t i = 0; i < h->disks; i++) {
        WeirChapterDisk disk;
        uint16_t n;

        if (weir_chapter_disk(h, buf, i, &n, &disk) < 0 ||
            (k->disks[n].known && memcmp(&k->disks[n].what, &disk.what,
                                         sizeof(disk.what)))) {
            return false;
        }
    }
    return true;
}

static int take_epochs(WeirKeeper *k, const WeirChapterHead *h,
                       const uint8_t *buf)
{
    const char *names = weir_chapter_names(h, buf);
    int ret = weir_index_reserve(&k->index, h->lengths);

    for (uint32_t i = 0; i < h->epochs && ret == 0; i++) {
        WeirIndexEpoch e;
        uint64_t generation;
        uint32_t bytes;

        weir_chapter_epoch(h, buf, i, &e, &generation, &bytes);
        names += bytes;
        if (e.commit.epoch <= k->valid.epoch) {
            continue;
        }
        e.names = bytes > 0 ? malloc(bytes) : NULL;
        e.names_bytes = bytes;
        if (bytes > 0 && e.names) {
            memcpy(e.names, names - bytes, bytes);
        }
        ret = bytes > 0 && !e.names ? -ENOMEM
                                    : weir_index_reserve(&k->index, 1);
        if (ret < 0) {
            free(e.names);
        } else {
            weir_index_add(&k->index, &e);
        }
    }
    return ret;
}

static int take_chapter(WeirKeeper *k, const WeirChapterHead *h,
                        const uint8_t *buf)
{
    int ret = take_epochs(k, h, buf);

    for (uint32_t i = 0; i < h->lengths && ret == 0; i++) {
        WeirLength l;

        weir_chapter_length(h, buf, i, &l);
        ret = weir_index_reserve(&k->index, 1);
        if (ret == 0 && l.epoch > k->valid.epoch) {
            weir_index_add_length(&k->index, &l);
        }
    }
    for (uint32_t i = 0; i < h->disks && ret == 0; i++) {
        WeirChapterDisk disk;
        uint16_t n;

        weir_chapter_disk(h, buf, i, &n, &disk);
        k->disks[n] = disk;
    }
    ret = ret < 0 ? ret : weir_keeper_add_chapter(k, h, buf, NULL);
    if (ret == 0) {
        k->valid = h->last;
        memcpy(k->arriving, k->disks, sizeof(k->arriving));
    }
    return ret;
}

/* Returns 1: it was taken; 0: there is none that fits. */
static int try_chapter(WeirKeeper *k, uint64_t position)
{
    WeirChapterHead h;
    const char *why;
    uint8_t *buf;
    int ret = read_meta(k, position, &buf);

    if (ret < 0 || !buf) {
        return ret;
    }
    if (weir_chapter_read(&h, &k->sb, buf, k->sb.chapter_bytes, &why) < 0 ||
        h.position != position || !fits(k, &h, buf) ||
        !generations_fit(k, &h, buf) || !disks_fit(k, &h, buf)) {
        free(buf);
        return 0;
    }
    ret = take_chapter(k, &h, buf);
    free(buf);
    return ret < 0 ? ret : 1;
}

int weir_keeper_take_chapters(WeirKeeper *k)
{
    uint64_t segment = segment_of(k, &k->valid), ahead = 0;
    int taken = 0;

    while (k->sb.chapter_bytes > 0 && ahead <= SEGMENTS_AHEAD) {
        uint64_t position = (segment + ahead) * k->sb.segment_bytes;
        int ret = position - k->sb.tail < weir_log_ring_bytes(&k->sb)
                  ? try_chapter(k, position) : 0;

        if (ret < 0) {
            return ret;
        }
        taken += ret;
        segment += ret ? ahead : 0;
        ahead = ret ? 1 : ahead + 1;
    }
    return taken;
}

int weir_keeper_chapter_follows(WeirKeeper *k, NextChapter *next)
{
    uint64_t position = (segment_of(k, &k->valid) + 1) * k->sb.segment_bytes;
    WeirLogCommit before;
    int ret = 0;

    if (k->sb.chapter_bytes == 0 ||
        position - k->sb.tail >= weir_log_ring_bytes(&k->sb)) {
        return 0;
    }
    if (next->position != position) {
        next->position = position;
        ret = read_slot(k, position, 0, sizeof(next->first), next->first);
    }
    if (ret < 0) {
        return ret;
    }
    weir_log_commit_read(&before, next->first + WEIR_CHAPTER_BEFORE_AT);
    return !memcmp(&before, &k->valid, sizeof(before));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Old epochs go to the base images, from one point in time to another:
 *
 *   choose -> copy its records -> read and check all of it
 *          -> superblock: points before it are gone
 *          -> write the bases, newest record wins -> flush them
 *          -> superblock: it is the anchor, space before it is free
 *
 * A crash anywhere in between has all of it done again. A batch with much data
 * is done in parts, of which each goes to the bases in one sweep.
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_BYTES (UINT64_C(32) << 20)
#define WRITE_BYTES (UINT64_C(1) << 20)
#define READ_BYTES (UINT64_C(2) << 20)
#define GAP_BYTES (UINT64_C(64) << 10)  /* read rather than left out */
#define RETRY_NS UINT64_C(5000000000)
#define LOOK_AGAIN_NS UINT64_C(60000000000)

typedef struct Batch {
    WeirKeeper *k;
    WeirLogCommit commit;
    bool consistent, application_consistent;
    uint64_t from;              /* position of the anchor's end */
    Chapter **chapters;         /* that have records of it, with a reference */
    size_t chapter_count;
    WeirIndexRecord *tail;      /* those that are in no chapter */
    size_t tail_count;
    WeirIndexRecord *records;
    size_t count, room;
    KnownDisk disks[WEIR_LOG_DISKS_MAX];        /* at the anchor */
    KnownDisk after[WEIR_LOG_DISKS_MAX];
    uint64_t most[WEIR_LOG_DISKS_MAX];  /* length that is needed */
    bool touched[WEIR_LOG_DISKS_MAX];
    Base *bases[WEIR_LOG_DISKS_MAX];
    char message[WEIR_KEEPER_MESSAGE_BYTES];
} Batch;

/* Some records of a batch, with their data. */
typedef struct Part {
    size_t first, count;
    WeirMap maps[WEIR_LOG_DISKS_MAX];
    const uint8_t **data;       /* of each record; NULL: not needed */
    uint8_t **runs;             /* what was read, and what became of that */
    size_t n_runs;
} Part;

/* --- choosing --- */

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The beginning of the log should be behind this, for room; 0: anywhere. */
static uint64_t wished_tail(const WeirKeeper *k)
{
    uint64_t segment = k->sb.segment_bytes, ring = k->ring_bytes;
    uint64_t retain = k->config.retain_bytes ? k->config.retain_bytes
                                             : ring / 4 * 3;
    uint64_t end = k->cursor.position > k->valid.end ? k->cursor.position
                                                     : k->valid.end;
    uint64_t wished = 0;

    if (end - k->sb.tail > retain) {
        wished = (end - retain + segment - 1) / segment * segment;
    }
    if (weir_keeper_memory(k) > weir_keeper_memory_max(k) / 4 * 3 &&
        wished < k->sb.anchor.end) {
        wished = k->sb.anchor.end;
    }
    return wished;
}

static bool is_old(const WeirKeeper *k, const WeirIndexEpoch *e)
{
    return add(e->commit.wall_ns, k->config.retain_ns) <=
           k->tasks->wall_ns(k->tasks->opaque);
}

/* Nothing can be offered: then there is nothing to protect either. */
static bool is_first_copy(WeirKeeper *k)
{
    return weir_keeper_last_point(k) == 0;
}

static uint64_t limit(const WeirKeeper *k)
{
    uint64_t last = k->durable.epoch, pinned = weir_keeper_pinned(k);

    if (WITHOUT_RULE(30)) {
        last = k->valid.epoch;
    }
    if (!WITHOUT_RULE(27)) {
        last = pinned < last ? pinned : last;
    }
    return k->ceiling < last ? k->ceiling : last;
}

/* The next epoch to be at, 0: none is due. */
static uint64_t choose(WeirKeeper *k, uint64_t wished)
{
    bool any = is_first_copy(k) || WITHOUT_RULE(28);
    uint64_t best = 0, bytes = 0, end = k->sb.anchor.end;

    for (uint64_t n = k->sb.anchor.epoch + 1; n <= limit(k); n++) {
        const WeirIndexEpoch *e = weir_index_get(&k->index, n);

        bytes += e->data_bytes;
        if (best > 0 && bytes > BATCH_BYTES) {
            break;
        }
        /* where a crash has begun, it has to end */
        if ((!e->consistent && !any) || n < k->horizon) {
            continue;
        }
        if (!is_old(k, e) && n > k->target && end > wished) {
            break;
        }
        best = n;
        end = e->commit.end;
    }
    return best;
}

/* Why nothing is applied, though there is no room for more. */
static WeirKeeperApply why_not(WeirKeeper *k, uint64_t wished)
{
    bool wanted = k->sb.anchor.end <= wished || k->target > k->sb.anchor.epoch;

    if (k->base_count == 0) {
        return WEIR_KEEPER_NO_BASE;
    }
    if (!wanted || k->valid.epoch == k->sb.anchor.epoch) {
        return WEIR_KEEPER_IDLE;
    }
    return weir_keeper_pinned(k) < weir_keeper_last_point(k)
           ? WEIR_KEEPER_HELD_BY_VIEW : WEIR_KEEPER_HELD_BY_RESYNC;
}

static void set_state(WeirKeeper *k, WeirKeeperApply apply, int error,
                      const char *message)
{
    bool same = k->apply == apply && k->apply_error == error;

    k->apply = apply;
    k->apply_error = error;
    snprintf(k->apply_message, sizeof(k->apply_message), "%s", message);
    if (!same && k->host->changed) {
        k->host->changed(k->host->opaque);
    }
}

/* --- a batch --- */

/* The lock is held. */
static void batch_destroy(Batch *b)
{
    for (size_t i = 0; i < b->chapter_count; i++) {
        weir_chapter_unref(b->k, b->chapters[i]);
    }
    free(b->chapters);
    free(b->tail);
    free(b->records);
    memset(b, 0, offsetof(Batch, message));
}

static int fail(Batch *b, const Base *base, const char *what, int ret)
{
    snprintf(b->message, sizeof(b->message), "the base image of disk '%s' "
             "cannot be %s: %s", base->disk, what, strerror(-ret));
    return ret;
}

static void follow(Batch *b, const WeirIndexRecord *r)
{
    uint64_t end = r->op == WEIR_LOG_RESIZE || r->op == WEIR_LOG_DISK
                   ? r->bytes : r->offset + r->bytes;

    if (r->op == WEIR_LOG_RESIZE || r->op == WEIR_LOG_DISK) {
        b->after[r->disk].bytes = r->bytes;
    }
    b->most[r->disk] = end > b->most[r->disk] ? end : b->most[r->disk];
    b->touched[r->disk] = true;
}

/* Disks that are new come first: nothing of them is before that. */
static void copy_disks(Batch *b)
{
    const WeirIndex *index = &b->k->index;

    for (size_t i = index->lengths_first; i < index->lengths_end; i++) {
        const WeirLength *l = &index->lengths[i];

        if (l->epoch <= b->commit.epoch && !b->disks[l->disk].known &&
            !b->touched[l->disk]) {
            b->records[b->count] = (WeirIndexRecord) {
                .bytes = l->bytes, .disk = (uint8_t)l->disk,
                .op = WEIR_LOG_DISK };
            follow(b, &b->records[b->count++]);
        }
    }
}

static int copy_chapters(Batch *b)
{
    WeirKeeper *k = b->k;

    b->chapters = malloc((k->chapter_count + 1) * sizeof(*b->chapters));
    if (!b->chapters) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < k->chapter_count; i++) {
        Chapter *c = k->chapters[i];

        if (c->first <= b->commit.epoch) {
            c->refs++;
            b->chapters[b->chapter_count++] = c;
        }
    }
    return 0;
}

/* From behind the anchor up to the batch's end, in memory or chapters. */
static size_t count_records(const Batch *b)
{
    WeirKeeper *k = b->k;
    size_t n = WEIR_LOG_DISKS_MAX;

    for (uint64_t i = k->sb.anchor.epoch + 1; i <= b->commit.epoch; i++) {
        n += weir_index_get(&k->index, i)->count;
    }
    return n;
}

static void copy_tail(Batch *b)
{
    WeirKeeper *k = b->k;

    for (uint64_t n = weir_keeper_unsealed(k); n <= b->commit.epoch; n++) {
        const WeirIndexEpoch *e = weir_index_get(&k->index, n);

        for (uint32_t i = 0; i < e->count; i++) {
            b->tail[b->tail_count++] = e->records[i];
        }
    }
}

static int find_bases(Batch *b)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (!b->touched[i]) {
            continue;
        }
        b->bases[i] = weir_keeper_base(b->k, &b->after[i].what);
        if (!b->bases[i]) {
            snprintf(b->message, sizeof(b->message), "there is no base image "
                     "for disk '%s'", b->after[i].what.name);
            return -ENODEV;
        }
    }
    return 0;
}

/* All records up to an epoch but those in chapters. The lock is held. */
static int batch_init(Batch *b, WeirKeeper *k, uint64_t epoch)
{
    const WeirIndexEpoch *last = weir_index_get(&k->index, epoch);

    memset(b, 0, sizeof(*b));
    b->k = k;
    b->commit = last->commit;
    b->from = k->sb.anchor.end;
    b->consistent = last->consistent;
    b->application_consistent = last->application_consistent;
    memcpy(b->disks, k->applied_disks, sizeof(b->disks));
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        b->after[i] = k->disks[i];
        if (b->disks[i].known) {
            b->after[i].bytes = b->most[i] = b->disks[i].bytes;
        }
    }
    b->room = count_records(b);
    b->records = malloc(b->room * sizeof(*b->records));
    b->tail = malloc(b->room * sizeof(*b->tail));
    if (!b->records || !b->tail || copy_chapters(b) < 0) {
        snprintf(b->message, sizeof(b->message), "no memory to apply epochs");
        return -ENOMEM;
    }
    copy_disks(b);
    copy_tail(b);
    return 0;
}

static int take_record(Batch *b, const WeirIndexRecord *r)
{
    if (b->count == b->room) {
        return -EBADMSG;
    }
    follow(b, r);
    b->records[b->count++] = *r;
    return 0;
}

static int load_chapter(Batch *b, Chapter *c)
{
    Recalled all = { 0 };
    int ret = weir_keeper_recall(b->k, c, -1, 0, 0, &all);

    for (size_t i = 0; i < all.count && ret == 0; i++) {
        const WeirIndexRecord *r = &all.records[i].record;

        if (r->position > b->from && r->position <= b->commit.end) {
            ret = take_record(b, r);
        }
    }
    free(all.records);
    return ret;
}

/* All of its records, in order. Yields. */
static int load(Batch *b)
{
    int ret = 0;

    for (size_t i = 0; i < b->chapter_count && ret == 0; i++) {
        ret = load_chapter(b, b->chapters[i]);
    }
    if (ret < 0) {
        snprintf(b->message, sizeof(b->message), "the records of the "
                 "replication log up to epoch %llu cannot be read: %s",
                 (unsigned long long)b->commit.epoch, strerror(-ret));
        return ret == -ESTALE ? -EAGAIN : ret;
    }
    for (size_t i = 0; i < b->tail_count && ret == 0; i++) {
        ret = take_record(b, &b->tail[i]);
    }
    return ret < 0 ? ret : find_bases(b);
}

/* --- parts: reading --- */

static void part_destroy(Part *p)
{
    for (size_t i = 0; i < p->n_runs; i++) {
        free(p->runs[i]);
    }
    free(p->runs);
    free(p->data);
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        weir_map_destroy(&p->maps[i]);
    }
    memset(p, 0, sizeof(*p));
}

/* From a record on, so much that it can be held in memory. */
static size_t part_length(const Batch *b, size_t first)
{
    uint64_t bytes = 0;
    size_t n = 0;

    while (first + n < b->count) {
        const WeirIndexRecord *r = &b->records[first + n];

        bytes += r->op == WEIR_LOG_WRITE ? r->bytes : 0;
        if (n > 0 && bytes > BATCH_BYTES) {
            break;
        }
        n++;
    }
    return n;
}

/* extent.epoch: index of the record in the part. */
static int map_disk(const Batch *b, Part *p, uint16_t disk, uint64_t *bytes)
{
    WeirExtent *extents = malloc((p->count + 1) * sizeof(*extents));
    size_t n = 0;
    int ret;

    if (!extents) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->count; i++) {
        const WeirIndexRecord *r = &b->records[p->first + i];

        if (r->disk == disk) {
            n += weir_record_extent(r, i, bytes, &extents[n]);
        }
    }
    ret = weir_map_build(&p->maps[disk], extents, n);
    free(extents);
    return ret;
}

static const uint8_t needed[1];

/* Those of which something is left. */
static void mark_needed(Part *p)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        for (size_t j = 0; j < p->maps[i].count; j++) {
            const WeirExtent *e = &p->maps[i].extents[j];

            if (e->kind == WEIR_EXTENT_DATA) {
                p->data[e->epoch] = needed;
            }
        }
    }
}

/* Records from `from` on that are read at once. */
typedef struct Run {
    size_t from, count;
    uint64_t position, bytes;   /* in the log */
    uint64_t packed;            /* what is compressed has so much then */
} Run;

static uint64_t unpacked_bytes(const WeirIndexRecord *r)
{
    return r->packed_sectors > 0 ? r->bytes : 0;
}

static Run find_run(const Batch *b, const Part *p, size_t from)
{
    const WeirIndexRecord *first = &b->records[p->first + from];
    uint64_t start = first->position;
    uint64_t end = start + weir_index_stored_bytes(first);
    uint64_t packed = unpacked_bytes(first);
    size_t i = from + 1;

    for (; i < p->count; i++) {
        const WeirIndexRecord *r = &b->records[p->first + i];

        if (!p->data[i]) {
            continue;
        }
        if (r->position < end || r->position - end > GAP_BYTES ||
            r->position + weir_index_stored_bytes(r) - start > READ_BYTES ||
            packed + unpacked_bytes(r) > READ_BYTES ||
            r->position / b->k->ring_bytes != start / b->k->ring_bytes) {
            break;
        }
        end = r->position + weir_index_stored_bytes(r);
        packed += unpacked_bytes(r);
    }
    return (Run) { from, i - from, start, end - start, packed };
}

/* What is compressed goes to `to`, which gets on. */
static int unpack(const WeirIndexRecord *r, WeirDecompressor *d,
                  const uint8_t **data, uint8_t **to)
{
    int ret = 0;

    if (r->packed_sectors > 0) {
        ret = weir_decompress(d, *data, weir_index_stored_bytes(r), *to,
                              r->bytes);
        *data = *to;
        *to += r->bytes;
    }
    return ret < 0 || (weir_log_data_crc(*data, r->bytes) != r->crc &&
                       !WITHOUT_RULE(24)) ? -EBADMSG : 0;
}

static int check_run(Batch *b, Part *p, const Run *run, const uint8_t *data,
                     WeirDecompressor *d, uint8_t *to)
{
    for (size_t i = run->from; i < run->from + run->count; i++) {
        const WeirIndexRecord *r = &b->records[p->first + i];

        if (!p->data[i]) {
            continue;
        }
        p->data[i] = data + (r->position - run->position);
        if (unpack(r, d, &p->data[i], &to) < 0) {
            snprintf(b->message, sizeof(b->message), "the replication log is "
                     "damaged at %llu: what follows cannot be applied",
                     (unsigned long long)r->position);
            return -EBADMSG;
        }
    }
    return 0;
}

/* Memory for the data of a run. */
static uint8_t *add_run(Part *p, uint64_t bytes)
{
    uint8_t *run = aligned_alloc(WEIR_LOG_ALIGN_BYTES,
                                 weir_log_packet_room(bytes));

    if (run) {
        p->runs[p->n_runs++] = run;
    }
    return run;
}

static int unpack_run(Batch *b, Part *p, const Run *run, const uint8_t *data)
{
    WeirDecompressor *d = NULL;
    uint8_t *to = NULL;
    int ret = 0;

    if (run->packed > 0) {
        d = weir_keeper_take_decompressor(b->k);
        to = add_run(p, run->packed);
        ret = d && to ? 0 : -ENOMEM;
    }
    ret = ret < 0 ? ret : check_run(b, p, run, data, d, to);
    weir_keeper_give_decompressor(b->k, d);
    return ret;
}

static int read_run(Batch *b, Part *p, const Run *run)
{
    const WeirKeeperHost *host = b->k->host;
    uint8_t *data = add_run(p, run->bytes);
    int ret;

    if (!data) {
        return -ENOMEM;
    }
    ret = host->read_log(host->opaque, WEIR_LOG_RING_OFFSET +
                         run->position % b->k->ring_bytes, run->bytes, data);
    if (ret < 0) {
        snprintf(b->message, sizeof(b->message), "the replication log cannot "
                 "be read: %s", strerror(-ret));
        return ret;
    }
    return unpack_run(b, p, run, data);
}

static int read_data(Batch *b, Part *p)
{
    int ret = 0;

    for (size_t i = 0; i < p->count && ret == 0;) {
        Run run = { .count = 1 };

        if (p->data[i]) {
            run = find_run(b, p, i);
            ret = read_run(b, p, &run);
        }
        i += run.count;
    }
    return ret;
}

/* sizes: of the disks, before it; after it on return. Yields. */
static int part_init(Batch *b, Part *p, size_t first, uint64_t *sizes)
{
    int ret = 0;

    memset(p, 0, sizeof(*p));
    p->first = first;
    p->count = part_length(b, first);
    p->data = calloc(p->count + 1, sizeof(*p->data));
    p->runs = calloc(2 * p->count + 1, sizeof(*p->runs));
    if (!p->data || !p->runs) {
        ret = -ENOMEM;
    }
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX && ret == 0; i++) {
        ret = b->touched[i] ? map_disk(b, p, i, &sizes[i]) : 0;
    }
    if (ret == 0) {
        mark_needed(p);
        ret = read_data(b, p);
    }
    if (ret == -ENOMEM) {
        snprintf(b->message, sizeof(b->message), "no memory to apply epochs");
    }
    return ret;
}

static void first_sizes(const Batch *b, uint64_t *sizes)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        sizes[i] = b->disks[i].known ? b->disks[i].bytes : 0;
    }
}

/* --- parts: writing --- */

static bool stops(WeirKeeper *k)
{
    bool so;

    weir_keeper_lock(k);
    so = k->stops;
    weir_keeper_unlock(k);
    return so;
}

/* So much has gone to a base: wait as long as the rate wants it. */
static void account(WeirKeeper *k, uint64_t bytes)
{
    uint64_t now = k->tasks->now_ns(k->tasks->opaque);

    weir_keeper_lock(k);
    k->applied_bytes += bytes;
    if (k->config.apply_rate > 0) {
        k->budget_ns = (k->budget_ns > now ? k->budget_ns : now) +
                       (uint64_t)((double)bytes * 1e9 /
                                  (double)k->config.apply_rate);
    }
    while (k->config.apply_rate > 0 && !k->stops &&
           k->budget_ns > k->tasks->now_ns(k->tasks->opaque)) {
        weir_keeper_wait(k, k->budget_ns);
    }
    weir_keeper_unlock(k);
}

/* Data that goes on where it has been going on. */
typedef struct Gather {
    Batch *b;
    Base *base;
    uint64_t offset, bytes;
    uint8_t *buf;               /* WRITE_BYTES */
} Gather;

static int gather_end(Gather *g)
{
    int ret;

    if (g->bytes == 0) {
        return 0;
    }
    ret = g->b->k->host->write_base(g->base->host, g->offset, g->bytes,
                                    g->buf);
    if (ret < 0) {
        return fail(g->b, g->base, "written", ret);
    }
    account(g->b->k, g->bytes);
    g->bytes = 0;
    return 0;
}

static int gather(Gather *g, uint64_t offset, const uint8_t *data,
                  uint64_t bytes)
{
    int ret = 0;

    while (bytes > 0 && ret == 0) {
        uint64_t n = WRITE_BYTES - g->bytes;

        if (g->bytes > 0 && (n == 0 || offset != g->offset + g->bytes)) {
            ret = gather_end(g);
            continue;
        }
        n = bytes < n ? bytes : n;
        g->offset = g->bytes > 0 ? g->offset : offset;
        memcpy(g->buf + g->bytes, data, n);
        g->bytes += n;
        offset += n;
        data += n;
        bytes -= n;
    }
    return ret;
}

static int write_extent(Gather *g, const Part *p, const WeirExtent *e)
{
    const WeirKeeperHost *host = g->b->k->host;
    int ret;

    if (e->kind == WEIR_EXTENT_DATA) {
        return gather(g, e->offset, p->data[e->epoch] + e->at, e->bytes);
    }
    ret = gather_end(g);
    if (ret < 0) {
        return ret;
    }
    if (e->kind == WEIR_EXTENT_ZERO) {
        ret = host->zero_base(g->base->host, e->offset, e->bytes);
        return ret < 0 ? fail(g->b, g->base, "zeroed", ret) : 0;
    }
    ret = host->discard_base(g->base->host, e->offset, e->bytes);
    return ret < 0 && ret != -ENOTSUP ? fail(g->b, g->base, "discarded", ret)
                                      : 0;
}

static int write_disk(Batch *b, const Part *p, uint16_t disk, uint8_t *buf)
{
    Gather g = { .b = b, .base = b->bases[disk], .buf = buf };
    int ret = 0;

    for (size_t i = 0; i < p->maps[disk].count && ret == 0; i++) {
        ret = stops(b->k) ? -ECANCELED
                          : write_extent(&g, p, &p->maps[disk].extents[i]);
    }
    return ret < 0 ? ret : gather_end(&g);
}

static int write_part(Batch *b, const Part *p)
{
    uint8_t *buf = aligned_alloc(WEIR_LOG_ALIGN_BYTES, WRITE_BYTES);
    int ret = buf ? 0 : -ENOMEM;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX && ret == 0; i++) {
        ret = b->touched[i] ? write_disk(b, p, i, buf) : 0;
    }
    free(buf);
    return ret;
}

/* --- all of a batch --- */

static int resize(Batch *b, Base *base, uint64_t bytes)
{
    int ret = b->k->host->resize_base(base->host, bytes);

    if (ret == -ENOTSUP && bytes <= base->bytes) {
        return 0;
    }
    if (ret < 0) {
        return fail(b, base, "resized", ret);
    }
    weir_keeper_lock(b->k);
    base->bytes = bytes;
    weir_keeper_unlock(b->k);
    return 0;
}

/* Long enough for all that is written. */
static int lengthen_bases(Batch *b)
{
    int ret = 0;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX && ret == 0; i++) {
        Base *base = b->bases[i];

        if (b->touched[i] && (base->bytes < b->most[i] || base->doubtful)) {
            ret = resize(b, base, base->bytes > b->most[i] ? base->bytes
                                                           : b->most[i]);
        }
    }
    return ret;
}

/* The image was something else before, and may be longer. */
static bool is_first(Batch *b, uint16_t disk)
{
    bool known;

    weir_keeper_lock(b->k);
    known = b->k->applied_disks[disk].known;
    weir_keeper_unlock(b->k);
    return !known;
}

/* As long as the disk, if that was made shorter or longer, or is new. */
static int end_bases(Batch *b)
{
    int ret = 0;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX && ret == 0; i++) {
        Base *base = b->bases[i];

        if (!b->touched[i]) {
            continue;
        }
        if ((b->after[i].bytes < b->most[i] || is_first(b, i)) &&
            b->after[i].bytes < base->bytes) {
            ret = resize(b, base, b->after[i].bytes);
        }
        if (ret == 0 && !WITHOUT_RULE(32)) {
            ret = b->k->host->flush_base(base->host);
            base->doubtful = ret < 0;
            ret = ret < 0 ? fail(b, base, "flushed", ret) : 0;
        }
    }
    return ret;
}

/* Read all that it needs; kept: in memory if it is one part. */
static int check_batch(Batch *b, Part *kept)
{
    uint64_t sizes[WEIR_LOG_DISKS_MAX];
    int ret = 0;

    first_sizes(b, sizes);
    for (size_t first = 0; first < b->count && ret == 0;) {
        part_destroy(kept);
        ret = part_init(b, kept, first, sizes);
        first += kept->count;
    }
    return ret;
}

static int write_batch(Batch *b, Part *kept)
{
    uint64_t sizes[WEIR_LOG_DISKS_MAX];
    int ret = lengthen_bases(b);

    first_sizes(b, sizes);
    for (size_t first = 0; first < b->count && ret == 0;) {
        if (kept->count < b->count) {
            part_destroy(kept);
            ret = part_init(b, kept, first, sizes);
        }
        ret = ret < 0 ? ret : write_part(b, kept);
        first += kept->count;
    }
    return ret < 0 ? ret : end_bases(b);
}

/* --- superblocks --- */

static int cannot_write(Batch *b, int ret)
{
    snprintf(b->message, sizeof(b->message), "the superblock of the log cannot "
             "be written: %s", strerror(-ret));
    return ret;
}

/*
 * The bases are about to hold what is later than points before the end of the
 * batch. Meanwhile it may have been promoted, or opened, or cut off.
 */
static int set_horizon(Batch *b)
{
    WeirKeeper *k = b->k;
    const WeirIndexEpoch *e;
    WeirLogSuperblock sb;
    int ret;

    weir_keeper_sb_begin(k);
    e = weir_index_get(&k->index, b->commit.epoch);
    if (!e || memcmp(&e->commit, &b->commit, sizeof(e->commit)) ||
        b->commit.epoch > limit(k)) {
        weir_keeper_sb_cancel(k);
        return -EAGAIN;
    }
    sb = k->sb;
    k->horizon = sb.horizon = b->commit.epoch;
    if (!b->consistent) {
        sb.base_incomplete = true;
    }
    if (WITHOUT_RULE(33)) {
        weir_keeper_sb_cancel(k);
        return 0;
    }
    ret = weir_keeper_sb_end(k, &sb);
    return ret < 0 ? cannot_write(b, ret) : 0;
}

/* What is read from behind the anchor is not read from before it. */
static void wait_for_reads(WeirKeeper *k, uint64_t tail)
{
    for (const LogRead *read = k->reads; read && !WITHOUT_RULE(29);) {
        if (read->position < tail) {
            weir_keeper_wait(k, WEIR_TASKS_FOREVER);
            read = k->reads;
        } else {
            read = read->next;
        }
    }
}

/* The disks are told by the segment that the anchor ends in. */
static uint64_t tail_of(const WeirKeeper *k, const WeirLogCommit *anchor)
{
    return anchor->end - 1 - (anchor->end - 1) % k->sb.segment_bytes;
}

static void take_anchor(WeirKeeper *k, const Batch *b)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (b->disks[i].known || b->touched[i]) {
            k->applied_disks[i] = b->after[i];
        }
    }
    weir_keeper_drop_chapters_to(k, b->commit.epoch);
    weir_index_drop_to(&k->index, b->commit.epoch);
}

static int set_anchor(Batch *b)
{
    WeirKeeper *k = b->k;
    WeirLogSuperblock sb;
    int ret;

    k->applied = b->commit.epoch;
    k->applied_end = b->commit.end;
    wait_for_reads(k, tail_of(k, &b->commit));
    weir_keeper_sb_begin(k);
    sb = k->sb;
    sb.anchor = b->commit;
    sb.horizon = b->commit.epoch;
    sb.tail = tail_of(k, &b->commit);
    sb.base_incomplete = !b->consistent;
    sb.application_consistent = b->application_consistent;
    ret = weir_keeper_sb_end(k, &sb);
    if (ret < 0) {
        return cannot_write(b, ret);
    }
    take_anchor(k, b);
    return 0;
}

/* --- the task --- */

/* Returns 0; -EAGAIN: look again; an error. The lock is held. */
static int apply_batch(Batch *b)
{
    WeirKeeper *k = b->k;
    Part part = { 0 };
    int ret;

    weir_keeper_unlock(k);
    ret = load(b);
    ret = ret < 0 ? ret : check_batch(b, &part);
    weir_keeper_lock(k);
    ret = ret < 0 ? ret : set_horizon(b);
    if (ret == 0) {
        weir_keeper_unlock(k);
        ret = write_batch(b, &part);
        weir_keeper_lock(k);
    }
    part_destroy(&part);
    return ret < 0 ? ret : set_anchor(b);
}

static void pause_applying(WeirKeeper *k)
{
    uint64_t until = k->tasks->now_ns(k->tasks->opaque) + RETRY_NS;

    while (!k->stops && k->tasks->now_ns(k->tasks->opaque) < until) {
        weir_keeper_wait(k, until);
    }
}

static void ended(WeirKeeper *k, int ret, const char *message)
{
    if (ret == 0) {
        set_state(k, WEIR_KEEPER_APPLYING, 0, "");
    } else if (ret != -EAGAIN && ret != -ECANCELED) {
        set_state(k, ret == -ENODEV ? WEIR_KEEPER_NO_BASE
                                    : WEIR_KEEPER_APPLY_FAILS, ret, message);
        pause_applying(k);
    }
    weir_keeper_changed(k);
}

static void apply_to(WeirKeeper *k, uint64_t epoch)
{
    Batch *b = malloc(sizeof(*b));
    int ret = b ? batch_init(b, k, epoch) : -ENOMEM;

    if (ret == 0) {
        ret = apply_batch(b);
        while (ret < 0 && k->applied > k->sb.anchor.epoch && !k->stops) {
            /* the bases are done with; what they are at is not told yet */
            ended(k, ret, b->message);
            ret = k->stops ? ret : set_anchor(b);
        }
    }
    ended(k, ret, b ? b->message : "no memory to apply epochs");
    if (b) {
        batch_destroy(b);
    }
    free(b);
}

/* When the oldest epoch will be old enough. */
static uint64_t next_look(const WeirKeeper *k)
{
    uint64_t now = k->tasks->now_ns(k->tasks->opaque);
    uint64_t wall = k->tasks->wall_ns(k->tasks->opaque), due;

    if (k->index.first == k->index.end) {
        return WEIR_TASKS_FOREVER;
    }
    due = add(k->index.epochs[k->index.first].commit.wall_ns,
              k->config.retain_ns);
    if (due <= wall || due - wall > LOOK_AGAIN_NS) {
        return now + LOOK_AGAIN_NS;
    }
    return now + (due - wall);
}

static void do_something(WeirKeeper *k)
{
    uint64_t wished = wished_tail(k);
    uint64_t epoch = k->base_count > 0 ? choose(k, wished) : 0;
    WeirLogSuperblock sb;

    if (k->sb_uncertain) {
        weir_keeper_sb_begin(k);
        sb = k->sb;
        if (weir_keeper_sb_end(k, &sb) < 0) {
            pause_applying(k);
        }
    } else if (epoch > 0) {
        apply_to(k, epoch);
    } else if (wished > 0 && k->durable.epoch < k->valid.epoch) {
        if (weir_keeper_flush_locked(k) < 0) {
            pause_applying(k);
        }
    } else {
        set_state(k, why_not(k, wished), 0, "");
        weir_keeper_wait(k, next_look(k));
    }
}

void weir_keeper_run(WeirKeeper *k)
{
    weir_keeper_lock(k);
    while (!k->stops) {
        do_something(k);
    }
    weir_keeper_unlock(k);
}

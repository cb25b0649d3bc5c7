/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/batch.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- its records --- */

void weir_batch_destroy(Batch *b)
{
    for (size_t i = 0; i < b->chapter_count; i++) {
        weir_chapter_unref(b->k, b->chapters[i]);
    }
    free(b->chapters);
    free(b->tail);
    free(b->records);
    memset(b, 0, offsetof(Batch, message));
}

int weir_batch_fail(Batch *b, const Base *base, const char *what, int ret)
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

int weir_batch_init(Batch *b, WeirKeeper *k, uint64_t epoch)
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

int weir_batch_load(Batch *b)
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

/* --- all of a batch --- */

static int resize(Batch *b, Base *base, uint64_t bytes)
{
    int ret = b->k->host->resize_base(base->host, bytes);

    if (ret == -ENOTSUP && bytes <= base->bytes) {
        return 0;
    }
    if (ret < 0) {
        return weir_batch_fail(b, base, "resized", ret);
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
            ret = ret < 0 ? weir_batch_fail(b, base, "flushed", ret) : 0;
        }
    }
    return ret;
}

static void first_sizes(const Batch *b, uint64_t *sizes)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        sizes[i] = b->disks[i].known ? b->disks[i].bytes : 0;
    }
}

int weir_batch_check(Batch *b, Part *kept)
{
    uint64_t sizes[WEIR_LOG_DISKS_MAX];
    int ret = 0;

    first_sizes(b, sizes);
    for (size_t first = 0; first < b->count && ret == 0;) {
        weir_part_destroy(kept);
        ret = weir_part_init(b, kept, first, sizes);
        first += kept->count;
    }
    return ret;
}

int weir_batch_write(Batch *b, Part *kept)
{
    uint64_t sizes[WEIR_LOG_DISKS_MAX];
    int ret = lengthen_bases(b);

    first_sizes(b, sizes);
    for (size_t first = 0; first < b->count && ret == 0;) {
        if (kept->count < b->count) {
            weir_part_destroy(kept);
            ret = weir_part_init(b, kept, first, sizes);
        }
        ret = ret < 0 ? ret : weir_part_write(b, kept);
        first += kept->count;
    }
    return ret < 0 ? ret : end_bases(b);
}

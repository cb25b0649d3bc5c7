/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying dirty blocks from the disks to the open epoch. */
#include "replication/source-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"

#define COPIERS_MAX 4
#define COPY_BYTES_MAX WEIR_MEMORY_SLAB_BYTES
#define ZERO_BYTES_MAX (UINT64_C(1) << 30)
#define RETRY_NS 1000000000

typedef struct Copy {
    WeirSourceDisk *disk;
    WeirLogRecord record;               /* what will be in the log */
    WeirRange range;
    WeirPiece piece;
} Copy;

/* --- begin --- */

/* A place for the lengths of disks whose change was only marked. */
static int log_lengths(WeirSource *s)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        WeirSourceDisk *d = s->disks[i];
        WeirLogRecord r = { .op = WEIR_LOG_RESIZE, .disk = d->number,
                            .bytes = d->bytes };
        int ret;

        if (!d->host || d->bytes == d->durable_bytes) {
            continue;
        }
        ret = weir_source_take(s, 0, NULL);
        if (ret < 0) {
            return ret;
        }
        weir_source_append(s, &r, NULL);
    }
    return 0;
}

int weir_source_end_marking(WeirSource *s)
{
    int ret = log_lengths(s);

    if (ret < 0) {
        return ret;
    }
    s->marking = false;
    weir_source_changed(s);
    return 0;
}

/* --- a copy --- */

static bool may_copy(const WeirSource *s)
{
    return s->connected && !s->marking && !s->stops;
}

/* How much of a range is to be copied at a time, and whether it is zeroes. */
static bool look(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                 uint64_t *take)
{
    const WeirSourceHost *host = d->source->host;
    uint64_t extent = bytes;
    bool zero = false;

    if (host->status_disk(d->host, offset, bytes, &extent, &zero) < 0) {
        zero = false;
    }
    if (zero && extent < bytes) {
        extent -= extent % WEIR_BITMAP_BLOCK_BYTES;
    }
    zero = zero && extent > 0;
    *take = zero ? extent : bytes < COPY_BYTES_MAX ? bytes : COPY_BYTES_MAX;
    return zero;
}

/* Part of the memory, so that guests keep the rest. */
static bool has_room(const WeirSource *s, uint64_t bytes)
{
    uint64_t most = s->config.max_memory_bytes / 4;

    return s->copied_bytes == 0 || s->copied_bytes + bytes <= most;
}

static int take_place(WeirSource *s, uint64_t bytes, WeirPiece *piece)
{
    while (may_copy(s)) {
        if (has_room(s, bytes) && weir_source_take(s, bytes, piece) == 0) {
            s->copied_bytes += bytes;
            return 0;
        }
        if (s->open->count > 0) {
            weir_source_hurry(s);
        }
        weir_source_wait(s, WEIR_TASKS_FOREVER);
    }
    return -ECANCELED;
}

static void give_place(WeirSource *s, uint64_t bytes, const WeirPiece *piece)
{
    s->copied_bytes -= bytes;
    weir_source_give(s, bytes, piece);
}

/* The bytes, with no lock held. Returns 0 or an error of the disk. */
static int read_data(Copy *c, bool zero)
{
    WeirSourceDisk *d = c->disk;
    uint64_t bytes = c->record.bytes, extent = 0;
    int ret;

    if (zero) {
        ret = d->source->host->status_disk(d->host, c->record.offset, bytes,
                                           &extent, &zero);
        return ret < 0 ? ret : zero && extent >= bytes ? 0 : -EAGAIN;
    }
    ret = d->source->host->read_disk(d->host, c->record.offset, bytes,
                                     c->piece.data);
    if (ret == 0) {
        c->record.crc = weir_log_data_crc(c->piece.data, bytes);
    }
    return ret;
}

/* With its range locked, and a place for it. Returns 0 or an error. */
static int copy_held(Copy *c, bool zero)
{
    WeirSourceDisk *d = c->disk;
    WeirSource *s = d->source;
    uint64_t offset = c->record.offset, bytes = c->record.bytes;
    int ret = -ECANCELED;

    if (offset + bytes <= d->bytes &&
        weir_bitmap_any(&d->dirty, offset, bytes)) {
        pthread_mutex_unlock(&s->lock);
        ret = read_data(c, zero);
        pthread_mutex_lock(&s->lock);
        if (ret == 0 && !may_copy(s)) {
            ret = -ECANCELED;
        }
    }
    if (ret < 0) {
        give_place(s, zero ? 0 : bytes, &c->piece);
        return ret;
    }
    c->record.disk = d->number;
    weir_source_append(s, &c->record, &c->piece);
    weir_bitmap_clear(&d->dirty, offset, bytes);
    s->promised = s->promised || weir_source_is_synchronised(s);
    weir_source_intent_touch(d, offset, bytes);
    weir_source_limit_epoch(s);
    weir_source_changed(s);
    return 0;
}

static int copy_range(WeirSourceDisk *d, uint64_t offset, uint64_t bytes)
{
    WeirSource *s = d->source;
    Copy c = { .disk = d };
    uint64_t take;
    bool zero;
    int ret;

    pthread_mutex_unlock(&s->lock);
    zero = look(d, offset, bytes, &take);
    pthread_mutex_lock(&s->lock);
    c.record = (WeirLogRecord) {
        .op = zero ? WEIR_LOG_ZERO : WEIR_LOG_WRITE, .resync = true,
        .offset = offset, .bytes = take,
    };
    ret = take_place(s, zero ? 0 : take, &c.piece);
    if (ret == 0) {
        c.range = (WeirRange) { .offset = offset, .bytes = take,
                                .kind = WEIR_RANGE_HOLD };
        if (!WEIR_SOURCE_WITHOUT(4)) {
            weir_source_enter(d, &c.range);
        }
        ret = copy_held(&c, zero);
        if (!WEIR_SOURCE_WITHOUT(4)) {
            weir_source_leave(d, &c.range);
        }
    }
    return ret;
}

/* --- copiers --- */

static bool pick_from(WeirSourceDisk *d, uint64_t *offset, uint64_t *bytes)
{
    uint64_t from = d->cursor;

    if (!d->host || d->closing || d->dirty.dirty == 0) {
        return false;
    }
    if (!weir_bitmap_next(&d->dirty, from, ZERO_BYTES_MAX, offset, bytes) &&
        !weir_bitmap_next(&d->dirty, 0, ZERO_BYTES_MAX, offset, bytes)) {
        return false;
    }
    d->cursor = *offset + (*bytes < COPY_BYTES_MAX ? *bytes : COPY_BYTES_MAX);
    return true;
}

/* Something that is dirty; the first disk goes first. */
static WeirSourceDisk *pick(WeirSource *s, uint64_t *offset, uint64_t *bytes)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (pick_from(s->disks[i], offset, bytes)) {
            return s->disks[i];
        }
    }
    return NULL;
}

/* The disk could not be read: it is tried again, but not all the time. */
static void pause_copier(WeirSource *s)
{
    uint64_t until = weir_source_now(s) + RETRY_NS;

    while (may_copy(s) && weir_source_now(s) < until) {
        weir_source_wait(s, until);
    }
}

static void copy_all(void *arg)
{
    WeirSource *s = arg;
    WeirSourceDisk *d;
    uint64_t offset, bytes;

    pthread_mutex_lock(&s->lock);
    while (may_copy(s) && (d = pick(s, &offset, &bytes)) != NULL) {
        int ret;

        d->users++;
        ret = copy_range(d, offset, bytes);
        d->users--;
        if (d->closing) {
            weir_source_changed(s);
        }
        if (ret < 0 && ret != -ECANCELED && ret != -EAGAIN) {
            pause_copier(s);
        }
    }
    s->copiers--;
    weir_source_changed(s);
    pthread_mutex_unlock(&s->lock);
}

/* Blocks that somebody has to copy, with what that is in all noted. */
static uint64_t count_dirty(WeirSource *s)
{
    uint64_t dirty = 0;

    for (uint16_t i = 0; i < s->disk_count; i++) {
        WeirSourceDisk *d = s->disks[i];
        uint64_t bytes;

        if (d->host && !d->closing) {
            bytes = weir_bitmap_dirty_bytes(&d->dirty);
            d->resync_total = bytes == 0 || bytes > d->resync_total
                              ? bytes : d->resync_total;
            dirty += d->dirty.dirty;
        }
    }
    return dirty;
}

void weir_source_start_copying(WeirSource *s)
{
    uint64_t dirty;

    if (s->copiers > 0 || !may_copy(s)) {
        return;
    }
    dirty = count_dirty(s);
    while (s->copiers < COPIERS_MAX && s->copiers < dirty) {
        s->copiers++;
        s->tasks->spawn(s->tasks->opaque, copy_all, s);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of guests: to the disk first, then, before the guest is told, to the
 * open epoch, or into the bitmap.
 */
#include "replication/source-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"

/* A piece of memory, and a record of the log, hold so much. */
#define PART_BYTES_MAX WEIR_MEMORY_SLAB_BYTES

/* Each entry of an epoch counts as so much memory at least. */
#define ENTRY_BYTES WEIR_MEMORY_ALIGN_BYTES

typedef struct Request {
    WeirLogRecord record;
    WeirRange range;
    const struct iovec *iov;            /* WEIR_LOG_WRITE */
    size_t niov;
    unsigned flags;
    int (*resize)(void *arg);           /* WEIR_LOG_RESIZE */
    void *arg;
    bool logged;                        /* it has a place, and: */
    WeirPiece piece;
} Request;

/* --- ranges --- */

void weir_source_enter(WeirSourceDisk *d, WeirRange *range)
{
    WeirSource *s = d->source;

    weir_ranges_add(&d->ranges, range);
    while (!weir_ranges_may_go(&d->ranges, range)) {
        s->tasks->wait(s->tasks->opaque, &s->lock, &d->queue,
                       WEIR_TASKS_FOREVER);
    }
}

void weir_source_leave(WeirSourceDisk *d, WeirRange *range)
{
    WeirSource *s = d->source;

    weir_ranges_remove(&d->ranges, range);
    s->tasks->wake(s->tasks->opaque, &d->queue);
}

/* --- the open epoch --- */

int weir_source_take(WeirSource *s, uint64_t bytes, WeirPiece *piece)
{
    if (s->entries + s->writes >= s->config.max_memory_bytes / ENTRY_BYTES ||
        (bytes > 0 && weir_memory_take(s->memory, bytes, piece) < 0)) {
        return -EAGAIN;
    }
    if (weir_epoch_reserve(s->open, s->writes + 1) < 0) {
        if (bytes > 0) {
            weir_memory_give(s->memory, piece);
        }
        return -ENOMEM;
    }
    s->writes++;
    return 0;
}

void weir_source_give(WeirSource *s, uint64_t bytes, const WeirPiece *piece)
{
    s->writes--;
    if (bytes > 0) {
        weir_memory_give(s->memory, piece);
    }
    weir_source_changed(s);
}

void weir_source_append(WeirSource *s, const WeirLogRecord *record,
                        const WeirPiece *piece)
{
    s->writes--;
    s->entries++;
    if (s->open->count == 0) {
        s->open->begun_ns = weir_source_now(s);
        weir_source_changed(s);
    }
    weir_epoch_add(s->open, record, piece);
}

void weir_source_limit_epoch(WeirSource *s)
{
    if (s->open->bytes >= weir_source_epoch_bytes(s)) {
        weir_source_close_epoch(s);     /* without memory, with the next one */
        weir_source_changed(s);
    }
}

void weir_source_mark_dirty(WeirSourceDisk *d, uint64_t offset, uint64_t bytes)
{
    WeirSource *s = d->source;

    if (offset >= d->bytes) {
        return;
    }
    bytes = bytes < d->bytes - offset ? bytes : d->bytes - offset;
    if (weir_source_is_synchronised(s)) {
        weir_source_changed(s);
    }
    weir_bitmap_mark(&d->dirty, offset, bytes);
    s->wants_point = true;
    if (s->behind_ns == 0) {
        s->behind_ns = weir_source_now(s);
    }
    s->behind_serial = UINT64_MAX;
}

void weir_source_begin_marking(WeirSource *s)
{
    if (s->open->count > 0) {
        weir_source_close_epoch(s);     /* without memory, later */
    }
    s->marking = true;
    weir_source_changed(s);
}

/* --- what a request waits for --- */

/* The log cannot be reached, and what waits for it is not to wait. */
static bool must_not_wait(const WeirSource *s)
{
    return !s->connected &&
           (s->config.on_loss != WEIR_SOURCE_SUSPEND || s->stops ||
            s->impatient);
}

/* What becomes of it then. */
static int unreached(const WeirSource *s)
{
    return s->config.on_loss == WEIR_SOURCE_DEGRADE ? 0 : -EIO;
}

/* The guest need not wait for memory. */
static bool may_mark(const WeirSource *s)
{
    return s->config.mode == WEIR_SOURCE_ASYNC || must_not_wait(s);
}

/* A place for a request in the log, or the leave to go on without. */
static int admit(WeirSource *s, Request *r)
{
    for (;;) {
        int ret;

        if (s->config.mode == WEIR_SOURCE_WRITE_SYNC && must_not_wait(s) &&
            unreached(s) < 0) {
            return -EIO;
        }
        if (s->marking) {
            return 0;
        }
        ret = weir_source_take(s, weir_log_data_bytes(&r->record), &r->piece);
        r->logged = ret == 0;
        if (ret == 0 || (ret == -ENOMEM && !may_mark(s))) {
            return ret;
        }
        if (may_mark(s)) {
            weir_source_begin_marking(s);
        } else {
            weir_source_hurry(s);
            weir_source_wait(s, WEIR_TASKS_FOREVER);
        }
    }
}

/* --- requests --- */

/* Copied in pieces that are still in the cache when their CRC is made. */
static uint32_t copy(uint8_t *to, const struct iovec *iov, size_t niov)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < niov; i++) {
        const uint8_t *from = iov[i].iov_base;

        for (size_t at = 0; at < iov[i].iov_len;) {
            size_t n = iov[i].iov_len - at < 4096 ? iov[i].iov_len - at
                                                  : 4096;

            memcpy(to, from + at, n);
            crc = weir_crc32c(crc, to, n);
            to += n;
            at += n;
        }
    }
    return crc;
}

static int write_disk(WeirSourceDisk *d, Request *r)
{
    const WeirSourceHost *host = d->source->host;
    struct iovec whole = { r->piece.data, r->record.bytes };

    if (!r->logged) {
        return host->write_disk(d->host, r->record.offset, r->record.bytes,
                                r->iov, r->niov, r->flags);
    }
    r->record.crc = copy(r->piece.data, r->iov, r->niov);
    return host->write_disk(d->host, r->record.offset, r->record.bytes,
                            &whole, 1, r->flags);
}

static int do_to_disk(WeirSourceDisk *d, Request *r)
{
    const WeirSourceHost *host = d->source->host;

    switch (r->record.op) {
    case WEIR_LOG_WRITE:
        return write_disk(d, r);
    case WEIR_LOG_ZERO:
        return host->zero_disk(d->host, r->record.offset, r->record.bytes,
                               r->flags);
    case WEIR_LOG_DISCARD:
        return host->discard_disk(d->host, r->record.offset, r->record.bytes);
    default:
        return r->resize(r->arg);
    }
}

/* It has ended: its place is here, before the guest is told. */
static void record(WeirSourceDisk *d, Request *r, int ret)
{
    WeirSource *s = d->source;
    bool resized = r->record.op == WEIR_LOG_RESIZE;

    r->record.disk = d->number;
    if (ret == 0 && r->logged && !s->marking) {
        weir_source_append(s, &r->record, &r->piece);
        return;
    }
    if (r->logged) {
        weir_source_give(s, weir_log_data_bytes(&r->record), &r->piece);
    }
    /* a new length is found out when marking ends */
    if (resized && ret == 0 && !s->marking) {
        weir_source_begin_marking(s);
    }
    /* what failed may be there */
    if (!resized && !WEIR_SOURCE_WITHOUT(ret < 0 ? 9 : 8)) {
        weir_source_mark_dirty(d, r->record.offset, r->record.bytes);
    }
}

/* Yields, with the lock held before and afterwards. */
static int do_request(WeirSourceDisk *d, Request *r)
{
    WeirSource *s = d->source;
    uint64_t offset = r->record.offset, bytes = r->record.bytes;
    int ret = admit(s, r);

    if (ret < 0) {
        return ret;
    }
    r->range = (WeirRange) { .offset = offset, .bytes = bytes,
                             .kind = WEIR_RANGE_HOLD };
    weir_source_enter(d, &r->range);
    ret = weir_source_intent_begin(d, offset, bytes);
    if (ret < 0) {
        if (r->logged) {
            weir_source_give(s, weir_log_data_bytes(&r->record), &r->piece);
        }
    } else {
        pthread_mutex_unlock(&s->lock);
        ret = do_to_disk(d, r);
        pthread_mutex_lock(&s->lock);
        record(d, r, ret);
        weir_source_intent_end(d, offset, bytes);
        weir_source_limit_epoch(s);
    }
    weir_source_leave(d, &r->range);
    return ret;
}

/*
 * All up to an epoch is durable. strict: as part of a point in time, since the
 * log has had one with all before.
 */
static bool is_there(const WeirSource *s, uint64_t serial, bool strict)
{
    return s->oldest->serial > serial &&
           (!strict || s->point_serial >= serial);
}

/* Until all that has ended by now is in the log, if the mode is to wait. */
static int wait_for_log(WeirSource *s, unsigned flags)
{
    bool degrades = s->config.on_loss == WEIR_SOURCE_DEGRADE;
    bool strict = s->promised && !degrades;
    /* what was only marked will be in an epoch that is not closed yet */
    bool in_open = s->open->count > 0 || (strict && s->wants_point);
    uint64_t serial = s->open->serial - !in_open;

    if (s->config.mode == WEIR_SOURCE_ASYNC || (degrades && s->marking) ||
        (s->config.mode == WEIR_SOURCE_FLUSH_SYNC &&
         !(flags & WEIR_SOURCE_FUA))) {
        return 0;
    }
    while (!is_there(s, serial, strict)) {
        if (must_not_wait(s)) {
            return unreached(s);
        }
        if (serial == s->open->serial) {
            weir_source_hurry(s);
        }
        weir_source_wait(s, WEIR_TASKS_FOREVER);
    }
    return 0;
}

/* The pieces of a guest's memory from `skip` on, of so many bytes. */
static size_t slice(struct iovec *to, const struct iovec *iov, size_t niov,
                    size_t skip, size_t bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < niov && bytes > 0; i++) {
        size_t take = iov[i].iov_len;

        if (skip >= take) {
            skip -= take;
            continue;
        }
        take = take - skip < bytes ? take - skip : bytes;
        to[n].iov_base = (uint8_t *)iov[i].iov_base + skip;
        to[n++].iov_len = take;
        bytes -= take;
        skip = 0;
    }
    return n;
}

/* One that is too long for the log goes in parts, one after the other. */
static int write_parts(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                       const struct iovec *iov, size_t niov, unsigned flags)
{
    struct iovec *part = malloc(niov * sizeof(*part));
    int ret = part ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < bytes && ret == 0;) {
        uint64_t n = bytes - at < PART_BYTES_MAX ? bytes - at : PART_BYTES_MAX;
        Request r = {
            .record = { .op = WEIR_LOG_WRITE, .offset = offset + at,
                        .bytes = n },
            .iov = part, .niov = slice(part, iov, niov, at, n), .flags = flags,
        };

        ret = do_request(d, &r);
        at += n;
    }
    free(part);
    return ret;
}

int weir_source_write(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags)
{
    WeirSource *s = d->source;
    Request r = {
        .record = { .op = WEIR_LOG_WRITE, .offset = offset, .bytes = bytes },
        .iov = iov, .niov = niov, .flags = flags,
    };
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    if (bytes > PART_BYTES_MAX) {
        ret = write_parts(d, offset, bytes, iov, niov, flags);
    } else if (bytes > 0) {
        ret = do_request(d, &r);
    }
    ret = ret < 0 ? ret : wait_for_log(s, flags);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

static int request(WeirSourceDisk *d, Request *r)
{
    WeirSource *s = d->source;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    if (r->record.bytes > 0) {
        ret = do_request(d, r);
    }
    ret = ret < 0 ? ret : wait_for_log(s, r->flags);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

int weir_source_zero(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                     unsigned flags)
{
    Request r = {
        .record = { .op = WEIR_LOG_ZERO, .offset = offset, .bytes = bytes },
        .flags = flags,
    };

    return request(d, &r);
}

int weir_source_discard(WeirSourceDisk *d, uint64_t offset, uint64_t bytes)
{
    Request r = {
        .record = { .op = WEIR_LOG_DISCARD, .offset = offset, .bytes = bytes },
    };

    return request(d, &r);
}

/* --- length --- */

/* The disk has its new length; all that is new may be anything. */
static void take_length(WeirSourceDisk *d, Request *r, int ret)
{
    uint64_t old = d->bytes, bytes = r->record.bytes;

    if (ret < 0) {
        weir_bitmap_resize(&d->dirty, old);
    } else {
        d->bytes = bytes;
        weir_bitmap_resize(&d->dirty, bytes);
    }
    record(d, r, ret);
    if (ret == 0 && bytes > old) {
        weir_source_mark_dirty(d, old, bytes - old);
    }
}

static int resize_disk(WeirSourceDisk *d, Request *r)
{
    WeirSource *s = d->source;
    int ret;

    if (r->record.bytes > d->bytes &&
        weir_bitmap_resize(&d->dirty, r->record.bytes) < 0) {
        ret = -ENOMEM;
    } else {
        pthread_mutex_unlock(&s->lock);
        ret = do_to_disk(d, r);
        pthread_mutex_lock(&s->lock);
    }
    take_length(d, r, ret);
    return ret;
}

/* What is cut off or comes may be there again after a crash, or not yet. */
static int resize_held(WeirSourceDisk *d, Request *r)
{
    uint64_t old = d->bytes, bytes = r->record.bytes;
    uint64_t from = old < bytes ? old : bytes;
    uint64_t change = (old < bytes ? bytes : old) - from;
    int ret = weir_source_intent_prepare(d, bytes);

    if (ret == 0 && change > 0) {
        ret = weir_source_intent_begin(d, from, change);
    }
    if (ret < 0) {
        if (r->logged) {
            weir_source_give(d->source, 0, NULL);
        }
        return ret;
    }
    ret = resize_disk(d, r);
    if (change > 0) {
        weir_source_intent_end(d, from, change);
    }
    weir_source_intent_resize(d);
    return ret;
}

int weir_source_resize(WeirSourceDisk *d, uint64_t bytes,
                       int (*resize)(void *arg), void *arg)
{
    WeirSource *s = d->source;
    Request r = {
        .record = { .op = WEIR_LOG_RESIZE, .bytes = bytes },
        .range = { .bytes = WEIR_LOG_RANGE_END_MAX, .kind = WEIR_RANGE_HOLD },
        .resize = resize, .arg = arg,
    };
    int ret;

    pthread_mutex_lock(&s->lock);
    ret = admit(s, &r);
    if (ret == 0) {
        weir_source_enter(d, &r.range);
        ret = resize_held(d, &r);
        weir_source_leave(d, &r.range);
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

int weir_source_flush(WeirSourceDisk *d)
{
    WeirSource *s = d->source;
    int ret;

    pthread_mutex_lock(&s->lock);
    ret = wait_for_log(s, WEIR_SOURCE_FUA);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

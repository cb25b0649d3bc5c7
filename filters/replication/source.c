/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/source-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* There can be something before the first epoch; see queue_lengths(). */
#define FIRST_SERIAL (UINT64_C(1) << 32)

/* --- begin and end --- */

int weir_source_new(WeirSource **out, const WeirTasks *tasks,
                    const WeirSourceHost *host, void *opaque,
                    const WeirSourceConfig *config)
{
    WeirSource *s = calloc(1, sizeof(*s));

    *out = NULL;
    if (!s) {
        return -ENOMEM;
    }
    s->tasks = tasks;
    s->host = host;
    s->opaque = opaque;
    s->config = *config;
    s->life = (uint32_t)tasks->random(tasks->opaque) | 1;
    s->wants_point = s->doubtful = true;
    pthread_mutex_init(&s->lock, NULL);
    s->open = s->oldest = s->to_send = weir_epoch_new();
    if (s->open) {
        s->open->serial = FIRST_SERIAL;
    }
    if (config->compress) {
        s->compressor = weir_compressor_new();
    }
    if (!s->open || (config->compress && !s->compressor) ||
        weir_memory_new(&s->memory, config->max_memory_bytes) < 0) {
        weir_source_free(s);
        return -ENOMEM;
    }
    tasks->queue_init(tasks->opaque, &s->changed);
    tasks->queue_init(tasks->opaque, &s->stopping);
    *out = s;
    return 0;
}

static void free_disk(WeirSourceDisk *d)
{
    weir_bitmap_destroy(&d->dirty);
    weir_source_intent_free(d);
    free(d);
}

void weir_source_free(WeirSource *s)
{
    while (s->oldest) {
        WeirEpoch *next = s->oldest->next;

        weir_epoch_free(s->oldest, s->memory);
        s->oldest = next;
    }
    for (uint16_t i = 0; i < s->disk_count; i++) {
        free_disk(s->disks[i]);
    }
    while (s->forgotten) {
        WeirSourceDisk *next = s->forgotten->next;

        free_disk(s->forgotten);
        s->forgotten = next;
    }
    weir_memory_free(s->memory);
    weir_compressor_free(s->compressor);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* --- disks --- */

static WeirSourceDisk *new_disk(WeirSource *s, const char *name,
                                uint64_t bytes, void *disk)
{
    WeirSourceDisk *d = calloc(1, sizeof(*d));

    if (!d || weir_bitmap_init(&d->dirty, bytes) < 0) {
        free(d);
        return NULL;
    }
    d->source = s;
    d->host = disk;
    snprintf(d->what.name, sizeof(d->what.name), "%s", name);
    d->bytes = d->first_bytes = d->sent_bytes = d->durable_bytes = bytes;
    weir_ranges_init(&d->ranges);
    s->tasks->queue_init(s->tasks->opaque, &d->queue);
    return d;
}

static int add(WeirSource *s, WeirSourceDisk *d)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        WeirSourceDisk *other = s->disks[i];

        if (strcmp(other->what.name, d->what.name)) {
            continue;
        }
        if (other->host) {
            return -EEXIST;
        }
        /* it has come back: what is queued for it keeps its number */
        d->number = other->number;
        d->sent_bytes = other->sent_bytes;
        d->durable_bytes = other->durable_bytes;
        d->what = other->what;
        d->came_back = true;
        d->left_lost = other->lost;
        s->disks[i] = d;
        free_disk(other);
        return 0;
    }
    if (s->disk_count == WEIR_LOG_DISKS_MAX) {
        return -ENOSPC;
    }
    while (weir_source_disk_of(s, d->number)) {
        d->number++;
    }
    s->disks[s->disk_count++] = d;
    return 0;
}

int weir_source_add_disk(WeirSource *s, const char *name, uint64_t bytes,
                         void *disk, bool has_sidecar, WeirSourceDisk **out)
{
    WeirSourceDisk *d = new_disk(s, name, bytes, disk);
    int ret;

    if (!d) {
        return -ENOMEM;
    }
    d->coming = has_sidecar;
    pthread_mutex_lock(&s->lock);
    s->added++;
    ret = add(s, d);
    if (ret < 0) {
        free_disk(d);
    } else {
        weir_source_lose_log(s);
        if (s->connections == 0) {
            weir_source_begin_marking(s);
        }
        s->promised = false;
        weir_source_mark_dirty(d, 0, bytes);
        *out = d;
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

/* What of the disk is queued is nothing to rely on any more. */
static void mark_queued(WeirSource *s, WeirSourceDisk *d)
{
    for (const WeirEpoch *e = s->oldest; e; e = e->next) {
        for (uint32_t i = 0; i < e->count; i++) {
            const WeirLogRecord *r = &e->entries[i].record;

            if (r->disk == d->number && r->op != WEIR_LOG_MARK &&
                r->op != WEIR_LOG_RESIZE) {
                weir_source_mark_dirty(d, r->offset, r->bytes);
            }
        }
    }
}

int weir_source_abandon_disk(WeirSourceDisk *d)
{
    WeirSource *s = d->source;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    if (!WEIR_SOURCE_WITHOUT(17)) {
        d->users++;
        ret = d->intent ? weir_source_intent_abandon(d) : 0;
        d->users--;
        weir_source_changed(s);
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

int weir_source_close_disk(WeirSourceDisk *d)
{
    WeirSource *s = d->source;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    d->closing = true;
    d->coming = false;
    while (d->users > 0) {
        weir_source_wait(s, WEIR_TASKS_FOREVER);
    }
    d->lost = d->dirty.dirty > 0;
    if (d->intent) {
        if (!WEIR_SOURCE_WITHOUT(5)) {
            mark_queued(s, d);
        }
        if (d->abandoned) {
            weir_source_mark_dirty(d, 0, d->bytes);
        }
        ret = weir_source_intent_close(d);
    }
    weir_source_intent_free(d);
    d->host = NULL;
    weir_bitmap_destroy(&d->dirty);
    weir_source_changed(s);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

static void remove_disk(WeirSource *s, WeirSourceDisk *d)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (s->disks[i] == d) {
            s->disks[i] = s->disks[--s->disk_count];
            d->next = s->forgotten;
            s->forgotten = d;
            s->added++;
            return;
        }
    }
}

/* It keeps the others from nothing: no session has begun with it. */
void weir_source_forget_disk(WeirSourceDisk *d)
{
    WeirSource *s = d->source;

    weir_source_close_disk(d);
    pthread_mutex_lock(&s->lock);
    if (d->came_back) {
        d->lost = d->left_lost;
    } else {
        remove_disk(s, d);
    }
    weir_source_changed(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- epochs --- */

bool weir_source_is_synchronised(const WeirSource *s)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (s->disks[i]->dirty.dirty > 0 || s->disks[i]->lost) {
            return false;
        }
    }
    return !s->marking;
}

uint64_t weir_source_epoch_bytes(const WeirSource *s)
{
    uint64_t most = s->sb.segments > 0 ? weir_log_ring_bytes(&s->sb) / 8
                                       : UINT64_MAX;

    return s->config.epoch_bytes < most ? s->config.epoch_bytes : most;
}

/* Those that are being written get their place in it. */
static WeirEpoch *prepare_epoch(WeirSource *s)
{
    WeirEpoch *next = weir_epoch_new();

    if (!next || weir_epoch_reserve(next, s->writes + 1) < 0) {
        weir_epoch_free(next, s->memory);
        return NULL;
    }
    return next;
}

static void switch_epoch(WeirSource *s, WeirEpoch *next)
{
    WeirEpoch *e = s->open;

    e->wall_ns = s->tasks->wall_ns(s->tasks->opaque);
    e->monotonic_ns = weir_source_now(s);
    e->consistent = weir_source_is_synchronised(s) || WEIR_SOURCE_WITHOUT(3);
    s->wants_point = !e->consistent;
    if (e->consistent) {
        s->behind_serial = e->serial;
        s->promised = true;
    }
    weir_epoch_trim(e);
    next->serial = e->serial + 1;
    e->next = next;
    s->open = next;
    s->hurry = false;
}

int weir_source_close_epoch(WeirSource *s)
{
    WeirEpoch *next = prepare_epoch(s);

    if (!next) {
        return -ENOMEM;
    }
    switch_epoch(s, next);
    return 0;
}

/* How long disks are by what is in the log for good. */
static void take_lengths(WeirSource *s, const WeirEpoch *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        const WeirLogRecord *r = &e->entries[i].record;

        if (r->op == WEIR_LOG_RESIZE) {
            weir_source_disk_of(s, r->disk)->durable_bytes = r->bytes;
        }
        s->copied_bytes -= r->resync ? weir_log_data_bytes(r) : 0;
    }
}

void weir_source_let_go(WeirSource *s, WeirEpoch *last,
                        const WeirLogCommit *end)
{
    bool more = true;

    s->durable = *end;
    while (more) {
        WeirEpoch *e = s->oldest;

        more = e != last;
        s->oldest = e->next;
        s->entries -= e->count;
        take_lengths(s, e);
        s->point_serial = e->consistent ? e->serial : s->point_serial;
        if (e->serial >= s->behind_serial) {
            s->behind_ns = 0;
        }
        weir_epoch_free(e, s->memory);
    }
    weir_source_changed(s);
}

WeirSourceDisk *weir_source_disk_of(const WeirSource *s, uint16_t number)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (s->disks[i]->number == number) {
            return s->disks[i];
        }
    }
    return NULL;
}

/* --- marks --- */

static int add_mark(WeirSource *s, const char *name, size_t bytes,
                    bool application_consistent)
{
    WeirLogRecord r = { .op = WEIR_LOG_MARK, .bytes = bytes };
    WeirPiece piece;
    WeirEpoch *next;
    int ret = weir_source_take(s, bytes, &piece);

    if (ret < 0) {
        return ret;
    }
    next = prepare_epoch(s);
    if (!next) {
        weir_source_give(s, bytes, &piece);
        return -ENOMEM;
    }
    memcpy(piece.data, name, bytes);
    r.crc = weir_log_data_crc(piece.data, bytes);
    weir_source_append(s, &r, &piece);
    s->open->application_consistent = application_consistent;
    switch_epoch(s, next);
    weir_source_changed(s);
    return 0;
}

int weir_source_mark(WeirSource *s, const char *name,
                     bool application_consistent, char *err, size_t err_size)
{
    size_t bytes = strlen(name);
    int ret;

    if (bytes == 0 || bytes > WEIR_LOG_MARK_BYTES_MAX) {
        snprintf(err, err_size, "the name of a mark has 1 to %d bytes, not "
                 "%zu", WEIR_LOG_MARK_BYTES_MAX, bytes);
        return -EINVAL;
    }
    pthread_mutex_lock(&s->lock);
    if (s->connected && !s->stops && weir_source_is_synchronised(s)) {
        ret = add_mark(s, name, bytes, application_consistent);
        if (ret < 0) {
            snprintf(err, err_size, "there is no memory for a mark at present");
            ret = -EAGAIN;
        }
    } else {
        snprintf(err, err_size, "there can be no mark while the replication "
                 "log %s", s->stopped ? "is none that can be gone on with" :
                 s->connected ? "is being synchronised" :
                 "is not connected");
        ret = -EAGAIN;
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

/* --- run --- */

void weir_source_lose_log(WeirSource *s)
{
    s->connected = false;
    weir_source_changed(s);
}

/* All that was written before stopping is durable, or cannot become so. */
static bool is_done(const WeirSource *s)
{
    return s->stops && (!s->connected ||
                        (s->oldest == s->open && s->open->count == 0 &&
                         !(s->wants_point && weir_source_is_synchronised(s))));
}

static void begin_tending(WeirSource *s)
{
    for (uint16_t i = 0; i < s->disk_count && !s->tending; i++) {
        if (s->disks[i]->intent) {
            s->tending = true;
            s->tasks->spawn(s->tasks->opaque, weir_source_tend_intents, s);
        }
    }
}

/* Nothing calls the host any more. */
static void wait_for_tasks(WeirSource *s)
{
    while (s->packets > 0 || s->sending || s->copiers > 0 || s->tending) {
        weir_source_wait(s, WEIR_TASKS_FOREVER);
    }
}

void weir_source_run(WeirSource *s)
{
    pthread_mutex_lock(&s->lock);
    while (!is_done(s)) {
        begin_tending(s);
        if (s->connected) {
            weir_source_send_next(s);
        } else {
            weir_source_queue_next(s);
        }
    }
    weir_source_lose_log(s);
    wait_for_tasks(s);
    weir_source_take_leave(s);
    pthread_mutex_unlock(&s->lock);
}

void weir_source_stop(WeirSource *s)
{
    pthread_mutex_lock(&s->lock);
    s->stops = true;
    weir_source_changed(s);
    s->tasks->wake(s->tasks->opaque, &s->stopping);
    pthread_mutex_unlock(&s->lock);
}

uint64_t weir_source_cut(WeirSource *s)
{
    uint64_t serial;

    pthread_mutex_lock(&s->lock);
    serial = s->open->serial;
    weir_source_hurry(s);
    pthread_mutex_unlock(&s->lock);
    return serial;
}

bool weir_source_is_sending(WeirSource *s, uint64_t serial)
{
    bool sending;

    pthread_mutex_lock(&s->lock);
    sending = s->connected && weir_source_is_synchronised(s) &&
              s->oldest->serial <= serial &&
              (s->oldest != s->open || s->open->count > 0);
    pthread_mutex_unlock(&s->lock);
    return sending;
}

void weir_source_end_session(WeirSource *s)
{
    pthread_mutex_lock(&s->lock);
    weir_source_lose_log(s);
    weir_source_drain(s);
    weir_source_take_leave(s);
    pthread_mutex_unlock(&s->lock);
}

void weir_source_disconnect(WeirSource *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->connected) {
        weir_source_lose_log(s);
    }
    pthread_mutex_unlock(&s->lock);
}

void weir_source_set_impatient(WeirSource *s, bool impatient)
{
    pthread_mutex_lock(&s->lock);
    s->impatient = impatient;
    weir_source_changed(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- info --- */

static uint64_t rate(const WeirSource *s, uint64_t now)
{
    uint64_t second = now / 1000000000, bytes = 0;

    /* the second that has not ended does not count */
    for (uint64_t i = 1; i < WEIR_SOURCE_RATE_SECONDS && i <= second; i++) {
        if (second - i <= s->rate_second &&
            s->rate_second - (second - i) < WEIR_SOURCE_RATE_SECONDS) {
            bytes += s->rate_bytes[(second - i) % WEIR_SOURCE_RATE_SECONDS];
        }
    }
    return bytes / (WEIR_SOURCE_RATE_SECONDS - 1);
}

static uint64_t rpo_ns(const WeirSource *s, uint64_t now)
{
    uint64_t since = s->behind_ns;

    for (const WeirEpoch *e = s->oldest; e; e = e->next) {
        if (e->count > 0) {
            since = since == 0 || e->begun_ns < since ? e->begun_ns : since;
            break;
        }
    }
    return since == 0 ? 0 : now > since ? now - since : 1;
}

static WeirSourceState state(const WeirSource *s)
{
    return s->stopped ? WEIR_SOURCE_STOPPED :
           !s->connected ? WEIR_SOURCE_DISCONNECTED :
           weir_source_is_synchronised(s) ? WEIR_SOURCE_STREAMING
                                          : WEIR_SOURCE_SYNCHRONISING;
}

void weir_source_info(WeirSource *s, WeirSourceInfo *info)
{
    uint64_t now;

    memset(info, 0, sizeof(*info));
    pthread_mutex_lock(&s->lock);
    now = weir_source_now(s);
    info->state = state(s);
    info->generation = s->sb.history_count == 0 ? 0 :
                       s->sb.history[s->sb.history_count - 1].number;
    info->epoch = s->durable.epoch;
    info->memory_bytes = weir_memory_used_bytes(s->memory);
    info->sent_bytes = s->sent_bytes;
    info->plain_bytes = s->plain_bytes;
    info->rate = rate(s, now);
    info->connections = s->connections;
    info->rpo_ns = rpo_ns(s, now);
    for (const WeirEpoch *e = s->oldest; e; e = e->next) {
        info->queued_bytes += e->bytes;
    }
    pthread_mutex_unlock(&s->lock);
}

void weir_source_disk_info(WeirSourceDisk *d, WeirSourceDiskInfo *info)
{
    WeirSource *s = d->source;

    pthread_mutex_lock(&s->lock);
    info->resync_bytes = weir_bitmap_dirty_bytes(&d->dirty);
    info->resync_total = info->resync_bytes == 0 ||
                         info->resync_bytes > d->resync_total
                         ? info->resync_bytes : d->resync_total;
    pthread_mutex_unlock(&s->lock);
}

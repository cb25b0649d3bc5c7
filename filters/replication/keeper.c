/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef WEIR_KEEPER_MUTATIONS
unsigned weir_keeper_mutation;
#endif

void weir_keeper_say(char *err, size_t err_size, const char *format, ...)
{
    va_list args;

    if (err && err_size > 0) {
        va_start(args, format);
        vsnprintf(err, err_size, format, args);
        va_end(args);
    }
}

void weir_keeper_changed(WeirKeeper *k)
{
    k->tasks->wake(k->tasks->opaque, &k->changed);
}

void weir_keeper_wait(WeirKeeper *k, uint64_t until_ns)
{
    k->tasks->wait(k->tasks->opaque, &k->lock, &k->changed, until_ns);
}

/* --- begin and end --- */

int weir_keeper_new(WeirKeeper **out, const WeirKeeperHost *host,
                    const WeirKeeperConfig *config)
{
    WeirKeeper *k = calloc(1, sizeof(*k));

    *out = k;
    if (!k) {
        return -ENOMEM;
    }
    k->host = host;
    k->tasks = host->tasks;
    k->config = *config;
    k->ceiling = UINT64_MAX;
    pthread_mutex_init(&k->lock, NULL);
    k->tasks->queue_init(k->tasks->opaque, &k->changed);
    return 0;
}

void weir_keeper_free(WeirKeeper *k)
{
    if (!k) {
        return;
    }
    while (k->arrived) {
        Arrived *next = k->arrived->next;

        weir_arrived_free(k->arrived);
        k->arrived = next;
    }
    weir_keeper_free_chapters(k);
    weir_index_destroy(&k->index);
    weir_decompressor_free(k->idle);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

int weir_keeper_add_base(WeirKeeper *k, const char *disk, void *base,
                         char *err, size_t err_size)
{
    size_t length = strlen(disk);

    if (length == 0 || length >= WEIR_LOG_NAME_BYTES) {
        weir_keeper_say(err, err_size, "the name of a disk has 1 to %d bytes",
                        WEIR_LOG_NAME_BYTES - 1);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < k->base_count; i++) {
        if (!strcmp(k->bases[i].disk, disk)) {
            weir_keeper_say(err, err_size, "disk '%s' has a base image already",
                            disk);
            return -EEXIST;
        }
    }
    if (k->base_count == WEIR_LOG_DISKS_MAX) {
        weir_keeper_say(err, err_size, "a replication log has %d disks at most",
                        WEIR_LOG_DISKS_MAX);
        return -ENOSPC;
    }
    strcpy(k->bases[k->base_count].disk, disk);
    k->bases[k->base_count++].host = base;
    return 0;
}

int weir_keeper_add_sidecar(WeirKeeper *k, uint64_t bytes, char *err,
                            size_t err_size)
{
    Base *base = &k->bases[k->base_count - 1];

    if (bytes < WEIR_SIDECAR_BLOCKS_OFFSET) {
        weir_keeper_say(err, err_size, "the sidecar of the base image of disk "
                        "'%s' has %llu bytes: it needs %llu and 2 MiB for "
                        "each TiB of the disk", base->disk,
                        (unsigned long long)bytes,
                        (unsigned long long)WEIR_SIDECAR_BLOCKS_OFFSET);
        return -ENOSPC;
    }
    base->sidecar_bytes = bytes;
    return 0;
}

Base *weir_keeper_base(WeirKeeper *k, const WeirLogDisk *what)
{
    for (uint32_t i = 0; i < k->base_count; i++) {
        if (!strcmp(k->bases[i].disk, what->name)) {
            return &k->bases[i];
        }
    }
    return NULL;
}

void weir_keeper_set_config(WeirKeeper *k, const WeirKeeperConfig *config)
{
    weir_keeper_lock(k);
    k->config = *config;
    k->budget_ns = 0;
    weir_keeper_changed(k);
    weir_keeper_unlock(k);
}

void weir_keeper_stop(WeirKeeper *k)
{
    weir_keeper_lock(k);
    k->stops = true;
    weir_keeper_changed(k);
    weir_keeper_unlock(k);
}

/* --- the superblock --- */

void weir_keeper_sb_begin(WeirKeeper *k)
{
    while (k->sb_busy) {
        weir_keeper_wait(k, WEIR_TASKS_FOREVER);
    }
    k->sb_busy = true;
}

void weir_keeper_sb_cancel(WeirKeeper *k)
{
    k->sb_busy = false;
    weir_keeper_changed(k);
}

static void set_uncertain(WeirKeeper *k, bool uncertain)
{
    if (k->sb_uncertain != uncertain) {
        k->sb_uncertain = uncertain;
        if (k->host->changed) {
            k->host->changed(k->host->opaque);
        }
    }
}

/*
 * One that failed may be on the device, or part of it: the copy that is good is
 * the other, and stays so until this one is.
 */
static uint64_t next_sequence(const WeirKeeper *k)
{
    return k->tried_sequence > k->sb.sequence ? k->tried_sequence + 2
                                              : k->sb.sequence + 1;
}

int weir_keeper_sb_end(WeirKeeper *k, const WeirLogSuperblock *next)
{
    WeirLogSuperblock sb = *next;
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];
    const struct iovec iov = { buf, sizeof(buf) };
    uint32_t era = k->era;
    int ret;

    sb.sequence = k->tried_sequence = next_sequence(k);
    weir_log_superblock_write(buf, &sb);
    weir_keeper_unlock(k);
    ret = k->host->write_log(k->host->opaque, sb.sequence %
                             WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES,
                             sizeof(buf), &iov, 1);
    weir_keeper_lock(k);
    if (WITHOUT_RULE(23) && ret == 0) {
        k->sb = sb;             /* its space is used before it is durable */
    }
    /* a flush of others that has failed since may have been about this too */
    ret = ret < 0 ? ret : era != k->era ? -EIO : weir_keeper_flush_locked(k);
    if (ret == 0) {
        k->sb = sb;
    }
    set_uncertain(k, ret < 0);
    weir_keeper_sb_cancel(k);
    return ret;
}

/* --- reading the log --- */

void weir_keeper_hold(WeirKeeper *k, LogRead *read, uint64_t position)
{
    read->position = position;
    read->next = k->reads;
    k->reads = read;
}

void weir_keeper_release(WeirKeeper *k, LogRead *read)
{
    LogRead **link = &k->reads;

    while (*link != read) {
        link = &(*link)->next;
    }
    *link = read->next;
    weir_keeper_changed(k);
}

static int read_at(WeirKeeper *k, uint64_t position, uint64_t bytes,
                   uint8_t *buf)
{
    return k->host->read_log(k->host->opaque, WEIR_LOG_RING_OFFSET +
                                              position % k->ring_bytes,
                             bytes, buf);
}

WeirDecompressor *weir_keeper_take_decompressor(WeirKeeper *k)
{
    WeirDecompressor *d;

    weir_keeper_lock(k);
    d = k->idle;
    k->idle = NULL;
    weir_keeper_unlock(k);
    return d ? d : weir_decompressor_new();
}

void weir_keeper_give_decompressor(WeirKeeper *k, WeirDecompressor *d)
{
    weir_keeper_lock(k);
    if (!k->idle) {
        k->idle = d;
        d = NULL;
    }
    weir_keeper_unlock(k);
    weir_decompressor_free(d);
}

static int read_packed(WeirKeeper *k, uint64_t position, uint32_t packed_bytes,
                       uint64_t bytes, uint8_t *buf)
{
    uint8_t *packed = malloc(packed_bytes);
    WeirDecompressor *d = weir_keeper_take_decompressor(k);
    int ret = packed && d ? read_at(k, position, packed_bytes, packed)
                          : -ENOMEM;

    ret = ret < 0 ? ret : weir_decompress(d, packed, packed_bytes, buf, bytes);
    weir_keeper_give_decompressor(k, d);
    free(packed);
    return ret;
}

int weir_keeper_fetch(WeirKeeper *k, uint64_t position,
                      uint32_t packed_sectors, uint64_t bytes, uint32_t crc,
                      uint8_t *buf)
{
    int ret = packed_sectors > 0
              ? read_packed(k, position, packed_sectors *
                            WEIR_LOG_DATA_ALIGN_BYTES, bytes, buf)
              : read_at(k, position, bytes, buf);

    return ret < 0 ? ret : weir_log_data_crc(buf, bytes) == crc ||
                           WITHOUT_RULE(24) ? 0 : -EBADMSG;
}

bool weir_record_extent(const WeirIndexRecord *r, uint64_t epoch,
                        uint64_t *old_bytes, WeirExtent *extent)
{
    *extent = (WeirExtent) { .offset = r->offset, .bytes = r->bytes,
                             .epoch = epoch };
    switch (r->op) {
    case WEIR_LOG_WRITE:
        extent->kind = WEIR_EXTENT_DATA;
        extent->position = r->position;
        extent->record_bytes = (uint32_t)r->bytes;
        extent->packed_sectors = r->packed_sectors;
        extent->crc = r->crc;
        return true;
    case WEIR_LOG_ZERO:
        extent->kind = WEIR_EXTENT_ZERO;
        return true;
    case WEIR_LOG_DISCARD:
        extent->kind = WEIR_EXTENT_DISCARD;
        return true;
    case WEIR_LOG_RESIZE:       /* what was cut off, or is new, is zeroes */
        extent->kind = WEIR_EXTENT_ZERO;
        extent->offset = r->bytes < *old_bytes ? r->bytes : *old_bytes;
        extent->bytes = (r->bytes > *old_bytes ? r->bytes : *old_bytes) -
                        extent->offset;
        *old_bytes = r->bytes;
        return extent->bytes > 0;
    default:                    /* DISK */
        *old_bytes = r->bytes;
        return false;
    }
}

/* --- points --- */

static bool anchor_is_point(const WeirKeeper *k)
{
    return k->sb.anchor.epoch > 0 && !k->sb.base_incomplete &&
           k->horizon <= k->sb.anchor.epoch;
}

bool weir_keeper_is_point(WeirKeeper *k, uint64_t epoch)
{
    const WeirIndexEpoch *e = weir_index_get(&k->index, epoch);

    if (epoch == k->sb.anchor.epoch) {
        return anchor_is_point(k);
    }
    return e && e->consistent && epoch <= k->ceiling &&
           epoch <= k->durable.epoch && epoch >= k->horizon;
}

uint64_t weir_keeper_last_point(WeirKeeper *k)
{
    for (uint64_t e = k->durable.epoch; e >= k->horizon && e > 0; e--) {
        if (weir_keeper_is_point(k, e)) {
            return e;
        }
    }
    return 0;
}

WeirLogCommit weir_keeper_commit_of(WeirKeeper *k, uint64_t epoch)
{
    const WeirIndexEpoch *e = weir_index_get(&k->index, epoch);

    return e ? e->commit : k->sb.anchor;
}

/* --- what is told --- */

static uint64_t count_points(WeirKeeper *k)
{
    uint64_t n = 0;

    for (uint64_t e = k->durable.epoch; e >= k->horizon && e > 0; e--) {
        n += weir_keeper_is_point(k, e);
    }
    return n;
}

static uint32_t count_disks(const WeirKeeper *k)
{
    uint32_t n = 0;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        n += k->disks[i].known;
    }
    return n;
}

static uint64_t used_bytes(const WeirKeeper *k)
{
    uint64_t end = k->cursor.position > k->valid.end ? k->cursor.position
                                                     : k->valid.end;

    return end - k->sb.tail;
}

void weir_keeper_info(WeirKeeper *k, WeirKeeperInfo *info)
{
    memset(info, 0, sizeof(*info));
    weir_keeper_lock(k);
    memcpy(info->group, k->sb.group, sizeof(info->group));
    info->generation = k->sb.history[k->sb.history_count - 1].number;
    info->epoch = k->valid.epoch;
    info->durable_epoch = k->durable.epoch;
    info->applied_epoch = k->applied;
    info->point_epoch = weir_keeper_last_point(k);
    info->points = count_points(k);
    info->size_bytes = weir_log_ring_bytes(&k->sb);
    info->used_bytes = used_bytes(k);
    info->index_bytes = weir_keeper_memory(k) + k->arrived_bytes;
    info->records = k->index.records;
    info->refused = k->refused;
    info->lost_epoch = k->lost_epoch > k->valid.epoch ? k->lost_epoch : 0;
    info->applied_bytes = k->applied_bytes;
    info->chapters = (uint32_t)k->chapter_count;
    info->chapters_rebuilt = k->chapters_rebuilt;
    info->views = k->view_count;
    info->disks = count_disks(k);
    info->apply = k->apply;
    info->apply_error = k->apply_error;
    weir_keeper_unlock(k);
}

static const char *held(const WeirKeeper *k)
{
    return k->apply == WEIR_KEEPER_HELD_BY_RESYNC
           ? "the log is full of a synchronisation that has not ended, and the "
             "last point in time must stay usable: it needs a larger log" :
           k->apply == WEIR_KEEPER_HELD_BY_VIEW
           ? "the log is full, and a point in time that is open keeps older "
             "epochs from being applied" :
           k->apply == WEIR_KEEPER_NO_BASE && k->base_count > 0
           ? "there is no base image for one of the disks" : NULL;
}

WeirKeeperState weir_keeper_state(WeirKeeper *k, char *reason)
{
    WeirKeeperState state = WEIR_KEEPER_DEGRADED;

    weir_keeper_lock(k);
    reason[0] = 0;
    if (k->sb_uncertain) {
        state = WEIR_KEEPER_FAILED;
        weir_keeper_say(reason, WEIR_KEEPER_MESSAGE_BYTES,
                        "the superblock of the log cannot be written");
    } else if (k->lost_epoch > k->valid.epoch) {
        weir_keeper_say(reason, WEIR_KEEPER_MESSAGE_BYTES, "the log is damaged "
                        "behind epoch %llu: what was there up to epoch %llu is "
                        "lost", (unsigned long long)k->valid.epoch,
                        (unsigned long long)k->lost_epoch);
    } else if (k->write_error || k->flush_error) {
        weir_keeper_say(reason, WEIR_KEEPER_MESSAGE_BYTES, "the replication "
                        "log cannot be written: %s",
                        strerror(-(k->write_error ? k->write_error
                                                  : k->flush_error)));
    } else if (k->apply_error) {
        weir_keeper_say(reason, WEIR_KEEPER_MESSAGE_BYTES, "%s",
                        k->apply_message);
    } else if (held(k)) {
        weir_keeper_say(reason, WEIR_KEEPER_MESSAGE_BYTES, "%s", held(k));
    } else {
        state = WEIR_KEEPER_OK;
    }
    weir_keeper_unlock(k);
    return state;
}

static WeirKeeperSidecar sidecar_of(const Base *base)
{
    return !base || base->sidecar_bytes == 0 ? WEIR_KEEPER_SIDECAR_NONE :
           base->sidecar_failed ? WEIR_KEEPER_SIDECAR_FAILED :
           base->promoted ? WEIR_KEEPER_SIDECAR_DISK
                          : WEIR_KEEPER_SIDECAR_BASE;
}

bool weir_keeper_disk(WeirKeeper *k, uint16_t number, WeirKeeperDisk *disk)
{
    const KnownDisk *known;
    bool found;

    if (number >= WEIR_LOG_DISKS_MAX) {
        return false;
    }
    weir_keeper_lock(k);
    known = &k->disks[number];
    found = known->known;
    if (found) {
        const Base *base = weir_keeper_base(k, &known->what);

        *disk = (WeirKeeperDisk) { known->what, known->bytes,
                                   base ? base->host : NULL,
                                   sidecar_of(base) };
    }
    weir_keeper_unlock(k);
    return found;
}

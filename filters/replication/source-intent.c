/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sidecar of a disk, in use: a region's bit is durable before the first
 * write to the region, and cleared when all of that is durable in the log and
 * on the disk.
 */
#include "replication/source-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"
#include "replication/sidecar-bits.h"

#define SECTOR WEIR_SIDECAR_SECTOR_BYTES
#define BITS WEIR_SIDECAR_BITS_BYTES
#ifndef WEIR_SOURCE_TEND_NS             /* tests have less */
#define WEIR_SOURCE_TEND_NS 1000000000
#endif

typedef struct Region {
    uint64_t serial;            /* epoch that what was written last is in */
    uint32_t writes;            /* under way */
    bool touched;               /* since it was looked at */
} Region;

struct WeirIntent {
    WeirSidecar header;         /* the newest that was written */
    uint64_t bytes;             /* of the device */
    WeirBitmap dirty;           /* while it is opened: what it says */
    bool knows_nothing;         /* of a log, or of the disk */
    bool updating;              /* somebody writes to it */
    uint64_t regions;
    uint32_t sectors;           /* of regions */
    Region *region;
    uint8_t *want;              /* [sector]: bits as they should be there */
    uint8_t *safe;              /* that are set there for good */
    uint8_t *written;           /* as they are being written */
    bool *changed;              /* [sector]: it is not as wanted */
};

/* --- bits --- */

static bool get(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void want(WeirIntent *it, uint64_t i, bool bit)
{
    it->want[i / 8] = (uint8_t)((it->want[i / 8] & ~(1u << i % 8)) |
                                (unsigned)bit << i % 8);
    it->changed[i / WEIR_SIDECAR_SECTOR_BITS] = true;
}

static uint64_t first_region(const WeirIntent *it, uint64_t offset)
{
    return offset / it->header.region_bytes;
}

static uint64_t end_region(const WeirIntent *it, uint64_t offset,
                           uint64_t bytes)
{
    uint64_t end = weir_sidecar_count(offset + bytes, it->header.region_bytes);

    return end < it->regions ? end : it->regions;
}

/* --- the device --- */

/* One at a time. Yields. */
static void begin_update(WeirSourceDisk *d)
{
    WeirSource *s = d->source;

    d->users++;
    while (d->intent->updating) {
        s->tasks->wait(s->tasks->opaque, &s->lock, &d->queue,
                       WEIR_TASKS_FOREVER);
    }
    d->intent->updating = true;
}

static void end_update(WeirSourceDisk *d)
{
    WeirSource *s = d->source;

    d->intent->updating = false;
    d->users--;
    s->tasks->wake(s->tasks->opaque, &d->queue);
    weir_source_changed(s);
}

static int write_at(WeirSourceDisk *d, uint64_t offset, const uint8_t *buf)
{
    WeirSource *s = d->source;
    int ret;

    pthread_mutex_unlock(&s->lock);
    ret = s->host->write_sidecar(d->host, offset, SECTOR, buf);
    pthread_mutex_lock(&s->lock);
    return ret;
}

static int flush(WeirSourceDisk *d)
{
    WeirSource *s = d->source;
    int ret;

    pthread_mutex_unlock(&s->lock);
    ret = s->host->flush_sidecar(d->host);
    pthread_mutex_lock(&s->lock);
    return ret;
}

/* All changes of `header`, as a new one. */
static int write_header(WeirSourceDisk *d)
{
    uint8_t buf[WEIR_SIDECAR_HEADER_BYTES];
    WeirSidecar *h = &d->intent->header;
    int ret;

    h->sequence++;
    weir_sidecar_write(buf, h);
    ret = write_at(d, h->sequence % WEIR_SIDECAR_HEADERS *
                      WEIR_SIDECAR_HEADER_BYTES, buf);
    return ret < 0 ? ret : flush(d);
}

static int write_sector(WeirSourceDisk *d, uint32_t i)
{
    WeirIntent *it = d->intent;
    uint8_t buf[SECTOR];
    int ret;

    it->changed[i] = false;
    memcpy(it->written + i * BITS, it->want + i * BITS, BITS);
    /* until it is there, and flushed, neither bit may be */
    for (uint32_t at = i * BITS; at < (i + 1) * BITS; at++) {
        it->safe[at] &= it->written[at];
    }
    weir_sidecar_bits_write(buf, &it->header, WEIR_SIDECAR_REGIONS, i,
                            it->written + i * BITS);
    ret = write_at(d, WEIR_SIDECAR_REGIONS_OFFSET + (uint64_t)i * SECTOR, buf);
    if (ret < 0) {
        it->changed[i] = true;
    }
    return ret;
}

/* Make the regions on the device what they should be. */
static int write_regions(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;
    uint8_t *wrote = calloc(it->sectors + 1, 1);
    int ret = wrote ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < it->sectors && ret == 0; i++) {
        if (it->changed[i]) {
            wrote[i] = 1;
            ret = write_sector(d, i);
        }
    }
    if (ret == 0 && !WEIR_SOURCE_WITHOUT(1)) {
        ret = flush(d);
    }
    for (uint32_t i = 0; wrote && i < it->sectors; i++) {
        if (wrote[i] && ret == 0) {
            memcpy(it->safe + i * BITS, it->written + i * BITS, BITS);
        } else if (wrote[i]) {
            it->changed[i] = true;
        }
    }
    free(wrote);
    return ret;
}

/* --- requests --- */

static bool all_safe(const WeirIntent *it, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++) {
        if (!get(it->safe, i)) {
            return false;
        }
    }
    return true;
}

int weir_source_intent_begin(WeirSourceDisk *d, uint64_t offset,
                             uint64_t bytes)
{
    WeirIntent *it = d->intent;
    uint64_t first, end;
    int ret = 0;

    if (!it) {
        return 0;
    }
    first = first_region(it, offset);
    end = end_region(it, offset, bytes);
    for (uint64_t i = first; i < end; i++) {
        it->region[i].writes++;
        it->region[i].touched = true;
    }
    while (!all_safe(it, first, end) && ret == 0) {
        begin_update(d);
        for (uint64_t i = first; i < end; i++) {
            if (!get(it->want, i)) {
                want(it, i, true);
            }
        }
        ret = all_safe(it, first, end) ? 0 : write_regions(d);
        end_update(d);
    }
    for (uint64_t i = first; i < end && ret < 0; i++) {
        it->region[i].writes--;
    }
    return ret;
}

void weir_source_intent_touch(WeirSourceDisk *d, uint64_t offset,
                              uint64_t bytes)
{
    WeirIntent *it = d->intent;

    for (uint64_t i = it ? first_region(it, offset) : 0;
         it && i < end_region(it, offset, bytes); i++) {
        it->region[i].serial = d->source->open->serial;
        it->region[i].touched = true;
    }
}

void weir_source_intent_end(WeirSourceDisk *d, uint64_t offset, uint64_t bytes)
{
    WeirIntent *it = d->intent;

    weir_source_intent_touch(d, offset, bytes);
    for (uint64_t i = it ? first_region(it, offset) : 0;
         it && i < end_region(it, offset, bytes); i++) {
        it->region[i].writes--;
    }
}

/* --- clearing --- */

/* All that was written to a region is durable in the log. */
static bool is_idle(const WeirSourceDisk *d, uint64_t i)
{
    const WeirIntent *it = d->intent;
    uint64_t offset = i * it->header.region_bytes, bytes;

    if (!get(it->want, i) || it->region[i].writes > 0 || offset >= d->bytes) {
        return false;
    }
    bytes = d->bytes - offset < it->header.region_bytes
            ? d->bytes - offset : it->header.region_bytes;
    return (WEIR_SOURCE_WITHOUT(2) ||
            it->region[i].serial < d->source->oldest->serial) &&
           !weir_bitmap_any(&d->dirty, offset, bytes);
}

/* Look at all that are set; those that are not touched after that stay idle. */
static uint64_t find_idle(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;
    uint64_t idle = 0;

    for (uint64_t i = 0; i < it->regions; i++) {
        if (i % 8 == 0 && it->want[i / 8] == 0) {
            i += 7;
        } else if (is_idle(d, i)) {
            it->region[i].touched = false;
            idle++;
        }
    }
    return idle;
}

static int flush_disk(WeirSourceDisk *d)
{
    WeirSource *s = d->source;
    int ret;

    if (WEIR_SOURCE_WITHOUT(7)) {
        return 0;
    }
    pthread_mutex_unlock(&s->lock);
    ret = s->host->flush_disk(d->host);
    pthread_mutex_lock(&s->lock);
    return ret;
}

/* The log has all of them up to here; so it must say when they are cleared. */
static int write_durable(WeirSourceDisk *d)
{
    d->intent->header.durable = d->source->durable;
    return write_header(d);
}

static void clear_idle(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;

    if (d->abandoned || find_idle(d) == 0 || flush_disk(d) < 0 ||
        write_durable(d) < 0) {
        return;
    }
    for (uint64_t i = 0; i < it->regions; i++) {
        if (!it->region[i].touched && is_idle(d, i)) {
            want(it, i, false);
        }
    }
    /* one that is not written stays set there, which does no harm */
    write_regions(d);
}

/* In a session, which the sidecar knows. */
static void tend(WeirSource *s)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        WeirSourceDisk *d = s->disks[i];

        if (s->connected && d->intent && d->judged && !d->closing) {
            begin_update(d);
            clear_idle(d);
            end_update(d);
        }
    }
}

void weir_source_tend_intents(void *arg)
{
    WeirSource *s = arg;
    uint64_t next;

    pthread_mutex_lock(&s->lock);
    next = weir_source_now(s) + WEIR_SOURCE_TEND_NS;
    while (!s->stops) {
        if (weir_source_now(s) < next) {
            s->tasks->wait(s->tasks->opaque, &s->lock, &s->stopping, next);
            continue;
        }
        tend(s);
        next = weir_source_now(s) + WEIR_SOURCE_TEND_NS;
    }
    s->tending = false;
    weir_source_changed(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- memory --- */

static void free_intent(WeirIntent *it)
{
    if (it) {
        weir_bitmap_destroy(&it->dirty);
        free(it->region);
        free(it->want);
        free(it->safe);
        free(it->written);
        free(it->changed);
        free(it);
    }
}

void weir_source_intent_free(WeirSourceDisk *d)
{
    free_intent(d->intent);
    d->intent = NULL;
}

static int grow_array(void **array, size_t had, size_t has)
{
    uint8_t *more = realloc(*array, has ? has : 1);

    if (!more) {
        return -ENOMEM;
    }
    if (has > had) {
        memset(more + had, 0, has - had);
    }
    *array = more;
    return 0;
}

/* For a disk that is so long; it never gets smaller. */
static int make_room(WeirIntent *it, uint64_t disk_bytes)
{
    uint64_t regions = weir_sidecar_count(disk_bytes,
                                          it->header.region_bytes);
    uint64_t sectors = weir_sidecar_sectors(regions);

    if (sectors > WEIR_SIDECAR_REGION_SECTORS_MAX) {
        return -EFBIG;
    }
    if (regions <= it->regions) {
        return 0;
    }
    if (grow_array((void **)&it->region, it->regions * sizeof(*it->region),
                   regions * sizeof(*it->region)) < 0 ||
        grow_array((void **)&it->want, it->sectors * BITS,
                   sectors * BITS) < 0 ||
        grow_array((void **)&it->safe, it->sectors * BITS,
                   sectors * BITS) < 0 ||
        grow_array((void **)&it->written, it->sectors * BITS,
                   sectors * BITS) < 0 ||
        grow_array((void **)&it->changed, it->sectors, sectors) < 0) {
        return -ENOMEM;
    }
    it->regions = regions;
    it->sectors = (uint32_t)sectors;
    return 0;
}

/* --- opening --- */

uint64_t weir_source_sidecar_bytes(uint64_t disk_bytes)
{
    return weir_sidecar_bytes(disk_bytes);
}

static int read_at(void *disk, uint64_t offset, uint64_t bytes, void *buf)
{
    WeirSourceDisk *d = disk;

    return d->source->host->read_sidecar(d->host, offset, bytes, buf);
}

/* One that is new, or whose contents tell nothing. */
static void make_new(WeirSourceDisk *d, WeirIntent *it)
{
    WeirSource *s = d->source;
    uint64_t sequence = it->header.sequence;

    memset(&it->header, 0, sizeof(it->header));
    it->header.sequence = sequence;
    it->header.instance = s->tasks->random(s->tasks->opaque);
    it->header.disk = d->what;
    it->header.disk_bytes = d->bytes;
    it->header.region_bytes = weir_sidecar_region_bytes(d->bytes);
    it->knows_nothing = true;
}

/* The newest header. Returns 0: it is of this disk, or of none yet. */
static int read_header(WeirSourceDisk *d, WeirIntent *it, char *err,
                       size_t err_size)
{
    uint8_t copies[WEIR_SIDECAR_HEADERS * WEIR_SIDECAR_HEADER_BYTES];
    int ret = read_at(d, 0, sizeof(copies), copies);

    if (ret < 0) {
        snprintf(err, err_size, "the sidecar cannot be read: %s",
                 strerror(-ret));
        return ret;
    }
    ret = weir_sidecar_read(&it->header, copies, err, err_size);
    if (ret == -ENOENT || ret == -EBADMSG) {
        make_new(d, it);
        return 0;
    }
    if (ret == 0 && strcmp(it->header.disk.name, d->what.name)) {
        snprintf(err, err_size, "the sidecar is of disk '%s', not of '%s'",
                 it->header.disk.name, d->what.name);
        return -EINVAL;
    }
    if (ret == 0 && it->header.base && it->header.generation.number == 0) {
        snprintf(err, err_size, "the sidecar is that of a base image: no "
                 "replica was promoted that would have made it a disk");
        return -EINVAL;
    }
    if (ret == 0 && it->header.disk_bytes != d->bytes) {
        make_new(d, it);
    }
    return ret;
}

/* The blocks that it says are dirty. */
static int read_dirty(WeirSourceDisk *d, WeirIntent *it)
{
    const WeirSidecarDevice device = { .opaque = d, .read = read_at };
    int ret = weir_bitmap_init(&it->dirty, d->bytes);

    if (ret == 0 && it->knows_nothing) {
        weir_bitmap_mark(&it->dirty, 0, d->bytes);
        return 0;
    }
    return ret < 0 ? ret : weir_sidecar_dirty(&device, &it->header,
                                              &it->dirty);
}

/* Each region that has a dirty block, and no other. */
static void want_dirty(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;

    for (uint64_t i = 0; i < it->regions; i++) {
        uint64_t offset = i * it->header.region_bytes;
        uint64_t bytes = d->bytes - offset < it->header.region_bytes
                         ? d->bytes - offset : it->header.region_bytes;

        want(it, i, weir_bitmap_any(&d->dirty, offset, bytes));
    }
    for (uint32_t i = 0; i < it->sectors; i++) {
        it->changed[i] = true;
    }
}

/* The regions first: by them it goes on once the header is not clean. */
static int take_over(WeirSourceDisk *d)
{
    int ret;

    want_dirty(d);
    ret = write_regions(d);
    if (ret == 0) {
        d->intent->header.clean = false;
        d->intent->header.base = false;
        d->intent->header.block_sectors = 0;
        ret = write_header(d);
    }
    return ret;
}

static int load(WeirSourceDisk *d, WeirIntent *it, char *err, size_t err_size)
{
    int ret = read_header(d, it, err, err_size);

    if (ret < 0) {
        return ret;
    }
    ret = make_room(it, d->bytes);
    ret = ret < 0 ? ret : read_dirty(d, it);
    if (ret < 0) {
        snprintf(err, err_size, "the sidecar cannot be read: %s",
                 strerror(-ret));
    }
    return ret;
}

/* What is known of the disk now is taken as its state. */
static int use(WeirSourceDisk *d, WeirIntent *it, char *err, size_t err_size)
{
    WeirSource *s = d->source;
    int ret;

    pthread_mutex_lock(&s->lock);
    d->intent = it;
    if (!it->knows_nothing) {
        d->what = it->header.disk;
    }
    weir_bitmap_destroy(&d->dirty);
    d->dirty = it->dirty;
    memset(&it->dirty, 0, sizeof(it->dirty));
    it->updating = true;
    d->users++;
    ret = take_over(d);
    end_update(d);
    if (ret < 0) {
        snprintf(err, err_size, "the sidecar cannot be written: %s",
                 strerror(-ret));
        weir_bitmap_mark(&d->dirty, 0, d->bytes);
        d->intent = NULL;
    } else {
        d->coming = false;
        if (s->connections == 0) {
            s->marking = false;
            s->marking = !weir_source_is_synchronised(s);
            s->behind_ns = s->marking ? s->behind_ns : 0;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

int weir_source_open_sidecar(WeirSourceDisk *d, uint64_t bytes, char *err,
                             size_t err_size)
{
    WeirIntent *it;
    int ret;

    if (bytes < WEIR_SIDECAR_BLOCKS_OFFSET) {
        snprintf(err, err_size, "the sidecar has %llu bytes, %llu are needed",
                 (unsigned long long)bytes,
                 (unsigned long long)weir_source_sidecar_bytes(d->bytes));
        return -ENOSPC;
    }
    it = calloc(1, sizeof(*it));
    if (!it) {
        snprintf(err, err_size, "there is no memory for the sidecar");
        return -ENOMEM;
    }
    it->bytes = bytes;
    ret = load(d, it, err, err_size);
    ret = ret < 0 ? ret : use(d, it, err, err_size);
    if (ret < 0) {
        free_intent(it);
    }
    return ret;
}

/* --- sessions --- */

int weir_source_intent_session(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                               const WeirLogCommit *end, uint64_t session)
{
    WeirSidecar *h = &d->intent->header;
    int ret;

    begin_update(d);
    if (memcmp(h->group, sb->group, sizeof(h->group))) {
        memset(h->lives, 0, sizeof(h->lives));
    }
    if (h->lives[0] != session >> 32) {
        memmove(h->lives + 1, h->lives, sizeof(h->lives) - sizeof(*h->lives));
        h->lives[0] = (uint32_t)(session >> 32);
    }
    memcpy(h->group, sb->group, sizeof(h->group));
    h->generation = sb->history[sb->history_count - 1];
    h->disk = d->what;
    h->durable = *end;
    memset(&h->parent, 0, sizeof(h->parent));
    memset(&h->until, 0, sizeof(h->until));
    h->writer = 0;
    ret = write_header(d);
    if (ret == 0) {
        d->intent->knows_nothing = false;
    }
    end_update(d);
    return ret;
}

const WeirSidecar *weir_source_intent_known(const WeirSourceDisk *d)
{
    return d->intent->knows_nothing ? NULL : &d->intent->header;
}

int weir_source_intent_keep_dirty(WeirSourceDisk *d)
{
    WeirSource *s = d->source;
    WeirIntent *it = d->intent;
    int ret;

    for (WeirEpoch *e = s->oldest; e; e = e->next) {
        e->consistent = false;          /* it began with what is not there */
    }
    s->promised = false;
    s->wants_point = true;              /* also if nothing is to copy */
    begin_update(d);
    for (uint64_t i = 0; i < it->regions; i++) {
        uint64_t offset = i * it->header.region_bytes;

        if (offset < d->bytes &&
            weir_bitmap_any(&d->dirty, offset,
                            d->bytes - offset < it->header.region_bytes
                            ? d->bytes - offset : it->header.region_bytes)) {
            want(it, i, true);
        }
    }
    ret = WEIR_SOURCE_WITHOUT(14) ? 0 : write_regions(d);
    end_update(d);
    return ret;
}

/* --- length --- */

int weir_source_intent_prepare(WeirSourceDisk *d, uint64_t bytes)
{
    int ret;

    if (!d->intent) {
        return 0;
    }
    begin_update(d);
    ret = make_room(d->intent, bytes);
    end_update(d);
    return ret;
}

void weir_source_intent_resize(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;

    if (!it) {
        return;
    }
    begin_update(d);
    /* if it fails, all is copied at the next start: the length does not fit */
    it->header.disk_bytes = d->bytes;
    write_header(d);
    end_update(d);
}

/* --- closing --- */

int weir_source_intent_abandon(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;
    int ret;

    begin_update(d);
    for (uint64_t i = 0; i < it->regions; i++) {
        want(it, i, true);
    }
    ret = write_regions(d);
    d->abandoned = ret == 0;
    end_update(d);
    return ret;
}

static void put_bits(const WeirSourceDisk *d, uint64_t first, uint8_t *bits)
{
    memset(bits, 0, BITS);
    for (uint64_t i = 0; i < WEIR_SIDECAR_SECTOR_BITS; i++) {
        uint64_t offset = (first + i) * WEIR_BITMAP_BLOCK_BYTES;

        if (offset >= d->bytes) {
            break;
        }
        bits[i / 8] |= (uint8_t)(weir_bitmap_any(&d->dirty, offset, 1)
                                 << i % 8);
    }
}

static int write_blocks(WeirSourceDisk *d, uint32_t sectors)
{
    WeirSidecar next = d->intent->header;
    uint8_t buf[SECTOR], bits[BITS];
    int ret = 0;

    next.sequence++;
    for (uint32_t i = 0; i < sectors && ret == 0; i++) {
        put_bits(d, (uint64_t)i * WEIR_SIDECAR_SECTOR_BITS, bits);
        weir_sidecar_bits_write(buf, &next, WEIR_SIDECAR_BLOCKS, i, bits);
        ret = write_at(d, WEIR_SIDECAR_BLOCKS_OFFSET + (uint64_t)i * SECTOR,
                       buf);
    }
    return ret < 0 ? ret : flush(d);
}

static int write_clean(WeirSourceDisk *d)
{
    WeirIntent *it = d->intent;
    uint64_t sectors = weir_sidecar_sectors(
        weir_sidecar_count(d->bytes, WEIR_BITMAP_BLOCK_BYTES));
    int ret = flush_disk(d);

    if (ret < 0 || it->knows_nothing ||
        it->bytes < weir_source_sidecar_bytes(d->bytes)) {
        return ret;
    }
    ret = write_blocks(d, (uint32_t)sectors);
    if (ret < 0) {
        return ret;
    }
    it->header.clean = true;
    it->header.block_sectors = (uint32_t)sectors;
    it->header.disk_bytes = d->bytes;
    if (d->judged) {
        it->header.durable = d->source->durable;
    }
    return write_header(d);
}

int weir_source_intent_close(WeirSourceDisk *d)
{
    int ret;

    begin_update(d);
    ret = write_clean(d);
    end_update(d);
    return ret;
}

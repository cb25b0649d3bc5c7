/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sidecars of base images: they say nothing while the image is one, and at a
 * promotion what the old source may have too much.
 * (docs/weir-replication-sidecar.md, "Beside a base image")
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"
#include "replication/sidecar-bits.h"

int weir_keeper_read_sidecar(const WeirKeeperHost *host, void *base,
                             WeirSidecar *sidecar, char *err, size_t err_size)
{
    uint8_t copies[WEIR_SIDECAR_HEADERS * WEIR_SIDECAR_HEADER_BYTES];
    int ret = host->read_sidecar(base, 0, sizeof(copies), copies);

    memset(sidecar, 0, sizeof(*sidecar));
    if (ret < 0) {
        weir_keeper_say(err, err_size, "a sidecar cannot be read: %s",
                        strerror(-ret));
        return ret;
    }
    return weir_sidecar_read(sidecar, copies, err, err_size);
}

/* --- of a base --- */

/* All copies: what it was is not to come back. */
static int write_headers(const WeirKeeperHost *host, void *base,
                         WeirSidecar *sidecar)
{
    uint8_t buf[WEIR_SIDECAR_HEADER_BYTES];
    int ret = 0;

    for (int i = 0; i < WEIR_SIDECAR_HEADERS && ret == 0; i++) {
        sidecar->sequence++;
        weir_sidecar_write(buf, sidecar);
        ret = host->write_sidecar(base, sidecar->sequence %
                                  WEIR_SIDECAR_HEADERS *
                                  WEIR_SIDECAR_HEADER_BYTES, sizeof(buf), buf);
        ret = ret < 0 ? ret : host->flush_sidecar(base);
    }
    return ret;
}

int weir_keeper_make_base(const WeirKeeperHost *host,
                          const WeirKeeperImage *image, const uint8_t *group)
{
    WeirSidecar old, sidecar = { .base = true };
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    int ret = weir_keeper_read_sidecar(host, image->base, &old, err,
                                       sizeof(err));
    int64_t bytes = host->length_base(image->base);

    if (ret < 0 && ret != -ENOENT && ret != -EBADMSG) {
        return ret;
    }
    if (bytes < 0) {
        return (int)bytes;
    }
    sidecar.sequence = old.sequence;
    sidecar.instance = host->tasks->random(host->tasks->opaque);
    memcpy(sidecar.group, group, sizeof(sidecar.group));
    strcpy(sidecar.disk.name, image->disk);
    sidecar.disk_bytes = (uint64_t)bytes;
    sidecar.region_bytes = weir_sidecar_region_bytes(sidecar.disk_bytes);
    return write_headers(host, image->base, &sidecar);
}

/* --- with a log that is there --- */

static int refuse(const Base *base, char *err, size_t err_size)
{
    weir_keeper_say(err, err_size, "the sidecar of the base image of disk '%s' "
                    "is not that of a base of this log: what is in the image "
                    "may have been written to by somebody else", base->disk);
    return -ESTALE;
}

static bool is_in_history(const WeirLogSuperblock *sb,
                          const WeirLogGeneration *g)
{
    for (uint32_t i = 0; i < sb->history_count; i++) {
        if (!memcmp(sb->history[i].uuid, g->uuid, sizeof(g->uuid))) {
            return true;
        }
    }
    return false;
}

static int check_sidecar(WeirKeeper *k, Base *base, char *err,
                         size_t err_size)
{
    const WeirKeeperImage image = { base->disk, base->host,
                                    base->sidecar_bytes };
    WeirSidecar sidecar;
    int ret = weir_keeper_read_sidecar(k->host, base->host, &sidecar, err,
                                       err_size);

    if (ret == -ENOENT || ret == -EBADMSG) {
        ret = weir_keeper_make_base(k->host, &image, k->sb.group);
        if (ret < 0) {
            weir_keeper_say(err, err_size, "the sidecar of the base image of "
                            "disk '%s' cannot be written: %s", base->disk,
                            strerror(-ret));
        }
        return ret;
    }
    if (ret < 0) {
        return ret;
    }
    if (!sidecar.base || strcmp(sidecar.disk.name, base->disk) ||
        memcmp(sidecar.group, k->sb.group, sizeof(sidecar.group))) {
        return refuse(base, err, err_size);
    }
    base->promoted = is_in_history(&k->sb, &sidecar.generation);
    return 0;
}

int weir_keeper_check_sidecars(WeirKeeper *k, char *err, size_t err_size)
{
    int ret = 0;

    for (uint32_t i = 0; i < k->base_count && ret == 0; i++) {
        if (k->bases[i].sidecar_bytes > 0) {
            ret = check_sidecar(k, &k->bases[i], err, err_size);
        }
    }
    return ret;
}

/* --- promotion --- */

/* What is dropped of one disk. */
typedef struct Dropped {
    uint16_t number;
    uint64_t bytes;             /* of the disk at the point */
    bool known;                 /* it was there then */
    WeirBitmap dirty;
} Dropped;

static void mark(WeirBitmap *dirty, uint64_t offset, uint64_t bytes)
{
    uint64_t left = offset < dirty->disk_bytes ? dirty->disk_bytes - offset
                                               : 0;

    if (left > 0 && bytes > 0) {
        weir_bitmap_mark(dirty, offset, bytes < left ? bytes : left);
    }
}

/* How long it is at the point, before anything behind it. */
static void find_length(const WeirKeeper *k, uint64_t epoch, Dropped *d)
{
    const KnownDisk *applied = &k->applied_disks[d->number];

    d->bytes = applied->bytes;
    d->known = weir_index_length(&k->index, d->number, epoch, &d->bytes) ||
               applied->known;
}

/* Of epochs that are in no chapter. */
static void mark_tail(const WeirKeeper *k, uint64_t epoch, Dropped *d)
{
    uint64_t bytes = d->bytes;

    for (size_t i = k->index.first; i < k->index.end; i++) {
        const WeirIndexEpoch *e = &k->index.epochs[i];

        if (e->commit.epoch <= epoch || !e->records) {
            weir_index_length(&k->index, d->number, e->commit.epoch, &bytes);
            continue;
        }
        for (uint32_t j = 0; j < e->count; j++) {
            const WeirIndexRecord *r = &e->records[j];
            WeirExtent extent;

            if (r->disk == d->number && !WITHOUT_RULE(40) &&
                weir_record_extent(r, 0, &bytes, &extent)) {
                mark(&d->dirty, extent.offset, extent.bytes);
            }
        }
    }
}

/* The lock is not held. A record is behind the point if its data is. */
static int mark_chapter(WeirKeeper *k, Chapter *c, const WeirLogCommit *point,
                        Dropped *d)
{
    Recalled all = { 0 };
    int ret = weir_keeper_recall(k, c, -1, 0, 0, &all);

    for (size_t i = 0; i < all.count && ret == 0; i++) {
        const WeirChapterRecord *r = &all.records[i];

        if (r->record.disk == d->number && r->record.position > point->end &&
            !WITHOUT_RULE(42)) {
            mark(&d->dirty, r->from, r->bytes);
        }
    }
    free(all.records);
    return ret;
}

/*
 * Meanwhile no packet comes in and the superblock is ours, so chapters stay
 * where they are. Yields.
 */
static int mark_chapters(WeirKeeper *k, const WeirLogCommit *point, Dropped *d)
{
    int ret = 0;

    for (size_t i = 0; i < k->chapter_count && ret == 0; i++) {
        Chapter *c = k->chapters[i];

        if (c->last > point->epoch) {
            c->refs++;
            weir_keeper_unlock(k);
            ret = mark_chapter(k, c, point, d);
            weir_keeper_lock(k);
            weir_chapter_unref(k, c);
        }
    }
    return ret;
}

static WeirSidecarDevice device_of(const WeirKeeper *k, const Base *base)
{
    return (WeirSidecarDevice) {
        .opaque = base->host, .read = k->host->read_sidecar,
        .write = k->host->write_sidecar, .flush = k->host->flush_sidecar,
    };
}

/*
 * What a promotion before this one has said still holds: nothing was written in
 * its generation, or it was cut short before that began.
 */
static bool holds(const WeirKeeper *k, const WeirSidecar *old)
{
    const WeirLogGeneration *last = &k->sb.history[k->sb.history_count - 1];

    return old->base && old->parent.number != 0 &&
           !memcmp(old->group, k->sb.group, sizeof(old->group)) &&
           (!memcmp(old->generation.uuid, last->uuid, sizeof(last->uuid)) ||
            old->generation.number == last->number + 1) &&
           k->valid.epoch < last->first_epoch;
}

/* The lock is not held. */
static int keep_older(const WeirKeeper *k, const WeirSidecarDevice *device,
                      const WeirSidecar *old, WeirSidecar *next, Dropped *d)
{
    WeirBitmap dirty;
    uint64_t at = 0, offset, bytes;
    int ret;

    if (!holds(k, old) || WITHOUT_RULE(41)) {
        return 0;
    }
    next->parent = old->parent;
    next->until = old->until;
    next->writer = old->writer;
    ret = weir_bitmap_init(&dirty, old->disk_bytes);
    ret = ret < 0 ? ret : weir_sidecar_dirty(device, old, &dirty);
    while (ret == 0 && weir_bitmap_next(&dirty, at, UINT64_C(1) << 40, &offset,
                                        &bytes)) {
        mark(&d->dirty, offset, bytes);
        at = offset + bytes;
    }
    if (old->disk_bytes < d->dirty.disk_bytes) {
        mark(&d->dirty, old->disk_bytes,
             d->dirty.disk_bytes - old->disk_bytes);
    }
    weir_bitmap_destroy(&dirty);
    return ret;
}

static int write_promoted(const WeirKeeper *k, const Base *base,
                          const WeirLogGeneration *generation,
                          const WeirLogCommit *point, Dropped *d)
{
    const WeirSidecarDevice device = device_of(k, base);
    WeirSidecar old, next = { .base = true };
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    int ret = weir_keeper_read_sidecar(k->host, base->host, &old, err,
                                       sizeof(err));

    if (ret < 0 && ret != -ENOENT && ret != -EBADMSG) {
        return ret;
    }
    next.sequence = old.sequence;
    next.instance = k->tasks->random(k->tasks->opaque);
    memcpy(next.group, k->sb.group, sizeof(next.group));
    next.disk = k->disks[d->number].what;
    next.disk_bytes = d->bytes;
    next.region_bytes = weir_sidecar_region_bytes(d->bytes);
    next.generation = *generation;
    next.durable = *point;
    next.parent = k->sb.history[k->sb.history_count - 1];
    next.until = k->valid;
    next.writer = k->writer;
    ret = ret < 0 ? 0 : keep_older(k, &device, &old, &next, d);
    return ret < 0 ? ret : weir_sidecar_put(&device, &next,
                                            base->sidecar_bytes, &d->dirty);
}

/* The number of its disk; WEIR_LOG_DISKS_MAX: the log has none. */
static uint16_t number_of(const WeirKeeper *k, const Base *base)
{
    uint16_t i = 0;

    while (i < WEIR_LOG_DISKS_MAX &&
           !(k->disks[i].known && !strcmp(k->disks[i].what.name, base->disk))) {
        i++;
    }
    return i;
}

static int promote_base(WeirKeeper *k, Base *base,
                        const WeirLogGeneration *generation,
                        const WeirLogCommit *point)
{
    Dropped d = { .number = number_of(k, base) };
    int ret;

    if (d.number == WEIR_LOG_DISKS_MAX) {
        return 0;
    }
    find_length(k, point->epoch, &d);
    if (!d.known) {
        return 0;
    }
    ret = weir_bitmap_init(&d.dirty, d.bytes);
    if (ret == 0) {
        mark_tail(k, point->epoch, &d);
        ret = mark_chapters(k, point, &d);
    }
    if (ret == 0) {
        weir_keeper_unlock(k);
        ret = write_promoted(k, base, generation, point, &d);
        weir_keeper_lock(k);
    }
    weir_bitmap_destroy(&d.dirty);
    return ret;
}

void weir_keeper_promote_bases(WeirKeeper *k,
                               const WeirLogGeneration *generation,
                               const WeirLogCommit *point)
{
    for (uint32_t i = 0; i < k->base_count; i++) {
        Base *base = &k->bases[i];

        if (base->sidecar_bytes > 0) {
            int ret = promote_base(k, base, generation, point);

            base->promoted = ret == 0;
            base->sidecar_failed = ret < 0;
        }
    }
}

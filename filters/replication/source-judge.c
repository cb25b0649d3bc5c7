/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a disk with a sidecar may go on with a log, and what of it the log
 * has not got.
 */
#include "replication/source-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"
#include "replication/lineage.h"
#include "replication/scan.h"

/* --- a log that the sidecar knows --- */

static int refuse(char *err, size_t err_size, const WeirSourceDisk *d,
                  const char *what)
{
    snprintf(err, err_size, "disk '%s' must not go on with the replication "
             "log: %s", d->what.name, what);
    return -ESTALE;
}

/* A record that changes the disk. */
static bool has_record(const WeirLogScan *scan, uint16_t number)
{
    for (uint32_t i = 0; i < scan->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, scan->buf, i);
        if (r.disk == number && r.op != WEIR_LOG_DISK &&
            !weir_log_is_remark(r.op)) {
            return true;
        }
    }
    return false;
}

/* Written by a source with this sidecar. */
static bool is_own(const WeirSidecar *h, uint64_t session)
{
    for (int i = 0; i < WEIR_SIDECAR_LIVES; i++) {
        if (h->lives[i] != 0 && h->lives[i] == session >> 32) {
            return true;
        }
    }
    return false;
}

/* From the commit that the sidecar knows to the end of the log. */
static int follow(WeirSourceDisk *d, WeirLogScan *scan,
                  const WeirLogCommit *end, uint16_t number, bool *foreign)
{
    while (scan->cursor.commit.epoch < end->epoch) {
        int ret = weir_log_scan_next(scan);

        if (ret < 0) {
            return ret;
        }
        if (!is_own(weir_source_intent_known(d), scan->packet.session) &&
            has_record(scan, number)) {
            *foreign = true;
        }
    }
    return memcmp(&scan->cursor.commit, end, sizeof(*end)) ? -ENODATA : 0;
}

static int follow_log(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                      const WeirLogCommit *end, uint16_t number, char *err,
                      size_t err_size)
{
    WeirSource *s = d->source;
    WeirLogScan scan;
    bool foreign = false;
    int ret;

    pthread_mutex_unlock(&s->lock);
    ret = weir_log_scan_init(&scan, s->host->read_log, s->opaque, sb,
                             &weir_source_intent_known(d)->durable);
    if (ret == 0) {
        ret = follow(d, &scan, end, number, &foreign);
        weir_log_scan_destroy(&scan);
    }
    pthread_mutex_lock(&s->lock);
    if (ret == -ENODATA) {
        return refuse(err, err_size, d, "what the disk's sidecar knows is not "
                      "in it");
    }
    if (ret < 0) {
        snprintf(err, err_size, "the replication log cannot be read: %s",
                 strerror(-ret));
        return ret;
    }
    return foreign ? refuse(err, err_size, d, "another source has written to "
                            "it for that disk") : 0;
}

/* --- a log that was made for an image that is not empty --- */

/* What the keeper's epoch says of a disk, and whether somebody has written. */
typedef struct Found {
    uint16_t number;
    bool any;                   /* there is an origin */
    bool used;                  /* there are records of the disk behind it */
    WeirLogOrigin origin;
    WeirBitmap lacks;           /* of the disk as long as it is here */
} Found;

/* A block of the image that is there no more, or not yet, is as good as any. */
static void take_lack(Found *f, const WeirLogRecord *r)
{
    uint64_t left = r->offset < f->lacks.disk_bytes
                    ? f->lacks.disk_bytes - r->offset : 0;

    if (left > 0) {
        weir_bitmap_mark(&f->lacks, r->offset,
                         r->bytes < left ? r->bytes : left);
    }
}

static void take_length(Found *f, const WeirLogRecord *r)
{
    if (r->bytes < f->lacks.disk_bytes) {
        weir_bitmap_mark(&f->lacks, r->bytes, f->lacks.disk_bytes - r->bytes);
    }
}

static void take_found(Found *f, const WeirLogScan *scan)
{
    const uint8_t *data = scan->buf + scan->packet.head_bytes;

    for (uint32_t i = 0; i < scan->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, scan->buf, i);
        if (r.disk != f->number) {
            /* of another */
        } else if (r.op == WEIR_LOG_ORIGIN) {
            f->any = true;
            weir_log_origin_read(&f->origin, data);
        } else if (r.op == WEIR_LOG_LACK && !WEIR_SOURCE_WITHOUT(11)) {
            take_lack(f, &r);
        } else if (r.op == WEIR_LOG_DISK && scan->packet.epoch == 1 &&
                   !WEIR_SOURCE_WITHOUT(12)) {
            take_length(f, &r);
        }
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
    f->used = f->used || has_record(scan, f->number);
}

/* All of the log, from its beginning. Returns 0 or an error. */
static int read_found(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                      const WeirLogCommit *end, Found *f)
{
    WeirSource *s = d->source;
    const WeirLogCommit begin = { 0 };
    WeirLogScan scan;
    int ret = weir_log_scan_init(&scan, s->host->read_log, s->opaque, sb,
                                 &begin);

    while (ret >= 0 && scan.cursor.commit.epoch < end->epoch) {
        ret = weir_log_scan_next(&scan);
        if (ret >= 0) {
            take_found(f, &scan);
        }
    }
    if (ret != -ENOMEM) {
        weir_log_scan_destroy(&scan);
    }
    return ret < 0 ? ret : 0;
}

static int mark_lacks(WeirSourceDisk *d, const Found *f)
{
    uint64_t at = 0, offset, bytes;

    while (weir_bitmap_next(&f->lacks, at, UINT64_C(1) << 40, &offset,
                            &bytes)) {
        weir_source_mark_dirty(d, offset, bytes);
        at = offset + bytes;
    }
    return weir_source_intent_keep_dirty(d);
}

/* Returns 0: what is dirty is known; 1: it is not; -ESTALE. */
static int judge_found(WeirSourceDisk *d, const Found *f, char *err,
                       size_t err_size)
{
    WeirLogOrigin own;

    weir_lineage_of(&own, weir_source_intent_known(d));
    if (!f->any) {
        return refuse(err, err_size, d, "its sidecar is of another log");
    }
    if (f->used) {
        return refuse(err, err_size, d, "another source has written to it for "
                      "that disk");
    }
    switch (weir_lineage_compare(&own, &f->origin)) {
    case WEIR_LINEAGE_BOTH:
        return 0;
    case WEIR_LINEAGE_ALL:
        return WEIR_SOURCE_WITHOUT(13) ? 0 : 1;
    default:
        return refuse(err, err_size, d, "its base image and the disk have gone "
                      "apart, or never were the same");
    }
}

/* The same. number: of the disk in the log. */
static int judge_origin(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                        const WeirLogCommit *end, int number, char *err,
                        size_t err_size)
{
    WeirSource *s = d->source;
    Found *f = calloc(1, sizeof(*f));
    int ret = f ? weir_bitmap_init(&f->lacks, d->bytes) : -ENOMEM;

    if (ret == 0) {
        f->number = (uint16_t)number;
        pthread_mutex_unlock(&s->lock);
        ret = read_found(d, sb, end, f);
        pthread_mutex_lock(&s->lock);
    }
    if (ret < 0) {
        snprintf(err, err_size, "the replication log cannot be read: %s",
                 strerror(-ret));
    } else {
        ret = judge_found(d, f, err, err_size);
    }
    if (ret == 0) {
        ret = mark_lacks(d, f);
        if (ret < 0) {
            snprintf(err, err_size, "the sidecar cannot be written: %s",
                     strerror(-ret));
        }
    }
    if (f) {
        weir_bitmap_destroy(&f->lacks);
    }
    free(f);
    return ret;
}

/* --- what it is, all in all --- */

typedef enum Log {
    LOG_OWN,                    /* go on behind what the sidecar knows */
    LOG_NEW,                    /* all is to be copied */
    LOG_ORIGIN,                 /* what its keeper has written tells */
} Log;

/* Returns a Log or -ESTALE. */
static int check_log(const WeirSourceDisk *d, const WeirLogSuperblock *sb,
                     int number, char *err, size_t err_size)
{
    const WeirSidecar *h = weir_source_intent_known(d);
    const WeirLogGeneration *now = &sb->history[sb->history_count - 1];

    if (!h || weir_is_zero(h->group, sizeof(h->group))) {
        return now->number == 1 ? LOG_NEW :
               refuse(err, err_size, d, "the replica was promoted, and the "
                      "sidecar knows nothing of that");
    }
    if (memcmp(h->group, sb->group, sizeof(h->group))) {
        return number == WEIR_SOURCE_NOT_IN_LOG ? LOG_NEW :
               number >= 0 && sb->has_origins && sb->tail == 0 ? LOG_ORIGIN :
               refuse(err, err_size, d, "its sidecar is of another log");
    }
    return memcmp(&h->generation, now, sizeof(*now)) == 0 ? LOG_OWN :
           refuse(err, err_size, d, now->number > h->generation.number
                  ? "the replica was promoted since"
                  : "it is of an older generation than the disk");
}

/* Whether the log still has, and has already, what the sidecar knows. */
static bool reaches(const WeirLogSuperblock *sb, const WeirLogCommit *end,
                    const WeirLogCommit *known)
{
    return known->epoch <= end->epoch && known->epoch >= sb->anchor.epoch &&
           known->end >= sb->tail;
}

static int judge_by(WeirSourceDisk *d, Log log, const WeirLogSuperblock *sb,
                    const WeirLogCommit *end, int number, char *err,
                    size_t err_size)
{
    const WeirLogCommit *known;

    if (log == LOG_ORIGIN) {
        return judge_origin(d, sb, end, number, err, err_size);
    }
    if (log == LOG_NEW) {
        return 1;
    }
    known = &weir_source_intent_known(d)->durable;
    if (WEIR_SOURCE_WITHOUT(10) && known->epoch > end->epoch) {
        return 0;
    }
    return number >= 0 && reaches(sb, end, known)
           ? follow_log(d, sb, end, (uint16_t)number, err, err_size) : 1;
}

/* All of the disk is to be copied, also after a crash. */
static int fill(WeirSourceDisk *d)
{
    weir_source_mark_dirty(d, 0, d->bytes);
    return weir_source_intent_keep_dirty(d);
}

int weir_source_intent_judge(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                             const WeirLogCommit *end, int number, char *err,
                             size_t err_size)
{
    int ret = check_log(d, sb, number, err, err_size);

    if (ret < 0) {
        return ret;
    }
    d->users++;
    ret = judge_by(d, (Log)ret, sb, end, number, err, err_size);
    d->users--;
    weir_source_changed(d->source);
    if (ret <= 0) {
        return ret;
    }
    ret = fill(d);
    if (ret < 0) {
        snprintf(err, err_size, "the sidecar cannot be written: %s",
                 strerror(-ret));
    }
    return ret;
}

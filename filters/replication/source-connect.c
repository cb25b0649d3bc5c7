/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connecting: what the log holds, whether it is ours, where a session begins.
 */
#include "replication/source-int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"
#include "replication/leave.h"
#include "replication/scan.h"

/* The disks of a log, as far as its last segment tells. */
typedef struct Known {
    uint16_t count;
    bool complete;              /* their lengths are those at its end */
    struct {
        uint16_t number;
        WeirLogDisk what;
        uint64_t bytes;
    } disks[WEIR_LOG_DISKS_MAX];
} Known;

/* Where a connection is to go on. */
typedef struct Place {
    WeirLogSuperblock sb;
    WeirLogCommit told;         /* in the log, to be durable */
    WeirLogCommit end;
    Known known;
    uint64_t session;
    char *err;
    size_t err_size;
} Place;

static int refuse(Place *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int refuse(Place *p, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(p->err, p->err_size, format, args);
    va_end(args);
    return -ESTALE;
}

/* --- the end of the log --- */

void weir_source_drain(WeirSource *s)
{
    while (s->packets > 0 || s->sending || s->copiers > 0) {
        weir_source_wait(s, WEIR_TASKS_FOREVER);
    }
}

/* *flushing: it came so far that a flush may have failed. */
static int read_end(WeirSource *s, uint64_t device_bytes, Place *p,
                    bool *flushing)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    int ret = s->host->read_log(s->opaque, 0, sizeof(copies), copies);

    if (ret == 0) {
        ret = weir_log_superblock_read(&p->sb, copies, device_bytes, p->err,
                                       p->err_size);
        if (ret == 0 && s->config.compress && !p->sb.zstd) {
            snprintf(p->err, p->err_size, "the replication log takes nothing "
                     "compressed: it was made without that");
            ret = -ENOTSUP;
        }
        if (ret < 0) {
            return ret;
        }
        ret = weir_log_find_ends(s->host->read_log, s->opaque, &p->sb,
                                 &p->told, &p->end);
    }
    if (ret == 0) {
        *flushing = true;
        ret = s->host->flush_log(s->opaque);
    }
    if (ret < 0) {
        snprintf(p->err, p->err_size, "the replication log cannot be read: %s",
                 strerror(-ret));
    }
    return ret;
}

/* --- its disks --- */

static void take_disk(Known *known, const WeirLogRecord *r,
                      const uint8_t *data)
{
    uint16_t i = 0;

    while (i < known->count && known->disks[i].number != r->disk) {
        i++;
    }
    if (r->op == WEIR_LOG_RESIZE && i < known->count) {
        known->disks[i].bytes = r->bytes;
    }
    if (r->op == WEIR_LOG_DISK && i < WEIR_LOG_DISKS_MAX &&
        weir_log_disk_read(&known->disks[i].what, data) == 0) {
        known->disks[i].number = r->disk;
        known->disks[i].bytes = r->bytes;
        known->count = known->count > i ? known->count : (uint16_t)(i + 1);
    }
}

static void take_disks(Known *known, const WeirLogScan *scan)
{
    const uint8_t *data = scan->buf + scan->packet.head_bytes;

    for (uint32_t i = 0; i < scan->packet.records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, scan->buf, i);
        take_disk(known, &r, data);
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
}

/*
 * From the first packet of the last segment on, which has all disks. All up to
 * the end is valid.
 */
static int scan_disks(WeirLogScan *scan, Place *p)
{
    uint64_t last = p->end.end - 1;
    uint64_t position = last - last % p->sb.segment_bytes;

    while (position < p->end.end) {
        int ret = weir_log_scan_read(scan, position);

        if (ret < 0) {
            return ret;
        }
        take_disks(&p->known, scan);
        position = weir_log_packet_next(&scan->packet, p->sb.segment_bytes);
    }
    p->known.complete = true;
    return 0;
}

/* Returns 0, whatever is there; the error of a read. */
static int learn_disks(WeirSource *s, Place *p)
{
    WeirLogScan scan;
    int ret;

    if (p->end.epoch == 0) {
        p->known.complete = true;
        return 0;
    }
    ret = weir_log_scan_init(&scan, s->host->read_log, s->opaque, &p->sb,
                             &p->end);
    if (ret == 0) {
        ret = scan_disks(&scan, p);
        weir_log_scan_destroy(&scan);
    }
    if (ret < 0 && ret != -ENODATA) {
        snprintf(p->err, p->err_size, "the disks of the replication log cannot "
                 "be read: %s", strerror(-ret));
        return ret;
    }
    return 0;
}

static int find_known(const Known *known, const char *name)
{
    for (uint16_t i = 0; i < known->count; i++) {
        if (!strcmp(known->disks[i].what.name, name)) {
            return i;
        }
    }
    return -1;
}

/* Or that the log does not know it. */
static int find_number(const Known *known, const char *name)
{
    int i = find_known(known, name);

    return i >= 0 ? known->disks[i].number :
           known->complete ? WEIR_SOURCE_NOT_IN_LOG : WEIR_SOURCE_NOT_FOUND;
}

static bool has_uuid(const WeirSourceDisk *d)
{
    return !weir_is_zero(d->what.uuid, sizeof(d->what.uuid));
}

static void make_uuid(WeirSource *s, WeirSourceDisk *d)
{
    for (size_t i = 0; i < sizeof(d->what.uuid); i += 8) {
        uint64_t random = s->tasks->random(s->tasks->opaque);

        memcpy(d->what.uuid + i, &random, 8);
    }
}

/* Whether what the log says of a disk is said of this one. */
static int check_disk(const WeirSourceDisk *d, Place *p, int i)
{
    if (has_uuid(d) && memcmp(d->what.uuid, p->known.disks[i].what.uuid,
                              sizeof(d->what.uuid))) {
        return refuse(p, "disk '%s' of the replication log is not the one of "
                      "the sidecar", d->what.name);
    }
    if (!d->intent && p->known.complete &&
        p->known.disks[i].bytes != d->bytes) {
        return refuse(p, "disk '%s' has %llu bytes in the replication log, "
                      "here it has %llu", d->what.name,
                      (unsigned long long)p->known.disks[i].bytes,
                      (unsigned long long)d->bytes);
    }
    return 0;
}

/* Before the first session: at least one disk is one of the log's. */
static int check_disks(const WeirSource *s, Place *p)
{
    bool any = s->connections > 0 || p->known.count == 0;

    for (uint16_t i = 0; i < s->disk_count; i++) {
        const WeirSourceDisk *d = s->disks[i];
        int known = find_known(&p->known, d->what.name);
        int ret = known < 0 || d->judged ? 0 : check_disk(d, p, known);

        if (ret < 0) {
            return ret;
        }
        any = any || known >= 0;
    }
    return any ? 0 : refuse(p, "the replication log is of other disks: it has "
                            "'%s', and not '%s'", p->known.disks[0].what.name,
                            s->disks[0]->what.name);
}

static bool is_taken(const WeirSource *s, const Known *known, uint16_t number)
{
    for (uint16_t i = 0; i < known->count; i++) {
        if (known->disks[i].number == number) {
            return true;
        }
    }
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (s->disks[i]->judged && s->disks[i]->number == number) {
            return true;
        }
    }
    return false;
}

/* Numbers that were given before the log was known turn into others. */
static void renumber(WeirSource *s, const uint16_t *numbers)
{
    for (WeirEpoch *e = s->oldest; e; e = e->next) {
        for (uint32_t i = 0; i < e->count; i++) {
            WeirLogRecord *r = &e->entries[i].record;

            r->disk = r->op == WEIR_LOG_MARK ? 0 : numbers[r->disk];
        }
    }
}

/* A disk gets the number that the log has for it, or one that is free. */
static int name_disk(WeirSource *s, WeirSourceDisk *d, const Known *known,
                     uint16_t *number)
{
    int i = find_known(known, d->what.name);

    if (i >= 0) {
        d->what = known->disks[i].what;
        d->durable_bytes = known->complete ? known->disks[i].bytes
                                           : d->first_bytes;
        *number = known->disks[i].number;
        return 0;
    }
    if (!has_uuid(d)) {
        make_uuid(s, d);
    }
    while (*number < WEIR_LOG_DISKS_MAX && is_taken(s, known, *number)) {
        ++*number;
    }
    return *number < WEIR_LOG_DISKS_MAX ? 0 : -ENOSPC;
}

static int name_disks(WeirSource *s, Place *p)
{
    uint16_t numbers[WEIR_LOG_DISKS_MAX], next = 0;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        numbers[i] = i;
    }
    for (uint16_t i = 0; i < s->disk_count; i++) {
        WeirSourceDisk *d = s->disks[i];
        uint16_t number = next;

        if (d->judged) {
            continue;
        }
        if (name_disk(s, d, &p->known, &number) < 0) {
            return refuse(p, "the replication log has no place for disk '%s': "
                          "there have been %d", d->what.name,
                          WEIR_LOG_DISKS_MAX);
        }
        next = find_known(&p->known, d->what.name) < 0 ? number + 1 : next;
        numbers[d->number] = number;
        d->number = number;
    }
    renumber(s, numbers);
    return 0;
}

/* --- whether it is ours --- */

static bool was_committed_as(const WeirEpoch *e, const WeirLogCommit *end)
{
    for (uint32_t i = 0; i < e->sessions && i < WEIR_EPOCH_COMMITS; i++) {
        if (!memcmp(end, &e->commits[i], sizeof(*end))) {
            return true;
        }
    }
    return false;
}

/*
 * The epoch of ours with which the log ends, NULL: with the one that was known
 * to be durable. False: it ends with neither.
 */
static bool find_ours(const WeirSource *s, const WeirLogCommit *end,
                      WeirEpoch **ours)
{
    *ours = NULL;
    if (!memcmp(end, &s->durable, sizeof(*end))) {
        return true;
    }
    for (WeirEpoch *e = s->oldest; e != s->open; e = e->next) {
        if (was_committed_as(e, end)) {
            *ours = e;
            return true;
        }
    }
    return false;
}

static const WeirLogGeneration *last_generation(const WeirLogSuperblock *sb)
{
    return &sb->history[sb->history_count - 1];
}

/* The same log as in the session before. */
static int check_again(const WeirSource *s, Place *p)
{
    if (memcmp(p->sb.group, s->sb.group, sizeof(p->sb.group))) {
        return refuse(p, "this is another replication log than before");
    }
    if (memcmp(last_generation(&p->sb), last_generation(&s->sb),
               sizeof(WeirLogGeneration))) {
        return refuse(p, "the replica was promoted, to generation %llu: this "
                      "disk must not go on writing to its replication log",
                      (unsigned long long)last_generation(&p->sb)->number);
    }
    return 0;
}

/* A log that one goes on with who knows nothing of it. */
static int check_first(const WeirSource *s, Place *p)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (s->disks[i]->intent) {
            return 0;
        }
    }
    return last_generation(&p->sb)->number == 1 ? 0 :
           refuse(p, "the replica was promoted, to generation %llu: this disk "
                  "has no sidecar that says that it is of that generation",
                  (unsigned long long)last_generation(&p->sb)->number);
}

/* --- what may not be durable --- */

/*
 * What can be read may be there only because nobody has looked at the medium
 * since a flush failed, in this life or an earlier one: it is written again. If
 * it is there, a write that is torn does no harm; if not, nobody was told that
 * it is. A keeper has done so itself, and shows nothing else.
 */
static int secure_end(WeirSource *s, Place *p)
{
    int ret = 0;

    if (s->doubtful && !p->sb.is_kept && !WEIR_SOURCE_WITHOUT(15)) {
        pthread_mutex_unlock(&s->lock);
        ret = weir_log_write_again(s->host->read_log, s->host->write_log,
                                   s->opaque, &p->sb, &p->told, p->end.end);
        ret = ret < 0 ? ret : s->host->flush_log(s->opaque);
        pthread_mutex_lock(&s->lock);
    }
    if (ret < 0) {
        weir_source_fail_flush(s, ret);
        snprintf(p->err, p->err_size, "what the replication log has cannot be "
                 "written again: %s", strerror(-ret));
    } else {
        s->doubtful = false;
    }
    return ret;
}

/* --- a session --- */

/* What was queued for a log that is not to be is to be copied. */
static void drop_queue(WeirSource *s)
{
    weir_source_begin_marking(s);
    while (s->oldest != s->open) {
        WeirEpoch *e = s->oldest;

        for (uint32_t i = 0; i < e->count; i++) {
            const WeirLogRecord *r = &e->entries[i].record;
            WeirSourceDisk *d = weir_source_disk_of(s, r->disk);

            if (d && d->host && r->op != WEIR_LOG_MARK &&
                r->op != WEIR_LOG_RESIZE) {
                weir_source_mark_dirty(d, r->offset, r->bytes);
            }
            s->copied_bytes -= r->resync ? weir_log_data_bytes(r) : 0;
        }
        s->entries -= e->count;
        s->oldest = e->next;
        weir_epoch_free(e, s->memory);
    }
    s->to_send = s->oldest;
}

/* How many disks had another length than the log knows. */
static uint32_t other_lengths(const WeirSource *s, WeirEpoch *e)
{
    uint32_t n = 0;

    for (uint16_t i = 0; i < s->disk_count; i++) {
        const WeirSourceDisk *d = s->disks[i];
        WeirLogRecord r = { .op = WEIR_LOG_RESIZE, .disk = d->number,
                            .bytes = d->first_bytes };

        if (d->host && !d->judged && d->first_bytes != d->durable_bytes) {
            n++;
            if (e) {
                weir_epoch_add(e, &r, NULL);
            }
        }
    }
    return n;
}

/* What is queued is for disks as long as they were when that began. */
static int queue_lengths(WeirSource *s)
{
    uint32_t n = other_lengths(s, NULL);
    WeirEpoch *e = n > 0 ? weir_epoch_new() : NULL;

    if (n == 0) {
        return 0;
    }
    if (!e || weir_epoch_reserve(e, n) < 0) {
        weir_epoch_free(e, s->memory);
        return -ENOMEM;
    }
    other_lengths(s, e);
    s->entries += n;
    s->wants_point = true;
    e->serial = s->oldest->serial - 1;
    e->begun_ns = weir_source_now(s);
    e->wall_ns = s->tasks->wall_ns(s->tasks->opaque);
    e->next = s->oldest;
    s->oldest = e;
    return 0;
}

static void begin_session(WeirSource *s, const Place *p)
{
    s->sb = p->sb;
    weir_log_writer_init(&s->writer, &s->sb, &p->end, p->session);
    for (uint16_t i = 0; i < s->disk_count; i++) {
        s->disks[i]->judged = true;
        s->disks[i]->sent_bytes = s->disks[i]->durable_bytes;
    }
    s->to_send = s->oldest;
    s->announce = true;
    s->connected = true;
    s->in_session = true;
    s->promised = s->promised || weir_source_is_synchronised(s);
    s->connections++;
    s->packets = 1;
    s->tasks->spawn(s->tasks->opaque, weir_source_commit, s);
    weir_source_changed(s);
}

/* If that fails, the next one has to wait until the session seems dead. */
void weir_source_take_leave(WeirSource *s)
{
    uint8_t buf[WEIR_LOG_LEAVE_BYTES];
    const struct iovec iov = { buf, sizeof(buf) };

    if (!s->in_session || !s->sb.is_kept) {
        return;
    }
    s->in_session = false;
    weir_log_leave_write(buf, s->sb.group, s->writer.session);
    pthread_mutex_unlock(&s->lock);
    s->host->write_log(s->opaque, WEIR_LOG_LEAVE_OFFSET, sizeof(buf), &iov, 1);
    pthread_mutex_lock(&s->lock);
}

/* That the log may be gone on with. */
static int check_place(WeirSource *s, Place *p)
{
    WeirEpoch *ours;
    int ret = s->connections > 0 ? check_again(s, p) : check_first(s, p);

    if (ret == 0 && s->connections > 0 && !find_ours(s, &p->end, &ours)) {
        ret = refuse(p, "the replication log ends with epoch %llu, which is "
                     "not what was sent there",
                     (unsigned long long)p->end.epoch);
    }
    return ret;
}

/* What is there for good of what was sent need not be sent any more. */
static void take_place(WeirSource *s, const Place *p)
{
    WeirEpoch *ours;

    if (s->connections == 0) {
        s->durable = p->end;
    } else if (find_ours(s, &p->end, &ours) && ours) {
        weir_source_let_go(s, ours, &p->end);
    }
}

static bool all_are_judged(const WeirSource *s)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (!s->disks[i]->judged) {
            return false;
        }
    }
    return true;
}

/* Disks that come to this log for the first time. */
static int judge_disks(WeirSource *s, Place *p)
{
    int ret;

    if (all_are_judged(s)) {
        return 0;
    }
    pthread_mutex_unlock(&s->lock);
    ret = learn_disks(s, p);
    pthread_mutex_lock(&s->lock);
    ret = ret < 0 ? ret : check_disks(s, p);
    for (uint16_t i = 0; i < s->disk_count && ret == 0; i++) {
        if (s->disks[i]->intent && !s->disks[i]->judged) {
            ret = weir_source_intent_judge(
                s->disks[i], &p->sb, &p->end,
                find_number(&p->known, s->disks[i]->what.name), p->err,
                p->err_size);
        }
    }
    return ret < 0 ? ret : name_disks(s, p);
}

static int tell_sidecars(WeirSource *s, Place *p)
{
    int ret = 0;

    p->session = (uint64_t)s->life << 32 |
                 (uint32_t)s->tasks->random(s->tasks->opaque);
    for (uint16_t i = 0; i < s->disk_count && ret == 0; i++) {
        if (s->disks[i]->intent) {
            ret = weir_source_intent_session(s->disks[i], &p->sb, &p->end,
                                             p->session);
        }
    }
    if (ret < 0) {
        snprintf(p->err, p->err_size, "a sidecar cannot be written: %s",
                 strerror(-ret));
    }
    return ret;
}

static bool one_is_coming(const WeirSource *s)
{
    for (uint16_t i = 0; i < s->disk_count; i++) {
        if (s->disks[i]->coming) {
            return true;
        }
    }
    return false;
}

static int connect_place(WeirSource *s, Place *p)
{
    uint32_t added = s->added;
    int ret;

    if (one_is_coming(s)) {
        snprintf(p->err, p->err_size, "a disk is being added");
        return -EAGAIN;
    }
    ret = check_place(s, p);
    ret = ret < 0 ? ret : judge_disks(s, p);
    ret = ret < 0 ? ret : secure_end(s, p);
    if (ret == 0) {
        take_place(s, p);
        ret = tell_sidecars(s, p);
    }
    if (ret == 0 && s->stops) {
        snprintf(p->err, p->err_size, "the source has been stopped");
        ret = -ECANCELED;
    }
    if (ret == 0 && s->added != added) {
        snprintf(p->err, p->err_size, "a disk has come meanwhile");
        ret = -EAGAIN;
    }
    ret = ret < 0 ? ret : queue_lengths(s);
    if (ret == 0) {
        begin_session(s, p);
    } else if (ret == -ESTALE) {
        s->stopped = true;
        drop_queue(s);
        weir_source_changed(s);
    }
    return ret;
}

int weir_source_connect(WeirSource *s, uint64_t device_bytes, char *err,
                        size_t err_size)
{
    Place *p = calloc(1, sizeof(*p));
    bool flushing = false;
    int ret;

    if (!p) {
        snprintf(err, err_size, "there is no memory to connect");
        return -ENOMEM;
    }
    p->err = err;
    p->err_size = err_size;
    pthread_mutex_lock(&s->lock);
    weir_source_drain(s);
    pthread_mutex_unlock(&s->lock);
    ret = read_end(s, device_bytes, p, &flushing);
    pthread_mutex_lock(&s->lock);
    if (ret == 0) {
        ret = connect_place(s, p);
    } else if (flushing) {
        weir_source_fail_flush(s, ret);
    }
    pthread_mutex_unlock(&s->lock);
    free(p);
    return ret;
}

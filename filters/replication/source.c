/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Epochs are in one list, oldest first: those that are in the log but not yet
 * durable, those that are being sent, and the open one that takes what is
 * written now. The sender makes packets of one after the other; the committer
 * flushes the log when all packets of the first have been written, and lets go
 * of whatever is durable by that.
 */
#include "replication/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/ranges.h"
#include "replication/epoch.h"
#include "replication/scan.h"
#include "replication/writer.h"

#define PACKET_BYTES (UINT64_C(1) << 20)
#define PACKETS_UNDER_WAY_MAX 8
#define FULL_RETRY_NS 100000000

struct WeirSourceDisk {
    WeirSource *source;
    void *host;
    uint16_t number;
    WeirLogDisk what;
    uint64_t bytes;
    WeirRanges ranges;          /* writes under way */
    WeirTaskQueue queue;      /* a range was removed */
};

struct WeirSource {
    const WeirTasks *tasks;             /* set at new */
    const WeirSourceHost *host;         /* set at new */
    void *opaque;                       /* set at new */
    WeirSourceConfig config;            /* set at new */
    WeirSourceDisk *disks[WEIR_LOG_DISKS_MAX];  /* set before connecting */
    uint16_t disk_count;                /* the same */
    pthread_mutex_t lock;               /* for all that follows */
    WeirSourceState state;
    bool stops;
    bool hurry;                         /* somebody waits for the open epoch */
    WeirMemory *memory;
    WeirEpoch *oldest, *open;           /* of the list */
    WeirEpoch *to_send;                 /* the first without packets; or open */
    uint32_t writes;                    /* of guests, under way */
    uint32_t packets;                   /* under way, and the committer */
    bool sending;                       /* the sender is in an epoch */
    bool flush_failed;                  /* since connecting */
    WeirLogSuperblock sb;
    WeirLogWriter writer;
    WeirLogCommit durable;
    uint64_t sent_bytes;
    WeirTaskQueue changed;            /* anything that the sender, the
                                           committer, or those who wait for an
                                           epoch or for memory look at */
};

typedef struct Packet {
    WeirSource *source;
    WeirEpoch *epoch;
    uint64_t offset, bytes;
    uint8_t *head;
    WeirLogRecord *records;
    size_t niov;
    struct iovec iov[];
} Packet;

static void changed(WeirSource *s)
{
    s->tasks->wake(s->tasks->opaque, &s->changed);
}

static void wait_for_change(WeirSource *s, uint64_t until_ns)
{
    s->tasks->wait(s->tasks->opaque, &s->lock, &s->changed, until_ns);
}

static uint64_t now_ns(const WeirSource *s)
{
    return s->tasks->now_ns(s->tasks->opaque);
}

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
    pthread_mutex_init(&s->lock, NULL);
    s->open = s->oldest = s->to_send = weir_epoch_new();
    if (!s->open ||
        weir_memory_new(&s->memory, config->max_memory_bytes) < 0) {
        weir_source_free(s);
        return -ENOMEM;
    }
    tasks->queue_init(tasks->opaque, &s->changed);
    *out = s;
    return 0;
}

void weir_source_free(WeirSource *s)
{
    while (s->oldest) {
        WeirEpoch *next = s->oldest->next;

        weir_epoch_free(s->oldest, s->memory);
        s->oldest = next;
    }
    for (uint16_t i = 0; i < s->disk_count; i++) {
        free(s->disks[i]);
    }
    weir_memory_free(s->memory);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int weir_source_add_disk(WeirSource *s, const WeirLogDisk *what,
                         uint64_t bytes, void *disk, WeirSourceDisk **out)
{
    WeirSourceDisk *d;

    if (s->disk_count == WEIR_LOG_DISKS_MAX) {
        return -ENOSPC;
    }
    d = calloc(1, sizeof(*d));
    if (!d) {
        return -ENOMEM;
    }
    d->source = s;
    d->host = disk;
    d->number = s->disk_count;
    d->what = *what;
    d->bytes = bytes;
    weir_ranges_init(&d->ranges);
    s->tasks->queue_init(s->tasks->opaque, &d->queue);
    s->disks[s->disk_count++] = *out = d;
    return 0;
}

/* --- writes of guests --- */

static void enter_range(WeirSourceDisk *d, WeirRange *range)
{
    WeirSource *s = d->source;

    weir_ranges_add(&d->ranges, range);
    while (!weir_ranges_may_go(&d->ranges, range)) {
        s->tasks->wait(s->tasks->opaque, &s->lock, &d->queue,
                       WEIR_TASKS_FOREVER);
    }
}

static void leave_range(WeirSourceDisk *d, WeirRange *range)
{
    weir_ranges_remove(&d->ranges, range);
    d->source->tasks->wake(d->source->tasks->opaque, &d->queue);
}

/* Memory for the data, and a place for the record in whatever is open then. */
static int take_memory(WeirSource *s, uint64_t bytes, WeirPiece *piece)
{
    while (weir_memory_take(s->memory, bytes, piece) < 0) {
        s->hurry = true;
        changed(s);
        wait_for_change(s, WEIR_TASKS_FOREVER);
    }
    if (weir_epoch_reserve(s->open, s->writes + 1) < 0) {
        weir_memory_give(s->memory, piece);
        return -ENOMEM;
    }
    s->writes++;
    return 0;
}

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

static void wait_until_durable(WeirSource *s, uint64_t serial)
{
    while (s->oldest->serial <= serial) {
        s->hurry = s->hurry || serial == s->open->serial;
        changed(s);
        wait_for_change(s, WEIR_TASKS_FOREVER);
    }
}

/* It has succeeded: its place is here, before the guest is told. */
static void append(WeirSource *s, const WeirLogRecord *record,
                   const WeirPiece *piece)
{
    if (s->open->count == 0) {
        s->open->begun_ns = now_ns(s);
        changed(s);
    }
    weir_epoch_add(s->open, record, piece);
    if (s->open->bytes >= s->config.epoch_bytes) {
        changed(s);
    }
}

int weir_source_write(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov)
{
    WeirSource *s = d->source;
    WeirLogRecord record = { .op = WEIR_LOG_WRITE, .disk = d->number,
                             .offset = offset, .bytes = bytes };
    WeirRange range = { .offset = offset, .bytes = bytes,
                        .kind = WEIR_RANGE_HOLD };
    WeirPiece piece;
    int ret;

    pthread_mutex_lock(&s->lock);
    ret = take_memory(s, bytes, &piece);
    if (ret < 0) {
        pthread_mutex_unlock(&s->lock);
        return ret;
    }
    enter_range(d, &range);
    pthread_mutex_unlock(&s->lock);
    record.crc = copy(piece.data, iov, niov);
    ret = s->host->write_disk(d->host, offset, bytes, piece.data);
    pthread_mutex_lock(&s->lock);
    s->writes--;
    if (ret < 0) {
        weir_memory_give(s->memory, &piece);
    } else {
        append(s, &record, &piece);
        if (s->config.mode == WEIR_SOURCE_WRITE_SYNC) {
            wait_until_durable(s, s->open->serial);
        }
    }
    leave_range(d, &range);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

void weir_source_flush(WeirSourceDisk *d)
{
    WeirSource *s = d->source;

    if (s->config.mode == WEIR_SOURCE_ASYNC) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    if (s->open->count > 0) {
        wait_until_durable(s, s->open->serial);
    } else if (s->oldest != s->open) {
        wait_until_durable(s, s->open->serial - 1);
    }
    pthread_mutex_unlock(&s->lock);
}

/* --- packets --- */

/* The log cannot be relied on; what it has is found out by connecting again. */
static void lose_log(WeirSource *s)
{
    s->state = WEIR_SOURCE_DISCONNECTED;
    changed(s);
}

static void free_packet(Packet *p)
{
    free(p->records);
    free(p->head);
    free(p);
}

static void write_packet(void *arg)
{
    Packet *p = arg;
    WeirSource *s = p->source;
    int ret = s->host->write_log(s->opaque, p->offset, p->bytes, p->iov,
                                 p->niov);

    pthread_mutex_lock(&s->lock);
    s->packets--;
    p->epoch->packets--;
    if (ret < 0) {
        lose_log(s);
    } else {
        s->sent_bytes += p->bytes;
    }
    changed(s);
    pthread_mutex_unlock(&s->lock);
    free_packet(p);
}

static void add_iov(Packet *p, const void *data, size_t bytes)
{
    p->iov[p->niov].iov_base = (void *)(uintptr_t)data;
    p->iov[p->niov++].iov_len = bytes;
}

static void add_padding(Packet *p, uint64_t bytes)
{
    static const uint8_t zeroes[WEIR_LOG_ALIGN_BYTES];

    if (bytes > 0) {
        add_iov(p, zeroes, bytes);
    }
}

/* data_bytes: that go into the memory of the head, behind it. */
static Packet *new_packet(WeirSource *s, WeirEpoch *epoch, uint32_t records,
                          uint64_t data_bytes)
{
    Packet *p = calloc(1, sizeof(*p) + (2 * records + 2) *
                                       sizeof(struct iovec));

    if (!p) {
        return NULL;
    }
    p->source = s;
    p->epoch = epoch;
    p->head = calloc(1, weir_log_head_bytes(records) + data_bytes);
    p->records = calloc(records + 1, sizeof(*p->records));
    if (!p->head || !p->records) {
        free_packet(p);
        return NULL;
    }
    return p;
}

/* Once its head has been made. */
static void send_packet(Packet *p, const WeirLogPacket *log)
{
    WeirSource *s = p->source;

    p->offset = weir_log_offset(&s->sb, log->position);
    p->bytes = weir_log_packet_bytes(log);
    add_padding(p, p->bytes - log->head_bytes - log->data_bytes);
    s->packets++;
    p->epoch->packets++;
    s->tasks->spawn(s->tasks->opaque, write_packet, p);
}

/* What was read may not be durable yet, and is relied on. */
static int read_and_flush(WeirSource *s, uint8_t *copies, size_t bytes)
{
    int ret = s->host->read_log(s->opaque, 0, bytes, copies);

    return ret < 0 ? ret : s->host->flush_log(s->opaque);
}

/* Where the keeper says that the log begins now. The session may end here. */
static void read_tail(WeirSource *s)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb;
    char err[256];
    int ret;

    pthread_mutex_unlock(&s->lock);
    ret = read_and_flush(s, copies, sizeof(copies));
    pthread_mutex_lock(&s->lock);
    s->flush_failed = s->flush_failed || ret < 0;
    if (ret < 0 ||
        weir_log_superblock_read(&sb, copies, UINT64_MAX, err,
                                 sizeof(err)) < 0 ||
        memcmp(sb.group, s->sb.group, sizeof(sb.group))) {
        lose_log(s);
    } else if (sb.tail > s->writer.tail) {
        s->writer.tail = sb.tail;
    } else {
        wait_for_change(s, now_ns(s) + FULL_RETRY_NS);
    }
}

/*
 * Give a packet its place, waiting for one if the ring is full. Returns 0;
 * -EIO: the log was lost meanwhile.
 */
static int place(WeirSource *s, WeirLogPacket *log, Packet *p)
{
    WeirLogCommit commit;

    while (s->state == WEIR_SOURCE_STREAMING) {
        if (s->packets >= PACKETS_UNDER_WAY_MAX) {
            wait_for_change(s, WEIR_TASKS_FOREVER);
        } else if (weir_log_writer_put(&s->writer, log, p->records, p->head,
                                       &commit) < 0) {
            read_tail(s);
        } else {
            if (log->commit) {
                p->epoch->commits[p->epoch->sessions++ %
                                  WEIR_EPOCH_COMMITS] = commit;
            }
            return 0;
        }
    }
    return -EIO;
}

/* A packet without records, or with all disks: what a segment needs. */
static int send_disks(WeirSource *s, WeirEpoch *epoch, bool last)
{
    uint16_t n = last ? 0 : s->disk_count;
    uint64_t data_bytes = (uint64_t)n * WEIR_LOG_DATA_ALIGN_BYTES;
    WeirLogPacket log = { .records = n, .last = last };
    Packet *p = new_packet(s, epoch, n, data_bytes);
    uint8_t *data;

    if (!p) {
        return -ENOMEM;
    }
    data = p->head + weir_log_head_bytes(n);
    for (uint16_t i = 0; i < n; i++, data += WEIR_LOG_DATA_ALIGN_BYTES) {
        weir_log_disk_write(data, &s->disks[i]->what);
        p->records[i] = (WeirLogRecord) {
            .op = WEIR_LOG_DISK, .disk = i, .bytes = s->disks[i]->bytes,
            .crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES),
        };
    }
    if (place(s, &log, p) < 0) {
        free_packet(p);
        return -EIO;
    }
    add_iov(p, p->head, log.head_bytes + data_bytes);
    send_packet(p, &log);
    return 0;
}

static int make_way(WeirSource *s, WeirEpoch *epoch, uint64_t bytes)
{
    int ret = 0;

    if (weir_log_writer_next(&s->writer, bytes) == WEIR_LOG_NEXT_LAST) {
        ret = send_disks(s, epoch, true);
    }
    if (ret == 0 &&
        weir_log_writer_next(&s->writer, bytes) == WEIR_LOG_NEXT_FIRST) {
        ret = send_disks(s, epoch, false);
    }
    return ret;
}

static void add_entry(Packet *p, const WeirEpochEntry *entry)
{
    uint64_t bytes = weir_log_data_bytes(&entry->record);

    if (bytes > 0) {
        add_iov(p, entry->piece.data, bytes);
        add_padding(p, weir_log_data_room(bytes) - bytes);
    }
}

static int send_part(WeirSource *s, WeirEpoch *epoch,
                     const WeirEpochPart *part)
{
    WeirLogPacket log = {
        .records = part->count, .commit = part->ends, .consistent = part->ends,
        .application_consistent = part->ends && epoch->application_consistent,
        .wall_ns = part->ends ? epoch->wall_ns : 0,
        .monotonic_ns = part->ends ? epoch->monotonic_ns : 0,
    };
    const WeirEpochEntry *entries = epoch->entries + part->first;
    Packet *p = new_packet(s, epoch, part->count, 0);

    if (!p) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < part->count; i++) {
        p->records[i] = entries[i].record;
    }
    if (place(s, &log, p) < 0) {
        free_packet(p);
        return -EIO;
    }
    add_iov(p, p->head, log.head_bytes);
    for (uint32_t i = 0; i < part->count; i++) {
        add_entry(p, &entries[i]);
    }
    send_packet(p, &log);
    return 0;
}

/* One never fills a segment. */
static uint64_t packet_bytes(const WeirSource *s)
{
    uint64_t most = s->sb.segment_bytes / 8;

    return most < PACKET_BYTES ? most : PACKET_BYTES;
}

static int send_epoch(WeirSource *s, WeirEpoch *epoch)
{
    uint32_t first = 0;

    for (;;) {
        WeirEpochPart part = weir_epoch_part(epoch, first, packet_bytes(s));
        int ret = make_way(s, epoch, weir_log_head_bytes(part.count) +
                                     part.data_bytes);

        ret = ret < 0 ? ret : send_part(s, epoch, &part);
        if (ret < 0 || part.ends) {
            return ret;
        }
        first += part.count;
    }
}

/* --- the sender --- */

/* When the open epoch has to be closed; 0: now. */
static uint64_t due_ns(const WeirSource *s)
{
    if (s->open->count == 0) {
        return WEIR_TASKS_FOREVER;
    }
    return s->hurry || s->stops || s->open->bytes >= s->config.epoch_bytes
           ? 0 : s->open->begun_ns + s->config.epoch_interval_ns;
}

/* Those that are being written get their place in the next one. */
static int close_epoch(WeirSource *s)
{
    WeirEpoch *next = weir_epoch_new();

    if (!next || weir_epoch_reserve(next, s->writes + 1) < 0) {
        weir_epoch_free(next, s->memory);
        return -ENOMEM;
    }
    s->open->wall_ns = s->tasks->wall_ns(s->tasks->opaque);
    s->open->monotonic_ns = now_ns(s);
    next->serial = s->open->serial + 1;
    s->open->next = next;
    s->open = next;
    s->hurry = false;
    return 0;
}

/* Without memory for it there is a second one for others to give some back. */
static void pause_sender(WeirSource *s)
{
    wait_for_change(s, now_ns(s) + 1000000000);
}

/* Send what is closed, or wait. */
static void send_next(WeirSource *s)
{
    uint64_t due = due_ns(s);
    int ret;

    if (s->to_send == s->open &&
        (due == WEIR_TASKS_FOREVER || due > now_ns(s))) {
        wait_for_change(s, due);
        return;
    }
    if (s->to_send == s->open && close_epoch(s) < 0) {
        pause_sender(s);
        return;
    }
    s->sending = true;
    ret = send_epoch(s, s->to_send);
    s->sending = false;
    if (ret == 0) {
        s->to_send = s->to_send->next;
    } else {
        /* part of it may be there: all of it again, in another session */
        lose_log(s);
    }
    changed(s);
}

/* --- the committer --- */

/* Up to this one all is in the log for good, which ends like that. */
static void let_go(WeirSource *s, WeirEpoch *last, const WeirLogCommit *end)
{
    bool more = true;

    s->durable = *end;
    while (more) {
        WeirEpoch *e = s->oldest;

        more = e != last;
        s->oldest = e->next;
        weir_epoch_free(e, s->memory);
    }
    changed(s);
}

/* The last epoch of which all packets, and all before it, have been written. */
static WeirEpoch *written(const WeirSource *s)
{
    WeirEpoch *last = NULL;

    for (WeirEpoch *e = s->oldest; e != s->to_send && e->packets == 0;
         e = e->next) {
        last = e;
    }
    return last;
}

static const WeirLogCommit *last_commit(const WeirEpoch *epoch)
{
    return &epoch->commits[(epoch->sessions - 1) % WEIR_EPOCH_COMMITS];
}

static void commit(void *arg)
{
    WeirSource *s = arg;

    pthread_mutex_lock(&s->lock);
    while (s->state == WEIR_SOURCE_STREAMING) {
        WeirEpoch *last = written(s);
        int ret;

        if (!last) {
            wait_for_change(s, WEIR_TASKS_FOREVER);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        ret = s->host->flush_log(s->opaque);
        pthread_mutex_lock(&s->lock);
        if (ret < 0) {
            s->flush_failed = true;
            lose_log(s);
        } else {
            let_go(s, last, last_commit(last));
            weir_log_writer_durable(&s->writer, &s->durable);
        }
    }
    s->packets--;               /* it counts as one: see drain() */
    changed(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- connecting --- */

/* Nothing of the last session is under way any more. */
static void drain(WeirSource *s)
{
    while (s->packets > 0 || s->sending) {
        wait_for_change(s, WEIR_TASKS_FOREVER);
    }
}

static int read_end(WeirSource *s, uint64_t device_bytes,
                    WeirLogSuperblock *sb, WeirLogCommit *end, char *err,
                    size_t err_size)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    int ret = s->host->read_log(s->opaque, 0, sizeof(copies), copies);

    if (ret == 0) {
        ret = weir_log_superblock_read(sb, copies, device_bytes, err,
                                       err_size);
        if (ret < 0) {
            return ret;
        }
        ret = weir_log_find_end(s->host->read_log, s->opaque, sb, end);
    }
    ret = ret < 0 ? ret : s->host->flush_log(s->opaque);
    if (ret < 0) {
        snprintf(err, err_size, "the replication log cannot be read: %s",
                 strerror(-ret));
    }
    return ret;
}

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

/*
 * What can be read behind a failed flush may be gone after a power cut,
 * whatever later flushes say. So it is written again, but for what the keeper
 * has made durable itself.
 */
static const WeirLogCommit *reliable_end(const WeirSource *s,
                                         const WeirLogSuperblock *sb,
                                         const WeirLogCommit *end)
{
    const WeirLogCommit *known = sb->anchor.epoch > s->durable.epoch
                                 ? &sb->anchor : &s->durable;

    return s->flush_failed && end->epoch > known->epoch ? known : end;
}

static int begin_session(WeirSource *s, const WeirLogSuperblock *sb,
                         const WeirLogCommit *found, char *err,
                         size_t err_size)
{
    const WeirLogCommit end = *reliable_end(s, sb, found);
    bool first = s->sb.segments == 0;
    WeirEpoch *ours;

    if (!first && memcmp(sb->group, s->sb.group, sizeof(sb->group))) {
        snprintf(err, err_size, "this is another replication log than before");
        return -ESTALE;
    }
    if (first) {
        s->durable = end;
    } else if (!find_ours(s, &end, &ours)) {
        snprintf(err, err_size, "the replication log ends with epoch %llu, "
                 "which is not what was sent there",
                 (unsigned long long)end.epoch);
        return -ESTALE;
    } else if (ours) {
        let_go(s, ours, &end);
    }
    s->sb = *sb;
    weir_log_writer_init(&s->writer, &s->sb, &end,
                         s->tasks->random(s->tasks->opaque));
    s->to_send = s->oldest;
    s->flush_failed = false;
    s->state = WEIR_SOURCE_STREAMING;
    s->packets = 1;
    s->tasks->spawn(s->tasks->opaque, commit, s);
    changed(s);
    return 0;
}

int weir_source_connect(WeirSource *s, uint64_t device_bytes, char *err,
                        size_t err_size)
{
    WeirLogSuperblock sb;
    WeirLogCommit end;
    int ret;

    pthread_mutex_lock(&s->lock);
    drain(s);
    pthread_mutex_unlock(&s->lock);
    ret = read_end(s, device_bytes, &sb, &end, err, err_size);
    pthread_mutex_lock(&s->lock);
    if (ret < 0) {
        s->flush_failed = true;         /* it may have been that */
        pthread_mutex_unlock(&s->lock);
        return ret;
    }
    ret = begin_session(s, &sb, &end, err, err_size);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

/* --- run --- */

/* All that was written before stopping is durable, or cannot become so. */
static bool is_done(const WeirSource *s)
{
    return s->stops && (s->state != WEIR_SOURCE_STREAMING ||
                        (s->oldest == s->open && s->open->count == 0));
}

void weir_source_run(WeirSource *s)
{
    pthread_mutex_lock(&s->lock);
    while (!is_done(s)) {
        if (s->state == WEIR_SOURCE_STREAMING) {
            send_next(s);
        } else {
            wait_for_change(s, WEIR_TASKS_FOREVER);
        }
    }
    lose_log(s);
    drain(s);
    pthread_mutex_unlock(&s->lock);
}

void weir_source_stop(WeirSource *s)
{
    pthread_mutex_lock(&s->lock);
    s->stops = true;
    changed(s);
    pthread_mutex_unlock(&s->lock);
}

void weir_source_info(WeirSource *s, WeirSourceInfo *info)
{
    uint64_t now = now_ns(s);

    memset(info, 0, sizeof(*info));
    pthread_mutex_lock(&s->lock);
    info->state = s->state;
    info->epoch = s->durable.epoch;
    info->memory_bytes = weir_memory_used_bytes(s->memory);
    info->sent_bytes = s->sent_bytes;
    for (const WeirEpoch *e = s->oldest; e; e = e->next) {
        info->queued_bytes += e->bytes;
        if (info->rpo_ns == 0 && e->count > 0) {
            info->rpo_ns = now - e->begun_ns;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

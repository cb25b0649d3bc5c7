/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sender, which makes packets of epochs, and the committer. */
#include "replication/source-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKET_BYTES (UINT64_C(1) << 20)
#define PACKETS_UNDER_WAY_MAX 8
#define FULL_RETRY_NS 100000000

typedef struct Packet {
    WeirSource *source;
    WeirEpoch *epoch;
    uint64_t offset, bytes;
    uint64_t plain_bytes;       /* that would be without compression */
    uint8_t *head;
    WeirSourcePack pack;        /* or all zeroes */
    WeirLogRecord *records;
    size_t niov;
    struct iovec iov[];
} Packet;

/* --- packets --- */

static void free_packet(Packet *p)
{
    weir_source_pack_free(&p->pack);
    free(p->records);
    free(p->head);
    free(p);
}

static void count_rate(WeirSource *s, uint64_t bytes)
{
    uint64_t second = weir_source_now(s) / 1000000000;

    if (second - s->rate_second >= WEIR_SOURCE_RATE_SECONDS) {
        memset(s->rate_bytes, 0, sizeof(s->rate_bytes));
        s->rate_second = second;
    }
    while (s->rate_second < second) {
        s->rate_bytes[++s->rate_second % WEIR_SOURCE_RATE_SECONDS] = 0;
    }
    s->rate_bytes[second % WEIR_SOURCE_RATE_SECONDS] += bytes;
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
        weir_source_lose_log(s);
    } else {
        s->sent_bytes += p->bytes;
        s->plain_bytes += p->plain_bytes;
        count_rate(s, p->bytes);
    }
    weir_source_changed(s);
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

/* The next packet is not to go before so many bytes may have been sent. */
static void slow_down(WeirSource *s, uint64_t bytes)
{
    uint64_t now = weir_source_now(s);

    if (s->config.max_rate > 0) {
        s->send_ns = (s->send_ns > now ? s->send_ns : now) +
                     bytes * 1000000000 / s->config.max_rate;
    }
}

/* Once its head has been made. plain_bytes: of its data; 0: not compressed. */
static void send_packet(Packet *p, const WeirLogPacket *log,
                        uint64_t plain_bytes)
{
    WeirSource *s = p->source;

    p->offset = weir_log_offset(&s->sb, log->position);
    p->bytes = weir_log_packet_bytes(log);
    p->plain_bytes = plain_bytes > 0 ? weir_log_packet_room(log->head_bytes +
                                                            plain_bytes)
                                     : p->bytes;
    add_padding(p, p->bytes - log->head_bytes - log->data_bytes);
    s->packets++;
    p->epoch->packets++;
    slow_down(s, p->bytes);
    s->tasks->spawn(s->tasks->opaque, write_packet, p);
}

/* What was read may not be durable yet, and is relied on. */
static int read_and_flush(WeirSource *s, uint8_t *copies, size_t bytes)
{
    int ret = s->host->read_log(s->opaque, 0, bytes, copies);

    return ret < 0 || WEIR_SOURCE_WITHOUT(6) ? ret
                                             : s->host->flush_log(s->opaque);
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
    if (ret < 0) {
        weir_source_fail_flush(s, ret);
    }
    if (ret < 0 ||
        weir_log_superblock_read(&sb, copies, UINT64_MAX, err,
                                 sizeof(err)) < 0 ||
        memcmp(sb.group, s->sb.group, sizeof(sb.group))) {
        weir_source_lose_log(s);
    } else if (sb.tail > s->writer.tail) {
        s->writer.tail = sb.tail;
    } else {
        weir_source_wait(s, weir_source_now(s) + FULL_RETRY_NS);
    }
}

/*
 * Give a packet its place, waiting for one if the ring is full. Returns 0;
 * -EIO: the log was lost meanwhile.
 */
static int place(WeirSource *s, WeirLogPacket *log, Packet *p)
{
    WeirLogCommit commit;

    while (s->connected) {
        if (s->packets >= PACKETS_UNDER_WAY_MAX) {
            weir_source_wait(s, WEIR_TASKS_FOREVER);
        } else if (s->send_ns > weir_source_now(s)) {
            weir_source_wait(s, s->send_ns);
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
            .op = WEIR_LOG_DISK, .disk = s->disks[i]->number,
            .bytes = s->disks[i]->sent_bytes,
            .crc = weir_log_data_crc(data, WEIR_LOG_DISK_BYTES),
        };
    }
    if (place(s, &log, p) < 0) {
        free_packet(p);
        return -EIO;
    }
    add_iov(p, p->head, log.head_bytes + data_bytes);
    send_packet(p, &log, 0);
    s->announce = s->announce && last;
    return 0;
}

/* So that a packet of so many bytes may go next. */
static int begin_segment(WeirSource *s, WeirEpoch *epoch, uint64_t bytes)
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

static int make_way(WeirSource *s, WeirEpoch *epoch, uint64_t bytes)
{
    int ret = 0;

    if (s->announce) {
        ret = begin_segment(s, epoch,
                            weir_log_head_bytes(s->disk_count) +
                            s->disk_count * WEIR_LOG_DATA_ALIGN_BYTES);
    }
    if (ret == 0 && s->announce) {
        ret = send_disks(s, epoch, false);
    }
    return ret < 0 ? ret : begin_segment(s, epoch, bytes);
}

/* What is compressed is padded already. */
static void add_record(Packet *p, const WeirLogRecord *r, const uint8_t *data)
{
    uint64_t bytes = weir_log_data_bytes(r), room = weir_log_data_room(bytes);

    if (r->packed_bytes > 0) {
        add_iov(p, data, room);
    } else if (bytes > 0) {
        add_iov(p, data, bytes);
        add_padding(p, room - bytes);
    }
}

/* A packet of what was packed, which it takes over; NULL: no memory. */
static Packet *packed_packet(WeirSource *s, WeirEpoch *epoch,
                             WeirSourcePack *pack)
{
    Packet *p = new_packet(s, epoch, pack->count, 0);

    if (!p) {
        weir_source_pack_free(pack);
        return NULL;
    }
    memcpy(p->records, pack->records, pack->count * sizeof(*p->records));
    p->pack = *pack;
    return p;
}

static void note_lengths(WeirSource *s, const WeirEpochEntry *entries,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].record.op == WEIR_LOG_RESIZE) {
            weir_source_disk_of(s, entries[i].record.disk)->sent_bytes =
                entries[i].record.bytes;
        }
    }
}

static int place_packed(WeirSource *s, WeirLogPacket *log, Packet *p)
{
    int ret = make_way(s, p->epoch, weir_log_head_bytes(p->pack.count) +
                                    p->pack.data_bytes);

    ret = ret < 0 ? ret : place(s, log, p);
    if (ret < 0) {
        free_packet(p);
    }
    return ret;
}

static int send_part(WeirSource *s, WeirEpoch *epoch,
                     const WeirEpochPart *part)
{
    WeirLogPacket log = {
        .commit = part->ends,
        .consistent = part->ends && epoch->consistent,
        .application_consistent = part->ends && epoch->application_consistent,
        .wall_ns = part->ends ? epoch->wall_ns : 0,
        .monotonic_ns = part->ends ? epoch->monotonic_ns : 0,
    };
    /* an epoch may be empty, and has no entries then */
    const WeirEpochEntry *entries = part->count
                                    ? epoch->entries + part->first : NULL;
    WeirSourcePack pack;
    Packet *p;
    int ret = weir_source_pack(s, entries, part->count, &pack);

    if (ret < 0) {
        return ret;
    }
    log.records = pack.count;
    p = packed_packet(s, epoch, &pack);
    if (!p) {
        return -ENOMEM;
    }
    ret = place_packed(s, &log, p);
    if (ret < 0) {
        return ret;
    }
    add_iov(p, p->head, log.head_bytes);
    for (uint32_t i = 0; i < p->pack.count; i++) {
        add_record(p, &p->records[i], p->pack.data[i]);
    }
    note_lengths(s, entries, part->count);
    send_packet(p, &log, part->data_bytes);
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
        int ret = send_part(s, epoch, &part);

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
    if (s->connected && s->wants_point && weir_source_is_synchronised(s)) {
        return 0;
    }
    if (s->open->count == 0) {
        return WEIR_TASKS_FOREVER;
    }
    return s->hurry || s->stops || s->open->bytes >= weir_source_epoch_bytes(s)
           ? 0 : s->open->begun_ns + s->config.epoch_interval_ns;
}

/* Without memory for it there is a second one for others to give some back. */
static void pause_sender(WeirSource *s)
{
    weir_source_wait(s, weir_source_now(s) + 1000000000);
}

/* All that was queued is in the log, and nothing has come since. */
static bool is_drained(const WeirSource *s)
{
    return s->oldest == s->open && s->open->count == 0;
}

void weir_source_queue_next(WeirSource *s)
{
    uint64_t due = due_ns(s);

    if (due == WEIR_TASKS_FOREVER || due > weir_source_now(s)) {
        weir_source_wait(s, due);
    } else if (weir_source_close_epoch(s) < 0) {
        pause_sender(s);
    }
}

void weir_source_send_next(WeirSource *s)
{
    int ret;

    if (s->marking && is_drained(s) && !s->stops &&
        weir_source_end_marking(s) < 0) {
        pause_sender(s);
        return;
    }
    weir_source_start_copying(s);
    if (s->to_send == s->open) {
        weir_source_queue_next(s);
        return;
    }
    s->sending = true;
    ret = send_epoch(s, s->to_send);
    s->sending = false;
    if (ret == 0) {
        s->to_send = s->to_send->next;
    } else {
        /* part of it may be there: all of it again, in another session */
        weir_source_lose_log(s);
    }
    weir_source_changed(s);
}

/* --- the committer --- */

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

void weir_source_commit(void *arg)
{
    WeirSource *s = arg;

    pthread_mutex_lock(&s->lock);
    while (s->connected) {
        WeirEpoch *last = written(s);
        uint32_t before;
        int ret;

        if (!last) {
            weir_source_wait(s, WEIR_TASKS_FOREVER);
            continue;
        }
        before = s->flush_failures;
        pthread_mutex_unlock(&s->lock);
        ret = s->host->flush_log(s->opaque);
        pthread_mutex_lock(&s->lock);
        if (ret < 0) {
            weir_source_fail_flush(s, ret);
        }
        /* where another has failed meanwhile, one that succeeds may have made
           nothing durable */
        if (ret < 0 || (s->flush_failures != before &&
                        !WEIR_SOURCE_WITHOUT(16))) {
            weir_source_lose_log(s);
        } else {
            weir_source_let_go(s, last, last_commit(last));
            weir_log_writer_durable(&s->writer, &s->durable);
        }
    }
    s->packets--;               /* it counts as one: see drain() */
    weir_source_changed(s);
    pthread_mutex_unlock(&s->lock);
}


/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening a log: the superblock, the disks as they are at the anchor, then all
 * epochs behind it, from chapters or packets. What no packet says to be durable
 * is written again, and the superblock too: they may be there only because
 * nobody has looked at the medium since a flush failed.
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replication/scan.h"

static int cannot(char *err, size_t err_size, const char *what, int ret)
{
    weir_keeper_say(err, err_size, "the replication log cannot be %s: %s",
                    what, strerror(-ret));
    return ret;
}

static int read_log(void *opaque, uint64_t offset, uint64_t bytes, void *buf)
{
    const WeirKeeper *k = opaque;

    return k->host->read_log(k->host->opaque, offset, bytes, buf);
}

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    const WeirKeeper *k = opaque;

    return k->host->write_log(k->host->opaque, offset, bytes, iov, niov);
}

/* --- superblock --- */

/*
 * The very bytes, to the same place: if they are durable already, a write that
 * is torn does no harm; if not, the other copy is, and holds.
 */
static int write_copy_again(WeirKeeper *k, uint8_t *copies)
{
    uint64_t offset = k->sb.sequence % WEIR_LOG_SUPERBLOCKS *
                      WEIR_LOG_SUPERBLOCK_BYTES;
    const struct iovec iov = { copies + offset, WEIR_LOG_SUPERBLOCK_BYTES };

    return WITHOUT_RULE(35) ? 0 :
           k->host->write_log(k->host->opaque, offset, iov.iov_len, &iov, 1);
}

static int read_superblock(WeirKeeper *k, uint64_t device_bytes, char *err,
                           size_t err_size)
{
    uint8_t copies[WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES];
    int ret = device_bytes < sizeof(copies)
              ? -ENOENT : read_log(k, 0, sizeof(copies), copies);

    if (ret == -ENOENT) {
        weir_keeper_say(err, err_size, "there is no replication log");
        return ret;
    }
    if (ret < 0) {
        return cannot(err, err_size, "read", ret);
    }
    ret = weir_log_superblock_read(&k->sb, copies, device_bytes, err,
                                   err_size);
    if (ret < 0) {
        return ret;
    }
    k->sb.is_kept = false;
    k->ring_bytes = weir_log_ring_bytes(&k->sb);
    k->stale_end = k->sb.tail + k->ring_bytes;
    k->tried_sequence = k->sb.sequence;
    k->valid = k->durable = k->sb.anchor;
    k->applied = k->sb.anchor.epoch;
    k->applied_end = k->sb.anchor.end;
    k->horizon = k->sb.horizon > k->applied ? k->sb.horizon : k->applied;
    ret = write_copy_again(k, copies);
    return ret < 0 ? cannot(err, err_size, "written", ret) : 0;
}

/* --- disks at the anchor --- */

/* A head at a position before the anchor; 0: there is none. */
static int read_head(WeirKeeper *k, uint64_t position, uint8_t *buf,
                     WeirLogPacket *p)
{
    uint64_t offset = weir_log_offset(&k->sb, position);
    uint64_t room = k->sb.segment_bytes - position % k->sb.segment_bytes;
    const char *why;
    uint32_t head;
    int ret = read_log(k, offset, WEIR_LOG_ALIGN_BYTES, buf);

    if (ret < 0) {
        return ret;
    }
    head = weir_log_packet_peek(buf);
    if (head == 0 || head > room) {
        return 0;
    }
    if (head > WEIR_LOG_ALIGN_BYTES) {
        ret = read_log(k, offset + WEIR_LOG_ALIGN_BYTES,
                       head - WEIR_LOG_ALIGN_BYTES,
                       buf + WEIR_LOG_ALIGN_BYTES);
        if (ret < 0) {
            return ret;
        }
    }
    return weir_log_packet_read(p, buf, &why) == 0 &&
           p->position == position && weir_log_packet_bytes(p) <= room &&
           !memcmp(p->group, k->sb.group, WEIR_LOG_UUID_BYTES);
}

/* One DISK record, whose data is at a position; a damaged one is passed by. */
static int take_disk(WeirKeeper *k, const WeirLogRecord *r, uint64_t position)
{
    uint8_t data[WEIR_LOG_DATA_ALIGN_BYTES];
    WeirLogDisk what;
    int ret = read_log(k, weir_log_offset(&k->sb, position), sizeof(data),
                       data);

    if (ret == 0 && r->crc == weir_log_data_crc(data, WEIR_LOG_DISK_BYTES) &&
        weir_log_disk_read(&what, data) == 0) {
        k->disks[r->disk] = (KnownDisk) { true, what, r->bytes };
    }
    return ret;
}

static int take_disks(WeirKeeper *k, const WeirLogPacket *p,
                      const uint8_t *head)
{
    uint64_t position = p->position + p->head_bytes;
    int ret = 0;

    for (uint32_t i = 0; i < p->records && ret == 0; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, head, i);
        if (r.op == WEIR_LOG_DISK) {
            ret = take_disk(k, &r, position);
        } else if (r.op == WEIR_LOG_RESIZE) {
            k->disks[r.disk].bytes = r.bytes;
        }
        position += weir_log_data_room(weir_log_data_bytes(&r));
    }
    return ret;
}

/* All heads of the segment that the anchor is in, up to it. */
static int find_disks(WeirKeeper *k)
{
    uint64_t end = k->sb.anchor.end, position;
    uint8_t *buf = malloc(WEIR_LOG_PACKET_BYTES_MAX);
    int ret = buf ? 0 : -ENOMEM;

    if (end == 0 || ret < 0) {
        free(buf);
        return ret;
    }
    position = end - 1 - (end - 1) % k->sb.segment_bytes;
    while (position < end && ret == 0) {
        WeirLogPacket p;

        ret = read_head(k, position, buf, &p);
        if (ret == 1) {
            ret = take_disks(k, &p, buf);
            k->writer = (uint32_t)(p.session >> 32);
            position = weir_log_packet_next(&p, k->sb.segment_bytes);
        } else {
            position += WEIR_LOG_ALIGN_BYTES;
        }
    }
    memcpy(k->applied_disks, k->disks, sizeof(k->disks));
    memcpy(k->arriving, k->disks, sizeof(k->disks));
    free(buf);
    return ret;
}

/* --- epochs --- */

/*
 * -ENODATA: it is not in order. That one was refused when it came, after those
 * before it; or damage has made it so.
 */
static int take_packet(WeirKeeper *k, const WeirLogScan *scan)
{
    Arrived *a = weir_arrived_new(&scan->packet, scan->buf,
                                  scan->buf + scan->packet.head_bytes);

    if (!a) {
        return -ENOMEM;
    }
    if (weir_keeper_check_records(k->arriving, a, NULL, 0) < 0) {
        weir_arrived_free(a);
        return -ENODATA;
    }
    a->taken = a->written = true;
    a->commit = scan->cursor.commit;
    weir_keeper_follow(k->arriving, a);
    weir_keeper_insert(k, a);
    return weir_keeper_advance(k);
}

typedef struct Opening {
    WeirLogScan scan;
    NextChapter next;
    uint64_t most;              /* epoch that a packet says to be durable */
    uint64_t told;              /* a packet or chapter of a valid one */
} Opening;

/* A packet was taken. Returns 1: a chapter goes on there. */
static int note_packet(WeirKeeper *k, Opening *o)
{
    uint64_t durable = o->scan.packet.durable.epoch;

    o->most = durable > o->most ? durable : o->most;
    k->ended[0] = o->scan.packet.session;
    k->ended_count = 1;
    k->writer = (uint32_t)(o->scan.packet.session >> 32);
    if (k->arrived) {
        return 0;
    }
    o->told = o->most > o->told ? o->most : o->told;
    weir_keeper_lock(k);
    weir_keeper_seal(k, o->told, false);
    weir_keeper_unlock(k);
    return weir_keeper_chapter_follows(k, &o->next);
}

/* Returns 1: a chapter goes on where it has come to; 0: the end of the log. */
static int scan_epochs(WeirKeeper *k, Opening *o, char *err, size_t err_size)
{
    int ret;

    while ((ret = weir_log_scan_next(&o->scan)) >= 0) {
        ret = take_packet(k, &o->scan);
        ret = ret < 0 ? ret : note_packet(k, o);
        if (ret != 0) {
            break;
        }
        /* what is under way when it is full is still let in */
        if (weir_keeper_memory(k) / 2 > weir_keeper_memory_max(k)) {
            weir_keeper_say(err, err_size, "the records of the replication log "
                            "need more than %llu bytes of memory",
                            (unsigned long long)weir_keeper_memory_max(k) * 2);
            return -EFBIG;
        }
    }
    return ret == -ENODATA ? 0 : ret < 0 ? cannot(err, err_size, "read", ret)
                                         : ret;
}

/*
 * What was read as packets before a chapter becomes one, so that the chapters
 * are all of the index but for its last epochs.
 */
static int take_chapters(WeirKeeper *k, Opening *o, char *err, size_t err_size)
{
    int ret = 0;

    weir_keeper_lock(k);
    weir_keeper_seal(k, o->told, true);
    weir_keeper_unlock(k);
    if (weir_keeper_unsealed(k) > k->valid.epoch) {
        ret = weir_keeper_take_chapters(k);
    }
    o->told = ret > 0 ? k->valid.epoch : o->told;
    k->writer = ret > 0 ? WRITER_UNKNOWN : k->writer;
    weir_log_cursor_init(&o->scan.cursor, &k->sb, &k->valid);
    return ret < 0 ? cannot(err, err_size, "read", ret) : 0;
}

/* Chapters as long as there are some, else packets. */
static int read_epochs(WeirKeeper *k, uint64_t *told, char *err,
                       size_t err_size)
{
    Opening o = { .next = { .position = UINT64_MAX } };
    int ret = weir_log_scan_init(&o.scan, read_log, k, &k->sb, &k->sb.anchor);

    if (ret < 0) {
        return cannot(err, err_size, "read", ret);
    }
    do {
        ret = take_chapters(k, &o, err, err_size);
        ret = ret < 0 ? ret : scan_epochs(k, &o, err, err_size);
        o.told = ret == 1 ? k->valid.epoch : o.told;
    } while (ret == 1);
    weir_log_scan_destroy(&o.scan);
    *told = o.told;
    return ret;
}

/* --- to be sure of it --- */

/* The packets of the valid epochs behind one that is known to be durable. */
static int secure_epochs(WeirKeeper *k, uint64_t told)
{
    const WeirIndexEpoch *e = weir_index_get(&k->index, told);

    return weir_log_write_again(read_log, write_log, k, &k->sb,
                                e ? &e->commit : &k->sb.anchor, k->valid.end);
}

/*
 * If what the bases may hold already is not in the log any more, nothing of
 * them is a point in time until a writer has copied all to it again.
 */
static int give_up_points(WeirKeeper *k)
{
    WeirLogSuperblock sb;

    if (k->horizon <= k->valid.epoch) {
        return 0;
    }
    weir_keeper_sb_begin(k);
    sb = k->sb;
    sb.horizon = k->horizon = sb.anchor.epoch;
    sb.base_incomplete = true;
    return weir_keeper_sb_end(k, &sb);
}

static int secure(WeirKeeper *k, uint64_t told, char *err, size_t err_size)
{
    WeirLogCommit end;
    int ret = weir_log_find_end_behind(read_log, k, &k->sb, &k->valid, &end);

    k->lost_epoch = ret == 0 && end.epoch > k->valid.epoch ? end.epoch : 0;
    ret = ret < 0 || WITHOUT_RULE(26) ? ret : secure_epochs(k, told);
    if (ret < 0) {
        return cannot(err, err_size, "read", ret);
    }
    weir_keeper_lock(k);
    ret = weir_keeper_flush_locked(k);
    ret = ret < 0 ? ret : give_up_points(k);
    weir_keeper_end_session(k);
    if (ret == 0) {
        weir_keeper_seal(k, k->durable.epoch, false);
    }
    weir_keeper_unlock(k);
    return ret < 0 ? cannot(err, err_size, "written", ret) : 0;
}

/* --- bases --- */

static int measure_bases(WeirKeeper *k, char *err, size_t err_size)
{
    for (uint32_t i = 0; i < k->base_count; i++) {
        Base *base = &k->bases[i];
        int64_t bytes = k->host->length_base(base->host);

        if (bytes < 0) {
            weir_keeper_say(err, err_size, "the base image of disk '%s' cannot "
                            "be read: %s", base->disk, strerror((int)-bytes));
            return (int)bytes;
        }
        base->bytes = (uint64_t)bytes;
        base->doubtful = k->horizon > k->sb.anchor.epoch;
    }
    return 0;
}

int weir_keeper_open(WeirKeeper *k, uint64_t device_bytes, char *err,
                     size_t err_size)
{
    uint64_t told = 0;
    int ret = read_superblock(k, device_bytes, err, err_size);

    if (ret < 0) {
        return ret;
    }
    ret = find_disks(k);
    if (ret < 0) {
        return cannot(err, err_size, "read", ret);
    }
    ret = measure_bases(k, err, err_size);
    ret = ret < 0 ? ret : weir_keeper_check_sidecars(k, err, err_size);
    ret = ret < 0 ? ret : read_epochs(k, &told, err, err_size);
    return ret < 0 ? ret : secure(k, told, err, err_size);
}

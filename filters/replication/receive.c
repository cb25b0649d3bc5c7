/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What clients of a log may do: write packets that fit, read, flush.
 *
 *   no session --first packet, at the end of the log--> alive
 *   alive --a packet refused, a write or flush failed, promotion, its writer
 *           takes leave or begins another, or somebody else does so after the
 *           lease--> ended
 *
 * A session that has ended never comes back, and the next one writes only when
 * nothing of it is under way. If epochs that it has written are gone, flushes
 * of clients fail until one has been told so, and has begun to read the log
 * again.
 */
#include "replication/keeper-int.h"
#include "replication/leave.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Packets that may be ahead of one that has not come yet. */
#define ARRIVED_MAX 1024
#define ARRIVED_BYTES_MAX (UINT64_C(64) << 20)

/* A write of a client. */
typedef struct Request {
    uint64_t offset, bytes;
    uint8_t *copy;              /* NULL: data is the client's memory */
    const uint8_t *data;
    Arrived *arrived;
    char *err;
    size_t err_size;
} Request;

/* --- what it is --- */

static int collect(Request *r, const struct iovec *iov, size_t niov)
{
    uint8_t *to;

    if (niov == 1 && iov[0].iov_len == r->bytes) {
        r->data = iov[0].iov_base;
        return 0;
    }
    to = r->copy = malloc(r->bytes);
    if (!to) {
        weir_keeper_say(r->err, r->err_size, "no memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < niov; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    r->data = r->copy;
    return 0;
}

static int no_packet(const Request *r, const char *why)
{
    weir_keeper_say(r->err, r->err_size, "a write of %llu bytes at %llu is not "
                    "one whole packet of a replication log: %s",
                    (unsigned long long)r->bytes,
                    (unsigned long long)r->offset, why);
    return -EINVAL;
}

/* What comes out of the compressed data is what the writer has meant. */
static int check_packed(WeirKeeper *k, const Request *r,
                        const WeirLogPacket *p)
{
    WeirDecompressor *d = weir_keeper_take_decompressor(k);
    const char *why;
    int ret = d ? weir_packed_check(d, p, r->data, r->data + p->head_bytes,
                                    &why) : -ENOMEM;

    weir_keeper_give_decompressor(k, d);
    if (ret == -ENOMEM) {
        weir_keeper_say(r->err, r->err_size, "no memory");
    }
    return ret == -EINVAL ? no_packet(r, why) : ret;
}

/* All that can be told without the state of the keeper. */
static int parse(WeirKeeper *k, Request *r)
{
    uint32_t head = r->bytes < WEIR_LOG_HEADER_BYTES
                    ? 0 : weir_log_packet_peek(r->data);
    WeirLogPacket p;
    const char *why;

    if (head == 0 || head > r->bytes) {
        return no_packet(r, "it does not begin with the head of one");
    }
    if (weir_log_packet_read(&p, r->data, &why) < 0) {
        return no_packet(r, why);
    }
    if (weir_log_packet_bytes(&p) != r->bytes) {
        return no_packet(r, "length");
    }
    if (weir_log_packet_check_data(&p, r->data, r->data + p.head_bytes,
                                   &why) < 0 && !WITHOUT_RULE(16)) {
        return no_packet(r, why);
    }
    if (p.packed && !WITHOUT_RULE(43)) {
        int ret = check_packed(k, r, &p);

        if (ret < 0) {
            return ret;
        }
    }
    r->arrived = weir_arrived_new(&p, r->data, r->data + p.head_bytes);
    if (!r->arrived) {
        weir_keeper_say(r->err, r->err_size, "no memory");
        return -ENOMEM;
    }
    if (r->arrived->of_keeper) {
        weir_arrived_free(r->arrived);
        r->arrived = NULL;
        return no_packet(r, "only a keeper writes records of that kind");
    }
    return 0;
}

/* --- who it is from --- */

static bool has_ended(const WeirKeeper *k, uint64_t session)
{
    uint32_t n = k->ended_count < SESSIONS_REMEMBERED ? k->ended_count
                                                      : SESSIONS_REMEMBERED;

    for (uint32_t i = 0; i < n; i++) {
        if (k->ended[i] == session) {
            return true;
        }
    }
    return false;
}

/* Both are of one writer, who knows when he begins again; 0: of nobody. */
static bool same_life(uint64_t a, uint64_t b)
{
    return a >> 32 == b >> 32 && a >> 32 != 0;
}

static uint64_t lease_ns(const WeirKeeper *k)
{
    return k->config.lease_ns ? k->config.lease_ns : UINT64_C(5000000000);
}

static int check_generation(WeirKeeper *k, const Request *r)
{
    const WeirLogPacket *p = &r->arrived->packet;
    uint64_t last = k->sb.history[k->sb.history_count - 1].number;

    if (memcmp(p->group, k->sb.group, WEIR_LOG_UUID_BYTES)) {
        return no_packet(r, "it is of another group");
    }
    if (p->generation < last && !WITHOUT_RULE(17)) {
        weir_keeper_say(r->err, r->err_size, "generation %llu has ended, "
                        "generation %llu may write",
                        (unsigned long long)p->generation,
                        (unsigned long long)last);
        return -EPERM;
    }
    return p->generation > last
           ? no_packet(r, "it is of a generation that there is not") : 0;
}

/* A session that is there, or one that may begin; waits for the one before. */
static int enter_session(WeirKeeper *k, const Request *r)
{
    uint64_t session = r->arrived->packet.session;

    if (WITHOUT_RULE(18)) {
        k->session = session;
        k->session_alive = true;
    }
    if (has_ended(k, session)) {
        k->loss = k->loss == LOSS_UNTOLD ? LOSS_TOLD : k->loss;
        weir_keeper_say(r->err, r->err_size, "the session of the writer has "
                        "ended");
        return -EPERM;
    }
    if (k->session_alive && session != k->session) {
        if (!same_life(session, k->session) &&
            k->tasks->now_ns(k->tasks->opaque) - k->session_ns <
            lease_ns(k)) {
            weir_keeper_say(r->err, r->err_size, "another writer has a session "
                            "with the log");
            return -EBUSY;
        }
        weir_keeper_end_session(k);
    }
    if (!k->session_alive) {
        if (k->writes > 0 && !WITHOUT_RULE(19)) {
            weir_keeper_wait(k, WEIR_TASKS_FOREVER);
            return -EAGAIN;
        }
        k->session = session;
        k->session_alive = true;
        k->writer = (uint32_t)(session >> 32);
    }
    k->session_ns = k->tasks->now_ns(k->tasks->opaque);
    return 0;
}

/* --- whether it fits --- */

static int check_place(WeirKeeper *k, const Request *r)
{
    const WeirLogPacket *p = &r->arrived->packet;
    uint64_t bytes = weir_log_packet_bytes(p);
    uint64_t at = p->position % k->sb.segment_bytes;

    if (p->packed && !k->sb.zstd) {
        return no_packet(r, "it is compressed, and the log takes nothing "
                         "compressed");
    }
    if (weir_log_offset(&k->sb, p->position) != r->offset ||
        p->first != (at == 0) || bytes > k->sb.segment_bytes - at) {
        return no_packet(r, "it is not where it belongs");
    }
    if (p->position < k->cursor.position ||
        p->epoch <= k->cursor.commit.epoch) {
        weir_keeper_say(r->err, r->err_size, "a packet of epoch %llu at %llu "
                        "is before the end of the log: it goes on with epoch "
                        "%llu at %llu", (unsigned long long)p->epoch,
                        (unsigned long long)p->position,
                        (unsigned long long)k->cursor.commit.epoch + 1,
                        (unsigned long long)k->cursor.position);
        return -EINVAL;
    }
    if (p->position + bytes - k->sb.tail > weir_log_ring_bytes(&k->sb) &&
        !WITHOUT_RULE(20)) {
        weir_keeper_say(r->err, r->err_size, "a packet at %llu is where there "
                        "is what is still needed",
                        (unsigned long long)p->position);
        return -ENOSPC;
    }
    return 0;
}

/* What it says to be durable is so. */
static int check_durable(WeirKeeper *k, const Request *r)
{
    const WeirLogCommit *told = &r->arrived->packet.durable;
    const WeirIndexEpoch *e = weir_index_get(&k->index, told->epoch);

    return told->epoch > k->durable.epoch ||
           (e && memcmp(told, &e->commit, sizeof(*told)))
           ? no_packet(r, "what it says to be durable is not") : 0;
}

static int check_room(WeirKeeper *k, const Request *r)
{
    if (k->arrived_count >= ARRIVED_MAX ||
        k->arrived_bytes >= ARRIVED_BYTES_MAX ||
        weir_keeper_memory(k) + k->arrived_bytes >= weir_keeper_memory_max(k)) {
        weir_keeper_say(r->err, r->err_size, "the keeper of the log has no "
                        "memory for more records");
        return -ENOSPC;
    }
    return 0;
}

/* Whatever follows on what is taken, and is there, is taken too. */
static int take_all(WeirKeeper *k, const Request *r)
{
    char why[WEIR_KEEPER_MESSAGE_BYTES] = "";
    const char *what;
    int ret;

    for (Arrived *a = k->arrived; a; a = a->next) {
        if (a->taken) {
            continue;
        }
        if (a->packet.position > k->cursor.position) {
            break;
        }
        ret = weir_keeper_check_records(k->arriving, a, why, sizeof(why));
        what = why;
        if (ret == 0) {
            ret = weir_log_cursor_take(&k->cursor, &a->packet, &what);
        }
        if (ret < 0) {
            weir_keeper_say(r->err, r->err_size, "a packet of epoch %llu does "
                            "not fit: %s",
                            (unsigned long long)a->packet.epoch, what);
            return -EINVAL;
        }
        a->taken = true;
        a->commit = k->cursor.commit;
        weir_keeper_follow(k->arriving, a);
    }
    return 0;
}

/* Its place in the list; if it is not in order, its session ends. */
static int admit(WeirKeeper *k, Request *r)
{
    int ret = k->sb_uncertain ? -EIO : check_place(k, r);

    if (k->sb_uncertain) {
        weir_keeper_say(r->err, r->err_size, "the superblock of the log cannot "
                        "be written");
    }
    ret = ret < 0 ? ret : check_durable(k, r);
    ret = ret < 0 ? ret : check_room(k, r);
    if (ret == 0 && !weir_keeper_insert(k, r->arrived)) {
        ret = no_packet(r, "there is one already");
    }
    if (ret < 0) {
        weir_arrived_free(r->arrived);
        r->arrived = NULL;
        weir_keeper_end_session(k);
        return ret;
    }
    ret = take_all(k, r);
    if (ret < 0) {
        weir_keeper_end_session(k);
        weir_arrived_free(r->arrived);
        r->arrived = NULL;
    }
    return ret;
}

static int enter(WeirKeeper *k, Request *r)
{
    int ret;

    do {
        while (k->promotes) {
            weir_keeper_wait(k, WEIR_TASKS_FOREVER);
        }
        ret = check_generation(k, r);
        ret = ret < 0 ? ret : enter_session(k, r);
    } while (ret == -EAGAIN);
    if (ret < 0) {
        weir_arrived_free(r->arrived);
        r->arrived = NULL;
        return ret;
    }
    return admit(k, r);
}

/* --- leave --- */

/* One that has ended already is no mistake. */
static int take_leave(WeirKeeper *k, Request *r)
{
    uint8_t group[WEIR_LOG_UUID_BYTES];
    uint64_t session;

    if (weir_log_leave_read(r->data, group, &session) < 0) {
        return no_packet(r, "it is no leave of a writer either");
    }
    weir_keeper_lock(k);
    if (memcmp(group, k->sb.group, WEIR_LOG_UUID_BYTES)) {
        weir_keeper_unlock(k);
        return no_packet(r, "it is a leave, of another group");
    }
    if (k->session_alive && session == k->session) {
        weir_keeper_end_session(k);
    }
    weir_keeper_unlock(k);
    return 0;
}

static bool is_leave(const Request *r)
{
    return r->offset == WEIR_LOG_LEAVE_OFFSET &&
           r->bytes == WEIR_LOG_LEAVE_BYTES;
}

/* --- write --- */

/* What the last request of a kind to the log's device has come to. */
static void note(WeirKeeper *k, int *error, int ret)
{
    if (*error != ret) {
        *error = ret;
        if (k->host->changed) {
            k->host->changed(k->host->opaque);
        }
    }
}

static int finish(WeirKeeper *k, Request *r, int ret)
{
    Arrived *a = r->arrived;

    k->writes--;
    note(k, &k->write_error, ret);
    if (a->dropped) {
        weir_arrived_free(a);
        weir_keeper_say(r->err, r->err_size, "the session of the writer has "
                        "ended");
        ret = ret < 0 ? ret : -EPERM;
    } else if (ret < 0) {
        weir_keeper_say(r->err, r->err_size, "the replication log cannot be "
                        "written: %s", strerror(-ret));
        weir_keeper_end_session(k);
        weir_arrived_free(a);
    } else {
        a->written = true;
        ret = weir_keeper_advance(k);
        if (ret < 0) {
            weir_keeper_say(r->err, r->err_size, "no memory");
            weir_keeper_end_session(k);
        }
    }
    weir_keeper_changed(k);
    return ret;
}

static int write_packet(WeirKeeper *k, Request *r)
{
    const struct iovec iov = { (void *)(uintptr_t)r->data, r->bytes };
    uint64_t end;
    int ret;

    weir_keeper_lock(k);
    ret = enter(k, r);
    if (ret < 0) {
        k->refused++;
        weir_keeper_unlock(k);
        return ret;
    }
    k->writes++;
    end = r->arrived->packet.position + r->bytes;
    k->stale_end = end > k->stale_end ? end : k->stale_end;
    weir_keeper_unlock(k);
    ret = k->host->write_log(k->host->opaque, r->offset, r->bytes, &iov, 1);
    weir_keeper_lock(k);
    ret = finish(k, r, ret);
    weir_keeper_unlock(k);
    return ret;
}

int weir_keeper_write(WeirKeeper *k, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, char *err,
                      size_t err_size)
{
    Request r = { .offset = offset, .bytes = bytes, .err = err,
                  .err_size = err_size };
    int ret;

    if (is_leave(&r)) {
        ret = collect(&r, iov, niov);
        ret = ret < 0 ? ret : take_leave(k, &r);
    } else if (offset < WEIR_LOG_RING_OFFSET ||
               bytes > WEIR_LOG_PACKET_BYTES_MAX || bytes == 0) {
        ret = no_packet(&r, offset < WEIR_LOG_RING_OFFSET
                            ? "the superblock is the keeper's" : "length");
    } else {
        ret = collect(&r, iov, niov);
        ret = ret < 0 ? ret : parse(k, &r);
    }
    if (ret < 0) {
        weir_keeper_refuse(k);
    } else if (!is_leave(&r)) {
        ret = write_packet(k, &r);
    }
    free(r.copy);
    return ret;
}

void weir_keeper_refuse(WeirKeeper *k)
{
    weir_keeper_lock(k);
    k->refused++;
    weir_keeper_unlock(k);
}

/* --- flush --- */

/* The one that is under way is the caller's. */
static int flush_now(WeirKeeper *k)
{
    WeirLogCommit valid = k->valid;
    uint32_t era = k->era;
    int ret;

    weir_keeper_unlock(k);
    ret = k->host->flush_log(k->host->opaque);
    weir_keeper_lock(k);
    note(k, &k->flush_error, ret);
    if (WITHOUT_RULE(21)) {
        valid = k->valid;
    }
    if (ret < 0) {
        if (!WITHOUT_RULE(22)) {
            /* of what was not durable it is unknown if it can still be */
            k->era++;
            weir_keeper_truncate(k, &k->durable);
        }
        return ret;
    }
    if (era != k->era) {
        return -EIO;
    }
    if (valid.epoch > k->durable.epoch) {
        k->durable = valid;
    }
    return 0;
}

/*
 * One at a time: where one has failed, another that was under way may have made
 * nothing durable although it succeeds. Those that wait share the next one.
 */
int weir_keeper_flush_locked(WeirKeeper *k)
{
    uint64_t needed = k->flushes + 1;   /* begins later than now */
    uint32_t era = k->era;

    while (k->flushing && !WITHOUT_RULE(34)) {
        weir_keeper_wait(k, WEIR_TASKS_FOREVER);
    }
    if (era != k->era) {
        return -EIO;
    }
    if (k->flushes >= needed && !WITHOUT_RULE(34)) {
        return k->flush_result;
    }
    k->flushes++;
    k->flushing = true;
    k->flush_result = flush_now(k);
    k->flushing = false;
    weir_keeper_changed(k);
    return k->flush_result;
}

int weir_keeper_flush(WeirKeeper *k)
{
    int ret;

    weir_keeper_lock(k);
    if (WITHOUT_RULE(36)) {
        weir_keeper_seal(k, k->valid.epoch, false);
    }
    ret = k->loss == LOSS_NONE ? weir_keeper_flush_locked(k) : -EIO;
    if (ret < 0 && k->loss == LOSS_UNTOLD) {
        k->loss = LOSS_TOLD;
    }
    if (ret == 0) {
        weir_keeper_seal(k, k->durable.epoch, false);
    }
    weir_keeper_unlock(k);
    return ret;
}

/* --- read --- */

/* Zero what is common to a buffer from `offset` on and [from, to). */
static void blank(uint8_t *buf, uint64_t offset, uint64_t bytes, uint64_t from,
                  uint64_t to)
{
    from = from > offset ? from : offset;
    to = to < offset + bytes ? to : offset + bytes;
    if (from < to) {
        memset(buf + (from - offset), 0, to - from);
    }
}

/* The part of the ring behind the end of the log that may hold packets. */
typedef struct Unused {
    uint64_t from, bytes;       /* on the device; goes round */
} Unused;

static Unused unused(const WeirKeeper *k)
{
    return (Unused) {
        weir_log_offset(&k->sb, k->valid.end),
        k->stale_end > k->valid.end ? k->stale_end - k->valid.end : 0,
    };
}

static void blank_unused(const WeirKeeper *k, const Unused *u, uint64_t offset,
                         uint64_t bytes, uint8_t *buf)
{
    uint64_t end = WEIR_LOG_RING_OFFSET + weir_log_ring_bytes(&k->sb);
    uint64_t to = u->from + u->bytes;

    blank(buf, offset, bytes, u->from, to < end ? to : end);
    if (to > end) {
        blank(buf, offset, bytes, WEIR_LOG_RING_OFFSET,
              WEIR_LOG_RING_OFFSET + (to - end));
    }
}

/* The durable superblock, as both copies; what is not yet so is not told. */
static void put_superblock(const WeirKeeper *k, uint64_t offset,
                           uint64_t bytes, uint8_t *buf)
{
    uint8_t copy[WEIR_LOG_SUPERBLOCK_BYTES];
    WeirLogSuperblock sb = k->sb;

    sb.is_kept = true;
    weir_log_superblock_write(copy, &sb);
    for (uint64_t i = offset; i < offset + bytes &&
         i < WEIR_LOG_SUPERBLOCKS * WEIR_LOG_SUPERBLOCK_BYTES; i++) {
        buf[i - offset] = copy[i % WEIR_LOG_SUPERBLOCK_BYTES];
    }
}

int weir_keeper_read(WeirKeeper *k, uint64_t offset, uint64_t bytes, void *buf)
{
    Unused before, now;
    int ret;

    weir_keeper_lock(k);
    before = unused(k);
    if (k->loss == LOSS_TOLD && offset < WEIR_LOG_RING_OFFSET) {
        k->loss = LOSS_NONE;
    }
    weir_keeper_unlock(k);
    ret = k->host->read_log(k->host->opaque, offset, bytes, buf);
    if (ret < 0) {
        return ret;
    }
    weir_keeper_lock(k);
    now = unused(k);
    put_superblock(k, offset, bytes, buf);
    blank_unused(k, &before, offset, bytes, buf);
    blank_unused(k, &now, offset, bytes, buf);
    weir_keeper_unlock(k);
    return 0;
}

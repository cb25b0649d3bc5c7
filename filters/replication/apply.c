/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Old epochs go to the base images, from one point in time to another:
 *
 *   choose -> copy its records -> read and check all of it
 *          -> superblock: points before it are gone
 *          -> write the bases, newest record wins -> flush them
 *          -> superblock: it is the anchor, space before it is free
 *
 * A crash anywhere in between has all of it done again. A batch with much data
 * is done in parts, of which each goes to the bases in one sweep.
 */
#include "replication/batch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS UINT64_C(5000000000)
#define LOOK_AGAIN_NS UINT64_C(60000000000)

/* --- choosing --- */

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The beginning of the log should be behind this, for room; 0: anywhere. */
static uint64_t wished_tail(const WeirKeeper *k)
{
    uint64_t segment = k->sb.segment_bytes, ring = k->ring_bytes;
    uint64_t retain = k->config.retain_bytes ? k->config.retain_bytes
                                             : ring / 4 * 3;
    uint64_t end = k->cursor.position > k->valid.end ? k->cursor.position
                                                     : k->valid.end;
    uint64_t wished = 0;

    if (end - k->sb.tail > retain) {
        wished = (end - retain + segment - 1) / segment * segment;
    }
    if (weir_keeper_memory(k) > weir_keeper_memory_max(k) / 4 * 3 &&
        wished < k->sb.anchor.end) {
        wished = k->sb.anchor.end;
    }
    return wished;
}

static bool is_old(const WeirKeeper *k, const WeirIndexEpoch *e)
{
    return add(e->commit.wall_ns, k->config.retain_ns) <=
           k->tasks->wall_ns(k->tasks->opaque);
}

/* Nothing can be offered: then there is nothing to protect either. */
static bool is_first_copy(WeirKeeper *k)
{
    return weir_keeper_last_point(k) == 0;
}

static uint64_t limit(const WeirKeeper *k)
{
    uint64_t last = k->durable.epoch, pinned = weir_keeper_pinned(k);

    if (WITHOUT_RULE(30)) {
        last = k->valid.epoch;
    }
    if (!WITHOUT_RULE(27)) {
        last = pinned < last ? pinned : last;
    }
    return k->ceiling < last ? k->ceiling : last;
}

/* The next epoch to be at, 0: none is due. */
static uint64_t choose(WeirKeeper *k, uint64_t wished)
{
    bool any = is_first_copy(k) || WITHOUT_RULE(28);
    uint64_t best = 0, bytes = 0, end = k->sb.anchor.end;

    for (uint64_t n = k->sb.anchor.epoch + 1; n <= limit(k); n++) {
        const WeirIndexEpoch *e = weir_index_get(&k->index, n);

        bytes += e->data_bytes;
        if (best > 0 && bytes > BATCH_BYTES) {
            break;
        }
        /* where a crash has begun, it has to end */
        if ((!e->consistent && !any) || n < k->horizon) {
            continue;
        }
        if (!is_old(k, e) && n > k->target && end > wished) {
            break;
        }
        best = n;
        end = e->commit.end;
    }
    return best;
}

/* Why nothing is applied, though there is no room for more. */
static WeirKeeperApply why_not(WeirKeeper *k, uint64_t wished)
{
    bool wanted = k->sb.anchor.end <= wished || k->target > k->sb.anchor.epoch;

    if (k->base_count == 0) {
        return WEIR_KEEPER_NO_BASE;
    }
    if (!wanted || k->valid.epoch == k->sb.anchor.epoch) {
        return WEIR_KEEPER_IDLE;
    }
    return weir_keeper_pinned(k) < weir_keeper_last_point(k)
           ? WEIR_KEEPER_HELD_BY_VIEW : WEIR_KEEPER_HELD_BY_RESYNC;
}

static void set_state(WeirKeeper *k, WeirKeeperApply apply, int error,
                      const char *message)
{
    bool same = k->apply == apply && k->apply_error == error;

    k->apply = apply;
    k->apply_error = error;
    snprintf(k->apply_message, sizeof(k->apply_message), "%s", message);
    if (!same && k->host->changed) {
        k->host->changed(k->host->opaque);
    }
}

/* --- superblocks --- */

static int cannot_write(Batch *b, int ret)
{
    snprintf(b->message, sizeof(b->message), "the superblock of the log cannot "
             "be written: %s", strerror(-ret));
    return ret;
}

/*
 * The bases are about to hold what is later than points before the end of the
 * batch. Meanwhile it may have been promoted, or opened, or cut off.
 */
static int set_horizon(Batch *b)
{
    WeirKeeper *k = b->k;
    const WeirIndexEpoch *e;
    WeirLogSuperblock sb;
    int ret;

    weir_keeper_sb_begin(k);
    e = weir_index_get(&k->index, b->commit.epoch);
    if (!e || memcmp(&e->commit, &b->commit, sizeof(e->commit)) ||
        b->commit.epoch > limit(k)) {
        weir_keeper_sb_cancel(k);
        return -EAGAIN;
    }
    sb = k->sb;
    k->horizon = sb.horizon = b->commit.epoch;
    if (!b->consistent) {
        sb.base_incomplete = true;
    }
    if (WITHOUT_RULE(33)) {
        weir_keeper_sb_cancel(k);
        return 0;
    }
    ret = weir_keeper_sb_end(k, &sb);
    return ret < 0 ? cannot_write(b, ret) : 0;
}

/* What is read from behind the anchor is not read from before it. */
static void wait_for_reads(WeirKeeper *k, uint64_t tail)
{
    for (const LogRead *read = k->reads; read && !WITHOUT_RULE(29);) {
        if (read->position < tail) {
            weir_keeper_wait(k, WEIR_TASKS_FOREVER);
            read = k->reads;
        } else {
            read = read->next;
        }
    }
}

/* The disks are told by the segment that the anchor ends in. */
static uint64_t tail_of(const WeirKeeper *k, const WeirLogCommit *anchor)
{
    return anchor->end - 1 - (anchor->end - 1) % k->sb.segment_bytes;
}

static void take_anchor(WeirKeeper *k, const Batch *b)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (b->disks[i].known || b->touched[i]) {
            k->applied_disks[i] = b->after[i];
        }
    }
    weir_keeper_drop_chapters_to(k, b->commit.epoch);
    weir_index_drop_to(&k->index, b->commit.epoch);
}

static int set_anchor(Batch *b)
{
    WeirKeeper *k = b->k;
    WeirLogSuperblock sb;
    int ret;

    k->applied = b->commit.epoch;
    k->applied_end = b->commit.end;
    wait_for_reads(k, tail_of(k, &b->commit));
    weir_keeper_sb_begin(k);
    sb = k->sb;
    sb.anchor = b->commit;
    sb.horizon = b->commit.epoch;
    sb.tail = tail_of(k, &b->commit);
    sb.base_incomplete = !b->consistent;
    sb.application_consistent = b->application_consistent;
    ret = weir_keeper_sb_end(k, &sb);
    if (ret < 0) {
        return cannot_write(b, ret);
    }
    take_anchor(k, b);
    return 0;
}

/* --- the task --- */

/* Returns 0; -EAGAIN: look again; an error. The lock is held. */
static int apply_batch(Batch *b)
{
    WeirKeeper *k = b->k;
    Part part = { 0 };
    int ret;

    weir_keeper_unlock(k);
    ret = weir_batch_load(b);
    ret = ret < 0 ? ret : weir_batch_check(b, &part);
    weir_keeper_lock(k);
    ret = ret < 0 ? ret : set_horizon(b);
    if (ret == 0) {
        weir_keeper_unlock(k);
        ret = weir_batch_write(b, &part);
        weir_keeper_lock(k);
    }
    weir_part_destroy(&part);
    return ret < 0 ? ret : set_anchor(b);
}

static void pause_applying(WeirKeeper *k)
{
    uint64_t until = k->tasks->now_ns(k->tasks->opaque) + RETRY_NS;

    while (!k->stops && k->tasks->now_ns(k->tasks->opaque) < until) {
        weir_keeper_wait(k, until);
    }
}

static void ended(WeirKeeper *k, int ret, const char *message)
{
    if (ret == 0) {
        set_state(k, WEIR_KEEPER_APPLYING, 0, "");
    } else if (ret != -EAGAIN && ret != -ECANCELED) {
        set_state(k, ret == -ENODEV ? WEIR_KEEPER_NO_BASE
                                    : WEIR_KEEPER_APPLY_FAILS, ret, message);
        pause_applying(k);
    }
    weir_keeper_changed(k);
}

static void apply_to(WeirKeeper *k, uint64_t epoch)
{
    Batch *b = malloc(sizeof(*b));
    int ret = b ? weir_batch_init(b, k, epoch) : -ENOMEM;

    if (ret == 0) {
        ret = apply_batch(b);
        while (ret < 0 && k->applied > k->sb.anchor.epoch && !k->stops) {
            /* the bases are done with; what they are at is not told yet */
            ended(k, ret, b->message);
            ret = k->stops ? ret : set_anchor(b);
        }
    }
    ended(k, ret, b ? b->message : "no memory to apply epochs");
    if (b) {
        weir_batch_destroy(b);
    }
    free(b);
}

/* When the oldest epoch will be old enough. */
static uint64_t next_look(const WeirKeeper *k)
{
    uint64_t now = k->tasks->now_ns(k->tasks->opaque);
    uint64_t wall = k->tasks->wall_ns(k->tasks->opaque), due;

    if (k->index.first == k->index.end) {
        return WEIR_TASKS_FOREVER;
    }
    due = add(k->index.epochs[k->index.first].commit.wall_ns,
              k->config.retain_ns);
    if (due <= wall || due - wall > LOOK_AGAIN_NS) {
        return now + LOOK_AGAIN_NS;
    }
    return now + (due - wall);
}

static void do_something(WeirKeeper *k)
{
    uint64_t wished = wished_tail(k);
    uint64_t epoch = k->base_count > 0 ? choose(k, wished) : 0;
    WeirLogSuperblock sb;

    if (k->sb_uncertain) {
        weir_keeper_sb_begin(k);
        sb = k->sb;
        if (weir_keeper_sb_end(k, &sb) < 0) {
            pause_applying(k);
        }
    } else if (epoch > 0) {
        apply_to(k, epoch);
    } else if (wished > 0 && k->durable.epoch < k->valid.epoch) {
        if (weir_keeper_flush_locked(k) < 0) {
            pause_applying(k);
        }
    } else {
        set_state(k, why_not(k, wished), 0, "");
        weir_keeper_wait(k, next_look(k));
    }
}

void weir_keeper_run(WeirKeeper *k)
{
    weir_keeper_lock(k);
    while (!k->stops) {
        do_something(k);
    }
    weir_keeper_unlock(k);
}

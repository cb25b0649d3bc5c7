/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/keeper-int.h"

#include <errno.h>
#include <string.h>

#include "common/le.h"

/*
 * One of 32 has to go: one of which there are no epochs, or the oldest if what
 * the log holds has none of its epochs. False: none can.
 */
static bool forget_one(WeirLogSuperblock *sb)
{
    WeirLogGeneration *g = sb->history;
    uint32_t i = 0;

    while (i + 1 < sb->history_count &&
           g[i].first_epoch < g[i + 1].first_epoch) {
        i++;
    }
    if (i + 1 == sb->history_count) {
        i = 0;
        if (g[1].first_epoch > sb->anchor.epoch + 1) {
            return false;
        }
    }
    memmove(g + i, g + i + 1, (sb->history_count - i - 1) * sizeof(*g));
    sb->history_count--;
    return true;
}

/* Older ones that went on behind the point end there. */
static bool begin_generation(WeirKeeper *k, WeirLogSuperblock *sb,
                             uint64_t first_epoch)
{
    WeirLogGeneration *g = sb->history;
    uint64_t number = g[sb->history_count - 1].number + 1;

    for (uint32_t i = 0; i < sb->history_count; i++) {
        if (g[i].first_epoch > first_epoch) {
            g[i].first_epoch = first_epoch;
        }
    }
    if (sb->history_count == WEIR_LOG_HISTORY_MAX && !forget_one(sb)) {
        return false;
    }
    g += sb->history_count++;
    g->number = number;
    g->first_epoch = first_epoch;
    le_put(g->uuid, k->tasks->random(k->tasks->opaque), 8);
    le_put(g->uuid + 8, k->tasks->random(k->tasks->opaque), 8);
    return true;
}

static int check(WeirKeeper *k, uint64_t epoch, char *err, size_t err_size)
{
    if (!weir_keeper_is_point(k, epoch)) {
        weir_keeper_say(err, err_size, "epoch %llu is no point in time of this "
                        "log", (unsigned long long)epoch);
        return -ENOENT;
    }
    if (weir_keeper_pinned_last(k) > epoch && !WITHOUT_RULE(31)) {
        weir_keeper_say(err, err_size, "epoch %llu is open, which would be "
                        "gone", (unsigned long long)weir_keeper_pinned_last(k));
        return -EBUSY;
    }
    return 0;
}

static int promote(WeirKeeper *k, uint64_t epoch, char *err, size_t err_size)
{
    WeirLogCommit end = weir_keeper_commit_of(k, epoch);
    WeirLogSuperblock sb = k->sb;
    int ret;

    if (!begin_generation(k, &sb, epoch + 1)) {
        weir_keeper_say(err, err_size, "the log holds epochs of %d generations "
                        "already: some have to be applied first",
                        WEIR_LOG_HISTORY_MAX);
        weir_keeper_sb_cancel(k);
        return -EBUSY;
    }
    weir_keeper_promote_bases(k, &sb.history[sb.history_count - 1], &end);
    k->ceiling = epoch;
    ret = weir_keeper_sb_end(k, &sb);
    k->ceiling = UINT64_MAX;
    if (ret < 0) {
        weir_keeper_say(err, err_size, "the superblock of the replication log "
                        "cannot be written: %s", strerror(-ret));
        return ret;
    }
    weir_keeper_truncate(k, &end);
    return 0;
}

/* Until it is done no epoch becomes valid any more: they would be dropped. */
static void fence(WeirKeeper *k)
{
    k->promotes = true;
    while (k->writes > 0) {
        weir_keeper_wait(k, WEIR_TASKS_FOREVER);
    }
}

int weir_keeper_promote(WeirKeeper *k, uint64_t epoch, char *err,
                        size_t err_size)
{
    int ret;

    weir_keeper_lock(k);
    weir_keeper_sb_begin(k);
    fence(k);
    ret = check(k, epoch, err, err_size);
    if (ret < 0) {
        weir_keeper_sb_cancel(k);
    } else {
        ret = promote(k, epoch, err, err_size);
    }
    k->promotes = false;
    weir_keeper_changed(k);
    weir_keeper_unlock(k);
    return ret;
}

/* --- progress --- */

void weir_keeper_apply_to(WeirKeeper *k, uint64_t epoch)
{
    weir_keeper_lock(k);
    k->target = epoch;
    k->target_from = k->sb.anchor.end;
    weir_keeper_changed(k);
    weir_keeper_unlock(k);
}

int weir_keeper_applied_to(WeirKeeper *k, uint64_t epoch, uint64_t *done,
                           uint64_t *total)
{
    uint64_t from, end, at;
    int ret;

    weir_keeper_lock(k);
    from = k->target_from;
    at = k->sb.anchor.end;
    end = weir_keeper_commit_of(k, epoch).end;
    ret = k->sb.anchor.epoch >= epoch ? 1 : k->apply_error;
    weir_keeper_unlock(k);
    *total = end > from ? end - from : 0;
    *done = at > from ? at - from : 0;
    *done = *done < *total ? *done : *total;
    return ret;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the log has left a segment, and the epochs whose commits are in it are
 * durable, their records become a chapter, and leave memory:
 *
 *   copy them -> sort, encode -> write it to its place -> it is in the list
 *
 * Nothing has to be flushed for that: a chapter that is torn, or is not there,
 * is noticed, and the segment is read instead.
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of a chapter that stays in memory. */
#define IMAGE_BYTES_MAX (UINT64_C(1) << 30)

/* A chapter that is made. */
typedef struct Seal {
    WeirChapterSource source;
    WeirIndexEpoch *epochs;     /* copies */
    WeirLength *lengths;
    WeirLogSuperblock sb;
    uint32_t era;
    bool in_memory;             /* its place is taken */
    uint8_t *buf;
    uint64_t bytes;
} Seal;

static uint64_t segment_of(const WeirKeeper *k, const WeirLogCommit *commit)
{
    return (commit->end - 1) / k->sb.segment_bytes;
}

/* --- which --- */

/*
 * Epochs from *first on whose commits are in one segment. Returns how many; 0:
 * there are none, some may still come, or not all are up to the limit.
 */
static uint32_t find_group(const WeirKeeper *k, uint64_t limit, bool whole,
                           uint64_t *first)
{
    const WeirIndexEpoch *e;
    uint64_t segment, n;

    *first = n = weir_keeper_unsealed(k);
    e = weir_index_get(&k->index, n);
    if (!e || n > limit ||
        (!whole && segment_of(k, &k->valid) == segment_of(k, &e->commit))) {
        return 0;
    }
    segment = segment_of(k, &e->commit);
    while (e && segment_of(k, &e->commit) == segment) {
        e = weir_index_get(&k->index, ++n);
    }
    return (!e && !whole) || n - 1 > limit ? 0 : (uint32_t)(n - *first);
}

/* --- copying --- */

static void seal_destroy(Seal *s)
{
    for (uint32_t i = 0; s->epochs && i < s->source.epoch_count; i++) {
        free(s->epochs[i].records);
        free(s->epochs[i].names);
    }
    free(s->epochs);
    free(s->lengths);
    free(s->buf);
}

static int copy_epoch(WeirIndexEpoch *to, const WeirIndexEpoch *from)
{
    *to = *from;
    to->records = malloc((from->count + 1) * sizeof(*to->records));
    to->names = from->names_bytes > 0 ? malloc(from->names_bytes) : NULL;
    if (!to->records || (from->names_bytes > 0 && !to->names)) {
        return -ENOMEM;
    }
    memcpy(to->records, from->records, from->count * sizeof(*to->records));
    if (to->names) {
        memcpy(to->names, from->names, from->names_bytes);
    }
    return 0;
}

static int copy_epochs(Seal *s, const WeirKeeper *k, uint64_t first,
                       uint32_t count)
{
    int ret = 0;

    s->epochs = calloc(count, sizeof(*s->epochs));
    if (!s->epochs) {
        return -ENOMEM;
    }
    s->source.epochs = s->epochs;
    s->source.epoch_count = count;
    for (uint32_t i = 0; i < count && ret == 0; i++) {
        ret = copy_epoch(&s->epochs[i], weir_index_get(&k->index, first + i));
    }
    return ret;
}

static int copy_lengths(Seal *s, const WeirKeeper *k)
{
    uint64_t last = s->epochs[s->source.epoch_count - 1].commit.epoch;
    const WeirIndex *index = &k->index;

    s->lengths = malloc((index->lengths_end - index->lengths_first + 1) *
                        sizeof(*s->lengths));
    if (!s->lengths) {
        return -ENOMEM;
    }
    for (size_t i = index->lengths_first; i < index->lengths_end; i++) {
        if (index->lengths[i].epoch > s->source.before.epoch &&
            index->lengths[i].epoch <= last) {
            s->lengths[s->source.length_count++] = index->lengths[i];
        }
    }
    s->source.lengths = s->lengths;
    return 0;
}

/* Before and behind it. */
static void copy_disks(Seal *s, const WeirKeeper *k)
{
    uint64_t last = s->epochs[s->source.epoch_count - 1].commit.epoch;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        const KnownDisk *applied = &k->applied_disks[i];
        WeirChapterDisk *disk = &s->source.disks[i];
        uint64_t *before = &s->source.bytes[i];

        *before = disk->bytes = applied->known ? applied->bytes : 0;
        weir_index_length(&k->index, i, s->source.before.epoch, before);
        disk->known = weir_index_length(&k->index, i, last, &disk->bytes) ||
                      applied->known;
        disk->what = k->disks[i].what;
    }
}

static int seal_init(Seal *s, const WeirKeeper *k, uint64_t first,
                     uint32_t count)
{
    const Chapter *last = k->chapter_count > 0
                          ? k->chapters[k->chapter_count - 1] : NULL;
    int ret;

    memset(s, 0, sizeof(*s));
    s->sb = k->sb;
    s->era = k->era;
    s->source.sb = &s->sb;
    s->source.before = first - 1 == k->sb.anchor.epoch
                       ? k->sb.anchor
                       : weir_index_get(&k->index, first - 1)->commit;
    ret = copy_epochs(s, k, first, count);
    ret = ret < 0 ? ret : copy_lengths(s, k);
    if (ret < 0) {
        return ret;
    }
    s->source.position = segment_of(k, &s->epochs[0].commit) *
                         k->sb.segment_bytes;
    s->in_memory = last && last->position == s->source.position;
    copy_disks(s, k);
    return 0;
}

/* --- making --- */

/* No lock is held. */
static int make(WeirKeeper *k, Seal *s)
{
    struct iovec iov;
    int ret = s->in_memory ? -EFBIG
                           : weir_chapter_build(&s->buf, &s->bytes, &s->source,
                                                s->sb.chapter_bytes);

    if (ret == -EFBIG) {
        s->in_memory = true;
        return weir_chapter_build(&s->buf, &s->bytes, &s->source,
                                  IMAGE_BYTES_MAX);
    }
    if (ret < 0) {
        return ret;
    }
    iov = (struct iovec) { s->buf, s->bytes };
    s->in_memory = k->host->write_log(k->host->opaque,
                                      weir_log_chapter_offset(
                                          &s->sb, s->source.position),
                                      s->bytes, &iov, 1) < 0;
    return 0;
}

/* Meanwhile some may have been applied, or all be gone. */
static int install(WeirKeeper *k, Seal *s)
{
    const WeirLogCommit *last =
        &s->epochs[s->source.epoch_count - 1].commit;
    WeirIndexEpoch *e = weir_index_get(&k->index, last->epoch);
    WeirChapterHead h;
    const char *why;
    int ret;

    if (!e || s->era != k->era || memcmp(&e->commit, last, sizeof(*last))) {
        return -EAGAIN;
    }
    ret = weir_chapter_read(&h, &s->sb, s->buf, IMAGE_BYTES_MAX, &why);
    ret = ret < 0 ? ret : weir_keeper_add_chapter(k, &h, s->buf,
                                                  s->in_memory ? s->buf
                                                               : NULL);
    if (ret < 0) {
        return ret;
    }
    k->chapters_written += !s->in_memory;
    s->buf = s->in_memory ? NULL : s->buf;
    for (uint32_t i = 0; i < s->source.epoch_count; i++) {
        e = weir_index_get(&k->index, s->epochs[i].commit.epoch);
        if (e) {
            weir_index_forget_records(&k->index, e);
        }
    }
    return 0;
}

void weir_keeper_seal(WeirKeeper *k, uint64_t limit, bool whole)
{
    uint64_t first;
    uint32_t count;
    Seal *s;
    int ret = 0;

    if (k->sb.chapter_bytes == 0 || k->sealing) {
        return;
    }
    k->sealing = true;
    while (ret == 0 && (count = find_group(k, limit, whole, &first)) > 0) {
        s = malloc(sizeof(*s));
        ret = s ? seal_init(s, k, first, count) : -ENOMEM;
        if (ret == 0) {
            weir_keeper_unlock(k);
            ret = make(k, s);
            weir_keeper_lock(k);
        }
        ret = ret < 0 ? ret : install(k, s);
        if (s) {
            seal_destroy(s);
        }
        free(s);
    }
    k->sealing = false;
    weir_keeper_changed(k);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes, zeroes and discards. A block goes one of two ways:
 *
 *   into the cache: to a free slot, mapped as dirty when it is there; in
 *       write-back mode, and in any mode when the cached block is dirty
 *   to the base: what the cache has of it is forgotten; in write-through mode
 *       the new data comes in as a miss does
 *
 * Part of a block is read, changed and written. Two requests never write to the
 * same block at a time (Writing), so that the journal, the cache and the base
 * see them in the same order.
 *
 * When data cannot be written to its slot, it goes to the base after all, if
 * that is wanted (write_instead).
 */
#include "cache/cache-int.h"

#include <errno.h>
#include <string.h>

/* More zeroes than that at a time go to the base, where they cost nothing. */
#define ZEROES_CACHED_BLOCKS 1024
#define CHUNK_BLOCKS 4096               /* handled under the lock in one go */
#define RECORDS_PER_WRITE (3 * SEGMENT_BLOCKS)
/* a chunk's, those of evictions, and regions that are opened */
#define RECORDS_PER_ZERO (CHUNK_BLOCKS + ZEROES_CACHED_BLOCKS)

typedef struct Run {
    uint32_t slot;
    uint32_t count;
} Run;

static bool overlaps(const Writing *a, const Writing *b)
{
    return a->block < b->block + b->count && b->block < a->block + a->count;
}

void writing_enter(WeirCache *c, Writing *w)
{
    Writing *other = c->writing;

    while (other) {
        if (overlaps(w, other)) {
            wait_on(c, &c->write_queue);
            other = c->writing;
        } else {
            other = other->next;
        }
    }
    w->next = c->writing;
    c->writing = w;
}

void writing_leave(WeirCache *c, Writing *w)
{
    Writing **link = &c->writing;

    while (*link != w) {
        link = &(*link)->next;
    }
    *link = w->next;
    wake(c, &c->write_queue);
}

static bool is_write_back(const WeirCache *c)
{
    return c->config.mode == WEIR_CACHE_WRITE_BACK;
}

/* Whether a block goes into the cache, rather than to the base. */
static bool goes_in(const WeirCache *c, uint64_t block, bool bypass)
{
    uint32_t slot = weir_cache_index_find(&c->ix, block);

    return is_dirty(c, slot) ||
           (is_write_back(c) && !(c->fast_error && !c->ix.dirty) &&
            !(bypass && slot == NO_SLOT));
}

static bool is_written_back(const WeirCache *c, const Writing *w)
{
    for (uint32_t i = 0; i < c->batch_count; i++) {
        const WriteBackBlock *b = &c->batch[i];

        if (b->block >= w->block && b->block - w->block < w->count &&
            weir_cache_index_find(&c->ix, b->block) == b->slot &&
            c->ix.flags[b->slot] & WEIR_SLOT_WRITE_BACK) {
            return true;
        }
    }
    return false;
}

/*
 * Out of write-back mode, a block that is being written back is clean before
 * it is written again: so the dirty blocks get fewer whatever the guest does.
 * Yields.
 */
static void wait_for_write_back(WeirCache *c, const Writing *w)
{
    while (!is_write_back(c) && c->writing_back && is_written_back(c, w)) {
        wait_on(c, &c->batch_queue);
    }
}

/*
 * The superblock says that there are dirty blocks, before there are, and until
 * dirtying_end(). Yields.
 */
static int dirtying_begin(WeirCache *c)
{
    int ret = 0;

    c->dirtying++;
    while (!c->sb.dirty && ret == 0) {
        ret = superblock_mark(c, true);
    }
    c->dirtying -= ret < 0;
    return ret;
}

static void dirtying_end(WeirCache *c)
{
    c->dirtying--;
}

/* --- into the cache --- */

/* Slots for `count` blocks. Yields. Returns the number of runs or -errno. */
static int take_runs(WeirCache *c, uint32_t count, Run *run)
{
    int runs = 0;

    while (count > 0) {
        int n = slots_take_wait(c, count, &run[runs].slot);

        if (n < 0) {
            while (runs-- > 0) {
                slots_give(c, run[runs].slot, run[runs].count);
            }
            return n;
        }
        run[runs++].count = (uint32_t)n;
        count -= (uint32_t)n;
    }
    return runs;
}

/* Lock not held. Yields. */
static int write_runs(WeirCache *c, const Run *run, int runs,
                      const uint8_t *data)
{
    int ret = 0;

    for (int i = 0; i < runs && ret == 0; i++) {
        uint64_t bytes = (uint64_t)run[i].count * BLOCK_BYTES;

        ret = fast_write(c, slot_offset(c, run[i].slot), bytes, data);
        data += bytes;
    }
    return ret;
}

static void map_runs(WeirCache *c, uint64_t block, const Run *run, int runs,
                     const uint32_t *crc)
{
    for (int i = 0; i < runs; i++) {
        for (uint32_t k = 0; k < run[i].count; k++) {
            slot_map(c, block++, run[i].slot + k, *crc++, WEIR_SLOT_DIRTY);
        }
    }
}

static void give_runs(WeirCache *c, const Run *run, int runs)
{
    for (int i = 0; i < runs; i++) {
        slots_give(c, run[i].slot, run[i].count);
    }
}

/* The records that map_runs() is going to append, for all we know. */
static void preview_runs(WeirCache *c, uint64_t block, const Run *run, int runs,
                         const uint32_t *crc)
{
    WeirCacheRecord record[SEGMENT_BLOCKS];
    uint32_t n = 0;

    for (int i = 0; i < runs; i++) {
        for (uint32_t k = 0; k < run[i].count; k++, n++) {
            record[n] = (WeirCacheRecord) {
                .op = WEIR_CACHE_OP_MAP, .block = block + n,
                .slot = run[i].slot + k, .crc = crc[n],
                .flags = WEIR_SLOT_MAPPED | WEIR_SLOT_DIRTY |
                         WEIR_SLOT_PROBATION,
            };
        }
    }
    journal_preview(c, record, n);
}

/*
 * The guest may change its memory while we write, and what is on the device
 * has to be what the checksum is of: so the data is copied.
 */
static void copy_and_sum(WeirCache *c, const Writing *w, uint8_t *data,
                         const WeirCacheGuest *guest, uint64_t at,
                         uint32_t *crc)
{
    guest_copy_from(guest, at, data, (size_t)w->count * BLOCK_BYTES);
    for (uint32_t i = 0; i < w->count; i++) {
        crc[i] = crc_of(c, w->block + i, data + (size_t)i * BLOCK_BYTES);
    }
}

/*
 * Data is not in its slots. If a preview of the journal is on the device, it
 * must not stay there: it would say that they are mapped. Yields.
 */
static int write_in_failed(WeirCache *c, const Run *run, int runs,
                           bool previewed, int error)
{
    if (previewed) {
        c->clean = journal_append(c, &(WeirCacheRecord) {
            .op = WEIR_CACHE_OP_FREE, .slot = run[0].slot,
            .crc = run[0].count,
        });
        journal_commit_all(c);
    }
    give_runs(c, run, runs);
    return error;
}

/* Yields. */
static int write_slots(WeirCache *c, const Writing *w, uint8_t *data,
                       const WeirCacheGuest *guest, uint64_t at, bool ends)
{
    Run run[SEGMENT_BLOCKS];
    uint32_t crc[SEGMENT_BLOCKS];
    uint32_t count = (uint32_t)w->count;
    bool preview;
    int ret, runs = take_runs(c, count, run);

    if (runs < 0) {
        return runs;
    }
    unlock(c);
    copy_and_sum(c, w, data, guest, at, crc);
    lock(c);
    preview = ends && journal_preview_pays(c, count);
    if (preview) {
        preview_runs(c, w->block, run, runs, crc);
    }
    unlock(c);
    ret = write_runs(c, run, runs, data);
    lock(c);
    c->stat.data_error = ret;
    c->stat.fast_write_errors += ret < 0;
    ret = ret == 0 ? c->fast_error : ret;
    if (ret < 0) {
        return write_in_failed(c, run, runs, preview, ret);
    }
    preview = preview && journal_preview_matches(c, count);
    map_runs(c, w->block, run, runs, crc);
    c->preview_fits |= preview;
    misses_cancel(c, w->block, w->count);
    return 0;
}

/*
 * At most SEGMENT_BLOCKS. ends: the request ends with it. Yields.
 */
static int write_in(WeirCache *c, const Writing *w, uint8_t *data,
                    const WeirCacheGuest *guest, uint64_t at, bool ends)
{
    int ret = dirtying_begin(c);

    if (ret == 0) {
        ret = write_slots(c, w, data, guest, at, ends);
        dirtying_end(c);
    }
    return ret;
}

/* --- to the base --- */

/*
 * What the cache has of these blocks is not the base's any more. In pieces,
 * each when the journal has room for it. Yields, for large ranges.
 */
static void base_changed(WeirCache *c, const Writing *w)
{
    c->base_written++;
    misses_cancel(c, w->block, w->count);
    for (uint64_t i = 0; i < w->count && c->ix.mapped; i += CHUNK_BLOCKS) {
        uint64_t n = w->count - i < CHUNK_BLOCKS ? w->count - i : CHUNK_BLOCKS;

        if (n < w->count) {
            journal_renew(c, RECORDS_PER_ZERO);
        }
        slots_unmap(c, w->block + i, n);
    }
}

/* Have what was written through come in. Takes `data` when it returns true. */
static bool fill_written(WeirCache *c, const Writing *w, uint8_t *data)
{
    uint32_t count = (uint32_t)w->count;
    Miss *m;

    if (!fills_now(c) || !is_admitted(c, w->block, &count) ||
        count < w->count) {
        return false;
    }
    m = miss_new(c, w->block, (uint32_t)w->count, data);
    if (m) {
        m->done = true;
        c->fills++;
        c->host->spawn(c->opaque, miss_fill, m);
    }
    return m;
}

static bool any_dirty(const WeirCache *c, const Writing *w)
{
    for (uint64_t i = 0; i < w->count && c->ix.dirty; i++) {
        if (is_dirty(c, weir_cache_index_find(&c->ix, w->block + i))) {
            return true;
        }
    }
    return false;
}

/* Have the dirty blocks of a range for ourselves, or not any more. */
static void claim_dirty(WeirCache *c, const Writing *w, bool claim)
{
    for (uint64_t i = 0; i < w->count; i++) {
        uint32_t slot = weir_cache_index_find(&c->ix, w->block + i);

        if (is_dirty(c, slot)) {
            weir_cache_index_set_flags(&c->ix, slot,
                                       claim ? 0 : WEIR_SLOT_WRITE_BACK,
                                       claim ? WEIR_SLOT_WRITE_BACK : 0);
        }
    }
}

/*
 * To the base, in place of dirty blocks: these go when the base has the new
 * data for good. Nobody may write them back meanwhile. Yields.
 */
static int replace_dirty(WeirCache *c, const Writing *w, const uint8_t *data)
{
    bool dirty;
    int ret;

    while (c->writing_back) {
        wait_on(c, &c->batch_queue);
    }
    dirty = any_dirty(c, w);
    claim_dirty(c, w, true);
    unlock(c);
    ret = base_write(c, w->block, (uint32_t)w->count, data);
    lock(c);
    base_changed(c, w);
    if (ret == 0 && dirty) {
        ret = base_sync(c);
    }
    if (ret == 0 && c->fast_error) {
        ret = c->fast_error;            /* they could not be forgotten */
    }
    if (ret < 0) {
        claim_dirty(c, w, false);
        return ret;
    }
    slots_unmap_all(c, w->block, w->count);
    return 0;
}

/*
 * Data could not be written to its slots, or there were none: `error`. Yields.
 */
static int write_instead(WeirCache *c, const Writing *w, uint8_t *data,
                         const WeirCacheGuest *guest, uint64_t at, int error)
{
    int ret;

    if (c->config.on_error == WEIR_CACHE_FAIL ||
        (c->fast_error && c->ix.dirty)) {
        return error;
    }
    ret = regions_enter(c, w->block, w->count);
    if (ret < 0) {
        return ret;
    }
    unlock(c);
    guest_copy_from(guest, at, data, (size_t)w->count * BLOCK_BYTES);
    lock(c);
    ret = replace_dirty(c, w, data);
    c->stat.bypassed += w->count;
    regions_leave(c, w->block, w->count);
    return ret;
}

/* At most SEGMENT_BLOCKS. Yields. May take *data. */
static int write_past(WeirCache *c, const Writing *w, uint8_t **data,
                      const WeirCacheGuest *guest, uint64_t at, bool bypass)
{
    bool through = c->config.mode == WEIR_CACHE_WRITE_THROUGH && !bypass;
    int ret = regions_enter(c, w->block, w->count);

    if (ret < 0) {
        return ret;
    }
    unlock(c);
    guest_copy_from(guest, at, *data, (size_t)w->count * BLOCK_BYTES);
    ret = base_write(c, w->block, (uint32_t)w->count, *data);
    lock(c);
    base_changed(c, w);
    if (ret == 0 && through && fill_written(c, w, *data)) {
        *data = NULL;
    } else {
        c->stat.bypassed += w->count;
    }
    regions_leave(c, w->block, w->count);
    return ret;
}

/* Blocks of a request from `block` on that go the same way. */
static uint32_t run_of_way(const WeirCache *c, uint64_t block, uint64_t left,
                           bool bypass, bool *in)
{
    uint32_t most = (uint32_t)(left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS);
    uint32_t n = 1;

    *in = goes_in(c, block, bypass);
    while (n < most && goes_in(c, block + n, bypass) == *in) {
        n++;
    }
    return n;
}

static void count_write(WeirCache *c, const Writing *w)
{
    uint32_t hits = 0;

    for (uint64_t i = 0; i < w->count; i++) {
        hits += weir_cache_index_find(&c->ix, w->block + i) != NO_SLOT;
    }
    count_accesses(c, true, true, hits);
    count_accesses(c, true, false, (uint32_t)w->count - hits);
}

/*
 * What a request has entered, or the first blocks of it: those that go the same
 * way. Yields. Returns how many blocks were written, or -errno.
 */
static int write_entered(WeirCache *c, Writing *w, const WeirCacheGuest *guest,
                         uint64_t at, bool bypass, bool ends)
{
    uint64_t entered = w->count;
    uint8_t *data = buffer_get(c);
    bool in;
    int ret;

    if (!data) {
        return -ENOMEM;
    }
    w->count = run_of_way(c, w->block, entered, bypass, &in);
    count_write(c, w);
    if (in) {
        ret = write_in(c, w, data, guest, at, ends && w->count == entered);
        if (ret < 0) {
            ret = write_instead(c, w, data, guest, at, ret);
        }
    } else {
        ret = write_past(c, w, &data, guest, at, bypass);
    }
    if (data) {
        buffer_put(c, data);
    }
    return ret < 0 ? ret : (int)w->count;
}

/* Yields. Returns how many blocks were written, or -errno. */
static int write_segment(WeirCache *c, uint64_t block, uint64_t left,
                         const WeirCacheGuest *guest, uint64_t at, bool bypass)
{
    Writing w = {
        .block = block,
        .count = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS,
    };
    int ret;

    writing_enter(c, &w);
    wait_for_write_back(c, &w);
    journal_reserve(c, RECORDS_PER_WRITE);
    ret = write_entered(c, &w, guest, at, bypass, left <= SEGMENT_BLOCKS);
    journal_release(c, RECORDS_PER_WRITE);
    writing_leave(c, &w);
    return ret;
}

/* Whole blocks. Yields. */
static int write_blocks(WeirCache *c, uint64_t offset, uint64_t bytes,
                        const WeirCacheGuest *guest, uint64_t at, bool bypass)
{
    uint64_t block = offset / BLOCK_BYTES;
    uint64_t count = bytes / BLOCK_BYTES;
    int ret = 0;

    for (uint64_t i = 0; i < count && ret >= 0; i += (uint64_t)ret) {
        ret = write_segment(c, block + i, count - i, guest,
                            at + i * BLOCK_BYTES, bypass);
    }
    return ret < 0 ? ret : 0;
}

/* Part of a block, from the guest's byte `at` on. Yields. */
static int write_part(WeirCache *c, uint64_t offset, size_t bytes,
                      const WeirCacheGuest *guest, uint64_t at, bool bypass)
{
    Writing w = { .block = offset / BLOCK_BYTES, .count = 1 };
    uint8_t *data = buffer_get(c);
    struct iovec iov = { data, BLOCK_BYTES };
    WeirCacheGuest changed = { .iov = &iov, .niov = 1 };
    int ret;

    if (!data) {
        return -ENOMEM;
    }
    writing_enter(c, &w);
    wait_for_write_back(c, &w);
    ret = read_block(c, w.block, data);
    if (ret == 0) {
        guest_copy_from(guest, at, data + offset % BLOCK_BYTES, bytes);
        journal_reserve(c, RECORDS_PER_WRITE);
        ret = write_entered(c, &w, &changed, 0, bypass, true);
        journal_release(c, RECORDS_PER_WRITE);
    }
    writing_leave(c, &w);
    buffer_put(c, data);
    return ret < 0 ? ret : 0;
}

int weir_cache_write(WeirCache *c, uint64_t offset, uint64_t bytes,
                     const WeirCacheGuest *guest, bool fua)
{
    uint64_t at = 0, n;
    bool bypass;
    int ret;

    lock(c);
    request_begins(c);
    c->writes++;
    if (fua) {
        c->writes_per_flush = c->writes;    /* which is sure to come */
    }
    bypass = stream_bypasses(c, offset / BLOCK_BYTES, blocks_of(bytes));
    for (ret = request_error(c); at < bytes && ret == 0; at += n) {
        n = part_bytes(offset + at, bytes - at);
        ret = n < BLOCK_BYTES
              ? write_part(c, offset + at, n, guest, at, bypass)
              : write_blocks(c, offset + at, n, guest, at, bypass);
    }
    unlock(c);
    return ret == 0 && fua ? weir_cache_flush(c) : ret;
}

/* --- zeroes and discards --- */

/* Yields. */
static int zero_slots(WeirCache *c, const Writing *w)
{
    int ret = 0;

    for (uint64_t i = 0; i < w->count && ret >= 0 && !c->fast_error; i++) {
        uint32_t slot = weir_cache_index_find(&c->ix, w->block + i);

        if (slot != NO_SLOT) {
            slot_to_zero(c, slot);
            continue;
        }
        ret = slots_take_wait(c, 1, &slot);
        if (ret == 1 && c->fast_error) {
            slots_give(c, slot, 1);
        } else if (ret == 1) {
            slot_map(c, w->block + i, slot, 0,
                     WEIR_SLOT_DIRTY | WEIR_SLOT_ZERO);
        }
    }
    misses_cancel(c, w->block, w->count);
    return ret < 0 ? ret : c->fast_error;
}

/* Few blocks, all into the cache. Yields. */
static int zero_in(WeirCache *c, const Writing *w)
{
    int ret = dirtying_begin(c);

    if (ret == 0) {
        ret = zero_slots(c, w);
        dirtying_end(c);
    }
    return ret;
}

/*
 * The base is about to read as zeroes; the dirty blocks of the range, which
 * hide the base, do the same. Those that are clean are forgotten afterwards
 * (base_changed). Yields: not to hold the lock too long, and for room in the
 * journal.
 */
static int zero_dirty(WeirCache *c, const Writing *w)
{
    for (uint64_t i = 0; i < w->count && c->ix.dirty && !c->fast_error; i++) {
        uint32_t slot;

        if (i % CHUNK_BLOCKS == CHUNK_BLOCKS - 1) {
            journal_renew(c, RECORDS_PER_ZERO);
        }
        slot = weir_cache_index_find(&c->ix, w->block + i);
        if (is_dirty(c, slot)) {
            slot_to_zero(c, slot);
        }
    }
    return c->ix.dirty ? c->fast_error : 0;
}

/* Yields; lock not held. */
static int base_zero(WeirCache *c, const Writing *w, bool discard,
                     bool may_unmap)
{
    uint64_t offset = w->block * BLOCK_BYTES;
    uint64_t bytes = base_inside(c, offset, w->count * BLOCK_BYTES);

    if (!bytes) {
        return 0;
    }
    return discard
           ? c->host->discard(c->opaque, WEIR_CACHE_BASE, offset, bytes)
           : c->host->zero(c->opaque, WEIR_CACHE_BASE, offset, bytes,
                           may_unmap);
}

/* Yields. */
static int zero_past(WeirCache *c, const Writing *w, bool discard,
                     bool may_unmap)
{
    int ret = regions_enter(c, w->block, w->count);

    if (ret < 0) {
        return ret;
    }
    ret = zero_dirty(c, w);
    if (ret == 0) {
        unlock(c);
        ret = base_zero(c, w, discard, may_unmap);
        lock(c);
        base_changed(c, w);
    }
    regions_leave(c, w->block, w->count);
    return ret;
}

/* Yields. */
static int zero_range(WeirCache *c, uint64_t offset, uint64_t bytes,
                      bool discard, bool may_unmap)
{
    Writing w = {
        .block = offset / BLOCK_BYTES, .count = bytes / BLOCK_BYTES,
    };
    int ret;

    if (!w.count) {
        return 0;
    }
    lock(c);
    request_begins(c);
    ret = request_error(c);
    if (ret < 0) {
        unlock(c);
        return ret;
    }
    writing_enter(c, &w);
    wait_for_write_back(c, &w);
    journal_reserve(c, RECORDS_PER_ZERO);
    if (!discard && is_write_back(c) && w.count <= ZEROES_CACHED_BLOCKS &&
        !(c->fast_error && !c->ix.dirty)) {
        ret = zero_in(c, &w);
    } else {
        ret = zero_past(c, &w, discard, may_unmap);
    }
    journal_release(c, RECORDS_PER_ZERO);
    writing_leave(c, &w);
    unlock(c);
    return ret;
}

int weir_cache_zero(WeirCache *c, uint64_t offset, uint64_t bytes,
                    bool may_unmap, bool fua)
{
    int ret = zero_range(c, offset, bytes, false, may_unmap);

    return ret == 0 && fua ? weir_cache_flush(c) : ret;
}

int weir_cache_discard(WeirCache *c, uint64_t offset, uint64_t bytes)
{
    return zero_range(c, offset, bytes, true, true);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads. A run of blocks that are cached side by side is one read of the fast
 * device; a run of others one read of the base, which comes into the cache
 * after the reader has gone on:
 *
 *   miss_new --read--> done --spawn--> miss_fill --> the last user: freed
 *
 * Another reader of these blocks uses what is there. A writer cancels: then
 * nothing goes into the cache, and later readers ask the base again.
 */
#include "cache/cache-int.h"
#include "common/zero.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A request as it goes on. */
typedef struct Reading {
    WeirCache *cache;
    const WeirCacheGuest *guest;
    uint64_t block;                     /* next one */
    uint64_t left;                      /* blocks */
    uint64_t at;                        /* bytes behind the guest's start */
    bool bypass;
} Reading;

/* Lock not held. Yields. */
static int read_to_guest(Reading *r, WeirCacheDevice dev, uint64_t offset,
                         uint64_t bytes)
{
    const WeirCacheGuest *g = r->guest;
    WeirCache *c = r->cache;

    if (g->host) {
        return c->host->read_guest(c->opaque, dev, offset, bytes, g->host,
                                   g->offset + r->at);
    }
    return c->host->read(c->opaque, dev, offset, bytes,
                         (uint8_t *)g->iov->iov_base + g->offset + r->at);
}

static void go_on(Reading *r, uint32_t blocks)
{
    r->block += blocks;
    r->left -= blocks;
    r->at += (uint64_t)blocks * BLOCK_BYTES;
}

bool stream_bypasses(WeirCache *c, uint64_t block, uint64_t count)
{
    uint64_t limit = c->config.bypass_sequential_bytes / BLOCK_BYTES;
    uint32_t i;

    if (!limit) {
        return false;
    }
    for (i = 0; i < STREAMS && c->stream_end[i] != block; i++) {
    }
    if (i == STREAMS) {
        i = c->stream_oldest++ % STREAMS;
        c->stream_blocks[i] = 0;
    }
    c->stream_end[i] = block + count;
    c->stream_blocks[i] += count;
    return c->stream_blocks[i] > limit;
}

/* --- misses --- */

Miss *miss_new(WeirCache *c, uint64_t block, uint32_t count, uint8_t *data)
{
    Miss *m = malloc(sizeof(*m));

    if (!m) {
        return NULL;
    }
    *m = (Miss) {
        .cache = c, .block = block, .count = count, .users = 1, .data = data,
        .next = c->misses,
    };
    c->misses = m;
    return m;
}

void miss_put(Miss *m)
{
    WeirCache *c = m->cache;
    Miss **link = &c->misses;

    if (--m->users) {
        return;
    }
    while (*link != m) {
        link = &(*link)->next;
    }
    *link = m->next;
    buffer_put(c, m->data);
    free(m);
}

/* The miss that has this block, or else the blocks before the next that do. */
static Miss *miss_find(const WeirCache *c, uint64_t block, uint32_t *count)
{
    for (Miss *m = c->misses; m; m = m->next) {
        if (m->cancelled) {
            continue;
        }
        if (m->block <= block && block < m->block + m->count) {
            return m;
        }
        if (m->block > block && m->block - block < *count) {
            *count = (uint32_t)(m->block - block);
        }
    }
    return NULL;
}

/* --- filling --- */

/*
 * Whether a block of a miss still has to come in. One that was in doubt since
 * a crash, and is what the base has, is believed again.
 */
static bool is_wanted(WeirCache *c, const Miss *m, uint32_t i)
{
    uint32_t slot = weir_cache_index_find(&c->ix, m->block + i);
    const uint8_t *data = m->data + (size_t)i * BLOCK_BYTES;

    if (slot == NO_SLOT) {
        return true;
    }
    if (!(c->ix.flags[slot] & WEIR_SLOT_SUSPECT)) {
        return false;
    }
    if (c->ix.flags[slot] & WEIR_SLOT_ZERO
        ? weir_is_zero(data, BLOCK_BYTES)
        : c->ix.node[slot].crc == crc_of(c, m->block + i, data)) {
        weir_cache_index_set_flags(&c->ix, slot, WEIR_SLOT_SUSPECT, 0);
        slot_changed(c, slot);
        return false;
    }
    return true;
}

/* Map blocks of a miss whose data has been written. */
static void fill_end(Miss *m, uint32_t i, uint32_t slot, uint32_t n,
                     const uint32_t *crc, uint8_t flags)
{
    WeirCache *c = m->cache;

    for (uint32_t k = 0; k < n; k++) {
        if (!m->cancelled && is_wanted(c, m, i + k)) {
            slot_map(c, m->block + i + k, slot + k, crc ? crc[k] : 0, flags);
            c->stat.fills++;
        } else {
            slots_give(c, slot + k, 1);
        }
    }
}

/* Bring blocks i.. in, at least one; returns how many, 0: no room. Yields. */
static uint32_t fill_run(Miss *m, uint32_t i)
{
    WeirCache *c = m->cache;
    uint8_t *data = m->data + (size_t)i * BLOCK_BYTES;
    uint32_t crc[SEGMENT_BLOCKS];
    bool zero = weir_is_zero(data, BLOCK_BYTES);
    uint32_t n = 1, slot;
    int ret;

    if (!is_wanted(c, m, i)) {
        return 1;
    }
    while (!zero && i + n < m->count && is_wanted(c, m, i + n) &&
           !weir_is_zero(data + (size_t)n * BLOCK_BYTES, BLOCK_BYTES)) {
        n++;
    }
    n = slots_take(c, n, &slot);
    if (!n || zero) {
        fill_end(m, i, slot, n, NULL, WEIR_SLOT_ZERO);
        return n;
    }
    unlock(c);
    for (uint32_t k = 0; k < n; k++) {
        crc[k] = crc_of(c, m->block + i + k, data + (size_t)k * BLOCK_BYTES);
    }
    ret = c->host->write(c->opaque, WEIR_CACHE_FAST, slot_offset(c, slot),
                         (uint64_t)n * BLOCK_BYTES, data);
    lock(c);
    c->stat.data_error = ret;
    if (ret < 0) {
        slots_give(c, slot, n);
        c->stat.fast_write_errors++;
        return 0;
    }
    fill_end(m, i, slot, n, crc, 0);
    return n;
}

void miss_fill(void *opaque)
{
    Miss *m = opaque;
    WeirCache *c = m->cache;
    uint32_t records = 2 * m->count + 2 * SEGMENT_BLOCKS;

    lock(c);
    if (journal_try_reserve(c, records)) {
        for (uint32_t i = 0, n; i < m->count && !m->cancelled &&
             !c->fast_error && c->config.mode != WEIR_CACHE_READ_ONLY; i += n) {
            n = fill_run(m, i);
            if (!n) {
                break;
            }
        }
        journal_release(c, records);
    }
    c->fills--;
    miss_put(m);
    unlock(c);
}

/* --- requests --- */

/* Wait for somebody else's read of the base. Yields; lock held. */
static int read_joined(Reading *r, Miss *m)
{
    WeirCache *c = r->cache;
    uint64_t skip = r->block - m->block;
    uint32_t n = (uint32_t)(m->count - skip < r->left ? m->count - skip
                                                      : r->left);
    int ret;

    m->users++;
    while (!m->done) {
        wait_on(c, &c->miss_queue);
    }
    ret = m->error;
    unlock(c);
    if (ret == 0) {
        guest_copy_to(r->guest, r->at, m->data + skip * BLOCK_BYTES,
                      (size_t)n * BLOCK_BYTES);
    }
    lock(c);
    miss_put(m);
    go_on(r, n);
    return ret;
}

/* Read the base past the cache. Yields; lock held. */
static int read_past(Reading *r, uint32_t n)
{
    WeirCache *c = r->cache;
    uint64_t offset = r->block * BLOCK_BYTES;
    uint64_t bytes = (uint64_t)n * BLOCK_BYTES;
    uint64_t inside = base_inside(c, offset, bytes);
    int ret = 0;

    c->stat.bypassed += n;
    unlock(c);
    if (inside) {
        ret = read_to_guest(r, WEIR_CACHE_BASE, offset, inside);
    }
    if (ret == 0 && inside < bytes) {
        guest_zero(r->guest, r->at + inside, bytes - inside);
    }
    lock(c);
    go_on(r, n);
    return ret;
}

bool fills_now(const WeirCache *c)
{
    return !c->fast_error && !c->fast_read_only && c->fills < FILLS_MAX &&
           c->config.mode != WEIR_CACHE_READ_ONLY;
}

/* A block in doubt is there already, and is only compared. */
bool is_admitted(WeirCache *c, uint64_t block, uint32_t *count)
{
    bool admitted = true;

    for (uint32_t i = 0; i < *count &&
         c->config.promote == WEIR_CACHE_SECOND_TOUCH; i++) {
        bool now = weir_cache_index_find(&c->ix, block + i) != NO_SLOT ||
                   weir_cache_evict_admit(&c->ev, block + i);

        if (i > 0 && now != admitted) {
            *count = i;
        }
        admitted = i > 0 ? admitted : now;
    }
    return admitted;
}

/* Read the base, for the guest and for the cache. Yields; lock held. */
static int read_missed(Reading *r, uint32_t n)
{
    WeirCache *c = r->cache;
    bool keep = fills_now(c) && !r->bypass && is_admitted(c, r->block, &n);
    uint8_t *data = keep ? buffer_get(c) : NULL;
    Miss *m = data ? miss_new(c, r->block, n, data) : NULL;
    int ret;

    if (!m) {
        if (data) {
            buffer_put(c, data);
        }
        return read_past(r, n);
    }
    c->fills++;
    unlock(c);
    ret = base_read(c, m->block, n, data);
    lock(c);
    m->done = true;
    m->error = ret;
    wake(c, &c->miss_queue);
    if (ret < 0) {
        m->cancelled = true;
        c->fills--;
        miss_put(m);
        return ret;
    }
    m->users++;
    unlock(c);
    guest_copy_to(r->guest, r->at, data, (size_t)n * BLOCK_BYTES);
    c->host->spawn(c->opaque, miss_fill, m);
    lock(c);
    miss_put(m);
    go_on(r, n);
    return 0;
}

/* How many blocks from here on are not cached. */
static uint32_t run_of_misses(Reading *r)
{
    WeirCache *c = r->cache;
    uint32_t most = (uint32_t)(r->left < SEGMENT_BLOCKS ? r->left
                                                        : SEGMENT_BLOCKS);
    uint32_t n = 1;

    while (n < most) {
        uint32_t slot = weir_cache_index_find(&c->ix, r->block + n);

        if (slot != NO_SLOT && !(c->ix.flags[slot] & WEIR_SLOT_SUSPECT)) {
            break;
        }
        n++;
    }
    return n;
}

static int read_miss(Reading *r)
{
    WeirCache *c = r->cache;
    uint32_t n = run_of_misses(r);
    Miss *m = miss_find(c, r->block, &n);

    if (m) {
        count_accesses(c, false, false, 1);
        return read_joined(r, m);
    }
    count_accesses(c, false, false, n);
    return read_missed(r, n);
}

/*
 * The data of a slot is not what was written. The guest may have changed its
 * memory while it was read; so look at what only we can see. Yields; lock held.
 */
static int read_again(Reading *r, uint32_t slot, uint64_t block, uint32_t crc,
                      uint64_t at)
{
    WeirCache *c = r->cache;
    uint8_t *data = buffer_get(c);
    int ret;

    if (!data) {
        return -ENOMEM;
    }
    unlock(c);
    ret = c->host->read(c->opaque, WEIR_CACHE_FAST, slot_offset(c, slot),
                        BLOCK_BYTES, data);
    if (ret == 0 && crc_of(c, block, data) != crc) {
        ret = -EBADMSG;
    } else if (ret == 0) {
        guest_copy_to(r->guest, at, data, BLOCK_BYTES);
    }
    lock(c);
    buffer_put(c, data);
    return ret;
}

/*
 * A slot cannot be read. A clean block is dropped: the base has it. For a
 * dirty one there is nothing else: an error, never silently the base.
 */
static int slot_is_bad(WeirCache *c, uint32_t slot, uint64_t block, int error)
{
    if (weir_cache_index_find(&c->ix, block) != slot) {
        return 0;                       /* written again meanwhile */
    }
    if (is_dirty(c, slot)) {
        c->stat.corrupt_dirty++;
        c->host->kick(c->opaque);
        return error == -EBADMSG ? -EIO : error;
    }
    c->stat.corrupt_clean++;
    slots_unmap(c, block, 1);
    return 0;
}

/* Check what was read; blocks that turn out bad are read from the base. */
static int check_hits(Reading *r, uint32_t slot, uint32_t n, int error,
                      const uint32_t *crc)
{
    WeirCache *c = r->cache;
    uint32_t bad[SEGMENT_BLOCKS];
    uint32_t bad_count = 0;
    int ret = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t seed = weir_cache_crc_seed(c->crc_seed, r->block + i);

        if (error || guest_crc(r->guest, r->at + (uint64_t)i * BLOCK_BYTES,
                               seed, BLOCK_BYTES) != crc[i]) {
            bad[bad_count++] = i;
        }
    }
    lock(c);
    for (uint32_t k = 0; k < bad_count && ret == 0; k++) {
        uint32_t i = bad[k];
        uint64_t at = r->at + (uint64_t)i * BLOCK_BYTES;

        ret = read_again(r, slot + i, r->block + i, crc[i], at);
        if (ret < 0) {
            Reading again = {
                .cache = c, .guest = r->guest, .block = r->block + i,
                .left = 1, .at = at, .bypass = true,
            };

            ret = slot_is_bad(c, slot + i, r->block + i, ret);
            if (ret == 0 && weir_cache_index_find(&c->ix, r->block + i) ==
                NO_SLOT) {
                ret = read_past(&again, 1);
            } else if (ret == 0) {
                ret = -EAGAIN;          /* written again: read that */
            }
        }
    }
    return ret;
}

/* Blocks in slots side by side. Yields; lock held. */
static int read_hits(Reading *r, uint32_t slot, uint32_t n)
{
    WeirCache *c = r->cache;
    uint32_t crc[SEGMENT_BLOCKS];
    uint32_t generation;
    int ret;

    for (uint32_t i = 0; i < n; i++) {
        crc[i] = c->ix.node[slot + i].crc;
    }
    generation = reader_begin(c);
    unlock(c);
    ret = read_to_guest(r, WEIR_CACHE_FAST, slot_offset(c, slot),
                        (uint64_t)n * BLOCK_BYTES);
    ret = check_hits(r, slot, n, ret, crc);
    reader_end(c, generation);
    if (ret == -EAGAIN) {
        return 0;                       /* not gone on: look again */
    }
    go_on(r, n);
    return ret;
}

static int read_hit(Reading *r, uint32_t slot)
{
    WeirCache *c = r->cache;
    uint8_t zero = c->ix.flags[slot] & WEIR_SLOT_ZERO;
    uint32_t n = 0;

    do {
        weir_cache_evict_hit(&c->ev, slot + n);
        n++;
    } while (n < r->left && n < SEGMENT_BLOCKS && !zero &&
             weir_cache_index_find(&c->ix, r->block + n) == slot + n &&
             !(c->ix.flags[slot + n] & (WEIR_SLOT_ZERO | WEIR_SLOT_SUSPECT)));
    count_accesses(c, false, true, n);
    if (!zero) {
        return read_hits(r, slot, n);
    }
    unlock(c);
    guest_zero(r->guest, r->at, BLOCK_BYTES);
    lock(c);
    go_on(r, 1);
    return 0;
}

/* Whole blocks. Yields; lock held. */
static int read_blocks(Reading *r)
{
    WeirCache *c = r->cache;
    int ret = 0;

    while (r->left && ret == 0) {
        uint32_t slot = weir_cache_index_find(&c->ix, r->block);

        if (slot == NO_SLOT || c->ix.flags[slot] & WEIR_SLOT_SUSPECT) {
            ret = read_miss(r);
        } else {
            ret = read_hit(r, slot);
        }
    }
    return ret;
}

/* Yields; lock held. */
static int read_one(WeirCache *c, uint64_t block, uint8_t *data, bool bypass)
{
    struct iovec iov = { data, BLOCK_BYTES };
    WeirCacheGuest guest = { .iov = &iov, .niov = 1 };
    Reading r = {
        .cache = c, .guest = &guest, .block = block, .left = 1,
        .bypass = bypass,
    };

    return read_blocks(&r);
}

int read_block(WeirCache *c, uint64_t block, uint8_t *data)
{
    return read_one(c, block, data, true);
}

/* Part of a block, to the guest's byte `at`. Yields; lock held. */
static int read_part(WeirCache *c, uint64_t offset, size_t bytes,
                     const WeirCacheGuest *guest, uint64_t at, bool bypass)
{
    uint8_t *data = buffer_get(c);
    int ret = data ? read_one(c, offset / BLOCK_BYTES, data, bypass) : -ENOMEM;

    if (ret == 0) {
        guest_copy_to(guest, at, data + offset % BLOCK_BYTES, bytes);
    }
    if (data) {
        buffer_put(c, data);
    }
    return ret;
}

int weir_cache_read(WeirCache *c, uint64_t offset, uint64_t bytes,
                    const WeirCacheGuest *guest)
{
    uint64_t at = 0, n;
    bool bypass;
    int ret;

    lock(c);
    request_begins(c);
    bypass = stream_bypasses(c, offset / BLOCK_BYTES, blocks_of(bytes));
    for (ret = request_error(c); at < bytes && ret == 0; at += n) {
        n = part_bytes(offset + at, bytes - at);
        if (n < BLOCK_BYTES) {
            ret = read_part(c, offset + at, n, guest, at, bypass);
        } else {
            Reading r = {
                .cache = c, .guest = guest, .at = at, .bypass = bypass,
                .block = (offset + at) / BLOCK_BYTES, .left = n / BLOCK_BYTES,
            };

            ret = read_blocks(&r);
        }
    }
    unlock(c);
    return ret;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty blocks to the base, in batches:
 *
 *   pick (those that are to leave, then in slot order; with their neighbours on
 *         the base; sorted)
 *   -> commit: what is written back is on record for good (rule 6)
 *   -> read the slots, write the base, several runs at a time
 *   -> flush the base (rule 3) -> clean, on record; those that are to leave go
 *
 * A guest that writes to such a block meanwhile gets another slot, so the
 * block is not the one of the batch any more and stays dirty.
 *
 * The cursor goes round all slots. When it has come round, no block is dirty
 * for longer than since it left; that is how the age is bounded without a time
 * for each block.
 */
#include "cache/cache-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS 512
#define SCAN_SLOTS (1u << 18)           /* under the lock in one go */
#define WORKERS 4
#define RETRY_NS NS_PER_S
#define NOTHING_NS (10 * NS_PER_MS)     /* what there is is being written */
#define RATE_STEP_NS (NS_PER_S / 8)

/* --- when --- */

static uint64_t oldest_ns(const WeirCache *c)
{
    return c->dirty_since_ns ? c->dirty_since_ns : c->dirty_since_next_ns;
}

static uint64_t time_left(uint64_t when, uint64_t now)
{
    return when > now ? when - now : 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When the state by itself asks for it, rate and errors aside. */
static uint64_t wanted_in(WeirCache *c, uint64_t now)
{
    uint64_t share = c->ix.dirty * UINT64_C(100);
    uint64_t in = UINT64_MAX;

    if (share >= (uint64_t)c->config.dirty_high_percent * c->ix.slots) {
        c->above_high = true;
    } else if (share <= (uint64_t)c->config.dirty_low_percent * c->ix.slots) {
        c->above_high = false;
    }
    if (c->above_high || c->config.mode != WEIR_CACHE_WRITE_BACK) {
        return 0;
    }
    if (c->config.dirty_age_ms && oldest_ns(c)) {
        in = time_left(oldest_ns(c) + c->config.dirty_age_ms * NS_PER_MS, now);
    }
    if (c->config.idle_ms) {
        in = earlier(in, time_left(c->last_request_ns +
                                   c->config.idle_ms * NS_PER_MS, now));
    }
    return in;
}

uint64_t write_back_due(WeirCache *c, uint64_t now)
{
    uint64_t in, not_before = time_left(c->write_back_due_ns, now);

    if (!c->ix.dirty) {
        c->above_high = false;
        c->dirty_since_ns = c->dirty_since_next_ns = 0;
        return UINT64_MAX;
    }
    if (c->fast_error || c->base_read_only) {
        return UINT64_MAX;
    }
    in = c->slot_waiters || leaving_is_due(c) ? 0 : wanted_in(c, now);
    return in > not_before ? in : not_before;
}

/* --- what --- */

static bool may_pick(const WeirCache *c, uint32_t slot)
{
    return (c->ix.flags[slot] & (WEIR_SLOT_DIRTY | WEIR_SLOT_WRITE_BACK)) ==
           WEIR_SLOT_DIRTY;
}

static bool pick(WeirCache *c, uint32_t slot)
{
    if (slot == NO_SLOT || c->batch_count == c->batch_max ||
        !may_pick(c, slot)) {
        return false;
    }
    weir_cache_index_set_flags(&c->ix, slot, 0, WEIR_SLOT_WRITE_BACK);
    c->batch[c->batch_count++] = (WriteBackBlock) {
        weir_cache_index_block(&c->ix, slot), slot,
    };
    return true;
}

/* A dirty block, and those beside it on the base. */
static void pick_run(WeirCache *c, uint32_t slot)
{
    uint64_t block = weir_cache_index_block(&c->ix, slot);
    uint64_t b;

    pick(c, slot);
    for (b = block; b > 0 && block - b < SEGMENT_BLOCKS / 2 &&
         pick(c, weir_cache_index_find(&c->ix, b - 1)); b--) {
    }
    for (b = block; b - block < SEGMENT_BLOCKS / 2 &&
         pick(c, weir_cache_index_find(&c->ix, b + 1)); b++) {
    }
}

static void sweep_ended(WeirCache *c)
{
    c->cursor = 0;
    c->sweeps++;
    c->dirty_since_ns = c->dirty_since_next_ns;
    c->dirty_since_next_ns = 0;
}

/* With a rate, not much more than what it allows in RATE_STEP_NS. */
static uint32_t limited_batch(const WeirCache *c)
{
    uint64_t rate = c->config.write_back_rate;
    uint64_t blocks = rate / BLOCK_BYTES / (NS_PER_S / RATE_STEP_NS) + 1;

    return rate && blocks < WRITE_BACK_BLOCKS ? (uint32_t)blocks
                                              : WRITE_BACK_BLOCKS;
}

/* Hints are few; look for the others. */
static void pick_unhinted(WeirCache *c)
{
    uint32_t slots = c->ix.slots;
    uint32_t looks = slots < SCAN_SLOTS ? slots : SCAN_SLOTS;

    for (uint32_t i = 0; i < looks && c->batch_count < c->batch_max &&
         c->batch_count < c->ev.leaving; i++) {
        uint32_t slot = c->leaving_cursor;

        c->leaving_cursor = slot + 1 < slots ? slot + 1 : 0;
        if (may_pick(c, slot) && weir_cache_evict_is_leaving(&c->ev, slot)) {
            pick_run(c, slot);
        }
    }
}

/* Those that would have been evicted. */
static void pick_leaving(WeirCache *c)
{
    for (int seeds = 0; seeds < SEEDS && c->batch_count < c->batch_max;
         seeds++) {
        uint32_t slot = weir_cache_evict_hint(&c->ev);

        if (slot == NO_SLOT) {
            break;
        }
        if (may_pick(c, slot)) {
            pick_run(c, slot);
        }
    }
}

/* Until there are enough or the cursor has come round. Yields. */
static void pick_round(WeirCache *c)
{
    uint32_t scanned = 0, seeds = 0;

    while (scanned < c->ix.slots && seeds < SEEDS &&
           c->batch_count < c->batch_max) {
        uint64_t flags;

        if (c->cursor % 8 == 0 && c->ix.slots - c->cursor >= 8) {
            memcpy(&flags, &c->ix.flags[c->cursor], sizeof(flags));
            if (!(flags & UINT64_C(0x1010101010101010))) {  /* all clean */
                c->cursor += 8;
                scanned += 8;
                goto end;
            }
        }
        if (may_pick(c, c->cursor)) {
            pick_run(c, c->cursor);
            seeds++;
        }
        c->cursor++;
        scanned++;
end:
        if (c->cursor == c->ix.slots) {
            sweep_ended(c);
        }
        if (scanned % SCAN_SLOTS < 8 && scanned >= SCAN_SLOTS) {
            unlock(c);                  /* let requests in */
            lock(c);
        }
    }
}

static int compare_blocks(const void *a, const void *b)
{
    const WriteBackBlock *x = a, *y = b;

    return (x->block > y->block) - (x->block < y->block);
}

/* --- runs --- */

/* Whether the batch's version of a block is still the one to write back. */
static bool is_current(const WeirCache *c, const WriteBackBlock *b)
{
    return c->ix.flags[b->slot] & WEIR_SLOT_WRITE_BACK &&
           weir_cache_index_block(&c->ix, b->slot) == b->block;
}

/* This one stays dirty. */
static void give_up(WeirCache *c, const WriteBackBlock *b)
{
    if (is_current(c, b)) {
        weir_cache_index_set_flags(&c->ix, b->slot, WEIR_SLOT_WRITE_BACK, 0);
    }
}

/* The next blocks side by side, all data or all zeroes. Returns how many. */
static uint32_t take_run(WeirCache *c, uint32_t *first)
{
    const WriteBackBlock *b;
    uint32_t n = 1;

    while (c->batch_next < c->batch_count &&
           !is_current(c, &c->batch[c->batch_next])) {
        c->batch_next++;
    }
    if (c->batch_next == c->batch_count) {
        return 0;
    }
    *first = c->batch_next;
    b = &c->batch[*first];
    while (n < SEGMENT_BLOCKS && *first + n < c->batch_count &&
           b[n].block == b->block + n && is_current(c, &b[n]) &&
           is_data(c, b[n].slot) == is_data(c, b->slot)) {
        n++;
    }
    c->batch_next += n;
    return n;
}

/* Read the slots of a run, those side by side at once. Yields; not locked. */
static int read_slots(WeirCache *c, const WriteBackBlock *b, uint32_t count,
                      uint8_t *data)
{
    int ret = 0;

    for (uint32_t i = 0, n; i < count && ret == 0; i += n) {
        for (n = 1; i + n < count && b[i + n].slot == b[i].slot + n; n++) {
        }
        ret = c->host->read(c->opaque, WEIR_CACHE_FAST,
                            slot_offset(c, b[i].slot),
                            (uint64_t)n * BLOCK_BYTES,
                            data + (size_t)i * BLOCK_BYTES);
    }
    return ret;
}

/*
 * Never write what is not what the guest wrote: leave blocks with a wrong
 * checksum out. Yields; not locked.
 */
static int write_good(WeirCache *c, const WriteBackBlock *b, uint32_t count,
                      const uint32_t *crc, const uint8_t *data, bool *bad,
                      uint32_t *requests)
{
    int ret = 0;

    for (uint32_t i = 0; i < count; i++) {
        bad[i] = crc_of(c, b[i].block, data + (size_t)i * BLOCK_BYTES) !=
                 crc[i];
    }
    for (uint32_t i = 0, n; i < count && ret == 0; i += n) {
        for (n = 1; i + n < count && bad[i + n] == bad[i]; n++) {
        }
        if (!bad[i]) {
            ret = base_write(c, b[i].block, n, data + (size_t)i * BLOCK_BYTES);
            ++*requests;
        }
    }
    return ret;
}

static int zero_base(WeirCache *c, const WriteBackBlock *b, uint32_t count)
{
    uint64_t offset = b->block * BLOCK_BYTES;
    uint64_t bytes = base_inside(c, offset, (uint64_t)count * BLOCK_BYTES);
    int ret = 0;

    unlock(c);
    if (bytes) {
        ret = c->host->zero(c->opaque, WEIR_CACHE_BASE, offset, bytes, true);
    }
    lock(c);
    c->stat.write_back_requests++;
    return ret;
}

/* Yields; locked. Returns 0 or -errno. */
static int copy_run(WeirCache *c, const WriteBackBlock *b, uint32_t count,
                    uint8_t *data)
{
    uint32_t crc[SEGMENT_BLOCKS];
    bool bad[SEGMENT_BLOCKS] = { false };
    uint32_t generation = reader_begin(c);
    uint32_t requests = 0;
    int ret;

    for (uint32_t i = 0; i < count; i++) {
        crc[i] = c->ix.node[b[i].slot].crc;
    }
    unlock(c);
    ret = read_slots(c, b, count, data);
    if (ret == 0) {
        ret = write_good(c, b, count, crc, data, bad, &requests);
    }
    lock(c);
    c->stat.write_back_requests += requests;
    reader_end(c, generation);
    for (uint32_t i = 0; i < count; i++) {
        if (bad[i] && is_current(c, &b[i])) {
            c->stat.corrupt_dirty++;
            give_up(c, &b[i]);
        }
    }
    return ret;
}

static void write_back_runs(WeirCache *c)
{
    uint8_t *data = buffer_get(c);
    uint32_t first, n;

    while (data && (n = take_run(c, &first)) > 0) {
        const WriteBackBlock *b = &c->batch[first];
        int ret = is_data(c, b->slot) ? copy_run(c, b, n, data)
                                      : zero_base(c, b, n);

        if (ret < 0) {
            c->batch_error = ret;
            for (uint32_t i = 0; i < n; i++) {
                give_up(c, &b[i]);
            }
        }
    }
    if (data) {
        buffer_put(c, data);
    } else {
        c->batch_error = -ENOMEM;
    }
}

static void worker(void *opaque)
{
    WeirCache *c = opaque;

    lock(c);
    write_back_runs(c);
    c->batch_workers--;
    wake(c, &c->batch_queue);
    unlock(c);
}

/* --- the batch --- */

/* Those that are as they were are clean now. Returns how many. */
static int mark_clean(WeirCache *c)
{
    uint32_t run = 0, clean = 0;
    uint64_t end = 0;

    for (uint32_t i = 0; i <= c->batch_count; i++) {
        const WriteBackBlock *b = &c->batch[i];
        bool now = i < c->batch_count && is_current(c, b);

        if (run && (!now || b->block != end)) {
            c->clean = journal_append(c, &(WeirCacheRecord) {
                .op = WEIR_CACHE_OP_CLEAN, .block = end - run, .crc = run,
            });
            run = 0;
        }
        if (now) {
            weir_cache_index_set_flags(&c->ix, b->slot, WEIR_SLOT_DIRTY |
                                       WEIR_SLOT_WRITE_BACK, 0);
            slot_changed(c, b->slot);
            end = b->block + 1;
            run++;
            clean++;
        }
    }
    c->stat.written_back += clean;
    return (int)clean;
}

/* Those whose turn is over go, now that they are clean. */
static void evict_cleaned(WeirCache *c)
{
    FreeRun run = { 0 };

    for (uint32_t i = 0; i < c->batch_count; i++) {
        const WriteBackBlock *b = &c->batch[i];

        if ((c->ix.flags[b->slot] & (WEIR_SLOT_MAPPED | WEIR_SLOT_DIRTY |
                                     WEIR_SLOT_WRITE_BACK)) ==
            WEIR_SLOT_MAPPED &&
            weir_cache_index_block(&c->ix, b->slot) == b->block &&
            weir_cache_evict_cleaned(&c->ev, b->slot)) {
            slot_evict(c, b->slot, &run);
        }
    }
    slots_evict_end(c, &run);
}

static int write_back_batch(WeirCache *c)
{
    int ret = WITHOUT_RULE(6) ? 0 : journal_commit_all(c);

    if (ret == 0) {
        c->batch_next = 0;
        c->batch_error = 0;
        for (int i = 0; i < WORKERS - 1; i++) {
            c->batch_workers++;
            c->host->spawn(c->opaque, worker, c);
        }
        write_back_runs(c);
        while (c->batch_workers) {
            wait_on(c, &c->batch_queue);
        }
        unlock(c);
        ret = WITHOUT_RULE(3) ? 0 : c->host->flush(c->opaque, WEIR_CACHE_BASE);
        lock(c);
        c->stat.base_flushes++;
    }
    if (ret < 0) {
        for (uint32_t i = 0; i < c->batch_count; i++) {
            give_up(c, &c->batch[i]);
        }
        return ret;
    }
    ret = mark_clean(c);
    evict_cleaned(c);
    return c->batch_error < 0 ? c->batch_error : ret;
}

/* Not again before the rate allows it. */
static void set_due(WeirCache *c, uint64_t begin_ns, int result)
{
    if (result < 0) {
        c->write_back_due_ns = now_ns(c) + RETRY_NS;
    } else if (c->config.write_back_rate) {
        c->write_back_due_ns = begin_ns + (uint64_t)result * BLOCK_BYTES *
                               NS_PER_S / c->config.write_back_rate;
    }
}

int write_back(WeirCache *c, bool limited)
{
    uint64_t begin_ns = now_ns(c), corrupt;
    bool nothing;
    int ret = 0;

    while (c->writing_back) {
        wait_on(c, &c->batch_queue);
    }
    if (c->fast_error) {
        return c->fast_error;
    }
    c->writing_back = true;
    corrupt = c->stat.corrupt_dirty;
    journal_reserve_for_write_back(c);
    c->batch_count = 0;
    c->batch_max = limited ? limited_batch(c) : WRITE_BACK_BLOCKS;
    pick_leaving(c);
    if (!c->batch_count && leaving_is_due(c)) {
        pick_unhinted(c);
    }
    if (!limited || wanted_in(c, begin_ns) == 0 ||
        (!c->batch_count && c->slot_waiters)) {
        pick_round(c);
    }
    nothing = !c->batch_count;
    if (c->batch_count) {
        qsort(c->batch, c->batch_count, sizeof(*c->batch), compare_blocks);
        ret = write_back_batch(c);
        c->stat.write_back_error = ret < 0 ? ret : 0;
    }
    journal_release(c, WRITE_BACK_RECORDS);
    c->batch_count = 0;
    c->writing_back = false;
    /* those that cannot be read do not get better all the time */
    set_due(c, begin_ns, ret == 0 && c->stat.corrupt_dirty > corrupt ? -EIO
                                                                     : ret);
    if (nothing && limited) {           /* others have to get on first */
        c->write_back_due_ns = begin_ns + NOTHING_NS;
    }
    wake(c, &c->batch_queue);
    wake(c, &c->slot_queue);
    return ret;
}

int weir_cache_drain(WeirCache *c)
{
    int ret = 0;

    lock(c);
    if (c->ix.dirty && c->base_read_only) {
        ret = -EROFS;
    }
    while (c->ix.dirty && ret >= 0) {
        uint64_t sweeps = c->sweeps;
        uint64_t written = c->stat.written_back;
        uint64_t corrupt = c->stat.corrupt_dirty;

        /* all round once: if that gets nowhere, the rest cannot be read */
        do {
            ret = write_back(c, false);
        } while (ret >= 0 && c->ix.dirty && c->sweeps < sweeps + 2);
        if (ret >= 0 && c->stat.written_back == written &&
            c->stat.corrupt_dirty > corrupt) {
            ret = -EIO;
        }
    }
    if (ret >= 0) {
        ret = base_sync(c);
    }
    unlock(c);
    return ret < 0 ? ret : 0;
}

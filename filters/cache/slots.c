/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is in which slot, and when a slot may be written again.
 *
 * A block that is written goes to a free slot (copy-on-write), so a slot that
 * is mapped never changes its data: slot and version of a block are the same.
 *
 *   free --slots_take--> taken --slot_map--> mapped --slot_forget--> freed
 *     ^                                                                |
 *     +------------------- generations_release <-----------------------+
 *
 * A freed slot may still hold what a crash would bring back, and readers may
 * be in it: it waits (rule 1). slot_to_zero() is the one change in place: it
 * drops the data, not before it is on record, since nobody writes to the slot.
 */
#include "cache/cache-int.h"

#include <errno.h>

#define EVICT_BATCH 64
#define EVICT_LOOKS 512                 /* some are dirty */

void slot_changed(WeirCache *c, uint32_t slot)
{
    uint32_t sector = slot / WEIR_CACHE_SECTOR_SLOTS;
    uint64_t bit = UINT64_C(1) << sector % 64;

    if (!(c->table_dirty[sector / 64] & bit)) {
        c->table_dirty[sector / 64] |= bit;
        c->table_dirty_count++;
    }
}

/* --- generations --- */

static Generation *generation(WeirCache *c, uint32_t number)
{
    return &c->generation[number % GENERATIONS];
}

uint32_t reader_begin(WeirCache *c)
{
    generation(c, c->generation_open)->readers++;
    return c->generation_open;
}

void reader_end(WeirCache *c, uint32_t number)
{
    Generation *g = generation(c, number);

    g->readers--;
    if (g->readers == 0 && c->quarantined) {
        generations_release(c);
    }
}

static void free_later(WeirCache *c, uint32_t slot)
{
    Generation *g = generation(c, c->generation_open);

    c->ix.node[slot].next = g->count ? g->first : NO_SLOT;
    g->first = slot;
    g->count++;
    g->sequence = c->next;
    c->quarantined++;
}

static void give_all(WeirCache *c, Generation *g)
{
    c->quarantined -= g->count;
    while (g->count > 0) {
        uint32_t slot = g->first;

        g->first = c->ix.node[slot].next;
        weir_cache_index_give(&c->ix, slot);
        g->count--;
    }
}

static bool is_over(const WeirCache *c, const Generation *g)
{
    return g->readers == 0 &&
           (g->count == 0 || g->sequence <= c->durable || WITHOUT_RULE(1));
}

void generations_release(WeirCache *c)
{
    uint32_t free_before = c->ix.free;

    if (generation(c, c->generation_open)->count &&
        c->generation_open + 1 - c->generation_oldest < GENERATIONS) {
        c->generation_open++;
    }
    while (c->generation_oldest != c->generation_open &&
           is_over(c, generation(c, c->generation_oldest))) {
        give_all(c, generation(c, c->generation_oldest));
        c->generation_oldest++;
    }
    if (c->ix.free != free_before) {
        wake(c, &c->slot_queue);
    }
}

/* --- mapping --- */

void slot_forget(WeirCache *c, uint32_t slot)
{
    weir_cache_index_unmap(&c->ix, slot);
    slot_changed(c, slot);
    free_later(c, slot);
}

static void append_map(WeirCache *c, uint64_t block, uint32_t slot)
{
    uint8_t flags = c->ix.flags[slot];
    uint64_t sequence = journal_append(c, &(WeirCacheRecord) {
        .op = WEIR_CACHE_OP_MAP, .block = block, .slot = slot,
        .crc = c->ix.node[slot].crc,
        .flags = flags & ~(WEIR_SLOT_WRITE_BACK | WEIR_SLOT_SUSPECT),
    });

    if (flags & WEIR_SLOT_DIRTY) {
        c->guest = sequence;
        if (!c->dirty_since_next_ns) {
            c->dirty_since_next_ns = now_ns(c);
        }
    }
}

void slot_map(WeirCache *c, uint64_t block, uint32_t slot, uint32_t crc,
              uint8_t flags)
{
    uint32_t before = weir_cache_index_find(&c->ix, block);

    if (before != NO_SLOT) {
        flags |= weir_cache_evict_move(&c->ev, before, slot);
        slot_forget(c, before);
    } else {
        flags |= weir_cache_evict_insert(&c->ev, slot, block);
    }
    weir_cache_index_map(&c->ix, slot, block, crc, flags);
    slot_changed(c, slot);
    append_map(c, block, slot);
}

void slot_to_zero(WeirCache *c, uint32_t slot)
{
    weir_cache_evict_hit(&c->ev, slot);
    weir_cache_index_set_flags(&c->ix, slot,
                               WEIR_SLOT_WRITE_BACK | WEIR_SLOT_SUSPECT,
                               WEIR_SLOT_DIRTY | WEIR_SLOT_ZERO);
    c->ix.node[slot].crc = 0;
    slot_changed(c, slot);
    append_map(c, weir_cache_index_block(&c->ix, slot), slot);
}

static bool unmap_one(WeirCache *c, uint64_t block, bool dirty)
{
    uint32_t slot = weir_cache_index_find(&c->ix, block);

    if (slot == NO_SLOT || (is_dirty(c, slot) && !dirty)) {
        return false;
    }
    weir_cache_evict_remove(&c->ev, slot);
    slot_forget(c, slot);
    return true;
}

static uint64_t unmap(WeirCache *c, uint64_t block, uint64_t count, bool dirty)
{
    uint64_t sequence = 0;
    uint32_t run = 0;

    for (uint64_t i = 0; i <= count; i++) {
        if (i < count && unmap_one(c, block + i, dirty)) {
            run++;
        } else if (run) {
            sequence = journal_append(c, &(WeirCacheRecord) {
                .op = WEIR_CACHE_OP_UNMAP, .block = block + i - run,
                .crc = run,
            });
            run = 0;
        }
    }
    return sequence;
}

void slots_unmap(WeirCache *c, uint64_t block, uint64_t count)
{
    unmap(c, block, count, false);
}

void slots_unmap_all(WeirCache *c, uint64_t block, uint64_t count)
{
    uint64_t sequence = unmap(c, block, count, true);

    if (sequence > c->guest) {
        c->guest = sequence;            /* else the old ones would be back */
    }
    c->clean = sequence > c->clean ? sequence : c->clean;
}

void misses_cancel(WeirCache *c, uint64_t block, uint64_t count)
{
    for (Miss *m = c->misses; m; m = m->next) {
        if (m->block < block + count && block < m->block + m->count) {
            m->cancelled = true;
        }
    }
}

/* --- free slots --- */

/* 1/256 of all, so that nobody has to wait for an eviction's record. */
uint32_t slots_reserve(const WeirCache *c)
{
    return c->ix.slots / 256 + 4;
}

/* Enough are to leave to be worth a flush of the base. */
bool leaving_is_due(const WeirCache *c)
{
    return c->ev.leaving > slots_reserve(c) / 4;
}

/*
 * What is to leave will be free soon. It does not do for all of the reserve,
 * since writing back takes its time.
 */
bool slots_are_short(const WeirCache *c)
{
    uint32_t reserve = slots_reserve(c);
    uint32_t soon = c->ev.leaving < reserve / 2 ? c->ev.leaving : reserve / 2;

    return c->ix.free + c->quarantined + soon < reserve;
}

void slots_evict_end(WeirCache *c, FreeRun *run)
{
    if (run->count) {
        journal_append(c, &(WeirCacheRecord) {
            .op = WEIR_CACHE_OP_FREE, .slot = run->first, .crc = run->count,
        });
    }
    run->count = 0;
}

void slot_evict(WeirCache *c, uint32_t slot, FreeRun *run)
{
    if (run->count && slot != run->first + run->count) {
        slots_evict_end(c, run);
    }
    run->first = run->count ? run->first : slot;
    run->count++;
    slot_forget(c, slot);
    c->stat.evictions++;
}

bool slots_make_room(WeirCache *c)
{
    FreeRun run = { 0 };
    int evicted = 0;
    bool more = true;

    for (int looks = 0; looks < EVICT_LOOKS && evicted < EVICT_BATCH &&
         slots_are_short(c) && more; looks++) {
        uint32_t leaving = c->ev.leaving;
        uint32_t slot = weir_cache_evict_victim(&c->ev);

        if (slot != NO_SLOT) {
            slot_evict(c, slot, &run);
            evicted++;
        }
        more = slot != NO_SLOT || c->ev.leaving != leaving;
    }
    slots_evict_end(c, &run);
    return evicted > 0 || c->ev.unfinished;
}

uint32_t slots_take(WeirCache *c, uint32_t want, uint32_t *first)
{
    if (c->ix.free < slots_reserve(c)) {
        slots_make_room(c);
    }
    if (c->ix.free < slots_reserve(c) / 2 || leaving_is_due(c)) {
        c->host->kick(c->opaque);
    }
    return weir_cache_index_take(&c->ix, want, first);
}

int slots_take_wait(WeirCache *c, uint32_t want, uint32_t *first)
{
    for (;;) {
        uint32_t n = slots_take(c, want, first);

        if (n) {
            return (int)n;
        }
        if (c->fast_error) {
            return c->fast_error;
        }
        if (c->quarantined && c->durable < c->next - !c->records) {
            /* on record they are soon; the readers do not take long either */
            journal_commit_all(c);
            continue;
        }
        generations_release(c);
        if (c->ix.free) {
            continue;
        }
        if (!c->quarantined && c->stat.write_back_error) {
            return c->stat.write_back_error;
        }
        c->slot_waiters++;
        c->host->kick(c->opaque);
        wait_on(c, &c->slot_queue);
        c->slot_waiters--;
    }
}

void slots_give(WeirCache *c, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        weir_cache_index_give(&c->ix, first + i);
    }
    wake(c, &c->slot_queue);
}

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

    c->ix.next[slot] = g->count ? g->first : NO_SLOT;
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

        g->first = c->ix.next[slot];
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
        .crc = c->ix.crc[slot],
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
        flags |= weir_cache_evict_move(&c->ev, before);
        slot_forget(c, before);
    } else {
        flags |= weir_cache_evict_insert(&c->ev, block);
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
    c->ix.crc[slot] = 0;
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
    return c->ix.slots / 256 + 1;
}

static void append_free(WeirCache *c, uint32_t first, uint32_t count)
{
    journal_append(c, &(WeirCacheRecord) {
        .op = WEIR_CACHE_OP_FREE, .slot = first, .crc = count,
    });
}

void slots_make_room(WeirCache *c)
{
    uint32_t first = 0, run = 0;

    for (int i = 0; i < EVICT_BATCH &&
         c->ix.free + c->quarantined < slots_reserve(c); i++) {
        uint32_t slot = weir_cache_evict_victim(&c->ev);

        if (slot == NO_SLOT) {
            break;
        }
        if (run && slot != first + run) {
            append_free(c, first, run);
            run = 0;
        }
        first = run ? first : slot;
        run++;
        slot_forget(c, slot);
        c->stat.evictions++;
    }
    if (run) {
        append_free(c, first, run);
    }
}

uint32_t slots_take(WeirCache *c, uint32_t want, uint32_t *first)
{
    if (c->ix.free < slots_reserve(c)) {
        slots_make_room(c);
    }
    if (c->ix.free < slots_reserve(c) / 2) {
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

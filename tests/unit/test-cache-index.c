/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index of a cache: by hand, and any operations in any order against a
 * model that is a plain array of slots.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache/index.h"
#include "trace.h"

#define SEED UINT64_C(0x0123456789abcdef)
#define NO_SLOT WEIR_CACHE_NO_SLOT

static void init(WeirCacheIndex *ix, uint32_t slots)
{
    assert_int_equal(weir_cache_index_init(ix, slots, SEED), 0);
}

static uint32_t take_one(WeirCacheIndex *ix)
{
    uint32_t slot;

    assert_int_equal(weir_cache_index_take(ix, 1, &slot), 1);
    return slot;
}

static uint32_t map_one(WeirCacheIndex *ix, uint64_t block, uint8_t flags)
{
    uint32_t slot = take_one(ix);

    weir_cache_index_map(ix, slot, block, (uint32_t)block * 7, flags);
    return slot;
}

/* --- free slots --- */

static void all_slots_are_free_at_first(void **state)
{
    const uint32_t sizes[] = {
        1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 100000,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        WeirCacheIndex ix;
        uint32_t first;

        init(&ix, sizes[i]);
        assert_int_equal(ix.free, sizes[i]);
        assert_int_equal(ix.mapped, 0);
        assert_int_equal(weir_cache_index_take(&ix, UINT32_MAX, &first),
                         sizes[i]);
        assert_int_equal(first, 0);
        assert_int_equal(ix.free, 0);
        assert_int_equal(weir_cache_index_take(&ix, 1, &first), 0);
        weir_cache_index_destroy(&ix);
    }
}

static void slots_are_taken_one_behind_the_other(void **state)
{
    WeirCacheIndex ix;

    (void)state;
    init(&ix, 200);
    for (uint32_t slot = 0; slot < 200; slot++) {
        assert_int_equal(take_one(&ix), slot);
    }
    weir_cache_index_give(&ix, 150);
    weir_cache_index_give(&ix, 3);
    assert_int_equal(take_one(&ix), 3);     /* the cursor went round the end */
    weir_cache_index_give(&ix, 3);
    assert_int_equal(take_one(&ix), 150);
    assert_int_equal(take_one(&ix), 3);
    weir_cache_index_destroy(&ix);
}

static void run_ends_at_a_slot_that_is_not_free(void **state)
{
    WeirCacheIndex ix;
    uint32_t first;

    (void)state;
    init(&ix, 300);
    weir_cache_index_take_slot(&ix, 70);
    weir_cache_index_take_slot(&ix, 140);
    assert_int_equal(weir_cache_index_take(&ix, 100, &first), 70);
    assert_int_equal(first, 0);
    assert_int_equal(weir_cache_index_take(&ix, 40, &first), 40);
    assert_int_equal(first, 71);
    assert_int_equal(weir_cache_index_take(&ix, 100, &first), 29);
    assert_int_equal(first, 111);
    assert_int_equal(weir_cache_index_take(&ix, 1000, &first), 159);
    assert_int_equal(first, 141);
    assert_int_equal(ix.free, 0);
    weir_cache_index_destroy(&ix);
}

/* One free slot among many, far behind the cursor or before it. */
static void only_free_slot_is_found(void **state)
{
    const uint32_t slots = 4096 * 3 + 100;
    WeirCacheIndex ix;
    uint32_t first;

    (void)state;
    init(&ix, slots);
    assert_int_equal(weir_cache_index_take(&ix, slots, &first), slots);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t slot = (uint32_t)(i * UINT64_C(7919) % slots);

        weir_cache_index_give(&ix, slot);
        assert_true(weir_cache_index_is_free(&ix, slot));
        assert_int_equal(take_one(&ix), slot);
        assert_false(weir_cache_index_is_free(&ix, slot));
    }
    weir_cache_index_destroy(&ix);
}

/* --- blocks --- */

static void block_is_found_until_it_is_unmapped(void **state)
{
    WeirCacheIndex ix;
    uint32_t slot;

    (void)state;
    init(&ix, 100);
    assert_int_equal(weir_cache_index_find(&ix, 5), NO_SLOT);
    slot = map_one(&ix, 5, 0);
    assert_int_equal(weir_cache_index_find(&ix, 5), slot);
    assert_int_equal(weir_cache_index_block(&ix, slot), 5);
    assert_int_equal(ix.node[slot].crc, 35);
    weir_cache_index_unmap(&ix, slot);
    assert_int_equal(weir_cache_index_find(&ix, 5), NO_SLOT);
    assert_int_equal(ix.mapped, 0);
    assert_false(weir_cache_index_is_free(&ix, slot));
    weir_cache_index_give(&ix, slot);
    assert_int_equal(ix.free, 100);
    weir_cache_index_destroy(&ix);
}

/* Numbers of 40 bits, the same in the lower 32 or in the upper 8. */
static void large_block_numbers_are_told_apart(void **state)
{
    WeirCacheIndex ix;

    (void)state;
    init(&ix, 1024);
    for (uint64_t high = 0; high < 256; high++) {
        for (uint64_t low = 0; low < 4; low++) {
            uint64_t block = high << 32 | (low * 0x55555555);

            assert_int_equal(weir_cache_index_find(&ix, block), NO_SLOT);
            map_one(&ix, block, 0);
        }
    }
    for (uint32_t slot = 0; slot < 1024; slot++) {
        uint64_t block = (uint64_t)(slot / 4) << 32 |
                         (slot % 4 * UINT64_C(0x55555555));

        assert_int_equal(weir_cache_index_find(&ix, block), slot);
        assert_int_equal(weir_cache_index_block(&ix, slot), block);
    }
    assert_int_equal(weir_cache_index_find(&ix, WEIR_CACHE_BLOCKS_MAX - 2),
                     NO_SLOT);
    weir_cache_index_destroy(&ix);
}

/* Recovery has a block in two slots for a while: the later one hides. */
static void block_that_is_mapped_twice_is_found_at_the_later_slot(void **state)
{
    WeirCacheIndex ix;

    (void)state;
    init(&ix, 10);
    map_one(&ix, 9, WEIR_SLOT_DIRTY);
    map_one(&ix, 9, 0);
    assert_int_equal(weir_cache_index_find(&ix, 9), 1);
    assert_int_equal(weir_cache_index_candidate(&ix, 9, 0), 1);
    assert_int_equal(weir_cache_index_candidate(&ix, 9, 1), 0);
    assert_int_equal(weir_cache_index_candidate(&ix, 9, 2), NO_SLOT);
    weir_cache_index_unmap(&ix, 1);
    assert_int_equal(weir_cache_index_find(&ix, 9), 0);
    assert_int_equal(ix.dirty, 1);
    weir_cache_index_unmap(&ix, 0);
    assert_int_equal(weir_cache_index_find(&ix, 9), NO_SLOT);
    assert_int_equal(ix.dirty, 0);
    weir_cache_index_destroy(&ix);
}

static void each_flag_is_kept_and_dirty_is_counted(void **state)
{
    WeirCacheIndex ix;
    uint32_t slot;

    (void)state;
    init(&ix, 10);
    slot = map_one(&ix, 1, 0);
    assert_int_equal(ix.flags[slot], WEIR_SLOT_MAPPED);
    for (unsigned set = 0; set < 256; set++) {
        uint8_t flags = (uint8_t)set | WEIR_SLOT_MAPPED;

        weir_cache_index_set_flags(&ix, slot, 0xff & ~WEIR_SLOT_MAPPED, flags);
        assert_int_equal(ix.flags[slot], flags);
        assert_int_equal(ix.dirty, !!(flags & WEIR_SLOT_DIRTY));
        weir_cache_index_set_flags(&ix, slot, WEIR_SLOT_ZERO, 0);
        assert_int_equal(ix.flags[slot], flags & ~WEIR_SLOT_ZERO);
    }
    weir_cache_index_set_flags(&ix, slot, 0, WEIR_SLOT_DIRTY);
    weir_cache_index_unmap(&ix, slot);
    assert_int_equal(ix.dirty, 0);
    assert_int_equal(ix.flags[slot], 0);
    weir_cache_index_destroy(&ix);
}

/* --- the whole --- */

static uint64_t nth_block(uint64_t i)
{
    return i * UINT64_C(0x9e3779b97f4a7c15) % WEIR_CACHE_BLOCKS_MAX;
}

/* More than fits into one huge page, each slot in use. */
static void large_index_finds_all(void **state)
{
    const uint32_t slots = 5000000;
    WeirCacheIndex ix;
    uint32_t first;

    (void)state;
    init(&ix, slots);
    assert_int_equal(weir_cache_index_take(&ix, slots, &first), slots);
    for (uint32_t slot = 0; slot < slots; slot++) {
        weir_cache_index_map(&ix, slot, nth_block(slot), slot, 0);
    }
    assert_int_equal(ix.mapped, slots);
    for (uint32_t slot = 0; slot < slots; slot += 7) {
        assert_int_equal(weir_cache_index_find(&ix, nth_block(slot)), slot);
        assert_int_equal(weir_cache_index_find(&ix, nth_block(slots + slot)),
                         NO_SLOT);
    }
    for (uint32_t slot = 0; slot < slots; slot++) {
        weir_cache_index_unmap(&ix, slot);
    }
    assert_int_equal(ix.mapped, 0);
    weir_cache_index_destroy(&ix);
}

static unsigned longest_chain(uint32_t slots, uint64_t step)
{
    WeirCacheIndex ix;
    unsigned longest = 0;

    init(&ix, slots);
    for (uint64_t i = 0; i < slots; i++) {
        map_one(&ix, i * step % WEIR_CACHE_BLOCKS_MAX, 0);
    }
    for (uint64_t i = 0; i < slots; i++) {
        uint64_t block = i * step % WEIR_CACHE_BLOCKS_MAX;
        unsigned n = 0;

        while (weir_cache_index_candidate(&ix, block, n) != NO_SLOT) {
            n++;
        }
        longest = n > longest ? n : longest;
    }
    weir_cache_index_destroy(&ix);
    return longest;
}

/* What disks look like must not gather in few buckets: 2 is the mean. */
static void chains_are_short_for_regular_numbers(void **state)
{
    const uint64_t steps[] = {
        1, 2, 64, 1024, 4096, 65536, UINT64_C(1) << 20, (UINT64_C(1) << 20) + 1,
        977,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        assert_in_range(longest_chain(100000, steps[i]), 2, 20);
    }
}

static void memory_is_as_told(void **state)
{
    const uint32_t sizes[] = {
        65536, 1000003, 1 << 24, WEIR_CACHE_SLOTS_MAX,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t slots = sizes[i];

        /* 4 next, 5 block, 4 checksum, 1 flags, 2 head, 1/8 free */
        assert_in_range(weir_cache_index_bytes(sizes[i]), 16 * slots,
                        16 * slots + slots / 7);
    }
}

/* --- any operations in any order --- */

typedef enum State { FREE, TAKEN, MAPPED } State;

typedef struct ModelSlot {
    State state;
    uint64_t block;
    uint32_t crc;
    uint8_t flags;
} ModelSlot;

typedef struct Model {
    ModelSlot *slot;
    uint32_t slots;
    uint32_t cursor;
    uint64_t blocks;                    /* that are used */
    uint64_t random;
} Model;

static uint32_t below(Model *m, uint64_t n)
{
    return (uint32_t)(trace_random(&m->random) % n);
}

/* Block numbers that differ in few bits, low and high ones. */
static uint64_t model_block(const Model *m, uint64_t i)
{
    return i % m->blocks * UINT64_C(0x80000001) % WEIR_CACHE_BLOCKS_MAX;
}

static uint32_t model_count(const Model *m, State state, uint8_t flags)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < m->slots; slot++) {
        n += m->slot[slot].state == state &&
             (m->slot[slot].flags & flags) == flags;
    }
    return n;
}

static uint32_t model_find(const Model *m, uint64_t block)
{
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        if (m->slot[slot].state == MAPPED && m->slot[slot].block == block) {
            return slot;
        }
    }
    return NO_SLOT;
}

/* Some slot in a state, or NO_SLOT. */
static uint32_t model_any(Model *m, State state)
{
    uint32_t start = below(m, m->slots);

    for (uint32_t i = 0; i < m->slots; i++) {
        uint32_t slot = (start + i) % m->slots;

        if (m->slot[slot].state == state) {
            return slot;
        }
    }
    return NO_SLOT;
}

/* The run that take() has to find. */
static uint32_t model_take(Model *m, uint32_t want, uint32_t *first)
{
    uint32_t n = 0, slot = m->cursor;

    for (uint32_t i = 0; i < m->slots && m->slot[slot].state != FREE; i++) {
        slot = (slot + 1) % m->slots;
    }
    *first = slot;
    while (n < want && slot < m->slots && m->slot[slot].state == FREE) {
        m->slot[slot++].state = TAKEN;
        n++;
    }
    if (n) {
        m->cursor = slot % m->slots;
    }
    return n;
}

static void check_take(Model *m, WeirCacheIndex *ix)
{
    uint32_t want = 1 + below(m, m->slots / 2 + 1), first, model_first;
    uint32_t n = weir_cache_index_take(ix, want, &first);

    assert_int_equal(n, model_take(m, want, &model_first));
    if (n) {
        assert_int_equal(first, model_first);
    }
}

static void check_map(Model *m, WeirCacheIndex *ix, uint32_t slot)
{
    uint64_t block = model_block(m, trace_random(&m->random));
    uint64_t random = trace_random(&m->random);
    ModelSlot *ms = &m->slot[slot];

    if (model_find(m, block) != NO_SLOT) {
        return;
    }
    *ms = (ModelSlot) {
        MAPPED, block, (uint32_t)random,
        (uint8_t)(random >> 32) | WEIR_SLOT_MAPPED,
    };
    weir_cache_index_map(ix, slot, block, ms->crc, (uint8_t)(random >> 32));
}

/* One operation on some slot that it is possible with. */
static void operate(Model *m, WeirCacheIndex *ix)
{
    unsigned op = below(m, 8);
    uint32_t slot = model_any(m, op == 0 ? FREE : op < 5 ? TAKEN : MAPPED);

    if (slot == NO_SLOT) {
        check_take(m, ix);
        return;
    }
    switch (op) {
    case 0:
        weir_cache_index_take_slot(ix, slot);
        m->slot[slot].state = TAKEN;
        break;
    case 1:
        weir_cache_index_give(ix, slot);
        m->slot[slot].state = FREE;
        break;
    case 2:
    case 3:
    case 4:
        check_map(m, ix, slot);
        break;
    case 5:
    case 6: {
        uint8_t clear = (uint8_t)below(m, 256) & ~WEIR_SLOT_MAPPED;
        uint8_t set = (uint8_t)below(m, 256);

        weir_cache_index_set_flags(ix, slot, clear, set);
        m->slot[slot].flags = (uint8_t)((m->slot[slot].flags & ~clear) | set);
        break;
    }
    default:
        weir_cache_index_unmap(ix, slot);
        m->slot[slot].state = TAKEN;
    }
}

static void check_same(const Model *m, const WeirCacheIndex *ix)
{
    assert_int_equal(ix->free, model_count(m, FREE, 0));
    assert_int_equal(ix->mapped, model_count(m, MAPPED, 0));
    assert_int_equal(ix->dirty, model_count(m, MAPPED, WEIR_SLOT_DIRTY));
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        const ModelSlot *ms = &m->slot[slot];

        assert_int_equal(weir_cache_index_is_free(ix, slot),
                         ms->state == FREE);
        if (ms->state == MAPPED) {
            assert_int_equal(weir_cache_index_find(ix, ms->block), slot);
            assert_int_equal(weir_cache_index_block(ix, slot), ms->block);
            assert_int_equal(ix->node[slot].crc, ms->crc);
            assert_int_equal(ix->flags[slot], ms->flags);
        } else {
            assert_int_equal(ix->flags[slot], 0);
        }
    }
    for (uint64_t i = 0; i < m->blocks; i++) {
        uint64_t block = model_block(m, i);

        assert_int_equal(weir_cache_index_find(ix, block),
                         model_find(m, block));
    }
}

static void check_random(uint32_t slots, uint64_t seed, unsigned operations)
{
    Model m = {
        .slot = calloc(slots, sizeof(*m.slot)), .slots = slots,
        .blocks = slots + slots / 2 + 1, .random = seed,
    };
    WeirCacheIndex ix;

    assert_non_null(m.slot);
    init(&ix, slots);
    for (unsigned i = 0; i < operations; i++) {
        if (below(&m, 8) == 0) {
            check_take(&m, &ix);
        } else {
            operate(&m, &ix);
        }
        if (i % 256 == 255) {
            check_same(&m, &ix);
        }
    }
    weir_cache_index_destroy(&ix);
    free(m.slot);
}

static void anything_in_any_order(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots < 70; slots++) {
        check_random(slots, slots, 5000);
    }
    for (uint32_t slots = 120; slots < 300; slots += 17) {
        check_random(slots, slots, 5000);
    }
    check_random(4096 + 70, 1, 3000);       /* two words of words */
}

/* --- loading --- */

#define LOADED 99991                    /* slots: no multiple of a word */
#define LOADERS 4
#define PIECE 1000                      /* slots, one after the other */

/* Some are free; blocks all over; each flag now and then. */
static bool is_loaded(uint32_t slot)
{
    return slot * UINT32_C(2654435761) >> 29 != 0;
}

static uint64_t loaded_block(uint32_t slot)
{
    return slot * UINT64_C(0x9e3779b97f4a7c15) % WEIR_CACHE_BLOCKS_MAX;
}

static uint8_t loaded_flags(uint32_t slot)
{
    return (uint8_t)(slot * 5 & ~(WEIR_SLOT_MAPPED | WEIR_SLOT_WRITE_BACK));
}

typedef struct Loader {
    pthread_t thread;
    WeirCacheIndex *ix;
    uint32_t number;
} Loader;

static void *load(void *opaque)
{
    Loader *loader = opaque;

    for (uint32_t slot = 0; slot < LOADED; slot++) {
        if (slot / PIECE % LOADERS == loader->number && is_loaded(slot)) {
            weir_cache_index_load(loader->ix, slot, loaded_block(slot),
                                  slot * 7, loaded_flags(slot));
        }
    }
    return NULL;
}

static void load_all(WeirCacheIndex *ix)
{
    Loader loader[LOADERS];

    init(ix, LOADED);
    for (uint32_t i = 0; i < LOADERS; i++) {
        loader[i] = (Loader) { .ix = ix, .number = i };
        assert_int_equal(pthread_create(&loader[i].thread, NULL, load,
                                        &loader[i]), 0);
    }
    for (uint32_t i = 0; i < LOADERS; i++) {
        pthread_join(loader[i].thread, NULL);
    }
    weir_cache_index_loaded(ix);
}

static void several_threads_load_an_index(void **state)
{
    WeirCacheIndex ix;
    uint32_t mapped = 0, dirty = 0, first, n;

    (void)state;
    load_all(&ix);
    for (uint32_t slot = 0; slot < LOADED; slot++) {
        uint64_t block = loaded_block(slot);
        bool is = is_loaded(slot);

        assert_int_equal(weir_cache_index_find(&ix, block),
                         is ? slot : NO_SLOT);
        assert_int_equal(weir_cache_index_is_free(&ix, slot), !is);
        assert_int_equal(ix.flags[slot],
                         is ? loaded_flags(slot) | WEIR_SLOT_MAPPED : 0);
        if (is) {
            assert_int_equal(ix.node[slot].crc, slot * 7);
            dirty += !!(loaded_flags(slot) & WEIR_SLOT_DIRTY);
            mapped++;
        }
    }
    assert_int_equal(ix.mapped, mapped);
    assert_int_equal(ix.dirty, dirty);
    assert_int_equal(ix.free, LOADED - mapped);
    while ((n = weir_cache_index_take(&ix, UINT32_MAX, &first)) > 0) {
        for (; n > 0; n--) {
            assert_false(is_loaded(first++));
            mapped++;
        }
    }
    assert_int_equal(mapped, LOADED);
    weir_cache_index_destroy(&ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_slots_are_free_at_first),
        cmocka_unit_test(slots_are_taken_one_behind_the_other),
        cmocka_unit_test(run_ends_at_a_slot_that_is_not_free),
        cmocka_unit_test(only_free_slot_is_found),
        cmocka_unit_test(block_is_found_until_it_is_unmapped),
        cmocka_unit_test(large_block_numbers_are_told_apart),
        cmocka_unit_test(block_that_is_mapped_twice_is_found_at_the_later_slot),
        cmocka_unit_test(each_flag_is_kept_and_dirty_is_counted),
        cmocka_unit_test(large_index_finds_all),
        cmocka_unit_test(chains_are_short_for_regular_numbers),
        cmocka_unit_test(memory_is_as_told),
        cmocka_unit_test(anything_in_any_order),
        cmocka_unit_test(several_threads_load_an_index),
    };

#if defined(__SANITIZE_THREAD__)
    cmocka_set_test_filter("several_threads_*");    /* others are in one */
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}

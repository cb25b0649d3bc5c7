/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Eviction: what each function promises, and the miss ratios against exact
 * S3-FIFO, LRU and ARC on recorded traces, where there are any, and on
 * synthetic ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache/evict.h"
#include "reference-cache.h"
#include "trace.h"

#define SEED UINT64_C(0x1234567890abcdef)
#define NO_SLOT WEIR_CACHE_NO_SLOT
#define QUEUE_FLAGS (WEIR_SLOT_PROBATION | WEIR_SLOT_FREQUENCY)
#define STUCK_FLAGS (WEIR_SLOT_DIRTY | WEIR_SLOT_WRITE_BACK)

/* --- a cache without data, which uses its slots as the driver does --- */

#define PENDING_MAX 32

typedef struct Sim {
    WeirCacheIndex index;
    WeirCacheEvict evict;
    uint32_t reserve;                   /* free slots kept, at least */
    uint32_t batch;                     /* slots evicted at once */
    uint32_t pending[PENDING_MAX];      /* overwritten, not given back yet */
    uint32_t pending_max;
    uint32_t pending_count;
    uint32_t dirty_max;                 /* 0: writes leave nothing dirty */
    uint64_t *dirty;                    /* ring of slots + 1 blocks; some are
                                           clean */
    uint32_t dirty_first;
    uint32_t dirty_count;
} Sim;

static Sim *sim_new(uint32_t slots)
{
    Sim *sim = calloc(1, sizeof(*sim));

    assert_non_null(sim);
    assert_int_equal(weir_cache_index_init(&sim->index, slots, SEED), 0);
    assert_int_equal(weir_cache_evict_init(&sim->evict, &sim->index), 0);
    sim->reserve = slots / 256 ? slots / 256 : 1;
    sim->batch = sim->reserve < 16 ? sim->reserve : 16;
    sim->pending_max = sim->reserve < PENDING_MAX ? sim->reserve : PENDING_MAX;
    sim->dirty = calloc((size_t)slots + 1, sizeof(*sim->dirty));
    assert_non_null(sim->dirty);
    return sim;
}

static void sim_free(Sim *sim)
{
    weir_cache_evict_destroy(&sim->evict);
    weir_cache_index_destroy(&sim->index);
    free(sim->dirty);
    free(sim);
}

static uint32_t find(const Sim *sim, uint64_t block)
{
    return weir_cache_index_find(&sim->index, block);
}

static uint8_t flags_of(const Sim *sim, uint64_t block)
{
    uint32_t slot = find(sim, block);

    assert_int_not_equal(slot, NO_SLOT);
    return sim->index.flags[slot];
}

static bool on_probation(const Sim *sim, uint64_t block)
{
    return flags_of(sim, block) & WEIR_SLOT_PROBATION;
}

static void free_slot(Sim *sim, uint32_t slot)
{
    weir_cache_index_unmap(&sim->index, slot);
    weir_cache_index_give(&sim->index, slot);
}

/* The next victim, when as many dirty ones have left as had to. */
static uint32_t next_victim(Sim *sim)
{
    uint32_t slot, leaving;

    do {
        leaving = sim->evict.leaving;
        slot = weir_cache_evict_victim(&sim->evict);
    } while (slot == NO_SLOT && sim->evict.leaving > leaving);
    return slot;
}

/* The block that is evicted next; one must be. */
static uint64_t evict_one(Sim *sim)
{
    uint32_t slot = next_victim(sim);
    uint64_t block;

    assert_int_not_equal(slot, NO_SLOT);
    assert_true(sim->index.flags[slot] & WEIR_SLOT_MAPPED);
    assert_false(sim->index.flags[slot] & STUCK_FLAGS);
    block = weir_cache_index_block(&sim->index, slot);
    free_slot(sim, slot);
    return block;
}

static uint32_t take_slot(Sim *sim)
{
    uint32_t slot;

    assert_int_equal(weir_cache_index_take(&sim->index, 1, &slot), 1);
    return slot;
}

/* A block that is not in the cache comes; flags: besides those of evict.c. */
static void insert(Sim *sim, uint64_t block, uint8_t flags)
{
    uint32_t slot = take_slot(sim);

    flags |= weir_cache_evict_insert(&sim->evict, slot, block);
    weir_cache_index_map(&sim->index, slot, block, 0, flags);
}

static void give_pending(Sim *sim)
{
    while (sim->pending_count) {
        weir_cache_index_give(&sim->index, sim->pending[--sim->pending_count]);
    }
}

static void overwrite(Sim *sim, uint64_t block, uint8_t flags)
{
    uint32_t from = find(sim, block);
    uint32_t to = take_slot(sim);

    flags |= weir_cache_evict_move(&sim->evict, from, to);
    weir_cache_index_unmap(&sim->index, from);
    sim->pending[sim->pending_count++] = from;
    weir_cache_index_map(&sim->index, to, block, 0, flags);
    if (sim->pending_count >= sim->pending_max) {
        give_pending(sim);
    }
}

static void hit(Sim *sim, uint64_t block)
{
    weir_cache_evict_hit(&sim->evict, find(sim, block));
}

static void set_flags(Sim *sim, uint64_t block, uint8_t clear, uint8_t set)
{
    weir_cache_index_set_flags(&sim->index, find(sim, block), clear, set);
}

/* A block is written back, if it is dirty. Returns whether it is gone now. */
static bool clean(Sim *sim, uint64_t block)
{
    uint32_t slot = find(sim, block);

    if (slot == NO_SLOT || !(sim->index.flags[slot] & STUCK_FLAGS)) {
        return false;
    }
    set_flags(sim, block, STUCK_FLAGS, 0);
    if (!weir_cache_evict_cleaned(&sim->evict, slot)) {
        return false;
    }
    free_slot(sim, slot);
    return true;
}

/* A block became dirty: too many are, or too many are to leave. */
static void sim_dirty(Sim *sim, uint64_t block)
{
    uint32_t room = sim->index.slots + 1;
    uint32_t slot;

    sim->dirty[(sim->dirty_first + sim->dirty_count++) % room] = block;
    while (sim->dirty_count > sim->dirty_max) {
        clean(sim, sim->dirty[sim->dirty_first]);
        sim->dirty_first = (sim->dirty_first + 1) % room;
        sim->dirty_count--;
    }
    while (sim->evict.leaving > sim->reserve / 4 &&
           (slot = weir_cache_evict_hint(&sim->evict)) != NO_SLOT) {
        clean(sim, weir_cache_index_block(&sim->index, slot));
    }
}

/* One access as the driver does it. Returns whether it was a hit. */
static bool sim_access(Sim *sim, uint64_t block, bool write)
{
    bool was_there = find(sim, block) != NO_SLOT;
    uint32_t dirty_before = sim->index.dirty;
    uint8_t flags = write && sim->dirty_max ? WEIR_SLOT_DIRTY : 0;

    if (was_there && !write) {
        hit(sim, block);
        return true;
    }
    if (sim->index.free <= sim->reserve) {
        while (sim->index.free < sim->reserve + sim->batch) {
            evict_one(sim);
        }
    }
    if (find(sim, block) != NO_SLOT) {
        bool was_dirty = flags_of(sim, block) & WEIR_SLOT_DIRTY;

        overwrite(sim, block, was_dirty ? WEIR_SLOT_DIRTY : flags);
    } else {
        insert(sim, block, flags);
    }
    if (sim->index.dirty > dirty_before) {
        sim_dirty(sim, block);
    }
    return was_there;
}

static void access_range(Sim *sim, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        sim_access(sim, first + i, false);
    }
}

static uint64_t sim_misses(const TraceAccesses *trace, uint32_t slots,
                           uint32_t dirty_max)
{
    Sim *sim = sim_new(slots);
    uint64_t misses = 0;

    sim->dirty_max = dirty_max;
    for (size_t i = 0; i < trace->count; i++) {
        misses += !sim_access(sim, trace->block[trace->number[i]],
                              trace->write[i]);
    }
    sim_free(sim);
    return misses;
}

/* A cache that is not filling up any more. */
static Sim *sim_new_full(uint32_t slots)
{
    Sim *sim = sim_new(slots);

    for (uint64_t block = 0; sim->evict.filling; block++) {
        sim_access(sim, block, false);
        hit(sim, block);
        hit(sim, block);
    }
    return sim;
}

/* --- flags --- */

static void new_block_is_on_probation(void **state)
{
    Sim *sim = sim_new(100);

    (void)state;
    assert_int_equal(weir_cache_evict_insert(&sim->evict, take_slot(sim), 7),
                     WEIR_SLOT_PROBATION);
    sim_free(sim);
}

static void hits_saturate_and_leave_other_flags_alone(void **state)
{
    Sim *sim = sim_new(100);
    const uint8_t others = 0xff & ~QUEUE_FLAGS;

    (void)state;
    insert(sim, 1, others);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(flags_of(sim, 1), others | WEIR_SLOT_PROBATION |
                                           (i < 3 ? i : 3));
        hit(sim, 1);
    }
    sim_free(sim);
}

static void move_counts_as_a_hit_and_keeps_probation(void **state)
{
    Sim *sim = sim_new(100);

    (void)state;
    insert(sim, 1, 0);
    overwrite(sim, 1, 0);
    assert_int_equal(flags_of(sim, 1) & QUEUE_FLAGS, WEIR_SLOT_PROBATION | 1);
    set_flags(sim, 1, WEIR_SLOT_FREQUENCY, 3);
    overwrite(sim, 1, 0);
    assert_int_equal(flags_of(sim, 1) & QUEUE_FLAGS, WEIR_SLOT_PROBATION | 3);
    assert_int_equal(sim->evict.probation, 1);
    sim_free(sim);
}

static void flags_of_others_are_not_passed_on_by_a_move(void **state)
{
    Sim *sim = sim_new(100);

    (void)state;
    insert(sim, 1, 0xff & ~QUEUE_FLAGS);
    assert_int_equal(weir_cache_evict_move(&sim->evict, find(sim, 1),
                                           take_slot(sim)),
                     WEIR_SLOT_PROBATION | 1);
    sim_free(sim);
}

/* --- probation --- */

/* The order is that of arrival, wherever overwriting has put the blocks. */
static void probation_is_a_fifo_whatever_is_overwritten(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    for (uint64_t block = 0; block < 50; block++) {
        insert(sim, block, 0);
    }
    for (uint64_t block = 0; block < 50; block += 3) {
        overwrite(sim, block, 0);
    }
    for (uint64_t block = 0; block < 50; block++) {
        assert_int_equal(evict_one(sim), block);
    }
    assert_int_equal(sim->evict.probation, 0);
    sim_free(sim);
}

static void block_hit_twice_on_probation_goes_to_main(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    for (uint64_t block = 0; block < 4; block++) {
        insert(sim, block, 0);
        for (uint64_t i = 0; i < block; i++) {
            hit(sim, block);
        }
    }
    insert(sim, 4, 0);
    sim->evict.probation += 1000;       /* it is as full as usual */
    assert_int_equal(evict_one(sim), 0);
    assert_int_equal(evict_one(sim), 1);
    assert_int_equal(evict_one(sim), 4);
    sim->evict.probation -= 1000;
    assert_int_equal(flags_of(sim, 2) & QUEUE_FLAGS, 0);
    assert_int_equal(flags_of(sim, 3) & QUEUE_FLAGS, 0);
    sim_free(sim);
}

static void removed_block_is_skipped(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    for (uint64_t block = 0; block < 10; block++) {
        insert(sim, block, 0);
    }
    for (uint64_t block = 0; block < 10; block += 2) {
        weir_cache_evict_remove(&sim->evict, find(sim, block));
        free_slot(sim, find(sim, block));
    }
    assert_int_equal(sim->evict.probation, 5);
    for (uint64_t block = 1; block < 10; block += 2) {
        assert_int_equal(evict_one(sim), block);
    }
    assert_int_equal(weir_cache_evict_victim(&sim->evict), NO_SLOT);
    sim_free(sim);
}

/* Writing and discarding over and over must not fill the ring for good. */
static void ring_of_removed_blocks_is_no_hindrance(void **state)
{
    Sim *sim = sim_new(100);

    (void)state;
    for (uint64_t i = 0; i < 10000; i++) {
        insert(sim, i % 7, 0);
        assert_true(on_probation(sim, i % 7));
        weir_cache_evict_remove(&sim->evict, find(sim, i % 7));
        free_slot(sim, find(sim, i % 7));
    }
    assert_int_equal(sim->evict.probation, 0);
    sim_free(sim);
}

static void probation_is_a_tenth_from_the_start(void **state)
{
    Sim *sim = sim_new(10000);

    (void)state;
    for (uint64_t block = 0; block < 200000; block++) {
        sim_access(sim, block, false);
        assert_in_range(sim->evict.probation, 0, 1100);
    }
    assert_in_range(sim->evict.probation, 900, 1100);
    sim_free(sim);
}

/* --- ghost --- */

static void block_evicted_from_probation_comes_back_to_main(void **state)
{
    Sim *sim = sim_new_full(1000);

    (void)state;
    for (uint64_t block = 50000; block < 50200; block++) {
        sim_access(sim, block, false);
    }
    assert_int_equal(find(sim, 50000), NO_SLOT);
    sim_access(sim, 50000, false);
    assert_false(on_probation(sim, 50000));

    /* once: it has been taken out */
    weir_cache_evict_remove(&sim->evict, find(sim, 50000));
    free_slot(sim, find(sim, 50000));
    sim_access(sim, 50000, false);
    assert_true(on_probation(sim, 50000));
    sim_free(sim);
}

static void removed_block_comes_back_on_probation(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    insert(sim, 1, 0);
    weir_cache_evict_remove(&sim->evict, find(sim, 1));
    free_slot(sim, find(sim, 1));
    insert(sim, 1, 0);
    assert_true(on_probation(sim, 1));
    sim_free(sim);
}

/* --- admission --- */

static void block_is_admitted_at_its_second_touch(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    for (uint64_t block = 0; block < 100; block++) {
        assert_false(weir_cache_evict_admit(&sim->evict, block));
    }
    for (uint64_t block = 0; block < 100; block++) {
        assert_true(weir_cache_evict_admit(&sim->evict, block));
        assert_true(weir_cache_evict_admit(&sim->evict, block));
    }
    insert(sim, 7, 0);
    assert_false(on_probation(sim, 7));

    /* insert() has taken it out */
    weir_cache_evict_remove(&sim->evict, find(sim, 7));
    free_slot(sim, find(sim, 7));
    assert_false(weir_cache_evict_admit(&sim->evict, 7));
    assert_int_equal(sim->evict.probation, 0);
    sim_free(sim);
}

static void evicted_block_is_admitted_at_once(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    insert(sim, 1, 0);
    assert_int_equal(evict_one(sim), 1);
    assert_true(weir_cache_evict_admit(&sim->evict, 1));
    assert_false(weir_cache_evict_admit(&sim->evict, 2));
    sim_free(sim);
}

/* Touched again after more others than the ghost holds: not admitted. */
static void scan_is_not_admitted(void **state)
{
    const uint32_t slots = 20000;
    Sim *sim = sim_new(slots);
    uint32_t admitted = 0;

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (uint64_t block = 0; block < 5 * slots; block++) {
            admitted += weir_cache_evict_admit(&sim->evict, block);
        }
    }
    assert_in_range(admitted, 0, 15 * slots / 250);
    sim_free(sim);
}

/* --- what cannot be evicted --- */

static void nothing_to_evict_in_an_empty_cache(void **state)
{
    Sim *sim = sim_new(100);

    (void)state;
    assert_int_equal(weir_cache_evict_victim(&sim->evict), NO_SLOT);
    sim_free(sim);
}

/* All blocks but one are stuck; it must be found, wherever it is. */
static void check_the_clean_one_is_found(uint32_t slots, uint8_t stuck,
                                         uint64_t clean_one)
{
    Sim *sim = sim_new(slots);
    uint32_t calls = 0;
    uint32_t slot;

    for (uint64_t block = 0; block < slots; block++) {
        insert(sim, block, stuck);
    }
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(weir_cache_evict_victim(&sim->evict), NO_SLOT);
    }
    weir_cache_index_set_flags(&sim->index, find(sim, clean_one), STUCK_FLAGS,
                               0);
    if (weir_cache_evict_cleaned(&sim->evict, find(sim, clean_one))) {
        sim_free(sim);
        return;                         /* it was to leave */
    }
    do {
        slot = next_victim(sim);
        assert_in_range(++calls, 1, slots / 64 + 1);
    } while (slot == NO_SLOT);
    assert_int_equal(weir_cache_index_block(&sim->index, slot), clean_one);
    sim_free(sim);
}

static void the_only_clean_block_is_found(void **state)
{
    (void)state;
    for (uint64_t clean = 0; clean < 3000; clean += 97) {
        check_the_clean_one_is_found(3000, WEIR_SLOT_DIRTY, clean);
        check_the_clean_one_is_found(3000, WEIR_SLOT_WRITE_BACK, clean);
    }
    check_the_clean_one_is_found(30000, STUCK_FLAGS, 2900);
    check_the_clean_one_is_found(30000, STUCK_FLAGS, 29999);
}

static bool is_in_main(const Sim *sim, uint64_t block)
{
    return weir_cache_rounds_has(&sim->evict.main, find(sim, block));
}

static bool is_leaving(const Sim *sim, uint64_t block)
{
    return !on_probation(sim, block) && !is_in_main(sim, block);
}

static void dirty_block_leaves_when_it_is_clean(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    insert(sim, 1, WEIR_SLOT_DIRTY);
    insert(sim, 2, WEIR_SLOT_WRITE_BACK);
    insert(sim, 3, 0);
    insert(sim, 4, WEIR_SLOT_DIRTY);
    assert_int_equal(evict_one(sim), 3);
    assert_true(is_leaving(sim, 1));
    assert_true(is_leaving(sim, 2));
    assert_int_equal(sim->evict.leaving, 2);
    assert_int_equal(weir_cache_evict_hint(&sim->evict), find(sim, 1));
    assert_int_equal(weir_cache_evict_hint(&sim->evict), find(sim, 2));
    assert_int_equal(weir_cache_evict_hint(&sim->evict), NO_SLOT);
    assert_true(clean(sim, 2));
    assert_true(clean(sim, 1));
    assert_false(clean(sim, 4));
    assert_true(on_probation(sim, 4));
    assert_int_equal(sim->evict.leaving, 0);
    insert(sim, 1, 0);                  /* the ghost knows it */
    assert_true(is_in_main(sim, 1));
    sim_free(sim);
}

/* Three blocks are to leave; each is needed again in another way. */
static void block_that_is_hit_does_not_leave(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    for (uint64_t block = 1; block <= 3; block++) {
        insert(sim, block, WEIR_SLOT_DIRTY);
    }
    insert(sim, 4, 0);
    assert_int_equal(evict_one(sim), 4);
    hit(sim, 1);
    overwrite(sim, 2, WEIR_SLOT_DIRTY);
    weir_cache_evict_remove(&sim->evict, find(sim, 3));
    free_slot(sim, find(sim, 3));
    assert_false(clean(sim, 1));
    assert_true(is_in_main(sim, 1));
    assert_true(is_in_main(sim, 2));
    assert_int_equal(sim->evict.leaving, 0);
    assert_int_equal(flags_of(sim, 1) & QUEUE_FLAGS, 0);
    insert(sim, 3, 0);                  /* the ghost knows it still */
    assert_true(is_in_main(sim, 3));
    sim_free(sim);
}

/* Nobody asks for a victim, as while the cache has room. */
static void oldest_goes_to_main_when_the_ring_is_full(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    sim->evict.filling = false;
    for (uint64_t block = 0; block < sim->evict.ring.size; block++) {
        insert(sim, block, 0);
        hit(sim, block);
    }
    assert_true(on_probation(sim, 0));
    insert(sim, 5000, 0);
    assert_int_equal(flags_of(sim, 0) & QUEUE_FLAGS, 1);
    assert_true(on_probation(sim, 1));
    assert_true(on_probation(sim, 5000));
    assert_int_equal(sim->evict.probation, sim->evict.ring.size);
    sim_free(sim);
}

/* --- bounds --- */

static void memory_is_within_four_bytes_per_slot(void **state)
{
    const uint32_t sizes[] = {
        65536, 65537, 100003, 1 << 20, 1 << 24, WEIR_CACHE_SLOTS_MAX,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_in_range(weir_cache_evict_bytes(sizes[i]), sizes[i],
                        sizes[i] * UINT64_C(363) / 100);
    }
    for (uint32_t slots = 1; slots < 100; slots++) {
        assert_in_range(weir_cache_evict_bytes(slots), 1, 4 * slots + 64);
    }
}

static uint32_t round_distance(uint32_t from, uint32_t to, uint32_t size)
{
    return to >= from ? to - from : size - from + to;
}

static uint64_t sum_of_hits(const Sim *sim)
{
    uint64_t sum = 0;

    for (uint32_t slot = 0; slot < sim->index.slots; slot++) {
        sum += sim->index.flags[slot] & WEIR_SLOT_FREQUENCY;
    }
    return sum;
}

/* How far one call went on probation, and in main if all there are hot. */
static uint32_t check_call_is_bounded(Sim *sim)
{
    WeirCacheRing before = sim->evict.ring;
    uint64_t hits = sum_of_hits(sim);
    uint32_t slot = weir_cache_evict_victim(&sim->evict);

    /* those who come to main from probation lose all of theirs */
    assert_in_range(hits - sum_of_hits(sim), 0, 1024 + 64 * 3);
    assert_in_range(round_distance(before.first, sim->evict.ring.first,
                                   before.size), 0, 128);
    return slot;
}

static void work_is_bounded_when_all_is_dirty_but_one(void **state)
{
    const uint32_t slots = 3000;
    Sim *sim = sim_new(slots);
    uint32_t found = 0;

    (void)state;
    for (uint64_t block = 0; block < slots; block++) {
        insert(sim, block, block == slots / 2 ? 0 : WEIR_SLOT_DIRTY);
    }
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t slot = check_call_is_bounded(sim);

        if (slot != NO_SLOT) {
            assert_int_equal(weir_cache_index_block(&sim->index, slot),
                             slots / 2);
            free_slot(sim, slot);
            found++;
        }
    }
    assert_int_equal(found, 1);
    sim_free(sim);
}

/* A count above 0 everywhere must not make the hand go round and round. */
static void work_is_bounded_when_all_is_hot(void **state)
{
    const uint32_t slots = 300000;
    Sim *sim = sim_new(slots);

    (void)state;
    for (uint64_t block = 0; block < slots; block++) {
        insert(sim, block, 0);
        for (int i = 0; i < 3; i++) {
            hit(sim, block);
        }
    }
    for (int i = 0; i < 300; i++) {
        uint32_t slot = check_call_is_bounded(sim);

        assert_int_not_equal(slot, NO_SLOT);
        free_slot(sim, slot);
    }
    sim_free(sim);
}

/* --- scans --- */

static uint64_t hits_of(Sim *sim, uint64_t first, uint64_t count)
{
    uint64_t hits = 0;

    for (uint64_t i = 0; i < count; i++) {
        hits += sim_access(sim, first + i, false);
    }
    return hits;
}

static void scan_of_ten_times_the_capacity_keeps_the_hot_set(void **state)
{
    const uint32_t slots = 20000;
    const uint32_t hot = slots * 8 / 10;
    Sim *sim = sim_new(slots);

    (void)state;
    for (int i = 0; i < 4; i++) {
        access_range(sim, 0, hot);
    }
    access_range(sim, 1000000, 10 * slots);
    assert_in_range(hits_of(sim, 0, hot), hot - hot / 100, hot);
    sim_free(sim);
}

/* The same when the scan writes, and its blocks stay dirty for a while. */
static void scan_of_writes_keeps_the_hot_set(void **state)
{
    const uint32_t slots = 20000;
    const uint32_t hot = slots / 2;
    Sim *sim = sim_new(slots);

    (void)state;
    sim->dirty_max = slots / 5;
    for (int i = 0; i < 4; i++) {
        access_range(sim, 0, hot);
    }
    for (uint64_t i = 0; i < 10 * slots; i++) {
        sim_access(sim, 1000000 + i, true);
    }
    assert_in_range(hits_of(sim, 0, hot), hot - hot / 100, hot);
    sim_free(sim);
}

/* A hot set that changes: the new one gets in, though main is full. */
static void new_hot_set_gets_in(void **state)
{
    const uint32_t slots = 20000;
    const uint32_t hot = slots * 8 / 10;
    Sim *sim = sim_new(slots);

    (void)state;
    for (int i = 0; i < 10; i++) {
        access_range(sim, 0, hot);
    }
    for (int i = 0; i < 10; i++) {
        access_range(sim, 1000000, hot);
    }
    assert_in_range(hits_of(sim, 1000000, hot), hot * 95 / 100, hot);
    sim_free(sim);
}

/* --- a walk that takes long --- */

/* One in main, far behind all that the hand looks at in a call. */
static void lonely_slot_is_found_by_and_by(void **state)
{
    const uint32_t slots = 1000000;
    Sim *sim = sim_new(slots);
    unsigned calls = 0;
    uint32_t slot;

    (void)state;
    weir_cache_index_take_slot(&sim->index, slots - 1);
    weir_cache_index_map(&sim->index, slots - 1, 7, 0, 0);
    weir_cache_evict_restore(&sim->evict);
    do {
        slot = weir_cache_evict_victim(&sim->evict);
        calls++;
    } while (slot == NO_SLOT && sim->evict.unfinished);
    assert_int_equal(slot, slots - 1);
    assert_in_range(calls, 2, slots / 65536 + 1);
    weir_cache_index_unmap(&sim->index, slot);
    assert_int_equal(weir_cache_evict_victim(&sim->evict), NO_SLOT);
    assert_false(sim->evict.unfinished);
    sim_free(sim);
}

/* Those that cannot go and were hit stay at first; their turn comes. */
static void hot_dirty_slots_come_to_leave(void **state)
{
    const uint32_t slots = 100000;
    Sim *sim = sim_new(slots);
    unsigned calls = 0;

    (void)state;
    for (uint64_t block = 0; block < slots; block++) {
        weir_cache_index_map(&sim->index, take_slot(sim), block, 0,
                             (block ? WEIR_SLOT_DIRTY : WEIR_SLOT_WRITE_BACK) |
                             WEIR_SLOT_FREQUENCY);
    }
    weir_cache_evict_restore(&sim->evict);
    do {
        assert_int_equal(weir_cache_evict_victim(&sim->evict), NO_SLOT);
        calls++;
    } while (sim->evict.unfinished);
    assert_int_equal(sim->evict.leaving, 1);
    assert_in_range(calls, 2, slots / 1024 * 4);
    sim_free(sim);
}

/* --- restore --- */

/* A cache of the same slots, mapped as those of another are, like a restart. */
static Sim *sim_restarted(const Sim *old)
{
    Sim *sim = sim_new(old->index.slots);

    for (uint32_t slot = 0; slot < old->index.slots; slot++) {
        uint8_t flags = old->index.flags[slot];

        if (flags & WEIR_SLOT_MAPPED) {
            weir_cache_index_take_slot(&sim->index, slot);
            weir_cache_index_map(&sim->index, slot,
                                 weir_cache_index_block(&old->index, slot), 0,
                                 flags);
        }
    }
    weir_cache_evict_restore(&sim->evict);
    return sim;
}

static void restore_keeps_flags_and_the_hot_set(void **state)
{
    const uint32_t slots = 20000;
    const uint32_t hot = slots * 8 / 10;
    Sim *old = sim_new(slots);
    Sim *sim;

    (void)state;
    for (int i = 0; i < 4; i++) {
        access_range(old, 0, hot);
    }
    access_range(old, 1000000, 2 * slots);
    sim = sim_restarted(old);
    assert_int_equal(sim->evict.probation, old->evict.probation);
    assert_memory_equal(sim->index.flags, old->index.flags, slots);
    access_range(sim, 2000000, 10 * slots);
    /* some of the scan are taken for others that the ghost knows */
    assert_in_range(hits_of(sim, 0, hot), hot - hot / 25, hot);
    sim_free(old);
    sim_free(sim);
}

/* Flags that no run leaves: all on probation. */
static void restore_takes_any_flags(void **state)
{
    Sim *sim = sim_new(1000);

    (void)state;
    for (uint64_t block = 0; block < 1000; block++) {
        weir_cache_index_map(&sim->index, take_slot(sim), block, 0,
                             WEIR_SLOT_PROBATION | (block & 3));
    }
    weir_cache_evict_restore(&sim->evict);
    assert_int_equal(sim->evict.probation, sim->evict.ring.size);
    for (uint64_t block = 0; block < 1000; block++) {
        assert_int_equal(flags_of(sim, block) & WEIR_SLOT_FREQUENCY,
                         block & 3);
    }
    evict_one(sim);
    insert(sim, 5000, 0);               /* the cache is not filling up */
    assert_true(on_probation(sim, 5000));
    for (int i = 0; i < 1000; i++) {
        evict_one(sim);
    }
    assert_int_equal(sim->index.mapped, 0);
    assert_int_equal(sim->evict.probation, 0);
    sim_free(sim);
}

static void restore_forgets_what_was_before(void **state)
{
    Sim *sim = sim_new_full(1000);

    (void)state;
    access_range(sim, 50000, 400);      /* to the ghost */
    for (uint32_t slot = 0; slot < 1000; slot++) {
        if (sim->index.flags[slot] & WEIR_SLOT_MAPPED) {
            free_slot(sim, slot);
        }
    }
    weir_cache_evict_restore(&sim->evict);
    assert_int_equal(sim->evict.probation, 0);
    assert_int_equal(weir_cache_evict_victim(&sim->evict), NO_SLOT);
    for (uint64_t block = 50000; block < 50100; block++) {
        insert(sim, block, 0);
        assert_true(on_probation(sim, block));
    }
    assert_int_equal(evict_one(sim), 50000);
    sim_free(sim);
}

/* --- anything, in any order --- */

/* Which slots have blocks that are in a ring. Free it. */
static bool *slots_in(const Sim *sim, const WeirCacheRing *ring)
{
    bool *in_ring = calloc(sim->index.slots, sizeof(*in_ring));

    assert_non_null(in_ring);
    assert_in_range(ring->count, 0, ring->size);
    for (uint32_t n = 0; n < ring->count; n++) {
        uint32_t i = (ring->first + n) % ring->size;
        uint32_t slot = find(sim, (uint64_t)ring->high[i] << 32 |
                                  ring->low[i]);

        if (slot != NO_SLOT) {
            in_ring[slot] = true;
        }
    }
    return in_ring;
}

/* Each block is in one of the queues, and counted. */
static void check_queues(const Sim *sim)
{
    const WeirCacheEvict *ev = &sim->evict;
    bool *in_ring = slots_in(sim, &ev->ring);
    uint32_t probation = 0, in_main = 0, leaving = 0;

    for (uint32_t slot = 0; slot < sim->index.slots; slot++) {
        uint8_t flags = sim->index.flags[slot];

        if (weir_cache_rounds_has(&ev->main, slot)) {
            assert_int_equal(flags & (WEIR_SLOT_PROBATION | WEIR_SLOT_MAPPED),
                             WEIR_SLOT_MAPPED);
            in_main++;
        } else if (flags & WEIR_SLOT_PROBATION) {
            assert_true(in_ring[slot]);
            probation++;
        } else if (flags & WEIR_SLOT_MAPPED) {
            leaving++;
        }
    }
    assert_int_equal(probation, ev->probation);
    assert_int_equal(in_main, ev->main.used);
    assert_int_equal(leaving, ev->leaving);
    free(in_ring);
}

static bool any_clean(const Sim *sim)
{
    for (uint32_t slot = 0; slot < sim->index.slots; slot++) {
        if ((sim->index.flags[slot] & (WEIR_SLOT_MAPPED | STUCK_FLAGS)) ==
            WEIR_SLOT_MAPPED) {
            return true;
        }
    }
    return false;
}

static void evict_if_possible(Sim *sim)
{
    uint32_t slot = NO_SLOT;

    if (any_clean(sim)) {
        for (int calls = 0; slot == NO_SLOT; calls++) {
            slot = next_victim(sim);
            assert_in_range(calls, 0, 10);
        }
        assert_int_equal(sim->index.flags[slot] &
                         (WEIR_SLOT_MAPPED | STUCK_FLAGS), WEIR_SLOT_MAPPED);
        free_slot(sim, slot);
    } else {
        assert_int_equal(next_victim(sim), NO_SLOT);
    }
}

/* Something that happens to a block which is there. */
static void happen(Sim *sim, uint64_t block, uint64_t random)
{
    static const uint8_t stuck[] = {
        0, 0, WEIR_SLOT_DIRTY, WEIR_SLOT_WRITE_BACK, STUCK_FLAGS,
    };

    switch (random % 8) {
    case 0:
        weir_cache_evict_remove(&sim->evict, find(sim, block));
        free_slot(sim, find(sim, block));
        break;
    case 1:
        clean(sim, block);
        if (find(sim, block) != NO_SLOT) {
            set_flags(sim, block, 0, stuck[random / 8 % sizeof(stuck)]);
        }
        break;
    case 2:
    case 3:
        if (sim->index.free) {
            overwrite(sim, block, random / 8 % 2 ? WEIR_SLOT_DIRTY : 0);
            break;
        }
        /* fall through */
    default:
        hit(sim, block);
    }
}

static void check_random(uint32_t slots, uint64_t seed)
{
    Sim *sim = sim_new(slots);
    uint64_t blocks = slots * 3 + 1;

    for (int i = 0; i < 4000; i++) {
        uint64_t random = trace_random(&seed);
        /* numbers of 40 bits that differ in few of them */
        uint64_t block = (random % blocks) * UINT64_C(0x80000001) %
                         WEIR_CACHE_BLOCKS_MAX;

        random /= blocks;
        if (find(sim, block) != NO_SLOT) {
            happen(sim, block, random);
        } else if (sim->index.free > (slots > 1)) {
            insert(sim, block, random % 4 ? 0 : WEIR_SLOT_DIRTY);
        } else {
            give_pending(sim);
            evict_if_possible(sim);
        }
        if (i % 64 == 0) {
            check_queues(sim);
        }
        if (random % 1000 == 7) {
            weir_cache_evict_restore(&sim->evict);
        }
    }
    check_queues(sim);
    sim_free(sim);
}

static void anything_in_any_order(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots < 40; slots++) {
        check_random(slots, slots);
    }
    for (uint32_t slots = 50; slots < 1500; slots += 229) {
        check_random(slots, slots);
    }
}

/* --- miss ratios --- */

enum { OURS, IDEAL, PAPER, LRU, ARC, POLICIES };

static const unsigned percents[] = { 1, 5, 10, 20, 40 };

#define SIZES (sizeof(percents) / sizeof(percents[0]))

/* Sums over traces and sizes. */
typedef struct Means {
    double ratio[POLICIES];
    unsigned count;
} Means;

/*
 * Exact S3-FIFO is the variant that does best on average: promotion at two
 * hits, and main is filled at the start. The paper's is for comparison.
 */
static void measure(const TraceAccesses *trace, uint32_t slots, double *ratio)
{
    const uint64_t misses[POLICIES] = {
        [OURS] = sim_misses(trace, slots, 0),
        [IDEAL] = reference_s3fifo(trace, slots,
                                   (ReferenceS3Fifo) { 2, true }),
        [PAPER] = reference_s3fifo(trace, slots,
                                   (ReferenceS3Fifo) { 2, false }),
        [LRU] = reference_lru(trace, slots),
        [ARC] = reference_arc(trace, slots),
    };

    for (int i = 0; i < POLICIES; i++) {
        ratio[i] = (double)misses[i] / (double)trace->count;
    }
}

static void print_row(const char *name, const char *size, const double *ratio)
{
    printf("  %-14.14s %5s %8.4f %8.4f %+6.1f%% %8.4f %8.4f %8.4f\n", name,
           size, ratio[OURS], ratio[IDEAL],
           100 * (ratio[OURS] / ratio[IDEAL] - 1), ratio[PAPER], ratio[LRU],
           ratio[ARC]);
}

static void print_head(void)
{
    printf("  %-14s %5s %8s %8s %7s %8s %8s %8s\n", "trace", "size", "ours",
           "ideal", "", "paper", "LRU", "ARC");
}

/* worst: by how much it may be worse than the exact one, at each size. */
static void check_trace(const char *name, const TraceAccesses *trace,
                        double worst, Means *means)
{
    for (size_t i = 0; i < SIZES; i++) {
        double ratio[POLICIES];
        char size[16];

        measure(trace, (uint32_t)((uint64_t)trace->blocks * percents[i] / 100),
                ratio);
        snprintf(size, sizeof(size), "%u%%", percents[i]);
        print_row(name, size, ratio);
        assert_true(ratio[OURS] <= ratio[IDEAL] * (1 + worst));
        for (int k = 0; k < POLICIES; k++) {
            means->ratio[k] += ratio[k];
        }
        means->count++;
    }
}

static void check_means(Means *means, double worst)
{
    for (int i = 0; i < POLICIES; i++) {
        means->ratio[i] /= means->count;
    }
    print_row("mean", "", means->ratio);
    assert_true(means->ratio[OURS] <= means->ratio[IDEAL] * (1 + worst));
    assert_true(means->ratio[OURS] < means->ratio[LRU]);
    assert_true(means->ratio[OURS] < means->ratio[ARC]);
}

static void miss_ratios_of_recorded_traces(void **state)
{
    static const char *const names[] = {
        "cloudPhysicsIO.vscsi", "P3.lis", "P6.lis",
        "ssd-iozone-aligned2-100K.trace",
    };
    Means means = { 0 };

    (void)state;
    print_head();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        TraceAccesses accesses;
        Trace trace = { 0 };

        if (!trace_read(&trace, names[i])) {
            skip();
        }
        trace_accesses(&trace, &accesses);
        trace_free(&trace);
        check_trace(names[i], &accesses, 0.02, &means);
        trace_accesses_free(&accesses);
    }
    check_means(&means, 0.005);
}

/* Zipf, now and then a scan, and a loop that is longer than most caches. */
static void synthetic_trace(TraceAccesses *accesses)
{
    Trace trace = { 0 };

    for (uint64_t i = 0; i < 20; i++) {
        trace_add_zipf(&trace, 40000, 30000, 7 + i);
        trace_add(&trace, 1000000 + i * 5000, 5000, i % 2);
        for (uint64_t k = 0; k < 100; k++) {
            trace_add(&trace, 2000000 + (i * 100 + k) * 32 % 20000, 32, false);
            trace_add_zipf(&trace, 40000, 20, 1000 * i + k);
        }
    }
    trace_accesses(&trace, accesses);
    trace_free(&trace);
}

static void miss_ratios_of_a_synthetic_trace(void **state)
{
    TraceAccesses trace;
    Means means = { 0 };

    (void)state;
    synthetic_trace(&trace);
    print_head();
    check_trace("synthetic", &trace, 0.04, &means);
    check_means(&means, 0.01);
    trace_accesses_free(&trace);
}

/* A fifth of the cache is always dirty, the oldest is written back. */
static void dirty_blocks_cost_little(void **state)
{
    TraceAccesses trace;

    (void)state;
    synthetic_trace(&trace);
    for (size_t i = 1; i < SIZES; i++) {
        uint32_t slots = (uint32_t)((uint64_t)trace.blocks * percents[i] /
                                    100);
        double clean = (double)sim_misses(&trace, slots, 0);
        double dirty = (double)sim_misses(&trace, slots, slots / 5);

        printf("  %u%%: %.0f misses, a fifth dirty %+.1f%%\n", percents[i],
               clean, 100 * (dirty / clean - 1));
        assert_true(dirty <= clean * 1.06);
    }
    trace_accesses_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_block_is_on_probation),
        cmocka_unit_test(hits_saturate_and_leave_other_flags_alone),
        cmocka_unit_test(move_counts_as_a_hit_and_keeps_probation),
        cmocka_unit_test(flags_of_others_are_not_passed_on_by_a_move),
        cmocka_unit_test(probation_is_a_fifo_whatever_is_overwritten),
        cmocka_unit_test(block_hit_twice_on_probation_goes_to_main),
        cmocka_unit_test(removed_block_is_skipped),
        cmocka_unit_test(ring_of_removed_blocks_is_no_hindrance),
        cmocka_unit_test(probation_is_a_tenth_from_the_start),
        cmocka_unit_test(block_evicted_from_probation_comes_back_to_main),
        cmocka_unit_test(removed_block_comes_back_on_probation),
        cmocka_unit_test(block_is_admitted_at_its_second_touch),
        cmocka_unit_test(evicted_block_is_admitted_at_once),
        cmocka_unit_test(scan_is_not_admitted),
        cmocka_unit_test(nothing_to_evict_in_an_empty_cache),
        cmocka_unit_test(the_only_clean_block_is_found),
        cmocka_unit_test(dirty_block_leaves_when_it_is_clean),
        cmocka_unit_test(block_that_is_hit_does_not_leave),
        cmocka_unit_test(oldest_goes_to_main_when_the_ring_is_full),
        cmocka_unit_test(memory_is_within_four_bytes_per_slot),
        cmocka_unit_test(work_is_bounded_when_all_is_dirty_but_one),
        cmocka_unit_test(work_is_bounded_when_all_is_hot),
        cmocka_unit_test(scan_of_ten_times_the_capacity_keeps_the_hot_set),
        cmocka_unit_test(scan_of_writes_keeps_the_hot_set),
        cmocka_unit_test(new_hot_set_gets_in),
        cmocka_unit_test(lonely_slot_is_found_by_and_by),
        cmocka_unit_test(hot_dirty_slots_come_to_leave),
        cmocka_unit_test(restore_keeps_flags_and_the_hot_set),
        cmocka_unit_test(restore_takes_any_flags),
        cmocka_unit_test(restore_forgets_what_was_before),
        cmocka_unit_test(anything_in_any_order),
        cmocka_unit_test(miss_ratios_of_recorded_traces),
        cmocka_unit_test(miss_ratios_of_a_synthetic_trace),
        cmocka_unit_test(dirty_blocks_cost_little),
    };

#if defined(__SANITIZE_THREAD__)
    printf("SKIP: one thread's work, nothing for the thread sanitizer\n");
    return 77;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}

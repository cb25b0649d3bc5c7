/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The FIFOs of eviction, rounds and ghost, beside exact ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cache/ghost.h"
#include "cache/index.h"
#include "cache/rounds.h"
#include "trace.h"

#define NO_SLOT WEIR_CACHE_NO_SLOT

/* --- rounds --- */

static uint32_t first(WeirCacheRounds *r)
{
    uint32_t words = UINT32_MAX;

    return weir_cache_rounds_first(r, &words);
}

static WeirCacheRounds new_rounds(uint32_t slots)
{
    WeirCacheRounds r;

    assert_int_equal(weir_cache_rounds_init(&r, slots, slots), 0);
    return r;
}

/* All join, each a third of the way round from the one before. */
static void order_is_that_of_arrival_but_within_a_piece(void **state)
{
    const uint32_t slots = 12000;
    WeirCacheRounds r = new_rounds(slots);
    uint32_t *arrival = calloc(slots, sizeof(*arrival));

    (void)state;
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t slot = (uint32_t)((uint64_t)i * 4001 % slots);

        arrival[slot] = i;
        weir_cache_rounds_join(&r, slot, 1);
    }
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t slot = first(&r);

        assert_int_not_equal(slot, NO_SLOT);
        assert_true(abs((int)arrival[slot] - (int)i) <= (int)r.piece);
        assert_int_equal(first(&r), slot);  /* until it leaves */
        weir_cache_rounds_leave(&r, slot);
        assert_false(weir_cache_rounds_has(&r, slot));
    }
    assert_int_equal(first(&r), NO_SLOT);
    assert_int_equal(r.used, 0);
    free(arrival);
    weir_cache_rounds_destroy(&r);
}

/*
 * As in a cache: the first one joins again, many times round. The first slots
 * of a piece get on a little faster than the last ones.
 */
static void nobody_is_forgotten(void **state)
{
    const uint32_t slots = 1000;
    WeirCacheRounds r = new_rounds(slots);
    uint32_t turns[1000] = { 0 };

    (void)state;
    for (uint32_t slot = 0; slot < slots; slot++) {
        weir_cache_rounds_join(&r, slot, 1);
    }
    for (uint32_t i = 0; i < 100 * slots; i++) {
        uint32_t slot = first(&r);

        turns[slot]++;
        weir_cache_rounds_leave(&r, slot);
        weir_cache_rounds_join(&r, slot, 1);
    }
    for (uint32_t slot = 0; slot < slots; slot++) {
        assert_in_range(turns[slot], 90, 110);
    }
    weir_cache_rounds_destroy(&r);
}

/* Whoever takes a place that the hand has gone by has its turn soon. */
static void replacing_keeps_the_place(void **state)
{
    WeirCacheRounds r = new_rounds(1000);

    (void)state;
    for (uint32_t slot = 500; slot < 900; slot++) {
        weir_cache_rounds_join(&r, slot, 1);
    }
    assert_int_equal(first(&r), 500);
    weir_cache_rounds_leave(&r, 500);
    assert_int_equal(first(&r), 501);
    weir_cache_rounds_replace(&r, 510, 10);
    weir_cache_rounds_replace(&r, 511, 905);
    assert_false(weir_cache_rounds_has(&r, 510));
    assert_true(weir_cache_rounds_has(&r, 10));
    assert_int_equal(r.used, 399);
    for (uint32_t turns = 0, slot = NO_SLOT; slot != 10; turns++) {
        assert_in_range(turns, 0, 2 * r.piece);
        slot = first(&r);
        weir_cache_rounds_leave(&r, slot);
    }
    weir_cache_rounds_destroy(&r);
}

/* All at once, or one by one: the same. */
static void a_run_joins_like_its_slots(void **state)
{
    (void)state;
    for (uint32_t start = 0; start < 4; start++) {
        for (uint32_t count = 0; count < 300; count++) {
            WeirCacheRounds a = new_rounds(320), b = new_rounds(320);

            weir_cache_rounds_join(&a, start, count);
            for (uint32_t i = 0; i < count; i++) {
                weir_cache_rounds_join(&b, start + i, 1);
            }
            assert_memory_equal(a.due, b.due, 160);
            assert_memory_equal(a.count, b.count, sizeof(a.count));
            assert_int_equal(a.used, count);
            assert_int_equal(a.joined, b.joined);
            assert_int_equal(a.last, b.last);
            weir_cache_rounds_destroy(&a);
            weir_cache_rounds_destroy(&b);
        }
    }
}

static void a_look_is_bounded_and_goes_on(void **state)
{
    const uint32_t slots = 160000;
    WeirCacheRounds r = new_rounds(slots);
    uint32_t words, slot;
    int calls = 0;

    (void)state;
    weir_cache_rounds_join(&r, slots - 1, 1);
    do {
        words = 100;
        slot = weir_cache_rounds_first(&r, &words);
        calls++;
    } while (slot == NO_SLOT);
    assert_int_equal(slot, slots - 1);
    assert_in_range(calls, 100, 101);
    weir_cache_rounds_destroy(&r);
}

/* Which are in, beside a set; each that is comes first once. */
static void anything_in_any_order(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (uint32_t slots = 1; slots < 400; slots += 7) {
        WeirCacheRounds r = new_rounds(slots);
        bool in[400] = { false };
        uint32_t used = 0;

        for (int i = 0; i < 5000; i++) {
            uint32_t a = (uint32_t)(trace_random(&random) % slots);
            uint32_t b = (uint32_t)(trace_random(&random) % slots);
            uint32_t slot = first(&r);

            assert_int_equal(slot != NO_SLOT, used > 0);
            if (in[a] && !in[b]) {
                weir_cache_rounds_replace(&r, a, b);
                in[a] = false;
                in[b] = true;
            } else if (!in[a]) {
                weir_cache_rounds_join(&r, a, 1);
                in[a] = true;
                used++;
            } else {
                assert_true(in[slot]);
                weir_cache_rounds_leave(&r, slot);
                in[slot] = false;
                used--;
            }
            assert_int_equal(r.used, used);
            assert_int_equal(weir_cache_rounds_has(&r, b), in[b]);
        }
        weir_cache_rounds_destroy(&r);
    }
}

/* --- ghost --- */

static WeirCacheGhost new_ghost(uint32_t size)
{
    WeirCacheGhost g;

    assert_int_equal(weir_cache_ghost_init(&g, size, 1234567), 0);
    return g;
}

static uint32_t known(const WeirCacheGhost *g, uint64_t from, uint32_t count)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < count; i++) {
        n += weir_cache_ghost_knows(g, from + i);
    }
    return n;
}

static void ghost_knows_the_last_ones_and_no_others(void **state)
{
    const uint32_t size = 20000;
    WeirCacheGhost g = new_ghost(size);

    (void)state;
    for (uint64_t block = 0; block < 50 * size; block++) {
        weir_cache_ghost_add(&g, block);
        if (block % 1000 == 999 && block >= size) {
            assert_in_range(known(&g, block + 1 - size * 9 / 10,
                                  size * 9 / 10),
                            size * 9 / 10 * 92 / 100, size);
            assert_in_range(known(&g, block - 2 * size, size), 0, size / 200);
        }
    }
    assert_in_range(known(&g, 1u << 30, 1000000), 1000, 4000);
    weir_cache_ghost_destroy(&g);
}

static void block_is_taken_out_once(void **state)
{
    WeirCacheGhost g = new_ghost(1000);
    uint32_t taken = 0, again = 0;

    (void)state;
    for (uint64_t block = 0; block < 500; block++) {
        weir_cache_ghost_add(&g, block);
    }
    assert_int_equal(g.live, 500);
    for (uint64_t block = 0; block < 500; block++) {
        taken += weir_cache_ghost_take(&g, block);
        again += weir_cache_ghost_take(&g, block);
    }
    assert_in_range(taken, 490, 500);
    assert_in_range(again, 0, 5);
    assert_in_range(g.live, 0, 10);
    weir_cache_ghost_clear(&g);
    assert_int_equal(known(&g, 0, 500), 0);
    weir_cache_ghost_destroy(&g);
}

/* Most are taken before their time: the rest are known for longer. */
static void taken_ones_make_room_for_others(void **state)
{
    const uint32_t size = 20000;
    WeirCacheGhost g = new_ghost(size);

    (void)state;
    for (uint64_t block = 0; block < 20 * size; block++) {
        weir_cache_ghost_add(&g, block);
        if (block >= 100 && block % 3) {
            weir_cache_ghost_take(&g, block - 100);
        }
        assert_in_range(g.live, 0, size);
    }
    assert_in_range(known(&g, 20 * size - size * 3 / 2, size * 3 / 2),
                    size / 2 * 90 / 100, size / 2 + size / 20);
    weir_cache_ghost_destroy(&g);
}

static void ghosts_of_any_size_work(void **state)
{
    (void)state;
    for (uint32_t size = 1; size < 200; size++) {
        WeirCacheGhost g = new_ghost(size);

        for (uint64_t block = 0; block < 40 * size; block++) {
            weir_cache_ghost_add(&g, block);
            assert_true(weir_cache_ghost_knows(&g, block));
            assert_in_range(g.live, 1, size + 1);
        }
        weir_cache_ghost_destroy(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_that_of_arrival_but_within_a_piece),
        cmocka_unit_test(nobody_is_forgotten),
        cmocka_unit_test(replacing_keeps_the_place),
        cmocka_unit_test(a_run_joins_like_its_slots),
        cmocka_unit_test(a_look_is_bounded_and_goes_on),
        cmocka_unit_test(anything_in_any_order),
        cmocka_unit_test(ghost_knows_the_last_ones_and_no_others),
        cmocka_unit_test(block_is_taken_out_once),
        cmocka_unit_test(taken_ones_make_room_for_others),
        cmocka_unit_test(ghosts_of_any_size_work),
    };

#if defined(__SANITIZE_THREAD__)
    printf("SKIP: one thread's work, nothing for the thread sanitizer\n");
    return 77;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}

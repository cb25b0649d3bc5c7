/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "inspect/shards.h"

static WeirShards *new_shards(uint64_t seed)
{
    WeirShards *shards = malloc(sizeof(*shards));

    assert_non_null(shards);
    weir_shards_init(shards, seed);
    weir_shards_start(shards);
    return shards;
}

static void free_shards(WeirShards *shards)
{
    weir_shards_destroy(shards);
    free(shards);
}

static double miss_ratio(WeirShards *shards, double cache_blocks)
{
    double ratio;

    weir_shards_miss_ratios(shards, &cache_blocks, &ratio, 1);
    return ratio;
}

static void access_one(WeirShards *shards, uint64_t block)
{
    weir_shards_access(shards, block, 1, weir_stripe());
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

/* --- by hand --- */

static void no_access_misses_always(void **state)
{
    WeirShards *shards = new_shards(1);
    WeirShardsSummary summary;

    (void)state;
    assert_true(miss_ratio(shards, 1e6) == 1);
    weir_shards_summary(shards, &summary);
    assert_int_equal(summary.accesses, 0);
    assert_int_equal(summary.unique_blocks, 0);
    assert_true(summary.rate == 1);
    free_shards(shards);
}

static void one_block_again_and_again_needs_one_block(void **state)
{
    WeirShards *shards = new_shards(1);

    (void)state;
    for (int i = 0; i < 100; i++) {
        access_one(shards, 5);
    }
    assert_true(fabs(miss_ratio(shards, 1) - 0.01) < 1e-9);
    assert_true(miss_ratio(shards, 0) == 1);
    free_shards(shards);
}

/* 1000 blocks in a ring: a cache of 999 never hits, one of 1000 always. */
static void loop_has_its_cliff_at_its_length(void **state)
{
    WeirShards *shards = new_shards(1);

    (void)state;
    for (int i = 0; i < 100000; i++) {
        access_one(shards, (uint64_t)i % 1000);
    }
    assert_true(miss_ratio(shards, 900) == 1);
    assert_true(fabs(miss_ratio(shards, 1024) - 0.01) < 1e-9);
    free_shards(shards);
}

static void times_wrap_without_a_trace(void **state)
{
    WeirShards *shards = new_shards(1);

    (void)state;
    for (int i = 0; i < 20 * WEIR_SHARDS_TIMES; i++) {
        access_one(shards, (uint64_t)i % 640);
    }
    assert_int_equal(shards->samples, 640);
    assert_true(miss_ratio(shards, 624) == 1);
    assert_true(miss_ratio(shards, 640) < 0.01);
    free_shards(shards);
}

static void request_of_many_blocks_counts_each(void **state)
{
    WeirShards *shards = new_shards(1);
    WeirShardsSummary summary;

    (void)state;
    weir_shards_access(shards, 10, 1000, weir_stripe());
    weir_shards_access(shards, 10, 1000, weir_stripe());
    weir_shards_summary(shards, &summary);
    assert_int_equal(summary.accesses, 2000);
    assert_int_equal(summary.sampled_accesses, 2000);
    assert_int_equal(summary.unique_blocks, 1000);
    assert_true(fabs(miss_ratio(shards, 1024) - 0.5) < 1e-9);
    free_shards(shards);
}

static void blocks_at_the_end_of_the_numbers(void **state)
{
    WeirShards *shards = new_shards(1);
    WeirShardsSummary summary;

    (void)state;
    weir_shards_access(shards, UINT64_MAX - 1, 2, weir_stripe());
    weir_shards_access(shards, UINT64_MAX, 0, weir_stripe());
    weir_shards_access(shards, UINT64_MAX / 4096, 1, weir_stripe());
    weir_shards_summary(shards, &summary);
    assert_int_equal(summary.accesses, 3);
    assert_int_equal(summary.unique_blocks, 3);
    free_shards(shards);
}

/* --- rate --- */

static void small_working_set_is_sampled_whole(void **state)
{
    WeirShards *shards = new_shards(1);

    (void)state;
    weir_shards_access(shards, 0, WEIR_SHARDS_EXACT_SAMPLES, weir_stripe());
    assert_int_equal(shards->samples, WEIR_SHARDS_EXACT_SAMPLES);
    assert_true(shards->weight == 1);
    weir_shards_access(shards, 1 << 20, 1, weir_stripe());
    assert_true(shards->samples <= WEIR_SHARDS_EXACT_SAMPLES);
    assert_true(shards->weight > 1);
    free_shards(shards);
}

static void samples_never_pass_their_limit(void **state)
{
    WeirShards *shards = new_shards(1);
    WeirShardsSummary summary;

    (void)state;
    for (uint64_t i = 0; i < 4000; i++) {
        weir_shards_access(shards, i * 1000, 1000, weir_stripe());
        assert_true(shards->samples <= WEIR_SHARDS_SAMPLES);
    }
    weir_shards_summary(shards, &summary);
    assert_true(summary.samples > WEIR_SHARDS_SAMPLES * 3 / 4);
    assert_true(fabs((double)summary.unique_blocks - 4e6) < 0.06 * 4e6);
    assert_true(summary.rate < 0.004);
    free_shards(shards);
}

/* Every entry is found where it stands, and counts agree. */
static void table_stays_consistent_while_the_rate_falls(void **state)
{
    WeirShards *shards = new_shards(1);
    uint64_t random = 1;
    uint32_t used = 0;
    uint32_t live = 0;

    (void)state;
    for (int i = 0; i < 3000000; i++) {
        access_one(shards, next_random(&random) % 1000000);
    }
    for (unsigned i = 0; i < WEIR_SHARDS_SLOTS; i++) {
        uint64_t t = shards->time[i] - 1;

        if (shards->time[i]) {
            used++;
            assert_true(shards->key[i] < shards->threshold);
            assert_true(shards->live[t / 64] >> t % 64 & 1);
        }
    }
    for (unsigned i = 0; i < WEIR_SHARDS_TIME_WORDS; i++) {
        live += (uint32_t)__builtin_popcountll(shards->live[i]);
    }
    assert_int_equal(used, shards->samples);
    assert_int_equal(live, shards->samples);
    free_shards(shards);
}

/* --- on and off --- */

static void off_counts_nothing_and_on_again_starts_anew(void **state)
{
    WeirShards *shards = new_shards(1);
    WeirShardsSummary summary;

    (void)state;
    weir_shards_access(shards, 0, 100, weir_stripe());
    weir_shards_stop(shards);
    weir_shards_access(shards, 0, 100, weir_stripe());
    weir_shards_summary(shards, &summary);
    assert_int_equal(summary.accesses, 0);
    assert_true(summary.rate == 0);
    assert_true(miss_ratio(shards, 1000) == 1);

    weir_shards_start(shards);
    weir_shards_access(shards, 0, 10, weir_stripe());
    weir_shards_summary(shards, &summary);
    assert_int_equal(summary.accesses, 10);
    assert_int_equal(summary.unique_blocks, 10);
    assert_true(miss_ratio(shards, 1000) == 1);
    free_shards(shards);
}

/* --- threads --- */

#define THREADS 4
#define PER_THREAD 200000

static void *access_from_thread(void *opaque)
{
    WeirShards *shards = opaque;
    uint64_t random = (uint64_t)(uintptr_t)&random;

    for (int i = 0; i < PER_THREAD; i++) {
        access_one(shards, next_random(&random) % 200000);
    }
    return NULL;
}

static void *read_from_thread(void *opaque)
{
    WeirShardsSummary summary = { 0 };

    while (summary.accesses < THREADS * PER_THREAD) {
        uint64_t before = summary.accesses;
        double ratio = miss_ratio(opaque, 100000);

        weir_shards_summary(opaque, &summary);
        if (summary.accesses < before || !(ratio >= 0 && ratio <= 1)) {
            return opaque;
        }
    }
    return NULL;
}

static void accesses_of_many_threads_all_count(void **state)
{
    WeirShards *shards = new_shards(1);
    pthread_t thread[THREADS];
    pthread_t reader;
    void *failed;

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, access_from_thread,
                                        shards), 0);
    }
    assert_int_equal(pthread_create(&reader, NULL, read_from_thread, shards),
                     0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    pthread_join(reader, &failed);
    assert_null(failed);
    /*
     * Uniform over 200,000 blocks. Half of them are in a cache of half the size
     * once it is full, after 2 ln 2 * 100,000 accesses: 0.54 of all miss.
     */
    assert_true(fabs(miss_ratio(shards, 100000) - 0.54) < 0.02);
    free_shards(shards);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_access_misses_always),
        cmocka_unit_test(one_block_again_and_again_needs_one_block),
        cmocka_unit_test(loop_has_its_cliff_at_its_length),
        cmocka_unit_test(times_wrap_without_a_trace),
        cmocka_unit_test(request_of_many_blocks_counts_each),
        cmocka_unit_test(blocks_at_the_end_of_the_numbers),
        cmocka_unit_test(small_working_set_is_sampled_whole),
        cmocka_unit_test(samples_never_pass_their_limit),
        cmocka_unit_test(table_stays_consistent_while_the_rate_falls),
        cmocka_unit_test(off_counts_nothing_and_on_again_starts_anew),
        cmocka_unit_test(accesses_of_many_threads_all_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

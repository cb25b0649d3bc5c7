/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/histogram.h"

#define BUCKETS 40

static void bucket_is_the_highest_bit(void **state)
{
    (void)state;
    assert_int_equal(weir_histogram_bucket(0, BUCKETS), 0);
    assert_int_equal(weir_histogram_bucket(1, BUCKETS), 0);
    for (unsigned i = 1; i < BUCKETS; i++) {
        uint64_t start = UINT64_C(1) << i;

        assert_int_equal(weir_histogram_bucket(start - 1, BUCKETS), i - 1);
        assert_int_equal(weir_histogram_bucket(start, BUCKETS), i);
    }
}

static void last_bucket_takes_all_above(void **state)
{
    (void)state;
    assert_int_equal(weir_histogram_bucket(UINT64_C(1) << 40, BUCKETS), 39);
    assert_int_equal(weir_histogram_bucket(UINT64_MAX, BUCKETS), 39);
    assert_int_equal(weir_histogram_bucket(UINT64_MAX, 64), 63);
    assert_int_equal(weir_histogram_bucket(UINT64_MAX, 1), 0);
}

static void percentile_of_nothing_is_zero(void **state)
{
    const uint64_t counts[BUCKETS] = { 0 };

    (void)state;
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 500), 0);
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 1000), 0);
}

static void percentile_goes_through_a_bucket_evenly(void **state)
{
    uint64_t counts[BUCKETS] = { [10] = 4 };

    (void)state;
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 250), 1280);
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 500), 1536);
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 750), 1792);
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 1000), 2047);
    assert_int_equal(weir_histogram_percentile(counts, BUCKETS, 5000), 2047);
}

static void percentile_finds_the_bucket_of_its_rank(void **state)
{
    uint64_t counts[BUCKETS] = { [3] = 990, [20] = 9, [30] = 1 };
    uint64_t value;

    (void)state;
    value = weir_histogram_percentile(counts, BUCKETS, 990);
    assert_in_range(value, 8, 15);
    value = weir_histogram_percentile(counts, BUCKETS, 991);
    assert_in_range(value, 1 << 20, (1 << 21) - 1);
    value = weir_histogram_percentile(counts, BUCKETS, 999);
    assert_in_range(value, 1 << 20, (1 << 21) - 1);
    value = weir_histogram_percentile(counts, BUCKETS, 1000);
    assert_int_equal(value, (UINT64_C(1) << 31) - 1);
    value = weir_histogram_percentile(counts, BUCKETS, 0);
    assert_in_range(value, 8, 15);
}

static void percentile_never_falls_as_the_share_rises(void **state)
{
    uint64_t counts[BUCKETS];
    uint64_t before = 0;

    (void)state;
    for (unsigned i = 0; i < BUCKETS; i++) {
        counts[i] = i * 7919 % 13;
    }
    for (unsigned permille = 0; permille <= 1000; permille++) {
        uint64_t value = weir_histogram_percentile(counts, BUCKETS, permille);

        assert_true(value >= before);
        before = value;
    }
}

static void percentile_of_huge_counts_does_not_overflow(void **state)
{
    uint64_t counts[64] = { [0] = UINT64_MAX / 4, [63] = UINT64_MAX / 4 };

    (void)state;
    assert_in_range(weir_histogram_percentile(counts, 64, 499), 0, 1);
    assert_true(weir_histogram_percentile(counts, 64, 501) >=
                UINT64_C(1) << 63);
    assert_true(weir_histogram_percentile(counts, 64, 1000) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bucket_is_the_highest_bit),
        cmocka_unit_test(last_bucket_takes_all_above),
        cmocka_unit_test(percentile_of_nothing_is_zero),
        cmocka_unit_test(percentile_goes_through_a_bucket_evenly),
        cmocka_unit_test(percentile_finds_the_bucket_of_its_rank),
        cmocka_unit_test(percentile_never_falls_as_the_share_rises),
        cmocka_unit_test(percentile_of_huge_counts_does_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

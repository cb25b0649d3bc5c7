/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <malloc.h>

#include "inspect/inspect.h"

#define BLOCK 4096
#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

static WeirInspect *inspect;

static WeirInspectConfig defaults(void)
{
    WeirInspectConfig config;

    weir_inspect_config_default(&config);
    return config;
}

static int set_up(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    return weir_inspect_new(&inspect, &config);
}

static int tear_down(void **state)
{
    (void)state;
    weir_inspect_free(inspect);
    inspect = NULL;
    return 0;
}

static WeirInspectTraffic traffic(bool is_write)
{
    WeirInspectTraffic out;

    memset(&out, 0xff, sizeof(out));
    weir_inspect_read_traffic(inspect, is_write, &out);
    return out;
}

static WeirInspectWorkingSet working_set(void)
{
    WeirInspectWorkingSet out;

    memset(&out, 0xff, sizeof(out));
    weir_inspect_read_working_set(inspect, &out);
    return out;
}

static WeirInspectEntropy entropy_at(uint64_t now_ns)
{
    WeirInspectEntropy out;

    memset(&out, 0xff, sizeof(out));
    weir_inspect_read_entropy(inspect, now_ns, &out);
    return out;
}

/* --- configuration --- */

static void defaults_pass_the_check(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    assert_int_equal(weir_inspect_config_check(&config, NULL, 0), 0);
    assert_true(config.working_set && config.entropy);
    assert_int_equal(config.entropy_window_s, 30);
    assert_int_equal(config.entropy_min_overwrites, 32);
}

static void check_fails(const WeirInspectConfig *config, const char *message)
{
    char err[200] = "";

    assert_int_equal(weir_inspect_config_check(config, err, sizeof(err)),
                     -EINVAL);
    assert_string_equal(err, message);
    assert_int_equal(weir_inspect_config_check(config, NULL, 0), -EINVAL);
}

static void window_has_a_range(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_window_s = 0;
    check_fails(&config, "entropy-window is 0, but must be 1 to 3600 seconds");
    config.entropy_window_s = 3601;
    check_fails(&config,
                "entropy-window is 3601, but must be 1 to 3600 seconds");
    config.entropy_window_s = 3600;
    assert_int_equal(weir_inspect_config_check(&config, NULL, 0), 0);
}

static void high_has_a_range(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_high_bits = 8.5;
    check_fails(&config, "entropy-high is 8.5, but must be 0 to 8 bits");
    config.entropy_high_bits = NAN;
    check_fails(&config, "entropy-high is nan, but must be 0 to 8 bits");
    config.entropy_high_bits = -1;
    check_fails(&config, "entropy-high is -1, but must be 0 to 8 bits");
}

static void low_is_not_above_high(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_low_bits = 7.5;
    check_fails(&config,
                "entropy-low is 7.5, but must be 0 to entropy-high bits");
    config.entropy_low_bits = config.entropy_high_bits;
    assert_int_equal(weir_inspect_config_check(&config, NULL, 0), 0);
}

static void share_has_a_range(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_alert_share = 1.01;
    check_fails(&config, "entropy-alert is 1.01, but must be 0 to 1");
    config.entropy_alert_share = INFINITY;
    check_fails(&config, "entropy-alert is inf, but must be 0 to 1");
}

static void min_overwrites_is_positive(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_min_overwrites = 0;
    check_fails(&config, "entropy-min-overwrites is 0, but must be at least 1");
    config.entropy_min_overwrites = UINT32_MAX;
    assert_int_equal(weir_inspect_config_check(&config, NULL, 0), 0);
}

static void long_message_is_cut(void **state)
{
    WeirInspectConfig config = defaults();
    char err[12];

    (void)state;
    memset(err, '!', sizeof(err));
    config.entropy_window_s = 0;
    weir_inspect_config_check(&config, err, 8);
    assert_string_equal(err, "entropy");
    assert_int_equal(err[8], '!');
}

static void configuration_is_kept(void **state)
{
    WeirInspectConfig config = defaults();
    WeirInspectConfig out;

    (void)state;
    config.entropy_window_s = 77;
    config.working_set = false;
    weir_inspect_configure(inspect, &config);
    weir_inspect_read_config(inspect, &out);
    assert_int_equal(out.entropy_window_s, 77);
    assert_false(out.working_set);
    assert_false(working_set().enabled);
    assert_true(entropy_at(0).enabled);
}

static void parts_can_be_off_from_the_start(void **state)
{
    WeirInspectConfig config = defaults();
    WeirInspect *in;
    WeirInspectWorkingSet ws;
    WeirInspectEntropy en;

    (void)state;
    config.working_set = false;
    config.entropy = false;
    assert_int_equal(weir_inspect_new(&in, &config), 0);
    weir_inspect_request(in, false, 0, MIB);
    assert_false(weir_inspect_wants_data(in, 0, TIB));
    weir_inspect_read_working_set(in, &ws);
    weir_inspect_read_entropy(in, 0, &en);
    assert_false(ws.enabled || en.enabled);
    assert_int_equal(ws.accesses + ws.points + en.known_blocks, 0);
    assert_true(weir_inspect_miss_ratio(in, TIB) == 1);
    weir_inspect_free(in);
}

/* --- memory --- */

static size_t allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* Sanitizers bring an allocator that mallinfo2() does not know. */
static bool allocations_are_counted(void)
{
    size_t before = allocated();
    char *volatile probe = malloc(BLOCK);
    bool counted = allocated() > before;

    free(probe);
    return counted;
}

static void state_stays_below_a_mebibyte(void **state)
{
    const uint64_t requests = 200000;
    WeirInspectConfig config = defaults();
    uint8_t block[BLOCK];
    struct iovec iov = { block, BLOCK };
    size_t before;
    WeirInspect *in;

    (void)state;
    if (!allocations_are_counted()) {
        print_message("SKIP: this allocator does not tell what is in use\n");
        skip();
    }
    memset(block, 'x', BLOCK);
    before = allocated();
    assert_int_equal(weir_inspect_new(&in, &config), 0);
    assert_in_range(allocated() - before, 1,
                    WEIR_INSPECT_STATE_BYTES_MAX + 2 * BLOCK);
    before = allocated();
    for (uint64_t i = 0; i < requests; i++) {
        uint64_t offset = i * 37 % requests * MIB;

        weir_inspect_request(in, i % 2, offset, BLOCK);
        weir_inspect_data(in, i % 2, offset, BLOCK, &iov, 1, 0, i);
    }
    assert_int_equal(allocated(), before);
    weir_inspect_free(in);
}

static void freeing_nothing_is_fine(void **state)
{
    (void)state;
    weir_inspect_free(NULL);
}

/* --- traffic --- */

static void sizes_go_to_their_bucket(void **state)
{
    const struct {
        uint64_t bytes;
        int bucket;
    } cases[] = {
        { 1, 0 }, { 511, 0 }, { 512, 0 }, { 1023, 0 }, { 1024, 1 },
        { 4095, 2 }, { 4096, 3 }, { 65536, 7 }, { MIB, 11 },
        { 16 * MIB, 15 }, { 1024 * MIB, 15 },
    };
    uint64_t bytes = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = traffic(true).sizes[cases[i].bucket];

        weir_inspect_request(inspect, true, 0, cases[i].bytes);
        assert_int_equal(traffic(true).sizes[cases[i].bucket], before + 1);
        bytes += cases[i].bytes;
        assert_int_equal(traffic(true).bytes, bytes);
        assert_int_equal(traffic(true).requests, i + 1);
    }
    assert_int_equal(traffic(false).requests, 0);
}

static void request_of_no_bytes_touches_nothing(void **state)
{
    (void)state;
    weir_inspect_request(inspect, false, MIB, 0);
    weir_inspect_request(inspect, false, MIB, 0);
    assert_int_equal(traffic(false).requests, 2);
    assert_int_equal(traffic(false).bytes, 0);
    assert_int_equal(traffic(false).sequential, 0);
    assert_int_equal(working_set().accesses, 0);
}

static void first_request_is_not_sequential(void **state)
{
    (void)state;
    weir_inspect_request(inspect, false, 0, BLOCK);
    assert_int_equal(traffic(false).sequential, 0);
    weir_inspect_request(inspect, false, BLOCK, BLOCK);
    assert_int_equal(traffic(false).sequential, 1);
}

static void directions_do_not_continue_each_other(void **state)
{
    (void)state;
    weir_inspect_request(inspect, false, 0, BLOCK);
    weir_inspect_request(inspect, true, BLOCK, BLOCK);
    assert_int_equal(traffic(false).sequential, 0);
    assert_int_equal(traffic(true).sequential, 0);
}

static void many_streams_are_seen_at_a_time(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 100; i++) {
        for (uint64_t stream = 0; stream < 12; stream++) {
            weir_inspect_request(inspect, false, stream * TIB + i * BLOCK,
                                 BLOCK);
        }
    }
    assert_int_equal(traffic(false).sequential, 12 * 99);
}

static void stream_lives_through_some_random_requests(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 100; i++) {
        weir_inspect_request(inspect, true, i * BLOCK, BLOCK);
        weir_inspect_request(inspect, true, TIB + i * 7919 % 100 * MIB, BLOCK);
    }
    /* new streams push the oldest out, and it is found again a request on */
    assert_in_range(traffic(true).sequential, 90, 99);
}

static void random_requests_are_not_sequential(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 10000; i++) {
        weir_inspect_request(inspect, true, i * 7919 % 10007 * MIB, BLOCK);
    }
    assert_int_equal(traffic(true).sequential, 0);
}

static void ranges_at_the_end_are_cut(void **state)
{
    (void)state;
    weir_inspect_request(inspect, true, UINT64_MAX - 100, BLOCK);
    assert_int_equal(traffic(true).bytes, 100);
    weir_inspect_request(inspect, true, UINT64_MAX, BLOCK);
    weir_inspect_request(inspect, true, UINT64_MAX, UINT64_MAX);
    assert_int_equal(traffic(true).bytes, 100);
    assert_int_equal(traffic(true).sequential, 0);
    assert_int_equal(working_set().accesses, 1);
    weir_inspect_forget(inspect, UINT64_MAX - 5, UINT64_MAX);
    weir_inspect_forget(inspect, 0, UINT64_MAX);
    assert_false(weir_inspect_wants_data(inspect, UINT64_MAX, UINT64_MAX));
}

/* No loop over 2^52 blocks. */
static void absurd_length_is_bounded(void **state)
{
    (void)state;
    weir_inspect_request(inspect, false, 0, UINT64_MAX);
    assert_int_equal(traffic(false).bytes, UINT64_MAX);
    assert_int_equal(working_set().accesses,
                     WEIR_INSPECT_REQUEST_BYTES_MAX / BLOCK);
}

/* --- working set --- */

static void partial_blocks_are_accesses_too(void **state)
{
    (void)state;
    weir_inspect_request(inspect, false, 4095, 2);
    weir_inspect_request(inspect, true, 1, 1);
    assert_int_equal(working_set().accesses, 3);
    assert_int_equal(working_set().unique_bytes, 2 * BLOCK);
}

static void curve_falls_to_what_is_read_once(void **state)
{
    WeirInspectWorkingSet ws;
    double before = 1;

    (void)state;
    for (int round = 0; round < 10; round++) {
        for (uint64_t i = 0; i < 1000; i++) {
            weir_inspect_request(inspect, i % 2, i * BLOCK, BLOCK);
        }
    }
    ws = working_set();
    assert_true(ws.enabled);
    assert_int_equal(ws.block_bytes, BLOCK);
    assert_int_equal(ws.accesses, 10000);
    assert_int_equal(ws.sampled_blocks, 1000);
    assert_true(ws.sampling_rate == 1);
    assert_int_equal(ws.unique_bytes, 1000 * BLOCK);
    assert_in_range(ws.points, 20, WEIR_INSPECT_CURVE_POINTS);
    for (uint32_t i = 0; i < ws.points; i++) {
        assert_true(ws.curve[i].miss_ratio <= before);
        assert_true(i == 0 ||
                    ws.curve[i].cache_bytes > ws.curve[i - 1].cache_bytes);
        assert_true(weir_inspect_miss_ratio(inspect, ws.curve[i].cache_bytes)
                    == ws.curve[i].miss_ratio);
        before = ws.curve[i].miss_ratio;
    }
    assert_true(ws.curve[0].miss_ratio == 1);
    assert_true(fabs(before - 0.1) < 1e-9);
    assert_true(ws.curve[ws.points - 1].cache_bytes >= ws.unique_bytes);
}

static void curve_of_a_huge_disk_has_its_upper_octaves(void **state)
{
    WeirInspectWorkingSet ws;
    uint64_t random = 1;

    (void)state;
    for (int i = 0; i < 3000000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        weir_inspect_request(inspect, false, random >> 20, 1);
    }
    ws = working_set();
    assert_in_range(ws.points, WEIR_INSPECT_CURVE_POINTS - 3,
                    WEIR_INSPECT_CURVE_POINTS);
    assert_true(ws.curve[ws.points - 1].cache_bytes >= ws.unique_bytes);
    assert_true(fabs((double)ws.unique_bytes / BLOCK - 3e6) < 3e6 * 0.08);
    assert_true(ws.curve[0].cache_bytes < ws.unique_bytes / 10000);
}

static void forgetting_leaves_the_working_set(void **state)
{
    (void)state;
    weir_inspect_request(inspect, true, 0, MIB);
    weir_inspect_forget(inspect, 0, TIB);
    weir_inspect_request(inspect, true, 0, MIB);
    assert_true(fabs(weir_inspect_miss_ratio(inspect, MIB) - 0.5) < 1e-9);
    assert_int_equal(working_set().unique_bytes, MIB);
}

static void working_set_off_and_on_starts_anew(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    weir_inspect_request(inspect, true, 0, MIB);
    weir_inspect_configure(inspect, &config);
    assert_int_equal(working_set().accesses, 256);
    config.working_set = false;
    weir_inspect_configure(inspect, &config);
    weir_inspect_request(inspect, true, 0, MIB);
    config.working_set = true;
    weir_inspect_configure(inspect, &config);
    assert_int_equal(working_set().accesses, 0);
    assert_int_equal(working_set().points, 0);
    assert_int_equal(traffic(true).requests, 2);
}

/* --- data --- */

static unsigned transfer(bool is_write, uint64_t offset, uint64_t bytes,
                         uint8_t *block)
{
    struct iovec iov = { block, BLOCK };
    unsigned raised = 0;

    for (uint64_t at = offset; at < offset + bytes; at += BLOCK) {
        if (weir_inspect_wants_data(inspect, at, BLOCK)) {
            raised += weir_inspect_data(inspect, is_write, at, BLOCK, &iov, 1,
                                        0, 1);
        }
    }
    return raised;
}

static void fill_random(uint8_t *block)
{
    uint64_t random = 1;

    for (int i = 0; i < BLOCK; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        block[i] = (uint8_t)(random >> 56);
    }
}

static void encryption_raises_one_alert(void **state)
{
    uint8_t text[BLOCK];
    uint8_t cipher[BLOCK];

    (void)state;
    memset(text, 'x', BLOCK);
    fill_random(cipher);
    assert_int_equal(transfer(false, 0, 64 * MIB, text), 0);
    assert_int_equal(transfer(true, 0, 64 * MIB, cipher), 1);
    assert_true(entropy_at(1).alert);
    weir_inspect_forget(inspect, 0, TIB);
    assert_int_equal(entropy_at(1).known_blocks, 0);
    assert_true(entropy_at(1).alert);
}

/* Which blocks are sampled differs from one inspector to the next. */
static void guests_cannot_know_the_sample(void **state)
{
    WeirInspectConfig config = defaults();
    WeirInspect *other;
    unsigned differ = 0;

    (void)state;
    assert_int_equal(weir_inspect_new(&other, &config), 0);
    for (uint64_t b = 0; b < 10000; b++) {
        differ += weir_inspect_wants_data(inspect, b * BLOCK, BLOCK) !=
                  weir_inspect_wants_data(other, b * BLOCK, BLOCK);
    }
    assert_true(differ > 500);
    weir_inspect_free(other);
}

/* --- threads --- */

#define THREADS 20
#define PER_THREAD 5000

static void *use_in_thread(void *opaque)
{
    uint64_t base = (uint64_t)(uintptr_t)opaque * 64 * MIB;
    uint8_t block[BLOCK];
    struct iovec iov = { block, BLOCK };

    fill_random(block);
    for (uint64_t i = 0; i < PER_THREAD; i++) {
        uint64_t offset = base + i % 4096 * BLOCK;

        weir_inspect_request(inspect, i % 2, offset, BLOCK);
        if (weir_inspect_wants_data(inspect, offset, BLOCK)) {
            weir_inspect_data(inspect, i % 2, offset, BLOCK, &iov, 1, 0, i);
        }
        if (i % 1000 == 0) {
            weir_inspect_forget(inspect, base, 1024 * MIB);
        }
    }
    return NULL;
}

static void *read_in_thread(void *opaque)
{
    WeirInspectConfig config = defaults();

    (void)opaque;
    for (int i = 0; i < 200; i++) {
        config.entropy_window_s = 1 + (uint32_t)i % 2;
        config.entropy = i % 20 != 0;
        weir_inspect_configure(inspect, &config);
        weir_inspect_read_config(inspect, &config);
        working_set();
        entropy_at((uint64_t)i);
        traffic(false);
    }
    return NULL;
}

static void many_threads_lose_no_count(void **state)
{
    pthread_t thread[THREADS];
    pthread_t reader;

    (void)state;
    assert_int_equal(pthread_create(&reader, NULL, read_in_thread, NULL), 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, use_in_thread,
                                        (void *)i), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    pthread_join(reader, NULL);
    assert_int_equal(traffic(false).requests + traffic(true).requests,
                     THREADS * PER_THREAD);
    assert_int_equal(traffic(false).bytes, traffic(false).requests * BLOCK);
    assert_int_equal(working_set().accesses, THREADS * PER_THREAD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_pass_the_check),
        cmocka_unit_test(window_has_a_range),
        cmocka_unit_test(high_has_a_range),
        cmocka_unit_test(low_is_not_above_high),
        cmocka_unit_test(share_has_a_range),
        cmocka_unit_test(min_overwrites_is_positive),
        cmocka_unit_test(long_message_is_cut),
        TEST(configuration_is_kept),
        cmocka_unit_test(parts_can_be_off_from_the_start),
        cmocka_unit_test(state_stays_below_a_mebibyte),
        cmocka_unit_test(freeing_nothing_is_fine),
        TEST(sizes_go_to_their_bucket),
        TEST(request_of_no_bytes_touches_nothing),
        TEST(first_request_is_not_sequential),
        TEST(directions_do_not_continue_each_other),
        TEST(many_streams_are_seen_at_a_time),
        TEST(stream_lives_through_some_random_requests),
        TEST(random_requests_are_not_sequential),
        TEST(ranges_at_the_end_are_cut),
        TEST(absurd_length_is_bounded),
        TEST(partial_blocks_are_accesses_too),
        TEST(curve_falls_to_what_is_read_once),
        TEST(curve_of_a_huge_disk_has_its_upper_octaves),
        TEST(forgetting_leaves_the_working_set),
        TEST(working_set_off_and_on_starts_anew),
        TEST(encryption_raises_one_alert),
        TEST(guests_cannot_know_the_sample),
        TEST(many_threads_lose_no_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

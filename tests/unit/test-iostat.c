/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/histogram.h"
#include "common/iostat.h"

#define THREADS 24                      /* more than stripes */
#define PER_THREAD 100000

static WeirIostat stat;
static pthread_barrier_t barrier;

static int reset(void **state)
{
    (void)state;
    weir_iostat_init(&stat);
    return 0;
}

static WeirIostatCounters counters_of(WeirIoOp op)
{
    WeirIostatCounters out;

    memset(&out, 0xff, sizeof(out));
    weir_iostat_read(&stat, op, &out);
    return out;
}

static void nothing_done_reads_as_zero(void **state)
{
    const WeirIostatCounters zero = { 0 };

    (void)state;
    for (int op = 0; op < WEIR_IO__MAX; op++) {
        WeirIostatCounters out = counters_of(op);

        assert_memory_equal(&out, &zero, sizeof(zero));
    }
}

static void success_counts_bytes_and_latency(void **state)
{
    WeirIostatCounters out;

    (void)state;
    weir_iostat_begin(&stat, WEIR_IO_WRITE);
    weir_iostat_end(&stat, WEIR_IO_WRITE, 4096, 1500, false);
    out = counters_of(WEIR_IO_WRITE);
    assert_int_equal(out.operations, 1);
    assert_int_equal(out.bytes, 4096);
    assert_int_equal(out.failed, 0);
    assert_int_equal(out.in_flight, 0);
    assert_int_equal(out.latency_total_ns, 1500);
    assert_int_equal(out.latency[10], 1);
}

static void failure_counts_no_bytes(void **state)
{
    WeirIostatCounters out;

    (void)state;
    weir_iostat_begin(&stat, WEIR_IO_READ);
    weir_iostat_end(&stat, WEIR_IO_READ, 4096, 8, true);
    out = counters_of(WEIR_IO_READ);
    assert_int_equal(out.operations, 1);
    assert_int_equal(out.bytes, 0);
    assert_int_equal(out.failed, 1);
    assert_int_equal(out.latency[3], 1);
}

static void begun_and_not_ended_is_in_flight(void **state)
{
    (void)state;
    weir_iostat_begin(&stat, WEIR_IO_FLUSH);
    weir_iostat_begin(&stat, WEIR_IO_FLUSH);
    assert_int_equal(counters_of(WEIR_IO_FLUSH).in_flight, 2);
    weir_iostat_end(&stat, WEIR_IO_FLUSH, 0, 1, false);
    assert_int_equal(counters_of(WEIR_IO_FLUSH).in_flight, 1);
    assert_int_equal(counters_of(WEIR_IO_FLUSH).operations, 1);
}

static void kinds_of_operations_are_kept_apart(void **state)
{
    (void)state;
    for (int op = 0; op < WEIR_IO__MAX; op++) {
        for (int i = 0; i <= op; i++) {
            weir_iostat_begin(&stat, op);
            weir_iostat_end(&stat, op, 512, 100, false);
        }
    }
    for (int op = 0; op < WEIR_IO__MAX; op++) {
        assert_int_equal(counters_of(op).operations, op + 1);
        assert_int_equal(counters_of(op).bytes, 512 * (op + 1));
    }
}

static void extreme_latencies_have_a_bucket(void **state)
{
    WeirIostatCounters out;

    (void)state;
    weir_iostat_begin(&stat, WEIR_IO_COPY);
    weir_iostat_end(&stat, WEIR_IO_COPY, 0, 0, false);
    weir_iostat_begin(&stat, WEIR_IO_COPY);
    weir_iostat_end(&stat, WEIR_IO_COPY, 0, UINT64_MAX, false);
    out = counters_of(WEIR_IO_COPY);
    assert_int_equal(out.latency[0], 1);
    assert_int_equal(out.latency[WEIR_IOSTAT_LATENCY_BUCKETS - 1], 1);
}

static void *end_one(void *opaque)
{
    (void)opaque;
    weir_iostat_end(&stat, WEIR_IO_READ, 1, 1, false);
    return NULL;
}

static void another_thread_may_end_it(void **state)
{
    pthread_t thread;

    (void)state;
    weir_iostat_begin(&stat, WEIR_IO_READ);
    assert_int_equal(pthread_create(&thread, NULL, end_one, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(counters_of(WEIR_IO_READ).in_flight, 0);
    assert_int_equal(counters_of(WEIR_IO_READ).operations, 1);
}

static void needs_no_alignment_beyond_a_word(void **state)
{
    char *memory = malloc(sizeof(WeirIostat) + 64);
    WeirIostatCounters out;

    (void)state;
    assert_non_null(memory);
    for (size_t shift = 0; shift < 64; shift += 8) {
        WeirIostat *st = (void *)(memory + shift);

        weir_iostat_init(st);
        weir_iostat_begin(st, WEIR_IO_READ);
        weir_iostat_end(st, WEIR_IO_READ, 1, 1, false);
        weir_iostat_read(st, WEIR_IO_READ, &out);
        assert_int_equal(out.operations, 1);
    }
    free(memory);
}

/* --- threads --- */

/* All have their stripes before one begins, so some must share. */
static void *hammer(void *opaque)
{
    (void)opaque;
    weir_stripe();
    pthread_barrier_wait(&barrier);
    for (uint64_t i = 0; i < PER_THREAD; i++) {
        weir_iostat_begin(&stat, WEIR_IO_WRITE);
        weir_iostat_end(&stat, WEIR_IO_WRITE, 512, i % 1000, i % 10 == 0);
    }
    return NULL;
}

/* Returns its argument when a counter went back or below zero. */
static void *watch(void *opaque)
{
    WeirIostatCounters before = { 0 };
    WeirIostatCounters now = { 0 };

    while (now.operations < THREADS * PER_THREAD) {
        now = counters_of(WEIR_IO_WRITE);
        if (now.operations < before.operations || now.bytes < before.bytes ||
            now.failed < before.failed || now.in_flight > UINT32_MAX) {
            return opaque;
        }
        before = now;
    }
    return NULL;
}

static void many_threads_lose_no_count(void **state)
{
    pthread_t thread[THREADS];
    pthread_t watcher;
    WeirIostatCounters out;
    void *wrong;

    (void)state;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    assert_int_equal(pthread_create(&watcher, NULL, watch, &stat), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    pthread_join(watcher, &wrong);
    pthread_barrier_destroy(&barrier);
    assert_null(wrong);
    out = counters_of(WEIR_IO_WRITE);
    assert_int_equal(out.operations, THREADS * PER_THREAD);
    assert_int_equal(out.failed, THREADS * PER_THREAD / 10);
    assert_int_equal(out.bytes, 512 * (out.operations - out.failed));
    assert_int_equal(out.in_flight, 0);
    assert_int_equal(out.latency_total_ns,
                     UINT64_C(999) * 1000 / 2 * (PER_THREAD / 1000) * THREADS);
}

static void *own_stripe(void *opaque)
{
    *(unsigned *)opaque = weir_stripe();
    return NULL;
}

/* Threads that came and went do not use stripes up. */
static void stripe_of_an_ended_thread_is_used_again(void **state)
{
    (void)state;
    for (int i = 0; i < 10 * WEIR_STRIPES; i++) {
        unsigned stripe = WEIR_STRIPES;
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, own_stripe, &stripe), 0);
        pthread_join(thread, NULL);
        assert_true(stripe < WEIR_STRIPE_SHARED);
    }
}

static void *stripe_while_all_live(void *opaque)
{
    *(unsigned *)opaque = weir_stripe();
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void living_threads_own_different_stripes(void **state)
{
    unsigned users[WEIR_STRIPES] = { 0 };
    unsigned stripe[THREADS];
    pthread_t thread[THREADS];

    (void)state;
    users[weir_stripe()]++;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, stripe_while_all_live,
                                        &stripe[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_true(stripe[i] < WEIR_STRIPES);
        users[stripe[i]]++;
    }
    pthread_barrier_destroy(&barrier);
    for (int i = 0; i < WEIR_STRIPE_SHARED; i++) {
        assert_int_equal(users[i], 1);
    }
    assert_int_equal(users[WEIR_STRIPE_SHARED],
                     THREADS + 1 - WEIR_STRIPE_SHARED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_done_reads_as_zero, reset),
        cmocka_unit_test_setup(success_counts_bytes_and_latency, reset),
        cmocka_unit_test_setup(failure_counts_no_bytes, reset),
        cmocka_unit_test_setup(begun_and_not_ended_is_in_flight, reset),
        cmocka_unit_test_setup(kinds_of_operations_are_kept_apart, reset),
        cmocka_unit_test_setup(extreme_latencies_have_a_bucket, reset),
        cmocka_unit_test_setup(another_thread_may_end_it, reset),
        cmocka_unit_test(needs_no_alignment_beyond_a_word),
        cmocka_unit_test_setup(many_threads_lose_no_count, reset),
        cmocka_unit_test(stripe_of_an_ended_thread_is_used_again),
        cmocka_unit_test(living_threads_own_different_stripes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

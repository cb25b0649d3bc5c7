/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests that a plugin holds: whoever is first, and late ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>

#include "plugin/holds.h"

static void wake(void *waiter)
{
    sem_post(waiter);
}

static WeirPluginRequest request(uint32_t kind, struct iovec *iov, void *data,
                                 size_t bytes)
{
    *iov = (struct iovec) { data, bytes };
    return (WeirPluginRequest) {
        .struct_size = sizeof(WeirPluginRequest), .kind = kind,
        .bytes = bytes, .iov = iov, .iov_count = 1,
    };
}

static void test_resumed(void **state)
{
    WeirHolds *holds = weir_holds_new(wake);
    char data[512] = "before";
    struct iovec iov;
    WeirPluginRequest r = request(WEIR_PLUGIN_WRITE, &iov, data, 512);
    WeirHold *hold = weir_hold_new(holds, &r, 10);
    WeirHoldsInfo info;
    sem_t sem;
    int verdict;

    (void)state;
    sem_init(&sem, 0, 0);
    strcpy(data, "after");              /* the guest's memory changes */
    assert_string_equal(weir_hold_request(hold)->iov->iov_base, "before");
    weir_holds_query(holds, &info);
    assert_int_equal(info.held, 1);
    assert_true(weir_hold_must_wait(hold, &sem));
    assert_int_equal(weir_hold_resume(hold, WEIR_PLUGIN_PASS), 0);
    assert_int_equal(sem_trywait(&sem), 0);
    assert_true(weir_hold_verdict(hold, &verdict));
    assert_int_equal(verdict, WEIR_PLUGIN_PASS);
    weir_hold_end(hold);
    weir_holds_query(holds, &info);
    assert_int_equal(info.held, 0);
    weir_holds_free(holds);
}

static void test_resumed_before_it_waits(void **state)
{
    WeirHolds *holds = weir_holds_new(wake);
    WeirPluginRequest r = { .kind = WEIR_PLUGIN_FLUSH };
    WeirHold *hold = weir_hold_new(holds, &r, 10);
    sem_t sem;
    int verdict;

    (void)state;
    sem_init(&sem, 0, 0);
    assert_int_equal(weir_hold_resume(hold, -EIO), 0);
    assert_false(weir_hold_must_wait(hold, &sem));
    assert_true(weir_hold_verdict(hold, &verdict));
    assert_int_equal(verdict, -EIO);
    weir_hold_end(hold);
    assert_int_equal(sem_trywait(&sem), -1);
    weir_holds_free(holds);
}

static void test_expired(void **state)
{
    WeirHolds *holds = weir_holds_new(wake);
    char data[512];
    struct iovec iov;
    WeirPluginRequest r = request(WEIR_PLUGIN_READ, &iov, data, 512);
    WeirHold *old = weir_hold_new(holds, &r, 100);
    WeirHold *young = weir_hold_new(holds, &r, 150);
    WeirHoldsInfo info;
    unsigned overdue;
    sem_t sem;
    int verdict;

    (void)state;
    sem_init(&sem, 0, 0);
    assert_true(weir_hold_must_wait(old, &sem));
    assert_int_equal(weir_holds_look(holds, 199, 100, true, &overdue), 200);
    assert_int_equal(overdue, 0);
    /* on-error=stall: it is only told, once */
    assert_int_equal(weir_holds_look(holds, 200, 100, false, &overdue), 250);
    assert_int_equal(overdue, 1);
    weir_holds_look(holds, 201, 100, false, &overdue);
    assert_int_equal(overdue, 0);
    assert_false(weir_holds_fenced(holds));
    assert_int_equal(weir_holds_write_begin(holds), 0);
    weir_holds_look(holds, 202, 100, true, &overdue);
    assert_int_equal(sem_trywait(&sem), 0);
    assert_false(weir_hold_verdict(old, &verdict));
    weir_holds_query(holds, &info);
    assert_int_equal(info.held, 1);
    assert_int_equal(info.overdue, 0);
    assert_int_equal(info.expired, 1);

    /* fenced until the plugin gives it back */
    assert_true(weir_holds_fenced(holds));
    assert_true(weir_holds_writing(holds));
    assert_int_equal(weir_holds_write_begin(holds), -ECANCELED);
    weir_holds_write_end(holds);
    assert_false(weir_holds_writing(holds));
    weir_hold_end(old);
    memset(weir_hold_request(old)->iov->iov_base, 1, 512);  /* still there */
    assert_int_equal(weir_hold_resume(old, WEIR_PLUGIN_DONE), -ECANCELED);
    assert_false(weir_holds_fenced(holds));
    assert_int_equal(weir_holds_write_begin(holds), 0);
    weir_holds_write_end(holds);

    assert_int_equal(weir_hold_resume(young, 0), 0);
    weir_hold_end(young);
    weir_holds_free(holds);
}

/* What the plugin has not given back when it is gone. */
static void test_left_behind(void **state)
{
    WeirHolds *holds = weir_holds_new(wake);
    WeirPluginRequest r = { .kind = WEIR_PLUGIN_DISCARD };
    WeirHold *hold[3];
    int verdict;

    (void)state;
    for (int i = 0; i < 3; i++) {
        hold[i] = weir_hold_new(holds, &r, 0);
    }
    weir_holds_expire_all(holds);
    for (int i = 0; i < 3; i++) {
        assert_false(weir_hold_verdict(hold[i], &verdict));
        weir_hold_end(hold[i]);
    }
    weir_hold_resume(hold[1], 0);
    weir_holds_free(holds);
}

/* --- threads --- */

#define ROUNDS 2000

typedef struct Race {
    WeirHolds *holds;
    WeirHold *hold;             /* handed over by the barrier */
    pthread_barrier_t barrier;
    unsigned resumed, expired;
} Race;

static void *plugin_thread(void *opaque)
{
    Race *race = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        pthread_barrier_wait(&race->barrier);
        if (weir_hold_resume(race->hold, WEIR_PLUGIN_DONE) == 0) {
            race->resumed++;
        } else {
            race->expired++;
        }
        pthread_barrier_wait(&race->barrier);
    }
    return NULL;
}

static void *timer_thread(void *opaque)
{
    Race *race = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        unsigned overdue;

        pthread_barrier_wait(&race->barrier);
        weir_holds_look(race->holds, 1000, 1, true, &overdue);
        pthread_barrier_wait(&race->barrier);
    }
    return NULL;
}

/* A request waits; the plugin and the deadline race for it. */
static void test_race(void **state)
{
    char data[512] = { 0 };
    struct iovec iov;
    WeirPluginRequest r = request(WEIR_PLUGIN_WRITE, &iov, data, 512);
    Race race = { .holds = weir_holds_new(wake) };
    pthread_t threads[2];
    unsigned resumed = 0;
    WeirHoldsInfo info;
    sem_t sem;

    (void)state;
    sem_init(&sem, 0, 0);
    pthread_barrier_init(&race.barrier, NULL, 3);
    pthread_create(&threads[0], NULL, plugin_thread, &race);
    pthread_create(&threads[1], NULL, timer_thread, &race);
    for (int i = 0; i < ROUNDS; i++) {
        int verdict;

        race.hold = weir_hold_new(race.holds, &r, 0);
        pthread_barrier_wait(&race.barrier);
        if (weir_hold_must_wait(race.hold, &sem)) {
            sem_wait(&sem);
        }
        resumed += weir_hold_verdict(race.hold, &verdict);
        weir_hold_end(race.hold);
        pthread_barrier_wait(&race.barrier);
        assert_false(weir_holds_fenced(race.holds));
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(resumed, race.resumed);
    assert_int_equal(race.resumed + race.expired, ROUNDS);
    assert_int_equal(sem_trywait(&sem), -1);
    weir_holds_query(race.holds, &info);
    assert_int_equal(info.held + info.overdue + info.expired, 0);
    weir_holds_free(race.holds);
    pthread_barrier_destroy(&race.barrier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_resumed_before_it_waits),
        cmocka_unit_test(test_expired), cmocka_unit_test(test_left_behind),
        cmocka_unit_test(test_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

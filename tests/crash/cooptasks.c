/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cooptasks.h"

#include <string.h>

#include "report.h"

CoopClock *coop_clock;

static void forget_timer(const Coop *coop)
{
    CoopClock *c = coop_clock;

    for (uint32_t i = 0; i < c->n_timers; i++) {
        if (c->timers[i].coop == coop) {
            c->timers[i] = c->timers[--c->n_timers];
            return;
        }
    }
}

void coop_wait_until(CoopQueue *queue, uint64_t until_ns)
{
    CoopClock *c = coop_clock;

    if (until_ns != WEIR_TASKS_FOREVER) {
        if (c->n_timers == COOP_TIMERS_MAX) {
            fail("too many timers");
        }
        c->timers[c->n_timers++] = (CoopTimer) { until_ns, coop_self(), queue };
    }
    coop_queue_wait(queue);
    forget_timer(coop_self());
}

bool coop_fire_timer(void)
{
    CoopClock *c = coop_clock;
    uint32_t first = 0;
    CoopTimer timer;

    if (c->n_timers == 0) {
        return false;
    }
    for (uint32_t i = 1; i < c->n_timers; i++) {
        first = c->timers[i].at_ns < c->timers[first].at_ns ? i : first;
    }
    timer = c->timers[first];
    c->timers[first] = c->timers[--c->n_timers];
    c->now_ns = timer.at_ns > c->now_ns ? timer.at_ns : c->now_ns;
    coop_queue_wake(timer.queue);
    return true;
}

void coop_fire_due(void)
{
    const CoopClock *c = coop_clock;

    for (uint32_t i = 0; i < c->n_timers; i++) {
        if (c->timers[i].at_ns <= c->now_ns) {
            coop_fire_timer();
            return;
        }
    }
}

/* --- as the engines have it --- */

static void wait_task(void *opaque, pthread_mutex_t *lock,
                      WeirTaskQueue *queue, uint64_t until_ns)
{
    (void)opaque;
    pthread_mutex_unlock(lock);
    coop_wait_until((CoopQueue *)queue, until_ns);
    pthread_mutex_lock(lock);
}

static void wake_task(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    coop_queue_wake((CoopQueue *)queue);
}

static void init_queue(void *opaque, WeirTaskQueue *queue)
{
    (void)opaque;
    memset(queue, 0, sizeof(*queue));
}

static void spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    coop_spawn(fn, arg);
}

static uint64_t now_ns(void *opaque)
{
    (void)opaque;
    return coop_clock->now_ns;
}

static uint64_t random_number(void *opaque)
{
    (void)opaque;
    return coop_random();
}

const WeirTasks coop_tasks = {
    .wait = wait_task, .queue_init = init_queue, .wake = wake_task,
    .spawn = spawn, .now_ns = now_ns, .wall_ns = now_ns,
    .random = random_number,
};

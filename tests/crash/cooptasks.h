/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_COOPTASKS_H
#define WEIR_TESTS_COOPTASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "coop.h"
#include "replication/tasks.h"

/* The tasks of a replication's engines as those of coop.h, with a clock. */

#define COOP_TIMERS_MAX 256

typedef struct CoopTimer {
    uint64_t at_ns;
    Coop *coop;
    CoopQueue *queue;
} CoopTimer;

/* All zeroes at first; a test moves it on itself. */
typedef struct CoopClock {
    uint64_t now_ns;
    CoopTimer timers[COOP_TIMERS_MAX];
    uint32_t n_timers;
} CoopClock;

/* The one that counts, set by the test before it uses anything of these. */
extern CoopClock *coop_clock;
extern const WeirTasks coop_tasks;

/* WEIR_TASKS_FOREVER: until somebody wakes the queue. */
void coop_wait_until(CoopQueue *queue, uint64_t until_ns);

/*
 * Wake who waits for the first timer, and move the clock there if it is not
 * yet. False: there is none.
 */
bool coop_fire_timer(void);

/* The same if the clock is there for any timer. */
void coop_fire_due(void);

#endif

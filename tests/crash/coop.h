/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_COOP_H
#define WEIR_TESTS_COOP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Threads of control that take turns in one real thread, in an order that a
 * seed decides: what runs concurrently in the driver, repeatable.
 */

typedef struct Coop Coop;

/* Numbers for all decisions of a test. */
uint64_t coop_random(void);
uint32_t coop_below(uint32_t n);
void coop_seed(uint64_t seed);

/* Have fn(arg) run by and by. */
void coop_spawn(void (*fn)(void *arg), void *arg);

/* The one that runs; NULL outside of all. */
Coop *coop_self(void);

/* Let others run until somebody calls coop_ready() for the caller. */
void coop_suspend(void);
void coop_ready(Coop *coop);

/* Run one that is ready, for one turn. False when none is. */
bool coop_step(void);

/* How many have not ended. */
uint32_t coop_alive(void);

/*
 * Set all of them aside, and the numbers too; not from one of them. Afterwards
 * there is none, until coop_unpark(), when there is none again.
 */
typedef struct CoopParked CoopParked;

CoopParked *coop_park(void);
void coop_unpark(CoopParked *parked);

/* Those that wait for one event. */
typedef struct CoopQueue {
    Coop *first;
} CoopQueue;

void coop_queue_wait(CoopQueue *queue);
void coop_queue_wake(CoopQueue *queue);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "coop.h"

#include <assert.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>

static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#endif

#define STACK_BYTES (128 * 1024)
#define READY_MAX 4096

struct Coop {
    ucontext_t context;
    void (*fn)(void *arg);
    void *arg;
    void *stack;
    Coop *next;                 /* in a queue, or in the pool */
    jmp_buf jump;
    bool entered;               /* and then left: with `jump` */
    bool ended;
};

static uint64_t state = 1;
#ifdef WITH_ASAN
static ucontext_t scheduler;
#else
static jmp_buf scheduler;
#endif
static Coop *current;
static Coop *ready[READY_MAX];
static uint32_t ready_count;
static uint32_t alive;
static Coop *pool;

void coop_seed(uint64_t seed)
{
    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/* splitmix64 */
uint64_t coop_random(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t coop_below(uint32_t n)
{
    return (uint32_t)((coop_random() >> 32) * n >> 32);
}

Coop *coop_self(void)
{
    return current;
}

uint32_t coop_alive(void)
{
    return alive;
}

/*
 * From one stack to another. Only the first time with a context: that asks the
 * kernel for the signal mask each time, which takes longer than all else. For
 * the same reason a stack stays where it is when its coop has ended, and goes
 * on with another.
 */
#ifdef WITH_ASAN
static void to_scheduler(Coop *coop)
{
    void *fake = NULL;

    __sanitizer_start_switch_fiber(&fake, scheduler_stack,
                                   scheduler_stack_bytes);
    swapcontext(&coop->context, &scheduler);
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack,
                                    &scheduler_stack_bytes);
}

static void to_coop(Coop *coop)
{
    void *fake = NULL;

    __sanitizer_start_switch_fiber(&fake, coop->stack, STACK_BYTES);
    swapcontext(&scheduler, &coop->context);
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
}
#else
static void to_scheduler(Coop *coop)
{
    if (!_setjmp(coop->jump)) {
        _longjmp(scheduler, 1);
    }
}

static void to_coop(Coop *coop)
{
    if (_setjmp(scheduler)) {
        return;
    }
    if (coop->entered) {
        _longjmp(coop->jump, 1);
    }
    coop->entered = true;
    setcontext(&coop->context);
}
#endif

static void run(void)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &scheduler_stack,
                                    &scheduler_stack_bytes);
#endif
    for (;;) {
        Coop *coop = current;

        coop->fn(coop->arg);
        coop->ended = true;
        to_scheduler(coop);
    }
}

void coop_ready(Coop *coop)
{
    assert(ready_count < READY_MAX);
    ready[ready_count++] = coop;
}

static Coop *coop_new(void)
{
    Coop *volatile coop = calloc(1, sizeof(*coop));

    coop->stack = malloc(STACK_BYTES);
    getcontext(&coop->context);
    coop->context.uc_stack.ss_sp = coop->stack;
    coop->context.uc_stack.ss_size = STACK_BYTES;
    coop->context.uc_link = NULL;
    makecontext(&coop->context, run, 0);
    return coop;
}

void coop_spawn(void (*fn)(void *arg), void *arg)
{
    Coop *coop = pool;

    if (coop) {
        pool = coop->next;
    } else {
        coop = coop_new();
    }
    coop->fn = fn;
    coop->arg = arg;
    coop->ended = false;
    alive++;
    coop_ready(coop);
}

void coop_suspend(void)
{
    to_scheduler(current);
}

bool coop_step(void)
{
    uint32_t i;

    if (!ready_count) {
        return false;
    }
    i = coop_below(ready_count);
    current = ready[i];
    ready[i] = ready[--ready_count];
    to_coop(current);
    if (current->ended) {
        current->next = pool;
        pool = current;
        alive--;
    }
    current = NULL;
    return true;
}

struct CoopParked {
    uint64_t state;
    uint32_t alive;
    uint32_t ready_count;
    Coop *ready[];
};

CoopParked *coop_park(void)
{
    size_t bytes = ready_count * sizeof(*ready);
    CoopParked *parked = malloc(sizeof(*parked) + bytes);

    assert(!current);
    parked->state = state;
    parked->alive = alive;
    parked->ready_count = ready_count;
    memcpy(parked->ready, ready, bytes);
    alive = ready_count = 0;
    return parked;
}

void coop_unpark(CoopParked *parked)
{
    assert(!current && !alive && !ready_count);
    state = parked->state;
    alive = parked->alive;
    ready_count = parked->ready_count;
    memcpy(ready, parked->ready, ready_count * sizeof(*ready));
    free(parked);
}

void coop_queue_wait(CoopQueue *queue)
{
    current->next = queue->first;
    queue->first = current;
    coop_suspend();
}

void coop_queue_wake(CoopQueue *queue)
{
    while (queue->first) {
        Coop *coop = queue->first;

        queue->first = coop->next;
        coop_ready(coop);
    }
}

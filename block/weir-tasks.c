/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutines that wait for each other, for the engines of a replication. */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/aio.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "crypto/random.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "weir-tasks.h"

/* Somebody in a queue. */
typedef struct Waiter {
    Coroutine *co;
    pthread_mutex_t *lock;      /* for all that follows */
    union WaiterList *list;
    bool waits;
    QTAILQ_ENTRY(Waiter) next;
} Waiter;

typedef QTAILQ_HEAD(WaiterList, Waiter) WaiterList;

QEMU_BUILD_BUG_ON(sizeof(WaiterList) > sizeof(WeirTaskQueue));

static WaiterList *waiters(WeirTaskQueue *queue)
{
    return (WaiterList *)queue;
}

static void leave(Waiter *w)
{
    QTAILQ_REMOVE(w->list, w, next);
    w->waits = false;
}

/* In the thread of the one who waits, so it does not go on meanwhile. */
static void timed_out(void *opaque)
{
    Waiter *w = opaque;
    bool waits;

    pthread_mutex_lock(w->lock);
    waits = w->waits;
    if (waits) {
        leave(w);
    }
    pthread_mutex_unlock(w->lock);
    if (waits) {
        aio_co_wake(w->co);
    }
}

static void coroutine_fn tasks_wait(void *opaque, pthread_mutex_t *lock,
                                    WeirTaskQueue *queue, uint64_t until_ns)
{
    Waiter w = {
        .co = qemu_coroutine_self(), .lock = lock, .list = waiters(queue),
        .waits = true,
    };
    bool is_timed = until_ns != WEIR_TASKS_FOREVER;
    QEMUTimer timer;

    QTAILQ_INSERT_TAIL(w.list, &w, next);
    if (is_timed) {
        aio_timer_init(qemu_get_current_aio_context(), &timer,
                       QEMU_CLOCK_REALTIME, SCALE_NS, timed_out, &w);
        timer_mod_ns(&timer, MIN(until_ns, INT64_MAX));
    }
    pthread_mutex_unlock(lock);
    qemu_coroutine_yield();
    if (is_timed) {
        timer_del(&timer);
    }
    pthread_mutex_lock(lock);
}

static void tasks_wake(void *opaque, WeirTaskQueue *queue)
{
    WaiterList *list = waiters(queue);

    while (!QTAILQ_EMPTY(list)) {
        Waiter *w = QTAILQ_FIRST(list);

        leave(w);
        /*
         * Not aio_co_wake(): it would go on before anything else does, and if
         * two wake each other, nothing else would, ever.
         */
        aio_co_schedule(qemu_coroutine_get_aio_context(w->co), w->co);
    }
}

static void tasks_queue_init(void *opaque, WeirTaskQueue *queue)
{
    QTAILQ_INIT(waiters(queue));
}

typedef struct Task {
    WeirTasksHost *host;
    void (*fn)(void *arg);
    void *arg;
} Task;

static void coroutine_fn task_entry(void *opaque)
{
    g_autofree Task *task = opaque;

    task->fn(task->arg);
    qatomic_dec(&task->host->running);
    aio_wait_kick();
}

static void tasks_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    WeirTasksHost *host = opaque;
    Task *task = g_new(Task, 1);

    *task = (Task) { .host = host, .fn = fn, .arg = arg };
    qatomic_inc(&host->running);
    aio_co_schedule(qemu_get_aio_context(),
                    qemu_coroutine_create(task_entry, task));
}

static uint64_t tasks_now_ns(void *opaque)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static uint64_t tasks_wall_ns(void *opaque)
{
    return (uint64_t)g_get_real_time() * SCALE_US;
}

static uint64_t tasks_random(void *opaque)
{
    uint64_t number;

    /* the kernel does not run out of them */
    qcrypto_random_bytes(&number, sizeof(number), &error_abort);
    return number;
}

void weir_tasks_init(WeirTasksHost *host)
{
    *host = (WeirTasksHost) {
        .tasks = {
            .opaque = host,
            .wait = tasks_wait,
            .queue_init = tasks_queue_init,
            .wake = tasks_wake,
            .spawn = tasks_spawn,
            .now_ns = tasks_now_ns,
            .wall_ns = tasks_wall_ns,
            .random = tasks_random,
        },
    };
}

void weir_tasks_finish(WeirTasksHost *host)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&host->running) > 0);
}

typedef struct Call {
    void (*fn)(void *arg);
    void *arg;
    Coroutine *caller;
} Call;

static void coroutine_fn call_entry(void *opaque)
{
    Call *call = opaque;

    call->fn(call->arg);
    aio_co_wake(call->caller);
}

void coroutine_fn weir_tasks_call(WeirTasksHost *host, void (*fn)(void *arg),
                                  void *arg)
{
    Call call = { .fn = fn, .arg = arg, .caller = qemu_coroutine_self() };

    tasks_spawn(host, call_entry, &call);
    qemu_coroutine_yield();
}

typedef struct PolledCall {
    void (*fn)(void *arg);
    void *arg;
    bool done;
} PolledCall;

static void coroutine_fn polled_call_entry(void *opaque)
{
    PolledCall *call = opaque;

    call->fn(call->arg);
    qatomic_set(&call->done, true);
}

void weir_tasks_call_and_poll(WeirTasksHost *host, void (*fn)(void *arg),
                              void *arg)
{
    PolledCall call = { .fn = fn, .arg = arg };

    tasks_spawn(host, polled_call_entry, &call);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read(&call.done));
}

/* --- drained sections --- */

/* A request that was about to begin may have come after a look at it. */
#define LOOK_AGAIN_NS (10 * SCALE_MS)

void weir_tasks_gate_init(WeirTasksGate *gate)
{
    *gate = (WeirTasksGate) { 0 };
    pthread_mutex_init(&gate->lock, NULL);
    tasks_queue_init(NULL, &gate->queue);
}

void weir_tasks_gate_destroy(WeirTasksGate *gate)
{
    pthread_mutex_destroy(&gate->lock);
}

static bool is_open(WeirTasksGate *gate)
{
    return !qatomic_read(&gate->drained) ||
           qatomic_read(&gate->open_for_good) ||
           qatomic_read(&gate->requests) > 0 ||
           (gate->is_needed && gate->is_needed(gate->opaque));
}

static void let_pass(WeirTasksGate *gate)
{
    pthread_mutex_lock(&gate->lock);
    tasks_wake(NULL, &gate->queue);
    pthread_mutex_unlock(&gate->lock);
}

void weir_tasks_gate_drain_begin(WeirTasksGate *gate)
{
    qatomic_set(&gate->drained, true);
}

void weir_tasks_gate_drain_end(WeirTasksGate *gate)
{
    qatomic_set(&gate->drained, false);
    let_pass(gate);
}

void weir_tasks_gate_open(WeirTasksGate *gate)
{
    qatomic_set(&gate->open_for_good, true);
    let_pass(gate);
}

void weir_tasks_gate_request_begin(WeirTasksGate *gate)
{
    qatomic_inc(&gate->requests);
}

void weir_tasks_gate_request_end(WeirTasksGate *gate)
{
    qatomic_dec(&gate->requests);
}

void coroutine_fn weir_tasks_gate_pass(WeirTasksGate *gate)
{
    if (is_open(gate)) {
        return;
    }
    pthread_mutex_lock(&gate->lock);
    while (!is_open(gate)) {
        tasks_wait(NULL, &gate->lock, &gate->queue,
                   tasks_now_ns(NULL) + LOOK_AGAIN_NS);
    }
    pthread_mutex_unlock(&gate->lock);
}

void coroutine_fn TSA_NO_TSA weir_tasks_gate_enter(WeirTasksGate *gate)
{
    for (;;) {
        weir_tasks_gate_pass(gate);
        bdrv_graph_co_rdlock();
        if (is_open(gate)) {
            break;
        }
        bdrv_graph_co_rdunlock();
    }
}

/*
 * It counts as in flight only when it has the graph lock: the block layer
 * drains with the write lock held.
 */
void coroutine_fn TSA_NO_TSA weir_tasks_io_begin(WeirTasksGate *gate,
                                                 BlockDriverState *bs)
{
    weir_tasks_gate_enter(gate);
    bdrv_inc_in_flight(bs);
}

void coroutine_fn TSA_NO_TSA weir_tasks_io_end(WeirTasksGate *gate,
                                               BlockDriverState *bs)
{
    bdrv_dec_in_flight(bs);
    bdrv_graph_co_rdunlock();
}

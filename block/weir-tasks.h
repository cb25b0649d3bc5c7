/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BLOCK_WEIR_TASKS_H
#define WEIR_BLOCK_WEIR_TASKS_H

#include "block/block-common.h"
#include "qemu/coroutine.h"
#include "replication/tasks.h"

/*
 * What the engines of a replication ask for to do several things at once
 * (filters/replication/tasks.h), with coroutines.
 *
 * Tasks that an engine spawns run in the main loop's AioContext and begin
 * without the graph lock: whatever they call takes it for a single request.
 * There, and not in an I/O thread, because somebody who holds the lock may wait
 * for them: who wants to write to the graph stands in the main thread, so no
 * task can come just when it is locked.
 */

typedef struct WeirTasksHost {
    WeirTasks tasks;            /* for the engine */
    unsigned running;           /* tasks; atomic */
} WeirTasksHost;

/* host: lives until weir_tasks_finish() has returned. */
void weir_tasks_init(WeirTasksHost *host);

/* Wait, polling, until all tasks have ended.  Main thread. */
void weir_tasks_finish(WeirTasksHost *host);

/*
 * Run a function as a task, and wait for it; it may yield.  In a coroutine,
 * with or without the graph lock.
 */
void coroutine_fn weir_tasks_call(WeirTasksHost *host, void (*fn)(void *arg),
                                  void *arg);

/* The same from the main thread, outside of coroutines; polls. */
void weir_tasks_call_and_poll(WeirTasksHost *host, void (*fn)(void *arg),
                              void *arg);

/*
 * Keeps tasks from I/O in a drained section; but as long as requests that were
 * begun before have not ended, these may wait for it.
 */
typedef struct WeirTasksGate {
    bool drained;               /* atomic, as all that follows */
    bool open_for_good;         /* somebody waits for the end */
    unsigned requests;          /* under way */
    /* Whether it is open besides; set after init, NULL: no.  Any thread. */
    bool (*is_needed)(void *opaque);
    void *opaque;               /* for that */
    pthread_mutex_t lock;       /* for the queue */
    WeirTaskQueue queue;        /* tasks that wait */
} WeirTasksGate;

void weir_tasks_gate_init(WeirTasksGate *gate);
void weir_tasks_gate_destroy(WeirTasksGate *gate);

/* .bdrv_drain_begin and .bdrv_drain_end, or what a parent is told. */
void weir_tasks_gate_drain_begin(WeirTasksGate *gate);
void weir_tasks_gate_drain_end(WeirTasksGate *gate);

/* It is going to be closed: whatever is drained. */
void weir_tasks_gate_open(WeirTasksGate *gate);

void weir_tasks_gate_request_begin(WeirTasksGate *gate);
void weir_tasks_gate_request_end(WeirTasksGate *gate);

/* Wait until it is open; or until it is so with the graph lock held. */
void coroutine_fn weir_tasks_gate_pass(WeirTasksGate *gate);
void coroutine_fn weir_tasks_gate_enter(WeirTasksGate *gate);

/*
 * Begin and end I/O of a task on children of a node, with the graph lock held
 * between; drains wait for it.
 */
void coroutine_fn weir_tasks_io_begin(WeirTasksGate *gate,
                                      BlockDriverState *bs);
void coroutine_fn weir_tasks_io_end(WeirTasksGate *gate, BlockDriverState *bs);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_TASKS_H
#define WEIR_REPLICATION_TASKS_H

#include <pthread.h>
#include <stdint.h>

/*
 * What the engines of a replication need of their host to do several things at
 * once. A task is whatever runs one of their functions that "yields": a
 * coroutine in QEMU, a thread in a test.
 */

/* Where tasks wait for each other; the host's. Nothing has to be freed. */
typedef struct WeirTaskQueue {
    void *host[2];
} WeirTaskQueue;

#define WEIR_TASKS_FOREVER UINT64_MAX

typedef struct WeirTasks {
    void *opaque;               /* for all of these */

    /*
     * Wait until the queue is woken, or the clock of now_ns() is there; it may
     * come back earlier too. Yields. lock: held by the caller; it is released
     * meanwhile, but not before a wake() that follows would be noticed.
     */
    void (*wait)(void *opaque, pthread_mutex_t *lock, WeirTaskQueue *queue,
                 uint64_t until_ns);

    /* These do not yield; locks may be held. */
    void (*queue_init)(void *opaque, WeirTaskQueue *queue);
    /* All that wait. The lock that they have given to wait() is held. */
    void (*wake)(void *opaque, WeirTaskQueue *queue);
    /*
     * Run fn(arg) by and by, as a task of its own; not before the caller has
     * returned or yielded, or in another thread.
     */
    void (*spawn)(void *opaque, void (*fn)(void *arg), void *arg);
    uint64_t (*now_ns)(void *opaque);   /* monotonic */
    uint64_t (*wall_ns)(void *opaque);  /* since 1970 */
    uint64_t (*random)(void *opaque);   /* nobody can guess it */
} WeirTasks;

#endif

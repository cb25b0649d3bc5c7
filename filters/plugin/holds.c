/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/holds.h"

#include <pthread.h>
#include <stdlib.h>

#define ALIGNMENT 4096

typedef enum State { HELD, RESUMED, EXPIRED } State;

struct WeirPluginHeld {
    WeirHolds *holds;
    WeirPluginRequest request;  /* set at new */
    struct iovec iov;           /* set at new; its memory is ours */
    uint64_t since_ns;          /* set at new */
    /* the lock of holds is for all that follows */
    State state;
    int verdict;                /* if RESUMED */
    bool is_overdue;
    void *waiter;               /* NULL: nobody has to be woken */
    unsigned owners;            /* request, plugin */
    WeirHold *next, **link;     /* in the list, until both have left it */
};

struct WeirHolds {
    void (*wake)(void *waiter);
    pthread_mutex_t lock;       /* not held over wake */
    WeirHold *list;             /* oldest last */
    WeirHoldsInfo info;
    unsigned writes;            /* of the plugin, under way */
    bool fenced;                /* info.expired > 0; atomic */
};

WeirHolds *weir_holds_new(void (*wake)(void *waiter))
{
    WeirHolds *holds = calloc(1, sizeof(*holds));

    if (holds) {
        holds->wake = wake;
        pthread_mutex_init(&holds->lock, NULL);
    }
    return holds;
}

static void hold_free(WeirHold *hold)
{
    free(hold->iov.iov_base);
    free(hold);
}

void weir_holds_free(WeirHolds *holds)
{
    while (holds && holds->list) {
        WeirHold *hold = holds->list;

        holds->list = hold->next;
        hold_free(hold);
    }
    if (holds) {
        pthread_mutex_destroy(&holds->lock);
    }
    free(holds);
}

/* Memory for what is read or written; the data, if it is a write. */
static bool take_memory(WeirHold *hold, const WeirPluginRequest *request)
{
    if (request->iov_count == 0) {
        hold->request.iov = NULL;
        return true;
    }
    if (posix_memalign(&hold->iov.iov_base, ALIGNMENT, request->bytes)) {
        hold->iov.iov_base = NULL;
        return false;
    }
    hold->iov.iov_len = request->bytes;
    hold->request.iov = &hold->iov;
    hold->request.iov_count = 1;
    if (request->kind == WEIR_PLUGIN_WRITE) {
        weir_plugin_get_data(request, 0, hold->iov.iov_base, request->bytes);
    } else {
        /* a plugin that forgets a part of it tells nobody's secrets */
        memset(hold->iov.iov_base, 0, request->bytes);
    }
    return true;
}

WeirHold *weir_hold_new(WeirHolds *holds, const WeirPluginRequest *request,
                        uint64_t now_ns)
{
    WeirHold *hold = calloc(1, sizeof(*hold));

    if (!hold) {
        return NULL;
    }
    hold->holds = holds;
    hold->request = *request;
    hold->since_ns = now_ns;
    hold->owners = 2;
    if (!take_memory(hold, request)) {
        hold_free(hold);
        return NULL;
    }
    pthread_mutex_lock(&holds->lock);
    hold->next = holds->list;
    hold->link = &holds->list;
    if (hold->next) {
        hold->next->link = &hold->next;
    }
    holds->list = hold;
    holds->info.held++;
    pthread_mutex_unlock(&holds->lock);
    return hold;
}

const WeirPluginRequest *weir_hold_request(const WeirHold *hold)
{
    return &hold->request;
}

/* With the lock: one of its owners leaves it.  Returns whether it is free. */
static bool leave(WeirHold *hold)
{
    if (--hold->owners > 0) {
        return false;
    }
    *hold->link = hold->next;
    if (hold->next) {
        hold->next->link = hold->link;
    }
    return true;
}

/* With the lock: it is not held any more.  Returns whom to wake. */
static void *end_hold(WeirHold *hold, State state)
{
    WeirHolds *holds = hold->holds;
    void *waiter = hold->waiter;

    hold->state = state;
    hold->waiter = NULL;
    holds->info.held--;
    holds->info.overdue -= hold->is_overdue;
    if (state == EXPIRED) {
        holds->info.expired++;
        __atomic_store_n(&holds->fenced, true, __ATOMIC_SEQ_CST);
    }
    return waiter;
}

int weir_hold_resume(WeirHold *hold, int verdict)
{
    WeirHolds *holds = hold->holds;
    void *waiter = NULL;
    bool is_late, is_free;

    pthread_mutex_lock(&holds->lock);
    is_late = hold->state == EXPIRED;
    if (is_late) {
        holds->info.expired--;
        __atomic_store_n(&holds->fenced, holds->info.expired > 0,
                         __ATOMIC_SEQ_CST);
    } else {
        hold->verdict = verdict;
        waiter = end_hold(hold, RESUMED);
    }
    is_free = leave(hold);
    pthread_mutex_unlock(&holds->lock);
    if (waiter) {
        holds->wake(waiter);
    }
    if (is_free) {
        hold_free(hold);
    }
    return is_late ? -ECANCELED : 0;
}

bool weir_hold_must_wait(WeirHold *hold, void *waiter)
{
    bool must_wait;

    pthread_mutex_lock(&hold->holds->lock);
    must_wait = hold->state == HELD;
    if (must_wait) {
        hold->waiter = waiter;
    }
    pthread_mutex_unlock(&hold->holds->lock);
    return must_wait;
}

bool weir_hold_verdict(WeirHold *hold, int *verdict)
{
    bool is_resumed;

    pthread_mutex_lock(&hold->holds->lock);
    is_resumed = hold->state == RESUMED;
    *verdict = hold->verdict;
    pthread_mutex_unlock(&hold->holds->lock);
    return is_resumed;
}

void weir_hold_end(WeirHold *hold)
{
    WeirHolds *holds = hold->holds;
    bool is_free;

    pthread_mutex_lock(&holds->lock);
    is_free = leave(hold);
    pthread_mutex_unlock(&holds->lock);
    if (is_free) {
        hold_free(hold);
    }
}

/* The next one to wake, after it has expired; NULL: there is none. */
static void *expire_one(WeirHolds *holds, uint64_t since_ns)
{
    for (WeirHold *hold = holds->list; hold; hold = hold->next) {
        if (hold->state == HELD && hold->since_ns <= since_ns) {
            void *waiter = end_hold(hold, EXPIRED);

            if (waiter) {
                return waiter;
            }
        }
    }
    return NULL;
}

/* All that are held since then, or longer. */
static void expire(WeirHolds *holds, uint64_t since_ns)
{
    void *waiter;

    do {
        pthread_mutex_lock(&holds->lock);
        waiter = expire_one(holds, since_ns);
        pthread_mutex_unlock(&holds->lock);
        if (waiter) {
            holds->wake(waiter);
        }
    } while (waiter);
}

uint64_t weir_holds_look(WeirHolds *holds, uint64_t now_ns,
                         uint64_t deadline_ns, bool is_end, unsigned *overdue)
{
    uint64_t next_ns = UINT64_MAX;

    *overdue = 0;
    if (deadline_ns == 0) {
        return next_ns;
    }
    pthread_mutex_lock(&holds->lock);
    for (WeirHold *hold = holds->list; hold; hold = hold->next) {
        uint64_t until_ns = hold->since_ns + deadline_ns;

        if (hold->state != HELD) {
            continue;
        }
        if (until_ns > now_ns) {
            next_ns = until_ns < next_ns ? until_ns : next_ns;
        } else if (!hold->is_overdue) {
            hold->is_overdue = true;
            holds->info.overdue++;
            ++*overdue;
        }
    }
    pthread_mutex_unlock(&holds->lock);
    if (is_end && now_ns >= deadline_ns) {
        expire(holds, now_ns - deadline_ns);
    }
    return next_ns;
}

void weir_holds_expire_all(WeirHolds *holds)
{
    expire(holds, UINT64_MAX);
}

void weir_holds_query(WeirHolds *holds, WeirHoldsInfo *info)
{
    pthread_mutex_lock(&holds->lock);
    *info = holds->info;
    pthread_mutex_unlock(&holds->lock);
}

bool weir_holds_fenced(const WeirHolds *holds)
{
    return __atomic_load_n(&holds->fenced, __ATOMIC_SEQ_CST);
}

int weir_holds_write_begin(WeirHolds *holds)
{
    int ret = 0;

    pthread_mutex_lock(&holds->lock);
    if (holds->info.expired > 0) {
        ret = -ECANCELED;
    } else {
        holds->writes++;
    }
    pthread_mutex_unlock(&holds->lock);
    return ret;
}

void weir_holds_write_end(WeirHolds *holds)
{
    pthread_mutex_lock(&holds->lock);
    holds->writes--;
    pthread_mutex_unlock(&holds->lock);
}

bool weir_holds_writing(WeirHolds *holds)
{
    bool is_writing;

    pthread_mutex_lock(&holds->lock);
    is_writing = holds->writes > 0;
    pthread_mutex_unlock(&holds->lock);
    return is_writing;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-load.h"

#include <string.h>

#define LOAD_POLL_MS 50

/* What workers are told. */
enum {
    LOAD_GO_ON,
    LOAD_FINISH,                /* what is under way, and no more */
    LOAD_ABANDON,
};

typedef enum SlotKind {
    SLOT_IDLE,
    SLOT_READ,
    SLOT_WRITE,
    SLOT_ZERO,
    SLOT_FLUSH,
} SlotKind;

/* A request at a time, on cells of its own. */
typedef struct Slot {
    SlotKind kind;
    guint64 index;              /* has cells index, index + stride, ... */
    guint64 offset;
    gint64 cookie;
    guint8 *data;
} Slot;

typedef struct Worker {
    WeirLoad *load;
    struct nbd_handle *nbd;
    GRand *rand;
    GThread *thread;
    Slot *slots;
} Worker;

struct WeirLoad {
    WeirLoadOptions options;
    WeirModel *model;
    Worker *workers;
    guint64 cells;
    guint64 stride;
    gint stop;                  /* LOAD_*; atomic */
    GMutex lock;
    GCond progress;
    GError *failure;            /* the first one */
    guint64 done;
    guint64 looked_at;          /* done at the last look */
};

static void load_fail(WeirLoad *load, GError *error)
{
    g_mutex_lock(&load->lock);
    if (!load->failure) {
        load->failure = error;
    } else {
        g_error_free(error);
    }
    g_cond_broadcast(&load->progress);
    g_mutex_unlock(&load->lock);
    g_atomic_int_compare_and_exchange(&load->stop, LOAD_GO_ON, LOAD_FINISH);
}

/* --- slots --- */

static void slot_choose(const Worker *worker, Slot *slot)
{
    const WeirLoad *load = worker->load;
    guint64 cells = (load->cells - slot->index - 1) / load->stride + 1;
    guint64 cell = slot->index +
                   weir_trial_below(worker->rand, cells) * load->stride;
    guint dice = (guint)g_rand_int_range(worker->rand, 0, 100);

    slot->offset = cell * load->options.cell_bytes;
    slot->kind = dice < 45 ? SLOT_READ : dice < 92 ? SLOT_WRITE :
                 dice < 97 || !load->options.flushes ? SLOT_ZERO : SLOT_FLUSH;
}

static void slot_issue(const Worker *worker, Slot *slot)
{
    guint64 bytes = worker->load->options.cell_bytes;

    slot_choose(worker, slot);
    switch (slot->kind) {
    case SLOT_READ:
        memset(slot->data, 0xee, bytes);
        slot->cookie = nbd_aio_pread(worker->nbd, slot->data, bytes,
                                     slot->offset, NBD_NULL_COMPLETION, 0);
        break;
    case SLOT_WRITE:
        weir_trial_fill(worker->rand, slot->data, bytes);
        slot->cookie = nbd_aio_pwrite(worker->nbd, slot->data, bytes,
                                      slot->offset, NBD_NULL_COMPLETION, 0);
        break;
    case SLOT_ZERO:
        slot->cookie = nbd_aio_zero(worker->nbd, bytes, slot->offset,
                                    NBD_NULL_COMPLETION, 0);
        break;
    default:
        slot->cookie = nbd_aio_flush(worker->nbd, NBD_NULL_COMPLETION, 0);
    }
}

static bool slot_failed(const Slot *slot, GError **error)
{
    static const char *const kinds[] = { "", "read", "write", "zeroing",
                                         "flush" };
    int code = nbd_get_errno();

    weir_set_error(error, "%s at offset %" G_GUINT64_FORMAT " under load has "
                   "failed: %s", kinds[slot->kind], slot->offset,
                   code ? g_strerror(code) : nbd_get_error());
    return false;
}

/* The request is done: see that it went well. */
static bool slot_finish(const Worker *worker, Slot *slot, GError **error)
{
    const WeirLoad *load = worker->load;
    guint64 bytes = load->options.cell_bytes;
    SlotKind kind = slot->kind;

    slot->kind = SLOT_IDLE;
    if (kind == SLOT_WRITE) {
        weir_model_write(load->model, slot->offset, bytes, slot->data);
    } else if (kind == SLOT_ZERO) {
        weir_model_zero(load->model, slot->offset, bytes);
    }
    return kind != SLOT_READ ||
           weir_model_check(load->model, slot->offset, bytes, slot->data,
                            "read under load", error);
}

/* Returns whether it has ended; @error is set if it went wrong. */
static bool slot_poll(const Worker *worker, Slot *slot, GError **error)
{
    int ret = slot->cookie < 0 ? -1 :
              nbd_aio_command_completed(worker->nbd, (uint64_t)slot->cookie);

    if (ret == 0) {
        return false;
    }
    if (ret < 0) {
        if (!worker->load->options.may_fail ||
            nbd_aio_is_dead(worker->nbd) || nbd_aio_is_closed(worker->nbd)) {
            slot_failed(slot, error);
        }
        weir_model_forget(worker->load->model, slot->offset,
                          worker->load->options.cell_bytes);
        slot->kind = SLOT_IDLE;
    } else {
        slot_finish(worker, slot, error);
    }
    return true;
}

/* --- workers --- */

static void worker_did(WeirLoad *load)
{
    g_mutex_lock(&load->lock);
    load->done++;
    g_cond_broadcast(&load->progress);
    g_mutex_unlock(&load->lock);
}

/* Returns how many requests are under way. */
static guint worker_round(const Worker *worker)
{
    WeirLoad *load = worker->load;
    guint busy = 0;

    for (guint i = 0; i < load->options.depth; i++) {
        Slot *slot = &worker->slots[i];
        GError *error = NULL;

        if (slot->kind != SLOT_IDLE && slot_poll(worker, slot, &error)) {
            worker_did(load);
        }
        if (error) {
            load_fail(load, error);
        }
        if (slot->kind == SLOT_IDLE && !g_atomic_int_get(&load->stop)) {
            slot_issue(worker, slot);
        }
        busy += slot->kind != SLOT_IDLE;
    }
    return busy;
}

static gpointer worker_run(gpointer opaque)
{
    const Worker *worker = opaque;
    gint *stop = &worker->load->stop;

    while (worker_round(worker) > 0 && g_atomic_int_get(stop) !=
           LOAD_ABANDON) {
        if (!nbd_aio_is_dead(worker->nbd) &&
            !nbd_aio_is_closed(worker->nbd)) {
            nbd_poll(worker->nbd, LOAD_POLL_MS);
        }
    }
    return NULL;
}

static bool worker_start(Worker *worker, WeirStage *stage, const char *node,
                         GError **error)
{
    WeirLoad *load = worker->load;
    guint64 first = (guint64)(worker - load->workers) * load->options.depth;

    worker->nbd = weir_user_connect(stage, node, false, error);
    if (!worker->nbd) {
        return false;
    }
    worker->rand = g_rand_new_with_seed(g_rand_int(stage->trial->rand));
    worker->slots = g_new0(Slot, load->options.depth);
    for (guint i = 0; i < load->options.depth; i++) {
        worker->slots[i].index = first + i;
        worker->slots[i].data = g_malloc(load->options.cell_bytes);
    }
    worker->thread = g_thread_new("load", worker_run, worker);
    return true;
}

static void worker_clear(Worker *worker)
{
    if (worker->nbd) {
        nbd_close(worker->nbd);
        for (guint i = 0; i < worker->load->options.depth; i++) {
            g_free(worker->slots[i].data);
        }
        g_free(worker->slots);
        g_rand_free(worker->rand);
    }
}

/* --- all of them --- */

WeirLoad *weir_load_start(WeirStage *stage, const char *node, WeirModel *model,
                          const WeirLoadOptions *options, GError **error)
{
    g_autoptr(WeirLoad) load = g_new0(WeirLoad, 1);

    load->options = *options;
    load->model = model;
    load->cells = model->bytes / options->cell_bytes;
    load->stride = (guint64)options->connections * options->depth;
    g_mutex_init(&load->lock);
    g_cond_init(&load->progress);
    load->workers = g_new0(Worker, options->connections);
    for (guint i = 0; i < options->connections; i++) {
        load->workers[i].load = load;
        if (!worker_start(&load->workers[i], stage, node, error)) {
            return NULL;
        }
    }
    return g_steal_pointer(&load);
}

bool weir_load_check(WeirLoad *load, guint timeout_ms, GError **error)
{
    gint64 deadline_us = g_get_monotonic_time() + timeout_ms * (gint64)1000;
    bool ok = true;

    g_mutex_lock(&load->lock);
    while (!load->failure && load->done <= load->looked_at && ok) {
        ok = g_cond_wait_until(&load->progress, &load->lock, deadline_us);
    }
    if (load->failure) {
        g_propagate_error(error, g_error_copy(load->failure));
        ok = false;
    } else if (!ok) {
        weir_set_error(error, "no request was done in %u ms", timeout_ms);
    }
    /* those that were under way would be done in any case */
    load->looked_at = load->done + load->stride;
    g_mutex_unlock(&load->lock);
    return ok;
}

static void load_join(WeirLoad *load, gint stop)
{
    g_atomic_int_set(&load->stop, stop);
    for (guint i = 0; i < load->options.connections; i++) {
        if (load->workers[i].thread) {
            g_thread_join(g_steal_pointer(&load->workers[i].thread));
        }
    }
}

bool weir_load_stop(WeirLoad *load, GError **error)
{
    load_join(load, LOAD_FINISH);
    if (load->failure) {
        g_propagate_error(error, g_error_copy(load->failure));
    }
    return !load->failure;
}

void weir_load_free(WeirLoad *load)
{
    if (!load) {
        return;
    }
    load_join(load, LOAD_ABANDON);
    for (guint i = 0; i < load->options.connections; i++) {
        worker_clear(&load->workers[i]);
    }
    g_clear_error(&load->failure);
    g_free(load->workers);
    g_mutex_clear(&load->lock);
    g_cond_clear(&load->progress);
    g_free(load);
}

guint64 weir_load_count(WeirLoad *load)
{
    guint64 done;

    g_mutex_lock(&load->lock);
    done = load->done;
    g_mutex_unlock(&load->lock);
    return done;
}

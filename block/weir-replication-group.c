/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks that share a replication log, and the way to that log.
 *
 *   AWAY --wait--> LOOKING --> FOUND --open--> CONNECTING --> UP
 *    ^               |           |                 |          |
 *    +---------------+-----------+-----------------+-- LOSING +
 *
 * A timer of the main loop goes from one to the next.  It never runs in a
 * nested event loop, so that nodes are opened and closed only where that may be
 * done.  Whatever has to wait is a task: looking whether the server is there,
 * and connecting the engine.  LOSING waits for requests that are under way: a
 * watchdog sees to it that they end.
 *
 * The engine is there while a disk of the group is active (see
 * weir_replication_start()).
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "weir-replication.h"

#define TICK_MS 100
#define CHECK_MS 1000
#define RETRY_MS_MIN 200
#define RETRY_MS_MAX 5000
#define HANDOVER_MS 2000        /* without an answer of the log */

typedef enum LogPhase {
    LOG_AWAY,
    LOG_LOOKING,
    LOG_FOUND,
    LOG_CONNECTING,
    LOG_UP,
    LOG_LOSING,
    LOG_STOPPED,                /* it is none to go on with, or all ends */
} LogPhase;

struct WeirReplicationGroup {
    WeirReplicationConfig config;
    WeirReplicationLog log;
    WeirTasksHost tasks;
    WeirSource *source;         /* while a disk is active */
    unsigned active;            /* so many are */
    unsigned members;           /* nodes that are open */
    QLIST_HEAD(, BDRVWeirReplicationState) disks;
    LogPhase phase;
    bool running;               /* weir_source_run() has not returned */
    bool busy;                  /* a task of LOOKING or CONNECTING, or one
                                   that looks after an idle log */
    bool stopped;               /* by weir_source_stop() */
    bool hurries;               /* the machine migrates */
    int64_t retry_at_ms;
    uint32_t retry_ms;
    char *reason;               /* why it is away; NULL: that is not known */
    bool late;                  /* the limit of the RPO has been passed */
    QEMUTimer *tick;            /* of the main loop */
    QEMUTimer *patience;        /* of its AioContext: there was no tick */
    bool impatient;
    QLIST_ENTRY(WeirReplicationGroup) next;
};

static QLIST_HEAD(, WeirReplicationGroup) groups =
    QLIST_HEAD_INITIALIZER(groups);

WeirTasksHost *weir_replication_tasks(WeirReplicationGroup *group)
{
    return &group->tasks;
}

WeirReplicationLog *weir_replication_log(WeirReplicationGroup *group)
{
    return &group->log;
}

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

static void tick_now(WeirReplicationGroup *g)
{
    timer_mod(g->tick, now_ms());
}

/* --- what is told --- */

static void tell_disks(WeirReplicationGroup *g, WeirState state,
                       const char *reason)
{
    BDRVWeirReplicationState *d;

    QLIST_FOREACH(d, &g->disks, next) {
        if (d->engine && state != WEIR_STATE_OK) {
            weir_filter_set_state(d->bs, state, reason);
            d->told = true;
        } else if (d->told) {
            weir_filter_set_state(d->bs, WEIR_STATE_OK, NULL);
            d->told = false;
        }
    }
}

static void tell_state(WeirReplicationGroup *g, const WeirSourceInfo *info)
{
    g_autofree char *reason = NULL;

    if (info->state == WEIR_SOURCE_STOPPED) {
        reason = g_strdup_printf("nothing is replicated any more: %s",
                                 g->reason ?: "the log is another one");
        tell_disks(g, WEIR_STATE_FAILED, reason);
    } else if (g->log.hangs && g->phase == LOG_UP) {
        tell_disks(g, WEIR_STATE_DEGRADED, "the replication log does not "
                   "answer");
    } else if (info->state == WEIR_SOURCE_DISCONNECTED && g->reason) {
        reason = g_strdup_printf("the replication log cannot be reached: %s",
                                 g->reason);
        tell_disks(g, WEIR_STATE_DEGRADED, reason);
    } else if (info->state == WEIR_SOURCE_SYNCHRONISING) {
        tell_disks(g, WEIR_STATE_DEGRADED, "what the replication log does not "
                   "have is being copied to it");
    } else if (info->state == WEIR_SOURCE_STREAMING) {
        tell_disks(g, WEIR_STATE_OK, NULL);
    }
}

static void tell_rpo(WeirReplicationGroup *g, const WeirSourceInfo *info)
{
    uint64_t rpo_ms = info->rpo_ns / SCALE_MS;
    uint32_t limit_ms = g->config.rpo_limit_ms;
    bool late = limit_ms && rpo_ms > limit_ms;

    if (late != g->late && limit_ms) {
        weir_filter_emit_rpo(QLIST_FIRST(&g->disks)->bs, rpo_ms, limit_ms);
    }
    g->late = late;
}

/* --- the way to the log --- */

static void go_away(WeirReplicationGroup *g, const char *reason)
{
    if (reason) {
        g_free(g->reason);
        g->reason = g_strdup(reason);
    }
    g->retry_ms = MIN(MAX(2 * g->retry_ms, RETRY_MS_MIN), RETRY_MS_MAX);
    g->retry_at_ms = now_ms() + g->retry_ms;
    g->phase = LOG_LOSING;
    tick_now(g);
}

static void coroutine_fn look_for_log(void *opaque)
{
    WeirReplicationGroup *g = opaque;
    Error *err = NULL;

    if (weir_replication_log_probe(&g->log, &err) < 0) {
        go_away(g, error_get_pretty(err));
        error_free(err);
    } else {
        g->phase = LOG_FOUND;
        tick_now(g);
    }
    g->busy = false;
}

static void begin_to_look(WeirReplicationGroup *g)
{
    if (!weir_replication_log_is_unknown(&g->log)) {
        g->phase = LOG_FOUND;
        tick_now(g);
        return;
    }
    g->phase = LOG_LOOKING;
    g->busy = true;
    g->tasks.tasks.spawn(g->tasks.tasks.opaque, look_for_log, g);
}

static void coroutine_fn connect_log(void *opaque)
{
    WeirReplicationGroup *g = opaque;
    char err[512] = "";
    int64_t bytes = weir_replication_log_bytes(&g->log);
    int ret = bytes < 0 ? bytes : weir_source_connect(g->source, bytes, err,
                                                      sizeof(err));

    if (ret == 0) {
        g_clear_pointer(&g->reason, g_free);
        g->phase = LOG_UP;
    } else if (ret == -ESTALE) {
        g_free(g->reason);
        g->reason = g_strdup(err);
        g->phase = LOG_STOPPED;
    } else {
        go_away(g, err[0] ? err : strerror(-ret));
    }
    tick_now(g);
    g->busy = false;
}

/* Without this, nobody would notice while there is nothing to send. */
static void coroutine_fn check_log(void *opaque)
{
    WeirReplicationGroup *g = opaque;
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];

    if (weir_replication_log_read(&g->log, 0, sizeof(buf), buf) < 0) {
        weir_source_disconnect(g->source);
    }
    g->busy = false;
}

static void check_idle_log(WeirReplicationGroup *g)
{
    int64_t idle_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - g->log.last_ns;

    if (!g->busy && weir_replication_log_is_idle(&g->log) &&
        idle_ns >= CHECK_MS * (int64_t)SCALE_MS) {
        g->busy = true;
        g->tasks.tasks.spawn(g->tasks.tasks.opaque, check_log, g);
    }
}

static void open_log(WeirReplicationGroup *g)
{
    Error *err = NULL;

    if ((!weir_replication_log_is_open(&g->log) &&
         weir_replication_log_open(&g->log, &err) < 0) ||
        weir_replication_log_claim(&g->log, &err) < 0) {
        go_away(g, error_get_pretty(err));
        error_free(err);
        return;
    }
    g->phase = LOG_CONNECTING;
    g->busy = true;
    g->tasks.tasks.spawn(g->tasks.tasks.opaque, connect_log, g);
}

/*
 * To close a node, all that reads the graph has to end, and so do requests that
 * are suspended.  Then it is left open, and the NBD driver connects again, if
 * more slowly; but that does not help when it was cut off.
 */
static bool must_close(WeirReplicationGroup *g)
{
    return weir_replication_log_is_remote(&g->log) &&
           (g->config.source.on_loss != WEIR_SOURCE_SUSPEND || g->log.hangs);
}

/* What is left of the old connection must be gone before there is a new one. */
static void close_log(WeirReplicationGroup *g)
{
    if (!weir_replication_log_is_idle(&g->log)) {
        return;
    }
    if (must_close(g)) {
        weir_replication_log_close(&g->log);
    }
    g->phase = LOG_AWAY;
}

/*
 * A node of the user may stay inactive: its server was not there when QEMU
 * wanted to activate it, or it is the user's will.
 */
static void leave_away(WeirReplicationGroup *g)
{
    if (now_ms() < g->retry_at_ms) {
        return;
    }
    if (!weir_replication_log_is_inactive(&g->log)) {
        begin_to_look(g);
    } else if (weir_replication_log_is_remote(&g->log)) {
        weir_replication_log_close(&g->log);
        begin_to_look(g);
    }
}

static void look_after_log(WeirReplicationGroup *g, const WeirSourceInfo *info)
{
    switch (g->phase) {
    case LOG_AWAY:
        leave_away(g);
        break;
    case LOG_FOUND:
        open_log(g);
        break;
    case LOG_UP:
        if (g->log.hangs) {             /* nobody waits for it any longer */
            weir_source_disconnect(g->source);
        }
        if (info->state == WEIR_SOURCE_DISCONNECTED || g->log.hangs) {
            go_away(g, g->log.hangs ? "it has not answered in time"
                                    : "the connection was lost, or it has "
                                      "refused what was sent");
            break;
        }
        if (info->state == WEIR_SOURCE_STREAMING) {
            g->retry_ms = 0;
        }
        check_idle_log(g);
        break;
    case LOG_LOSING:
        close_log(g);
        break;
    default:
        break;
    }
}

/*
 * Somebody polls until all requests have ended, and as long as he does, there
 * will be no log: with on-loss=suspend they would wait for each other.
 */
static void lose_patience(void *opaque)
{
    WeirReplicationGroup *g = opaque;

    g->impatient = true;
    weir_source_set_impatient(g->source, true);
}

static void have_patience(WeirReplicationGroup *g)
{
    if (g->impatient) {
        g->impatient = false;
        weir_source_set_impatient(g->source, false);
    }
    timer_mod(g->patience, now_ms() + TICK_MS + g->config.target_timeout_ms);
}

static void tick_cb(void *opaque)
{
    WeirReplicationGroup *g = opaque;
    WeirSourceInfo info;

    if (!g->source || g->stopped) {
        return;
    }
    have_patience(g);
    weir_source_info(g->source, &info);
    look_after_log(g, &info);
    weir_source_info(g->source, &info);
    tell_state(g, &info);
    tell_rpo(g, &info);
    timer_mod(g->tick, now_ms() + TICK_MS);
}

/* --- the engine --- */

static void coroutine_fn run_source(void *opaque)
{
    WeirReplicationGroup *g = opaque;

    weir_source_run(g->source);
    g->running = false;
}

static int start_source(WeirReplicationGroup *g, Error **errp)
{
    int ret = weir_source_new(&g->source, &g->tasks.tasks,
                              &weir_replication_host, g, &g->config.source);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-replication: Could not set up");
        return ret;
    }
    g->stopped = false;
    g->running = true;
    g->late = false;
    g->hurries = false;
    weir_replication_log_hurry(&g->log, 0);
    /* one that has ended badly is not to be used again */
    g->phase = g->log.hangs || g->log.broken ? LOG_LOSING : LOG_AWAY;
    g->retry_ms = 0;
    g->tasks.tasks.spawn(g->tasks.tasks.opaque, run_source, g);
    return 0;
}

/* --- the end, of all or of a session --- */

/* Who waits for the log, and QEMU with him. */
typedef struct Farewell {
    WeirReplicationGroup *group;
    QEMUTimer timer;
} Farewell;

/* What is not in the log by now has to be copied later. */
static void give_up(void *opaque)
{
    Farewell *f = opaque;

    weir_source_disconnect(f->group->source);
}

/*
 * handover: somebody waits to go on in another place.  Then a log that does not
 * answer is not worth waiting for: the sidecar has what it does not have.
 */
static void begin_farewell(WeirReplicationGroup *g, Farewell *f, bool handover)
{
    f->group = g;
    /* of the AioContext, so that it comes while somebody polls */
    aio_timer_init(qemu_get_aio_context(), &f->timer, QEMU_CLOCK_REALTIME,
                   SCALE_MS, give_up, f);
    timer_mod(&f->timer, now_ms() + g->config.target_timeout_ms);
    if (handover) {
        weir_replication_log_hurry(&g->log, HANDOVER_MS);
    }
}

/* What has begun to connect goes on to its end, but for a mere look. */
static void wait_for_log(WeirReplicationGroup *g)
{
    weir_replication_log_cancel_probe(&g->log);
    AIO_WAIT_WHILE_UNLOCKED(NULL, g->busy);
}

static void end_farewell(WeirReplicationGroup *g, Farewell *f)
{
    timer_del(&f->timer);
    weir_replication_log_hurry(&g->log, g->hurries ? HANDOVER_MS : 0);
}

/* Send what is left, if the log is there; else that ends soon. */
static void stop_source(WeirReplicationGroup *g, bool handover)
{
    Farewell f;

    if (g->stopped) {
        return;
    }
    g->stopped = true;
    timer_del(g->patience);
    weir_tasks_gate_open(&g->log.gate);
    begin_farewell(g, &f, handover);
    wait_for_log(g);
    weir_source_stop(g->source);
    AIO_WAIT_WHILE_UNLOCKED(NULL, g->running);
    end_farewell(g, &f);
    g->phase = LOG_STOPPED;
}

static void free_source(WeirReplicationGroup *g)
{
    weir_tasks_finish(&g->tasks);
    g_clear_pointer(&g->source, weir_source_free);
    timer_del(g->tick);
    timer_del(g->patience);
    if (g->log.is_ours) {
        weir_replication_log_close(&g->log);
    }
    weir_replication_log_release(&g->log);
    qatomic_set(&g->log.gate.open_for_good, false);
}

/* What has been written until now, that is. */
static void wait_for_queue(WeirReplicationGroup *g)
{
    uint64_t serial = weir_source_cut(g->source);

    AIO_WAIT_WHILE_UNLOCKED(NULL, weir_source_is_sending(g->source, serial));
}

static void coroutine_fn end_session(void *opaque)
{
    WeirReplicationGroup *g = opaque;

    weir_source_end_session(g->source);
}

/*
 * QEMU takes the log away, maybe before the disks.  These go on: what is
 * written to them now will have to be copied.
 */
static void leave_log(void *opaque)
{
    WeirReplicationGroup *g = opaque;
    Farewell f;

    if (!g->source || g->stopped || g->phase == LOG_STOPPED) {
        return;
    }
    begin_farewell(g, &f, true);
    wait_for_log(g);
    wait_for_queue(g);
    weir_tasks_call_and_poll(&g->tasks, end_session, g);
    end_farewell(g, &f);
    if (g->phase != LOG_STOPPED) {
        g_free(g->reason);
        g->reason = g_strdup("its node is inactive");
        g->retry_at_ms = now_ms() + CHECK_MS;
        g->phase = LOG_AWAY;
    }
}

void weir_replication_hurry(BlockDriverState *bs, bool hurries)
{
    BDRVWeirReplicationState *s = bs->opaque;
    WeirReplicationGroup *g = s->group;

    g->hurries = hurries;
    weir_replication_log_hurry(&g->log, hurries ? HANDOVER_MS : 0);
}

static void come_back(void *opaque)
{
    WeirReplicationGroup *g = opaque;

    if (g->source && !g->stopped) {
        g->retry_at_ms = now_ms();
        tick_now(g);
    }
}

/* --- disks that are active --- */

static int coroutine_fn GRAPH_RDLOCK
open_sidecar(BDRVWeirReplicationState *s, Error **errp)
{
    int64_t bytes = bdrv_co_getlength(s->sidecar->bs);
    char err[256] = "";
    int ret = bytes < 0 ? bytes : weir_source_open_sidecar(s->engine, bytes,
                                                           err, sizeof(err));

    if (ret < 0) {
        error_setg(errp, "weir-replication: The sidecar '%s': %s",
                   bdrv_get_node_name(s->sidecar->bs),
                   err[0] ? err : strerror(-ret));
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK add_disk(BlockDriverState *bs,
                                              Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    int64_t bytes = bdrv_co_getlength(bs->file->bs);
    int ret = bytes < 0 ? bytes :
              weir_source_add_disk(s->group->source, s->disk_id, bytes, bs,
                                   s->sidecar, &s->engine);

    if (ret < 0) {
        s->engine = NULL;
        error_setg_errno(errp, -ret, "weir-replication: Disk '%s' cannot be "
                         "added to its group", s->disk_id);
        return ret;
    }
    ret = s->sidecar ? open_sidecar(s, errp) : 0;
    if (ret < 0) {
        weir_source_forget_disk(g_steal_pointer(&s->engine));
    }
    return ret;
}

int coroutine_fn weir_replication_start(BlockDriverState *bs, Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    WeirReplicationGroup *g = s->group;
    int ret = g->source ? 0 : start_source(g, errp);

    if (ret < 0) {
        return ret;
    }
    weir_tasks_gate_request_begin(&s->gate);
    ret = add_disk(bs, errp);
    weir_tasks_gate_request_end(&s->gate);
    if (ret < 0) {
        return ret;
    }
    g->active++;
    /* others may follow at once, and would have it connect again */
    g->retry_at_ms = now_ms() + TICK_MS;
    tick_now(g);
    return 0;
}

typedef struct CloseDisk {
    WeirSourceDisk *disk;
} CloseDisk;

static void coroutine_fn close_disk(void *opaque)
{
    CloseDisk *c = opaque;

    /* when this fails, it is as after a crash */
    weir_source_close_disk(c->disk);
}

/* Those who stay go on. */
static void part_with_disk(WeirReplicationGroup *g, bool handover)
{
    Farewell f;

    begin_farewell(g, &f, handover);
    wait_for_queue(g);
    end_farewell(g, &f);
}

void weir_replication_stop(BlockDriverState *bs, bool handover)
{
    BDRVWeirReplicationState *s = bs->opaque;
    WeirReplicationGroup *g = s->group;
    CloseDisk c = { .disk = s->engine };

    if (!s->engine) {
        return;
    }
    weir_tasks_gate_open(&s->gate);
    if (g->active == 1) {
        stop_source(g, handover);
    } else if (!g->stopped) {
        part_with_disk(g, handover);
    }
    s->engine = NULL;
    weir_tasks_call_and_poll(&g->tasks, close_disk, &c);
    qatomic_set(&s->gate.open_for_good, false);
    if (--g->active == 0) {
        free_source(g);
    }
}

/* --- members --- */

static WeirReplicationGroup *find_group(const char *log)
{
    WeirReplicationGroup *g;

    QLIST_FOREACH(g, &groups, next) {
        if (log && !g_strcmp0(g->log.node_name, log)) {
            return g;
        }
    }
    return NULL;
}

/* Whether the log may be used although its node is drained. */
static bool log_is_needed(void *opaque)
{
    WeirReplicationGroup *g = opaque;
    BDRVWeirReplicationState *d;

    QLIST_FOREACH(d, &g->disks, next) {
        if (qatomic_read(&d->gate.drained) && qatomic_read(&d->gate.requests)) {
            return true;
        }
    }
    return false;
}

static WeirReplicationGroup *new_group(QDict *options,
                                       const WeirReplicationConfig *config,
                                       bool inactive, Error **errp)
{
    WeirReplicationGroup *g = g_new0(WeirReplicationGroup, 1);

    g->config = *config;
    QLIST_INIT(&g->disks);
    weir_tasks_init(&g->tasks);
    if (weir_replication_log_init(&g->log, options, inactive, errp) < 0) {
        g_free(g);
        return NULL;
    }
    g->log.timeout_ms = config->target_timeout_ms;
    g->log.inactivate = leave_log;
    g->log.activate = come_back;
    g->log.opaque = g;
    g->log.gate.is_needed = log_is_needed;
    g->log.gate.opaque = g;
    g->tick = timer_new_ms(QEMU_CLOCK_REALTIME, tick_cb, g);
    g->patience = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                                SCALE_MS, lose_patience, g);
    QLIST_INSERT_HEAD(&groups, g, next);
    return g;
}

static void free_group(WeirReplicationGroup *g)
{
    QLIST_REMOVE(g, next);
    timer_free(g->tick);
    timer_free(g->patience);
    weir_replication_log_destroy(&g->log);
    g_free(g->reason);
    g_free(g);
}

static bool check_same(const WeirReplicationConfig *a,
                       const WeirReplicationConfig *b, Error **errp)
{
    const char *what =
        a->source.mode != b->source.mode ? "mode" :
        a->source.on_loss != b->source.on_loss ? "on-loss" :
        a->source.epoch_interval_ns != b->source.epoch_interval_ns ?
        "epoch-interval" :
        a->source.epoch_bytes != b->source.epoch_bytes ? "epoch-bytes" :
        a->source.max_memory_bytes != b->source.max_memory_bytes ?
        "max-memory" :
        a->source.max_rate != b->source.max_rate ? "max-rate" :
        a->source.compress != b->source.compress ? "compress" : NULL;

    if (what) {
        error_setg(errp, "weir-replication: '%s' is another one than that "
                   "of the disks with the same log", what);
    }
    return !what;
}

static bool check_limits(const WeirReplicationConfig *a,
                         const WeirReplicationConfig *b, Error **errp)
{
    const char *what =
        a->target_timeout_ms != b->target_timeout_ms ? "target-timeout" :
        a->rpo_limit_ms != b->rpo_limit_ms ? "rpo-limit" : NULL;

    if (what) {
        error_setg(errp, "weir-replication: '%s' is another one than that "
                   "of the disks with the same log", what);
    }
    return !what;
}

static bool check_name(WeirReplicationGroup *g, const char *disk_id,
                       Error **errp)
{
    BDRVWeirReplicationState *d;

    QLIST_FOREACH(d, &g->disks, next) {
        if (!strcmp(d->disk_id, disk_id)) {
            error_setg(errp, "weir-replication: Node '%s' has the disk-id "
                       "'%s' already", bdrv_get_node_name(d->bs), disk_id);
            return false;
        }
    }
    return true;
}

int weir_replication_join(BlockDriverState *bs, QDict *options,
                          const WeirReplicationConfig *config, bool inactive,
                          Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    const char *name = weir_replication_log_name(options);
    bool is_reference = qdict_haskey(options, "log");
    WeirReplicationGroup *g = is_reference ? find_group(name) : NULL;

    if (!g) {
        if (!is_reference && !qdict_haskey(options, "log.driver")) {
            error_setg(errp, "weir-replication: Parameter 'log' is missing");
            return -EINVAL;
        }
        g = new_group(options, config, inactive, errp);
        if (!g) {
            return -EINVAL;
        }
    } else if (!check_same(config, &g->config, errp) ||
               !check_limits(config, &g->config, errp) ||
               !check_name(g, s->disk_id, errp)) {
        return -EINVAL;
    } else {
        qdict_del(options, "log");
    }
    g->members++;
    s->group = g;
    s->bs = bs;
    QLIST_INSERT_HEAD(&g->disks, s, next);
    return 0;
}

void weir_replication_leave(BlockDriverState *bs)
{
    BDRVWeirReplicationState *s = bs->opaque;
    WeirReplicationGroup *g = s->group;

    /* it was set up for a disk that could not be added */
    if (g->active == 0 && g->source) {
        stop_source(g, false);
        free_source(g);
    }
    QLIST_REMOVE(s, next);
    if (--g->members == 0) {
        free_group(g);
    }
}

bool weir_replication_may_change(WeirReplicationGroup *g,
                                 const WeirReplicationConfig *config,
                                 Error **errp)
{
    ERRP_GUARD();

    if (!check_same(config, &g->config, errp)) {
        error_append_hint(errp, "Only target-timeout and rpo-limit can be "
                          "changed while the node is open.\n");
        return false;
    }
    return true;
}

void weir_replication_change(WeirReplicationGroup *g,
                             const WeirReplicationConfig *config)
{
    g->config = *config;
    g->log.timeout_ms = config->target_timeout_ms;
}

/* --- figures, marks --- */

void weir_replication_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    static const WeirReplicationMode modes[] = {
        [WEIR_SOURCE_ASYNC]      = WEIR_REPLICATION_MODE_ASYNC,
        [WEIR_SOURCE_FLUSH_SYNC] = WEIR_REPLICATION_MODE_FLUSH_SYNC,
        [WEIR_SOURCE_WRITE_SYNC] = WEIR_REPLICATION_MODE_WRITE_SYNC,
    };
    static const WeirReplicationStatus statuses[] = {
        [WEIR_SOURCE_DISCONNECTED]  = WEIR_REPLICATION_STATUS_DISCONNECTED,
        [WEIR_SOURCE_SYNCHRONISING] = WEIR_REPLICATION_STATUS_SYNCHRONISING,
        [WEIR_SOURCE_STREAMING]     = WEIR_REPLICATION_STATUS_STREAMING,
        [WEIR_SOURCE_STOPPED]       = WEIR_REPLICATION_STATUS_STOPPED,
    };
    BDRVWeirReplicationState *s = bs->opaque;
    WeirReplicationGroup *g = s->group;
    WeirReplicationInfo *out = &node->u.weir_replication;
    BlockDriverState *log = weir_replication_log_node(&g->log);
    WeirSourceInfo info = { .state = WEIR_SOURCE_DISCONNECTED };
    WeirSourceDiskInfo disk = { 0 };

    if (s->engine) {
        weir_source_info(g->source, &info);
        weir_source_disk_info(s->engine, &disk);
    }
    out->disk_id = g_strdup(s->disk_id);
    out->log = g_strdup(log ? bdrv_get_node_name(log) :
                        g->log.node_name ?: "");
    out->mode = modes[g->config.source.mode];
    out->status = statuses[info.state];
    out->generation = info.generation;
    out->epoch = info.epoch;
    out->rpo = info.rpo_ns / SCALE_MS;
    out->queued_bytes = info.queued_bytes;
    out->memory_bytes = info.memory_bytes;
    out->sent_bytes = info.sent_bytes;
    out->plain_bytes = info.plain_bytes;
    out->rate = info.rate;
    out->resync_bytes = disk.resync_bytes;
    out->resync_total = disk.resync_total;
    out->connections = info.connections;
}

void weir_replication_mark(BlockDriverState *bs, const char *mark,
                           bool application_consistent, Error **errp)
{
    BDRVWeirReplicationState *s = bs->opaque;
    char err[256] = "";

    if (!s->engine) {
        error_setg(errp, "weir-replication: Node '%s' is inactive",
                   bdrv_get_node_name(bs));
    } else if (weir_source_mark(s->group->source, mark, application_consistent,
                                err, sizeof(err)) < 0) {
        error_setg(errp, "weir-replication: %s", err);
    }
}

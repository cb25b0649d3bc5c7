/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-plugin: run a filter that is a shared object of its own.
 *
 * filters/plugin knows what plugins are, weir-plugin-load.c finds them,
 * weir-plugin-request.c gives them requests, weir-plugin-io.c is what they
 * call.  This file is the life of a node.
 *
 *   closed --open--> open --prepare--> at work <--inactivate, activate-->
 *
 * What a plugin does is not known before it is loaded, so the node is no
 * .is_filter; whatever passes it by is decided by what the plugin has
 * callbacks for.
 */
#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qobject/qdict.h"
#include "compat.h"
#include "weir-plugin-host.h"

#define DEADLINE_MS_DEFAULT 30000

static const char *const plugin_options[] = {
    "plugin", "options", "on-error", "deadline", NULL
};

static const char *const plugin_mutable_options[] = {
    "on-error", "deadline", NULL
};

static const char *const plugin_strong_options[] = {
    "plugin", "options.", NULL
};

bool weir_plugin_changes_or_holds(const BDRVWeirPluginState *s)
{
    return s->plugin->capabilities & (WEIR_PLUGIN_CHANGES_DATA |
                                      WEIR_PLUGIN_HOLDS_DATA);
}

/* --- the plugin, from the main thread --- */

/* A callback of the disk's life. */
typedef struct Call {
    BDRVWeirPluginState *s;
    WeirPluginCallFn *fn;
    void *arg;
    int ret;
    bool done;
} Call;

static int coroutine_fn call_fn(Call *call)
{
    WeirHostIo io = weir_plugin_io(call->s);
    int ret;

    /* in a drained section, too, it may wait for a task */
    weir_tasks_gate_request_begin(&call->s->gate);
    if (call->s->serial) {
        qemu_co_mutex_lock(call->s->serial);
    }
    ret = call->fn(call->s, &io.io, call->arg);
    if (call->s->serial) {
        qemu_co_mutex_unlock(call->s->serial);
    }
    weir_tasks_gate_request_end(&call->s->gate);
    return ret;
}

static void coroutine_fn call_entry(void *opaque)
{
    Call *call = opaque;

    bdrv_graph_co_rdlock();
    call->ret = call_fn(call);
    bdrv_graph_co_rdunlock();
    qatomic_set(&call->done, true);
    aio_wait_kick();
}

int weir_plugin_call_and_poll(BDRVWeirPluginState *s, WeirPluginCallFn *fn,
                              void *arg)
{
    Call call = { .s = s, .fn = fn, .arg = arg };

    aio_co_enter(bdrv_get_aio_context(s->bs),
                 qemu_coroutine_create(call_entry, &call));
    BDRV_POLL_WHILE(s->bs, !qatomic_read(&call.done));
    return call.ret;
}

int coroutine_fn weir_plugin_call_here(BDRVWeirPluginState *s,
                                       WeirPluginCallFn *fn, void *arg)
{
    Call call = { .s = s, .fn = fn, .arg = arg };

    return call_fn(&call);
}

void weir_plugin_set_error(BDRVWeirPluginState *s, int ret, const char *what,
                           Error **errp)
{
    g_autofree char *message = weir_plugin_take_message(s);

    error_setg_errno(errp, ret < 0 ? -ret : EINVAL, "weir-plugin: Plugin "
                     "'%s' %s%s%s", s->plugin->name, what,
                     message ? ": " : "", message ?: "");
}

static int coroutine_fn do_prepare(BDRVWeirPluginState *s, WeirPluginIo *io,
                                   void *arg)
{
    return s->plugin->prepare ? s->plugin->prepare(s->handle, io) : 0;
}

static int coroutine_fn do_activate(BDRVWeirPluginState *s, WeirPluginIo *io,
                                    void *arg)
{
    return s->plugin->activate ? s->plugin->activate(s->handle, io) : 0;
}

static int coroutine_fn do_inactivate(BDRVWeirPluginState *s,
                                      WeirPluginIo *io, void *arg)
{
    return s->plugin->inactivate ? s->plugin->inactivate(s->handle, io) : 0;
}

static int coroutine_fn GRAPH_RDLOCK do_flush(BDRVWeirPluginState *s,
                                              WeirPluginIo *io, void *arg)
{
    int ret = bdrv_co_flush(s->bs->file->bs);

    return ret < 0 || !s->sidecar ? ret : bdrv_co_flush(s->sidecar->bs);
}

static int coroutine_fn do_detach(BDRVWeirPluginState *s, WeirPluginIo *io,
                                  void *arg)
{
    bool *force = arg;

    return s->plugin->detach ? s->plugin->detach(s->handle, io, *force) : 0;
}

static int coroutine_fn do_close(BDRVWeirPluginState *s, WeirPluginIo *io,
                                 void *arg)
{
    if (s->plugin->close) {
        s->plugin->close(s->handle, io);
    }
    return 0;
}

int coroutine_fn weir_plugin_co_bring_down(BDRVWeirPluginState *s)
{
    bool force = false;
    int ret = weir_plugin_call_here(s, do_detach, &force);

    return MIN(ret, 0);
}

/* --- options --- */

typedef struct Config {
    WeirLoaded *loaded;
    WeirValues *values;
    WeirOnError on_error;
    uint32_t deadline_ms;
} Config;

static void config_clear(Config *config)
{
    weir_values_free(config->values);
    weir_plugin_unload(config->loaded);
    *config = (Config) { 0 };
}

static bool config_from_qapi(Config *config, const WeirPluginOptions *opts,
                             Error **errp)
{
    const WeirPlugin *plugin;

    config->loaded = weir_plugin_load(opts->plugin, errp);
    if (!config->loaded) {
        return false;
    }
    plugin = config->loaded->plugin;
    config->on_error = opts->has_on_error ? opts->on_error
                                          : WEIR_ON_ERROR_STALL;
    config->deadline_ms = opts->has_deadline ? opts->deadline
                                             : DEADLINE_MS_DEFAULT;
    if (config->on_error == WEIR_ON_ERROR_BYPASS &&
        !(plugin->capabilities & WEIR_PLUGIN_MAY_BYPASS)) {
        error_setg(errp, "weir-plugin: on-error=bypass is not possible with "
                   "plugin '%s', which does not say that going past it loses "
                   "nothing", plugin->name);
        return false;
    }
    config->values = weir_plugin_parse_values(config->loaded, opts->options,
                                              errp);
    return config->values;
}

/* Take this driver's options from @options and check them. */
static bool plugin_parse(QDict *options, Config *config, Error **errp)
{
    g_autoptr(WeirPluginOptions) opts = NULL;
    Visitor *v;

    *config = (Config) { 0 };
    v = weir_filter_options_visitor(options, plugin_options, errp);
    if (!v) {
        return false;
    }
    visit_type_WeirPluginOptions(v, NULL, &opts, errp);
    visit_free(v);
    if (opts && config_from_qapi(config, opts, errp)) {
        return true;
    }
    config_clear(config);
    return false;
}

/* A node by name, or one that is described in place. */
static bool has_option(const QDict *options, const char *name)
{
    g_autofree char *prefix = g_strconcat(name, ".", NULL);

    for (const QDictEntry *e = qdict_first(options); e;
         e = qdict_next(options, e)) {
        if (!strcmp(qdict_entry_key(e), name) ||
            g_str_has_prefix(qdict_entry_key(e), prefix)) {
            return true;
        }
    }
    return false;
}

static bool plugin_check_options(QDict *options, Error **errp)
{
    bool has_sidecar = has_option(options, "sidecar");
    uint32_t capabilities;
    Config config;

    if (!plugin_parse(options, &config, errp)) {
        return false;
    }
    capabilities = config.loaded->plugin->capabilities;
    if (!has_sidecar && capabilities & WEIR_PLUGIN_NEEDS_SIDECAR) {
        error_setg(errp, "weir-plugin: Plugin '%s' needs a sidecar",
                   config.loaded->plugin->name);
        config_clear(&config);
        return false;
    }
    config_clear(&config);
    return true;
}

/* --- drained sections --- */

/* Tell the plugin, if it is not told yet. */
static void tell_drain(BDRVWeirPluginState *s)
{
    bool drained = qatomic_read(&s->drained);

    if (!s->is_open || drained == s->plugin_drained) {
        return;
    }
    s->plugin_drained = drained;
    if (drained && s->plugin->drain_begin) {
        s->plugin->drain_begin(s->handle);
    } else if (!drained && s->plugin->drain_end) {
        s->plugin->drain_end(s->handle);
    }
}

/* A flag, not a counter: opening a node begins it without an end. */
static void plugin_drain_begin(BlockDriverState *bs)
{
    BDRVWeirPluginState *s = bs->opaque;

    if (!s->holds) {
        return;
    }
    if (!qatomic_read(&s->drained)) {
        qatomic_set(&s->drained_since_ns,
                    qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
    qatomic_store_release(&s->drained, true);   /* after the time */
    weir_tasks_gate_drain_begin(&s->gate);
    tell_drain(s);
    if (s->is_open && qatomic_read(&s->deadline_ms)) {
        weir_plugin_look_at_holds(s);
    }
}

static bool has_parents(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return !QLIST_EMPTY(&bs->parents);
}

static void plugin_drain_end(BlockDriverState *bs)
{
    BDRVWeirPluginState *s = bs->opaque;

    if (!s->holds) {
        return;
    }
    qatomic_set(&s->drained, false);
    weir_tasks_gate_drain_end(&s->gate);
    tell_drain(s);
    if (s->is_leaving && has_parents(bs)) {     /* it was to be taken out */
        qatomic_set(&s->is_leaving, false);
        weir_plugin_give_up(s, false);
    }
}

/* --- life --- */

/* What children that are opened may ask for has to be ready before them. */
static void state_init(BlockDriverState *bs, Config *config)
{
    BDRVWeirPluginState *s = bs->opaque;

    weir_filter_init(bs);
    s->bs = bs;
    s->disk.host = &weir_plugin_host;
    s->loaded = config->loaded;
    s->plugin = config->loaded->plugin;
    s->values = config->values;
    s->on_error = config->on_error;
    s->deadline_ms = config->deadline_ms;
    s->is_ordered = s->plugin->capabilities & WEIR_PLUGIN_ORDERED_FLUSH;
    qemu_co_mutex_init(&s->own_serial);
    qemu_co_rwlock_init(&s->order);
    qemu_co_mutex_init(&s->growing);
    s->serial = s->plugin->concurrency == WEIR_PLUGIN_SERIAL ?
                &s->loaded->serial :
                s->plugin->concurrency == WEIR_PLUGIN_SERIAL_PER_DISK ?
                &s->own_serial : NULL;
    pthread_mutex_init(&s->lock, NULL);
    QLIST_INIT(&s->timers);
    weir_tasks_init(&s->tasks);
    weir_tasks_gate_init(&s->gate);
    s->tasks.tasks.queue_init(s->tasks.tasks.opaque, &s->sleepers);
    s->buffers = weir_plugin_buffers_new();
    s->deadline_timer = aio_timer_new(qemu_get_aio_context(),
                                      QEMU_CLOCK_REALTIME, SCALE_NS,
                                      weir_plugin_deadline_cb, s);
    s->holds = weir_holds_new(weir_plugin_wake);
}

static void state_clear(BlockDriverState *bs)
{
    BDRVWeirPluginState *s = bs->opaque;

    weir_plugin_free_timers(s);
    g_clear_pointer(&s->deadline_timer, timer_free);
    g_clear_pointer(&s->holds, weir_holds_free);
    weir_plugin_buffers_free(s->buffers);
    weir_tasks_gate_destroy(&s->gate);
    pthread_mutex_destroy(&s->lock);
    weir_values_free(s->values);
    g_free(s->own_reason);
    g_free(s->message);
    weir_plugin_unload(s->loaded);
    weir_filter_close(bs);
}

static int open_sidecar(BlockDriverState *bs, QDict *options, int flags,
                        Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    uint32_t has = s->plugin->capabilities;
    ERRP_GUARD();

    s->sidecar = bdrv_open_child(NULL, options, "sidecar", bs, &child_of_bds,
                                 BDRV_CHILD_DATA | BDRV_CHILD_METADATA, true,
                                 errp);
    if (*errp) {
        return -EINVAL;
    }
    if (!s->sidecar) {
        if (has & WEIR_PLUGIN_NEEDS_SIDECAR) {
            error_setg(errp, "weir-plugin: Plugin '%s' needs a sidecar",
                       s->plugin->name);
            return -EINVAL;
        }
        return 0;
    }
    if (!(has & (WEIR_PLUGIN_NEEDS_SIDECAR | WEIR_PLUGIN_USES_SIDECAR))) {
        error_setg(errp, "weir-plugin: Plugin '%s' has no use for a sidecar",
                   s->plugin->name);
        return -EINVAL;
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    s->sidecar_writable = !bdrv_is_read_only(s->sidecar->bs);
    if (!s->sidecar_writable && flags & BDRV_O_RDWR) {
        error_setg(errp, "weir-plugin: The sidecar '%s' is read-only; that is "
                   "only possible when the disk is, too",
                   bdrv_get_node_name(s->sidecar->bs));
        return -EACCES;
    }
    return bdrv_child_refresh_perms(bs, s->sidecar, errp);
}

static int open_children(BlockDriverState *bs, QDict *options, int flags,
                         Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    BdrvChildRole role = weir_plugin_changes_or_holds(s) ? BDRV_CHILD_IMAGE :
                         BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY;

    if (!bdrv_open_child(NULL, options, "file", bs, &child_of_bds, role,
                         false, errp)) {
        return -EINVAL;
    }
    return open_sidecar(bs, options, flags, errp);
}

int weir_plugin_check_alignment(BDRVWeirPluginState *s, int64_t bytes,
                                Error **errp)
{
    if (bytes < 0) {
        error_setg_errno(errp, -bytes, "weir-plugin: Cannot tell the length "
                         "of the disk");
        return bytes;
    }
    if (s->plugin->alignment && bytes % s->plugin->alignment) {
        error_setg(errp, "weir-plugin: Plugin '%s' needs a disk of a multiple "
                   "of %u bytes, this one would have %" PRId64,
                   s->plugin->name, s->plugin->alignment, bytes);
        return -EINVAL;
    }
    return 0;
}

static int64_t disk_length(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return bdrv_getlength(bs->file->bs);
}

static int open_plugin(BlockDriverState *bs, int flags, Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    int ret = s->plugin->open(&s->disk, &s->handle);

    if (ret != 0) {
        weir_plugin_set_error(s, ret, "refuses the disk", errp);
        return ret < 0 ? ret : -EINVAL;
    }
    s->is_open = true;
    if (flags & (BDRV_O_INACTIVE | BDRV_O_NO_IO)) {
        s->inactive = true;
        return 0;
    }
    ret = weir_plugin_call_and_poll(s, do_prepare, NULL);
    if (ret != 0) {
        weir_plugin_set_error(s, ret, "cannot prepare the disk", errp);
        return ret < 0 ? ret : -EINVAL;
    }
    s->prepared = true;
    return 0;
}

static void close_plugin(BDRVWeirPluginState *s)
{
    weir_plugin_give_up(s, true);
    weir_plugin_stop_tasks(s);
    if (s->is_open) {
        weir_plugin_call_and_poll(s, do_close, NULL);
        s->is_open = false;
    }
    weir_tasks_finish(&s->tasks);       /* timers that are freed */
}

/*
 * Forget an empty dictionary, which is no option: QEMU would say of it, when
 * the node is opened again with some, that it cannot be reset to its default.
 */
static void forget_empty(QDict *options)
{
    QDict *own = qobject_to(QDict, qdict_get(options, "options"));

    if (own && qdict_size(own) == 0) {
        qdict_del(options, "options");
    }
}

static int plugin_open(BlockDriverState *bs, QDict *options, int flags,
                       Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    Config config;
    ERRP_GUARD();
    int ret;

    if (!plugin_parse(options, &config, errp)) {
        return -EINVAL;
    }
    state_init(bs, &config);
    ret = open_children(bs, options, flags, errp);
    ret = ret < 0 ? ret : weir_plugin_check_alignment(s, disk_length(bs), errp);
    ret = ret < 0 ? ret : open_plugin(bs, flags, errp);
    if (ret < 0) {
        close_plugin(s);
        state_clear(bs);
        return ret;
    }
    tell_drain(s);
    forget_empty(bs->options);
    forget_empty(bs->explicit_options);
    return 0;
}

static void plugin_close(BlockDriverState *bs)
{
    close_plugin(bs->opaque);
    state_clear(bs);
}

/*
 * The users have agreed.  Nobody else flushes what the plugin brings down: at
 * the other end, the nodes have not been written to.
 */
static int hand_over(BDRVWeirPluginState *s)
{
    int ret;

    weir_plugin_stop_tasks(s);
    weir_plugin_allow_tasks(s);         /* one that refuses begins them again */
    if (!s->prepared) {
        return 0;
    }
    ret = weir_plugin_call_and_poll(s, do_inactivate, NULL);
    if (ret < 0) {
        return ret;
    }
    ret = weir_plugin_call_and_poll(s, do_flush, NULL);
    if (ret < 0) {
        weir_plugin_call_and_poll(s, do_activate, NULL);
    }
    return ret;
}

/* Exports are still at work. */
static int GRAPH_RDLOCK plugin_inactivate(BlockDriverState *bs)
{
    BDRVWeirPluginState *s = bs->opaque;
    int ret;

    bdrv_drained_begin(bs);
    ret = weir_filter_inactivate_users(bs);
    ret = ret < 0 ? ret : hand_over(s);
    if (ret < 0) {
        weir_filter_activate_users(bs);
    } else {
        qatomic_set(&s->inactive, true);
    }
    bdrv_drained_end(bs);
    return MIN(ret, 0);
}

static void coroutine_fn GRAPH_RDLOCK
plugin_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    int ret;

    if (!qatomic_read(&s->inactive) ||
        weir_plugin_check_alignment(s, bdrv_co_getlength(bs->file->bs),
                                    errp) < 0) {
        return;
    }
    qatomic_set(&s->taking_over, true); /* requests do not come to it yet */
    ret = weir_plugin_call_here(s, s->prepared ? do_activate : do_prepare,
                                NULL);
    if (ret != 0) {
        weir_plugin_set_error(s, ret, "cannot take over the disk", errp);
    } else {
        s->prepared = true;
        qatomic_set(&s->inactive, false);
    }
    qatomic_store_release(&s->taking_over, false);
}

/* --- options at run time --- */

static int plugin_reopen_prepare(BDRVReopenState *state,
                                 BlockReopenQueue *queue, Error **errp)
{
    BDRVWeirPluginState *s = state->bs->opaque;
    g_autofree Config *config = g_new(Config, 1);
    char message[256];

    if (!plugin_parse(state->options, config, errp)) {
        return -EINVAL;
    }
    if (config->loaded != s->loaded) {
        error_setg(errp, "weir-plugin: plugin cannot be changed while the "
                   "node is open");
    } else if (weir_values_may_become(s->values, config->values, message,
                                      sizeof(message)) < 0) {
        error_setg(errp, "weir-plugin: Plugin '%s': %s", s->plugin->name,
                   message);
    } else if (state->flags & BDRV_O_RDWR && s->sidecar &&
               !s->sidecar_writable) {
        error_setg(errp, "weir-plugin: The disk cannot become writable, since "
                   "its sidecar is open read-only");
    } else {
        state->opaque = g_steal_pointer(&config);
        return 0;
    }
    config_clear(config);
    return -EINVAL;
}

/* The disk is drained: no callback of a request looks at the values. */
static void plugin_reopen_commit(BDRVReopenState *state)
{
    BDRVWeirPluginState *s = state->bs->opaque;
    g_autofree Config *config = g_steal_pointer(&state->opaque);
    WeirValues *old = s->values;

    s->values = g_steal_pointer(&config->values);
    qatomic_set(&s->on_error, config->on_error);
    qatomic_set(&s->deadline_ms, config->deadline_ms);
    if (s->plugin->options_changed) {
        s->plugin->options_changed(s->handle, weir_values_public(s->values));
    }
    weir_values_free(old);
    config_clear(config);
    forget_empty(state->options);
    forget_empty(state->explicit_options);
    weir_plugin_look_at_holds(s);
}

static void plugin_reopen_abort(BDRVReopenState *state)
{
    g_autofree Config *config = g_steal_pointer(&state->opaque);

    if (config) {
        config_clear(config);
    }
}

/* --- figures, detaching --- */

static void plugin_query(BlockDriverState *bs, WeirFilterInfo *node)
{
    BDRVWeirPluginState *s = bs->opaque;
    WeirPluginInfo *out = &node->u.weir_plugin;
    WeirPluginGauges gauges = { .tail = &out->gauges };
    WeirHoldsInfo holds;

    weir_holds_query(s->holds, &holds);
    out->plugin = g_strdup(s->plugin->name);
    out->version = g_strdup(s->plugin->version);
    out->path = g_strdup(s->loaded->path);
    out->q_class = weir_plugin_class_to_qapi(s->plugin);
    out->options = weir_plugin_values_to_qobject(s->loaded, s->values);
    out->sidecar = s->sidecar ? g_strdup(bdrv_get_node_name(s->sidecar->bs))
                              : NULL;
    out->on_error = qatomic_read(&s->on_error);
    out->deadline = qatomic_read(&s->deadline_ms);
    out->held = holds.held;
    out->overdue = holds.overdue;
    out->expired = holds.expired;
    out->bypassed = qatomic_read(&s->bypassed);
    out->failed = qatomic_read(&s->failed);
    if (s->plugin->statistics) {
        s->plugin->statistics(s->handle, &gauges);
    }
}

/* The machine would wait for the plugin in the drained section that follows. */
static int check_stuck(BDRVWeirPluginState *s, Error **errp)
{
    WeirHoldsInfo holds;

    weir_holds_query(s->holds, &holds);
    if (!holds.overdue && !holds.expired) {
        return 0;
    }
    error_setg(errp, "weir-plugin: Plugin '%s' does not give back %" PRIu64
               " request(s); taking it out by force ends them",
               s->plugin->name, holds.overdue + holds.expired);
    return -EBUSY;
}

static int plugin_prepare_detach(BlockDriverState *bs, bool force,
                                 Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    bool is_stuck = check_stuck(s, force ? NULL : errp) < 0;
    int ret;

    if (is_stuck && !force) {
        return -EBUSY;
    }
    if (is_stuck) {
        weir_plugin_give_up(s, true);
    }
    qatomic_set(&s->is_leaving, true);  /* see weir_plugin_co_bring_down() */
    smp_mb();
    ret = s->prepared && !s->inactive ?
          weir_plugin_call_and_poll(s, do_detach, &force) : 0;
    if (ret != 0 && !force) {
        qatomic_set(&s->is_leaving, false);
        weir_plugin_set_error(s, ret, "cannot be taken out", errp);
        return ret < 0 ? ret : -EINVAL;
    }
    /*
     * One that is able to and has to do its requests itself has the time that
     * it has in any drained section, so that users see no errors.
     */
    if (force && (is_stuck || ret != 0 || !weir_plugin_changes_or_holds(s) ||
                  !qatomic_read(&s->deadline_ms))) {
        weir_plugin_give_up(s, true);
    }
    return 0;
}

static WeirFilterDriver plugin_filter = {
    .format_name     = "weir-plugin",
    .driver          = WEIR_DRIVER_WEIR_PLUGIN,
    /* what it is before it is known which plugin: anything */
    .capabilities    = &(const WeirFilterCapabilities) {
        .q_class      = WEIR_FILTER_CLASS_OTHER,
        .changes_data = true,
        .holds_data   = true,
    },
    .check_options   = plugin_check_options,
    .query           = plugin_query,
    .prepare_detach  = plugin_prepare_detach,
    .prepare_overlay = weir_plugin_prepare_overlay,
    .finish_overlay  = weir_plugin_finish_overlay,
    .list_plugins    = weir_plugin_list_files,
    .describe_plugin = weir_plugin_describe,
};

static BlockDriver bdrv_weir_plugin = {
    .format_name                = "weir-plugin",
    .instance_size              = sizeof(BDRVWeirPluginState),

    .bdrv_open                  = plugin_open,
    .bdrv_close                 = plugin_close,
    .bdrv_child_perm            = weir_plugin_child_perm,
    .bdrv_check_perm            = weir_plugin_check_perm,
    .bdrv_set_perm              = weir_plugin_set_perm,
    .bdrv_refresh_limits        = weir_plugin_refresh_limits,
    .bdrv_reopen_prepare        = plugin_reopen_prepare,
    .bdrv_reopen_commit         = plugin_reopen_commit,
    .bdrv_reopen_abort          = plugin_reopen_abort,
    .strong_runtime_opts        = plugin_strong_options,
    .mutable_opts               = plugin_mutable_options,
    .bdrv_inactivate            = plugin_inactivate,
    .bdrv_co_invalidate_cache   = plugin_co_invalidate_cache,
    .bdrv_drain_begin           = plugin_drain_begin,
    .bdrv_drain_end             = plugin_drain_end,

    .bdrv_co_getlength          = weir_filter_co_getlength,
    .bdrv_co_preadv_part        = weir_plugin_co_preadv_part,
    .bdrv_co_pwritev_part       = weir_plugin_co_pwritev_part,
    .bdrv_co_pwrite_zeroes      = weir_plugin_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = weir_plugin_co_pdiscard,
    .bdrv_co_flush              = weir_plugin_co_flush,
    .bdrv_co_block_status       = weir_plugin_co_block_status,
    .bdrv_co_truncate           = weir_plugin_co_truncate,
    .bdrv_co_copy_range_from    = weir_plugin_co_copy_range_from,
    .bdrv_co_copy_range_to      = weir_plugin_co_copy_range_to,
    .bdrv_co_get_allocated_file_size = weir_plugin_co_get_allocated_file_size,
    .bdrv_snapshot_create       = weir_plugin_snapshot_create,
    .bdrv_snapshot_goto         = weir_plugin_snapshot_goto,
    .bdrv_snapshot_delete       = weir_plugin_snapshot_delete,
    .bdrv_snapshot_list         = weir_plugin_snapshot_list,
    .bdrv_co_save_vmstate       = weir_plugin_co_save_vmstate,
};

static void weir_plugin_init(void)
{
    weir_filter_register(&plugin_filter);
    bdrv_register(&bdrv_weir_plugin);
}

block_init(weir_plugin_init);

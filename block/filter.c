/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of Weir that is linked into every program with block drivers:
 * whatever a driver module looks up must be here.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-events-weir.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "filter.h"

static QLIST_HEAD(, WeirFilterDriver) drivers =
    QLIST_HEAD_INITIALIZER(drivers);

bool weir_filter_check_hotzone(uint64_t bytes, Error **errp)
{
    if (bytes < 4 * KiB || bytes > 1 * GiB) {
        error_setg(errp, "hotzone-size must be between 4 KiB and 1 GiB");
        return false;
    }
    return true;
}

void weir_filter_register(WeirFilterDriver *driver)
{
    QLIST_INSERT_HEAD(&drivers, driver, next);
}

WeirFilterDriver *weir_filter_find_driver(const char *format_name)
{
    WeirFilterDriver *driver;

    QLIST_FOREACH(driver, &drivers, next) {
        if (!strcmp(driver->format_name, format_name)) {
            return driver;
        }
    }
    return NULL;
}

WeirFilterDriver *weir_filter_driver(BlockDriverState *bs)
{
    return bs->drv ? weir_filter_find_driver(bs->drv->format_name) : NULL;
}

BlockDriverState *weir_filter_child(BlockDriverState *bs)
{
    return bs->file ? bs->file->bs : NULL;
}

bool weir_filter_is_unsafe(BlockDriverState *bs)
{
    BdrvChild *c;

    if (bs->open_flags & BDRV_O_NO_FLUSH) {
        return true;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        if (weir_filter_is_unsafe(c->bs)) {
            return true;
        }
    }
    return false;
}

void weir_filter_set_state(BlockDriverState *bs, WeirState state,
                           const char *reason)
{
    WeirFilter *filter = bs->opaque;

    WITH_QEMU_LOCK_GUARD(&filter->lock) {
        if (filter->state == state && !g_strcmp0(filter->reason, reason)) {
            return;
        }
        filter->state = state;
        g_free(filter->reason);
        filter->reason = g_strdup(reason);
        filter->since_s = g_get_real_time() / G_USEC_PER_SEC;
    }
    qapi_event_send_weir_state(bdrv_get_node_name(bs),
                               weir_filter_driver(bs)->driver, state, reason);
}

void weir_filter_emit_rpo(BlockDriverState *bs, uint64_t rpo_ms,
                          uint64_t limit_ms)
{
    qapi_event_send_weir_replication_rpo(bdrv_get_node_name(bs), rpo_ms,
                                         limit_ms);
}

void weir_filter_emit_inspect_alert(BlockDriverState *bs, uint64_t overwrites,
                                    uint64_t suspicious, double share)
{
    qapi_event_send_weir_inspect_alert(bdrv_get_node_name(bs), overwrites,
                                       suspicious, share);
}

void weir_filter_emit_plugin_event(BlockDriverState *bs, const char *plugin,
                                   const char *name, const char *message)
{
    qapi_event_send_weir_plugin_event(bdrv_get_node_name(bs), plugin, name,
                                      message);
}

int64_t weir_filter_begin(WeirFilter *filter, WeirIoOp op)
{
    weir_iostat_begin(&filter->stat, op);
    return get_clock();
}

int weir_filter_end(WeirFilter *filter, WeirIoOp op, int64_t bytes,
                    int64_t begin_ns, int ret)
{
    weir_iostat_end(&filter->stat, op, bytes, get_clock() - begin_ns, ret < 0);
    return ret;
}

static const char orphan_reason[] = "no disk uses the filter any more";
/* Changes of the graph that last shorter than this are not told. */
#define ORPHAN_DELAY_MS 500

/* Main loop, some time after the users have changed. */
static void orphan_timer_cb(void *opaque)
{
    BlockDriverState *bs = opaque;
    WeirFilter *filter = bs->opaque;
    bool was_in_use = filter->in_use;

    filter->in_use = filter->has_parents;
    if (was_in_use && !filter->in_use) {
        weir_filter_set_state(bs, WEIR_STATE_DEGRADED, orphan_reason);
    } else if (filter->in_use) {
        bool was_orphan;

        WITH_QEMU_LOCK_GUARD(&filter->lock) {
            was_orphan = !g_strcmp0(filter->reason, orphan_reason);
        }
        if (was_orphan) {
            weir_filter_set_state(bs, WEIR_STATE_OK, NULL);
        }
    }
}

int weir_filter_inactivate_users(BlockDriverState *bs)
{
    uint64_t perm, shared;
    BdrvChild *user;

    QLIST_FOREACH(user, &bs->parents, next_parent) {
        int ret = user->klass->inactivate ? user->klass->inactivate(user) : 0;

        if (ret < 0) {
            return ret;
        }
    }
    bdrv_get_cumulative_perm(bs, &perm, &shared);
    return perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED) ? -EPERM : 0;
}

void weir_filter_activate_users(BlockDriverState *bs)
{
    BdrvChild *user;

    QLIST_FOREACH(user, &bs->parents, next_parent) {
        if (user->klass->activate) {
            user->klass->activate(user, NULL);
        }
    }
}

void weir_filter_set_in_use(BlockDriverState *bs)
{
    WeirFilter *filter = bs->opaque;

    filter->in_use = true;
}

void weir_filter_child_perm(BlockDriverState *bs, BdrvChild *c,
                            BdrvChildRole role, BlockReopenQueue *queue,
                            uint64_t perm, uint64_t shared, uint64_t *nperm,
                            uint64_t *nshared)
{
    bdrv_default_perms(bs, c, role, queue, perm, shared, nperm, nshared);
    /*
     * Without users, it lies beside those of the node below, who may be about
     * to move over here.  While inactive, it leaves the image to the other
     * side of a migration.
     */
    if (!QLIST_EMPTY(&bs->parents) && !(bs->open_flags & BDRV_O_INACTIVE)) {
        *nshared &= ~BLK_PERM_RESIZE;
    }
}

void weir_filter_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    WeirFilter *filter = bs->opaque;
    bool has_parents = !QLIST_EMPTY(&bs->parents);

    if (has_parents != filter->has_parents) {
        filter->has_parents = has_parents;
        timer_mod(filter->orphan_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ORPHAN_DELAY_MS);
    }
}

void weir_filter_init(BlockDriverState *bs)
{
    WeirFilter *filter = bs->opaque;

    weir_iostat_init(&filter->stat);
    qemu_mutex_init(&filter->lock);
    filter->state = WEIR_STATE_OK;
    filter->since_s = g_get_real_time() / G_USEC_PER_SEC;
    filter->orphan_timer = timer_new_ms(QEMU_CLOCK_REALTIME, orphan_timer_cb,
                                        bs);
}

int weir_filter_open(BlockDriverState *bs, QDict *options, Error **errp)
{
    int ret;

    weir_filter_init(bs);
    ret = bdrv_open_file_child(NULL, options, "file", bs, errp);
    if (ret < 0) {
        weir_filter_close(bs);
    }
    return ret;
}

void weir_filter_close(BlockDriverState *bs)
{
    WeirFilter *filter = bs->opaque;

    g_clear_pointer(&filter->orphan_timer, timer_free);
    g_clear_pointer(&filter->reason, g_free);
    qemu_mutex_destroy(&filter->lock);
}

/* Move @name and "@name.*" from @options to @own. */
static void take_option(QDict *own, QDict *options, const char *name)
{
    g_autofree char *prefix = g_strconcat(name, ".", NULL);
    const QDictEntry *entry, *next;

    for (entry = qdict_first(options); entry; entry = next) {
        const char *key = qdict_entry_key(entry);

        next = qdict_next(options, entry);
        if (!strcmp(key, name) || g_str_has_prefix(key, prefix)) {
            qdict_put_obj(own, key, qobject_ref(qdict_entry_value(entry)));
            qdict_del(options, key);
        }
    }
}

Visitor *weir_filter_options_visitor(QDict *options, const char *const *names,
                                     Error **errp)
{
    g_autoptr(QDict) own = qdict_new();

    for (; *names; names++) {
        take_option(own, options, *names);
    }
    return qobject_input_visitor_new_flat_confused(own, errp);
}

void weir_filter_refresh_limits(BlockDriverState *bs, Error **errp)
{
    BlockDriverState *child = weir_filter_child(bs);

    if (!child) {
        return;
    }
    bs->supported_read_flags = BDRV_REQ_REGISTERED_BUF &
        child->supported_read_flags;
    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_REGISTERED_BUF) &
         child->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
        ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) &
         child->supported_zero_flags);
}

uint64List *weir_histogram_to_qapi(const uint64_t *counts, size_t n)
{
    uint64List *list = NULL;

    while (n > 0 && counts[n - 1] == 0) {
        n--;
    }
    while (n > 0) {
        QAPI_LIST_PREPEND(list, counts[--n]);
    }
    return list;
}

int64_t coroutine_fn weir_filter_co_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

/*
 * The block layer would do the same if the driver had no .bdrv_co_flush,
 * but would not tell how long it took.
 */
int coroutine_fn weir_filter_co_flush(BlockDriverState *bs)
{
    WeirFilter *filter = bs->opaque;
    int64_t begin_ns = weir_filter_begin(filter, WEIR_IO_FLUSH);
    int ret = bdrv_co_flush(bs->file->bs);

    return weir_filter_end(filter, WEIR_IO_FLUSH, 0, begin_ns, ret);
}

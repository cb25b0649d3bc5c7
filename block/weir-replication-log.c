/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node with a replication log.
 *
 * An NBD node whose server hangs is yanked, which ends all that is under way
 * and leaves the node dead; then it is closed, and opened again from its
 * options.  Since opening one waits for the server in the main loop, a
 * connection is made before that, in the background, and thrown away: it tells
 * that the server answers, and how fast.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/nbd.h"
#include "block/qdict.h"
#include "crypto/tlscreds.h"
#include "io/channel.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-yank.h"
#include "qapi/qapi-visit-sockets.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/yank.h"
#include "qobject/qdict.h"
#include "qobject/qstring.h"
#include "qom/object.h"
#include "replication/superblock.h"
#include "filter.h"
#include "weir-replication-log.h"

typedef struct WeirReplicationLogRequest {
    BlockDriverState *bs;
    int64_t begin_ns;
    QTAILQ_ENTRY(WeirReplicationLogRequest) next;
} WeirReplicationLogRequest;

/* --- what the user has told --- */

const char *weir_replication_log_name(const QDict *options)
{
    const char *name = qdict_get_try_str(options, "log");

    return name ? name : qdict_get_try_str(options, "log.node-name");
}

/* What comes before "driver" of the only NBD node in @options, or NULL. */
static char *nbd_prefix(const QDict *options)
{
    for (const QDictEntry *e = qdict_first(options); e;
         e = qdict_next(options, e)) {
        const char *key = qdict_entry_key(e);

        if ((!strcmp(key, "driver") || g_str_has_suffix(key, ".driver")) &&
            !g_strcmp0(qdict_get_try_str(options, key), "nbd")) {
            return g_strndup(key, strlen(key) - strlen("driver"));
        }
    }
    return NULL;
}

bool weir_replication_log_is_remote(const WeirReplicationLog *log)
{
    g_autofree char *prefix = log->options ? nbd_prefix(log->options) : NULL;

    return prefix;
}

bool weir_replication_log_is_unknown(const WeirReplicationLog *log)
{
    return weir_replication_log_is_remote(log) &&
           (!log->child || !log->is_known);
}

static const char *nbd_option(const QDict *options, const char *prefix,
                              const char *name)
{
    g_autofree char *key = g_strconcat(prefix, name, NULL);

    return qdict_get_try_str(options, key);
}

/*
 * The NBD driver would connect again by itself, and nobody would be told that
 * the server has forgotten what it had not flushed.
 */
static int check_reconnect_delay(const QDict *options, Error **errp)
{
    for (const QDictEntry *e = qdict_first(options); e;
         e = qdict_next(options, e)) {
        const char *key = qdict_entry_key(e);

        if (g_str_has_suffix(key, "reconnect-delay") &&
            qdict_get_try_int(options, key, 0) != 0) {
            error_setg(errp, "weir-replication: The log must have no "
                       "reconnect-delay: it connects again by itself");
            return -EINVAL;
        }
    }
    return 0;
}

/* --- nodes --- */

static BlockDriverState *find_nbd(BlockDriverState *bs)
{
    BdrvChild *c;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (!strcmp(bs->drv->format_name, "nbd")) {
        return bs;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        BlockDriverState *nbd = find_nbd(c->bs);

        if (nbd) {
            return nbd;
        }
    }
    return NULL;
}

static char *parent_desc(BdrvChild *child)
{
    return g_strdup("a replication");
}

static AioContext *parent_aio_context(BdrvChild *child)
{
    return qemu_get_aio_context();
}

static void parent_drained_begin(BdrvChild *child)
{
    WeirReplicationLog *log = child->opaque;

    weir_tasks_gate_drain_begin(&log->gate);
}

static void parent_drained_end(BdrvChild *child)
{
    WeirReplicationLog *log = child->opaque;

    weir_tasks_gate_drain_end(&log->gate);
}

/* QEMU goes through the node's parents: this one has to stay. */
static int GRAPH_RDLOCK parent_inactivate(BdrvChild *child)
{
    WeirReplicationLog *log = child->opaque;

    if (!log->is_inactive) {
        log->inactivate(log->opaque);
        log->is_inactive = true;
        weir_replication_log_release(log);
    }
    return 0;
}

static void GRAPH_RDLOCK parent_activate(BdrvChild *child, Error **errp)
{
    WeirReplicationLog *log = child->opaque;

    log->is_inactive = false;
    log->activate(log->opaque);
}

/* No .change_aio_ctx: it is used in the main loop, and stays there. */
static const BdrvChildClass child_of_replication = {
    .get_parent_desc        = parent_desc,
    .get_parent_aio_context = parent_aio_context,
    .drained_begin          = parent_drained_begin,
    .drained_end            = parent_drained_end,
    .inactivate             = parent_inactivate,
    .activate               = parent_activate,
};

static int attach_node(WeirReplicationLog *log, BlockDriverState *bs,
                       Error **errp)
{
    bdrv_ref(bs);                       /* that of the child */
    bdrv_graph_wrlock();
    log->child = bdrv_root_attach_child(bs, "log", &child_of_replication, 0, 0,
                                        BLK_PERM_ALL, log, errp);
    bdrv_graph_wrunlock();
    return log->child ? 0 : -EPERM;
}

static bool is_unsafe(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return weir_filter_is_unsafe(bs);
}

static int insert_node(WeirReplicationLog *log, BlockDriverState *bs,
                       bool is_ours, Error **errp)
{
    int ret;

    if (is_unsafe(bs)) {
        error_setg(errp, "weir-replication: The log '%s', or a node below, is "
                   "opened with cache.no-flush: nothing there is known to be "
                   "durable", bdrv_get_node_name(bs));
        return -EINVAL;
    }
    if (find_nbd(bs) && !weir_replication_log_is_remote(log)) {
        error_setg(errp, "weir-replication: The log '%s' is above an NBD node "
                   "with a name of its own; give that node itself, or all of "
                   "the log's options", bdrv_get_node_name(bs));
        return -EINVAL;
    }
    ret = attach_node(log, bs, errp);
    if (ret == 0) {
        log->is_ours = is_ours;
        weir_replication_log_is_inactive(log);
        log->hangs = false;
        log->broken = false;
    }
    return ret;
}

/* As "blockdev-add" has them. */
static void set_defaults(QDict *options)
{
    qdict_set_default_str(options, BDRV_OPT_CACHE_DIRECT, "off");
    qdict_set_default_str(options, BDRV_OPT_CACHE_NO_FLUSH, "off");
    qdict_set_default_str(options, BDRV_OPT_READ_ONLY, "off");
    qdict_set_default_str(options, BDRV_OPT_AUTO_READ_ONLY, "off");
}

/* The server answers, or has just done so. */
static void set_open_timeout(QDict *options)
{
    g_autofree char *prefix = nbd_prefix(options);
    g_autofree char *key = g_strconcat(prefix ?: "", "open-timeout", NULL);

    if (prefix) {
        qdict_put_int(options, key, 2);
    }
}

int weir_replication_log_open(WeirReplicationLog *log, Error **errp)
{
    QDict *options = qdict_clone_shallow(log->options);
    BlockDriverState *bs;
    int ret;

    set_defaults(options);
    set_open_timeout(options);
    bs = bdrv_open(NULL, NULL, options, 0, errp);
    if (!bs) {
        return -EIO;
    }
    ret = insert_node(log, bs, true, errp);
    bdrv_unref(bs);
    return ret;
}

void weir_replication_log_close(WeirReplicationLog *log)
{
    BdrvChild *child = g_steal_pointer(&log->child);

    if (child) {
        bdrv_drained_begin(child->bs);
        bdrv_drained_end(child->bs);
        bdrv_graph_wrlock();
        bdrv_root_unref_child(child);
        bdrv_graph_wrunlock();
    }
}

int weir_replication_log_claim(WeirReplicationLog *log, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    log->broken = false;
    return bdrv_child_try_set_perm(log->child,
                                   BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                                   BLK_PERM_CONSISTENT_READ, errp);
}

void weir_replication_log_release(WeirReplicationLog *log)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (log->child) {
        bdrv_child_try_set_perm(log->child, 0, BLK_PERM_ALL, NULL);
    }
}

static int open_reference(WeirReplicationLog *log, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(log->node_name);

    if (!bs) {
        error_setg(errp, "weir-replication: Cannot find the log '%s'",
                   log->node_name);
        return -ENOENT;
    }
    if (!strcmp(bs->drv->format_name, "nbd")) {
        log->options = qdict_clone_shallow(bs->explicit_options);
        qdict_del(log->options, "node-name");
        if (check_reconnect_delay(log->options, errp) < 0) {
            return -EINVAL;
        }
    }
    return insert_node(log, bs, false, errp);
}

static int open_definition(WeirReplicationLog *log, bool inactive, Error **errp)
{
    if (check_reconnect_delay(log->options, errp) < 0) {
        return -EINVAL;
    }
    if (inactive || weir_replication_log_is_remote(log)) {
        return 0;                       /* when it is needed, and is there */
    }
    return weir_replication_log_open(log, errp);
}

/* --- begin and end --- */

/* Whatever does not answer in time is cut off. */
static void cut_off(WeirReplicationLog *log)
{
    BlockDriverState *nbd = log->child ? find_nbd(log->child->bs) : NULL;
    YankInstanceList list = { 0 };

    log->hangs = true;
    if (nbd) {
        list.value = BLOCKDEV_YANK_INSTANCE(nbd->node_name);
        qmp_yank(&list, NULL);
    }
}

static int64_t patience_ns(const WeirReplicationLog *log)
{
    uint32_t ms = log->hurry_ms ? MIN(log->hurry_ms, log->timeout_ms)
                                : log->timeout_ms;

    return (int64_t)ms * SCALE_MS;
}

static void watchdog_cb(void *opaque)
{
    WeirReplicationLog *log = opaque;
    WeirReplicationLogRequest *oldest = QTAILQ_FIRST(&log->requests);
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), until_ns;

    if (!oldest) {
        return;
    }
    until_ns = oldest->begin_ns + patience_ns(log);
    if (until_ns <= now_ns) {
        cut_off(log);
        /* once more, if it goes on nevertheless */
        until_ns = now_ns + patience_ns(log);
    }
    timer_mod_ns(log->watchdog, until_ns);
}

void weir_replication_log_hurry(WeirReplicationLog *log, uint32_t ms)
{
    WeirReplicationLogRequest *oldest = QTAILQ_FIRST(&log->requests);

    log->hurry_ms = ms;
    if (oldest) {
        timer_mod_ns(log->watchdog, oldest->begin_ns + patience_ns(log));
    }
}

int weir_replication_log_init(WeirReplicationLog *log, QDict *options,
                              bool inactive, Error **errp)
{
    const char *reference = qdict_get_try_str(options, "log");
    QDict *definition = NULL;
    int ret;

    log->node_name = g_strdup(weir_replication_log_name(options));
    QTAILQ_INIT(&log->requests);
    weir_tasks_gate_init(&log->gate);
    /* also while somebody polls, who may wait for what has to be cut off */
    log->watchdog = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                                  SCALE_NS, watchdog_cb, log);
    if (reference) {
        ret = open_reference(log, errp);
        qdict_del(options, "log");
    } else {
        qdict_extract_subqdict(options, &definition, "log.");
        log->options = definition;
        ret = open_definition(log, inactive, errp);
    }
    if (ret < 0) {
        weir_replication_log_destroy(log);
    }
    return ret;
}

void weir_replication_log_destroy(WeirReplicationLog *log)
{
    weir_replication_log_close(log);
    timer_free(log->watchdog);
    weir_tasks_gate_destroy(&log->gate);
    qobject_unref(log->options);
    g_free(log->node_name);
}

bool weir_replication_log_is_open(const WeirReplicationLog *log)
{
    return log->child;
}

BlockDriverState *weir_replication_log_node(const WeirReplicationLog *log)
{
    return log->child ? log->child->bs : NULL;
}

/* It is told so before it is; and then something else may be against it. */
bool weir_replication_log_is_inactive(WeirReplicationLog *log)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    log->is_inactive = log->child && bdrv_is_inactive(log->child->bs);
    return log->is_inactive;
}

bool weir_replication_log_is_idle(const WeirReplicationLog *log)
{
    return QTAILQ_EMPTY(&log->requests);
}

/* --- is the server there? --- */

static QCryptoTLSCreds *find_tls_creds(const char *id, Error **errp)
{
    Object *obj = object_resolve_path_component(object_get_objects_root(), id);

    if (!obj || !object_dynamic_cast(obj, TYPE_QCRYPTO_TLS_CREDS)) {
        error_setg(errp, "there are no TLS credentials '%s'", id);
        return NULL;
    }
    return QCRYPTO_TLS_CREDS(obj);
}

static SocketAddress *server_address(const QDict *options, const char *prefix,
                                     Error **errp)
{
    g_autofree char *key = g_strconcat(prefix, "server.", NULL);
    g_autoptr(QDict) clone = qdict_clone_shallow(options);
    g_autoptr(QDict) server = NULL;
    SocketAddress *address = NULL;
    Visitor *v;

    qdict_extract_subqdict(clone, &server, key);
    v = qobject_input_visitor_new_flat_confused(server, errp);
    if (v) {
        visit_type_SocketAddress(v, NULL, &address, errp);
        visit_free(v);
    }
    return address;
}

static NBDClientConnection *new_probe(const QDict *options, Error **errp)
{
    g_autofree char *prefix = nbd_prefix(options);
    g_autoptr(SocketAddress) address = server_address(options, prefix, errp);
    const char *creds_id = nbd_option(options, prefix, "tls-creds");
    const char *hostname = nbd_option(options, prefix, "tls-hostname");
    QCryptoTLSCreds *creds = NULL;

    if (!address) {
        return NULL;
    }
    if (creds_id) {
        creds = find_tls_creds(creds_id, errp);
        if (!creds) {
            return NULL;
        }
        if (!hostname && address->type == SOCKET_ADDRESS_TYPE_INET) {
            hostname = address->u.inet.host;
        }
    }
    return nbd_client_connection_new(address, true,
                                     nbd_option(options, prefix, "export"),
                                     NULL, creds, hostname);
}

static void probe_timed_out(void *opaque)
{
    weir_replication_log_cancel_probe(opaque);
}

int coroutine_fn weir_replication_log_probe(WeirReplicationLog *log,
                                            Error **errp)
{
    NBDExportInfo info = { 0 };
    QEMUTimer timer;
    QIOChannel *ioc;

    log->probe = new_probe(log->options, errp);
    if (!log->probe) {
        return -EINVAL;
    }
    aio_timer_init(qemu_get_aio_context(), &timer, QEMU_CLOCK_REALTIME,
                   SCALE_MS, probe_timed_out, log);
    timer_mod(&timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              log->timeout_ms);
    ioc = nbd_co_establish_connection(log->probe, &info, true, errp);
    timer_del(&timer);
    nbd_client_connection_release(g_steal_pointer(&log->probe));
    if (!ioc) {
        return -ECONNREFUSED;
    }
    qio_channel_close(ioc, NULL);
    object_unref(OBJECT(ioc));
    if (!(info.flags & NBD_FLAG_SEND_FLUSH)) {
        error_setg(errp, "its server cannot flush, so nothing there is known "
                   "to be durable");
        return -ENOTSUP;
    }
    log->is_known = true;
    return 0;
}

void weir_replication_log_cancel_probe(WeirReplicationLog *log)
{
    if (log->probe) {
        nbd_co_establish_connection_cancel(log->probe);
    }
}

/* --- I/O --- */

/* From here to the end of it, nodes neither come nor go. */
static int coroutine_fn TSA_NO_TSA begin_request(WeirReplicationLog *log,
                                                 WeirReplicationLogRequest *r)
{
    weir_tasks_gate_enter(&log->gate);
    if (!log->child || log->is_inactive || log->broken) {
        bdrv_graph_co_rdunlock();
        return -ENOTCONN;
    }
    r->bs = log->child->bs;
    bdrv_inc_in_flight(r->bs);
    r->begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    QTAILQ_INSERT_TAIL(&log->requests, r, next);
    if (!timer_pending(log->watchdog)) {
        timer_mod_ns(log->watchdog, r->begin_ns + patience_ns(log));
    }
    return 0;
}

static int coroutine_fn TSA_NO_TSA end_request(WeirReplicationLog *log,
                                               WeirReplicationLogRequest *r,
                                               int ret)
{
    bdrv_dec_in_flight(r->bs);
    bdrv_graph_co_rdunlock();
    QTAILQ_REMOVE(&log->requests, r, next);
    log->last_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (ret < 0) {
        log->broken = weir_replication_log_is_remote(log);
    } else if (log->hangs) {
        /* an answer that was there when it was cut off changes nothing */
        log->hangs = weir_replication_log_is_remote(log);
    }
    return MIN(ret, 0);
}

/* The block layer wants to have it checked. */
static bool is_within(const WeirReplicationLogRequest *r, uint64_t offset,
                      uint64_t bytes)
{
    uint64_t end = r->bs->total_sectors * BDRV_SECTOR_SIZE;

    return offset <= end && bytes <= end - offset;
}

int64_t coroutine_fn TSA_NO_TSA
weir_replication_log_bytes(WeirReplicationLog *log)
{
    WeirReplicationLogRequest r;
    int64_t bytes = begin_request(log, &r);
    int ret;

    if (bytes < 0) {
        return bytes;
    }
    bytes = bdrv_co_getlength(r.bs);
    ret = end_request(log, &r, MIN(bytes, 0));
    return ret < 0 ? ret : bytes;
}

int coroutine_fn TSA_NO_TSA
weir_replication_log_read(WeirReplicationLog *log, uint64_t offset,
                          uint64_t bytes, void *buf)
{
    WeirReplicationLogRequest r;
    int ret = begin_request(log, &r);

    if (ret < 0) {
        return ret;
    }
    ret = is_within(&r, offset, bytes)
          ? bdrv_co_pread(log->child, offset, bytes, buf, 0) : -EIO;
    return end_request(log, &r, ret);
}

/* More than a socket or a file takes at a time. */
static int coroutine_fn GRAPH_RDLOCK
write_copy(WeirReplicationLog *log, uint64_t offset, uint64_t bytes,
           QEMUIOVector *qiov)
{
    void *copy = qemu_try_memalign(WEIR_LOG_ALIGN_BYTES, bytes);
    int ret;

    if (!copy) {
        return -ENOMEM;
    }
    qemu_iovec_to_buf(qiov, 0, copy, bytes);
    ret = bdrv_co_pwrite(log->child, offset, bytes, copy, 0);
    qemu_vfree(copy);
    return ret;
}

int coroutine_fn TSA_NO_TSA
weir_replication_log_write(WeirReplicationLog *log, uint64_t offset,
                           uint64_t bytes, const struct iovec *iov,
                           size_t niov)
{
    WeirReplicationLogRequest r;
    QEMUIOVector qiov;
    int ret = begin_request(log, &r);

    if (ret < 0) {
        return ret;
    }
    qemu_iovec_init_external(&qiov, (struct iovec *)(uintptr_t)iov, niov);
    ret = !is_within(&r, offset, bytes) ? -EIO :
          niov > IOV_MAX ? write_copy(log, offset, bytes, &qiov)
                         : bdrv_co_pwritev(log->child, offset, bytes, &qiov,
                                           0);
    return end_request(log, &r, ret);
}

/* Whether it was the server that has failed a request, or is none there. */
static bool coroutine_fn GRAPH_RDLOCK has_server(WeirReplicationLog *log)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];

    return !weir_replication_log_is_remote(log) ||
           (!log->hangs && !log->broken &&
            bdrv_co_pread(log->child, 0, sizeof(buf), buf, 0) >= 0);
}

int coroutine_fn TSA_NO_TSA
weir_replication_log_flush(WeirReplicationLog *log)
{
    WeirReplicationLogRequest r;
    int ret = begin_request(log, &r);

    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_flush(r.bs);
    if (ret < 0 && !has_server(log)) {
        ret = -ENOTCONN;
    }
    return end_request(log, &r, ret);
}

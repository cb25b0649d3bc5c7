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
#include "weir-replication-log.h"

typedef struct WeirReplicationLogRequest {
    int64_t until_ns;           /* it should have ended by then */
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

static int insert_node(WeirReplicationLog *log, BlockDriverState *bs,
                       Error **errp)
{
    int ret;

    if (find_nbd(bs) && !weir_replication_log_is_remote(log)) {
        error_setg(errp, "weir-replication: The log '%s' is above an NBD node "
                   "with a name of its own; give that node itself, or all of "
                   "the log's options", bdrv_get_node_name(bs));
        return -EINVAL;
    }
    ret = blk_insert_bs(log->blk, bs, errp);
    if (ret == 0) {
        log->hangs = false;
        log->broken = false;
        blk_add_remove_bs_notifier(log->blk, &log->remove_notifier);
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
    ret = insert_node(log, bs, errp);
    bdrv_unref(bs);
    return ret;
}

void weir_replication_log_close(WeirReplicationLog *log)
{
    if (blk_bs(log->blk)) {
        log->closing = true;
        blk_remove_bs(log->blk);
        log->closing = false;
    }
}

int weir_replication_log_claim(WeirReplicationLog *log, Error **errp)
{
    log->broken = false;
    return blk_set_perm(log->blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                        BLK_PERM_CONSISTENT_READ, errp);
}

void weir_replication_log_release(WeirReplicationLog *log)
{
    blk_set_perm(log->blk, 0, BLK_PERM_ALL, NULL);
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
    return insert_node(log, bs, errp);
}

static int open_definition(WeirReplicationLog *log, Error **errp)
{
    if (check_reconnect_delay(log->options, errp) < 0) {
        return -EINVAL;
    }
    if (weir_replication_log_is_remote(log)) {
        return 0;                       /* when its server answers */
    }
    return weir_replication_log_open(log, errp);
}

/* --- begin and end --- */

static void node_removed(Notifier *notifier, void *data)
{
    WeirReplicationLog *log = container_of(notifier, WeirReplicationLog,
                                           remove_notifier);

    notifier_remove(notifier);
    if (!log->closing && log->removed) {
        log->removed(log->opaque);
    }
}

static void node_drained_begin(void *opaque)
{
    WeirReplicationLog *log = opaque;

    weir_tasks_gate_drain_begin(&log->gate);
}

static void node_drained_end(void *opaque)
{
    WeirReplicationLog *log = opaque;

    weir_tasks_gate_drain_end(&log->gate);
}

static const BlockDevOps node_ops = {
    .drained_begin = node_drained_begin,
    .drained_end   = node_drained_end,
};

/* Whatever does not answer in time is cut off. */
static void cut_off(WeirReplicationLog *log)
{
    BlockDriverState *bs = blk_bs(log->blk);
    BlockDriverState *nbd = bs ? find_nbd(bs) : NULL;
    YankInstanceList list = { 0 };

    log->hangs = true;
    if (nbd) {
        list.value = BLOCKDEV_YANK_INSTANCE(nbd->node_name);
        qmp_yank(&list, NULL);
    }
}

static int64_t timeout_ns(const WeirReplicationLog *log)
{
    return (int64_t)log->timeout_ms * SCALE_MS;
}

static void watchdog_cb(void *opaque)
{
    WeirReplicationLog *log = opaque;
    WeirReplicationLogRequest *oldest = QTAILQ_FIRST(&log->requests);
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (!oldest) {
        return;
    }
    if (oldest->until_ns <= now_ns) {
        cut_off(log);
        /* once more, if it goes on nevertheless */
        timer_mod_ns(log->watchdog, now_ns + timeout_ns(log));
    } else {
        timer_mod_ns(log->watchdog, oldest->until_ns);
    }
}

int weir_replication_log_init(WeirReplicationLog *log, QDict *options,
                              Error **errp)
{
    const char *reference = qdict_get_try_str(options, "log");
    QDict *definition = NULL;
    int ret;

    log->node_name = g_strdup(weir_replication_log_name(options));
    QTAILQ_INIT(&log->requests);
    weir_tasks_gate_init(&log->gate);
    log->remove_notifier.notify = node_removed;
    /* also while somebody polls, who may wait for what has to be cut off */
    log->watchdog = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                                  SCALE_NS, watchdog_cb, log);
    log->blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
    blk_set_disable_request_queuing(log->blk, true);
    blk_set_dev_ops(log->blk, &node_ops, log);
    if (reference) {
        ret = open_reference(log, errp);
        qdict_del(options, "log");
    } else {
        qdict_extract_subqdict(options, &definition, "log.");
        log->options = definition;
        ret = open_definition(log, errp);
    }
    if (ret < 0) {
        weir_replication_log_destroy(log);
    }
    return ret;
}

void weir_replication_log_destroy(WeirReplicationLog *log)
{
    weir_replication_log_close(log);
    blk_unref(log->blk);
    timer_free(log->watchdog);
    weir_tasks_gate_destroy(&log->gate);
    qobject_unref(log->options);
    g_free(log->node_name);
}

bool weir_replication_log_is_open(const WeirReplicationLog *log)
{
    return blk_bs(log->blk);
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
    return 0;
}

void weir_replication_log_cancel_probe(WeirReplicationLog *log)
{
    if (log->probe) {
        nbd_co_establish_connection_cancel(log->probe);
    }
}

/* --- I/O --- */

static int coroutine_fn begin_request(WeirReplicationLog *log,
                                      WeirReplicationLogRequest *r)
{
    weir_tasks_gate_pass(&log->gate);
    if (!blk_bs(log->blk) || log->broken) {
        return -ENOTCONN;
    }
    r->until_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + timeout_ns(log);
    QTAILQ_INSERT_TAIL(&log->requests, r, next);
    if (!timer_pending(log->watchdog)) {
        timer_mod_ns(log->watchdog, r->until_ns);
    }
    return 0;
}

static int end_request(WeirReplicationLog *log, WeirReplicationLogRequest *r,
                       int ret)
{
    QTAILQ_REMOVE(&log->requests, r, next);
    log->last_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (ret < 0) {
        log->broken = weir_replication_log_is_remote(log);
    } else if (!weir_replication_log_is_remote(log)) {
        log->hangs = false;             /* a server was cut off for good */
    }
    return MIN(ret, 0);
}

int64_t coroutine_fn weir_replication_log_bytes(WeirReplicationLog *log)
{
    return blk_bs(log->blk) ? blk_co_getlength(log->blk) : -ENOTCONN;
}

int coroutine_fn weir_replication_log_read(WeirReplicationLog *log,
                                           uint64_t offset, uint64_t bytes,
                                           void *buf)
{
    WeirReplicationLogRequest r;
    int ret = begin_request(log, &r);

    return ret < 0 ? ret : end_request(log, &r, blk_co_pread(log->blk, offset,
                                                             bytes, buf, 0));
}

/* More than a socket or a file takes at a time. */
static int coroutine_fn write_copy(WeirReplicationLog *log, uint64_t offset,
                                   uint64_t bytes, QEMUIOVector *qiov)
{
    void *copy = qemu_try_memalign(WEIR_LOG_ALIGN_BYTES, bytes);
    int ret;

    if (!copy) {
        return -ENOMEM;
    }
    qemu_iovec_to_buf(qiov, 0, copy, bytes);
    ret = blk_co_pwrite(log->blk, offset, bytes, copy, 0);
    qemu_vfree(copy);
    return ret;
}

int coroutine_fn weir_replication_log_write(WeirReplicationLog *log,
                                            uint64_t offset, uint64_t bytes,
                                            const struct iovec *iov,
                                            size_t niov)
{
    WeirReplicationLogRequest r;
    QEMUIOVector qiov;
    int ret = begin_request(log, &r);

    if (ret < 0) {
        return ret;
    }
    qemu_iovec_init_external(&qiov, (struct iovec *)(uintptr_t)iov, niov);
    ret = niov > IOV_MAX ? write_copy(log, offset, bytes, &qiov)
                         : blk_co_pwritev(log->blk, offset, bytes, &qiov, 0);
    return end_request(log, &r, ret);
}

/* Whether it was the server that has failed a request, or is none there. */
static bool coroutine_fn has_server(WeirReplicationLog *log)
{
    uint8_t buf[WEIR_LOG_SUPERBLOCK_BYTES];

    return !weir_replication_log_is_remote(log) ||
           (!log->hangs && !log->broken &&
            blk_co_pread(log->blk, 0, sizeof(buf), buf, 0) >= 0);
}

int coroutine_fn weir_replication_log_flush(WeirReplicationLog *log)
{
    WeirReplicationLogRequest r;
    int ret = begin_request(log, &r);

    if (ret < 0) {
        return ret;
    }
    ret = blk_co_flush(log->blk);
    if (ret < 0 && !has_server(log)) {
        ret = -ENOTCONN;
    }
    return end_request(log, &r, ret);
}

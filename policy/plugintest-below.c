/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD protocol as in doc/proto.md of NBD: fixed newstyle handshake, simple
 * replies.  Each connection has a thread that reads requests and one that does
 * them when they are due.
 */
#include "plugintest-below.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BELOW_BLOCK 4096
#define BELOW_MAX_BYTES (32u << 20)
#define BELOW_MAX_OPTION_BYTES 4096

#define NBD_MAGIC "NBDMAGIC"
#define NBD_IHAVEOPT "IHAVEOPT"
#define NBD_REPLY_MAGIC 0x0003e889045565a9ULL
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
enum {
    NBD_OPT_ABORT = 2,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
};
#define NBD_REP_ACK 1u
#define NBD_REP_INFO 3u
#define NBD_REP_ERR_UNSUP 0x80000001u
/* HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN */
#define NBD_FLAGS (1 | 4 | 8 | 0x20 | 0x40 | 0x100)
#define NBD_CMD_FLAG_FUA 1
enum {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_WRITE_ZEROES = 6,
};

struct WeirBelow {
    char *path;
    guint64 bytes;
    int listener;
    GThread *thread;

    GMutex lock;                /* of all that follows */
    guint8 *data;               /* as reads see it */
    guint8 *durable;
    guint8 *dirty;              /* a byte per block: not flushed */
    guint fail_kinds;
    int fail_error;
    guint delay_us;
    GRand *rand;
    char *forbidden_name;
    guint64 forbidden;
    guint64 reads, writes, flushes, discards;
    GPtrArray *connections;     /* Connection */
};

typedef struct Connection {
    WeirBelow *below;
    int fd;
    char *name;                 /* of the export */
    GThread *reader;
    GThread *worker;
    GMutex lock;
    GCond changed;
    GPtrArray *requests;        /* Request */
    bool is_over;
} Connection;

typedef struct Request {
    guint16 flags;
    guint16 type;
    guint64 cookie;             /* as it is on the wire */
    guint64 offset;
    guint32 bytes;
    guint8 *data;
    int error;                  /* known when it came */
    gint64 due_us;
} Request;

static void request_free(Request *request)
{
    if (request) {
        g_free(request->data);
        g_free(request);
    }
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Request, request_free)

/* --- the disk --- */

static guint request_kind(const Request *request)
{
    switch (request->type) {
    case NBD_CMD_READ:
        return WEIR_BELOW_READ;
    case NBD_CMD_FLUSH:
        return WEIR_BELOW_FLUSH;
    case NBD_CMD_TRIM:
        return WEIR_BELOW_DISCARD;
    default:
        return WEIR_BELOW_WRITE;
    }
}

static void below_flush(WeirBelow *below)
{
    for (guint64 i = 0; i * BELOW_BLOCK < below->bytes; i++) {
        guint64 at = i * BELOW_BLOCK;

        if (below->dirty[i]) {
            memcpy(below->durable + at, below->data + at,
                   MIN(BELOW_BLOCK, below->bytes - at));
            below->dirty[i] = 0;
        }
    }
}

static void below_write(WeirBelow *below, const Request *request)
{
    guint64 offset = request->offset, end = offset + request->bytes;

    switch (request->type) {
    case NBD_CMD_WRITE:
        memcpy(below->data + offset, request->data, request->bytes);
        break;
    case NBD_CMD_WRITE_ZEROES:
        memset(below->data + offset, 0, request->bytes);
        break;
    default:                    /* of no use to anybody: anything */
        memset(below->data + offset, 0xd1, request->bytes);
    }
    if (request->flags & NBD_CMD_FLAG_FUA) {
        memcpy(below->durable + offset, below->data + offset, request->bytes);
        return;
    }
    for (guint64 i = offset / BELOW_BLOCK; i * BELOW_BLOCK < end; i++) {
        below->dirty[i] = 1;
    }
}

static void below_note(WeirBelow *below, const Request *request,
                       const char *name)
{
    guint kind = request_kind(request);

    below->reads += kind == WEIR_BELOW_READ;
    below->writes += kind == WEIR_BELOW_WRITE;
    below->flushes += kind == WEIR_BELOW_FLUSH;
    below->discards += kind == WEIR_BELOW_DISCARD;
    if ((kind == WEIR_BELOW_WRITE || kind == WEIR_BELOW_DISCARD) &&
        g_strcmp0(name, below->forbidden_name) == 0) {
        below->forbidden++;
    }
}

/*
 * What is decided when a request comes: how long it takes, and whether it
 * fails.  A flush makes durable what was done before it came, nothing else.
 */
static void below_accept(WeirBelow *below, Request *request, const char *name)
{
    bool has_range = request->type != NBD_CMD_FLUSH;

    g_mutex_lock(&below->lock);
    below_note(below, request, name);
    request->due_us = g_get_monotonic_time();
    if (below->delay_us) {
        request->due_us += g_rand_int_range(below->rand, 0,
                                            (gint32)below->delay_us);
    }
    if (below->fail_kinds & request_kind(request)) {
        request->error = below->fail_error;
    } else if (has_range && (request->offset > below->bytes || request->bytes >
                             below->bytes - request->offset)) {
        request->error = EINVAL;
    } else if (!has_range) {
        below_flush(below);
    }
    g_mutex_unlock(&below->lock);
}

static void below_do(WeirBelow *below, Request *request)
{
    if (request->error || request->type == NBD_CMD_FLUSH) {
        return;
    }
    g_mutex_lock(&below->lock);
    if (request->type == NBD_CMD_READ) {
        memcpy(request->data, below->data + request->offset, request->bytes);
    } else {
        below_write(below, request);
    }
    g_mutex_unlock(&below->lock);
}

/* --- bytes --- */

static bool receive(int fd, void *data, gsize bytes)
{
    while (bytes > 0) {
        ssize_t n = recv(fd, data, bytes, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data = (char *)data + n;
        bytes -= (gsize)n;
    }
    return true;
}

static bool transmit(int fd, const void *data, gsize bytes)
{
    while (bytes > 0) {
        ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data = (const char *)data + n;
        bytes -= (gsize)n;
    }
    return true;
}

static void put(GByteArray *out, guint64 value, guint bytes)
{
    guint64 big = GUINT64_TO_BE(value);

    g_byte_array_append(out, (guint8 *)&big + 8 - bytes, bytes);
}

static guint64 get(const guint8 *in, guint bytes)
{
    guint64 value = 0;

    while (bytes-- > 0) {
        value = value << 8 | *in++;
    }
    return value;
}

/* --- handshake --- */

static bool send_option_reply(int fd, guint32 option, guint32 type,
                              const guint8 *data, guint bytes)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    put(out, NBD_REPLY_MAGIC, 8);
    put(out, option, 4);
    put(out, type, 4);
    put(out, bytes, 4);
    g_byte_array_append(out, data, bytes);
    return transmit(fd, out->data, out->len);
}

static bool send_info(Connection *connection, guint32 option)
{
    g_autoptr(GByteArray) size = g_byte_array_new();
    g_autoptr(GByteArray) blocks = g_byte_array_new();
    guint8 nothing = 0;

    put(size, 0, 2);                    /* NBD_INFO_EXPORT */
    put(size, connection->below->bytes, 8);
    put(size, NBD_FLAGS, 2);
    put(blocks, 3, 2);                  /* NBD_INFO_BLOCK_SIZE */
    put(blocks, 1, 4);
    put(blocks, BELOW_BLOCK, 4);
    put(blocks, BELOW_MAX_BYTES, 4);
    return send_option_reply(connection->fd, option, NBD_REP_INFO, size->data,
                             size->len) &&
           send_option_reply(connection->fd, option, NBD_REP_INFO,
                             blocks->data, blocks->len) &&
           send_option_reply(connection->fd, option, NBD_REP_ACK, &nothing, 0);
}

/* Returns whether the connection goes on; *done: with requests. */
static bool handle_option(Connection *connection, bool *done)
{
    guint8 head[16], data[BELOW_MAX_OPTION_BYTES];
    guint32 option, bytes, name_bytes;

    if (!receive(connection->fd, head, sizeof(head)) ||
        memcmp(head, NBD_IHAVEOPT, 8) != 0) {
        return false;
    }
    option = (guint32)get(head + 8, 4);
    bytes = (guint32)get(head + 12, 4);
    if (bytes > sizeof(data) || !receive(connection->fd, data, bytes)) {
        return false;
    }
    if (option == NBD_OPT_ABORT) {
        return false;
    }
    if ((option != NBD_OPT_GO && option != NBD_OPT_INFO) || bytes < 6) {
        return send_option_reply(connection->fd, option, NBD_REP_ERR_UNSUP,
                                 data, 0);
    }
    name_bytes = (guint32)get(data, 4);
    if (name_bytes > bytes - 6) {
        return false;
    }
    g_free(connection->name);
    connection->name = g_strndup((char *)data + 4, name_bytes);
    *done = option == NBD_OPT_GO;
    return send_info(connection, option);
}

static bool handshake(Connection *connection)
{
    guint8 flags[4];
    bool done = false;

    /* fixed newstyle, no zeroes */
    if (!transmit(connection->fd, NBD_MAGIC NBD_IHAVEOPT "\0\3", 18) ||
        !receive(connection->fd, flags, sizeof(flags))) {
        return false;
    }
    while (!done) {
        if (!handle_option(connection, &done)) {
            return false;
        }
    }
    return true;
}

/* --- requests --- */

static Request *receive_request(Connection *connection)
{
    g_autoptr(Request) request = g_new0(Request, 1);
    guint8 head[28];

    if (!receive(connection->fd, head, sizeof(head)) ||
        get(head, 4) != NBD_REQUEST_MAGIC) {
        return NULL;
    }
    request->flags = (guint16)get(head + 4, 2);
    request->type = (guint16)get(head + 6, 2);
    request->cookie = get(head + 8, 8);
    request->offset = get(head + 16, 8);
    request->bytes = (guint32)get(head + 24, 4);
    if (request->type == NBD_CMD_DISC) {
        return NULL;
    }
    if (request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE) {
        if (request->bytes > BELOW_MAX_BYTES) {
            return NULL;
        }
        request->data = g_malloc(request->bytes);
    }
    if (request->type == NBD_CMD_WRITE &&
        !receive(connection->fd, request->data, request->bytes)) {
        return NULL;
    }
    return g_steal_pointer(&request);
}

static bool send_reply(Connection *connection, const Request *request)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    put(out, NBD_SIMPLE_REPLY_MAGIC, 4);
    put(out, (guint64)request->error, 4);
    put(out, request->cookie, 8);
    if (!transmit(connection->fd, out->data, out->len)) {
        return false;
    }
    return request->type != NBD_CMD_READ || request->error ||
           transmit(connection->fd, request->data, request->bytes);
}

/* The one that is due next; waits.  NULL: it is over. */
static Request *take_request(Connection *connection)
{
    Request *found = NULL;

    g_mutex_lock(&connection->lock);
    while (!connection->is_over && !found) {
        GPtrArray *requests = connection->requests;
        guint first = 0;
        Request *next;

        if (requests->len == 0) {
            g_cond_wait(&connection->changed, &connection->lock);
            continue;
        }
        for (guint i = 1; i < requests->len; i++) {
            if (((Request *)requests->pdata[i])->due_us <
                ((Request *)requests->pdata[first])->due_us) {
                first = i;
            }
        }
        next = requests->pdata[first];
        if (next->due_us <= g_get_monotonic_time()) {
            found = g_ptr_array_steal_index(requests, first);
        } else {
            g_cond_wait_until(&connection->changed, &connection->lock,
                              next->due_us);
        }
    }
    g_mutex_unlock(&connection->lock);
    return found;
}

static gpointer worker_run(gpointer opaque)
{
    Connection *connection = opaque;

    for (;;) {
        g_autoptr(Request) request = take_request(connection);

        if (!request) {
            return NULL;
        }
        below_do(connection->below, request);
        if (!send_reply(connection, request)) {
            shutdown(connection->fd, SHUT_RDWR);
        }
    }
}

static gpointer reader_run(gpointer opaque)
{
    Connection *connection = opaque;
    Request *request;

    if (handshake(connection)) {
        connection->worker = g_thread_new("below-worker", worker_run,
                                          connection);
        while ((request = receive_request(connection))) {
            below_accept(connection->below, request, connection->name);
            g_mutex_lock(&connection->lock);
            g_ptr_array_add(connection->requests, request);
            g_cond_signal(&connection->changed);
            g_mutex_unlock(&connection->lock);
        }
        g_mutex_lock(&connection->lock);
        connection->is_over = true;
        g_cond_signal(&connection->changed);
        g_mutex_unlock(&connection->lock);
        g_thread_join(connection->worker);
    }
    shutdown(connection->fd, SHUT_RDWR);
    return NULL;
}

/* --- connections --- */

static void connection_free(Connection *connection)
{
    shutdown(connection->fd, SHUT_RDWR);
    g_thread_join(connection->reader);
    close(connection->fd);
    g_ptr_array_unref(connection->requests);
    g_mutex_clear(&connection->lock);
    g_cond_clear(&connection->changed);
    g_free(connection->name);
    g_free(connection);
}

static gpointer listener_run(gpointer opaque)
{
    WeirBelow *below = opaque;
    int fd;

    while ((fd = accept4(below->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        Connection *connection = g_new0(Connection, 1);

        connection->below = below;
        connection->fd = fd;
        connection->requests = g_ptr_array_new_with_free_func(
            (GDestroyNotify)request_free);
        g_mutex_init(&connection->lock);
        g_cond_init(&connection->changed);
        g_mutex_lock(&below->lock);
        g_ptr_array_add(below->connections, connection);
        connection->reader = g_thread_new("below-reader", reader_run,
                                          connection);
        g_mutex_unlock(&below->lock);
    }
    return NULL;
}

static int listen_on(const char *path, GError **error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        weir_set_error(error, "the socket name %s is too long", path);
        return -1;
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, 16) < 0) {
        weir_set_error(error, "cannot listen on %s: %s", path,
                       g_strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

WeirBelow *weir_below_new(const char *path, guint64 bytes, GError **error)
{
    int fd = listen_on(path, error);
    WeirBelow *below;

    if (fd < 0) {
        return NULL;
    }
    below = g_new0(WeirBelow, 1);
    below->path = g_strdup(path);
    below->bytes = bytes;
    below->listener = fd;
    below->data = g_malloc0(bytes);
    below->durable = g_malloc0(bytes);
    below->dirty = g_malloc0(bytes / BELOW_BLOCK + 1);
    below->rand = g_rand_new_with_seed(1);
    below->connections = g_ptr_array_new_with_free_func(
        (GDestroyNotify)connection_free);
    g_mutex_init(&below->lock);
    below->thread = g_thread_new("below", listener_run, below);
    return below;
}

void weir_below_free(WeirBelow *below)
{
    if (!below) {
        return;
    }
    shutdown(below->listener, SHUT_RDWR);
    g_thread_join(below->thread);
    close(below->listener);
    unlink(below->path);
    g_ptr_array_unref(below->connections);
    g_mutex_clear(&below->lock);
    g_rand_free(below->rand);
    g_free(below->forbidden_name);
    g_free(below->dirty);
    g_free(below->durable);
    g_free(below->data);
    g_free(below->path);
    g_free(below);
}

/* --- what checks want of it --- */

const char *weir_below_path(const WeirBelow *below)
{
    return below->path;
}

guint8 *weir_below_data(WeirBelow *below)
{
    return below->data;
}

void weir_below_settle(WeirBelow *below)
{
    g_mutex_lock(&below->lock);
    memcpy(below->durable, below->data, below->bytes);
    memset(below->dirty, 0, below->bytes / BELOW_BLOCK + 1);
    g_mutex_unlock(&below->lock);
}

void weir_below_fail(WeirBelow *below, guint kinds, int error)
{
    g_mutex_lock(&below->lock);
    below->fail_kinds = kinds;
    below->fail_error = error;
    g_mutex_unlock(&below->lock);
}

void weir_below_delay(WeirBelow *below, guint us)
{
    g_mutex_lock(&below->lock);
    below->delay_us = us;
    g_mutex_unlock(&below->lock);
}

void weir_below_cut_power(WeirBelow *below)
{
    GPtrArray *connections;

    /* what is under way is lost as well */
    g_mutex_lock(&below->lock);
    connections = below->connections;
    below->connections = g_ptr_array_new_with_free_func(
        (GDestroyNotify)connection_free);
    g_mutex_unlock(&below->lock);
    g_ptr_array_unref(connections);
    g_mutex_lock(&below->lock);
    memcpy(below->data, below->durable, below->bytes);
    memset(below->dirty, 0, below->bytes / BELOW_BLOCK + 1);
    g_mutex_unlock(&below->lock);
}

void weir_below_forbid(WeirBelow *below, const char *name)
{
    g_mutex_lock(&below->lock);
    g_free(below->forbidden_name);
    below->forbidden_name = g_strdup(name);
    g_mutex_unlock(&below->lock);
}

guint64 weir_below_count(WeirBelow *below, guint kinds)
{
    guint64 count = 0;

    g_mutex_lock(&below->lock);
    count += kinds & WEIR_BELOW_READ ? below->reads : 0;
    count += kinds & WEIR_BELOW_WRITE ? below->writes : 0;
    count += kinds & WEIR_BELOW_FLUSH ? below->flushes : 0;
    count += kinds & WEIR_BELOW_DISCARD ? below->discards : 0;
    g_mutex_unlock(&below->lock);
    return count;
}

guint64 weir_below_forbidden(WeirBelow *below)
{
    guint64 forbidden;

    g_mutex_lock(&below->lock);
    forbidden = below->forbidden;
    g_mutex_unlock(&below->lock);
    return forbidden;
}

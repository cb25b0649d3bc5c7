/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp.h"

#include <errno.h>
#include <gio/gfiledescriptorbased.h>
#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define WEIR_QMP_MAX_LINE_BYTES (64u << 20)
#define WEIR_QMP_MAX_EVENTS 1024

struct WeirQmp {
    GIOStream *stream;      /* NULL when the streams are apart */
    GInputStream *input;
    GOutputStream *output;
    char *peer;
    GByteArray *unread;     /* received, not yet a whole line */
    gsize scanned;          /* bytes of @unread known to have no newline */
    GPtrArray *events;      /* JsonNode */
    gint64 next_id;
    WeirQmpCall call;       /* instead of the streams, which are NULL then */
    gpointer opaque;
};

static void qmp_error(const WeirQmp *qmp, GError **error, WeirErrorCode code,
                      const char *what)
{
    g_set_error(error, WEIR_ERROR, (int)code, "%s %s", qmp->peer, what);
}

static WeirQmp *qmp_alloc(const char *peer)
{
    WeirQmp *qmp = g_new0(WeirQmp, 1);

    qmp->peer = g_strdup(peer);
    qmp->unread = g_byte_array_new();
    qmp->events = g_ptr_array_new_with_free_func(
        (GDestroyNotify)json_node_unref);
    return qmp;
}

WeirQmp *weir_qmp_new(GInputStream *input, GOutputStream *output,
                      const char *peer)
{
    WeirQmp *qmp = qmp_alloc(peer);

    qmp->input = g_object_ref(input);
    qmp->output = g_object_ref(output);
    return qmp;
}

WeirQmp *weir_qmp_new_call(WeirQmpCall call, gpointer opaque,
                           const char *peer)
{
    WeirQmp *qmp = qmp_alloc(peer);

    qmp->call = call;
    qmp->opaque = opaque;
    return qmp;
}

WeirQmp *weir_qmp_connect(const char *path, GError **error)
{
    g_autoptr(GSocketClient) client = g_socket_client_new();
    g_autoptr(GSocketAddress) address = NULL;
    g_autoptr(GError) local = NULL;
    g_autofree char *peer = g_strdup_printf("the QMP server on %s", path);
    GSocketConnection *connection;
    WeirQmp *qmp;

    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        weir_set_error(error, "the socket name %s is too long", path);
        return NULL;
    }
    address = g_unix_socket_address_new(path);
    connection = g_socket_client_connect(client, G_SOCKET_CONNECTABLE(address),
                                         NULL, &local);
    if (!connection) {
        weir_set_error(error, "cannot connect to %s: %s", path,
                       local->message);
        return NULL;
    }
    qmp = weir_qmp_new(g_io_stream_get_input_stream(G_IO_STREAM(connection)),
                       g_io_stream_get_output_stream(G_IO_STREAM(connection)),
                       peer);
    qmp->stream = G_IO_STREAM(connection);
    return qmp;
}

int weir_qmp_listen(const char *path, GError **error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    mode_t mask;
    int fd;
    int ret;

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >=
        sizeof(address.sun_path)) {
        weir_set_error(error, "the socket name %s is too long", path);
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mask = umask(0077);
    ret = bind(fd, (struct sockaddr *)&address, sizeof(address));
    umask(mask);
    if (ret < 0 || listen(fd, 1) < 0) {
        weir_set_error(error, "cannot listen on %s: %s", path,
                       g_strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

void weir_qmp_free(WeirQmp *qmp)
{
    if (qmp) {
        g_clear_object(&qmp->input);
        g_clear_object(&qmp->output);
        g_clear_object(&qmp->stream);
        g_free(qmp->peer);
        g_byte_array_unref(qmp->unread);
        g_ptr_array_unref(qmp->events);
        g_free(qmp);
    }
}

gint64 weir_qmp_deadline(int timeout_ms)
{
    return g_get_monotonic_time() + timeout_ms * (gint64)1000;
}

int weir_qmp_left(gint64 deadline_us)
{
    gint64 left_us = MAX(deadline_us - g_get_monotonic_time(), 0);

    return (int)((left_us + 999) / 1000);
}

int weir_qmp_fd(WeirQmp *qmp)
{
    return g_file_descriptor_based_get_fd(
        G_FILE_DESCRIPTOR_BASED(qmp->input));
}

GPtrArray *weir_qmp_events(WeirQmp *qmp)
{
    return qmp->events;
}

/* Wait until @fd is ready for @events or @deadline_us has passed. */
static bool qmp_wait(const WeirQmp *qmp, int fd, gushort events,
                     gint64 deadline_us, GError **error)
{
    GPollFD poll_fd = { .fd = fd, .events = events };
    int ret;

    do {
        ret = g_poll(&poll_fd, 1, weir_qmp_left(deadline_us));
    } while (ret < 0 && errno == EINTR);
    if (ret == 0) {
        qmp_error(qmp, error, WEIR_ERROR_TIMEOUT, "does not answer");
    } else if (ret < 0) {
        qmp_error(qmp, error, WEIR_ERROR_FAILED, "cannot be waited for");
    }
    return ret > 0;
}

static bool qmp_send(WeirQmp *qmp, const char *text, gint64 deadline_us,
                     GError **error)
{
    GPollableOutputStream *output = G_POLLABLE_OUTPUT_STREAM(qmp->output);
    int fd = g_file_descriptor_based_get_fd(
        G_FILE_DESCRIPTOR_BASED(qmp->output));
    gsize left = strlen(text);

    while (left > 0) {
        g_autoptr(GError) local = NULL;
        gssize n = g_pollable_output_stream_write_nonblocking(
            output, text, left, NULL, &local);

        if (n > 0) {
            text += n;
            left -= (gsize)n;
        } else if (!g_error_matches(local, G_IO_ERROR,
                                    G_IO_ERROR_WOULD_BLOCK)) {
            qmp_error(qmp, error, WEIR_ERROR_CLOSED,
                      "has closed the connection");
            return false;
        } else if (!qmp_wait(qmp, fd, G_IO_OUT, deadline_us, error)) {
            return false;
        }
    }
    return true;
}

/* Add what can be read to @unread, waiting for at least one byte. */
static bool qmp_fill(WeirQmp *qmp, gint64 deadline_us, GError **error)
{
    g_autoptr(GError) local = NULL;
    guint8 buffer[16384];
    gssize n;

    if (!qmp_wait(qmp, weir_qmp_fd(qmp), G_IO_IN, deadline_us, error)) {
        return false;
    }
    n = g_pollable_input_stream_read_nonblocking(
        G_POLLABLE_INPUT_STREAM(qmp->input), buffer, sizeof(buffer), NULL,
        &local);
    if (n < 0 && g_error_matches(local, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
        return true;
    }
    if (n <= 0) {
        qmp_error(qmp, error, WEIR_ERROR_CLOSED, "has closed the connection");
        return false;
    }
    if (qmp->unread->len + (gsize)n > WEIR_QMP_MAX_LINE_BYTES) {
        qmp_error(qmp, error, WEIR_ERROR_CLOSED, "sends too long a line");
        return false;
    }
    g_byte_array_append(qmp->unread, buffer, (guint)n);
    return true;
}

/* The next message.  Returns NULL with @error set. */
static JsonNode *qmp_receive(WeirQmp *qmp, gint64 deadline_us, GError **error)
{
    JsonNode *node;
    guint8 *end;
    gsize length;

    while (!(end = qmp->unread->len == qmp->scanned ? NULL :
             memchr(qmp->unread->data + qmp->scanned, '\n',
                    qmp->unread->len - qmp->scanned))) {
        qmp->scanned = qmp->unread->len;
        if (!qmp_fill(qmp, deadline_us, error)) {
            return NULL;
        }
    }
    length = (gsize)(end - qmp->unread->data);
    node = weir_json_parse((const char *)qmp->unread->data, length, NULL);
    g_byte_array_remove_range(qmp->unread, 0, (guint)length + 1);
    qmp->scanned = 0;
    if (!weir_json_as_object(node)) {
        g_clear_pointer(&node, json_node_unref);
        qmp_error(qmp, error, WEIR_ERROR_FAILED, "does not speak QMP");
    }
    return node;
}

static void qmp_keep_event(WeirQmp *qmp, JsonNode *event)
{
    if (qmp->events->len == WEIR_QMP_MAX_EVENTS) {
        g_ptr_array_remove_index(qmp->events, 0);
    }
    g_ptr_array_add(qmp->events, json_node_ref(event));
}

/* What an answer says.  Returns NULL with @error set for an error. */
static JsonNode *qmp_result(const WeirQmp *qmp, JsonObject *answer,
                            GError **error)
{
    JsonObject *failure = weir_json_object(answer, "error");
    const char *text = weir_json_string(failure, "desc");
    WeirErrorCode code = WEIR_ERROR_QMP;

    if (json_object_has_member(answer, "return")) {
        return json_node_ref(json_object_get_member(answer, "return"));
    }
    if (!text) {
        qmp_error(qmp, error, WEIR_ERROR_FAILED, "does not speak QMP");
        return NULL;
    }
    if (g_strcmp0(weir_json_string(failure, "class"),
                  "CommandNotFound") == 0) {
        code = WEIR_ERROR_NO_COMMAND;
    }
    g_set_error_literal(error, WEIR_ERROR, (int)code, text);
    return NULL;
}

/* weir_qmp_execute() through somebody else. */
static JsonNode *qmp_call(const WeirQmp *qmp, JsonObject *request,
                          GError **error)
{
    g_autofree char *text = weir_json_object_text(request, false);
    g_autofree char *answer = qmp->call(qmp->opaque, text, error);
    g_autoptr(JsonNode) node = answer ? weir_json_parse(
                                   answer, strlen(answer), NULL) : NULL;

    if (!answer) {
        return NULL;
    }
    if (!weir_json_as_object(node)) {
        qmp_error(qmp, error, WEIR_ERROR_FAILED, "does not speak QMP");
        return NULL;
    }
    return qmp_result(qmp, weir_json_as_object(node), error);
}

JsonNode *weir_qmp_execute(WeirQmp *qmp, const char *command,
                           JsonObject *arguments, int timeout_ms,
                           GError **error)
{
    gint64 deadline_us = weir_qmp_deadline(timeout_ms);
    g_autoptr(JsonObject) request = json_object_new();
    g_autofree char *text = NULL;
    g_autofree char *line = NULL;
    gint64 id = qmp->next_id++;

    json_object_set_string_member(request, "execute", command);
    if (arguments) {
        json_object_set_object_member(request, "arguments", arguments);
    }
    if (qmp->call) {
        return qmp_call(qmp, request, error);
    }
    json_object_set_int_member(request, "id", id);
    text = weir_json_object_text(request, false);
    line = g_strconcat(text, "\r\n", NULL);
    if (!qmp_send(qmp, line, deadline_us, error)) {
        return NULL;
    }
    for (;;) {
        g_autoptr(JsonNode) node = qmp_receive(qmp, deadline_us, error);
        JsonObject *message = weir_json_as_object(node);

        if (!message) {
            return NULL;
        }
        if (weir_json_string(message, "event")) {
            qmp_keep_event(qmp, node);
        } else if (weir_json_int(message, "id", -1) == id) {
            return qmp_result(qmp, message, error);
        }
    }
}

bool weir_qmp_negotiate(WeirQmp *qmp, int timeout_ms, GError **error)
{
    gint64 deadline_us = weir_qmp_deadline(timeout_ms);
    g_autoptr(JsonNode) greeting = qmp_receive(qmp, deadline_us, error);
    g_autoptr(JsonNode) answer = NULL;

    if (!greeting) {
        return false;
    }
    if (!weir_json_object(weir_json_as_object(greeting), "QMP")) {
        qmp_error(qmp, error, WEIR_ERROR_FAILED, "does not speak QMP");
        return false;
    }
    answer = weir_qmp_execute(qmp, "qmp_capabilities", NULL, timeout_ms,
                              error);
    return answer != NULL;
}

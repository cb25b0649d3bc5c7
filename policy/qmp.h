/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A synchronous client of the QEMU Machine Protocol. */
#ifndef WEIR_QMP_H
#define WEIR_QMP_H

#include <gio/gio.h>

#include "json.h"

typedef struct WeirQmp WeirQmp;

/*
 * Connect to the QMP server that listens on a Unix socket, without waiting
 * for its greeting: weir_qmp_negotiate() is next.
 *
 * @path: the socket
 * Returns the client, which the caller frees with weir_qmp_free(), or NULL
 * with @error set.
 */
WeirQmp *weir_qmp_connect(const char *path, GError **error);

/*
 * A client over a pair of pipes or a socket's two streams.
 *
 * @input, @output: streams with a file descriptor; a reference is taken
 * @peer: who the other side is, for messages
 * Returns the client; the call cannot fail.
 */
WeirQmp *weir_qmp_new(GInputStream *input, GOutputStream *output,
                      const char *peer);

/*
 * Hand a command over and return the answer, both as JSON texts in one line;
 * the caller frees the answer.  NULL with @error set if there is none.
 */
typedef char *(*WeirQmpCall)(gpointer opaque, const char *command,
                             GError **error);

/*
 * A client of a monitor that somebody else has: libvirt.  There is nothing to
 * negotiate, there are no events, and timeouts are the other's.
 *
 * @call: gets @opaque, which has to stay as long as the client
 */
WeirQmp *weir_qmp_new_call(WeirQmpCall call, gpointer opaque,
                           const char *peer);

/*
 * Listen on a Unix socket that only the user may connect to.  Returns the
 * descriptor, close-on-exec, or -1 with @error set.
 */
int weir_qmp_listen(const char *path, GError **error);

/* Close the connection.  NULL is fine. */
void weir_qmp_free(WeirQmp *qmp);

/* When @timeout_ms from now is, for several commands that have it together. */
gint64 weir_qmp_deadline(int timeout_ms);

/* Milliseconds until a deadline, 0 if that has passed. */
int weir_qmp_left(gint64 deadline_us);

/* The descriptor that becomes readable when the other side says something. */
int weir_qmp_fd(WeirQmp *qmp);

/*
 * Read the greeting and leave negotiation mode.  Blocks for up to
 * @timeout_ms milliseconds.  Returns false with @error set to
 * WEIR_ERROR_TIMEOUT, WEIR_ERROR_CLOSED or WEIR_ERROR_FAILED (not QMP).
 */
bool weir_qmp_negotiate(WeirQmp *qmp, int timeout_ms, GError **error);

/*
 * Execute a command and wait for its answer.
 *
 * @command: its name
 * @arguments: an object that is consumed, or NULL
 * @timeout_ms: how long to wait, in milliseconds
 * Blocks.  Events that arrive meanwhile are kept for weir_qmp_events().
 * Returns what the command returns, which the caller unrefs; or NULL with
 * @error set to WEIR_ERROR_QMP (its message is the peer's own),
 * WEIR_ERROR_NO_COMMAND, WEIR_ERROR_TIMEOUT or WEIR_ERROR_CLOSED.  After the
 * latter two the connection is of no use.
 */
JsonNode *weir_qmp_execute(WeirQmp *qmp, const char *command,
                           JsonObject *arguments, int timeout_ms,
                           GError **error);

/*
 * The events so far, as JsonNode in order of arrival; owned by @qmp.  The
 * caller may remove elements.  At most 1024 are kept, the latest ones.
 */
GPtrArray *weir_qmp_events(WeirQmp *qmp);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirQmp, weir_qmp_free)

#endif

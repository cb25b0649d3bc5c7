/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A socket to listen on, from an address as people write it. */
#ifndef WEIR_LISTEN_H
#define WEIR_LISTEN_H

#include <stdbool.h>

#include "error.h"

typedef struct WeirListener {
    int fd;
    char *address;          /* where it listens, for people */
    char *path;             /* of a Unix socket; NULL: it is none */
} WeirListener;

/*
 * Listen.
 *
 * @text: "ADDR:PORT", "[ADDR]:PORT" (port 0 for any), "/PATH" or "unix:/PATH"
 * @allow_remote: whether ADDR may be one that others than this machine reach
 * Returns what the caller frees with weir_listener_free(), or NULL with @error
 * set.  A Unix socket that nobody listens on any more is replaced.
 */
WeirListener *weir_listen(const char *text, bool allow_remote, GError **error);

/* Close it, and remove a Unix socket.  NULL is fine. */
void weir_listener_free(WeirListener *listener);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirListener, weir_listener_free)

#endif

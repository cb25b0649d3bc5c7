/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "notify.h"

#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <string.h>

void weir_notify(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    g_autoptr(GSocketAddress) address = NULL;
    g_autoptr(GSocket) out = NULL;

    if (!path || !*path) {
        return;
    }
    /* "@" stands for an abstract one */
    address = *path == '@'
        ? g_unix_socket_address_new_with_type(path + 1, -1,
                                              G_UNIX_SOCKET_ADDRESS_ABSTRACT)
        : g_unix_socket_address_new(path);
    out = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_DATAGRAM,
                       G_SOCKET_PROTOCOL_DEFAULT, NULL);
    if (out) {
        g_socket_send_to(out, address, state, strlen(state), NULL, NULL);
    }
}

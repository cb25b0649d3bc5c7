/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 16
#define LISTEN_UNIX "unix:"

void weir_listener_free(WeirListener *listener)
{
    if (listener) {
        if (listener->fd >= 0) {
            close(listener->fd);
        }
        if (listener->path) {
            unlink(listener->path);
        }
        g_free(listener->path);
        g_free(listener->address);
        g_free(listener);
    }
}

static bool listen_failed(const char *text, GError **error)
{
    weir_set_error(error, "cannot listen on %s: %s", text, g_strerror(errno));
    return false;
}

/* --- Unix sockets --- */

/* Whether @path is a socket of somebody who has ended. */
static bool listen_is_stale(const struct sockaddr_un *address)
{
    struct stat file_stat;
    int fd;
    bool stale;

    if (lstat(address->sun_path, &file_stat) != 0 ||
        !S_ISSOCK(file_stat.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    stale = fd >= 0 && connect(fd, (const struct sockaddr *)address,
                               sizeof(*address)) != 0 &&
            errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    return stale;
}

static bool listen_unix(WeirListener *listener, const char *path,
                        GError **error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(address.sun_path)) {
        weir_set_error(error, "the socket name %s is too long", path);
        return false;
    }
    strcpy(address.sun_path, path);
    if (listen_is_stale(&address)) {
        unlink(path);
    }
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 ||
        bind(listener->fd, (const struct sockaddr *)&address,
             sizeof(address)) != 0) {
        return listen_failed(path, error);
    }
    listener->path = g_strdup(path);
    listener->address = g_strdup(path);
    return listen(listener->fd, LISTEN_BACKLOG) == 0 ||
           listen_failed(path, error);
}

/* --- TCP --- */

static bool listen_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *inet = (const void *)address;

        return ntohl(inet->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *inet6 = (const void *)address;

        return IN6_IS_ADDR_LOOPBACK(&inet6->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&inet6->sin6_addr) &&
                inet6->sin6_addr.s6_addr[12] == IN_LOOPBACKNET);
    }
    return false;
}

/* "127.0.0.1:9100" or "[::1]:9100", or NULL. */
static char *listen_name(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0 ||
        getnameinfo((const struct sockaddr *)&address, length, host,
                    sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return NULL;
    }
    return g_strdup_printf(address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
                           host, port);
}

static bool listen_address(WeirListener *listener, const char *text,
                           const struct addrinfo *info, GError **error)
{
    int on = 1;

    listener->fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 ||
        setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on,
                   sizeof(on)) != 0 ||
        bind(listener->fd, info->ai_addr, info->ai_addrlen) != 0 ||
        listen(listener->fd, LISTEN_BACKLOG) != 0 ||
        !(listener->address = listen_name(listener->fd))) {
        return listen_failed(text, error);
    }
    return true;
}

/* Split "ADDR:PORT"; false: it is not of that form. */
static bool listen_split(const char *text, char **host, char **port)
{
    const char *colon = strrchr(text, ':');
    gsize length = colon ? (gsize)(colon - text) : 0;
    guint64 number;

    if (length == 0 ||
        !g_ascii_string_to_unsigned(colon + 1, 10, 0, 65535, &number, NULL)) {
        return false;
    }
    if (text[0] == '[' && text[length - 1] == ']') {
        *host = g_strndup(text + 1, length - 2);
    } else if (memchr(text, ':', length)) {
        return false;
    } else {
        *host = g_strndup(text, length);
    }
    *port = g_strdup(colon + 1);
    return **host != '\0';
}

static bool listen_tcp(WeirListener *listener, const char *text,
                       bool allow_remote, GError **error)
{
    const struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV,
    };
    struct addrinfo *infos;
    g_autofree char *host = NULL;
    g_autofree char *port = NULL;
    bool ok = true;
    int ret;

    if (!listen_split(text, &host, &port)) {
        weir_set_error(error, "found '%s', expected an address to listen on: "
                       "ADDR:PORT, [ADDR]:PORT or /PATH", text);
        return false;
    }
    ret = getaddrinfo(host, port, &hints, &infos);
    if (ret != 0) {
        weir_set_error(error, "cannot listen on %s: %s", text,
                       gai_strerror(ret));
        return false;
    }
    for (const struct addrinfo *i = infos; ok && i && !allow_remote;
         i = i->ai_next) {
        ok = listen_is_loopback(i->ai_addr);
    }
    if (!ok) {
        weir_set_error(error, "%s is not an address of this machine only: "
                       "whoever reaches it could read the metrics, without a "
                       "password or encryption; --allow-remote allows that",
                       host);
    }
    ok = ok && listen_address(listener, text, infos, error);
    freeaddrinfo(infos);
    return ok;
}

WeirListener *weir_listen(const char *text, bool allow_remote, GError **error)
{
    g_autoptr(WeirListener) listener = g_new0(WeirListener, 1);
    bool is_unix = text[0] == '/' || g_str_has_prefix(text, LISTEN_UNIX "/");

    listener->fd = -1;
    if (is_unix ? !listen_unix(listener, text[0] == '/' ? text : text +
                               strlen(LISTEN_UNIX), error)
                : !listen_tcp(listener, text, allow_remote, error)) {
        return NULL;
    }
    return g_steal_pointer(&listener);
}

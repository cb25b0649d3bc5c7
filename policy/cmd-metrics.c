/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir metrics */
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "listen.h"
#include "metrics.h"
#include "watch-options.h"

#define METRICS_MAX_CONNECTIONS 16u
#define METRICS_CONNECTION_TIMEOUT_S 30u

static char *metrics_text(const WeirWatchQuery *query, GError **error)
{
    g_autoptr(WeirWatch) watch = weir_watch(query, error);
    g_autoptr(WeirExposition) exposition = NULL;

    if (!watch) {
        return NULL;
    }
    exposition = weir_exposition_new();
    weir_metrics_add(exposition, watch);
    return g_strdup(weir_exposition_text(exposition));
}

/* --- the server --- */

/* Answer with @text, which is consumed. */
static enum MHD_Result metrics_answer(struct MHD_Connection *connection,
                                      unsigned status, const char *type,
                                      char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result ret;

    g_free(text);
    if (!response) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    }
    ret = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return ret;
}

/* Called from the server's one thread, which looks at the VMs meanwhile. */
static enum MHD_Result metrics_handle(void *opaque,
                                      struct MHD_Connection *connection,
                                      const char *url, const char *method,
                                      const char *version, const char *upload,
                                      size_t *upload_bytes, void **request)
{
    static char seen;
    const WeirWatchQuery *query = opaque;
    g_autoptr(GError) error = NULL;
    char *text;

    (void)version;
    (void)upload;
    (void)upload_bytes;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
        strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return metrics_answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                              "text/plain",
                              g_strdup("only GET and HEAD are answered\n"));
    }
    if (!*request) {
        *request = &seen;       /* the headers; an answer now would close */
        return MHD_YES;
    }
    if (strcmp(url, "/metrics") != 0) {
        return metrics_answer(connection, MHD_HTTP_NOT_FOUND, "text/plain",
                              g_strdup("the metrics are at /metrics\n"));
    }
    text = metrics_text(query, &error);
    if (!text) {
        return metrics_answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                              "text/plain",
                              g_strconcat(error->message, "\n", NULL));
    }
    return metrics_answer(connection, MHD_HTTP_OK, WEIR_EXPOSITION_TYPE, text);
}

/* Serve until a signal comes. */
static int metrics_serve(const WeirWatchQuery *query, const char *address,
                         bool allow_remote)
{
    g_autoptr(WeirListener) listener = NULL;
    GError *error = NULL;
    struct MHD_Daemon *server;
    sigset_t signals;
    int signal_number;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    listener = weir_listen(address, allow_remote, &error);
    if (!listener) {
        return weir_fail(error);
    }
    server = MHD_start_daemon(
        MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL,
        metrics_handle, (void *)query, MHD_OPTION_LISTEN_SOCKET, listener->fd,
        MHD_OPTION_CONNECTION_LIMIT, METRICS_MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, METRICS_CONNECTION_TIMEOUT_S,
        MHD_OPTION_END);
    if (!server) {
        weir_set_error(&error, "cannot start the HTTP server on %s",
                       listener->address);
        return weir_fail(error);
    }
    fprintf(stderr, "weir: metrics are at %s, path /metrics\n",
            listener->address);
    sigwait(&signals, &signal_number);
    MHD_stop_daemon(server);
    listener->fd = -1;          /* closed with the server */
    return WEIR_EXIT_OK;
}

int weir_cmd_metrics(int argc, char **argv)
{
    g_auto(WeirWatchOptions) options = WEIR_WATCH_OPTIONS_INIT;
    g_autofree char *address = NULL;
    gboolean allow_remote = FALSE;
    GOptionEntry entries[] = {
        { "listen", 0, 0, G_OPTION_ARG_STRING, &address,
          "Serve them over HTTP: ADDR:PORT, or the path of a Unix socket",
          "ADDRESS" },
        { "allow-remote", 0, 0, G_OPTION_ARG_NONE, &allow_remote,
          "Allow an address that other machines can reach", NULL },
        WEIR_WATCH_OPTIONS_ENTRIES(&options),
        G_OPTION_ENTRY_NULL
    };
    g_auto(WeirWatchQuery) query = { 0 };
    g_autofree char *text = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "[VM]",
                    "Print metrics of running disks in Prometheus' text "
                    "format, or serve them at\n/metrics until a signal comes."
                    "\n\nExit codes: 0 done, 1 error, 2 wrong usage.") ||
        !weir_watch_options_query(&options, argc, argv, &query)) {
        return WEIR_EXIT_USAGE;
    }
    if (allow_remote && !address) {
        return weir_usage("metrics: found --allow-remote without --listen");
    }
    query.target.traffic = true;
    if (address) {
        return metrics_serve(&query, address, allow_remote);
    }
    text = metrics_text(&query, &error);
    if (!text) {
        return weir_fail(error);
    }
    fputs(text, stdout);
    return WEIR_EXIT_OK;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "location.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "units.h"

#define LOCATION_CREATE "create:"
#define LOCATION_NBD_PORT 10809

void weir_location_free(WeirLocation *location)
{
    if (location) {
        g_free(location->path);
        g_clear_pointer(&location->nbd, json_object_unref);
        g_free(location);
    }
}

/* --- files --- */

static bool location_parse_file(WeirLocation *location, const char *text,
                                GError **error)
{
    g_autofree char *size = NULL;
    const char *path = text;

    if (g_str_has_prefix(text, LOCATION_CREATE)) {
        text += strlen(LOCATION_CREATE);
        path = strchr(text, ':');
        size = path ? g_strndup(text, (gsize)(path - text)) : g_strdup(text);
        path = path ? path + 1 : "";
        location->create_bytes = (guint64)weir_parse_bytes(size);
        if (location->create_bytes == 0) {
            weir_set_error(error, "found size '%s', expected "
                           WEIR_BYTES_EXPECTED, size);
            return false;
        }
    }
    if (path[0] != '/') {
        weir_set_error(error, "found '%s', expected an absolute path or an "
                       "NBD address such as nbd://HOST/EXPORT", path);
        return false;
    }
    location->path = g_strdup(path);
    return true;
}

bool weir_location_same(const char *a, const char *b)
{
    g_autoptr(WeirLocation) a_place = weir_location_parse(a, NULL);
    g_autoptr(WeirLocation) b_place = weir_location_parse(b, NULL);

    return strcmp(a, b) == 0 ||
           (a_place && b_place && a_place->path && b_place->path &&
            strcmp(a_place->path, b_place->path) == 0);
}

bool weir_location_create(const WeirLocation *location, bool *created,
                          GError **error)
{
    g_autofree char *temporary = NULL;
    bool linked = false;
    int fd;
    bool ok;

    if (created) {
        *created = false;
    }
    if (location->create_bytes == 0 ||
        g_file_test(location->path, G_FILE_TEST_EXISTS)) {
        return true;
    }
    temporary = g_strdup_printf("%s.%d.new", location->path, (int)getpid());
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ok = fd >= 0 && ftruncate(fd, (off_t)location->create_bytes) == 0 &&
         fsync(fd) == 0 &&
         /* not over one that somebody else has made meanwhile */
         ((linked = link(temporary, location->path) == 0) ||
          errno == EEXIST);
    if (created) {
        *created = linked;
    }
    if (!ok) {
        weir_set_error(error, "cannot make %s: %s", location->path,
                       g_strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
        unlink(temporary);
    }
    return ok;
}

/* --- NBD --- */

static const char *const location_parameters[] = {
    "socket", "tls-creds", "tls-hostname", NULL
};

/* Also whether all that is given makes sense. */
static GHashTable *location_query(GUri *uri, bool is_unix, bool is_tls,
                                  GError **error)
{
    const char *text = g_uri_get_query(uri);
    g_autoptr(GHashTable) query = g_uri_parse_params(
        text ? text : "", -1, "&", G_URI_PARAMS_NONE, error);
    GHashTableIter iter;
    gpointer key;

    if (!query) {
        return NULL;
    }
    g_hash_table_iter_init(&iter, query);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        bool fits = strcmp(key, "socket") == 0 ? is_unix : is_tls;

        if (!g_strv_contains(location_parameters, key) || !fits) {
            weir_set_error(error, "found '%s', which an address of %s does "
                           "not have", (char *)key, g_uri_get_scheme(uri));
            return NULL;
        }
    }
    if (is_tls && !g_hash_table_contains(query, "tls-creds")) {
        weir_set_error(error, "found an address of %s without tls-creds, "
                       "expected ?tls-creds=ID", g_uri_get_scheme(uri));
        return NULL;
    }
    return g_steal_pointer(&query);
}

static JsonObject *location_server(GUri *uri, GHashTable *query, bool is_unix,
                                   GError **error)
{
    g_autoptr(JsonObject) server = json_object_new();
    const char *path = g_hash_table_lookup(query, "socket");
    const char *host = g_uri_get_host(uri);
    int port = g_uri_get_port(uri);
    g_autofree char *port_text = g_strdup_printf(
        "%d", port < 0 ? LOCATION_NBD_PORT : port);

    if (is_unix ? !path || path[0] != '/' || (host && *host)
                : !host || !*host) {
        weir_set_error(error, "found no %s, expected %s",
                       is_unix ? "socket" : "host",
                       is_unix ? "nbd+unix:///EXPORT?socket=/PATH"
                               : "nbd://HOST/EXPORT");
        return NULL;
    }
    json_object_set_string_member(server, "type", is_unix ? "unix" : "inet");
    if (is_unix) {
        json_object_set_string_member(server, "path", path);
    } else {
        json_object_set_string_member(server, "host", host);
        json_object_set_string_member(server, "port", port_text);
    }
    return g_steal_pointer(&server);
}

static bool location_parse_nbd(WeirLocation *location, const char *text,
                               GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, error);
    const char *scheme = uri ? g_uri_get_scheme(uri) : "";
    bool is_unix = g_str_has_suffix(scheme, "+unix");
    bool is_tls = g_str_has_prefix(scheme, "nbds");
    g_autoptr(GHashTable) query = uri ? location_query(uri, is_unix, is_tls,
                                                       error) : NULL;
    JsonObject *server = query ? location_server(uri, query, is_unix, error)
                               : NULL;
    const char *export;

    if (!server) {
        return false;
    }
    export = g_uri_get_path(uri);
    location->nbd = json_object_new();
    json_object_set_string_member(location->nbd, "driver", "nbd");
    json_object_set_object_member(location->nbd, "server", server);
    json_object_set_string_member(location->nbd, "export",
                                  *export == '/' ? export + 1 : export);
    for (guint i = 1; location_parameters[i]; i++) {
        const char *value = g_hash_table_lookup(query,
                                                location_parameters[i]);

        if (value) {
            json_object_set_string_member(location->nbd,
                                          location_parameters[i], value);
        }
    }
    return true;
}

WeirLocation *weir_location_parse(const char *text, GError **error)
{
    static const char *const schemes[] = {
        "nbd://", "nbds://", "nbd+unix://", "nbds+unix://",
    };
    g_autoptr(WeirLocation) location = g_new0(WeirLocation, 1);
    bool is_nbd = false;

    for (guint i = 0; i < G_N_ELEMENTS(schemes); i++) {
        is_nbd = is_nbd || g_str_has_prefix(text, schemes[i]);
    }
    if (!(is_nbd ? location_parse_nbd(location, text, error)
                 : location_parse_file(location, text, error))) {
        return NULL;
    }
    return g_steal_pointer(&location);
}

JsonObject *weir_location_node(const WeirLocation *location)
{
    JsonObject *node;
    struct stat file_stat;
    bool is_device;

    if (location->nbd) {
        return json_object_ref(location->nbd);
    }
    is_device = stat(location->path, &file_stat) == 0 &&
                S_ISBLK(file_stat.st_mode);
    node = json_object_new();
    json_object_set_string_member(node, "driver",
                                  is_device ? "host_device" : "file");
    json_object_set_string_member(node, "filename", location->path);
    return node;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "address.h"

#include <string.h>

#include "secret.h"

#define ADDRESS_NBD_PORT 10809
#define ADDRESS_ISCSI_PORT 3260
#define ADDRESS_SECONDS_MAX 86400
#define ADDRESS_LUN_MAX 16383
#define ADDRESS_TARGET_MAX 223          /* RFC 7143, 4.2.7.1 */

typedef enum AddressKind {
    ADDRESS_NBD = 1,
    ADDRESS_UNIX = 2,
    ADDRESS_TLS = 4,
    ADDRESS_ISCSI = 8,
    ADDRESS_RBD = 16,
} AddressKind;

static const struct {
    const char *name;
    int kind;
} address_schemes[] = {
    { "nbd", ADDRESS_NBD },
    { "nbds", ADDRESS_NBD | ADDRESS_TLS },
    { "nbd+unix", ADDRESS_NBD | ADDRESS_UNIX },
    { "nbds+unix", ADDRESS_NBD | ADDRESS_UNIX | ADDRESS_TLS },
    { "iscsi", ADDRESS_ISCSI },
    { "rbd", ADDRESS_RBD },
};

static const struct {
    const char *name;
    int kind;               /* of which an address has it */
    bool in_node;           /* as an option of the same name */
    bool is_seconds;
} address_parameters[] = {
    { "socket", ADDRESS_UNIX, false, false },
    { "tls-creds", ADDRESS_TLS, true, false },
    { "tls-hostname", ADDRESS_TLS, true, false },
    { "reconnect-delay", ADDRESS_NBD, true, true },
    { "open-timeout", ADDRESS_NBD, true, true },
    { "password-secret", ADDRESS_ISCSI, true, false },
    { "initiator-name", ADDRESS_ISCSI, true, false },
    { "header-digest", ADDRESS_ISCSI, true, false },
    { "timeout", ADDRESS_ISCSI, true, true },
    { "conf", ADDRESS_RBD, true, false },
    { "user", ADDRESS_RBD, true, false },
};

static const char *const address_digests[] = {
    "crc32c", "none", "crc32c-none", "none-crc32c", NULL
};

bool weir_address_is(const char *text)
{
    const char *end = strstr(text, "://");
    gsize length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+.-");

    return end && end != text && (gsize)(end - text) == length;
}

/* The kind of a scheme; 0 with @error set. */
static int address_kind(const char *scheme, GError **error)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(address_schemes); i++) {
        if (strcmp(scheme, address_schemes[i].name) == 0) {
            return address_schemes[i].kind;
        }
        g_string_append_printf(known, "%s%s", i ? ", " : "",
                               address_schemes[i].name);
    }
    weir_set_error(error, "found an address of %s, expected one of %s", scheme,
                   known->str);
    return 0;
}

/* --- what follows the question mark --- */

static bool address_has_parameter(const char *name, int kind)
{
    for (guint i = 0; i < G_N_ELEMENTS(address_parameters); i++) {
        if (strcmp(name, address_parameters[i].name) == 0) {
            return address_parameters[i].kind & kind;
        }
    }
    return false;
}

/* Also whether all that is given makes sense. */
static GHashTable *address_query(GUri *uri, int kind, GError **error)
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
        if (!address_has_parameter(key, kind)) {
            weir_set_error(error, "found '%s', which an address of %s does "
                           "not have", (char *)key, g_uri_get_scheme(uri));
            return NULL;
        }
    }
    if ((kind & ADDRESS_TLS) && !g_hash_table_contains(query, "tls-creds")) {
        weir_set_error(error, "found an address of %s without tls-creds, "
                       "expected ?tls-creds=ID", g_uri_get_scheme(uri));
        return NULL;
    }
    return g_steal_pointer(&query);
}

static bool address_set_seconds(JsonObject *node, const char *name,
                                const char *value, GError **error)
{
    guint64 seconds;

    if (!g_ascii_string_to_unsigned(value, 10, 0, ADDRESS_SECONDS_MAX,
                                    &seconds, NULL)) {
        weir_set_error(error, "found %s=%s, expected 0 to %d seconds", name,
                       value, ADDRESS_SECONDS_MAX);
        return false;
    }
    json_object_set_int_member(node, name, (gint64)seconds);
    return true;
}

static bool address_check_secret(const char *value, GError **error)
{
    g_autoptr(WeirSecret) secret = weir_secret_parse(value, "id", error);

    return secret != NULL;
}

static bool address_set_parameters(JsonObject *node, GHashTable *query,
                                   GError **error)
{
    for (guint i = 0; i < G_N_ELEMENTS(address_parameters); i++) {
        const char *name = address_parameters[i].name;
        const char *value = g_hash_table_lookup(query, name);

        if (!value || !address_parameters[i].in_node) {
            continue;
        }
        if (!*value) {
            weir_set_error(error, "found %s without a value", name);
            return false;
        }
        if (weir_secret_is_option(name) &&
            !address_check_secret(value, error)) {
            return false;
        }
        if (!address_parameters[i].is_seconds) {
            json_object_set_string_member(node, name, value);
        } else if (!address_set_seconds(node, name, value, error)) {
            return false;
        }
    }
    return true;
}

/* --- NBD --- */

static bool address_fill_nbd(JsonObject *node, GUri *uri, int kind,
                             GHashTable *query, GError **error)
{
    JsonObject *server = json_object_new();
    bool is_unix = kind & ADDRESS_UNIX;
    const char *path = g_hash_table_lookup(query, "socket");
    const char *host = g_uri_get_host(uri);
    const char *export = g_uri_get_path(uri);
    int port = g_uri_get_port(uri);
    g_autofree char *port_text = g_strdup_printf(
        "%d", port < 0 ? ADDRESS_NBD_PORT : port);

    json_object_set_string_member(node, "driver", "nbd");
    json_object_set_object_member(node, "server", server);
    json_object_set_string_member(node, "export",
                                  *export == '/' ? export + 1 : export);
    if (is_unix ? !path || path[0] != '/' || (host && *host)
                : !host || !*host) {
        weir_set_error(error, "found no %s, expected %s",
                       is_unix ? "socket" : "host",
                       is_unix ? "nbd+unix:///EXPORT?socket=/PATH"
                               : "nbd://HOST/EXPORT");
        return false;
    }
    json_object_set_string_member(server, "type", is_unix ? "unix" : "inet");
    if (is_unix) {
        json_object_set_string_member(server, "path", path);
    } else {
        json_object_set_string_member(server, "host", host);
        json_object_set_string_member(server, "port", port_text);
    }
    return true;
}

/* --- iSCSI --- */

/* Split "/TARGET/LUN". */
static bool address_set_unit(JsonObject *node, const char *path,
                             GError **error)
{
    const char *slash = strrchr(path, '/');
    g_autofree char *target = slash > path ? g_strndup(path + 1, (gsize)(
                                                 slash - path - 1)) : NULL;
    guint64 lun;

    if (!target || !*target || strlen(target) > ADDRESS_TARGET_MAX ||
        strchr(target, '/')) {
        weir_set_error(error, "found no target, expected iscsi://HOST/TARGET/"
                       "LUN with a name such as iqn.2026-01.org.example:disk");
        return false;
    }
    if (!g_ascii_string_to_unsigned(slash + 1, 10, 0, ADDRESS_LUN_MAX, &lun,
                                    NULL)) {
        weir_set_error(error, "found LUN '%s', expected a number up to %d",
                       slash + 1, ADDRESS_LUN_MAX);
        return false;
    }
    json_object_set_string_member(node, "target", target);
    json_object_set_int_member(node, "lun", (gint64)lun);
    return true;
}

/* The user, without a password: an address is seen by everybody. */
static bool address_set_user(JsonObject *node, const char *user,
                             GHashTable *query, GError **error)
{
    bool has_secret = g_hash_table_contains(query, "password-secret");

    if (user && strpbrk(user, ":%")) {
        weir_set_error(error, "found a password, expected it to be named by "
                       "?password-secret=SECRET");
        return false;
    }
    if ((user && *user) != has_secret) {
        weir_set_error(error, "found %s, expected both or none",
                       has_secret ? "a password-secret without a user"
                                  : "a user without a password-secret");
        return false;
    }
    if (has_secret) {
        json_object_set_string_member(node, "user", user);
    }
    return true;
}

static bool address_fill_iscsi(JsonObject *node, GUri *uri, GHashTable *query,
                               GError **error)
{
    const char *host = g_uri_get_host(uri);
    const char *digest = g_hash_table_lookup(query, "header-digest");
    int port = g_uri_get_port(uri);
    g_autofree char *portal = NULL;
    g_autofree char *digests = NULL;

    if (!host || !*host) {
        weir_set_error(error, "found no host, expected iscsi://HOST/TARGET/"
                       "LUN");
        return false;
    }
    if (digest && !g_strv_contains(address_digests, digest)) {
        digests = g_strjoinv(", ", (char **)address_digests);
        weir_set_error(error, "found header-digest=%s, expected one of %s",
                       digest, digests);
        return false;
    }
    portal = g_strdup_printf(strchr(host, ':') ? "[%s]:%d" : "%s:%d", host,
                             port < 0 ? ADDRESS_ISCSI_PORT : port);
    json_object_set_string_member(node, "driver", "iscsi");
    json_object_set_string_member(node, "transport", "tcp");
    json_object_set_string_member(node, "portal", portal);
    return address_set_unit(node, g_uri_get_path(uri), error) &&
           address_set_user(node, g_uri_get_userinfo(uri), query, error);
}

/* --- RBD --- */

static bool address_fill_rbd(JsonObject *node, GUri *uri, GHashTable *query,
                             GError **error)
{
    const char *path = g_uri_get_path(uri);
    const char *pool = g_uri_get_host(uri);
    const char *conf = g_hash_table_lookup(query, "conf");
    g_auto(GStrv) names = g_strsplit(*path == '/' ? path + 1 : path, "/", -1);
    guint count = g_strv_length(names);
    const char *namespace = count == 2 ? names[0] : NULL;

    if (!pool || !*pool || g_uri_get_port(uri) >= 0 ||
        g_uri_get_userinfo(uri) || count < 1 || count > 2 ||
        (namespace && !*namespace) || !*names[count - 1] ||
        strchr(path, '@')) {
        weir_set_error(error, "found no image, expected rbd://POOL/IMAGE or "
                       "rbd://POOL/NAMESPACE/IMAGE");
        return false;
    }
    if (conf && conf[0] != '/') {
        weir_set_error(error, "found conf=%s, expected an absolute path",
                       conf);
        return false;
    }
    json_object_set_string_member(node, "driver", "rbd");
    json_object_set_string_member(node, "pool", pool);
    if (namespace) {
        json_object_set_string_member(node, "namespace", namespace);
    }
    json_object_set_string_member(node, "image", names[count - 1]);
    return true;
}

static bool address_fill(JsonObject *node, GUri *uri, int kind,
                         GHashTable *query, GError **error)
{
    if (kind & ADDRESS_NBD) {
        return address_fill_nbd(node, uri, kind, query, error);
    }
    return kind & ADDRESS_ISCSI ? address_fill_iscsi(node, uri, query, error)
                                : address_fill_rbd(node, uri, query, error);
}

JsonObject *weir_address_parse(const char *text, GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, error);
    int kind = uri ? address_kind(g_uri_get_scheme(uri), error) : 0;
    g_autoptr(GHashTable) query = kind ? address_query(uri, kind, error)
                                       : NULL;
    g_autoptr(JsonObject) node = json_object_new();

    if (!query || !address_fill(node, uri, kind, query, error) ||
        !address_set_parameters(node, query, error)) {
        return NULL;
    }
    return g_steal_pointer(&node);
}

/* --- nodes --- */

bool weir_address_same(JsonObject *a, JsonObject *b)
{
    static const char *const where[] = {
        "driver", "server", "export", "portal", "target", "lun", "pool",
        "namespace", "image", "conf",
    };

    for (guint i = 0; i < G_N_ELEMENTS(where); i++) {
        JsonNode *a_node = json_object_get_member(a, where[i]);
        JsonNode *b_node = json_object_get_member(b, where[i]);

        if (!a_node || !b_node ? a_node != b_node
                               : !json_node_equal(a_node, b_node)) {
            return false;
        }
    }
    return true;
}

const char *weir_address_name(JsonObject *node)
{
    const char *target = weir_json_string(node, "target");
    const char *colon = target ? strrchr(target, ':') : NULL;

    if (target) {
        return colon ? colon + 1 : target;
    }
    return weir_json_string(node, json_object_has_member(node, "image")
                                      ? "image" : "export");
}

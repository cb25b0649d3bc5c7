/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "location.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"
#include "units.h"

#define LOCATION_CREATE "create:"

void weir_location_free(WeirLocation *location)
{
    if (location) {
        g_free(location->path);
        g_clear_pointer(&location->remote, json_object_unref);
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
                       "address such as nbd://HOST/EXPORT", path);
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

WeirLocation *weir_location_parse(const char *text, GError **error)
{
    g_autoptr(WeirLocation) location = g_new0(WeirLocation, 1);

    if (weir_address_is(text)) {
        location->remote = weir_address_parse(text, error);
    } else {
        location_parse_file(location, text, error);
    }
    return location->remote || location->path ? g_steal_pointer(&location)
                                              : NULL;
}

JsonObject *weir_location_node(const WeirLocation *location)
{
    JsonObject *node;
    struct stat file_stat;
    bool is_device;

    if (location->remote) {
        return json_object_ref(location->remote);
    }
    is_device = stat(location->path, &file_stat) == 0 &&
                S_ISBLK(file_stat.st_mode);
    node = json_object_new();
    json_object_set_string_member(node, "driver",
                                  is_device ? "host_device" : "file");
    json_object_set_string_member(node, "filename", location->path);
    return node;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bound.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cachefile.h"
#include "kind.h"
#include "location.h"
#include "samefile.h"
#include "sidecar.h"

#define BOUND_CACHE "weir-cache"
#define BOUND_REPLICATION "weir-replication"
#define BOUND_ENCRYPTION "weir-encryption"

/* Where filters of that driver keep what they know of a disk. */
static const char *bound_option(const char *driver)
{
    return strcmp(driver, BOUND_CACHE) == 0 ? "cache-file" :
           strcmp(driver, BOUND_ENCRYPTION) == 0 ? "header" : "sidecar";
}

static bool bound_is_plugin(const char *driver)
{
    return strcmp(driver, WEIR_PLUGIN_DRIVER) == 0;
}

char *weir_bound_kind(const WeirBound *bound)
{
    return weir_kind_of(bound->driver, bound->settings);
}

const char *weir_bound_memory(const WeirBound *bound)
{
    return weir_json_string(bound->settings, bound_option(bound->driver));
}

void weir_bound_free(WeirBound *bound)
{
    if (bound) {
        g_free(bound->driver);
        g_free(bound->policy);
        g_clear_pointer(&bound->settings, json_object_unref);
        g_clear_pointer(&bound->below, json_array_unref);
        g_free(bound);
    }
}

GPtrArray *weir_bound_array(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)weir_bound_free);
}

/* --- of a chain --- */

/* Each start of a replication without a sidecar copies all of the disk. */
static bool bound_can_be(const WeirChainNode *node)
{
    bool has_sidecar = weir_json_string(node->settings, "sidecar");

    return node->role == WEIR_ROLE_FILTER && node->settings &&
           (strcmp(node->driver, BOUND_CACHE) == 0 ||
            strcmp(node->driver, BOUND_ENCRYPTION) == 0 ||
            (strcmp(node->driver, BOUND_REPLICATION) == 0 && has_sidecar) ||
            (bound_is_plugin(node->driver) &&
             (node->changes_data || (node->holds_data && has_sidecar))));
}

GPtrArray *weir_bound_of_chain(const GPtrArray *chain, const char *policy)
{
    GPtrArray *result = weir_bound_array();

    for (guint i = 0; i < chain->len; i++) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);
        WeirBound *bound;

        if (!bound_can_be(node)) {
            continue;
        }
        bound = g_new0(WeirBound, 1);
        bound->driver = g_strdup(node->driver);
        bound->changes_data = bound_is_plugin(node->driver) &&
                              node->changes_data;
        bound->policy = g_strdup(policy);
        bound->place = node->place;
        bound->settings = json_object_ref(node->settings);
        bound->below = json_array_new();
        for (guint j = 0; strcmp(node->driver, BOUND_CACHE) == 0 && j < i;
             j++) {
            const WeirChainNode *lower = g_ptr_array_index(chain, j);

            json_array_add_object_element(bound->below,
                                          json_object_ref(lower->options));
        }
        g_ptr_array_add(result, bound);
    }
    return result;
}

/* --- comparison --- */

/* The file that @text, a location, is; to be freed; NULL: it is none. */
static char *bound_path(const char *text)
{
    g_autoptr(WeirLocation) location = text ? weir_location_parse(text, NULL)
                                            : NULL;

    return location ? g_strdup(location->path) : NULL;
}

bool weir_bound_is_in(const WeirBound *bound, const char *path)
{
    g_autofree char *own = bound_path(weir_bound_memory(bound));

    return g_strcmp0(own, path) == 0;
}

void weir_bound_move(WeirBound *bound, const char *path)
{
    JsonObject *settings = weir_json_copy(bound->settings);

    json_object_set_string_member(settings, bound_option(bound->driver), path);
    json_object_unref(bound->settings);
    bound->settings = settings;
}

static bool bound_same_file(const char *a, const char *b)
{
    g_autofree char *path_a = bound_path(a);
    g_autofree char *path_b = bound_path(b);

    return path_a && path_b && weir_same_file(path_a, path_b);
}

bool weir_bound_same(const WeirBound *a, const WeirBound *b)
{
    const char *text_a = weir_bound_memory(a);
    const char *text_b = weir_bound_memory(b);
    g_autofree char *kind_a = weir_bound_kind(a);
    g_autofree char *kind_b = weir_bound_kind(b);

    if (strcmp(kind_a, kind_b) != 0) {
        return false;
    }
    return text_a && text_b ? weir_location_same(text_a, text_b) ||
                              bound_same_file(text_a, text_b)
                            : text_a == text_b;
}

/* --- whether it matters --- */

/* Of a cache at an address nothing is known. */
static WeirCacheState bound_cache_state(const WeirBound *bound)
{
    g_autofree char *path = bound_path(weir_bound_memory(bound));

    return path ? weir_cache_file_state(path) : WEIR_CACHE_DIRTY;
}

/* One that never had any block of its own is not missed. */
static bool bound_is_missed(const WeirBound *bound)
{
    return strcmp(bound->driver, BOUND_CACHE) == 0 &&
           weir_cache_writes_back(weir_json_string(bound->settings, "mode")) &&
           bound_cache_state(bound) == WEIR_CACHE_MISSING;
}

static char *bound_cache_reason(const WeirBound *bound)
{
    static const char *const texts[] = {
        [WEIR_CACHE_DIRTY] = "has blocks that were not written back",
        [WEIR_CACHE_DAMAGED] = "may have had blocks of its own, and is damaged",
        [WEIR_CACHE_MISSING] = "may have had blocks of its own, and is missing",
        [WEIR_CACHE_UNREADABLE] =
            "may have blocks of its own, and cannot be read",
    };
    WeirCacheState state = bound_cache_state(bound);
    const char *text = weir_bound_memory(bound);
    g_autofree char *path = bound_path(text);

    if (state == WEIR_CACHE_WRITTEN_BACK ||
        (state == WEIR_CACHE_MISSING && !bound_is_missed(bound))) {
        return NULL;
    }
    return g_strdup_printf("its cache %s %s", path ? path : text,
                           texts[state]);
}

static char *bound_replication_reason(const WeirBound *bound)
{
    const char *text = weir_bound_memory(bound);
    g_autofree char *path = bound_path(text);

    if (path && !weir_sidecar_tells(path)) {
        return NULL;
    }
    return g_strdup_printf("the sidecar %s of its replication would not know "
                           "what is written", path ? path : text);
}

/* Whether a file begins as LUKS does, or cannot be asked. */
static bool bound_may_be_luks(const char *path)
{
    static const char magic[6] = { 'L', 'U', 'K', 'S', '\xba', '\xbe' };
    char found[sizeof(magic)];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool may_be = fd < 0 || pread(fd, found, sizeof(found), 0) !=
                  (gssize)sizeof(found) ||
                  memcmp(found, magic, sizeof(magic)) == 0;

    if (fd >= 0) {
        close(fd);
    }
    return may_be;
}

/* One that was decrypted has no header any more. */
static char *bound_encryption_reason(const WeirBound *bound, const char *disk,
                                     const char *format)
{
    const char *text = weir_bound_memory(bound);
    g_autofree char *path = bound_path(text);
    const char *header = text ? path :
                         bound->place == WEIR_PLACE_STORAGE ||
                         strcmp(format, "raw") == 0 ? disk : NULL;

    if (header && !bound_may_be_luks(header)) {
        return NULL;
    }
    return g_strdup("it is encrypted");
}

/* Whether it has got anything in its sidecar, only the plugin can tell. */
static char *bound_plugin_reason(const WeirBound *bound)
{
    g_autofree char *kind = weir_bound_kind(bound);
    const char *text = weir_bound_memory(bound);

    return bound->changes_data
        ? g_strdup_printf("its data is as %s has changed it", kind)
        : g_strdup_printf("the sidecar %s of %s may have data that the disk "
                          "lacks", text, kind);
}

char *weir_bound_reason(const WeirBound *bound, const char *disk,
                        const char *format, bool writes)
{
    if (bound_is_plugin(bound->driver)) {
        return bound_plugin_reason(bound);
    }
    if (strcmp(bound->driver, BOUND_CACHE) == 0) {
        return bound_cache_reason(bound);
    }
    if (strcmp(bound->driver, BOUND_REPLICATION) == 0) {
        return writes ? bound_replication_reason(bound) : NULL;
    }
    return bound_encryption_reason(bound, disk, format);
}

char *weir_bound_missed(const WeirBound *bound)
{
    return bound_is_missed(bound) ? bound_cache_reason(bound) : NULL;
}

/* @text as a word of a command for a shell, to be freed. */
static char *bound_word(const char *text)
{
    return text[strspn(text, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS
                       "/._-:@%+,=")] ? g_shell_quote(text) : g_strdup(text);
}

char *weir_bound_way_out(const WeirBound *bound, const char *disk)
{
    g_autofree char *quoted = bound_word(disk);

    if (bound_is_missed(bound)) {
        return g_strdup_printf("go on without what it had with 'weir binding "
                               "release %s'", quoted);
    }
    if (strcmp(bound->driver, BOUND_CACHE) == 0) {
        return g_strdup_printf("write them back with 'weir binding drain %s', "
                               "or lose them with 'weir binding release %s'",
                               quoted, quoted);
    }
    if (strcmp(bound->driver, BOUND_REPLICATION) == 0) {
        return g_strdup_printf("end the replication with 'weir binding release "
                               "%s': its next one begins with a copy of all of "
                               "the disk", quoted);
    }
    if (bound_is_plugin(bound->driver)) {
        return g_strdup_printf("do without it from now on with 'weir binding "
                               "release %s'", quoted);
    }
    return g_strdup_printf("say that it is not any more with 'weir binding "
                           "release %s'", quoted);
}

bool weir_bound_release(const WeirBound *bound, GError **error)
{
    g_autofree char *path = bound_path(weir_bound_memory(bound));

    if (path && strcmp(bound->driver, BOUND_CACHE) == 0) {
        return weir_cache_file_lose(path, error);
    }
    if (path && strcmp(bound->driver, BOUND_REPLICATION) == 0) {
        return weir_sidecar_forget(
            path, weir_json_string(bound->settings, "disk-id"), error);
    }
    return true;
}

/* --- as JSON --- */

JsonObject *weir_bound_json(const WeirBound *bound)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "driver", bound->driver);
    if (bound->changes_data) {
        json_object_set_boolean_member(object, "changes-data", TRUE);
    }
    weir_json_set_string(object, "policy", bound->policy);
    json_object_set_string_member(object, "place",
                                  weir_place_name(bound->place));
    json_object_set_object_member(object, "settings",
                                  json_object_ref(bound->settings));
    json_object_set_array_member(object, "below",
                                 json_array_ref(bound->below));
    return object;
}

WeirBound *weir_bound_read(JsonObject *object)
{
    const char *driver = weir_json_string(object, "driver");
    const char *policy = weir_json_string(object, "policy");
    const char *place = weir_json_string(object, "place");
    JsonObject *settings = weir_json_object(object, "settings");
    JsonArray *below = weir_json_array(object, "below");
    WeirBound *bound;

    if (!driver || !policy || !place || !settings || !below) {
        return NULL;
    }
    bound = g_new0(WeirBound, 1);
    bound->driver = g_strdup(driver);
    bound->changes_data = weir_json_bool(object, "changes-data", false);
    bound->policy = g_strdup(policy);
    bound->place = strcmp(place, weir_place_name(WEIR_PLACE_DISK)) == 0
        ? WEIR_PLACE_DISK : WEIR_PLACE_STORAGE;
    bound->settings = json_object_ref(settings);
    bound->below = json_array_ref(below);
    return bound;
}

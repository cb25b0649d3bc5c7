/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "disk.h"

#include <string.h>
#include <sys/stat.h>

#include "address.h"
#include "chain.h"
#include "policy.h"
#include "samefile.h"
#include "validate.h"

#define WEIR_DISK_MAX_ID 32
/* The guest waits so long for an NBD server that is gone. */
#define WEIR_DISK_RECONNECT_S 30

static const char *const disk_keys[] = {
    "file", "format", "policy", "id", "node-prefix", "device", "iothread",
    "aio", "cache.direct", "cache.no-flush", "read-only", "discard", NULL
};

static const char *const disk_devices[] = {
    "virtio-blk", "virtio-scsi", "none", NULL
};

static const char *const disk_aios[] = {
    "threads", "native", "io_uring", NULL
};

static const char *const disk_switches[] = { "off", "on", NULL };

static const char *const disk_discards[] = { "ignore", "unmap", NULL };

void weir_disk_free(WeirDisk *disk)
{
    if (disk) {
        g_free(disk->file);
        g_clear_pointer(&disk->remote, json_object_unref);
        weir_secret_free(disk->secret);
        g_free(disk->format);
        g_free(disk->policy);
        g_free(disk->id);
        g_free(disk->prefix);
        g_free(disk->aio);
        g_free(disk->iothread);
        g_free(disk);
    }
}

/* Split at single commas; of two, one stays.  Returns the parts. */
static GPtrArray *disk_split(const char *text)
{
    GPtrArray *parts = g_ptr_array_new_with_free_func(g_free);
    GString *part = g_string_new(NULL);

    for (; *text; text++) {
        if (text[0] == ',' && text[1] != ',') {
            g_ptr_array_add(parts, g_string_free(part, FALSE));
            part = g_string_new(NULL);
        } else {
            g_string_append_c(part, *text);
            text += *text == ',';
        }
    }
    g_ptr_array_add(parts, g_string_free(part, FALSE));
    return parts;
}

/* Index of @value in @words, or -1 with @error set. */
static int disk_word(const char *key, const char *value,
                     const char *const *words, GError **error)
{
    g_autofree char *list = NULL;

    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], value) == 0) {
            return i;
        }
    }
    list = g_strjoinv(", ", (char **)words);
    weir_set_error(error, "--disk: found %s=%s, expected one of %s", key,
                   value, list);
    return -1;
}

static bool disk_switch(const char *key, const char *value, bool *target,
                        const char *const *words, GError **error)
{
    int index = disk_word(key, value, words, error);

    *target = index == 1;
    return index >= 0;
}

/* Where the value of a key with a name goes, or NULL. */
static char **disk_name_target(WeirDisk *disk, const char *key)
{
    if (strcmp(key, "format") == 0) {
        return &disk->format;
    }
    if (strcmp(key, "policy") == 0) {
        return &disk->policy;
    }
    if (strcmp(key, "id") == 0) {
        return &disk->id;
    }
    if (strcmp(key, "node-prefix") == 0) {
        return &disk->prefix;
    }
    if (strcmp(key, "iothread") == 0) {
        return &disk->iothread;
    }
    return NULL;
}

static bool disk_set_name(char **target, const char *key, const char *value,
                          GError **error)
{
    bool is_name = strcmp(key, "policy") != 0;

    if (is_name && (!weir_name_ok(value, WEIR_DISK_MAX_ID) ||
                    (strcmp(key, "format") != 0 &&
                     !g_ascii_isalpha(value[0])))) {
        weir_set_error(error, "--disk: found %s=%s, expected up to %d "
                       "letters, digits, '.', '_' and '-', the first a letter",
                       key, value, WEIR_DISK_MAX_ID);
        return false;
    }
    *target = g_strdup(value);
    return true;
}

static bool disk_set(WeirDisk *disk, const char *key, const char *value,
                     GError **error)
{
    char **target = disk_name_target(disk, key);
    int index;

    if (target) {
        return disk_set_name(target, key, value, error);
    }
    if (strcmp(key, "file") == 0) {
        disk->file = g_strdup(value);
        return true;
    }
    if (strcmp(key, "device") == 0) {
        index = disk_word(key, value, disk_devices, error);
        disk->device = index < 0 ? WEIR_DEVICE_NONE : (WeirDevice)index;
        return index >= 0;
    }
    if (strcmp(key, "aio") == 0) {
        disk->aio = g_strdup(value);
        return disk_word(key, value, disk_aios, error) >= 0;
    }
    if (strcmp(key, "discard") == 0) {
        return disk_switch(key, value, &disk->discard, disk_discards, error);
    }
    return disk_switch(key, value,
                       strcmp(key, "read-only") == 0 ? &disk->read_only :
                       strcmp(key, "cache.direct") == 0 ? &disk->cache_direct :
                       &disk->cache_no_flush, disk_switches, error);
}

static bool disk_set_part(WeirDisk *disk, const char *part, GHashTable *seen,
                          GError **error)
{
    const char *equals = strchr(part, '=');
    g_autofree char *key = equals ? g_strndup(part, (gsize)(equals - part))
                                  : g_strdup(part);
    g_autofree char *list = NULL;
    const char *closest;

    if (!g_strv_contains(disk_keys, key)) {
        closest = weir_closest(key, disk_keys);
        list = g_strjoinv(", ", (char **)disk_keys);
        weir_set_error(error, "--disk: found unknown '%s', expected one of "
                       "%s%s%s%s", key, list, closest ? "; did you mean '" : "",
                       closest ? closest : "", closest ? "'?" : "");
        return false;
    }
    if (!equals || !equals[1]) {
        weir_set_error(error, "--disk: found %s without a value, expected "
                       "%s=VALUE", key, key);
        return false;
    }
    if (g_hash_table_contains(seen, key)) {
        weir_set_error(error, "--disk: found %s twice, expected it once", key);
        return false;
    }
    if (!disk_set(disk, key, equals + 1, error)) {
        return false;
    }
    g_hash_table_add(seen, g_steal_pointer(&key));
    return true;
}

/* The node at an address, if the disk's file is one. */
static bool disk_find_remote(WeirDisk *disk, GError **error)
{
    const char *password;
    g_autofree char *id = NULL;

    if (!weir_address_is(disk->file)) {
        return true;
    }
    disk->remote = weir_address_parse(disk->file, error);
    if (!disk->remote) {
        g_prefix_error(error, "--disk: file=%s: ", disk->file);
        return false;
    }
    if (strcmp(weir_disk_driver(disk), "nbd") == 0 &&
        !json_object_has_member(disk->remote, "reconnect-delay")) {
        json_object_set_int_member(disk->remote, "reconnect-delay",
                                   WEIR_DISK_RECONNECT_S);
    }
    password = weir_json_string(disk->remote, "password-secret");
    if (password) {
        id = weir_node_name(disk->prefix, "password");
        disk->secret = weir_secret_parse(password, id, error);
        json_object_set_string_member(disk->remote, "password-secret",
                                      disk->secret->id);
    }
    return true;
}

/* What is missing or does not fit together; fills in defaults. */
static bool disk_complete(WeirDisk *disk, guint number, GError **error)
{
    if (!disk->file || !disk->format) {
        weir_set_error(error, "--disk: found no %s, expected file=FILE and "
                       "format=FORMAT (it is never guessed)",
                       disk->file ? "format" : "file");
        return false;
    }
    if (g_strcmp0(disk->aio, "native") == 0 && !disk->cache_direct) {
        weir_set_error(error, "--disk: found aio=native without "
                       "cache.direct=on, expected both");
        return false;
    }
    if (disk->iothread && disk->device == WEIR_DEVICE_NONE) {
        weir_set_error(error, "--disk: found iothread with device=none, "
                       "expected a device that uses it");
        return false;
    }
    if (disk->aio && weir_address_is(disk->file)) {
        weir_set_error(error, "--disk: found aio=%s with an address, expected "
                       "it with a file or block device", disk->aio);
        return false;
    }
    if (!disk->id) {
        disk->id = g_strdup_printf("disk%u", number);
    }
    if (!disk->prefix) {
        disk->prefix = g_strconcat("weir-", disk->id, NULL);
    }
    return disk_find_remote(disk, error);
}

WeirDisk *weir_disk_parse(const char *text, guint number, GError **error)
{
    g_autoptr(GPtrArray) parts = disk_split(text);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                       g_free, NULL);
    g_autoptr(WeirDisk) disk = g_new0(WeirDisk, 1);

    disk->discard = true;
    for (guint i = 0; i < parts->len; i++) {
        if (!disk_set_part(disk, g_ptr_array_index(parts, i), seen, error)) {
            return NULL;
        }
    }
    if (!disk_complete(disk, number, error)) {
        return NULL;
    }
    return g_steal_pointer(&disk);
}

const char *weir_disk_driver(const WeirDisk *disk)
{
    struct stat file_stat;

    if (disk->remote) {
        return weir_json_string(disk->remote, "driver");
    }
    return stat(disk->file, &file_stat) == 0 && S_ISBLK(file_stat.st_mode)
               ? "host_device" : "file";
}

char *weir_disk_name(const WeirDisk *disk)
{
    return g_path_get_basename(disk->remote ? weir_address_name(disk->remote)
                                            : disk->file);
}

static bool disk_same_file(const WeirDisk *a, const WeirDisk *b)
{
    if (a->remote || b->remote) {
        return a->remote && b->remote &&
               weir_address_same(a->remote, b->remote);
    }
    return weir_same_file(a->file, b->file);
}

static bool disk_pair_distinct(const WeirDisk *a, const WeirDisk *b,
                               GError **error)
{
    if (strcmp(a->id, b->id) == 0) {
        weir_set_error(error, "two disks have the id '%s'", a->id);
        return false;
    }
    if (strcmp(a->prefix, b->prefix) == 0) {
        weir_set_error(error, "disks %s and %s have the same node-prefix '%s'",
                       a->id, b->id, a->prefix);
        return false;
    }
    if (!(a->read_only && b->read_only) && disk_same_file(a, b)) {
        weir_set_error(error, "disks %s and %s are the same file %s", a->id,
                       b->id, b->file);
        return false;
    }
    return true;
}

bool weir_disks_distinct(const GPtrArray *disks, GError **error)
{
    for (guint i = 0; i < disks->len; i++) {
        for (guint j = 0; j < i; j++) {
            if (!disk_pair_distinct(g_ptr_array_index(disks, j),
                                    g_ptr_array_index(disks, i), error)) {
                return false;
            }
        }
    }
    return true;
}

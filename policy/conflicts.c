/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "conflicts.h"

#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "cachefile.h"
#include "location.h"
#include "samefile.h"

#define CONFLICTS_CACHE "weir-cache"
#define CONFLICTS_REPLICATION "weir-replication"
#define CONFLICTS_CREATE "create:"
#define CONFLICTS_SIDECAR_BYTES 8192    /* that are no longer blank */

static const WeirOrdered *conflicts_find(const GArray *filters,
                                         const char *driver)
{
    for (guint i = 0; i < filters->len; i++) {
        const WeirOrdered *filter = &g_array_index(filters, WeirOrdered, i);

        if (strcmp(filter->type->driver, driver) == 0) {
            return filter;
        }
    }
    return NULL;
}

/* The value of a filter's option, or NULL. */
static const WeirYaml *conflicts_option(const WeirOrdered *filter,
                                        const char *name)
{
    return filter->options ? weir_yaml_member_of(filter->options, name,
                                                 WEIR_YAML_SCALAR) : NULL;
}

/* Two nodes in one place write over each other. */
static void conflicts_check_places(const GArray *filters, WeirReport *report)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < filters->len; i++) {
        const WeirOrdered *filter = &g_array_index(filters, WeirOrdered, i);

        for (guint j = 0; j < filter->type->nodes->len; j++) {
            const char *name = g_ptr_array_index(filter->type->nodes, j);
            const WeirYaml *value = conflicts_option(filter, name);
            const char *path = value ? value->text : "";
            const WeirYaml *first;

            if (g_str_has_prefix(path, CONFLICTS_CREATE)) {
                path = strchr(path + strlen(CONFLICTS_CREATE), ':');
                path = path ? path + 1 : "";
            }
            first = *path ? g_hash_table_lookup(seen, path) : NULL;
            if (first) {
                weir_report(report, value, "found '%s' for '%s', expected a "
                            "place of its own (%s:%u has it too)", path, name,
                            first->file, first->line);
            } else if (*path) {
                g_hash_table_insert(seen, (gpointer)path, (gpointer)value);
            }
        }
    }
}

/* A policy holds at each start, but that is for one. */
static void conflicts_check_lose_dirty(const GArray *filters,
                                       WeirReport *report)
{
    const WeirOrdered *cache = conflicts_find(filters, CONFLICTS_CACHE);
    const WeirYaml *value = cache ? conflicts_option(cache, "lose-dirty")
                                  : NULL;

    if (value && weir_yaml_is_true(value)) {
        weir_report(report, value, "found 'lose-dirty' in a policy, where each "
                    "start would drop what a damaged cache, or that of "
                    "another disk, has not written back; expected it only in "
                    "one start by hand");
    }
}

/*
 * When a file that is made by itself is lost, so is what the disk had not got.
 * A sidecar tells that the disk had been in use (see below); without one, the
 * old content of the disk would be replicated as new.
 */
static void conflicts_check_write_back(const GArray *filters,
                                       WeirReport *report)
{
    const WeirOrdered *cache = conflicts_find(filters, CONFLICTS_CACHE);
    const WeirOrdered *source = conflicts_find(filters, CONFLICTS_REPLICATION);
    const WeirYaml *file = cache ? conflicts_option(cache, "cache-file")
                                 : NULL;
    const WeirYaml *mode = cache ? conflicts_option(cache, "mode") : NULL;

    if (source && file && g_str_has_prefix(file->text, CONFLICTS_CREATE) &&
        weir_cache_writes_back(mode ? mode->text : NULL) &&
        !conflicts_option(source, "sidecar")) {
        weir_report(report, file, "found a write-back cache whose file is "
                    "made when it is missing, under a replication without "
                    "sidecar: were the file lost, what the disk lacks then "
                    "would be replicated as old; expected a sidecar, mode "
                    "write-through, or a file without 'create:'");
    }
}

/* @rest: what follows the scheme of an address. */
static bool conflicts_is_loopback(const char *rest)
{
    gsize user = strcspn(rest, "@/");
    const char *begin = rest + (rest[user] == '@' ? user + 1 : 0);
    bool bracketed = *begin == '[';
    g_autofree char *host = g_strndup(begin + bracketed,
                                      strcspn(begin + bracketed,
                                              bracketed ? "]" : ":/?"));
    g_autoptr(GInetAddress) address = g_inet_address_new_from_string(host);

    return address ? g_inet_address_get_is_loopback(address)
                   : strcmp(host, "localhost") == 0;
}

/* Whether what is sent to that place can be read on a network. */
static bool conflicts_is_open(const char *place)
{
    static const char *const schemes[] = { "nbd://", "iscsi://" };

    for (guint i = 0; i < G_N_ELEMENTS(schemes); i++) {
        if (g_str_has_prefix(place, schemes[i])) {
            return !conflicts_is_loopback(place + strlen(schemes[i]));
        }
    }
    /* Where the cluster is, and whether it encrypts, only its conf knows. */
    return g_str_has_prefix(place, "rbd://");
}

static void conflicts_check_open_nodes(const WeirOrdered *filter,
                                       WeirReport *report)
{
    for (guint i = 0; i < filter->type->nodes->len; i++) {
        const char *name = g_ptr_array_index(filter->type->nodes, i);
        const WeirYaml *value = conflicts_option(filter, name);

        if (value && conflicts_is_open(value->text)) {
            weir_report(report, value, "found '%s' for '%s' of a filter above "
                        "encryption: what it sends could be read on the "
                        "network; expected nbds", value->text, name);
        }
    }
}

/* What is above encryption must not leave the host as it is. */
static void conflicts_check_plaintext(const GArray *filters,
                                      WeirReport *report)
{
    const WeirOrdered *encryption = weir_order_find(filters,
                                                    WEIR_CLASS_ENCRYPTION);

    for (guint i = 0; encryption && i < filters->len; i++) {
        const WeirOrdered *filter = &g_array_index(filters, WeirOrdered, i);

        if (weir_order_above(filter, encryption)) {
            conflicts_check_open_nodes(filter, report);
        }
    }
}

void weir_conflicts_check(const GArray *filters, WeirReport *report)
{
    conflicts_check_places(filters, report);
    conflicts_check_lose_dirty(filters, report);
    conflicts_check_write_back(filters, report);
    conflicts_check_plaintext(filters, report);
}

/* The file of an option that is a node of a file, or NULL. */
static const char *conflicts_path(JsonObject *options, const char *option)
{
    return weir_json_string(weir_json_object(options, option), "filename");
}

/* Whether an option is a node that is at the disk's own address. */
static bool conflicts_same_address(JsonObject *options, const char *option,
                                   const WeirDisk *disk)
{
    JsonObject *node = weir_json_object(options, option);

    return node && disk->remote && weir_address_same(node, disk->remote);
}

bool weir_conflicts_disk(const WeirPolicyFilter *filter, JsonObject *options,
                         const WeirDisk *disk, const char **option,
                         GError **error)
{
    bool is_source = strcmp(filter->driver, CONFLICTS_REPLICATION) == 0;
    bool is_write_back =
        strcmp(filter->driver, CONFLICTS_CACHE) == 0 &&
        weir_cache_writes_back(weir_json_string(options, "mode"));

    for (char **node = filter->nodes; *node; node++) {
        const char *path = conflicts_path(options, *node);

        if (path ? weir_same_file(path, disk->file)
                 : conflicts_same_address(options, *node, disk)) {
            *option = *node;
            weir_set_error(error, "found the disk's own file %s, expected "
                           "another", disk->file);
            return false;
        }
    }
    if (disk->cache_no_flush && (is_source || is_write_back)) {
        *option = is_source ? "sidecar" : "mode";
        weir_set_error(error, "found a disk with cache.no-flush=on: after a "
                       "power cut it has not got what %s takes for written, "
                       "expected cache.no-flush=off",
                       is_source ? "the log" : "the cache");
        return false;
    }
    return true;
}

bool weir_conflicts_shared(const WeirPolicyFilter *filter, const char *option)
{
    return filter->class != WEIR_CLASS_CACHE &&
           filter->class != WEIR_CLASS_ENCRYPTION &&
           strcmp(option, "sidecar") != 0;
}

/* The node of that driver in a chain, or NULL. */
static const WeirChainNode *conflicts_node(const GPtrArray *chain,
                                           const char *driver)
{
    for (guint i = 0; i < chain->len; i++) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);

        if (strcmp(node->driver, driver) == 0) {
            return node;
        }
    }
    return NULL;
}

/* Whether a sidecar is there and has been in use: it is blank at first. */
static bool conflicts_is_used(const char *sidecar)
{
    char data[CONFLICTS_SIDECAR_BYTES];
    int fd = open(sidecar, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    gssize n = fd < 0 ? 0 : read(fd, data, sizeof(data));
    bool used = false;

    for (gssize i = 0; i < n; i++) {
        used = used || data[i] != 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return used;
}

bool weir_conflicts_files(const GPtrArray *chain, const char *disk,
                          GError **error)
{
    const WeirChainNode *cache = conflicts_node(chain, CONFLICTS_CACHE);
    const WeirChainNode *source = conflicts_node(chain, CONFLICTS_REPLICATION);
    const char *sidecar = source ? conflicts_path(source->options, "sidecar")
                                 : NULL;
    const char *file = cache ? conflicts_path(cache->options, "cache-file")
                             : NULL;

    if (!sidecar || !file || g_file_test(file, G_FILE_TEST_EXISTS) ||
        !weir_cache_writes_back(weir_json_string(cache->options, "mode")) ||
        !conflicts_is_used(sidecar)) {
        return true;
    }
    weir_set_error(error, "disk %s: found sidecar %s, which has been in use, "
                   "but not %s, the file of a write-back cache: if that was "
                   "lost, the disk lacks what the log has; expected both (if "
                   "the disk never had a cache, make the file with truncate; "
                   "if it had, fail over to the replica)", disk, sidecar,
                   file);
    return false;
}

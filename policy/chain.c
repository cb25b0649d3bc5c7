/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "chain.h"

#include <string.h>

#define WEIR_NODE_NAME_MAX 31
#define WEIR_NODE_NAME_HASH 8

static const char *const chain_roles[] = {
    [WEIR_ROLE_STORAGE] = "storage",
    [WEIR_ROLE_FILTER] = "filter",
    [WEIR_ROLE_FORMAT] = "format",
};

const char *weir_role_name(WeirRole role)
{
    return chain_roles[role];
}

static void chain_node_free(WeirChainNode *node)
{
    g_free(node->driver);
    g_free(node->node_name);
    json_object_unref(node->options);
    g_clear_pointer(&node->settings, json_object_unref);
    g_clear_pointer(&node->nodes, json_array_unref);
    g_free(node);
}

char *weir_node_name(const char *prefix, const char *suffix)
{
    g_autofree char *name = g_strconcat(prefix, "-", suffix, NULL);
    g_autofree char *hash = NULL;

    if (strlen(name) <= WEIR_NODE_NAME_MAX) {
        return g_steal_pointer(&name);
    }
    hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, name, -1);
    return g_strdup_printf("%.*s-%.*s",
                           WEIR_NODE_NAME_MAX - WEIR_NODE_NAME_HASH - 1, name,
                           WEIR_NODE_NAME_HASH, hash);
}

char *weir_chain_suffix(const char *driver, JsonObject *options)
{
    const char *rest = driver + strlen(WEIR_FILTER_PREFIX);
    g_autofree char *kind = weir_kind_of(driver, options);
    const char *plugin = weir_kind_plugin(kind);

    for (guint i = 0; i < G_N_ELEMENTS(chain_roles); i++) {
        if (strcmp(rest, chain_roles[i]) == 0) {
            return g_strdup(driver);
        }
    }
    return plugin ? g_strconcat(rest, "-", plugin, NULL) : g_strdup(rest);
}

/* What every node of the disk's chain is told. */
static void chain_set_common(JsonObject *options, const WeirDisk *disk)
{
    JsonObject *cache = json_object_new();

    json_object_set_boolean_member(options, "read-only", disk->read_only);
    json_object_set_string_member(options, "discard",
                                  disk->discard ? "unmap" : "ignore");
    json_object_set_boolean_member(cache, "direct", disk->cache_direct);
    json_object_set_boolean_member(cache, "no-flush", disk->cache_no_flush);
    json_object_set_object_member(options, "cache", cache);
}

/* Add a node on top of @chain; returns it for the rest of its options. */
static WeirChainNode *chain_push(GPtrArray *chain, const WeirDisk *disk,
                                 WeirRole role, const char *driver,
                                 const char *suffix)
{
    WeirChainNode *node = g_new0(WeirChainNode, 1);

    node->role = role;
    node->driver = g_strdup(driver);
    node->node_name = weir_node_name(disk->prefix, suffix);
    node->options = json_object_new();
    json_object_set_string_member(node->options, "driver", driver);
    json_object_set_string_member(node->options, "node-name",
                                  node->node_name);
    chain_set_common(node->options, disk);
    g_ptr_array_add(chain, node);
    return node;
}

static void chain_add_options(JsonObject *to, JsonObject *options)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, options);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        json_object_set_member(to, name, json_node_ref(value));
    }
}

static void chain_push_storage(GPtrArray *chain, const WeirDisk *disk)
{
    WeirChainNode *node = chain_push(chain, disk, WEIR_ROLE_STORAGE,
                                     weir_disk_driver(disk), "storage");

    if (disk->remote) {
        chain_add_options(node->options, disk->remote);
    } else {
        json_object_set_string_member(node->options, "filename", disk->file);
    }
    if (disk->aio) {
        json_object_set_string_member(node->options, "aio", disk->aio);
    }
}

static void chain_push_filter(GPtrArray *chain, const WeirDisk *disk,
                              const WeirPolicyFilter *filter,
                              JsonObject *options, JsonObject *settings)
{
    const char *below = weir_chain_top(chain);
    g_autofree char *suffix = weir_chain_suffix(filter->driver, options);
    WeirChainNode *node = chain_push(chain, disk, WEIR_ROLE_FILTER,
                                     filter->driver, suffix);

    node->place = filter->place;
    node->changes_data = filter->changes_data;
    node->holds_data = filter->holds_data;
    node->settings = json_object_ref(settings);
    chain_add_options(node->options, options);
    json_object_set_string_member(node->options, filter->child, below);
}

/* Add the policy's filters of one place, the lowest first. */
static void chain_push_filters(GPtrArray *chain, const WeirDisk *disk,
                               const WeirPolicy *policy,
                               const GPtrArray *options,
                               const GPtrArray *settings, WeirPlace place)
{
    for (guint i = policy->filters->len; i-- > 0;) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);

        if (filter->place == place) {
            chain_push_filter(chain, disk, filter,
                              g_ptr_array_index(options, i),
                              g_ptr_array_index(settings, i));
        }
    }
}

GPtrArray *weir_chain_new(const WeirDisk *disk, const WeirPolicy *policy,
                          const GPtrArray *options,
                          const GPtrArray *settings)
{
    GPtrArray *chain = g_ptr_array_new_with_free_func(
        (GDestroyNotify)chain_node_free);
    const char *below;
    WeirChainNode *format;

    chain_push_storage(chain, disk);
    chain_push_filters(chain, disk, policy, options, settings,
                       WEIR_PLACE_STORAGE);
    below = weir_chain_top(chain);
    format = chain_push(chain, disk, WEIR_ROLE_FORMAT, disk->format,
                        "format");
    json_object_set_string_member(format->options, "file", below);
    chain_push_filters(chain, disk, policy, options, settings,
                       WEIR_PLACE_DISK);
    return chain;
}

const char *weir_chain_top(const GPtrArray *chain)
{
    const WeirChainNode *node = g_ptr_array_index(chain, chain->len - 1);

    return node->node_name;
}

/* A cache in any of these modes has written to the disk itself. */
static bool chain_is_write_back(const WeirChainNode *node)
{
    static const char *const safe[] = {
        "write-through", "write-around", "read-only", NULL
    };
    const char *mode = weir_json_string(node->options, "mode");

    return !mode || !g_strv_contains(safe, mode);
}

/*
 * Whether a node, or one in its options, is a client of Ceph with a cache: that
 * says to be written what it has in memory.
 */
static bool chain_has_client_cache(JsonObject *options)
{
    g_autoptr(GList) members = json_object_get_members(options);

    if (g_strcmp0(weir_json_string(options, "driver"), "rbd") == 0 &&
        !weir_json_bool(weir_json_object(options, "cache"), "direct",
                        false)) {
        return true;
    }
    for (GList *l = members; l; l = l->next) {
        JsonObject *inner = weir_json_object(options, l->data);

        if (inner && chain_has_client_cache(inner)) {
            return true;
        }
    }
    return false;
}

/* Some keep nothing; what others do is not known, but of plugins. */
static bool chain_filter_holds_back(const WeirChainNode *node)
{
    static const char *const safe[] = {
        "weir-encryption", "weir-inspect", "weir-replication", NULL
    };

    if (strcmp(node->driver, WEIR_PLUGIN_DRIVER) == 0) {
        return node->holds_data;
    }
    return !g_strv_contains(safe, node->driver) &&
           (strcmp(node->driver, "weir-cache") != 0 ||
            chain_is_write_back(node));
}

bool weir_chain_holds_back(const GPtrArray *chain)
{

    for (guint i = 0; i < chain->len; i++) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);

        if (chain_has_client_cache(node->options)) {
            return true;
        }
        if (node->role == WEIR_ROLE_FORMAT
            ? strcmp(node->driver, "raw") != 0
            : node->role == WEIR_ROLE_FILTER &&
              chain_filter_holds_back(node)) {
            return true;
        }
    }
    return false;
}

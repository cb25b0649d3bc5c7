/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mutable.h"

#include <string.h>

#include "location.h"

/* The options of a filter that are not as most of its options are. */
typedef struct Exception {
    const char *driver;
    const char *option;
    WeirMutability mutability;
} Exception;

/* What the options of a driver are, but for its exceptions. */
static const struct {
    const char *driver;
    WeirMutability mutability;
} mutable_drivers[] = {
    { "weir-inspect", WEIR_MUTABLE_REOPEN },
    { "weir-cache", WEIR_MUTABLE_REOPEN },
    { "weir-replication", WEIR_MUTABLE_REATTACH },
    { "weir-encryption", WEIR_MUTABLE_NEVER },
};

static const Exception mutable_exceptions[] = {
    { "weir-cache", "cache-file", WEIR_MUTABLE_REATTACH },
    { "weir-cache", "base-id", WEIR_MUTABLE_REATTACH },
    { "weir-cache", "overwrite", WEIR_MUTABLE_AT_OPEN },
    { "weir-cache", "lose-dirty", WEIR_MUTABLE_AT_OPEN },
    { "weir-replication", "target-timeout", WEIR_MUTABLE_REOPEN },
    { "weir-replication", "rpo-limit", WEIR_MUTABLE_REOPEN },
    { "weir-encryption", "key-secret", WEIR_MUTABLE_AT_OPEN },
    { "weir-encryption", "key-slot", WEIR_MUTABLE_AT_OPEN },
    { "weir-encryption", "max-kdf-memory", WEIR_MUTABLE_AT_OPEN },
    { "weir-encryption", "max-kdf-time", WEIR_MUTABLE_AT_OPEN },
    { "weir-encryption", "pin-uuid", WEIR_MUTABLE_AT_OPEN },
};

WeirMutability weir_mutability(const char *driver, bool changes_data,
                               const char *option)
{
    for (guint i = 0; i < G_N_ELEMENTS(mutable_exceptions); i++) {
        if (strcmp(mutable_exceptions[i].driver, driver) == 0 &&
            strcmp(mutable_exceptions[i].option, option) == 0) {
            return mutable_exceptions[i].mutability;
        }
    }
    for (guint i = 0; i < G_N_ELEMENTS(mutable_drivers); i++) {
        if (strcmp(mutable_drivers[i].driver, driver) == 0) {
            return mutable_drivers[i].mutability;
        }
    }
    return changes_data ? WEIR_MUTABLE_NEVER : WEIR_MUTABLE_REATTACH;
}

const char *weir_mutability_name(WeirMutability mutability)
{
    static const char *const names[] = {
        [WEIR_MUTABLE_REOPEN] = "reopen",
        [WEIR_MUTABLE_AT_OPEN] = "at-open",
        [WEIR_MUTABLE_REATTACH] = "reattach",
        [WEIR_MUTABLE_NEVER] = "never",
    };

    return names[mutability];
}

static bool mutable_same(const char *name, JsonNode *a, JsonNode *b,
                         const GPtrArray *nodes)
{
    bool is_node = g_ptr_array_find_with_equal_func((GPtrArray *)nodes, name,
                                                    g_str_equal, NULL);
    const char *a_text = weir_json_as_string(a);
    const char *b_text = weir_json_as_string(b);

    if (is_node && a_text && b_text) {
        return weir_location_same(a_text, b_text);
    }
    return json_node_equal(a, b);
}

/* Add the members of @a that are not the same in @b, or only missing there. */
static void mutable_add(GPtrArray *names, JsonObject *a, JsonObject *b,
                        const GPtrArray *nodes, bool only_missing)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, a);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        JsonNode *other = json_object_get_member(b, name);

        if (!other ||
            (!only_missing && !mutable_same(name, value, other, nodes))) {
            g_ptr_array_add(names, g_strdup(name));
        }
    }
}

static gint mutable_compare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

GPtrArray *weir_options_differ(JsonObject *a, JsonObject *b,
                               const GPtrArray *nodes)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    mutable_add(names, a, b, nodes, false);
    mutable_add(names, b, a, nodes, true);
    g_ptr_array_sort(names, mutable_compare);
    return names;
}

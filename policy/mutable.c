/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mutable.h"

#include <string.h>

#include "location.h"
#include "secret.h"

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

/* An option that is a secret which QEMU would have to be given, or NULL. */
static const char *mutable_secret(JsonObject *settings)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, settings);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        const char *text = weir_json_as_string(value);
        g_autoptr(WeirSecret) secret =
            text && weir_secret_is_option(name)
                ? weir_secret_parse(text, "id", NULL) : NULL;

        if (secret && secret->kind != WEIR_SECRET_ID) {
            return name;
        }
    }
    return NULL;
}

const char *weir_memory_option(WeirClass class)
{
    return class == WEIR_CLASS_REPLICATION ? "sidecar" :
           class == WEIR_CLASS_CACHE ? "cache-file" : NULL;
}

/* Whether what a filter knows is where nobody here can tell that it is old. */
static bool mutable_is_far(const WeirFilterType *type, JsonObject *settings)
{
    const char *option = weir_memory_option(type->class);
    const char *text = option ? weir_json_string(settings, option) : NULL;
    g_autoptr(WeirLocation) location = text ? weir_location_parse(text, NULL)
                                            : NULL;

    return location && !location->path;
}

char *weir_cannot_attach(const WeirFilterType *type, JsonObject *settings)
{
    const char *secret = mutable_secret(settings);

    if (type->class == WEIR_CLASS_ENCRYPTION) {
        return g_strdup("the data on it is not encrypted, and the guest would "
                        "see noise; the QMP command weir-encrypt encrypts it "
                        "in place, after which the VM is started under the "
                        "policy");
    }
    if (type->changes_data) {
        return g_strdup("the data on it is not what the filter expects; start "
                        "the VM anew under the policy");
    }
    if (mutable_is_far(type, settings)) {
        return g_strdup_printf("what its '%s' has is not true of a disk that "
                               "was in use without the filter, and only a file "
                               "or device here can be marked as old",
                               weir_memory_option(type->class));
    }
    if (secret) {
        return g_strdup_printf("its '%s' would have to be given to a QEMU that "
                               "runs; start the VM anew under the policy",
                               secret);
    }
    return NULL;
}

char *weir_cannot_detach(const WeirFilterType *type, JsonObject *settings)
{
    /* a cache that is detached makes its file empty by itself */
    if (type->class == WEIR_CLASS_REPLICATION && settings &&
        mutable_is_far(type, settings)) {
        return g_strdup("what its 'sidecar' has would be believed when the "
                        "disk is replicated next, and only a file or device "
                        "here can be made blank");
    }
    if (type->class == WEIR_CLASS_ENCRYPTION) {
        return g_strdup("the data below it is encrypted, and the guest would "
                        "see it so; decrypt the disk first with the QMP "
                        "command weir-decrypt");
    }
    return type->changes_data
        ? g_strdup("the data below it is not what the guest has written")
        : NULL;
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

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mutable.h"

#include <string.h>

#include "location.h"
#include "pluginvalue.h"
#include "secret.h"

#define MUTABLE_INNER "options."

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

/* The name of one of a plugin's own options, or NULL. */
static const char *mutable_inner(const char *option)
{
    return g_str_has_prefix(option, MUTABLE_INNER)
        ? option + strlen(MUTABLE_INNER) : NULL;
}

static WeirMutability mutable_plugin(const WeirFilterType *type,
                                     const char *option)
{
    static const char *const of_driver[] = { "on-error", "deadline", NULL };
    const char *inner = mutable_inner(option);
    JsonObject *own = inner ? weir_plugin_option(type->plugin, inner) : NULL;

    if (g_strv_contains(of_driver, option) ||
        weir_json_bool(own, "mutable", false)) {
        return WEIR_MUTABLE_REOPEN;
    }
    return type->changes_data ? WEIR_MUTABLE_NEVER : WEIR_MUTABLE_REATTACH;
}

WeirMutability weir_mutability(const WeirFilterType *type, const char *option)
{
    if (strcmp(type->driver, WEIR_PLUGIN_DRIVER) == 0) {
        return mutable_plugin(type, option);
    }
    for (guint i = 0; i < G_N_ELEMENTS(mutable_exceptions); i++) {
        if (strcmp(mutable_exceptions[i].driver, type->driver) == 0 &&
            strcmp(mutable_exceptions[i].option, option) == 0) {
            return mutable_exceptions[i].mutability;
        }
    }
    for (guint i = 0; i < G_N_ELEMENTS(mutable_drivers); i++) {
        if (strcmp(mutable_drivers[i].driver, type->driver) == 0) {
            return mutable_drivers[i].mutability;
        }
    }
    return type->changes_data ? WEIR_MUTABLE_NEVER : WEIR_MUTABLE_REATTACH;
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

    if (type->problem) {
        return g_strdup(type->problem);
    }
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
    if (type->problem) {
        return g_strdup_printf("what it does is not known: %s", type->problem);
    }
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

JsonNode *weir_option(JsonObject *options, const char *option)
{
    const char *inner = mutable_inner(option);

    if (inner) {
        options = weir_json_object(options, "options");
        option = inner;
    }
    return options ? json_object_get_member(options, option) : NULL;
}

bool weir_option_same(const WeirFilterType *type, JsonObject *a, JsonObject *b,
                      const char *option)
{
    const char *inner = mutable_inner(option);
    JsonObject *own = inner ? weir_plugin_option(type->plugin, inner) : NULL;
    JsonNode *left = weir_option(a, option);
    JsonNode *right = weir_option(b, option);
    const char *a_text = left ? weir_json_as_string(left) : NULL;
    const char *b_text = right ? weir_json_as_string(right) : NULL;

    if (own) {
        g_autofree char *a_value = weir_plugin_value(own, left);
        g_autofree char *b_value = weir_plugin_value(own, right);

        return strcmp(a_value, b_value) == 0;
    }
    if (a_text && b_text &&
        g_ptr_array_find_with_equal_func(type->nodes, option, g_str_equal,
                                         NULL)) {
        return weir_location_same(a_text, b_text);
    }
    return left && right ? json_node_equal(left, right) : left == right;
}

/* Add the members of @a that are others in @b, or only missing there. */
static void mutable_add(GPtrArray *names, JsonObject *a, JsonObject *b,
                        const char *prefix, bool only_missing)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, a);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        JsonNode *other = json_object_get_member(b, name);

        if (!other || (!only_missing && !json_node_equal(value, other))) {
            g_ptr_array_add(names, g_strconcat(prefix, name, NULL));
        }
    }
}

static gint mutable_compare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Those of a plugin's own, in the place of all of them. */
static void mutable_add_inner(GPtrArray *names, JsonObject *a, JsonObject *b)
{
    g_autoptr(JsonObject) none = json_object_new();
    JsonObject *left = weir_json_object(a, "options");
    JsonObject *right = weir_json_object(b, "options");
    guint index;

    if ((left || right) &&
        g_ptr_array_find_with_equal_func(names, "options", g_str_equal,
                                         &index)) {
        g_ptr_array_remove_index(names, index);
        mutable_add(names, left ? left : none, right ? right : none,
                    MUTABLE_INNER, false);
        mutable_add(names, right ? right : none, left ? left : none,
                    MUTABLE_INNER, true);
    }
}

GPtrArray *weir_options_differ(JsonObject *a, JsonObject *b)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    mutable_add(names, a, b, "", false);
    mutable_add(names, b, a, "", true);
    mutable_add_inner(names, a, b);
    g_ptr_array_sort(names, mutable_compare);
    return names;
}

void weir_options_complete(const WeirFilterType *type, JsonObject *options)
{
    if (type->plugin) {
        json_object_set_object_member(
            options, "options",
            weir_plugin_values(type->plugin,
                               weir_json_object(options, "options")));
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugins.h"

#include "order.h"

/* The filters of a policy as the check of their order takes them. */
typedef struct Plugins {
    WeirDaemon *daemon;
    GArray *ordered;        /* WeirOrdered */
    GPtrArray *types;       /* copies with what is known now */
    GPtrArray *keys;        /* where each filter is written */
} Plugins;

/* The place of @filter, for messages. */
static const WeirYaml *plugins_key(Plugins *p, const WeirPolicyFilter *filter)
{
    WeirYaml *key = g_new0(WeirYaml, 1);

    key->kind = WEIR_YAML_SCALAR;
    key->file = filter->file;
    key->line = filter->line;
    key->column = filter->column;
    g_ptr_array_add(p->keys, key);
    return key;
}

/* A @type that is for what @plugin says. */
static const WeirFilterType *plugins_type(Plugins *p,
                                          const WeirFilterType *type,
                                          const char *plugin, GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    WeirFilterType *copy;

    json_object_set_string_member(arguments, "plugin", plugin);
    answer = weir_daemon_ask(p->daemon, "query-weir-plugin", arguments, error);
    if (!answer) {
        return NULL;
    }
    copy = g_memdup2(type, sizeof(*type));
    copy->class = weir_class_of(weir_json_string(weir_json_as_object(answer),
                                                 "class"));
    g_ptr_array_add(p->types, copy);
    return copy;
}

static bool plugins_add(Plugins *p, const WeirPolicyFilter *filter,
                        GError **error)
{
    WeirOrdered ordered = {
        .type = weir_schema_find(weir_daemon_schema(p->daemon),
                                 filter->driver),
        .place = filter->place, .key = plugins_key(p, filter),
    };
    const char *plugin = weir_json_string(filter->options, "plugin");

    if (plugin && ordered.type &&
        weir_schema_has_open(&ordered.type->options)) {
        ordered.type = plugins_type(p, ordered.type, plugin, error);
        if (!ordered.type) {
            return false;
        }
    }
    if (ordered.type) {
        g_array_append_val(p->ordered, ordered);
    }
    return true;
}

bool weir_plugins_check(WeirDaemon *daemon, const WeirPolicy *policy,
                        GString *text, GError **error)
{
    g_autoptr(GArray) ordered = g_array_new(FALSE, FALSE,
                                            sizeof(WeirOrdered));
    g_autoptr(GPtrArray) types = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    Plugins p = { daemon, ordered, types, keys };
    WeirReport report = { .file = policy->file, .text = text };

    for (guint i = 0; i < policy->filters->len; i++) {
        if (!plugins_add(&p, g_ptr_array_index(policy->filters, i), error)) {
            return false;
        }
    }
    weir_order_check(ordered, policy->before_encryption, &report);
    return true;
}

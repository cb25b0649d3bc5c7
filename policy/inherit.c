/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "inherit.h"

#include <string.h>

/* What a policy has of its own, whatever it inherits. */
static const char *const inherit_own_keys[] = {
    "name", "component", "description", "version", "inherit", "remove", NULL
};

const WeirYaml *weir_inherit_driver(const WeirYaml *entry)
{
    for (guint i = 0; entry->keys && i < entry->keys->len; i++) {
        const WeirYaml *key = g_ptr_array_index(entry->keys, i);

        if (g_str_has_prefix(key->text, WEIR_FILTER_PREFIX)) {
            return key;
        }
    }
    return NULL;
}

/* The option that says which plugin an entry is, or NULL. */
static const char *inherit_plugin(const WeirYaml *entry, const WeirYaml *key)
{
    const WeirYaml *options = weir_yaml_member(entry, key->text);
    const WeirYaml *plugin = weir_yaml_member_of(options, "plugin",
                                                 WEIR_YAML_SCALAR);

    return plugin ? plugin->text : NULL;
}

/* The kind of an entry, to be freed; NULL: it has no filter. */
static char *inherit_kind(const WeirYaml *entry)
{
    const WeirYaml *key = weir_inherit_driver(entry);

    return key ? weir_kind(key->text, inherit_plugin(entry, key)) : NULL;
}

/* Whether @kind is that of an entry, or of plugins the driver alone. */
static bool inherit_is(const WeirYaml *entry, const char *kind)
{
    const WeirYaml *key = weir_inherit_driver(entry);
    g_autofree char *found = inherit_kind(entry);

    return found && (strcmp(found, kind) == 0 || strcmp(key->text, kind) == 0);
}

#define INHERIT_NONE (-1)
#define INHERIT_SEVERAL (-2)

/* Index of the entry of that kind in a list, or one of those. */
static int inherit_find(const WeirYaml *filters, const char *kind)
{
    int found = INHERIT_NONE;

    for (guint i = 0; i < filters->values->len; i++) {
        if (!inherit_is(g_ptr_array_index(filters->values, i), kind)) {
            continue;
        }
        if (strcmp(kind, WEIR_PLUGIN_DRIVER) != 0) {
            return (int)i;
        }
        found = found == INHERIT_NONE ? (int)i : INHERIT_SEVERAL;
    }
    return found;
}

/* The same for @entry, which has to say which one it is. */
static int inherit_find_same(const WeirYaml *filters, const WeirYaml *entry,
                             WeirReport *report)
{
    g_autofree char *kind = inherit_kind(entry);
    int index = kind ? inherit_find(filters, kind) : INHERIT_NONE;

    if (index == INHERIT_SEVERAL) {
        weir_report(report, weir_inherit_driver(entry), "found '%s' without "
                    "'plugin', expected it, as there are several plugins",
                    kind);
    }
    return index;
}

/* How many levels down the options of two entries are put together. */
static unsigned inherit_depth(const WeirYaml *entry)
{
    return weir_yaml_member(entry, WEIR_PLUGIN_DRIVER) ? 2 : 1;
}

static void inherit_move(WeirYaml *to, const WeirYaml *from)
{
    to->file = from->file;
    to->line = from->line;
    to->column = from->column;
}

/*
 * Set the keys that @from has, and empty it.  A mapping in both is one of both
 * @depth levels down; a value left empty changes nothing.
 */
static void inherit_overlay(WeirYaml *into, WeirYaml *from, unsigned depth)
{
    while (from->keys->len > 0) {
        WeirYaml *key;
        WeirYaml *value = weir_yaml_steal(from, 0, &key);
        WeirYaml *old = weir_yaml_member(into, key->text);

        if (old && depth > 0 && old->kind == WEIR_YAML_MAPPING &&
            value->kind == WEIR_YAML_MAPPING) {
            inherit_overlay(old, value, depth - 1);
            inherit_move(old, value);
        } else if (!old || !weir_yaml_is_nothing(value)) {
            weir_yaml_set(into, g_steal_pointer(&key),
                          g_steal_pointer(&value));
        }
        weir_yaml_free(key);
        weir_yaml_free(value);
    }
    inherit_move(into, from);
}

static char *inherit_chain(const WeirInherit *inherit, const char *last)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (guint i = 0; i < inherit->chain->len; i++) {
        g_ptr_array_add(names, g_ptr_array_index(inherit->chain, i));
    }
    g_ptr_array_add(names, (gpointer)last);
    g_ptr_array_add(names, NULL);
    return g_strjoinv(" > ", (char **)names->pdata);
}

/* Whether the file that @node names may be read; @chain is for messages. */
static bool inherit_may_load(WeirInherit *inherit, const WeirYaml *node,
                             const char *chain, WeirReport *report)
{
    if (g_ptr_array_find_with_equal_func(inherit->chain, node->text,
                                         g_str_equal, NULL)) {
        weir_report(report, node, "found a circle of policies: %s", chain);
        return false;
    }
    if (inherit->chain->len > WEIR_INHERIT_MAX_DEPTH) {
        weir_report(report, node, "found more than %d levels of policies, "
                    "expected fewer: %s", WEIR_INHERIT_MAX_DEPTH, chain);
        return false;
    }
    if (inherit->files++ >= WEIR_INHERIT_MAX_FILES) {
        weir_report(report, node, "found more than %d files to read for one "
                    "policy, expected fewer", WEIR_INHERIT_MAX_FILES);
        return false;
    }
    return true;
}

/* The file that @node names.  @kind: the key of it that has that name */
static WeirYaml *inherit_load(WeirInherit *inherit, const WeirYaml *node,
                              const char *kind, WeirReport *report)
{
    g_autofree char *chain = inherit_chain(inherit, node->text);
    g_autoptr(WeirYaml) tree = NULL;
    g_autoptr(GError) error = NULL;

    if (!inherit_may_load(inherit, node, chain, report)) {
        return NULL;
    }
    g_ptr_array_add(inherit->chain, node->text);
    tree = inherit->load(inherit->opaque, node->text, &error);
    g_ptr_array_set_size(inherit->chain, (gint)inherit->chain->len - 1);
    if (!tree && error->code == WEIR_ERROR_POSITION) {
        g_string_append_printf(report->text, "%s%s",
                               report->text->len ? "\n" : "", error->message);
    } else if (!tree) {
        weir_report(report, node, "%s; asked for by %s", error->message,
                    chain);
    } else if (!weir_yaml_member(tree, kind)) {
        weir_report(report, node, "found '%s', which is not a %s, expected "
                    "one: %s", node->text,
                    strcmp(kind, "name") == 0 ? "policy" : kind, chain);
        return NULL;
    }
    return g_steal_pointer(&tree);
}

/* The value of an entry that stands for a component, or NULL. */
static const WeirYaml *inherit_component(const WeirYaml *entry,
                                         WeirReport *report)
{
    const WeirYaml *name = entry->kind == WEIR_YAML_MAPPING
                           ? weir_yaml_member(entry, "component") : NULL;

    if (!name) {
        return NULL;
    }
    if (entry->keys->len > 1) {
        weir_report(report, entry, "found other keys beside 'component', "
                    "expected it alone");
    } else if (name->kind != WEIR_YAML_SCALAR) {
        weir_report(report, name, "found a %s, expected the name of a "
                    "component", name->kind == WEIR_YAML_MAPPING ? "mapping"
                                                                 : "list");
    }
    return name;
}

/* Append the filters of a component, which is consumed. */
static void inherit_splice(WeirYaml *filters, WeirYaml *component)
{
    WeirYaml *from = weir_yaml_member(component, "filters");

    g_ptr_array_extend_and_steal(filters->values,
                                 g_steal_pointer(&from->values));
    weir_yaml_free(component);
}

/* Add an entry, which is consumed, or change the one of a component. */
static void inherit_add_entry(WeirYaml *filters, WeirYaml *entry,
                              WeirReport *report)
{
    int index = inherit_find_same(filters, entry, report);
    WeirYaml *old = index < 0 ? NULL
                              : g_ptr_array_index(filters->values, index);

    if (!old || old->file == entry->file) {
        g_ptr_array_add(filters->values, entry);
        return;
    }
    inherit_overlay(old, entry, inherit_depth(entry));
    weir_yaml_free(entry);
}

/* Put the filters of components in their places. */
static void inherit_expand(WeirYaml *filters, WeirInherit *inherit,
                           WeirReport *report)
{
    GPtrArray *own = g_steal_pointer(&filters->values);
    gsize before = report->text->len;

    filters->values = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_yaml_free);
    while (own->len > 0) {
        WeirYaml *entry = g_ptr_array_steal_index(own, 0);
        const WeirYaml *name = inherit_component(entry, report);
        WeirYaml *component;

        if (!name) {
            inherit_add_entry(filters, entry, report);
            continue;
        }
        component = report->text->len > before
                    ? NULL : inherit_load(inherit, name, "component", report);
        if (component) {
            inherit_splice(filters, component);
        }
        weir_yaml_free(entry);
    }
    g_ptr_array_unref(own);
}

/* From the guest downwards. */
static guint inherit_rank(const WeirInherit *inherit, const WeirYaml *entry)
{
    const WeirYaml *key = weir_inherit_driver(entry);
    const WeirFilterType *type = key
        ? weir_schema_find_plugin(inherit->schema, key->text,
                                  inherit_plugin(entry, key)) : NULL;

    switch (type ? type->purpose : WEIR_CLASS_OTHER) {
    case WEIR_CLASS_ENCRYPTION:
        return 0;
    case WEIR_CLASS_REPLICATION:
        return 1;
    case WEIR_CLASS_CACHE:
        return 2;
    default:
        return 3;
    }
}

static void inherit_insert(const WeirInherit *inherit, WeirYaml *filters,
                           WeirYaml *entry)
{
    guint rank = inherit_rank(inherit, entry);
    guint i = 0;

    while (i < filters->values->len &&
           inherit_rank(inherit, g_ptr_array_index(filters->values, i)) <=
           rank) {
        i++;
    }
    g_ptr_array_insert(filters->values, (gint)i, entry);
}

/* Change @base, the inherited filters, as those of @own say; empties it. */
static void inherit_change(const WeirInherit *inherit, WeirYaml *base,
                           WeirYaml *own, WeirReport *report)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                       g_free, NULL);

    while (own->values->len > 0) {
        WeirYaml *entry = g_ptr_array_steal_index(own->values, 0);
        char *kind = inherit_kind(entry);
        bool first = kind && g_hash_table_add(seen, kind);
        int index = first ? inherit_find_same(base, entry, report)
                          : INHERIT_NONE;

        if (index < 0) {
            inherit_insert(inherit, base, entry);
            continue;
        }
        inherit_overlay(g_ptr_array_index(base->values, index), entry,
                        inherit_depth(entry));
        weir_yaml_free(entry);
    }
}

static void inherit_remove(WeirYaml *filters, const WeirYaml *names,
                           WeirReport *report)
{
    for (guint i = 0; i < names->values->len; i++) {
        const WeirYaml *name = g_ptr_array_index(names->values, i);
        int index = name->kind == WEIR_YAML_SCALAR
                    ? inherit_find(filters, name->text) : INHERIT_NONE;

        if (index >= 0) {
            g_ptr_array_remove_index(filters->values, (guint)index);
        } else if (index == INHERIT_SEVERAL) {
            weir_report(report, name, "found '%s', expected '%s:NAME', as "
                        "there are several plugins", name->text, name->text);
        } else if (name->kind == WEIR_YAML_SCALAR) {
            weir_report(report, name, "found '%s', expected a filter that is "
                        "inherited", name->text);
        }
    }
}

/* The filters of both; those of @root are changed, or were not given. */
static void inherit_merge_filters(const WeirInherit *inherit, WeirYaml *root,
                                  WeirYaml *base, WeirReport *report)
{
    WeirYaml *own = weir_yaml_member(root, "filters");
    WeirYaml *inherited = weir_yaml_member(base, "filters");
    const WeirYaml *names = weir_yaml_member_of(root, "remove",
                                                WEIR_YAML_SEQUENCE);
    GPtrArray *values;

    if (names) {
        inherit_remove(inherited, names, report);
    }
    if (!own || own->kind != WEIR_YAML_SEQUENCE) {
        return;
    }
    inherit_change(inherit, inherited, own, report);
    values = own->values;
    own->values = inherited->values;
    inherited->values = values;
}

/* Give @root what it has not got, or only in part; @base is consumed. */
static void inherit_merge(const WeirInherit *inherit, WeirYaml *root,
                          WeirYaml *base, WeirReport *report)
{
    inherit_merge_filters(inherit, root, base, report);
    while (base->keys->len > 0) {
        WeirYaml *key;
        WeirYaml *value = weir_yaml_steal(base, 0, &key);
        WeirYaml *own = weir_yaml_member(root, key->text);
        bool inherited = !g_strv_contains(inherit_own_keys, key->text);

        if (inherited && own && own->kind == WEIR_YAML_MAPPING &&
            value->kind == WEIR_YAML_MAPPING) {
            inherit_overlay(value, own, 0);
            own = NULL;
        }
        if (inherited && !own) {
            weir_yaml_set(root, g_steal_pointer(&key),
                          g_steal_pointer(&value));
        }
        weir_yaml_free(key);
        weir_yaml_free(value);
    }
    weir_yaml_free(base);
}

bool weir_inherit_resolve(WeirYaml *root, WeirInherit *inherit,
                          WeirReport *report)
{
    gsize before = report->text->len;
    WeirYaml *filters = weir_yaml_member_of(root, "filters",
                                            WEIR_YAML_SEQUENCE);
    const WeirYaml *parent = weir_yaml_member_of(root, "inherit",
                                                 WEIR_YAML_SCALAR);
    const WeirYaml *names = weir_yaml_member_of(root, "remove",
                                                WEIR_YAML_SEQUENCE);
    WeirYaml *base;

    if (filters) {
        inherit_expand(filters, inherit, report);
    }
    if (parent) {
        base = inherit_load(inherit, parent, "name", report);
        if (base) {
            inherit_merge(inherit, root, base, report);
        }
    } else if (names) {
        weir_report(report, names, "found 'remove' without 'inherit', "
                    "expected both");
    }
    return report->text->len == before;
}

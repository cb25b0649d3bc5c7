/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "difference.h"

#include <string.h>

#include "mutable.h"

typedef struct Comparison {
    const WeirPolicy *before;
    const WeirPolicy *after;
    const WeirSchema *schema;
    GPtrArray *differences;
} Comparison;

static void difference_free(WeirDifference *difference)
{
    g_free(difference->filter);
    g_free(difference->what);
    g_clear_pointer(&difference->before, json_node_unref);
    g_clear_pointer(&difference->after, json_node_unref);
    g_free(difference->reason);
    g_free(difference);
}

const char *weir_follow_name(WeirFollow follow)
{
    static const char *const names[] = {
        [WEIR_FOLLOW_NOTHING] = "nothing",
        [WEIR_FOLLOW_ATTACH] = "attach",
        [WEIR_FOLLOW_DETACH] = "detach",
        [WEIR_FOLLOW_REOPEN] = "reopen",
        [WEIR_FOLLOW_REATTACH] = "reattach",
        [WEIR_FOLLOW_AT_OPEN] = "at-open",
        [WEIR_FOLLOW_NOT] = "not",
    };

    return names[follow];
}

static void difference_set(JsonObject *object, const char *name,
                           JsonNode *node)
{
    if (node) {
        json_object_set_member(object, name, json_node_copy(node));
    } else {
        json_object_set_null_member(object, name);
    }
}

JsonObject *weir_difference_json(const WeirDifference *difference)
{
    JsonObject *object = json_object_new();

    weir_json_set_string(object, "filter", difference->filter);
    weir_json_set_string(object, "what", difference->what);
    difference_set(object, "before", difference->before);
    difference_set(object, "after", difference->after);
    json_object_set_boolean_member(object, "live",
                                   difference->follow != WEIR_FOLLOW_NOT &&
                                   difference->follow != WEIR_FOLLOW_AT_OPEN);
    json_object_set_string_member(object, "how",
                                  weir_follow_name(difference->follow));
    weir_json_set_string(object, "reason", difference->reason);
    return object;
}

static JsonNode *difference_text(const char *text)
{
    return text ? json_node_init_string(json_node_alloc(), text) : NULL;
}

/* Add one; @before and @after are consumed. */
static WeirDifference *difference_add(const Comparison *c, const char *filter,
                                      const char *what, JsonNode *before,
                                      JsonNode *after, WeirFollow follow)
{
    WeirDifference *difference = g_new0(WeirDifference, 1);

    difference->filter = g_strdup(filter);
    difference->what = g_strdup(what);
    difference->before = before;
    difference->after = after;
    difference->follow = follow;
    g_ptr_array_add(c->differences, difference);
    return difference;
}

/* --- the policy itself --- */

static JsonNode *difference_number(guint64 number)
{
    return json_node_init_int(json_node_alloc(), (gint64)number);
}

static void difference_policy(const Comparison *c)
{
    if (c->before->version != c->after->version) {
        difference_add(c, NULL, "version",
                       difference_number(c->before->version),
                       difference_number(c->after->version),
                       WEIR_FOLLOW_NOTHING);
    }
    if (g_strcmp0(c->before->description, c->after->description) != 0) {
        difference_add(c, NULL, "description",
                       difference_text(c->before->description),
                       difference_text(c->after->description),
                       WEIR_FOLLOW_NOTHING);
    }
    if (c->before->before_encryption != c->after->before_encryption) {
        difference_add(c, NULL, "allow-before-encryption",
                       json_node_init_boolean(json_node_alloc(),
                                              c->before->before_encryption),
                       json_node_init_boolean(json_node_alloc(),
                                              c->after->before_encryption),
                       WEIR_FOLLOW_NOTHING);
    }
}

/* Which process has the disk, and its device, are for a VM that starts. */
static void difference_start(const Comparison *c, const char *what,
                             const char *before, const char *after)
{
    WeirDifference *difference;

    if (g_strcmp0(before, after) != 0) {
        difference = difference_add(c, NULL, what, difference_text(before),
                                    difference_text(after), WEIR_FOLLOW_NOT);
        difference->reason = g_strdup("it holds from when the VM is started");
    }
}

/* --- its filters --- */

static const WeirPolicyFilter *difference_filter(const WeirPolicy *policy,
                                                 guint index)
{
    return g_ptr_array_index(policy->filters, index);
}

/* Where the filter of that kind is, or -1. */
static int difference_find(const WeirPolicy *policy, const char *kind)
{
    for (guint i = 0; i < policy->filters->len; i++) {
        if (strcmp(difference_filter(policy, i)->kind, kind) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static const WeirFilterType *difference_type(const Comparison *c,
                                             const WeirPolicyFilter *filter)
{
    return weir_schema_find_filter(c->schema, filter->driver,
                                   filter->options);
}

static JsonNode *difference_place(const WeirPolicyFilter *filter)
{
    return difference_text(weir_place_name(filter->place));
}

/* A whole filter comes or goes: @after or @before is NULL. */
static void difference_whole(const Comparison *c,
                             const WeirPolicyFilter *before,
                             const WeirPolicyFilter *after)
{
    const WeirPolicyFilter *filter = after ? after : before;
    const WeirFilterType *type = difference_type(c, filter);
    WeirDifference *difference = difference_add(
        c, filter->kind, NULL, before ? difference_place(before) : NULL,
        after ? difference_place(after) : NULL,
        after ? WEIR_FOLLOW_ATTACH : WEIR_FOLLOW_DETACH);

    difference->reason = after ? weir_cannot_attach(type, after->options)
                               : weir_cannot_detach(type, before->options);
    if (difference->reason) {
        difference->follow = WEIR_FOLLOW_NOT;
    }
}

/* Set how a filter that is there already follows by being attached anew. */
static void difference_reattach(const Comparison *c,
                                WeirDifference *difference,
                                const WeirPolicyFilter *before,
                                const WeirPolicyFilter *after)
{
    static const char *const own[] = { "disk-id", "sidecar", "log", "place",
                                       "order", NULL };
    const WeirFilterType *type = difference_type(c, after);
    bool is_own = g_strv_contains(own, difference->what);

    difference->follow = WEIR_FOLLOW_REATTACH;
    difference->reason = weir_cannot_detach(difference_type(c, before),
                                            before->options);
    if (!difference->reason) {
        difference->reason = weir_cannot_attach(type, after->options);
    }
    if (difference->reason) {
        difference->follow = WEIR_FOLLOW_NOT;
    } else if (type->class == WEIR_CLASS_REPLICATION) {
        difference->reason = g_strdup_printf(
            "%sall of the disk goes to the log again",
            is_own ? "" : "while no other disk has the same log; ");
    }
}

static void difference_option(const Comparison *c,
                              const WeirPolicyFilter *before,
                              const WeirPolicyFilter *after,
                              const char *option)
{
    const WeirFilterType *type = difference_type(c, after);
    JsonNode *old = weir_option(before->options, option);
    JsonNode *new = weir_option(after->options, option);
    WeirDifference *difference = difference_add(
        c, after->kind, option, old ? json_node_copy(old) : NULL,
        new ? json_node_copy(new) : NULL, WEIR_FOLLOW_REOPEN);

    if (weir_option_same(type, before->options, after->options, option)) {
        difference->follow = WEIR_FOLLOW_NOTHING;
        return;
    }
    switch (weir_mutability(type, option)) {
    case WEIR_MUTABLE_REOPEN:
        break;
    case WEIR_MUTABLE_AT_OPEN:
        difference->follow = WEIR_FOLLOW_AT_OPEN;
        break;
    case WEIR_MUTABLE_REATTACH:
        difference_reattach(c, difference, before, after);
        break;
    default:
        difference->follow = WEIR_FOLLOW_NOT;
        difference->reason = g_strdup("the filter takes it only when the VM "
                                      "is started, and cannot be detached");
        break;
    }
}

/*
 * The lowest filter that @index of the policy after has come below, although
 * it was above it before; or NULL.  One that cannot move is not told of as
 * having moved, if the other one can.
 */
static const WeirPolicyFilter *difference_passed(const Comparison *c,
                                                 guint index, int was)
{
    const WeirPolicyFilter *filter = difference_filter(c->after, index);
    const WeirFilterType *type = difference_type(c, filter);

    for (guint i = c->after->filters->len; i-- > 0;) {
        const WeirPolicyFilter *other = difference_filter(c->after, i);
        const WeirFilterType *other_type = difference_type(c, other);
        int other_was = difference_find(c->before, other->kind);
        bool fixed = type->changes_data && !other_type->changes_data;
        bool other_fixed = !type->changes_data && other_type->changes_data;
        bool below = i < index && other_was > was;
        bool above = i > index && other_was < was;

        if (other_was >= 0 && other->place == filter->place &&
            difference_filter(c->before, (guint)other_was)->place ==
            filter->place && !fixed && (below || (above && other_fixed))) {
            return other;
        }
    }
    return NULL;
}

static void difference_common(const Comparison *c, guint index, int was)
{
    const WeirPolicyFilter *before = difference_filter(c->before, (guint)was);
    const WeirPolicyFilter *after = difference_filter(c->after, index);
    const WeirPolicyFilter *other = difference_passed(c, index, was);
    g_autoptr(GPtrArray) options = weir_options_differ(before->options,
                                                       after->options);

    if (before->place != after->place) {
        difference_reattach(c, difference_add(
            c, after->kind, "place", difference_place(before),
            difference_place(after), WEIR_FOLLOW_REATTACH), before, after);
    } else if (other) {
        bool below = difference_find(c->after, other->kind) < (int)index;
        g_autofree char *old = g_strdup_printf("%s %s", below ? "above"
                                               : "below", other->kind);
        g_autofree char *new = g_strdup_printf("%s %s", below ? "below"
                                               : "above", other->kind);

        difference_reattach(c, difference_add(
            c, after->kind, "order", difference_text(old),
            difference_text(new), WEIR_FOLLOW_REATTACH), before, after);
    }
    for (guint i = 0; i < options->len; i++) {
        difference_option(c, before, after, g_ptr_array_index(options, i));
    }
}

GPtrArray *weir_policy_differences(const WeirPolicy *before,
                                   const WeirPolicy *after,
                                   const WeirSchema *schema)
{
    Comparison c = {
        .before = before, .after = after, .schema = schema,
        .differences = g_ptr_array_new_with_free_func(
            (GDestroyNotify)difference_free),
    };

    difference_policy(&c);
    difference_start(&c, "run", weir_run_mode_name(before->run),
                     weir_run_mode_name(after->run));
    difference_start(&c, "on-error", weir_on_error_name(before->on_error),
                     weir_on_error_name(after->on_error));
    for (guint i = 0; i < after->filters->len; i++) {
        const WeirPolicyFilter *filter = difference_filter(after, i);
        int was = difference_find(before, filter->kind);

        if (was < 0) {
            difference_whole(&c, NULL, filter);
        } else {
            difference_common(&c, i, was);
        }
    }
    for (guint i = 0; i < before->filters->len; i++) {
        const WeirPolicyFilter *filter = difference_filter(before, i);

        if (difference_find(after, filter->kind) < 0) {
            difference_whole(&c, filter, NULL);
        }
    }
    return c.differences;
}

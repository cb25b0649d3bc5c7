/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "change.h"

#include <string.h>

#include "cachefile.h"

/* How well a filter that is there fits one that is wanted; more is better. */
typedef enum Fit {
    FIT_NONE = 0,           /* it has to be attached again */
    FIT_REOPEN = 2,
    FIT_SAME = 3,
    FIT_FIXED = 100,        /* added: it cannot be attached again */
} Fit;

typedef struct Work {
    const GPtrArray *present;
    GPtrArray *goals;
    WeirShape *shape;
    WeirChange *change;
} Work;

void weir_present_free(WeirPresent *present)
{
    if (present) {
        g_free(present->kind);
        g_free(present->node_name);
        g_free(present->child);
        g_clear_pointer(&present->settings, json_object_unref);
        g_clear_pointer(&present->recorded, json_object_unref);
        g_clear_pointer(&present->options, json_object_unref);
        g_clear_pointer(&present->opened, json_object_unref);
        g_clear_pointer(&present->owned, g_ptr_array_unref);
        g_free(present->memory);
        g_free(present->stays);
        g_free(present->note);
        g_free(present->leaves);
        g_free(present);
    }
}

void weir_goal_free(WeirGoal *goal)
{
    if (goal) {
        g_free(goal->refusal);
        g_free(goal);
    }
}

void weir_shape_clear(WeirShape *shape)
{
    g_free(shape->root);
    g_free(shape->storage);
    g_clear_pointer(&shape->below, g_hash_table_unref);
    g_clear_pointer(&shape->names, g_hash_table_unref);
    g_clear_pointer(&shape->leftovers, g_ptr_array_unref);
}

static void step_free(WeirStep *step)
{
    g_free(step->filter);
    g_free(step->node_name);
    g_free(step->below);
    g_clear_pointer(&step->options, json_object_unref);
    g_clear_pointer(&step->before, json_object_unref);
    weir_location_free(step->location);
    g_free(step->memory);
    g_free(step->leaves);
    g_free(step);
}

void weir_change_free(WeirChange *change)
{
    if (change) {
        g_ptr_array_unref(change->steps);
        g_ptr_array_unref(change->notes);
        g_free(change);
    }
}

char *weir_step_text(const WeirStep *step)
{
    switch (step->kind) {
    case WEIR_STEP_CREATE:
        return g_strdup_printf("make %s for %s, if it is missing",
                               step->location->path, step->filter);
    case WEIR_STEP_OPEN:
        return g_strdup_printf("open node %s for %s", step->node_name,
                               step->filter);
    case WEIR_STEP_CLOSE:
        return g_strdup_printf("close node %s", step->node_name);
    case WEIR_STEP_ATTACH:
        return g_strdup_printf("attach %s (node %s) above node %s",
                               step->filter, step->node_name, step->below);
    case WEIR_STEP_DETACH:
        return g_strdup_printf("detach %s (node %s)", step->filter,
                               step->node_name);
    default:
        return g_strdup_printf("change options of %s (node %s)",
                               step->filter, step->node_name);
    }
}

/* --- which filter is which --- */

/* The strictest way in which one of @options is changed. */
static WeirMutability change_strictest(const WeirGoal *goal,
                                       const GPtrArray *options)
{
    static const guint8 order[] = {
        [WEIR_MUTABLE_AT_OPEN] = 0, [WEIR_MUTABLE_REOPEN] = 1,
        [WEIR_MUTABLE_REATTACH] = 2, [WEIR_MUTABLE_NEVER] = 3,
    };
    WeirMutability result = WEIR_MUTABLE_AT_OPEN;

    for (guint i = 0; i < options->len; i++) {
        WeirMutability one = weir_mutability(goal->type,
                                             g_ptr_array_index(options, i));

        result = order[one] > order[result] ? one : result;
    }
    return result;
}

/* Options that are not what is wanted. */
static GPtrArray *change_differ(const WeirGoal *goal,
                                const WeirPresent *present)
{
    JsonObject *settings = goal->node->settings;
    GPtrArray *options = weir_options_differ(present->settings, settings);

    for (guint i = options->len; i-- > 0;) {
        if (weir_option_same(goal->type, present->settings, settings,
                             g_ptr_array_index(options, i))) {
            g_ptr_array_remove_index(options, i);
        }
    }
    return options;
}

static int change_fit(const WeirGoal *goal, const WeirPresent *present)
{
    int fixed = goal->type->changes_data ? FIT_FIXED : 0;
    g_autoptr(GPtrArray) options = NULL;

    if (present->backing || present->place != goal->node->place ||
        strcmp(present->kind, goal->type->kind) != 0) {
        return FIT_NONE;
    }
    if (!present->settings) {
        return fixed;
    }
    options = change_differ(goal, present);
    switch (change_strictest(goal, options)) {
    case WEIR_MUTABLE_AT_OPEN:
        return fixed + (!present->unsure ? FIT_SAME :
                        present->opened ? FIT_REOPEN : FIT_NONE);
    case WEIR_MUTABLE_REOPEN:
        return fixed + (present->opened ? FIT_REOPEN : FIT_NONE);
    default:
        return fixed;
    }
}

/*
 * Keep the filters that are there in the order in which they are wanted, so
 * that as little as possible is attached again: the heaviest common
 * subsequence.
 */
static void change_match(const Work *work)
{
    guint goals = work->goals->len;
    guint width = work->present->len + 1;
    g_autofree int *best = g_new0(int, (goals + 1) * width);
    guint i, j;

    for (i = goals; i-- > 0;) {
        for (j = work->present->len; j-- > 0;) {
            int fit = change_fit(g_ptr_array_index(work->goals, i),
                                 g_ptr_array_index(work->present, j));
            int skip = MAX(best[(i + 1) * width + j],
                           best[i * width + j + 1]);

            best[i * width + j] = fit == FIT_NONE ? skip
                : MAX(skip, fit + best[(i + 1) * width + j + 1]);
        }
    }
    i = j = 0;
    while (i < goals && j < work->present->len) {
        WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (best[i * width + j] == best[(i + 1) * width + j]) {
            i++;
        } else if (best[i * width + j] == best[i * width + j + 1]) {
            j++;
        } else {
            goal->kept = g_ptr_array_index(work->present, j);
            i++;
            j++;
        }
    }
}

static bool change_is_kept(const Work *work, const WeirPresent *present)
{
    for (guint i = 0; i < work->goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (goal->kept == present) {
            return true;
        }
    }
    return false;
}

/* Whether a filter of that kind is going to be attached. */
static bool change_attaches(const Work *work, const char *kind)
{
    for (guint i = 0; i < work->goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (!goal->kept && strcmp(goal->type->kind, kind) == 0) {
            return true;
        }
    }
    return false;
}

/* Of a filter that is kept: options that are not what is wanted and stay so. */
static bool change_check_kept(const Work *work, const WeirGoal *goal,
                              GError **error)
{
    g_autoptr(GPtrArray) options = goal->kept->settings
        ? change_differ(goal, goal->kept)
        : g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < options->len; i++) {
        const char *option = g_ptr_array_index(options, i);

        switch (weir_mutability(goal->type, option)) {
        case WEIR_MUTABLE_NEVER:
            weir_set_error(error, "'%s' of %s cannot be changed while the disk "
                           "is in use; start the VM anew under the policy",
                           option, goal->type->kind);
            return false;
        case WEIR_MUTABLE_AT_OPEN:
            g_ptr_array_add(work->change->notes, g_strdup_printf(
                "'%s' of %s counts when the disk is opened next", option,
                goal->type->kind));
            break;
        default:
            break;
        }
    }
    return true;
}

static bool change_writes_back(JsonObject *settings)
{
    return weir_cache_writes_back(weir_json_string(settings, "mode"));
}

/*
 * The next start takes its policy from elsewhere: without the cache, the guest
 * would find the disk as it was some time ago.
 */
static void change_note_cache(const Work *work, const WeirGoal *goal)
{
    g_autofree char *path = NULL;

    if (work->shape->keeps_policy || goal->type->class != WEIR_CLASS_CACHE ||
        !change_writes_back(goal->node->settings) ||
        (goal->kept && goal->kept->settings &&
         change_writes_back(goal->kept->settings))) {
        return;
    }
    path = weir_change_memory(goal->type->class, goal->node->settings);
    g_ptr_array_add(work->change->notes, g_strdup_printf(
        "without the cache %s the disk will not be whole: let the next start "
        "of the VM have this policy, or detach it before",
        path ? path : weir_json_string(goal->node->settings, "cache-file")));
}

/* The same of a plugin that holds data, which may be nowhere else then. */
static void change_note_plugin(const Work *work, const WeirGoal *goal)
{
    if (!work->shape->keeps_policy && !goal->kept && goal->type->plugin &&
        goal->type->holds_data) {
        g_ptr_array_add(work->change->notes, g_strdup_printf(
            "without %s the disk may not be whole: let the next start of the "
            "VM have this policy, or detach it before", goal->type->kind));
    }
}

/* Whether a filter is going to be attached again, to the log that it has. */
static bool change_returns(const Work *work, const WeirPresent *present)
{
    for (guint i = 0; i < work->goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (!goal->kept && strcmp(goal->type->kind, present->kind) == 0 &&
            g_strcmp0(weir_json_string(goal->node->settings, "log"),
                      weir_json_string(present->settings, "log")) == 0) {
            return true;
        }
    }
    return false;
}

/* Of a filter that goes. */
static bool change_check_removed(const Work *work, const WeirPresent *present,
                                 GError **error)
{
    if (present->stays) {
        weir_set_error(error, "%s (node %s) cannot be detached: %s",
                       present->kind, present->node_name, present->stays);
        return false;
    }
    if (present->leaves && change_returns(work, present)) {
        weir_set_error(error, "%s (node %s) cannot be detached and attached "
                       "again: %s", present->kind, present->node_name,
                       present->leaves);
        return false;
    }
    if (present->note) {
        g_ptr_array_add(work->change->notes, g_strdup(present->note));
    }
    return true;
}

static bool change_check(const Work *work, GError **error)
{
    for (guint i = 0; i < work->goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (goal->kept ? !change_check_kept(work, goal, error)
                       : goal->refusal != NULL) {
            if (!goal->kept) {
                weir_set_error(error, "%s cannot be attached to a disk in "
                               "use: %s", goal->type->kind, goal->refusal);
            }
            return false;
        }
        change_note_cache(work, goal);
        change_note_plugin(work, goal);
    }
    for (guint i = 0; i < work->present->len; i++) {
        const WeirPresent *present = g_ptr_array_index(work->present, i);

        if (!change_is_kept(work, present) &&
            !change_check_removed(work, present, error)) {
            return false;
        }
    }
    return true;
}

/* --- nodes, as the steps leave them --- */

static const char *shape_below(const WeirShape *shape, const char *node)
{
    return g_hash_table_lookup(shape->below, node);
}

/* Whoever is above @from is above @to from now on. */
static void shape_move(WeirShape *shape, const char *from, const char *to)
{
    g_autofree char *copy = g_strdup(to);
    GHashTableIter iter;
    gpointer below;

    g_hash_table_iter_init(&iter, shape->below);
    while (g_hash_table_iter_next(&iter, NULL, &below)) {
        if (strcmp(below, from) == 0) {
            g_hash_table_iter_replace(&iter, g_strdup(copy));
        }
    }
    if (strcmp(shape->root, from) == 0) {
        g_free(shape->root);
        shape->root = g_strdup(copy);
    }
}

static void shape_insert(WeirShape *shape, const char *node,
                         const char *below)
{
    shape_move(shape, below, node);
    g_hash_table_insert(shape->below, g_strdup(node), g_strdup(below));
    g_hash_table_add(shape->names, g_strdup(node));
}

static void shape_remove(WeirShape *shape, const char *node)
{
    g_autofree char *below = g_strdup(shape_below(shape, node));

    shape_move(shape, node, below);
    g_hash_table_remove(shape->below, node);
}

/* --- steps --- */

static WeirStep *change_add(const Work *work, WeirStepKind kind,
                            const char *filter, const char *node_name)
{
    WeirStep *step = g_new0(WeirStep, 1);

    step->kind = kind;
    step->filter = g_strdup(filter);
    step->node_name = g_strdup(node_name);
    step->below = g_strdup(shape_below(work->shape, node_name));
    g_ptr_array_add(work->change->steps, step);
    return step;
}

/* @options with another name and child; the caller unrefs it. */
static JsonObject *change_options(JsonObject *options, const char *node_name,
                                  const char *child, const char *below)
{
    JsonObject *copy = weir_json_copy(options);

    json_object_set_string_member(copy, "node-name", node_name);
    json_object_set_string_member(copy, child, below);
    return copy;
}

static void change_detach(const Work *work, const WeirPresent *present)
{
    WeirStep *step = change_add(work, WEIR_STEP_DETACH, present->kind,
                                present->node_name);

    step->class = present->class;
    step->holds_data = present->holds_data;
    step->memory = g_strdup(present->memory);
    step->leaves = g_strdup(present->leaves);
    if (present->options) {
        step->options = change_options(present->options, present->node_name,
                                       present->child, step->below);
    }
    shape_remove(work->shape, present->node_name);
    for (guint i = 0; present->owned && i < present->owned->len; i++) {
        JsonObject *node = g_ptr_array_index(present->owned, i);

        step = change_add(work, WEIR_STEP_CLOSE, present->kind,
                          weir_json_string(node, "node-name"));
        step->options = json_object_ref(node);
    }
}

/* Whether it can be put back if a later step fails. */
static bool change_can_return(const WeirPresent *present)
{
    return present->options && !present->leaves;
}

/* @early: those in whose place another of the kind comes. */
static void change_detach_all(const Work *work, bool early, bool returns)
{
    for (guint i = 0; i < work->present->len; i++) {
        const WeirPresent *present = g_ptr_array_index(work->present, i);

        if (!change_is_kept(work, present) &&
            change_attaches(work, present->kind) == early &&
            change_can_return(present) == returns) {
            change_detach(work, present);
        }
    }
}

/* The nearest goal in that direction that is there, of the same place. */
static const WeirGoal *change_neighbour(const Work *work, guint index,
                                        int direction)
{
    const WeirGoal *goal = g_ptr_array_index(work->goals, index);

    for (guint i = index + (guint)direction; i < work->goals->len;
         i += (guint)direction) {
        const WeirGoal *other = g_ptr_array_index(work->goals, i);

        /* the lower ones have all been attached */
        if (other->node->place == goal->node->place &&
            (direction > 0 || other->kept)) {
            return other;
        }
    }
    return NULL;
}

/* Above which node a goal is to be attached. */
static const char *change_target(const Work *work, guint index)
{
    const WeirGoal *goal = g_ptr_array_index(work->goals, index);
    const WeirGoal *lower = change_neighbour(work, index, 1);
    const WeirGoal *higher = change_neighbour(work, index, -1);

    if (lower) {
        return lower->node->node_name;
    }
    if (goal->node->place == WEIR_PLACE_STORAGE) {
        return work->shape->storage;
    }
    return higher ? shape_below(work->shape, higher->kept->node_name)
                  : work->shape->root;
}

/*
 * A name that no node has, not even one that is detached before: whatever is
 * interrupted, a name tells which options the node has.
 */
static void change_name(const Work *work, WeirChainNode *node)
{
    g_autofree char *wanted = g_strdup(node->node_name);

    for (guint i = 2; g_hash_table_contains(work->shape->names,
                                            node->node_name); i++) {
        g_autofree char *number = g_strdup_printf("%u", i);

        g_free(node->node_name);
        node->node_name = weir_node_name(wanted, number);
    }
}

static void change_create(const Work *work, const WeirGoal *goal)
{
    for (guint i = 0; i < goal->type->nodes->len; i++) {
        const char *text = weir_json_string(
            goal->node->settings, g_ptr_array_index(goal->type->nodes, i));
        g_autoptr(WeirLocation) location =
            text ? weir_location_parse(text, NULL) : NULL;

        if (location && location->create_bytes > 0) {
            WeirStep *step = change_add(work, WEIR_STEP_CREATE,
                                        goal->type->kind,
                                        goal->node->node_name);

            step->location = g_steal_pointer(&location);
        }
    }
}

bool weir_change_opens(const WeirFilterType *type, JsonObject *node)
{
    return type->class != WEIR_CLASS_REPLICATION ||
           g_strcmp0(weir_json_string(node, "driver"), "nbd") != 0;
}

char *weir_change_memory(WeirClass class, JsonObject *settings)
{
    const char *option = weir_memory_option(class);
    const char *text = option ? weir_json_string(settings, option) : NULL;
    g_autoptr(WeirLocation) location = text ? weir_location_parse(text, NULL)
                                            : NULL;

    return location ? g_strdup(location->path) : NULL;
}

/* Open the nodes that a filter has for itself, and refer to them by name. */
static void change_open(const Work *work, const WeirGoal *goal)
{
    for (guint i = 0; i < goal->type->nodes->len; i++) {
        const char *option = g_ptr_array_index(goal->type->nodes, i);
        JsonObject *node = weir_json_object(goal->node->options, option);
        WeirStep *step;

        if (!node || !weir_change_opens(goal->type, node)) {
            continue;
        }
        step = change_add(work, WEIR_STEP_OPEN, goal->type->kind,
                          weir_json_string(node, "node-name"));
        step->options = json_object_ref(node);
        json_object_set_string_member(goal->node->options, option,
                                      step->node_name);
    }
}

static void change_attach(const Work *work, guint index)
{
    const WeirGoal *goal = g_ptr_array_index(work->goals, index);
    g_autofree char *target = g_strdup(change_target(work, index));
    WeirStep *step;

    change_name(work, goal->node);
    change_create(work, goal);
    change_open(work, goal);
    shape_insert(work->shape, goal->node->node_name, target);
    step = change_add(work, WEIR_STEP_ATTACH, goal->type->kind,
                      goal->node->node_name);
    step->class = goal->type->class;
    step->holds_data = goal->type->plugin && goal->type->holds_data;
    step->memory = weir_change_memory(step->class, goal->node->settings);
    step->options = change_options(goal->node->options, goal->node->node_name,
                                   goal->type->child, step->below);
}

/* Let @options have the nodes that a filter has already. */
static void change_set_nodes(JsonObject *options, const WeirGoal *goal,
                             JsonObject *from)
{
    for (guint i = 0; i < goal->type->nodes->len; i++) {
        const char *name = g_ptr_array_index(goal->type->nodes, i);
        JsonNode *value = json_object_get_member(from, name);

        json_object_remove_member(options, name);
        if (value) {
            json_object_set_member(options, name, json_node_copy(value));
        }
    }
}

/* The node of @goal becomes that of the filter which is kept. */
static void change_keep(const WeirGoal *goal)
{
    g_free(goal->node->node_name);
    goal->node->node_name = g_strdup(goal->kept->node_name);
    if (goal->kept->recorded) {
        change_set_nodes(goal->node->options, goal, goal->kept->recorded);
    }
}

static void change_reopen(const Work *work, const WeirGoal *goal)
{
    int fit = change_fit(goal, goal->kept) % FIT_FIXED;
    WeirStep *step;

    if (fit != FIT_REOPEN) {
        return;
    }
    step = change_add(work, WEIR_STEP_REOPEN, goal->type->kind,
                      goal->kept->node_name);
    step->options = change_options(goal->node->options, step->node_name,
                                   goal->type->child, step->below);
    change_set_nodes(step->options, goal, goal->kept->opened);
    weir_options_complete(goal->type, step->options);
    step->before = change_options(goal->kept->opened, goal->kept->node_name,
                                  goal->type->child, step->below);
    weir_options_complete(goal->type, step->before);
}

static void change_steps(const Work *work)
{
    for (guint i = 0; i < work->goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (goal->kept) {
            change_keep(goal);
        }
    }
    for (guint i = 0; i < work->shape->leftovers->len; i++) {
        change_add(work, WEIR_STEP_CLOSE, NULL,
                   g_ptr_array_index(work->shape->leftovers, i));
    }
    change_detach_all(work, true, true);
    change_detach_all(work, true, false);
    for (guint i = work->goals->len; i-- > 0;) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (!goal->kept) {
            change_attach(work, i);
        }
    }
    for (guint i = 0; i < work->goals->len; i++) {
        const WeirGoal *goal = g_ptr_array_index(work->goals, i);

        if (goal->kept) {
            change_reopen(work, goal);
        }
    }
    change_detach_all(work, false, true);
    change_detach_all(work, false, false);
}

WeirChange *weir_change_new(const GPtrArray *present, GPtrArray *goals,
                            WeirShape *shape, GError **error)
{
    g_autoptr(WeirChange) change = g_new0(WeirChange, 1);
    Work work = {
        .present = present, .goals = goals, .shape = shape, .change = change,
    };

    change->steps = g_ptr_array_new_with_free_func(
        (GDestroyNotify)step_free);
    change->notes = g_ptr_array_new_with_free_func(g_free);
    change_match(&work);
    if (!change_check(&work, error)) {
        return NULL;
    }
    change_steps(&work);
    return g_steal_pointer(&change);
}

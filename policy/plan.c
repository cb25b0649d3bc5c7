/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan.h"

#include <string.h>
#include <sys/utsname.h>

#include "conflicts.h"

struct WeirPlan {
    char *vm;
    char *host;
    GPtrArray *chains;
    GPtrArray *secrets;     /* WeirSecret */
    GPtrArray *storage_secrets;     /* those of disks out of process */
    GPtrArray *locations;   /* WeirLocation */
    GHashTable *shared;     /* "driver option place" -> node name */
    GHashTable *outside;    /* a set: those of @shared out of process */
    GHashTable *sources;    /* "log disk-id": names of disks in logs */
};

/* A filter of a disk that is being added. */
typedef struct Filter {
    WeirPlan *plan;
    const WeirDisk *disk;
    const WeirPolicy *policy;   /* NULL: it is not from one */
    const WeirPolicyFilter *filter;
    JsonObject *options;    /* expanded */
} Filter;

WeirPlan *weir_plan_new(const char *vm)
{
    WeirPlan *plan = g_new0(WeirPlan, 1);
    struct utsname host;

    uname(&host);
    plan->vm = g_strdup(vm);
    plan->host = g_strdelimit(g_strdup(host.nodename), "/", '-');
    plan->chains = g_ptr_array_new_with_free_func(
        (GDestroyNotify)g_ptr_array_unref);
    plan->secrets = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_secret_free);
    plan->storage_secrets = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_secret_free);
    plan->locations = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_location_free);
    plan->shared = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                         g_free);
    plan->outside = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                          NULL);
    plan->sources = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                          NULL);
    return plan;
}

void weir_plan_free(WeirPlan *plan)
{
    if (plan) {
        g_free(plan->vm);
        g_free(plan->host);
        g_ptr_array_unref(plan->chains);
        g_ptr_array_unref(plan->secrets);
        g_ptr_array_unref(plan->storage_secrets);
        g_ptr_array_unref(plan->locations);
        g_hash_table_unref(plan->shared);
        g_hash_table_unref(plan->outside);
        g_hash_table_unref(plan->sources);
        g_free(plan);
    }
}

GPtrArray *weir_plan_chains(const WeirPlan *plan)
{
    return plan->chains;
}

GPtrArray *weir_plan_secrets(const WeirPlan *plan)
{
    return plan->secrets;
}

GPtrArray *weir_plan_storage_secrets(const WeirPlan *plan)
{
    return plan->storage_secrets;
}

const GPtrArray *weir_plan_locations(const WeirPlan *plan)
{
    return plan->locations;
}

bool weir_plan_create_files(const WeirPlan *plan, GError **error)
{
    for (guint i = 0; i < plan->locations->len; i++) {
        if (!weir_location_create(g_ptr_array_index(plan->locations, i), NULL,
                                  error)) {
            return false;
        }
    }
    return true;
}

/* What is wrong with an option, at the filter's place in the file. */
static void plan_explain(const Filter *f, const char *option, GError **error)
{
    g_autofree char *message = weir_printable((*error)->message);

    g_clear_error(error);
    if (!f->policy) {
        weir_set_error(error, "disk %s: %s for '%s.%s'", f->disk->id, message,
                       f->filter->driver, option);
        return;
    }
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                "%s:%u:%u: disk %s: %s for '%s.%s'", f->filter->file,
                f->filter->line, f->filter->column, f->disk->id, message,
                f->filter->driver, option);
}

/* Cache mode as the disk's, but what a filter says to be durable is so. */
static void plan_set_cache(JsonObject *node, const WeirDisk *disk)
{
    JsonObject *cache = json_object_new();

    json_object_set_boolean_member(cache, "direct", disk->cache_direct);
    json_object_set_boolean_member(cache, "no-flush", false);
    json_object_set_object_member(node, "cache", cache);
    json_object_set_string_member(node, "discard", "unmap");
    if (disk->aio) {
        json_object_set_string_member(node, "aio", disk->aio);
    }
}

static bool plan_is_outside(const WeirPolicy *policy)
{
    return policy && policy->run == WEIR_RUN_OUT_OF_PROCESS;
}

/*
 * Takes @secret.  One that is an object of QEMU already is not needed, and
 * nothing that a storage daemon could have.
 */
static bool plan_add_secret(WeirPlan *plan, const WeirPolicy *policy,
                            WeirSecret *secret, GError **error)
{
    if (secret->kind == WEIR_SECRET_ID && plan_is_outside(policy)) {
        weir_set_error(error, "found secret '%s', an object of QEMU, which a "
                       "disk out of process has not got, expected file:/PATH, "
                       "credential:NAME or command:COMMAND", secret->value);
        weir_secret_free(secret);
        return false;
    }
    if (secret->kind == WEIR_SECRET_ID) {
        weir_secret_free(secret);
    } else {
        g_ptr_array_add(plan_is_outside(policy) ? plan->storage_secrets
                                                : plan->secrets, secret);
    }
    return true;
}

/* What an option's node is called; other plugins have the option, too. */
static char *plan_suffix(const Filter *f, const char *option)
{
    g_autofree char *filter = NULL;

    if (strcmp(f->filter->driver, WEIR_PLUGIN_DRIVER) != 0) {
        return g_strdup(option);
    }
    filter = weir_chain_suffix(f->filter->driver, f->options);
    return g_strjoin("-", filter, option, NULL);
}

/* Let QEMU have the password of an address, if there is one. */
static bool plan_set_password(const Filter *f, const char *option,
                              JsonObject *node, GError **error)
{
    const char *text = weir_json_string(node, "password-secret");
    g_autofree char *base = plan_suffix(f, option);
    g_autofree char *suffix = g_strconcat(base, "-password", NULL);
    g_autofree char *id = weir_node_name(f->disk->prefix, suffix);
    WeirSecret *secret;

    if (!text) {
        return true;
    }
    secret = weir_secret_parse(text, id, error);
    if (!secret) {
        plan_explain(f, option, error);
        return false;
    }
    json_object_set_string_member(node, "password-secret", secret->id);
    if (!plan_add_secret(f->plan, f->policy, secret, error)) {
        plan_explain(f, option, error);
        return false;
    }
    return true;
}

static char *plan_key(const char *driver, const char *option,
                      const char *place)
{
    return g_strjoin(" ", driver, option, place, NULL);
}

void weir_plan_share(WeirPlan *plan, const char *driver, const char *option,
                     const char *place, const char *node_name)
{
    g_hash_table_insert(plan->shared, plan_key(driver, option, place),
                        g_strdup(node_name));
}

/* Put a node, or the name of one that is there already, into an option. */
static bool plan_set_node(const Filter *f, const char *option,
                          const char *place, GError **error)
{
    g_autoptr(WeirLocation) location = weir_location_parse(place, error);
    g_autofree char *key = plan_key(f->filter->driver, option, place);
    g_autofree char *suffix = plan_suffix(f, option);
    const char *known = g_hash_table_lookup(f->plan->shared, key);
    g_autofree char *name = NULL;
    JsonObject *node;

    if (!location) {
        plan_explain(f, option, error);
        return false;
    }
    if (known && !weir_conflicts_shared(f->filter, option)) {
        weir_set_error(error, "found %s, which another disk of the VM has, "
                       "expected one of its own (${disk} makes a difference)",
                       place);
        plan_explain(f, option, error);
        return false;
    }
    if (known && g_hash_table_contains(f->plan->outside, key) !=
                 plan_is_outside(f->policy)) {
        weir_set_error(error, "found %s, which a disk in another process has, "
                       "expected all disks with it to have the same 'run'",
                       place);
        plan_explain(f, option, error);
        return false;
    }
    if (known) {
        json_object_set_string_member(f->options, option, known);
        return true;
    }
    name = weir_node_name(f->disk->prefix, suffix);
    node = weir_location_node(location);
    if (!plan_set_password(f, option, node, error)) {
        json_object_unref(node);
        return false;
    }
    json_object_set_string_member(node, "node-name", name);
    if (location->path) {
        plan_set_cache(node, f->disk);
    }
    json_object_set_object_member(f->options, option, node);
    if (plan_is_outside(f->policy)) {
        g_hash_table_add(f->plan->outside, g_strdup(key));
    }
    g_hash_table_insert(f->plan->shared, g_steal_pointer(&key),
                        g_steal_pointer(&name));
    g_ptr_array_add(f->plan->locations, g_steal_pointer(&location));
    return true;
}

static bool plan_set_secret(const Filter *f, const char *option,
                            const char *text, GError **error)
{
    g_autofree char *id = weir_node_name(f->disk->prefix, option);
    g_autoptr(WeirSecret) secret = weir_secret_parse(text, id, error);
    g_autofree char *name = NULL;

    if (!secret) {
        plan_explain(f, option, error);
        return false;
    }
    name = g_strdup(secret->id);
    if (!plan_add_secret(f->plan, f->policy, g_steal_pointer(&secret),
                         error)) {
        plan_explain(f, option, error);
        return false;
    }
    json_object_set_string_member(f->options, option, name);
    return true;
}

/* Replace what stands for nodes and secrets. */
static bool plan_resolve(const Filter *f, GError **error)
{
    g_autoptr(GList) names = json_object_get_members(f->options);

    for (GList *l = names; l; l = l->next) {
        /* a name goes with its value when that is replaced */
        g_autofree char *option = g_strdup(l->data);
        g_autofree char *text = g_strdup(weir_json_string(f->options,
                                                          option));

        if (!text) {
            continue;
        }
        if (g_strv_contains((const char *const *)f->filter->nodes, option)
            ? !plan_set_node(f, option, text, error)
            : weir_secret_is_option(option) &&
              !plan_set_secret(f, option, text, error)) {
            return false;
        }
    }
    return true;
}

/* Two disks of one name in a log would be one disk of it. */
static bool plan_check_source(const Filter *f, GError **error)
{
    JsonObject *node = weir_json_object(f->options, "log");
    const char *log = node ? weir_json_string(node, "node-name")
                           : weir_json_string(f->options, "log");
    const char *id = weir_json_string(f->options, "disk-id");

    if (f->filter->class != WEIR_CLASS_REPLICATION || !log || !id ||
        g_hash_table_add(f->plan->sources, g_strjoin(" ", log, id, NULL))) {
        return true;
    }
    weir_set_error(error, "found '%s', which another disk has in the same "
                   "log, expected another (${disk} makes a difference)", id);
    plan_explain(f, "disk-id", error);
    return false;
}

/* What the options are, now that all of them are known. */
static bool plan_check_conflicts(const Filter *f, GError **error)
{
    const char *option;

    if (!weir_conflicts_disk(f->filter, f->options, f->disk, &option,
                             error)) {
        plan_explain(f, option, error);
        return false;
    }
    return plan_check_source(f, error);
}

JsonObject *weir_plan_resolve(WeirPlan *plan, const WeirDisk *disk,
                              const char *driver, const GPtrArray *nodes,
                              JsonObject *settings, GError **error)
{
    g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
    WeirPolicyFilter filter = { .driver = (char *)driver };
    Filter f = { .plan = plan, .disk = disk, .filter = &filter };
    bool ok;

    for (guint i = 0; i < nodes->len; i++) {
        g_strv_builder_add(builder, g_ptr_array_index(nodes, i));
    }
    filter.nodes = g_strv_builder_end(builder);
    f.options = weir_json_copy(settings);
    ok = plan_resolve(&f, error);
    g_strfreev(filter.nodes);
    if (!ok) {
        g_clear_pointer(&f.options, json_object_unref);
    }
    return f.options;
}

void weir_plan_add_nodes(const char *vm, const WeirDisk *disk,
                         const GPtrArray *options, WeirChainNode *filter)
{
    g_autoptr(WeirPlan) plan = weir_plan_new(vm);
    g_autoptr(JsonObject) resolved = filter->settings
        ? weir_plan_resolve(plan, disk, filter->driver, options,
                            filter->settings, NULL) : NULL;

    g_clear_pointer(&filter->nodes, json_array_unref);
    for (guint i = 0; resolved && i < options->len; i++) {
        const char *option = g_ptr_array_index(options, i);
        const char *name = weir_json_string(filter->options, option);
        JsonObject *node = weir_json_object(resolved, option);

        if (!name || !node) {
            continue;
        }
        json_object_set_string_member(node, "node-name", name);
        if (!filter->nodes) {
            filter->nodes = json_array_new();
        }
        json_array_add_object_element(filter->nodes, json_object_ref(node));
    }
}

const GPtrArray *weir_plan_add(WeirPlan *plan, const WeirDisk *disk,
                               const WeirPolicy *policy, GError **error)
{
    const WeirVariables values = {
        .vm = plan->vm, .disk = disk->id, .host = plan->host,
        .policy = policy->name,
    };
    g_autoptr(GPtrArray) options = g_ptr_array_new_with_free_func(
        (GDestroyNotify)json_object_unref);
    g_autoptr(GPtrArray) settings = g_ptr_array_new_with_free_func(
        (GDestroyNotify)json_object_unref);
    GPtrArray *chain;

    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);
        Filter f = {
            .plan = plan, .disk = disk, .policy = policy, .filter = filter,
            .options = weir_variables_expand_object(filter->options, &values),
        };

        g_ptr_array_add(options, f.options);
        g_ptr_array_add(settings, weir_json_copy(f.options));
        if (!plan_resolve(&f, error) || !plan_check_conflicts(&f, error)) {
            return NULL;
        }
    }
    if (disk->secret &&
        !plan_add_secret(plan, policy, weir_secret_copy(disk->secret),
                         error)) {
        g_prefix_error(error, "disk %s: ", disk->id);
        return NULL;
    }
    chain = weir_chain_new(disk, policy, options, settings);
    g_ptr_array_add(plan->chains, chain);
    return chain;
}

JsonObject *weir_plan_sample(const WeirPolicyFilter *filter)
{
    JsonObject *options = weir_variables_expand_object(
        filter->options, &weir_variables_sample);

    for (char **node = filter->nodes; *node; node++) {
        if (json_object_has_member(options, *node)) {
            json_object_set_string_member(options, *node, "weir-check-node");
        }
    }
    return options;
}

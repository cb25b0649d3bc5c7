/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The functions of weir-policy.h, over those that the command weir uses. */
#include "weir-policy.h"

#include "assign.h"
#include "compile.h"
#include "daemon.h"
#include "programs.h"
#include "transform.h"

struct WeirPolicies {
    GPtrArray *dirs;        /* char *; without those that are not given */
    char *config_dir;       /* NULL: default; likewise below */
    char *bin_dir;
    char *emulator;
};

/* Give @error to the caller of the library, and free it. */
static int library_fail(GError *error, char **text)
{
    if (text) {
        *text = g_strdup(error->message);
    }
    g_error_free(error);
    return -1;
}

/* Take @json as the result. */
static int library_give_json(JsonObject *json, char **text)
{
    *text = weir_json_object_text(json, true);
    json_object_unref(json);
    return 0;
}

const char *weir_policies_version(void)
{
    return WEIR_VERSION;
}

/* --- places --- */

WeirPolicies *weir_policies_new(void)
{
    WeirPolicies *policies = g_new0(WeirPolicies, 1);

    policies->dirs = g_ptr_array_new_with_free_func(g_free);
    return policies;
}

void weir_policies_free(WeirPolicies *policies)
{
    if (policies) {
        g_ptr_array_unref(policies->dirs);
        g_free(policies->config_dir);
        g_free(policies->bin_dir);
        g_free(policies->emulator);
        g_free(policies);
    }
}

void weir_policies_free_text(char *text)
{
    g_free(text);
}

void weir_policies_set(WeirPolicies *policies, WeirPoliciesPlace place,
                       const char *path)
{
    char **where = NULL;

    switch (place) {
    case WEIR_POLICIES_DIRECTORY:
        g_ptr_array_add(policies->dirs, g_strdup(path));
        return;
    case WEIR_POLICIES_CONFIGURATION:
        where = &policies->config_dir;
        break;
    case WEIR_POLICIES_QEMU:
        where = &policies->bin_dir;
        break;
    case WEIR_POLICIES_EMULATOR:
        where = &policies->emulator;
        break;
    }
    g_return_if_fail(where);
    g_free(*where);
    *where = g_strdup(path);
}

/* The directories of policies, to be freed. */
static char **library_dirs(const WeirPolicies *policies)
{
    GPtrArray *dirs = g_ptr_array_new();

    for (guint i = 0; i < policies->dirs->len; i++) {
        g_ptr_array_add(dirs,
                        g_strdup(g_ptr_array_index(policies->dirs, i)));
    }
    if (dirs->len == 0) {
        g_ptr_array_add(dirs, g_build_filename(
            policies->config_dir ? policies->config_dir : WEIR_CONFIG_DIR,
            "policies.d", NULL));
    }
    g_ptr_array_add(dirs, NULL);
    return (char **)g_ptr_array_free(dirs, FALSE);
}

static bool library_check_name(const char *name, GError **error)
{
    if (!weir_name_ok(name, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "found '%s', expected " WEIR_NAME_EXPECTED, name,
                       WEIR_VM_MAX_NAME);
        return false;
    }
    return true;
}

/* --- policies --- */

int weir_policies_check(WeirPolicies *policies, const char *file, char **text)
{
    g_auto(GStrv) dirs = policies->dirs->len ? library_dirs(policies) : NULL;
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(WeirPolicy) policy = NULL;
    GError *error = NULL;

    daemon = weir_daemon_start(policies->bin_dir, &error);
    policy = daemon ? weir_policy_load(file, dirs, weir_daemon_schema(daemon),
                                       &error) : NULL;
    return policy && weir_daemon_check(daemon, policy, &error)
           ? 0 : library_fail(error, text);
}

int weir_policies_schema(WeirPolicies *policies, char **json, char **text)
{
    GError *error = NULL;
    g_autoptr(WeirDaemon) daemon = weir_daemon_start(policies->bin_dir,
                                                     &error);

    if (!daemon) {
        return library_fail(error, text);
    }
    weir_daemon_learn_plugins(daemon);
    return library_give_json(weir_policy_schema(weir_daemon_schema(daemon)),
                             json);
}

int weir_policies_choose(WeirPolicies *policies, const char *vm,
                         const char *disk, char **policy, char **reason,
                         char **text)
{
    g_autoptr(WeirAssignments) assignments = NULL;
    g_auto(WeirChoice) choice = { 0 };
    GError *error = NULL;

    if (!library_check_name(vm, &error) || !library_check_name(disk, &error) ||
        !(assignments = weir_assignments_load(policies->config_dir,
                                              &error)) ||
        !weir_assignments_choose(assignments, vm, disk, &choice, &error)) {
        return library_fail(error, text);
    }
    *policy = g_steal_pointer(&choice.policy);
    if (reason) {
        *reason = g_steal_pointer(&choice.reason);
    }
    return 0;
}

/* --- compile --- */

static JsonArray *library_nodes(const GPtrArray *chain)
{
    JsonArray *nodes = json_array_new();

    for (guint i = 0; i < chain->len; i++) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);

        json_array_add_object_element(nodes, json_object_ref(node->options));
    }
    return nodes;
}

static JsonArray *library_disks(const GPtrArray *disks, const WeirPlan *plan)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(disks, i);
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "id", disk->id);
        json_object_set_string_member(object, "policy", disk->policy);
        json_object_set_array_member(
            object, "nodes",
            library_nodes(g_ptr_array_index(weir_plan_chains(plan), i)));
        json_array_add_object_element(array, object);
    }
    return array;
}

static void library_add_secrets(JsonArray *array, const GPtrArray *secrets)
{
    static const char *const kinds[] = {
        [WEIR_SECRET_FILE] = "file",
        [WEIR_SECRET_CREDENTIAL] = "credential",
        [WEIR_SECRET_COMMAND] = "command",
    };

    for (guint i = 0; i < secrets->len; i++) {
        const WeirSecret *secret = g_ptr_array_index(secrets, i);
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "id", secret->id);
        json_object_set_string_member(object, "from", kinds[secret->kind]);
        json_object_set_string_member(object, "value", secret->value);
        json_array_add_object_element(array, object);
    }
}

int weir_policies_compile(WeirPolicies *policies, const char *vm,
                          const char *const *texts, char **json, char **text)
{
    g_auto(GStrv) dirs = library_dirs(policies);
    const WeirCompilePlaces places = {
        .dirs = dirs, .config_dir = policies->config_dir,
        .bin_dir = policies->bin_dir,
    };
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GPtrArray) tried = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_policy_free);
    g_autoptr(WeirPlan) plan = NULL;
    GError *error = NULL;
    JsonObject *object;
    JsonArray *secrets;

    if (!library_check_name(vm, &error) ||
        !(disks = weir_compile_disks((char *const *)texts, &error)) ||
        !weir_compile_assign(disks, vm, &places, &error) ||
        !(plan = weir_compile(disks, vm, &places, tried, &error))) {
        return library_fail(error, text);
    }
    object = json_object_new();
    json_object_set_array_member(object, "disks", library_disks(disks, plan));
    secrets = json_array_new();
    library_add_secrets(secrets, weir_plan_secrets(plan));
    library_add_secrets(secrets, weir_plan_storage_secrets(plan));
    json_object_set_array_member(object, "secrets", secrets);
    return library_give_json(object, json);
}

/* --- domains --- */

int weir_policies_transform(WeirPolicies *policies, const char *xml,
                            size_t length, const char *policy, char **result,
                            char **text)
{
    GError *error = NULL;
    g_autofree char *emulator = policies->emulator
        ? g_canonicalize_filename(policies->emulator, NULL)
        : weir_program_find(policies->bin_dir, WEIR_EMULATOR, &error);
    const WeirTransform transform = {
        .emulator = emulator, .policy = policy,
    };

    if (!emulator || (policy && !library_check_name(policy, &error)) ||
        !weir_transform_check_emulator(emulator, &error) ||
        !(*result = weir_transform(xml, length, &transform, &error))) {
        return library_fail(error, text);
    }
    return 0;
}

int weir_policies_take_back(WeirPolicies *policies, const char *xml,
                            size_t length, char **result, char **text)
{
    GError *error = NULL;

    (void)policies;     /* nothing of it is needed yet */
    *result = weir_transform_remove(xml, length, &error);
    return *result ? 0 : library_fail(error, text);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compile.h"

#include "assign.h"
#include "daemon.h"

GPtrArray *weir_compile_disks(char *const *texts, GError **error)
{
    g_autoptr(GPtrArray) disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_disk_free);

    for (guint i = 0; texts && texts[i]; i++) {
        WeirDisk *disk = weir_disk_parse(texts[i], i, error);

        if (!disk) {
            return NULL;
        }
        g_ptr_array_add(disks, disk);
    }
    if (disks->len == 0) {
        weir_set_error(error, "found no disk, expected --disk DISK");
        return NULL;
    }
    return weir_disks_distinct(disks, error) ? g_steal_pointer(&disks) : NULL;
}

bool weir_compile_assign(const GPtrArray *disks, const char *vm,
                         const WeirCompilePlaces *places, GError **error)
{
    for (guint i = 0; i < disks->len; i++) {
        WeirDisk *disk = g_ptr_array_index(disks, i);

        if (!disk->policy) {
            disk->policy = weir_assigned_policy(places->config_dir, vm,
                                                disk->id, error);
        }
        if (!disk->policy) {
            return false;
        }
    }
    return true;
}

WeirPlan *weir_compile(const GPtrArray *disks, const char *vm,
                       const WeirCompilePlaces *places, GPtrArray *policies,
                       GError **error)
{
    g_autoptr(WeirDaemon) daemon = weir_daemon_start(places->bin_dir, error);
    g_autoptr(WeirPlan) plan = weir_plan_new(vm);

    for (guint i = 0; daemon && i < disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(disks, i);
        WeirPolicy *policy = weir_policy_find(
            places->dirs, disk->policy, weir_daemon_schema(daemon), error);

        if (!policy) {
            return NULL;
        }
        g_ptr_array_add(policies, policy);
        if (!weir_daemon_check(daemon, policy, error) ||
            !weir_plan_add(plan, disk, policy, error)) {
            return NULL;
        }
    }
    return daemon ? g_steal_pointer(&plan) : NULL;
}

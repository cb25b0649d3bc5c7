/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domainplan.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "binding.h"
#include "conflicts.h"
#include "emulator.h"
#include "storagerecord.h"

#define DOMAINPLAN_RECORD_MODE 0644     /* it holds no secret */

void weir_domain_plan_free(WeirDomainPlan *plan)
{
    if (plan) {
        weir_plan_free(plan->plan);
        weir_record_free(plan->record);
        weir_record_free(plan->storage);
        g_ptr_array_unref(plan->disks);
        g_free(plan);
    }
}

/* --- working out --- */

WeirDisk *weir_domain_plan_disk(const WeirDomainDisk *from)
{
    WeirDisk *disk = g_new0(WeirDisk, 1);
    const char *cache = from->cache ? from->cache : "";

    disk->file = g_strdup(from->source ? from->source : "");
    disk->format = g_strdup(from->format ? from->format : "raw");
    disk->id = g_strdup(from->target);
    disk->prefix = g_strconcat("weir-", from->target, NULL);
    disk->aio = g_strdup(from->io);
    disk->device = WEIR_DEVICE_NONE;
    disk->cache_direct = strcmp(cache, "none") == 0 ||
                         strcmp(cache, "directsync") == 0;
    disk->cache_no_flush = strcmp(cache, "unsafe") == 0;
    disk->read_only = from->read_only;
    disk->iothread = from->iothread ? g_strconcat("iothread", from->iothread,
                                                  NULL) : NULL;
    /* whether the guest's discards come so far is up to the format node */
    disk->discard = true;
    return disk;
}

bool weir_domain_plan_check_places(const WeirPolicy *policy, GError **error)
{
    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);

        if (filter->place != WEIR_PLACE_STORAGE) {
            g_set_error(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                        "%s:%u:%u: found place '%s', expected '%s' for a disk "
                        "of libvirt", filter->file, filter->line,
                        filter->column, weir_place_name(filter->place),
                        weir_place_name(WEIR_PLACE_STORAGE));
            return false;
        }
    }
    return true;
}

static bool domainplan_add(WeirDomainPlan *plan, const WeirDomainDisk *from,
                           const WeirPolicy *policy, char *const *dirs,
                           GError **error)
{
    g_autoptr(WeirDisk) disk = weir_domain_plan_disk(from);
    const GPtrArray *chain;
    WeirRecordDisk *entry;

    if (!weir_storage_check(policy->storage, disk, NULL, error) ||
        !(chain = weir_plan_add(plan->plan, disk, policy, error)) ||
        !weir_binding_check(disk, chain, policy->name, error) ||
        !weir_conflicts_files(chain, disk->id, error)) {
        return false;
    }
    if (policy->run == WEIR_RUN_OUT_OF_PROCESS) {
        weir_storage_record_add_disk(plan->storage, disk, policy, dirs, chain);
        g_ptr_array_add(plan->disks, g_steal_pointer(&disk));
        return true;
    }
    weir_record_add_disk(plan->record, disk, policy, dirs, chain);
    entry = g_ptr_array_index(plan->record->disks,
                              plan->record->disks->len - 1);
    g_free(entry->device);
    entry->device = g_strdup(from->alias);
    g_ptr_array_add(plan->disks, g_steal_pointer(&disk));
    return true;
}

/* The domain was made for what the policy said then. */
static bool domainplan_check_run(const WeirDomain *domain, const char *target,
                                 const WeirPolicy *policy, GError **error)
{
    bool outside = policy->run == WEIR_RUN_OUT_OF_PROCESS;

    if (weir_domain_is_replaced(domain, target) != outside) {
        weir_set_error(error, "disk '%s': policy '%s' has 'run: %s', but the "
                       "domain is made for the other one: 'weir libvirt apply "
                       "%s' makes it anew", target, policy->name,
                       weir_run_mode_name(policy->run), domain->name);
        return false;
    }
    return true;
}

static bool domainplan_add_assigned(WeirDomainPlan *plan,
                                    const WeirDomain *domain,
                                    const WeirAssigned *assigned,
                                    WeirDaemon *daemon, char *const *dirs,
                                    GError **error)
{
    const WeirDomainDisk *disk = weir_domain_original(domain,
                                                      assigned->target);
    g_autoptr(WeirPolicy) policy = NULL;

    if (!disk) {
        return true;
    }
    if (!weir_domain_disk_check(disk, error)) {
        return false;
    }
    policy = weir_policy_find(dirs, assigned->policy,
                              weir_daemon_schema(daemon), error);
    if (!policy) {
        if (!g_error_matches(*error, WEIR_ERROR, WEIR_ERROR_POSITION)) {
            g_prefix_error(error, "disk '%s': ", disk->target);
        }
        return false;
    }
    return weir_daemon_check(daemon, policy, error) &&
           domainplan_check_run(domain, assigned->target, policy, error) &&
           (policy->run == WEIR_RUN_OUT_OF_PROCESS ||
            weir_domain_plan_check_places(policy, error)) &&
           domainplan_add(plan, disk, policy, dirs, error);
}

/* A storage record without disks. */
static WeirRecord *domainplan_storage(const WeirDomain *domain)
{
    g_autofree char *dir = g_build_filename(WEIR_LIBVIRT_DIR,
                                            domain->uuid ? domain->uuid : "-",
                                            NULL);
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    WeirRecord *storage = weir_storage_record_new(domain->name, dir, NULL,
                                                  none);

    g_free(storage->sockets);
    storage->sockets = weir_record_sockets(WEIR_LIBVIRT_DIR, domain->name);
    storage->uid = domain->uid;
    storage->gid = domain->gid;
    return storage;
}

WeirDomainPlan *weir_domain_plan_new(const WeirDomain *domain,
                                     WeirDaemon *daemon, char *const *dirs,
                                     GError **error)
{
    g_autoptr(WeirDomainPlan) plan = NULL;
    GError *local = NULL;

    if (!weir_name_ok(domain->name, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "domain '%s': found a name that policies cannot "
                       "have as ${vm}", domain->name);
        return NULL;
    }
    plan = g_new0(WeirDomainPlan, 1);
    plan->plan = weir_plan_new(domain->name);
    plan->record = weir_record_new(domain->name, 0, "", NULL);
    plan->storage = domainplan_storage(domain);
    plan->disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_disk_free);
    plan->uid = domain->uid;
    plan->gid = domain->gid;
    for (guint i = 0; i < domain->assigned->len; i++) {
        if (!domainplan_add_assigned(
                plan, domain, g_ptr_array_index(domain->assigned, i), daemon,
                dirs, &local)) {
            g_propagate_error(error, local);
            return NULL;
        }
    }
    return g_steal_pointer(&plan);
}

/* --- leaving it for weir-qemu --- */

static bool domainplan_own(const WeirDomainPlan *plan, const char *path,
                           GError **error)
{
    if (plan->uid >= 0 &&
        lchown(path, (uid_t)plan->uid, (gid_t)plan->gid) < 0) {
        weir_set_error(error, "cannot give %s to user %d: %s", path,
                       (int)plan->uid, g_strerror(errno));
        return false;
    }
    return true;
}

/* Files that are missing are made for QEMU's user; others are left alone. */
static bool domainplan_create_files(const WeirDomainPlan *plan,
                                    GError **error)
{
    const GPtrArray *locations = weir_plan_locations(plan->plan);

    for (guint i = 0; i < locations->len; i++) {
        const WeirLocation *location = g_ptr_array_index(locations, i);

        if (location->create_bytes == 0 ||
            g_file_test(location->path, G_FILE_TEST_EXISTS)) {
            continue;
        }
        if (!weir_location_create(location, NULL, error) ||
            !domainplan_own(plan, location->path, error)) {
            return false;
        }
    }
    return true;
}

static bool domainplan_mkdir(const char *path, int mode, GError **error)
{
    if ((mkdir(path, 0700) < 0 && errno != EEXIST) ||
        chmod(path, (mode_t)mode) < 0) {
        weir_set_error(error, "cannot make %s: %s", path, g_strerror(errno));
        return false;
    }
    return true;
}

static bool domainplan_copy(int from, int to)
{
    char buffer[4096];
    ssize_t n;

    while ((n = TEMP_FAILURE_RETRY(read(from, buffer, sizeof(buffer)))) > 0) {
        if (write(to, buffer, (size_t)n) != n) {
            return false;
        }
    }
    return n == 0;
}

static bool domainplan_save_secret(const WeirDomainPlan *plan,
                                   const WeirSecret *secret, const char *dir,
                                   GError **error)
{
    g_autofree char *path = g_build_filename(dir, secret->id, NULL);
    int from = weir_secret_open(secret, error);
    int to = from < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_EXCL |
                                  O_NOFOLLOW | O_CLOEXEC, 0400);
    bool ok = to >= 0 && domainplan_copy(from, to);

    if (from >= 0 && !ok) {
        weir_set_error(error, "cannot hand secret %s to QEMU: %s", secret->id,
                       g_strerror(errno));
    }
    if (from >= 0) {
        close(from);
    }
    if (to >= 0) {
        close(to);
    }
    return ok && domainplan_own(plan, path, error);
}

static bool domainplan_save_secrets(const WeirDomainPlan *plan,
                                    const char *dir, GError **error)
{
    const GPtrArray *secrets = weir_plan_secrets(plan->plan);
    g_autofree char *path = g_build_filename(dir, WEIR_LIBVIRT_SECRETS, NULL);

    if (!domainplan_mkdir(path, 0500, error)) {
        return false;
    }
    for (guint i = 0; i < secrets->len; i++) {
        if (!domainplan_save_secret(plan, g_ptr_array_index(secrets, i), path,
                                    error)) {
            return false;
        }
    }
    return domainplan_own(plan, path, error);
}

bool weir_domain_plan_mkdir(const char *dir, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(dir);

    return domainplan_mkdir(parent, 0711, error) &&
           domainplan_mkdir(dir, 0711, error);
}

/* The daemon is root's, and so is what it reads secrets from. */
static bool domainplan_save_storage(const WeirDomainPlan *plan,
                                    const char *dir, GError **error)
{
    const GPtrArray *secrets = weir_plan_storage_secrets(plan->plan);

    if (plan->storage->disks->len == 0) {
        return true;
    }
    for (guint i = 0; i < secrets->len; i++) {
        g_ptr_array_add(plan->storage->secrets,
                        weir_secret_copy(g_ptr_array_index(secrets, i)));
    }
    return weir_record_save(plan->storage, dir, error);
}

/* The policy of a disk, which is in one of the records. */
static const char *domainplan_policy(const WeirDomainPlan *plan,
                                     const WeirDisk *disk)
{
    const WeirRecordDisk *entry = weir_record_disk(plan->record, disk->id,
                                                   NULL);

    if (!entry) {
        entry = weir_record_disk(plan->storage, disk->id, NULL);
    }
    return entry->policy;
}

static bool domainplan_note_bindings(const WeirDomainPlan *plan,
                                     GError **error)
{
    const GPtrArray *chains = weir_plan_chains(plan->plan);

    for (guint i = 0; i < plan->disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(plan->disks, i);

        if (!weir_binding_note(disk, g_ptr_array_index(chains, i),
                               plan->record->name,
                               domainplan_policy(plan, disk),
                               disk->read_only, error)) {
            return false;
        }
    }
    return true;
}

static bool domainplan_save(const WeirDomainPlan *plan, const char *dir,
                            GError **error)
{
    g_autofree char *record = weir_record_path(dir, plan->record->name,
                                               "json");

    if (!weir_domain_plan_mkdir(dir, error) ||
        !domainplan_create_files(plan, error) ||
        !domainplan_note_bindings(plan, error) ||
        !domainplan_save_secrets(plan, dir, error) ||
        !weir_record_save(plan->record, dir, error) ||
        !domainplan_save_storage(plan, dir, error)) {
        return false;
    }
    if (chmod(record, DOMAINPLAN_RECORD_MODE) < 0) {
        weir_set_error(error, "cannot make %s readable: %s", record,
                       g_strerror(errno));
        return false;
    }
    return true;
}

bool weir_domain_plan_save(const WeirDomainPlan *plan, const char *dir,
                           GError **error)
{
    weir_domain_plan_remove(dir);
    if (!domainplan_save(plan, dir, error)) {
        weir_domain_plan_remove(dir);
        return false;
    }
    return true;
}

/* Remove a directory with the files in it. */
static void domainplan_rmdir(const char *path)
{
    g_autoptr(GDir) stream = g_dir_open(path, 0, NULL);
    const char *name;

    while (stream && (name = g_dir_read_name(stream))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        unlink(file);
    }
    rmdir(path);
}

void weir_domain_plan_forget_secrets(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, WEIR_LIBVIRT_SECRETS, NULL);

    domainplan_rmdir(path);
}

void weir_domain_plan_end(const char *dir, const char *name)
{
    g_autoptr(WeirRecord) record = weir_record_load(dir, name, NULL);

    for (guint i = 0; record && i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        weir_binding_settle(disk->file);
    }
    weir_domain_plan_remove(dir);
}

void weir_domain_plan_remove(const char *dir)
{
    weir_domain_plan_forget_secrets(dir);
    domainplan_rmdir(dir);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir libvirt hook: what libvirt calls as hooks/qemu when it starts and ends
 * domains.  If it fails, the domain is not started, and who wanted that is told
 * why.
 *
 *   restore begin    before the domain is made from an XML that was saved or
 *   migrate begin        comes from another host; what is printed replaces it.
 *                        One with disks out of process is refused
 *   start begin      before QEMU is run; aliases and users are known
 *   started begin    QEMU has read its command line
 *   release end      QEMU has ended, or was not started
 */
#include <stdio.h>
#include <string.h>

#include "binding.h"
#include "domainplan.h"
#include "domainstorage.h"
#include "emulator.h"
#include "programs.h"
#include "weir.h"

static bool hook_is_emulator(const WeirDomain *domain)
{
    const char *path = domain->emulator ? domain->emulator : "";
    g_autofree char *base = g_path_get_basename(path);

    return strcmp(base, WEIR_EMULATOR) == 0;
}

/* A domain with policies starts as weir-qemu, or past all filters. */
static bool hook_check_emulator(const WeirDomain *domain, GError **error)
{
    const char *path = domain->emulator ? domain->emulator : "";

    if (!hook_is_emulator(domain)) {
        weir_set_error(error, "domain '%s': found policies and emulator '%s', "
                       "expected " WEIR_EMULATOR ": 'weir libvirt apply %s' "
                       "sets it", domain->name, path, domain->name);
        return false;
    }
    return true;
}

/* Without the id of its device, a disk cannot be found again. */
static bool hook_check_devices(const WeirDomainPlan *plan, GError **error)
{
    for (guint i = 0; i < plan->record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(plan->record->disks, i);

        if (!disk->device) {
            weir_set_error(error, "domain '%s': libvirt has given no alias to "
                           "disk '%s'", plan->record->name, disk->id);
            return false;
        }
    }
    return true;
}

/* libvirt waits for the sockets without end: they have to be there. */
static bool hook_start_storage(const WeirDomainPlan *plan, const char *dir,
                               GError **error)
{
    if (plan->storage->disks->len == 0) {
        return true;
    }
    if (!weir_domain_storage_start(dir, plan->record->name, error)) {
        g_prefix_error(error, "domain '%s': ", plan->record->name);
        weir_domain_storage_stop(dir);
        weir_domain_plan_remove(dir);
        return false;
    }
    return true;
}

static bool hook_start(const WeirDomain *domain, const char *dir,
                       const WeirPolicyOptions *options, GError **error)
{
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(WeirDomainPlan) plan = NULL;

    weir_domain_storage_stop(dir);      /* what an earlier start has left */
    if (domain->assigned->len == 0 && !hook_is_emulator(domain)) {
        weir_domain_plan_remove(dir);
        return true;
    }
    /* its policies may all have been taken away while it ran */
    return hook_check_emulator(domain, error) &&
           (daemon = weir_daemon_start(options->bin_dir, error)) &&
           (plan = weir_domain_plan_new(domain, daemon,
                                        weir_policy_dirs(options), error)) &&
           hook_check_devices(plan, error) &&
           weir_domain_plan_save(plan, dir, error) &&
           hook_start_storage(plan, dir, error);
}

/*
 * A domain without policies is nobody's business here, whatever else is in it,
 * unless a disk has been under one that it must not be used without.
 */
static bool hook_start_foreign(const char *text, GError **error)
{
    g_autoptr(WeirDomain) domain = weir_domain_parse(text, strlen(text), NULL);
    g_autoptr(GPtrArray) no_chain = g_ptr_array_new();

    for (guint i = 0; domain && i < domain->disks->len; i++) {
        const WeirDomainDisk *from = g_ptr_array_index(domain->disks, i);
        const WeirDisk disk = {
            .file = from->source, .id = from->target,
            .read_only = from->read_only,
        };

        if (from->source && from->target &&
            !weir_binding_check(&disk, no_chain, NULL, error)) {
            return false;
        }
    }
    return true;
}

static bool hook_is(char **argv, const char *operation, const char *step)
{
    return strcmp(argv[2], operation) == 0 && strcmp(argv[3], step) == 0;
}

/*
 * Its daemon stays where it is, and has the disk.  Of a domain that does not
 * run, and is to be defined here only, libvirt tells the same.
 */
static bool hook_check_migration(const WeirDomain *domain, GError **error)
{
    for (guint i = 0; i < domain->disks->len; i++) {
        const WeirDomainDisk *disk = g_ptr_array_index(domain->disks, i);

        if (disk->target && weir_domain_is_replaced(domain, disk->target)) {
            weir_set_error(error, "domain '%s': disk '%s' runs out of process, "
                           "and cannot migrate: end the domain, and define "
                           "and start it on the other host", domain->name,
                           disk->target);
            return false;
        }
    }
    return true;
}

/*
 * A domain whose disks were brought under policies while it ran has another
 * emulator in the XML of that run.
 */
static bool hook_adopt(const WeirDomain *domain, GError **error)
{
    WeirTransform options = { 0 };
    g_autofree char *emulator = NULL;
    g_autofree char *out = NULL;

    if (domain->assigned->len == 0 || hook_is_emulator(domain)) {
        return true;
    }
    emulator = weir_program_find(NULL, WEIR_EMULATOR, error);
    if (!emulator) {
        return false;
    }
    options.emulator = emulator;
    out = weir_transform(domain->text, domain->length, &options, error);
    if (out) {
        fputs(out, stdout);
    }
    return out != NULL;
}

/* Its policies may have been taken away while it ran. */
static void hook_forget(const char *text)
{
    g_autoptr(WeirDomain) domain = weir_domain_parse(text, strlen(text), NULL);
    g_autofree char *dir = NULL;

    if (domain && domain->uuid && g_uuid_string_is_valid(domain->uuid)) {
        dir = g_build_filename(WEIR_LIBVIRT_DIR, domain->uuid, NULL);
        weir_domain_storage_stop(dir);
        weir_domain_plan_end(dir, domain->name);
    }
}

static bool hook_run(char **argv, const WeirPolicyOptions *options,
                     GError **error)
{
    bool starts = hook_is(argv, "start", "begin");
    bool started = hook_is(argv, "started", "begin");
    bool made = hook_is(argv, "restore", "begin") ||
                hook_is(argv, "migrate", "begin");
    gsize length;
    g_autofree char *text = NULL;
    g_autoptr(WeirDomain) domain = NULL;
    g_autofree char *dir = NULL;

    if (!starts && !started && !made && !hook_is(argv, "release", "end")) {
        return true;
    }
    text = weir_read_domain(NULL, &length, error);
    if (!text) {
        return false;
    }
    if (!strstr(text, WEIR_DOMAIN_URI)) {
        if (starts) {
            return hook_start_foreign(text, error);
        }
        if (!started && !made) {
            hook_forget(text);
        }
        return true;
    }
    domain = weir_domain_parse(text, length, error);
    if (!domain) {
        return false;
    }
    if (made) {
        return (!hook_is(argv, "migrate", "begin") ||
                hook_check_migration(domain, error)) &&
               hook_adopt(domain, error);
    }
    if (!domain->uuid || !g_uuid_string_is_valid(domain->uuid)) {
        weir_set_error(error, "domain '%s': found no UUID", domain->name);
        return false;
    }
    dir = g_build_filename(WEIR_LIBVIRT_DIR, domain->uuid, NULL);
    if (starts) {
        return hook_start(domain, dir, options, error);
    }
    if (started) {
        weir_domain_plan_forget_secrets(dir);
    } else {
        weir_domain_storage_stop(dir);
        weir_domain_plan_end(dir, domain->name);
    }
    return true;
}

int weir_cmd_libvirt_hook(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) options = { 0 };
    GOptionEntry entries[] = {
        WEIR_OPTION_POLICIES(&options.dirs),
        WEIR_OPTION_BIN_DIR(&options.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "DOMAIN OPERATION STEP EXTRA",
                    "Called by libvirt as a hook, with the XML of the domain "
                    "on standard input.  Works\nout the chains before the "
                    "domain starts; if that fails, it does not start.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 5) {
        return weir_usage("libvirt hook: found %d arguments, expected DOMAIN "
                          "OPERATION STEP EXTRA", argc - 1);
    }
    return hook_run(argv, &options, &error) ? WEIR_EXIT_OK
                                            : weir_fail(error);
}

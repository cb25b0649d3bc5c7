/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cachefile.h"
#include "carried.h"
#include "compliance.h"
#include "domainplan.h"
#include "domainrecord.h"
#include "emulator.h"
#include "programs.h"
#include "reassign.h"
#include "samefile.h"
#include "weir.h"

#define HOLD_LOCK "lock"
#define HOLD_LOCK_US (10 * G_USEC_PER_SEC)
#define HOLD_POLL_US 20000
#define HOLD_QMP_MS 10000
#define HOLD_METADATA_KEY "weir"

/* --- the lock --- */

static bool hold_lock(WeirHold *hold, GError **error)
{
    g_autofree char *path = g_build_filename(hold->dir, HOLD_LOCK, NULL);
    gint64 end_us = g_get_monotonic_time() + HOLD_LOCK_US;

    while (weir_domain_plan_mkdir(hold->dir, error)) {
        hold->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                          0600);
        if (hold->lock < 0 && errno != ENOENT) {
            weir_set_error(error, "cannot open %s: %s", path,
                           g_strerror(errno));
            return false;
        }
        if (hold->lock >= 0 && flock(hold->lock, LOCK_EX | LOCK_NB) == 0 &&
            weir_fd_is_at(hold->lock, path)) {
            return true;
        }
        if (hold->lock >= 0) {
            close(hold->lock);
            hold->lock = -1;
        }
        if (g_get_monotonic_time() >= end_us) {
            weir_set_error(error, "domain '%s' is being changed by another "
                           "weir", hold->name);
            return false;
        }
        g_usleep(HOLD_POLL_US);
    }
    return false;
}

/* Without a record, the directory is there for the lock only. */
static void hold_unlock(WeirHold *hold)
{
    g_autofree char *path = g_build_filename(hold->dir, HOLD_LOCK, NULL);
    g_autofree char *record = weir_record_path(hold->dir, hold->name, "json");

    if (hold->lock < 0) {
        return;
    }
    if (!g_file_test(record, G_FILE_TEST_EXISTS) &&
        weir_fd_is_at(hold->lock, path)) {
        unlink(path);
        rmdir(hold->dir);
    }
    close(hold->lock);
    hold->lock = -1;
}

/* --- names --- */

/* The name of libvirt's that ends in @to, not @from; the caller frees it. */
static char *hold_sibling(const char *name, const char *from, const char *to)
{
    return g_strdup_printf("%.*s%s", (int)(strlen(name) - strlen(from)), name,
                           to);
}

/*
 * The name by which libvirt knows what is below the format node of a disk, or
 * NULL if that is not known.
 */
static char *hold_top_name(const WeirHold *hold, const WeirRecordDisk *entry)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain(
        weir_record_disk_root(entry, hold->graph));

    for (guint i = 0; i < chain->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(chain, i);

        if (weir_domain_node_is(node->name, WEIR_LIBVIRT_FORMAT)) {
            return hold_sibling(node->name, WEIR_LIBVIRT_FORMAT,
                                WEIR_LIBVIRT_STORAGE);
        }
    }
    return NULL;
}

/* --- open --- */

static void hold_forget(WeirHold *hold)
{
    g_clear_pointer(&hold->parsed, weir_domain_free);
    g_clear_pointer(&hold->xml, g_free);
    g_clear_pointer(&hold->record, weir_record_free);
    g_clear_pointer(&hold->graph, weir_graph_free);
    g_clear_pointer(&hold->images, g_hash_table_unref);
}

/* As they are recorded, not as they are now; for who changes the disks. */
static GHashTable *hold_images(const WeirHold *hold)
{
    GHashTable *images = g_hash_table_new_full(g_str_hash, g_str_equal,
                                               g_free, g_free);
    g_autoptr(WeirRecord) record = hold->lock >= 0
        ? weir_record_load(hold->dir, hold->name, NULL) : NULL;

    for (guint i = 0; record && i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        g_hash_table_insert(images, g_strdup(disk->id), g_strdup(disk->file));
    }
    return images;
}

static bool hold_ask(WeirHold *hold, GError **error)
{
    g_autoptr(WeirQmp) qmp = weir_hypervisor_qmp(hold->domain);

    hold->graph = weir_graph_query(qmp, HOLD_QMP_MS, error);
    if (!hold->graph) {
        g_prefix_error(error, "domain '%s': ", hold->name);
        hold_forget(hold);
        return false;
    }
    weir_domain_record_take_names(hold->record, hold->graph);
    return true;
}

/* Whether there is something of ours in it, or is going to be. */
static bool hold_is_ours(const WeirHold *hold)
{
    g_autofree char *path = weir_record_path(hold->dir, hold->name, "json");

    return hold->lock >= 0 || strstr(hold->xml, WEIR_DOMAIN_URI) ||
           g_file_test(path, G_FILE_TEST_EXISTS);
}

static bool hold_find_record(WeirHold *hold, GError **error)
{
    g_autoptr(WeirQmp) qmp = weir_hypervisor_qmp(hold->domain);
    bool here = weir_hypervisor_is_local(virDomainGetConnect(hold->domain));

    if (hold->parsed->assigned->len > 0) {
        hold->record = weir_domain_record(hold->parsed, here, qmp, HOLD_QMP_MS,
                                          NULL, error);
        return hold->record != NULL;
    }
    hold->record = here ? weir_record_load(hold->dir, hold->name, NULL) : NULL;
    if (!hold->record) {
        hold->record = weir_record_new(hold->name, 0, "", NULL);
    }
    weir_domain_record_follow(hold->record, hold->parsed, here);
    return true;
}

bool weir_hold_refresh(WeirHold *hold, GError **error)
{
    hold_forget(hold);
    hold->xml = weir_hypervisor_xml(hold->domain, true, error);
    if (!hold->xml) {
        return false;
    }
    if (!hold_is_ours(hold)) {
        return true;            /* whatever else is in it */
    }
    hold->parsed = weir_domain_parse(hold->xml, strlen(hold->xml), error);
    if (!hold->parsed || !hold_find_record(hold, error) ||
        !hold_ask(hold, error)) {
        hold_forget(hold);
        return false;
    }
    hold->images = hold_images(hold);
    return true;
}

static bool hold_check(const WeirHold *hold, GError **error)
{
    if (!weir_hypervisor_is_local(virDomainGetConnect(hold->domain))) {
        weir_set_error(error, "domain '%s' is on another host: its disks are "
                       "changed there", hold->name);
        return false;
    }
    if (hold->id < 0) {
        weir_set_error(error, "domain '%s' does not run", hold->name);
        return false;
    }
    if (!weir_name_ok(hold->name, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "domain '%s': found a name that policies cannot "
                       "have as ${vm}", hold->name);
        return false;
    }
    return true;
}

/* libvirt's number of the run that goes on now, or -1. */
static int hold_run(virDomainPtr domain)
{
    unsigned char uuid[VIR_UUID_BUFLEN];
    virDomainPtr now;
    int id;

    if (virDomainGetUUID(domain, uuid) < 0 ||
        !(now = virDomainLookupByUUID(virDomainGetConnect(domain), uuid))) {
        return -1;
    }
    id = (int)virDomainGetID(now);
    virDomainFree(now);
    return id;
}

WeirHold *weir_hold_open(virDomainPtr domain, bool change, GError **error)
{
    g_autoptr(WeirHold) hold = g_new0(WeirHold, 1);
    char uuid[VIR_UUID_STRING_BUFLEN];

    hold->lock = -1;
    hold->domain = domain;
    virDomainRef(domain);
    if (virDomainGetUUIDString(domain, uuid) < 0) {
        weir_hypervisor_error(error, "libvirt");
        return NULL;
    }
    hold->name = g_strdup(virDomainGetName(domain));
    hold->uuid = g_strdup(uuid);
    hold->dir = g_build_filename(WEIR_LIBVIRT_DIR, uuid, NULL);
    hold->id = hold_run(domain);
    if ((change && (!hold_check(hold, error) || !hold_lock(hold, error))) ||
        !weir_hold_refresh(hold, error)) {
        return NULL;
    }
    return g_steal_pointer(&hold);
}

void weir_hold_free(WeirHold *hold)
{
    if (hold) {
        hold_forget(hold);
        hold_unlock(hold);
        virDomainFree(hold->domain);
        g_free(hold->name);
        g_free(hold->uuid);
        g_free(hold->dir);
        g_free(hold);
    }
}

bool weir_hold_add(WeirHold *hold, const char *target, GError **error)
{
    const WeirDomainDisk *disk = weir_domain_disk(hold->parsed, target);

    if (!disk || !disk->alias) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                    "domain '%s' has no disk '%s'", hold->name, target);
        return false;
    }
    if (weir_domain_is_replaced(hold->parsed, target)) {
        weir_set_error(error, "domain '%s': disk '%s' runs out of process, "
                       "where libvirt has no part in it: it is changed with "
                       "--runtime-dir %s", hold->name, target, hold->dir);
        return false;
    }
    if (!weir_domain_disk_check(disk, error)) {
        return false;
    }
    if (!weir_record_disk(hold->record, target, NULL)) {
        weir_domain_record_add(hold->record, disk);
    }
    return true;
}

/* --- change --- */

/* Not known while libvirtd is away: then it is not said to have ended. */
static bool hold_is_alive(void *opaque)
{
    const WeirHold *hold = opaque;
    int run = hold_run(hold->domain);

    return run == hold->id ||
           (run < 0 &&
            virConnectIsAlive(virDomainGetConnect(hold->domain)) != 1);
}

/* Who asks QEMU on another host sees it as well. */
static void hold_carry(void *opaque, const WeirRecord *record)
{
    const WeirHold *hold = opaque;
    g_autoptr(WeirQmp) qmp = weir_hypervisor_qmp(hold->domain);

    weir_carried_put(qmp, record, HOLD_QMP_MS, NULL);
}

WeirLive *weir_hold_live(WeirHold *hold, const char *target,
                         const WeirLiveReport *report, GError **error)
{
    const WeirRecordDisk *entry = weir_record_disk(hold->record, target,
                                                   error);
    WeirLiveVm vm;

    if (!entry) {
        return NULL;
    }
    vm = (WeirLiveVm) {
        .top_name = hold_top_name(hold, entry),
        .record = g_steal_pointer(&hold->record),
        .qmp = weir_hypervisor_qmp(hold->domain),
        .is_alive = hold_is_alive, .saved = hold_carry, .opaque = hold,
        .uid = hold->parsed->uid, .gid = hold->parsed->gid,
        .keeps_policy = true,
    };
    return weir_live_open_vm(hold->dir, &vm, target, report, error);
}

static bool hold_writes_back(const WeirStep *step)
{
    return step->holds_data ||
           (step->class == WEIR_CLASS_CACHE &&
            weir_cache_writes_back(weir_json_string(step->options, "mode")));
}

/* Whether libvirt has a format node above its storage node @name. */
static bool hold_has_format(const WeirHold *hold, const char *name)
{
    g_autofree char *format = hold_sibling(name, WEIR_LIBVIRT_STORAGE,
                                           WEIR_LIBVIRT_FORMAT);

    return weir_graph_node(hold->graph, format) != NULL;
}

static bool hold_allows_step(const WeirHold *hold, const WeirRecordDisk *disk,
                             const WeirStep *step, GError **error)
{
    g_autofree char *top = hold_top_name(hold, disk);

    if (step->kind == WEIR_STEP_ATTACH && hold_writes_back(step) &&
        virDomainListAllCheckpoints(hold->domain, NULL, 0) > 0) {
        weir_set_error(error, "domain '%s' has checkpoints, with which libvirt "
                       "opens images past a cache that was attached: delete "
                       "them, take another mode than write-back, or start the "
                       "domain anew under the policy", hold->name);
        return false;
    }
    if ((step->kind == WEIR_STEP_ATTACH && !top) ||
        (step->kind == WEIR_STEP_DETACH &&
         weir_domain_node_is(step->node_name, WEIR_LIBVIRT_STORAGE) &&
         !hold_has_format(hold, step->node_name))) {
        weir_set_error(error, "domain '%s', disk %s: libvirt has no format "
                       "node for it, and knows it by the node that would "
                       "change: start the domain anew under the policy",
                       hold->name, disk->id);
        return false;
    }
    return true;
}

bool weir_hold_allows(const WeirHold *hold, const WeirRecordDisk *disk,
                      const WeirChange *change, GError **error)
{
    for (guint i = 0; i < change->steps->len; i++) {
        if (!hold_allows_step(hold, disk, g_ptr_array_index(change->steps, i),
                              error)) {
            return false;
        }
    }
    return true;
}

/* --- what libvirt knows --- */

/*
 * Of the next start.  A transient domain has none; a disk may have been plugged
 * in for this one only.
 */
static bool hold_assign_next(WeirHold *hold, const char *target,
                             const char *policy, GError **error)
{
    g_autofree char *xml = NULL;
    g_autoptr(WeirDomain) domain = NULL;
    g_autofree char *emulator = NULL;
    g_autofree char *out = NULL;
    g_autoptr(virDomain) defined = NULL;

    if (virDomainIsPersistent(hold->domain) != 1) {
        return true;
    }
    xml = weir_hypervisor_xml(hold->domain, false, error);
    domain = xml ? weir_domain_parse(xml, strlen(xml), error) : NULL;
    if (domain && !weir_domain_disk(domain, target)) {
        return true;
    }
    emulator = domain ? weir_program_find(NULL, WEIR_EMULATOR, error) : NULL;
    out = emulator ? weir_reassign(xml, strlen(xml), target, policy, emulator,
                                   error) : NULL;
    if (!out) {
        return false;
    }
    if (strcmp(out, xml) == 0) {
        return true;
    }
    defined = weir_hypervisor_define(virDomainGetConnect(hold->domain), out,
                                     error);
    return defined != NULL;
}

static bool hold_assign_now(WeirHold *hold, const char *target,
                            const char *policy, GError **error)
{
    g_autofree char *xml = weir_hypervisor_xml(hold->domain, true, error);
    g_autoptr(WeirDomain) domain = xml ? weir_domain_parse(xml, strlen(xml),
                                                           error) : NULL;
    g_autofree char *element = NULL;

    if (!domain) {
        return false;
    }
    if (g_strcmp0(weir_domain_policy(domain, target), policy) == 0) {
        return true;
    }
    element = weir_reassign_element(domain, target, policy);
    if (virDomainSetMetadata(hold->domain, VIR_DOMAIN_METADATA_ELEMENT,
                             element, HOLD_METADATA_KEY, WEIR_DOMAIN_URI,
                             VIR_DOMAIN_AFFECT_LIVE) < 0) {
        weir_hypervisor_error(error, "libvirt does not take the policy");
        return false;
    }
    return true;
}

bool weir_hold_assign(WeirHold *hold, const char *target, const char *next,
                      const char *now, GError **error)
{
    if (!hold_assign_next(hold, target, next, error) ||
        !hold_assign_now(hold, target, now, error)) {
        g_prefix_error(error, "domain '%s', disk %s: ", hold->name, target);
        return false;
    }
    return true;
}

char *weir_hold_next(const WeirHold *hold, const char *target)
{
    g_autofree char *xml = virDomainIsPersistent(hold->domain) == 1
        ? weir_hypervisor_xml(hold->domain, false, NULL) : NULL;
    g_autoptr(WeirDomain) domain = xml ? weir_domain_parse(xml, strlen(xml),
                                                           NULL) : NULL;

    bool has_it = domain && weir_domain_disk(domain, target);

    return g_strdup(weir_domain_policy(has_it ? domain : hold->parsed,
                                       target));
}

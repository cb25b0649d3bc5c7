/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domainrecord.h"

#include <string.h>

#include "carried.h"
#include "compliance.h"
#include "domainplan.h"
#include "emulator.h"
#include "policy.h"
#include "transform.h"

/* --- the disks --- */

void weir_domain_record_add(WeirRecord *record, const WeirDomainDisk *from)
{
    g_autoptr(WeirDisk) disk = weir_domain_plan_disk(from);
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    const WeirPolicy no_policy = { .name = (char *)"", .filters = none };
    g_autoptr(GPtrArray) chain = weir_chain_new(disk, &no_policy, none, none);
    WeirRecordDisk *entry;

    weir_record_add_disk(record, disk, NULL, NULL, chain);
    entry = g_ptr_array_index(record->disks, record->disks->len - 1);
    entry->device = g_strdup(from->alias);
}

static void domainrecord_take_node(WeirRecordDisk *entry,
                                   const WeirChainNode *node)
{
    for (guint i = 0; i < entry->wanted->len; i++) {
        WeirWanted *wanted = g_ptr_array_index(entry->wanted, i);

        if (strcmp(wanted->role, weir_role_name(node->role)) == 0) {
            g_free(wanted->driver);
            wanted->driver = g_strdup(node->driver);
            json_object_unref(wanted->options);
            wanted->options = json_object_ref(node->options);
        }
    }
}

/* A snapshot, or a copy, has given the disk another image. */
static void domainrecord_describe(WeirRecordDisk *entry,
                                  const WeirDomainDisk *from)
{
    g_autoptr(WeirDisk) disk = weir_domain_plan_disk(from);
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    const WeirPolicy no_policy = { .name = (char *)"", .filters = none };
    g_autoptr(GPtrArray) chain = weir_chain_new(disk, &no_policy, none, none);

    g_free(entry->file);
    entry->file = g_strdup(disk->file);
    for (guint i = 0; i < chain->len; i++) {
        domainrecord_take_node(entry, g_ptr_array_index(chain, i));
    }
}

void weir_domain_record_follow(WeirRecord *record, const WeirDomain *domain,
                               bool here)
{
    for (guint i = record->disks->len; i-- > 0;) {
        WeirRecordDisk *entry = g_ptr_array_index(record->disks, i);
        const WeirDomainDisk *now = weir_domain_disk(domain, entry->id);

        if (!now || !now->alias) {
            g_ptr_array_remove_index(record->disks, i);
            continue;
        }
        g_free(entry->device);
        entry->device = g_strdup(now->alias);
        if (here) {
            domainrecord_describe(entry, now);
        }
    }
    for (guint i = 0; i < domain->assigned->len; i++) {
        const WeirAssigned *a = g_ptr_array_index(domain->assigned, i);
        const WeirDomainDisk *disk = weir_domain_disk(domain, a->target);

        if (disk && disk->alias &&
            !weir_domain_is_replaced(domain, a->target) &&
            !weir_record_disk(record, a->target, NULL)) {
            weir_domain_record_add(record, disk);
        }
    }
}

/* --- names --- */

bool weir_domain_node_is(const char *name, const char *suffix)
{
    return g_str_has_prefix(name, WEIR_LIBVIRT_NODE) &&
           g_str_has_suffix(name, suffix);
}

/* The node that a filter of the record is, if its name is the recorded one. */
static bool domainrecord_has_node(const WeirGraph *graph,
                                  const WeirGraphNode *root,
                                  const WeirWanted *wanted)
{
    const WeirGraphNode *node = weir_graph_node(graph, wanted->node_name);

    return node && weir_graph_reaches(root, node);
}

/*
 * weir-qemu has given the highest filter the name of libvirt's storage node.
 * It is there also below a backing file, and again after a commit.
 */
static void domainrecord_take_name(const WeirGraph *graph,
                                   const WeirGraphNode *root,
                                   WeirWanted *wanted)
{
    GPtrArray *nodes = weir_graph_nodes(graph);
    g_autofree char *kind = weir_wanted_kind(wanted);

    for (guint i = 0; i < nodes->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(nodes, i);

        if (node->filter && g_strcmp0(node->filter_kind, kind) == 0 &&
            weir_domain_node_is(node->name, WEIR_LIBVIRT_STORAGE) &&
            weir_graph_reaches(root, node)) {
            g_free(wanted->node_name);
            wanted->node_name = g_strdup(node->name);
            json_object_set_string_member(wanted->options, "node-name",
                                          node->name);
            return;
        }
    }
}

void weir_domain_record_take_names(WeirRecord *record, const WeirGraph *graph)
{
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *entry = g_ptr_array_index(record->disks, i);
        const WeirGraphNode *root = weir_record_disk_root(entry, graph);

        for (guint j = 0; root && j < entry->wanted->len; j++) {
            WeirWanted *wanted = g_ptr_array_index(entry->wanted, j);

            if (wanted->place && !domainrecord_has_node(graph, root, wanted)) {
                domainrecord_take_name(graph, root, wanted);
            }
        }
    }
}

/* --- the record --- */

/* Whether it was started by weir-qemu, which does so with a record only. */
static bool domainrecord_is_ours(const WeirDomain *domain)
{
    return domain->emulator &&
           weir_transform_check_emulator(domain->emulator, NULL);
}

/*
 * What the hook has left comes first: a QEMU that somebody has got hold of
 * could carry anything.
 */
WeirRecord *weir_domain_record(const WeirDomain *domain, bool here,
                               WeirQmp *qmp, int timeout_ms, char **dir,
                               GError **error)
{
    g_autofree char *left = g_build_filename(
        WEIR_LIBVIRT_DIR, domain->uuid ? domain->uuid : "", NULL);
    g_autoptr(GError) local = NULL;
    WeirRecord *record;

    if (!weir_name_ok(domain->name, WEIR_VM_MAX_NAME) || !domain->uuid ||
        !g_uuid_string_is_valid(domain->uuid)) {
        weir_set_error(error, "found another name or UUID than a domain with "
                       "policies can have");
        return NULL;
    }
    record = here ? weir_record_load(left, domain->name, NULL) : NULL;
    if (dir) {
        *dir = record ? g_steal_pointer(&left) : NULL;
    }
    if (!record) {
        record = weir_carried_ask(qmp, domain->name, timeout_ms, &local);
    }
    if (!record &&
        !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return NULL;
    }
    if (!record && domainrecord_is_ours(domain)) {
        weir_set_error(error, "domain '%s': found policies, but what it was "
                       "started with is not known", domain->name);
        return NULL;
    }
    if (!record) {      /* it was started without policies */
        record = weir_record_new(domain->name, 0, "", NULL);
    }
    weir_domain_record_follow(record, domain, here);
    return record;
}

bool weir_domain_records_here(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = g_dir_open(WEIR_LIBVIRT_DIR, 0, &error);

    return dir ? g_dir_read_name(dir) != NULL
               : g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_ACCES);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "settle.h"

#include <string.h>
#include <sys/stat.h>

#include "cachefile.h"
#include "compliance.h"
#include "daemon.h"
#include "domainplan.h"
#include "hold.h"
#include "leftover.h"
#include "moved.h"

typedef struct Work {
    const WeirSettle *settle;
    WeirSettled *settled;
    WeirHold *hold;
    WeirGaps *gaps;
    WeirDaemon *daemon;         /* NULL: it was not needed yet */
} Work;

static void work_clear(Work *work)
{
    weir_hold_free(work->hold);
    weir_gaps_free(work->gaps);
    weir_daemon_free(work->daemon);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Work, work_clear)

static void settle_tell(const Work *work, const char *disk,
                        const char *format, ...) G_GNUC_PRINTF(3, 4);

static void settle_tell(const Work *work, const char *disk,
                        const char *format, ...)
{
    g_autofree char *text = NULL;
    g_autofree char *line = NULL;
    va_list args;

    if (!work->settle->tell) {
        return;
    }
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    line = disk ? g_strdup_printf("domain '%s', disk %s: %s", work->hold->name,
                                  disk, text)
                : g_strdup_printf("domain '%s': %s", work->hold->name, text);
    work->settle->tell(line);
}

static gint64 settle_now_ms(void)
{
    return g_get_real_time() / 1000;
}

/* --- what is missing --- */

/* The filters that are missing, as weir status tells it; NULL: none is. */
static char *settle_missing(const WeirRecordDisk *entry,
                            const WeirGraph *graph)
{
    g_autoptr(GPtrArray) statuses = weir_disk_statuses_new();
    g_autoptr(GPtrArray) one = g_ptr_array_new();
    WeirRecord record = { .name = (char *)"", .disks = one };
    const WeirDiskStatus *status;
    GString *text = g_string_new(NULL);

    g_ptr_array_add(one, (gpointer)entry);
    weir_compliance_record(&record, graph, NULL, NULL, statuses);
    status = g_ptr_array_index(statuses, 0);
    for (guint i = 0; i < status->filters->len; i++) {
        const WeirFilterStatus *filter = g_ptr_array_index(status->filters, i);

        if (!filter->node_name && filter->reason) {
            g_string_append_printf(text, "%s%s", text->len ? "; " : "",
                                   filter->reason);
        }
    }
    return g_string_free(text, text->len == 0);
}

/* Why a disk is not under @policy, to be freed; NULL: it is. */
static char *settle_need(const Work *work, const WeirRecordDisk *entry,
                         const char *policy)
{
    if (entry->change) {
        return g_strdup("a change was interrupted");
    }
    if (!entry->policy) {
        return g_strdup_printf("policy '%s' was not established", policy);
    }
    if (strcmp(entry->policy, policy) != 0) {
        return g_strdup_printf("it is under policy '%s' instead of '%s'",
                               entry->policy, policy);
    }
    return settle_missing(entry, work->hold->graph);
}

/* The policy of a disk if it can be settled, or NULL. */
static const char *settle_policy(const Work *work,
                                 const WeirRecordDisk *entry)
{
    return weir_domain_policy(work->hold->parsed, entry->id);
}

static bool settle_is_well(const Work *work)
{
    const WeirHold *hold = work->hold;
    g_autoptr(GPtrArray) open = weir_gaps_open_disks(work->gaps);
    g_autoptr(GPtrArray) leftover = weir_leftover_find(hold->graph);

    for (guint i = 0; i < hold->record->disks->len; i++) {
        const WeirRecordDisk *entry = g_ptr_array_index(hold->record->disks,
                                                        i);
        const char *policy = settle_policy(work, entry);
        g_autofree char *need = policy ? settle_need(work, entry, policy)
                                       : NULL;

        if (need) {
            return false;
        }
    }
    return open->len == 0 && leftover->len == 0;
}

/* --- gaps --- */

/* When the record was written last, all was well. */
static gint64 settle_recorded_ms(const WeirHold *hold)
{
    g_autofree char *path = weir_record_path(hold->dir, hold->name, "json");
    struct stat found;

    return stat(path, &found) == 0
        ? (gint64)found.st_mtim.tv_sec * 1000 +
          found.st_mtim.tv_nsec / 1000000 : 0;
}

/* When libvirt told of what has happened to the disk, or 0. */
static gint64 settle_told_ms(const Work *work, const WeirRecordDisk *entry)
{
    const WeirGraphNode *root = weir_record_disk_root(entry,
                                                      work->hold->graph);
    const char *keys[] = {
        entry->id, entry->device, root ? root->name : NULL,
    };
    gint64 latest = 0;

    for (guint i = 0; work->settle->told && i < G_N_ELEMENTS(keys); i++) {
        const gint64 *time = keys[i] ? g_hash_table_lookup(
                                 work->settle->told, keys[i]) : NULL;

        latest = time ? MAX(latest, *time) : latest;
    }
    return latest;
}

static void settle_begin_gap(const Work *work, const WeirRecordDisk *entry,
                             const char *policy, const char *need)
{
    gint64 told_ms = settle_told_ms(work, entry);
    gint64 seen_ms = MAX(work->settle->seen_ms,
                         settle_recorded_ms(work->hold));
    const WeirGapBegin begin = {
        .policy = policy, .reason = need,
        .is_known = told_ms > 0 && told_ms >= work->settle->seen_ms,
        .from_ms = told_ms > 0 && told_ms >= work->settle->seen_ms
            ? told_ms : seen_ms > 0 ? seen_ms : settle_now_ms(),
    };

    if (weir_gaps_begin(work->gaps, entry->id, &begin)) {
        g_autofree char *text = weir_gap_text(
            weir_gaps_open(work->gaps, entry->id));

        settle_tell(work, entry->id, "policy '%s': %s", policy, text);
    }
}

static void settle_end_gap(const Work *work, const char *disk,
                           const char *end)
{
    JsonObject *gap = weir_gaps_end(work->gaps, disk, settle_now_ms(), end);
    g_autofree char *text = gap ? weir_gap_text(gap) : NULL;

    if (gap) {
        settle_tell(work, disk, "policy '%s', %s: %s",
                    weir_json_string(gap, "policy"), end, text);
    }
}

static void settle_save_gaps(const Work *work)
{
    g_autoptr(GError) error = NULL;

    if (!weir_gaps_save(work->gaps, &error)) {
        settle_tell(work, NULL, "%s", error->message);
    }
}

/* --- one disk --- */

/* What filters keep of the image before is not what they will keep. */
static WeirMoved *settle_moved(const Work *work, const WeirRecordDisk *entry)
{
    return weir_moved_new(g_hash_table_lookup(work->hold->images, entry->id),
                          entry, weir_daemon_schema(work->daemon));
}

static void settle_tell_moved(const Work *work, const char *disk,
                              const WeirMoved *moved)
{
    g_autoptr(GPtrArray) notes = weir_moved_notes(moved);

    for (guint i = 0; i < notes->len; i++) {
        settle_tell(work, disk, "%s", (char *)g_ptr_array_index(notes, i));
    }
}

/* Where policies are looked for; the caller frees it. */
static char **settle_dirs(const Work *work, const WeirRecordDisk *entry)
{
    static char *const standard[] = { (char *)WEIR_POLICY_DIR, NULL };
    char *const *dirs = work->settle->dirs ? work->settle->dirs :
                        entry->policy_dirs ? entry->policy_dirs : standard;

    return g_strdupv((char **)dirs);
}

static WeirPolicy *settle_find(const Work *work, const WeirRecordDisk *entry,
                               const char *name, char *const *dirs,
                               GError **error)
{
    g_autoptr(WeirPolicy) policy = weir_policy_find(
        dirs, name, weir_daemon_schema(work->daemon), error);
    g_autoptr(WeirDisk) disk = policy ? weir_record_describe(entry, error)
                                      : NULL;
    const WeirDomainDisk *now = weir_domain_disk(work->hold->parsed,
                                                 entry->id);

    if (!disk || !weir_domain_disk_check(now, error) ||
        !weir_daemon_check(work->daemon, policy, error) ||
        !weir_domain_plan_check_places(policy, error) ||
        !weir_storage_check(policy->storage, disk, work->settle->bin_dir,
                            error)) {
        return NULL;
    }
    return g_steal_pointer(&policy);
}

/* The record and graph of @work are gone afterwards. */
static bool settle_change(const Work *work, const char *disk,
                          const WeirPolicy *policy, char *const *dirs,
                          GError **error)
{
    const WeirLiveReport quiet = { 0 };
    g_autoptr(WeirLive) live = weir_hold_live(work->hold, disk, &quiet, error);
    const WeirChange *change = live ? weir_live_plan(
                                   live, policy, dirs,
                                   weir_daemon_schema(work->daemon), error)
                                    : NULL;

    return change && weir_hold_allows(
               work->hold, weir_live_disk(live), change, error) &&
           (weir_live_complies(live) || weir_live_run(live, error));
}

static bool settle_establish(Work *work, const WeirRecordDisk *entry,
                             const char *name, GError **error)
{
    WeirSight sight = {
        .record = work->hold->record, .disk = entry,
        .graph = work->hold->graph,
    };
    g_autofree char *disk = g_strdup(entry->id);
    g_auto(GStrv) dirs = settle_dirs(work, entry);
    g_autoptr(WeirPolicy) policy = NULL;
    g_autoptr(WeirMoved) moved = NULL;
    bool ok;

    if (!work->daemon) {
        work->daemon = weir_daemon_start(work->settle->bin_dir, error);
    }
    if (!work->daemon) {
        return false;
    }
    sight.schema = weir_daemon_schema(work->daemon);
    /* also if the policy cannot be had: sidecars must not be believed */
    if (!weir_present_mend(&sight, error) ||
        !(policy = settle_find(work, entry, name, dirs, error))) {
        return false;
    }
    moved = settle_moved(work, entry);
    ok = weir_moved_set_aside(moved, entry, work->hold->graph, sight.schema,
                              error);
    settle_tell_moved(work, disk, moved);
    if (!ok || !settle_change(work, disk, policy, dirs, error)) {
        return false;
    }
    weir_moved_end(moved);
    return true;
}

/* Returns why it is not under its policy afterwards, to be freed; or NULL. */
static char *settle_after(const Work *work, const char *disk,
                          const char *policy, const GError *failure)
{
    g_autoptr(GError) local = NULL;
    const WeirRecordDisk *entry;

    if (!weir_hold_refresh(work->hold, &local)) {
        return g_strdup(failure ? failure->message : local->message);
    }
    entry = weir_record_disk(work->hold->record, disk, &local);
    return failure ? g_strdup(failure->message) :
           entry ? settle_need(work, entry, policy)
                 : g_strdup(local->message);
}

static void settle_disk(Work *work, const WeirRecordDisk *entry)
{
    g_autofree char *disk = g_strdup(entry->id);
    g_autofree char *policy = g_strdup(settle_policy(work, entry));
    g_autofree char *need = policy ? settle_need(work, entry, policy) : NULL;
    g_autofree char *refusal = NULL;
    g_autoptr(GError) failure = NULL;

    if (!need) {
        settle_end_gap(work, disk, policy ? "it is there again"
                                          : "no policy is assigned any more");
        return;
    }
    settle_begin_gap(work, entry, policy, need);
    settle_save_gaps(work);
    settle_establish(work, entry, policy, &failure);
    refusal = settle_after(work, disk, policy, failure);
    if (!refusal) {
        work->settled->established++;
        settle_end_gap(work, disk, "re-established");
        return;
    }
    work->settled->refused++;
    if (weir_gaps_refuse(work->gaps, disk, refusal)) {
        settle_tell(work, disk, "policy '%s' cannot be re-established: %s",
                    policy, refusal);
    }
}

/* --- all of them --- */

/* The disk by whose name a node begins, or NULL. */
static const WeirRecordDisk *settle_entry_of(const WeirHold *hold,
                                             const WeirGraphNode *node)
{
    for (guint i = 0; i < hold->record->disks->len; i++) {
        const WeirRecordDisk *entry = g_ptr_array_index(hold->record->disks,
                                                        i);
        g_autofree char *prefix = g_strconcat(entry->prefix, "-", NULL);

        if (g_str_has_prefix(node->name, prefix)) {
            return entry;
        }
    }
    return NULL;
}

/*
 * What a cache has of an image that has been committed is in the image below
 * it: the file of the cache is free.
 */
static bool settle_give_up(const Work *work, const WeirGraphNode *highest,
                           GError **error)
{
    const WeirRecordDisk *entry = settle_entry_of(work->hold, highest);
    g_autoptr(GPtrArray) chain = weir_graph_chain((WeirGraphNode *)highest);

    if (!entry || !weir_leftover_is_committed(
                      highest, weir_record_disk_root(entry,
                                                     work->hold->graph))) {
        return true;
    }
    for (guint i = 0; i < entry->wanted->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(entry->wanted, i);
        const WeirGraphNode *node = weir_graph_node(work->hold->graph,
                                                    wanted->node_name);
        g_autofree char *path = NULL;

        if (!node || !g_ptr_array_find(chain, node, NULL)) {
            continue;
        }
        path = weir_change_memory(WEIR_CLASS_CACHE, wanted->settings);
        if (path && !weir_cache_file_lose(path, error)) {
            return false;
        }
    }
    return true;
}

static bool settle_clean(const Work *work, GError **error)
{
    g_autoptr(GPtrArray) found = weir_leftover_find(work->hold->graph);
    g_autoptr(WeirQmp) qmp = weir_hypervisor_qmp(work->hold->domain);

    for (guint i = 0; i < found->len; i++) {
        const WeirGraphNode *node = g_ptr_array_index(found, i);

        if (!weir_leftover_close(qmp, node, error) ||
            !settle_give_up(work, node, error)) {
            return false;
        }
        work->settled->deleted++;
        settle_tell(work, NULL, "node %s, which nobody used any more, was "
                    "deleted", node->name);
    }
    return found->len == 0 || weir_hold_refresh(work->hold, error);
}

/* Disks that have been unplugged, or are under no policy any more. */
static void settle_end_others(const Work *work)
{
    g_autoptr(GPtrArray) open = weir_gaps_open_disks(work->gaps);

    for (guint i = 0; i < open->len; i++) {
        const char *disk = g_ptr_array_index(open, i);

        if (!weir_record_disk(work->hold->record, disk, NULL)) {
            settle_end_gap(work, disk, "the domain has no such disk any more");
        }
    }
}

static bool settle_all(Work *work, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) local = NULL;

    if (!settle_clean(work, error)) {
        return false;
    }
    for (guint i = 0; i < work->hold->record->disks->len; i++) {
        const WeirRecordDisk *entry = g_ptr_array_index(
            work->hold->record->disks, i);

        g_ptr_array_add(names, g_strdup(entry->id));
    }
    /* each that is changed has the record and the graph read anew */
    for (guint i = 0; i < names->len; i++) {
        const WeirRecordDisk *entry = weir_record_disk(
            work->hold->record, g_ptr_array_index(names, i), NULL);

        if (entry) {
            settle_disk(work, entry);
        }
        if (!work->hold->record) {
            weir_set_error(error, "domain '%s' cannot be asked any more",
                           work->hold->name);
            settle_save_gaps(work);
            return false;
        }
    }
    settle_end_others(work);
    settle_save_gaps(work);
    return settle_clean(work, error);
}

bool weir_settle(virDomainPtr domain, const WeirSettle *settle,
                 WeirSettled *settled, GError **error)
{
    g_auto(Work) work = { .settle = settle, .settled = settled };

    *settled = (WeirSettled) { 0 };
    work.hold = weir_hold_open(domain, false, error);
    if (!work.hold) {
        return false;
    }
    settled->is_ours = work.hold->record != NULL &&
                       work.hold->parsed->assigned->len > 0;
    if (!settled->is_ours) {
        return true;
    }
    work.gaps = weir_gaps_load(settle->gaps_dir, work.hold->uuid,
                               work.hold->name);
    if (settle_is_well(&work)) {
        return true;
    }
    /* now with the lock, and perhaps it is well by now */
    g_clear_pointer(&work.hold, weir_hold_free);
    g_clear_pointer(&work.gaps, weir_gaps_free);
    work.hold = weir_hold_open(domain, true, error);
    if (!work.hold) {
        return false;
    }
    work.gaps = weir_gaps_load(settle->gaps_dir, work.hold->uuid,
                               work.hold->name);
    return settle_all(&work, error);
}

void weir_settle_end(const char *uuid, const char *name,
                     const WeirSettle *settle)
{
    WeirHold hold = { .name = (char *)name };
    const Work work = {
        .settle = settle, .hold = &hold,
        .gaps = weir_gaps_load(settle->gaps_dir, uuid, name),
    };
    g_autoptr(GPtrArray) open = weir_gaps_open_disks(work.gaps);

    for (guint i = 0; i < open->len; i++) {
        settle_end_gap(&work, g_ptr_array_index(open, i),
                       "the domain has ended");
    }
    settle_save_gaps(&work);
    weir_gaps_free(work.gaps);
}

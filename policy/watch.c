/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch.h"

#include <string.h>
#include <unistd.h>

#include "established.h"
#include "history.h"

void weir_watch_free(WeirWatch *watch)
{
    if (watch) {
        g_clear_pointer(&watch->hosts, g_ptr_array_unref);
        g_ptr_array_unref(watch->targets);
        g_ptr_array_unref(watch->statuses);
        g_array_unref(watch->firsts);
        g_array_unref(watch->traffics);
        g_free(watch);
    }
}

/* A domain's disk may have another policy by now. */
static void watch_compare(const WeirTarget *target, WeirDiskStatus *status)
{
    const WeirPledge pledge = {
        .now = weir_assigned_find(target->assigned, status->disk),
        .next = weir_assigned_find(target->next ? target->next
                                                : target->assigned,
                                   status->disk),
    };

    weir_established_compare(status, &pledge);
    if (target->uuid) {
        weir_established_add_gaps(status, target->uuid);
    }
}

static void watch_add_record(WeirWatch *watch, const WeirTarget *target,
                             gint64 now)
{
    g_autoptr(WeirHistory) history = weir_history_load(target->dir,
                                                       target->record, now);
    guint first = watch->statuses->len;

    if (target->apart) {
        weir_history_apart(history);
    }
    weir_compliance_record(target->record, target->graph, target->reason,
                           history, watch->statuses);
    for (guint i = first; target->assigned && i < watch->statuses->len; i++) {
        watch_compare(target, g_ptr_array_index(watch->statuses, i));
    }
    for (guint i = first; i < watch->statuses->len; i++) {
        weir_history_note(history, g_ptr_array_index(watch->statuses, i));
    }
    weir_history_save(history);
}

static void watch_add_assigned(WeirWatch *watch, const WeirTarget *target)
{
    const GPtrArray *assigned = target->assigned;

    for (guint i = 0; assigned && i < assigned->len; i++) {
        const WeirAssigned *disk = g_ptr_array_index(assigned, i);

        weir_compliance_unknown(target->name, disk->target, disk->policy,
                                target->reason, watch->statuses);
    }
    if (!assigned) {
        weir_compliance_unknown(target->name, NULL, NULL, target->reason,
                                watch->statuses);
    }
}

static void watch_add_target(WeirWatch *watch, const WeirTarget *target,
                             gint64 now)
{
    guint first = watch->statuses->len;

    g_array_append_val(watch->firsts, first);
    if (target->record) {
        watch_add_record(watch, target, now);
    } else if (target->graph) {
        weir_compliance_graph(target->name, target->graph, watch->statuses);
    } else {
        watch_add_assigned(watch, target);
    }
    for (guint i = first; i < watch->statuses->len; i++) {
        WeirDiskStatus *status = g_ptr_array_index(watch->statuses, i);
        WeirTraffic traffic = weir_traffic_read(status, target->blockstats);

        status->host = g_strdup(target->host);
        g_array_append_val(watch->traffics, traffic);
    }
}

static void watch_add_host(WeirWatch *watch, const WeirHostSeen *seen)
{
    WeirTraffic traffic = { 0 };
    WeirDiskStatus *status;

    weir_compliance_unknown(NULL, NULL, NULL, seen->reason,
                            watch->statuses);
    status = g_ptr_array_index(watch->statuses, watch->statuses->len - 1);
    status->host = watch->many ? g_strdup(seen->name) : NULL;
    g_array_append_val(watch->traffics, traffic);
}

static bool watch_has_target(const WeirWatch *watch, const WeirHostSeen *seen,
                             const char *name)
{
    for (guint i = 0; i < watch->targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(watch->targets, i);

        if (strcmp(target->name, name) == 0 &&
            (!watch->many || strcmp(target->host, seen->name) == 0)) {
            return true;
        }
    }
    return false;
}

/* What was seen of domains that have ended or gone to another host. */
static void watch_forget(const WeirWatch *watch, const WeirHostSeen *seen)
{
    g_autoptr(GDir) stream = g_dir_open(seen->dir, 0, NULL);
    const char *base;

    while (stream && (base = g_dir_read_name(stream))) {
        g_autofree char *name = g_strdup(base);
        g_autofree char *path = g_build_filename(seen->dir, base, NULL);

        if (g_str_has_suffix(name, ".status")) {
            name[strlen(name) - strlen(".status")] = '\0';
            if (!watch_has_target(watch, seen, name)) {
                unlink(path);
            }
        }
    }
}

WeirWatch *weir_watch_new(GPtrArray *targets, GPtrArray *hosts, bool many)
{
    WeirWatch *watch = g_new0(WeirWatch, 1);

    watch->hosts = hosts;
    watch->targets = targets;
    watch->statuses = weir_disk_statuses_new();
    watch->firsts = g_array_new(FALSE, FALSE, sizeof(guint));
    watch->traffics = g_array_new(FALSE, TRUE, sizeof(WeirTraffic));
    watch->many = many;
    return watch;
}

void weir_watch_see(WeirWatch *watch, bool all)
{
    gint64 now = g_get_real_time() / G_USEC_PER_SEC;

    for (guint i = 0; i < watch->targets->len; i++) {
        watch_add_target(watch, g_ptr_array_index(watch->targets, i), now);
    }
    for (guint i = 0; watch->hosts && i < watch->hosts->len; i++) {
        const WeirHostSeen *seen = g_ptr_array_index(watch->hosts, i);

        if (seen->reason) {
            watch_add_host(watch, seen);
        } else if (all) {
            watch_forget(watch, seen);
        }
    }
}

GPtrArray *weir_watch_statuses(const WeirWatch *watch, guint target)
{
    GPtrArray *statuses = g_ptr_array_new();
    const WeirTarget *of = g_ptr_array_index(watch->targets, target);
    guint first = g_array_index(watch->firsts, guint, target);

    for (guint i = 0; of->record && i < of->record->disks->len; i++) {
        g_ptr_array_add(statuses, g_ptr_array_index(watch->statuses,
                                                    first + i));
    }
    return statuses;
}

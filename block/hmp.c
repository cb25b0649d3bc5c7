/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "info weir": query-weir for people. */
#include "qemu/osdep.h"
#include "block/block-hmp-cmds.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "qemu/cutils.h"

/* Upper bound of the latency of @permille of the requests, in us. */
static double latency_us(const WeirOperationStatistics *stat, int permille)
{
    uint64_t rank = stat->requests * permille / 1000, seen = 0;
    int i = 0;

    for (uint64List *e = stat->latency_histogram; e; e = e->next) {
        seen += e->value;
        i++;
        if (seen > rank) {
            break;
        }
    }
    return i ? (1ull << i) / 1e3 : 0;
}

static void print_operation(Monitor *mon, const WeirOperationStatistics *stat)
{
    g_autofree char *bytes = size_to_str(stat->bytes);

    if (!stat->requests && !stat->in_flight) {
        return;
    }
    monitor_printf(mon, "    %-13s %10" PRIu64 " requests, %s, %" PRIu64
                   " failed, %" PRIu64 " in flight, half within %.0f us, "
                   "99%% within %.0f us\n",
                   WeirOperation_str(stat->operation), stat->requests, bytes,
                   stat->failed, stat->in_flight, latency_us(stat, 500),
                   latency_us(stat, 990));
}

static void print_inspect(Monitor *mon, const WeirInspectInfo *info)
{
    if (info->working_set) {
        g_autofree char *unique = size_to_str(info->working_set->unique_bytes);

        monitor_printf(mon, "    working set   %s\n", unique);
    }
    if (info->entropy) {
        monitor_printf(mon, "    entropy       %.2f bits per byte written, "
                       "%.0f%% of %" PRIu64 " overwrites suspicious%s\n",
                       info->entropy->mean_bits, info->entropy->share * 100,
                       info->entropy->overwrites,
                       info->entropy->alert ? ", ALERT" : "");
    }
}

static void print_ratio(Monitor *mon, const char *what, bool has, double ratio)
{
    if (has) {
        monitor_printf(mon, ", %.1f%% %s", ratio * 100, what);
    }
}

static void print_cache(Monitor *mon, const WeirCacheNodeInfo *info)
{
    g_autofree char *size = size_to_str(info->size);
    g_autofree char *used = size_to_str(info->used);
    g_autofree char *dirty = size_to_str(info->dirty);

    monitor_printf(mon, "    cache         %s, %s%s, %s of %s used, %s dirty"
                   "%s\n", info->cache,
                   WeirCacheWriteMode_str(info->mode),
                   info->read_only ? " (read-only node)" : "", used, size,
                   dirty, info->draining ? ", draining" : "");
    monitor_printf(mon, "    hits          %" PRIu64 " of %" PRIu64
                   " blocks read, %" PRIu64 " of %" PRIu64 " written",
                   info->read_hits, info->read_hits + info->read_misses,
                   info->write_hits, info->write_hits + info->write_misses);
    print_ratio(mon, "in the last minute", info->has_hit_ratio_minute,
                info->hit_ratio_minute);
    print_ratio(mon, "in the last hour", info->has_hit_ratio_hour,
                info->hit_ratio_hour);
    monitor_printf(mon, "\n    write-back    %" PRIu64 " blocks in %" PRIu64
                   " requests, oldest dirty block %" PRIu64 " ms\n",
                   info->written_back, info->write_back_requests,
                   info->write_back_lag);
    monitor_printf(mon, "    journal       %" PRIu64 " of %" PRIu64
                   " blocks used\n", info->journal_used, info->journal_size);
}

static void print_replication(Monitor *mon, const WeirReplicationInfo *info)
{
    g_autofree char *queued = size_to_str(info->queued_bytes);
    g_autofree char *sent = size_to_str(info->sent_bytes);
    g_autofree char *rate = size_to_str(info->rate);

    monitor_printf(mon, "    replication   of %s to %s, %s, %s\n",
                   info->disk_id, info->log,
                   WeirReplicationMode_str(info->mode),
                   WeirReplicationStatus_str(info->status));
    monitor_printf(mon, "    log           epoch %" PRIu64 " of generation %"
                   PRIu64 ", %s sent, %s/s, %" PRIu64 " connections\n",
                   info->epoch, info->generation, sent, rate,
                   info->connections);
    monitor_printf(mon, "    behind        %" PRIu64 " ms, %s\n", info->rpo,
                   queued);
    if (info->plain_bytes != info->sent_bytes) {
        g_autofree char *plain = size_to_str(info->plain_bytes);

        monitor_printf(mon, "    compressed    %s to %s\n", plain, sent);
    }
    if (info->resync_bytes) {
        g_autofree char *left = size_to_str(info->resync_bytes);
        g_autofree char *total = size_to_str(info->resync_total);

        monitor_printf(mon, "    to copy       %s of %s\n", left, total);
    }
}

static void print_journal(Monitor *mon, const WeirJournalInfo *info)
{
    g_autofree char *size = size_to_str(info->size);
    g_autofree char *used = size_to_str(info->used_bytes);

    monitor_printf(mon, "    log           %s of %s used, generation %" PRIu64
                   ", %" PRIu64 " points in time, %" PRIu32 " open, %" PRIu64
                   " requests refused\n", used, size, info->generation,
                   info->points, info->views, info->refused);
    monitor_printf(mon, "    epochs        %" PRIu64 " durable, %" PRIu64
                   " applied, %" PRIu64 " the last point in time\n",
                   info->durable_epoch, info->applied_epoch,
                   info->point_epoch);
    for (WeirJournalDiskInfoList *e = info->disks; e; e = e->next) {
        g_autofree char *bytes = size_to_str(e->value->size);

        monitor_printf(mon, "    disk          %s, %s, %s\n",
                       e->value->disk_id, bytes,
                       e->value->base ?: "not applied");
    }
}

static void print_replica(Monitor *mon, const WeirReplicaInfo *info)
{
    g_autoptr(GDateTime) at = g_date_time_new_from_unix_utc(info->time / 1000);
    g_autofree char *time = at ? g_date_time_format(at, "%Y-%m-%d %H:%M:%S")
                               : NULL;

    monitor_printf(mon, "    replica       of %s in %s, epoch %" PRIu64
                   ", %s.%03d UTC\n", info->disk_id, info->journal,
                   info->epoch, time ?: "?", (int)(info->time % 1000));
}

static void print_driver(Monitor *mon, const WeirFilterInfo *info)
{
    switch (info->driver) {
    case WEIR_DRIVER_WEIR_INSPECT:
        print_inspect(mon, &info->u.weir_inspect);
        break;
    case WEIR_DRIVER_WEIR_CACHE:
        print_cache(mon, &info->u.weir_cache);
        break;
    case WEIR_DRIVER_WEIR_REPLICATION:
        print_replication(mon, &info->u.weir_replication);
        break;
    case WEIR_DRIVER_WEIR_JOURNAL:
        print_journal(mon, &info->u.weir_journal);
        break;
    case WEIR_DRIVER_WEIR_REPLICA:
        print_replica(mon, &info->u.weir_replica);
        break;
    default:
        break;
    }
}

static void print_filter(Monitor *mon, const WeirFilterInfo *info)
{
    g_autoptr(GDateTime) since = g_date_time_new_from_unix_utc(info->since);
    g_autofree char *time = g_date_time_format(since, "%Y-%m-%d %H:%M:%S UTC");

    monitor_printf(mon, "%s: %s above %s, place %s\n", info->node_name,
                   WeirDriver_str(info->driver), info->child,
                   WeirPlace_str(info->place));
    for (strList *e = info->parents; e; e = e->next) {
        monitor_printf(mon, "    used by       %s\n", e->value);
    }
    monitor_printf(mon, "    state         %s since %s%s%s\n",
                   WeirState_str(info->state), time,
                   info->reason ? ": " : "", info->reason ?: "");
    for (WeirOperationStatisticsList *e = info->statistics; e; e = e->next) {
        print_operation(mon, e->value);
    }
    print_driver(mon, info);
}

void hmp_info_weir(Monitor *mon, const QDict *qdict)
{
    g_autoptr(WeirFilterInfoList) list = qmp_query_weir(NULL, &error_abort);

    for (WeirFilterInfoList *e = list; e; e = e->next) {
        print_filter(mon, e->value);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir status */
#include <stdio.h>

#include "gaps.h"
#include "outdated.h"
#include "table.h"
#include "watch-options.h"
#include "watch.h"

/* "raw > weir-inspect > file" */
static char *status_chain(JsonArray *nodes)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < weir_json_length(nodes); i++) {
        const char *driver = weir_json_string(weir_json_object_at(nodes, i),
                                              "driver");

        g_string_append_printf(text, "%s%s", i ? " > " : "",
                               driver ? driver : "?");
    }
    if (text->len == 0) {
        g_string_append_c(text, '-');
    }
    return g_string_free(text, FALSE);
}

/* "2026-11-25T12:00:00Z", or NULL if it is not known. */
static char *status_time(gint64 time_s)
{
    g_autoptr(GDateTime) time = time_s > 0
        ? g_date_time_new_from_unix_utc(time_s) : NULL;

    return time ? g_date_time_format(time, "%FT%TZ") : NULL;
}

/* Why it is not compliant, and when it was without its policy. */
static char *status_reason(const WeirDiskStatus *status)
{
    g_autofree char *gap = weir_gaps_note(status->gaps);
    const char *reason = status->reason ? status->reason : status->note;

    return g_strconcat(reason ? reason : "", reason && gap ? "; " : "", gap,
                       NULL);
}

static void status_print_disks(const GPtrArray *statuses)
{
    g_autoptr(WeirTable) table = weir_table_new(8);

    weir_table_row(table, "VM", "DISK", "POLICY", "WANTED", "ACTUAL", "STATE",
                   "SINCE", "REASON");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        g_autofree char *wanted = status_chain(status->wanted);
        g_autofree char *actual = status_chain(status->actual);
        g_autofree char *since = status_time(status->since);
        g_autofree char *reason = status_reason(status);

        weir_table_row(table, status->vm, status->disk, status->policy, wanted,
                       actual, weir_compliance_name(status->state), since,
                       reason);
    }
    weir_table_print(table);
}

static void status_print_filters(const GPtrArray *statuses)
{
    g_autoptr(WeirTable) table = weir_table_new(7);

    weir_table_row(table, "VM", "DISK", "FILTER", "STATE", "SINCE", "FACTS",
                   "REASON");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        for (guint j = 0; j < status->filters->len; j++) {
            const WeirFilterStatus *filter = g_ptr_array_index(
                status->filters, j);
            WeirFacts facts = weir_facts_read(filter->filter);
            g_autofree char *text = weir_facts_text(&facts);
            g_autofree char *since = status_time(filter->since);

            weir_table_row(table, status->vm, status->disk, filter->driver,
                           weir_compliance_name(filter->state), since,
                           *text ? text : NULL,
                           filter->reason ? filter->reason : "");
        }
    }
    weir_table_print(table);
}

static void status_print_json(const GPtrArray *statuses)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < statuses->len; i++) {
        json_array_add_object_element(
            array, weir_disk_status_json(g_ptr_array_index(statuses, i)));
    }
    weir_print_json(array);
}

/* Whether a policy has been applied that may be another one now. */
static bool status_has_policies(const GPtrArray *statuses)
{
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        if (status->policy && status->state == WEIR_COMPLIANT) {
            return true;
        }
    }
    return false;
}

/* Find the disks that are not under what their policies say now. */
static void status_check_policies(const WeirPolicyOptions *options,
                                  WeirWatch *watch)
{
    const char *bin_dir = options->bin_dir;
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(GError) error = NULL;

    for (guint i = 0; !bin_dir && i < watch->targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(watch->targets, i);

        bin_dir = target->record ? target->record->bin_dir : NULL;
    }
    if (!status_has_policies(watch->statuses)) {
        return;
    }
    daemon = weir_daemon_start(bin_dir, &error);
    for (guint i = 0; i < watch->targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(watch->targets, i);

        if (target->record && daemon) {
            weir_outdated_check(target->record, options->dirs,
                                weir_daemon_schema(daemon), watch->statuses);
        } else if (target->record) {
            weir_outdated_unknown(target->record, error->message,
                                  watch->statuses);
        }
    }
}

int weir_status_code(const GPtrArray *statuses)
{
    int ret = WEIR_EXIT_OK;

    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        if (status->state == WEIR_NON_COMPLIANT) {
            return WEIR_EXIT_NON_COMPLIANT;
        }
        if (status->state == WEIR_UNKNOWN) {
            ret = WEIR_EXIT_UNKNOWN;
        } else if (status->state == WEIR_OUT_OF_DATE &&
                   ret == WEIR_EXIT_OK) {
            ret = WEIR_EXIT_OUT_OF_DATE;
        }
    }
    return ret;
}

int weir_status_tell(const GPtrArray *statuses, bool json)
{
    if (json) {
        status_print_json(statuses);
    } else {
        status_print_disks(statuses);
    }
    return weir_status_code(statuses);
}

int weir_cmd_status(int argc, char **argv)
{
    g_auto(WeirWatchOptions) options = WEIR_WATCH_OPTIONS_INIT;
    g_auto(WeirPolicyOptions) policy = { 0 };
    gboolean filters = FALSE;
    gboolean json = FALSE;
    GOptionEntry entries[] = {
        { "filters", 0, 0, G_OPTION_ARG_NONE, &filters,
          "Show each filter and what it tells", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        WEIR_OPTION_POLICIES(&policy.dirs),
        WEIR_OPTION_BIN_DIR(&policy.bin_dir),
        WEIR_WATCH_OPTIONS_ENTRIES(&options),
        G_OPTION_ENTRY_NULL
    };
    g_auto(WeirTargetQuery) query = { 0 };
    g_autoptr(WeirWatch) watch = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "[VM]",
                    "Show for each disk its policy, the chain that it wants, "
                    "the chain that there is,\nand the state: compliant, "
                    "non-compliant, out-of-date (the policy has\nchanged since "
                    "it was applied), unknown (the VM cannot be asked, or a "
                    "filter does not\ntell) or not-applicable (no policy is "
                    "known).\n\n"
                    "Exit codes: 0 all disks are compliant or not-applicable, "
                    "1 error, 2 wrong usage,\n3 a disk is non-compliant, 4 "
                    "none is, but one is unknown, 5 none is either, but one\n"
                    "is out-of-date.") ||
        !weir_watch_options_query(&options, argc, argv, &query)) {
        return WEIR_EXIT_USAGE;
    }
    watch = weir_watch(&query, &error);
    if (!watch) {
        return weir_fail(error);
    }
    status_check_policies(&policy, watch);
    if (filters && !json) {
        status_print_filters(watch->statuses);
        return weir_status_code(watch->statuses);
    }
    return weir_status_tell(watch->statuses, json);
}

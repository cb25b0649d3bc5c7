/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir status */
#include <stdio.h>

#include "gaps.h"
#include "outdated.h"
#include "table.h"
#include "watch-options.h"

/* "raw > weir-inspect > file" */
static char *status_chain(JsonArray *nodes)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < weir_json_length(nodes); i++) {
        JsonObject *node = weir_json_object_at(nodes, i);
        const char *driver = weir_json_string(node, "driver");
        g_autofree char *kind = driver ? weir_kind_of(driver, node) : NULL;

        g_string_append_printf(text, "%s%s", i ? " > " : "",
                               kind ? kind : "?");
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

/* The first cell of a row, where there are several hosts. */
static void status_add_host(WeirTable *table, bool many, const char *host)
{
    if (many) {
        weir_table_cell(table, host);
    }
}

static void status_print_disks(const GPtrArray *statuses, bool many)
{
    g_autoptr(WeirTable) table = weir_table_new(many ? 9 : 8);

    status_add_host(table, many, "HOST");
    weir_table_cells(table, 8, "VM", "DISK", "POLICY", "WANTED", "ACTUAL",
                     "STATE", "SINCE", "REASON");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        g_autofree char *wanted = status_chain(status->wanted);
        g_autofree char *actual = status_chain(status->actual);
        g_autofree char *since = status_time(status->since);
        g_autofree char *reason = status_reason(status);

        status_add_host(table, many, status->host);
        weir_table_cells(table, 8, status->vm, status->disk, status->policy,
                         wanted, actual, weir_compliance_name(status->state),
                         since, reason);
    }
    weir_table_print(table);
}

static void status_print_filters(const GPtrArray *statuses, bool many)
{
    g_autoptr(WeirTable) table = weir_table_new(many ? 8 : 7);

    status_add_host(table, many, "HOST");
    weir_table_cells(table, 7, "VM", "DISK", "FILTER", "STATE", "SINCE",
                     "FACTS", "REASON");
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        for (guint j = 0; j < status->filters->len; j++) {
            const WeirFilterStatus *filter = g_ptr_array_index(
                status->filters, j);
            WeirFacts facts = weir_facts_read(filter->filter);
            g_autofree char *text = weir_facts_text(&facts);
            g_autofree char *since = status_time(filter->since);

            status_add_host(table, many, status->host);
            weir_table_cells(table, 7, status->vm, status->disk,
                             filter->kind,
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

/*
 * Whether what was applied can be compared with what policies say now: policies
 * of another machine are not here, unless the user says that these are.
 */
static bool status_can_compare(const WeirPolicyOptions *options,
                               const WeirTarget *target)
{
    return target->record && (!target->remote || options->dirs);
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

/* The programs that a VM of this machine was started with. */
static const char *status_bin_dir(const WeirPolicyOptions *options,
                                  const WeirWatch *watch)
{
    const char *bin_dir = options->bin_dir;

    for (guint i = 0; !bin_dir && i < watch->targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(watch->targets, i);

        bin_dir = target->record && !target->remote ? target->record->bin_dir
                                                    : NULL;
    }
    return bin_dir;
}

/* Find the disks that are not under what their policies say now. */
static void status_check_policies(const WeirPolicyOptions *options,
                                  WeirWatch *watch)
{
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(GError) error = NULL;

    for (guint i = 0; i < watch->targets->len; i++) {
        const WeirTarget *target = g_ptr_array_index(watch->targets, i);
        g_autoptr(GPtrArray) statuses = weir_watch_statuses(watch, i);

        if (!status_can_compare(options, target) ||
            !status_has_policies(statuses)) {
            continue;
        }
        if (!daemon && !error) {
            daemon = weir_daemon_start(status_bin_dir(options, watch), &error);
        }
        if (daemon) {
            weir_outdated_check(target->record, options->dirs,
                                weir_daemon_schema(daemon), statuses);
        } else {
            weir_outdated_unknown(target->record, error->message, statuses);
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

static void status_print(const WeirWatch *watch, bool filters, bool json)
{
    if (json) {
        status_print_json(watch->statuses);
    } else if (filters) {
        status_print_filters(watch->statuses, watch->many);
    } else {
        status_print_disks(watch->statuses, watch->many);
    }
}

static int status_run(int argc, char **argv, bool domains,
                      const char *parameters, const char *help)
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
    g_auto(WeirWatchQuery) query = { 0 };
    g_autoptr(WeirWatch) watch = NULL;
    GError *error = NULL;

    options.domains = domains;
    if (!weir_parse(&argc, &argv, entries, parameters, help) ||
        !weir_watch_options_query(&options, argc, argv, &query)) {
        return WEIR_EXIT_USAGE;
    }
    watch = weir_watch(&query, &error);
    if (!watch) {
        return weir_fail(error);
    }
    status_check_policies(&policy, watch);
    status_print(watch, filters, json);
    return weir_status_code(watch->statuses);
}

int weir_cmd_status(int argc, char **argv)
{
    return status_run(
        argc, argv, false, "[VM]",
        "Show for each disk its policy, the chain that it wants, the chain "
        "that there is,\nand the state: compliant, non-compliant, out-of-date "
        "(the policy has\nchanged since it was applied), unknown (the VM or "
        "host cannot be asked, or a filter\ndoes not tell) or not-applicable "
        "(no policy is known).\n\n"
        "Exit codes: 0 all disks are compliant or not-applicable, 1 error, 2 "
        "wrong usage,\n3 a disk is non-compliant, 4 none is, but one is "
        "unknown, 5 none is either, but one\nis out-of-date.");
}

int weir_cmd_libvirt_status(int argc, char **argv)
{
    return status_run(
        argc, argv, true, "[DOMAIN]",
        "Show what 'weir status' shows, for domains of libvirt only.\n\n"
        "Exit codes: as 'weir status'.");
}

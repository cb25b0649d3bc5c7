/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir watch */
#include <stdio.h>

#include "launch.h"
#include "livedomain.h"
#include "watcher.h"
#include "weir.h"

#define WATCH_INTERVAL_S_MIN 1
#define WATCH_INTERVAL_S_MAX 3600
#define WATCH_INTERVAL_S 5

/* Several threads tell: a line is written at once. */
static void watch_tell(const char *line)
{
    g_autofree char *text = weir_printable(line);

    fprintf(stderr, "weir: %s\n", text);
}

/* As weir status; what cannot be asked is told. */
static int watch_once(const char *uri, const WeirSettle *settle)
{
    g_autoptr(GPtrArray) statuses = weir_disk_statuses_new();
    g_autoptr(virConnect) connection = NULL;
    g_autoptr(GPtrArray) domains = NULL;
    GError *error = NULL;
    bool unknown = false;
    int code;

    if (!(connection = weir_hypervisor_open(uri, &error)) ||
        !(domains = weir_hypervisor_domains(connection, NULL, &error))) {
        return weir_fail(error);
    }
    for (guint i = 0; i < domains->len; i++) {
        virDomainPtr domain = g_ptr_array_index(domains, i);
        WeirSettled settled;

        if (!weir_settle(domain, settle, &settled, &error) ||
            (settled.is_ours &&
             !weir_live_domain_statuses(domain, statuses, &error))) {
            weir_fail(g_steal_pointer(&error));
            unknown = true;
        }
    }
    code = weir_status_code(statuses);
    return code == WEIR_EXIT_OK && unknown ? WEIR_EXIT_UNKNOWN : code;
}

int weir_cmd_watch(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) policy = { 0 };
    g_autofree char *uri = NULL;
    gboolean once = FALSE;
    int interval_s = WATCH_INTERVAL_S;
    GOptionEntry entries[] = {
        { "connect", 'c', 0, G_OPTION_ARG_STRING, &uri,
          "libvirt's URI (default: as for virsh)", "URI" },
        { "interval", 0, 0, G_OPTION_ARG_INT, &interval_s,
          "Time between two looks at all domains (default: 5)", "SECONDS" },
        { "once", 0, 0, G_OPTION_ARG_NONE, &once,
          "Look at all domains once and end", NULL },
        WEIR_OPTION_POLICIES(&policy.dirs),
        WEIR_OPTION_BIN_DIR(&policy.bin_dir),
        G_OPTION_ENTRY_NULL
    };
    WeirWatcher watcher;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "",
                    "Bring disks of libvirt's domains under their policies "
                    "again whenever libvirt has\ntaken filters away, as with a "
                    "snapshot, a copy or a disk that is plugged in; and\ntell "
                    "of the time in between.  Runs until a signal comes.\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage; with --once "
                    "as 'weir status'.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("watch: found '%s', expected no argument", argv[1]);
    }
    if (interval_s < WATCH_INTERVAL_S_MIN ||
        interval_s > WATCH_INTERVAL_S_MAX) {
        return weir_usage("watch: found interval %d, expected %d to %d seconds",
                          interval_s, WATCH_INTERVAL_S_MIN,
                          WATCH_INTERVAL_S_MAX);
    }
    watcher = (WeirWatcher) {
        .uri = uri, .interval_ms = interval_s * 1000,
        .settle = {
            .bin_dir = policy.bin_dir, .dirs = policy.dirs,
            .gaps_dir = WEIR_GAPS_DIR, .tell = watch_tell,
        },
    };
    weir_launch_hold_signals();
    if (once) {
        return watch_once(uri, &watcher.settle);
    }
    return weir_watcher_run(&watcher, &error) ? WEIR_EXIT_OK
                                              : weir_fail(error);
}

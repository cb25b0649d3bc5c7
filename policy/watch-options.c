/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watch-options.h"

#include <string.h>
#include <unistd.h>

#include "domainrecord.h"
#include "hypervisor.h"

#define WATCH_TIMEOUT_S_MIN 0.01
#define WATCH_TIMEOUT_S_MAX 3600

void weir_watch_options_clear(WeirWatchOptions *options)
{
    g_free(options->qmp);
    g_free(options->runtime_dir);
    g_strfreev(options->uris);
}

/*
 * Whether libvirt is to be asked though no URI is given: if it is another
 * machine by default, or if domains have been started under policies on this
 * one; without a default in the environment by root only, as others have
 * another one.
 */
static bool watch_wants_fleet(const WeirWatchOptions *options, const char *uri)
{
    g_autofree char *host = weir_hypervisor_host(*uri ? uri : NULL);

    return options->uris || options->domains ||
           strcmp(host, WEIR_LOCALHOST) != 0 ||
           ((*uri || geteuid() == 0) && weir_domain_records_here());
}

static WeirFleet *watch_fleet(const WeirWatchOptions *options,
                              const char *runtime_dir)
{
    g_auto(GStrv) uris = weir_hypervisor_uris(options->uris);

    return !options->qmp && watch_wants_fleet(options, uris[0])
               ? weir_fleet_new(uris, runtime_dir) : NULL;
}

bool weir_watch_options_query(const WeirWatchOptions *options, int argc,
                              char **argv, WeirWatchQuery *query)
{
    const char *command = strrchr(argv[0], ' ');

    command = command ? command + 1 : argv[0];
    if (options->uris && options->qmp) {
        weir_usage("%s: found --connect and --qmp, expected one of them",
                   command);
        return false;
    }
    if (argc > 2 || (argc == 2 && options->qmp)) {
        weir_usage("%s: found '%s', expected one VM or --qmp", command,
                   argv[argc - 1]);
        return false;
    }
    if (!(options->timeout_s >= WATCH_TIMEOUT_S_MIN &&
          options->timeout_s <= WATCH_TIMEOUT_S_MAX)) {
        weir_usage("%s: found timeout %g, expected %g to %d seconds", command,
                   options->timeout_s, WATCH_TIMEOUT_S_MIN,
                   WATCH_TIMEOUT_S_MAX);
        return false;
    }
    query->target = (WeirTargetQuery) {
        .dir = weir_runtime_dir(options->runtime_dir),
        .vm = g_strdup(argc == 2 ? argv[1] : NULL),
        .qmp = g_strdup(options->qmp),
        .timeout_ms = (int)(options->timeout_s * 1000),
    };
    query->vms = !options->uris && !options->domains;
    query->fleet = watch_fleet(options, query->target.dir);
    return true;
}

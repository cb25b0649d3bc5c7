/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takes the process down in the middle of a write, in its own way: when there
 * is a file of the name in the option "when", which it removes before.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <weir-plugin.h>

typedef struct Crash {
    char *when;                 /* set at open */
} Crash;

static int crash_open(WeirPluginDisk *disk, void **handle)
{
    Crash *crash = calloc(1, sizeof(*crash));

    if (crash) {
        crash->when = strdup(weir_plugin_get_string(weir_plugin_values(disk),
                                                    "when"));
    }
    *handle = crash;
    return crash ? 0 : -ENOMEM;
}

static void crash_close(void *handle, WeirPluginIo *io)
{
    Crash *crash = handle;

    (void)io;
    free(crash->when);
    free(crash);
}

static int crash_write(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    Crash *crash = handle;

    (void)io;
    (void)request;
    if (unlink(crash->when) == 0) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    return WEIR_PLUGIN_PASS;
}

static const WeirPluginOption crash_options[] = {
    {
        .name = "when",
        .help = "a file: it crashes at the next write when there is one",
        .type = WEIR_PLUGIN_STRING,
        .flags = WEIR_PLUGIN_MANDATORY,
    },
};

static const WeirPlugin crash = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = 1,
    .options = crash_options,
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "crashes at a write",
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = crash_open,
    .close = crash_close,
    .write = crash_write,
};

WEIR_PLUGIN_REGISTER(crash);

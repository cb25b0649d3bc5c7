/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts what a host does against the rules: requests before "prepare" and
 * "activate" have ended, which take long here, or while somebody else has the
 * disk, and requests without data.  Also counts other calls, and tasks that are
 * begun when it refuses to let the disk go, as the option "refuse" wants.
 */
#include <pthread.h>
#include <stdlib.h>
#include <weir-plugin.h>

#define LONG_NS 300000000

enum { EARLY, EMPTY, RESIZE, RESIZED, ACTIVATE, TASKS, COUNTERS };

static const char *const counters[COUNTERS] = {
    "early", "empty", "resize", "resized", "activate", "tasks"
};

typedef struct Strict {
    WeirPluginDisk *disk;
    pthread_mutex_t lock;       /* for all that follows */
    int is_ready;
    uint64_t counts[COUNTERS];
} Strict;

static void count(Strict *strict, unsigned counter)
{
    pthread_mutex_lock(&strict->lock);
    strict->counts[counter]++;
    pthread_mutex_unlock(&strict->lock);
}

static void set_ready(Strict *strict, int is_ready)
{
    pthread_mutex_lock(&strict->lock);
    strict->is_ready = is_ready;
    pthread_mutex_unlock(&strict->lock);
}

static int strict_open(WeirPluginDisk *disk, void **handle)
{
    Strict *strict = calloc(1, sizeof(*strict));

    if (!strict) {
        return -ENOMEM;
    }
    strict->disk = disk;
    pthread_mutex_init(&strict->lock, NULL);
    *handle = strict;
    return 0;
}

static void strict_close(void *handle, WeirPluginIo *io)
{
    Strict *strict = handle;

    (void)io;
    pthread_mutex_destroy(&strict->lock);
    free(strict);
}

static int strict_prepare(void *handle, WeirPluginIo *io)
{
    char sector[512];
    int ret = weir_plugin_read(io, WEIR_PLUGIN_NEXT, 0, sizeof(sector),
                               sector);

    weir_plugin_sleep(io, LONG_NS);
    set_ready(handle, ret == 0);
    return ret;
}

static void task(void *arg, WeirPluginIo *io)
{
    char sector[512];

    if (weir_plugin_read(io, WEIR_PLUGIN_NEXT, 0, sizeof(sector),
                         sector) == 0) {
        count(arg, TASKS);
    }
}

static int strict_inactivate(void *handle, WeirPluginIo *io)
{
    Strict *strict = handle;

    (void)io;
    if (weir_plugin_get_int(weir_plugin_values(strict->disk), "refuse")) {
        weir_plugin_spawn(strict->disk, task, strict);
        return -EBUSY;
    }
    set_ready(strict, 0);
    return 0;
}

static int strict_activate(void *handle, WeirPluginIo *io)
{
    count(handle, ACTIVATE);
    return strict_prepare(handle, io);
}

static int strict_request(void *handle, WeirPluginIo *io,
                          WeirPluginRequest *request)
{
    Strict *strict = handle;

    (void)io;
    pthread_mutex_lock(&strict->lock);
    strict->counts[EARLY] += !strict->is_ready;
    strict->counts[EMPTY] += request->kind != WEIR_PLUGIN_FLUSH &&
                             request->bytes == 0;
    pthread_mutex_unlock(&strict->lock);
    return WEIR_PLUGIN_PASS;
}

static int strict_resize(void *handle, WeirPluginIo *io, uint64_t bytes)
{
    (void)io;
    (void)bytes;
    count(handle, RESIZE);
    return 0;
}

static void strict_resized(void *handle, WeirPluginIo *io, uint64_t bytes)
{
    uint64_t length;

    if (weir_plugin_length(io, WEIR_PLUGIN_NEXT, &length) == 0 &&
        length == bytes) {
        count(handle, RESIZED);
    }
}

static void strict_statistics(void *handle, WeirPluginGauges *gauges)
{
    Strict *strict = handle;
    unsigned i;

    pthread_mutex_lock(&strict->lock);
    for (i = 0; i < COUNTERS; i++) {
        weir_plugin_gauge(strict->disk, gauges, counters[i], "",
                          strict->counts[i], 1);
    }
    pthread_mutex_unlock(&strict->lock);
}

static const WeirPluginOption strict_options[] = {
    {
        .name = "refuse",
        .help = "to let somebody else have the disk",
        .type = WEIR_PLUGIN_BOOL,
    },
};

static const WeirPlugin strict = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = 1,
    .options = strict_options,
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "counts what is against the rules",
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = strict_open,
    .prepare = strict_prepare,
    .close = strict_close,
    .read = strict_request,
    .write = strict_request,
    .zero = strict_request,
    .discard = strict_request,
    .flush = strict_request,
    .resize = strict_resize,
    .resized = strict_resized,
    .inactivate = strict_inactivate,
    .activate = strict_activate,
    .statistics = strict_statistics,
};

WEIR_PLUGIN_REGISTER(strict);

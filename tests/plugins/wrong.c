/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls the host in a wrong way at each write, as the option "how" says, and
 * tells what came of it; then the write is passed on.
 */
#include <pthread.h>
#include <stdlib.h>
#include <weir-plugin.h>

#define ALIGNMENT 65536
#define MANY 1025

typedef struct Wrong {
    WeirPluginDisk *disk;
    char *how;                  /* set at open */
    pthread_mutex_t lock;       /* for what follows */
    uint64_t error;             /* that came of the latest, or 0 */
    uint64_t discards, unaligned;
} Wrong;

static int wrong_open(WeirPluginDisk *disk, void **handle)
{
    Wrong *wrong = calloc(1, sizeof(*wrong));

    if (!wrong) {
        return -ENOMEM;
    }
    wrong->disk = disk;
    wrong->how = strdup(weir_plugin_get_string(weir_plugin_values(disk),
                                               "how"));
    pthread_mutex_init(&wrong->lock, NULL);
    *handle = wrong;
    return 0;
}

static void wrong_close(void *handle, WeirPluginIo *io)
{
    Wrong *wrong = handle;

    (void)io;
    pthread_mutex_destroy(&wrong->lock);
    free(wrong->how);
    free(wrong);
}

/* In a thread of the pool, where no io may be used. */
static int in_thread(void *arg)
{
    return weir_plugin_flush(arg, WEIR_PLUGIN_NEXT);
}

static int too_many(WeirPluginIo *io, WeirPluginRequest *request)
{
    struct iovec iov[MANY] = { { NULL, 0 } };

    (void)request;
    return io->host->writev(io, WEIR_PLUGIN_NEXT, 0, iov, MANY, 0);
}

/* Lengths with a sum of 512, if nobody looks. */
static int too_long(WeirPluginIo *io, WeirPluginRequest *request)
{
    struct iovec iov[2];

    iov[0].iov_base = iov[1].iov_base = request->iov->iov_base;
    iov[0].iov_len = SIZE_MAX - 511;
    iov[1].iov_len = 1024;
    return io->host->readv(io, WEIR_PLUGIN_NEXT, 0, iov, 2);
}

static int be_wrong(const char *how, WeirPluginIo *io,
                    WeirPluginRequest *request)
{
    if (!strcmp(how, "thread")) {
        return weir_plugin_run(io, in_thread, io);
    }
    if (!strcmp(how, "null")) {
        return weir_plugin_write(io, WEIR_PLUGIN_NEXT, 0, 512, NULL, 0);
    }
    if (!strcmp(how, "many")) {
        return too_many(io, request);
    }
    if (!strcmp(how, "long")) {
        return too_long(io, request);
    }
    if (!strcmp(how, "scribble")) {
        request->offset = (uint64_t)1 << 50;
        request->bytes *= 2;
        request->iov_count = 77;
        request->kind = WEIR_PLUGIN_DISCARD;
    }
    return 0;
}

static int wrong_write(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    Wrong *wrong = handle;
    int ret = be_wrong(wrong->how, io, request);

    pthread_mutex_lock(&wrong->lock);
    wrong->error = (uint64_t)-ret;
    pthread_mutex_unlock(&wrong->lock);
    return WEIR_PLUGIN_PASS;
}

/* Right, if the host is. */
static int wrong_discard(void *handle, WeirPluginIo *io,
                         WeirPluginRequest *request)
{
    Wrong *wrong = handle;

    (void)io;
    pthread_mutex_lock(&wrong->lock);
    wrong->discards++;
    wrong->unaligned += (request->offset | request->bytes) % ALIGNMENT != 0;
    pthread_mutex_unlock(&wrong->lock);
    return WEIR_PLUGIN_PASS;
}

static int wrong_status(void *handle, WeirPluginIo *io, uint64_t offset,
                        uint64_t bytes, WeirPluginStatus *status)
{
    Wrong *wrong = handle;

    (void)io;
    (void)offset;
    (void)bytes;
    if (strcmp(wrong->how, "status")) {
        return WEIR_PLUGIN_PASS;
    }
    status->bytes = ALIGNMENT + 100;
    status->flags = WEIR_PLUGIN_STATUS_ZERO;
    return WEIR_PLUGIN_DONE;
}

static void wrong_statistics(void *handle, WeirPluginGauges *gauges)
{
    Wrong *wrong = handle;

    pthread_mutex_lock(&wrong->lock);
    weir_plugin_gauge(wrong->disk, gauges, "error", "", wrong->error, 0);
    weir_plugin_gauge(wrong->disk, gauges, "discards", "", wrong->discards, 1);
    weir_plugin_gauge(wrong->disk, gauges, "unaligned", "", wrong->unaligned,
                      1);
    pthread_mutex_unlock(&wrong->lock);
}

static const WeirPluginOption wrong_options[] = {
    {
        .name = "how",
        .help = "what is wrong",
        .type = WEIR_PLUGIN_CHOICE,
        .default_value = "not",
        .choices = "not,thread,null,many,long,scribble,status",
    },
};

static const WeirPlugin wrong = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = 1,
    .options = wrong_options,
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "calls the host in a wrong way",
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .alignment = ALIGNMENT,
    .open = wrong_open,
    .close = wrong_close,
    .write = wrong_write,
    .discard = wrong_discard,
    .block_status = wrong_status,
    .statistics = wrong_statistics,
};

WEIR_PLUGIN_REGISTER(wrong);

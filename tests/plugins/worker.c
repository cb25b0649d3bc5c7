/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Works in the background: a task that goes on for long reads the disk and
 * counts in the sidecar, under a lock that others take as well.
 */
#include <stdlib.h>
#include <weir-plugin.h>

#define BLOCK 4096

typedef struct Worker {
    WeirPluginDisk *disk;
    WeirPluginLock *lock;
    uint64_t rounds, failed;    /* @lock, and for figures */
} Worker;

static void work(void *arg, WeirPluginIo *io)
{
    Worker *worker = arg;
    char *buffer = weir_plugin_buffer_take(worker->disk, BLOCK);

    while (buffer && weir_plugin_sleep(io, 1000000) == 0) {
        weir_plugin_lock(io, worker->lock);
        if (weir_plugin_read(io, WEIR_PLUGIN_NEXT, 0, BLOCK, buffer) < 0 ||
            weir_plugin_write(io, WEIR_PLUGIN_SIDECAR, 0, 8,
                              &worker->rounds, WEIR_PLUGIN_FUA) < 0) {
            worker->failed++;
        }
        worker->rounds++;
        weir_plugin_unlock(io, worker->lock);
    }
    weir_plugin_buffer_give(worker->disk, buffer);
}

static int worker_open(WeirPluginDisk *disk, void **handle)
{
    Worker *worker = calloc(1, sizeof(*worker));

    if (worker) {
        worker->disk = disk;
        worker->lock = weir_plugin_lock_new(disk);
    }
    *handle = worker;
    return worker ? 0 : -ENOMEM;
}

static int worker_prepare(void *handle, WeirPluginIo *io)
{
    Worker *worker = handle;
    uint64_t bytes;
    int ret = weir_plugin_length(io, WEIR_PLUGIN_SIDECAR, &bytes);

    if (ret == 0 && bytes < BLOCK) {
        ret = weir_plugin_resize(io, WEIR_PLUGIN_SIDECAR, BLOCK);
    }
    return ret < 0 ? ret : weir_plugin_spawn(worker->disk, work, worker);
}

static int worker_activate(void *handle, WeirPluginIo *io)
{
    return worker_prepare(handle, io);
}

static int worker_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    Worker *worker = handle;
    int ret;

    weir_plugin_lock(io, worker->lock);
    ret = weir_plugin_forward(io, request);
    weir_plugin_unlock(io, worker->lock);
    return ret;
}

/* These come in drained sections as well. */
static int worker_status(void *handle, WeirPluginIo *io, uint64_t offset,
                         uint64_t bytes, WeirPluginStatus *status)
{
    Worker *worker = handle;

    (void)offset;
    (void)bytes;
    (void)status;
    weir_plugin_lock(io, worker->lock);
    weir_plugin_unlock(io, worker->lock);
    return WEIR_PLUGIN_PASS;
}

static int worker_resize(void *handle, WeirPluginIo *io, uint64_t bytes)
{
    Worker *worker = handle;

    (void)bytes;
    weir_plugin_lock(io, worker->lock);
    weir_plugin_unlock(io, worker->lock);
    return 0;
}

static void worker_statistics(void *handle, WeirPluginGauges *gauges)
{
    Worker *worker = handle;

    weir_plugin_gauge(worker->disk, gauges, "rounds", "", worker->rounds, 1);
    weir_plugin_gauge(worker->disk, gauges, "failed", "", worker->failed, 1);
}

static void worker_close(void *handle, WeirPluginIo *io)
{
    Worker *worker = handle;

    weir_plugin_write(io, WEIR_PLUGIN_SIDECAR, 8, 8, "finished", 0);
    weir_plugin_lock_free(worker->disk, worker->lock);
    free(worker);
}

static const WeirPlugin worker = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "works in the background",
    .capabilities = WEIR_PLUGIN_NEEDS_SIDECAR,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = worker_open,
    .prepare = worker_prepare,
    .close = worker_close,
    .write = worker_write,
    .zero = worker_write,
    .discard = worker_write,
    .block_status = worker_status,
    .resize = worker_resize,
    .activate = worker_activate,
    .statistics = worker_statistics,
};

WEIR_PLUGIN_REGISTER(worker);

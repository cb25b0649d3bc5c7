/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds the last write, and keeps it when it is taken out.  With RIGHT, it does
 * not keep it: for a plugin that holds data and is right.  With SNAPSHOT, it
 * keeps it when there is a snapshot.
 */
#include "broken.h"

typedef struct Broken {
    char *data;                 /* NULL: none is held */
    uint64_t offset;
    uint64_t bytes;
} Broken;

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    (void)disk;
    *handle = calloc(1, sizeof(Broken));
    return *handle ? 0 : -ENOMEM;
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    Broken *b = handle;

    (void)io;
    free(b->data);
    free(b);
}

static int bring_down(Broken *b, WeirPluginIo *io)
{
    int ret = b->data ? weir_plugin_write(io, WEIR_PLUGIN_NEXT, b->offset,
                                          b->bytes, b->data, 0) : 0;

    if (ret == 0) {
        free(b->data);
        b->data = NULL;
    }
    return ret;
}

static int broken_read(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    int ret = bring_down(handle, io);

    (void)request;
    return ret < 0 ? ret : WEIR_PLUGIN_PASS;
}

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    Broken *b = handle;
    int ret = bring_down(b, io);

    if (ret < 0) {
        return ret;
    }
    b->data = malloc(request->bytes);
    if (!b->data) {
        return WEIR_PLUGIN_PASS;
    }
    b->offset = request->offset;
    b->bytes = request->bytes;
    weir_plugin_get_data(request, 0, b->data, request->bytes);
    return WEIR_PLUGIN_DONE;
}

#ifdef SNAPSHOT
static int broken_flush(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    (void)handle;
    (void)request;
    return weir_plugin_flush(io, WEIR_PLUGIN_NEXT);
}
#else
#define broken_flush broken_read
#endif

static int broken_snapshot_before(void *handle, WeirPluginIo *io,
                                  uint32_t what, const char *name)
{
    (void)what;
    (void)name;
#ifdef SNAPSHOT
    (void)handle;
    (void)io;
    return 0;
#else
    return bring_down(handle, io);
#endif
}

static int broken_inactivate(void *handle, WeirPluginIo *io)
{
    return bring_down(handle, io);
}

static int broken_detach(void *handle, WeirPluginIo *io, int force)
{
    (void)force;
#ifdef RIGHT
    return bring_down(handle, io);
#else
    (void)handle;
    (void)io;
    return 0;
#endif
}

BROKEN_PLUGIN(
    .capabilities = WEIR_PLUGIN_HOLDS_DATA,
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
    .open = broken_open,
    .close = broken_close,
    .read = broken_read,
    .write = broken_write,
    .flush = broken_flush,
    .snapshot_before = broken_snapshot_before,
    .inactivate = broken_inactivate,
    .detach = broken_detach,
);

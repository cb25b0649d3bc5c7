/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds data: the latest write is kept in memory until the next request.  Its
 * place and length are also noted in a sidecar, if there is one.
 */
#include <stdlib.h>
#include <weir-plugin.h>

typedef struct Late {
    WeirPluginDisk *disk;
    void *data;                 /* NULL: nothing is kept */
    uint64_t offset, bytes;
    int is_leaving;
} Late;

static int late_open(WeirPluginDisk *disk, void **handle)
{
    Late *late = calloc(1, sizeof(*late));

    if (late) {
        late->disk = disk;
    }
    *handle = late;
    return late ? 0 : -ENOMEM;
}

static int bring_down(Late *late, WeirPluginIo *io)
{
    int ret = late->data ? weir_plugin_write(io, WEIR_PLUGIN_NEXT,
                                             late->offset, late->bytes,
                                             late->data, 0) : 0;

    if (ret == 0) {
        weir_plugin_buffer_give(late->disk, late->data);
        late->data = NULL;
    }
    return ret;
}

static int late_write(void *handle, WeirPluginIo *io,
                      WeirPluginRequest *request)
{
    Late *late = handle;
    int ret = bring_down(late, io);

    if (ret < 0) {
        return ret;
    }
    late->data = late->is_leaving ? NULL :
                 weir_plugin_buffer_take(late->disk, request->bytes);
    if (!late->data) {
        return WEIR_PLUGIN_PASS;
    }
    weir_plugin_get_data(request, 0, late->data, request->bytes);
    late->offset = request->offset;
    late->bytes = request->bytes;
    return weir_plugin_has_sidecar(late->disk)
           ? weir_plugin_write(io, WEIR_PLUGIN_SIDECAR, 0, 8, &late->offset,
                               0) : WEIR_PLUGIN_DONE;
}

static int late_other(void *handle, WeirPluginIo *io,
                      WeirPluginRequest *request)
{
    int ret = bring_down(handle, io);

    (void)request;
    return ret < 0 ? ret : WEIR_PLUGIN_PASS;
}

static int late_detach(void *handle, WeirPluginIo *io, int force)
{
    Late *late = handle;

    (void)force;
    late->is_leaving = 1;
    return bring_down(late, io);
}

static int late_snapshot_before(void *handle, WeirPluginIo *io, uint32_t what,
                                const char *name)
{
    (void)what;
    return name ? -ENOTSUP : bring_down(handle, io);
}

static int late_inactivate(void *handle, WeirPluginIo *io)
{
    return bring_down(handle, io);
}

static void late_close(void *handle, WeirPluginIo *io)
{
    Late *late = handle;

    (void)io;
    weir_plugin_buffer_give(late->disk, late->data);
    free(late);
}

static const WeirPlugin late = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "keeps the latest write",
    .plugin_class = WEIR_PLUGIN_CLASS_CACHE,
    .capabilities = WEIR_PLUGIN_HOLDS_DATA | WEIR_PLUGIN_USES_SIDECAR,
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
    .open = late_open,
    .close = late_close,
    .read = late_other,
    .write = late_write,
    .flush = late_other,
    .detach = late_detach,
    .snapshot_before = late_snapshot_before,
    .inactivate = late_inactivate,
};

WEIR_PLUGIN_REGISTER(late);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes data: each byte is another one below.  Blocks of 4096. */
#include <weir-plugin.h>

#define MASK 0x5a

typedef struct Work {
    unsigned char *buffer;
    uint64_t bytes;
} Work;

static int mask_open(WeirPluginDisk *disk, void **handle)
{
    *handle = disk;
    return 0;
}

static int apply(void *arg)
{
    Work *work = arg;
    uint64_t i;

    for (i = 0; i < work->bytes; i++) {
        work->buffer[i] ^= MASK;
    }
    return 0;
}

static int mask_read(void *handle, WeirPluginIo *io,
                     WeirPluginRequest *request)
{
    Work work = { weir_plugin_buffer_take(handle, request->bytes),
                  request->bytes };
    int ret = work.buffer ? weir_plugin_read(io, WEIR_PLUGIN_NEXT,
                                             request->offset, request->bytes,
                                             work.buffer) : -ENOMEM;

    if (ret == 0) {
        weir_plugin_run(io, apply, &work);
        weir_plugin_put_data(request, 0, work.buffer, request->bytes);
    }
    weir_plugin_buffer_give(handle, work.buffer);
    return ret;
}

static int mask_write(void *handle, WeirPluginIo *io,
                      WeirPluginRequest *request)
{
    Work work = { weir_plugin_buffer_take(handle, request->bytes),
                  request->bytes };
    int ret = -ENOMEM;

    if (work.buffer) {
        weir_plugin_get_data(request, 0, work.buffer, request->bytes);
        weir_plugin_run(io, apply, &work);
        ret = weir_plugin_write(io, WEIR_PLUGIN_NEXT, request->offset,
                                request->bytes, work.buffer, request->flags);
    }
    weir_plugin_buffer_give(handle, work.buffer);
    return ret;
}

static const WeirPlugin mask = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "changes each byte",
    .plugin_class = WEIR_PLUGIN_CLASS_ENCRYPTION,
    .capabilities = WEIR_PLUGIN_CHANGES_DATA,
    .concurrency = WEIR_PLUGIN_SERIAL_PER_DISK,
    .alignment = 4096,
    .open = mask_open,
    .read = mask_read,
    .write = mask_write,
};

WEIR_PLUGIN_REGISTER(mask);

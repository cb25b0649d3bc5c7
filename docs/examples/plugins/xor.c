/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes data: what lies below is not what the users of the disk see.  No more
 * than an example; it hides nothing from anybody.
 */
#include <stdlib.h>
#include <weir-plugin.h>

typedef struct Xor {
    WeirPluginDisk *disk;
    unsigned char key;          /* set at open */
} Xor;

static int xor_open(WeirPluginDisk *disk, void **handle)
{
    Xor *xor = malloc(sizeof(*xor));

    if (!xor) {
        return -ENOMEM;
    }
    xor->disk = disk;
    xor->key = (unsigned char)weir_plugin_get_int(weir_plugin_values(disk),
                                                  "key");
    *handle = xor;
    return 0;
}

static void xor_close(void *handle, WeirPluginIo *io)
{
    (void)io;
    free(handle);
}

static void change(const Xor *xor, unsigned char *data, uint64_t bytes)
{
    uint64_t i;

    for (i = 0; i < bytes; i++) {
        data[i] ^= xor->key;
    }
}

/* Memory of the guest is not worked in: it could look at it meanwhile. */
static int xor_read(void *handle, WeirPluginIo *io,
                    WeirPluginRequest *request)
{
    Xor *xor = handle;
    unsigned char *data = weir_plugin_buffer_take(xor->disk, request->bytes);
    int ret = -ENOMEM;

    if (data) {
        ret = weir_plugin_read(io, WEIR_PLUGIN_NEXT, request->offset,
                               request->bytes, data);
    }
    if (ret == 0) {
        change(xor, data, request->bytes);
        weir_plugin_put_data(request, 0, data, request->bytes);
    }
    weir_plugin_buffer_give(xor->disk, data);
    return ret;
}

static int xor_write(void *handle, WeirPluginIo *io,
                     WeirPluginRequest *request)
{
    Xor *xor = handle;
    unsigned char *data = weir_plugin_buffer_take(xor->disk, request->bytes);
    int ret = -ENOMEM;

    if (data) {
        weir_plugin_get_data(request, 0, data, request->bytes);
        change(xor, data, request->bytes);
        ret = weir_plugin_write(io, WEIR_PLUGIN_NEXT, request->offset,
                                request->bytes, data,
                                request->flags & WEIR_PLUGIN_FUA);
    }
    weir_plugin_buffer_give(xor->disk, data);
    return ret;
}

static const WeirPluginOption xor_options[] = {
    {
        .name = "key",
        .help = "what each byte is changed by",
        .type = WEIR_PLUGIN_INT,
        .default_value = "90",
        .min = 1,
        .max = 255,
    },
};

static const WeirPlugin plugin = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = sizeof(xor_options) / sizeof(*xor_options),
    .options = xor_options,
    .name = "xor",
    .version = "1.0",
    .description = "changes each byte of the disk",
    .plugin_class = WEIR_PLUGIN_CLASS_ENCRYPTION,
    .capabilities = WEIR_PLUGIN_CHANGES_DATA | WEIR_PLUGIN_DURABLE_WRITES,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = xor_open,
    .close = xor_close,
    .read = xor_read,
    .write = xor_write,
};
WEIR_PLUGIN_REGISTER(plugin);

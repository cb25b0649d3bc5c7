/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Plugins with one thing wrong with each. */
#include <weir-plugin.h>

#define IS(number) (BAD == (number))

#if IS(7)
int there_is_no_such_function(void);
#endif

static int bad_load(const WeirPluginHost *host)
{
    (void)host;
    return IS(9) ? -ENODEV : 0;
}

static int bad_open(WeirPluginDisk *disk, void **handle)
{
    *handle = disk;
#if IS(7)
    return there_is_no_such_function();
#endif
    if (IS(10)) {
        weir_plugin_error(disk, "node '%s' is not to its liking",
                          weir_plugin_disk_name(disk));
        return -EINVAL;
    }
    return 0;
}

static int bad_prepare(void *handle, WeirPluginIo *io)
{
    (void)handle;
    if (IS(11)) {
        weir_plugin_error(io->disk, "there is nothing on it");
        return -ENOENT;
    }
    return 0;
}

static int bad_request(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    (void)handle;
    (void)io;
    (void)request;
    return IS(15) ? WEIR_PLUGIN_HOLD : WEIR_PLUGIN_PASS;
}

static const WeirPluginOption bad_options[] = {
    {
        .name = "number",
        .help = "a number",
        .type = WEIR_PLUGIN_INT,
        .default_value = IS(8) ? "eleven" : "10",
        .min = 1,
        .max = 10,
    },
};

static const WeirPlugin bad = {
    .abi = IS(1) ? 99 : WEIR_PLUGIN_ABI,
    .struct_size = IS(2) ? 40 : sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = 1,
    .options = bad_options,
    .name = IS(13) ? "good" : PLUGIN_NAME,
    .version = "1",
    .description = "has something wrong with it",
    .alignment = IS(14) ? 1000 : 0,
    .capabilities = IS(4) ? WEIR_PLUGIN_CHANGES_DATA :
                    IS(5) ? WEIR_PLUGIN_HOLDS_DATA :
                    IS(6) ? WEIR_PLUGIN_CHANGES_DATA | WEIR_PLUGIN_MAY_BYPASS
                          : 0,
    .load = bad_load,
    .open = IS(3) ? NULL : bad_open,
    .prepare = bad_prepare,
    .read = bad_request,
    .write = IS(4) ? NULL : bad_request,
};

#if IS(12)
WEIR_PLUGIN_EXPORT const WeirPlugin *weir_plugin_entry(void);
WEIR_PLUGIN_EXPORT const WeirPlugin *weir_plugin_entry(void)
{
    return &bad;
}
#else
WEIR_PLUGIN_REGISTER(bad);
#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP commands that tell which plugins there are. */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "filter.h"

/* The driver that runs plugins, after its module has been loaded. */
static WeirFilterDriver *load_host(Error **errp)
{
    const char *name = WeirDriver_str(WEIR_DRIVER_WEIR_PLUGIN);
    WeirFilterDriver *driver = bdrv_find_format(name) ?
                               weir_filter_find_driver(name) : NULL;

    if (!driver) {
        error_setg(errp, "The module of driver '%s' is not installed", name);
    }
    return driver;
}

WeirPluginFileList *qmp_query_weir_plugins(Error **errp)
{
    WeirFilterDriver *driver = load_host(errp);

    return driver ? driver->list_plugins() : NULL;
}

WeirPluginDescription *qmp_query_weir_plugin(const char *plugin, Error **errp)
{
    WeirFilterDriver *driver = load_host(errp);

    return driver ? driver->describe_plugin(plugin, errp) : NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP commands that tell policies which filters there are. */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-output-visitor.h"
#include "qobject/qdict.h"
#include "filter.h"

/* The driver, after its module has been loaded; NULL: it is no filter. */
static WeirFilterDriver *load_filter(const char *format_name)
{
    WeirFilterDriver *driver = bdrv_find_format(format_name) ?
                               weir_filter_find_driver(format_name) : NULL;

    return driver && driver->capabilities ? driver : NULL;
}

WeirFilterCapabilitiesList *qmp_query_weir_filters(Error **errp)
{
    WeirFilterCapabilitiesList *list = NULL, **tail = &list;

    for (int i = 0; i < WEIR_DRIVER__MAX; i++) {
        WeirFilterDriver *driver = load_filter(WeirDriver_str(i));

        if (driver) {
            WeirFilterCapabilities *c = g_memdup2(driver->capabilities,
                                                  sizeof(*c));

            c->driver = driver->driver;
            QAPI_LIST_APPEND(tail, c);
        }
    }
    return list;
}

/* As a driver gets them at open. */
static QDict *to_qdict(BlockdevOptions *options)
{
    QObject *object;
    Visitor *v = qobject_output_visitor_new(&object);

    visit_type_BlockdevOptions(v, NULL, &options, &error_abort);
    visit_complete(v, &object);
    visit_free(v);
    qdict_flatten(qobject_to(QDict, object));
    return qobject_to(QDict, object);
}

void qmp_weir_check_options(BlockdevOptions *filter, Error **errp)
{
    const char *name = BlockdevDriver_str(filter->driver);
    WeirFilterDriver *driver = load_filter(name);
    g_autoptr(QDict) options = NULL;

    if (!driver) {
        error_setg(errp, "'%s' is not a filter of Weir", name);
    } else if (driver->check_options) {
        options = to_qdict(filter);
        driver->check_options(options, errp);
    }
}

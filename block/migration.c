/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine that begins to migrate tells the filters that hold data, so that
 * it is on the disk before the machine stops here; what is left by then is
 * brought down while it stands still (.bdrv_inactivate).
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "migration/misc.h"
#include "filter.h"

static void tell_filter(BlockDriverState *bs, bool begins)
{
    WeirFilterDriver *driver = weir_filter_driver(bs);

    if (driver && begins && driver->begin_handover) {
        driver->begin_handover(bs);
    } else if (driver && !begins && driver->cancel_handover) {
        driver->cancel_handover(bs);
    }
}

/* Main thread. */
static int migration_changed(NotifierWithReturn *notifier,
                             MigrationEvent *event, Error **errp)
{
    BlockDriverState *bs = NULL;

    while (event->type != MIG_EVENT_PRECOPY_DONE &&
           (bs = bdrv_next_all_states(bs))) {
        tell_filter(bs, event->type == MIG_EVENT_PRECOPY_SETUP);
    }
    return 0;
}

static NotifierWithReturn notifier;

static void weir_migration_init(void)
{
    migration_add_notifier(&notifier, migration_changed);
}

block_init(weir_migration_init);

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QMP commands that change the header of an encrypted disk.  What they do
 * is in the module weir-encryption, which may have to be loaded first: an
 * image can be erased without having been opened.
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "filter.h"

#define DRIVER "weir-encryption"

static void change_header(const WeirHeaderChange *change, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(change->node_name);
    BlockDriver *drv = bdrv_find_format(DRIVER);    /* loads the module */
    bool any_node = change->kind == WEIR_HEADER_ERASE ||
                    change->kind == WEIR_HEADER_REPAIR;

    if (!bs) {
        error_setg(errp, "Node '%s' not found", change->node_name);
    } else if (!drv) {
        error_setg(errp, "The module of " DRIVER " is not installed");
    } else if (bs->drv != drv && !any_node) {
        error_setg(errp, "Node '%s' is not a " DRIVER " node",
                   change->node_name);
    } else {
        weir_filter_find_driver(DRIVER)->change_header(bs, change, errp);
    }
}

void qmp_weir_keyslot_add(WeirKeyslotAdd *arg, Error **errp)
{
    const WeirHeaderChange change = {
        .kind = WEIR_HEADER_ADD,
        .job_id = arg->job_id,
        .node_name = arg->node_name,
        .secret = arg->secret,
        .new_secret = arg->new_secret,
        .has_key_slot = arg->has_key_slot,
        .key_slot = arg->key_slot,
        .kdf = qapi_WeirKeyslotAdd_base(arg),
    };

    change_header(&change, errp);
}

void qmp_weir_keyslot_change(WeirKeyslotChange *arg, Error **errp)
{
    const WeirHeaderChange change = {
        .kind = WEIR_HEADER_CHANGE,
        .job_id = arg->job_id,
        .node_name = arg->node_name,
        .secret = arg->old_secret,
        .new_secret = arg->new_secret,
        .has_key_slot = arg->has_key_slot,
        .key_slot = arg->key_slot,
        .kdf = qapi_WeirKeyslotChange_base(arg),
    };

    change_header(&change, errp);
}

void qmp_weir_keyslot_remove(WeirKeyslotRemove *arg, Error **errp)
{
    const WeirHeaderChange change = {
        .kind = WEIR_HEADER_REMOVE,
        .job_id = arg->job_id,
        .node_name = arg->node_name,
        .secret = arg->old_secret,
        .has_key_slot = arg->has_key_slot,
        .key_slot = arg->key_slot,
        .force = arg->force,
    };

    change_header(&change, errp);
}

void qmp_weir_encryption_erase(const char *job_id, const char *node_name,
                               Error **errp)
{
    const WeirHeaderChange change = {
        .kind = WEIR_HEADER_ERASE,
        .job_id = job_id,
        .node_name = node_name,
    };

    change_header(&change, errp);
}

void qmp_weir_encryption_repair(const char *job_id, const char *node_name,
                                Error **errp)
{
    const WeirHeaderChange change = {
        .kind = WEIR_HEADER_REPAIR,
        .job_id = job_id,
        .node_name = node_name,
    };

    change_header(&change, errp);
}

void qmp_weir_encryption_bind(const char *job_id, const char *node_name,
                              Error **errp)
{
    const WeirHeaderChange change = {
        .kind = WEIR_HEADER_BIND,
        .job_id = job_id,
        .node_name = node_name,
    };

    change_header(&change, errp);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A plugin's node in the graph: permissions, limits. */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "weir-plugin-host.h"

/* Whether somebody else's requests of the same plugin come through here. */
static bool GRAPH_RDLOCK has_below(BlockDriverState *bs,
                                   const WeirLoaded *loaded)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        const BDRVWeirPluginState *s = c->bs->opaque;

        if ((c->bs->drv && !strcmp(c->bs->drv->format_name, "weir-plugin") &&
             s->loaded == loaded) || has_below(c->bs, loaded)) {
            return true;
        }
    }
    return false;
}

static bool GRAPH_RDLOCK has_above(BlockDriverState *bs,
                                   const WeirLoaded *loaded)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        BlockDriverState *parent = c->klass == &child_of_bds ? c->opaque
                                                             : NULL;
        const BDRVWeirPluginState *s = parent ? parent->opaque : NULL;

        if (parent && ((parent->drv &&
                        !strcmp(parent->drv->format_name, "weir-plugin") &&
                        s->loaded == loaded) || has_above(parent, loaded))) {
            return true;
        }
    }
    return false;
}

/* The one above would wait for itself. */
int GRAPH_RDLOCK weir_plugin_check_perm(BlockDriverState *bs, uint64_t perm,
                                        uint64_t shared, Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;

    if (s->plugin->concurrency == WEIR_PLUGIN_SERIAL &&
        (has_above(bs, s->loaded) || has_below(bs, s->loaded))) {
        error_setg(errp, "weir-plugin: Plugin '%s' takes one request at a "
                   "time, and cannot be on top of itself", s->plugin->name);
        return -EINVAL;
    }
    return 0;
}

void GRAPH_RDLOCK weir_plugin_set_perm(BlockDriverState *bs, uint64_t perm,
                                       uint64_t shared)
{
    BDRVWeirPluginState *s = bs->opaque;

    weir_filter_set_perm(bs, perm, shared);
    s->had_parents |= !QLIST_EMPTY(&bs->parents);
}

/*
 * Whether a plugin may have to write although nobody uses the node: what it
 * holds goes down in a last flush, before the node is closed.
 */
static bool keeps_writing(const BDRVWeirPluginState *s)
{
    return s->plugin->capabilities & WEIR_PLUGIN_HOLDS_DATA &&
           s->had_parents && !s->is_leaving;
}

/*
 * The sidecar is ours alone.  So is the disk, if the plugin keeps other data
 * there than its users see; else it has the permissions of its users.
 */
void GRAPH_RDLOCK weir_plugin_child_perm(BlockDriverState *bs, BdrvChild *c,
                                         BdrvChildRole role,
                                         BlockReopenQueue *queue,
                                         uint64_t perm, uint64_t shared,
                                         uint64_t *nperm, uint64_t *nshared)
{
    BDRVWeirPluginState *s = bs->opaque;
    bool is_disk = role & BDRV_CHILD_PRIMARY;
    bool writable;

    if (role & BDRV_CHILD_FILTERED) {
        weir_filter_child_perm(bs, c, role, queue, perm, shared, nperm,
                               nshared);
        return;
    }
    bdrv_default_perms(bs, c, role, queue, perm, shared, nperm, nshared);
    writable = is_disk ? *nperm & BLK_PERM_WRITE : s->sidecar_writable;
    if (bs->open_flags & BDRV_O_INACTIVE) {
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
    } else if (is_disk && QLIST_EMPTY(&bs->parents) && !keeps_writing(s)) {
        *nperm = BLK_PERM_CONSISTENT_READ;
        *nshared = BLK_PERM_ALL;
    } else {
        *nperm = BLK_PERM_CONSISTENT_READ | (writable ? BLK_PERM_WRITE : 0) |
                 (!is_disk && writable ? BLK_PERM_RESIZE : 0) |
                 (is_disk && writable ? perm & BLK_PERM_RESIZE : 0);
        *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    }
}

void GRAPH_RDLOCK weir_plugin_refresh_limits(BlockDriverState *bs,
                                             Error **errp)
{
    BDRVWeirPluginState *s = bs->opaque;
    const WeirPlugin *p = s->plugin;

    weir_filter_refresh_limits(bs, errp);
    if (!weir_plugin_passes_fua(p)) {
        bs->supported_write_flags &= ~BDRV_REQ_FUA;
        bs->supported_zero_flags &= ~BDRV_REQ_FUA;
    }
    if (!p->zero && !weir_plugin_passes_zero(p)) {
        bs->supported_zero_flags &= ~BDRV_REQ_NO_FALLBACK;
    }
    if (p->read || p->write) {
        bs->bl.max_transfer = MIN_NON_ZERO(bs->bl.max_transfer,
                                           WEIR_PLUGIN_BYTES_MAX);
    }
    if (p->alignment) {
        bs->bl.request_alignment = p->alignment;
        /* the node below takes what is too long for it in parts */
        if (bs->bl.max_transfer) {
            bs->bl.max_transfer = MAX(bs->bl.max_transfer, p->alignment);
        }
    }
    bs->supported_truncate_flags = 0;
    if (!weir_plugin_changes_or_holds(s) && bs->file) {
        bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE &
            bs->file->bs->supported_truncate_flags;
    }
}

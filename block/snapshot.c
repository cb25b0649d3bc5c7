/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots.  What is below an overlay is not written to any more, so
 * filters that keep something back get a chance to bring it down before.
 *
 *   filters above    go on, with the overlay below them
 *   the node         becomes its backing file,
 *   filters below    and what they filter with it
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "filter.h"
#include "snapshot.h"

typedef struct Asked {
    BlockDriverState *bs;
    bool is_frozen;
} Asked;

struct WeirOverlay {
    GArray *filters;            /* Asked, from the highest down */
};

static void add(WeirOverlay *overlay, BlockDriverState *bs, bool is_frozen)
{
    const WeirFilterDriver *driver = weir_filter_driver(bs);
    Asked asked = { bs, is_frozen };

    for (guint i = 0; i < overlay->filters->len; i++) {
        if (g_array_index(overlay->filters, Asked, i).bs == bs) {
            return;
        }
    }
    if (driver && driver->prepare_overlay) {
        bdrv_ref(bs);
        g_array_append_val(overlay->filters, asked);
    }
}

/* Whether @c is the data that its parent shows, or a part of it. */
static bool GRAPH_RDLOCK is_content(const BdrvChild *c,
                                    const BlockDriverState *parent)
{
    if (c->role & BDRV_CHILD_COW) {
        return false;
    }
    return c->role & (BDRV_CHILD_PRIMARY | BDRV_CHILD_FILTERED) ||
           (parent->drv->is_format && c->role & BDRV_CHILD_DATA);
}

static void GRAPH_RDLOCK add_above(WeirOverlay *overlay, BlockDriverState *bs)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        BlockDriverState *parent = c->klass == &child_of_bds ? c->opaque
                                                             : NULL;

        if (parent && parent->drv && is_content(c, parent)) {
            add_above(overlay, parent);
            add(overlay, parent, false);
        }
    }
}

static void GRAPH_RDLOCK add_below(WeirOverlay *overlay, BlockDriverState *bs)
{
    BdrvChild *c;

    add(overlay, bs, true);
    QLIST_FOREACH(c, &bs->children, next) {
        if (bs->drv && is_content(c, bs)) {
            add_below(overlay, c->bs);
        }
    }
}

/* Tell the first @count, the lowest first. */
static void finish(WeirOverlay *overlay, guint count, int ret)
{
    while (count-- > 0) {
        const Asked *asked = &g_array_index(overlay->filters, Asked, count);
        const WeirFilterDriver *driver = weir_filter_driver(asked->bs);

        if (driver->finish_overlay) {
            driver->finish_overlay(asked->bs, asked->is_frozen, ret);
        }
    }
}

static void overlay_free(WeirOverlay *overlay)
{
    for (guint i = 0; i < overlay->filters->len; i++) {
        bdrv_unref(g_array_index(overlay->filters, Asked, i).bs);
    }
    g_array_unref(overlay->filters);
    g_free(overlay);
}

/* Ask one; the formats above it have written all that they know before. */
static int ask(const Asked *asked, BlockDriverState *root, Error **errp)
{
    const WeirFilterDriver *driver = weir_filter_driver(asked->bs);
    int ret = asked->is_frozen && !bdrv_is_read_only(root) ?
              bdrv_flush(root) : 0;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Node '%s' cannot be flushed",
                         bdrv_get_node_name(root));
        return ret;
    }
    return driver->prepare_overlay(asked->bs, asked->is_frozen, errp);
}

/* From the highest down: what one brings down, the next one has then. */
WeirOverlay *weir_overlay_begin(BlockDriverState *bs, Error **errp)
{
    WeirOverlay *overlay = g_new0(WeirOverlay, 1);

    overlay->filters = g_array_new(FALSE, FALSE, sizeof(Asked));
    bdrv_graph_rdlock_main_loop();
    add_above(overlay, bs);
    add_below(overlay, bs);
    bdrv_graph_rdunlock_main_loop();
    for (guint i = 0; i < overlay->filters->len; i++) {
        int ret = ask(&g_array_index(overlay->filters, Asked, i), bs, errp);

        if (ret < 0) {
            finish(overlay, i, ret);
            overlay_free(overlay);
            return NULL;
        }
    }
    return overlay;
}

void weir_overlay_end(WeirOverlay *overlay, int ret)
{
    if (overlay) {
        finish(overlay, overlay->filters->len, ret);
        overlay_free(overlay);
    }
}

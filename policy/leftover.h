/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filters of ours that nobody uses any more: libvirt deletes the nodes of an
 * image which it has committed or unplugged, but for those that a filter has
 * been attached above.
 */
#ifndef WEIR_LEFTOVER_H
#define WEIR_LEFTOVER_H

#include "graph.h"

/*
 * The highest ones (WeirGraphNode), which are the graph's; the caller unrefs
 * the array.
 */
GPtrArray *weir_leftover_find(const WeirGraph *graph);

/*
 * Whether the image below @node has been committed to the one that a disk has
 * now, by the names that libvirt gives its nodes: they have rising numbers.
 *
 * @root: the highest node of the disk
 */
bool weir_leftover_is_committed(const WeirGraphNode *node,
                                const WeirGraphNode *root);

/*
 * Delete @node with all that is below, the highest first.  What a cache has
 * stays in its file.
 *
 * Blocks.  Returns false with @error set if filters are left.
 */
bool weir_leftover_close(WeirQmp *qmp, const WeirGraphNode *node,
                         GError **error);

#endif

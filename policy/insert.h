/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filters that a disk in use has lost, put back: after a snapshot, the overlay
 * is past the filters of the image below.
 *
 * Only filters that have nothing but counters go there.  The data of a cache,
 * an encryption or a replication belong to the image that they were over.
 */
#ifndef WEIR_INSERT_H
#define WEIR_INSERT_H

#include "compliance.h"
#include "schema.h"

/*
 * Put back what is missing of a disk's chain.
 *
 * @graph: as it is now
 * @inserted: counts the filters that were put back
 * Blocks.  Returns false with @error set, and the disk as before.
 */
bool weir_insert_missing(WeirQmp *qmp, const WeirGraph *graph,
                         const WeirRecordDisk *disk, const WeirSchema *schema,
                         guint *inserted, GError **error);

/*
 * Delete filters that were put back so and whose image is gone (committed),
 * with the node that libvirt could not delete because of them.  Blocks.
 * Returns how many there were.
 */
guint weir_insert_clean(WeirQmp *qmp, const WeirGraph *graph);

#endif

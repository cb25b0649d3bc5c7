/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A change of a disk that had not ended when its storage daemon did: perhaps it
 * was the end of the daemon.  The next daemon opens the filters from before,
 *
 *   - unless a cache that has come may have what the disk lacks: then those
 *     from after.  It was not so before: see weir_live_run().
 *   - or what was below an encryption is not encrypted any more
 *
 * and filters that only the other chain has are told that the disk goes on
 * without them.  That comes first: if it is interrupted, they only know less
 * than they could.  Of several changes, the newest is looked at first.
 */
#ifndef WEIR_ROLLBACK_H
#define WEIR_ROLLBACK_H

#include "record.h"

/*
 * Decide for each disk of a storage record, whose daemon does not run, what it
 * is now.  The caller has its lock, and saves it.
 *
 * @told: takes a text (char *) for each disk that had a change
 * Returns false with @error set: that cannot be decided, or a file of a filter
 * cannot be written to.
 */
bool weir_rollback(WeirRecord *record, GPtrArray *told, GError **error);

/* Whether the data below an encryption, which @disk has, is not encrypted. */
bool weir_rollback_is_decrypted(const WeirRecordDisk *disk,
                                const WeirWanted *wanted);

#endif

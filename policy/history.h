/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What was seen of a VM before: since when its disks are in their states, and
 * latencies of some time ago.  It is in a JSON file NAME.status next to the
 * VM's record, or, for a domain on another machine, in a directory of that
 * host; and for that QEMU process only.  Where it cannot be written, each look
 * is the first one.
 */
#ifndef WEIR_HISTORY_H
#define WEIR_HISTORY_H

#include "compliance.h"

/* Latencies count for once to twice as long, or since the last look. */
#define WEIR_HISTORY_LATENCY_S 60

/*
 * Read the history of a VM.
 *
 * @dir: of the records, or of the host
 * @now: seconds since 1970
 * Returns it, empty if there is none or it is damaged; the caller frees it with
 * weir_history_free().
 */
WeirHistory *weir_history_load(const char *dir, const WeirRecord *record,
                               gint64 now);

/* The record is not in the directory, so that it may lack. */
void weir_history_apart(WeirHistory *history);

/* NULL is fine. */
void weir_history_free(WeirHistory *history);

/*
 * The histogram of a disk's latencies of some time ago, owned by @history; NULL
 * if there is none.  NULL as @history is fine.
 */
JsonArray *weir_history_latency(const WeirHistory *history, const char *disk);

/*
 * Set since when a disk and its filters are in their states, and remember it:
 * as long as a state is the same, that does not change.
 */
void weir_history_note(WeirHistory *history, WeirDiskStatus *status);

/* Write it, at once or not at all, if it has changed. */
void weir_history_save(const WeirHistory *history);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirHistory, weir_history_free)

#endif

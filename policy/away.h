/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk out of process whose storage daemon is away, perhaps for good: a
 * filter ends it whenever it is started.  Then the chain is changed in the
 * record only, and the next daemon opens it so.  That is only possible with
 * filters that have nothing which the disk lacks.
 */
#ifndef WEIR_AWAY_H
#define WEIR_AWAY_H

#include "change.h"
#include "graph.h"
#include "record.h"

/*
 * Have the record of a VM whose daemon is away for oneself, for @timeout_ms at
 * most of waiting: a daemon that is being started comes, or goes again.
 * Changes that had not ended are decided, see rollback.h.
 *
 * @record: takes the record, which the caller frees
 * Returns the lock of it, which weir_storage_unlock() closes.  Or -1 with
 * @error set: to WEIR_ERROR_CLOSED if another process has it still, or the
 * daemon runs again.
 */
int weir_away_hold(const char *dir, const char *vm, int timeout_ms,
                   WeirRecord **record, GError **error);

/* What the next daemon would tell; the caller frees it. */
WeirGraph *weir_away_graph(const WeirRecord *record);

/*
 * Whether @change of @disk can be done while the daemon is away.  If not,
 * @error tells which filter cannot go.  @schema: the installed filters
 */
bool weir_away_check(const WeirRecordDisk *disk, const WeirChange *change,
                     const WeirSchema *schema, GError **error);

/* Let @record have those secrets in the place of its own of the same name. */
void weir_away_set_secrets(WeirRecord *record, const GPtrArray *secrets);

#endif

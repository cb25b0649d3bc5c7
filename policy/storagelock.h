/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lock of a storage daemon's record, NAME.storage-lock.  Whoever writes the
 * record has it, and whoever starts a daemon by the record, until that is ready
 * or has ended: so no daemon has a chain that the record does not tell, and a
 * record that is changed while there is no daemon counts for the next one.
 */
#ifndef WEIR_STORAGELOCK_H
#define WEIR_STORAGELOCK_H

#include "error.h"

/*
 * Take it.
 *
 * @dir: of the records
 * @name: of the VM
 * @timeout_ms: how long to wait for another one; 0: not at all
 * Returns a descriptor, which weir_storage_unlock() closes; children that
 * inherit it have the lock as well.  Or -1 with @error set: to
 * WEIR_ERROR_CLOSED if another process has it.
 */
int weir_storage_lock(const char *dir, const char *name, int timeout_ms,
                      GError **error);

/* -1 is fine. */
void weir_storage_unlock(int lock);

#endif

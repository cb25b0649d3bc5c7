/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether a VM is where it will stay. */
#ifndef WEIR_MIGRATION_H
#define WEIR_MIGRATION_H

#include "qmp.h"

/*
 * Whether a VM has its disks for itself: a QEMU that it migrates from, or to,
 * shares them, and the files of their filters, with another one.
 *
 * Blocks for up to twice @timeout_ms.  Returns false with @error set if not.
 */
bool weir_migration_check(WeirQmp *qmp, int timeout_ms, GError **error);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMs that are being started: each has NAME.start, locked, from before its
 * records are made until its QEMU is recorded.  That may take long, as a
 * storage daemon opens disks; the runtime directory, which all VMs share, is
 * locked only while one of these files comes or goes.
 */
#ifndef WEIR_STARTING_H
#define WEIR_STARTING_H

#include "disk.h"

/*
 * Begin to start a VM.
 *
 * @dir: the runtime directory, locked by the caller
 * Returns what weir_starting_end() takes, or -1 with @error set if another
 * process starts it.
 */
int weir_starting_begin(const char *dir, const char *name, GError **error);

/* It has started, or has failed to.  Waits for the lock of the directory. */
void weir_starting_end(const char *dir, const char *name, int starting);

/*
 * Whether no other VM that is being started is going to write to the file of
 * @disk in a storage daemon.  Of one that has been started, QEMU's lock tells.
 */
bool weir_starting_check(const char *dir, const char *name,
                         const WeirDisk *disk, GError **error);

#endif

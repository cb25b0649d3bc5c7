/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The storage daemon of a VM in the foreground: its supervisor, a child. */
#ifndef WEIR_LAUNCHSTORAGE_H
#define WEIR_LAUNCHSTORAGE_H

#include "supervise.h"

typedef struct WeirLaunchStorage WeirLaunchStorage;

/*
 * Start the supervisor of VM @name, whose storage record is in @dir, and wait
 * until the daemon has all disks.
 *
 * @signal_fd: gives up when it becomes readable
 * Blocks.  Returns what is to be ended with weir_launch_storage_end(), or NULL
 * with @error set; then nothing runs.
 */
WeirLaunchStorage *weir_launch_storage(const char *dir, const char *name,
                                       int signal_fd, GError **error);

/*
 * The end of a pipe that the emulator has to inherit: the daemon runs as long
 * as somebody has it.
 */
int weir_launch_storage_life_fd(const WeirLaunchStorage *storage);

/* The emulator has ended.  Blocks until the daemon has, too.  NULL is fine. */
void weir_launch_storage_end(WeirLaunchStorage *storage);

#endif

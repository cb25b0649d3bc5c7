/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How QEMU is started for weir run. */
#ifndef WEIR_LAUNCHARGS_H
#define WEIR_LAUNCHARGS_H

#include "launch.h"

/*
 * The command line of QEMU.
 *
 * @qmp_fd: a socket that listens for QMP
 * @secret_fds: int, where QEMU reads each of the secrets
 * Returns arguments, ended by NULL, that the caller unrefs; or NULL with @error
 * set.
 */
GPtrArray *weir_launch_args(const WeirLaunch *launch, int qmp_fd,
                            const GArray *secret_fds, GError **error);

/* Whether the device of @disk can do what @policy wants. */
bool weir_launch_check_device(const WeirDisk *disk, const WeirPolicy *policy,
                              GError **error);

/* Whether disk number @index runs out of process. */
bool weir_launch_is_outside(const WeirLaunch *launch, guint index);

/* Whether any does. */
bool weir_launch_has_outside(const WeirLaunch *launch);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The emulator's side of disks out of process. */
#ifndef WEIR_VHOSTUSER_H
#define WEIR_VHOSTUSER_H

#include "disk.h"

/* How long the emulator waits before it tries to connect again. */
#define WEIR_VHOSTUSER_RECONNECT_MS 200

/*
 * Add to @args the device of a disk whose daemon serves @socket.  It has none
 * with device=none.
 */
void weir_vhostuser_add_device(GPtrArray *args, const WeirDisk *disk,
                               const char *socket);

/*
 * Add to @args what lets a daemon see the memory of the guest.
 *
 * @user: the arguments of the user, NULL-terminated; who has chosen the memory
 *     with -machine memory-backend or -numa has to take one with share=on
 * Returns false with @error set if its size cannot be read.
 */
bool weir_vhostuser_add_memory(GPtrArray *args, char *const *user,
                               GError **error);

/*
 * The size of the guest's memory, by the argument of -m; 0: it is not one of
 * those of QEMU.
 */
guint64 weir_vhostuser_memory_bytes(const char *text);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run QEMU with disks under policies, in the foreground. */
#ifndef WEIR_LAUNCH_H
#define WEIR_LAUNCH_H

#include "plan.h"

typedef struct WeirLaunch {
    const char *name;       /* of the VM; weir_name_ok() */
    const char *qemu;       /* path of the emulator */
    const char *dir;        /* for record and socket; made if missing */
    const char *bin_dir;    /* of QEMU's programs; NULL: not given */
    GPtrArray *disks;       /* WeirDisk */
    GPtrArray *policies;    /* WeirPolicy, one for each disk */
    char *const *policy_dirs;   /* where they were looked for */
    GPtrArray *chains;      /* as weir_chain_new(), one for each disk */
    GPtrArray *secrets;     /* WeirSecret, that QEMU is to be given */
    GPtrArray *storage_secrets;     /* that the storage daemon is to be given */
    char **args;            /* of the user, NULL-terminated */
} WeirLaunch;

/*
 * Hold back the signals that weir_launch() passes on to QEMU.  Called before
 * anything that may start a thread.
 */
void weir_launch_hold_signals(void);

/*
 * The guest runs from when its chains were seen to be there until QEMU ends;
 * standard input, output and error are QEMU's.  The record and socket of the
 * VM exist as long as QEMU.
 *
 * @exit_code: takes QEMU's exit code, or 128 and the number of the signal
 *     that ended it
 * Blocks until QEMU has ended.  Returns false with @error set if QEMU was not
 * started, or ended (or was ended) before the guest could run: @exit_code is
 * then not 0.
 */
bool weir_launch(const WeirLaunch *launch, int *exit_code, GError **error);

#endif

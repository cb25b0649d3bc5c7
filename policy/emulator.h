/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line that libvirt gives to QEMU, with the chains of policies in
 * it.
 *
 *   as libvirt has it             as QEMU gets it
 *
 *   device                        device
 *     |                             |
 *   libvirt-1-format              libvirt-1-format
 *     |                             |
 *   libvirt-1-storage (file)      libvirt-1-storage (the highest filter)
 *                                   |
 *                                 weir-vda-... (other filters)
 *                                   |
 *                                 weir-vda-storage (file)
 *
 * The chain has the name of the storage node, so that all that libvirt does
 * with that node it does with the chain: open the format node anew over it, ask
 * for its statistics, delete it.  All below is inline, and goes with it.
 *
 * QEMU carries the record as well, see carried.h.
 */
#ifndef WEIR_EMULATOR_H
#define WEIR_EMULATOR_H

#include "record.h"

/* For each domain a directory named after its UUID, made by the hook. */
#define WEIR_LIBVIRT_DIR "/run/weir-libvirt"

/* What the directory has besides the record: files with secrets. */
#define WEIR_LIBVIRT_SECRETS "secrets"

/*
 * Whether a command line starts a domain; otherwise libvirt asks what QEMU
 * can do.
 *
 * @args: NULL-terminated
 * @name, @uuid: take those of the domain; the caller frees them
 */
bool weir_emulator_domain(char *const *args, char **name, char **uuid);

/*
 * Rewrite a command line.
 *
 * @args: NULL-terminated, the program first
 * @record: chains of the domain's disks, whose "device" is the guest device's
 * @secrets: char *, names of files in @secrets_dir: ids of objects
 * Returns the new one, NULL-terminated, which the caller unrefs; or NULL with
 * @error set if a disk of the record is not in it in a way that is understood.
 */
GPtrArray *weir_emulator_rewrite(char *const *args, const WeirRecord *record,
                                 const char *secrets_dir,
                                 const GPtrArray *secrets, GError **error);

#endif

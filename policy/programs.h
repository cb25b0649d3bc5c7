/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's programs: found, and asked. */
#ifndef WEIR_PROGRAMS_H
#define WEIR_PROGRAMS_H

#include "disk.h"
#include "json.h"

/*
 * Remember where the running program is: QEMU's programs are looked for next
 * to it.  Called once by main().
 */
void weir_programs_init(const char *argv0);

/*
 * Find one of QEMU's programs.
 *
 * @bin_dir: the only directory to look in; NULL: the one of the build option
 *     qemu-bin-dir, or else next to the running program, then on $PATH
 * @name: for example "qemu-img"
 * Returns its path, which the caller frees, or NULL with @error set.
 */
char *weir_program_find(const char *bin_dir, const char *name,
                        GError **error);

/*
 * A GSpawnChildSetupFunc: give the child the signals that the parent blocks
 * or ignores.
 */
void weir_child_setup(gpointer unused);

/*
 * The same for a child that is to die with this process, however that ends.
 *
 * @parent: the PID of this process, by GINT_TO_POINTER()
 */
void weir_child_setup_bound(gpointer parent);

/*
 * What qemu-img info tells of @disk, which the caller unrefs, or NULL with
 * @error set.  @in_use: it may be another's.  Blocks.  @bin_dir: as above.
 */
JsonObject *weir_disk_info(const WeirDisk *disk, bool in_use,
                           const char *bin_dir, GError **error);

/*
 * Ask qemu-img whether @disk can be read in its format, and, if it is to be
 * written, the file system whether it may be.  Blocks.  @bin_dir: as above.
 * Returns false with @error set if not.
 */
bool weir_disk_check(const WeirDisk *disk, const char *bin_dir,
                     GError **error);

#endif

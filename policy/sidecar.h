/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sidecars of disks that are written to without their replication.  Of that a
 * sidecar knows nothing: it would have a source go on where it has ended, and
 * the log would never get what was written in between.  The driver tells it so
 * when it is detached; nobody does if its node was deleted, or the disk was
 * used without it.  Then it is told here.
 *
 * The format is in docs/weir-replication-sidecar.md.
 */
#ifndef WEIR_SIDECAR_H
#define WEIR_SIDECAR_H

#include <stdbool.h>

#include "error.h"

/* Whether a source has used it, or it cannot be read. */
bool weir_sidecar_tells(const char *path);

/*
 * Tell a sidecar that a source has used before that all of the disk is to be
 * copied, since the disk is in use without it now.  It becomes blank, or goes
 * on to tell of which log it is, if that was promoted.  One that is blank,
 * missing, or was made for a disk in use (see seed.h) stays as it is; so does
 * what is no sidecar, or that of another disk, which the driver refuses.
 *
 * @disk: its name in the log; NULL: not known
 * Returns false with @error set if it is in use, or cannot be written to.
 */
bool weir_sidecar_forget(const char *path, const char *disk, GError **error);

/* The same for a filter that has gone: who uses it now is somebody else. */
bool weir_sidecar_forget_unused(const char *path, const char *disk,
                                GError **error);

#endif

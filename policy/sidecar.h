/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sidecars of disks that are written to without their replication.  Of that a
 * sidecar knows nothing: it would have a source go on where it has ended, and
 * the log would never get what was written in between.  So it becomes a blank
 * one, with which all of the disk is copied.
 *
 * The format is in docs/weir-replication-sidecar.md.
 */
#ifndef WEIR_SIDECAR_H
#define WEIR_SIDECAR_H

#include <stdbool.h>

#include "error.h"

/* One whose filter is about to be detached. */
typedef struct WeirSidecar {
    char *path;             /* of the file itself; NULL: there is none */
    char *kept;             /* other name of what it was; NULL: it is none */
    int fd;                 /* of what it was */
} WeirSidecar;

/*
 * Put a blank file in the place of one that QEMU has open.  Whoever opens the
 * path from now on finds that one, even if this process ends here.  Of a block
 * device nothing happens yet.
 *
 * Returns what one of the next three consumes; or NULL with @error set.
 */
WeirSidecar *weir_sidecar_set_aside(const char *path, GError **error);

/* The filter is still there: so is its sidecar. */
void weir_sidecar_put_back(WeirSidecar *sidecar);

/* Nobody knows whether it is: the blank one stays in its place. */
void weir_sidecar_leave(WeirSidecar *sidecar);

/* The filter has gone: what it was is of no use, by whatever name. */
void weir_sidecar_drop(WeirSidecar *sidecar);

/*
 * Put back what was left, if a QEMU uses it still: its filter is there, and no
 * job is going to detach it.
 */
void weir_sidecar_restore(const char *path);

/* Whether a source has used it, or it cannot be read. */
bool weir_sidecar_tells(const char *path);

/*
 * Make a sidecar blank that a source has used before, since the disk is in use
 * without it now.  One that is blank, missing, or was made for a disk in use
 * (see seed.h) stays as it is; so does what is no sidecar, or that of another
 * disk, which the driver refuses.
 *
 * @disk: its name in the log; NULL: not known
 * Returns false with @error set if it is in use, or cannot be written to.
 */
bool weir_sidecar_forget(const char *path, const char *disk, GError **error);

/* The same for a filter that has gone: who uses it now is somebody else. */
bool weir_sidecar_forget_unused(const char *path, const char *disk,
                                GError **error);

#endif

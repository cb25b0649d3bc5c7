/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The XML of a domain whose disks have policies, and the way back.
 *
 * Two things change: the emulator becomes weir-qemu, which puts the chains
 * where libvirt has its storage nodes, and the metadata keep what there was
 * before.  Disks out of process become vhostuser disks, and the guest's memory
 * is shared with the process that has them.  All else stays as it is, byte for
 * byte.
 */
#ifndef WEIR_TRANSFORM_H
#define WEIR_TRANSFORM_H

#include "domain.h"

typedef struct WeirTransform {
    const char *emulator;       /* path of weir-qemu */
    /*
     * Policies from elsewhere than the metadata: WeirAssigned; may be NULL.
     * Whatever assigns policies by rules fills this in.
     */
    const GPtrArray *assigned;
    const char *policy;         /* of all other disks; NULL: none */
    /* Whether disks under @policy run out of process; NULL: none does. */
    bool (*is_outside)(void *opaque, const char *policy);
    void *opaque;
} WeirTransform;

/* The program of that name is the emulator of such domains. */
#define WEIR_EMULATOR "weir-qemu"

/* Whether a path is that of such a program. */
bool weir_transform_check_emulator(const char *path, GError **error);

/*
 * Put the disks of a domain under their policies.  The same input gives the
 * same output, and a domain that has been through here already comes out as it
 * is.  Nothing else than the arguments is looked at, and what is_outside()
 * says.
 *
 * @text: XML of the domain
 * Returns XML that the caller frees, the same as @text if no disk has a policy;
 * or NULL with @error set.
 */
char *weir_transform(const char *text, gsize length,
                     const WeirTransform *options, GError **error);

/*
 * Take back what weir_transform() has done: gives exactly what it was given,
 * or, where other parts have been changed since, that with the changes.  A
 * domain that has not been there stays as it is.
 */
char *weir_transform_remove(const char *text, gsize length, GError **error);

/*
 * Parse "vda=safe".  Returns what belongs into a weir_assigned_array(), or NULL
 * with @error set.
 */
WeirAssigned *weir_assigned_parse(const char *text, GError **error);

#endif

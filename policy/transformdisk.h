/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks of a domain that become vhostuser disks, and what they need. */
#ifndef WEIR_TRANSFORMDISK_H
#define WEIR_TRANSFORMDISK_H

#include "domain.h"

/* The sockets of the disks of a domain: a directory NAME.disks here. */
#define WEIR_DOMAIN_SOCKETS_DIR "/run/weir-libvirt"

/* Path of the socket of a disk; to be freed. */
char *weir_domain_socket(const char *name, const char *target);

/* Whether the disk with that target can become one. */
bool weir_transform_check_outside(const WeirDomain *domain,
                                  const char *target, GError **error);

/*
 * Replace the disks with these targets (char *), and let the guest's memory be
 * shared.  Adds to @edits.
 */
void weir_transform_outside(GPtrArray *edits, const WeirDomain *domain,
                            const GPtrArray *targets);

/* Append what is to be known to take that back, as content of <original>. */
void weir_transform_append_was(GString *out, const WeirDomain *domain,
                               const char *prefix, const GPtrArray *targets);

/* Take it back, where the disks are what they were made to. */
void weir_transform_inside(GPtrArray *edits, const WeirDomain *domain);

#endif

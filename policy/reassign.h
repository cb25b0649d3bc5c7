/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Another policy, or none, for one disk in the metadata of a domain. */
#ifndef WEIR_REASSIGN_H
#define WEIR_REASSIGN_H

#include "domain.h"

/*
 * The XML of a domain as weir_transform() leaves it, with disk @target under
 * @policy; NULL: under none.  Without any policy it is what weir_transform()
 * was given.
 *
 * @emulator: path of weir-qemu
 * Returns XML that the caller frees, or NULL with @error set.
 */
char *weir_reassign(const char *text, gsize length, const char *target,
                    const char *policy, const char *emulator, GError **error);

/*
 * The element <policies> alone, without a namespace, for
 * virDomainSetMetadata(), which the caller frees; NULL: there is none any more.
 * It stays, without disks, as long as the emulator is the one of
 * weir_transform().
 */
char *weir_reassign_element(const WeirDomain *domain, const char *target,
                            const char *policy);

#endif

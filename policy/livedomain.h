/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains of libvirt that run. */
#ifndef WEIR_LIVEDOMAIN_H
#define WEIR_LIVEDOMAIN_H

#include "compliance.h"
#include "daemon.h"
#include "hypervisor.h"

/*
 * Put back the filters that disks of a domain have lost, see insert.h, and
 * delete what libvirt could not delete because of those.
 *
 * @inserted, @deleted: take how many filters
 * Blocks.  Returns false with @error set if a disk still lacks filters.
 */
bool weir_live_domain_reapply(virDomainPtr domain, WeirDaemon *daemon,
                       guint *inserted, guint *deleted, GError **error);

/* Whether all disks comply; otherwise @error tells the first that does not. */
bool weir_live_domain_complies(virDomainPtr domain, GError **error);

#endif

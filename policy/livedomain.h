/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains of libvirt that run. */
#ifndef WEIR_LIVEDOMAIN_H
#define WEIR_LIVEDOMAIN_H

#include "compliance.h"
#include "hypervisor.h"

/*
 * Add the compliance of a domain's disks that have policies: what is assigned
 * and recorded, compared with the graph, for which QEMU is asked through
 * libvirt.  Blocks.  Returns false with @error set if that is not known.
 */
bool weir_live_domain_statuses(virDomainPtr domain, GPtrArray *statuses,
                               GError **error);

/* Whether all disks comply; otherwise @error tells the first that does not. */
bool weir_live_domain_complies(virDomainPtr domain, GError **error);

#endif

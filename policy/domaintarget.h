/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domain of libvirt that runs, as weir status and others see VMs. */
#ifndef WEIR_DOMAINTARGET_H
#define WEIR_DOMAINTARGET_H

#include "hypervisor.h"
#include "target.h"

typedef struct WeirDomainTarget {
    WeirTarget *target;     /* NULL: the domain is under no policy */
    char *xml;
    WeirDomain *domain;     /* read from @xml; NULL: that failed */
} WeirDomainTarget;

/*
 * See which policies a domain has been given, for which QEMU is not asked.
 *
 * @found: takes it; cleared by the caller
 * Blocks.
 */
void weir_domain_target_begin(WeirDomainTarget *found, virDomainPtr domain);

/*
 * Ask its QEMU for the rest.
 *
 * @found: has a target
 * @dir: where to keep what is seen of domains of other machines
 * @query: its timeout and traffic
 * Blocks, for as long as libvirt does.
 */
void weir_domain_target_ask(WeirDomainTarget *found, virDomainPtr domain,
                            const char *dir, const WeirTargetQuery *query);

void weir_domain_target_clear(WeirDomainTarget *found);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirDomainTarget, weir_domain_target_clear)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Definitions of domains, as they are at rest, under policies. */
#ifndef WEIR_DEFINITION_H
#define WEIR_DEFINITION_H

#include "hypervisor.h"
#include "weir.h"

/*
 * The XML of a domain that is defined, to be freed; NULL with @error set, also
 * if it is transient.
 */
char *weir_definition_xml(virDomainPtr domain, GError **error);

/*
 * Define a domain under policies, if they can be met; on another machine its
 * hook is who finds out.
 *
 * @xml: of the domain
 * Returns the domain, which the caller frees, or NULL with @error set.
 */
virDomainPtr weir_definition_put(const WeirPolicyOptions *policy,
                                 const WeirAssignOptions *assign,
                                 virConnectPtr connection, const char *xml,
                                 gsize length, GError **error);

/* "; it runs, so..." if a change of the definition does not hold yet, or "". */
const char *weir_definition_note(virDomainPtr domain);

#endif

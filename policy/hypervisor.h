/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libvirt, with its errors as GErrors. */
#ifndef WEIR_HYPERVISOR_H
#define WEIR_HYPERVISOR_H

#include <libvirt/libvirt.h>

#include "qmp.h"

/*
 * Connect.  @uri: NULL for libvirt's default.  Returns what the caller closes
 * with virConnectClose(), or NULL with @error set.
 */
virConnectPtr weir_hypervisor_open(const char *uri, GError **error);

/* Whether it is this machine's: policies and programs are those from here. */
bool weir_hypervisor_is_local(virConnectPtr connection);

/*
 * The domain of that name or UUID.  Returns what the caller frees with
 * virDomainFree(), or NULL with @error set.
 */
virDomainPtr weir_hypervisor_domain(virConnectPtr connection,
                                    const char *name, GError **error);

/*
 * One domain, or all that run for NULL (virDomainPtr).  The caller unrefs the
 * array, or gets NULL with @error set.
 */
GPtrArray *weir_hypervisor_domains(virConnectPtr connection,
                                   const char *name, GError **error);

/* Its XML, with secrets in it, as it is at rest or (@live) runs. */
char *weir_hypervisor_xml(virDomainPtr domain, bool live, GError **error);

/* Define a domain.  The caller frees it; NULL with @error set. */
virDomainPtr weir_hypervisor_define(virConnectPtr connection,
                                    const char *xml, GError **error);

/* A client of the monitor of a domain that runs. */
WeirQmp *weir_hypervisor_qmp(virDomainPtr domain);

/* Set @error to what libvirt has said last, behind @what. */
void weir_hypervisor_error(GError **error, const char *what);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virConnect, virConnectClose)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virDomain, virDomainFree)

#endif

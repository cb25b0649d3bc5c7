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

/*
 * The same without asking anybody for passwords, for several hosts at once and
 * from any thread.  A host that says nothing for some 15 seconds counts as
 * gone: calls that wait for it fail.
 */
virConnectPtr weir_hypervisor_open_quietly(const char *uri, GError **error);

/* Whether it is this machine's: policies and programs are those from here. */
bool weir_hypervisor_is_local(virConnectPtr connection);

/*
 * What to call the host of @uri, to be freed: its name with the port, if that
 * is given; WEIR_LOCALHOST for NULL and without a name; an alias as it is.
 */
char *weir_hypervisor_host(const char *uri);

/*
 * @given, each once; for NULL libvirt's default, which is "" unless it is in
 * the environment.  The caller frees it with g_strfreev().
 */
char **weir_hypervisor_uris(char *const *given);

/*
 * What to call the hosts of such URIs: as weir_hypervisor_host(), but where
 * that is the same for two, the URIs themselves.  The caller frees it with
 * g_strfreev().
 */
char **weir_hypervisor_hosts(char *const *uris);

#define WEIR_LOCALHOST "localhost"

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
/* Its XML as it runs (@live), or at rest, then with secrets in it. */
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

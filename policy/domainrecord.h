/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a domain of libvirt that runs was started with. */
#ifndef WEIR_DOMAINRECORD_H
#define WEIR_DOMAINRECORD_H

#include "domain.h"
#include "qmp.h"
#include "record.h"

/*
 * The record of a domain: what the hook has left, or, on another host, what
 * QEMU carries.  Its disks are those that the domain has now.
 *
 * @here: whether the domain runs on this machine
 * @qmp: of the domain
 * @dir: takes the directory with the record, which the caller frees, or NULL
 *     if QEMU carries it; NULL: not wanted
 * Blocks.  Returns the record, which the caller frees, or NULL with @error set.
 */
WeirRecord *weir_domain_record(const WeirDomain *domain, bool here,
                               WeirQmp *qmp, int timeout_ms, char **dir,
                               GError **error);

/* Whether domains have been started under policies on this machine. */
bool weir_domain_records_here(void);

#endif

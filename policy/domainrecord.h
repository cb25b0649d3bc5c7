/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a domain of libvirt that runs was started with. */
#ifndef WEIR_DOMAINRECORD_H
#define WEIR_DOMAINRECORD_H

#include "domain.h"
#include "graph.h"
#include "qmp.h"
#include "record.h"

/* What libvirt calls its nodes, with a number between. */
#define WEIR_LIBVIRT_NODE "libvirt-"
#define WEIR_LIBVIRT_STORAGE "-storage"
#define WEIR_LIBVIRT_FORMAT "-format"

/* Whether a node has a name of libvirt's that ends so. */
bool weir_domain_node_is(const char *name, const char *suffix);

/*
 * The record of a domain: what the hook has left, or, on another host, what
 * QEMU carries; an empty one, if it was started without policies.  It follows
 * the domain, see below.
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

/*
 * The record becomes one of the disks that the domain has now and that the
 * record or the metadata know: one may have been taken out, or put in under
 * another device, or have another image since a snapshot or a copy.
 *
 * @here: whether the domain, and so its images, are on this machine
 */
void weir_domain_record_follow(WeirRecord *record, const WeirDomain *domain,
                               bool here);

/* An entry of the record for a disk under no policy. */
void weir_domain_record_add(WeirRecord *record, const WeirDomainDisk *from);

/* The names of the filters in the graph, where they are not those recorded. */
void weir_domain_record_take_names(WeirRecord *record, const WeirGraph *graph);

/* Whether domains have been started under policies on this machine. */
bool weir_domain_records_here(void);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A domain of libvirt: its XML, of which only is read what has to do with
 * disks and policies.  Policies are in the metadata:
 *
 *   <metadata>
 *     <weir:policies xmlns:weir="urn:weir:domain:1">
 *       <weir:disk target="vda" policy="safe"/>
 *     </weir:policies>
 *   </metadata>
 *
 * The text may come from anybody: document types, and with them entities, are
 * refused, and size and depth are bounded.
 */
#ifndef WEIR_DOMAIN_H
#define WEIR_DOMAIN_H

#include <stdbool.h>
#include <sys/types.h>

#include "error.h"

#define WEIR_DOMAIN_URI "urn:weir:domain:1"
#define WEIR_DOMAIN_MAX_BYTES (1u << 20)
#define WEIR_DOMAIN_MAX_DEPTH 64
#define WEIR_DOMAIN_MAX_DISKS 1024

/* Where something is in the text: @end is the first byte behind it. */
typedef struct WeirSpan {
    gsize begin, end;
} WeirSpan;

/* An element that may be missing. */
typedef struct WeirElement {
    bool present;
    bool empty;             /* one tag, as in <metadata/>: @close is empty */
    WeirSpan open, close;   /* its tags */
} WeirElement;

typedef struct WeirDomainDisk {
    char *target;           /* "vda" */
    char *alias;            /* id of the guest's device; NULL: not yet known */
    char *type;             /* "file", "block", "network"... */
    char *device;           /* "disk", "cdrom", "floppy" or "lun" */
    char *format;           /* NULL: not given */
    char *source;           /* file or device; NULL: another kind */
    char *cache;            /* of <driver>; NULL: not given */
    char *io;
    bool read_only;
    bool shareable;
    bool transient;
    char *bus;              /* of <target>; NULL: not given */
    char *iothread;         /* of <driver>; NULL: not given */
    char *foreign;          /* what a vhostuser disk cannot have; or NULL */
    GArray *kept;           /* WeirSpan: elements that one can have */
    WeirElement element;
} WeirDomainDisk;

/* A disk that weir_transform() has replaced. */
typedef struct WeirDomainWas {
    char *text;             /* the element */
    WeirDomainDisk *disk;
} WeirDomainWas;

/* A policy for a disk. */
typedef struct WeirAssigned {
    char *target;
    char *policy;
} WeirAssigned;

typedef struct WeirDomain {
    const char *text;       /* the caller's */
    gsize length;
    char *type;             /* "kvm", "qemu"... */
    char *name;
    char *uuid;             /* NULL: not given */
    char *arch;             /* NULL: not given */
    char *emulator;         /* text of that element; NULL: there is none */
    gint64 uid, gid;        /* whom QEMU runs as; -1: not told */
    GPtrArray *disks;       /* WeirDomainDisk */
    GPtrArray *assigned;    /* WeirAssigned, from the metadata */
    char *prefix;           /* of the elements of the metadata, with ':' */
    /* What weir_transform() has left, see transform.c; NULL: missing. */
    char *was_emulator;
    char *was_metadata;
    bool added_policies;
    bool added_memory;
    GPtrArray *was_disks;   /* WeirDomainWas */

    bool memory_shared;     /* other processes can see the guest's memory */
    WeirElement name_element;
    WeirElement metadata;
    WeirElement memory;     /* <memoryBacking> */
    WeirElement devices;
    WeirElement emulator_element;
    WeirElement policies;
    WeirElement original;
} WeirDomain;

/*
 * Read a domain.
 *
 * @text: UTF-8; has to stay as long as the domain
 * Returns the domain, which the caller frees with weir_domain_free(), or NULL
 * with @error set.
 */
WeirDomain *weir_domain_parse(const char *text, gsize length, GError **error);

/* NULL is fine. */
void weir_domain_free(WeirDomain *domain);

WeirAssigned *weir_assigned_new(const char *target, const char *policy);

/* An array of WeirAssigned that owns them. */
GPtrArray *weir_assigned_array(void);

/* The policy that an array of them has for a disk, or NULL. */
const char *weir_assigned_find(const GPtrArray *assigned, const char *target);

/* The disk with that target, or NULL. */
WeirDomainDisk *weir_domain_disk(const WeirDomain *domain,
                                 const char *target);

/* The same as it was before weir_transform(), if that has replaced it. */
const WeirDomainDisk *weir_domain_original(const WeirDomain *domain,
                                           const char *target);

/* Whether weir_transform() has replaced it. */
bool weir_domain_is_replaced(const WeirDomain *domain, const char *target);

/* The policy that the metadata has for a disk, or NULL. */
const char *weir_domain_policy(const WeirDomain *domain, const char *target);

/* Whether a disk can be put under a policy; @error tells why not. */
bool weir_domain_disk_check(const WeirDomainDisk *disk, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirDomain, weir_domain_free)

#endif

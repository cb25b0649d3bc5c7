/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chains of a libvirt domain, worked out by the hook when the domain is
 * about to start, and left for weir-qemu, which runs as another user:
 *
 *   /run/weir-libvirt/UUID/NAME.json      the record
 *   /run/weir-libvirt/UUID/secrets/ID     for QEMU's user only, until QEMU runs
 */
#ifndef WEIR_DOMAINPLAN_H
#define WEIR_DOMAINPLAN_H

#include "daemon.h"
#include "domain.h"
#include "plan.h"
#include "record.h"

typedef struct WeirDomainPlan {
    WeirPlan *plan;
    WeirRecord *record;     /* its disks have the devices' ids, if known */
    WeirRecord *storage;    /* of those out of process; may have none */
    GPtrArray *disks;       /* WeirDisk, one for each chain of @plan */
    gint64 uid, gid;        /* of QEMU; -1: root */
} WeirDomainPlan;

/*
 * Work out the chains.  Policies for disks that the domain does not have (any
 * more) are passed over.
 *
 * @dirs: of the policies, NULL-terminated
 * Returns what the caller frees with weir_domain_plan_free(), or NULL with
 * @error set.
 */
WeirDomainPlan *weir_domain_plan_new(const WeirDomain *domain,
                                     WeirDaemon *daemon, char *const *dirs,
                                     GError **error);

/*
 * The disk as libvirt is going to tell it to QEMU; the caller frees it with
 * weir_disk_free().
 */
WeirDisk *weir_domain_plan_disk(const WeirDomainDisk *from);

/*
 * Whether all filters are where libvirt's jobs work with them: not above the
 * format node.  Returns false with @error set to WEIR_ERROR_POSITION.
 */
bool weir_domain_plan_check_places(const WeirPolicy *policy, GError **error);

/* NULL is fine. */
void weir_domain_plan_free(WeirDomainPlan *plan);

/*
 * Make the files that are to be made, note what the disks must not be used
 * without from now on, and leave the chains in directory @dir of
 * the domain.  If it fails, nothing is left there.
 */
bool weir_domain_plan_save(const WeirDomainPlan *plan, const char *dir,
                           GError **error);

/* Make directory @dir of a domain, if it is missing. */
bool weir_domain_plan_mkdir(const char *dir, GError **error);

/* QEMU has read the secrets. */
void weir_domain_plan_forget_secrets(const char *dir);

/* The domain @name has ended. */
void weir_domain_plan_end(const char *dir, const char *name);

/* Remove what was left. */
void weir_domain_plan_remove(const char *dir);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirDomainPlan, weir_domain_plan_free)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A domain of libvirt that runs, taken in hand: what libvirt knows of it, what
 * the record tells, and the graph.
 *
 * Whoever changes it has the lock of its directory, so that a command and weir
 * watch do not do so at the same time.
 *
 *   /run/weir-libvirt/UUID/NAME.json      the record
 *   /run/weir-libvirt/UUID/lock           held while it is changed
 */
#ifndef WEIR_HOLD_H
#define WEIR_HOLD_H

#include "domain.h"
#include "hypervisor.h"
#include "live.h"

typedef struct WeirHold {
    virDomainPtr domain;
    char *name;
    char *uuid;
    char *dir;              /* of the domain */
    char *xml;              /* as it runs */
    WeirDomain *parsed;     /* of @xml; NULL as the record is */
    int id;                 /* libvirt's number for this run of it */
    int lock;               /* descriptor; -1: it is only looked at */
    /*
     * Its disks are those that the domain has now and that the record or the
     * metadata know.  These two are NULL if there is neither, and it is only
     * looked at.
     */
    WeirRecord *record;
    WeirGraph *graph;
    GHashTable *images;     /* target -> image that the record has told of;
                               empty if it is only looked at */
} WeirHold;

/*
 * Take a domain in hand.
 *
 * @change: whether it is going to be changed.  Then others are waited for, for
 *     up to some seconds
 * Blocks.  Returns what the caller frees with weir_hold_free(), or NULL with
 * @error set.
 */
WeirHold *weir_hold_open(virDomainPtr domain, bool change, GError **error);

/* NULL is fine. */
void weir_hold_free(WeirHold *hold);

/* Look anew, after a change. */
bool weir_hold_refresh(WeirHold *hold, GError **error);

/*
 * Let the record have a disk that no policy is assigned to.  Returns false with
 * @error set if there is none, or it can have no policy.
 */
bool weir_hold_add(WeirHold *hold, const char *target, GError **error);

/*
 * To change disk @target, see live.h.  @hold has to be looked at anew
 * afterwards, and has to stay until the result is freed.
 */
WeirLive *weir_hold_live(WeirHold *hold, const char *target,
                         const WeirLiveReport *report, GError **error);

/*
 * Whether libvirt can go on with the disk as @change makes it.  @error tells
 * why not:
 *
 *   With checkpoints it opens images of a backing chain anew, past what was
 *   attached meanwhile: the data of a write-back cache would be missing.
 *   Without a format node, it knows the disk by the node that a filter would
 *   be above, or that is the filter which goes.
 */
bool weir_hold_allows(const WeirHold *hold, const WeirRecordDisk *disk,
                      const WeirChange *change, GError **error);

/*
 * Assign policies (NULL: none) to a disk: @next in the XML of the next start,
 * @now in that of this one.  Returns false with @error set; then the first of
 * them may be assigned.
 */
bool weir_hold_assign(WeirHold *hold, const char *target, const char *next,
                      const char *now, GError **error);

/*
 * The policy of a disk at the next start, to be freed; NULL: none.  As now if
 * there is no next start, or it is without the disk.
 */
char *weir_hold_next(const WeirHold *hold, const char *target);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirHold, weir_hold_free)

#endif

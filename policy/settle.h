/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Have the disks of a domain that runs what is assigned to them in its
 * metadata, where libvirt has taken that away: by a snapshot, a copy, or since
 * nobody was asked when a disk was plugged in.
 *
 *   note the gap (gaps.h)
 *   delete filters that nobody uses any more
 *   bring each disk that lacks filters under its policy, as weir reapply
 *   note the end of the gap, or why it stays
 *
 * A disk whose filters are there is left alone, whatever its policy says now.
 */
#ifndef WEIR_SETTLE_H
#define WEIR_SETTLE_H

#include "gaps.h"
#include "hypervisor.h"

typedef struct WeirSettle {
    const char *bin_dir;        /* as in weir_program_find() */
    char *const *dirs;          /* of policies; NULL: where they were found */
    const char *gaps_dir;       /* see gaps.h */
    gint64 seen_ms;             /* when all was seen to be well; 0: never */
    /*
     * When libvirt told of something (gint64 *, ms since 1970), by the disk's
     * target, its device or its highest node; may be NULL.
     */
    GHashTable *told;
    /* Each line that somebody should read; may be NULL. */
    void (*tell)(const char *line);
} WeirSettle;

/* What has become of a domain. */
typedef struct WeirSettled {
    bool is_ours;               /* it has policies */
    guint established;          /* disks that lacked filters, and have them */
    guint refused;              /* disks that lack filters still */
    guint deleted;              /* filters that nobody used */
} WeirSettled;

/*
 * Do it.  A domain without policies is looked at only.
 *
 * Blocks, for long if a cache has to be written back.  Returns false with
 * @error set if it is not known how the disks are, or if filters are left.
 */
bool weir_settle(virDomainPtr domain, const WeirSettle *settle,
                 WeirSettled *settled, GError **error);

/* The domain has ended: so have its gaps. */
void weir_settle_end(const char *uuid, const char *name,
                     const WeirSettle *settle);

#endif

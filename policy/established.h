/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a disk of a libvirt domain is under the policy that is assigned to
 * it, now and from the next start on, and since when it was not.
 */
#ifndef WEIR_ESTABLISHED_H
#define WEIR_ESTABLISHED_H

#include "compliance.h"

/* What a domain's XML says of a disk. */
typedef struct WeirPledge {
    const char *now;        /* its policy as the domain runs; NULL: none */
    const char *next;       /* from the next start on */
} WeirPledge;

/* A disk that complies with what was established may lack what is assigned. */
void weir_established_compare(WeirDiskStatus *status,
                              const WeirPledge *pledge);

/* Add the gaps of the disk, see gaps.h; the domain is on this machine. */
void weir_established_add_gaps(WeirDiskStatus *status, const char *uuid);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which policies put disks out of process, for weir_transform(). */
#ifndef WEIR_OUTSIDE_H
#define WEIR_OUTSIDE_H

#include "daemon.h"

typedef struct WeirOutside {
    char *const *dirs;      /* of the policies */
    const char *bin_dir;    /* as in weir_program_find() */
    WeirDaemon *daemon;     /* started when there is a policy to look at */
} WeirOutside;

/*
 * Whether that one does.  One that cannot be found here, or is wrong, does not:
 * it is told when the domain is started.  @opaque: a WeirOutside
 */
bool weir_outside_is(void *opaque, const char *policy);

void weir_outside_clear(WeirOutside *outside);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirOutside, weir_outside_clear)

#endif

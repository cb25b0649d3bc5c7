/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are believed. */
#ifndef WEIR_OURS_H
#define WEIR_OURS_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether that open file is of @type, S_IFREG for instance, and nobody but
   this user can write to it. */
bool weir_is_ours(int fd, mode_t type);

#endif

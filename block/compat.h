/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Differences between the versions of QEMU that Weir is built into. */
#ifndef WEIR_COMPAT_H
#define WEIR_COMPAT_H

#include "block/block-common.h"

/*
 * What .bdrv_co_block_status is told of the caller's wishes: whether zeroes
 * are to be found out (10.0), or a mask (since 10.1).
 */
#ifdef BDRV_WANT_PRECISE
typedef unsigned int WeirStatusMode;
#else
typedef bool WeirStatusMode;
#endif

#endif

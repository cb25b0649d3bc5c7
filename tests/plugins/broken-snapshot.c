/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Holds the last write, and keeps it when the disk gets an overlay. */
#define RIGHT
#define SNAPSHOT
#include "broken-detach.c"

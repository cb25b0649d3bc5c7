/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two disks that NBD servers export, compared. */
#ifndef WEIR_COMPARE_H
#define WEIR_COMPARE_H

#include <stdbool.h>

#include "error.h"

typedef struct WeirComparison {
    guint64 bytes;              /* of the disks */
    guint64 read_bytes;         /* of each; the rest is unallocated on both */
    guint64 different_bytes;    /* in pieces of WEIR_COMPARE_PIECE_BYTES */
    guint64 first_different;    /* where the first one begins */
} WeirComparison;

#define WEIR_COMPARE_PIECE_BYTES 4096

/*
 * Compare two disks.
 *
 * @a, @b: NBD URIs
 * @progress: called after each some MiB with 0 to 1; may be NULL
 * Blocks.  What block status calls unallocated zeroes on both is not read.
 * Returns false with @error set if one cannot be read, or they differ in
 * length.
 */
bool weir_compare(const char *a, const char *b, WeirComparison *result,
                  void (*progress)(double done), GError **error);

/* The same; differs(opaque) is told each piece that differs. */
typedef void (*WeirCompareFn)(void *opaque, guint64 offset, guint64 bytes);

bool weir_compare_pieces(const char *a, const char *b, WeirComparison *result,
                         WeirCompareFn differs, void *opaque,
                         void (*progress)(double done), GError **error);

#endif

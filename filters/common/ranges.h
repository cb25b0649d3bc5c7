/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_RANGES_H
#define WEIR_COMMON_RANGES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Requests under way, by their ranges, in the order in which they came. One
 * goes on when no earlier one is in its way, so nobody starves, and since
 * everybody has one range only, nobody waits in a circle. The caller locks, and
 * has those who wait look again when one was removed.
 *
 *            READ  WRITE  HOLD  CONVERT
 *   READ      -     -      -     x
 *   WRITE     -     -      x     x
 *   HOLD      -     x      x     x        x: in each other's way
 *   CONVERT   x     x      x     x
 */

typedef enum WeirRangeKind {
    WEIR_RANGE_READ,
    WEIR_RANGE_WRITE,           /* no block turns from old to new */
    WEIR_RANGE_HOLD,            /* the blocks must stay what they are */
    WEIR_RANGE_CONVERT,         /* blocks turn from old to new */
} WeirRangeKind;

typedef struct WeirRange {
    uint64_t offset, bytes;
    WeirRangeKind kind;
    struct WeirRange *next;
} WeirRange;

typedef struct WeirRanges {
    WeirRange *first;
    WeirRange **end;
} WeirRanges;

void weir_ranges_init(WeirRanges *ranges);

/* Behind all others. It stays the caller's. */
void weir_ranges_add(WeirRanges *ranges, WeirRange *range);
void weir_ranges_remove(WeirRanges *ranges, WeirRange *range);

/* Whether no earlier one is in its way. */
bool weir_ranges_may_go(const WeirRanges *ranges, const WeirRange *range);

#endif

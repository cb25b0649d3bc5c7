/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stddef.h>

#include "common/ranges.h"

void weir_ranges_init(WeirRanges *ranges)
{
    ranges->first = NULL;
    ranges->end = &ranges->first;
}

void weir_ranges_add(WeirRanges *ranges, WeirRange *range)
{
    range->next = NULL;
    *ranges->end = range;
    ranges->end = &range->next;
}

void weir_ranges_remove(WeirRanges *ranges, WeirRange *range)
{
    WeirRange **link = &ranges->first;

    while (*link != range) {
        link = &(*link)->next;
    }
    *link = range->next;
    if (!range->next) {
        ranges->end = link;
    }
}

static bool is_in_the_way(const WeirRange *a, const WeirRange *b)
{
    static const bool table[4][4] = {
        [WEIR_RANGE_READ] = { false, false, false, true },
        [WEIR_RANGE_WRITE] = { false, false, true, true },
        [WEIR_RANGE_HOLD] = { false, true, true, true },
        [WEIR_RANGE_CONVERT] = { true, true, true, true },
    };

    return a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes && table[a->kind][b->kind];
}

bool weir_ranges_may_go(const WeirRanges *ranges, const WeirRange *range)
{
    for (const WeirRange *r = ranges->first; r != range; r = r->next) {
        if (is_in_the_way(r, range)) {
            return false;
        }
    }
    return true;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "prefix.h"

#include <stdlib.h>
#include <string.h>

/* From `index` things on, a sector has this stamp, a disk this length. */
typedef struct Value {
    uint32_t index, value;
} Value;

typedef struct History {
    Value *values;
    uint32_t count, room;
} History;

static History sectors[PREFIX_DISKS][PREFIX_SECTORS], lengths[PREFIX_DISKS];
static uint32_t done;

static void push(History *h, uint32_t value)
{
    if (h->count == h->room) {
        h->room = h->room ? 2 * h->room : 64;
        h->values = realloc(h->values, h->room * sizeof(*h->values));
    }
    h->values[h->count++] = (Value) { done, value };
}

void prefix_reset(uint64_t bytes)
{
    done = 0;
    for (int d = 0; d < PREFIX_DISKS; d++) {
        lengths[d].count = 0;
        push(&lengths[d], (uint32_t)bytes);
        for (int i = 0; i < PREFIX_SECTORS; i++) {
            sectors[d][i].count = 0;
            push(&sectors[d][i], 0);
        }
    }
}

void prefix_stamp(uint8_t *data, uint64_t bytes, uint32_t stamp)
{
    memset(data, (int)stamp, bytes);
    for (uint64_t at = 0; at < bytes; at += PREFIX_SECTOR) {
        memcpy(data + at, &stamp, sizeof(stamp));
        memcpy(data + at + PREFIX_SECTOR - sizeof(stamp), &stamp,
               sizeof(stamp));
    }
}

/* UINT32_MAX: half of it is from something else. */
static uint32_t stamp_of(const uint8_t *sector)
{
    uint32_t first, last;

    memcpy(&first, sector, sizeof(first));
    memcpy(&last, sector + PREFIX_SECTOR - sizeof(last), sizeof(last));
    return first == last ? first : UINT32_MAX;
}

static void take(int disk, uint64_t offset, uint64_t end, const uint8_t *now)
{
    for (uint64_t at = offset; at < end; at += PREFIX_SECTOR) {
        push(&sectors[disk][at / PREFIX_SECTOR], stamp_of(now + at));
    }
}

void prefix_change(int disk, uint64_t offset, uint64_t bytes,
                   const uint8_t *now)
{
    done++;
    take(disk, offset, offset + bytes, now);
}

void prefix_resize(int disk, uint64_t bytes, const uint8_t *now)
{
    uint64_t old = lengths[disk].values[lengths[disk].count - 1].value;

    done++;
    push(&lengths[disk], (uint32_t)bytes);
    take(disk, old, bytes, now);
}

uint32_t prefix_count(void)
{
    return done;
}

/* The first moment from `from` on with that value. */
static uint32_t first_with(const History *h, uint32_t value, uint32_t from)
{
    uint32_t low = 0, high = h->count;

    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;

        if (h->values[middle].index <= from) {
            low = middle;
        } else {
            high = middle;
        }
    }
    for (uint32_t i = low; i < h->count; i++) {
        if (h->values[i].value == value) {
            return h->values[i].index > from ? h->values[i].index : from;
        }
    }
    return PREFIX_NONE;
}

/* All that the image says of one disk is so from then on, or later. */
static uint32_t find_disk(const PrefixImage *image, int disk, uint32_t from)
{
    from = first_with(&lengths[disk], (uint32_t)image->bytes[disk], from);
    for (uint64_t at = 0; at < image->bytes[disk] && from != PREFIX_NONE;
         at += PREFIX_SECTOR) {
        from = first_with(&sectors[disk][at / PREFIX_SECTOR],
                          stamp_of(image->data[disk] + at), from);
    }
    return from;
}

uint32_t prefix_find(const PrefixImage *image, uint32_t from)
{
    uint32_t before;

    do {
        before = from;
        for (int d = 0; d < PREFIX_DISKS && from != PREFIX_NONE; d++) {
            from = find_disk(image, d, from);
        }
    } while (from != before && from != PREFIX_NONE);
    return from;
}

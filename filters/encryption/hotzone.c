/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/hotzone.h"

#define HASH_BYTES_MAX 64

void weir_hotzone_init(WeirHotzone *zone, uint32_t block_bytes, int hash,
                       uint32_t hash_bytes)
{
    *zone = (WeirHotzone) {
        .block_bytes = block_bytes, .hash = hash, .hash_bytes = hash_bytes,
    };
}

void weir_hotzone_destroy(WeirHotzone *zone)
{
    free(zone->states);
    free(zone->taken);
    free(zone->sums);
}

static int grow(WeirHotzone *zone, uint64_t blocks)
{
    uint8_t *states, *taken, *sums;

    if (blocks <= zone->room_blocks) {
        return 0;
    }
    states = malloc(blocks);
    taken = malloc(blocks);
    sums = malloc(blocks * zone->hash_bytes);
    if (!states || !taken || !sums) {
        free(states);
        free(taken);
        free(sums);
        return -ENOMEM;
    }
    weir_hotzone_destroy(zone);
    zone->states = states;
    zone->taken = taken;
    zone->sums = sums;
    zone->room_blocks = blocks;
    return 0;
}

int weir_hotzone_begin(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                       WeirBlockState state)
{
    uint64_t blocks = bytes / zone->block_bytes;
    int ret = grow(zone, blocks);

    if (ret < 0) {
        return ret;
    }
    zone->offset = offset;
    zone->bytes = bytes;
    zone->left = state == WEIR_BLOCK_NEW ? 0 : blocks;
    memset(zone->states, state, blocks);
    return 0;
}

void weir_hotzone_end(WeirHotzone *zone)
{
    zone->bytes = zone->left = 0;
}

bool weir_hotzone_touches(const WeirHotzone *zone, uint64_t offset,
                          uint64_t bytes)
{
    return offset < zone->offset + zone->bytes &&
           zone->offset < offset + bytes;
}

void weir_hotzone_clip(const WeirHotzone *zone, uint64_t *offset,
                       uint64_t *bytes)
{
    uint64_t end = *offset + *bytes, zone_end = zone->offset + zone->bytes;

    *offset = *offset > zone->offset ? *offset : zone->offset;
    end = end < zone_end ? end : zone_end;
    *bytes = end > *offset ? end - *offset : 0;
}

static uint64_t block_of(const WeirHotzone *zone, uint64_t offset)
{
    return (offset - zone->offset) / zone->block_bytes;
}

WeirBlockState weir_hotzone_state(const WeirHotzone *zone, uint64_t offset,
                                  uint64_t max_bytes, uint64_t *same_bytes)
{
    uint64_t first = block_of(zone, offset);
    uint64_t end = block_of(zone, offset + max_bytes), at = first;

    while (at < end && zone->states[at] == zone->states[first]) {
        at++;
    }
    *same_bytes = (at - first) * zone->block_bytes;
    return zone->states[first];
}

bool weir_hotzone_has(const WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                      WeirBlockState state)
{
    return memchr(zone->states + block_of(zone, offset), state,
                  bytes / zone->block_bytes);
}

void weir_hotzone_set(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                      WeirBlockState state)
{
    uint64_t first = block_of(zone, offset);

    for (uint64_t i = first; i < first + bytes / zone->block_bytes; i++) {
        if (zone->states[i] != WEIR_BLOCK_NEW) {
            zone->states[i] = state;
            zone->left -= state == WEIR_BLOCK_NEW;
        }
    }
}

void weir_hotzone_spoil(WeirHotzone *zone, uint64_t offset, uint64_t bytes)
{
    uint64_t first = block_of(zone, offset);

    for (uint64_t i = first; i < first + bytes / zone->block_bytes; i++) {
        zone->left += zone->states[i] == WEIR_BLOCK_NEW;
        zone->states[i] = WEIR_BLOCK_OLD;
    }
}

bool weir_hotzone_take(WeirHotzone *zone)
{
    uint64_t blocks = zone->bytes / zone->block_bytes;
    bool any = false;

    for (uint64_t i = 0; i < blocks; i++) {
        zone->taken[i] = zone->states[i] == WEIR_BLOCK_UNKNOWN;
        if (zone->taken[i]) {
            zone->states[i] = WEIR_BLOCK_OLD;
            any = true;
        }
    }
    return any;
}

bool weir_hotzone_next_taken(const WeirHotzone *zone, uint64_t *offset,
                             uint64_t max_bytes, uint64_t *bytes)
{
    uint64_t at = block_of(zone, *offset), blocks = zone->bytes /
                                                    zone->block_bytes;
    uint64_t most = max_bytes / zone->block_bytes, n = 0;

    while (at < blocks && !zone->taken[at]) {
        at++;
    }
    while (n < most && at + n < blocks && zone->taken[at + n]) {
        n++;
    }
    *offset = zone->offset + at * zone->block_bytes;
    *bytes = n * zone->block_bytes;
    return n > 0;
}

void weir_hotzone_taken_sums(const WeirHotzone *zone, uint64_t *begin,
                             uint64_t *end)
{
    uint64_t blocks = zone->bytes / zone->block_bytes;
    const uint8_t *first = memchr(zone->taken, 1, blocks);
    const uint8_t *last = memrchr(zone->taken, 1, blocks);

    *begin = first ? (first - zone->taken) * zone->hash_bytes : 0;
    *end = last ? (last - zone->taken + 1) * zone->hash_bytes : 0;
}

void weir_hotzone_sum(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                      const void *raw)
{
    uint8_t *sum = zone->sums + block_of(zone, offset) * zone->hash_bytes;

    for (uint64_t at = 0; at < bytes; at += zone->block_bytes) {
        gcry_md_hash_buffer(zone->hash, sum, (const uint8_t *)raw + at,
                            zone->block_bytes);
        sum += zone->hash_bytes;
    }
}

void weir_hotzone_resolve(WeirHotzone *zone, uint64_t offset, uint64_t bytes,
                          const void *raw)
{
    uint64_t first = block_of(zone, offset);
    uint8_t sum[HASH_BYTES_MAX];

    for (uint64_t i = 0; i < bytes / zone->block_bytes; i++) {
        const uint8_t *old = zone->sums + (first + i) * zone->hash_bytes;

        if (zone->states[first + i] != WEIR_BLOCK_UNKNOWN) {
            continue;
        }
        gcry_md_hash_buffer(zone->hash, sum, (const uint8_t *)raw +
                            i * zone->block_bytes, zone->block_bytes);
        weir_hotzone_set(zone, offset + i * zone->block_bytes,
                         zone->block_bytes,
                         memcmp(sum, old, zone->hash_bytes) ? WEIR_BLOCK_NEW
                                                            : WEIR_BLOCK_OLD);
    }
}

uint64_t weir_hotzone_sums_bytes(const WeirHotzone *zone)
{
    return zone->bytes / zone->block_bytes * zone->hash_bytes;
}

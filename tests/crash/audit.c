/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "audit.h"

#include <stdlib.h>
#include <string.h>

#include "cache/cache-int.h"
#include "host.h"
#include "model.h"
#include "report.h"

/* --- the cache in memory --- */

typedef struct Count {
    uint32_t mapped, dirty, free;
} Count;

static Count count_slots(const WeirCacheIndex *ix)
{
    Count n = { 0 };

    for (uint32_t slot = 0; slot < ix->slots; slot++) {
        uint8_t flags = ix->flags[slot];
        bool is_free = weir_cache_index_is_free(ix, slot);

        if (flags & WEIR_SLOT_MAPPED && is_free) {
            fail("slot %u is mapped and free", slot);
        }
        if (!(flags & WEIR_SLOT_MAPPED) && flags) {
            fail("slot %u has flags %x and no block", slot, flags);
        }
        n.mapped += !!(flags & WEIR_SLOT_MAPPED);
        n.dirty += !!(flags & WEIR_SLOT_DIRTY);
        n.free += is_free;
    }
    return n;
}

static void audit_counts(const WeirCache *c)
{
    Count n = count_slots(&c->ix);

    if (n.mapped != c->ix.mapped || n.dirty != c->ix.dirty ||
        n.free != c->ix.free) {
        fail("counted %u mapped %u dirty %u free, told %u %u %u", n.mapped,
             n.dirty, n.free, c->ix.mapped, c->ix.dirty, c->ix.free);
    }
    if ((uint64_t)n.mapped + n.free + c->quarantined > c->ix.slots) {
        fail("%u mapped + %u free + %u quarantined of %u slots", n.mapped,
             n.free, c->quarantined, c->ix.slots);
    }
}

/* No block is in two slots, and each one is found where it is. */
static void audit_blocks(const WeirCache *c)
{
    for (uint32_t slot = 0; slot < c->ix.slots; slot++) {
        uint64_t block = weir_cache_index_block(&c->ix, slot);
        uint32_t found;

        if (!(c->ix.flags[slot] & WEIR_SLOT_MAPPED)) {
            continue;
        }
        found = weir_cache_index_find(&c->ix, block);
        if (found != slot) {
            fail("block %llu is in slot %u and found in %d",
                 (unsigned long long)block, slot, (int)found);
        }
        if (block >= blocks_of(c->base_bytes)) {
            fail("slot %u has block %llu behind the end", slot,
                 (unsigned long long)block);
        }
    }
}

/* Nothing that requests held is left. */
static void audit_rest(const WeirCache *c)
{
    uint64_t slots = (uint64_t)c->ix.mapped + c->ix.free + c->quarantined;

    if (slots != c->ix.slots) {
        fail("%u mapped + %u free + %u quarantined, not %u slots",
             c->ix.mapped, c->ix.free, c->quarantined, c->ix.slots);
    }
    if (c->reserved || c->writing || c->misses || c->fills ||
        c->slot_waiters || c->batch_workers) {
        fail("left: %u reserved, writing %p, misses %p, %u fills, %u waiters, "
             "%u workers", c->reserved, (void *)c->writing, (void *)c->misses,
             c->fills, c->slot_waiters, c->batch_workers);
    }
    for (int i = 0; i < GENERATIONS; i++) {
        if (c->generation[i].readers) {
            fail("readers left in generation %d", i);
        }
    }
    for (int i = 0; i < WEIR_CACHE_REGIONS; i++) {
        if (c->region[i].users) {
            fail("users left in region %d", i);
        }
    }
}

/* A clean block that is believed is what the base has. */
static void audit_content(const WeirCache *c)
{
    static const uint8_t zeroes[WEIR_CACHE_BLOCK_BYTES];

    for (uint32_t slot = 0; slot < c->ix.slots; slot++) {
        uint64_t block = weir_cache_index_block(&c->ix, slot);
        const uint8_t *data = c->ix.flags[slot] & WEIR_SLOT_ZERO
                              ? zeroes : host.fast.now + slot_offset(c, slot);

        if (!(c->ix.flags[slot] & WEIR_SLOT_MAPPED)) {
            continue;
        }
        if (data != zeroes && crc_of(c, block, data) != c->ix.node[slot].crc) {
            fail("slot %u has not the data of block %llu", slot,
                 (unsigned long long)block);
        }
        if (!(c->ix.flags[slot] & (WEIR_SLOT_DIRTY | WEIR_SLOT_SUSPECT)) &&
            memcmp(data, host.base.now + block * WEIR_CACHE_BLOCK_BYTES,
                   WEIR_CACHE_BLOCK_BYTES)) {
            fail("clean block %llu is not what the base has",
                 (unsigned long long)block);
        }
    }
}

void audit_cache(bool quiet)
{
    weir_cache_lock(host.cache);
    audit_counts(host.cache);
    audit_blocks(host.cache);
    if (quiet) {
        audit_rest(host.cache);
        audit_content(host.cache);
    }
    weir_cache_unlock(host.cache);
}

/* --- the base --- */

void audit_base(bool quiet)
{
    WeirCacheInfo info;

    weir_cache_query(host.cache, &info);
    if (info.dirty) {
        return;
    }
    for (uint32_t i = 0; i < model.blocks; i++) {
        uint64_t at = (uint64_t)i * WEIR_CACHE_BLOCK_BYTES;

        if (quiet) {
            model_check_image(i, host.base.now + at, "of the base");
        } else if (at >= host.base.stable_bytes) {
            model_check_absent(i, "of the base, flushed,");
        } else {
            model_check_cut(i, host.base.stable + at, "of the base, flushed");
        }
    }
}

static bool may_be_dirty(void)
{
    WeirCacheSuperblock sb, best = { 0 };

    for (int i = 0; i < WEIR_CACHE_SUPERBLOCKS; i++) {
        if (weir_cache_superblock_read(&sb, host.fast.now +
                                       i * WEIR_CACHE_SUPERBLOCK_BYTES,
                                       host.fast.bytes) == 0 &&
            sb.sequence > best.sequence) {
            best = sb;
        }
    }
    return best.dirty;
}

void audit_cut(void)
{
    if (may_be_dirty()) {
        return;
    }
    for (uint32_t i = 0; i < model.blocks; i++) {
        uint64_t at = (uint64_t)i * WEIR_CACHE_BLOCK_BYTES;

        if (at < host.base.bytes) {
            model_check_cut(i, host.base.now + at, "of the base, after a cut");
        } else {
            model_check_absent(i, "of the base, after a cut,");
        }
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests that go past the cache to the base.
 *
 * Such a request changes the base under blocks that the cache may hold as
 * clean. A crash may keep the change and lose the record that the cached block
 * is no longer good. So before the base changes somewhere, the region is put
 * on record as open, for good (rule 7), and stays open for some seconds after
 * the last change, until a flush of the base. After a crash the clean blocks
 * of open regions are not believed before they are compared with the base.
 *
 * Nor may a crash bring back as dirty what has been written back since: that
 * would hide the change for good. So all records of clean blocks, too, are
 * durable before the base changes.
 *
 *   closed --regions_enter--> open --regions_close_idle--> closed
 */
#include "cache/cache-int.h"

#define CLOSE_BATCH 1024                /* fits in the margin of the journal */

static uint64_t region_of(const WeirCache *c, uint64_t block)
{
    uint64_t region = block >> c->sb.region_shift;

    /* a base that has grown: its end shares the last region */
    return region < WEIR_CACHE_REGIONS ? region : WEIR_CACHE_REGIONS - 1;
}

static uint64_t append_open(WeirCache *c, uint64_t region)
{
    return journal_append(c, &(WeirCacheRecord) {
        .op = WEIR_CACHE_OP_OPEN, .block = region,
    });
}

/*
 * Nothing is put on record any more, see fast_failed(). Without dirty blocks
 * the cache is dropped at the next opening; with them its clean blocks would
 * hide what goes past now. Yields.
 */
static int enter_unrecorded(WeirCache *c)
{
    if (c->ix.dirty || request_error(c)) {
        return c->fast_error;
    }
    if (!c->tried_stale) {
        c->tried_stale = true;
        superblock_mark_stale(c);
    }
    return 0;
}

int regions_enter(WeirCache *c, uint64_t block, uint64_t count)
{
    uint64_t first = region_of(c, block);
    uint64_t last = region_of(c, block + count - 1);
    uint64_t sequence = c->clean;
    int ret;

    if (c->fast_error) {
        return enter_unrecorded(c);
    }
    for (uint64_t i = first; i <= last; i++) {
        Region *r = &c->region[i];

        r->users++;
        r->used = true;
        if (!r->open) {
            r->open = true;
            r->sequence = append_open(c, i);
        }
        sequence = r->sequence > sequence ? r->sequence : sequence;
    }
    ret = WITHOUT_RULE(7) ? 0 : journal_commit(c, sequence);
    if (c->fast_error) {
        ret = enter_unrecorded(c);
    }
    if (ret < 0) {
        regions_leave(c, block, count);
    }
    return ret;
}

void regions_leave(WeirCache *c, uint64_t block, uint64_t count)
{
    uint64_t last = region_of(c, block + count - 1);

    for (uint64_t i = region_of(c, block); i <= last; i++) {
        if (c->region[i].users > 0) {
            c->region[i].users--;
        }
    }
}

void regions_append(WeirCache *c)
{
    for (uint64_t i = 0; i < WEIR_CACHE_REGIONS; i++) {
        if (c->region[i].open) {
            c->region[i].sequence = append_open(c, i);
        }
    }
}

/* Close what was idle since before the flush. */
static bool close_unused(WeirCache *c, const bool *idle)
{
    uint32_t most = CLOSE_BATCH;
    bool any = false;

    for (uint64_t i = 0; i < WEIR_CACHE_REGIONS; i++) {
        Region *r = &c->region[i];

        if (r->open && idle[i] && !r->users && !r->used && most) {
            most--;
            r->open = false;
            journal_append(c, &(WeirCacheRecord) {
                .op = WEIR_CACHE_OP_CLOSE, .block = i,
            });
        }
        any |= r->open;
    }
    return any;
}

bool regions_close_idle(WeirCache *c, bool all)
{
    bool idle[WEIR_CACHE_REGIONS];
    bool any_idle = false, any = false;

    for (uint64_t i = 0; i < WEIR_CACHE_REGIONS; i++) {
        Region *r = &c->region[i];

        any |= r->open;
        idle[i] = r->open && !r->users && (all || !r->used);
        any_idle |= idle[i];
        r->used = r->users > 0;
    }
    if (!any_idle || c->fast_error || base_sync(c) < 0) {
        return any;
    }
    return close_unused(c, idle);
}

bool regions_is_open(const WeirCache *c, uint64_t block)
{
    return c->region[region_of(c, block)].open;
}

bool regions_any_open(const WeirCache *c)
{
    for (uint64_t i = 0; i < WEIR_CACHE_REGIONS; i++) {
        if (c->region[i].open) {
            return true;
        }
    }
    return false;
}

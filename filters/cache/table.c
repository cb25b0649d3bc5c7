/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of slots on the device: what the journal says, folded. It is saved
 * when the journal has become half full, and at the end.
 *
 * A sector tells by its LSN which journal blocks it has in it. It is written
 * only when these are durable; and the journal's tail moves on only when all
 * sectors that had changed are durable. Sectors are of 512 bytes and checked
 * one by one, since a device may tear what it writes, but not a sector.
 */
#include "cache/cache-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef BATCH_SECTORS
#define BATCH_SECTORS 256
#endif

typedef struct Batch {
    uint32_t sector[BATCH_SECTORS];     /* rising */
    uint32_t count;
    uint8_t data[BATCH_SECTORS * WEIR_CACHE_SECTOR_BYTES];
} Batch;

static void table_encode(const WeirCache *c, uint32_t sector, uint64_t lsn,
                  uint8_t *data)
{
    uint32_t first = sector * WEIR_CACHE_SECTOR_SLOTS;

    memset(data, 0, WEIR_CACHE_SECTOR_BYTES);
    for (uint32_t i = 0; i < WEIR_CACHE_SECTOR_SLOTS &&
         first + i < c->ix.slots; i++) {
        uint32_t slot = first + i;

        if (c->ix.flags[slot] & WEIR_SLOT_MAPPED) {
            weir_cache_entry_write(data, i, &(WeirCacheTableEntry) {
                .block = weir_cache_index_block(&c->ix, slot),
                .crc = c->ix.node[slot].crc,
                .flags = c->ix.flags[slot] & ~WEIR_SLOT_WRITE_BACK,
            });
        }
    }
    weir_cache_sector_seal(data, lsn, sector, c->crc_seed);
}

/* The next sectors that have changed, as they are now. */
static void take_changed(WeirCache *c, uint32_t *from, uint64_t lsn,
                         Batch *batch)
{
    uint32_t words = (c->layout.table_sectors + 63) / 64;

    batch->count = 0;
    while (*from / 64 < words && batch->count < BATCH_SECTORS) {
        uint64_t bits = c->table_dirty[*from / 64] &
                        (UINT64_MAX << *from % 64);
        uint32_t sector;

        if (!bits) {
            *from = *from / 64 * 64 + 64;
            continue;
        }
        sector = *from / 64 * 64 + (uint32_t)__builtin_ctzll(bits);
        c->table_dirty[sector / 64] &= ~(UINT64_C(1) << sector % 64);
        c->table_dirty_count--;
        table_encode(c, sector, lsn, batch->data + (size_t)batch->count *
                     WEIR_CACHE_SECTOR_BYTES);
        batch->sector[batch->count++] = sector;
        *from = sector + 1;
    }
}

/* Yields; not locked. */
static int write_batch(WeirCache *c, const Batch *batch)
{
    int ret = 0;

    for (uint32_t i = 0, n; i < batch->count && ret == 0; i += n) {
        for (n = 1; i + n < batch->count &&
             batch->sector[i + n] == batch->sector[i] + n; n++) {
        }
        ret = fast_write(c, c->layout.table_offset +
                         (uint64_t)batch->sector[i] * WEIR_CACHE_SECTOR_BYTES,
                         (uint64_t)n * WEIR_CACHE_SECTOR_BYTES,
                         batch->data + (size_t)i * WEIR_CACHE_SECTOR_BYTES);
    }
    return ret;
}

int table_write_changed(WeirCache *c, uint64_t lsn)
{
    Batch *batch = malloc(sizeof(*batch));
    uint32_t from = 0;
    int ret = batch ? 0 : -ENOMEM;

    while (ret == 0) {
        uint64_t now = lsn;

        if (!lsn) {
            journal_seal(c);
            now = c->next - 1;
        }
        take_changed(c, &from, now, batch);
        if (!batch->count) {
            break;
        }
        if (!lsn) {
            ret = journal_commit(c, now);
        }
        if (ret == 0) {
            unlock(c);
            ret = write_batch(c, batch);
            lock(c);
            c->stat.table_written += batch->count;
        }
    }
    free(batch);
    return ret;
}

int table_save(WeirCache *c)
{
    uint64_t tail;
    int ret;

    while (c->saving) {
        wait_on(c, &c->commit_queue);
    }
    if (c->fast_error) {
        return c->fast_error;
    }
    c->saving = true;
    ret = journal_commit_all(c);
    journal_seal(c);
    tail = c->next;
    regions_append(c);
    if (ret == 0) {
        ret = table_write_changed(c, 0);
    }
    if (ret == 0) {
        unlock(c);
        ret = c->host->flush(c->opaque, WEIR_CACHE_FAST);
        lock(c);
        c->stat.fast_flushes++;
    }
    if (ret == 0) {
        c->tail = tail;
    } else {
        fast_failed(c, ret);
    }
    c->saving = false;
    wake(c, &c->commit_queue);
    wake(c, &c->room_queue);
    return ret;
}

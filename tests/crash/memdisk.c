/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "memdisk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512

void memdisk_init(MemDisk *disk, uint64_t bytes)
{
    memset(disk, 0, sizeof(*disk));
    disk->bytes = bytes;
    disk->now = calloc(1, bytes);
    disk->stable = calloc(1, bytes);
    for (int i = 0; i < MEM_OPS; i++) {
        disk->fail_after[i] = UINT64_MAX;
    }
}

static void request_free(MemRequest *r)
{
    free(r->data);
    free(r);
}

void memdisk_destroy(MemDisk *disk)
{
    for (uint32_t i = 0; i < disk->unsynced_count; i++) {
        request_free(disk->unsynced[i]);
    }
    free(disk->unsynced);
    free(disk->now);
    free(disk->stable);
}

static void apply(uint8_t *image, const MemRequest *r, uint64_t from,
                  uint64_t bytes)
{
    if (r->op == MEM_ZERO) {
        memset(image + r->offset + from, 0, bytes);
    } else {
        memcpy(image + r->offset + from, r->data + from, bytes);
    }
}

static bool fails(MemDisk *disk, MemOp op)
{
    if (disk->fail_after[op] == UINT64_MAX) {
        return false;
    }
    return disk->fail_after[op] == 0 || disk->fail_after[op]-- == 0;
}

int memdisk_request(MemDisk *disk, MemOp op, uint64_t offset, uint64_t bytes,
                    const void *data, void *buf)
{
    MemRequest *r;
    int result = 0;

    assert(offset <= disk->bytes && bytes <= disk->bytes - offset);
    if (disk->dead || fails(disk, op)) {
        return -EIO;
    }
    r = calloc(1, sizeof(*r));
    *r = (MemRequest) {
        .op = op, .offset = offset, .bytes = bytes, .buf = buf,
        .flushed = disk->unsynced_count, .coop = coop_self(),
        .result = &result, .next = disk->pending,
    };
    if (op == MEM_WRITE) {
        r->data = malloc(bytes);
        memcpy(r->data, data, bytes);
    }
    disk->pending = r;
    disk->pending_count++;
    coop_suspend();                     /* r may be gone afterwards */
    return result;
}

/* What the first `n` that ended did is stable now. */
static void sync_first(MemDisk *disk, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        apply(disk->stable, disk->unsynced[i], 0, disk->unsynced[i]->bytes);
        request_free(disk->unsynced[i]);
    }
    disk->unsynced_count -= n;
    memmove(disk->unsynced, disk->unsynced + n,
            disk->unsynced_count * sizeof(*disk->unsynced));
    for (MemRequest *r = disk->pending; r; r = r->next) {
        r->flushed = r->flushed > n ? r->flushed - n : 0;
    }
}

static void keep_unsynced(MemDisk *disk, MemRequest *r)
{
    if (disk->unsynced_count == disk->unsynced_room) {
        disk->unsynced_room = disk->unsynced_room * 2 + 64;
        disk->unsynced = realloc(disk->unsynced, disk->unsynced_room *
                                 sizeof(*disk->unsynced));
    }
    disk->unsynced[disk->unsynced_count++] = r;
}

static void end(MemDisk *disk, MemRequest *r)
{
    disk->count[r->op]++;
    switch (r->op) {
    case MEM_READ:
        memcpy(r->buf, disk->now + r->offset, r->bytes);
        request_free(r);
        break;
    case MEM_WRITE:
    case MEM_ZERO:
        apply(disk->now, r, 0, r->bytes);
        keep_unsynced(disk, r);
        break;
    case MEM_FLUSH:
        sync_first(disk, r->flushed);
        request_free(r);
        break;
    case MEM_OPS:
        abort();
    }
}

static MemRequest *take_pending(MemDisk *disk, uint32_t i)
{
    MemRequest **link = &disk->pending;
    MemRequest *r;

    while (i-- > 0) {
        link = &(*link)->next;
    }
    r = *link;
    *link = r->next;
    disk->pending_count--;
    return r;
}

bool memdisk_step(MemDisk *disk)
{
    MemRequest *r;
    Coop *coop;

    if (!disk->pending) {
        return false;
    }
    r = take_pending(disk, coop_below(disk->pending_count));
    coop = r->coop;
    end(disk, r);
    coop_ready(coop);
    return true;
}

/* Part of what a request wrote is there after the cut. */
static void cut_request(MemDisk *disk, const MemRequest *r, MemCut cut)
{
    uint32_t how = coop_below(cut == MEM_CUT_TEAR ? 3 : 2);

    if (cut == MEM_CUT_KEEP || (cut != MEM_CUT_DROP && how == 0)) {
        apply(disk->stable, r, 0, r->bytes);
    } else if (how == 2) {
        for (uint64_t at = 0; at < r->bytes; at += SECTOR) {
            if (coop_below(2)) {
                apply(disk->stable, r, at, r->bytes - at < SECTOR
                                           ? r->bytes - at : SECTOR);
            }
        }
    }
}

void memdisk_power_off(MemDisk *disk, MemCut cut)
{
    disk->dead = true;
    /* only where something was written do the images differ */
    for (uint32_t i = 0; i < disk->unsynced_count; i++) {
        const MemRequest *r = disk->unsynced[i];

        memcpy(disk->now + r->offset, disk->stable + r->offset, r->bytes);
    }
    for (uint32_t i = 0; i < disk->unsynced_count; i++) {
        cut_request(disk, disk->unsynced[i], cut);
    }
    for (MemRequest *r = disk->pending; r; r = r->next) {
        if (r->op == MEM_WRITE || r->op == MEM_ZERO) {
            cut_request(disk, r, cut == MEM_CUT_KEEP ? MEM_CUT_TEAR : cut);
            memcpy(disk->now + r->offset, disk->stable + r->offset, r->bytes);
        }
    }
    for (uint32_t i = 0; i < disk->unsynced_count; i++) {
        const MemRequest *r = disk->unsynced[i];

        memcpy(disk->now + r->offset, disk->stable + r->offset, r->bytes);
        request_free(disk->unsynced[i]);
    }
    disk->unsynced_count = 0;
    while (disk->pending) {
        MemRequest *r = take_pending(disk, 0);

        *r->result = -EIO;
        coop_ready(r->coop);
        request_free(r);
    }
}

void memdisk_power_on(MemDisk *disk)
{
    disk->dead = false;
}

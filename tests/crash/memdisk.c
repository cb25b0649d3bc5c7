/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "memdisk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512
#define PAGE 4096

void memdisk_init(MemDisk *disk, uint64_t bytes, uint64_t room_bytes)
{
    memset(disk, 0, sizeof(*disk));
    disk->bytes = disk->stable_bytes = bytes;
    disk->pages = (room_bytes + PAGE - 1) / PAGE;
    disk->now = calloc(disk->pages, PAGE);
    disk->stable = calloc(disk->pages, PAGE);
    disk->to_copy = calloc((disk->pages + 63) / 64, sizeof(uint64_t));
    disk->from_copy = calloc((disk->pages + 63) / 64, sizeof(uint64_t));
    memdisk_repair(disk);
}

void memdisk_repair(MemDisk *disk)
{
    for (int i = 0; i < MEM_OPS; i++) {
        disk->fault[i] = (MemFault) { .after = UINT64_MAX };
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
    free(disk->to_copy);
    free(disk->from_copy);
}

static void mark_changed(MemDisk *disk, uint64_t offset, uint64_t bytes)
{
    for (uint64_t p = offset / PAGE; p * PAGE < offset + bytes; p++) {
        disk->to_copy[p / 64] |= UINT64_C(1) << p % 64;
        disk->from_copy[p / 64] |= UINT64_C(1) << p % 64;
    }
}

/* Longer by zeroes, or shorter: there are zeroes behind the end anyway. */
static void set_length(MemDisk *disk, bool stable, uint64_t bytes)
{
    uint64_t *length = stable ? &disk->stable_bytes : &disk->bytes;

    if (bytes < *length) {
        memset((stable ? disk->stable : disk->now) + bytes, 0, *length - bytes);
        mark_changed(disk, bytes, *length - bytes);
    }
    *length = bytes;
}

/*
 * A part of what a request does, in one of the images, which may have become
 * shorter.
 */
static void apply(MemDisk *disk, bool stable, const MemRequest *r,
                  uint64_t from, uint64_t bytes)
{
    uint8_t *image = stable ? disk->stable : disk->now;
    uint64_t length = stable ? disk->stable_bytes : disk->bytes;
    uint64_t at = r->offset + from;
    uint64_t room = at < length ? length - at : 0;

    bytes = bytes < r->bytes - from ? bytes : r->bytes - from;
    bytes = bytes < room ? bytes : room;
    if (r->op == MEM_RESIZE) {
        set_length(disk, stable, r->offset);
    } else if (r->op == MEM_ZERO) {
        memset(image + at, 0, bytes);
    } else {
        memcpy(image + at, r->data + from, bytes);
    }
    mark_changed(disk, at, bytes);
}

/* --- requests --- */

static bool touches(const MemFault *fault, uint64_t offset, uint64_t bytes)
{
    return !fault->bytes || (offset < fault->offset + fault->bytes &&
                             fault->offset < offset + bytes);
}

/* The error that a request will end with, or 0. */
static int fault_of(MemFault *fault, uint64_t offset, uint64_t bytes)
{
    if (fault->after == UINT64_MAX || !fault->times ||
        !touches(fault, offset, bytes)) {
        return 0;
    }
    if (fault->after) {
        fault->after--;
        return 0;
    }
    fault->times -= fault->times != UINT64_MAX;
    return fault->error;
}

int memdisk_request(MemDisk *disk, MemOp op, uint64_t offset, uint64_t bytes,
                    const void *data, void *buf)
{
    MemRequest *r;
    int result = 0;

    if (disk->dead) {
        return -EIO;
    }
    assert(op == MEM_RESIZE ? offset <= disk->pages * PAGE :
           offset <= disk->bytes && bytes <= disk->bytes - offset);
    r = calloc(1, sizeof(*r));
    *r = (MemRequest) {
        .op = op, .offset = offset, .bytes = bytes, .buf = buf,
        .flushed = disk->unsynced_count, .coop = coop_self(),
        .error = fault_of(&disk->fault[op], offset, bytes),
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
    uint32_t left = 0;

    for (uint32_t i = 0; i < disk->unsynced_count; i++) {
        MemRequest *r = disk->unsynced[i];

        if (i < n && !r->lost) {
            apply(disk, true, r, 0, r->bytes);
            request_free(r);
            for (MemRequest *p = disk->pending; p; p = p->next) {
                p->flushed -= p->flushed > left;
            }
        } else {
            disk->unsynced[left++] = r;
        }
    }
    disk->unsynced_count = left;
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

static void end_write(MemDisk *disk, MemRequest *r)
{
    if (r->error) {                     /* none, all or the beginning of it */
        uint64_t sectors = r->bytes / SECTOR;

        r->bytes = coop_below(3) * (sectors + 1) / 2 * SECTOR;
        r->bytes = r->bytes < sectors * SECTOR ? r->bytes : sectors * SECTOR;
    }
    apply(disk, false, r, 0, r->bytes);
    keep_unsynced(disk, r);
}

static void end_resize(MemDisk *disk, MemRequest *r)
{
    if (r->error) {
        request_free(r);
    } else {
        apply(disk, false, r, 0, 0);
        keep_unsynced(disk, r);
    }
}

static void end_flush(MemDisk *disk, const MemRequest *r)
{
    if (!r->error) {
        sync_first(disk, r->flushed);
        return;
    }
    for (uint32_t i = 0; i < r->flushed && disk->fault[MEM_FLUSH].forgets;
         i++) {
        disk->unsynced[i]->lost = true;
    }
}

static void end(MemDisk *disk, MemRequest *r)
{
    disk->count[r->op]++;
    disk->failed[r->op] += r->error != 0;
    *r->result = r->error;
    switch (r->op) {
    case MEM_READ:
        if (r->error) {
            memset(r->buf, 0xdb, r->bytes);
        } else {
            memcpy(r->buf, disk->now + r->offset, r->bytes);
        }
        request_free(r);
        break;
    case MEM_WRITE:
    case MEM_ZERO:
        end_write(disk, r);
        break;
    case MEM_RESIZE:
        end_resize(disk, r);
        break;
    case MEM_FLUSH:
        end_flush(disk, r);
        request_free(r);
        break;
    case MEM_OPS:
        abort();
    }
}

static MemRequest **pending_link(MemDisk *disk, uint32_t i)
{
    MemRequest **link = &disk->pending;

    while (i-- > 0) {
        link = &(*link)->next;
    }
    return link;
}

static void take_pending(MemDisk *disk, MemRequest **link)
{
    *link = (*link)->next;
    disk->pending_count--;
}

bool memdisk_step(MemDisk *disk)
{
    MemRequest **link, *r;
    MemOp op;
    Coop *coop;

    if (!disk->pending) {
        return false;
    }
    link = pending_link(disk, coop_below(disk->pending_count));
    r = *link;
    op = r->op;
    coop = r->coop;
    if (disk->ends) {
        disk->ends(disk, op, false);
    }
    take_pending(disk, link);
    end(disk, r);
    if (disk->ends) {
        disk->ends(disk, op, true);
    }
    coop_ready(coop);
    return true;
}

/* --- power --- */

static bool is_write(const MemRequest *r)
{
    return r->op == MEM_WRITE || r->op == MEM_ZERO || r->op == MEM_RESIZE;
}

uint32_t memdisk_undecided(const MemDisk *disk)
{
    uint32_t n = disk->unsynced_count;

    for (const MemRequest *r = disk->pending; r; r = r->next) {
        n += is_write(r);
    }
    return n;
}

/* Keep `share` of 16 pieces of a request. */
static void keep_pieces(MemDisk *after, const MemRequest *r, uint32_t piece,
                        uint32_t share)
{
    for (uint64_t at = 0; at < r->bytes; at += piece) {
        if (coop_below(16) < share) {
            apply(after, true, r, at, piece);
        }
    }
}

/* The disk has another length after the cut, or not, or is on the way there. */
static void cut_resize(MemDisk *after, const MemRequest *r, MemCut cut)
{
    uint64_t from = after->stable_bytes;
    uint32_t how = coop_below(cut == MEM_CUT_TEAR ? 3 : 2);

    if (cut <= MEM_CUT_KEEP || how == 0) {
        set_length(after, true, r->offset);
    } else if (how == 2 && r->offset > from) {
        uint64_t sectors = (r->offset - from) / SECTOR;

        set_length(after, true, from + coop_below((uint32_t)sectors) * SECTOR);
    }
}

/* Part of what a request wrote is there after the cut. */
static void cut_request(MemDisk *after, const MemRequest *r, MemCut cut)
{
    uint32_t how = coop_below(cut == MEM_CUT_TEAR ? 3 : 2);

    if (r->lost || cut == MEM_CUT_DROP ||
        (cut == MEM_CUT_FIRST && r->bytes <= PAGE)) {
        return;
    }
    if (r->op == MEM_RESIZE) {
        cut_resize(after, r, cut);
    } else if (cut == MEM_CUT_HOLES) {
        keep_pieces(after, r, PAGE, 12);
    } else if (cut == MEM_CUT_FIRST) {
        apply(after, true, r, PAGE, r->bytes);
    } else if (cut <= MEM_CUT_KEEP || how == 0) {
        apply(after, true, r, 0, r->bytes);
    } else if (how == 2) {
        keep_pieces(after, r, SECTOR, 8);
    }
}

static void shuffle(MemRequest **list, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t other = coop_below(i);
        MemRequest *r = list[i - 1];

        list[i - 1] = list[other];
        list[other] = r;
    }
}

/* What the requests of `disk` leave in after->stable. */
static void cut_all(const MemDisk *disk, MemDisk *after, MemCut cut,
                    uint64_t kept)
{
    uint32_t n = disk->unsynced_count;
    MemRequest **list = malloc((n + disk->pending_count + 1) * sizeof(*list));

    for (uint32_t i = 0; i < n; i++) {
        list[i] = disk->unsynced[i];
    }
    for (MemRequest *r = disk->pending; r; r = r->next) {
        if (is_write(r)) {
            list[n++] = r;
        }
    }
    if (cut != MEM_CUT_CHOSEN) {        /* which of two came first? */
        shuffle(list + disk->unsynced_count, n - disk->unsynced_count);
    }
    for (uint32_t i = 0; i < n; i++) {
        MemCut this = cut;

        if (cut == MEM_CUT_CHOSEN) {
            this = kept >> i % 64 & 1 ? MEM_CUT_KEEP : MEM_CUT_DROP;
        } else if (cut == MEM_CUT_KEEP && i >= disk->unsynced_count) {
            this = MEM_CUT_TEAR;
        }
        cut_request(after, list[i], this);
    }
    free(list);
}

/* What can be read of a range is what is stable. */
static void forget(MemDisk *disk, const MemRequest *r)
{
    if (r->op == MEM_RESIZE) {
        memcpy(disk->now, disk->stable, disk->pages * PAGE);
        mark_changed(disk, 0, disk->pages * PAGE);
    } else {
        memcpy(disk->now + r->offset, disk->stable + r->offset, r->bytes);
        mark_changed(disk, r->offset, r->bytes);
    }
}

void memdisk_power_off(MemDisk *disk, MemCut cut)
{
    disk->dead = true;
    cut_all(disk, disk, cut, 0);
    for (uint32_t i = 0; i < disk->unsynced_count; i++) {
        forget(disk, disk->unsynced[i]);
        request_free(disk->unsynced[i]);
    }
    disk->unsynced_count = 0;
    while (disk->pending) {
        MemRequest *r = disk->pending;

        forget(disk, r);
        take_pending(disk, &disk->pending);
        *r->result = -EIO;
        coop_ready(r->coop);
        request_free(r);
    }
    disk->bytes = disk->stable_bytes;
}

void memdisk_power_on(MemDisk *disk)
{
    disk->dead = false;
}

/* Call fn for each page of a set, which is emptied. */
static void each_page(uint64_t *set, const MemDisk *disk, MemDisk *after,
                      void (*fn)(const MemDisk *disk, MemDisk *after,
                                 uint64_t at))
{
    for (uint64_t i = 0; i < (disk->pages + 63) / 64; i++) {
        while (set[i]) {
            uint64_t page = i * 64 + (uint64_t)__builtin_ctzll(set[i]);

            set[i] &= set[i] - 1;
            fn(disk, after, page * PAGE);
        }
    }
}

static void copy_stable(const MemDisk *disk, MemDisk *after, uint64_t at)
{
    memcpy(after->stable + at, disk->stable + at, PAGE);
    memcpy(after->now + at, disk->stable + at, PAGE);
    after->to_copy[at / PAGE / 64] |= UINT64_C(1) << at / PAGE % 64;
}

/* What the cut has left is what is read. */
static void copy_cut(const MemDisk *disk, MemDisk *after, uint64_t at)
{
    (void)disk;
    memcpy(after->now + at, after->stable + at, PAGE);
}

void memdisk_cut(MemDisk *disk, MemDisk *after, MemCut cut, uint64_t kept)
{
    uint64_t words = (disk->pages + 63) / 64;
    uint64_t *set = malloc(words * sizeof(*set));

    assert(!after->pending && after->pages == disk->pages);
    for (uint32_t i = 0; i < after->unsynced_count; i++) {
        request_free(after->unsynced[i]);
    }
    after->unsynced_count = 0;
    each_page(after->from_copy, disk, after, copy_stable);
    each_page(disk->to_copy, disk, after, copy_stable);
    after->stable_bytes = disk->stable_bytes;
    cut_all(disk, after, cut, kept);
    after->bytes = after->stable_bytes;
    memcpy(set, after->from_copy, words * sizeof(*set));
    each_page(set, disk, after, copy_cut);
    free(set);
}

/* --- damage --- */

void memdisk_fill(MemDisk *disk, uint8_t byte)
{
    memset(disk->now, byte, disk->bytes);
    memset(disk->stable, byte, disk->bytes);
    mark_changed(disk, 0, disk->bytes);
}

void memdisk_rot(MemDisk *disk, uint64_t offset, uint64_t bytes)
{
    for (uint64_t i = offset; i < offset + bytes; i++) {
        disk->now[i] ^= 0x5a;
        disk->stable[i] = disk->now[i];
    }
    mark_changed(disk, offset, bytes);
}

void memdisk_swap(MemDisk *disk, uint64_t a, uint64_t b, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        uint8_t byte = disk->now[a + i];

        disk->now[a + i] = disk->stable[a + i] = disk->now[b + i];
        disk->now[b + i] = disk->stable[b + i] = byte;
    }
    mark_changed(disk, a, bytes);
    mark_changed(disk, b, bytes);
}

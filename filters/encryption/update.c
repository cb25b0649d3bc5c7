/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What to write so that a changed header gets onto its disk, in an order that
 * leaves a header that opens wherever it is cut off:
 *
 *   a new header:  zeroes all over it, flush
 *   one bad copy of the metadata: what it should be, flush
 *   keyslots' areas that the header on the disk does not use, flush
 *   the first copy of the metadata, flush; the second one, flush
 *   the areas that only the old header used, flush
 *
 * Whoever reads the metadata takes the newer one of two good copies.  So the
 * one that is written is never the only good one, and no good copy tells of an
 * area that has another content.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/header-int.h"
#include "encryption/json.h"

#define BLOCK_BYTES 4096        /* areas begin and end at multiples of it */

struct WeirHeaderUpdate {
    WeirHeader *header;
    uint8_t *bytes;             /* the whole header as it is to be */
    uint8_t *in_use;            /* for each block: USED_* */
    WeirHeaderWrite *writes;
    size_t n_writes, room;
    size_t next;                /* the write to tell next */
};

#define USED_BEFORE 1
#define USED_AFTER 2

/* --- what the disk has --- */

static size_t n_blocks(const WeirHeader *header)
{
    return (header->info.header_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

static void mark_area(const WeirHeader *header, json_object *area,
                      uint8_t *in_use, uint8_t mark)
{
    uint64_t offset, n_bytes;

    if (!weir_json_u64(area, "offset", &offset) ||
        !weir_json_u64(area, "size", &n_bytes)) {
        return;
    }
    for (uint64_t i = offset / BLOCK_BYTES;
         i < n_blocks(header) && i * BLOCK_BYTES < offset + n_bytes; i++) {
        in_use[i] |= mark;
    }
}

/* Areas of the keyslots by blocks; those of a re-encryption are no keys. */
static void mark_areas(WeirHeader *header, uint8_t *in_use, uint8_t mark)
{
    json_object *json = weir_header_json(header);
    json_object *keyslots = weir_json_member(json, "keyslots");

    for (struct lh_entry *e = weir_json_first(keyslots); e; e = e->next) {
        json_object *keyslot = (json_object *)lh_entry_v(e);

        if (weir_json_is(keyslot, "type", "luks2")) {
            mark_area(header, weir_json_member(keyslot, "area"), in_use,
                      mark);
        }
    }
    json_object_put(json);
}

int weir_header_set_on_disk(WeirHeader *header, const void *bytes)
{
    header->on_disk = calloc(1, header->info.header_bytes);
    header->used = calloc(1, n_blocks(header));
    header->is_new = !bytes;
    if (!header->on_disk || !header->used) {
        return -ENOMEM;
    }
    if (bytes) {
        weir_header_copy_sparse(header->on_disk, bytes,
                                header->info.header_bytes);
        mark_areas(header, header->used, USED_BEFORE);
    }
    return 0;
}

/* --- the list of writes --- */

static int add_write(WeirHeaderUpdate *u, uint64_t offset_bytes,
                     uint64_t n_bytes, const void *bytes)
{
    if (u->n_writes == u->room) {
        size_t room = u->room ? 2 * u->room : 16;
        WeirHeaderWrite *writes = realloc(u->writes, room * sizeof(*writes));

        if (!writes) {
            return -ENOMEM;
        }
        u->writes = writes;
        u->room = room;
    }
    u->writes[u->n_writes++] = (WeirHeaderWrite) {
        .offset_bytes = offset_bytes, .n_bytes = n_bytes, .bytes = bytes,
    };
    return 0;
}

/* Flush what was added since there were n_writes. */
static void flush_since(WeirHeaderUpdate *u, size_t n_writes)
{
    if (u->n_writes > n_writes) {
        u->writes[u->n_writes - 1].flush = true;
    }
}

static int add_copy(WeirHeaderUpdate *u, int i, const uint8_t *metadata)
{
    size_t n_bytes = u->header->info.copy_bytes;
    int ret = add_write(u, i * n_bytes, n_bytes, metadata + i * n_bytes);

    flush_since(u, u->n_writes - 1);
    return ret;
}

static bool copy_differs(const WeirHeader *header, int i,
                         const uint8_t *metadata)
{
    size_t n_bytes = header->info.copy_bytes;

    return memcmp(header->on_disk + i * n_bytes, metadata + i * n_bytes,
                  n_bytes);
}

/* A copy that was bad or old when the header was loaded. */
static int add_repair(WeirHeaderUpdate *u)
{
    WeirHeader *header = u->header;

    for (int i = 0; i < METADATA_COPIES; i++) {
        int ret = 0;

        if (header->repaired && copy_differs(header, i, header->repaired)) {
            ret = add_copy(u, i, header->repaired);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int add_metadata(WeirHeaderUpdate *u)
{
    const WeirHeader *header = u->header;
    const uint8_t *before = header->repaired ?: header->on_disk;
    size_t n_bytes = METADATA_COPIES * header->info.copy_bytes;

    if (!memcmp(before, u->bytes, n_bytes)) {
        return 0;
    }
    for (int i = 0; i < METADATA_COPIES; i++) {
        int ret = add_copy(u, i, u->bytes);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static size_t block_bytes(const WeirHeader *header, size_t block)
{
    size_t left = header->info.header_bytes - block * BLOCK_BYTES;

    return left < BLOCK_BYTES ? left : BLOCK_BYTES;
}

static bool block_differs(const WeirHeaderUpdate *u, size_t block)
{
    size_t at = block * BLOCK_BYTES;

    return memcmp(u->header->on_disk + at, u->bytes + at,
                  block_bytes(u->header, block));
}

/* The blocks of areas that have changed, and were used before or not. */
static int add_areas(WeirHeaderUpdate *u, bool used_before)
{
    size_t begin = METADATA_COPIES * u->header->info.copy_bytes / BLOCK_BYTES;
    size_t n_writes = u->n_writes;
    WeirHeaderWrite *last = NULL;

    for (size_t i = begin; i < n_blocks(u->header); i++) {
        size_t at = i * BLOCK_BYTES, n_bytes = block_bytes(u->header, i);
        int ret;

        if (!!(u->in_use[i] & USED_BEFORE) != used_before ||
            !block_differs(u, i)) {
            continue;
        }
        if (last && last->offset_bytes + last->n_bytes == at) {
            last->n_bytes += n_bytes;
            continue;
        }
        ret = add_write(u, at, n_bytes, u->bytes + at);
        if (ret < 0) {
            return ret;
        }
        last = &u->writes[u->n_writes - 1];
    }
    flush_since(u, n_writes);
    return 0;
}

static int add_zeroes(WeirHeaderUpdate *u)
{
    int ret = add_write(u, 0, u->header->info.header_bytes, NULL);

    flush_since(u, u->n_writes - 1);
    return ret;
}

/* An area that both headers use must not change: neither order is safe. */
static int check_areas(const WeirHeaderUpdate *u, char *err, size_t err_size)
{
    for (size_t i = 0; i < n_blocks(u->header); i++) {
        if (u->in_use[i] == (USED_BEFORE | USED_AFTER) &&
            block_differs(u, i)) {
            snprintf(err, err_size, "there is no room for another keyslot in "
                     "the header, and one in use is not overwritten");
            return -ENOSPC;
        }
    }
    return 0;
}

static int plan(WeirHeaderUpdate *u)
{
    int ret = u->header->is_new ? add_zeroes(u) : add_repair(u);

    if (ret == 0) {
        ret = add_areas(u, false);
    }
    if (ret == 0) {
        ret = add_metadata(u);
    }
    return ret == 0 ? add_areas(u, true) : ret;
}

static int fill(WeirHeaderUpdate *u, char *err, size_t err_size)
{
    WeirHeader *header = u->header;
    int ret;

    u->bytes = malloc(header->info.header_bytes);
    u->in_use = malloc(n_blocks(header));
    ret = u->bytes && u->in_use ? weir_header_read(header, u->bytes) : -ENOMEM;
    if (ret < 0) {
        snprintf(err, err_size, "no memory for the changed header");
        return ret;
    }
    memcpy(u->in_use, header->used, n_blocks(header));
    weir_header_enter();
    mark_areas(header, u->in_use, USED_AFTER);
    weir_header_leave();
    ret = check_areas(u, err, err_size);
    if (ret < 0) {
        return ret;
    }
    ret = plan(u);
    if (ret < 0) {
        snprintf(err, err_size, "no memory for the list of writes");
    }
    return ret;
}

int weir_header_update_new(WeirHeaderUpdate **out, WeirHeader *header,
                           char *err, size_t err_size)
{
    WeirHeaderUpdate *u;
    int ret;

    *out = NULL;
    if (header->is_lost) {
        snprintf(err, err_size, "what the disk has of the header is not known: "
                 "it was not written to its end");
        return -EIO;
    }
    u = calloc(1, sizeof(*u));
    if (!u) {
        snprintf(err, err_size, "no memory for the changed header");
        return -ENOMEM;
    }
    u->header = header;
    ret = fill(u, err, err_size);
    if (ret < 0) {
        weir_header_update_free(u);
        return ret;
    }
    *out = u;
    return 0;
}

/* --- while they are written --- */

static void finish(WeirHeaderUpdate *u)
{
    WeirHeader *header = u->header;

    free(header->on_disk);
    header->on_disk = u->bytes;
    u->bytes = NULL;
    free(header->repaired);
    header->repaired = NULL;
    for (size_t i = 0; i < n_blocks(header); i++) {
        header->used[i] = u->in_use[i] & USED_AFTER ? USED_BEFORE : 0;
    }
    header->is_new = false;
    header->info.repaired = false;
    header->is_lost = false;
}

const WeirHeaderWrite *weir_header_update_next(WeirHeaderUpdate *u)
{
    if (u->next < u->n_writes) {
        u->header->is_lost = true;
        return &u->writes[u->next++];
    }
    if (u->bytes) {
        finish(u);
    }
    return NULL;
}

void weir_header_update_free(WeirHeaderUpdate *u)
{
    if (u) {
        free(u->writes);
        free(u->in_use);
        free(u->bytes);
        free(u);
    }
}

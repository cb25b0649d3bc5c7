/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Data that moves, to make room for the header at its beginning. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "encryption/reencrypt-int.h"

/* --- open --- */

int weir_shift_take_length(WeirReencrypt *r, const WeirReencryptOpen *open,
                           char *err, size_t err_size)
{
    const WeirJobInfo *info = &r->info;

    if (open->disk_bytes < info->moved_offset + info->shift_bytes) {
        snprintf(err, err_size, "the disk is shorter than it was when the "
                 "re-encryption began");
        return -EINVAL;
    }
    r->data_bytes = info->data_bytes;
    r->hotzone_bytes = min(open->hotzone_bytes, info->shift_bytes);
    r->staged_offset = open->staged_offset;
    return 0;
}

bool weir_reencrypt_is_staged(const void *first, const void *staged)
{
    return weir_metadata_is_first(staged) &&
           !memcmp(first, staged, WEIR_REENCRYPT_SECTOR_BYTES);
}

/* From when its first sector is there on, the header counts. */
int weir_shift_load(WeirReencrypt *r)
{
    uint8_t first[WEIR_REENCRYPT_SECTOR_BYTES];
    int ret = r->host->read(r->opaque, WEIR_REENCRYPT_HEADER, 0, sizeof(first),
                            first);

    if (ret == 0) {
        weir_reencrypt_lock(r);
        r->in_place = memcmp(first, weir_metadata_copy(r->metadata, 0),
                             sizeof(first));
        weir_reencrypt_unlock(r);
    }
    return ret;
}

/* --- where it is --- */

/* How a piece of it is stored. */
typedef struct Piece {
    uint64_t offset, bytes;
    uint64_t disk_offset;
    bool is_new;
    bool is_copied;             /* it is also where it goes */
} Piece;

/*
 * Where what is at piece->offset is on the disk, and how much from there on, at
 * most piece->bytes, is alike.
 */
static void find_piece(WeirReencrypt *r, Piece *piece)
{
    uint64_t shift = r->info.shift_bytes, end = r->zone.offset + r->zone.bytes;

    piece->is_new = weir_reencrypt_is_new(r, piece->offset, piece->bytes,
                                          &piece->bytes);
    piece->is_copied = false;
    piece->disk_offset = piece->offset + (piece->is_new ? shift : 0);
    if (piece->is_new) {
        return;
    }
    if (piece->offset < shift) {
        piece->bytes = min(piece->bytes, shift - piece->offset);
        piece->disk_offset += r->in_place ? 0 : r->info.moved_offset;
    }
    if (r->zone.bytes && piece->offset < r->zone.offset) {
        piece->bytes = min(piece->bytes, r->zone.offset - piece->offset);
    } else if (r->zone.bytes && piece->offset < end) {
        piece->is_copied =
            weir_hotzone_state(&r->zone, piece->offset,
                               min(piece->bytes, end - piece->offset),
                               &piece->bytes) == WEIR_BLOCK_NEW;
    }
}

static Piece piece_at(WeirReencrypt *r, const WeirRange *range, uint64_t at)
{
    Piece piece = {
        .offset = range->offset + at, .bytes = range->bytes - at,
    };

    weir_reencrypt_lock(r);
    find_piece(r, &piece);
    weir_reencrypt_unlock(r);
    return piece;
}

int weir_shift_read(WeirReencrypt *r, const WeirRange *range, uint8_t *buf)
{
    int ret = 0;

    for (uint64_t at = 0; at < range->bytes && ret == 0;) {
        Piece piece = piece_at(r, range, at);

        ret = r->host->read(r->opaque, WEIR_REENCRYPT_DATA, piece.disk_offset,
                            piece.bytes, buf + at);
        if (ret == 0 && piece.is_new) {
            ret = weir_reencrypt_crypt(r->after, weir_xts_decrypt,
                                       piece.offset, piece.bytes, buf + at);
        }
        at += piece.bytes;
    }
    return ret;
}

/* To where a part of the hotzone goes; buf: plain, and then anything. */
static int write_target(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                        uint8_t *buf, bool fua)
{
    uint64_t at = offset + (r->in_place ? r->info.moved_offset
                                        : r->info.shift_bytes);
    int ret = r->in_place ? 0 : weir_reencrypt_crypt(r->after,
                                                     weir_xts_encrypt, offset,
                                                     bytes, buf);

    return ret < 0 ? ret : r->host->write(r->opaque, WEIR_REENCRYPT_DATA, at,
                                          bytes, buf, fua);
}

static int write_piece(WeirReencrypt *r, const Piece *piece, uint8_t *buf,
                       bool fua)
{
    int ret = piece->is_new ? weir_reencrypt_crypt(r->after, weir_xts_encrypt,
                                                   piece->offset, piece->bytes,
                                                   buf) : 0;

    if (ret == 0) {
        ret = r->host->write(r->opaque, WEIR_REENCRYPT_DATA,
                             piece->disk_offset, piece->bytes, buf, fua);
    }
    if (ret == 0 && piece->is_copied && !WITHOUT_RULE(11)) {
        ret = write_target(r, piece->offset, piece->bytes, buf, fua);
    }
    return ret;
}

int weir_shift_write(WeirReencrypt *r, const WeirRange *range, uint8_t *buf,
                     bool fua)
{
    int ret = 0;

    for (uint64_t at = 0; at < range->bytes && ret == 0;) {
        Piece piece = piece_at(r, range, at);

        ret = write_piece(r, &piece, buf + at, fua);
        at += piece.bytes;
    }
    return ret;
}

/* Both places may differ now; what is read is the one where it was. */
void weir_shift_spoil(WeirReencrypt *r, const WeirRange *range)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    if (weir_reencrypt_is_hot(r, range)) {
        weir_hotzone_clip(&r->zone, &offset, &bytes);
        weir_hotzone_spoil(&r->zone, offset, bytes);
    }
}

/* --- steps --- */

static WeirRange zone_range(WeirReencrypt *r)
{
    return (WeirRange) { .offset = r->zone.offset, .bytes = r->zone.bytes };
}

/*
 * What moves first is one hotzone, once as plain data and at the end when it is
 * encrypted. Nothing on the disk tells of a hotzone.
 */
static int prepare_shift(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes, shift = r->info.shift_bytes;
    uint64_t bytes = left > shift ? min(left - shift, r->hotzone_bytes) : left;
    int ret;

    weir_reencrypt_lock(r);
    ret = r->in_place
          ? weir_hotzone_begin(&r->zone, 0, shift, WEIR_BLOCK_OLD)
          : weir_hotzone_begin(&r->zone, left - bytes, bytes, WEIR_BLOCK_OLD);
    r->phase = ret < 0 ? r->phase : WEIR_REENCRYPT_HOT;
    weir_reencrypt_unlock(r);
    return ret;
}

/* The first chunk with blocks that are not new. */
static WeirRange next_to_move(WeirReencrypt *r, uint64_t max_bytes)
{
    uint32_t block = r->info.block_bytes;
    uint64_t end = r->zone.offset + r->zone.bytes, at = r->zone.offset, same;

    while (weir_hotzone_state(&r->zone, at, end - at, &same) ==
           WEIR_BLOCK_NEW) {
        at += same;
    }
    same = r->chunk_bytes - at % r->chunk_bytes;
    max_bytes = max_bytes < block ? block : max_bytes - max_bytes % block;
    return (WeirRange) {
        .offset = at, .bytes = min(min(same, max_bytes), end - at),
    };
}

/* What is there is not touched before the header tells of the other place. */
static int copy_held(WeirReencrypt *r, const WeirRange *range)
{
    int ret = weir_shift_read(r, range, r->data);

    if (ret == 0) {
        ret = write_target(r, range->offset, range->bytes, r->data, false);
    }
    weir_reencrypt_lock(r);
    if (ret == 0) {
        weir_hotzone_set(&r->zone, range->offset, range->bytes,
                         WEIR_BLOCK_NEW);
    } else {
        weir_shift_spoil(r, range);
    }
    weir_reencrypt_unlock(r);
    explicit_bzero(r->data, range->bytes);
    return ret;
}

/* Returns bytes, read and written: twice; or -errno. */
static int convert_shift(WeirReencrypt *r, uint32_t max_bytes)
{
    WeirRange range;
    int ret;

    weir_reencrypt_lock(r);
    range = next_to_move(r, max_bytes);
    weir_reencrypt_enter(r, &range, weir_reencrypt_alone);
    weir_reencrypt_unlock(r);
    ret = copy_held(r, &range);
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret < 0 ? ret : (int)(2 * range.bytes);
}

/* Until those who still read it, where it was, have ended. */
static void drain(WeirReencrypt *r, WeirRange *range)
{
    if (WITHOUT_RULE(12)) {
        return;
    }
    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, range, weir_reencrypt_alone);
    weir_reencrypt_leave(r, range);
    weir_reencrypt_unlock(r);
}

/* Writes to the zone wait. */
static int finish_shift_held(WeirReencrypt *r, uint64_t left)
{
    int ret = WITHOUT_RULE(4) ? 0 : r->host->flush(r->opaque,
                                                   WEIR_REENCRYPT_DATA);

    if (ret == 0) {
        ret = weir_reencrypt_mend_header(r);
    }
    if (ret < 0) {
        return ret;
    }
    if (left == 0 && !r->final) {
        r->final = weir_job_finish(r->job, r->wipe, &r->n_wipe);
    }
    ret = weir_reencrypt_write_header(r, left ? weir_job_set(r->job, left, 0,
                                                             r->data_bytes)
                                              : r->final);
    if (ret < 0) {
        weir_reencrypt_set_phase(r, WEIR_REENCRYPT_UNSURE);
        return ret;
    }
    weir_reencrypt_end_zone(r, left ? WEIR_REENCRYPT_CLEAN
                                    : WEIR_REENCRYPT_FINISHED);
    return 0;
}

static int finish_shift(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes - r->zone.bytes;
    WeirRange range = zone_range(r);
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, &range, weir_reencrypt_holding);
    weir_reencrypt_unlock(r);
    ret = finish_shift_held(r, left);
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    if (ret < 0) {
        return ret;
    }
    drain(r, &range);
    if (left == 0) {
        weir_reencrypt_wipe_all(r);
    }
    return 0;
}

/* --- bring a staged header to the beginning --- */

/* Whoever finds the first sector there knows that the staged header counts. */
static int write_first_sector(WeirReencrypt *r)
{
    int ret = r->host->write(r->opaque, WEIR_REENCRYPT_HEADER, 0,
                             WEIR_REENCRYPT_SECTOR_BYTES,
                             weir_metadata_copy(r->metadata, 0), false);

    return ret == 0 && !WITHOUT_RULE(13) ? weir_reencrypt_flush_header(r) : ret;
}

static int copy_areas(WeirReencrypt *r)
{
    uint64_t end = r->info.shift_bytes, bytes;
    int ret = 0;

    for (uint64_t at = WEIR_METADATA_COPIES *
                       weir_metadata_copy_bytes(r->metadata);
         at < end && ret == 0; at += bytes) {
        bytes = min(end - at, r->chunk_bytes);
        ret = r->host->read(r->opaque, WEIR_REENCRYPT_HEADER,
                            r->staged_offset + at, bytes, r->data);
        if (ret == 0) {
            ret = r->host->write(r->opaque, WEIR_REENCRYPT_HEADER, at, bytes,
                                 r->data, false);
        }
    }
    return ret == 0 && !WITHOUT_RULE(14) ? weir_reencrypt_flush_header(r) : ret;
}

/* As long as neither copy is good, the staged header is looked for. */
static int write_copies(WeirReencrypt *r)
{
    int ret = 0;

    for (int i = WEIR_METADATA_COPIES; i-- > 0 && ret == 0;) {
        ret = weir_reencrypt_write_copy(r, i);
        if (ret == 0) {
            ret = weir_reencrypt_flush_header(r);
        }
    }
    return ret;
}

/*
 * Nobody is at what moves first, which is durable in its new place, as is the
 * staged header.
 */
static int commit_held(WeirReencrypt *r)
{
    int ret = WITHOUT_RULE(15) ? 0 : r->host->flush(r->opaque,
                                                    WEIR_REENCRYPT_DATA);

    if (ret < 0) {
        return ret;
    }
    weir_reencrypt_lock(r);
    r->phase = WEIR_REENCRYPT_UNSURE;
    r->in_place = false;                /* it is overwritten from now on */
    weir_reencrypt_unlock(r);
    ret = write_first_sector(r);
    if (ret == 0) {
        ret = copy_areas(r);
    }
    return ret == 0 ? write_copies(r) : ret;
}

static int commit(WeirReencrypt *r)
{
    WeirRange range = { .bytes = r->info.shift_bytes };
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, &range, weir_reencrypt_alone);
    weir_reencrypt_unlock(r);
    ret = commit_held(r);
    if (ret == 0) {
        r->staged_offset = 0;
        weir_reencrypt_set_phase(r, WEIR_REENCRYPT_CLEAN);
    }
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

int weir_shift_step(WeirReencrypt *r, uint32_t bytes)
{
    bool is_copied = r->phase == WEIR_REENCRYPT_HOT && !r->zone.left;

    if (r->phase == WEIR_REENCRYPT_HOT && r->zone.left) {
        return convert_shift(r, bytes);
    }
    if (r->staged_offset && (is_copied || !r->in_place ||
                             r->phase == WEIR_REENCRYPT_UNSURE)) {
        return commit(r);
    }
    if (is_copied || r->phase == WEIR_REENCRYPT_UNSURE ||
        r->done_bytes == r->data_bytes) {
        return finish_shift(r);
    }
    return prepare_shift(r);
}

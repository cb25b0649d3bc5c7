/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/reencrypt-int.h"

#define WIPE_BYTES (1024 * 1024)
/* hotzones of up to so much are read once, and not again to be converted */
#define KEEP_BYTES (32 * 1024 * 1024)

void weir_reencrypt_lock(WeirReencrypt *r)
{
    pthread_mutex_lock(&r->lock);
}

void weir_reencrypt_unlock(WeirReencrypt *r)
{
    pthread_mutex_unlock(&r->lock);
}

/* --- open --- */

static int fail(char *err, size_t err_size, int ret, const char *why)
{
    snprintf(err, err_size, "%s", why);
    return ret;
}

/* Where the job is, from what its header says. */
static int take_place(WeirReencrypt *r, char *err, size_t err_size)
{
    uint64_t head = r->info.head_bytes, hot = r->info.hot_bytes;

    if (head == UINT64_MAX) {
        head = r->data_bytes;
    }
    if (head > r->data_bytes || hot > r->data_bytes - head) {
        return fail(err, err_size, -EINVAL, "the disk is shorter than what "
                    "has been re-encrypted of it");
    }
    r->done_bytes = r->info.backward ? r->data_bytes - head - hot : head;
    if (r->info.converted) {
        r->done_bytes = r->data_bytes;
    }
    if (hot && weir_hotzone_begin(&r->zone, head, hot,
                                  WEIR_BLOCK_UNKNOWN) < 0) {
        return fail(err, err_size, -ENOMEM, "no memory for the hotzone");
    }
    r->phase = hot ? WEIR_REENCRYPT_HOT : WEIR_REENCRYPT_CLEAN;
    return 0;
}

static void *new_pages(size_t bytes)
{
    return aligned_alloc(PAGE_BYTES, (bytes + PAGE_BYTES - 1) / PAGE_BYTES *
                                     PAGE_BYTES);
}

static bool take_memory(WeirReencrypt *r)
{
    r->keeps = !r->info.shift_bytes && r->hotzone_bytes <= KEEP_BYTES;
    r->data_room_bytes = (size_t)r->chunk_bytes_max * WEIR_REENCRYPT_LANES;
    r->data = new_pages(r->data_room_bytes);
    r->kept_data = r->keeps ? new_pages(r->hotzone_bytes) : NULL;
    return r->data && (r->kept_data || !r->keeps);
}

static int take_length(WeirReencrypt *r, const WeirReencryptOpen *open,
                       char *err, size_t err_size)
{
    uint32_t block = r->info.block_bytes;

    if (open->disk_bytes <= r->info.data_offset_bytes ||
        (open->disk_bytes - r->info.data_offset_bytes) % block) {
        snprintf(err, err_size, "the length of the data is not a multiple of "
                 "the re-encryption's blocks of %u bytes", block);
        return -EINVAL;
    }
    r->data_bytes = open->disk_bytes - r->info.data_offset_bytes;
    r->hotzone_bytes = min(open->hotzone_bytes, r->info.area_bytes /
                           r->info.hash_bytes * block);
    return 0;
}

static int take_sizes(WeirReencrypt *r, const WeirReencryptOpen *open,
                      char *err, size_t err_size)
{
    uint32_t block = r->info.block_bytes;
    int ret = r->info.shift_bytes
              ? weir_shift_take_length(r, open, err, err_size)
              : take_length(r, open, err, err_size);

    if (ret < 0) {
        return ret;
    }
    r->hotzone_bytes -= r->hotzone_bytes % block;
    r->hotzone_bytes = r->hotzone_bytes ? r->hotzone_bytes : block;
    r->chunk_bytes_min = open->chunk_bytes < block ? block : open->chunk_bytes;
    r->chunk_bytes_max = r->chunk_bytes_min;
    while (r->chunk_bytes_max < WEIR_REENCRYPT_CHUNK_BYTES_MAX &&
           r->chunk_bytes_max < r->hotzone_bytes) {
        r->chunk_bytes_max *= 2;
    }
    return take_memory(r) ? 0 : fail(err, err_size, -ENOMEM, "no memory to "
                                     "convert the disk");
}

static int take_key(WeirReencrypt *r, WeirXts **xts, const WeirJobSide *side,
                    const void *key, const WeirReencryptOpen *open, char *err,
                    size_t err_size)
{
    unsigned bits;
    int ret;

    if (!side->is_crypt) {
        return 0;
    }
    ret = weir_xts_new(xts, key, side->key_bytes, side->sector_bytes,
                       open->ciphers);
    if (ret < 0) {
        snprintf(err, err_size, "the cipher cannot be set up in locked memory "
                 "(see RLIMIT_MEMLOCK): %s", strerror(-ret));
        return ret;
    }
    bits = weir_xts_set_vaes(*xts, open->vaes_bits);
    r->vaes_bits = bits > r->vaes_bits ? bits : r->vaes_bits;
    return 0;
}

static int take_keys(WeirReencrypt *r, const WeirReencryptOpen *open,
                     char *err, size_t err_size)
{
    int ret = take_key(r, &r->before, &r->info.before, open->key_before, open,
                       err, err_size);

    if (ret == 0) {
        ret = take_key(r, &r->after, &r->info.after, open->key_after, open,
                       err, err_size);
    }
    if (ret == 0 && open->check_digest) {
        ret = weir_job_check_digest(r->job, open->key_before, open->key_after,
                                    err, err_size);
    }
    return ret;
}

static int take_header(WeirReencrypt *r, const WeirReencryptOpen *open,
                       char *err, size_t err_size)
{
    int ret = weir_metadata_load(&r->metadata, open->header,
                                 open->header_bytes, err, err_size);

    if (ret == 0) {
        ret = weir_job_load(&r->job, weir_metadata_json(r->metadata), err,
                            err_size);
    }
    if (ret == 0) {
        r->info = *weir_job_info(r->job);
        weir_hotzone_init(&r->zone, r->info.block_bytes, r->info.hash,
                          r->info.hash_bytes);
        weir_hotzone_init(&r->next, r->info.block_bytes, r->info.hash,
                          r->info.hash_bytes);
    }
    return ret;
}

int weir_reencrypt_open(WeirReencrypt **out, const WeirReencryptOpen *open,
                        const WeirReencryptHost *host, void *opaque, char *err,
                        size_t err_size)
{
    WeirReencrypt *r = calloc(1, sizeof(*r));
    int ret;

    *out = NULL;
    if (!r) {
        return fail(err, err_size, -ENOMEM, "no memory");
    }
    r->host = host;
    r->opaque = opaque;
    r->read_only = open->read_only;
    pthread_mutex_init(&r->lock, NULL);
    weir_ranges_init(&r->ranges);
    host->queue_init(opaque, &r->queue);
    ret = take_header(r, open, err, err_size);
    if (ret == 0) {
        ret = take_sizes(r, open, err, err_size);
    }
    if (ret == 0) {
        ret = take_place(r, err, err_size);
    }
    if (ret == 0) {
        ret = take_keys(r, open, err, err_size);
    }
    if (ret < 0) {
        weir_reencrypt_free(r);
        return ret;
    }
    *out = r;
    return 0;
}

/* It may be plain. */
static void free_data(uint8_t *data, size_t bytes)
{
    if (data) {
        explicit_bzero(data, bytes);
    }
    free(data);
}

void weir_reencrypt_free(WeirReencrypt *r)
{
    if (!r) {
        return;
    }
    weir_xts_free(r->before);
    weir_xts_free(r->after);
    weir_hotzone_destroy(&r->zone);
    weir_hotzone_destroy(&r->next);
    weir_job_free(r->job);
    weir_metadata_free(r->metadata);
    free_data(r->data, r->data_room_bytes);
    free_data(r->kept_data, r->hotzone_bytes);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

int weir_reencrypt_load(WeirReencrypt *r)
{
    int ret = 0;

    if (!r->read_only && !WITHOUT_RULE(7)) {
        ret = r->host->flush(r->opaque, WEIR_REENCRYPT_HEADER);
    }
    if (ret == 0 && r->phase == WEIR_REENCRYPT_HOT) {
        ret = r->host->read(r->opaque, WEIR_REENCRYPT_HEADER,
                            r->info.area_offset,
                            weir_hotzone_sums_bytes(&r->zone), r->zone.sums);
    }
    return ret == 0 && r->staged_offset ? weir_shift_load(r) : ret;
}

/* --- ranges --- */

/*
 * Wait until nobody is in the way. What it does to the blocks can have become
 * another thing meanwhile: then it waits behind all who came since.
 */
void weir_reencrypt_enter(WeirReencrypt *r, WeirRange *range,
                          WeirReencryptKindFn *kind_of)
{
    range->kind = kind_of(r, range);
    weir_ranges_add(&r->ranges, range);
    for (;;) {
        WeirRangeKind kind = kind_of(r, range);

        if (kind != range->kind) {
            weir_ranges_remove(&r->ranges, range);
            r->host->wake(r->opaque, &r->queue);
            range->kind = kind;
            weir_ranges_add(&r->ranges, range);
        }
        if (weir_ranges_may_go(&r->ranges, range)) {
            return;
        }
        r->host->wait(r->opaque, r, &r->queue);
    }
}

void weir_reencrypt_leave(WeirReencrypt *r, WeirRange *range)
{
    weir_ranges_remove(&r->ranges, range);
    r->host->wake(r->opaque, &r->queue);
}

bool weir_reencrypt_is_hot(WeirReencrypt *r, const WeirRange *range)
{
    return r->phase == WEIR_REENCRYPT_HOT &&
           weir_hotzone_touches(&r->zone, range->offset, range->bytes);
}

bool weir_reencrypt_has(WeirReencrypt *r, const WeirRange *range,
                        WeirBlockState state)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    weir_hotzone_clip(&r->zone, &offset, &bytes);
    return weir_hotzone_has(&r->zone, offset, bytes, state);
}

/* Somebody has to find out about unknown blocks, alone. */
static WeirRangeKind kind_of_read(WeirReencrypt *r, const WeirRange *range)
{
    return weir_reencrypt_is_hot(r, range) &&
           weir_reencrypt_has(r, range, WEIR_BLOCK_UNKNOWN)
           ? WEIR_RANGE_CONVERT : WEIR_RANGE_READ;
}

/* If the data moves, what is new has to be written twice, by one at a time. */
static WeirRangeKind kind_of_write(WeirReencrypt *r, const WeirRange *range)
{
    if (r->info.shift_bytes) {
        return weir_reencrypt_is_hot(r, range) &&
               weir_reencrypt_has(r, range, WEIR_BLOCK_NEW)
               ? WEIR_RANGE_CONVERT : WEIR_RANGE_WRITE;
    }
    if (weir_reencrypt_is_hot(r, range) && !WITHOUT_RULE(8) &&
        (weir_reencrypt_has(r, range, WEIR_BLOCK_OLD) ||
         weir_reencrypt_has(r, range, WEIR_BLOCK_UNKNOWN))) {
        return WEIR_RANGE_CONVERT;
    }
    return WEIR_RANGE_WRITE;
}

WeirRangeKind weir_reencrypt_alone(WeirReencrypt *r, const WeirRange *range)
{
    (void)r;
    (void)range;
    return WEIR_RANGE_CONVERT;
}

WeirRangeKind weir_reencrypt_holding(WeirReencrypt *r, const WeirRange *range)
{
    (void)r;
    (void)range;
    return WITHOUT_RULE(5) ? WEIR_RANGE_READ : WEIR_RANGE_HOLD;
}

/* --- which cipher --- */

/*
 * Whether the block at an offset is new, and how many bytes from there on, at
 * most max_bytes, are alike. An unknown one counts as old; so does one of the
 * hotzone if the data moves.
 */
bool weir_reencrypt_is_new(WeirReencrypt *r, uint64_t offset,
                           uint64_t max_bytes, uint64_t *same_bytes)
{
    uint64_t zone_end = r->zone.offset + r->zone.bytes;
    uint64_t begin = r->info.backward
                     ? r->data_bytes - r->done_bytes : 0;
    uint64_t end = r->info.backward ? r->data_bytes : r->done_bytes;
    uint64_t next = offset + max_bytes;
    bool in_done = offset >= begin && offset < end;
    bool has_zone = r->zone.bytes && !r->info.shift_bytes;

    if (has_zone && offset >= r->zone.offset && offset < zone_end) {
        return weir_hotzone_state(&r->zone, offset,
                                  min(max_bytes, zone_end - offset),
                                  same_bytes) == WEIR_BLOCK_NEW;
    }
    if (has_zone && offset < r->zone.offset) {
        next = min(next, r->zone.offset);
    }
    if (in_done || offset < begin) {
        next = min(next, in_done ? end : begin);
    }
    *same_bytes = next - offset;
    return in_done;
}

int weir_reencrypt_crypt(WeirXts *xts, WeirReencryptCryptFn *fn,
                         uint64_t offset, uint64_t bytes, void *buf)
{
    return xts ? fn(xts, offset / WEIR_XTS_UNIT_BYTES, buf, buf, bytes) : 0;
}

/*
 * Each piece with its cipher.
 * converts: the hotzone's blocks are going to be new, whatever they are.
 */
static int crypt_range(WeirReencrypt *r, WeirReencryptCryptFn *fn,
                       const WeirRange *range, bool converts, uint8_t *buf)
{
    uint64_t at = 0, same;
    int ret = 0;

    while (at < range->bytes && ret == 0) {
        uint64_t offset = range->offset + at;
        bool new;

        weir_reencrypt_lock(r);
        new = weir_reencrypt_is_new(r, offset, range->bytes - at, &same);
        new |= converts && r->phase == WEIR_REENCRYPT_HOT &&
               weir_hotzone_touches(&r->zone, offset, 1);
        weir_reencrypt_unlock(r);
        ret = weir_reencrypt_crypt(new ? r->after : r->before, fn, offset,
                                   same, buf + at);
        at += same;
    }
    return ret;
}

/* --- requests --- */

int weir_reencrypt_read_raw(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                            void *buf)
{
    return r->host->read(r->opaque, WEIR_REENCRYPT_DATA,
                         r->info.data_offset_bytes + offset, bytes, buf);
}

int weir_reencrypt_write_raw(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                             const void *buf, bool fua)
{
    return r->host->write(r->opaque, WEIR_REENCRYPT_DATA,
                          r->info.data_offset_bytes + offset, bytes, buf, fua);
}

/* buf: the range as it is on disk. */
void weir_reencrypt_resolve(WeirReencrypt *r, const WeirRange *range,
                            const uint8_t *buf)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    weir_reencrypt_lock(r);
    if (weir_reencrypt_is_hot(r, range)) {
        weir_hotzone_clip(&r->zone, &offset, &bytes);
        weir_hotzone_resolve(&r->zone, offset, bytes,
                             buf + (offset - range->offset));
    }
    weir_reencrypt_unlock(r);
}

/* --- reads and writes --- */

static int read_range(WeirReencrypt *r, const WeirRange *range, uint8_t *buf)
{
    int ret;

    if (r->info.shift_bytes) {
        return weir_shift_read(r, range, buf);
    }
    ret = weir_reencrypt_read_raw(r, range->offset, range->bytes, buf);
    if (ret == 0 && range->kind == WEIR_RANGE_CONVERT) {
        weir_reencrypt_resolve(r, range, buf);
    }
    return ret == 0 ? crypt_range(r, weir_xts_decrypt, range, false, buf)
                    : ret;
}

int weir_reencrypt_read(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                        void *buf)
{
    WeirRange range = { .offset = offset, .bytes = bytes };
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, &range, kind_of_read);
    weir_reencrypt_unlock(r);
    ret = read_range(r, &range, buf);
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* The checksum of what was there before would be a wrong one. */
static void spoil_sums(WeirReencrypt *r, const WeirRange *range)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    weir_hotzone_clip(&r->next, &offset, &bytes);
    if (bytes > 0 && !WITHOUT_RULE(r->phase == WEIR_REENCRYPT_HOT ? 23 : 21)) {
        weir_hotzone_set(&r->next, offset, bytes, WEIR_BLOCK_UNKNOWN);
    }
}

/* Blocks that failed to be written are old or new, each of them. */
void weir_reencrypt_wrote(WeirReencrypt *r, const WeirRange *range, bool done)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    if (r->info.shift_bytes) {
        if (!done && range->kind == WEIR_RANGE_CONVERT) {
            weir_shift_spoil(r, range);
        }
        return;
    }
    spoil_sums(r, range);
    if (weir_reencrypt_is_hot(r, range) && range->kind == WEIR_RANGE_CONVERT) {
        weir_hotzone_clip(&r->zone, &offset, &bytes);
        weir_hotzone_set(&r->zone, offset, bytes, done ? WEIR_BLOCK_NEW
                                                       : WEIR_BLOCK_UNKNOWN);
    }
}

static bool is_unsure(WeirReencrypt *r, const WeirRange *range)
{
    return r->phase == WEIR_REENCRYPT_UNSURE &&
           weir_hotzone_touches(&r->zone, range->offset, range->bytes);
}

static int write_range(WeirReencrypt *r, const WeirRange *range, uint8_t *buf,
                       bool fua)
{
    int ret;

    if (r->info.shift_bytes) {
        return weir_shift_write(r, range, buf, fua);
    }
    ret = crypt_range(r, weir_xts_encrypt, range, true, buf);
    return ret == 0 ? weir_reencrypt_write_raw(r, range->offset, range->bytes,
                                               buf, fua) : ret;
}

int weir_reencrypt_write(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                         void *buf, bool fua)
{
    WeirRange range = { .offset = offset, .bytes = bytes };
    bool unsure;
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, &range, kind_of_write);
    unsure = is_unsure(r, &range);
    weir_reencrypt_unlock(r);
    ret = unsure ? -EIO : write_range(r, &range, buf, fua);
    weir_reencrypt_lock(r);
    weir_reencrypt_wrote(r, &range, ret == 0);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* --- the header --- */

int weir_reencrypt_flush_header(WeirReencrypt *r)
{
    return r->host->flush(r->opaque, WEIR_REENCRYPT_HEADER);
}

int weir_reencrypt_write_copy(WeirReencrypt *r, int copy)
{
    size_t bytes = weir_metadata_copy_bytes(r->metadata);

    return r->host->write(r->opaque, WEIR_REENCRYPT_HEADER, copy * bytes,
                          bytes, weir_metadata_copy(r->metadata, copy), false);
}

/* A torn write must not hit the only copy that says what is the case. */
int weir_reencrypt_mend_header(WeirReencrypt *r)
{
    int copy = weir_metadata_to_mend(r->metadata);
    int ret;

    if (copy < 0 || WITHOUT_RULE(6)) {
        return 0;
    }
    ret = weir_reencrypt_write_copy(r, copy);
    if (ret == 0) {
        ret = weir_reencrypt_flush_header(r);
    }
    if (ret == 0) {
        weir_metadata_mended(r->metadata);
    }
    return ret;
}

/*
 * As soon as one copy is durable it is the one that counts, whatever the other
 * one is; that is written too, and durable after the next flush. Until then
 * nobody knows how much of it is there: so the next header begins with it.
 */
int weir_reencrypt_write_header(WeirReencrypt *r, const char *json)
{
    int ret = json ? weir_metadata_set(r->metadata, json) : -ENOMEM;
    int first = WITHOUT_RULE(3) ? 0 : r->doubtful;

    if (ret == 0) {
        r->doubtful = first;
        ret = weir_reencrypt_write_copy(r, first);
    }
    if (ret == 0 && !WITHOUT_RULE(2)) {
        ret = weir_reencrypt_flush_header(r);
    }
    if (ret == 0) {
        r->doubtful = !first;
        ret = weir_reencrypt_write_copy(r, !first);
    }
    return ret;
}

/* --- phases --- */

void weir_reencrypt_set_phase(WeirReencrypt *r, WeirReencryptPhase phase)
{
    weir_reencrypt_lock(r);
    r->phase = phase;
    if (phase == WEIR_REENCRYPT_CLEAN) {
        weir_hotzone_end(&r->zone);
    }
    weir_reencrypt_unlock(r);
}

/* All up to there is new, and the header says so. */
void weir_reencrypt_end_zone(WeirReencrypt *r, WeirReencryptPhase phase)
{
    weir_reencrypt_lock(r);
    r->done_bytes += r->zone.bytes;
    r->phase = phase;
    weir_hotzone_end(&r->zone);
    weir_reencrypt_unlock(r);
}

/* Old keys, and checksums of old data. A failure leaves what is no use. */
static void wipe(WeirReencrypt *r, const WeirJobArea *area)
{
    void *zeroes = calloc(1, WIPE_BYTES);

    for (uint64_t at = 0; zeroes && at < area->bytes; at += WIPE_BYTES) {
        if (r->host->write(r->opaque, WEIR_REENCRYPT_HEADER, area->offset + at,
                           min(area->bytes - at, WIPE_BYTES), zeroes,
                           false) < 0) {
            break;
        }
    }
    free(zeroes);
}

void weir_reencrypt_wipe_all(WeirReencrypt *r)
{
    for (size_t i = 0; i < r->n_wipe; i++) {
        wipe(r, &r->wipe[i]);
    }
    weir_reencrypt_flush_header(r);
}

/* --- steps --- */

/* Large steps have large chunks: fewer requests, and turns of threads. */
static void choose_chunk(WeirReencrypt *r, uint32_t bytes)
{
    r->chunk_bytes = r->chunk_bytes_min;
    while (r->chunk_bytes <= bytes / WEIR_REENCRYPT_LANES / 2 &&
           r->chunk_bytes < r->chunk_bytes_max) {
        r->chunk_bytes *= 2;
    }
}

int weir_reencrypt_step(WeirReencrypt *r, uint32_t bytes)
{
    int ret;

    if (r->phase == WEIR_REENCRYPT_FINISHED) {
        return 0;
    }
    if (r->read_only) {
        return -EROFS;
    }
    choose_chunk(r, bytes);
    ret = r->info.shift_bytes ? weir_shift_step(r, bytes)
                              : weir_zone_step(r, bytes);
    if (ret < 0 || r->phase == WEIR_REENCRYPT_FINISHED) {
        return ret < 0 ? ret : 0;
    }
    return ret / 2 ? ret / 2 : 1;
}

void weir_reencrypt_rest(WeirReencrypt *r)
{
    weir_zone_drop_next(r);
}

void weir_reencrypt_query(WeirReencrypt *r, WeirReencryptInfo *info)
{
    weir_reencrypt_lock(r);
    *info = (WeirReencryptInfo) {
        .mode = r->info.mode,
        .backward = r->info.backward,
        .moves = r->info.shift_bytes,
        .phase = r->phase,
        .data_bytes = r->data_bytes,
        .data_offset_bytes = r->info.data_offset_bytes,
        .done_bytes = r->done_bytes + (r->phase == WEIR_REENCRYPT_HOT &&
                                       !r->staged_offset
            ? r->zone.bytes - r->zone.left * r->info.block_bytes : 0),
        .block_bytes = r->info.block_bytes,
        .vaes_bits = r->vaes_bits,
    };
    weir_reencrypt_unlock(r);
}

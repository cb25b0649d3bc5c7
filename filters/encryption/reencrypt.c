/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/reencrypt-int.h"

#define PAGE_BYTES 4096
#define WIPE_BYTES (1024 * 1024)
/* hotzones of up to so much are read once, and not again to be converted */
#define KEEP_BYTES (32 * 1024 * 1024)
/* passes over the checksums before writers have to wait for the last one */
#define PASSES 2

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
    r->at = head;
    r->phase = hot ? WEIR_REENCRYPT_HOT : WEIR_REENCRYPT_CLEAN;
    return 0;
}

static bool take_memory(WeirReencrypt *r)
{
    size_t bytes = (size_t)r->chunk_bytes_max * WEIR_REENCRYPT_LANES;

    r->keeps = !r->info.shift_bytes && r->hotzone_bytes <= KEEP_BYTES;
    if (r->keeps && r->hotzone_bytes > bytes) {
        bytes = r->hotzone_bytes;
    }
    bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES + PAGE_BYTES;
    r->data = aligned_alloc(PAGE_BYTES, bytes);
    r->data_room_bytes = r->data ? bytes : 0;
    return r->data;
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
    r->doubtful = -1;
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

void weir_reencrypt_free(WeirReencrypt *r)
{
    if (!r) {
        return;
    }
    weir_xts_free(r->before);
    weir_xts_free(r->after);
    weir_hotzone_destroy(&r->zone);
    weir_job_free(r->job);
    weir_metadata_free(r->metadata);
    if (r->data) {
        explicit_bzero(r->data, r->data_room_bytes);    /* it may be plain */
    }
    free(r->data);
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

static bool has_state(WeirReencrypt *r, const WeirRange *range,
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
           has_state(r, range, WEIR_BLOCK_UNKNOWN)
           ? WEIR_RANGE_CONVERT : WEIR_RANGE_READ;
}

/* If the data moves, what is new has to be written twice, by one at a time. */
static WeirRangeKind kind_of_write(WeirReencrypt *r, const WeirRange *range)
{
    if (r->info.shift_bytes) {
        return weir_reencrypt_is_hot(r, range) &&
               has_state(r, range, WEIR_BLOCK_NEW)
               ? WEIR_RANGE_CONVERT : WEIR_RANGE_WRITE;
    }
    if (weir_reencrypt_is_hot(r, range) && !WITHOUT_RULE(8) &&
        (has_state(r, range, WEIR_BLOCK_OLD) ||
         has_state(r, range, WEIR_BLOCK_UNKNOWN))) {
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

static int read_raw(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                    void *buf)
{
    return r->host->read(r->opaque, WEIR_REENCRYPT_DATA,
                         r->info.data_offset_bytes + offset, bytes, buf);
}

static int write_raw(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                     const void *buf, bool fua)
{
    return r->host->write(r->opaque, WEIR_REENCRYPT_DATA,
                          r->info.data_offset_bytes + offset, bytes, buf, fua);
}

/* buf: the range as it is on disk. */
static void resolve(WeirReencrypt *r, const WeirRange *range,
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
    ret = read_raw(r, range->offset, range->bytes, buf);
    if (ret == 0 && range->kind == WEIR_RANGE_CONVERT) {
        resolve(r, range, buf);
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

    weir_hotzone_clip(&r->zone, &offset, &bytes);
    if (bytes > 0 && !WITHOUT_RULE(21)) {
        weir_hotzone_set(&r->zone, offset, bytes, WEIR_BLOCK_UNKNOWN);
    }
}

/* Blocks that failed to be written are old or new, each of them. */
static void wrote(WeirReencrypt *r, const WeirRange *range, bool done)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    if (r->info.shift_bytes) {
        if (!done && range->kind == WEIR_RANGE_CONVERT) {
            weir_shift_spoil(r, range);
        }
    } else if (r->phase == WEIR_REENCRYPT_SUMMING ||
               r->phase == WEIR_REENCRYPT_PREPARING) {
        spoil_sums(r, range);
    } else if (weir_reencrypt_is_hot(r, range) &&
               range->kind == WEIR_RANGE_CONVERT) {
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
    return ret == 0 ? write_raw(r, range->offset, range->bytes, buf, fua)
                    : ret;
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
    wrote(r, &range, ret == 0);
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

/* First the copy of which it is not known whether it is good. */
int weir_reencrypt_write_header(WeirReencrypt *r, const char *json)
{
    int ret = json ? weir_metadata_set(r->metadata, json) : -ENOMEM;
    int first = r->doubtful < 0 ? 0 : r->doubtful;

    for (int i = 0; i < WEIR_METADATA_COPIES && ret == 0; i++) {
        r->doubtful = first ^ i;
        ret = weir_reencrypt_write_copy(r, r->doubtful);
        if (ret == 0 && !WITHOUT_RULE(2 + i)) {
            ret = weir_reencrypt_flush_header(r);
        }
    }
    if (ret == 0) {
        r->doubtful = -1;
    }
    return ret;
}

/* --- lanes --- */

/*
 * Some chunks of the hotzone, several at a time. A lane takes the next one when
 * it is done with one.
 */
typedef struct Walk {
    WeirReencrypt *r;
    /* called with the lock held */
    bool (*next)(WeirReencrypt *r, WeirRange *chunk);
    int (*run)(WeirReencrypt *r, WeirRange *chunk, uint8_t *buf);
    uint64_t max_bytes;
    uint64_t bytes;             /* lock; of chunks that were taken */
    int ret;                    /* lock; of the first that failed */
} Walk;

/* Where the hotzone is kept. Pages are where they are on disk. */
static uint8_t *kept_at(WeirReencrypt *r, uint64_t offset)
{
    return r->data + r->zone.offset % PAGE_BYTES + (offset - r->zone.offset);
}

static uint8_t *buffer_of(WeirReencrypt *r, unsigned lane, uint64_t offset)
{
    return r->keeps && r->zone.bytes <= r->hotzone_bytes
           ? kept_at(r, offset) : r->data + (size_t)lane * r->chunk_bytes;
}

static bool take_chunk(Walk *walk, WeirRange *chunk)
{
    bool has;

    weir_reencrypt_lock(walk->r);
    has = walk->ret == 0 && walk->bytes < walk->max_bytes &&
          walk->next(walk->r, chunk);
    walk->bytes += has ? chunk->bytes : 0;
    weir_reencrypt_unlock(walk->r);
    return has;
}

static void run_lane(void *opaque, unsigned lane)
{
    Walk *walk = opaque;
    WeirRange chunk;

    while (take_chunk(walk, &chunk)) {
        int ret = walk->run(walk->r, &chunk, buffer_of(walk->r, lane,
                                                       chunk.offset));

        if (ret < 0) {
            weir_reencrypt_lock(walk->r);
            walk->ret = walk->ret < 0 ? walk->ret : ret;
            weir_reencrypt_unlock(walk->r);
        }
    }
}

/* Returns how many bytes there were, or -errno. */
static int run_walk(Walk *walk)
{
    WeirReencrypt *r = walk->r;
    uint64_t n = (walk->max_bytes + r->chunk_bytes - 1) / r->chunk_bytes;

    r->host->each(r->opaque, run_lane, walk, min(n, WEIR_REENCRYPT_LANES));
    return walk->ret < 0 ? walk->ret : (int)walk->bytes;
}

/* --- begin a hotzone --- */

static int place_zone(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes;
    uint64_t bytes = min(left, r->hotzone_bytes);

    return weir_hotzone_begin(&r->zone, r->info.backward ? left - bytes
                              : r->done_bytes, bytes, WEIR_BLOCK_UNKNOWN);
}

/*
 * A checksum of what is not durable would be that of a block which a power cut
 * turns into another one, and neither old nor new.
 * Returns 1, 0 when nothing is to be summed, or -errno.
 */
static int begin_pass(WeirReencrypt *r)
{
    bool any;
    int ret;

    weir_reencrypt_lock(r);
    any = weir_hotzone_take(&r->zone);
    r->at = r->zone.offset;
    weir_reencrypt_unlock(r);
    if (!any || WITHOUT_RULE(r->phase == WEIR_REENCRYPT_SUMMING ? 9 : 22)) {
        return any;
    }
    ret = r->host->flush(r->opaque, WEIR_REENCRYPT_DATA);
    return ret < 0 ? ret : 1;
}

static bool next_to_sum(WeirReencrypt *r, WeirRange *chunk)
{
    bool has;

    *chunk = (WeirRange) { .offset = r->at };
    has = weir_hotzone_next_taken(&r->zone, &chunk->offset, r->chunk_bytes,
                                  &chunk->bytes);
    r->at = chunk->offset + chunk->bytes;
    return has;
}

typedef struct Sum {
    WeirReencrypt *r;
    const WeirRange *chunk;
    const uint8_t *buf;
} Sum;

static void compute_sums(void *opaque)
{
    Sum *sum = opaque;

    weir_hotzone_sum(&sum->r->zone, sum->chunk->offset, sum->chunk->bytes,
                     sum->buf);
}

static int sum_chunk(WeirReencrypt *r, WeirRange *chunk, uint8_t *buf)
{
    int ret = read_raw(r, chunk->offset, chunk->bytes, buf);
    Sum sum = { r, chunk, buf };

    if (ret == 0) {
        r->host->compute(r->opaque, compute_sums, &sum);
    }
    return ret;
}

/* Returns how much, 0 when the pass is done, or -errno. */
static int sum_some(WeirReencrypt *r, uint64_t max_bytes)
{
    Walk walk = {
        .r = r, .next = next_to_sum, .run = sum_chunk,
        .max_bytes = max_bytes,
    };

    return run_walk(&walk);
}

/* Those of the pass. Nothing says yet that the area is in use. */
static int write_area(WeirReencrypt *r)
{
    uint64_t begin, end;
    int ret = weir_reencrypt_mend_header(r);

    weir_hotzone_taken_sums(&r->zone, &begin, &end);
    begin -= begin % PAGE_BYTES;
    end = min((end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
              weir_hotzone_sums_bytes(&r->zone));
    if (ret == 0) {
        ret = r->host->write(r->opaque, WEIR_REENCRYPT_HEADER,
                             r->info.area_offset + begin, end - begin,
                             r->zone.sums + begin, false);
    }
    return ret == 0 && !WITHOUT_RULE(1) ? weir_reencrypt_flush_header(r) : ret;
}

/* From the first byte of it on, the zone may be hot for those who look. */
static int write_hot_header(WeirReencrypt *r)
{
    return weir_reencrypt_write_header(r, weir_job_set(r->job, r->zone.offset,
                                                       r->zone.bytes,
                                                       r->data_bytes));
}

void weir_reencrypt_set_phase(WeirReencrypt *r, WeirReencryptPhase phase)
{
    weir_reencrypt_lock(r);
    r->phase = phase;
    if (phase == WEIR_REENCRYPT_CLEAN) {
        weir_hotzone_end(&r->zone);
    }
    weir_reencrypt_unlock(r);
}

/* What was written to the zone since the last pass. Its writers wait. */
static int sum_rest(WeirReencrypt *r)
{
    int ret = begin_pass(r);

    if (ret > 0) {
        ret = sum_some(r, r->zone.bytes);
    }
    return ret > 0 ? write_area(r) : ret;
}

static int prepare_held(WeirReencrypt *r)
{
    int ret = sum_rest(r);

    if (ret < 0) {
        return ret;
    }
    ret = write_hot_header(r);
    r->kept = r->keeps;
    weir_reencrypt_lock(r);
    r->at = r->zone.offset;
    weir_reencrypt_unlock(r);
    weir_reencrypt_set_phase(r, ret == 0 ? WEIR_REENCRYPT_HOT :
              WITHOUT_RULE(10) ? WEIR_REENCRYPT_CLEAN : WEIR_REENCRYPT_UNSURE);
    return ret;
}

/* From here on writers wait, as short as can be. */
static int hold_zone(WeirReencrypt *r)
{
    WeirRange range = { .offset = r->zone.offset, .bytes = r->zone.bytes };
    int ret;

    weir_reencrypt_lock(r);
    r->phase = WEIR_REENCRYPT_PREPARING;
    weir_reencrypt_enter(r, &range, weir_reencrypt_holding);
    weir_reencrypt_unlock(r);
    ret = prepare_held(r);
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

static int begin_zone(WeirReencrypt *r)
{
    int ret;

    weir_reencrypt_lock(r);
    ret = place_zone(r);
    if (ret == 0) {
        r->phase = WEIR_REENCRYPT_SUMMING;
    }
    weir_reencrypt_unlock(r);
    r->passes = 0;
    r->kept = false;
    return ret == 0 ? begin_pass(r) : ret;
}

/* The pass is done: its checksums are written, and another one begins. */
static int end_pass(WeirReencrypt *r)
{
    int ret = write_area(r);

    if (ret == 0 && ++r->passes < PASSES) {
        ret = begin_pass(r);
    }
    return ret;
}

/* Returns bytes, or -errno. */
static int try_to_prepare(WeirReencrypt *r, uint64_t bytes)
{
    int ret = r->phase == WEIR_REENCRYPT_CLEAN ? begin_zone(r) : 0;

    if (ret >= 0) {
        ret = sum_some(r, bytes);
    }
    if (ret == 0) {
        ret = end_pass(r);              /* 1: there is another one */
    }
    return ret == 0 ? hold_zone(r) : ret;
}

static int prepare(WeirReencrypt *r, uint64_t bytes)
{
    int ret = try_to_prepare(r, bytes);

    if (ret < 0 && r->phase != WEIR_REENCRYPT_UNSURE) {
        weir_reencrypt_set_phase(r, WEIR_REENCRYPT_CLEAN);
        explicit_bzero(r->data, r->data_room_bytes);
    }
    return ret;
}

/* The area is written, and nobody has written to the zone since. */
static int prepare_again(WeirReencrypt *r)
{
    int ret = write_hot_header(r);

    if (ret == 0) {
        weir_reencrypt_set_phase(r, WEIR_REENCRYPT_HOT);
    }
    return ret;
}

/* --- convert --- */

/* What we have kept up to there is not needed any more. It may be plain. */
static void forget(WeirReencrypt *r, uint64_t end)
{
    if (r->kept && r->at < end) {
        explicit_bzero(kept_at(r, r->at), end - r->at);
    }
    r->at = end;
}

/* The next chunk with blocks that are not new. */
static bool next_to_convert(WeirReencrypt *r, WeirRange *chunk)
{
    uint64_t end = r->zone.offset + r->zone.bytes, same;

    while (r->at < end && weir_hotzone_state(&r->zone, r->at, end - r->at,
                                             &same) == WEIR_BLOCK_NEW) {
        forget(r, r->at + same);
    }
    same = r->chunk_bytes - r->at % r->chunk_bytes;
    *chunk = (WeirRange) { .offset = r->at, .bytes = min(same, end - r->at) };
    r->at += chunk->bytes;
    return chunk->bytes > 0;
}

/* A chunk that nobody else is at. */
typedef struct Held {
    WeirReencrypt *r;
    const WeirRange *range;
    uint8_t *buf;
    int ret;
    uint64_t left_bytes;        /* of it that buf has not got as it will be */
} Held;

typedef int PieceFn(Held *held, uint64_t offset, uint64_t bytes, uint8_t *buf);

/* What is new stays as it is. */
static int each_old_piece(Held *held, PieceFn *fn)
{
    const WeirRange *range = held->range;
    WeirReencrypt *r = held->r;
    uint64_t at = 0, same;
    int ret = 0;

    while (at < range->bytes && ret == 0) {
        WeirBlockState state;

        weir_reencrypt_lock(r);
        state = weir_hotzone_state(&r->zone, range->offset + at,
                                   range->bytes - at, &same);
        weir_reencrypt_unlock(r);
        if (state == WEIR_BLOCK_OLD) {
            ret = fn(held, range->offset + at, same, held->buf + at);
        }
        at += same;
    }
    return ret;
}

static int convert_piece(Held *held, uint64_t offset, uint64_t bytes,
                         uint8_t *buf)
{
    WeirReencrypt *r = held->r;
    int ret = weir_reencrypt_crypt(r->before, weir_xts_decrypt, offset, bytes,
                                   buf);

    if (ret == 0) {
        ret = weir_reencrypt_crypt(r->after, weir_xts_encrypt, offset, bytes,
                                   buf);
    }
    held->left_bytes -= ret == 0 ? bytes : 0;
    return ret;
}

static int store_piece(Held *held, uint64_t offset, uint64_t bytes,
                       uint8_t *buf)
{
    const WeirRange range = {
        .offset = offset, .bytes = bytes, .kind = WEIR_RANGE_CONVERT,
    };
    WeirReencrypt *r = held->r;
    int ret = write_raw(r, offset, bytes, buf, false);

    weir_reencrypt_lock(r);
    wrote(r, &range, ret == 0);
    weir_reencrypt_unlock(r);
    return ret;
}

static void compute_conversion(void *opaque)
{
    Held *held = opaque;

    held->ret = each_old_piece(held, convert_piece);
}

/* What is on disk, unless we have kept it. */
static int fetch(Held *held)
{
    const WeirRange *range = held->range;
    WeirReencrypt *r = held->r;
    bool unknown;
    int ret;

    weir_reencrypt_lock(r);
    unknown = has_state(r, range, WEIR_BLOCK_UNKNOWN);
    weir_reencrypt_unlock(r);
    if (r->kept && !unknown) {
        return 0;
    }
    ret = read_raw(r, range->offset, range->bytes, held->buf);
    if (ret == 0) {
        resolve(r, range, held->buf);
    }
    return ret;
}

static int convert_held(Held *held)
{
    WeirReencrypt *r = held->r;
    int ret = fetch(held);

    if (ret == 0) {
        r->host->compute(r->opaque, compute_conversion, held);
        ret = held->ret;
    }
    if (ret == 0) {
        ret = each_old_piece(held, store_piece);
    }
    return ret;
}

static int convert_chunk(WeirReencrypt *r, WeirRange *range, uint8_t *buf)
{
    Held held = {
        .r = r, .range = range, .buf = buf, .left_bytes = range->bytes,
    };
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, range, weir_reencrypt_alone);
    weir_reencrypt_unlock(r);
    ret = convert_held(&held);
    if (!r->after || held.left_bytes > 0) {
        explicit_bzero(buf, range->bytes);      /* it may be plain */
    }
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* After an error all that is left is read again. */
static int convert(WeirReencrypt *r, uint64_t bytes)
{
    Walk walk = {
        .r = r, .next = next_to_convert, .run = convert_chunk,
        .max_bytes = bytes,
    };
    int ret = run_walk(&walk);

    if (ret <= 0) {
        weir_reencrypt_lock(r);
        r->at = r->zone.offset;
        weir_reencrypt_unlock(r);
    }
    if (ret < 0 && r->kept) {
        explicit_bzero(r->data, r->data_room_bytes);
        r->kept = false;
    }
    return ret;
}

/* --- end a hotzone --- */

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

/* All up to there is new, and the header says so. */
void weir_reencrypt_end_zone(WeirReencrypt *r, WeirReencryptPhase phase)
{
    weir_reencrypt_lock(r);
    forget(r, r->zone.offset + r->zone.bytes);
    r->done_bytes += r->zone.bytes;
    r->phase = phase;
    weir_hotzone_end(&r->zone);
    weir_reencrypt_unlock(r);
}

/* The header has nothing of the job any more. */
static int finish_last(WeirReencrypt *r)
{
    int ret;

    if (!r->final) {
        r->final = weir_job_finish(r->job, r->wipe, &r->n_wipe);
    }
    ret = weir_reencrypt_write_header(r, r->final);
    if (ret < 0) {
        return ret;
    }
    weir_reencrypt_end_zone(r, WEIR_REENCRYPT_FINISHED);
    weir_reencrypt_wipe_all(r);
    return 0;
}

/* The header still says that the zone is hot, which is as true. */
static int finish_zone(WeirReencrypt *r, uint64_t left)
{
    uint64_t head = r->info.backward ? left : r->done_bytes + r->zone.bytes;
    int ret = weir_reencrypt_write_header(r, weir_job_set(r->job, head, 0,
                                                          r->data_bytes));

    if (ret == 0) {
        weir_reencrypt_end_zone(r, WEIR_REENCRYPT_CLEAN);
    }
    return ret;
}

static int finish(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes - r->zone.bytes;
    int ret = 0;

    if (!WITHOUT_RULE(4)) {
        ret = r->host->flush(r->opaque, WEIR_REENCRYPT_DATA);
    }
    if (ret == 0) {
        ret = weir_reencrypt_mend_header(r);
    }
    if (ret < 0) {
        return ret;
    }
    return left ? finish_zone(r, left) : finish_last(r);
}

/* --- steps --- */

/* Returns bytes, or -errno. */
static int one_step(WeirReencrypt *r, uint32_t bytes)
{
    if (r->info.shift_bytes) {
        return weir_shift_step(r, bytes);
    }
    switch (r->phase) {
    case WEIR_REENCRYPT_UNSURE:
        return prepare_again(r);
    case WEIR_REENCRYPT_HOT:
        return r->zone.left ? convert(r, bytes) : finish(r);
    default:
        return r->done_bytes < r->data_bytes ? prepare(r, bytes) : finish(r);
    }
}

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
    ret = one_step(r, bytes);
    if (ret < 0 || r->phase == WEIR_REENCRYPT_FINISHED) {
        return ret < 0 ? ret : 0;
    }
    return ret / 2 ? ret / 2 : 1;
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

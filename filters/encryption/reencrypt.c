/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ranges.h"
#include "encryption/hotzone.h"
#include "encryption/metadata.h"
#include "encryption/reencrypt.h"
#include "encryption/xts.h"

#define PAGE_BYTES 4096
#define WIPE_BYTES (64 * 1024)

/* A rule of the crash proof, left out to show that the tests notice. */
#ifdef WEIR_REENCRYPT_MUTATIONS
extern unsigned weir_reencrypt_mutation;
#define WITHOUT_RULE(n) (weir_reencrypt_mutation & 1u << (n))
#else
#define WITHOUT_RULE(n) 0
#endif

struct WeirReencrypt {
    const WeirReencryptHost *host;      /* set at open */
    void *opaque;                       /* set at open */
    WeirMetadata *metadata;             /* of whoever does a step */
    WeirJob *job;                       /* of whoever does a step */
    uint8_t *chunk;                     /* of whoever does a step */
    const char *final;                  /* of whoever does a step; the last
                                           header, when it has been tried */
    WeirJobArea wipe[WEIR_JOB_AREAS_MAX];   /* after it */
    size_t n_wipe;
    WeirXts *before, *after;            /* set at open; NULL: plain */
    WeirJobInfo info;                   /* set at open */
    unsigned vaes_bits;                 /* set at open */
    bool read_only;                     /* set at open */
    uint64_t data_bytes;                /* set at open */
    uint64_t hotzone_bytes;             /* set at open */
    uint32_t chunk_bytes;               /* set at open */
    pthread_mutex_t lock;
    WeirReencryptPhase phase;           /* lock */
    uint64_t done_bytes;                /* lock; without the hotzone */
    WeirHotzone zone;                   /* lock */
    WeirRanges ranges;                  /* lock */
    WeirReencryptQueue queue;           /* lock; a range was removed */
};

void weir_reencrypt_lock(WeirReencrypt *r)
{
    pthread_mutex_lock(&r->lock);
}

void weir_reencrypt_unlock(WeirReencrypt *r)
{
    pthread_mutex_unlock(&r->lock);
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
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

static int take_sizes(WeirReencrypt *r, const WeirReencryptOpen *open,
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
    r->hotzone_bytes -= r->hotzone_bytes % block;
    r->hotzone_bytes = r->hotzone_bytes ? r->hotzone_bytes : block;
    r->chunk_bytes = open->chunk_bytes < block ? block : open->chunk_bytes;
    r->chunk = aligned_alloc(PAGE_BYTES, (r->chunk_bytes + PAGE_BYTES - 1) /
                             PAGE_BYTES * PAGE_BYTES);
    return r->chunk ? 0 : fail(err, err_size, -ENOMEM, "no memory to convert "
                               "the disk");
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
    free(r->chunk);
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
    return ret;
}

/* --- ranges --- */

typedef WeirRangeKind KindFn(WeirReencrypt *r, const WeirRange *range);

/*
 * Wait until nobody is in the way. What it does to the blocks can have become
 * another thing meanwhile: then it waits behind all who came since.
 */
static void enter(WeirReencrypt *r, WeirRange *range, KindFn *kind_of)
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

static void leave(WeirReencrypt *r, WeirRange *range)
{
    weir_ranges_remove(&r->ranges, range);
    r->host->wake(r->opaque, &r->queue);
}

static bool is_hot(WeirReencrypt *r, const WeirRange *range)
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
    return is_hot(r, range) && has_state(r, range, WEIR_BLOCK_UNKNOWN)
           ? WEIR_RANGE_CONVERT : WEIR_RANGE_READ;
}

static WeirRangeKind kind_of_write(WeirReencrypt *r, const WeirRange *range)
{
    if (is_hot(r, range) && !WITHOUT_RULE(8) &&
        (has_state(r, range, WEIR_BLOCK_OLD) ||
         has_state(r, range, WEIR_BLOCK_UNKNOWN))) {
        return WEIR_RANGE_CONVERT;
    }
    return WEIR_RANGE_WRITE;
}

static WeirRangeKind kind_of_conversion(WeirReencrypt *r,
                                        const WeirRange *range)
{
    (void)r;
    (void)range;
    return WEIR_RANGE_CONVERT;
}

static WeirRangeKind kind_of_hold(WeirReencrypt *r, const WeirRange *range)
{
    (void)r;
    (void)range;
    return WITHOUT_RULE(5) ? WEIR_RANGE_READ : WEIR_RANGE_HOLD;
}

/* --- which cipher --- */

/*
 * Whether the block at an offset is new, and how many bytes from there on, at
 * most max_bytes, are alike. An unknown one counts as old.
 */
static bool is_new(WeirReencrypt *r, uint64_t offset, uint64_t max_bytes,
                   uint64_t *same_bytes)
{
    uint64_t zone_end = r->zone.offset + r->zone.bytes;
    uint64_t begin = r->info.backward
                     ? r->data_bytes - r->done_bytes : 0;
    uint64_t end = r->info.backward ? r->data_bytes : r->done_bytes;
    uint64_t next = offset + max_bytes;
    bool in_done = offset >= begin && offset < end;

    if (r->zone.bytes && offset >= r->zone.offset && offset < zone_end) {
        return weir_hotzone_state(&r->zone, offset,
                                  min(max_bytes, zone_end - offset),
                                  same_bytes) == WEIR_BLOCK_NEW;
    }
    if (r->zone.bytes && offset < r->zone.offset) {
        next = min(next, r->zone.offset);
    }
    if (in_done || offset < begin) {
        next = min(next, in_done ? end : begin);
    }
    *same_bytes = next - offset;
    return in_done;
}

typedef int CryptFn(WeirXts *xts, uint64_t unit, const void *in, void *out,
                    size_t bytes);

static int crypt_piece(WeirXts *xts, CryptFn *fn, uint64_t offset,
                       uint64_t bytes, void *buf)
{
    return xts ? fn(xts, offset / WEIR_XTS_UNIT_BYTES, buf, buf, bytes) : 0;
}

/*
 * Each piece with its cipher.
 * converts: the hotzone's blocks are going to be new, whatever they are.
 */
static int crypt_range(WeirReencrypt *r, CryptFn *fn, const WeirRange *range,
                       bool converts, uint8_t *buf)
{
    uint64_t at = 0, same;
    int ret = 0;

    while (at < range->bytes && ret == 0) {
        uint64_t offset = range->offset + at;
        bool new;

        weir_reencrypt_lock(r);
        new = is_new(r, offset, range->bytes - at, &same);
        new |= converts && r->phase == WEIR_REENCRYPT_HOT &&
               weir_hotzone_touches(&r->zone, offset, 1);
        weir_reencrypt_unlock(r);
        ret = crypt_piece(new ? r->after : r->before, fn, offset, same,
                          buf + at);
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
    if (is_hot(r, range)) {
        weir_hotzone_clip(&r->zone, &offset, &bytes);
        weir_hotzone_resolve(&r->zone, offset, bytes,
                             buf + (offset - range->offset));
    }
    weir_reencrypt_unlock(r);
}

int weir_reencrypt_read(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                        void *buf)
{
    WeirRange range = { .offset = offset, .bytes = bytes };
    int ret;

    weir_reencrypt_lock(r);
    enter(r, &range, kind_of_read);
    weir_reencrypt_unlock(r);
    ret = read_raw(r, offset, bytes, buf);
    if (ret == 0 && range.kind == WEIR_RANGE_CONVERT) {
        resolve(r, &range, buf);
    }
    if (ret == 0) {
        ret = crypt_range(r, weir_xts_decrypt, &range, false, buf);
    }
    weir_reencrypt_lock(r);
    leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* Blocks that failed to be written are old or new, each of them. */
static void wrote(WeirReencrypt *r, const WeirRange *range, bool done)
{
    uint64_t offset = range->offset, bytes = range->bytes;

    if (is_hot(r, range) && range->kind == WEIR_RANGE_CONVERT) {
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

int weir_reencrypt_write(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                         void *buf, bool fua)
{
    WeirRange range = { .offset = offset, .bytes = bytes };
    bool unsure;
    int ret;

    weir_reencrypt_lock(r);
    enter(r, &range, kind_of_write);
    unsure = is_unsure(r, &range);
    weir_reencrypt_unlock(r);
    ret = unsure ? -EIO : crypt_range(r, weir_xts_encrypt, &range, true, buf);
    if (ret == 0) {
        ret = write_raw(r, offset, bytes, buf, fua);
    }
    weir_reencrypt_lock(r);
    wrote(r, &range, ret == 0);
    leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* --- the header --- */

static int flush_header(WeirReencrypt *r)
{
    return r->host->flush(r->opaque, WEIR_REENCRYPT_HEADER);
}

static int write_copy(WeirReencrypt *r, int copy)
{
    size_t bytes = weir_metadata_copy_bytes(r->metadata);

    return r->host->write(r->opaque, WEIR_REENCRYPT_HEADER, copy * bytes,
                          bytes, weir_metadata_copy(r->metadata, copy), false);
}

/* A torn write must not hit the only copy that says what is the case. */
static int mend_header(WeirReencrypt *r)
{
    int copy = weir_metadata_to_mend(r->metadata);
    int ret;

    if (copy < 0 || WITHOUT_RULE(6)) {
        return 0;
    }
    ret = write_copy(r, copy);
    if (ret == 0) {
        ret = flush_header(r);
    }
    if (ret == 0) {
        weir_metadata_mended(r->metadata);
    }
    return ret;
}

static int write_header(WeirReencrypt *r, const char *json)
{
    int ret = json ? weir_metadata_set(r->metadata, json) : -ENOMEM;

    for (int i = 0; i < WEIR_METADATA_COPIES && ret == 0; i++) {
        ret = write_copy(r, i);
        if (ret == 0 && !WITHOUT_RULE(2 + i)) {
            ret = flush_header(r);
        }
    }
    return ret;
}

/* --- begin a hotzone --- */

static int place_zone(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes;
    uint64_t bytes = min(left, r->hotzone_bytes);

    return weir_hotzone_begin(&r->zone, r->info.backward ? left - bytes
                              : r->done_bytes, bytes, WEIR_BLOCK_OLD);
}

static int sum_zone(WeirReencrypt *r)
{
    uint64_t end = r->zone.offset + r->zone.bytes, bytes;

    for (uint64_t at = r->zone.offset; at < end; at += bytes) {
        int ret;

        bytes = min(end - at, r->chunk_bytes);
        ret = read_raw(r, at, bytes, r->chunk);
        if (ret < 0) {
            return ret;
        }
        weir_hotzone_sum(&r->zone, at, bytes, r->chunk);
    }
    return 0;
}

/* Nothing says yet that the area is in use. */
static int write_area(WeirReencrypt *r)
{
    int ret = mend_header(r);

    if (ret == 0) {
        ret = r->host->write(r->opaque, WEIR_REENCRYPT_HEADER,
                             r->info.area_offset,
                             weir_hotzone_sums_bytes(&r->zone), r->zone.sums,
                             false);
    }
    return ret == 0 && !WITHOUT_RULE(1) ? flush_header(r) : ret;
}

/* From the first byte of it on, the zone may be hot for those who look. */
static int write_hot_header(WeirReencrypt *r)
{
    return write_header(r, weir_job_set(r->job, r->zone.offset, r->zone.bytes,
                                        r->data_bytes));
}

static void set_phase(WeirReencrypt *r, WeirReencryptPhase phase)
{
    weir_reencrypt_lock(r);
    r->phase = phase;
    if (phase == WEIR_REENCRYPT_CLEAN) {
        weir_hotzone_end(&r->zone);
    }
    weir_reencrypt_unlock(r);
}

/*
 * A checksum of what is not durable would be that of a block which a power cut
 * turns into another one, and neither old nor new.
 */
static int flush_zone(WeirReencrypt *r)
{
    return WITHOUT_RULE(9) ? 0 : r->host->flush(r->opaque,
                                                WEIR_REENCRYPT_DATA);
}

/* The zone's writers wait. */
static int prepare_held(WeirReencrypt *r)
{
    int ret = flush_zone(r);

    if (ret == 0) {
        ret = sum_zone(r);
    }
    if (ret == 0) {
        ret = write_area(r);
    }
    if (ret < 0) {
        set_phase(r, WEIR_REENCRYPT_CLEAN);
        return ret;
    }
    ret = write_hot_header(r);
    set_phase(r, ret == 0 ? WEIR_REENCRYPT_HOT :
              WITHOUT_RULE(10) ? WEIR_REENCRYPT_CLEAN : WEIR_REENCRYPT_UNSURE);
    return ret;
}

static int prepare(WeirReencrypt *r)
{
    WeirRange range;
    int ret;

    weir_reencrypt_lock(r);
    ret = place_zone(r);
    if (ret < 0) {
        weir_reencrypt_unlock(r);
        return ret;
    }
    r->phase = WEIR_REENCRYPT_PREPARING;
    range = (WeirRange) { .offset = r->zone.offset, .bytes = r->zone.bytes };
    enter(r, &range, kind_of_hold);
    weir_reencrypt_unlock(r);
    ret = prepare_held(r);
    weir_reencrypt_lock(r);
    leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* The area is written, and nobody has written to the zone since. */
static int prepare_again(WeirReencrypt *r)
{
    int ret = write_hot_header(r);

    if (ret == 0) {
        set_phase(r, WEIR_REENCRYPT_HOT);
    }
    return ret;
}

/* --- convert --- */

/* The first chunk with blocks that are not new. */
static WeirRange next_chunk(WeirReencrypt *r)
{
    uint64_t end = r->zone.offset + r->zone.bytes, at = r->zone.offset, same;

    while (weir_hotzone_state(&r->zone, at, end - at, &same) ==
           WEIR_BLOCK_NEW) {
        at += same;
    }
    same = r->chunk_bytes - at % r->chunk_bytes;
    return (WeirRange) { .offset = at, .bytes = min(same, end - at) };
}

static int convert_piece(WeirReencrypt *r, uint64_t offset, uint64_t bytes,
                         uint8_t *buf)
{
    const WeirRange range = {
        .offset = offset, .bytes = bytes, .kind = WEIR_RANGE_CONVERT,
    };
    int ret = crypt_piece(r->before, weir_xts_decrypt, offset, bytes, buf);

    if (ret == 0) {
        ret = crypt_piece(r->after, weir_xts_encrypt, offset, bytes, buf);
    }
    if (ret < 0) {
        return ret;                     /* nothing was written */
    }
    ret = write_raw(r, offset, bytes, buf, false);
    weir_reencrypt_lock(r);
    wrote(r, &range, ret == 0);
    weir_reencrypt_unlock(r);
    return ret;
}

/* Nobody else is at it. What is new stays as it is. */
static int convert_held(WeirReencrypt *r, const WeirRange *range)
{
    int ret = read_raw(r, range->offset, range->bytes, r->chunk);
    uint64_t at = 0, same;

    if (ret < 0) {
        return ret;
    }
    resolve(r, range, r->chunk);
    while (at < range->bytes && ret == 0) {
        WeirBlockState state;

        weir_reencrypt_lock(r);
        state = weir_hotzone_state(&r->zone, range->offset + at,
                                   range->bytes - at, &same);
        weir_reencrypt_unlock(r);
        if (state == WEIR_BLOCK_OLD) {
            ret = convert_piece(r, range->offset + at, same, r->chunk + at);
        }
        at += same;
    }
    explicit_bzero(r->chunk, range->bytes);     /* it may be plain */
    return ret;
}

static int convert(WeirReencrypt *r)
{
    WeirRange range;
    int ret;

    weir_reencrypt_lock(r);
    range = next_chunk(r);
    enter(r, &range, kind_of_conversion);
    weir_reencrypt_unlock(r);
    ret = convert_held(r, &range);
    weir_reencrypt_lock(r);
    leave(r, &range);
    weir_reencrypt_unlock(r);
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

/* All up to there is new, and the header says so. */
static void end_zone(WeirReencrypt *r, WeirReencryptPhase phase)
{
    weir_reencrypt_lock(r);
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
    ret = write_header(r, r->final);
    if (ret < 0) {
        return ret;
    }
    end_zone(r, WEIR_REENCRYPT_FINISHED);
    for (size_t i = 0; i < r->n_wipe; i++) {
        wipe(r, &r->wipe[i]);
    }
    flush_header(r);
    return 0;
}

/* The header still says that the zone is hot, which is as true. */
static int finish_zone(WeirReencrypt *r, uint64_t left)
{
    uint64_t head = r->info.backward ? left : r->done_bytes + r->zone.bytes;
    int ret = write_header(r, weir_job_set(r->job, head, 0, r->data_bytes));

    if (ret == 0) {
        end_zone(r, WEIR_REENCRYPT_CLEAN);
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
        ret = mend_header(r);
    }
    if (ret < 0) {
        return ret;
    }
    return left ? finish_zone(r, left) : finish_last(r);
}

/* --- steps --- */

static int one_step(WeirReencrypt *r)
{
    switch (r->phase) {
    case WEIR_REENCRYPT_UNSURE:
        return prepare_again(r);
    case WEIR_REENCRYPT_HOT:
        return r->zone.left ? convert(r) : finish(r);
    default:
        return r->done_bytes < r->data_bytes ? prepare(r) : finish(r);
    }
}

int weir_reencrypt_step(WeirReencrypt *r)
{
    int ret;

    if (r->phase == WEIR_REENCRYPT_FINISHED) {
        return 0;
    }
    if (r->read_only) {
        return -EROFS;
    }
    ret = one_step(r);
    return ret < 0 ? ret : r->phase != WEIR_REENCRYPT_FINISHED;
}

void weir_reencrypt_query(WeirReencrypt *r, WeirReencryptInfo *info)
{
    weir_reencrypt_lock(r);
    *info = (WeirReencryptInfo) {
        .mode = r->info.mode,
        .backward = r->info.backward,
        .phase = r->phase,
        .data_bytes = r->data_bytes,
        .data_offset_bytes = r->info.data_offset_bytes,
        .done_bytes = r->done_bytes + (r->phase == WEIR_REENCRYPT_HOT
            ? r->zone.bytes - r->zone.left * r->info.block_bytes : 0),
        .block_bytes = r->info.block_bytes,
        .vaes_bits = r->vaes_bits,
    };
    weir_reencrypt_unlock(r);
}

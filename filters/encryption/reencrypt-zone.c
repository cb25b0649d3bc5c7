/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Convert hotzones, of which the header's area has the checksums. While one is
 * converted, the checksums of the next one are taken.
 */
#include <string.h>

#include "encryption/reencrypt-int.h"

/* times the area is written before writers have to wait for the last one */
#define PASSES 2

/* --- lanes --- */

/*
 * Some chunks, several at a time. A lane takes the next one when it is done
 * with one.
 */
typedef struct Walk {
    WeirReencrypt *r;
    uint64_t max_bytes;
    uint64_t bytes;             /* lock; of chunks that were taken */
    int ret;                    /* lock; of the first that failed */
} Walk;

/* What is to be converted, and then what is to be summed; bytes may be 0. */
typedef struct Chunk {
    WeirRange hot, next;
    unsigned lane;
} Chunk;

/*
 * Where a zone is kept, both at the same place: a chunk of the next zone comes
 * when that of the hotzone has been written.
 */
static uint8_t *kept_at(const WeirHotzone *zone, uint8_t *data,
                        uint64_t offset)
{
    return data + (offset - zone->offset);
}

static uint8_t *lane_data(WeirReencrypt *r, const Chunk *chunk)
{
    return r->data + (size_t)chunk->lane * r->chunk_bytes;
}

/* What is new of a chunk is not needed any more. */
static void forget(WeirReencrypt *r, WeirRange *range)
{
    uint64_t same;

    if (range->bytes > 0 &&
        weir_hotzone_state(&r->zone, range->offset, range->bytes, &same) ==
        WEIR_BLOCK_NEW && same == range->bytes) {
        if (r->kept && !r->after) {
            explicit_bzero(kept_at(&r->zone, r->kept_data, range->offset),
                           same);
        }
        range->bytes = 0;
    }
}

static WeirRange cut(const WeirHotzone *zone, uint64_t at, uint64_t bytes)
{
    return (WeirRange) {
        .offset = zone->offset + at,
        .bytes = at < zone->bytes ? min(bytes, zone->bytes - at) : 0,
    };
}

/* Of the hotzone, and of the next one as far into it. */
static bool next_of_both(WeirReencrypt *r, Chunk *chunk)
{
    uint64_t end = r->zone.bytes > r->next.bytes ? r->zone.bytes
                                                 : r->next.bytes;

    while (r->at < end) {
        chunk->hot = cut(&r->zone, r->at, r->chunk_bytes);
        chunk->next = cut(&r->next, r->at, r->chunk_bytes);
        r->at += r->chunk_bytes;
        forget(r, &chunk->hot);
        if (chunk->hot.bytes > 0 || chunk->next.bytes > 0) {
            return true;
        }
    }
    return false;
}

static bool next_to_sum(WeirReencrypt *r, Chunk *chunk)
{
    WeirRange *range = &chunk->next;
    bool has;

    chunk->hot = *range = (WeirRange) { .offset = r->next_at };
    has = r->next.bytes > 0 &&
          weir_hotzone_next_taken(&r->next, &range->offset, r->chunk_bytes,
                                  &range->bytes);
    r->next_at = has ? range->offset + range->bytes : r->next_at;
    return has;
}

static bool take_chunk(Walk *walk, Chunk *chunk)
{
    WeirReencrypt *r = walk->r;
    bool has;

    weir_reencrypt_lock(r);
    has = walk->ret == 0 && walk->bytes < walk->max_bytes &&
          (r->phase == WEIR_REENCRYPT_HOT ? next_of_both(r, chunk)
                                          : next_to_sum(r, chunk));
    walk->bytes += has ? chunk->hot.bytes + chunk->next.bytes : 0;
    weir_reencrypt_unlock(r);
    return has;
}

static int sum_chunk(WeirReencrypt *r, Chunk *chunk);
static int convert_chunk(WeirReencrypt *r, Chunk *chunk);

static int run_chunk(WeirReencrypt *r, Chunk *chunk)
{
    int ret = chunk->hot.bytes > 0 ? convert_chunk(r, chunk) : 0;

    return ret == 0 && chunk->next.bytes > 0 ? sum_chunk(r, chunk) : ret;
}

static void run_lane(void *opaque, unsigned lane)
{
    Walk *walk = opaque;
    Chunk chunk = { .lane = lane };

    while (take_chunk(walk, &chunk)) {
        int ret = run_chunk(walk->r, &chunk);

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

/* --- convert --- */

/* A chunk that nobody else is at, or that only we look at. */
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
    int ret = weir_reencrypt_write_raw(r, offset, bytes, buf, false);

    weir_reencrypt_lock(r);
    weir_reencrypt_wrote(r, &range, ret == 0);
    weir_reencrypt_unlock(r);
    return ret;
}

static void compute_conversion(void *opaque)
{
    Held *held = opaque;

    held->ret = each_old_piece(held, convert_piece);
}

static bool is_kept(Held *held)
{
    WeirReencrypt *r = held->r;
    bool unknown;

    weir_reencrypt_lock(r);
    unknown = weir_reencrypt_has(r, held->range, WEIR_BLOCK_UNKNOWN);
    weir_reencrypt_unlock(r);
    return r->kept && !unknown;
}

/* What is on disk, as it is going to be. */
static int fetch(Held *held)
{
    const WeirRange *range = held->range;
    WeirReencrypt *r = held->r;
    int ret = weir_reencrypt_read_raw(r, range->offset, range->bytes,
                                      held->buf);

    if (ret == 0) {
        weir_reencrypt_resolve(r, range, held->buf);
        r->host->compute(r->opaque, compute_conversion, held);
        ret = held->ret;
    }
    return ret;
}

static int convert_held(Held *held)
{
    int ret = 0;

    if (is_kept(held)) {
        held->left_bytes = 0;
    } else {
        ret = fetch(held);
    }
    return ret == 0 ? each_old_piece(held, store_piece) : ret;
}

static int convert_chunk(WeirReencrypt *r, Chunk *chunk)
{
    WeirRange *range = &chunk->hot;
    bool is_reused = r->kept && chunk->next.bytes >= range->bytes;
    Held held = {
        .r = r, .range = range, .left_bytes = range->bytes,
        .buf = r->kept ? kept_at(&r->zone, r->kept_data, range->offset)
                       : lane_data(r, chunk),
    };
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, range, weir_reencrypt_alone);
    weir_reencrypt_unlock(r);
    ret = convert_held(&held);
    if (!is_reused && (!r->after || held.left_bytes > 0)) {
        explicit_bzero(held.buf, range->bytes);     /* it may be plain */
    }
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, range);
    weir_reencrypt_unlock(r);
    return ret;
}

/* --- checksums --- */

/* What is kept is converted at once, while it is in the processor's cache. */
static void compute_sums(void *opaque)
{
    Held *held = opaque;
    WeirReencrypt *r = held->r;
    const WeirRange *range = held->range;

    weir_hotzone_sum(&r->next, range->offset, range->bytes, held->buf);
    held->ret = r->keeps ? convert_piece(held, range->offset, range->bytes,
                                         held->buf) : 0;
}

static int sum_chunk(WeirReencrypt *r, Chunk *chunk)
{
    WeirRange *range = &chunk->next;
    Held held = {
        .r = r, .range = range,
        .buf = r->keeps ? kept_at(&r->next, r->kept_data, range->offset)
                        : lane_data(r, chunk),
    };
    int ret = weir_reencrypt_read_raw(r, range->offset, range->bytes,
                                      held.buf);

    if (ret == 0) {
        r->host->compute(r->opaque, compute_sums, &held);
        ret = held.ret;
    }
    return ret;
}

/* Returns whether there are blocks that have to be summed. */
static bool take(WeirReencrypt *r)
{
    bool any;

    weir_reencrypt_lock(r);
    any = r->next.bytes > 0 && weir_hotzone_take(&r->next);
    r->next_at = r->next.offset;
    weir_reencrypt_unlock(r);
    return any;
}

/*
 * A checksum of what is not durable would be that of a block which a power cut
 * turns into another one, and neither old nor new. What has not been written to
 * since before its checksum was taken, is durable after a flush; the rest is
 * to be summed once more.
 * Returns 1, 0 when nothing is to be summed, or -errno.
 */
static int flush_data(WeirReencrypt *r, bool leave_out)
{
    bool any = !WITHOUT_RULE(24) && take(r);
    int ret = leave_out ? 0 : r->host->flush(r->opaque, WEIR_REENCRYPT_DATA);

    any |= WITHOUT_RULE(24) && take(r);
    r->next_flushed = ret == 0;
    return ret < 0 ? ret : any;
}

/* The same, unless nothing has been written since. */
static int begin_pass(WeirReencrypt *r, bool leave_out)
{
    bool any;

    weir_reencrypt_lock(r);
    any = weir_hotzone_has(&r->next, r->next.offset, r->next.bytes,
                           WEIR_BLOCK_UNKNOWN);
    weir_reencrypt_unlock(r);
    return any ? flush_data(r, leave_out) : 0;
}

/* Those of the pass, or all. Nothing says yet that the area is in use. */
static int write_area(WeirReencrypt *r)
{
    uint64_t begin = 0, end = weir_hotzone_sums_bytes(&r->next);
    int ret = weir_reencrypt_mend_header(r);

    if (r->passes > 0) {
        weir_hotzone_taken_sums(&r->next, &begin, &end);
        begin -= begin % PAGE_BYTES;
        end = min((end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
                  weir_hotzone_sums_bytes(&r->next));
    }
    if (ret == 0) {
        ret = r->host->write(r->opaque, WEIR_REENCRYPT_HEADER,
                             r->info.area_offset + begin, end - begin,
                             r->next.sums + begin, false);
    }
    return ret == 0 && !WITHOUT_RULE(1) ? weir_reencrypt_flush_header(r) : ret;
}

/* --- begin a hotzone --- */

/*
 * The one behind the hotzone, if there is one. All chunks of it are still to
 * come, even if some of the hotzone are done.
 */
static int begin_next(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes - r->zone.bytes;
    uint64_t bytes = min(left, r->hotzone_bytes);
    int ret;

    if (left == 0 || r->next.bytes > 0) {
        return 0;
    }
    weir_reencrypt_lock(r);
    ret = weir_hotzone_begin(&r->next, r->info.backward ? left - bytes
                             : r->done_bytes + r->zone.bytes, bytes,
                             WEIR_BLOCK_UNKNOWN);
    r->at = 0;
    weir_reencrypt_unlock(r);
    r->passes = 0;
    r->next_flushed = false;
    if (ret == 0) {
        take(r);
    }
    return ret;
}

void weir_zone_drop_next(WeirReencrypt *r)
{
    bool is_hot = r->phase == WEIR_REENCRYPT_HOT;
    uint64_t bytes = is_hot && r->kept ? min(r->at, r->next.bytes)
                                       : r->next.bytes;

    if (r->keeps) {
        explicit_bzero(r->kept_data, bytes);
    }
    weir_reencrypt_lock(r);
    weir_hotzone_end(&r->next);
    weir_reencrypt_unlock(r);
}

/* From the first byte of it on, the zone may be hot for those who look. */
static int write_hot_header(WeirReencrypt *r)
{
    return weir_reencrypt_write_header(r, weir_job_set(r->job, r->zone.offset,
                                                       r->zone.bytes,
                                                       r->data_bytes));
}

/* What was written to the zone since the last pass. Its writers wait. */
static int sum_rest(WeirReencrypt *r)
{
    Walk walk = { .r = r, .max_bytes = r->next.bytes };
    int ret = begin_pass(r, WITHOUT_RULE(22));

    if (ret > 0) {
        ret = run_walk(&walk);
    }
    return ret > 0 ? write_area(r) : ret;
}

/* The next zone is the hotzone, of which no block is new. */
static void go_on_to_next(WeirReencrypt *r)
{
    WeirHotzone zone = r->zone;

    weir_reencrypt_lock(r);
    r->zone = r->next;
    r->next = zone;
    weir_hotzone_end(&r->next);
    r->at = 0;
    r->phase = WEIR_REENCRYPT_PREPARING;
    weir_reencrypt_unlock(r);
    r->kept = r->keeps;
}

static int prepare_held(WeirReencrypt *r)
{
    int ret = sum_rest(r);

    if (ret < 0) {
        return ret;
    }
    go_on_to_next(r);
    ret = write_hot_header(r);
    weir_reencrypt_set_phase(r, ret == 0 ? WEIR_REENCRYPT_HOT :
                             WITHOUT_RULE(10) ? WEIR_REENCRYPT_CLEAN
                                              : WEIR_REENCRYPT_UNSURE);
    return ret;
}

/* From here on writers wait, as short as can be. */
static int hold_zone(WeirReencrypt *r)
{
    WeirRange range = { .offset = r->next.offset, .bytes = r->next.bytes };
    int ret;

    weir_reencrypt_lock(r);
    weir_reencrypt_enter(r, &range, weir_reencrypt_holding);
    weir_reencrypt_unlock(r);
    ret = prepare_held(r);
    weir_reencrypt_lock(r);
    weir_reencrypt_leave(r, &range);
    weir_reencrypt_unlock(r);
    return ret;
}

/*
 * A pass is done, and no zone is hot.
 * Returns 1 when there is another pass, 0, or -errno.
 */
static int prepare(WeirReencrypt *r)
{
    int ret = r->next_flushed ? 0 : flush_data(r, WITHOUT_RULE(9));

    if (ret == 0) {
        ret = write_area(r);
    }
    if (ret == 0 && ++r->passes < PASSES) {
        ret = begin_pass(r, WITHOUT_RULE(9));
    }
    return ret == 0 ? hold_zone(r) : ret;
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

/* --- end a hotzone --- */

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

/* The flush is also that of the next zone, of which a pass is done. */
static int finish(WeirReencrypt *r)
{
    uint64_t left = r->data_bytes - r->done_bytes - r->zone.bytes;
    int ret = flush_data(r, WITHOUT_RULE(4));

    if (ret >= 0) {
        ret = weir_reencrypt_mend_header(r);
    }
    if (ret < 0) {
        return ret;
    }
    return left ? finish_zone(r, left) : finish_last(r);
}

/* --- steps --- */

/* After an error all that is left is read again. */
static void start_over(WeirReencrypt *r)
{
    weir_zone_drop_next(r);
    weir_reencrypt_lock(r);
    r->at = 0;
    weir_reencrypt_unlock(r);
    if (r->kept) {
        explicit_bzero(r->kept_data, r->hotzone_bytes);
        r->kept = false;
    }
}

/* Returns bytes, 0 when a pass and the hotzone are done, or -errno. */
static int work(WeirReencrypt *r, uint64_t bytes)
{
    Walk walk = { .r = r, .max_bytes = bytes };
    int ret = begin_next(r);

    if (ret == 0) {
        ret = run_walk(&walk);
    }
    if (ret == 0 && r->phase == WEIR_REENCRYPT_HOT && r->zone.left > 0) {
        start_over(r);
        ret = 1;
    }
    return ret;
}

static int try_step(WeirReencrypt *r, uint64_t bytes)
{
    int ret;

    if (r->phase == WEIR_REENCRYPT_UNSURE) {
        return prepare_again(r);
    }
    ret = work(r, bytes);
    if (ret != 0) {
        return ret;
    }
    return r->next.bytes > 0 && r->phase == WEIR_REENCRYPT_CLEAN ? prepare(r)
                                                                 : finish(r);
}

int weir_zone_step(WeirReencrypt *r, uint32_t bytes)
{
    int ret = try_step(r, bytes);

    if (ret < 0 && r->phase != WEIR_REENCRYPT_UNSURE) {
        start_over(r);
    }
    return ret;
}

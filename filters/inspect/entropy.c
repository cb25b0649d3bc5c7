/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entropy watch.
 *
 * Encryption turns what a file system holds (text, code, databases, zeroes)
 * into bytes that look random. So: remember the entropy of blocks, and count
 * writes of high entropy over blocks of low entropy.
 *
 *   sample   Blocks are chosen by the hash of their number, as SHARDS does:
 *            the same blocks in every request, so a block that was learned is
 *            one that is judged later. The rate starts at 1/32.
 *   table    8192 sets of 16 ways; a way holds a block number and the entropy
 *            in 1/16 bits. A full set keeps the 16 lowest hashes. Each time a
 *            full set loses or refuses a block, the threshold falls by 1/4096:
 *            it comes to rest where about two thirds of the ways are in use
 *            (some 85,000 blocks). Ways whose hash is above the threshold are
 *            dead: never looked up, first to be replaced.
 *   reach    All of a disk up to about 10 GiB is known at a rate of 1/32; of
 *            100 GiB at about 1/320, of 1 TiB at about 1/3200. Raising the
 *            alert takes min_overwrites sampled blocks in one window, which is
 *            min_overwrites / rate blocks: with 32, about 4 MiB at first,
 *            40 MiB when 100 GiB have been seen, 400 MiB at 1 TiB (half as
 *            much again to make it all but certain).
 *   entropy  Shannon's, of 16 pieces of 64 bytes spread over the block, in
 *            integers: log2(n) - sum(c * log2(c)) / n over the byte counts c,
 *            n = 1024, with the products in a table. A sample reads too low,
 *            for random bytes by 0.18 bits; the Miller-Madow term
 *            (byte values seen - 1) / (2 n ln 2) is added, and random bytes
 *            then read 7.98 on average, 7.9 at least.
 *   unknown  All-zero blocks carry no information (a new file is not an
 *            overwrite of low entropy), so they are not known; nor are blocks
 *            written in part, discarded, or copied over.
 *   window   16 slots of window / 16. A clock that goes back a little counts
 *            into the newest slot; by more than a window, the window restarts.
 *   alert    quiet --share >= alert_share and enough overwrites--> alert
 *            alert --share < 3/4 alert_share, or fewer than half of
 *                    min_overwrites left in the window-------------> quiet
 *            Only new data raises it; reading may end it.
 */
#include "inspect/entropy.h"

#include <math.h>
#include <string.h>

#include "common/zero.h"
#include "inspect/block-hash.h"

#define BLOCK WEIR_INSPECT_BLOCK_BYTES
#define RATE_START (UINT64_C(1) << 59)
#define RATE_STEP 4096
#define PIECES 16
#define PIECE_BYTES 64
#define SAMPLE_BYTES (PIECES * PIECE_BYTES)
#define LANES 4
#define BATCH 32
#define CODE_NONE 0xff                  /* of a way that is not in use */
#define FORGET_BY_BLOCK 16384           /* longer ranges: go over the table */
#define SETS_PER_LOCK 256
#define ALERT_ENDS_AT 0.75

_Static_assert(sizeof(WeirEntropySet) == 6 * WEIR_ENTROPY_WAYS, "no padding");

/* --- entropy of a block --- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
/* [c]: what a byte value takes off the entropy that was seen c times, times n:
 * c * log2(c) less its Miller-Madow term. Constant once it is filled. */
static int32_t taken_off[SAMPLE_BYTES + 1];

static void fill_taken_off(void)
{
    for (int c = 1; c <= SAMPLE_BYTES; c++) {
        taken_off[c] = (int32_t)lrint((c * log2(c) - M_LOG2E / 2) *
                                      WEIR_ENTROPY_ONE_BIT);
    }
}

/* Piece i lies in part i of the block, at another quarter than its neighbour:
 * records of 256 bytes are not always cut at the same place. */
static const uint8_t *piece_at(const uint8_t *block, unsigned i)
{
    return block + i * (BLOCK / PIECES) + i % 4 * PIECE_BYTES;
}

static void count_piece(uint16_t count[LANES][256], const uint8_t *piece)
{
    for (unsigned i = 0; i < PIECE_BYTES; i += 8) {
        uint64_t word;

        memcpy(&word, piece + i, sizeof(word));
        count[0][word & 0xff]++;
        count[1][word >> 8 & 0xff]++;
        count[2][word >> 16 & 0xff]++;
        count[3][word >> 24 & 0xff]++;
        count[0][word >> 32 & 0xff]++;
        count[1][word >> 40 & 0xff]++;
        count[2][word >> 48 & 0xff]++;
        count[3][word >> 56]++;
    }
}

static int32_t entropy_of_counts(uint16_t count[LANES][256])
{
    /* log2(n), and the -1 of the Miller-Madow term */
    const int32_t most = (int32_t)((10 - M_LOG2E / 2 / SAMPLE_BYTES) *
                                   WEIR_ENTROPY_ONE_BIT);
    uint16_t total[256];
    int32_t sum = 0;
    int32_t bits;

    _Static_assert(SAMPLE_BYTES == 1 << 10, "most");
    for (unsigned i = 0; i < 256; i++) {
        total[i] = (uint16_t)(count[0][i] + count[1][i] + count[2][i] +
                              count[3][i]);
    }
    for (unsigned i = 0; i < 256; i++) {
        sum += taken_off[total[i]];
    }
    bits = most - sum / SAMPLE_BYTES;
    if (bits < 0) {
        return 0;
    }
    return bits < 8 * WEIR_ENTROPY_ONE_BIT ? bits : 8 * WEIR_ENTROPY_ONE_BIT;
}

int32_t weir_entropy_of_block(const uint8_t *block)
{
    uint16_t count[LANES][256];

    if (weir_is_zero(block, BLOCK)) {
        return WEIR_ENTROPY_EMPTY;
    }
    memset(count, 0, sizeof(count));
    for (unsigned i = 0; i < PIECES; i++) {
        count_piece(count, piece_at(block, i));
    }
    return entropy_of_counts(count);
}

/* --- table of known blocks --- */

static uint64_t way_block(const WeirEntropySet *set, unsigned way)
{
    return set->block_low[way] | (uint64_t)(set->rest[way] >> 8) << 32;
}

static unsigned way_code(const WeirEntropySet *set, unsigned way)
{
    return set->rest[way] & 0xff;
}

static void clear_way(WeirEntropySet *set, unsigned way)
{
    set->rest[way] = CODE_NONE;
}

static WeirEntropySet *set_of(WeirEntropy *e, uint64_t hash)
{
    return &e->set[hash % WEIR_ENTROPY_SETS];
}

/* The way that holds a block, or -1. */
static int find_way(const WeirEntropySet *set, uint64_t block)
{
    for (unsigned i = 0; i < WEIR_ENTROPY_WAYS; i++) {
        if (set->block_low[i] == (uint32_t)block &&
            set->rest[i] >> 8 == block >> 32 &&
            way_code(set, i) != CODE_NONE) {
            return (int)i;
        }
    }
    return -1;
}

/* An unused way, or else the one of the highest hash. hash: gets that hash,
 * UINT64_MAX for an unused way. */
static unsigned way_to_replace(const WeirEntropy *e, const WeirEntropySet *set,
                               uint64_t *hash)
{
    unsigned victim = 0;

    *hash = 0;
    for (unsigned i = 0; i < WEIR_ENTROPY_WAYS; i++) {
        uint64_t h = way_code(set, i) == CODE_NONE
                     ? UINT64_MAX : weir_block_hash(way_block(set, i), e->seed);

        if (h >= *hash) {
            *hash = h;
            victim = i;
        }
        if (h == UINT64_MAX) {
            break;
        }
    }
    return victim;
}

static void lower_threshold(WeirEntropy *e)
{
    uint64_t threshold = e->threshold - e->threshold / RATE_STEP;

    __atomic_store_n(&e->threshold, threshold, __ATOMIC_RELAXED);
}

static void put_way(WeirEntropySet *set, unsigned way, uint64_t block,
                    unsigned code)
{
    set->block_low[way] = (uint32_t)block;
    set->rest[way] = (uint16_t)(block >> 32 << 8 | code);
}

static void learn(WeirEntropy *e, uint64_t block, uint64_t hash, unsigned code)
{
    WeirEntropySet *set = set_of(e, hash);
    int way = find_way(set, block);

    if (way < 0) {
        uint64_t worst;
        unsigned victim = way_to_replace(e, set, &worst);

        if (worst < e->threshold) {
            lower_threshold(e);
        }
        if (worst < hash) {
            return;
        }
        way = (int)victim;
    }
    put_way(set, (unsigned)way, block, code);
}

static void unlearn(WeirEntropy *e, uint64_t block, uint64_t hash)
{
    WeirEntropySet *set = set_of(e, hash);
    int way = find_way(set, block);

    if (way >= 0) {
        clear_way(set, (unsigned)way);
    }
}

/* --- window and alert --- */

static void window_clear(WeirEntropy *e)
{
    memset(e->slot, 0, sizeof(e->slot));
    memset(&e->window, 0, sizeof(e->window));
}

static void window_drop_slot(WeirEntropy *e, WeirEntropySums *slot)
{
    e->window.writes -= slot->writes;
    e->window.write_bits -= slot->write_bits;
    e->window.overwrites -= slot->overwrites;
    e->window.suspicious -= slot->suspicious;
    memset(slot, 0, sizeof(*slot));
}

static void window_advance(WeirEntropy *e, uint64_t now_ns)
{
    uint64_t epoch = now_ns / e->slot_ns;
    uint64_t distance = epoch > e->epoch ? epoch - e->epoch : e->epoch - epoch;

    if (distance > WEIR_ENTROPY_SLOTS) {
        window_clear(e);
        e->epoch = epoch;
    }
    while (e->epoch < epoch) {
        e->epoch++;
        window_drop_slot(e, &e->slot[e->epoch % WEIR_ENTROPY_SLOTS]);
    }
}

static double window_share(const WeirEntropy *e)
{
    return e->window.overwrites ? (double)e->window.suspicious /
                                  (double)e->window.overwrites : 0;
}

static bool alert_may_stay(const WeirEntropy *e)
{
    uint64_t enough = e->min_overwrites / 2;

    return e->alert_share > 0 &&
           e->window.overwrites >= (enough ? enough : 1) &&
           window_share(e) >= e->alert_share * ALERT_ENDS_AT;
}

static bool alert_must_rise(const WeirEntropy *e)
{
    return e->alert_share > 0 && e->window.overwrites >= e->min_overwrites &&
           window_share(e) >= e->alert_share;
}

/* Returns whether this call raised it. */
static bool alert_update(WeirEntropy *e, bool may_rise)
{
    if (e->alert) {
        e->alert = alert_may_stay(e);
        return false;
    }
    if (may_rise && alert_must_rise(e)) {
        e->alert = true;
        e->alerts++;
        return true;
    }
    return false;
}

/* --- judging --- */

typedef struct Finding {
    uint64_t block;
    uint64_t hash;
    int32_t bits;                       /* or WEIR_ENTROPY_EMPTY */
    bool whole;                         /* else: written in part */
} Finding;

static unsigned code_of(int32_t bits)
{
    const int32_t step = WEIR_ENTROPY_ONE_BIT / 16;

    return (unsigned)((bits + step - 1) / step);
}

static void count_written(WeirEntropy *e, int32_t bits)
{
    WeirEntropySums *slot = &e->slot[e->epoch % WEIR_ENTROPY_SLOTS];
    unsigned bucket = (unsigned)bits / (WEIR_ENTROPY_ONE_BIT / 2);

    e->written[bucket < WEIR_INSPECT_ENTROPY_BUCKETS
               ? bucket : WEIR_INSPECT_ENTROPY_BUCKETS - 1]++;
    slot->writes++;
    slot->write_bits += (uint64_t)bits;
    e->window.writes++;
    e->window.write_bits += (uint64_t)bits;
}

static void count_overwrite(WeirEntropy *e, int32_t bits, unsigned old_code)
{
    WeirEntropySums *slot = &e->slot[e->epoch % WEIR_ENTROPY_SLOTS];

    slot->overwrites++;
    e->window.overwrites++;
    if (bits >= e->high && old_code <= e->low_code) {
        slot->suspicious++;
        e->window.suspicious++;
    }
}

static void judge_write(WeirEntropy *e, const Finding *f)
{
    WeirEntropySet *set = set_of(e, f->hash);
    int way = find_way(set, f->block);

    e->sampled_writes++;
    if (f->bits == WEIR_ENTROPY_EMPTY) {
        return;
    }
    count_written(e, f->bits);
    if (way >= 0) {
        count_overwrite(e, f->bits, way_code(set, (unsigned)way));
    }
}

static void take_finding(WeirEntropy *e, bool is_write, const Finding *f)
{
    if (f->whole && is_write) {
        judge_write(e, f);
    } else if (f->whole) {
        e->sampled_reads++;
    }
    if (f->whole && f->bits != WEIR_ENTROPY_EMPTY) {
        learn(e, f->block, f->hash, code_of(f->bits));
    } else {
        unlearn(e, f->block, f->hash);
    }
}

static bool take_findings(WeirEntropy *e, bool is_write, const Finding *found,
                          size_t count, uint64_t now_ns)
{
    bool raised = false;

    pthread_mutex_lock(&e->lock);
    if (e->threshold) {
        window_advance(e, now_ns);
        for (size_t i = 0; i < count; i++) {
            if (found[i].hash < e->threshold) { /* it may have fallen */
                take_finding(e, is_write, &found[i]);
                raised |= alert_update(e, true);
            }
        }
    }
    pthread_mutex_unlock(&e->lock);
    return raised;
}

/* --- the blocks of a request --- */

typedef struct BlockRange {
    uint64_t first;
    uint64_t end;                       /* one after the last */
} BlockRange;

/* Blocks that a byte range touches, of those that can be known. */
static BlockRange blocks_touched(uint64_t offset_bytes, uint64_t bytes)
{
    BlockRange range = { offset_bytes / BLOCK, offset_bytes / BLOCK };

    if (bytes) {
        range.end = (offset_bytes + (bytes - 1)) / BLOCK + 1;
    }
    if (range.end > WEIR_ENTROPY_BLOCKS_MAX) {
        range.end = WEIR_ENTROPY_BLOCKS_MAX;
    }
    return range;
}

/* A place in a list of buffers that only moves on. */
typedef struct Cursor {
    const struct iovec *iov;
    size_t niov;
    size_t in;                          /* bytes of iov[0] before the place */
} Cursor;

static void cursor_skip(Cursor *c, uint64_t bytes)
{
    while (c->niov && bytes >= c->iov->iov_len - c->in) {
        bytes -= c->iov->iov_len - c->in;
        c->iov++;
        c->niov--;
        c->in = 0;
    }
    c->in += bytes;                     /* at the end of all: not used */
}

/* The block at the cursor, in place or put together in `copy`. */
static const uint8_t *cursor_block(Cursor c, uint8_t *copy)
{
    size_t done = 0;

    if (c.iov->iov_len - c.in >= BLOCK) {
        return (const uint8_t *)c.iov->iov_base + c.in;
    }
    while (done < BLOCK) {
        size_t n = c.iov->iov_len - c.in;

        n = n < BLOCK - done ? n : BLOCK - done;
        if (n) {                        /* else iov_base may be NULL */
            memcpy(copy + done, (const uint8_t *)c.iov->iov_base + c.in, n);
        }
        done += n;
        c.iov++;
        c.in = 0;
    }
    return copy;
}

static int32_t entropy_at(const Cursor *c)
{
    uint8_t copy[BLOCK];

    return weir_entropy_of_block(cursor_block(*c, copy));
}

/* How many of `bytes` the buffers really hold. */
static uint64_t bytes_in_buffers(uint64_t bytes, const struct iovec *iov,
                                 size_t niov, size_t iov_offset)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < niov && sum < bytes + iov_offset; i++) {
        sum += iov[i].iov_len;
    }
    sum = sum > iov_offset ? sum - iov_offset : 0;
    return sum < bytes ? sum : bytes;
}

bool weir_entropy_wants(const WeirEntropy *e, uint64_t offset_bytes,
                        uint64_t bytes)
{
    uint64_t threshold = __atomic_load_n(&e->threshold, __ATOMIC_RELAXED);
    BlockRange range = blocks_touched(offset_bytes, bytes);

    if (!threshold) {
        return false;
    }
    for (uint64_t b = range.first; b < range.end; b++) {
        if (weir_block_hash(b, e->seed) < threshold) {
            return true;
        }
    }
    return false;
}

/* Look at one sampled block; cursor: at `*at` bytes into the request, moved
 * on to the block. Returns whether there is something to record. */
static bool look_at(Finding *f, bool is_write, uint64_t offset_bytes,
                    uint64_t bytes, Cursor *cursor, uint64_t *at)
{
    uint64_t start = f->block * BLOCK;

    f->whole = start >= offset_bytes &&
               start - offset_bytes <= bytes &&
               bytes - (start - offset_bytes) >= BLOCK;
    f->bits = WEIR_ENTROPY_EMPTY;
    if (f->whole) {
        cursor_skip(cursor, start - offset_bytes - *at);
        *at = start - offset_bytes;
        f->bits = entropy_at(cursor);
    }
    return f->whole || is_write;
}

bool weir_entropy_data(WeirEntropy *e, bool is_write, uint64_t offset_bytes,
                       uint64_t bytes, const struct iovec *iov, size_t niov,
                       size_t iov_offset, uint64_t now_ns)
{
    uint64_t threshold = __atomic_load_n(&e->threshold, __ATOMIC_RELAXED);
    uint64_t held = bytes_in_buffers(bytes, iov, niov, iov_offset);
    BlockRange range = blocks_touched(offset_bytes, held);
    Cursor cursor = { iov, niov, 0 };
    Finding found[BATCH];
    uint64_t at = 0;
    size_t count = 0;
    bool raised = false;

    cursor_skip(&cursor, iov_offset);
    for (uint64_t b = range.first; b < range.end; b++) {
        Finding f = { .block = b, .hash = weir_block_hash(b, e->seed) };

        if (f.hash < threshold &&
            look_at(&f, is_write, offset_bytes, held, &cursor, &at)) {
            found[count++] = f;
        }
        if (count == BATCH || (count && b + 1 == range.end)) {
            raised |= take_findings(e, is_write, found, count, now_ns);
            count = 0;
        }
    }
    return raised;
}

/* --- forgetting --- */

static void forget_by_block(WeirEntropy *e, BlockRange range,
                            uint64_t threshold)
{
    for (uint64_t b = range.first; b < range.end; b++) {
        uint64_t hash = weir_block_hash(b, e->seed);

        if (hash < threshold) {
            pthread_mutex_lock(&e->lock);
            unlearn(e, b, hash);
            pthread_mutex_unlock(&e->lock);
        }
    }
}

static void forget_in_set(WeirEntropySet *set, BlockRange range)
{
    for (unsigned i = 0; i < WEIR_ENTROPY_WAYS; i++) {
        uint64_t block = way_block(set, i);

        if (block >= range.first && block < range.end) {
            clear_way(set, i);
        }
    }
}

static void forget_by_table(WeirEntropy *e, BlockRange range)
{
    for (unsigned i = 0; i < WEIR_ENTROPY_SETS; i += SETS_PER_LOCK) {
        pthread_mutex_lock(&e->lock);
        for (unsigned k = 0; k < SETS_PER_LOCK; k++) {
            forget_in_set(&e->set[i + k], range);
        }
        pthread_mutex_unlock(&e->lock);
    }
}

void weir_entropy_forget(WeirEntropy *e, uint64_t offset_bytes, uint64_t bytes)
{
    uint64_t threshold = __atomic_load_n(&e->threshold, __ATOMIC_RELAXED);
    BlockRange range = blocks_touched(offset_bytes, bytes);

    if (!threshold || range.first >= range.end) {
        return;
    }
    if (range.end - range.first <= FORGET_BY_BLOCK) {
        forget_by_block(e, range, threshold);
    } else {
        forget_by_table(e, range);
    }
}

/* --- set-up --- */

static void table_clear(WeirEntropy *e)
{
    for (unsigned i = 0; i < WEIR_ENTROPY_SETS; i++) {
        for (unsigned k = 0; k < WEIR_ENTROPY_WAYS; k++) {
            put_way(&e->set[i], k, 0, CODE_NONE);
        }
    }
}

void weir_entropy_init(WeirEntropy *e, uint64_t seed)
{
    pthread_once(&once, fill_taken_off);
    memset(e, 0, offsetof(WeirEntropy, set));
    e->seed = seed;
    pthread_mutex_init(&e->lock, NULL);
}

void weir_entropy_destroy(WeirEntropy *e)
{
    pthread_mutex_destroy(&e->lock);
}

/* What was counted before is dropped, with a lock held. */
static void start(WeirEntropy *e)
{
    table_clear(e);
    window_clear(e);
    e->alert = false;
    e->alerts = 0;
    e->sampled_reads = 0;
    e->sampled_writes = 0;
    memset(e->written, 0, sizeof(e->written));
}

void weir_entropy_configure(WeirEntropy *e, const WeirInspectConfig *config)
{
    uint64_t threshold;

    pthread_mutex_lock(&e->lock);
    threshold = e->threshold;
    e->high = (int32_t)(config->entropy_high_bits * WEIR_ENTROPY_ONE_BIT + 0.5);
    e->low_code = (unsigned)(config->entropy_low_bits * 16);
    e->alert_share = config->entropy_alert_share;
    e->min_overwrites = config->entropy_min_overwrites;
    if (e->window_s != config->entropy_window_s) {
        e->window_s = config->entropy_window_s;
        e->slot_ns = UINT64_C(1000000000) * e->window_s / WEIR_ENTROPY_SLOTS;
        window_clear(e);
        e->epoch = 0;
    }
    if (!config->entropy) {
        threshold = 0;
    } else if (!threshold) {
        start(e);
        threshold = RATE_START;
    }
    __atomic_store_n(&e->threshold, threshold, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&e->lock);
}

/* --- reading --- */

static uint64_t count_known(WeirEntropy *e)
{
    uint64_t known = 0;

    for (unsigned i = 0; i < WEIR_ENTROPY_SETS * WEIR_ENTROPY_WAYS; i++) {
        const WeirEntropySet *set = &e->set[i / WEIR_ENTROPY_WAYS];
        unsigned way = i % WEIR_ENTROPY_WAYS;

        if (i % (SETS_PER_LOCK * WEIR_ENTROPY_WAYS) == 0) {
            pthread_mutex_unlock(&e->lock);  /* let others in */
            pthread_mutex_lock(&e->lock);
        }
        known += way_code(set, way) != CODE_NONE &&
                 weir_block_hash(way_block(set, way), e->seed) < e->threshold;
    }
    return known;
}

static void read_window(const WeirEntropy *e, WeirInspectEntropy *out)
{
    out->window_writes = e->window.writes;
    if (e->window.writes) {
        out->window_write_bits = (double)e->window.write_bits /
                                 (double)e->window.writes /
                                 WEIR_ENTROPY_ONE_BIT;
    }
    out->window_overwrites = e->window.overwrites;
    out->window_suspicious = e->window.suspicious;
    out->window_share = window_share(e);
}

void weir_entropy_read(WeirEntropy *e, uint64_t now_ns, WeirInspectEntropy *out)
{
    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&e->lock);
    out->window_s = e->window_s;
    if (e->threshold) {
        out->known_blocks = count_known(e);
        window_advance(e, now_ns);
        alert_update(e, false);
        read_window(e, out);
        out->enabled = true;
        out->sampling_rate = (double)e->threshold * 0x1p-64;
        out->sampled_reads = e->sampled_reads;
        out->sampled_writes = e->sampled_writes;
        memcpy(out->written, e->written, sizeof(out->written));
        out->alert = e->alert;
        out->alerts = e->alerts;
    }
    pthread_mutex_unlock(&e->lock);
}

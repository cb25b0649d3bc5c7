/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fixed-size SHARDS (Waldspurger, Park, Garthwaite, Ahmad: "Efficient MRC
 * Construction with SHARDS", FAST 2015).
 *
 * An LRU cache of C blocks hits when fewer than C other blocks were touched
 * since the block's last access: its reuse distance. A histogram of these
 * distances gives the miss ratio of every cache size. Looking only at blocks
 * whose hash is below a threshold (rate R) leaves R of the work: among the
 * sampled blocks a distance d shows as R * d.
 *
 *   rate     All blocks at first. When more blocks are held than allowed, the
 *            threshold falls by an eighth and the blocks above it are dropped.
 *            Few are allowed while R > 1/8 (small working sets are measured
 *            exactly, big ones soon stop costing a lock per access), then
 *            WEIR_SHARDS_SAMPLES.
 *   weights  The paper scales the histogram down when the rate falls; here an
 *            access weighs 1/R of its own moment instead, which is the same
 *            and leaves old counts alone.
 *   adj      The weights should sum up to the number of all accesses. What is
 *            missing or too much (hot blocks that are sampled or not by
 *            chance) is put to distance 0.
 *   time     A block's last access is a position in a bit string; the distance
 *            is the number of bits set after it: a Fenwick tree over 64-bit
 *            words, one popcount. When the string is used up, the positions
 *            are replaced by their ranks.
 *   table    Hashes (one-to-one with blocks) in open addressing with linear
 *            probing; deletion moves later entries back, no tombstones.
 */
#include "inspect/shards.h"

#include <stdbool.h>
#include <string.h>

#include "inspect/block-hash.h"

#define RATE_ONE UINT64_MAX
#define RATE_EIGHTH (UINT64_C(1) << 61)
#define BATCH 64
#define SUB_BITS 5                      /* 32 distance buckets per octave */

_Static_assert(WEIR_SHARDS_SAMPLES <= UINT16_MAX, "counted in 16 bits");
_Static_assert(WEIR_SHARDS_SAMPLES < WEIR_SHARDS_SLOTS * 4 / 5,
               "linear probing needs air");
_Static_assert(WEIR_SHARDS_SAMPLES * 2 < WEIR_SHARDS_TIMES,
               "renumbering must be rare");

/* --- distance buckets: exact below 2 * 32, then 32 per octave --- */

static unsigned bucket_of(double distance_blocks)
{
    uint64_t d = (uint64_t)distance_blocks;
    unsigned shift = 63 - (unsigned)__builtin_clzll(d | 1);
    unsigned i;

    shift = shift > SUB_BITS ? shift - SUB_BITS : 0;
    i = (shift << SUB_BITS) + (unsigned)(d >> shift);
    return i < WEIR_SHARDS_DISTANCES ? i : WEIR_SHARDS_DISTANCES - 1;
}

static double bucket_start(unsigned i)
{
    unsigned shift = i >> SUB_BITS;

    shift = shift > 1 ? shift - 1 : 0;
    return (double)((uint64_t)(i - (shift << SUB_BITS)) << shift);
}

/* --- times --- */

static void tree_add(WeirShards *s, unsigned word, int n)
{
    for (unsigned i = word + 1; i <= WEIR_SHARDS_TIME_WORDS; i += i & -i) {
        s->tree[i] = (uint16_t)(s->tree[i] + n);
    }
}

static void time_set(WeirShards *s, uint32_t t)
{
    s->live[t / 64] |= UINT64_C(1) << t % 64;
    tree_add(s, t / 64, 1);
}

static void time_clear(WeirShards *s, uint32_t t)
{
    s->live[t / 64] &= ~(UINT64_C(1) << t % 64);
    tree_add(s, t / 64, -1);
}

/* How many live times are before t. */
static uint32_t time_rank(const WeirShards *s, uint32_t t)
{
    uint64_t before = s->live[t / 64] & ((UINT64_C(1) << t % 64) - 1);
    uint32_t rank = (uint32_t)__builtin_popcountll(before);

    for (unsigned i = t / 64; i; i &= i - 1) {
        rank += s->tree[i];
    }
    return rank;
}

/* Make the bit string `samples` ones and then zeroes. */
static void times_fill(WeirShards *s)
{
    memset(s->live, 0, sizeof(s->live));
    memset(s->tree, 0, sizeof(s->tree));
    for (uint32_t t = 0; t < s->samples; t++) {
        s->live[t / 64] |= UINT64_C(1) << t % 64;
    }
    for (unsigned i = 1; i <= WEIR_SHARDS_TIME_WORDS; i++) {
        unsigned parent = i + (i & -i);

        s->tree[i] = (uint16_t)(s->tree[i] +
                                __builtin_popcountll(s->live[i - 1]));
        if (parent <= WEIR_SHARDS_TIME_WORDS) {
            s->tree[parent] = (uint16_t)(s->tree[parent] + s->tree[i]);
        }
    }
}

static void times_renumber(WeirShards *s)
{
    for (unsigned i = 0; i < WEIR_SHARDS_SLOTS; i++) {
        if (s->time[i]) {
            s->time[i] = time_rank(s, s->time[i] - 1) + 1;
        }
    }
    times_fill(s);
    s->now = s->samples;
}

/* --- table --- */

static unsigned home_slot(uint64_t key)
{
    return (unsigned)((uint64_t)(uint32_t)key * WEIR_SHARDS_SLOTS >> 32);
}

static unsigned next_slot(unsigned slot)
{
    return slot + 1 < WEIR_SHARDS_SLOTS ? slot + 1 : 0;
}

/* The slot that holds the key, or the empty one where it belongs. */
static unsigned find_slot(const WeirShards *s, uint64_t key)
{
    unsigned slot = home_slot(key);

    while (s->time[slot] && s->key[slot] != key) {
        slot = next_slot(slot);
    }
    return slot;
}

/* Whether an entry of home `home` may stand at `hole`, found at `slot`. */
static bool may_move_back(unsigned home, unsigned hole, unsigned slot)
{
    return hole <= slot ? home <= hole || home > slot
                        : home <= hole && home > slot;
}

static void remove_slot(WeirShards *s, unsigned hole)
{
    time_clear(s, s->time[hole] - 1);
    s->samples--;
    for (unsigned i = next_slot(hole); s->time[i]; i = next_slot(i)) {
        if (may_move_back(home_slot(s->key[i]), hole, i)) {
            s->key[hole] = s->key[i];
            s->time[hole] = s->time[i];
            hole = i;
        }
    }
    s->time[hole] = 0;
}

/* --- sampling --- */

static uint32_t samples_allowed(uint64_t threshold)
{
    return threshold > RATE_EIGHTH ? WEIR_SHARDS_EXACT_SAMPLES
                                   : WEIR_SHARDS_SAMPLES;
}

static void set_threshold(WeirShards *s, uint64_t threshold)
{
    s->weight = 0x1p64 / (double)threshold;
    __atomic_store_n(&s->threshold, threshold, __ATOMIC_RELAXED);
}

static void lower_threshold(WeirShards *s)
{
    uint64_t threshold = s->threshold - s->threshold / 8;
    unsigned slot = 0;

    set_threshold(s, threshold);
    while (slot < WEIR_SHARDS_SLOTS) {
        if (s->time[slot] && s->key[slot] >= threshold) {
            remove_slot(s, slot);       /* another may have come here */
        } else {
            slot++;
        }
    }
}

static void access_sampled(WeirShards *s, uint64_t key)
{
    unsigned slot = find_slot(s, key);

    if (s->time[slot]) {
        uint32_t last = s->time[slot] - 1;
        uint32_t between = s->samples - 1 - time_rank(s, last);

        s->distance[bucket_of(between * s->weight)] += s->weight;
        time_clear(s, last);
    } else {
        s->key[slot] = key;
        s->samples++;
    }
    time_set(s, s->now);
    s->time[slot] = ++s->now;
    s->sampled_accesses++;
    s->sampled_weight += s->weight;

    while (s->samples > samples_allowed(s->threshold)) {
        lower_threshold(s);
    }
    if (s->now == WEIR_SHARDS_TIMES) {
        times_renumber(s);
    }
}

static void access_batch(WeirShards *s, const uint64_t *keys, size_t count)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < count; i++) {
        if (keys[i] < s->threshold) {   /* it may have fallen meanwhile */
            access_sampled(s, keys[i]);
        }
    }
    pthread_mutex_unlock(&s->lock);
}

static void access_blocks(WeirShards *s, uint64_t first_block, uint64_t blocks,
                          uint64_t threshold)
{
    uint64_t keys[BATCH];
    size_t count = 0;

    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t key = weir_block_hash(first_block + i, s->seed);

        if (key < threshold) {
            keys[count++] = key;
            if (count == BATCH) {
                access_batch(s, keys, count);
                count = 0;
            }
        }
    }
    if (count) {
        access_batch(s, keys, count);
    }
}

void weir_shards_access(WeirShards *s, uint64_t first_block, uint64_t blocks,
                        unsigned stripe)
{
    uint64_t threshold = __atomic_load_n(&s->threshold, __ATOMIC_RELAXED);

    if (threshold) {
        weir_stripe_add(&s->stripe[stripe].accesses, blocks, stripe);
        access_blocks(s, first_block, blocks, threshold);
    }
}

/* --- on and off --- */

static uint64_t accesses_ever(const WeirShards *s)
{
    uint64_t sum = 0;

    for (int i = 0; i < WEIR_STRIPES; i++) {
        sum += weir_stripe_load(&s->stripe[i].accesses);
    }
    return sum;
}

void weir_shards_init(WeirShards *s, uint64_t seed)
{
    s->threshold = 0;
    s->seed = seed;
    memset(s->stripe, 0, sizeof(s->stripe));
    pthread_mutex_init(&s->lock, NULL);
}

void weir_shards_destroy(WeirShards *s)
{
    pthread_mutex_destroy(&s->lock);
}

void weir_shards_start(WeirShards *s)
{
    pthread_mutex_lock(&s->lock);
    s->samples = 0;
    s->now = 0;
    s->accesses_before = accesses_ever(s);
    s->sampled_accesses = 0;
    s->sampled_weight = 0;
    memset(s->time, 0, sizeof(s->time));
    memset(s->live, 0, sizeof(s->live));
    memset(s->tree, 0, sizeof(s->tree));
    memset(s->distance, 0, sizeof(s->distance));
    set_threshold(s, RATE_ONE);
    pthread_mutex_unlock(&s->lock);
}

void weir_shards_stop(WeirShards *s)
{
    pthread_mutex_lock(&s->lock);
    __atomic_store_n(&s->threshold, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&s->lock);
}

/* --- reading --- */

void weir_shards_summary(WeirShards *s, WeirShardsSummary *out)
{
    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&s->lock);
    if (s->threshold) {
        out->accesses = accesses_ever(s) - s->accesses_before;
        out->sampled_accesses = s->sampled_accesses;
        out->samples = s->samples;
        out->rate = 1 / s->weight;
        out->unique_blocks = (uint64_t)(s->samples * s->weight + 0.5);
    }
    pthread_mutex_unlock(&s->lock);
}

/* The share of bucket i that is below the cache size. */
static double bucket_share(unsigned i, double cache_blocks)
{
    double start = bucket_start(i);
    double width = bucket_start(i + 1) - start;
    double share = (cache_blocks - start) / width;

    return share < 0 ? 0 : share > 1 ? 1 : share;
}

static double clamp_ratio(double ratio)
{
    return ratio < 0 ? 0 : ratio > 1 ? 1 : ratio;
}

static void miss_ratios(const WeirShards *s, double accesses,
                        const double *cache_blocks, double *ratios,
                        size_t count)
{
    double hits = accesses - s->sampled_weight;
    unsigned i = 0;

    for (size_t k = 0; k < count; k++) {
        double part = 0;

        while (i < WEIR_SHARDS_DISTANCES &&
               bucket_start(i + 1) <= cache_blocks[k]) {
            hits += s->distance[i++];
        }
        if (i < WEIR_SHARDS_DISTANCES) {
            part = s->distance[i] * bucket_share(i, cache_blocks[k]);
        }
        ratios[k] = cache_blocks[k] > 0
                    ? clamp_ratio(1 - (hits + part) / accesses) : 1;
    }
}

void weir_shards_miss_ratios(WeirShards *s, const double *cache_blocks,
                             double *ratios, size_t count)
{
    uint64_t accesses;

    pthread_mutex_lock(&s->lock);
    accesses = s->threshold ? accesses_ever(s) - s->accesses_before : 0;
    if (accesses) {
        miss_ratios(s, (double)accesses, cache_blocks, ratios, count);
    } else {
        for (size_t k = 0; k < count; k++) {
            ratios[k] = 1;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

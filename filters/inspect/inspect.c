/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inspector: request counters here, the working set in shards.c, entropy
 * in entropy.c.
 *
 * A request is sequential when it begins where one of the last 16 streams of
 * its direction ended; it then carries that stream on, else it takes the place
 * of the stream that was begun first. Each thread (stripe.h) has streams of its
 * own, so no cache line moves between threads; a stream that changes threads
 * counts one request that is not sequential.
 */
#include "inspect/inspect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/histogram.h"
#include "common/stripe.h"
#include "inspect/entropy.h"
#include "inspect/shards.h"

#define STREAMS 16
#define NO_STREAM UINT64_MAX            /* no request begins there */

/* Updated as stripe.h says. */
typedef struct Traffic {
    uint64_t bytes;
    uint64_t sequential;
    uint64_t sizes[WEIR_INSPECT_SIZE_BUCKETS];
    uint64_t stream_end[STREAMS];       /* offsets; atomic */
    uint64_t oldest_stream;             /* atomic, modulo STREAMS */
} Traffic;

struct WeirInspect {
    struct {
        Traffic direction[2];           /* read, write */
        char padding[WEIR_CACHE_LINE_BYTES];
    } stripe[WEIR_STRIPES];
    WeirShards shards;
    WeirEntropy entropy;
    pthread_mutex_t lock;               /* for config */
    WeirInspectConfig config;
};

_Static_assert(sizeof(struct WeirInspect) <= WEIR_INSPECT_STATE_BYTES_MAX,
               "the memory bound inspect.h states");

/* --- configuration --- */

void weir_inspect_config_default(WeirInspectConfig *config)
{
    *config = (WeirInspectConfig) {
        .working_set = true,
        .entropy = true,
        .entropy_window_s = 30,
        .entropy_high_bits = 7.2,
        .entropy_low_bits = 6.0,
        .entropy_alert_share = 0.5,
        .entropy_min_overwrites = 32,
    };
}

/* NaN is in no range. */
static int check_range(const char *option, double value, double min, double max,
                       const char *range, char *err, size_t err_size)
{
    if (value >= min && value <= max) {
        return 0;
    }
    if (err && err_size) {
        snprintf(err, err_size, "%s is %g, but must be %s", option, value,
                 range);
    }
    return -EINVAL;
}

int weir_inspect_config_check(const WeirInspectConfig *c, char *err,
                              size_t err_size)
{
    const struct {
        const char *option;
        double value;
        double min;
        double max;
        const char *range;
    } checks[] = {
        { "entropy-window", c->entropy_window_s, 1, 3600, "1 to 3600 seconds" },
        { "entropy-high", c->entropy_high_bits, 0, 8, "0 to 8 bits" },
        { "entropy-low", c->entropy_low_bits, 0, c->entropy_high_bits,
          "0 to entropy-high bits" },
        { "entropy-alert", c->entropy_alert_share, 0, 1, "0 to 1" },
        { "entropy-min-overwrites", c->entropy_min_overwrites, 1, UINT32_MAX,
          "at least 1" },
    };

    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        int ret = check_range(checks[i].option, checks[i].value, checks[i].min,
                              checks[i].max, checks[i].range, err, err_size);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

void weir_inspect_configure(WeirInspect *in, const WeirInspectConfig *config)
{
    pthread_mutex_lock(&in->lock);
    if (config->working_set && !in->config.working_set) {
        weir_shards_start(&in->shards);
    } else if (!config->working_set) {
        weir_shards_stop(&in->shards);
    }
    weir_entropy_configure(&in->entropy, config);
    in->config = *config;
    pthread_mutex_unlock(&in->lock);
}

void weir_inspect_read_config(WeirInspect *in, WeirInspectConfig *config)
{
    pthread_mutex_lock(&in->lock);
    *config = in->config;
    pthread_mutex_unlock(&in->lock);
}

/* --- life --- */

/* Something the guest cannot guess; without it sampling works as well. */
static uint64_t random_seed(void)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed)) {
        seed = UINT64_C(0x9e3779b97f4a7c15);
    }
    return seed;
}

static void traffic_init(WeirInspect *in)
{
    memset(in->stripe, 0, sizeof(in->stripe));
    for (int i = 0; i < WEIR_STRIPES; i++) {
        for (int d = 0; d < 2; d++) {
            Traffic *t = &in->stripe[i].direction[d];

            memset(t->stream_end, 0xff, sizeof(t->stream_end));
        }
    }
}

int weir_inspect_new(WeirInspect **inspect, const WeirInspectConfig *config)
{
    WeirInspect *in = malloc(sizeof(*in));

    *inspect = in;
    if (!in) {
        return -ENOMEM;
    }
    traffic_init(in);
    weir_shards_init(&in->shards, random_seed());
    weir_entropy_init(&in->entropy, random_seed());
    pthread_mutex_init(&in->lock, NULL);
    memset(&in->config, 0, sizeof(in->config));
    weir_inspect_configure(in, config);
    return 0;
}

void weir_inspect_free(WeirInspect *in)
{
    if (in) {
        weir_shards_destroy(&in->shards);
        weir_entropy_destroy(&in->entropy);
        pthread_mutex_destroy(&in->lock);
        free(in);
    }
}

/* --- requests --- */

/* Cut a range that would pass the end of the address space. */
static uint64_t bytes_to_end(uint64_t offset_bytes, uint64_t bytes)
{
    uint64_t room = UINT64_MAX - offset_bytes;

    return bytes < room ? bytes : room;
}

/* The same, for calls that go over the blocks one by one. */
static uint64_t bytes_to_look_at(uint64_t offset_bytes, uint64_t bytes)
{
    if (bytes > WEIR_INSPECT_REQUEST_BYTES_MAX) {
        bytes = WEIR_INSPECT_REQUEST_BYTES_MAX;
    }
    return bytes_to_end(offset_bytes, bytes);
}

/*
 * Goes through all streams without a branch, which is faster than to stop at
 * one that is never foreseen. Two threads in the shared stripe may take the
 * same stream: one is lost.
 */
static bool stream_goes_on(Traffic *t, uint64_t offset, uint64_t end)
{
    uint64_t found = STREAMS;

#pragma GCC unroll 16                   /* STREAMS */
    for (uint64_t i = 0; i < STREAMS; i++) {
        uint64_t at = __atomic_load_n(&t->stream_end[i], __ATOMIC_RELAXED);

        found = at == offset ? i : found;
    }
    if (found == STREAMS) {
        uint64_t oldest = __atomic_load_n(&t->oldest_stream, __ATOMIC_RELAXED);

        __atomic_store_n(&t->oldest_stream, oldest + 1, __ATOMIC_RELAXED);
        __atomic_store_n(&t->stream_end[oldest % STREAMS], end,
                         __ATOMIC_RELAXED);
        return false;
    }
    __atomic_store_n(&t->stream_end[found], end, __ATOMIC_RELAXED);
    return true;
}

static void count_request(Traffic *t, uint64_t offset, uint64_t bytes,
                          unsigned stripe)
{
    unsigned size = weir_histogram_bucket(bytes / 512,
                                          WEIR_INSPECT_SIZE_BUCKETS);

    weir_stripe_add(&t->sizes[size], 1, stripe);
    if (bytes && offset != NO_STREAM) {
        weir_stripe_add(&t->bytes, bytes, stripe);
        if (stream_goes_on(t, offset, offset + bytes)) {
            weir_stripe_add(&t->sequential, 1, stripe);
        }
    }
}

void weir_inspect_request(WeirInspect *in, bool is_write, uint64_t offset_bytes,
                          uint64_t bytes)
{
    unsigned stripe = weir_stripe();
    uint64_t looked_at = bytes_to_look_at(offset_bytes, bytes);

    count_request(&in->stripe[stripe].direction[is_write], offset_bytes,
                  bytes_to_end(offset_bytes, bytes), stripe);
    if (looked_at) {
        uint64_t first = offset_bytes / WEIR_INSPECT_BLOCK_BYTES;
        uint64_t last = (offset_bytes + (looked_at - 1)) /
                        WEIR_INSPECT_BLOCK_BYTES;

        weir_shards_access(&in->shards, first, last - first + 1, stripe);
    }
}

bool weir_inspect_wants_data(const WeirInspect *in, uint64_t offset_bytes,
                             uint64_t bytes)
{
    return weir_entropy_wants(&in->entropy, offset_bytes,
                              bytes_to_look_at(offset_bytes, bytes));
}

bool weir_inspect_data(WeirInspect *in, bool is_write, uint64_t offset_bytes,
                       uint64_t bytes, const struct iovec *iov, size_t niov,
                       size_t iov_offset, uint64_t now_ns)
{
    return weir_entropy_data(&in->entropy, is_write, offset_bytes,
                             bytes_to_look_at(offset_bytes, bytes), iov, niov,
                             iov_offset, now_ns);
}

void weir_inspect_forget(WeirInspect *in, uint64_t offset_bytes, uint64_t bytes)
{
    weir_entropy_forget(&in->entropy, offset_bytes,
                        bytes_to_end(offset_bytes, bytes));
}

/* --- reading --- */

void weir_inspect_read_traffic(const WeirInspect *in, bool is_write,
                               WeirInspectTraffic *out)
{
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < WEIR_STRIPES; i++) {
        const Traffic *t = &in->stripe[i].direction[is_write];

        out->bytes += weir_stripe_load(&t->bytes);
        out->sequential += weir_stripe_load(&t->sequential);
        for (int k = 0; k < WEIR_INSPECT_SIZE_BUCKETS; k++) {
            out->sizes[k] += weir_stripe_load(&t->sizes[k]);
        }
    }
    out->requests = weir_histogram_total(out->sizes, WEIR_INSPECT_SIZE_BUCKETS);
}

/*
 * Cache sizes worth asking for: four per octave (1, 1.25, 1.5, 1.75), the last
 * one the first that holds the whole working set. Returns how many.
 */
static uint32_t curve_sizes(uint64_t unique_blocks, double *blocks)
{
    unsigned octave = 63 - (unsigned)__builtin_clzll(unique_blocks | 1);
    unsigned octaves = WEIR_INSPECT_CURVE_POINTS / 4;
    uint32_t points = 0;

    octave = octave >= octaves ? octave - octaves + 1 : 0;
    octave = octave > 2 ? octave : 2;   /* whole blocks */
    while (points < WEIR_INSPECT_CURVE_POINTS) {
        uint64_t step = UINT64_C(1) << (octave + points / 4 - 2);

        blocks[points] = (double)(step * (4 + points % 4));
        if (blocks[points++] >= (double)unique_blocks) {
            break;
        }
    }
    return points;
}

static void read_curve(WeirInspect *in, WeirInspectWorkingSet *out,
                       uint64_t unique_blocks)
{
    double blocks[WEIR_INSPECT_CURVE_POINTS];
    double ratios[WEIR_INSPECT_CURVE_POINTS];

    out->points = curve_sizes(unique_blocks, blocks);
    weir_shards_miss_ratios(&in->shards, blocks, ratios, out->points);
    for (uint32_t i = 0; i < out->points; i++) {
        out->curve[i].cache_bytes = (uint64_t)blocks[i] *
                                    WEIR_INSPECT_BLOCK_BYTES;
        out->curve[i].miss_ratio = ratios[i];
    }
}

void weir_inspect_read_working_set(WeirInspect *in, WeirInspectWorkingSet *out)
{
    WeirShardsSummary summary;

    weir_shards_summary(&in->shards, &summary);
    memset(out, 0, sizeof(*out));
    out->enabled = summary.rate > 0;
    out->block_bytes = WEIR_INSPECT_BLOCK_BYTES;
    out->accesses = summary.accesses;
    out->sampled_accesses = summary.sampled_accesses;
    out->sampled_blocks = summary.samples;
    out->sampling_rate = summary.rate;
    out->unique_bytes = summary.unique_blocks * WEIR_INSPECT_BLOCK_BYTES;
    if (summary.accesses) {
        read_curve(in, out, summary.unique_blocks);
    }
}

void weir_inspect_read_entropy(WeirInspect *in, uint64_t now_ns,
                               WeirInspectEntropy *out)
{
    weir_entropy_read(&in->entropy, now_ns, out);
}

double weir_inspect_miss_ratio(WeirInspect *in, uint64_t cache_bytes)
{
    double blocks = (double)cache_bytes / WEIR_INSPECT_BLOCK_BYTES;
    double ratio;

    weir_shards_miss_ratios(&in->shards, &blocks, &ratio, 1);
    return ratio;
}

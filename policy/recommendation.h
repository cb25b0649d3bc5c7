/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cache that a disk needs, and how sure that is, from weir-inspect. */
#ifndef WEIR_RECOMMENDATION_H
#define WEIR_RECOMMENDATION_H

#include "advice.h"
#include "curve.h"

typedef enum WeirTrust {
    WEIR_TRUST_LOW,
    WEIR_TRUST_FAIR,
    WEIR_TRUST_GOOD,
} WeirTrust;

/* What another size would give. */
typedef struct WeirAlternative {
    double size_bytes;
    double miss_ratio;
    double hits_per_s;      /* accesses of a block that miss without a cache */
    double gain_per_gib;    /* hits per second for each GiB more than the
                               alternative before */
    bool chosen;
} WeirAlternative;

typedef struct WeirRecommendation {
    GArray *curve;          /* see curve.h; may be empty */
    double margin;
    double best_ratio;
    double size_bytes;      /* 0: no cache helps */
    double miss_ratio;      /* of that size; 1 if it is 0 */
    double knee_bytes;      /* where the curve bends most; 0: nowhere */
    double file_bytes;      /* of a cache file with that room for data */
    GArray *alternatives;   /* WeirAlternative, by increasing size */

    double accesses;
    double sampled_accesses;
    double sampling_rate;
    double unique_bytes;    /* that were ever accessed */
    double first_touches;   /* share of the accesses that no cache can save */
    double growth_bytes;    /* of unique_bytes while watched */
    double growth_s;        /* how long that was; 0: not watched */
    gint64 watched_s;       /* since weir-inspect is there */
    WeirTrust trust;
    GPtrArray *doubts;      /* char *: why it is not higher */

    double write_share;     /* of the bytes */
    double read_bytes;      /* length that half of the reads do not exceed */
    double write_bytes;
    double sequential;      /* share of the requests */
    double read_ns;         /* median latency of reads below the filter */
    bool write_back;        /* or write-through */
    bool second_touch;      /* or first-touch: option "promote" */
    double bypass_bytes;    /* option "bypass-sequential" */
} WeirRecommendation;

/*
 * Work it out.
 *
 * @info: entry of weir-inspect in the answer to query-weir, with a working set
 * @before: the same of @growth_s seconds ago; NULL: there is none
 * @margin: how far from the best miss ratio the cache may stay, 0 to 1
 * @now_s: the time, in seconds since the epoch
 * The caller frees it with weir_recommendation_free().
 */
WeirRecommendation *weir_recommendation_new(JsonObject *info,
                                            JsonObject *before,
                                            double growth_s, double margin,
                                            gint64 now_s);

void weir_recommendation_free(WeirRecommendation *recommendation);

/* Add a reason for which the numbers cannot be trusted at all. */
void weir_recommendation_doubt(WeirRecommendation *recommendation,
                               const char *reason);

/* "low", "fair" or "good". */
const char *weir_trust_name(WeirTrust trust);

/* Why that size, in a sentence without an end; the caller frees it. */
char *weir_recommendation_why(const WeirRecommendation *recommendation);

/*
 * The filter for a policy, in YAML; NULL if no cache helps.  The caller frees
 * it.  @dir: for the cache file
 */
char *weir_recommendation_policy(const WeirRecommendation *recommendation,
                                 const char *dir);

/* All of it as an object that the caller unrefs. */
JsonObject *weir_recommendation_json(const WeirRecommendation *recommendation);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirRecommendation, weir_recommendation_free)

#endif

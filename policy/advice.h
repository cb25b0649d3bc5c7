/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What follows from the numbers of weir-inspect. */
#ifndef WEIR_ADVICE_H
#define WEIR_ADVICE_H

#include "json.h"

/* How far from the best miss ratio a cache may stay. */
#define WEIR_ADVICE_MARGIN 0.05

/*
 * The cache that a disk needs: the smallest size of its miss-ratio curve whose
 * miss ratio is within WEIR_ADVICE_MARGIN of the lowest of the curve.
 *
 * @curve: "curve" of WeirInspectWorkingSet, by increasing size
 * @size_bytes, @miss_ratio: take the point
 * Returns false for an empty curve.
 */
bool weir_advice_cache(JsonArray *curve, guint64 *size_bytes,
                       double *miss_ratio);

/*
 * The element of a histogram in which a percentile lies; 0 for an empty
 * histogram.  @share: for example 0.99
 */
int weir_advice_element(JsonArray *histogram, double share);

/*
 * A percentile from a log2 histogram: element i counts values from 2^i up to
 * 2^(i+1) (times a unit of the caller's).
 *
 * @share: for example 0.99
 * Returns the value below which that share lies, interpolated within the
 * element; 0 for an empty histogram.
 */
double weir_advice_percentile(JsonArray *histogram, double share);

#endif

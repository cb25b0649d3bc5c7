/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A miss-ratio curve: which share of the accesses a cache of a given size
 * misses.
 */
#ifndef WEIR_CURVE_H
#define WEIR_CURVE_H

#include "json.h"

typedef struct WeirCurvePoint {
    double size_bytes;
    double miss_ratio;      /* 0 to 1 */
} WeirCurvePoint;

/*
 * The points of a curve, by increasing size: a GArray of WeirCurvePoint that
 * the caller unrefs.  What makes no sense is left out.
 *
 * @points: "curve" of WeirInspectWorkingSetInfo; NULL is fine
 */
GArray *weir_curve_new(JsonArray *points);

/* Point @index; owned by @curve. */
const WeirCurvePoint *weir_curve_at(const GArray *curve, guint index);

/* The lowest miss ratio; 1 for an empty curve. */
double weir_curve_best(const GArray *curve);

/*
 * The smallest size whose miss ratio is within @margin of the lowest; the
 * index of its point.  Not for an empty curve.
 */
guint weir_curve_smallest(const GArray *curve, double margin);

/*
 * Where the curve bends most: the point furthest below the line between both
 * ends, sizes taken as logarithms (Satopaa and others, "Finding a Kneedle in a
 * Haystack", 2011).  The index; 0 for a curve without a bend.  Not for an
 * empty curve.
 */
guint weir_curve_knee(const GArray *curve);

/* The miss ratio of any size; between points interpolated. */
double weir_curve_ratio(const GArray *curve, double size_bytes);

#endif

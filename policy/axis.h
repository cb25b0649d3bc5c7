/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The axis of sizes under a miss-ratio curve: logarithmic, ticks at 2^n. */
#ifndef WEIR_AXIS_H
#define WEIR_AXIS_H

#include "curve.h"

typedef struct WeirAxis {
    double low, high;       /* ends, as logarithms to base 2 */
    int first, step;        /* exponents of the ticks */
} WeirAxis;

/* An axis for @curve, not empty, with at most @ticks ticks. */
WeirAxis weir_axis_for(const GArray *curve, guint ticks);

/* Where a size is on it, 0 to 1; one beyond its ends is at the end. */
double weir_axis_position(const WeirAxis *axis, double size_bytes);

/* The size at a position. */
double weir_axis_size(const WeirAxis *axis, double position);

/* "64 MiB" for 26; the caller frees it. */
char *weir_axis_label(int exponent);

#endif

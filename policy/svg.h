/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A recommendation as a picture. */
#ifndef WEIR_SVG_H
#define WEIR_SVG_H

#include "recommendation.h"

/*
 * Draw the curve, what was recommended, and the margin.
 *
 * @r: with a curve that is not empty
 * @vm, @disk: for the title; any bytes
 * Returns an SVG file without references to others, which the caller frees.
 */
char *weir_svg_recommendation(const WeirRecommendation *r, const char *vm,
                              const char *disk);

#endif

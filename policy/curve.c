/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "curve.h"

#include <math.h>

GArray *weir_curve_new(JsonArray *points)
{
    GArray *curve = g_array_new(FALSE, FALSE, sizeof(WeirCurvePoint));
    double size_bytes = 0;

    for (guint i = 0; i < weir_json_length(points); i++) {
        JsonObject *object = weir_json_object_at(points, i);
        WeirCurvePoint point = {
            .size_bytes = weir_json_number(object, "cache-size", 0),
            .miss_ratio = weir_json_number(object, "miss-ratio", -1),
        };

        if (point.size_bytes > size_bytes && point.miss_ratio >= 0 &&
            point.miss_ratio <= 1) {
            g_array_append_val(curve, point);
            size_bytes = point.size_bytes;
        }
    }
    return curve;
}

const WeirCurvePoint *weir_curve_at(const GArray *curve, guint index)
{
    return &g_array_index(curve, WeirCurvePoint, index);
}

double weir_curve_best(const GArray *curve)
{
    double best = 1;

    for (guint i = 0; i < curve->len; i++) {
        best = MIN(best, weir_curve_at(curve, i)->miss_ratio);
    }
    return best;
}

guint weir_curve_smallest(const GArray *curve, double margin)
{
    double enough = weir_curve_best(curve) + margin;
    guint i = 0;

    while (i + 1 < curve->len &&
           weir_curve_at(curve, i)->miss_ratio > enough) {
        i++;
    }
    return i;
}

guint weir_curve_knee(const GArray *curve)
{
    const WeirCurvePoint *first = weir_curve_at(curve, 0);
    const WeirCurvePoint *last = weir_curve_at(curve, curve->len - 1);
    double width = log2(last->size_bytes / first->size_bytes);
    double furthest = 0;
    guint knee = 0;

    for (guint i = 1; i + 1 < curve->len; i++) {
        const WeirCurvePoint *point = weir_curve_at(curve, i);
        double along = log2(point->size_bytes / first->size_bytes) / width;
        double line = first->miss_ratio +
                      along * (last->miss_ratio - first->miss_ratio);

        if (line - point->miss_ratio > furthest) {
            furthest = line - point->miss_ratio;
            knee = i;
        }
    }
    return knee;
}

/* On the line from a point to the next; @a_bytes may be 0. */
static double curve_between(double a_bytes, double a_ratio,
                            const WeirCurvePoint *b, double size_bytes)
{
    return a_ratio + (b->miss_ratio - a_ratio) * (size_bytes - a_bytes) /
                     (b->size_bytes - a_bytes);
}

double weir_curve_ratio(const GArray *curve, double size_bytes)
{
    double before_bytes = 0;
    double before_ratio = 1;    /* no cache at all */

    for (guint i = 0; i < curve->len; i++) {
        const WeirCurvePoint *point = weir_curve_at(curve, i);

        if (size_bytes <= point->size_bytes) {
            return curve_between(before_bytes, before_ratio, point,
                                 size_bytes);
        }
        before_bytes = point->size_bytes;
        before_ratio = point->miss_ratio;
    }
    return before_ratio;
}

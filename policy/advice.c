/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "advice.h"

#include <math.h>

#include "curve.h"

bool weir_advice_cache(JsonArray *curve, guint64 *size_bytes,
                       double *miss_ratio)
{
    g_autoptr(GArray) points = weir_curve_new(curve);
    const WeirCurvePoint *point;

    if (points->len == 0) {
        return false;
    }
    point = weir_curve_at(points, weir_curve_smallest(points,
                                                      WEIR_ADVICE_MARGIN));
    *size_bytes = (guint64)point->size_bytes;
    *miss_ratio = point->miss_ratio;
    return true;
}

static double advice_count(JsonArray *histogram, guint index)
{
    return MAX((double)weir_json_int_at(histogram, index, 0), 0);
}

/*
 * The element that holds the value below which @share of all lie; -1 for an
 * empty histogram.  @within: how much of the element is below it, 0 to 1
 */
static int advice_locate(JsonArray *histogram, double share, double *within)
{
    guint length = weir_json_length(histogram);
    double total = 0;
    double before = 0;

    for (guint i = 0; i < length; i++) {
        total += advice_count(histogram, i);
    }
    for (guint i = 0; i < length; i++) {
        double count = advice_count(histogram, i);

        if (count > 0 && before + count >= share * total) {
            *within = (share * total - before) / count;
            return (int)i;
        }
        before += count;
    }
    return -1;
}

int weir_advice_element(JsonArray *histogram, double share)
{
    double within;

    return MAX(advice_locate(histogram, share, &within), 0);
}

double weir_advice_percentile(JsonArray *histogram, double share)
{
    double within;
    int index = advice_locate(histogram, share, &within);

    return index < 0 ? 0 : ldexp(1 + within, index);
}

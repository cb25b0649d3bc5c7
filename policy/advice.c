/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "advice.h"

#include <math.h>

bool weir_advice_cache(JsonArray *curve, guint64 *size_bytes,
                       double *miss_ratio)
{
    double best = INFINITY;

    for (guint i = 0; i < weir_json_length(curve); i++) {
        best = MIN(best, weir_json_number(weir_json_object_at(curve, i),
                                          "miss-ratio", INFINITY));
    }
    for (guint i = 0; i < weir_json_length(curve); i++) {
        JsonObject *point = weir_json_object_at(curve, i);
        double ratio = weir_json_number(point, "miss-ratio", INFINITY);

        if (isfinite(ratio) && ratio <= best + WEIR_ADVICE_MARGIN) {
            *size_bytes = (guint64)weir_json_int(point, "cache-size", 0);
            *miss_ratio = ratio;
            return true;
        }
    }
    return false;
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

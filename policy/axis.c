/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "axis.h"

#include <math.h>

WeirAxis weir_axis_for(const GArray *curve, guint ticks)
{
    WeirAxis axis = {
        .low = log2(weir_curve_at(curve, 0)->size_bytes),
        .high = log2(weir_curve_at(curve, curve->len - 1)->size_bytes),
        .step = 1,
    };

    if (axis.high - axis.low < 1) {
        axis.high = axis.low + 1;
    }
    axis.first = (int)ceil(axis.low);
    while ((axis.high - axis.first) / axis.step + 1 > MAX(ticks, 1)) {
        axis.step++;
    }
    return axis;
}

double weir_axis_position(const WeirAxis *axis, double size_bytes)
{
    double position = (log2(MAX(size_bytes, 1)) - axis->low) /
                      (axis->high - axis->low);

    return CLAMP(position, 0, 1);
}

double weir_axis_size(const WeirAxis *axis, double position)
{
    return exp2(axis->low + position * (axis->high - axis->low));
}

char *weir_axis_label(int exponent)
{
    static const char *const units[] = {
        "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
    };
    int unit = CLAMP(exponent / 10, 0, (int)G_N_ELEMENTS(units) - 1);

    return g_strdup_printf("%.0f %s", exp2(exponent - 10 * unit), units[unit]);
}

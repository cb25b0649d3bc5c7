/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "units.h"

#include <errno.h>
#include <string.h>

/* A number of digits only; @rest takes what follows.  Returns 0 for none. */
static guint64 units_number(const char *text, const char **rest)
{
    char *end;
    guint64 number;

    *rest = text;
    if (!g_ascii_isdigit(*text)) {
        return 0;
    }
    errno = 0;
    number = g_ascii_strtoull(text, &end, 10);
    *rest = end;
    return errno ? 0 : number;
}

static gint64 units_multiply(guint64 number, gint64 factor, gint64 max)
{
    return number > (guint64)(max / factor) ? 0 : (gint64)number * factor;
}

gint64 weir_parse_bytes(const char *text)
{
    static const char units[] = "KMGT";
    const char *rest;
    guint64 number = units_number(text, &rest);
    const char *unit = *rest ? strchr(units, *rest) : NULL;

    if (*rest && (!unit || rest[1])) {
        return 0;
    }
    return units_multiply(number,
                          G_GINT64_CONSTANT(1)
                          << (unit ? 10 * (unit - units + 1) : 0),
                          WEIR_UNITS_BYTES_MAX);
}

gint64 weir_parse_time(const char *text)
{
    static const struct {
        const char *unit;
        gint64 time_ns;
    } units[] = {
        { "us", 1000 }, { "ms", 1000 * 1000 }, { "s", 1000 * 1000 * 1000 },
        { "m", 60 * G_GINT64_CONSTANT(1000000000) },
        { "h", 3600 * G_GINT64_CONSTANT(1000000000) },
    };
    const char *rest;
    guint64 number = units_number(text, &rest);

    for (guint i = 0; i < G_N_ELEMENTS(units); i++) {
        if (strcmp(rest, units[i].unit) == 0) {
            return units_multiply(number, units[i].time_ns,
                                  WEIR_UNITS_HOURS_MAX *
                                  units[G_N_ELEMENTS(units) - 1].time_ns);
        }
    }
    return 0;
}

static char *units_format(double value, double step, const char *const *units,
                          guint count)
{
    guint i = 0;

    for (; value >= step && i < count - 1; i++) {
        value /= step;
    }
    return g_strdup_printf(value < 10 && i > 0 ? "%.1f %s" : "%.0f %s", value,
                           units[i]);
}

char *weir_format_bytes(double bytes)
{
    static const char *const units[] = {
        "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
    };

    return units_format(bytes, 1024, units, G_N_ELEMENTS(units));
}

char *weir_format_time(double time_ns)
{
    static const char *const units[] = { "ns", "us", "ms", "s" };

    return units_format(time_ns, 1000, units, G_N_ELEMENTS(units));
}

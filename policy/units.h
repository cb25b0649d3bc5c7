/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Amounts with units, read and written. */
#ifndef WEIR_UNITS_H
#define WEIR_UNITS_H

#include <glib.h>

#define WEIR_UNITS_BYTES_MAX (G_GINT64_CONSTANT(1) << 50)
#define WEIR_UNITS_HOURS_MAX 8784       /* a year */

/*
 * A number of bytes, also with K, M, G or T (of 1024).  0 if @text is none, or
 * more than WEIR_UNITS_BYTES_MAX.
 */
gint64 weir_parse_bytes(const char *text);

#define WEIR_BYTES_EXPECTED \
    "a number of bytes up to 1024T, also with K, M, G or T"

/*
 * A time with its unit: us, ms, s, m or h.  In nanoseconds; 0 if @text is none,
 * or more than WEIR_UNITS_HOURS_MAX.
 */
gint64 weir_parse_time(const char *text);

/* "1.5 MiB"; the caller frees it. */
char *weir_format_bytes(double bytes);

/* "1.5 ms"; the caller frees it. */
char *weir_format_time(double time_ns);

#endif

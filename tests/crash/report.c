/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

Report report = { .status = 1, .traced = -1 };

void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    if (report.place) {
        report.place();
    }
    printf("\n");
    fflush(stdout);
    _Exit(report.status);
}

void trace(uint32_t block, const char *format, ...)
{
    va_list args;

    if (report.traced < 0 ||
        (block != UINT32_MAX && block != (uint64_t)report.traced)) {
        return;
    }
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

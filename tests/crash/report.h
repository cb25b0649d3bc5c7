/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_REPORT_H
#define WEIR_TESTS_REPORT_H

#include <stdint.h>

/* How a test tells that something is wrong, and what happens to a block. */

typedef struct Report {
    void (*place)(void);        /* prints where the test is */
    int status;                 /* of the process when something is wrong */
    int64_t traced;             /* this block; -1: none */
} Report;

extern Report report;

void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *format, ...);

/* A line for one block, UINT32_MAX: for whichever is traced. */
void __attribute__((format(printf, 2, 3)))
trace(uint32_t block, const char *format, ...);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What weir plugin test tells, for people and for programs. */
#ifndef WEIR_PLUGINTEST_REPORT_H
#define WEIR_PLUGINTEST_REPORT_H

#include "plugintest.h"

/* Print what is tested. */
void weir_report_begin(const WeirPluginTest *test);
/* Print a result as soon as it is there. */
void weir_report_result(const WeirPluginTest *test, const WeirResult *result);
/* Print the sum.  @results: WeirResult.  Returns whether none has failed. */
bool weir_report_end(const GPtrArray *results);

/* Write them to @path as JUnit's XML.  Returns false with @error set. */
bool weir_report_junit(const WeirPluginTest *test, const GPtrArray *results,
                       const char *path, GError **error);

#endif

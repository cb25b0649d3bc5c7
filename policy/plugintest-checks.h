/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The checks; plugintest-list.c says what each is for. */
#ifndef WEIR_PLUGINTEST_CHECKS_H
#define WEIR_PLUGINTEST_CHECKS_H

#include "plugintest.h"

/* plugintest-options.c */
bool weir_check_load(WeirTrial *trial, GError **error);
bool weir_check_options(WeirTrial *trial, GError **error);
bool weir_check_change(WeirTrial *trial, GError **error);

/* plugintest-data.c */
bool weir_check_data(WeirTrial *trial, GError **error);
bool weir_check_unaligned(WeirTrial *trial, GError **error);
bool weir_check_huge(WeirTrial *trial, GError **error);
bool weir_check_zeroes(WeirTrial *trial, GError **error);
bool weir_check_read_only(WeirTrial *trial, GError **error);

/* plugintest-durable.c */
bool weir_check_flush(WeirTrial *trial, GError **error);
bool weir_check_fua(WeirTrial *trial, GError **error);
bool weir_check_errors(WeirTrial *trial, GError **error);

/* plugintest-parallel.c */
bool weir_check_order(WeirTrial *trial, GError **error);
bool weir_check_concurrency(WeirTrial *trial, GError **error);
bool weir_check_drain(WeirTrial *trial, GError **error);

/* plugintest-life.c */
bool weir_check_attach(WeirTrial *trial, GError **error);
bool weir_check_resize(WeirTrial *trial, GError **error);
bool weir_check_migration(WeirTrial *trial, GError **error);

/* plugintest-snapshot.c */
bool weir_check_overlay(WeirTrial *trial, GError **error);
bool weir_check_snapshot(WeirTrial *trial, GError **error);

/* plugintest-leaks.c */
bool weir_check_leaks(WeirTrial *trial, GError **error);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A miss-ratio curve as text, for a terminal. */
#ifndef WEIR_PLOT_H
#define WEIR_PLOT_H

#include "axis.h"

#define WEIR_PLOT_COLUMNS_MIN 40
#define WEIR_PLOT_COLUMNS_MAX 200

/*
 * Draw it.
 *
 * @curve: not empty
 * @mark_bytes: a size to mark; 0: none
 * @columns: width, brought into the limits above
 * @unicode: with characters of Unicode, in UTF-8; otherwise of ASCII
 * Returns lines without spaces at their ends, which the caller frees.
 */
char *weir_plot_text(const GArray *curve, double mark_bytes, guint columns,
                     bool unicode);

#endif

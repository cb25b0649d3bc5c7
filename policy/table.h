/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text in aligned columns. */
#ifndef WEIR_TABLE_H
#define WEIR_TABLE_H

#include <glib.h>

typedef struct WeirTable WeirTable;

/* A table with that many columns; freed with weir_table_free(). */
WeirTable *weir_table_new(guint columns);
void weir_table_free(WeirTable *table);

/*
 * Add a row.  One const char * per column follows; NULL is shown as "-".
 * What a terminal would not show as it is, is escaped.
 */
void weir_table_row(WeirTable *table, ...);

/* Add one cell of a row, likewise. */
void weir_table_cell(WeirTable *table, const char *text);

/* Add @count cells, likewise. */
void weir_table_cells(WeirTable *table, guint count, ...);

/* All rows, a line each, to be freed. */
char *weir_table_text(const WeirTable *table);

/* Print all rows on standard output. */
void weir_table_print(const WeirTable *table);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirTable, weir_table_free)

#endif

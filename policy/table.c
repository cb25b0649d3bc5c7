/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "table.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

struct WeirTable {
    guint columns;
    GPtrArray *cells;       /* char *, row by row */
};

WeirTable *weir_table_new(guint columns)
{
    WeirTable *table = g_new0(WeirTable, 1);

    table->columns = columns;
    table->cells = g_ptr_array_new_with_free_func(g_free);
    return table;
}

void weir_table_free(WeirTable *table)
{
    g_ptr_array_unref(table->cells);
    g_free(table);
}

void weir_table_cell(WeirTable *table, const char *text)
{
    g_ptr_array_add(table->cells, weir_printable(text));
}

void weir_table_row(WeirTable *table, ...)
{
    va_list args;

    va_start(args, table);
    for (guint i = 0; i < table->columns; i++) {
        weir_table_cell(table, va_arg(args, const char *));
    }
    va_end(args);
}

void weir_table_cells(WeirTable *table, guint count, ...)
{
    va_list args;

    va_start(args, count);
    for (guint i = 0; i < count; i++) {
        weir_table_cell(table, va_arg(args, const char *));
    }
    va_end(args);
}

static glong table_width(const WeirTable *table, guint column)
{
    glong width = 0;

    for (guint i = column; i < table->cells->len; i += table->columns) {
        width = MAX(width, g_utf8_strlen(g_ptr_array_index(table->cells, i),
                                         -1));
    }
    return width;
}

char *weir_table_text(const WeirTable *table)
{
    g_autofree glong *widths = g_new(glong, table->columns);
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < table->columns; i++) {
        widths[i] = table_width(table, i);
    }
    for (guint i = 0; i < table->cells->len; i++) {
        const char *cell = g_ptr_array_index(table->cells, i);
        guint column = i % table->columns;
        glong pad = widths[column] - g_utf8_strlen(cell, -1);

        if (column == table->columns - 1) {
            g_string_append_printf(text, "%s\n", cell);
        } else {
            g_string_append_printf(text, "%s%*s", cell, (int)pad + 2, "");
        }
    }
    return g_string_free(text, FALSE);
}

void weir_table_print(const WeirTable *table)
{
    g_autofree char *text = weir_table_text(table);

    fputs(text, stdout);
}

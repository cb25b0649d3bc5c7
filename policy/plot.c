/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plot.h"

#include <math.h>

#include "units.h"

#define PLOT_ROWS 13                    /* 4 quarters and the first */
#define PLOT_QUARTER 3
#define PLOT_LEFT 6                     /* "100% |" */
#define PLOT_TICK_COLUMNS 10            /* a label and space around it */
#define BRAILLE_BLANK 0x2800

typedef struct Plot {
    const GArray *curve;
    WeirAxis axis;
    guint columns;          /* of the area of the curve */
    guint mark;             /* the column of the mark; columns: none */
    bool unicode;
    /* The curve: a cell is 1 character of ASCII, or 2 by 4 dots of Braille,
       which are the bits of its number in Unicode. */
    guint8 *cells;
} Plot;

static void plot_dot(Plot *plot, guint x, guint y)
{
    static const guint8 bits[4][2] = {
        { 0x01, 0x08 }, { 0x02, 0x10 }, { 0x04, 0x20 }, { 0x40, 0x80 },
    };

    if (plot->unicode) {
        plot->cells[y / 4 * plot->columns + x / 2] |= bits[y % 4][x % 2];
    } else {
        plot->cells[y * plot->columns + x] = '*';
    }
}

/* Dots from the left to the right, without gaps between rows. */
static void plot_draw(Plot *plot)
{
    guint width = plot->columns * (plot->unicode ? 2 : 1);
    guint height = PLOT_ROWS * (plot->unicode ? 4 : 1);
    guint before = height;

    for (guint x = 0; x < width; x++) {
        double size_bytes = weir_axis_size(&plot->axis,
                                           (double)x / (width - 1));
        double ratio = weir_curve_ratio(plot->curve, size_bytes);
        guint y = (guint)lround((1 - ratio) * (height - 1));

        before = before == height ? y : before;
        for (guint i = MIN(before, y); i <= MAX(before, y); i++) {
            plot_dot(plot, x, i);
        }
        before = y;
    }
}

static void plot_add_cell(GString *out, const Plot *plot, guint row,
                          guint column)
{
    guint8 cell = plot->cells[row * plot->columns + column];

    if (cell) {
        g_string_append_unichar(out, plot->unicode ? BRAILLE_BLANK + cell
                                                   : cell);
    } else if (column == plot->mark) {
        g_string_append(out, plot->unicode ? "┊" : ":");
    } else {
        g_string_append_c(out, ' ');
    }
}

static void plot_end_line(GString *out)
{
    while (out->len > 0 && out->str[out->len - 1] == ' ') {
        g_string_truncate(out, out->len - 1);
    }
    g_string_append_c(out, '\n');
}

static void plot_add_rows(GString *out, const Plot *plot)
{
    for (guint row = 0; row < PLOT_ROWS; row++) {
        if (row % PLOT_QUARTER == 0) {
            g_string_append_printf(out, "%3u%% ",
                                   100 - 25 * (row / PLOT_QUARTER));
        } else {
            g_string_append(out, "     ");
        }
        g_string_append(out, plot->unicode
                        ? row % PLOT_QUARTER ? "│" : "┤"
                        : row % PLOT_QUARTER ? "|" : "+");
        for (guint column = 0; column < plot->columns; column++) {
            plot_add_cell(out, plot, row, column);
        }
        plot_end_line(out);
    }
}

static guint plot_column(const Plot *plot, double size_bytes)
{
    return (guint)lround(weir_axis_position(&plot->axis, size_bytes) *
                         (plot->columns - 1));
}

static bool plot_is_tick(const Plot *plot, guint column)
{
    for (int n = plot->axis.first; n <= plot->axis.high;
         n += plot->axis.step) {
        if (plot_column(plot, exp2(n)) == column) {
            return true;
        }
    }
    return false;
}

static void plot_add_axis(GString *out, const Plot *plot)
{
    g_string_append(out, plot->unicode ? "     └" : "     +");
    for (guint column = 0; column < plot->columns; column++) {
        bool tick = plot_is_tick(plot, column);

        g_string_append(out, plot->unicode ? tick ? "┴" : "─"
                                           : tick ? "+" : "-");
    }
    g_string_append_c(out, '\n');
}

/* Put @text with its middle at a column of the plot, within the line. */
static void plot_place(GString *line, const Plot *plot, guint column,
                       const char *text)
{
    gsize length = (gsize)g_utf8_strlen(text, -1);
    gsize width = PLOT_LEFT + plot->columns;
    gsize at = PLOT_LEFT + column;

    at = at > length / 2 ? at - length / 2 : 0;
    at = MIN(at, width - length);
    while (line->len < at) {
        g_string_append_c(line, ' ');
    }
    g_string_append(line, text);
}

static void plot_add_labels(GString *out, const Plot *plot)
{
    g_autoptr(GString) line = g_string_new(NULL);

    for (int n = plot->axis.first; n <= plot->axis.high;
         n += plot->axis.step) {
        g_autofree char *label = weir_axis_label(n);

        plot_place(line, plot, plot_column(plot, exp2(n)), label);
    }
    g_string_append(out, line->str);
    plot_end_line(out);
}

static void plot_add_mark(GString *out, const Plot *plot, const char *size)
{
    g_autoptr(GString) line = g_string_new(NULL);
    g_autofree char *left = g_strdup_printf("%s %s", plot->unicode ? "▲" : "^",
                                            size);
    g_autofree char *right = g_strdup_printf("%s %s", size,
                                             plot->unicode ? "▲" : "^");
    bool fits = plot->mark + (guint)g_utf8_strlen(left, -1) <= plot->columns;

    g_string_append_printf(line, "%*s", (int)(PLOT_LEFT + plot->mark), "");
    if (!fits) {
        /* the arrow stays where it is, the text goes before it */
        g_string_truncate(line, line->len + 1 -
                          (gsize)g_utf8_strlen(right, -1));
    }
    g_string_append(line, fits ? left : right);
    g_string_append(out, line->str);
    plot_end_line(out);
}

char *weir_plot_text(const GArray *curve, double mark_bytes, guint columns,
                     bool unicode)
{
    guint width = CLAMP(columns, WEIR_PLOT_COLUMNS_MIN,
                        WEIR_PLOT_COLUMNS_MAX) - PLOT_LEFT;
    g_autofree guint8 *cells = g_new0(guint8, (gsize)PLOT_ROWS * width);
    Plot plot = {
        .curve = curve,
        .axis = weir_axis_for(curve, width / PLOT_TICK_COLUMNS),
        .columns = width,
        .mark = width,
        .unicode = unicode,
        .cells = cells,
    };
    GString *out = g_string_new(NULL);

    if (mark_bytes > 0) {
        plot.mark = plot_column(&plot, mark_bytes);
    }
    plot_draw(&plot);
    plot_add_rows(out, &plot);
    plot_add_axis(out, &plot);
    plot_add_labels(out, &plot);
    if (mark_bytes > 0) {
        g_autofree char *size = weir_format_bytes(mark_bytes);

        plot_add_mark(out, &plot, size);
    }
    return g_string_free(out, FALSE);
}

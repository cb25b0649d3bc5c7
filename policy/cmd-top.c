/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir top */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "screen.h"
#include "table.h"
#include "top.h"
#include "watch-options.h"

#define TOP_INTERVAL_S_MIN 0.1
#define TOP_INTERVAL_S_MAX 3600

typedef struct Top {
    WeirWatchQuery query;
    gint64 interval_us;
    WeirTopColumn column;
    bool reverse;
    WeirWatch *watch;       /* the last look, and the one before; NULL: none */
    WeirWatch *before;
    gint64 watch_us;        /* when they were */
    gint64 before_us;
    GThread *thread;        /* looks meanwhile; NULL: none */
    int fd;                 /* can be read when it has done so */
    GError *error;          /* of the last look */
} Top;

static void top_clear(Top *top)
{
    weir_watch_free(top->watch);
    weir_watch_free(top->before);
    weir_watch_query_clear(&top->query);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Top, top_clear)

/* Take what was seen, or NULL for an error. */
static bool top_take(Top *top, WeirWatch *watch)
{
    if (!watch) {
        return false;
    }
    weir_watch_free(top->before);
    top->before = top->watch;
    top->before_us = top->watch_us;
    top->watch = watch;
    top->watch_us = g_get_monotonic_time();
    return true;
}

static bool top_look(Top *top)
{
    return top_take(top, weir_watch(&top->query, &top->error));
}

/* Milliseconds until the next look. */
static int top_left(const Top *top)
{
    gint64 left_us = top->watch_us + top->interval_us -
                     g_get_monotonic_time();

    return (int)(CLAMP(left_us, 0, top->interval_us) + 999) / 1000;
}

static void top_add_row(const Top *top, WeirTable *table,
                        const WeirTopRow *row)
{
    for (guint i = 0; i < WEIR_TOP_COLUMNS; i++) {
        WeirTopColumn column = (WeirTopColumn)i;
        g_autofree char *cell = row ? weir_top_cell(row, column)
                                    : g_strdup(weir_top_title(column));

        if (weir_top_has(top->watch, column)) {
            weir_table_cell(table, cell);
        }
    }
}

static char *top_table(const Top *top)
{
    double seconds = (double)(top->watch_us - top->before_us) /
                     G_USEC_PER_SEC;
    g_autoptr(GPtrArray) rows = weir_top_rows(top->watch, top->before,
                                              seconds);
    guint hidden = weir_top_has(top->watch, WEIR_TOP_HOST) ? 0 : 1;
    g_autoptr(WeirTable) table = weir_table_new(WEIR_TOP_COLUMNS - hidden);

    weir_top_sort(rows, top->column, top->reverse);
    top_add_row(top, table, NULL);
    for (guint i = 0; i < rows->len; i++) {
        top_add_row(top, table, g_ptr_array_index(rows, i));
    }
    return weir_table_text(table);
}

/* --- for a terminal --- */

static char *top_headline(const Top *top)
{
    guint counts[WEIR_COMPLIANCES] = { 0 };
    guint disks = 0;
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < top->watch->statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(top->watch->statuses,
                                                         i);

        if (status->disk) {
            counts[status->state]++;
            disks++;
        }
    }
    g_string_append_printf(text, "%u VMs, %u disks:",
                           weir_targets_vms(top->watch->targets),
                           top->watch->statuses->len);
    for (guint i = 0; i < WEIR_COMPLIANCES; i++) {
        g_string_append_printf(text, "%s %u %s", i ? "," : "", counts[i],
                               weir_compliance_name((WeirCompliance)i));
    }
    g_string_append_printf(text, "\nby %s%s   < > column, r reverse, space "
                           "now, q quit\n\n", weir_top_name(top->column),
                           top->reverse ? ", reverse" : "");
    return g_string_free(text, FALSE);
}

/* The next column that is shown, or with -1 the one before. */
static WeirTopColumn top_next_column(const Top *top, int step)
{
    guint column = top->column;

    do {
        column = (column + WEIR_TOP_COLUMNS + (guint)step) % WEIR_TOP_COLUMNS;
    } while (!weir_top_has(top->watch, (WeirTopColumn)column));
    return (WeirTopColumn)column;
}

/* Returns whether to go on. */
static bool top_do_key(Top *top, char key)
{
    switch (key) {
    case 'q':
        return false;
    case 'r':
        top->reverse = !top->reverse;
        break;
    case '>':
        top->column = top_next_column(top, 1);
        break;
    case '<':
        top->column = top_next_column(top, -1);
        break;
    case ' ':
        top->watch_us -= top->interval_us;
        break;
    }
    return true;
}

static gpointer top_thread(gpointer opaque)
{
    Top *top = opaque;
    WeirWatch *watch = weir_watch(&top->query, &top->error);

    eventfd_write(top->fd, 1);
    return watch;
}

/*
 * Begin a look if it is time, and take one that has ended.  It has a thread,
 * so that keys are heard while a VM does not answer.
 */
static bool top_look_meanwhile(Top *top)
{
    eventfd_t count;

    if (top->thread && eventfd_read(top->fd, &count) == 0) {
        return top_take(top,
                        g_thread_join(g_steal_pointer(&top->thread)));
    }
    if (!top->thread && top_left(top) == 0) {
        top->thread = g_thread_new("look", top_thread, top);
    }
    return true;
}

static void top_show(const Top *top)
{
    g_autofree char *headline = top_headline(top);
    g_autofree char *table = top_table(top);
    g_autofree char *text = g_strconcat(headline, table, NULL);

    weir_screen_show(text);
}

static int top_run_screen(Top *top)
{
    bool ok = true;
    char key = 0;

    /* What is wrong from the start is told on the terminal as it is. */
    if (!top_look(top)) {
        return weir_fail(top->error);
    }
    top->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    weir_screen_open();
    while ((ok = top_look_meanwhile(top)) && top_do_key(top, key)) {
        top_show(top);
        key = weir_screen_key(top->thread ? top->fd : -1,
                              top->thread ? -1 : top_left(top));
    }
    weir_screen_close();
    if (top->thread) {
        exit(WEIR_EXIT_OK);     /* without waiting for it */
    }
    close(top->fd);
    return ok ? WEIR_EXIT_OK : weir_fail(top->error);
}

/* --- for a file or a program --- */

static int top_run_batch(Top *top, bool once)
{
    bool first = true;

    if (!top_look(top)) {
        return weir_fail(top->error);
    }
    do {
        g_autofree char *table = NULL;

        g_usleep((gulong)top_left(top) * 1000);
        if (!top_look(top)) {
            return weir_fail(top->error);
        }
        table = top_table(top);
        printf("%s%s", first ? "" : "\n", table);
        first = false;
        if (fflush(stdout) != 0) {
            weir_set_error(&top->error, "cannot write to standard output: %s",
                           g_strerror(errno));
            return weir_fail(top->error);
        }
    } while (!once);
    return WEIR_EXIT_OK;
}

static bool top_parse_column(const char *name, WeirTopColumn *column)
{
    GString *names = g_string_new(NULL);

    for (guint i = 0; i < WEIR_TOP_COLUMNS; i++) {
        const char *known = weir_top_name((WeirTopColumn)i);

        if (strcmp(known, name) == 0) {
            *column = (WeirTopColumn)i;
            g_string_free(names, TRUE);
            return true;
        }
        g_string_append_printf(names, "%s%s", i ? ", " : "", known);
    }
    weir_usage("top: found column '%s', expected one of %s", name,
               names->str);
    g_string_free(names, TRUE);
    return false;
}

int weir_cmd_top(int argc, char **argv)
{
    g_auto(WeirWatchOptions) options = WEIR_WATCH_OPTIONS_INIT;
    g_autofree char *sort = NULL;
    double interval_s = 2;
    gboolean once = FALSE;
    gboolean reverse = FALSE;
    GOptionEntry entries[] = {
        { "interval", 0, 0, G_OPTION_ARG_DOUBLE, &interval_s,
          "Time between two looks (default: 2)", "SECONDS" },
        { "sort", 0, 0, G_OPTION_ARG_STRING, &sort,
          "Column to sort by (default: state)", "COLUMN" },
        { "reverse", 0, 0, G_OPTION_ARG_NONE, &reverse,
          "Sort the other way round", NULL },
        { "once", 0, 0, G_OPTION_ARG_NONE, &once,
          "Print one table and end", NULL },
        WEIR_WATCH_OPTIONS_ENTRIES(&options),
        G_OPTION_ENTRY_NULL
    };
    g_auto(Top) top = { .column = WEIR_TOP_STATE };

    if (!weir_parse(&argc, &argv, entries, "[VM]",
                    "Show what running disks do, over and over.  If standard "
                    "output is no terminal, a\ntable is printed for each "
                    "interval.\n\nExit codes: 0 done, 1 error, 2 wrong "
                    "usage.") ||
        (sort && !top_parse_column(sort, &top.column)) ||
        !weir_watch_options_query(&options, argc, argv, &top.query)) {
        return WEIR_EXIT_USAGE;
    }
    if (!(interval_s >= TOP_INTERVAL_S_MIN &&
          interval_s <= TOP_INTERVAL_S_MAX)) {
        return weir_usage("top: found interval %g, expected %g to %d seconds",
                          interval_s, TOP_INTERVAL_S_MIN, TOP_INTERVAL_S_MAX);
    }
    top.query.target.traffic = true;
    top.reverse = reverse;
    top.interval_us = (gint64)(interval_s * G_USEC_PER_SEC);
    return once || !isatty(STDOUT_FILENO) ? top_run_batch(&top, once)
                                          : top_run_screen(&top);
}

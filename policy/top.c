/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "top.h"

#include <math.h>
#include <string.h>

#include "units.h"

static const struct {
    const char *title;
    const char *name;
    bool is_number;
    char *(*format)(double number);
} top_columns[WEIR_TOP_COLUMNS] = {
    [WEIR_TOP_HOST] = { "HOST", "host", false, NULL },
    [WEIR_TOP_VM] = { "VM", "vm", false, NULL },
    [WEIR_TOP_DISK] = { "DISK", "disk", false, NULL },
    [WEIR_TOP_STATE] = { "STATE", "state", false, NULL },
    [WEIR_TOP_READS] = { "RD/S", "reads", true, NULL },
    [WEIR_TOP_WRITES] = { "WR/S", "writes", true, NULL },
    [WEIR_TOP_READ_BYTES] = { "RD-BYTES/S", "read-bytes", true,
                              weir_format_bytes },
    [WEIR_TOP_WRITE_BYTES] = { "WR-BYTES/S", "write-bytes", true,
                               weir_format_bytes },
    [WEIR_TOP_LATENCY] = { "LATENCY", "latency", true, weir_format_time },
    [WEIR_TOP_RPO] = { "RPO", "rpo", true, weir_format_time },
    [WEIR_TOP_DIRTY] = { "DIRTY", "dirty", true, weir_format_bytes },
    [WEIR_TOP_REPLICATION] = { "REPLICATION", "replication", false, NULL },
    [WEIR_TOP_REASON] = { "REASON", "reason", false, NULL },
};

const char *weir_top_title(WeirTopColumn column)
{
    return top_columns[column].title;
}

const char *weir_top_name(WeirTopColumn column)
{
    return top_columns[column].name;
}

bool weir_top_has(const WeirWatch *watch, WeirTopColumn column)
{
    return column != WEIR_TOP_HOST || watch->many;
}

static void top_row_free(WeirTopRow *row)
{
    for (guint i = 0; i < WEIR_TOP_COLUMNS; i++) {
        g_free(row->texts[i]);
    }
    g_free(row);
}

/* The traffic of the same disk in an earlier look, or NULL. */
static const WeirTraffic *top_find(const WeirWatch *before,
                                   const WeirDiskStatus *status)
{
    for (guint i = 0; before && i < before->statuses->len; i++) {
        const WeirDiskStatus *old = g_ptr_array_index(before->statuses, i);

        if (g_strcmp0(old->host, status->host) == 0 &&
            g_strcmp0(old->vm, status->vm) == 0 &&
            g_strcmp0(old->disk, status->disk) == 0) {
            return &g_array_index(before->traffics, WeirTraffic, i);
        }
    }
    return NULL;
}

/* A counter that has gone back is one of another QEMU. */
static double top_rate(gint64 now, gint64 before, double seconds)
{
    return now < before ? NAN : (double)(now - before) / seconds;
}

static void top_add_traffic(WeirTopRow *row, const WeirTraffic *now,
                            const WeirTraffic *before, double seconds)
{
    gint64 requests = 0;
    gint64 latency_ns = 0;

    for (guint i = WEIR_TRAFFIC_READ; i <= WEIR_TRAFFIC_WRITE; i++) {
        guint shift = i - WEIR_TRAFFIC_READ;

        row->numbers[WEIR_TOP_READS + shift] = top_rate(
            now->kinds[i].requests, before->kinds[i].requests, seconds);
        row->numbers[WEIR_TOP_READ_BYTES + shift] = top_rate(
            now->kinds[i].bytes, before->kinds[i].bytes, seconds);
        requests += now->kinds[i].requests - before->kinds[i].requests;
        latency_ns += now->kinds[i].latency_ns - before->kinds[i].latency_ns;
    }
    if (requests > 0 && latency_ns >= 0) {
        row->numbers[WEIR_TOP_LATENCY] = (double)latency_ns /
                                         (double)requests;
    }
}

static void top_add_facts(WeirTopRow *row, const WeirDiskStatus *status)
{
    for (guint i = 0; i < status->filters->len; i++) {
        const WeirFilterStatus *filter = g_ptr_array_index(status->filters, i);
        WeirFacts facts = weir_facts_read(filter->filter);

        if (facts.rpo_ms >= 0) {
            row->numbers[WEIR_TOP_RPO] = (double)facts.rpo_ms * 1e6;
        }
        if (facts.dirty_bytes >= 0) {
            row->numbers[WEIR_TOP_DIRTY] = (double)facts.dirty_bytes;
        }
        if (facts.replication && !row->texts[WEIR_TOP_REPLICATION]) {
            row->texts[WEIR_TOP_REPLICATION] = g_strdup(facts.replication);
        }
    }
}

static WeirTopRow *top_row_new(const WeirDiskStatus *status)
{
    WeirTopRow *row = g_new0(WeirTopRow, 1);

    for (guint i = 0; i < WEIR_TOP_COLUMNS; i++) {
        row->numbers[i] = NAN;
    }
    row->state = status->state;
    row->texts[WEIR_TOP_HOST] = g_strdup(status->host);
    row->texts[WEIR_TOP_VM] = g_strdup(status->vm);
    row->texts[WEIR_TOP_DISK] = g_strdup(status->disk);
    row->texts[WEIR_TOP_STATE] = g_strdup(weir_compliance_name(status->state));
    row->texts[WEIR_TOP_REASON] = g_strdup(status->reason);
    top_add_facts(row, status);
    return row;
}

GPtrArray *weir_top_rows(const WeirWatch *watch, const WeirWatch *before,
                         double seconds)
{
    GPtrArray *rows = g_ptr_array_new_with_free_func(
        (GDestroyNotify)top_row_free);

    for (guint i = 0; i < watch->statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(watch->statuses, i);
        const WeirTraffic *now = &g_array_index(watch->traffics, WeirTraffic,
                                                i);
        const WeirTraffic *old = top_find(before, status);
        WeirTopRow *row = top_row_new(status);

        if (now->known && old && old->known && seconds > 0) {
            top_add_traffic(row, now, old, seconds);
        }
        g_ptr_array_add(rows, row);
    }
    return rows;
}

/* --- order --- */

typedef struct Order {
    WeirTopColumn column;
    bool reverse;
} Order;

static gint top_compare_texts(const WeirTopRow *a, const WeirTopRow *b,
                              WeirTopColumn column)
{
    return g_strcmp0(a->texts[column], b->texts[column]);
}

static gint top_compare_states(const WeirTopRow *a, const WeirTopRow *b)
{
    if (a->state == b->state) {
        return 0;
    }
    return weir_compliance_worse(a->state, b->state) == a->state ? -1 : 1;
}

static gint top_compare(gconstpointer left, gconstpointer right,
                        gpointer opaque)
{
    const WeirTopRow *a = *(const WeirTopRow *const *)left;
    const WeirTopRow *b = *(const WeirTopRow *const *)right;
    const Order *order = opaque;
    bool is_number = top_columns[order->column].is_number;
    double x = a->numbers[order->column];
    double y = b->numbers[order->column];
    bool a_unknown = is_number ? isnan(x) : !a->texts[order->column];
    bool b_unknown = is_number ? isnan(y) : !b->texts[order->column];
    gint ret;

    if (a_unknown || b_unknown) {
        ret = (gint)a_unknown - (gint)b_unknown;
    } else {
        ret = is_number ? (x < y) - (x > y) :
              order->column == WEIR_TOP_STATE ? top_compare_states(a, b) :
              top_compare_texts(a, b, order->column);
        ret = order->reverse ? -ret : ret;
    }
    ret = ret ? ret : top_compare_texts(a, b, WEIR_TOP_HOST);
    ret = ret ? ret : top_compare_texts(a, b, WEIR_TOP_VM);
    return ret ? ret : top_compare_texts(a, b, WEIR_TOP_DISK);
}

void weir_top_sort(GPtrArray *rows, WeirTopColumn column, bool reverse)
{
    Order order = { column, reverse };

    g_ptr_array_sort_with_data(rows, top_compare, &order);
}

char *weir_top_cell(const WeirTopRow *row, WeirTopColumn column)
{
    double number = row->numbers[column];

    if (!top_columns[column].is_number) {
        return g_strdup(row->texts[column]);
    }
    if (isnan(number)) {
        return NULL;
    }
    return top_columns[column].format ? top_columns[column].format(number)
                                      : g_strdup_printf("%.0f", number);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "order.h"

#include <string.h>

static const WeirOrdered *order_at(const GArray *filters, guint i)
{
    return &g_array_index(filters, WeirOrdered, i);
}

const WeirOrdered *weir_order_find(const GArray *filters, WeirClass class)
{
    for (guint i = 0; i < filters->len; i++) {
        if (order_at(filters, i)->type->purpose == class) {
            return order_at(filters, i);
        }
    }
    return NULL;
}

bool weir_order_above(const WeirOrdered *a, const WeirOrdered *b)
{
    return a->place != b->place ? a->place == WEIR_PLACE_DISK : a < b;
}

static void order_check_classes(const GArray *filters, WeirReport *report)
{
    for (guint i = 0; i < filters->len; i++) {
        const WeirOrdered *filter = order_at(filters, i);
        const WeirOrdered *first = weir_order_find(filters,
                                                   filter->type->purpose);

        if (first != filter && filter->type->purpose != WEIR_CLASS_OTHER &&
            strcmp(first->type->kind, filter->type->kind) != 0) {
            weir_report(report, filter->key, "found filter '%s', expected one "
                        "of class %s per disk ('%s' is on line %u%s%s)",
                        filter->type->kind,
                        weir_class_name(filter->type->purpose),
                        first->type->kind, first->key->line,
                        first->key->file == filter->key->file ? "" : " of ",
                        first->key->file == filter->key->file
                            ? "" : first->key->file);
        }
    }
}

static void order_check_encryption(const GArray *filters, WeirReport *report)
{
    const WeirOrdered *encryption = weir_order_find(filters,
                                                    WEIR_CLASS_ENCRYPTION);

    for (guint i = 0; encryption && i < filters->len; i++) {
        const WeirOrdered *filter = order_at(filters, i);

        if (strcmp(filter->type->kind, encryption->type->kind) != 0 &&
            weir_order_above(filter, encryption)) {
            weir_report(report, filter->key, "found '%s' above '%s', where it "
                        "sees what is not encrypted, expected it below, or "
                        "allow-before-encryption: true",
                        filter->type->kind, encryption->type->kind);
        }
    }
}

static void order_check_replication(const GArray *filters, WeirReport *report)
{
    const WeirOrdered *replication = weir_order_find(filters,
                                                     WEIR_CLASS_REPLICATION);
    const WeirOrdered *cache = weir_order_find(filters, WEIR_CLASS_CACHE);

    if (replication && cache && weir_order_above(cache, replication)) {
        weir_report(report, cache->key, "found '%s' above '%s', expected it "
                    "below: what the cache holds would not be replicated",
                    cache->type->kind, replication->type->kind);
    }
}

void weir_order_check(const GArray *filters, bool before_encryption,
                      WeirReport *report)
{
    order_check_classes(filters, report);
    if (!before_encryption) {
        order_check_encryption(filters, report);
    }
    order_check_replication(filters, report);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a policy allows at run time, its key "limits": compared with what the
 * filters tell, see judge.h.
 */
#ifndef WEIR_LIMIT_H
#define WEIR_LIMIT_H

#include "schema.h"
#include "validate.h"

/* The share of the requests that have to be within WeirLimits.latency_ns. */
#define WEIR_LIMITS_LATENCY_SHARE 0.99

/* 0: no limit. */
typedef struct WeirLimits {
    gint64 rpo_ns;          /* by which the log of a replication is behind */
    gint64 dirty_bytes;     /* in a cache, and not in the disk yet */
    gint64 latency_ns;      /* of reads and writes */
} WeirLimits;

/* Schema of the key, an optional mapping. */
cyaml_schema_value_t weir_limits_schema(void);

/*
 * Check the texts of the key, and that there are filters which can be compared
 * with it.
 *
 * @node: its value, a mapping of texts; NULL is fine
 * @classes: WeirClass of each filter of the policy
 */
void weir_limits_check(const WeirYaml *node, const GArray *classes,
                       WeirReport *report);

/* The limits in @node, which has been checked; none for NULL. */
WeirLimits weir_limits_read(const WeirYaml *node);

/* "rpo 5.0 s, dirty 2.0 GiB", to be freed; NULL if there are none. */
char *weir_limits_text(const WeirLimits *limits);

/* Limits as a JSON object that the caller unrefs, and back. */
JsonObject *weir_limits_json(const WeirLimits *limits);
WeirLimits weir_limits_from_json(JsonObject *object);

#endif

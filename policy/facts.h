/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a running filter tells of itself, from its entry in query-weir. */
#ifndef WEIR_FACTS_H
#define WEIR_FACTS_H

#include "json.h"

/* Texts are owned by the entry; NULL or a number below 0: it is not told. */
typedef struct WeirFacts {
    const char *driver;
    const char *node_name;
    const char *place;
    const char *state;              /* "ok", "degraded", "failed" */
    const char *reason;
    gint64 since;                   /* of @state, in seconds since 1970 */
    const char *mode;               /* of a cache or a replication */
    const char *replication;        /* "streaming" and so on */
    gint64 rpo_ms;
    gint64 queued_bytes;            /* not durable in the log */
    gint64 epoch;                   /* the last one that is */
    gint64 resync_bytes;            /* left to copy */
    gint64 dirty_bytes;
    gint64 cache_bytes;             /* that it can hold */
    const char *encryption_uuid;    /* "": there is no header yet */
    const char *conversion;         /* "encrypt", "rekey", "decrypt" */
    bool conversion_finished;
    gint64 conversion_bytes;        /* that are done */
    gint64 conversion_total_bytes;
    JsonArray *statistics;
} WeirFacts;

/* Read an entry; NULL stands for an empty one. */
WeirFacts weir_facts_read(JsonObject *filter);

/*
 * The latencies of reads and writes: element i of the histogram counts
 * requests of at least 2^i and less than 2^(i+1) nanoseconds.  The caller
 * unrefs it.
 */
JsonArray *weir_facts_latency(const WeirFacts *facts);

/*
 * What came to a histogram since it was @before (NULL: it was empty).  All of
 * it if it has been empty meanwhile.  The caller unrefs it.
 */
JsonArray *weir_latency_since(JsonArray *histogram, JsonArray *before);

/* How much of a conversion is done, 0 to 1. */
double weir_facts_progress(const WeirFacts *facts);

/* "streaming, RPO 0 ns, ..." to be freed; "" if there is nothing to tell. */
char *weir_facts_text(const WeirFacts *facts);

/* What is known beyond the state, as a JSON object that the caller unrefs. */
JsonObject *weir_facts_json(const WeirFacts *facts);

#endif

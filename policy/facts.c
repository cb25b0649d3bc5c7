/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "facts.h"

#include <string.h>

#include "units.h"

#define FACTS_HISTOGRAM_MAX 64

static gint64 facts_number(JsonObject *object, const char *name)
{
    return MAX(weir_json_int(object, name, -1), -1);
}

static void facts_read_conversion(WeirFacts *facts, JsonObject *job)
{
    facts->conversion = weir_json_string(job, "mode");
    facts->conversion_finished = weir_json_bool(job, "finished", false);
    facts->conversion_bytes = facts_number(job, "done");
    facts->conversion_total_bytes = facts_number(job, "total");
}

WeirFacts weir_facts_read(JsonObject *filter)
{
    WeirFacts facts = {
        .driver = weir_json_string(filter, "driver"),
        .node_name = weir_json_string(filter, "node-name"),
        .place = weir_json_string(filter, "place"),
        .state = weir_json_string(filter, "state"),
        .reason = weir_json_string(filter, "reason"),
        .since = facts_number(filter, "since"),
        .mode = weir_json_string(filter, "mode"),
        .replication = weir_json_string(filter, "status"),
        .rpo_ms = facts_number(filter, "rpo"),
        .queued_bytes = facts_number(filter, "queued-bytes"),
        .epoch = facts_number(filter, "epoch"),
        .resync_bytes = facts_number(filter, "resync-bytes"),
        .dirty_bytes = facts_number(filter, "dirty"),
        .cache_bytes = facts_number(filter, "size"),
        .statistics = weir_json_array(filter, "statistics"),
    };

    if (weir_json_string(filter, "cipher")) {
        facts.encryption_uuid = weir_json_string(filter, "uuid");
    }
    facts_read_conversion(&facts, weir_json_object(filter, "job"));
    return facts;
}

/* --- latencies --- */

static gint64 facts_element(JsonArray *histogram, guint index)
{
    return index >= weir_json_length(histogram) ? 0 :
           CLAMP(weir_json_int_at(histogram, index, 0), 0, G_MAXINT64 / 4);
}

static JsonArray *facts_histogram(const gint64 *counts, guint length)
{
    JsonArray *histogram = json_array_new();

    while (length > 0 && counts[length - 1] == 0) {
        length--;
    }
    for (guint i = 0; i < length; i++) {
        json_array_add_int_element(histogram, counts[i]);
    }
    return histogram;
}

JsonArray *weir_facts_latency(const WeirFacts *facts)
{
    gint64 counts[FACTS_HISTOGRAM_MAX] = { 0 };

    for (guint i = 0; i < weir_json_length(facts->statistics); i++) {
        JsonObject *object = weir_json_object_at(facts->statistics, i);
        const char *operation = weir_json_string(object, "operation");
        JsonArray *histogram = weir_json_array(object, "latency-histogram");

        if (g_strcmp0(operation, "read") != 0 &&
            g_strcmp0(operation, "write") != 0) {
            continue;
        }
        for (guint j = 0; j < FACTS_HISTOGRAM_MAX; j++) {
            counts[j] = MIN(counts[j] + facts_element(histogram, j),
                            G_MAXINT64 / 4);
        }
    }
    return facts_histogram(counts, FACTS_HISTOGRAM_MAX);
}

JsonArray *weir_latency_since(JsonArray *histogram, JsonArray *before)
{
    gint64 counts[FACTS_HISTOGRAM_MAX] = { 0 };

    for (guint i = 0; i < FACTS_HISTOGRAM_MAX; i++) {
        counts[i] = facts_element(histogram, i) - facts_element(before, i);
        if (counts[i] < 0) {
            return json_array_ref(histogram);   /* another filter by now */
        }
    }
    return facts_histogram(counts, FACTS_HISTOGRAM_MAX);
}

/* --- for people and programs --- */

double weir_facts_progress(const WeirFacts *facts)
{
    if (facts->conversion_total_bytes <= 0) {
        return facts->conversion_finished;
    }
    return CLAMP((double)facts->conversion_bytes /
                 (double)facts->conversion_total_bytes, 0, 1);
}

static void facts_add(GString *text, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static void facts_add(GString *text, const char *format, ...)
{
    va_list args;

    if (text->len > 0) {
        g_string_append(text, ", ");
    }
    va_start(args, format);
    g_string_append_vprintf(text, format, args);
    va_end(args);
}

static void facts_add_amount(GString *text, const char *name, gint64 bytes)
{
    g_autofree char *amount = weir_format_bytes((double)bytes);

    if (bytes >= 0) {
        facts_add(text, "%s %s", name, amount);
    }
}

char *weir_facts_text(const WeirFacts *facts)
{
    GString *text = g_string_new(NULL);

    if (facts->mode) {
        facts_add(text, "%s", facts->mode);
    }
    if (facts->replication) {
        facts_add(text, "%s", facts->replication);
    }
    if (facts->rpo_ms >= 0) {
        g_autofree char *rpo = weir_format_time((double)facts->rpo_ms * 1e6);

        facts_add(text, "RPO %s", rpo);
    }
    facts_add_amount(text, "queued", facts->queued_bytes);
    if (facts->resync_bytes > 0) {
        facts_add_amount(text, "to copy", facts->resync_bytes);
    }
    facts_add_amount(text, "dirty", facts->dirty_bytes);
    if (facts->conversion && !facts->conversion_finished) {
        facts_add(text, "%s %.0f%%", facts->conversion,
                  100 * weir_facts_progress(facts));
    }
    return g_string_free(text, FALSE);
}

JsonObject *weir_facts_json(const WeirFacts *facts)
{
    const struct {
        const char *name;
        gint64 value;
    } numbers[] = {
        { "rpo-ms", facts->rpo_ms }, { "queued-bytes", facts->queued_bytes },
        { "epoch", facts->epoch }, { "resync-bytes", facts->resync_bytes },
        { "dirty-bytes", facts->dirty_bytes },
    };
    JsonObject *object = json_object_new();

    if (facts->mode) {
        json_object_set_string_member(object, "mode", facts->mode);
    }
    if (facts->replication) {
        json_object_set_string_member(object, "replication",
                                      facts->replication);
    }
    for (guint i = 0; i < G_N_ELEMENTS(numbers); i++) {
        if (numbers[i].value >= 0) {
            json_object_set_int_member(object, numbers[i].name,
                                       numbers[i].value);
        }
    }
    if (facts->conversion) {
        json_object_set_string_member(object, "conversion",
                                      facts->conversion);
        json_object_set_boolean_member(object, "conversion-finished",
                                       facts->conversion_finished);
        json_object_set_double_member(object, "conversion-progress",
                                      weir_facts_progress(facts));
    }
    return object;
}

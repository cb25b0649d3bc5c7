/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "judge.h"

#include <string.h>

#include "advice.h"
#include "units.h"

#define JUDGE_NS_PER_MS 1e6

static const char *const judge_names[WEIR_COMPLIANCES] = {
    [WEIR_COMPLIANT] = "compliant",
    [WEIR_NON_COMPLIANT] = "non-compliant",
    [WEIR_OUT_OF_DATE] = "out-of-date",
    [WEIR_UNKNOWN] = "unknown",
    [WEIR_NOT_APPLICABLE] = "not-applicable",
};

const char *weir_compliance_name(WeirCompliance state)
{
    return judge_names[state];
}

WeirCompliance weir_compliance_worse(WeirCompliance a, WeirCompliance b)
{
    static const int badness[WEIR_COMPLIANCES] = {
        [WEIR_NOT_APPLICABLE] = 0,
        [WEIR_COMPLIANT] = 1,
        [WEIR_OUT_OF_DATE] = 2,
        [WEIR_UNKNOWN] = 3,
        [WEIR_NON_COMPLIANT] = 4,
    };

    return badness[a] >= badness[b] ? a : b;
}

void weir_verdict_init(WeirVerdict *verdict)
{
    *verdict = (WeirVerdict) {
        .state = WEIR_COMPLIANT, .reasons = g_string_new(NULL),
    };
}

void weir_verdict_clear(WeirVerdict *verdict)
{
    if (verdict->reasons) {
        g_string_free(verdict->reasons, TRUE);
        verdict->reasons = NULL;
    }
}

void weir_verdict_add(WeirVerdict *verdict, WeirCompliance state,
                      const char *format, ...)
{
    va_list args;

    verdict->state = weir_compliance_worse(verdict->state, state);
    if (verdict->reasons->len > 0) {
        g_string_append(verdict->reasons, "; ");
    }
    va_start(args, format);
    g_string_append_vprintf(verdict->reasons, format, args);
    va_end(args);
}

/* Compare an amount that is below 0 if it is not told. */
static void judge_amount(const WeirFacts *facts, WeirVerdict *verdict,
                         const char *what, double amount, gint64 limit,
                         char *(*format)(double))
{
    g_autofree char *amount_text = format(amount);
    g_autofree char *limit_text = format((double)limit);

    if (limit > 0 && amount > (double)limit) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                         "%s: %s of %s is over the limit of %s",
                         facts->driver, what, amount_text, limit_text);
    }
}

static void judge_state(const WeirFacts *facts, WeirVerdict *verdict)
{
    if (!facts->state) {
        weir_verdict_add(verdict, WEIR_UNKNOWN, "%s does not tell its state",
                         facts->driver);
    } else if (strcmp(facts->state, "ok") != 0) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT, "%s is %s: %s",
                         facts->driver, facts->state,
                         facts->reason ? facts->reason : "no reason given");
    }
}

/* A source that is in order streams. */
static void judge_replication(const WeirFacts *facts,
                              const WeirLimits *limits, WeirVerdict *verdict)
{
    if (facts->replication && strcmp(facts->replication, "streaming") != 0 &&
        g_strcmp0(facts->state, "ok") == 0) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                         "%s is %s instead of streaming", facts->driver,
                         facts->replication);
    }
    judge_amount(facts, verdict, "RPO",
                 (double)facts->rpo_ms * JUDGE_NS_PER_MS, limits->rpo_ns,
                 weir_format_time);
}

/* A disk that is being rekeyed is encrypted all the time. */
static void judge_encryption(const WeirFacts *facts, WeirVerdict *verdict)
{
    const char *driver = facts->driver;
    bool finished = facts->conversion_finished;
    double percent = 100 * weir_facts_progress(facts);

    if (facts->encryption_uuid && !*facts->encryption_uuid) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                         "%s: the disk is not encrypted yet", driver);
    } else if (g_strcmp0(facts->conversion, "encrypt") == 0 && !finished) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                         "%s: only %.0f%% of the disk is encrypted", driver,
                         percent);
    } else if (g_strcmp0(facts->conversion, "decrypt") == 0) {
        weir_verdict_add(verdict, WEIR_NON_COMPLIANT,
                         finished ? "%s: the disk is not encrypted any more"
                                  : "%s: the disk is being decrypted",
                         driver);
    }
}

void weir_judge_filter(const WeirFacts *facts, const WeirLimits *limits,
                       JsonArray *latency, WeirVerdict *verdict)
{
    bool limited = (limits->rpo_ns > 0 && facts->rpo_ms >= 0) ||
                   (limits->dirty_bytes > 0 && facts->dirty_bytes >= 0) ||
                   (limits->latency_ns > 0 && latency);

    judge_state(facts, verdict);
    /* When a limit was passed, the filter does not tell. */
    if (facts->since > 0 &&
        (verdict->state != WEIR_COMPLIANT || !limited)) {
        verdict->since = facts->since;
    }
    judge_replication(facts, limits, verdict);
    judge_amount(facts, verdict, "dirty data", (double)facts->dirty_bytes,
                 limits->dirty_bytes, weir_format_bytes);
    judge_encryption(facts, verdict);
    if (latency) {
        judge_amount(facts, verdict, "latency (99 %)",
                     weir_advice_percentile(latency,
                                            WEIR_LIMITS_LATENCY_SHARE),
                     limits->latency_ns, weir_format_time);
    }
}

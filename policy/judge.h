/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether what a filter tells is what its policy wants. */
#ifndef WEIR_JUDGE_H
#define WEIR_JUDGE_H

#include "facts.h"
#include "limit.h"

typedef enum WeirCompliance {
    WEIR_COMPLIANT,
    WEIR_NON_COMPLIANT,
    WEIR_OUT_OF_DATE,       /* compliant, but its policy is another one now;
                               see outdated.h */
    WEIR_UNKNOWN,           /* the VM cannot be asked, or does not tell */
    WEIR_NOT_APPLICABLE,    /* no policy is known */
    WEIR_COMPLIANCES,       /* how many there are */
} WeirCompliance;

typedef struct WeirVerdict {
    WeirCompliance state;
    GString *reasons;       /* separated by "; "; "" for WEIR_COMPLIANT */
    gint64 since;           /* in seconds since 1970; 0: not told */
} WeirVerdict;

/* "compliant", "non-compliant", "out-of-date" and so on. */
const char *weir_compliance_name(WeirCompliance state);

/* The one of two states that counts for what has both. */
WeirCompliance weir_compliance_worse(WeirCompliance a, WeirCompliance b);

/* Start with compliant. */
void weir_verdict_init(WeirVerdict *verdict);
void weir_verdict_clear(WeirVerdict *verdict);

/* Add a reason for @state. */
void weir_verdict_add(WeirVerdict *verdict, WeirCompliance state,
                      const char *format, ...) G_GNUC_PRINTF(3, 4);

/*
 * Judge a filter that is there.
 *
 * @facts: of it
 * @limits: of the policy
 * @latency: histogram of the requests that count for the limit of latency, see
 *     weir_facts_latency(); NULL if another filter is judged by it
 * @verdict: initialised; takes what is found
 */
void weir_judge_filter(const WeirFacts *facts, const WeirLimits *limits,
                       JsonArray *latency, WeirVerdict *verdict);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirVerdict, weir_verdict_clear)

#endif

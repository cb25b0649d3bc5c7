/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is different in two policies, and whether a disk in use can follow. */
#ifndef WEIR_DIFFERENCE_H
#define WEIR_DIFFERENCE_H

#include "policy.h"

typedef enum WeirFollow {
    WEIR_FOLLOW_NOTHING,    /* it makes no difference to a disk */
    WEIR_FOLLOW_ATTACH,
    WEIR_FOLLOW_DETACH,
    WEIR_FOLLOW_REOPEN,     /* the filter takes it as it is */
    WEIR_FOLLOW_REATTACH,   /* the filter is detached and attached */
    WEIR_FOLLOW_AT_OPEN,    /* it counts when the disk is opened next */
    WEIR_FOLLOW_NOT,        /* not while the disk is in use */
} WeirFollow;

typedef struct WeirDifference {
    char *filter;           /* its kind; NULL: it is about the policy */
    char *what;             /* an option, "place", "order"...; NULL: all of
                               the filter */
    JsonNode *before;       /* NULL: it was not there */
    JsonNode *after;        /* NULL: it is not there any more */
    WeirFollow follow;
    char *reason;           /* why WEIR_FOLLOW_NOT, or on what condition;
                               NULL: none */
} WeirDifference;

/*
 * Compare two policies.
 *
 * @schema: the installed filters
 * Returns an array of WeirDifference that the caller unrefs: first those of
 * the policy itself, then by filter, as they are in @after, with those that are
 * gone at the end.
 */
GPtrArray *weir_policy_differences(const WeirPolicy *before,
                                   const WeirPolicy *after,
                                   const WeirSchema *schema);

/* "nothing", "attach", "detach", "reopen", "reattach", "at-open", "not". */
const char *weir_follow_name(WeirFollow follow);

/* A difference as a JSON object that the caller unrefs. */
JsonObject *weir_difference_json(const WeirDifference *difference);

#endif

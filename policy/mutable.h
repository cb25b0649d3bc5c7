/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How an option of a filter can be changed while the disk is in use. */
#ifndef WEIR_MUTABLE_H
#define WEIR_MUTABLE_H

#include "schema.h"

typedef enum WeirMutability {
    WEIR_MUTABLE_REOPEN,    /* as it is, by blockdev-reopen */
    WEIR_MUTABLE_AT_OPEN,   /* it only counts when the filter is opened: there
                               is nothing to change in one that is open */
    WEIR_MUTABLE_REATTACH,  /* the filter is detached and attached again */
    WEIR_MUTABLE_NEVER,     /* not while the disk is in use */
} WeirMutability;

/*
 * How @option of a filter can be changed.  @changes_data: see schema.h.  The
 * options of filters that are not known here are changed by attaching them
 * again.
 */
WeirMutability weir_mutability(const char *driver, bool changes_data,
                               const char *option);

/* "reopen", "at-open", "reattach" or "never". */
const char *weir_mutability_name(WeirMutability mutability);

/*
 * The options in which two filters of a kind differ, by name.
 *
 * @a, @b: settings, see chain.h; or options of a policy
 * @nodes: char *, options that are places of nodes: how large a file is to be
 *     made is no difference
 * Returns an array of char * that the caller unrefs.
 */
GPtrArray *weir_options_differ(JsonObject *a, JsonObject *b,
                               const GPtrArray *nodes);

#endif

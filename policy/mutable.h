/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of a filter can be changed while the disk is in use, and how. */
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

/*
 * The option that is where a filter of that class keeps what it knows of its
 * disk when it is away, or NULL.
 */
const char *weir_memory_option(WeirClass class);

/*
 * Why a filter can be attached to no disk in use, to be freed; or NULL.
 *
 * @settings: see chain.h; or options of a policy
 */
char *weir_cannot_attach(const WeirFilterType *type, JsonObject *settings);

/*
 * Why a filter at work cannot be detached, to be freed; or NULL.
 *
 * @settings: as for weir_cannot_attach(); NULL: not known
 */
char *weir_cannot_detach(const WeirFilterType *type, JsonObject *settings);

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

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
 * How @option of a filter can be changed; "options.NAME" is one of a plugin's
 * own.  The options of filters that are not known here are changed by attaching
 * them again.
 */
WeirMutability weir_mutability(const WeirFilterType *type, const char *option);

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
 * The options in which two filters of a kind differ, by name; those of a
 * plugin's own as "options.NAME".
 *
 * @a, @b: settings, see chain.h; or options of a policy
 * Returns an array of char * that the caller unrefs.
 */
GPtrArray *weir_options_differ(JsonObject *a, JsonObject *b);

/*
 * Whether an option of that name is the same to the filter: how large a file is
 * to be made is no difference, nor is a default that is given.
 */
bool weir_option_same(const WeirFilterType *type, JsonObject *a, JsonObject *b,
                      const char *option);

/* The value of an option of that name, owned by @options, or NULL. */
JsonNode *weir_option(JsonObject *options, const char *option);

/*
 * Of a plugin, let options for its node have all that the plugin has, with the
 * defaults of those that are not given: a node that is open cannot be brought
 * back to a default by leaving an option out.
 */
void weir_options_complete(const WeirFilterType *type, JsonObject *options);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a node is that belongs to a filter, in the words of a policy:
 *
 *   /PATH                      a file or block device
 *   create:SIZE:/PATH          the same; a file of zeroes is made if it is
 *                              missing.  SIZE in bytes, or with K, M, G, T
 *   nbd://..., iscsi://...     see address.h
 */
#ifndef WEIR_LOCATION_H
#define WEIR_LOCATION_H

#include "json.h"

typedef struct WeirLocation {
    char *path;             /* of a file or device; NULL: it is none */
    guint64 create_bytes;   /* of the file if it is missing; 0: not made */
    JsonObject *remote;     /* options of the node at an address; NULL */
} WeirLocation;

/*
 * Parse one.  Returns what the caller frees with weir_location_free(), or
 * NULL with @error set to what is wrong with @text, without a place.
 */
WeirLocation *weir_location_parse(const char *text, GError **error);

/* NULL is fine. */
void weir_location_free(WeirLocation *location);

/* Whether two texts are the same place, whatever is to be made there. */
bool weir_location_same(const char *a, const char *b);

/*
 * Make the file, if it is to be made and there is none.  It is there whole or
 * not at all.  @created, unless NULL, takes whether it was made.
 */
bool weir_location_create(const WeirLocation *location, bool *created,
                          GError **error);

/* Options of a node, without a name; the caller unrefs it. */
JsonObject *weir_location_node(const WeirLocation *location);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirLocation, weir_location_free)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A filter that a disk is bound to: without it the disk is not what its guest
 * has seen (a cache with blocks of its own, an encryption, a plugin that
 * changes or has data), or what is written would be missed later (the sidecar
 * of a replication).
 */
#ifndef WEIR_BOUND_H
#define WEIR_BOUND_H

#include "chain.h"

typedef struct WeirBound {
    char *driver;
    bool changes_data;      /* of a plugin */
    char *policy;           /* that the disk had then */
    WeirPlace place;
    JsonObject *settings;   /* see chain.h */
    JsonArray *below;       /* of a cache: options of the nodes that it was
                               above, the lowest first */
} WeirBound;

/*
 * The filters of a chain that may bind its disk: WeirBound, the lowest first.
 * The caller unrefs it.  @policy: name of the policy
 */
GPtrArray *weir_bound_of_chain(const GPtrArray *chain, const char *policy);

/* An array without any, that frees those that are put in. */
GPtrArray *weir_bound_array(void);

/* Whether both are of one kind, and keep what they know in one place. */
bool weir_bound_same(const WeirBound *a, const WeirBound *b);

/*
 * Why a disk is not to be used without it, to be freed; NULL: it may be.
 *
 * @disk: the file; NULL: the disk is at an address
 * @format: that of the disk
 * @writes: it is going to be written to
 */
char *weir_bound_reason(const WeirBound *bound, const char *disk,
                        const char *format, bool writes);

/*
 * Why a disk is not even to be used with it, to be freed, or NULL: its file has
 * gone, and with it perhaps blocks that the disk lacks.
 */
char *weir_bound_missed(const WeirBound *bound);

/* What can be done about it other than starting it again, to be freed. */
char *weir_bound_way_out(const WeirBound *bound, const char *disk);

/*
 * See that what it knows is not believed any more: what a cache has is lost.
 * Returns false with @error set if its file is in use or cannot be written to.
 */
bool weir_bound_release(const WeirBound *bound, GError **error);

/* Its kind (see kind.h), to be freed. */
char *weir_bound_kind(const WeirBound *bound);

/* Where it keeps what it knows, owned by @bound; NULL: in the disk. */
const char *weir_bound_memory(const WeirBound *bound);

/* Whether that is file @path, and let it be another one. */
bool weir_bound_is_in(const WeirBound *bound, const char *path);
void weir_bound_move(WeirBound *bound, const char *path);

/* As JSON, which the caller unrefs, and back: NULL if it makes no sense. */
JsonObject *weir_bound_json(const WeirBound *bound);
WeirBound *weir_bound_read(JsonObject *object);

/* NULL is fine. */
void weir_bound_free(WeirBound *bound);

#endif

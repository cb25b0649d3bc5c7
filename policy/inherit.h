/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a policy takes from other files, put into its tree:
 *
 *   inherit: NAME              all of another policy; filters of the same
 *                              kind, and keys, are changed by its own
 *   remove: [KIND, ...]        but not these filters
 *   filters: [component: NAME] the filters of a component in this place; an
 *                              entry of the same kind changes them
 *
 * For the kind (see kind.h) of a plugin its driver will do, if there is one.
 *
 * A filter that an inheriting policy adds comes above the first one of a class
 * that belongs below its own (order.h), otherwise to the end.
 */
#ifndef WEIR_INHERIT_H
#define WEIR_INHERIT_H

#include "schema.h"
#include "validate.h"

#define WEIR_INHERIT_MAX_DEPTH 8
#define WEIR_INHERIT_MAX_FILES 64

typedef struct WeirInherit {
    const WeirSchema *schema;
    /*
     * The tree of policy or component @name, a whole and right one, which the
     * caller frees; or NULL with @error set, to WEIR_ERROR_POSITION if
     * something is wrong in its file.
     */
    WeirYaml *(*load)(void *opaque, const char *name, GError **error);
    void *opaque;
    GPtrArray *chain;       /* names of the files being read, outermost first */
    unsigned files;         /* read so far */
} WeirInherit;

/*
 * Replace in @root what stands for something of other files.  Where @root is
 * not of the form of a policy, it stays as it is.
 *
 * @report: takes what is wrong
 * Returns whether nothing was.
 */
bool weir_inherit_resolve(WeirYaml *root, WeirInherit *inherit,
                          WeirReport *report);

/* The key of an entry of "filters" that is its filter, or NULL. */
const WeirYaml *weir_inherit_driver(const WeirYaml *entry);

#endif

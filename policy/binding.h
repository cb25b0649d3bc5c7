/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which filters a disk is bound to (see bound.h), from before its guest runs
 * until they have nothing any more that the disk lacks.  It is noted for as
 * long as it takes, whatever becomes of the VM, its record, or the host: a file
 * for each disk in $WEIR_STATE_DIR (nowhere, if that is empty), or
 * /var/lib/weir/bindings for root, or weir/bindings in $XDG_STATE_HOME.
 *
 * A disk is known by the name of its file, and by the file itself if that got
 * another name.
 */
#ifndef WEIR_BINDING_H
#define WEIR_BINDING_H

#include "bound.h"

typedef struct WeirBinding {
    char *disk;             /* its file, or its address */
    char *format;
    char *vm;               /* that has used it last */
    GPtrArray *filters;     /* WeirBound; not empty */
    GPtrArray *notes;       /* char *: the files that tell so */
} WeirBinding;

/*
 * Whether @disk may be used with @chain: whatever it is bound to is in that,
 * or not needed any more.  @policy: its name; NULL: none
 * Returns false with @error set to what is left out, and what can be done.
 */
bool weir_binding_check(const WeirDisk *disk, const GPtrArray *chain,
                        const char *policy, GError **error);

/*
 * Note, for good, that @disk is going to be used with @chain.
 *
 * @policy: its name
 * @also: what it has been bound to so far stays
 * Returns false with @error set if that is not possible.
 */
bool weir_binding_note(const WeirDisk *disk, const GPtrArray *chain,
                       const char *vm, const char *policy, bool also,
                       GError **error);

/*
 * What @disk is bound to is again what it was: @before, of weir_binding_find(),
 * or NULL for nothing.
 */
void weir_binding_put_back(const char *disk, WeirBinding *before);

/* All that are noted: WeirBinding, by disk.  The caller unrefs it. */
GPtrArray *weir_binding_list(void);

/* That of @disk, a file or address, which the caller frees; or NULL. */
WeirBinding *weir_binding_find(const char *disk);

/* Drop what @disk does not need any more, unless somebody uses it. */
void weir_binding_settle(const char *disk);

/*
 * What the filters of @disk keep in file @from is in @to from now on; NULL: it
 * is not needed any more.
 */
void weir_binding_move(const char *disk, const char *from, const char *to);

/*
 * Forget it, after its filters have been released: what a cache has is lost.
 * Returns false with @error set if one of its files is in use.
 */
bool weir_binding_release(const WeirBinding *binding, GError **error);

/* Why the disk of @binding is not to be used without @bound; as there. */
char *weir_binding_reason(const WeirBinding *binding, const WeirBound *bound);

/* NULL is fine. */
void weir_binding_free(WeirBinding *binding);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirBinding, weir_binding_free)

#endif

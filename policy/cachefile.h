/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of a cache that comes to a disk in use.  What is in it is what the
 * disk was when they were last together, and the disk has been written to
 * since: the driver, which compares some blocks only, is told that it is old.
 *
 * The format is in docs/weir-cache-format.md.
 */
#ifndef WEIR_CACHEFILE_H
#define WEIR_CACHEFILE_H

#include <stdbool.h>

#include "error.h"

/* Whether a cache in that mode (NULL: the default) may have what its disk
   lacks. */
bool weir_cache_writes_back(const char *mode);

typedef enum WeirCacheState {
    WEIR_CACHE_WRITTEN_BACK,    /* the disk has all of it; or it is old */
    WEIR_CACHE_DIRTY,           /* the disk may lack some of it */
    WEIR_CACHE_DAMAGED,
    WEIR_CACHE_MISSING,
    WEIR_CACHE_UNREADABLE,
} WeirCacheState;

/* What the file of a cache tells of its disk. */
WeirCacheState weir_cache_file_state(const char *path);

/*
 * Mark what a cache has as old.  One that is blank, or missing, stays as it
 * is; so does what is no cache.
 *
 * Returns false with @error set if it has blocks that a disk does not have, is
 * damaged, is in use, or cannot be written to.
 */
bool weir_cache_file_forget(const char *path, GError **error);

/* The same, but blocks that a disk does not have are lost. */
bool weir_cache_file_lose(const char *path, GError **error);

/*
 * Give a cache file that has blocks which its disk does not have another name,
 * since the path is to be that of another disk's cache: "PATH.of-@image".  One
 * that has none, is missing, or is no regular file stays as it is.
 *
 * @to: takes that name, which the caller frees, or NULL
 * Returns false with @error set if it is in use, or cannot be renamed.
 */
bool weir_cache_file_set_aside(const char *path, const char *image, char **to,
                               GError **error);

#endif

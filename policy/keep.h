/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Texts that are kept only to save time: in $WEIR_KEEP_DIR (nowhere, if that
 * is empty), or /var/cache/weir for root, or weir in $XDG_CACHE_HOME.  All of
 * them may be gone at any time.
 */
#ifndef WEIR_KEEP_H
#define WEIR_KEEP_H

#include <glib.h>

#define WEIR_KEEP_MAX_BYTES (1 << 20)

/*
 * The text that was kept as @name, which the caller frees, or NULL.  One that
 * is damaged or too large, or that somebody else can have written, is not
 * believed.
 */
char *weir_keep_read(const char *name, gsize *length);

/*
 * Keep @text as @name; a reader finds this or the text before.  Where that is
 * not possible, nothing is kept.
 */
void weir_keep_write(const char *name, const char *text);

#endif

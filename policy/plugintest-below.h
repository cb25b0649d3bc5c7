/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk below a plugin: an NBD server in this process, with the disk in
 * memory.  It has a volatile cache like a real one, so that what was not
 * flushed can be lost.  All of it may be called in any thread.
 */
#ifndef WEIR_PLUGINTEST_BELOW_H
#define WEIR_PLUGINTEST_BELOW_H

#include "error.h"

#include <stdbool.h>

typedef struct WeirBelow WeirBelow;

/* Kinds of requests, as bits. */
enum {
    WEIR_BELOW_READ = 1 << 0,
    WEIR_BELOW_WRITE = 1 << 1,  /* and zeroes */
    WEIR_BELOW_FLUSH = 1 << 2,
    WEIR_BELOW_DISCARD = 1 << 3,
};

/*
 * Serve a disk of zeroes.
 *
 * @path: the socket that it listens on
 * Returns it, or NULL with @error set.
 */
WeirBelow *weir_below_new(const char *path, guint64 bytes, GError **error);
void weir_below_free(WeirBelow *below);

const char *weir_below_path(const WeirBelow *below);

/* Its content; not while requests are under way. */
guint8 *weir_below_data(WeirBelow *below);

/* What is in it now is durable. */
void weir_below_settle(WeirBelow *below);

/* Answer requests of @kinds, 0 for none, with @error, an errno. */
void weir_below_fail(WeirBelow *below, guint kinds, int error);

/* Take up to @us microseconds for a request, so that they overtake others. */
void weir_below_delay(WeirBelow *below, guint us);

/* Lose what was written and not flushed, and hang up on all users. */
void weir_below_cut_power(WeirBelow *below);

/* From now on, whoever uses export @name is not to write. */
void weir_below_forbid(WeirBelow *below, const char *name);

/* How many requests of @kinds have been done, failed ones included. */
guint64 weir_below_count(WeirBelow *below, guint kinds);
/* How many that were forbidden. */
guint64 weir_below_forbidden(WeirBelow *below);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirBelow, weir_below_free)

#endif

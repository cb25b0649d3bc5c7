/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Users who keep many requests under way, in threads of their own, while
 * something else happens to the disk.  They share the disk cell by cell, so
 * that each knows what its reads have to return.
 */
#ifndef WEIR_PLUGINTEST_LOAD_H
#define WEIR_PLUGINTEST_LOAD_H

#include "plugintest-user.h"

typedef struct WeirLoad WeirLoad;

typedef struct WeirLoadOptions {
    guint connections;          /* a thread each */
    guint depth;                /* requests of each */
    guint64 cell_bytes;         /* of a request; cells side by side are used at
                                   the same time */
    bool flushes;               /* among the requests */
    bool may_fail;              /* requests; what is read has to be right */
} WeirLoadOptions;

/*
 * Start it on export @node.
 *
 * @model: to be read again when it has been stopped
 */
WeirLoad *weir_load_start(WeirStage *stage, const char *node, WeirModel *model,
                          const WeirLoadOptions *options, GError **error);

/*
 * Whether it goes well so far, and requests have been done since the last
 * call; waits for some, up to @timeout_ms.
 */
bool weir_load_check(WeirLoad *load, guint timeout_ms, GError **error);

/* Let it finish what is under way.  Returns false if a request went wrong. */
bool weir_load_stop(WeirLoad *load, GError **error);

/* If it was not stopped, what is under way is abandoned. */
void weir_load_free(WeirLoad *load);

/* How many requests were done. */
guint64 weir_load_count(WeirLoad *load);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirLoad, weir_load_free)

#endif

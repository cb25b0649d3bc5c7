/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Somebody who uses the disk through the plugin, and knows what is on it. */
#ifndef WEIR_PLUGINTEST_USER_H
#define WEIR_PLUGINTEST_USER_H

#include <libnbd.h>

#include "plugintest-model.h"
#include "plugintest-stage.h"

typedef struct WeirUser {
    WeirTrial *trial;
    struct nbd_handle *nbd;
    WeirModel *model;           /* not owned */
    guint8 *buffer;
    guint64 buffer_bytes;
} WeirUser;

/* Connect to an export of @stage.  @model: of the disk, stays the caller's. */
WeirUser *weir_user_new(WeirStage *stage, const char *node, WeirModel *model,
                        GError **error);
/* Hang up, in order if the daemon is there. */
void weir_user_free(WeirUser *user);

/*
 * An NBD handle that asks for no alignment; NULL with @error set.
 *
 * @status: it can ask for the status of blocks.  QEMU's server hangs up on
 *     such a client when a read fails
 */
struct nbd_handle *weir_user_connect(WeirStage *stage, const char *node,
                                     bool status, GError **error);

/* These wait.  All fail with what the disk said.  @flags: LIBNBD_CMD_FLAG_* */

/* Random data. */
bool weir_user_write(WeirUser *user, guint64 offset, guint64 bytes,
                     guint32 flags, GError **error);
bool weir_user_zero(WeirUser *user, guint64 offset, guint64 bytes,
                    guint32 flags, GError **error);
bool weir_user_discard(WeirUser *user, guint64 offset, guint64 bytes,
                       GError **error);
bool weir_user_flush(WeirUser *user, GError **error);
/* Read and compare. */
bool weir_user_read(WeirUser *user, guint64 offset, guint64 bytes,
                    GError **error);

/* Read and compare all of it. */
bool weir_user_read_all(WeirUser *user, GError **error);

/*
 * Random requests of all kinds that are multiples of @unit.
 *
 * @max_bytes: of one
 */
bool weir_user_play(WeirUser *user, guint count, guint64 unit,
                    guint64 max_bytes, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirUser, weir_user_free)

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a disk has to read as: the bytes that were written to it last.  Has no
 * lock: threads have different parts of it.
 */
#ifndef WEIR_PLUGINTEST_MODEL_H
#define WEIR_PLUGINTEST_MODEL_H

#include "plugintest.h"

typedef struct WeirModel {
    guint64 bytes;
    guint8 *data;
    guint8 *known;              /* a byte per byte: 0: it may be anything */
} WeirModel;

/* A disk of which nothing is known. */
WeirModel *weir_model_new(guint64 bytes);
void weir_model_free(WeirModel *model);

/* It is so long now; what is new is known to be zero. */
void weir_model_resize(WeirModel *model, guint64 bytes);

void weir_model_write(WeirModel *model, guint64 offset, guint64 bytes,
                      const guint8 *data);
void weir_model_zero(WeirModel *model, guint64 offset, guint64 bytes);
/* The part may be anything. */
void weir_model_forget(WeirModel *model, guint64 offset, guint64 bytes);

/*
 * Compare what was read.
 *
 * @what: how it was read, for the message
 * Returns false with @error set: where, what was expected, what came.
 */
bool weir_model_check(const WeirModel *model, guint64 offset, guint64 bytes,
                      const guint8 *data, const char *what, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirModel, weir_model_free)

#endif

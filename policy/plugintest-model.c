/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-model.h"

#include <string.h>

/* As many bytes of each side are shown. */
#define MODEL_SHOWN 8
/* A piece is searched for elsewhere, to tell that it was mixed up. */
#define MODEL_PIECE 16

WeirModel *weir_model_new(guint64 bytes)
{
    WeirModel *model = g_new0(WeirModel, 1);

    model->bytes = bytes;
    model->data = g_malloc0(bytes);
    model->known = g_malloc0(bytes);
    return model;
}

void weir_model_free(WeirModel *model)
{
    if (model) {
        g_free(model->data);
        g_free(model->known);
        g_free(model);
    }
}

void weir_model_resize(WeirModel *model, guint64 bytes)
{
    guint64 old = model->bytes;

    model->bytes = bytes;
    model->data = g_realloc(model->data, bytes);
    model->known = g_realloc(model->known, bytes);
    if (bytes > old) {
        weir_model_zero(model, old, bytes - old);
    }
}

void weir_model_write(WeirModel *model, guint64 offset, guint64 bytes,
                      const guint8 *data)
{
    memcpy(model->data + offset, data, bytes);
    memset(model->known + offset, 1, bytes);
}

void weir_model_zero(WeirModel *model, guint64 offset, guint64 bytes)
{
    memset(model->data + offset, 0, bytes);
    memset(model->known + offset, 1, bytes);
}

void weir_model_forget(WeirModel *model, guint64 offset, guint64 bytes)
{
    memset(model->known + offset, 0, bytes);
}

static bool is_zero(const guint8 *data, guint64 bytes)
{
    return bytes == 0 || (data[0] == 0 &&
                          memcmp(data, data + 1, bytes - 1) == 0);
}

/* Bytes that have no pattern by which they could be told from others. */
static bool is_plain(const guint8 *data, guint64 bytes)
{
    return bytes < 2 || memcmp(data, data + 1, bytes - 1) == 0;
}

static char *hex(const guint8 *data, guint64 bytes)
{
    GString *text = g_string_new(NULL);

    for (guint64 i = 0; i < MIN(bytes, MODEL_SHOWN); i++) {
        g_string_append_printf(text, "%s%02x", i ? " " : "", data[i]);
    }
    return g_string_free(text, FALSE);
}

/* What is known of data that is at a wrong place.  The caller frees it. */
static char *guess(const WeirModel *model, const guint8 *data, guint64 bytes)
{
    const guint8 *found;

    if (is_zero(data, MIN(bytes, MODEL_PIECE))) {
        return g_strdup(": zeroes");
    }
    if (bytes < MODEL_PIECE || is_plain(data, MODEL_PIECE)) {
        return g_strdup("");
    }
    found = memmem(model->data, model->bytes, data, MODEL_PIECE);
    return found ? g_strdup_printf(
        ": what belongs at offset %" G_GUINT64_FORMAT,
        (guint64)(found - model->data)) : g_strdup("");
}

static void tell(const WeirModel *model, guint64 at, guint64 wrong,
                 const guint8 *data, guint64 bytes, const char *what,
                 GError **error)
{
    g_autofree char *expected = hex(model->data + at, bytes);
    g_autofree char *came = hex(data, bytes);
    g_autofree char *why = guess(model, data, bytes);

    weir_set_error(error, "%s: wrong data at offset %" G_GUINT64_FORMAT
                   " (%" G_GUINT64_FORMAT " bytes differ): expected %s, "
                   "came %s%s", what, at, wrong, expected, came, why);
}

bool weir_model_check(const WeirModel *model, guint64 offset, guint64 bytes,
                      const guint8 *data, const char *what, GError **error)
{
    guint64 first = 0, wrong = 0;

    if (memcmp(model->data + offset, data, bytes) == 0) {
        return true;
    }
    for (guint64 i = 0; i < bytes; i++) {
        if (model->known[offset + i] &&
            model->data[offset + i] != data[i]) {
            first = wrong ? first : i;
            wrong++;
        }
    }
    if (wrong) {
        tell(model, offset + first, wrong, data + first, bytes - first, what,
             error);
    }
    return wrong == 0;
}

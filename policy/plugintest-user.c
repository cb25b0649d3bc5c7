/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-user.h"

#include <errno.h>
#include <string.h>

#define USER_PIECE_BYTES (1u << 20)

/*
 * Requests are to be sent as they are, whatever alignment and length the disk
 * announces; newer versions of libnbd have more to be told of that.
 */
static bool user_be_lax(struct nbd_handle *nbd)
{
#ifdef LIBNBD_STRICT_PAYLOAD
    if (nbd_set_strict_mode(nbd, nbd_get_strict_mode(nbd) &
                                 ~LIBNBD_STRICT_PAYLOAD) < 0) {
        return false;
    }
#endif
    return nbd_set_request_block_size(nbd, false) == 0;
}

struct nbd_handle *weir_user_connect(WeirStage *stage, const char *node,
                                     bool status, GError **error)
{
    g_autofree char *uri = weir_stage_uri(stage, node);
    struct nbd_handle *nbd = nbd_create();

    if (nbd && user_be_lax(nbd) &&
        nbd_set_request_structured_replies(nbd, status) == 0 &&
        (!status || nbd_add_meta_context(
            nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0) &&
        nbd_connect_uri(nbd, uri) == 0) {
        return nbd;
    }
    weir_set_error(error, "cannot connect to the disk under the plugin: %s",
                   nbd_get_error());
    nbd_close(nbd);
    return NULL;
}

WeirUser *weir_user_new(WeirStage *stage, const char *node, WeirModel *model,
                        GError **error)
{
    struct nbd_handle *nbd = weir_user_connect(stage, node, false, error);
    WeirUser *user;

    if (!nbd) {
        return NULL;
    }
    user = g_new0(WeirUser, 1);
    user->trial = stage->trial;
    user->nbd = nbd;
    user->model = model;
    return user;
}

void weir_user_free(WeirUser *user)
{
    if (user) {
        nbd_shutdown(user->nbd, 0);
        nbd_close(user->nbd);
        g_free(user->buffer);
        g_free(user);
    }
}

static guint8 *user_buffer(WeirUser *user, guint64 bytes)
{
    if (user->buffer_bytes < bytes) {
        g_free(user->buffer);
        user->buffer = g_malloc(bytes);
        user->buffer_bytes = bytes;
    }
    return user->buffer;
}

/* The request has failed: what is there now is unknown. */
static bool user_failed(WeirUser *user, const char *what, guint64 offset,
                        guint64 bytes, GError **error)
{
    int code = nbd_get_errno();

    weir_set_error(error, "%s of %" G_GUINT64_FORMAT " bytes at offset %"
                   G_GUINT64_FORMAT " has failed: %s", what, bytes, offset,
                   code ? g_strerror(code) : nbd_get_error());
    weir_model_forget(user->model, offset, bytes);
    return false;
}

bool weir_user_write(WeirUser *user, guint64 offset, guint64 bytes,
                     guint32 flags, GError **error)
{
    guint8 *data = user_buffer(user, bytes);

    weir_trial_fill(user->trial->rand, data, bytes);
    if (nbd_pwrite(user->nbd, data, bytes, offset, flags) < 0) {
        return user_failed(user, "write", offset, bytes, error);
    }
    weir_model_write(user->model, offset, bytes, data);
    return true;
}

bool weir_user_zero(WeirUser *user, guint64 offset, guint64 bytes,
                    guint32 flags, GError **error)
{
    if (nbd_zero(user->nbd, bytes, offset, flags) < 0) {
        return user_failed(user, "zeroing", offset, bytes, error);
    }
    weir_model_zero(user->model, offset, bytes);
    return true;
}

/* It may be done or not, and its content is anything. */
bool weir_user_discard(WeirUser *user, guint64 offset, guint64 bytes,
                       GError **error)
{
    if (nbd_trim(user->nbd, bytes, offset, 0) < 0) {
        return user_failed(user, "discarding", offset, bytes, error);
    }
    weir_model_forget(user->model, offset, bytes);
    return true;
}

bool weir_user_flush(WeirUser *user, GError **error)
{
    if (nbd_flush(user->nbd, 0) < 0) {
        weir_set_error(error, "flush has failed: %s",
                       nbd_get_errno() ? g_strerror(nbd_get_errno()) :
                       nbd_get_error());
        return false;
    }
    return true;
}

bool weir_user_read(WeirUser *user, guint64 offset, guint64 bytes,
                    GError **error)
{
    guint8 *data = user_buffer(user, bytes);
    g_autofree char *what = g_strdup_printf(
        "read of %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT,
        bytes, offset);

    memset(data, 0xee, bytes);
    if (nbd_pread(user->nbd, data, bytes, offset, 0) < 0) {
        weir_set_error(error, "%s has failed: %s", what, nbd_get_errno() ?
                       g_strerror(nbd_get_errno()) : nbd_get_error());
        return false;
    }
    return weir_model_check(user->model, offset, bytes, data, what, error);
}

bool weir_user_read_all(WeirUser *user, GError **error)
{
    for (guint64 at = 0; at < user->model->bytes; at += USER_PIECE_BYTES) {
        if (!weir_user_read(user, at, MIN(USER_PIECE_BYTES,
                                          user->model->bytes - at), error)) {
            return false;
        }
    }
    return true;
}

static bool user_play_one(WeirUser *user, guint64 offset, guint64 bytes,
                          GError **error)
{
    guint dice = (guint)g_rand_int_range(user->trial->rand, 0, 100);

    if (dice < 45) {
        return weir_user_write(user, offset, bytes, 0, error);
    }
    if (dice < 50) {
        return weir_user_write(user, offset, bytes, LIBNBD_CMD_FLAG_FUA,
                               error);
    }
    if (dice < 57) {
        return weir_user_zero(user, offset, bytes, 0, error);
    }
    if (dice < 60) {
        return weir_user_zero(user, offset, bytes, LIBNBD_CMD_FLAG_NO_HOLE,
                              error);
    }
    if (dice < 65) {
        return weir_user_discard(user, offset, bytes, error);
    }
    return dice < 67 ? weir_user_flush(user, error)
                     : weir_user_read(user, offset, bytes, error);
}

bool weir_user_play(WeirUser *user, guint count, guint64 unit,
                    guint64 max_bytes, GError **error)
{
    guint64 units = user->model->bytes / unit;
    guint64 max_units = MIN(MAX(max_bytes / unit, 1), units);

    for (guint i = 0; i < count; i++) {
        guint64 length = weir_trial_below(user->trial->rand, max_units) + 1;
        guint64 first = weir_trial_below(user->trial->rand,
                                         units - length + 1);

        weir_trial_step(user->trial, "request %u of %u: %" G_GUINT64_FORMAT
                        " bytes at offset %" G_GUINT64_FORMAT, i + 1, count,
                        length * unit, first * unit);
        if (!user_play_one(user, first * unit, length * unit, error)) {
            return false;
        }
    }
    return true;
}

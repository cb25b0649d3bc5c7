/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "compare.h"

#include <libnbd.h>
#include <string.h>

#define COMPARE_CHUNK_BYTES (UINT64_C(4) << 20)
#define COMPARE_STATUS_BYTES (UINT64_C(1) << 30)

typedef struct nbd_handle NbdHandle;

G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdHandle, nbd_close)

/* One of the disks, and what block status has told of it last. */
typedef struct Side {
    const char *uri;
    NbdHandle *nbd;
    guint64 bytes;
    guint64 status_begin, status_end;   /* of the run around the position */
    bool zero;                          /* the run reads as zeroes */
    guint8 *buf;                        /* COMPARE_CHUNK_BYTES */
} Side;

static void side_clear(Side *side)
{
    g_clear_pointer(&side->nbd, nbd_close);
    g_free(side->buf);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Side, side_clear)

static bool side_fail(const Side *side, GError **error)
{
    weir_set_error(error, "%s: %s", side->uri, nbd_get_error());
    return false;
}

static bool side_open(Side *side, const char *uri, GError **error)
{
    gint64 bytes;

    side->uri = uri;
    side->nbd = nbd_create();
    if (!side->nbd ||
        nbd_add_meta_context(side->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        nbd_connect_uri(side->nbd, uri) < 0 ||
        (bytes = nbd_get_size(side->nbd)) < 0) {
        return side_fail(side, error);
    }
    side->bytes = bytes;
    side->buf = g_malloc(COMPARE_CHUNK_BYTES);
    return true;
}

/* Keeps the first run, and those behind it that are of the same kind. */
static int side_take_status(void *opaque, const char *context, uint64_t offset,
                            uint32_t *entries, size_t count, int *error)
{
    Side *side = opaque;

    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
        offset == side->status_end) {
        for (size_t i = 0; i + 1 < count; i += 2) {
            bool zero = entries[i + 1] & LIBNBD_STATE_ZERO;

            if (i > 0 && zero != side->zero) {
                break;
            }
            side->zero = zero;
            side->status_end += entries[i];
        }
    }
    return 0;
}

/* Let the run begin at @offset, if the last one has ended. */
static bool side_update_status(Side *side, guint64 offset, GError **error)
{
    guint64 bytes = MIN(side->bytes - offset, COMPARE_STATUS_BYTES);

    if (offset < side->status_end) {
        return true;
    }
    side->zero = false;
    side->status_begin = side->status_end = offset;
    if (nbd_can_meta_context(side->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1 &&
        nbd_block_status(side->nbd, bytes, offset,
                         (nbd_extent_callback) {
                             .callback = side_take_status,
                             .user_data = side,
                         }, 0) < 0) {
        return side_fail(side, error);
    }
    if (side->status_end == offset) {
        side->status_end = offset + bytes;
    }
    return true;
}

/* The content of a range that is of one kind. */
static bool side_read(Side *side, guint64 offset, guint64 bytes,
                      GError **error)
{
    if (side->zero) {
        memset(side->buf, 0, bytes);
        return true;
    }
    return nbd_pread(side->nbd, side->buf, bytes, offset, 0) == 0 ||
           side_fail(side, error);
}

/* Who wants to know where they differ. */
typedef struct Listener {
    WeirCompareFn differs;
    void *opaque;
} Listener;

static void count_differences(const Side *a, const Side *b, guint64 offset,
                              guint64 bytes, WeirComparison *result,
                              const Listener *listener)
{
    for (guint64 at = 0; at < bytes; at += WEIR_COMPARE_PIECE_BYTES) {
        guint64 n = MIN(bytes - at, WEIR_COMPARE_PIECE_BYTES);

        if (memcmp(a->buf + at, b->buf + at, n)) {
            if (result->different_bytes == 0) {
                result->first_different = offset + at;
            }
            result->different_bytes += n;
            if (listener->differs) {
                listener->differs(listener->opaque, offset + at, n);
            }
        }
    }
}

/* From @offset on as far as both are of one kind; sets *@next. */
static bool compare_run(Side *a, Side *b, guint64 offset, guint64 *next,
                        WeirComparison *result, const Listener *listener,
                        GError **error)
{
    guint64 end;

    if (!side_update_status(a, offset, error) ||
        !side_update_status(b, offset, error)) {
        return false;
    }
    end = MIN(MIN(a->status_end, b->status_end), a->bytes);
    if (a->zero && b->zero) {
        *next = end;
        return true;
    }
    *next = MIN(end, offset + COMPARE_CHUNK_BYTES);
    if (!side_read(a, offset, *next - offset, error) ||
        !side_read(b, offset, *next - offset, error)) {
        return false;
    }
    count_differences(a, b, offset, *next - offset, result, listener);
    result->read_bytes += *next - offset;
    return true;
}

bool weir_compare(const char *a_uri, const char *b_uri, WeirComparison *result,
                  void (*progress)(double done), GError **error)
{
    return weir_compare_pieces(a_uri, b_uri, result, NULL, NULL, progress,
                               error);
}

bool weir_compare_pieces(const char *a_uri, const char *b_uri,
                         WeirComparison *result, WeirCompareFn differs,
                         void *opaque, void (*progress)(double done),
                         GError **error)
{
    const Listener listener = { differs, opaque };
    g_auto(Side) a = { 0 };
    g_auto(Side) b = { 0 };
    guint64 offset = 0;

    memset(result, 0, sizeof(*result));
    if (!side_open(&a, a_uri, error) || !side_open(&b, b_uri, error)) {
        return false;
    }
    if (a.bytes != b.bytes) {
        weir_set_error(error, "%s has %" G_GUINT64_FORMAT " bytes, %s has %"
                       G_GUINT64_FORMAT, a_uri, a.bytes, b_uri, b.bytes);
        return false;
    }
    result->bytes = a.bytes;
    while (offset < a.bytes) {
        if (!compare_run(&a, &b, offset, &offset, result, &listener, error)) {
            return false;
        }
        if (progress) {
            progress((double)offset / (double)a.bytes);
        }
    }
    return true;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdbool.h>
#include <string.h>

#include "encryption/guest.h"

/* Of decrypted data: it stays in the first-level cache. */
#define SCRATCH_BYTES (16 * 1024)

/* Even if the compiler is told to zero what is on the stack. */
#define UNINITIALIZED __attribute__((uninitialized))

/* A place in the guest's memory. */
typedef struct Cursor {
    const struct iovec *iov;
    size_t at;
} Cursor;

static Cursor cursor_at(const WeirGuestData *data, size_t at)
{
    Cursor c = { data->iov, data->skip_bytes + at };

    while (c.at > 0 && c.at >= c.iov->iov_len) {
        c.at -= c.iov->iov_len;
        c.iov++;
    }
    return c;
}

/* How much there is in one piece, up to a limit that is not 0. */
static size_t in_one_piece(Cursor *c, size_t limit)
{
    size_t n;

    while (c->at == c->iov->iov_len) {
        c->iov++;
        c->at = 0;
    }
    n = c->iov->iov_len - c->at;
    return n < limit ? n : limit;
}

static uint8_t *place(const Cursor *c)
{
    return (uint8_t *)c->iov->iov_base + c->at;
}

static void gather(Cursor *c, uint8_t *out, size_t bytes)
{
    while (bytes > 0) {
        size_t n = in_one_piece(c, bytes);

        memcpy(out, place(c), n);
        c->at += n;
        out += n;
        bytes -= n;
    }
}

static void scatter(Cursor *c, const uint8_t *in, size_t bytes)
{
    while (bytes > 0) {
        size_t n = in_one_piece(c, bytes);

        memcpy(place(c), in, n);
        c->at += n;
        in += n;
        bytes -= n;
    }
}

/* Straight from the guest's memory, but sectors that lie in two pieces. */
int weir_guest_encrypt(WeirXts *xts, const WeirGuestData *data, size_t at,
                       size_t bytes)
{
    size_t sector_bytes = weir_xts_sector_bytes(xts), end = at + bytes;
    UNINITIALIZED uint8_t sector[WEIR_XTS_SECTOR_BYTES_MAX];
    Cursor c = cursor_at(data, at);
    bool gathered = false;
    int ret = 0;

    while (at < end && ret == 0) {
        size_t n = in_one_piece(&c, end - at);
        const uint8_t *from = place(&c);

        n -= n % sector_bytes;
        if (n == 0) {
            n = sector_bytes;
            gather(&c, sector, n);
            from = sector;
            gathered = true;
        } else {
            c.at += n;
        }
        ret = weir_xts_encrypt(xts, data->unit + at / WEIR_XTS_UNIT_BYTES,
                               from, data->buffer + at, n);
        at += n;
    }
    if (gathered) {
        explicit_bzero(sector, sizeof(sector));
    }
    return ret;
}

/* Straight to the guest's memory as well, if nothing else is written there. */
int weir_guest_decrypt(WeirXts *xts, const WeirGuestData *data, size_t at,
                       size_t bytes)
{
    size_t sector_bytes = weir_xts_sector_bytes(xts), end = at + bytes;
    size_t most = weir_xts_writes_once(xts) ? sector_bytes : SCRATCH_BYTES;
    UNINITIALIZED uint8_t scratch[SCRATCH_BYTES];
    Cursor c = cursor_at(data, at);
    size_t scattered = 0;
    int ret = 0;

    while (at < end && ret == 0) {
        uint64_t unit = data->unit + at / WEIR_XTS_UNIT_BYTES;
        const uint8_t *from = data->buffer + at;
        size_t n = in_one_piece(&c, end - at);

        n -= n % sector_bytes;
        if (n > 0 && weir_xts_writes_once(xts)) {
            ret = weir_xts_decrypt(xts, unit, from, place(&c), n);
            c.at += n;
        } else {
            n = end - at < most ? end - at : most;
            ret = weir_xts_decrypt(xts, unit, from, scratch, n);
            if (ret == 0) {
                scatter(&c, scratch, n);
            }
            scattered = scattered > n ? scattered : n;
        }
        at += n;
    }
    explicit_bzero(scratch, scattered);
    return ret;
}

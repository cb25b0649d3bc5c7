/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encryption/pieces.h"

void weir_pieces_init(WeirPieces *pieces, WeirXts *xts,
                      const WeirGuestData *data, bool encrypt)
{
    *pieces = (WeirPieces) { .xts = xts, .data = *data, .encrypt = encrypt };
}

unsigned weir_pieces_count(const WeirPieces *pieces)
{
    return (pieces->data.bytes + WEIR_PIECE_BYTES - 1) / WEIR_PIECE_BYTES;
}

static int run_piece(WeirPieces *pieces, size_t at)
{
    size_t left = pieces->data.bytes - at;
    size_t bytes = left < WEIR_PIECE_BYTES ? left : WEIR_PIECE_BYTES;

    return pieces->encrypt
           ? weir_guest_encrypt(pieces->xts, &pieces->data, at, bytes)
           : weir_guest_decrypt(pieces->xts, &pieces->data, at, bytes);
}

void weir_pieces_run(WeirPieces *pieces)
{
    size_t at;

    while ((at = __atomic_fetch_add(&pieces->next, WEIR_PIECE_BYTES,
                                    __ATOMIC_RELAXED)) < pieces->data.bytes) {
        int ret = run_piece(pieces, at), none = 0;

        if (ret < 0) {
            __atomic_compare_exchange_n(&pieces->ret, &none, ret, false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        }
    }
}

int weir_pieces_result(const WeirPieces *pieces)
{
    return __atomic_load_n(&pieces->ret, __ATOMIC_RELAXED);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_PIECES_H
#define WEIR_ENCRYPTION_PIECES_H

#include <stdbool.h>
#include <stddef.h>

#include "encryption/guest.h"

/*
 * A request that several threads encrypt or decrypt: each takes the next piece
 * until there is none. Who comes late finds nothing to do, so nobody waits for
 * a thread that has not begun.
 */

#define WEIR_PIECE_BYTES (128 * 1024)

typedef struct WeirPieces {
    WeirXts *xts;
    WeirGuestData data;
    bool encrypt;
    size_t next;                /* atomic */
    int ret;                    /* atomic; of the first that failed */
} WeirPieces;

void weir_pieces_init(WeirPieces *pieces, WeirXts *xts,
                      const WeirGuestData *data, bool encrypt);

/* How many threads can be of use. */
unsigned weir_pieces_count(const WeirPieces *pieces);

/* Take pieces until there is none. By several threads at once. */
void weir_pieces_run(WeirPieces *pieces);

/* When all calls of weir_pieces_run() have returned: 0 or -errno. */
int weir_pieces_result(const WeirPieces *pieces);

#endif

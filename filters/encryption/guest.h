/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_GUEST_H
#define WEIR_ENCRYPTION_GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "encryption/xts.h"

/*
 * A request's data on its way between the guest's memory, which is in pieces
 * of any length, and a buffer with ciphertext.
 *
 * The guest may look at its memory, or change it, at any time. So it is read
 * once, and nothing is written to it but plaintext that is final. Nothing is
 * allocated; plaintext that was on the stack is zeroed.
 */

typedef struct WeirGuestData {
    const struct iovec *iov;    /* at least skip_bytes + bytes */
    size_t skip_bytes;          /* where in iov the data begins */
    uint8_t *buffer;            /* of bytes, ciphertext */
    size_t bytes;               /* a multiple of the sector size */
    uint64_t unit;              /* of the first sector; see xts.h */
} WeirGuestData;

/*
 * Encrypt what the guest has into the buffer, or decrypt the buffer into the
 * guest's memory. The same from several threads for different parts.
 * at, bytes: the part of the data, both multiples of the sector size.
 * Returns 0, or what weir_xts_encrypt() does, with the part undefined.
 */
int weir_guest_encrypt(WeirXts *xts, const WeirGuestData *data, size_t at,
                       size_t bytes);
int weir_guest_decrypt(WeirXts *xts, const WeirGuestData *data, size_t at,
                       size_t bytes);

#endif

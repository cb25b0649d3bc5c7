/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_LE_H
#define WEIR_COMMON_LE_H

#include <stdint.h>

/*
 * Numbers of 1 to 8 bytes in little-endian order, at any address: how all
 * formats on disk are read and written.
 */

static inline void le_put(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static inline uint64_t le_get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = bytes; i > 0; i--) {
        value = value << 8 | at[i - 1];
    }
    return value;
}

#endif

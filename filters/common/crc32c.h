/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_CRC32C_H
#define WEIR_COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * Go on with a CRC-32C (Castagnoli).
 * crc: of what came before, a seed for the first part. The register is neither
 * inverted before nor after: weir_crc32c(~0, ...) ^ ~0 is the usual value.
 * Thread-safe, does not block.
 */
uint32_t weir_crc32c(uint32_t crc, const void *data, size_t bytes);

/*
 * Of a structure that holds its own CRC: the four bytes at `field` count as 0.
 */
static inline uint32_t crc_without(const void *buf, size_t bytes,
                                   size_t field, uint32_t seed)
{
    const uint8_t *at = buf;
    uint32_t crc = weir_crc32c(seed, at, field);

    crc = weir_crc32c(crc, "\0\0\0", 4);
    return weir_crc32c(crc, at + field + 4, bytes - field - 4);
}

#endif

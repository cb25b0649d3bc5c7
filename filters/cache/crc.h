/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_CRC_H
#define WEIR_CACHE_CRC_H

#include <stddef.h>
#include <stdint.h>

/*
 * Go on with a CRC-32C (Castagnoli).
 * crc: of what came before, `seed` for the first part. The register is neither
 * inverted before nor after: weir_cache_crc(~0, ...) ^ ~0 is the usual value.
 */
uint32_t weir_cache_crc(uint32_t crc, const void *data, size_t bytes);

/*
 * What the checksum of a block begins with: another one for each cache and
 * each block, so that good data in the wrong place is found out.
 * cache: the CRC of the cache's identity.
 */
static inline uint32_t weir_cache_crc_seed(uint32_t cache, uint64_t block)
{
    return cache ^ (uint32_t)((block + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_CRC_H
#define WEIR_CACHE_CRC_H

#include <stdint.h>

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

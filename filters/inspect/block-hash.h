/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_INSPECT_BLOCK_HASH_H
#define WEIR_INSPECT_BLOCK_HASH_H

#include <stdint.h>

/*
 * Hash of a block number, for spatial sampling: a block is sampled while its
 * hash is below a threshold, so the threshold / 2^64 is the sampling rate.
 * seed: any, the same for all blocks of a disk; unknown to the guest, it keeps
 * a guest from choosing blocks that are not looked at.
 * One-to-one for a given seed. No locking. Source: the 64-bit finalizer of
 * SplitMix (Steele, Lea, Flood, OOPSLA 2014).
 */
static inline uint64_t weir_block_hash(uint64_t block, uint64_t seed)
{
    uint64_t x = block + seed;

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

#endif

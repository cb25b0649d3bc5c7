/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_VAES_H
#define WEIR_ENCRYPTION_VAES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * AES-XTS with vector instructions of x86 (VAES, VPCLMULQDQ), two blocks in
 * vectors of 256 bits (AVX2) or four in those of 512 (AVX-512). The time it
 * takes does not depend on key or data. The tweaks of eight sectors are made
 * at once. Nothing is allocated. Thread-safe.
 */

#define WEIR_VAES_UNIT_BYTES 512        /* what sector numbers count */
#define WEIR_VAES_BLOCK_BYTES 16
#define WEIR_VAES_ROUNDS_128 10
#define WEIR_VAES_ROUNDS_256 14
#define WEIR_VAES_BITS_MAX 512

/* The round keys. It belongs into memory of weir_secret_new(). */
typedef struct WeirVaesKey {
    uint8_t encrypt[WEIR_VAES_ROUNDS_256 + 1][WEIR_VAES_BLOCK_BYTES];
    uint8_t decrypt[WEIR_VAES_ROUNDS_256 + 1][WEIR_VAES_BLOCK_BYTES];
    uint8_t tweak[WEIR_VAES_ROUNDS_256 + 1][WEIR_VAES_BLOCK_BYTES];
    uint32_t rounds;
} __attribute__((aligned(WEIR_VAES_BLOCK_BYTES))) WeirVaesKey;

/*
 * Whether processor and operating system have what vectors of so many bits,
 * 256 or 512, take. All below: only where they have it for 256.
 */
bool weir_vaes_supported(unsigned bits);

/* key: of key_bytes 32 or 64. */
void weir_vaes_set_key(WeirVaesKey *vaes, const void *key, size_t key_bytes);

/*
 * Encrypt or decrypt a run of sectors; the tweak of a sector is its number in
 * units of 512 bytes, little-endian.
 * bits: of the vectors, supported.
 * unit: number of the first sector.
 * in, out: of that many bytes, a multiple of sector_bytes, which is a multiple
 * of 512; the same address, or not overlapping. in is read once, and what is
 * written to out is final.
 */
void weir_vaes_encrypt(const WeirVaesKey *vaes, unsigned bits, uint64_t unit,
                       const void *in, void *out, size_t bytes,
                       size_t sector_bytes);
void weir_vaes_decrypt(const WeirVaesKey *vaes, unsigned bits, uint64_t unit,
                       const void *in, void *out, size_t bytes,
                       size_t sector_bytes);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_VAES_H
#define WEIR_ENCRYPTION_VAES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * AES-XTS with vector instructions of x86 (VAES, VPCLMULQDQ and AVX2), two
 * blocks in each. The time it takes does not depend on key or data. What it is
 * good for is sectors of 512 bytes: the tweaks of 16 sectors are made at once.
 * Nothing is allocated. Thread-safe.
 */

/* With larger ones, libgcrypt is as fast. */
#define WEIR_VAES_SECTOR_BYTES_MAX 2048
#define WEIR_VAES_ROUND_KEYS_MAX 15

/* The keys, each twice. It belongs into memory of weir_secret_new(). */
typedef struct WeirVaesKey {
    uint8_t encrypt[WEIR_VAES_ROUND_KEYS_MAX][32];
    uint8_t decrypt[WEIR_VAES_ROUND_KEYS_MAX][32];
    uint8_t tweak[WEIR_VAES_ROUND_KEYS_MAX][32];
    uint32_t rounds;
} __attribute__((aligned(32))) WeirVaesKey;

/* Whether processor and operating system have what it takes. */
bool weir_vaes_supported(void);

/* All below: only where it is supported. */

/* key: of key_bytes 32 or 64. */
void weir_vaes_set_key(WeirVaesKey *vaes, const void *key, size_t key_bytes);

/*
 * Encrypt or decrypt a run of sectors; the tweak of a sector is its number in
 * units of 512 bytes, little-endian.
 * unit: number of the first sector.
 * in, out: of that many bytes, a multiple of sector_bytes, which is a multiple
 * of 512; the same address, or not overlapping. in is read once, and what is
 * written to out is final.
 */
void weir_vaes_encrypt(const WeirVaesKey *vaes, uint64_t unit, const void *in,
                       void *out, size_t bytes, size_t sector_bytes);
void weir_vaes_decrypt(const WeirVaesKey *vaes, uint64_t unit, const void *in,
                       void *out, size_t bytes, size_t sector_bytes);

#endif

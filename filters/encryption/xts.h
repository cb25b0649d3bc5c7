/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_XTS_H
#define WEIR_ENCRYPTION_XTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * AES in XTS mode (IEEE 1619), sector by sector, as dm-crypt's
 * "aes-xts-plain64" does it.
 *
 * The tweak of a sector is its number in units of 512 bytes, little-endian,
 * whatever the size of the sectors: with 4096-byte sectors it goes up by 8.
 *
 * A WeirXts is used by any number of threads at once. It holds some ciphers
 * with the key, and a thread that finds all of them in use waits for one; it
 * is in use for as long as one call takes.
 */

#define WEIR_XTS_UNIT_BYTES 512         /* what sector numbers count */
#define WEIR_XTS_KEY_BYTES_MAX 64
#define WEIR_XTS_SECTOR_BYTES_MAX 4096
#define WEIR_XTS_CIPHERS_MAX 16

typedef struct WeirXts WeirXts;

/*
 * Set up libgcrypt, with locked memory; weir_xts_new() does so itself. Before
 * any other use of the library. Returns 0 or -errno.
 */
int weir_xts_library(void);

/*
 * xts: gets the new object, freed with weir_xts_free().
 * key: of key_bytes 32 (AES-128) or 64 (AES-256), both halves different; not
 * needed any more afterwards.
 * sector_bytes: 512, 1024, 2048 or 4096.
 * ciphers: how many to make, 1 to WEIR_XTS_CIPHERS_MAX. They are in locked
 * memory; where that is short there are fewer, at least one.
 * Returns 0; with *xts NULL: -EINVAL for a bad argument; -ENOMEM; -EAGAIN or
 * -EPERM when memory cannot be locked; -ENOSYS when libgcrypt has no AES-XTS.
 */
int weir_xts_new(WeirXts **xts, const void *key, size_t key_bytes,
                 uint32_t sector_bytes, unsigned ciphers);

/*
 * libgcrypt encrypts, or vector instructions do (see vaes.h): the widest that
 * the processor has, that are faster, and that agree with libgcrypt; where
 * there is locked memory for their keys. At first they may be of any width.
 * Only while no other call is running.
 * bits: the width at most; 0 for libgcrypt.
 * Returns which are used from now on, 256 or 512; 0 for libgcrypt.
 */
unsigned weir_xts_set_vaes(WeirXts *xts, unsigned bits);

/* As it was given to weir_xts_new(). */
uint32_t weir_xts_sector_bytes(const WeirXts *xts);

/*
 * Whether all that encrypting and decrypting writes to out is final. libgcrypt
 * puts there what it only needs for a moment.
 */
bool weir_xts_writes_once(const WeirXts *xts);

/* Zero and free it. No other call may be running or follow. NULL is fine. */
void weir_xts_free(WeirXts *xts);

/*
 * Encrypt or decrypt a run of sectors. Allocates nothing.
 * unit: number of the first sector, in units of WEIR_XTS_UNIT_BYTES.
 * in, out: of that many bytes, a multiple of the sector size; the same
 * address, or not overlapping. in is read once.
 * Returns 0; -EINVAL when bytes is no such multiple; -EIO when the library
 * fails, with out undefined.
 */
int weir_xts_encrypt(WeirXts *xts, uint64_t unit, const void *in, void *out,
                     size_t bytes);
int weir_xts_decrypt(WeirXts *xts, uint64_t unit, const void *in, void *out,
                     size_t bytes);

#endif

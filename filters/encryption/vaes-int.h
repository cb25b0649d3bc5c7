/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files vaes*.c share. */
#ifndef WEIR_ENCRYPTION_VAES_INT_H
#define WEIR_ENCRYPTION_VAES_INT_H

#include "encryption/vaes.h"

/* weir_vaes_encrypt() and weir_vaes_decrypt() for each width, on x86 only. */
void weir_vaes256_encrypt(const WeirVaesKey *key, uint64_t unit,
                          const void *in, void *out, size_t bytes,
                          size_t sector_bytes);
void weir_vaes256_decrypt(const WeirVaesKey *key, uint64_t unit,
                          const void *in, void *out, size_t bytes,
                          size_t sector_bytes);
void weir_vaes512_encrypt(const WeirVaesKey *key, uint64_t unit,
                          const void *in, void *out, size_t bytes,
                          size_t sector_bytes);
void weir_vaes512_decrypt(const WeirVaesKey *key, uint64_t unit,
                          const void *in, void *out, size_t bytes,
                          size_t sector_bytes);

#endif

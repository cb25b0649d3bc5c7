/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encryption/vaes-int.h"

#ifdef __x86_64__

#include <immintrin.h>

typedef __m256i Vector;

#define LANES 2
#define TARGET \
    __attribute__((target("aes,avx2,vaes,vpclmulqdq")))
#define OP(name) _mm256_##name
#define LOAD(at) _mm256_loadu_si256((const void *)(at))
#define STORE(at, v) _mm256_storeu_si256((void *)(at), v)
#define BROADCAST(block) _mm256_broadcastsi128_si256(block)

TARGET static inline void forget_registers(void)
{
    _mm256_zeroall();
}

#include "encryption/vaes-kernel.h"

TARGET void weir_vaes256_encrypt(const WeirVaesKey *key, uint64_t unit,
                                 const void *in, void *out, size_t bytes,
                                 size_t sector_bytes)
{
    crypt(key, true, unit, in, out, bytes, sector_bytes);
}

TARGET void weir_vaes256_decrypt(const WeirVaesKey *key, uint64_t unit,
                                 const void *in, void *out, size_t bytes,
                                 size_t sector_bytes)
{
    crypt(key, false, unit, in, out, bytes, sector_bytes);
}

#endif

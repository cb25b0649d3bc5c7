/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encryption/vaes-int.h"

#ifdef __x86_64__

#include <immintrin.h>

typedef __m512i Vector;

#define LANES 4
#define TARGET \
    __attribute__((target("aes,avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")))
#define OP(name) _mm512_##name
#define LOAD(at) _mm512_loadu_si512((const void *)(at))
#define STORE(at, v) _mm512_storeu_si512((void *)(at), v)
#define BROADCAST(block) _mm512_broadcast_i32x4(block)

#define ZERO(n) "vpxord %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"

/* The upper sixteen are not known to the instruction for the others. */
TARGET static inline void forget_registers(void)
{
    _mm256_zeroall();
    __asm__ volatile(ZERO(16) ZERO(17) ZERO(18) ZERO(19) ZERO(20) ZERO(21)
                     ZERO(22) ZERO(23) ZERO(24) ZERO(25) ZERO(26) ZERO(27)
                     ZERO(28) ZERO(29) ZERO(30) ZERO(31) : : : "memory");
}

#include "encryption/vaes-kernel.h"

TARGET void weir_vaes512_encrypt(const WeirVaesKey *key, uint64_t unit,
                                 const void *in, void *out, size_t bytes,
                                 size_t sector_bytes)
{
    crypt(key, true, unit, in, out, bytes, sector_bytes);
}

TARGET void weir_vaes512_decrypt(const WeirVaesKey *key, uint64_t unit,
                                 const void *in, void *out, size_t bytes,
                                 size_t sector_bytes)
{
    crypt(key, false, unit, in, out, bytes, sector_bytes);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "encryption/vaes.h"

#ifdef __x86_64__

#include <cpuid.h>
#include <immintrin.h>

#define UNIT_BYTES 512
#define BLOCK_BYTES 16
#define ROUNDS_128 10
#define ROUNDS_256 14
/* blocks in flight: what hides the latency of a round */
#define VECTORS 8
#define STEP_BYTES (VECTORS * 32)
/* sectors whose tweaks are made at once, two in each vector */
#define BATCH_VECTORS 4
#define BATCH (2 * BATCH_VECTORS)

#define TARGET __attribute__((target("aes,avx2,vaes,vpclmulqdq")))
/* so that the vectors are in registers; clang does it without being told */
#define UNROLL(n) UNROLL_(GCC unroll n)
#define UNROLL_(text) _Pragma(#text)
#define EACH(i, n) UNROLL(8) for (int i = 0; i < (n); i++)
#define INLINE TARGET __attribute__((always_inline)) static inline

/* --- is it there? --- */

/* Not of each vector register, unless the operating system saves it. */
static bool os_saves_ymm(void)
{
    uint32_t low, high;

    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}

bool weir_vaes_supported(void)
{
    uint32_t eax, ebx, ecx, edx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) ||
        !(ecx & bit_OSXSAVE) || !(ecx & bit_AVX) || !(ecx & bit_AES) ||
        !os_saves_ymm() ||
        !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        return false;
    }
    return (ebx & bit_AVX2) && (ecx & bit_VAES) && (ecx & bit_VPCLMULQDQ);
}

/* --- keys (FIPS 197) --- */

/* The S-box on each byte: with equal columns, the shift of rows is none. */
TARGET static uint32_t sub_word(uint32_t word)
{
    __m128i equal = _mm_set1_epi32((int)word);

    return (uint32_t)_mm_cvtsi128_si32(
        _mm_aesenclast_si128(equal, _mm_setzero_si128()));
}

static void store_word(uint8_t keys[][32], unsigned i, uint32_t word)
{
    memcpy(&keys[i / 4][i % 4 * 4], &word, 4);
    memcpy(&keys[i / 4][i % 4 * 4 + BLOCK_BYTES], &word, 4);
}

static uint32_t load_word(uint8_t keys[][32], unsigned i)
{
    uint32_t word;

    memcpy(&word, &keys[i / 4][i % 4 * 4], 4);
    return word;
}

/* words: of the key, 4 or 8. */
static void expand(uint8_t keys[][32], const uint8_t *key, unsigned words,
                   unsigned rounds)
{
    uint32_t word, rcon = 1;

    for (unsigned i = 0; i < 4 * (rounds + 1); i++) {
        if (i < words) {
            memcpy(&word, key + 4 * i, 4);
        } else {
            word = load_word(keys, i - 1);
            if (i % words == 0) {
                word = sub_word(word >> 8 | word << 24) ^ rcon;
                rcon = rcon << 1 ^ (rcon >> 7) * 0x11b;
            } else if (words == 8 && i % 8 == 4) {
                word = sub_word(word);
            }
            word ^= load_word(keys, i - words);
        }
        store_word(keys, i, word);
    }
    explicit_bzero(&word, sizeof(word));
}

/* For the equivalent inverse cipher. */
TARGET static void invert(WeirVaesKey *vaes)
{
    for (unsigned i = 0; i <= vaes->rounds; i++) {
        __m128i k = _mm_loadu_si128((void *)vaes->encrypt[vaes->rounds - i]);

        if (i > 0 && i < vaes->rounds) {
            k = _mm_aesimc_si128(k);
        }
        _mm_storeu_si128((void *)vaes->decrypt[i], k);
        _mm_storeu_si128((void *)(vaes->decrypt[i] + BLOCK_BYTES), k);
    }
}

TARGET void weir_vaes_set_key(WeirVaesKey *vaes, const void *key,
                              size_t key_bytes)
{
    unsigned words = (unsigned)key_bytes / 8;

    vaes->rounds = words == 4 ? ROUNDS_128 : ROUNDS_256;
    expand(vaes->encrypt, key, words, vaes->rounds);
    expand(vaes->tweak, (const uint8_t *)key + key_bytes / 2, words,
           vaes->rounds);
    invert(vaes);
    _mm256_zeroall();
}

/* --- AES --- */

INLINE __m256i load(const void *at)
{
    return _mm256_loadu_si256(at);
}

INLINE __m256i round_key(const uint8_t keys[][32], unsigned i)
{
    return _mm256_load_si256((const void *)keys[i]);
}

/* n vectors; n and rounds are constants wherever it has to be fast. */
INLINE void aes_encrypt(const uint8_t keys[][32], unsigned rounds,
                        __m256i *b, int n)
{
    __m256i k = round_key(keys, 0);

    EACH(i, n) {
        b[i] = _mm256_xor_si256(b[i], k);
    }
    UNROLL(16) for (unsigned r = 1; r < rounds; r++) {
        k = round_key(keys, r);
        EACH(i, n) {
            b[i] = _mm256_aesenc_epi128(b[i], k);
        }
    }
    k = round_key(keys, rounds);
    EACH(i, n) {
        b[i] = _mm256_aesenclast_epi128(b[i], k);
    }
}

INLINE void aes_decrypt(const uint8_t keys[][32], unsigned rounds,
                        __m256i *b, int n)
{
    __m256i k = round_key(keys, 0);

    EACH(i, n) {
        b[i] = _mm256_xor_si256(b[i], k);
    }
    UNROLL(16) for (unsigned r = 1; r < rounds; r++) {
        k = round_key(keys, r);
        EACH(i, n) {
            b[i] = _mm256_aesdec_epi128(b[i], k);
        }
    }
    k = round_key(keys, rounds);
    EACH(i, n) {
        b[i] = _mm256_aesdeclast_epi128(b[i], k);
    }
}

/* --- tweaks (IEEE 1619) --- */

/*
 * Each of the two tweaks times x to the power of n, n < 56: shifted left, and
 * what leaves at the top comes back at the bottom times x^7 + x^2 + x + 1.
 */
INLINE __m256i times_x(__m256i tweak, int n)
{
    const __m256i polynomial = _mm256_set1_epi64x(0x87);
    __m256i out = _mm256_srli_epi64(tweak, 64 - n);
    __m256i low = _mm256_slli_epi64(tweak, n);

    low = _mm256_xor_si256(low, _mm256_bslli_epi128(out, 8));
    return _mm256_xor_si256(low, _mm256_clmulepi64_epi128(out, polynomial,
                                                          0x01));
}

/* The first two tweaks of each of so many sectors. */
INLINE void first_tweaks(const WeirVaesKey *vaes, uint64_t unit,
                         uint64_t step_units, __m256i first[BATCH])
{
    __m256i number[BATCH_VECTORS];

    EACH(i, BATCH_VECTORS) {
        number[i] = _mm256_set_epi64x(0, (long long)(unit +
                                                     (2 * i + 1) * step_units),
                                      0, (long long)(unit +
                                                     2 * i * step_units));
    }
    aes_encrypt(vaes->tweak, vaes->rounds, number,
                BATCH_VECTORS);
    EACH(i, BATCH_VECTORS) {
        __m256i next = times_x(number[i], 1);

        first[2 * i] = _mm256_permute2x128_si256(number[i], next, 0x20);
        first[2 * i + 1] = _mm256_permute2x128_si256(number[i], next, 0x31);
    }
}

/* --- sectors --- */

/* 256 bytes; first: the tweaks of their first two blocks. */
INLINE void crypt_step(const WeirVaesKey *vaes, bool encrypt, unsigned rounds,
                       __m256i first, const uint8_t *in, uint8_t *out)
{
    __m256i b[VECTORS], tweak[VECTORS];

    tweak[0] = first;
    tweak[1] = times_x(first, 2);
    tweak[2] = times_x(first, 4);
    tweak[3] = times_x(first, 6);
    tweak[4] = times_x(first, 8);
    tweak[5] = times_x(first, 10);
    tweak[6] = times_x(first, 12);
    tweak[7] = times_x(first, 14);
    EACH(i, VECTORS) {
        b[i] = _mm256_xor_si256(load(in + 32 * i), tweak[i]);
    }
    if (encrypt) {
        aes_encrypt(vaes->encrypt, rounds, b, VECTORS);
    } else {
        aes_decrypt(vaes->decrypt, rounds, b, VECTORS);
    }
    EACH(i, VECTORS) {
        _mm256_storeu_si256((void *)(out + 32 * i),
                            _mm256_xor_si256(b[i], tweak[i]));
    }
}

INLINE void crypt_run(const WeirVaesKey *vaes, bool encrypt, unsigned rounds,
                      uint64_t unit, const uint8_t *in, uint8_t *out,
                      size_t bytes, size_t sector_bytes)
{
    uint64_t step_units = sector_bytes / UNIT_BYTES;
    __m256i first[BATCH];
    unsigned left = 0;

    for (size_t at = 0; at < bytes; at += sector_bytes) {
        __m256i tweak;

        if (left == 0) {
            first_tweaks(vaes, unit + at / UNIT_BYTES, step_units, first);
            left = BATCH;
        }
        tweak = first[BATCH - left--];
        for (size_t i = 0; i < sector_bytes; i += STEP_BYTES) {
            crypt_step(vaes, encrypt, rounds, tweak, in + at + i, out + at + i);
            tweak = times_x(tweak, 16);     /* 16 blocks further */
        }
    }
    explicit_bzero(first, sizeof(first));
    _mm256_zeroall();
}

TARGET void weir_vaes_encrypt(const WeirVaesKey *vaes, uint64_t unit,
                              const void *in, void *out, size_t bytes,
                              size_t sector_bytes)
{
    if (vaes->rounds == ROUNDS_256) {
        crypt_run(vaes, true, ROUNDS_256, unit, in, out, bytes, sector_bytes);
    } else {
        crypt_run(vaes, true, ROUNDS_128, unit, in, out, bytes, sector_bytes);
    }
}

TARGET void weir_vaes_decrypt(const WeirVaesKey *vaes, uint64_t unit,
                              const void *in, void *out, size_t bytes,
                              size_t sector_bytes)
{
    if (vaes->rounds == ROUNDS_256) {
        crypt_run(vaes, false, ROUNDS_256, unit, in, out, bytes, sector_bytes);
    } else {
        crypt_run(vaes, false, ROUNDS_128, unit, in, out, bytes, sector_bytes);
    }
}

#else

bool weir_vaes_supported(void)
{
    return false;
}

void weir_vaes_set_key(WeirVaesKey *vaes, const void *key, size_t key_bytes)
{
    (void)vaes;
    (void)key;
    (void)key_bytes;
}

void weir_vaes_encrypt(const WeirVaesKey *vaes, uint64_t unit, const void *in,
                       void *out, size_t bytes, size_t sector_bytes)
{
    (void)vaes;
    (void)unit;
    (void)in;
    (void)out;
    (void)bytes;
    (void)sector_bytes;
}

void weir_vaes_decrypt(const WeirVaesKey *vaes, uint64_t unit, const void *in,
                       void *out, size_t bytes, size_t sector_bytes)
{
    weir_vaes_encrypt(vaes, unit, in, out, bytes, sector_bytes);
}

#endif

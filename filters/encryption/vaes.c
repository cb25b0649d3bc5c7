/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "encryption/vaes-int.h"

#ifdef __x86_64__

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("aes,avx2")))

/* --- is it there? --- */

/* what the operating system saves: XMM, YMM; masks, both parts of ZMM */
#define SAVES_256 0x06
#define SAVES_512 0xe6

static bool os_saves(uint32_t states)
{
    uint32_t low, high;

    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & states) == states;
}

static bool has_all(uint32_t flags, uint32_t wanted)
{
    return (flags & wanted) == wanted;
}

bool weir_vaes_supported(unsigned bits)
{
    uint32_t wanted = bits == 256 ? bit_AVX2
                                  : bit_AVX512F | bit_AVX512BW | bit_AVX512VL;
    uint32_t eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
           has_all(ecx, bit_OSXSAVE | bit_AVX | bit_AES) &&
           os_saves(bits == 256 ? SAVES_256 : SAVES_512) &&
           __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           has_all(ebx, wanted) && has_all(ecx, bit_VAES | bit_VPCLMULQDQ);
}

/* --- keys (FIPS 197) --- */

typedef uint8_t RoundKey[WEIR_VAES_BLOCK_BYTES];

/* The S-box on each byte: with equal columns, the shift of rows is none. */
TARGET static uint32_t sub_word(uint32_t word)
{
    __m128i equal = _mm_set1_epi32((int)word);

    return (uint32_t)_mm_cvtsi128_si32(
        _mm_aesenclast_si128(equal, _mm_setzero_si128()));
}

static uint32_t load_word(RoundKey *keys, unsigned i)
{
    uint32_t word;

    memcpy(&word, &keys[i / 4][i % 4 * 4], 4);
    return word;
}

/* words: of the key, 4 or 8. */
static void expand(RoundKey *keys, const uint8_t *key, unsigned words,
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
        memcpy(&keys[i / 4][i % 4 * 4], &word, 4);
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
    }
}

TARGET void weir_vaes_set_key(WeirVaesKey *vaes, const void *key,
                              size_t key_bytes)
{
    unsigned words = (unsigned)key_bytes / 8;

    vaes->rounds = words == 4 ? WEIR_VAES_ROUNDS_128 : WEIR_VAES_ROUNDS_256;
    expand(vaes->encrypt, key, words, vaes->rounds);
    expand(vaes->tweak, (const uint8_t *)key + key_bytes / 2, words,
           vaes->rounds);
    invert(vaes);
    _mm256_zeroall();
}

/* --- sectors --- */

void weir_vaes_encrypt(const WeirVaesKey *vaes, unsigned bits, uint64_t unit,
                       const void *in, void *out, size_t bytes,
                       size_t sector_bytes)
{
    if (bits == 512) {
        weir_vaes512_encrypt(vaes, unit, in, out, bytes, sector_bytes);
    } else {
        weir_vaes256_encrypt(vaes, unit, in, out, bytes, sector_bytes);
    }
}

void weir_vaes_decrypt(const WeirVaesKey *vaes, unsigned bits, uint64_t unit,
                       const void *in, void *out, size_t bytes,
                       size_t sector_bytes)
{
    if (bits == 512) {
        weir_vaes512_decrypt(vaes, unit, in, out, bytes, sector_bytes);
    } else {
        weir_vaes256_decrypt(vaes, unit, in, out, bytes, sector_bytes);
    }
}

#else

bool weir_vaes_supported(unsigned bits)
{
    (void)bits;
    return false;
}

void weir_vaes_set_key(WeirVaesKey *vaes, const void *key, size_t key_bytes)
{
    (void)vaes;
    (void)key;
    (void)key_bytes;
}

void weir_vaes_encrypt(const WeirVaesKey *vaes, unsigned bits, uint64_t unit,
                       const void *in, void *out, size_t bytes,
                       size_t sector_bytes)
{
    (void)vaes;
    (void)bits;
    (void)unit;
    (void)in;
    (void)out;
    (void)bytes;
    (void)sector_bytes;
}

void weir_vaes_decrypt(const WeirVaesKey *vaes, unsigned bits, uint64_t unit,
                       const void *in, void *out, size_t bytes,
                       size_t sector_bytes)
{
    weir_vaes_encrypt(vaes, bits, unit, in, out, bytes, sector_bytes);
}

#endif

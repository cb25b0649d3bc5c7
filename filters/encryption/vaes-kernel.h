/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES-XTS with vectors of one width. vaes256.c and vaes512.c include this, for
 * the same code with other registers, and say before:
 *
 *   LANES               blocks in a vector
 *   Vector              its type
 *   TARGET              of functions: what the processor must have
 *   OP(name)            an instruction on whole vectors
 *   LOAD, STORE         a vector from and to memory
 *   BROADCAST           of one block to all lanes
 *   forget_registers()  zero all that may hold secrets
 *
 * They make weir_vaes*_encrypt() and weir_vaes*_decrypt() of crypt().
 */
#ifndef WEIR_ENCRYPTION_VAES_KERNEL_H
#define WEIR_ENCRYPTION_VAES_KERNEL_H

#define BLOCK_BYTES WEIR_VAES_BLOCK_BYTES
#define VECTOR_BYTES (LANES * BLOCK_BYTES)
/* in flight: what hides the latency of a round */
#define VECTORS 8
#define STEP_BYTES (VECTORS * VECTOR_BYTES)
/* with the tweaks of 8 blocks; all others are these, shifted by bytes */
#define BASE_VECTORS (8 / LANES)
/* sectors whose tweaks are made at once */
#define BATCH 8
#define BATCH_VECTORS (BATCH / LANES)

/* so that the vectors are in registers; clang does it without being told */
#define UNROLL(n) UNROLL_(GCC unroll n)
#define UNROLL_(text) _Pragma(#text)
#define EACH(i, n) UNROLL(8) for (int i = 0; i < (n); i++)
#define INLINE TARGET __attribute__((always_inline)) static inline

typedef uint8_t Block[BLOCK_BYTES];

/* --- vectors --- */

/* The two halves of each lane. */
INLINE Vector each_lane(uint64_t low, uint64_t high)
{
    return BROADCAST(_mm_set_epi64x((long long)high, (long long)low));
}

INLINE Vector load_block(const Block block)
{
    return BROADCAST(_mm_load_si128((const void *)block));
}

/* 0 in the first lane, 1 in the next, and so on; in both halves. */
INLINE Vector lane_numbers(void)
{
    Vector v = { 0 };

    EACH(i, LANES) {
        v[2 * i] = i;
        v[2 * i + 1] = i;
    }
    return v;
}

/* --- AES (FIPS 197) --- */

/* Of n vectors; n and rounds are constants. */
INLINE void aes_encrypt(const Block *keys, unsigned rounds, Vector *b, int n)
{
    Vector k = load_block(keys[0]);

    EACH(i, n) {
        b[i] ^= k;
    }
    UNROLL(16) for (unsigned r = 1; r < rounds; r++) {
        k = load_block(keys[r]);
        EACH(i, n) {
            b[i] = OP(aesenc_epi128)(b[i], k);
        }
    }
    k = load_block(keys[rounds]);
    EACH(i, n) {
        b[i] = OP(aesenclast_epi128)(b[i], k);
    }
}

INLINE void aes_decrypt(const Block *keys, unsigned rounds, Vector *b, int n)
{
    Vector k = load_block(keys[0]);

    EACH(i, n) {
        b[i] ^= k;
    }
    UNROLL(16) for (unsigned r = 1; r < rounds; r++) {
        k = load_block(keys[r]);
        EACH(i, n) {
            b[i] = OP(aesdec_epi128)(b[i], k);
        }
    }
    k = load_block(keys[rounds]);
    EACH(i, n) {
        b[i] = OP(aesdeclast_epi128)(b[i], k);
    }
}

/* --- tweaks (IEEE 1619) --- */

/*
 * A tweak times x is shifted by a bit, and times x^8 by a byte. What leaves it
 * at the top comes back at the bottom times x^7 + x^2 + x + 1.
 */
#define POLYNOMIAL 0x87

/* The tweak in each lane times x^n, and once more x for each further lane. */
INLINE Vector times_x_lanes(Vector tweak, int n)
{
    Vector count = lane_numbers() + n;
    Vector out = OP(srlv_epi64)(tweak, 64 - count);

    return OP(sllv_epi64)(tweak, count) ^ OP(bslli_epi128)(out, 8) ^
           OP(clmulepi64_epi128)(out, each_lane(POLYNOMIAL, 0), 0x01);
}

/* The tweak in each lane times x^(8 n). */
#define TIMES_X_8(tweak, n) \
    (OP(bslli_epi128)(tweak, n) ^ \
     OP(clmulepi64_epi128)(OP(bsrli_epi128)(tweak, BLOCK_BYTES - (n)), \
                           each_lane(POLYNOMIAL, 0), 0x00))

/* What follows the number of a sector by so many; see make_tweaks(). */
INLINE Vector later_sectors(int sectors, uint64_t step_units)
{
    return OP(mul_epu32)(lane_numbers() + sectors, each_lane(step_units, 0));
}

/* The tweaks of the first blocks of sectors, LANES in each vector. */
INLINE void make_tweaks(const WeirVaesKey *key, unsigned rounds, uint64_t unit,
                        uint64_t step_units, Block *out, int vectors)
{
    Vector t[BATCH_VECTORS];

    EACH(i, vectors) {
        t[i] = each_lane(unit, 0) + later_sectors(i * LANES, step_units);
    }
    aes_encrypt(key->tweak, rounds, t, vectors);
    EACH(i, vectors) {
        STORE(out[i * LANES], t[i]);
    }
}

/* --- sectors --- */

/* base: the tweaks of the first 8 blocks; gets those of the next step. */
INLINE void crypt_step(const WeirVaesKey *key, bool encrypt, unsigned rounds,
                       Vector base[BASE_VECTORS], const uint8_t *in,
                       uint8_t *out)
{
    Vector b[VECTORS], tweak[VECTORS];

    EACH(i, BASE_VECTORS) {
        tweak[i] = base[i];
        base[i] = TIMES_X_8(base[i], STEP_BYTES / BLOCK_BYTES / 8);
    }
    EACH(i, VECTORS - BASE_VECTORS) {
        tweak[BASE_VECTORS + i] = TIMES_X_8(tweak[i], 1);
    }
    EACH(i, VECTORS) {
        b[i] = LOAD(in + VECTOR_BYTES * i) ^ tweak[i];
    }
    if (encrypt) {
        aes_encrypt(key->encrypt, rounds, b, VECTORS);
    } else {
        aes_decrypt(key->decrypt, rounds, b, VECTORS);
    }
    EACH(i, VECTORS) {
        STORE(out + VECTOR_BYTES * i, b[i] ^ tweak[i]);
    }
}

INLINE void crypt_sector(const WeirVaesKey *key, bool encrypt, unsigned rounds,
                         const Block tweak, const uint8_t *in, uint8_t *out,
                         size_t sector_bytes)
{
    Vector base[BASE_VECTORS];

    EACH(i, BASE_VECTORS) {
        base[i] = times_x_lanes(load_block(tweak), i * LANES);
    }
    for (size_t at = 0; at < sector_bytes; at += STEP_BYTES) {
        crypt_step(key, encrypt, rounds, base, in + at, out + at);
    }
}

INLINE void crypt_run(const WeirVaesKey *key, bool encrypt, unsigned rounds,
                      uint64_t unit, const uint8_t *in, uint8_t *out,
                      size_t bytes, size_t sector_bytes)
{
    Block tweaks[BATCH] __attribute__((aligned(VECTOR_BYTES)));
    size_t step_units = sector_bytes / WEIR_VAES_UNIT_BYTES;
    size_t sectors = bytes / sector_bytes;

    while (sectors > 0) {
        size_t n = sectors < BATCH ? sectors : BATCH;

        if (n <= LANES) {
            make_tweaks(key, rounds, unit, step_units, tweaks, 1);
        } else {
            make_tweaks(key, rounds, unit, step_units, tweaks, BATCH_VECTORS);
        }
        for (size_t i = 0; i < n; i++) {
            crypt_sector(key, encrypt, rounds, tweaks[i], in, out,
                         sector_bytes);
            in += sector_bytes;
            out += sector_bytes;
        }
        unit += n * step_units;
        sectors -= n;
    }
    EACH(i, BATCH_VECTORS) {
        STORE(tweaks[i * LANES], (Vector){ 0 });
    }
    __asm__ volatile("" : : "r"(tweaks) : "memory");
    forget_registers();
}

INLINE void crypt(const WeirVaesKey *key, bool encrypt, uint64_t unit,
                  const void *in, void *out, size_t bytes,
                  size_t sector_bytes)
{
    if (key->rounds == WEIR_VAES_ROUNDS_256) {
        crypt_run(key, encrypt, WEIR_VAES_ROUNDS_256, unit, in, out, bytes,
                  sector_bytes);
    } else {
        crypt_run(key, encrypt, WEIR_VAES_ROUNDS_128, unit, in, out, bytes,
                  sector_bytes);
    }
}

#endif

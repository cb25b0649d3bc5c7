/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "encryption/vaes.h"
#include "encryption/xts.h"

#define RUN_BYTES (64 * 1024)
#define THREADS 4
#define ROUNDS 50

/* digits of e and of pi, as in the standard's vectors */
#define KEY_E "27182818284590452353602874713526"
#define KEY_PI "31415926535897932384626433832795"
#define KEY_E_LONG KEY_E "62497757247093699959574966967627"
#define KEY_PI_LONG KEY_PI "02884197169399375105820974944592"

static void from_hex(uint8_t *out, const char *hex)
{
    for (; *hex; hex += 2) {
        char byte[3] = { hex[0], hex[1], 0 };

        *out++ = strtoul(byte, NULL, 16);
    }
}

/* Bytes that are not regular, the same in each run of the test. */
static void fill(uint8_t *out, size_t bytes, uint64_t seed)
{
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        out[i] = seed >> 56;
    }
}

static unsigned vaes_bits;      /* as far as the processor has them */

static WeirXts *xts_new(const void *key, size_t key_bytes,
                        uint32_t sector_bytes, unsigned ciphers)
{
    WeirXts *xts;

    assert_int_equal(weir_xts_new(&xts, key, key_bytes, sector_bytes,
                                  ciphers), 0);
    weir_xts_set_vaes(xts, vaes_bits);
    return xts;
}

/*
 * IEEE 1619-2007, annex B: vectors 4, 10 and 14, whose plaintext is 512 bytes
 * 00, 01, ..., ff, 00, ..., ff; first and last 32 bytes of the ciphertext.
 */
static const struct {
    const char *key;
    uint64_t unit;
    const char *first, *last;
} vectors[] = {
    { KEY_E KEY_PI, 0,
      "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
      "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568" },
    { KEY_E_LONG KEY_PI_LONG, 0xff,
      "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
      "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151" },
    { KEY_E_LONG KEY_PI_LONG, UINT64_C(0xffffffffff),
      "64497e5a831e4a932c09be3e5393376daa599548b816031d224bbf50a818ed23",
      "6975be5e0b4efce51cd3e70c25a1fbbbd609d273ad5b0d59631c531f6a0a57b9" },
};

static void vectors_of_the_standard(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        uint8_t key[WEIR_XTS_KEY_BYTES_MAX], first[32], last[32];
        uint8_t plain[512], out[512];
        WeirXts *xts;

        for (size_t b = 0; b < sizeof(plain); b++) {
            plain[b] = b;
        }
        from_hex(key, vectors[i].key);
        from_hex(first, vectors[i].first);
        from_hex(last, vectors[i].last);
        xts = xts_new(key, strlen(vectors[i].key) / 2, 512, 1);
        assert_int_equal(weir_xts_encrypt(xts, vectors[i].unit, plain, out,
                                          sizeof(out)), 0);
        assert_memory_equal(out, first, 32);
        assert_memory_equal(out + 480, last, 32);
        assert_int_equal(weir_xts_decrypt(xts, vectors[i].unit, out, out,
                                          sizeof(out)), 0);
        assert_memory_equal(out, plain, sizeof(out));
        weir_xts_free(xts);
    }
}

/* The same with GnuTLS, one sector at a time. */
static void reference_encrypt(uint8_t *data, size_t bytes, uint8_t *key,
                              size_t key_bytes, size_t sector_bytes,
                              uint64_t unit)
{
    gnutls_cipher_algorithm_t algo = key_bytes == 32 ? GNUTLS_CIPHER_AES_128_XTS
                                                : GNUTLS_CIPHER_AES_256_XTS;

    for (size_t at = 0; at < bytes; at += sector_bytes) {
        uint64_t number = unit + at / 512;
        uint8_t iv_bytes[16] = { 0 };
        gnutls_datum_t k = { key, key_bytes }, iv = { iv_bytes, 16 };
        gnutls_cipher_hd_t cipher;

        for (int i = 0; i < 8; i++) {
            iv_bytes[i] = number >> (8 * i);
        }
        assert_int_equal(gnutls_cipher_init(&cipher, algo, &k, &iv), 0);
        assert_int_equal(gnutls_cipher_encrypt(cipher, data + at,
                                               sector_bytes), 0);
        gnutls_cipher_deinit(cipher);
    }
}

static void check_run(size_t key_bytes, uint32_t sector_bytes, uint64_t unit)
{
    static uint8_t plain[RUN_BYTES], ours[RUN_BYTES], theirs[RUN_BYTES];
    uint8_t key[WEIR_XTS_KEY_BYTES_MAX];
    WeirXts *xts;

    fill(key, sizeof(key), unit + 1);
    fill(plain, RUN_BYTES, unit + sector_bytes);
    memcpy(theirs, plain, RUN_BYTES);
    xts = xts_new(key, key_bytes, sector_bytes, 2);
    assert_int_equal(weir_xts_encrypt(xts, unit, plain, ours, RUN_BYTES), 0);
    reference_encrypt(theirs, RUN_BYTES, key, key_bytes, sector_bytes, unit);
    assert_memory_equal(ours, theirs, RUN_BYTES);

    assert_int_equal(weir_xts_decrypt(xts, unit, ours, theirs, RUN_BYTES), 0);
    assert_memory_equal(theirs, plain, RUN_BYTES);
    memcpy(theirs, plain, RUN_BYTES);
    assert_int_equal(weir_xts_encrypt(xts, unit, theirs, theirs, RUN_BYTES),
                     0);
    assert_memory_equal(theirs, ours, RUN_BYTES);
    weir_xts_free(xts);
}

static void runs_are_as_of_another_library(void **state)
{
    static const uint64_t units[] = {
        0, 8, 1000 * 8, UINT64_C(0xfffffff8), UINT64_C(1) << 55,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        for (uint32_t sector = 512; sector <= 4096; sector *= 2) {
            check_run(32, sector, units[i]);
            check_run(64, sector, units[i]);
        }
    }
}

/* Runs of all lengths, at odd addresses, in place and from elsewhere. */
static void check_agreement(WeirXts *ours, WeirXts *theirs, uint64_t seed)
{
    static uint8_t plain[RUN_BYTES], a[RUN_BYTES], b[RUN_BYTES];
    uint32_t sector_bytes = weir_xts_sector_bytes(ours);

    fill(plain, RUN_BYTES, seed);
    for (size_t n = 0; n * sector_bytes <= RUN_BYTES / 2; n++) {
        size_t bytes = n * sector_bytes, from = n * 7 % 64, to = n * 5 % 64;
        uint64_t unit = n % 8 == 7 ? UINT64_MAX - 3 * n : seed * n;

        memset(a, 0x55, RUN_BYTES);
        memset(b, 0x55, RUN_BYTES);
        weir_xts_encrypt(ours, unit, plain + from, a + to, bytes);
        weir_xts_encrypt(theirs, unit, plain + from, b + to, bytes);
        assert_memory_equal(a, b, RUN_BYTES);
        weir_xts_decrypt(ours, unit, a + to, a + to, bytes);
        assert_memory_equal(a + to, plain + from, bytes);
        weir_xts_decrypt(ours, unit, b + to, a + from, bytes);
        assert_memory_equal(a + from, plain + from, bytes);
    }
}

/* What is said to be used is what should be, of what the processor has. */
static unsigned expected_bits(uint32_t sector_bytes, unsigned most)
{
    if (most >= 512 && weir_vaes_supported(512)) {
        return 512;
    }
    return most >= 256 && weir_vaes_supported(256) && sector_bytes < 4096
           ? 256 : 0;
}

/* Where VAES is not used, this compares libgcrypt with itself. */
static void vaes_is_as_libgcrypt(void **state)
{
    uint8_t key[WEIR_XTS_KEY_BYTES_MAX];

    (void)state;
    for (uint32_t sector = 512; sector <= 4096; sector *= 2) {
        for (size_t key_bytes = 32; key_bytes <= 64; key_bytes += 32) {
            WeirXts *ours, *theirs;

            fill(key, sizeof(key), sector + key_bytes);
            ours = xts_new(key, key_bytes, sector, 1);
            theirs = xts_new(key, key_bytes, sector, 1);
            assert_int_equal(weir_xts_set_vaes(ours, vaes_bits),
                             expected_bits(sector, vaes_bits));
            assert_int_equal(weir_xts_set_vaes(theirs, 0), 0);
            check_agreement(ours, theirs, sector * key_bytes);
            weir_xts_free(ours);
            weir_xts_free(theirs);
        }
    }
}

static void bad_arguments(void **state)
{
    uint8_t key[WEIR_XTS_KEY_BYTES_MAX], data[1024];
    WeirXts *xts;

    (void)state;
    fill(key, sizeof(key), 1);
    assert_int_equal(weir_xts_new(&xts, key, 48, 512, 1), -EINVAL);
    assert_int_equal(weir_xts_new(&xts, key, 64, 256, 1), -EINVAL);
    assert_int_equal(weir_xts_new(&xts, key, 64, 8192, 1), -EINVAL);
    assert_int_equal(weir_xts_new(&xts, key, 64, 520, 1), -EINVAL);
    assert_int_equal(weir_xts_new(&xts, key, 64, 512, 0), -EINVAL);
    assert_int_equal(weir_xts_new(&xts, key, 64, 512,
                                  WEIR_XTS_CIPHERS_MAX + 1), -EINVAL);
    memcpy(key + 32, key, 32);          /* XTS with equal halves is weak */
    assert_int_equal(weir_xts_new(&xts, key, 64, 512, 1), -EINVAL);
    assert_null(xts);

    xts = xts_new(key, 32, 512, 1);
    assert_int_equal(weir_xts_encrypt(xts, 0, data, data, 513), -EINVAL);
    assert_int_equal(weir_xts_decrypt(xts, 0, data, data, 16), -EINVAL);
    assert_int_equal(weir_xts_encrypt(xts, 0, data, data, 0), 0);
    weir_xts_free(xts);
}

/* Locked memory ends some time: fewer ciphers then, and an error at last. */
static void locked_memory_is_bounded(void **state)
{
    enum { MANY = 1000 };
    static WeirXts *xts[MANY];
    uint8_t key[WEIR_XTS_KEY_BYTES_MAX], data[512] = { 0 };
    int n = 0, ret;

    (void)state;
    fill(key, sizeof(key), 1);
    do {
        ret = weir_xts_new(&xts[n], key, 64, 512, WEIR_XTS_CIPHERS_MAX);
        n += ret == 0;
    } while (ret == 0 && n < MANY);
    assert_int_equal(ret, -ENOMEM);
    assert_in_range(n, 2, MANY - 1);
    assert_int_equal(weir_xts_encrypt(xts[n - 1], 0, data, data, 512), 0);
    while (n > 0) {
        weir_xts_free(xts[--n]);
    }
}

typedef struct Work {
    WeirXts *xts;
    uint64_t unit;
    bool good;
} Work;

static void *work(void *opaque)
{
    static const size_t bytes = RUN_BYTES;
    Work *w = opaque;
    uint8_t *plain = malloc(bytes), *first = malloc(bytes);
    uint8_t *again = malloc(bytes);

    fill(plain, bytes, w->unit);
    w->good = weir_xts_encrypt(w->xts, w->unit, plain, first, bytes) == 0;
    for (int i = 0; i < ROUNDS; i++) {
        w->good = w->good &&
            weir_xts_encrypt(w->xts, w->unit, plain, again, bytes) == 0 &&
            !memcmp(first, again, bytes) &&
            weir_xts_decrypt(w->xts, w->unit, again, again, bytes) == 0 &&
            !memcmp(plain, again, bytes);
    }
    free(plain);
    free(first);
    free(again);
    return NULL;
}

/* More threads than ciphers. */
static void threads_do_not_disturb_each_other(void **state)
{
    uint8_t key[WEIR_XTS_KEY_BYTES_MAX];
    pthread_t threads[THREADS];
    Work works[THREADS];
    WeirXts *xts;

    (void)state;
    fill(key, sizeof(key), 7);
    xts = xts_new(key, sizeof(key), 4096, THREADS / 2);
    for (int i = 0; i < THREADS; i++) {
        works[i] = (Work) { .xts = xts, .unit = 8 * i };
        assert_int_equal(pthread_create(&threads[i], NULL, work, &works[i]),
                         0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(works[i].good);
    }
    weir_xts_free(xts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_the_standard),
        cmocka_unit_test(runs_are_as_of_another_library),
        cmocka_unit_test(vaes_is_as_libgcrypt),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(locked_memory_is_bounded),
        cmocka_unit_test(threads_do_not_disturb_each_other),
    };
    int failed = 0;

    while (vaes_bits <= WEIR_VAES_BITS_MAX) {
        failed += cmocka_run_group_tests(tests, NULL, NULL);
        vaes_bits += 256;
    }
    return failed;
}

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

#include "encryption/guest.h"
#include "encryption/pieces.h"
#include "encryption/vaes.h"

#define DATA_BYTES (3 * WEIR_PIECE_BYTES + 12288)
#define PIECES 4
#define SKIP_BYTES 1000
#define UNIT 77777777
#define IOVS 20000
#define THREADS 3
#define UNTOUCHED 0xee

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Bytes that are not regular, the same in each run of the test. */
static void fill(uint8_t *out, size_t bytes, uint32_t seed)
{
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)next_random(&seed);
    }
}

/* Memory of a guest: pieces with a gap of a byte between them. */
typedef struct Guest {
    uint8_t memory[SKIP_BYTES + DATA_BYTES + IOVS];
    struct iovec iov[IOVS];
    int niov;
} Guest;

static Guest guest;
static uint8_t plain[DATA_BYTES], expected[DATA_BYTES], buffer[DATA_BYTES];
static WeirXts *xts;

static void guest_clear(void)
{
    memset(guest.memory, UNTOUCHED, sizeof(guest.memory));
}

/* longest: a piece has up to that many bytes, some have none. */
static void guest_make(size_t longest, uint32_t seed)
{
    size_t left = SKIP_BYTES + DATA_BYTES, at = 0;

    guest.niov = 0;
    while (left > 0) {
        size_t n = next_random(&seed) % (longest + 1);

        n = n < left && guest.niov < IOVS - 1 ? n : left;
        guest.iov[guest.niov++] = (struct iovec) { guest.memory + at, n };
        at += n + 1;
        left -= n;
    }
    guest_clear();
}

/* Copy between the guest's memory and data that is in one piece. */
static void guest_copy(uint8_t *data, bool to_guest)
{
    size_t skip = SKIP_BYTES;

    for (int i = 0; i < guest.niov; i++) {
        for (size_t j = 0; j < guest.iov[i].iov_len; j++) {
            uint8_t *byte = (uint8_t *)guest.iov[i].iov_base + j;

            if (skip > 0) {
                skip--;
            } else if (to_guest) {
                *byte = *data++;
            } else {
                *data++ = *byte;
            }
        }
    }
}

/* The guest has the plaintext, and nothing else was written to. */
static void check_guest(void)
{
    static uint8_t got[DATA_BYTES];
    const uint8_t *at = guest.memory;
    size_t skip = SKIP_BYTES;

    guest_copy(got, false);
    assert_memory_equal(got, plain, DATA_BYTES);
    for (int i = 0; i < guest.niov; i++) {
        size_t n = guest.iov[i].iov_len < skip ? guest.iov[i].iov_len : skip;

        for (size_t j = 0; j < n; j++) {
            assert_int_equal(at[j], UNTOUCHED);
        }
        skip -= n;
        at += guest.iov[i].iov_len;
        assert_int_equal(*at++, UNTOUCHED);
    }
}

static void setup(uint32_t sector_bytes, unsigned vaes_bits)
{
    uint8_t key[WEIR_XTS_KEY_BYTES_MAX];

    fill(key, sizeof(key), 5);
    fill(plain, sizeof(plain), 6);
    assert_int_equal(weir_xts_new(&xts, key, sizeof(key), sector_bytes, 2), 0);
    weir_xts_set_vaes(xts, vaes_bits);
    assert_int_equal(weir_xts_encrypt(xts, UNIT, plain, expected,
                                      DATA_BYTES), 0);
}

static WeirGuestData guest_data(void)
{
    return (WeirGuestData) {
        .iov = guest.iov, .skip_bytes = SKIP_BYTES, .buffer = buffer,
        .bytes = DATA_BYTES, .unit = UNIT,
    };
}

typedef int GuestFn(WeirXts *xts, const WeirGuestData *data, size_t at,
                    size_t bytes);

/* In parts, the last one first. */
static void run_parts(GuestFn *fn, uint32_t sector_bytes, size_t parts)
{
    size_t part = DATA_BYTES / parts / sector_bytes * sector_bytes;
    WeirGuestData data = guest_data();

    for (size_t i = parts; i-- > 0;) {
        size_t n = i == parts - 1 ? DATA_BYTES - i * part : part;

        assert_int_equal(fn(xts, &data, i * part, n), 0);
    }
    assert_memory_equal(buffer, expected, DATA_BYTES);
    check_guest();
}

static void pieces_of_any_length(void **state)
{
    static const size_t longest[] = { 100, 511, 513, 5000, 70000, DATA_BYTES };

    (void)state;
    for (unsigned bits = 0; bits <= WEIR_VAES_BITS_MAX; bits += 256) {
        for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
            setup(sector, bits);
            for (size_t i = 0; i < sizeof(longest) / sizeof(size_t); i++) {
                guest_make(longest[i], i + sector);
                guest_copy(plain, true);
                memset(buffer, 0, sizeof(buffer));
                run_parts(weir_guest_encrypt, sector, 1 + i);
                guest_clear();
                run_parts(weir_guest_decrypt, sector, 1 + i);
            }
            weir_xts_free(xts);
        }
    }
}

/* --- a guest that looks on --- */

typedef struct Watch {
    bool quit;                          /* atomic */
    unsigned looks, surprises;
} Watch;

/* Looks at memory in one piece, which has been decrypted to before. */
static void *watch(void *opaque)
{
    const uint8_t *memory = guest.memory + SKIP_BYTES;
    Watch *w = opaque;

    while (!__atomic_load_n(&w->quit, __ATOMIC_RELAXED)) {
        size_t at = w->looks++ * 4799 % DATA_BYTES;

        w->surprises += __atomic_load_n(memory + at, __ATOMIC_RELAXED) !=
                        plain[at];
    }
    return NULL;
}

/* Nothing but plaintext that is final ever gets there. */
static void guest_sees_plaintext_only(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits <= WEIR_VAES_BITS_MAX; bits += 256) {
        WeirGuestData data = guest_data();
        Watch w = { 0 };
        pthread_t thread;

        setup(512, bits);
        guest.iov[0] = (struct iovec) { guest.memory, sizeof(guest.memory) };
        memcpy(buffer, expected, DATA_BYTES);
        assert_int_equal(weir_guest_decrypt(xts, &data, 0, DATA_BYTES), 0);
        assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
        for (int round = 0; round < 500; round++) {
            weir_guest_decrypt(xts, &data, 0, DATA_BYTES);
        }
        __atomic_store_n(&w.quit, true, __ATOMIC_RELAXED);
        pthread_join(thread, NULL);
        assert_int_not_equal(w.looks, 0);
        assert_int_equal(w.surprises, 0);
        weir_xts_free(xts);
    }
}

/* --- several threads --- */

static void *run_pieces(void *opaque)
{
    weir_pieces_run(opaque);
    return NULL;
}

static void run_threads(bool encrypt)
{
    WeirGuestData data = guest_data();
    pthread_t threads[THREADS];
    WeirPieces pieces;

    weir_pieces_init(&pieces, xts, &data, encrypt);
    assert_int_equal(weir_pieces_count(&pieces), PIECES);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_pieces,
                                        &pieces), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(weir_pieces_result(&pieces), 0);
    assert_memory_equal(buffer, expected, DATA_BYTES);
    check_guest();
}

static void threads_share_a_request(void **state)
{
    (void)state;
    setup(512, WEIR_VAES_BITS_MAX);
    for (int round = 0; round < 20; round++) {
        guest_make(20000, round);
        guest_copy(plain, true);
        memset(buffer, 0, sizeof(buffer));
        run_threads(true);
        guest_clear();
        run_threads(false);
    }
    weir_xts_free(xts);
}

/* One who comes when all is done finds nothing, and spoils nothing. */
static void late_threads_find_nothing(void **state)
{
    static const uint8_t zeroes[DATA_BYTES];
    WeirGuestData data = guest_data();
    WeirPieces pieces;

    (void)state;
    setup(4096, WEIR_VAES_BITS_MAX);
    guest_make(20000, 1);
    guest_copy(plain, true);
    weir_pieces_init(&pieces, xts, &data, true);
    weir_pieces_run(&pieces);
    assert_memory_equal(buffer, expected, DATA_BYTES);
    memset(buffer, 0, sizeof(buffer));
    weir_pieces_run(&pieces);
    assert_memory_equal(buffer, zeroes, DATA_BYTES);
    weir_xts_free(xts);
}

static void errors_are_told(void **state)
{
    WeirGuestData data = guest_data();
    WeirPieces pieces;

    (void)state;
    setup(4096, WEIR_VAES_BITS_MAX);
    guest_make(20000, 1);
    data.bytes -= 512;                  /* no whole sectors */
    weir_pieces_init(&pieces, xts, &data, false);
    weir_pieces_run(&pieces);
    assert_int_equal(weir_pieces_result(&pieces), -EINVAL);
    weir_xts_free(xts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_length),
        cmocka_unit_test(guest_sees_plaintext_only),
        cmocka_unit_test(threads_share_a_request),
        cmocka_unit_test(late_threads_find_nothing),
        cmocka_unit_test(errors_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

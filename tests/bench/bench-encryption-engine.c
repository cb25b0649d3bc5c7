/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Speed of weir-encryption's engine, AES-256-XTS: in one thread against
 * libgcrypt called directly, and a request of 1 MiB in one thread against two.
 * They take turns; medians of the rounds, and of the ratios of each round. The
 * data stays in the cache.
 *
 * usage: bench-encryption-engine [--rounds N] [--mib N]
 *   --mib  to encrypt in each round, of each
 */
#include <gcrypt.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "encryption/pieces.h"
#include "encryption/vaes.h"
#include "encryption/xts.h"

#define MIB (1 << 20)
#define ROUNDS_MAX 999
#define KEY_BYTES 64

static uint8_t key[KEY_BYTES];
static uint8_t *plain, *out, *theirs;
static unsigned rounds = 21, mib = 64;

static void __attribute__((noreturn)) die(const char *what)
{
    fprintf(stderr, "bench-encryption-engine: %s\n", what);
    exit(1);
}

static double now_s(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *values, unsigned n)
{
    qsort(values, n, sizeof(*values), compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* bits: of the vectors at most; gets those that are used. */
static WeirXts *xts_new(size_t sector_bytes, unsigned *bits)
{
    WeirXts *xts;

    if (weir_xts_new(&xts, key, KEY_BYTES, sector_bytes, 2) < 0) {
        die("no cipher");
    }
    *bits = weir_xts_set_vaes(xts, *bits);
    return xts;
}

static const char *name_of(unsigned bits)
{
    return bits == 0 ? "libgcrypt" : bits == 256 ? "VAES-256" : "VAES-512";
}

/* --- against libgcrypt --- */

typedef struct Case {
    size_t sector_bytes, bytes;
    bool decrypt;
} Case;

static void run_library(gcry_cipher_hd_t cipher, const Case *c, uint8_t *to)
{
    for (size_t at = 0; at < c->bytes; at += c->sector_bytes) {
        uint64_t unit = at / WEIR_XTS_UNIT_BYTES;
        uint8_t tweak[16] = { 0 };

        for (int i = 0; i < 8; i++) {
            tweak[i] = unit >> 8 * i;
        }
        gcry_cipher_setiv(cipher, tweak, sizeof(tweak));
        if (c->decrypt) {
            gcry_cipher_decrypt(cipher, to + at, c->sector_bytes, plain + at,
                                c->sector_bytes);
        } else {
            gcry_cipher_encrypt(cipher, to + at, c->sector_bytes, plain + at,
                                c->sector_bytes);
        }
    }
}

static void run_engine(WeirXts *xts, const Case *c, uint8_t *to)
{
    if (c->decrypt) {
        weir_xts_decrypt(xts, 0, plain, to, c->bytes);
    } else {
        weir_xts_encrypt(xts, 0, plain, to, c->bytes);
    }
}

/* xts: NULL for the library. Returns CPU seconds. */
static double time_of(WeirXts *xts, gcry_cipher_hd_t cipher, const Case *c)
{
    size_t requests = (size_t)mib * MIB / c->bytes;
    double begin = now_s(CLOCK_THREAD_CPUTIME_ID);

    for (size_t i = 0; i < requests; i++) {
        if (xts) {
            run_engine(xts, c, out);
        } else {
            run_library(cipher, c, theirs);
        }
    }
    return now_s(CLOCK_THREAD_CPUTIME_ID) - begin;
}

static void measure(const Case *c, gcry_cipher_hd_t cipher, unsigned bits)
{
    static double ours_s[ROUNDS_MAX], theirs_s[ROUNDS_MAX], ratio[ROUNDS_MAX];
    WeirXts *xts = xts_new(c->sector_bytes, &bits);
    double bytes = (double)(mib * (size_t)MIB / c->bytes * c->bytes);

    for (unsigned r = 0; r < rounds; r++) {
        ours_s[r] = time_of(xts, cipher, c);
        theirs_s[r] = time_of(NULL, cipher, c);
        ratio[r] = theirs_s[r] / ours_s[r];
    }
    if (memcmp(out, theirs, c->bytes)) {
        die("the results differ");
    }
    printf("%-9s sectors %4zu, %7zu bytes, %s: %5.2f GB/s, libgcrypt %5.2f "
           "GB/s, RATIO %.2f\n", name_of(bits), c->sector_bytes,
           c->bytes, c->decrypt ? "decrypt" : "encrypt",
           bytes / median(ours_s, rounds) / 1e9,
           bytes / median(theirs_s, rounds) / 1e9, median(ratio, rounds));
    fflush(stdout);
    weir_xts_free(xts);
}

static void measure_all(unsigned bits)
{
    static const Case cases[] = {
        { 512, 512, false }, { 512, 4096, false }, { 512, 4096, true },
        { 512, 65536, false }, { 512, 65536, true },
        { 4096, 4096, false }, { 4096, 4096, true },
        { 4096, 65536, false }, { 4096, 65536, true },
    };
    gcry_cipher_hd_t cipher;

    if (weir_xts_library() < 0 ||
        gcry_cipher_open(&cipher, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_XTS,
                         0) || gcry_cipher_setkey(cipher, key, KEY_BYTES)) {
        die("no AES-XTS in libgcrypt");
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        measure(&cases[i], cipher, bits);
    }
    gcry_cipher_close(cipher);
}

/* --- two threads --- */

/* Works when it is told to, and is asked at once: waking is not measured. */
typedef struct Worker {
    WeirPieces *pieces;         /* atomic; NULL: nothing to do */
    bool quit;                  /* atomic */
} Worker;

static void *work(void *opaque)
{
    Worker *w = opaque;

    while (!__atomic_load_n(&w->quit, __ATOMIC_ACQUIRE)) {
        WeirPieces *pieces = __atomic_load_n(&w->pieces, __ATOMIC_ACQUIRE);

        if (pieces) {
            weir_pieces_run(pieces);
            __atomic_store_n(&w->pieces, NULL, __ATOMIC_RELEASE);
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static double time_pieces(WeirXts *xts, bool encrypt, Worker *w)
{
    struct iovec iov = { plain, MIB };
    WeirGuestData data = { .iov = &iov, .buffer = out, .bytes = MIB };
    double begin = now_s(CLOCK_MONOTONIC);

    for (unsigned i = 0; i < mib; i++) {
        WeirPieces pieces;

        weir_pieces_init(&pieces, xts, &data, encrypt);
        if (w) {
            __atomic_store_n(&w->pieces, &pieces, __ATOMIC_RELEASE);
        }
        weir_pieces_run(&pieces);
        while (w && __atomic_load_n(&w->pieces, __ATOMIC_ACQUIRE)) {
            sched_yield();
        }
    }
    return now_s(CLOCK_MONOTONIC) - begin;
}

static void measure_threads(bool encrypt, unsigned bits)
{
    static double one_s[ROUNDS_MAX], two_s[ROUNDS_MAX], ratio[ROUNDS_MAX];
    WeirXts *xts = xts_new(512, &bits);

    for (unsigned r = 0; r < rounds; r++) {
        Worker w = { 0 };
        pthread_t thread;

        one_s[r] = time_pieces(xts, encrypt, NULL);
        if (pthread_create(&thread, NULL, work, &w)) {
            die("no thread");
        }
        two_s[r] = time_pieces(xts, encrypt, &w);
        __atomic_store_n(&w.quit, true, __ATOMIC_RELEASE);
        pthread_join(thread, NULL);
        ratio[r] = one_s[r] / two_s[r];
    }
    printf("%-9s 1 MiB, %s: one thread %5.2f GB/s, two %5.2f GB/s, RATIO "
           "%.2f\n", name_of(bits),
           encrypt ? "encrypt" : "decrypt",
           mib * (double)MIB / median(one_s, rounds) / 1e9,
           mib * (double)MIB / median(two_s, rounds) / 1e9,
           median(ratio, rounds));
    fflush(stdout);
    weir_xts_free(xts);
}

/* --- all of it --- */

static unsigned number(const char *text, unsigned most)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;

    if (!text || end == text || *end || value < 1 || value > most) {
        die("usage: bench-encryption-engine [--rounds N] [--mib N]");
    }
    return (unsigned)value;
}

static void make_data(void)
{
    plain = malloc(MIB);
    out = malloc(MIB);
    theirs = malloc(MIB);
    if (!plain || !out || !theirs) {
        die("out of memory");
    }
    for (int i = 0; i < MIB; i++) {
        plain[i] = (uint8_t)(i * 31 >> 2);
    }
    for (int i = 0; i < KEY_BYTES; i++) {
        key[i] = (uint8_t)(i * 77 + 1);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "rounds", required_argument, NULL, 'r' },
        { "mib", required_argument, NULL, 'm' },
        { NULL, 0, NULL, 0 },
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') {
            rounds = number(optarg, ROUNDS_MAX);
        } else if (option == 'm') {
            mib = number(optarg, 1 << 16);
        } else {
            number(NULL, 0);
        }
    }
    make_data();
    printf("AES-256-XTS, %u rounds of %u MiB, medians\n", rounds, mib);
    for (unsigned bits = 0; bits <= WEIR_VAES_BITS_MAX; bits += 256) {
        if (bits > 0 && !weir_vaes_supported(bits)) {
            printf("this processor has no VAES of %u bits\n", bits);
            continue;
        }
        measure_all(bits);
        measure_threads(true, bits);
        measure_threads(false, bits);
    }
    free(plain);
    free(out);
    free(theirs);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long the checksums of a job of weir-encryption take by themselves:
 * SHA-256 of blocks of 512 bytes, which are in memory, by some threads.
 *
 * usage: bench-encryption-sums MIB THREADS
 * Prints seconds.
 */
#include <gcrypt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "encryption/hotzone.h"
#include "encryption/xts.h"

#define MIB (1 << 20)
#define BLOCK_BYTES 512
#define CHUNK_BYTES (256 * 1024)
#define ZONE_BYTES (8 * MIB)
#define SUM_BYTES 32
#define THREADS_MAX 64

static uint8_t *data;           /* of a zone */
static WeirHotzone zone;
static size_t next, end;        /* next: atomic */

static void __attribute__((noreturn)) die(const char *what)
{
    fprintf(stderr, "bench-encryption-sums: %s\n", what);
    exit(1);
}

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static void *work(void *opaque)
{
    size_t at;

    (void)opaque;
    while ((at = __atomic_fetch_add(&next, CHUNK_BYTES, __ATOMIC_RELAXED)) <
           end) {
        weir_hotzone_sum(&zone, at % ZONE_BYTES, CHUNK_BYTES,
                         data + at % ZONE_BYTES);
    }
    return NULL;
}

static size_t number(const char *text, unsigned long most)
{
    char *after;
    unsigned long value = strtoul(text, &after, 10);

    if (after == text || *after || value < 1 || value > most) {
        die("usage: bench-encryption-sums MIB THREADS");
    }
    return value;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS_MAX];
    size_t n;
    double begin;

    if (argc != 3) {
        number("", 0);
    }
    end = number(argv[1], 1 << 20) * MIB;
    n = number(argv[2], THREADS_MAX);
    data = malloc(ZONE_BYTES);
    weir_hotzone_init(&zone, BLOCK_BYTES, GCRY_MD_SHA256, SUM_BYTES);
    if (!data || weir_xts_library() < 0 ||
        weir_hotzone_begin(&zone, 0, ZONE_BYTES, WEIR_BLOCK_OLD) < 0) {
        die("out of memory");
    }
    memset(data, 1, ZONE_BYTES);
    begin = now_s();
    for (size_t i = 0; i < n; i++) {
        if (pthread_create(&threads[i], NULL, work, NULL)) {
            die("no thread");
        }
    }
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%.6f\n", now_s() - begin);
    weir_hotzone_destroy(&zone);
    free(data);
    return 0;
}

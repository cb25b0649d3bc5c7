/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_INSPECT_ENTROPY_H
#define WEIR_INSPECT_ENTROPY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/stripe.h"
#include "inspect/inspect.h"

/*
 * Entropy watch: what entropy is written, and whether high entropy replaces
 * low. How it works and what it can see is told in entropy.c.
 */

#define WEIR_ENTROPY_SETS 8192
#define WEIR_ENTROPY_WAYS 16
#define WEIR_ENTROPY_SLOTS 16
#define WEIR_ENTROPY_BLOCKS_MAX (UINT64_C(1) << 40) /* a disk of 4 PiB */
#define WEIR_ENTROPY_EMPTY (-1)
#define WEIR_ENTROPY_ONE_BIT 65536

/* Known blocks with the same hash bits, each way a block number and a code. */
typedef struct WeirEntropySet {
    uint32_t block_low[WEIR_ENTROPY_WAYS];  /* bits 0..31 */
    uint16_t rest[WEIR_ENTROPY_WAYS];       /* bits 32..39, code */
} WeirEntropySet;

/* Sums over a part of the window, or the whole. */
typedef struct WeirEntropySums {
    uint64_t writes;
    uint64_t write_bits;                /* in 1 / WEIR_ENTROPY_ONE_BIT */
    uint64_t overwrites;
    uint64_t suspicious;
} WeirEntropySums;

typedef struct WeirEntropy {
    /* atomic: blocks with a hash below it are sampled; 0: off */
    uint64_t threshold;
    uint64_t seed;                      /* set at init */
    char padding[WEIR_CACHE_LINE_BYTES];

    pthread_mutex_t lock;               /* for all below, and to change
                                           threshold */
    int32_t high;                       /* in 1 / WEIR_ENTROPY_ONE_BIT */
    unsigned low_code;                  /* in 1/16 bits */
    double alert_share;
    uint32_t min_overwrites;
    uint32_t window_s;
    uint64_t slot_ns;
    uint64_t epoch;                     /* slots since the clock's zero */
    WeirEntropySums slot[WEIR_ENTROPY_SLOTS]; /* at epoch % slots */
    WeirEntropySums window;             /* sum of all slots */
    bool alert;
    uint64_t alerts;
    uint64_t sampled_reads;
    uint64_t sampled_writes;
    uint64_t written[WEIR_INSPECT_ENTROPY_BUCKETS];
    WeirEntropySet set[WEIR_ENTROPY_SETS];
} WeirEntropy;

/*
 * Entropy of a block, from a quarter of its bytes.
 * block: WEIR_INSPECT_BLOCK_BYTES bytes.
 * No locking. weir_entropy_init() must have been called once in the process.
 * Returns bits a byte in 1 / WEIR_ENTROPY_ONE_BIT, 0..8, corrected for the
 * sample's size; WEIR_ENTROPY_EMPTY when all bytes of the block are 0.
 */
int32_t weir_entropy_of_block(const uint8_t *block);

/* Set up, switched off. seed: see block-hash.h. No other thread may use it. */
void weir_entropy_init(WeirEntropy *entropy, uint64_t seed);

/* Give back what init took. No other thread may use it. */
void weir_entropy_destroy(WeirEntropy *entropy);

/* See weir_inspect_configure(). Takes the lock, for some 100 us at worst. */
void weir_entropy_configure(WeirEntropy *entropy,
                            const WeirInspectConfig *config);

/*
 * See weir_inspect_wants_data(), weir_inspect_data(), weir_inspect_forget()
 * and weir_inspect_read_entropy(); offset + bytes is at most 2^64 - 1.
 */
bool weir_entropy_wants(const WeirEntropy *entropy, uint64_t offset_bytes,
                        uint64_t bytes);
bool weir_entropy_data(WeirEntropy *entropy, bool is_write,
                       uint64_t offset_bytes, uint64_t bytes,
                       const struct iovec *iov, size_t niov, size_t iov_offset,
                       uint64_t now_ns);
void weir_entropy_forget(WeirEntropy *entropy, uint64_t offset_bytes,
                         uint64_t bytes);
void weir_entropy_read(WeirEntropy *entropy, uint64_t now_ns,
                       WeirInspectEntropy *out);

#endif

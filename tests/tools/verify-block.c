/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A block is an array of 64-bit words in the byte order of the machine:
 *
 *   0  magic
 *   1  number of the block
 *   2  generation
 *   3  seed
 *   4  checksum of all other words
 *   5  and on: pseudo-random words that follow from words 1 to 3
 */
#include "verify-block.h"

#define BLOCK_WORDS (VERIFY_BLOCK_BYTES / 8)
#define BLOCK_MAGIC UINT64_C(0x7665726966792d31)

enum { WORD_MAGIC, WORD_NUMBER, WORD_GENERATION, WORD_SEED, WORD_CHECKSUM,
       WORD_PAYLOAD };

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t checksum(const uint64_t *words)
{
    uint64_t sum = 0;

    for (int i = 0; i < BLOCK_WORDS; i++) {
        if (i != WORD_CHECKSUM) {
            sum = mix(sum + words[i] + (uint64_t)i);
        }
    }
    return sum;
}

void verify_block_fill(void *data, uint64_t number, uint32_t generation,
                       uint64_t seed)
{
    uint64_t *words = data;
    uint64_t state = mix(mix(mix(seed) + number) + generation);

    words[WORD_MAGIC] = BLOCK_MAGIC;
    words[WORD_NUMBER] = number;
    words[WORD_GENERATION] = generation;
    words[WORD_SEED] = seed;
    for (int i = WORD_PAYLOAD; i < BLOCK_WORDS; i++) {
        state += UINT64_C(0x9e3779b97f4a7c15);
        words[i] = mix(state);
    }
    words[WORD_CHECKSUM] = checksum(words);
}

static bool all_zero(const uint64_t *words)
{
    for (int i = 0; i < BLOCK_WORDS; i++) {
        if (words[i]) {
            return false;
        }
    }
    return true;
}

/* Whose data it is, of a block that is not all zeroes. */
static VerifyResult classify(const uint64_t *words, uint64_t number,
                             const VerifyBlock *expected, uint64_t seed)
{
    if (words[WORD_MAGIC] != BLOCK_MAGIC ||
        words[WORD_CHECKSUM] != checksum(words)) {
        return VERIFY_CORRUPT;
    }
    if (words[WORD_NUMBER] != number || words[WORD_SEED] != seed) {
        return VERIFY_MISPLACED;
    }
    if (words[WORD_GENERATION] > expected->generation) {
        return VERIFY_FUTURE;
    }
    if (expected->kind == VERIFY_DISCARDED ||
        (expected->kind == VERIFY_DATA &&
         words[WORD_GENERATION] == expected->generation)) {
        return VERIFY_OK;
    }
    return VERIFY_STALE;
}

VerifyResult verify_block_check(const void *data, uint64_t number,
                                const VerifyBlock *expected, uint64_t seed,
                                uint32_t *found)
{
    const uint64_t *words = data;
    VerifyResult result;

    *found = 0;
    if (expected->kind == VERIFY_ANYTHING) {
        return VERIFY_OK;
    }
    if (all_zero(words)) {
        return expected->kind == VERIFY_DATA ? VERIFY_LOST : VERIFY_OK;
    }
    result = classify(words, number, expected, seed);
    if (result != VERIFY_CORRUPT && result != VERIFY_MISPLACED) {
        *found = (uint32_t)words[WORD_GENERATION];
    }
    return result;
}

const char *verify_result_name(VerifyResult result)
{
    static const char *const names[VERIFY_RESULTS] = {
        "ok", "lost", "stale", "future", "misplaced", "corrupt",
    };

    return names[result];
}

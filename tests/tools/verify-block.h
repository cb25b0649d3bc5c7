/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The content of a block, which tells where and when it was written, and what
 * a block is expected to hold.
 */
#ifndef WEIR_VERIFY_BLOCK_H
#define WEIR_VERIFY_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define VERIFY_BLOCK_BYTES 4096

/* What is known of a block's content. */
typedef enum VerifyKind {
    VERIFY_ANYTHING,        /* never written, or a write of it has failed */
    VERIFY_DATA,            /* what generation says */
    VERIFY_ZEROES,
    VERIFY_DISCARDED,       /* zeroes, or anything once written to it */
    VERIFY_KINDS
} VerifyKind;

typedef struct VerifyBlock {
    uint32_t generation;    /* of the last write; 0: there was none */
    uint32_t kind;          /* VerifyKind */
} VerifyBlock;

/* What was found in a block. */
typedef enum VerifyResult {
    VERIFY_OK,
    VERIFY_LOST,            /* zeroes where data had been written */
    VERIFY_STALE,           /* data of an older write */
    VERIFY_FUTURE,          /* data of a write that never was */
    VERIFY_MISPLACED,       /* data of another block or another run */
    VERIFY_CORRUPT,         /* nothing that was ever written */
    VERIFY_RESULTS
} VerifyResult;

/*
 * Make the content of a block.
 * data: VERIFY_BLOCK_BYTES bytes, aligned to 8; filled in.
 * number: of the block on the disk.  generation: from 1.  seed: of the run.
 */
void verify_block_fill(void *data, uint64_t number, uint32_t generation,
                       uint64_t seed);

/*
 * Compare the content of a block with what it should be.
 * data: VERIFY_BLOCK_BYTES bytes, aligned to 8.
 * found: set to the generation found, 0 if there is none.
 */
VerifyResult verify_block_check(const void *data, uint64_t number,
                                const VerifyBlock *expected, uint64_t seed,
                                uint32_t *found);

/* The name of a result, for reports. */
const char *verify_result_name(VerifyResult result);

#endif

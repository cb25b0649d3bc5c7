/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_MODEL_H
#define WEIR_TESTS_MODEL_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What the blocks of a disk may hold, by what was written and flushed. Each
 * write of a block is a version, and its data tell block and version; version 0
 * is zeroes.
 *
 *   issued >= high >= low >= min
 */

#define MODEL_BLOCKS_MAX 16384
#define MODEL_VERSIONS_KEPT 60          /* of a block, before it is durable */

typedef struct Block {
    uint32_t issued;                    /* the last version */
    uint32_t born;                      /* the zeroes it began with */
    uint32_t min;                       /* what a crash may bring back */
    uint32_t low, high;                 /* what a read may see */
    uint32_t lost_first, lost_last;     /* never to be seen again: a crash
                                           had left an earlier one */
    uint32_t writers;                   /* under way */
    uint64_t zero;                      /* bit version % 64: it is zeroes */
    bool torn;                          /* pieces of several versions */
    bool past;                          /* written past the cache, unflushed:
                                           a cut may tear it */
    bool goes;                          /* the disk gets shorter */
} Block;

typedef struct Model {
    uint32_t blocks;
    uint32_t durable_blocks;            /* the length is on record */
    uint32_t most_blocks;               /* that anybody ever asked for */
    Block block[MODEL_BLOCKS_MAX];
} Model;

extern Model model;

/* A disk of zeroes. */
void model_reset(uint32_t blocks);

/* The disk is going to have another length, or to be longer. */
void model_will_resize(uint32_t blocks);
void model_will_grow(uint32_t blocks);

/* It is longer, by zeroes, or shorter. durable: whatever happens. */
void model_resize(uint32_t blocks, bool durable);

/*
 * So many there are after opening: as many as were told for sure, and those
 * that something durable was written to.
 */
void model_found_length(uint32_t blocks);

void model_copy(Model *to, const Model *from);

/* Whether a range can get another version now. */
bool model_may_write(uint32_t block, uint32_t count);

/*
 * A write begins. data: gets the versions' data; NULL: zeroes are written.
 * past: it may go past the cache. version: gets `count`, for the end.
 */
void model_write_begin(uint32_t block, uint32_t count, uint8_t *data, bool past,
                       uint32_t *version);

/* It has succeeded. Of several at a time, any may be the one that is there. */
void model_write_end(uint32_t block, uint32_t count, const uint32_t *version,
                     bool durable);

/* It has not: each block is as before or as written. */
void model_write_failed(uint32_t block, uint32_t count, bool past);

/* All writes under way may go past the cache. */
void model_mode_changes(void);

/* Flushing: memory of one flush, and what holds when it has succeeded. */
typedef struct ModelFlush {
    uint32_t blocks;
    uint32_t low[MODEL_BLOCKS_MAX];
    bool quiet[MODEL_BLOCKS_MAX];
} ModelFlush;

void model_flush_begin(ModelFlush *flush);
void model_flush_end(const ModelFlush *flush);

/* The power was cut: blocks are what they have been since they were durable. */
void model_crash(void);

/*
 * What a reader who began with `before` has read. The data is checked, and
 * remembered when nobody wrote meanwhile.
 */
void model_check_read(uint32_t block, const uint8_t *data, const Block *before);

/*
 * The same with nobody else about: the first look after a crash. What was
 * issued later than what is there is lost for good.
 */
void model_check_found(uint32_t block, const uint8_t *data);

/* The block as a disk has it, while nobody writes it. */
void model_check_image(uint32_t block, const uint8_t *data, const char *when);

/* The block is behind the end of a disk after a power cut. */
void model_check_absent(uint32_t block, const char *when);

/* The block as a disk has it, or would have, after a power cut. */
void model_check_cut(uint32_t block, const uint8_t *data, const char *when);

#endif

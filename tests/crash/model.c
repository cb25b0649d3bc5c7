/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "model.h"

#include <stdio.h>
#include <string.h>

#include "cache/index.h"
#include "report.h"

#define SECTOR 512

Model model;

/* What is allowed where, and what is learned from it. */
typedef struct Check {
    uint32_t low, high;
    bool may_be_torn;
    bool quiet;                         /* it stays what it is now */
    const char *when;
} Check;

static bool is_zero_version(const Block *b, uint32_t version)
{
    return version == 0 || b->zero >> version % 64 & 1;
}

static void set_zero(Block *b, bool zero)
{
    b->zero &= ~(UINT64_C(1) << b->issued % 64);
    b->zero |= (uint64_t)zero << b->issued % 64;
}

/*
 * A block that nobody has written, with a number that was never used. If it is
 * not yet gone for good, a crash may bring back what it was.
 */
static void begin_block(Block *b)
{
    uint32_t version = b->issued ? b->issued + 1 : 0;
    Block before = *b;

    *b = (Block) {
        .issued = version, .born = version, .min = version, .low = version,
        .high = version,
    };
    if (before.goes) {
        b->min = before.min;
        b->zero = before.zero;
        b->torn = before.torn;
        b->lost_first = before.lost_first;
        b->lost_last = before.lost_last;
    }
    set_zero(b, true);
}

void model_reset(uint32_t blocks)
{
    memset(&model, 0, sizeof(model));
    model.blocks = model.durable_blocks = model.most_blocks = blocks;
}

void model_copy(Model *to, const Model *from)
{
    to->blocks = from->blocks;
    to->durable_blocks = from->durable_blocks;
    to->most_blocks = from->most_blocks;
    memcpy(to->block, from->block, from->most_blocks * sizeof(*to->block));
}

/* --- length --- */

void model_will_grow(uint32_t blocks)
{
    for (; model.most_blocks < blocks; model.most_blocks++) {
        model.block[model.most_blocks] = (Block) { .issued = 0 };
    }
}

void model_will_resize(uint32_t blocks)
{
    model_will_grow(blocks);
    for (uint32_t i = blocks; i < model.blocks; i++) {
        model.block[i].goes = true;
    }
    if (blocks < model.durable_blocks) {
        model.durable_blocks = blocks;
    }
}

void model_resize(uint32_t blocks, bool durable)
{
    for (uint32_t i = model.blocks; i < blocks; i++) {
        begin_block(&model.block[i]);
    }
    model.blocks = blocks;
    model.durable_blocks = durable ? blocks : model.durable_blocks;
}

void model_found_length(uint32_t blocks)
{
    if (blocks < model.durable_blocks || blocks > model.most_blocks) {
        fail("the disk has %u blocks: allowed %u to %u", blocks,
             model.durable_blocks, model.most_blocks);
    }
    for (uint32_t i = blocks; i < model.blocks; i++) {
        model_check_absent(i, "when opened");
    }
    for (uint32_t i = model.blocks; i < blocks; i++) {
        begin_block(&model.block[i]);
        model.block[i].low = model.block[i].min;
    }
    for (uint32_t i = 0; i < model.most_blocks; i++) {
        model.block[i].goes = false;
    }
    model.blocks = model.durable_blocks = blocks;   /* recovery flushes it */
}

/* --- writing --- */

static void stamp(uint8_t *data, uint32_t block, uint32_t version)
{
    for (uint32_t at = 0; at < WEIR_CACHE_BLOCK_BYTES; at += 8) {
        uint32_t words[2] = { block + 1, version };

        memcpy(data + at, words, 8);
    }
}

bool model_may_write(uint32_t block, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const Block *b = &model.block[block + i];

        if (block + i < model.blocks &&
            b->issued - b->min >= MODEL_VERSIONS_KEPT) {
            return false;
        }
    }
    return true;
}

void model_write_begin(uint32_t block, uint32_t count, uint8_t *data, bool past,
                       uint32_t *version)
{
    for (uint32_t i = 0; i < count; i++) {
        Block *b = &model.block[block + i];

        version[i] = ++b->issued;
        trace(block + i, "write %u, zero %d, past %d", b->issued, !data, past);
        set_zero(b, !data);
        b->past |= past;
        b->writers++;
        if (data) {
            stamp(data + (size_t)i * WEIR_CACHE_BLOCK_BYTES, block + i,
                  b->issued);
        }
    }
}

void model_write_end(uint32_t block, uint32_t count, const uint32_t *version,
                     bool durable)
{
    for (uint32_t i = 0; i < count; i++) {
        Block *b = &model.block[block + i];

        b->writers--;
        trace(block + i, "wrote %u", version[i]);
        if (b->issued == version[i] && b->writers == 0 &&
            b->high < version[i] && b->low == b->high) {
            b->low = b->high = version[i];
            b->torn = false;
            b->min = durable && b->min < version[i] ? version[i] : b->min;
        } else {
            b->high = b->issued;
            b->low = b->low > b->min ? b->low : b->min;
        }
    }
}

void model_write_failed(uint32_t block, uint32_t count, bool past)
{
    for (uint32_t i = 0; i < count; i++) {
        Block *b = &model.block[block + i];

        trace(block + i, "write failed");
        b->writers--;
        b->high = b->issued;
        b->low = b->low > b->min ? b->low : b->min;
        b->torn |= past;
    }
}

void model_mode_changes(void)
{
    for (uint32_t i = 0; i < model.blocks; i++) {
        model.block[i].past |= model.block[i].writers > 0;
    }
}

/* --- flushing and crashing --- */

void model_flush_begin(ModelFlush *flush)
{
    flush->blocks = model.blocks;
    for (uint32_t i = 0; i < model.blocks; i++) {
        flush->low[i] = model.block[i].low;
        flush->quiet[i] = !model.block[i].writers;
    }
}

void model_flush_end(const ModelFlush *flush)
{
    for (uint32_t i = 0; i < flush->blocks; i++) {
        Block *b = &model.block[i];

        if (b->min < flush->low[i]) {
            trace(i, "version %u is durable", flush->low[i]);
            b->min = flush->low[i];
        }
        if (flush->quiet[i] && b->issued == b->min) {
            b->past = false;
        }
    }
    for (uint32_t i = model.blocks; i < model.most_blocks; i++) {
        model.block[i].goes = false;
    }
}

void model_crash(void)
{
    for (uint32_t i = 0; i < model.blocks; i++) {
        Block *b = &model.block[i];

        b->writers = 0;
        b->low = b->min;
        b->high = b->issued;
    }
}

/* --- checking --- */

static bool is_allowed(const Block *b, const Check *check, uint32_t version)
{
    bool lost = b->lost_last && version >= b->lost_first &&
                version <= b->lost_last;

    return version >= check->low && version <= check->high && !lost;
}

static bool zeroes_fit(const Block *b, const Check *check, uint32_t *version)
{
    for (uint32_t v = check->high + 1; v > check->low; v--) {
        if (is_zero_version(b, v - 1) && is_allowed(b, check, v - 1)) {
            *version = v - 1;
            return true;
        }
    }
    return false;
}

/* Whether a sector of a block has a version that is allowed. */
static bool sector_fits(const Check *check, uint32_t block,
                        const uint8_t *sector, uint32_t *version)
{
    const Block *b = &model.block[block];
    uint32_t words[2];

    memcpy(words, sector, 8);
    if (memcmp(sector, sector + 8, SECTOR - 8)) {
        return false;
    }
    if (!words[0] && !words[1]) {
        return zeroes_fit(b, check, version);
    }
    *version = words[1];
    return words[0] == block + 1 && is_allowed(b, check, words[1]) &&
           !is_zero_version(b, words[1]);
}

static void __attribute__((noreturn))
complain(const Check *check, uint32_t block, const uint8_t *data,
         const char *what)
{
    uint32_t words[2];

    for (uint32_t at = 0; at < WEIR_CACHE_BLOCK_BYTES; at += SECTOR) {
        memcpy(words, data + at, 8);
        printf("  sector %u: block %d version %u\n", at / SECTOR,
               (int)words[0] - 1, words[1]);
    }
    fail("block %u %s%s: allowed %u to %u, lost %u to %u, issued %u", block,
         check->when, what, check->low, check->high,
         model.block[block].lost_first, model.block[block].lost_last,
         model.block[block].issued);
}

/* Returns whether it is torn; version: gets the one of its first sector. */
static bool check_data(const Check *check, uint32_t block, const uint8_t *data,
                       uint32_t *version)
{
    uint32_t other;
    bool torn = false;

    for (uint32_t at = 0; at < WEIR_CACHE_BLOCK_BYTES; at += SECTOR) {
        if (!sector_fits(check, block, data + at, at ? &other : version)) {
            complain(check, block, data, "");
        }
        torn |= at && other != *version;
    }
    if (torn && !check->may_be_torn) {
        complain(check, block, data, " is torn");
    }
    trace(block, "%s: version %u, quiet %d, torn %d", check->when, *version,
          check->quiet, torn);
    return torn;
}

static void learn(const Check *check, uint32_t block, const uint8_t *data)
{
    Block *b = &model.block[block];
    uint32_t version;
    bool torn = check_data(check, block, data, &version);

    if (check->quiet && !torn) {
        b->low = b->high = version;
    }
    if (check->quiet) {
        b->torn = torn;
    }
}

void model_check_read(uint32_t block, const uint8_t *data, const Block *before)
{
    const Block *b = &model.block[block];
    bool quiet = !before->writers && before->issued == b->issued;

    learn(&(Check) {
        .low = before->low, .high = quiet ? b->high : b->issued,
        .may_be_torn = before->torn || !quiet, .quiet = quiet, .when = "read",
    }, block, data);
}

void model_check_found(uint32_t block, const uint8_t *data)
{
    Block *b = &model.block[block];

    learn(&(Check) {
        .low = b->low, .high = b->high, .may_be_torn = b->past || b->torn,
        .quiet = true, .when = "after a crash",
    }, block, data);
    b->min = b->low;
    b->past = false;
    if (!b->torn && b->low < b->issued) {
        b->lost_first = b->low + 1;
        b->lost_last = b->issued;
    }
}

void model_check_image(uint32_t block, const uint8_t *data, const char *when)
{
    const Block *b = &model.block[block];

    learn(&(Check) {
        .low = b->low, .high = b->high, .may_be_torn = b->torn, .quiet = true,
        .when = when,
    }, block, data);
}

void model_check_absent(uint32_t block, const char *when)
{
    const Block *b = &model.block[block];

    if (b->min > b->born && !b->goes) {
        fail("block %u %s is behind the end: allowed %u to %u", block, when,
             b->min, b->issued);
    }
}

void model_check_cut(uint32_t block, const uint8_t *data, const char *when)
{
    const Block *b = &model.block[block];

    learn(&(Check) {
        .low = b->min, .high = b->issued, .may_be_torn = b->past || b->torn,
        .when = when,
    }, block, data);
}

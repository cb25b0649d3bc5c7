/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inspect/entropy.h"

#define BLOCK 4096
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define SECOND UINT64_C(1000000000)
#define SEED 42

static uint8_t text[BLOCK];             /* about 4 bits a byte */
static uint8_t cipher[BLOCK];           /* 8 bits a byte */
static uint8_t zero[BLOCK];

static WeirEntropy *entropy;
static uint64_t now;

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

/* Bytes that take `values` different values, evenly. */
static void fill(uint8_t *block, unsigned values, uint64_t seed)
{
    for (int i = 0; i < BLOCK; i++) {
        block[i] = (uint8_t)(next_random(&seed) % values + 32);
    }
}

static double bits_of(const uint8_t *block)
{
    return (double)weir_entropy_of_block(block) / WEIR_ENTROPY_ONE_BIT;
}

static WeirInspectConfig defaults(void)
{
    WeirInspectConfig config;

    weir_inspect_config_default(&config);
    return config;
}

static int set_up(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    fill(text, 16, 1);
    fill(cipher, 256, 2);
    now = 1000 * SECOND;
    entropy = malloc(sizeof(*entropy));
    if (!entropy) {
        return -1;
    }
    weir_entropy_init(entropy, SEED);
    weir_entropy_configure(entropy, &config);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    weir_entropy_destroy(entropy);
    free(entropy);
    return 0;
}

/* A range that holds the same block again and again, 1 MiB a request. Returns
 * how often the alert was raised. */
static unsigned transfer(bool is_write, uint64_t offset, uint64_t bytes,
                         const uint8_t *block)
{
    struct iovec iov[256];
    unsigned raised = 0;

    for (int i = 0; i < 256; i++) {
        iov[i] = (struct iovec) { (void *)block, BLOCK };
    }
    while (bytes) {
        uint64_t n = bytes < MIB ? bytes : MIB;

        raised += weir_entropy_data(entropy, is_write, offset, n, iov,
                                    (n + BLOCK - 1) / BLOCK, 0, now);
        offset += n;
        bytes -= n;
    }
    return raised;
}

static unsigned read_of(uint64_t offset, uint64_t bytes, const uint8_t *block)
{
    return transfer(false, offset, bytes, block);
}

static unsigned write_of(uint64_t offset, uint64_t bytes, const uint8_t *block)
{
    return transfer(true, offset, bytes, block);
}

static WeirInspectEntropy readout(void)
{
    WeirInspectEntropy out;

    memset(&out, 0xff, sizeof(out));
    weir_entropy_read(entropy, now, &out);
    return out;
}

/* The first sampled block from `block` on. */
static uint64_t sampled_from(uint64_t block)
{
    while (!weir_entropy_wants(entropy, block * BLOCK, BLOCK)) {
        block++;
    }
    return block;
}

/* --- entropy of a block --- */

static void zeroes_are_empty(void **state)
{
    uint8_t block[BLOCK] = { 0 };

    (void)state;
    assert_int_equal(weir_entropy_of_block(block), WEIR_ENTROPY_EMPTY);
    for (size_t i = 0; i < BLOCK; i += 455) {
        block[i] = 1;
        assert_true(weir_entropy_of_block(block) >= 0);
        block[i] = 0;
    }
    block[BLOCK - 1] = 1;
    assert_true(weir_entropy_of_block(block) >= 0);
}

static void one_value_has_no_entropy(void **state)
{
    uint8_t block[BLOCK];

    (void)state;
    for (int value = 1; value < 256; value++) {
        memset(block, value, BLOCK);
        assert_int_equal(weir_entropy_of_block(block), 0);
    }
}

static void even_values_have_the_entropy_of_their_number(void **state)
{
    uint8_t block[BLOCK];

    (void)state;
    /* up to 64 values: each piece of 64 bytes has them all */
    for (unsigned bits = 1; bits <= 6; bits++) {
        for (unsigned i = 0; i < BLOCK; i++) {
            block[i] = (uint8_t)(i % (1u << bits));
        }
        assert_true(fabs(bits_of(block) - bits) < 0.05);
    }
}

static void random_bytes_read_nearly_8(void **state)
{
    uint8_t block[BLOCK];
    double sum = 0;

    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        fill(block, 256, i);
        assert_true(bits_of(block) >= 7.9 && bits_of(block) <= 8);
        sum += bits_of(block);
    }
    assert_true(sum / 2000 > 7.97);
}

/* 64 values evenly are 6 bits, whatever the sample's size makes of it. */
static void sample_is_not_biased(void **state)
{
    const unsigned values[] = { 2, 4, 16, 64, 100, 200 };
    uint8_t block[BLOCK];

    (void)state;
    for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
        double sum = 0;

        for (uint64_t i = 0; i < 500; i++) {
            fill(block, values[v], i);
            sum += bits_of(block);
        }
        assert_true(fabs(sum / 500 - log2(values[v])) < 0.02);
    }
}

/* --- which blocks --- */

static void one_block_in_32_is_sampled_at_first(void **state)
{
    unsigned sampled = 0;

    (void)state;
    for (uint64_t b = 0; b < 160000; b++) {
        sampled += weir_entropy_wants(entropy, b * BLOCK, BLOCK);
    }
    assert_in_range(sampled, 4700, 5300);
    assert_true(fabs(readout().sampling_rate - 1.0 / 32) < 1e-9);
}

static void wanted_if_any_block_is_touched(void **state)
{
    uint64_t b = sampled_from(1000);
    uint64_t start = b * BLOCK;

    (void)state;
    assert_true(weir_entropy_wants(entropy, start + 4095, 1));
    assert_true(weir_entropy_wants(entropy, start, 1));
    assert_false(weir_entropy_wants(entropy, start, 0));
    assert_true(b > 1000);              /* so the block before is not sampled */
    assert_true(weir_entropy_wants(entropy, start - 1, 2));
    assert_false(weir_entropy_wants(entropy, start - 1, 1));
}

static void reads_and_writes_make_blocks_known(void **state)
{
    WeirInspectEntropy out;

    (void)state;
    read_of(0, 16 * MIB, text);
    out = readout();
    assert_in_range(out.sampled_reads, 80, 180);
    assert_int_equal(out.known_blocks, out.sampled_reads);
    assert_int_equal(out.sampled_writes, 0);

    write_of(GIB, 16 * MIB, cipher);
    out = readout();
    assert_int_equal(out.known_blocks, out.sampled_reads + out.sampled_writes);
    assert_int_equal(out.window_overwrites, 0);
}

static void zeroes_do_not_become_known(void **state)
{
    (void)state;
    read_of(0, 16 * MIB, zero);
    assert_int_equal(readout().known_blocks, 0);
    write_of(0, 16 * MIB, zero);
    assert_int_equal(readout().known_blocks, 0);
    assert_true(readout().sampled_writes > 0);
    assert_int_equal(write_of(0, 16 * MIB, cipher), 0);
    assert_int_equal(readout().window_overwrites, 0);
}

static void zeroes_over_known_blocks_make_them_unknown(void **state)
{
    (void)state;
    read_of(0, 16 * MIB, text);
    write_of(0, 16 * MIB, zero);
    assert_int_equal(readout().known_blocks, 0);
    assert_int_equal(readout().window_overwrites, 0);
}

static void part_of_a_block_is_not_judged(void **state)
{
    uint64_t start = sampled_from(0) * BLOCK;
    struct iovec iov = { text, BLOCK };

    (void)state;
    weir_entropy_data(entropy, false, start + 512, BLOCK - 512, &iov, 1, 0,
                      now);
    weir_entropy_data(entropy, false, start, BLOCK - 1, &iov, 1, 0, now);
    assert_int_equal(readout().known_blocks, 0);
    assert_int_equal(readout().sampled_reads, 0);
}

static void part_written_makes_a_block_unknown(void **state)
{
    uint64_t start = sampled_from(0) * BLOCK;
    struct iovec iov = { text, BLOCK };

    (void)state;
    read_of(start, BLOCK, text);
    weir_entropy_data(entropy, false, start, 512, &iov, 1, 0, now);
    assert_int_equal(readout().known_blocks, 1);
    weir_entropy_data(entropy, true, start + 1024, 512, &iov, 1, 0, now);
    assert_int_equal(readout().known_blocks, 0);
    assert_int_equal(readout().sampled_writes, 0);
}

/* --- buffers --- */

/* The same bytes, cut into pieces of every kind, are judged the same. */
static void buffers_may_be_cut_anywhere(void **state)
{
    const size_t pieces[] = { 1, 7, 512, 1000, 4095, 4096, 4097, 8192 };
    uint64_t start = sampled_from(100) * BLOCK;
    static uint8_t data[5 * BLOCK];
    int32_t expected = weir_entropy_of_block(text);

    (void)state;
    memset(data, 'x', sizeof(data));
    memcpy(data + 2 * BLOCK + 100, text, BLOCK);
    for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
        struct iovec iov[sizeof(data)];
        WeirInspectConfig config = defaults();
        size_t niov = 0;
        size_t in = 0;

        config.entropy = false;
        weir_entropy_configure(entropy, &config);
        config.entropy = true;
        weir_entropy_configure(entropy, &config);
        while (in < sizeof(data)) {
            size_t n = sizeof(data) - in;

            n = n < pieces[p] ? n : pieces[p];
            iov[niov++] = (struct iovec) { data + in, n };
            in += n;
        }
        /* 100 bytes are skipped; block 2 of the request is `start`, the
         * others have no entropy */
        weir_entropy_data(entropy, true, start - 2 * BLOCK, 4 * BLOCK, iov,
                          niov, 100, now);
        assert_int_equal(entropy->window.write_bits, expected);
    }
}

static void empty_buffers_between_are_skipped(void **state)
{
    uint64_t start = sampled_from(0) * BLOCK;
    struct iovec iov[] = {
        { NULL, 0 }, { text, 1000 }, { NULL, 0 }, { text + 1000, BLOCK - 1000 },
        { NULL, 0 },
    };

    (void)state;
    weir_entropy_data(entropy, true, start, BLOCK, iov, 5, 0, now);
    assert_int_equal(entropy->written[(int)(bits_of(text) * 2)], 1);
}

static void buffers_shorter_than_the_request_are_not_passed(void **state)
{
    uint64_t start = sampled_from(0) * BLOCK;
    struct iovec iov = { text, BLOCK - 1 };

    (void)state;
    weir_entropy_data(entropy, true, start, 16 * BLOCK, &iov, 1, 0, now);
    weir_entropy_data(entropy, true, start, BLOCK, &iov, 1, 4000, now);
    weir_entropy_data(entropy, true, start, BLOCK, &iov, 1, 5000, now);
    weir_entropy_data(entropy, true, start, BLOCK, NULL, 0, 0, now);
    assert_int_equal(readout().sampled_writes, 0);
}

static void offsets_at_the_end_are_harmless(void **state)
{
    struct iovec iov = { text, BLOCK };

    (void)state;
    assert_false(weir_entropy_wants(entropy, UINT64_MAX, 0));
    weir_entropy_wants(entropy, UINT64_MAX - BLOCK, BLOCK);
    weir_entropy_data(entropy, true, UINT64_MAX - BLOCK, BLOCK, &iov, 1, 0,
                      now);
    weir_entropy_forget(entropy, UINT64_MAX - 1, 1);
    weir_entropy_forget(entropy, 0, UINT64_MAX);
    assert_int_equal(readout().known_blocks, 0);
}

static void blocks_beyond_4_pib_are_not_judged(void **state)
{
    (void)state;
    write_of(WEIR_ENTROPY_BLOCKS_MAX * BLOCK, 16 * MIB, text);
    assert_int_equal(readout().sampled_writes, 0);
    write_of(WEIR_ENTROPY_BLOCKS_MAX * BLOCK - 16 * MIB, 16 * MIB, text);
    assert_int_equal(readout().known_blocks, readout().sampled_writes);
    assert_true(readout().known_blocks > 50);
    write_of(WEIR_ENTROPY_BLOCKS_MAX * BLOCK - 16 * MIB, 16 * MIB, text);
    assert_int_equal(readout().window_overwrites, readout().known_blocks);
}

/* --- window and alert --- */

static void encrypting_known_text_raises_the_alert_once(void **state)
{
    WeirInspectEntropy out;

    (void)state;
    read_of(0, 64 * MIB, text);
    assert_int_equal(write_of(0, 64 * MIB, cipher), 1);
    out = readout();
    assert_true(out.alert);
    assert_int_equal(out.alerts, 1);
    assert_int_equal(out.window_suspicious, out.window_overwrites);
    assert_int_equal(out.window_overwrites, out.sampled_writes);
    assert_int_equal(out.window_writes, out.sampled_writes);
    assert_true(out.window_share == 1);
    assert_true(fabs(out.window_write_bits - bits_of(cipher)) < 0.001);
    assert_int_equal(out.written[15], out.sampled_writes);
}

static void new_files_and_text_raise_no_alert(void **state)
{
    (void)state;
    read_of(0, 64 * MIB, text);
    assert_int_equal(write_of(0, 64 * MIB, text), 0);        /* edited */
    assert_int_equal(write_of(GIB, 64 * MIB, cipher), 0);    /* new */
    assert_int_equal(write_of(GIB, 64 * MIB, cipher), 0);    /* replaced */
    assert_int_equal(readout().window_suspicious, 0);
    assert_true(readout().window_overwrites > 750);
    assert_false(readout().alert);
}

static void too_few_overwrites_raise_no_alert(void **state)
{
    WeirInspectConfig config = defaults();
    uint64_t b = 0;

    (void)state;
    config.entropy_min_overwrites = 5;
    weir_entropy_configure(entropy, &config);
    for (int i = 1; i <= 5; i++) {
        b = sampled_from(b + 1);
        read_of(b * BLOCK, BLOCK, text);
        assert_int_equal(write_of(b * BLOCK, BLOCK, cipher), i == 5);
    }
}

static void share_decides(void **state)
{
    (void)state;
    read_of(0, 128 * MIB, text);
    write_of(0, 70 * MIB, text);
    assert_int_equal(write_of(70 * MIB, 58 * MIB, cipher), 0);
    assert_true(readout().window_share < 0.5);
    assert_true(readout().window_share > 0.4);
    read_of(GIB, 64 * MIB, text);
    assert_int_equal(write_of(GIB, 64 * MIB, cipher), 1);
}

static void share_0_switches_the_alert_off(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_alert_share = 0;
    weir_entropy_configure(entropy, &config);
    read_of(0, 64 * MIB, text);
    assert_int_equal(write_of(0, 64 * MIB, cipher), 0);
    assert_true(readout().window_share == 1);
    assert_false(readout().alert);
}

/* The share goes around the threshold: the alert stays, until the share has
 * fallen under three quarters of it; then it can rise again. */
static void alert_has_hysteresis(void **state)
{
    (void)state;
    read_of(0, 64 * MIB, text);
    assert_int_equal(write_of(0, 64 * MIB, cipher), 1);

    write_of(GIB, 80 * MIB, text);
    write_of(GIB, 80 * MIB, text);
    assert_true(readout().window_share < 0.5);
    assert_true(readout().window_share > 0.375);
    assert_true(readout().alert);

    write_of(GIB, 80 * MIB, text);
    assert_true(readout().window_share < 0.375);
    assert_false(readout().alert);

    read_of(2 * GIB, 256 * MIB, text);
    assert_int_equal(write_of(2 * GIB, 256 * MIB, cipher), 1);
    assert_int_equal(readout().alerts, 2);
}

/* Ten overwrites alone would not have raised it, and do not keep it up. */
static void alert_ends_when_few_overwrites_are_left(void **state)
{
    uint64_t b = 1000000;

    (void)state;
    read_of(0, 64 * MIB, text);
    write_of(0, 64 * MIB, cipher);
    now += 20 * SECOND;
    for (int i = 0; i < 10; i++) {
        b = sampled_from(b + 1);
        read_of(b * BLOCK, BLOCK, text);
        write_of(b * BLOCK, BLOCK, cipher);
    }
    assert_true(readout().alert);
    now += 11 * SECOND;
    assert_int_equal(readout().window_suspicious, 10);
    assert_true(readout().window_share == 1);
    assert_false(readout().alert);
}

static void window_forgets_after_its_time(void **state)
{
    (void)state;
    read_of(0, 64 * MIB, text);
    write_of(0, 64 * MIB, cipher);
    now += 28 * SECOND;
    assert_true(readout().alert);
    assert_true(readout().window_overwrites > 0);
    now += 3 * SECOND;
    assert_int_equal(readout().window_overwrites, 0);
    assert_int_equal(readout().window_writes, 0);
    assert_false(readout().alert);
    assert_int_equal(readout().alerts, 1);
}

/* Slow enough, and no window holds enough of it. */
static void window_slides(void **state)
{
    uint64_t b = 0;
    unsigned raised = 0;

    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        b = sampled_from(b + 1);
        read_of(b * BLOCK, BLOCK, text);
        raised += write_of(b * BLOCK, BLOCK, cipher);
        now += SECOND;
        assert_in_range(readout().window_overwrites, i < 27 ? i : 27, 31);
    }
    assert_int_equal(raised, 0);
}

static void clock_that_goes_back_a_little_changes_nothing(void **state)
{
    uint64_t overwrites;

    (void)state;
    read_of(0, 128 * MIB, text);
    write_of(0, 32 * MIB, cipher);
    overwrites = readout().window_overwrites;
    now -= 10 * SECOND;
    write_of(32 * MIB, 32 * MIB, cipher);
    assert_true(readout().window_overwrites > overwrites);
    now += 10 * SECOND;
    assert_true(readout().window_overwrites > overwrites);
}

static void clock_that_goes_back_far_restarts_the_window(void **state)
{
    (void)state;
    read_of(0, 128 * MIB, text);
    write_of(0, 32 * MIB, cipher);
    now = 5;
    assert_int_equal(readout().window_overwrites, 0);
    assert_int_equal(write_of(32 * MIB, 64 * MIB, cipher), 1);
    assert_true(readout().window_overwrites > 0);
    now += 31 * SECOND;
    assert_int_equal(readout().window_overwrites, 0);
}

static void clock_at_its_end_is_harmless(void **state)
{
    (void)state;
    read_of(0, 64 * MIB, text);
    now = UINT64_MAX;
    assert_int_equal(write_of(0, 64 * MIB, cipher), 1);
    now = 0;
    assert_int_equal(readout().window_overwrites, 0);
}

/* --- configuration --- */

static void thresholds_can_change_while_running(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    config.entropy_low_bits = 3.5;      /* text is 4 */
    weir_entropy_configure(entropy, &config);
    read_of(0, 64 * MIB, text);
    assert_int_equal(write_of(0, 32 * MIB, cipher), 0);
    config.entropy_low_bits = 6;
    weir_entropy_configure(entropy, &config);
    read_of(GIB, 64 * MIB, text);
    assert_int_equal(write_of(GIB, 64 * MIB, cipher), 1);
}

static void thresholds_include_their_value(void **state)
{
    WeirInspectConfig config = defaults();
    uint8_t block[BLOCK];

    (void)state;
    for (int i = 0; i < BLOCK; i++) {
        block[i] = (uint8_t)(i % 2 ? 1 : 7);
    }
    config.entropy_low_bits = 0;
    config.entropy_high_bits = bits_of(block);
    weir_entropy_configure(entropy, &config);
    memset(text, 'a', BLOCK);
    read_of(0, 16 * MIB, text);
    assert_int_equal(write_of(0, 16 * MIB, block), 1);
}

static void another_window_length_empties_the_window(void **state)
{
    WeirInspectConfig config = defaults();

    (void)state;
    read_of(0, 64 * MIB, text);
    write_of(0, 64 * MIB, text);
    config.entropy_window_s = 3600;
    weir_entropy_configure(entropy, &config);
    assert_int_equal(readout().window_overwrites, 0);
    assert_int_equal(readout().window_s, 3600);
    write_of(0, 64 * MIB, text);
    now += 3300 * SECOND;
    assert_true(readout().window_overwrites > 0);
}

static void off_and_on_again_knows_nothing(void **state)
{
    WeirInspectConfig config = defaults();
    WeirInspectEntropy out;

    (void)state;
    read_of(0, 64 * MIB, text);
    write_of(0, 64 * MIB, cipher);
    config.entropy = false;
    weir_entropy_configure(entropy, &config);
    out = readout();
    assert_false(out.enabled || out.alert);
    assert_int_equal(out.known_blocks, 0);
    assert_false(weir_entropy_wants(entropy, 0, GIB));
    write_of(0, 64 * MIB, text);

    config.entropy = true;
    weir_entropy_configure(entropy, &config);
    out = readout();
    assert_true(out.enabled);
    assert_int_equal(out.known_blocks + out.sampled_reads + out.alerts, 0);
    assert_int_equal(out.window_writes, 0);
}

/* --- forgetting --- */

static void forgotten_blocks_are_not_judged(void **state)
{
    (void)state;
    read_of(0, 16 * MIB, text);
    weir_entropy_forget(entropy, 4 * MIB, 8 * MIB);
    assert_int_equal(write_of(4 * MIB, 8 * MIB, cipher), 0);
    assert_int_equal(readout().window_overwrites, 0);
    write_of(0, 4 * MIB, cipher);
    assert_true(readout().window_overwrites > 0);
}

static void touching_a_block_forgets_it(void **state)
{
    uint64_t start = sampled_from(0) * BLOCK;

    (void)state;
    read_of(start, BLOCK, text);
    weir_entropy_forget(entropy, start, 0);
    weir_entropy_forget(entropy, start + BLOCK, BLOCK);
    assert_int_equal(readout().known_blocks, 1);
    weir_entropy_forget(entropy, start + 4095, 1);
    assert_int_equal(readout().known_blocks, 0);
}

static void huge_ranges_are_forgotten_exactly(void **state)
{
    uint64_t known;

    (void)state;
    read_of(1024 * GIB - 16 * MIB, 32 * MIB, text);
    known = readout().known_blocks;
    weir_entropy_forget(entropy, 0, 1024 * GIB - 16 * MIB);
    weir_entropy_forget(entropy, 1024 * GIB + 16 * MIB, 1024 * GIB);
    assert_int_equal(readout().known_blocks, known);
    weir_entropy_forget(entropy, 0, 1024 * GIB);
    assert_in_range(readout().known_blocks, known / 3, known * 2 / 3);
    weir_entropy_forget(entropy, 1024 * GIB, 1024 * GIB);
    assert_int_equal(readout().known_blocks, 0);
}

/* --- rate --- */

static void rate_falls_only_as_the_table_fills(void **state)
{
    const uint64_t ways = WEIR_ENTROPY_SETS * WEIR_ENTROPY_WAYS;
    WeirInspectEntropy out;
    double rate = 1;

    (void)state;
    read_of(0, 4 * GIB, text);
    assert_true(fabs(readout().sampling_rate - 1.0 / 32) < 1e-9);
    for (uint64_t at = 4; at < 64; at += 2) {
        read_of(at * GIB, 2 * GIB, text);
        out = readout();
        assert_true(out.sampling_rate <= rate);
        rate = out.sampling_rate;
        assert_true(out.known_blocks < ways * 3 / 4);
    }
    assert_true(out.known_blocks > ways / 2);
    read_of(0, 2 * GIB, text);          /* known: nothing new */
    assert_true(readout().sampling_rate > rate * 0.99);
}

/* 100 GiB of known text; 64 MiB of it are encrypted, by one who does not read
 * them first. */
static void encryptor_is_caught_in_a_big_disk(void **state)
{
    (void)state;
    read_of(0, 100 * GIB, text);
    printf("  100 GiB known: rate 1/%.0f, %llu blocks\n",
           1 / readout().sampling_rate,
           (unsigned long long)readout().known_blocks);
    assert_int_equal(write_of(70 * GIB, 64 * MIB, cipher), 1);
}

/* --- threads --- */

#define THREADS 4

static void *transfer_in_thread(void *opaque)
{
    uint64_t base = (uint64_t)(uintptr_t)opaque * GIB;

    for (int i = 0; i < 20; i++) {
        read_of(base, 16 * MIB, text);
        write_of(base, 16 * MIB, cipher);
        weir_entropy_forget(entropy, base, 2 * GIB);
    }
    return NULL;
}

static void *configure_in_thread(void *opaque)
{
    WeirInspectConfig config = defaults();

    (void)opaque;
    for (int i = 0; i < 300; i++) {
        WeirInspectEntropy out;

        config.entropy = i % 100 != 99;
        config.entropy_window_s = 1 + (uint32_t)i % 3;
        weir_entropy_configure(entropy, &config);
        weir_entropy_read(entropy, now, &out);
        if (!(out.window_share >= 0 && out.window_share <= 1)) {
            return entropy;
        }
    }
    return NULL;
}

static void threads_do_not_harm_each_other(void **state)
{
    pthread_t thread[THREADS];
    pthread_t other;
    void *wrong;

    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, transfer_in_thread,
                                        (void *)(2 * i)), 0);
    }
    assert_int_equal(pthread_create(&other, NULL, configure_in_thread, NULL),
                     0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    pthread_join(other, &wrong);
    assert_null(wrong);
    weir_entropy_forget(entropy, 0, UINT64_MAX);
    assert_int_equal(readout().known_blocks, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(zeroes_are_empty),
        TEST(one_value_has_no_entropy),
        TEST(even_values_have_the_entropy_of_their_number),
        TEST(random_bytes_read_nearly_8),
        TEST(sample_is_not_biased),
        TEST(one_block_in_32_is_sampled_at_first),
        TEST(wanted_if_any_block_is_touched),
        TEST(reads_and_writes_make_blocks_known),
        TEST(zeroes_do_not_become_known),
        TEST(zeroes_over_known_blocks_make_them_unknown),
        TEST(part_of_a_block_is_not_judged),
        TEST(part_written_makes_a_block_unknown),
        TEST(buffers_may_be_cut_anywhere),
        TEST(empty_buffers_between_are_skipped),
        TEST(buffers_shorter_than_the_request_are_not_passed),
        TEST(offsets_at_the_end_are_harmless),
        TEST(blocks_beyond_4_pib_are_not_judged),
        TEST(encrypting_known_text_raises_the_alert_once),
        TEST(new_files_and_text_raise_no_alert),
        TEST(too_few_overwrites_raise_no_alert),
        TEST(share_decides),
        TEST(share_0_switches_the_alert_off),
        TEST(alert_has_hysteresis),
        TEST(alert_ends_when_few_overwrites_are_left),
        TEST(window_forgets_after_its_time),
        TEST(window_slides),
        TEST(clock_that_goes_back_a_little_changes_nothing),
        TEST(clock_that_goes_back_far_restarts_the_window),
        TEST(clock_at_its_end_is_harmless),
        TEST(thresholds_can_change_while_running),
        TEST(thresholds_include_their_value),
        TEST(another_window_length_empties_the_window),
        TEST(off_and_on_again_knows_nothing),
        TEST(forgotten_blocks_are_not_judged),
        TEST(touching_a_block_forgets_it),
        TEST(huge_ranges_are_forgotten_exactly),
        TEST(rate_falls_only_as_the_table_fills),
        TEST(encryptor_is_caught_in_a_big_disk),
        TEST(threads_do_not_harm_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

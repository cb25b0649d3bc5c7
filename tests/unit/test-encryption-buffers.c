/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "encryption/buffers.h"

enum { KIB = 1024, MANY = 200 };

static unsigned take_all(WeirBuffers *buffers, size_t bytes, void **taken)
{
    unsigned n = 0;

    while (n < MANY && (taken[n] = weir_buffers_take(buffers, bytes))) {
        memset(taken[n], n + 1, bytes);
        n++;
    }
    return n;
}

/* What is written to one does not show in another. */
static void check_own(void **taken, unsigned n, size_t bytes)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *buffer = taken[i];

        assert_int_equal((uintptr_t)buffer % 4096, 0);
        assert_int_equal(buffer[0], (uint8_t)(i + 1));
        assert_int_equal(buffer[bytes - 1], (uint8_t)(i + 1));
    }
}

/* bytes: the most, and the least beyond the size before. */
static const struct {
    size_t bytes, least;
    unsigned count;
} sizes[] = {
    { 64 * KIB, 1, 128 },
    { 256 * KIB, 64 * KIB + 1, 16 },
    { WEIR_BUFFERS_BYTES_MAX, 256 * KIB + 1, 8 },
};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void sizes_do_not_take_from_each_other(void **state)
{
    static void *taken[SIZES][MANY];
    WeirBuffers *buffers;

    (void)state;
    assert_int_equal(weir_buffers_new(&buffers), 0);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < SIZES; i++) {
            assert_int_equal(take_all(buffers, sizes[i].bytes, taken[i]),
                             sizes[i].count);
            assert_null(weir_buffers_take(buffers, sizes[i].least));
        }
        for (size_t i = 0; i < SIZES; i++) {
            check_own(taken[i], sizes[i].count, sizes[i].bytes);
            for (unsigned n = 0; n < sizes[i].count; n++) {
                weir_buffers_give(buffers, taken[i][n]);
            }
        }
    }
    assert_null(weir_buffers_take(buffers, WEIR_BUFFERS_BYTES_MAX + 1));
    weir_buffers_free(buffers);
}

static void the_last_one_given_back_comes_next(void **state)
{
    WeirBuffers *buffers;
    void *buffer;

    (void)state;
    assert_int_equal(weir_buffers_new(&buffers), 0);
    buffer = weir_buffers_take(buffers, 512);
    weir_buffers_give(buffers, buffer);
    assert_ptr_equal(weir_buffers_take(buffers, 4096), buffer);
    weir_buffers_give(buffers, buffer);
    weir_buffers_free(buffers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_do_not_take_from_each_other),
        cmocka_unit_test(the_last_one_given_back_comes_next),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "encryption/keyid.h"

static WeirKeyId *id_of(uint8_t first, size_t key_bytes)
{
    uint8_t key[64] = { first, 1, 2, 3 };
    WeirKeyId *id;

    assert_int_equal(weir_key_id_new(&id, key, key_bytes), 0);
    return id;
}

static void equal_keys_have_equal_ids(void **state)
{
    WeirKeyId *a = id_of(1, 64), *same = id_of(1, 64);
    WeirKeyId *other = id_of(2, 64), *shorter = id_of(1, 32);

    (void)state;
    assert_true(weir_key_id_equal(a, a));
    assert_true(weir_key_id_equal(a, same));
    assert_false(weir_key_id_equal(a, other));
    assert_false(weir_key_id_equal(a, shorter));
    weir_key_id_free(a);
    weir_key_id_free(same);
    weir_key_id_free(other);
    weir_key_id_free(shorter);
    weir_key_id_free(NULL);
}

/* Each process has a random key of its own. */
static void other_processes_have_other_ids(void **state)
{
    uint8_t ids[2][32];

    (void)state;
    for (int i = 0; i < 2; i++) {
        int fds[2], status;
        pid_t child;

        assert_int_equal(pipe(fds), 0);
        child = fork();
        if (child == 0) {
            WeirKeyId *id = id_of(1, 64);
            bool good = write(fds[1], id, 32) == 32;

            weir_key_id_free(id);
            _exit(!good);
        }
        assert_int_equal(read(fds[0], ids[i], 32), 32);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        close(fds[0]);
        close(fds[1]);
    }
    assert_memory_not_equal(ids[0], ids[1], 32);
}

int main(void)
{
    /* the first one before this process has its random key */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_processes_have_other_ids),
        cmocka_unit_test(equal_keys_have_equal_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

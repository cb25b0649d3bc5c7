/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sidecars and cache files of filters that come to a disk in use, or go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <isa-l/crc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cachefile.h"
#include "seed.h"
#include "sidecar.h"

#define COPY_BYTES 4096

typedef struct Place {
    char *dir;
    char *path;
} Place;

static int set_up(void **state)
{
    Place *place = g_new0(Place, 1);

    place->dir = g_dir_make_tmp("weir-test-XXXXXX", NULL);
    place->path = g_build_filename(place->dir, "file", NULL);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    Place *place = *state;
    g_autoptr(GDir) dir = g_dir_open(place->dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(place->dir, name, NULL);

        g_unlink(path);
    }
    g_rmdir(place->dir);
    g_free(place->dir);
    g_free(place->path);
    g_free(place);
    return 0;
}

static guint count(const Place *place)
{
    g_autoptr(GDir) dir = g_dir_open(place->dir, 0, NULL);
    guint n = 0;

    while (g_dir_read_name(dir)) {
        n++;
    }
    return n;
}

static void write_at(const char *path, const void *data, gsize bytes,
                     off_t offset)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0640);

    assert_int_equal(pwrite(fd, data, bytes, offset), bytes);
    close(fd);
}

/* Both copies; the caller frees them. */
static guint8 *read_copies(const char *path)
{
    guint8 *copies = g_malloc0(2 * COPY_BYTES);
    int fd = open(path, O_RDONLY);

    assert_true(pread(fd, copies, 2 * COPY_BYTES, 0) > 0);
    close(fd);
    return copies;
}

static bool is_zero(const guint8 *bytes)
{
    for (gsize i = 0; i < 2 * COPY_BYTES; i++) {
        if (bytes[i]) {
            return false;
        }
    }
    return true;
}

/* Lock it as QEMU does; closing the descriptor unlocks it. */
static int lock(const char *path)
{
    struct flock flock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1,
    };
    int fd = open(path, O_RDWR);

    assert_int_equal(fcntl(fd, F_OFD_SETLK, &flock), 0);
    return fd;
}

/* --- sidecars --- */

static void test_sidecar_of_a_seed_stays(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *before = NULL;
    g_autofree guint8 *after = NULL;

    assert_true(weir_seed_begin(place->path, "d", 1 << 20, NULL));
    before = read_copies(place->path);
    assert_true(weir_sidecar_forget(place->path, "d", NULL));
    after = read_copies(place->path);
    assert_false(is_zero(before));
    assert_memory_equal(before, after, 2 * COPY_BYTES);
}

static void test_sidecar_that_was_used(void **state)
{
    static const struct {
        off_t offset;
        guint8 value;
    } uses[] = { { 32, 2 }, { 168, 1 } };
    const Place *place = *state;

    for (guint i = 0; i < G_N_ELEMENTS(uses); i++) {
        g_autofree guint8 *after = NULL;
        g_autoptr(GError) error = NULL;
        int fd;

        assert_true(weir_seed_begin(place->path, "d", 1 << 20, NULL));
        write_at(place->path, &uses[i].value, 1, COPY_BYTES + uses[i].offset);
        fd = lock(place->path);
        assert_false(weir_sidecar_forget(place->path, "d", &error));
        assert_non_null(strstr(error->message, "is in use"));
        close(fd);
        assert_true(weir_sidecar_forget(place->path, "d", NULL));
        after = read_copies(place->path);
        assert_true(is_zero(after));
        g_unlink(place->path);
    }
}

/* The driver refuses it, and it may be of use to its own disk. */
static void test_sidecar_of_another_disk_stays(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *before = NULL;
    g_autofree guint8 *after = NULL;
    guint8 life = 1;
    guint32 crc;

    assert_true(weir_seed_begin(place->path, "e", 1 << 20, NULL));
    write_at(place->path, &life, 1, COPY_BYTES + 168);
    write_at(place->path, "\0\0\0\0", 4, COPY_BYTES + 12);
    before = read_copies(place->path);
    crc = crc32_iscsi(before + COPY_BYTES, COPY_BYTES, ~0u);
    write_at(place->path, &crc, sizeof(crc), COPY_BYTES + 12);
    memcpy(before + COPY_BYTES + 12, &crc, sizeof(crc));
    assert_true(weir_sidecar_forget(place->path, "d", NULL));
    after = read_copies(place->path);
    assert_memory_equal(before, after, 2 * COPY_BYTES);
    assert_true(weir_sidecar_forget(place->path, "e", NULL));
    g_free(after);
    after = read_copies(place->path);
    assert_true(is_zero(after));
}

static void test_sidecar_that_others_use_stays(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *before = NULL;
    g_autofree guint8 *after = NULL;
    guint8 sequence = 2;
    int fd;

    assert_true(weir_seed_begin(place->path, "d", 1 << 20, NULL));
    write_at(place->path, &sequence, 1, COPY_BYTES + 32);
    before = read_copies(place->path);
    fd = lock(place->path);
    assert_true(weir_sidecar_forget_unused(place->path, "d", NULL));
    close(fd);
    after = read_copies(place->path);
    assert_memory_equal(before, after, 2 * COPY_BYTES);
}

static void test_no_sidecar(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *after = NULL;

    assert_true(weir_sidecar_forget(place->path, "d", NULL));
    write_at(place->path, "something else", 14, 0);
    assert_true(weir_sidecar_forget(place->path, "d", NULL));
    after = read_copies(place->path);
    assert_memory_equal(after, "something else", 14);
}

static guint64 number(const guint8 *at, int bytes)
{
    guint64 value = 0;

    for (int i = bytes; i > 0; i--) {
        value = value << 8 | at[i - 1];
    }
    return value;
}

/* Its log does not take the disk back by a blank one. */
static void test_sidecar_of_a_promoted_log(void **state)
{
    static const guint8 used[] = { 1 };
    static const guint8 clean[] = { 1, 0, 0, 0, 7 };    /* and a life */
    static const guint8 generation[] = { 2, 0, 0, 0, 0, 0, 0, 0, 'i', 'd' };
    const Place *place = *state;
    g_autofree guint8 *before = NULL;
    g_autofree guint8 *after = NULL;
    guint8 region[8];
    guint32 crc = 0;
    int fd;

    assert_true(weir_seed_begin(place->path, "d", 1 << 20, NULL));
    write_at(place->path, used, 1, 65536 + 32);     /* a region's bit */
    write_at(place->path, clean, sizeof(clean), COPY_BYTES + 164);
    write_at(place->path, generation, sizeof(generation), COPY_BYTES + 184);
    write_at(place->path, used, 1, COPY_BYTES + 272);
    write_at(place->path, &crc, 4, COPY_BYTES + 12);
    before = read_copies(place->path);
    crc = crc32_iscsi(before + COPY_BYTES, COPY_BYTES, ~0u);
    write_at(place->path, &crc, 4, COPY_BYTES + 12);
    assert_true(weir_sidecar_tells(place->path));
    assert_true(weir_sidecar_forget(place->path, "d", NULL));

    after = read_copies(place->path);
    assert_ptr_equal(weir_seed_header(after), after);   /* the other copy */
    assert_int_equal(number(after + 32, 8),
                     number(before + COPY_BYTES + 32, 8) + 1);
    assert_int_equal(number(after + 164, 4), 0);
    assert_int_equal(number(after + 272, 4), 0);
    assert_memory_equal(after + 40, before + COPY_BYTES + 40, 124);
    assert_memory_equal(after + 168, before + COPY_BYTES + 168, 104);
    /* no region is known to be clean */
    fd = open(place->path, O_RDONLY);
    assert_int_equal(pread(fd, region, 8, 65536), 8);
    assert_memory_equal(region, "\0\0\0\0\0\0\0\0", 8);
    close(fd);
}

static void test_sidecar_tells(void **state)
{
    const Place *place = *state;

    assert_false(weir_sidecar_tells(place->path));
    write_at(place->path, "\0", 1, 2 * COPY_BYTES);
    assert_false(weir_sidecar_tells(place->path));
    assert_true(weir_sidecar_tells("/proc/version/x"));
}

/* --- caches --- */

static void write_superblock(const Place *place, guint64 sequence,
                             guint32 flags)
{
    guint8 buf[COPY_BYTES] = "WEIRCACH\1";
    guint32 crc;

    memcpy(buf + 32, &sequence, sizeof(sequence));
    memcpy(buf + 128, &flags, sizeof(flags));
    crc = crc32_iscsi(buf, sizeof(buf), ~0u);
    memcpy(buf + 12, &crc, sizeof(crc));
    write_at(place->path, buf, sizeof(buf),
             (off_t)(sequence % 2) * COPY_BYTES);
}

static void cache_fails(const Place *place, const char *text)
{
    g_autofree guint8 *before = read_copies(place->path);
    g_autofree guint8 *after = NULL;
    g_autoptr(GError) error = NULL;

    assert_false(weir_cache_file_forget(place->path, &error));
    assert_non_null(strstr(error->message, text));
    after = read_copies(place->path);
    assert_memory_equal(before, after, 2 * COPY_BYTES);
}

static void test_cache_is_marked(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *before = NULL;
    g_autofree guint8 *after = NULL;
    guint32 crc;
    int fd;

    write_superblock(place, 6, 2);
    write_superblock(place, 7, 1);
    before = read_copies(place->path);
    fd = lock(place->path);
    cache_fails(place, "is in use");
    close(fd);
    assert_true(weir_cache_file_forget(place->path, NULL));
    after = read_copies(place->path);
    /* the other copy is written, and is the newer one then */
    assert_memory_equal(before + COPY_BYTES, after + COPY_BYTES, COPY_BYTES);
    assert_int_equal(after[32], 8);
    assert_int_equal(after[128], 1 | 8);
    memcpy(&crc, after + 12, sizeof(crc));
    memset(after + 12, 0, sizeof(crc));
    assert_int_equal(crc, crc32_iscsi(after, COPY_BYTES, ~0u));
}

static void test_cache_is_marked_already(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *before = NULL;
    g_autofree guint8 *after = NULL;
    int fd;

    write_superblock(place, 1, 8 | 2);
    before = read_copies(place->path);
    fd = lock(place->path);             /* by the very node that takes it */
    assert_true(weir_cache_file_forget(place->path, NULL));
    close(fd);
    after = read_copies(place->path);
    assert_memory_equal(before, after, 2 * COPY_BYTES);
}

static void test_cache_is_refused(void **state)
{
    const Place *place = *state;

    write_superblock(place, 6, 0);
    write_superblock(place, 7, 2);
    cache_fails(place, "were not written back");
    write_superblock(place, 7, 0);
    write_at(place->path, "\1", 1, COPY_BYTES + 200);
    cache_fails(place, "is damaged");
    write_superblock(place, 7, 0);
    write_at(place->path, "something else", 14, 0);
    cache_fails(place, "is damaged");
}

static void test_no_cache(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *after = NULL;

    assert_true(weir_cache_file_forget(place->path, NULL));
    write_at(place->path, "\0", 1, 2 * COPY_BYTES);
    assert_true(weir_cache_file_forget(place->path, NULL));
    after = read_copies(place->path);
    assert_true(is_zero(after));
}

/* Its image is used without it from now on. */
static void test_cache_set_aside(void **state)
{
    const Place *place = *state;
    g_autofree char *first = g_strconcat(place->path, ".of-a.img", NULL);
    g_autofree char *second = g_strconcat(first, "-2", NULL);
    g_autoptr(GError) error = NULL;
    char *to;
    int fd;

    assert_true(weir_cache_file_set_aside(place->path, "/x/a.img", &to, NULL));
    assert_null(to);
    write_superblock(place, 6, 0);
    write_superblock(place, 7, 2 | 8);
    assert_true(weir_cache_file_set_aside(place->path, "/x/a.img", &to, NULL));
    assert_null(to);
    write_superblock(place, 8, 0);
    write_superblock(place, 9, 2);
    fd = lock(place->path);
    assert_false(weir_cache_file_set_aside(place->path, "/x/a.img", &to,
                                           &error));
    assert_non_null(strstr(error->message, "is in use"));
    close(fd);
    assert_true(weir_cache_file_set_aside(place->path, "/x/a.img", &to, NULL));
    assert_string_equal(to, first);
    g_free(to);
    write_superblock(place, 7, 2);
    assert_true(weir_cache_file_set_aside(place->path, "/y/a.img", &to, NULL));
    assert_string_equal(to, second);
    g_free(to);
    assert_int_equal(count(place), 2);
    unlink(first);
    unlink(second);
}

static void test_cache_given_up(void **state)
{
    const Place *place = *state;
    g_autofree guint8 *after = NULL;
    g_autoptr(GError) error = NULL;
    int fd;

    assert_true(weir_cache_file_lose(place->path, NULL));
    write_superblock(place, 6, 0);
    write_superblock(place, 7, 2);
    fd = lock(place->path);
    assert_false(weir_cache_file_lose(place->path, &error));
    assert_non_null(strstr(error->message, "is in use"));
    close(fd);
    assert_true(weir_cache_file_lose(place->path, NULL));
    after = read_copies(place->path);
    assert_int_equal(after[128], 2 | 8);
    assert_true(weir_cache_file_forget(place->path, NULL));
}

#define CASE(function) \
    cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_sidecar_of_a_seed_stays),
        CASE(test_sidecar_that_was_used),
        CASE(test_sidecar_of_another_disk_stays),
        CASE(test_sidecar_that_others_use_stays),
        CASE(test_no_sidecar),
        CASE(test_sidecar_of_a_promoted_log),
        CASE(test_sidecar_tells),
        CASE(test_cache_is_marked),
        CASE(test_cache_is_marked_already),
        CASE(test_cache_is_refused),
        CASE(test_no_cache),
        CASE(test_cache_set_aside),
        CASE(test_cache_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

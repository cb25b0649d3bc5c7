/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts while a header is written: of what was written since the last
 * flush, each write may be there or not, and one of them in part. Each disk
 * that this leaves is opened, and opens again after another change.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encryption/header.h"
#include "encryption/secret.h"
#include "luks-image.h"

#define SECTOR 512
#define WRITES_MAX 64
/* With room for four keyslots. */
#define HEADER_BYTES (2 * LUKS_METADATA_BYTES + (1 << 20))
#define OLD "correct horse"     /* in keyslot 0, as in the file "key" */
#define SECOND "second"         /* in keyslot 1 */
#define NEW "a new one"

static const WeirHeaderLimits limits = {
    .memory_bytes = 64 << 20, .time_s = 5,
};
static const WeirHeaderKdf pbkdf2 = { .type = "pbkdf2", .iterations = 1000 };

/* --- a disk --- */

typedef struct Disk {
    uint8_t *bytes;
    size_t n_bytes;
} Disk;

static Disk disk_copy(const Disk *from)
{
    Disk disk = { malloc(from->n_bytes), from->n_bytes };

    memcpy(disk.bytes, from->bytes, from->n_bytes);
    return disk;
}

static void disk_write(Disk *disk, const WeirHeaderWrite *w, size_t from,
                       size_t to)
{
    if (w->bytes) {
        memcpy(disk->bytes + w->offset_bytes + from,
               (const uint8_t *)w->bytes + from, to - from);
    } else {
        memset(disk->bytes + w->offset_bytes + from, 0, to - from);
    }
}

static WeirHeader *load(const Disk *disk)
{
    WeirHeader *header;
    uint64_t needed;
    char err[256];

    weir_header_load(&header, disk->bytes, disk->n_bytes, LUKS_DISK_BYTES,
                     true, &needed, err, sizeof(err));
    return header;
}

static WeirHeader *load_good(const Disk *disk)
{
    WeirHeader *header = load(disk);

    assert_non_null(header);
    return header;
}

static int unlock(WeirHeader *header, const char *passphrase, void **key)
{
    char err[256];

    assert_int_equal(weir_secret_new(key, 64), 0);
    return weir_header_unlock(header, WEIR_HEADER_ANY_KEYSLOT, passphrase,
                              strlen(passphrase), &limits, *key, err,
                              sizeof(err));
}

static bool header_opens(WeirHeader *header, const char *passphrase)
{
    void *key;
    int ret = unlock(header, passphrase, &key);

    weir_secret_free(key, 64);
    return ret >= 0;
}

static bool opens(const Disk *disk, const char *passphrase)
{
    WeirHeader *header = load(disk);
    bool result = header && header_opens(header, passphrase);

    weir_header_free(header);
    return result;
}

/* According to cryptsetup. */
static bool opens_there(const Disk *disk, const char *passphrase)
{
    luks_write_file("disk", disk->bytes, disk->n_bytes, LUKS_DISK_BYTES);
    luks_write_file("pass", passphrase, strlen(passphrase),
                    strlen(passphrase));
    return luks_shell("cryptsetup open --test-passphrase --key-file pass "
                      "--header disk disk") == 0;
}

/* --- changes of the header --- */

static void add(WeirHeader *header, const char *known, const char *passphrase)
{
    char err[256];
    void *key;

    assert_true(unlock(header, known, &key) >= 0);
    assert_true(weir_header_add_keyslot(header, WEIR_HEADER_ANY_KEYSLOT, key,
                                        &pbkdf2, passphrase,
                                        strlen(passphrase), err, 256) >= 0);
    weir_secret_free(key, 64);
}

static void add_new(WeirHeader *header)
{
    add(header, OLD, NEW);
}

static void change_old(WeirHeader *header)
{
    char err[256];

    assert_int_equal(weir_header_change_keyslot(
        header, 0, OLD, strlen(OLD), &limits, &pbkdf2, NEW, strlen(NEW), err,
        256), 0);
}

static void remove_second(WeirHeader *header)
{
    char err[256];

    assert_int_equal(weir_header_remove_passphrase(
        header, WEIR_HEADER_ANY_KEYSLOT, SECOND, strlen(SECOND), &limits,
        false, err, 256), 0);
}

static void erase(WeirHeader *header)
{
    char err[256];

    assert_int_equal(weir_header_erase(header, err, 256), 0);
}

#define BOUND_MIN (1 << 20)
#define BOUND_MAX (2 << 20)

static void bind_old(WeirHeader *header)
{
    char err[256];

    assert_int_equal(weir_header_bind(header, BOUND_MIN, BOUND_MAX, err, 256),
                     0);
}

static void change_nothing(WeirHeader *header)
{
    (void)header;
}

/* --- the writes --- */

typedef struct Update {
    WeirHeader *header;
    WeirHeaderUpdate *update;
    WeirHeaderWrite writes[WRITES_MAX];
    size_t n;
} Update;

static void update_of(Update *u, WeirHeader *header)
{
    const WeirHeaderWrite *w;
    char err[256];

    u->header = header;
    assert_int_equal(weir_header_update_new(&u->update, header, err, 256), 0);
    for (u->n = 0; u->n < WRITES_MAX &&
         (w = weir_header_update_next(u->update)); u->n++) {
        u->writes[u->n] = *w;
        /* what they point to is gone after the last one */
        u->writes[u->n].bytes = w->bytes ? malloc(w->n_bytes) : NULL;
        if (w->bytes) {
            memcpy((void *)u->writes[u->n].bytes, w->bytes, w->n_bytes);
        }
    }
    assert_true(u->n < WRITES_MAX);
    assert_true(u->n == 0 || u->writes[u->n - 1].flush);
}

static void update_free(Update *u)
{
    for (size_t i = 0; i < u->n; i++) {
        free((void *)u->writes[i].bytes);
    }
    weir_header_update_free(u->update);
    weir_header_free(u->header);
}

static void apply(Disk *disk, const Update *u, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        disk_write(disk, &u->writes[i], 0, u->writes[i].n_bytes);
    }
}

/* Complete it on the disk. */
static void change_disk(Disk *disk, void (*change)(WeirHeader *))
{
    WeirHeader *header = load_good(disk);
    Update u;

    change(header);
    update_of(&u, header);
    apply(disk, &u, u.n);
    update_free(&u);
}

typedef void (*Check)(const Disk *disk, const void *opaque);

/* The disk with some sectors of the write, the others lost. */
static void tear(const Disk *before, const WeirHeaderWrite *w, Check check,
                 const void *opaque)
{
    size_t n = w->n_bytes / SECTOR;
    size_t step = LUKS_SHORT ? n / 2 + 1 : n > 64 ? n / 4 : 5;

    for (size_t i = 0; i <= n; i += step) {
        Disk head = disk_copy(before), tail = disk_copy(before);
        Disk one = disk_copy(before);
        size_t next = i + 1 < n ? i + 1 : n;

        disk_write(&head, w, 0, i * SECTOR);
        disk_write(&tail, w, i * SECTOR, w->n_bytes);
        disk_write(&one, w, i * SECTOR, next * SECTOR);
        check(&head, opaque);
        check(&tail, opaque);
        check(&one, opaque);
        free(head.bytes);
        free(tail.bytes);
        free(one.bytes);
    }
}

/* Of the writes first..last - 1, all subsets, and each torn beside those. */
static void cut_group(const Disk *durable, const Update *u, size_t first,
                      size_t last, bool tears, Check check, const void *opaque)
{
    assert_true(last - first <= 6);
    for (unsigned set = 0; set < 1u << (last - first); set++) {
        Disk disk = disk_copy(durable);

        for (size_t i = first; i < last; i++) {
            if (set & 1u << (i - first)) {
                disk_write(&disk, &u->writes[i], 0, u->writes[i].n_bytes);
            }
        }
        check(&disk, opaque);
        for (size_t i = first; tears && i < last; i++) {
            if (!(set & 1u << (i - first))) {
                tear(&disk, &u->writes[i], check, opaque);
            }
        }
        free(disk.bytes);
    }
}

/* Cut the update at every place; returns how many flushes there were. */
static size_t cut(const Disk *before, const Update *u, bool tears, Check check,
                  const void *opaque)
{
    Disk durable = disk_copy(before);
    size_t first = 0, flushes = 0;

    for (size_t i = 0; i < u->n; i++) {
        if (!u->writes[i].flush) {
            continue;
        }
        cut_group(&durable, u, first, i + 1, tears, check, opaque);
        for (; first <= i; first++) {
            disk_write(&durable, &u->writes[first], 0,
                       u->writes[first].n_bytes);
        }
        flushes++;
    }
    check(&durable, opaque);
    free(durable.bytes);
    return flushes;
}

/* --- what must hold --- */

typedef struct Expectation {
    void (*change)(WeirHeader *header);
    const char *always;         /* opens everywhere; or NULL */
    const char *one_of[2];      /* or one of these does */
    const char *together[2];    /* or both of these do, or none */
    const char *after;          /* opens at the end; or NULL */
    const char *not_after[2];   /* do not, even with the old metadata */
    size_t flushes;
} Expectation;

static unsigned outcomes, bound;

static void check_opens(const Disk *disk, const void *opaque)
{
    const Expectation *e = opaque;
    WeirHeader *header = load(disk);

    outcomes++;
    assert_non_null(header);
    if (weir_header_info(header)->is_bound) {
        assert_int_equal(weir_header_info(header)->bound_min_bytes, BOUND_MIN);
        assert_int_equal(weir_header_info(header)->bound_max_bytes, BOUND_MAX);
        bound++;
    }
    if (e->always) {
        assert_true(header_opens(header, e->always));
    }
    if (e->one_of[0]) {
        assert_true(header_opens(header, e->one_of[0]) ||
                    header_opens(header, e->one_of[1]));
    }
    if (e->together[0]) {
        assert_int_equal(header_opens(header, e->together[0]),
                         header_opens(header, e->together[1]));
    }
    weir_header_free(header);
}

static void check_there(const Disk *disk, const void *opaque)
{
    const Expectation *e = opaque;

    if (e->always) {
        assert_true(opens_there(disk, e->always));
    }
    if (e->one_of[0]) {
        assert_true(opens_there(disk, e->one_of[0]) ||
                    opens_there(disk, e->one_of[1]));
    }
    if (e->together[0]) {
        assert_int_equal(opens_there(disk, e->together[0]),
                         opens_there(disk, e->together[1]));
    }
}

/* After the cut another change is made, and cut as well. */
static void check_twice(const Disk *disk, const void *opaque)
{
    const Expectation *e = opaque;
    const char *known = opens(disk, OLD) ? OLD : NEW;
    const Expectation again = { .always = known };
    WeirHeader *header;
    Disk last;
    Update u;

    if (e->together[0]) {
        return;
    }
    last = disk_copy(disk);
    header = load_good(disk);
    add(header, known, "third");
    update_of(&u, header);
    cut(disk, &u, false, check_opens, &again);
    apply(&last, &u, u.n);
    assert_true(opens(&last, "third") && opens(&last, known));
    update_free(&u);
    free(last.bytes);
}

static void check_after(const Disk *before, const Update *u,
                        const Expectation *e)
{
    Disk disk = disk_copy(before);

    apply(&disk, u, u->n);
    assert_true(!e->after || opens(&disk, e->after));
    for (int old_metadata = 0; old_metadata < 2; old_metadata++) {
        for (int i = 0; i < 2 && e->not_after[i]; i++) {
            assert_false(opens(&disk, e->not_after[i]));
        }
        memcpy(disk.bytes, before->bytes, 2 * LUKS_METADATA_BYTES);
    }
    free(disk.bytes);
}

/*
 * further: cryptsetup opens it as well, and another change can be made.
 * cryptsetup has no sanitizers.
 */
static void check_change(const Disk *before, const Expectation *e,
                         bool further)
{
    WeirHeader *header = load_good(before);
    Update u;

    e->change(header);
    update_of(&u, header);
    assert_int_equal(cut(before, &u, true, check_opens, e), e->flushes);
    if (further) {
        if (!LUKS_SHORT) {
            cut(before, &u, false, check_there, e);
        }
        cut(before, &u, false, check_twice, e);
    }
    check_after(before, &u, e);
    update_free(&u);
}

static const Expectation expectations[] = {
    { .change = add_new, .always = OLD, .after = NEW, .flushes = 3 },
    { .change = change_old, .always = SECOND, .one_of = { OLD, NEW },
      .after = NEW, .not_after = { OLD }, .flushes = 4 },
    { .change = remove_second, .always = OLD, .after = OLD,
      .not_after = { SECOND }, .flushes = 3 },
    { .change = erase, .together = { OLD, SECOND },
      .not_after = { OLD, SECOND }, .flushes = 4 },
    { .change = bind_old, .always = OLD, .after = SECOND, .flushes = 2 },
};
#define N_EXPECTATIONS (sizeof(expectations) / sizeof(expectations[0]))

/* With two keyslots. */
static void make(Disk *disk)
{
    LuksImage image;
    WeirHeader *header;
    Update u;

    luks_make(&image, LUKS_CHEAP "-s 512 --luks2-metadata-size 16k "
              "--luks2-keyslots-size 1m");
    *disk = (Disk) { image.bytes, HEADER_BYTES };
    header = load_good(disk);
    assert_int_equal(weir_header_info(header)->header_bytes, HEADER_BYTES);
    add(header, OLD, SECOND);
    update_of(&u, header);
    apply(disk, &u, u.n);
    update_free(&u);
}

static void a_cut_leaves_a_header_that_opens(void **state)
{
    Disk disk;

    (void)state;
    make(&disk);
    for (size_t i = 0; i < N_EXPECTATIONS; i++) {
        check_change(&disk, &expectations[i],
                     !LUKS_SHORT || expectations[i].change == change_old);
    }
    assert_true(outcomes > (LUKS_SHORT ? 100 : 300));
    assert_true(bound > (LUKS_SHORT ? 0 : 3));
    free(disk.bytes);
}

/* The bad copy comes first, or the good one could be lost as well. */
static void a_bad_copy_is_mended_first(void **state)
{
    Disk disk;

    (void)state;
    make(&disk);
    for (int copy = 0; copy < 2; copy++) {
        size_t at = copy * LUKS_METADATA_BYTES + 4096 + 10;

        disk.bytes[at] ^= 0xff;
        for (size_t i = copy; i < N_EXPECTATIONS; i += 2) {
            Expectation e = expectations[i];

            e.flushes++;
            check_change(&disk, &e, false);
        }
        disk.bytes[at] ^= 0xff;
    }
    free(disk.bytes);
}

/* The older one of two good copies counts as bad: its areas may be gone. */
static void an_old_copy_is_mended_first(void **state)
{
    Disk disk, old;

    (void)state;
    make(&disk);
    for (int copy = 0; copy < 2; copy++) {
        const Expectation e = {
            .change = add_new, .always = OLD, .after = NEW, .flushes = 4,
        };
        size_t at = copy * LUKS_METADATA_BYTES;

        old = disk_copy(&disk);
        change_disk(&disk, remove_second);
        memcpy(disk.bytes + at, old.bytes + at, LUKS_METADATA_BYTES);
        check_change(&disk, &e, false);
        memcpy(disk.bytes, old.bytes, disk.n_bytes);
        free(old.bytes);
    }
    free(disk.bytes);
}

static void a_header_is_only_mended(void **state)
{
    Disk disk;

    (void)state;
    make(&disk);
    for (int copy = 0; copy < 2; copy++) {
        const Expectation e = {
            .change = change_nothing, .always = OLD, .after = OLD,
            .flushes = 1,
        };
        Disk bad = disk_copy(&disk);
        size_t at = copy * LUKS_METADATA_BYTES;
        WeirHeader *header;

        bad.bytes[at + 100] ^= 0xff;
        check_change(&bad, &e, true);
        change_disk(&bad, change_nothing);
        header = load_good(&bad);
        assert_false(weir_header_info(header)->repaired);
        weir_header_free(header);
        memcpy(bad.bytes + at, disk.bytes + at, LUKS_METADATA_BYTES);
        assert_memory_equal(bad.bytes, disk.bytes, disk.n_bytes);
        free(bad.bytes);
    }
    free(disk.bytes);
}

static void nothing_is_written_for_nothing(void **state)
{
    WeirHeader *header;
    Update u;
    Disk disk;

    (void)state;
    make(&disk);
    header = load_good(&disk);
    update_of(&u, header);
    assert_int_equal(u.n, 0);
    update_free(&u);
    free(disk.bytes);
}

/* One header, and one update after the other. */
static void updates_follow_each_other(void **state)
{
    WeirHeaderUpdate *update;
    const WeirHeaderWrite *w;
    WeirHeader *header;
    char err[256];
    Disk disk;

    (void)state;
    make(&disk);
    header = load_good(&disk);
    for (int i = 0; i < 2; i++) {
        if (i == 0) {
            remove_second(header);
        } else {
            add_new(header);
        }
        assert_int_equal(weir_header_update_new(&update, header, err, 256), 0);
        while ((w = weir_header_update_next(update))) {
            disk_write(&disk, w, 0, w->n_bytes);
        }
        weir_header_update_free(update);
        assert_int_equal(opens(&disk, NEW), i == 1);
        assert_false(opens(&disk, SECOND));
    }
    change_old(header);
    assert_int_equal(weir_header_update_new(&update, header, err, 256), 0);
    assert_non_null(weir_header_update_next(update));
    weir_header_update_free(update);            /* a write has failed */
    assert_int_equal(weir_header_update_new(&update, header, err, 256), -EIO);
    weir_header_free(header);
    free(disk.bytes);
}

/* Without a free area, a key would have to be overwritten in its place. */
static void no_keyslot_is_overwritten(void **state)
{
    WeirHeaderUpdate *update;
    WeirHeader *header;
    LuksImage image;
    char err[256];
    Disk disk;
    int ret;

    (void)state;
    luks_make(&image, LUKS_SMALL "-s 512");
    disk = (Disk) { image.bytes, image.n_bytes };
    header = load_good(&disk);
    ret = weir_header_change_keyslot(header, 0, OLD, strlen(OLD), &limits,
                                     &pbkdf2, NEW, strlen(NEW), err, 256);
    if (ret >= 0) {
        ret = weir_header_update_new(&update, header, err, 256);
    }
    assert_int_equal(ret, -ENOSPC);
    weir_header_free(header);
    free(disk.bytes);
}

/* --- a new header --- */

/* It opens with its passphrase, or it is not there. */
static void check_new(const Disk *disk, const void *opaque)
{
    const char *uuid = opaque;
    WeirHeader *header = load(disk);

    outcomes++;
    if (header && !strcmp(weir_header_info(header)->uuid, uuid)) {
        assert_true(header_opens(header, NEW));
        assert_false(header_opens(header, OLD));
    }
    weir_header_free(header);
}

static void a_new_header_is_whole_or_not_there(void **state)
{
    static const char uuid[] = "01234567-89ab-cdef-0123-456789abcdef";
    const WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .key_bytes = 64, .sector_bytes = 512,
        .uuid = uuid,
    };
    WeirHeader *header;
    LuksImage image;
    char err[256];
    Disk disk;
    Update u;

    (void)state;
    luks_make(&image, LUKS_CHEAP "-s 512");
    disk = (Disk) { image.bytes, WEIR_HEADER_BYTES_USUAL };
    assert_int_equal(weir_header_create(&header, &format, &pbkdf2, NEW,
                                        strlen(NEW), err, 256), 0);
    update_of(&u, header);
    assert_int_equal(cut(&disk, &u, true, check_new, uuid), 4);
    apply(&disk, &u, u.n);
    assert_true(opens(&disk, NEW));
    assert_true(opens_there(&disk, NEW));
    assert_false(opens(&disk, OLD));
    update_free(&u);
    free(disk.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_leaves_a_header_that_opens),
        cmocka_unit_test(a_bad_copy_is_mended_first),
        cmocka_unit_test(an_old_copy_is_mended_first),
        cmocka_unit_test(a_header_is_only_mended),
        cmocka_unit_test(nothing_is_written_for_nothing),
        cmocka_unit_test(updates_follow_each_other),
        cmocka_unit_test(no_keyslot_is_overwritten),
        cmocka_unit_test(a_new_header_is_whole_or_not_there),
    };

    return cmocka_run_group_tests(tests, luks_folder_make,
                                  luks_folder_remove);
}

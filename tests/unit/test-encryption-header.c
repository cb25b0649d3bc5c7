/* SPDX-License-Identifier: GPL-2.0-or-later */
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

#define PASSPHRASE "correct horse"      /* as in the file "key" */

static const WeirHeaderLimits limits = {
    .memory_bytes = 64 << 20, .time_s = 5,
};
static const WeirHeaderKdf pbkdf2 = { .type = "pbkdf2", .iterations = 1000 };

static int load(WeirHeader **header, const LuksImage *image, bool detached,
                char err[256])
{
    uint64_t needed;

    err[0] = 0;
    return weir_header_load(header, image->bytes, image->n_bytes,
                            image->disk_bytes, detached, &needed, err, 256);
}

static WeirHeader *load_good(const LuksImage *image, bool detached)
{
    WeirHeader *header;
    char err[256];

    if (load(&header, image, detached, err) != 0) {
        fail_msg("%s", err);
    }
    return header;
}

static int unlock(WeirHeader *header, int keyslot, const char *passphrase,
                  const WeirHeaderLimits *l, uint8_t key[64], char err[256])
{
    uint32_t bytes = weir_header_info(header)->key_bytes;
    void *secret;
    int ret;

    err[0] = 0;
    assert_int_equal(weir_secret_new(&secret, bytes), 0);
    ret = weir_header_unlock(header, keyslot, passphrase, strlen(passphrase),
                             l, secret, err, 256);
    memcpy(key, secret, bytes);
    weir_secret_free(secret, bytes);
    return ret;
}

/* The volume key, according to cryptsetup. */
static void check_key(const char *name, const uint8_t *key, size_t key_bytes)
{
    uint8_t *theirs;
    size_t n;

    assert_int_equal(luks_shell("rm -f vk; cryptsetup luksDump -q "
                                "--dump-volume-key --volume-key-file vk "
                                "--key-file key %s", name), 0);
    theirs = luks_read_file("vk", &n);
    assert_int_equal(n, key_bytes);
    assert_memory_equal(theirs, key, n);
    free(theirs);
}

/* --- of cryptsetup --- */

static void check_image(const char *kdf, unsigned key_bits, unsigned sector,
                        bool detached)
{
    const WeirHeaderInfo *info;
    LuksImage image;
    WeirHeader *header;
    uint8_t key[64];
    char options[256], err[256];

    snprintf(options, sizeof(options), "%s -s %u --sector-size %u %s", kdf,
             key_bits, sector, detached ? "--header header" : "");
    luks_make(&image, options);
    header = load_good(&image, detached);
    info = weir_header_info(header);
    assert_int_equal(info->key_bytes, key_bits / 8);
    assert_int_equal(info->sector_bytes, sector);
    assert_int_equal(info->data_offset_bytes, detached ? 0 : 16 << 20);
    assert_true(info->data_bytes == UINT64_MAX);
    assert_int_equal(info->tweak_units, 0);
    assert_false(info->repaired);
    assert_int_equal(unlock(header, WEIR_HEADER_ANY_KEYSLOT, PASSPHRASE,
                            &limits, key, err), 0);
    check_key(detached ? "header" : "image", key, info->key_bytes);
    assert_int_equal(unlock(header, WEIR_HEADER_ANY_KEYSLOT, "wrong", &limits,
                            key, err), -EACCES);
    assert_string_equal(err, "the passphrase opens no keyslot");
    weir_header_free(header);
    luks_free(&image);
}

static void images_of_cryptsetup_open(void **state)
{
    static const char *const kdfs[] = {
        LUKS_CHEAP,
        "--pbkdf argon2i --pbkdf-force-iterations 4 --pbkdf-memory 64 "
        "--pbkdf-parallel 1",
        "--pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 64 "
        "--pbkdf-parallel 2",
    };
    const unsigned least = LUKS_SHORT ? 512 : 256;

    (void)state;
    for (int i = 0; i < 3; i++) {
        for (unsigned bits = least; bits <= 512; bits += 256) {
            check_image(kdfs[i], bits, 512, false);
            check_image(kdfs[i], bits, 4096, false);
            check_image(kdfs[i], bits, 512, true);
            check_image(kdfs[i], bits, 4096, true);
        }
    }
    check_image(LUKS_CHEAP, 512, 1024, false);
    check_image(LUKS_CHEAP, 512, 2048, true);
}

/* Tokens, labels, keyslots in another order, another size of everything. */
static void unusual_images_open(void **state)
{
    LuksImage image;
    WeirHeader *header;
    uint8_t key[64];
    char err[256];

    (void)state;
    luks_make(&image, LUKS_CHEAP "--key-slot 7 --label x "
              "--luks2-metadata-size 4m --luks2-keyslots-size 4m");
    luks_free(&image);
    assert_int_equal(luks_shell(
        "printf other >key2; "
        "cryptsetup luksAddKey -q " LUKS_CHEAP "--key-file key "
        "--key-slot 3 image key2 && "
        "cryptsetup config --key-slot 3 --priority ignore image && "
        "cryptsetup token add --key-description x image"), 0);
    image.bytes = luks_read_file("image", &image.n_bytes);
    image.disk_bytes = image.n_bytes;
    header = load_good(&image, false);
    assert_int_equal(weir_header_info(header)->header_bytes, 12 << 20);
    assert_int_equal(unlock(header, WEIR_HEADER_ANY_KEYSLOT, PASSPHRASE,
                            &limits, key, err), 7);
    assert_int_equal(unlock(header, WEIR_HEADER_ANY_KEYSLOT, "other", &limits,
                            key, err), -EACCES);
    assert_int_equal(unlock(header, 3, "other", &limits, key, err), 3);
    assert_int_equal(unlock(header, 3, PASSPHRASE, &limits, key, err),
                     -EACCES);
    assert_int_equal(unlock(header, 0, PASSPHRASE, &limits, key, err),
                     -ENOENT);
    assert_string_equal(err, "keyslot 0 is not in use");
    assert_int_equal(unlock(header, 32, PASSPHRASE, &limits, key, err),
                     -ENOENT);
    weir_header_free(header);
    luks_free(&image);
}

/* A caller that has not read enough is told how much there is. */
static void length_that_is_needed_is_told(void **state)
{
    LuksImage image;
    WeirHeader *header;
    uint64_t needed;
    char err[256];

    (void)state;
    luks_make(&image, LUKS_SMALL);
    assert_int_equal(weir_header_load(&header, image.bytes, 65536,
                                      image.disk_bytes, false, &needed, err,
                                      256), -EMSGSIZE);
    assert_int_equal(needed, LUKS_SMALL_BYTES);
    assert_int_equal(weir_header_load(&header, image.bytes, needed,
                                      image.disk_bytes, false, &needed, err,
                                      256), 0);
    weir_header_free(header);
    assert_int_equal(weir_header_load(&header, image.bytes, 65536, 65536,
                                      false, &needed, err, 256), -EINVAL);
    luks_free(&image);
}

/* --- headers that are refused --- */

static const struct {
    const char *from, *to, *message;
    int ret;
} defects[] = {
    { "\"type\":\"crypt\"", "\"type\":\"linear\"",
      "the type of its segment is not 'crypt'", -ENOTSUP },
    { "\"encryption\":\"aes-xts-plain64\",\"sector_size\"",
      "\"encryption\":\"cipher_null-ecb\",\"sector_size\"",
      "another cipher than aes-xts-plain64", -ENOTSUP },
    { "\"encryption\":\"aes-xts-plain64\",\"sector_size\"",
      "\"encryption\":\"aes-cbc-essiv:sha256\",\"sector_size\"",
      "another cipher than aes-xts-plain64", -ENOTSUP },
    { "\"sector_size\":", "\"integrity\":{\"type\":\"hmac(sha256)\","
      "\"journal_encryption\":\"none\",\"journal_integrity\":\"none\"},"
      "\"sector_size\":",
      "integrity protection, which is not supported", -ENOTSUP },
    { "\"keyslots_size\":", "\"requirements\":{\"mandatory\":"
      "[\"some-novelty\"]},\"keyslots_size\":",
      "requires something that is not known here", -ENOTSUP },
    { "\"iv_tweak\":\"0\"", "\"iv_tweak\":\"18446744073709551000\"",
      "tweak of the image's data is too large", -EINVAL },
    { "\"iv_tweak\":\"0\"", "\"iv_tweak\":\"18446744073709551616\"",
      "", -EINVAL },
    { "\"offset\":\"16777216\",\"size\":\"dynamic\"",
      "\"offset\":\"16384\",\"size\":\"dynamic\"", "", -EINVAL },
    { "\"offset\":\"16777216\",\"size\":\"dynamic\"",
      "\"offset\":\"9223372036854771712\",\"size\":\"4096000\"",
      "", -EINVAL },
    { "\"keyslots_size\":\"262144\"", "\"keyslots_size\":\"140000000000\"",
      "", -EINVAL },
    { "\"sector_size\":512", "\"sector_size\":8192", "", -EINVAL },
    { "\"sector_size\":512", "\"sector_size\":0", "", -EINVAL },
    { "\"digests\":{", "\"digests\":", "no valid LUKS2 header", -EINVAL },
    /* areas of keyslots: over the metadata, and behind their end */
    { "\"offset\":\"32768\"", "\"offset\":\"16384\"",
      "no valid LUKS2 header", -EINVAL },
    { "\"offset\":\"32768\"", "\"offset\":\"262144\"",
      "no valid LUKS2 header", -EINVAL },
    { "\"offset\":\"32768\"", "\"offset\":\"18446744073709551360\"",
      "no valid LUKS2 header", -EINVAL },
    { "\"json_size\":\"12288\"", "\"json_size\":\"4294967296\"",
      "no valid LUKS2 header", -EINVAL },
};

static void defects_have_their_messages(void **state)
{
    LuksImage good;

    (void)state;
    luks_make(&good, LUKS_SMALL "--sector-size 512 --offset 32768");
    for (size_t i = 0; i < sizeof(defects) / sizeof(defects[0]); i++) {
        LuksImage bad;
        WeirHeader *header;
        char err[256];

        luks_copy(&bad, &good);
        luks_edit(&bad, defects[i].from, defects[i].to);
        if (load(&header, &bad, false, err) != defects[i].ret ||
            !strstr(err, defects[i].message) || !err[0] ||
            strchr(err, '\n')) {
            fail_msg("%s: '%s'", defects[i].to, err);
        }
        assert_null(header);
        luks_free(&bad);
    }
    luks_free(&good);
}

/* Made by cryptsetup, for a new header that is apart. */
static void begin_with_cryptsetup(LuksImage *image, const char *options)
{
    assert_int_equal(luks_shell("rm -f image header; truncate -s 1M image && "
                                "cryptsetup reencrypt -q --encrypt "
                                "--init-only " LUKS_CHEAP "-s 512 "
                                "--key-file key --header header %s image",
                                options), 0);
    image->bytes = luks_read_file("header", &image->n_bytes);
    image->disk_bytes = image->n_bytes;
}

static void reencryption_that_has_begun_is_told(void **state)
{
    LuksImage image;
    WeirHeader *header;
    uint8_t keys[128] = { 0 };
    char err[256];

    (void)state;
    begin_with_cryptsetup(&image, "--sector-size 4096");
    assert_int_equal(load(&header, &image, true, err), 0);
    assert_true(weir_header_info(header)->has_job);
    assert_int_equal(weir_header_info(header)->sector_bytes, 4096);
    assert_int_equal(weir_header_info(header)->key_bytes, 64);
    assert_int_equal(weir_header_unlock_job(header, "correct horse", 13,
                                            &limits, keys, keys + 64, err,
                                            sizeof(err)), 0);
    assert_memory_equal(keys, (uint8_t[64]) { 0 }, 64);
    assert_memory_not_equal(keys + 64, (uint8_t[64]) { 0 }, 64);
    assert_int_equal(weir_header_unlock_job(header, "wrong", 5, &limits, keys,
                                            keys + 64, err, sizeof(err)),
                     -EACCES);
    weir_header_free(header);
    luks_free(&image);
}

static void reencryptions_of_other_kinds_are_refused(void **state)
{
    static const char *const options[][2] = {
        { "--resilience journal", "resilience 'journal'" },
        { "--resilience none", "resilience 'none'" },
    };
    LuksImage image;
    WeirHeader *header;
    char err[256];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin_with_cryptsetup(&image, options[i][0]);
        assert_int_equal(load(&header, &image, true, err), -ENOTSUP);
        assert_non_null(strstr(err, options[i][1]));
        luks_free(&image);
    }
}

/* Two keyslots whose areas overlap: one would overwrite the other. */
static void overlapping_areas_are_refused(void **state)
{
    LuksImage image;
    WeirHeader *header;
    char err[256];

    (void)state;
    luks_make(&image, LUKS_CHEAP);
    luks_free(&image);
    assert_int_equal(luks_shell("printf other >key2; cryptsetup luksAddKey -q "
                                LUKS_CHEAP "--key-file key image key2"), 0);
    image.bytes = luks_read_file("image", &image.n_bytes);
    image.disk_bytes = image.n_bytes;
    weir_header_free(load_good(&image, false));
    luks_edit(&image, "\"offset\":\"290816\"", "\"offset\":\"36864\"");
    assert_int_equal(load(&header, &image, false, err), -EINVAL);
    assert_non_null(strstr(err, "no valid LUKS2 header"));
    luks_free(&image);
}

/* Costs are looked at before they are paid. */
static void costs_are_bounded(void **state)
{
    static const char kdf[] =
        "\"type\":\"pbkdf2\",\"hash\":\"sha256\",\"iterations\":1000";
    static const struct {
        const char *to, *message;
        int ret;
    } hostile[] = {
        { "\"type\":\"argon2id\",\"time\":4294967295,\"memory\":32768,"
          "\"cpus\":1", "keyslot 0 needs 134217728.0 s", -E2BIG },
        { "\"type\":\"argon2id\",\"time\":4,\"memory\":5242880,\"cpus\":1",
          "keyslot 0 needs 5120 MiB of memory; the limit is 64 MiB", -E2BIG },
        { "\"type\":\"argon2id\",\"time\":4,\"memory\":32768,\"cpus\":1000",
          "more than 16 threads", -EINVAL },
        { "\"type\":\"pbkdf2\",\"hash\":\"sha256\",\"iterations\":2147483647",
          "keyslot 0 needs 2147.5 s", -E2BIG },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        WeirHeader *header;
        LuksImage image;
        uint8_t key[64];
        char err[256];

        luks_make(&image, LUKS_SMALL);
        luks_edit(&image, kdf, hostile[i].to);
        header = load_good(&image, false);
        for (int keyslot = -1; keyslot <= 0; keyslot++) {
            if (unlock(header, keyslot, PASSPHRASE, &limits, key, err) !=
                hostile[i].ret || !strstr(err, hostile[i].message)) {
                fail_msg("%s: '%s'", hostile[i].to, err);
            }
        }
        weir_header_free(header);
        luks_free(&image);
    }
}

/* The digest is computed at each trial, after the keyslot's own part. */
static void cost_of_the_digest_counts(void **state)
{
    WeirHeader *header;
    LuksImage image;
    uint8_t key[64];
    char err[256];

    (void)state;
    luks_make(&image, LUKS_SMALL);
    luks_edit(&image,
              "\"segments\":[\"0\"],\"hash\":\"sha256\",\"iterations\":1000",
              "\"segments\":[\"0\"],\"hash\":\"sha256\","
              "\"iterations\":2147483647");
    header = load_good(&image, false);
    assert_int_equal(unlock(header, 0, PASSPHRASE, &limits, key, err), -E2BIG);
    assert_non_null(strstr(err, "keyslot 0 needs 2147.5 s"));
    weir_header_free(header);
    luks_free(&image);
}

/* --- damage --- */

static void flip_each(LuksImage *image, bool both)
{
    for (size_t at = 0; at < LUKS_METADATA_BYTES; at++) {
        WeirHeader *header;
        char err[256];
        bool is_text = at < 480 || (at >= 4096 && image->bytes[at]);
        int ret;

        /* zeroes: now and then; the unused half of the checksum: never */
        if ((at >= 480 && at < 512) || (!is_text && at % 61)) {
            continue;
        }
        if (!both && at % 4) {
            continue;                   /* a repair takes its time */
        }
        image->bytes[at] ^= 0x11;
        image->bytes[at + LUKS_METADATA_BYTES] ^= both ? 0x11 : 0;
        ret = load(&header, image, false, err);
        if (both) {
            assert_int_equal(ret, -EINVAL);
            assert_true(err[0]);
        } else {
            assert_int_equal(ret, 0);
            assert_true(weir_header_info(header)->repaired);
            weir_header_free(header);
        }
        image->bytes[at] ^= 0x11;
        image->bytes[at + LUKS_METADATA_BYTES] ^= both ? 0x11 : 0;
    }
}

static void one_bad_copy_is_repaired(void **state)
{
    LuksImage image;

    (void)state;
    luks_make(&image, LUKS_SMALL);
    flip_each(&image, false);
    luks_free(&image);
}

static void two_bad_copies_are_an_error(void **state)
{
    LuksImage image;

    (void)state;
    luks_make(&image, LUKS_SMALL);
    flip_each(&image, true);
    luks_free(&image);
}

/* Text that is wrong though its checksum is right: any answer but a crash. */
static void wrong_text_with_good_checksums(void **state)
{
    LuksImage image;
    unsigned opened = 0, refused = 0;

    (void)state;
    luks_make(&image, LUKS_SMALL);
    for (size_t at = 4096; image.bytes[at]; at++) {
        WeirHeader *header;
        uint8_t key[64];
        char err[256];

        for (int i = 0; i < 2; i++) {
            image.bytes[at + i * LUKS_METADATA_BYTES] ^= 1;
        }
        luks_checksum(&image);
        if (load(&header, &image, false, err) == 0) {
            if (unlock(header, WEIR_HEADER_ANY_KEYSLOT, PASSPHRASE, &limits,
                       key, err) == 0) {
                opened++;
            } else {
                assert_true(err[0]);
            }
            weir_header_free(header);
        } else {
            refused++;
        }
        for (int i = 0; i < 2; i++) {
            image.bytes[at + i * LUKS_METADATA_BYTES] ^= 1;
        }
    }
    assert_in_range(opened, 1, 1000);
    assert_in_range(refused, 100, 2000);
    luks_free(&image);
}

static void what_is_cut_off_is_refused(void **state)
{
    static const size_t lengths[] = {
        0, 1, 511, 512, 4095, 4096, 16384, 16385, 32768, 65536,
    };
    LuksImage image;

    (void)state;
    luks_make(&image, LUKS_SMALL);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        LuksImage cut = { image.bytes, lengths[i], lengths[i] };
        WeirHeader *header;
        char err[256];

        assert_int_equal(load(&header, &cut, false, err), -EINVAL);
        assert_null(header);
        assert_true(err[0]);
    }
    luks_free(&image);
}

/* --- our own --- */

static WeirHeader *create(const WeirHeaderFormat *format,
                          const WeirHeaderKdf *kdf)
{
    WeirHeader *header;
    char err[256];

    if (weir_header_create(&header, format, kdf, PASSPHRASE,
                           strlen(PASSPHRASE), err, sizeof(err)) != 0) {
        fail_msg("%s", err);
    }
    return header;
}

/* To the file "ours". */
static void write_header(WeirHeader *header)
{
    size_t n = weir_header_info(header)->header_bytes;
    uint8_t *bytes = malloc(n);

    assert_int_equal(weir_header_read(header, bytes), 0);
    luks_write_file("ours", bytes, n, LUKS_DISK_BYTES);
    free(bytes);
}

static int their_trial(const char *passphrase)
{
    return luks_shell("printf '%s' | cryptsetup open --test-passphrase "
                      "--key-file - ours", passphrase);
}

static void check_created(const WeirHeaderKdf *kdf, uint32_t key_bytes,
                          uint32_t sector_bytes, bool detached)
{
    const WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .detached = detached,
        .key_bytes = key_bytes, .sector_bytes = sector_bytes,
        .uuid = "01234567-89ab-cdef-0123-456789abcdef",
    };
    WeirHeader *header = create(&format, kdf);
    const WeirHeaderInfo *info = weir_header_info(header);
    uint8_t key[64];
    char err[256];

    assert_string_equal(info->uuid, format.uuid);
    assert_int_equal(info->key_bytes, key_bytes);
    assert_int_equal(info->sector_bytes, sector_bytes);
    assert_int_equal(info->data_offset_bytes, detached ? 0 : 16 << 20);
    assert_int_equal(unlock(header, 0, PASSPHRASE, &limits, key, err), 0);
    write_header(header);
    assert_int_equal(luks_shell(
        "cryptsetup luksDump ours >dump && grep -q 'sector: %u ' dump && "
        "grep -q 'offset: %u ' dump && grep -q 'PBKDF: *%s$' dump && "
        "grep -q 'UUID:.*%s' dump", sector_bytes, detached ? 0 : 16 << 20,
        kdf->type, format.uuid), 0);
    assert_int_equal(their_trial(PASSPHRASE), 0);
    assert_int_equal(their_trial("wrong"), 2);
    check_key("ours", key, key_bytes);
    weir_header_free(header);
}

static void cryptsetup_opens_what_is_created(void **state)
{
    static const WeirHeaderKdf argon2id = {
        .type = "argon2id", .iterations = 4, .memory_kib = 64, .threads = 2,
    };
    static const WeirHeaderKdf argon2i = {
        .type = "argon2i", .iterations = 4, .memory_kib = 64, .threads = 1,
    };

    (void)state;
    for (int i = LUKS_SHORT ? 6 : 0; i < 8; i++) {
        uint32_t key_bytes = i & 1 ? 64 : 32;
        uint32_t sector_bytes = i & 2 ? 4096 : 512;

        check_created(&pbkdf2, key_bytes, sector_bytes, i & 4);
    }
    check_created(&argon2id, 64, 4096, false);
    check_created(&argon2i, 64, 512, true);
}

static void formats_that_cannot_be(void **state)
{
    WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .key_bytes = 64, .sector_bytes = 512,
    };
    static const WeirHeaderKdf bad_kdfs[] = {
        { .type = "scrypt", .iterations = 1000 },
        { .type = "pbkdf2", .iterations = 1 },
        { .type = "argon2id", .iterations = 4, .memory_kib = 1, .threads = 1 },
    };
    WeirHeader *header;
    char err[256];

    (void)state;
    for (size_t i = 0; i < sizeof(bad_kdfs) / sizeof(bad_kdfs[0]); i++) {
        assert_int_equal(weir_header_create(&header, &format, &bad_kdfs[i],
                                            "x", 1, err, 256), -EINVAL);
        assert_null(header);
    }
    format.sector_bytes = 1024;
    assert_int_equal(weir_header_create(&header, &format, &pbkdf2, "x", 1,
                                        err, 256), -EINVAL);
    format.sector_bytes = 512;
    format.key_bytes = 48;
    assert_int_equal(weir_header_create(&header, &format, &pbkdf2, "x", 1,
                                        err, 256), -EINVAL);
    format.key_bytes = 64;
    format.uuid = "not one";
    assert_int_equal(weir_header_create(&header, &format, &pbkdf2, "x", 1,
                                        err, 256), -EINVAL);
    format.uuid = NULL;
    format.disk_bytes = 16 << 20;
    assert_int_equal(weir_header_create(&header, &format, &pbkdf2, "x", 1,
                                        err, 256), -EINVAL);
    assert_string_equal(err, "there is no room for data behind the header of "
                        "16 MiB");
}

/* Two headers of one format have two keys, or nothing is secret. */
static void volume_keys_differ(void **state)
{
    const WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .key_bytes = 64, .sector_bytes = 512,
    };
    uint8_t keys[2][64];
    char err[256];

    (void)state;
    for (int i = 0; i < 2; i++) {
        WeirHeader *header = create(&format, &pbkdf2);

        assert_int_equal(unlock(header, 0, PASSPHRASE, &limits, keys[i], err),
                         0);
        weir_header_free(header);
    }
    assert_memory_not_equal(keys[0], keys[1], 64);
}

/* --- keyslots --- */

static int add(WeirHeader *header, int keyslot, const uint8_t *key,
               const char *passphrase, char err[256])
{
    return weir_header_add_keyslot(header, keyslot, key, &pbkdf2, passphrase,
                                   strlen(passphrase), err, 256);
}

static void keyslots_are_added_changed_and_removed(void **state)
{
    const WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .key_bytes = 64, .sector_bytes = 512,
    };
    WeirHeader *header = create(&format, &pbkdf2);
    uint8_t key[64], wrong_key[64] = { 1 };
    char err[256];

    (void)state;
    assert_int_equal(unlock(header, 0, PASSPHRASE, &limits, key, err), 0);
    assert_int_equal(add(header, 0, key, "second", err), -EEXIST);
    assert_int_equal(add(header, 32, key, "second", err), -EINVAL);
    assert_true(add(header, -1, wrong_key, "second", err) < 0);
    assert_int_equal(add(header, WEIR_HEADER_ANY_KEYSLOT, key, "second", err),
                     1);
    assert_int_equal(add(header, 5, key, "third", err), 5);
    write_header(header);
    assert_int_equal(their_trial("second"), 0);
    assert_int_equal(their_trial("third"), 0);

    assert_int_equal(weir_header_change_keyslot(
        header, 1, "wrong", 5, &limits, &pbkdf2, "new", 3, err, 256), -EACCES);
    assert_int_equal(weir_header_change_keyslot(
        header, 1, "second", 6, &limits, &pbkdf2, "new", 3, err, 256), 1);
    write_header(header);
    assert_int_equal(their_trial("second"), 2);
    assert_int_equal(their_trial("new"), 0);
    assert_int_equal(unlock(header, WEIR_HEADER_ANY_KEYSLOT, "new", &limits,
                            key, err), 1);

    assert_int_equal(weir_header_remove_keyslot(header, 9, true, err, 256),
                     -ENOENT);
    assert_int_equal(weir_header_remove_keyslot(header, 1, false, err, 256),
                     0);
    assert_int_equal(weir_header_remove_keyslot(header, 5, false, err, 256),
                     0);
    assert_int_equal(weir_header_remove_keyslot(header, 0, false, err, 256),
                     -EBUSY);
    write_header(header);
    assert_int_equal(their_trial("new"), 2);
    assert_int_equal(their_trial(PASSPHRASE), 0);
    assert_int_equal(weir_header_remove_keyslot(header, 0, true, err, 256),
                     0);
    write_header(header);
    assert_int_not_equal(their_trial(PASSPHRASE), 0);
    weir_header_free(header);
}

static void all_keyslots_in_use(void **state)
{
    const WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .key_bytes = 64, .sector_bytes = 512,
    };
    WeirHeader *header = create(&format, &pbkdf2);
    uint8_t key[64];
    char err[256];

    (void)state;
    assert_int_equal(unlock(header, 0, PASSPHRASE, &limits, key, err), 0);
    for (int i = 1; i < WEIR_HEADER_KEYSLOTS; i++) {
        assert_int_equal(add(header, WEIR_HEADER_ANY_KEYSLOT, key, "x", err),
                         i);
    }
    assert_int_equal(add(header, WEIR_HEADER_ANY_KEYSLOT, key, "x", err),
                     -ENOSPC);
    weir_header_free(header);
}

/* --- the length of the disk --- */

static void check_bound(WeirHeader *header, uint64_t min, uint64_t max)
{
    const WeirHeaderInfo *info = weir_header_info(header);

    assert_true(info->is_bound);
    assert_true(info->bound_min_bytes == min);
    assert_true(info->bound_max_bytes == max);
}

/* As it is when it has been written and read again. */
static void reload_ours(WeirHeader **header)
{
    LuksImage image;

    write_header(*header);
    weir_header_free(*header);
    image.bytes = luks_read_file("ours", &image.n_bytes);
    image.disk_bytes = image.n_bytes;
    *header = load_good(&image, true);
    luks_free(&image);
}

static void headers_are_bound_to_a_length(void **state)
{
    const WeirHeaderFormat format = {
        .disk_bytes = LUKS_DISK_BYTES, .detached = true, .key_bytes = 64,
        .sector_bytes = 512,
    };
    static const uint64_t lengths[][2] = {
        { 0, 0 }, { 4096, 4096 }, { 4096, 8192 }, { 512, INT64_MAX },
        { INT64_MAX, INT64_MAX }, { 1 << 30, 1 << 30 },
    };
    WeirHeader *header = create(&format, &pbkdf2);
    char err[256];

    (void)state;
    assert_false(weir_header_info(header)->is_bound);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(weir_header_bind(header, lengths[i][0], lengths[i][1],
                                          err, 256), 0);
        check_bound(header, lengths[i][0], lengths[i][1]);
        reload_ours(&header);
        check_bound(header, lengths[i][0], lengths[i][1]);
    }
    assert_int_equal(luks_shell(
        "cryptsetup luksDump ours | grep -A1 '^Tokens' | grep -q weir-data && "
        "cryptsetup luksDump ours | grep -c weir-data | grep -qx 1"), 0);
    assert_int_equal(their_trial(PASSPHRASE), 0);
    weir_header_free(header);
}

static void bad_tokens_are_refused(void **state)
{
    static const char *const bad[] = {
        "", ",\"length\":[]", ",\"length\":\"-1\"", ",\"length\":1.5",
        ",\"length\":\"2\",\"length-max\":\"1\"",
        ",\"length\":\"2\",\"length-max\":{}",
        ",\"length\":\"9223372036854775808\"",
        ",\"length\":\"1\"},\"1\":{\"type\":\"weir-data\","
        "\"keyslots\":[],\"length\":\"1\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        WeirHeader *header;
        LuksImage image;
        char err[256], token[256];

        luks_make(&image, LUKS_SMALL);
        snprintf(token, sizeof(token), "\"tokens\":{\"0\":{\"type\":"
                 "\"weir-data\",\"keyslots\":[]%s}}", bad[i]);
        luks_edit(&image, "\"tokens\":{}", token);
        assert_int_equal(load(&header, &image, false, err), -EINVAL);
        assert_non_null(strstr(err, "the header's token 0, of type weir-data, "
                               "is not valid"));
        luks_free(&image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_of_cryptsetup_open),
        cmocka_unit_test(unusual_images_open),
        cmocka_unit_test(length_that_is_needed_is_told),
        cmocka_unit_test(defects_have_their_messages),
        cmocka_unit_test(reencryption_that_has_begun_is_told),
        cmocka_unit_test(reencryptions_of_other_kinds_are_refused),
        cmocka_unit_test(overlapping_areas_are_refused),
        cmocka_unit_test(costs_are_bounded),
        cmocka_unit_test(cost_of_the_digest_counts),
        cmocka_unit_test(one_bad_copy_is_repaired),
        cmocka_unit_test(two_bad_copies_are_an_error),
        cmocka_unit_test(wrong_text_with_good_checksums),
        cmocka_unit_test(what_is_cut_off_is_refused),
        cmocka_unit_test(cryptsetup_opens_what_is_created),
        cmocka_unit_test(formats_that_cannot_be),
        cmocka_unit_test(volume_keys_differ),
        cmocka_unit_test(keyslots_are_added_changed_and_removed),
        cmocka_unit_test(all_keyslots_in_use),
        cmocka_unit_test(headers_are_bound_to_a_length),
        cmocka_unit_test(bad_tokens_are_refused),
    };

    return cmocka_run_group_tests(tests, luks_folder_make,
                                  luks_folder_remove);
}

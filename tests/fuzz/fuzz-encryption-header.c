/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever is in the header of an image, loading it and looking at it is free
 * of crashes; what is refused has a message of one line; what is taken has
 * sizes and places that make sense.
 *
 * The input is a byte of flags, and changes to a header that was good: kind (1
 * byte), place (2), length (1), bytes. Checksums are put right afterwards,
 * so that what is behind them is reached. Flags: 1, they are not; 2, the
 * header is detached; 4, half of it is given at first; 8, the key is derived.
 */
#include <errno.h>
#include <gcrypt.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "encryption/header.h"
#include "encryption/secret.h"
#include "encryption/xts.h"

#define COPY_BYTES 16384
#define JSON_OFFSET 4096
#define JSON_BYTES (COPY_BYTES - JSON_OFFSET)
#define CHECKSUM_OFFSET 448
#define KEYSLOTS_BYTES (256 * 1024)
#define HEADER_BYTES (2 * COPY_BYTES + KEYSLOTS_BYTES)
#define DISK_BYTES (17u << 20)
#define PASSPHRASE "passphrase"

enum { UNSEALED = 1, DETACHED = 2, IN_HALVES = 4, DERIVE = 8 };

static uint8_t *made, *bytes;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* --- a good header --- */

static void format(struct crypt_device *device)
{
    const struct crypt_pbkdf_type kdf = {
        .type = "pbkdf2", .hash = "sha256", .iterations = 1000,
        .flags = CRYPT_PBKDF_NO_BENCHMARK,
    };
    struct crypt_params_luks2 params = { .sector_size = 512 };

    must(crypt_set_metadata_size(device, COPY_BYTES, KEYSLOTS_BYTES) == 0 &&
         crypt_set_pbkdf_type(device, &kdf) == 0 &&
         crypt_set_data_offset(device, DISK_BYTES / 2 / 512) == 0 &&
         crypt_format(device, CRYPT_LUKS2, "aes", "xts-plain64", NULL, NULL,
                      64, &params) == 0 &&
         crypt_keyslot_add_by_volume_key(device, 0, NULL, 0, PASSPHRASE,
                                         strlen(PASSPHRASE)) == 0,
         "no header can be made");
}

static void be_quiet(int level, const char *message, void *opaque)
{
    (void)level;
    (void)message;
    (void)opaque;
}

static void make(void)
{
    int fd = memfd_create("fuzz", 0);
    struct crypt_device *device;
    char path[32];

    must(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0, "no file in memory");
    must(weir_xts_library() == 0, "no libgcrypt");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    must(crypt_init(&device, path) == 0, "no device");
    crypt_set_log_callback(device, be_quiet, NULL);
    format(device);
    crypt_free(device);
    made = malloc(HEADER_BYTES);
    bytes = malloc(HEADER_BYTES);
    must(pread(fd, made, HEADER_BYTES, 0) == HEADER_BYTES, "it can be read");
    close(fd);
}

/* --- changes --- */

static char *json_of(int copy)
{
    return (char *)bytes + copy * COPY_BYTES + JSON_OFFSET;
}

/* Replace n bytes of the text; it stays within its place, with a final 0. */
static void replace(char *json, size_t at, size_t n, const uint8_t *by,
                    size_t by_bytes)
{
    size_t length = strnlen(json, JSON_BYTES - 1);

    if (at > length || n > length - at ||
        length - n + by_bytes > JSON_BYTES - 1) {
        return;
    }
    memmove(json + at + by_bytes, json + at + n, length - at - n);
    memcpy(json + at, by, by_bytes);
    memset(json + length - n + by_bytes, 0,
           JSON_BYTES - (length - n + by_bytes));
}

/* How long a value of the text is. */
static size_t value_bytes(const char *value)
{
    bool quoted = false;
    unsigned depth = 0;
    size_t n = 0;

    for (; value[n]; n++) {
        quoted ^= value[n] == '"';
        if (!quoted && depth == 0 && strchr(",}]", value[n])) {
            break;
        }
        depth += !quoted && strchr("{[", value[n]);
        depth -= !quoted && strchr("}]", value[n]);
    }
    return n;
}

/* The value of the member with that number, counted through all objects. */
static void replace_value(char *json, unsigned number, const uint8_t *by,
                          size_t by_bytes)
{
    char *at = strstr(json, "\":");

    while (at && number-- > 0) {
        at = strstr(at + 2, "\":");
    }
    if (at) {
        replace(json, at + 2 - json, value_bytes(at + 2), by, by_bytes);
    }
}

static void change(uint8_t kind, unsigned place, const uint8_t *by, size_t n)
{
    if (kind % 4 == 0) {                /* one copy, not its text */
        place %= JSON_OFFSET - n;
        memcpy(bytes + (kind / 4 & 1) * COPY_BYTES + place, by, n);
        return;
    }
    for (int copy = 0; copy < 2; copy++) {
        char *json = json_of(copy);

        json[JSON_BYTES - 1] = 0;
        if (kind % 4 == 1) {
            replace(json, place % JSON_BYTES, n, by, n);
        } else if (kind % 4 == 2) {
            replace(json, place % JSON_BYTES, kind / 4, by, n);
        } else {
            replace_value(json, place % 64, by, n);
        }
    }
}

static void change_all(const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t n = data[3] < size - 4 ? data[3] : size - 4;

        change(data[0], data[1] << 8 | data[2], data + 4, n);
        data += 4 + n;
        size -= 4 + n;
    }
}

static void seal(void)
{
    for (int copy = 0; copy < 2; copy++) {
        uint8_t *at = bytes + copy * COPY_BYTES;

        memset(at + CHECKSUM_OFFSET, 0, 64);
        gcry_md_hash_buffer(GCRY_MD_SHA256, at + CHECKSUM_OFFSET, at,
                            COPY_BYTES);
    }
}

/* --- use --- */

static void check_message(const char *err)
{
    must(err[0] && !strchr(err, '\n'), "refused without a line of reason");
}

static void check_info(const WeirHeaderInfo *info, bool detached)
{
    uint32_t sector = info->sector_bytes;
    uint64_t bytes_max = info->data_bytes == UINT64_MAX ? 0 : info->data_bytes;

    must(info->key_bytes == 32 || info->key_bytes == 64, "key size");
    must(sector == 512 || sector == 1024 || sector == 2048 || sector == 4096,
         "sector size");
    must(info->data_offset_bytes <= INT64_MAX - bytes_max &&
         info->data_offset_bytes % sector == 0, "place of the data");
    must(detached || info->data_offset_bytes >= info->header_bytes,
         "data in the header");
    must(info->header_bytes >= 2 * COPY_BYTES &&
         info->header_bytes <= WEIR_HEADER_BYTES_MAX, "length");
    must(info->tweak_units + bytes_max / 512 >= info->tweak_units, "tweak");
}

static void unlock(WeirHeader *header, bool derive)
{
    const WeirHeaderLimits limits = {
        .memory_bytes = 1 << 20, .time_s = derive,
    };
    size_t key_bytes = weir_header_info(header)->key_bytes;
    char err[256] = "";
    void *key;

    must(weir_secret_new(&key, key_bytes) == 0, "no locked memory");
    for (int keyslot = -1; keyslot < 2; keyslot++) {
        if (weir_header_unlock(header, keyslot, PASSPHRASE,
                               strlen(PASSPHRASE), &limits, key, err,
                               sizeof(err)) < 0) {
            check_message(err);
        }
    }
    weir_secret_free(key, key_bytes);
}

static void load(uint8_t flags, size_t n_bytes)
{
    bool detached = flags & DETACHED;
    WeirHeader *header;
    uint64_t needed;
    char err[256] = "";
    int ret = weir_header_load(&header, bytes, n_bytes, DISK_BYTES, detached,
                               &needed, err, sizeof(err));

    must((ret == 0) == (header != NULL), "header and result");
    if (ret == 0) {
        check_info(weir_header_info(header), detached);
        unlock(header, flags & DERIVE);
        weir_header_free(header);
    } else {
        check_message(err);
        must(ret != -EMSGSIZE || needed > n_bytes, "what is needed");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!made) {
        make();
    }
    if (size == 0) {
        return 0;
    }
    memcpy(bytes, made, HEADER_BYTES);
    change_all(data + 1, size - 1);
    if (!(data[0] & UNSEALED)) {
        seal();
    }
    if (data[0] & IN_HALVES) {
        load(data[0], HEADER_BYTES / 2);
    }
    load(data[0], HEADER_BYTES);
    return 0;
}

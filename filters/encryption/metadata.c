/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/metadata.h"
#include "encryption/xts.h"

/*
 * The binary part, big-endian (LUKS2 on-disk format specification, 2.1):
 *
 *   offset  bytes
 *        0      6  magic: "LUKS", and "SKUL" in the second copy, 0xba 0xbe
 *        6      2  version: 2
 *        8      8  length of the copy
 *       16      8  number
 *       24     48  label
 *       72     32  name of the checksum's hash
 *      104     64  salt, another one in each copy
 *      168     40  UUID
 *      208     48  subsystem
 *      256      8  offset of the copy
 *      448     64  checksum of the copy with this field zero
 *     4096         JSON text, zeroes behind it
 */
#define MAGIC_BYTES 6
#define VERSION_OFFSET 6
#define LENGTH_OFFSET 8
#define NUMBER_OFFSET 16
#define HASH_OFFSET 72
#define HASH_BYTES 32
#define SALT_OFFSET 104
#define SALT_BYTES 64
#define PLACE_OFFSET 256
#define CHECKSUM_OFFSET 448
#define CHECKSUM_BYTES 64
#define JSON_OFFSET 4096
#define COPY_BYTES_MIN (16 * 1024)
#define COPY_BYTES_MAX (4 * 1024 * 1024)

struct WeirMetadata {
    size_t copy_bytes;
    int to_mend;
    uint8_t *copies[WEIR_METADATA_COPIES];
};

static const uint8_t magic[WEIR_METADATA_COPIES][MAGIC_BYTES] = {
    { 'L', 'U', 'K', 'S', 0xba, 0xbe }, { 'S', 'K', 'U', 'L', 0xba, 0xbe },
};

static uint64_t get_be(const uint8_t *p, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

static void put_be64(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        p[i] = value >> (56 - 8 * i);
    }
}

/* Returns the hash that the copy is protected with, or 0. */
static int hash_of(const uint8_t *copy)
{
    char name[HASH_BYTES + 1] = "";
    int algo;

    memcpy(name, copy + HASH_OFFSET, HASH_BYTES);
    algo = gcry_md_map_name(name);
    return algo && gcry_md_get_algo_dlen(algo) <= CHECKSUM_BYTES ? algo : 0;
}

/* copy: its checksum field is zeroed, and then what `checksum` points to. */
static int make_checksum(uint8_t *copy, size_t bytes, uint8_t *checksum)
{
    int algo = hash_of(copy);

    if (!algo) {
        return -EINVAL;
    }
    memset(copy + CHECKSUM_OFFSET, 0, CHECKSUM_BYTES);
    memset(checksum, 0, CHECKSUM_BYTES);
    gcry_md_hash_buffer(algo, checksum, copy, bytes);
    memcpy(copy + CHECKSUM_OFFSET, checksum, CHECKSUM_BYTES);
    return 0;
}

/* --- load --- */

static bool has_valid_fields(const uint8_t *at, int copy, uint64_t offset,
                             size_t room_bytes)
{
    uint64_t length;

    if (room_bytes < COPY_BYTES_MIN || memcmp(at, magic[copy], MAGIC_BYTES) ||
        get_be(at + VERSION_OFFSET, 2) != 2 ||
        get_be(at + PLACE_OFFSET, 8) != offset) {
        return false;
    }
    length = get_be(at + LENGTH_OFFSET, 8);
    return length >= COPY_BYTES_MIN && length <= COPY_BYTES_MAX &&
           length <= room_bytes && (copy == 0 || length == offset);
}

/* Returns a valid copy in memory of its own; NULL: there is none, or none. */
static uint8_t *load_copy(const uint8_t *bytes, size_t n_bytes, int copy,
                          uint64_t offset)
{
    uint8_t found[CHECKSUM_BYTES], computed[CHECKSUM_BYTES];
    uint8_t *at;
    size_t length;

    if (offset > n_bytes ||
        !has_valid_fields(bytes + offset, copy, offset, n_bytes - offset)) {
        return NULL;
    }
    length = get_be(bytes + offset + LENGTH_OFFSET, 8);
    at = malloc(length);
    if (!at) {
        return NULL;
    }
    memcpy(at, bytes + offset, length);
    memcpy(found, at + CHECKSUM_OFFSET, CHECKSUM_BYTES);
    if (make_checksum(at, length, computed) < 0 ||
        memcmp(found, computed, gcry_md_get_algo_dlen(hash_of(at))) ||
        !memchr(at + JSON_OFFSET, 0, length - JSON_OFFSET)) {
        free(at);
        return NULL;
    }
    return at;
}

/* Without the first copy, nobody tells where the second one is. */
static uint8_t *find_second(const uint8_t *bytes, size_t n_bytes,
                            const uint8_t *first)
{
    uint8_t *second = NULL;

    if (first) {
        return load_copy(bytes, n_bytes, 1, get_be(first + LENGTH_OFFSET, 8));
    }
    for (uint64_t at = COPY_BYTES_MIN; at <= COPY_BYTES_MAX && !second;
         at *= 2) {
        second = load_copy(bytes, n_bytes, 1, at);
    }
    return second;
}

static uint64_t number_of(const uint8_t *copy)
{
    return get_be(copy + NUMBER_OFFSET, 8);
}

/* Make a copy say what the other one says, in its own place. */
static int imitate(WeirMetadata *m, int copy)
{
    uint8_t checksum[CHECKSUM_BYTES], salt[SALT_BYTES];
    uint8_t *at = malloc(m->copy_bytes);

    if (!at) {
        return -ENOMEM;
    }
    gcry_create_nonce(salt, sizeof(salt));
    free(m->copies[copy]);
    m->copies[copy] = at;
    memcpy(at, m->copies[!copy], m->copy_bytes);
    memcpy(at, magic[copy], MAGIC_BYTES);
    memcpy(at + SALT_OFFSET, salt, SALT_BYTES);
    put_be64(at + PLACE_OFFSET, copy ? m->copy_bytes : 0);
    return make_checksum(at, m->copy_bytes, checksum);
}

static int choose(WeirMetadata *m)
{
    const uint8_t *first = m->copies[0], *second = m->copies[1];

    if (!first && !second) {
        return -EINVAL;
    }
    m->copy_bytes = get_be((first ? first : second) + LENGTH_OFFSET, 8);
    if (!first || (second && number_of(second) > number_of(first))) {
        m->to_mend = 0;
    } else if (!second || number_of(second) != number_of(first)) {
        m->to_mend = 1;
    }
    return m->to_mend < 0 ? 0 : imitate(m, m->to_mend);
}

int weir_metadata_load(WeirMetadata **out, const void *bytes, size_t n_bytes,
                       char *err, size_t err_size)
{
    WeirMetadata *m = calloc(1, sizeof(*m));
    int ret = -ENOMEM;

    *out = NULL;
    if (m && weir_xts_library() == 0) {
        m->to_mend = -1;
        m->copies[0] = load_copy(bytes, n_bytes, 0, 0);
        m->copies[1] = find_second(bytes, n_bytes, m->copies[0]);
        ret = choose(m);
    }
    if (ret < 0) {
        snprintf(err, err_size, ret == -ENOMEM ? "no memory for the header" :
                 "neither of the header's two copies is valid");
        weir_metadata_free(m);
        return ret;
    }
    *out = m;
    return 0;
}

void weir_metadata_free(WeirMetadata *m)
{
    if (m) {
        free(m->copies[0]);
        free(m->copies[1]);
        free(m);
    }
}

/* --- use --- */

bool weir_metadata_is_first(const void *bytes)
{
    return !memcmp(bytes, magic[0], MAGIC_BYTES);
}

const char *weir_metadata_json(const WeirMetadata *m)
{
    return (const char *)m->copies[0] + JSON_OFFSET;
}

size_t weir_metadata_copy_bytes(const WeirMetadata *m)
{
    return m->copy_bytes;
}

const void *weir_metadata_copy(const WeirMetadata *m, int copy)
{
    return m->copies[copy];
}

int weir_metadata_to_mend(const WeirMetadata *m)
{
    return m->to_mend;
}

void weir_metadata_mended(WeirMetadata *m)
{
    m->to_mend = -1;
}

int weir_metadata_set(WeirMetadata *m, const char *json)
{
    size_t room = m->copy_bytes - JSON_OFFSET, length = strlen(json);
    uint64_t number = number_of(m->copies[0]) + 1;
    uint8_t checksum[CHECKSUM_BYTES];

    if (length >= room) {
        return -ENOSPC;
    }
    for (int i = 0; i < WEIR_METADATA_COPIES; i++) {
        put_be64(m->copies[i] + NUMBER_OFFSET, number);
        memset(m->copies[i] + JSON_OFFSET, 0, room);
        memcpy(m->copies[i] + JSON_OFFSET, json, length);
        make_checksum(m->copies[i], m->copy_bytes, checksum);
    }
    return 0;
}

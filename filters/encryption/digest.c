/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The digest of a job: a PBKDF2 of (version 2, big-endian, strings without
 * their end)
 *
 *   "v2", the volume key before, the volume key after,
 *   the keyslot: mode, direction; its area: type, offset, size, hash (strings
 *   and 64 bits), sector size (32 bits), or of data that moves, by how much,
 *   the two backup segments: type, offset, size ("dynamic"), and of a crypt
 *   one: tweak, encryption, sector size (32 bits); and of what moves first.
 */
#include <errno.h>
#include <gcrypt.h>
#include <gpg-error.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/job-int.h"
#include "encryption/json.h"
#include "encryption/secret.h"
#include "encryption/xts.h"

#define DATA_BYTES_MAX 4096
#define SALT_BYTES_MAX 512
#define DIGEST_BYTES_MAX 64
#define TEXT_BYTES_MAX 128

/* What the digest is of; with keys in it. */
typedef struct Data {
    uint8_t *bytes;             /* of DATA_BYTES_MAX, from weir_secret_new() */
    size_t n;
    bool failed;
} Data;

static void add(Data *data, const void *bytes, size_t n)
{
    if (n > DATA_BYTES_MAX - data->n) {
        data->failed = true;
        return;
    }
    memcpy(data->bytes + data->n, bytes, n);
    data->n += n;
}

static void add_number(Data *data, uint64_t value, int bytes)
{
    uint8_t be[8];

    for (int i = 0; i < bytes; i++) {
        be[i] = value >> (8 * (bytes - 1 - i));
    }
    add(data, be, bytes);
}

static void add_string(Data *data, json_object *object, const char *name)
{
    json_object *value = weir_json_member(object, name);

    if (!json_object_is_type(value, json_type_string)) {
        data->failed = true;
        return;
    }
    add(data, json_object_get_string(value),
        strlen(json_object_get_string(value)));
}

/* A number as a string, or a word. */
static void add_u64(Data *data, json_object *object, const char *name)
{
    json_object *value = weir_json_member(object, name);
    const char *text = json_object_is_type(value, json_type_string)
                       ? json_object_get_string(value) : "";

    if (!strcmp(text, "dynamic")) {
        add_string(data, object, name);
    } else {
        data->failed |= *text < '0' || *text > '9';
        add_number(data, strtoull(text, NULL, 10), 8);
    }
}

static void add_u32(Data *data, json_object *object, const char *name)
{
    json_object *value = weir_json_member(object, name);

    data->failed |= !json_object_is_type(value, json_type_int);
    add_number(data, json_object_get_int64(value), 4);
}

static void add_keyslot(Data *data, json_object *keyslot, bool shifts)
{
    json_object *area = weir_json_member(keyslot, "area");

    add_string(data, keyslot, "mode");
    add_string(data, keyslot, "direction");
    add_string(data, area, "type");
    add_u64(data, area, "offset");
    add_u64(data, area, "size");
    if (shifts) {
        add_u64(data, area, "shift_size");
        return;
    }
    add_string(data, area, "hash");
    add_u32(data, area, "sector_size");
}

static void add_segment(Data *data, json_object *segment, bool is_crypt)
{
    add_string(data, segment, "type");
    add_u64(data, segment, "offset");
    add_u64(data, segment, "size");
    if (is_crypt) {
        add_u64(data, segment, "iv_tweak");
        add_string(data, segment, "encryption");
        add_u32(data, segment, "sector_size");
    }
}

static int collect(WeirJob *job, const void *before, const void *after,
                   Data *data)
{
    const WeirJobInfo *info = &job->info;

    add(data, "v2", 2);
    if (info->before.is_crypt) {
        add(data, before, info->before.key_bytes);
    }
    if (info->after.is_crypt) {
        add(data, after, info->after.key_bytes);
    }
    add_keyslot(data, job->keyslot, info->shift_bytes);
    add_segment(data, job->before, info->before.is_crypt);
    add_segment(data, job->after, info->after.is_crypt);
    if (info->shift_bytes) {
        add_segment(data, job->moved, false);
    }
    return data->failed ? -EINVAL : 0;
}

/* --- base64 --- */

/* Returns how many bytes, or -EINVAL. */
static int decode(const char *text, uint8_t out[SALT_BYTES_MAX])
{
    gpgrt_b64state_t state;
    size_t n = strlen(text);
    gpg_error_t failed;

    if (n > SALT_BYTES_MAX) {
        return -EINVAL;
    }
    memcpy(out, text, n);
    state = gpgrt_b64dec_start(NULL);
    if (!state) {
        return -ENOMEM;
    }
    failed = gpgrt_b64dec_proc(state, out, n, &n);
    if (gpgrt_b64dec_finish(state) || (failed && gpg_err_code(failed) !=
                                       GPG_ERR_EOF)) {
        return -EINVAL;
    }
    return n;
}

/* Without the ends of lines that the library puts in. */
static size_t strip(char *text, size_t n)
{
    size_t left = 0;

    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\n') {
            text[left++] = text[i];
        }
    }
    text[left] = 0;
    return left;
}

static int encode(const uint8_t *bytes, size_t n, char out[TEXT_BYTES_MAX])
{
    gpgrt_stream_t stream = gpgrt_fopenmem(0, "w+b");
    gpgrt_b64state_t state = stream ? gpgrt_b64enc_start(stream, "") : NULL;
    size_t got = 0;
    int ret = -ENOMEM;

    if (state && !gpgrt_b64enc_write(state, bytes, n)) {
        ret = 0;
    }
    if (state && gpgrt_b64enc_finish(state)) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        gpgrt_rewind(stream);
        gpgrt_read(stream, out, TEXT_BYTES_MAX - 1, &got);
        strip(out, got);
    }
    if (stream) {
        gpgrt_fclose(stream);
    }
    return ret;
}

/* --- the digest --- */

static json_object *digest_json(WeirJob *job)
{
    char name[16];

    snprintf(name, sizeof(name), "%d", job->digest_id);
    return weir_json_member(weir_json_member(job->root, "digests"), name);
}

static const char *text_of(json_object *object, const char *name)
{
    json_object *value = weir_json_member(object, name);

    return json_object_is_type(value, json_type_string)
           ? json_object_get_string(value) : "";
}

static int derive(json_object *digest, const Data *data,
                  char text[TEXT_BYTES_MAX])
{
    int64_t iterations = json_object_get_int64(weir_json_member(digest,
                                                               "iterations"));
    int hash = gcry_md_map_name(text_of(digest, "hash"));
    uint8_t salt[SALT_BYTES_MAX], out[DIGEST_BYTES_MAX];
    int n = decode(text_of(digest, "salt"), salt);
    size_t bytes = hash ? gcry_md_get_algo_dlen(hash) : 0;

    if (n <= 0 || !bytes || bytes > sizeof(out) || iterations < 1 ||
        strcmp(text_of(digest, "type"), "pbkdf2")) {
        return -EINVAL;
    }
    if (gcry_kdf_derive(data->bytes, data->n, GCRY_KDF_PBKDF2, hash, salt, n,
                        iterations, bytes, out)) {
        return -ENOMEM;
    }
    return encode(out, bytes, text);
}

/* The digest that the job should have, as text. */
static int compute(WeirJob *job, const void *before, const void *after,
                   char text[TEXT_BYTES_MAX])
{
    Data data = { 0 };
    void *memory;
    int ret = weir_xts_library();

    if (ret == 0) {
        ret = weir_secret_new(&memory, DATA_BYTES_MAX);
    }
    if (ret < 0) {
        return ret;
    }
    data.bytes = memory;
    ret = collect(job, before, after, &data);
    if (ret == 0) {
        ret = derive(digest_json(job), &data, text);
    }
    weir_secret_free(memory, DATA_BYTES_MAX);
    return ret;
}

int weir_job_check_digest(WeirJob *job, const void *before, const void *after,
                          char *err, size_t err_size)
{
    char text[TEXT_BYTES_MAX];
    int ret = compute(job, before, after, text);

    if (ret == 0 && strcmp(text, text_of(digest_json(job), "digest"))) {
        snprintf(err, err_size, "the re-encryption that has begun does not "
                 "match its digest: somebody has changed the header");
        return -EBADMSG;
    }
    if (ret < 0) {
        snprintf(err, err_size, "the digest of the re-encryption cannot be "
                 "checked: %s", strerror(-ret));
    }
    return ret;
}

const char *weir_job_set_block(WeirJob *job, uint32_t block_bytes,
                               const void *before, const void *after)
{
    json_object *area = weir_json_member(job->keyslot, "area");
    char text[TEXT_BYTES_MAX];

    json_object_object_add(area, "sector_size",
                           json_object_new_int(block_bytes));
    if (compute(job, before, after, text) < 0) {
        return NULL;
    }
    json_object_object_add(digest_json(job), "digest",
                           json_object_new_string(text));
    job->info.block_bytes = block_bytes;
    return weir_job_text(job);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever the JSON of a header says of a job, reading it is free of crashes;
 * what is refused has a message of one line; what is taken makes sense, can be
 * set to other places and finished, and works without reaching beyond its
 * disks. The text need not be one that libcryptsetup would take: it is read
 * from the disk once more, where it can be another one by then.
 *
 * The input is a byte of flags and the text. Flags: 1, the digest is checked;
 * 2, the disk is read-only; 4, only one copy is there. Half of the changes are
 * made to values, so that the text stays JSON.
 */
#include <gcrypt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/job.h"
#include "encryption/json.h"
#include "encryption/metadata.h"
#include "encryption/reencrypt.h"
#include "encryption/xts.h"

#define COPY_BYTES 16384
#define JSON_OFFSET 4096
#define TEXT_BYTES_MAX (COPY_BYTES - JSON_OFFSET - 1)
#define CHECKSUM_OFFSET 448
#define HEADER_BYTES_MAX (136u << 20)
#define DATA_BYTES_MAX (8u << 20)
#define KEY_BYTES 64
#define STEPS 64

enum { CHECK_DIGEST = 1, READ_ONLY = 2, ONE_COPY = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void check_message(const char *err)
{
    must(err[0] && !strchr(err, '\n'), "refused without a line of reason");
}

/* --- a header with this text --- */

static void put_be64(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        p[i] = value >> (56 - 8 * i);
    }
}

static void make_copy(uint8_t *at, int copy, const char *text)
{
    memset(at, 0, COPY_BYTES);
    memcpy(at, copy ? "SKUL\xba\xbe\0\2" : "LUKS\xba\xbe\0\2", 8);
    put_be64(at + 8, COPY_BYTES);
    put_be64(at + 16, 3);
    strcpy((char *)at + 72, "sha256");
    put_be64(at + 256, copy * COPY_BYTES);
    strcpy((char *)at + JSON_OFFSET, text);
    gcry_md_hash_buffer(GCRY_MD_SHA256, at + CHECKSUM_OFFSET, at, COPY_BYTES);
}

static size_t make_header(uint8_t *bytes, const char *text, uint8_t flags)
{
    make_copy(bytes, 0, text);
    make_copy(bytes + COPY_BYTES, 1, text);
    return flags & ONE_COPY ? COPY_BYTES : 2 * COPY_BYTES;
}

/* --- what the text says --- */

static void check_side(const WeirJobInfo *info, const WeirJobSide *side)
{
    if (!side->is_crypt) {
        must(!side->key_bytes && !side->sector_bytes, "a plain side");
        return;
    }
    must(side->key_bytes == 32 || side->key_bytes == 64, "key size");
    must(side->sector_bytes >= 512 &&
         info->block_bytes % side->sector_bytes == 0, "sector size");
    must(side->keyslots && side->digest >= 0, "keyslots");
}

static void check_info(const WeirJobInfo *info)
{
    must(info->block_bytes >= 512 && info->block_bytes <= 65536 &&
         !(info->block_bytes & (info->block_bytes - 1)), "block size");
    must(info->hash_bytes > 0 && info->hash_bytes <= WEIR_JOB_HASH_BYTES_MAX,
         "hash");
    must(info->area_bytes >= info->hash_bytes &&
         info->area_bytes <= HEADER_BYTES_MAX &&
         info->area_offset <= HEADER_BYTES_MAX - info->area_bytes, "area");
    must(info->data_offset_bytes <= INT64_MAX, "place of the data");
    must(info->hot_bytes / info->block_bytes <=
         info->area_bytes / info->hash_bytes, "room for checksums");
    must(info->head_bytes == UINT64_MAX ||
         info->head_bytes % info->block_bytes == 0, "place of the job");
    must(info->before.is_crypt || info->after.is_crypt, "nothing to do");
    check_side(info, &info->before);
    check_side(info, &info->after);
}

static void check_same(const WeirJobInfo *info, const char *text)
{
    char err[256] = "";
    WeirJob *again;

    if (weir_job_load(&again, text, err, sizeof(err)) < 0) {
        must(false, err);
    }
    must(weir_job_info(again)->mode == info->mode &&
         weir_job_info(again)->backward == info->backward &&
         weir_job_info(again)->head_bytes == info->head_bytes &&
         weir_job_info(again)->hot_bytes == info->hot_bytes,
         "a place that was set is another one when it is loaded");
    weir_job_free(again);
}

/* Somewhere in the middle, with a hotzone and without. */
static void set_and_finish(const char *text)
{
    WeirJobArea areas[WEIR_JOB_AREAS_MAX];
    char err[256] = "";
    uint32_t block;
    size_t n_areas;
    WeirJob *job;

    if (weir_job_load(&job, text, err, sizeof(err)) < 0) {
        return;
    }
    block = weir_job_info(job)->block_bytes;
    for (int i = 1; i < 4; i++) {
        text = weir_job_set(job, i * block, i & 1 ? block : 0, 8 * block);
        must(text, "no text");
        check_same(weir_job_info(job), text);
    }
    text = weir_job_finish(job, areas, &n_areas);
    must(text && n_areas <= WEIR_JOB_AREAS_MAX, "areas");
    must(!weir_job_exists(text), "the job is still there");
    weir_job_free(job);
}

static bool load(const char *text, WeirJobInfo *info)
{
    char err[256] = "";
    WeirJob *job;
    int ret = weir_job_load(&job, text, err, sizeof(err));

    must((ret == 0) == (job != NULL), "job and result");
    if (ret < 0) {
        check_message(err);
        return false;
    }
    *info = *weir_job_info(job);
    check_info(info);
    weir_job_free(job);
    return true;
}

/* --- at work, on disks that forget --- */

typedef struct Disks {
    WeirJobInfo info;
    uint64_t data_bytes;        /* of the disk with the data */
    bool read_only;
} Disks;

static void check_place(const Disks *disks, WeirReencryptDevice dev,
                        uint64_t offset, uint64_t bytes)
{
    uint64_t from = dev == WEIR_REENCRYPT_DATA ? disks->info.data_offset_bytes
                                               : 0;
    uint64_t end = dev == WEIR_REENCRYPT_DATA ? disks->data_bytes
                                              : HEADER_BYTES_MAX;

    must(offset >= from && offset <= end && bytes <= end - offset,
         "a request beyond its disk");
}

static int host_read(void *opaque, WeirReencryptDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    check_place(opaque, dev, offset, bytes);
    memset(buf, (int)(offset >> 9), bytes);
    return 0;
}

static int host_write(void *opaque, WeirReencryptDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf, bool fua)
{
    const Disks *disks = opaque;

    (void)buf;
    (void)fua;
    check_place(disks, dev, offset, bytes);
    must(!disks->read_only, "a write to a disk that is read-only");
    return 0;
}

static int host_flush(void *opaque, WeirReencryptDevice dev)
{
    (void)opaque;
    (void)dev;
    return 0;
}

static void host_wait(void *opaque, WeirReencrypt *r,
                      WeirReencryptQueue *queue)
{
    (void)opaque;
    (void)r;
    (void)queue;
    must(false, "a request waits, for nobody");
}

static void host_queue(void *opaque, WeirReencryptQueue *queue)
{
    (void)opaque;
    (void)queue;
}

static void host_each(void *opaque, void (*fn)(void *arg, unsigned i),
                      void *arg, unsigned n)
{
    (void)opaque;
    for (unsigned i = 0; i < n; i++) {
        fn(arg, i);
    }
}

static void host_compute(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    fn(arg);
}

static const WeirReencryptHost host = {
    .read = host_read, .write = host_write, .flush = host_flush,
    .wait = host_wait, .each = host_each, .compute = host_compute,
    .wake = host_queue, .queue_init = host_queue,
};

static void use(WeirReencrypt *r, const Disks *disks)
{
    static uint8_t buffer[2 * 65536];
    WeirReencryptInfo info;

    weir_reencrypt_query(r, &info);
    if (weir_reencrypt_load(r) < 0) {
        return;
    }
    for (int i = 0; i < 8; i++) {
        uint64_t blocks = info.data_bytes / info.block_bytes;
        uint64_t at = i * (blocks / 8) * info.block_bytes;

        weir_reencrypt_read(r, at, 2 * info.block_bytes, buffer);
        if (!disks->read_only) {
            weir_reencrypt_write(r, at, info.block_bytes, buffer, false);
        }
    }
    for (int i = 0; i < STEPS && !disks->read_only; i++) {
        if (weir_reencrypt_step(r, 64 << 10) <= 0) {
            break;
        }
    }
}

/* A disk that is as long as the job needs. */
static bool make_disk(Disks *disks)
{
    const WeirJobInfo *info = &disks->info;
    uint64_t head = info->head_bytes == UINT64_MAX ? 0 : info->head_bytes;
    uint64_t bytes = head + info->hot_bytes + 16 * info->block_bytes;

    disks->data_bytes = info->data_offset_bytes + bytes;
    return bytes <= DATA_BYTES_MAX && disks->data_bytes <= INT64_MAX;
}

static void work(const uint8_t *header, size_t header_bytes, Disks *disks,
                 bool check_digest)
{
    static uint8_t keys[2][KEY_BYTES];
    const WeirReencryptOpen open = {
        .header = header,
        .header_bytes = header_bytes,
        .disk_bytes = disks->data_bytes,
        .key_before = keys[0],
        .key_after = keys[1],
        .check_digest = check_digest,
        .read_only = disks->read_only,
        .ciphers = 1,
        .hotzone_bytes = 128 << 10,
        .chunk_bytes = 64 << 10,
    };
    char err[256] = "";
    WeirReencrypt *r;

    for (int i = 0; i < KEY_BYTES; i++) {
        keys[0][i] = i;
        keys[1][i] = 3 * i;
    }
    if (weir_reencrypt_open(&r, &open, &host, disks, err, sizeof(err)) < 0) {
        check_message(err);
        return;
    }
    use(r, disks);
    weir_reencrypt_free(r);
}

/* --- the fuzzer --- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t header[2 * COPY_BYTES];
    char text[TEXT_BYTES_MAX + 1] = "";
    Disks disks = { 0 };
    size_t n_bytes;

    must(weir_xts_library() == 0, "no libgcrypt");
    if (size == 0 || size - 1 > TEXT_BYTES_MAX) {
        return 0;
    }
    memcpy(text, data + 1, size - 1);
    n_bytes = make_header(header, text, data[0]);
    if (!load(text, &disks.info)) {
        return 0;
    }
    set_and_finish(text);
    disks.read_only = data[0] & READ_ONLY;
    if (make_disk(&disks)) {
        work(header, n_bytes, &disks, data[0] & CHECK_DIGEST);
    }
    return 0;
}

/* --- changes --- */

static const char *const values[] = {
    "null", "{}", "[]", "[\"0\"]", "[0]", "0", "-1", "512", "4096", "65536",
    "4294967295", "18446744073709551615", "\"\"", "\"0\"", "\"dynamic\"",
    "\"512\"", "\"131072\"", "\"18446744073709551615\"", "\"backup-final\"",
    "\"9223372036854775807\"", "\"aes-xts-plain64\"", "\"crypt\"",
    "\"linear\"", "\"reencrypt\"", "[\"in-reencryption\"]", "\"encrypt\"",
    "\"decrypt\"", "\"backward\"", "\"online-reencrypt-v2\"", "\"sha512\"",
};

/* Give each value below a number, and the chosen one another content. */
static void change_value(json_object *parent, int *left, unsigned seed)
{
    struct lh_entry *e = weir_json_first(parent);

    for (; e && *left >= 0; e = e->next) {
        if ((*left)-- == 0) {
            const char *by = values[seed / 16 %
                                    (sizeof(values) / sizeof(values[0]))];

            if (seed % 16 == 0) {
                json_object_object_del(parent, lh_entry_k(e));
            } else {
                json_object_object_add(parent, lh_entry_k(e),
                                       json_tokener_parse(by));
            }
            return;
        }
        change_value((json_object *)lh_entry_v(e), left, seed);
    }
}

static size_t change_text(uint8_t *data, size_t size, size_t max_size,
                          unsigned seed)
{
    char text[TEXT_BYTES_MAX + 1] = "";
    int left = seed / 1024 % 128;
    json_object *root;
    const char *out;
    size_t n;

    memcpy(text, data + 1, size - 1);
    root = weir_json_parse(text);
    change_value(root, &left, seed);
    out = root ? json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN |
                                                JSON_C_TO_STRING_NOSLASHESCAPE)
               : "";
    n = strlen(out);
    if (n > 0 && n < max_size) {
        memcpy(data + 1, out, n);
        size = n + 1;
    }
    json_object_put(root);
    return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed)
{
    if (seed % 2 || size < 2 || size - 1 > TEXT_BYTES_MAX) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    return change_text(data, size, max_size, seed / 2);
}
